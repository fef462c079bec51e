#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "graft/graph.h"
#include "graft/session.h"

namespace graft {

struct LoraOptions {
  std::int64_t rank = 8;
  double alpha = 16.0;  ///< adapters are scaled by alpha / rank
  /// Names of modules, or their last parts: "q_proj" is every layer's, "layers.0.mlp.up_proj" one.
  std::vector<std::string> targets = {"q_proj", "v_proj"};
  double dropout = 0.0;  ///< on the adapters' inputs; for the graph that trains only
};

namespace passes {

/// Low-rank adapters (Hu et al. 2021): each product x·W + b whose weight's module is a target becomes x·W + b + (alpha / rank)·(x·A)·B with the
/// parameters {module}.lora_A.weight [in, rank], uniform in ±1/√in, and {module}.lora_B.weight [rank, out], zeros. All parameters of the graph become
/// states that no checkpoint holds: nothing trains them, and sessions share them by name as before. Apply it to a forward pass, before `differentiate`;
/// to validation and generation graphs likewise. Throws Error on nonsense settings and on a target that names no product's weight, listing what there is.
Graph lora(const Graph& graph, const LoraOptions& options);

}  // namespace passes

/// W + (alpha / rank)·A·B, row-major, if the session's graph has adapters of `weight` ("…q_proj.weight"), else `weight` as it is. Summed in f64.
std::vector<double> merged_weight(Session& session, std::string_view weight, const LoraOptions& options);

}  // namespace graft
