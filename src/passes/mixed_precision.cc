#include <map>

#include "graft/passes.h"

namespace graft::passes {

Graph mixed_precision(const Graph& graph) {
  Graph narrow(graph.seed());
  std::map<Value, Value> casts;  // value of the new graph → the same in bf16
  const auto cast = [&](Value v) {
    Value& found = casts[v];
    if (!found) {
      const std::string name = "bf16:" + narrow.node(v).name + (v.slot > 0 ? ":" + std::to_string(v.slot) : "");
      found = narrow.cast(v, DType::bf16, graph.find(name) ? std::string() : name);
    }
    return found;
  };
  for (const Node& node : graph.nodes()) {
    std::vector<Value> inputs = node.inputs;  // nodes of the new graph are numbered anew
    for (Value& v : inputs) v = {narrow.find(graph.node(v).name).node, v.slot};
    if (std::holds_alternative<MatMul>(node.op) && node.outputs[0].dtype == DType::f32)
      for (std::size_t i : {0u, 1u}) inputs[i] = cast(inputs[i]);
    narrow.record(node.op, std::move(inputs), node.name);
  }
  for (const auto& [name, value] : graph.outputs()) narrow.output(name, {narrow.find(graph.node(value).name).node, value.slot});
  narrow.verify();
  return narrow;
}

}  // namespace graft::passes
