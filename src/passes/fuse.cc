#include <algorithm>

#include "graft/passes.h"
#include "src/op_traits.h"
#include "src/passes/copy.h"

namespace graft::passes {
namespace {

/// How many inputs and outputs of the graph read each value.
class Uses {
 public:
  explicit Uses(const Graph& graph) {
    for (const Node& node : graph.nodes()) counts_.emplace_back(node.outputs.size(), 0);
    for (const Node& node : graph.nodes()) std::for_each(node.inputs.begin(), node.inputs.end(), [&](Value v) { ++at(v); });
    for (const auto& [name, value] : graph.outputs()) ++at(value);
  }
  int operator[](Value v) const { return counts_[static_cast<std::size_t>(v.node)][static_cast<std::size_t>(v.slot)]; }

 private:
  int& at(Value v) { return counts_[static_cast<std::size_t>(v.node)][static_cast<std::size_t>(v.slot)]; }
  std::vector<std::vector<int>> counts_;
};

/// Whether the node can take one more input that it adds to its first output.
bool takes_addend(const Node& node) {
  if (std::holds_alternative<MatMul>(node.op)) return node.inputs.size() == 2;
  if (std::holds_alternative<EmbeddingGrad>(node.op)) return node.inputs.size() == 2;
  if (std::holds_alternative<RmsNormGrad>(node.op)) return node.inputs.size() == 4;
  return std::holds_alternative<LayerNormGrad>(node.op) && node.inputs.size() == 5;
}

/// A sum of two values of one type that the node of the later one can do: the sum's node and the earlier value.
struct Absorbed {
  std::int32_t sum = -1;
  Value addend;
};

/// For each node the sum that it takes over.
std::vector<Absorbed> absorbed_sums(const Graph& graph) {
  const Uses uses(graph);
  std::vector<Absorbed> absorbed(graph.nodes().size());
  for (std::int32_t n = 0; n < static_cast<std::int32_t>(graph.nodes().size()); ++n) {
    const Node& node = graph.node({n, 0});
    const auto* binary = std::get_if<Binary>(&node.op);
    if (binary == nullptr || binary->fn != BinaryFn::add || graph.type(node.inputs[0]) != graph.type(node.inputs[1])) continue;
    const auto place = [&](Value v) { return is_source(graph.node(v).op) ? -1 : v.node; };  // a source can be recorded as early as need be
    const auto [earlier, later] = std::minmax(node.inputs[0], node.inputs[1], [&](Value a, Value b) { return place(a) < place(b); });
    if (later.slot == 0 && earlier != later && uses[later] == 1 && takes_addend(graph.node(later)))
      absorbed[static_cast<std::size_t>(later.node)] = {n, earlier};
  }
  return absorbed;
}

}  // namespace

Graph fuse(const Graph& graph) {
  const std::vector<Absorbed> absorbed = absorbed_sums(graph);
  std::vector<bool> done(graph.nodes().size(), false);
  Copy copy(graph);
  for (std::int32_t n = 0; n < static_cast<std::int32_t>(graph.nodes().size()); ++n) {
    const Absorbed& sum = absorbed[static_cast<std::size_t>(n)];
    if (done[static_cast<std::size_t>(n)]) continue;
    if (sum.sum < 0) {
      copy.record(n);
      continue;
    }
    const std::int32_t addend = sum.addend.node;
    if (addend > n) {
      copy.record(addend);
      done[static_cast<std::size_t>(addend)] = true;
    }
    std::vector<Value> inputs = copy(graph.node({n, 0}).inputs);
    inputs.push_back(copy(sum.addend));
    const Value made = copy.record(n, graph.node({n, 0}).op, std::move(inputs), graph.node({sum.sum, 0}).name);
    copy.set({sum.sum, 0}, made);
    done[static_cast<std::size_t>(sum.sum)] = true;
  }
  return copy.finish();
}

}  // namespace graft::passes
