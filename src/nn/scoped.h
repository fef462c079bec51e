#pragma once
#include <string>
#include <string_view>

#include "graft/graph.h"

namespace graft::nn::detail {

/// "{name}.{part}", or the part alone for a module without a name.
inline std::string child(std::string_view name, std::string_view part) {
  return name.empty() ? std::string(part) : std::string(name) + "." + std::string(part);
}

/// module.forward with the names of its nodes behind `name`.
template <class Module, class... Args>
Value scoped(Graph& graph, std::string_view name, const Module& module, const Args&... args) {
  const Graph::Scope scope(graph, name);
  return module.forward(graph, args...);
}

/// Sizes of an attention, checked for AttentionConfig and LlamaConfig alike: messages read `LlamaConfig.num_heads: …`.
void check_heads(std::string_view config, std::int64_t hidden_size, std::int64_t num_heads, std::int64_t num_kv_heads,
                 std::int64_t head_dim, double rope_theta);
/// Throws `LlamaConfig.num_layers: 0, must be at least 1` for a size below 1.
void check_size(std::string_view config, std::string_view field, std::int64_t size);

/// Throws `LlamaConfig.window: -1, must not be negative` for one below 0.
void check_not_negative(std::string_view config, std::string_view field, std::int64_t size);

}  // namespace graft::nn::detail
