#pragma once
#include <string>

#include "graft/graph.h"

namespace graft::detail {

/// "w", or "attn:1" for a later output of a node.
inline std::string value_name(const Graph& graph, Value v) {
  return graph.node(v).name + (v.slot > 0 ? ":" + std::to_string(v.slot) : "");
}

}  // namespace graft::detail
