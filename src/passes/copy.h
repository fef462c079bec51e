#pragma once
// What passes are made of: a graph copied node by node, with changes on the way.
#include <utility>
#include <vector>

#include "graft/graph.h"

namespace graft::passes {

class Copy {
 public:
  explicit Copy(const Graph& graph) : from(graph), to(graph.seed()), values_(graph.nodes().size()) {}

  const Graph& from;
  Graph to;

  /// What v of `from` is in `to`.
  Value operator()(Value v) const { return values_[static_cast<std::size_t>(v.node)][static_cast<std::size_t>(v.slot)]; }
  std::vector<Value> operator()(const std::vector<Value>& all) const {
    std::vector<Value> mapped;
    for (Value v : all) mapped.push_back((*this)(v));
    return mapped;
  }
  /// v of `from` is `as` from here on.
  void set(Value v, Value as) {
    std::vector<Value>& slots = values_[static_cast<std::size_t>(v.node)];
    slots.resize(from.node(v).outputs.size());
    slots[static_cast<std::size_t>(v.slot)] = as;
  }
  /// All outputs of node n of `from` are those of `as`.
  void set_node(std::int32_t n, Value as) {
    for (std::int32_t slot = 0; slot < static_cast<std::int32_t>(from.node({n, 0}).outputs.size()); ++slot) set({n, slot}, {as.node, slot});
  }
  /// Records node n with `op` and inputs of `to`, under the name it has or another.
  Value record(std::int32_t n, Op op, std::vector<Value> inputs, std::string_view name) {
    const Value made = to.record(std::move(op), std::move(inputs), name);
    set_node(n, made);
    return made;
  }
  Value record(std::int32_t n) {
    const Node& node = from.node({n, 0});
    return record(n, node.op, (*this)(node.inputs), node.name);
  }
  /// The copy, with the outputs, verified.
  Graph finish() {
    for (const auto& [name, value] : from.outputs()) to.output(name, (*this)(value));
    to.verify();
    return std::move(to);
  }

 private:
  std::vector<std::vector<Value>> values_;
};

}  // namespace graft::passes
