#pragma once
// A small training graph that passes are tried on.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "graft/graft.h"
#include "tests/run_graph.h"

namespace graft::testing {

inline int count_ops(const Graph& graph, const std::string& op) {
  int found = 0;
  for (const Node& node : graph.nodes()) found += op_name(node.op) == op;
  return found;
}

inline double norm_of_difference(const std::vector<double>& a, const std::vector<double>& b) {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    norm += b[i] * b[i];
  }
  return norm > 0 ? std::sqrt(difference / norm) : std::sqrt(difference);
}

inline constexpr std::int64_t kStepRows = 32;

/// Forward, loss, gradients (outputs too) and update of a Llama of `layers` layers.
inline Graph tiny_llama_step(double dropout = 0.0, std::int64_t layers = 2, std::uint64_t seed = 5) {
  Graph g(seed);
  nn::LlamaConfig config;
  config.vocab_size = 17;
  config.hidden_size = 32;
  config.intermediate_size = 48;
  config.num_layers = layers;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.dropout = dropout;
  const nn::Llama model(g, config);
  const Value logits = model.forward(g, g.input_u32("ids", {kStepRows}), Segments::uniform(16));
  const Value loss = g.cross_entropy(logits, g.input_u32("labels", {kStepRows}));
  g.output("loss", loss);
  optim::adamw(g, differentiate(g, loss), {}, {.schedule = {.base = 1e-2}, .clip_norm = 1.0});
  return g;
}

inline Inputs tiny_llama_batch() {
  Inputs batch;
  for (std::int64_t i = 0; i < kStepRows; ++i) {
    batch["ids"].push_back(static_cast<double>(i * 5 % 17));
    batch["labels"].push_back(static_cast<double>((i + 1) * 5 % 17));
  }
  return batch;
}

}  // namespace graft::testing
