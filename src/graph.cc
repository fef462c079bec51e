#include "graft/graph.h"

#include <algorithm>
#include <set>

#include "graft/error.h"
#include "src/infer.h"
#include "src/op_traits.h"
#include "src/util.h"

namespace graft {
namespace {

/// The value whose memory v shares by way of its node, or a Value that names nothing.
Value aliased(const std::vector<Node>& nodes, Value v) {
  const Node& node = nodes[static_cast<std::size_t>(v.node)];
  const int input = alias_of(node.op, v.slot);
  return input < 0 ? Value{} : node.inputs[static_cast<std::size_t>(input)];
}

/// The value that owns v's memory.
Value root(const std::vector<Node>& nodes, Value v) {
  for (Value up = aliased(nodes, v); up; up = aliased(nodes, v)) v = up;
  return v;
}

/// What v was overwritten by, or a Value that names nothing: v is current if it is, or is a view of, the last value written.
Value overwritten_by(const std::vector<Node>& nodes, const std::map<std::int32_t, Value>& overwritten, Value v) {
  const auto it = overwritten.find(root(nodes, v).node);
  if (it == overwritten.end()) return {};
  for (Value at = v; at; at = aliased(nodes, at))
    if (at == it->second) return {};
  return it->second;
}

/// Turns the f32 and bf16 of an op's attributes into f64.
struct Widen {
  static void fix(DType& dtype) {
    if (dtype == DType::f32 || dtype == DType::bf16) dtype = DType::f64;
  }
  void operator()(Input& op) const { fix(op.type.dtype); }
  void operator()(Parameter& op) const { fix(op.type.dtype); }
  void operator()(State& op) const { fix(op.type.dtype); }
  void operator()(Constant& op) const { fix(op.type.dtype); }
  void operator()(Cast& op) const { fix(op.dtype); }
  void operator()(LearningRate& op) const { fix(op.dtype); }
  void operator()(auto& op) const {
    if constexpr (requires { op.bf16; }) op.bf16 = false;
  }
};

std::vector<TensorType> input_types(const Graph& graph, const std::vector<Value>& inputs) {
  std::vector<TensorType> types;
  for (Value v : inputs) types.push_back(graph.type(v));
  return types;
}

}  // namespace

std::string Graph::described(const Op& op, std::string_view name) const { return op_name(op) + " \"" + std::string(name) + "\": "; }

std::string Graph::free_name(const std::string& base) {
  std::int32_t& number = next_number_[scope_ + base];
  std::string name;
  do name = base + "_" + std::to_string(number++);
  while (names_.contains(scope_ + name));
  return name;
}

Value Graph::record(Op op, std::vector<Value> inputs, std::string_view given_name) {
  const bool source = is_source(op);
  std::string name(given_name);
  if (name.empty()) name = free_name(op_name(op));
  if (!source || std::holds_alternative<Constant>(op)) name = scope_ + name;
  if (names_.contains(name)) throw Error(described(op, name) + "the name is taken already");

  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const Value v = inputs[i];
    if (!v || v.node >= static_cast<std::int32_t>(nodes_.size()) || v.slot < 0 ||
        v.slot >= static_cast<std::int32_t>(nodes_[static_cast<std::size_t>(v.node)].outputs.size()))
      throw Error(described(op, name) + "input " + std::to_string(i) + " is not a value of this graph");
    if (const Value by = overwritten_by(nodes_, overwritten_, v))
      throw Error(described(op, name) + "reads \"" + node(v).name + "\" after \"" + node(by).name + "\" overwrote it, use the value that \"" +
                  node(by).name + "\" returned");
  }
  Node made{std::move(op), std::move(inputs), {}, name};
  try {
    made.outputs = infer_types(made.op, input_types(*this, made.inputs));
  } catch (const Error& error) {
    throw Error(described(made.op, name) + error.what());
  }

  const auto index = static_cast<std::int32_t>(nodes_.size());
  if (overwrites(made.op)) {
    std::set<std::int32_t> roots;
    for (int slot = 0; slot < static_cast<int>(made.outputs.size()); ++slot) {
      const Value target = made.inputs[static_cast<std::size_t>(alias_of(made.op, slot))];
      const Value owner = root(nodes_, target);
      const Op& owner_op = node(owner).op;
      if (!std::holds_alternative<State>(owner_op) && !std::holds_alternative<Parameter>(owner_op))
        throw Error(described(made.op, name) + "overwrites \"" + node(target).name + "\", which is not a state or parameter");
      if (!roots.insert(owner.node).second)
        throw Error(described(made.op, name) + "overwrites \"" + node(owner).name + "\" twice");
    }
    for (int slot = 0; slot < static_cast<int>(made.outputs.size()); ++slot)
      overwritten_[root(nodes_, made.inputs[static_cast<std::size_t>(alias_of(made.op, slot))]).node] = {index, slot};
  }
  nodes_.push_back(std::move(made));
  names_.emplace(std::move(name), index);
  return {index, 0};
}

const Node& Graph::node(Value v) const {
  GRAFT_ASSERT(v && v.node < static_cast<std::int32_t>(nodes_.size()));
  return nodes_[static_cast<std::size_t>(v.node)];
}

const TensorType& Graph::type(Value v) const {
  if (!v || v.node >= static_cast<std::int32_t>(nodes_.size()) || v.slot < 0 || v.slot >= static_cast<std::int32_t>(node(v).outputs.size()))
    throw Error("graph: the value asked for is not one of this graph");
  return node(v).outputs[static_cast<std::size_t>(v.slot)];
}

Value Graph::find(std::string_view name) const {
  const auto it = names_.find(name);
  return it == names_.end() ? Value{} : Value{it->second, 0};
}

std::vector<Value> Graph::parameters() const {
  std::vector<Value> found;
  for (std::int32_t i = 0; i < static_cast<std::int32_t>(nodes_.size()); ++i)
    if (std::holds_alternative<Parameter>(nodes_[static_cast<std::size_t>(i)].op)) found.push_back({i, 0});
  return found;
}

void Graph::output(std::string_view name, Value value) {
  if (name.empty()) throw Error("output: needs a name");
  type(value);
  if (const Value by = overwritten_by(nodes_, overwritten_, value))
    throw Error("output \"" + std::string(name) + "\": \"" + node(value).name + "\" was overwritten by \"" + node(by).name + "\", use the value that it returned");
  const auto [it, fresh] = outputs_.emplace(std::string(name), value);
  if (!fresh && it->second != value) throw Error("output \"" + std::string(name) + "\": the name is taken already");
  if (const Value named = find(name); named && named != value)
    throw Error("output \"" + std::string(name) + "\": another node has this name");
}

Graph Graph::to_f64() const {
  Graph copy = *this;
  for (Node& node : copy.nodes_) {
    std::visit(Widen{}, node.op);
    node.outputs = infer_types(node.op, input_types(copy, node.inputs));
  }
  copy.verify();
  return copy;
}

void Graph::verify() const {
  std::set<std::string> seen;
  std::map<std::int32_t, Value> overwritten;
  for (std::int32_t i = 0; i < static_cast<std::int32_t>(nodes_.size()); ++i) {
    const Node& node = nodes_[static_cast<std::size_t>(i)];
    const auto fail = [&](const std::string& what) { throw InternalError("verify: " + described(node.op, node.name) + what); };
    if (!seen.insert(node.name).second) fail("the name is not unique");
    for (Value v : node.inputs) {
      if (!v || v.node >= i) fail("an input is not recorded before it");
      if (v.slot < 0 || v.slot >= static_cast<std::int32_t>(nodes_[static_cast<std::size_t>(v.node)].outputs.size())) fail("an input slot does not exist");
      if (overwritten_by(nodes_, overwritten, v)) fail("reads \"" + nodes_[static_cast<std::size_t>(v.node)].name + "\" after it was overwritten");
    }
    std::vector<TensorType> types;
    try {
      types = infer_types(node.op, input_types(*this, node.inputs));
    } catch (const Error& error) {
      fail(error.what());
    }
    if (types != node.outputs) fail("the types recorded are not those inferred");
    if (overwrites(node.op))
      for (int slot = 0; slot < static_cast<int>(node.outputs.size()); ++slot) overwritten[root(nodes_, {i, slot}).node] = {i, slot};
  }
  for (const auto& [name, value] : outputs_)
    if (!value || value.node >= static_cast<std::int32_t>(nodes_.size())) throw InternalError("verify: output \"" + name + "\" names no node");
}

Graph::Scope::Scope(Graph& graph, std::string_view name) : graph_(graph), restore_(graph.scope_.size()) {
  graph_.scope_ += std::string(name) + ".";
}

Graph::Scope::~Scope() { graph_.scope_.resize(restore_); }

}  // namespace graft
