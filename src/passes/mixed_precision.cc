#include <map>

#include "graft/passes.h"
#include "src/passes/copy.h"

namespace graft::passes {

Graph mixed_precision(const Graph& graph) {
  Copy copy(graph);
  std::map<Value, Value> casts;  // value of the new graph → the same in bf16
  const auto cast = [&](Value v) {
    Value& found = casts[v];
    if (!found) {
      const std::string name = "bf16:" + copy.to.node(v).name + (v.slot > 0 ? ":" + std::to_string(v.slot) : "");
      found = copy.to.cast(v, DType::bf16, graph.find(name) ? std::string() : name);
    }
    return found;
  };
  for (std::int32_t n = 0; n < static_cast<std::int32_t>(graph.nodes().size()); ++n) {
    const Node& node = graph.node({n, 0});
    std::vector<Value> inputs = copy(node.inputs);
    if (std::holds_alternative<MatMul>(node.op) && node.outputs[0].dtype == DType::f32)
      for (std::size_t i : {0u, 1u}) inputs[i] = cast(inputs[i]);
    copy.record(n, node.op, std::move(inputs), node.name);
  }
  return copy.finish();
}

}  // namespace graft::passes
