#include "tests/op_cases.h"

#include <algorithm>
#include <cmath>
#include <ostream>
#include <random>
#include <utility>

#include "graft/autodiff.h"

namespace graft::testing {
namespace {

template <std::size_t... I>
OpCases cases_of_all(std::index_sequence<I...>) {
  OpCases all;
  const auto append = [&](OpCases more) {
    for (OpCase& op_case : more) all.push_back(std::move(op_case));
  };
  (append(cases(std::type_identity<std::variant_alternative_t<I, Op>>{})), ...);
  return all;
}

std::uint32_t seed_of(const std::string& name) {
  std::uint32_t hash = 2166136261u;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
  return hash;
}

std::vector<double> draw(const Fill& fill, std::int64_t size, const std::string& name) {
  std::mt19937 random(seed_of(name));
  std::vector<double> values(static_cast<std::size_t>(size));
  std::normal_distribution<double> normal;
  std::uniform_real_distribution<double> uniform(fill.a, fill.b);
  double next = -0.05 * static_cast<double>(size);
  for (double& value : values) {
    switch (fill.kind) {
      case Fill::Kind::normal: value = fill.b * normal(random); break;
      case Fill::Kind::uniform: value = uniform(random); break;
      case Fill::Kind::away:
        value = fill.b * normal(random);
        value += std::copysign(0.1, value);
        break;
      case Fill::Kind::apart: value = (next += 0.1); break;
    }
  }
  if (fill.kind == Fill::Kind::apart) std::shuffle(values.begin(), values.end(), random);
  for (double& value : values) value = static_cast<double>(static_cast<float>(value));
  return values;
}

}  // namespace

std::ostream& operator<<(std::ostream& out, const OpCase& op_case) { return out << op_case.name; }

OpCases all_cases() { return cases_of_all(std::make_index_sequence<std::variant_size_v<Op>>()); }

OpCase in_bf16(const OpCase& op_case, const std::vector<std::string>& wide) {
  OpCase narrow = op_case;
  narrow.name += "_bf16";
  narrow.build = [build = op_case.build, wide](Graph& graph) {
    Graph plain(graph.seed());
    build(plain);
    std::vector<std::int32_t> node_of;
    for (const Node& node : plain.nodes()) {
      std::vector<Value> inputs;
      for (const Value v : node.inputs) inputs.push_back({node_of[static_cast<std::size_t>(v.node)], v.slot});
      Op op = node.op;
      const auto round = [&](TensorType& type) {
        if (type.dtype == DType::f32 && std::find(wide.begin(), wide.end(), node.name) == wide.end()) type.dtype = DType::bf16;
      };
      if (auto* input = std::get_if<Input>(&op)) round(input->type);
      if (auto* state = std::get_if<State>(&op)) round(state->type);
      if (auto* constant = std::get_if<Constant>(&op)) round(constant->type);
      node_of.push_back(graph.record(std::move(op), inputs, node.inputs.empty() ? node.name : std::string()).node);
    }
    for (const auto& [name, value] : plain.outputs()) graph.output(name, {node_of[static_cast<std::size_t>(value.node)], value.slot});
  };
  return narrow;
}

OpCases in_bf16(const OpCases& all, const std::vector<std::string>& wide) {
  OpCases narrow;
  for (const OpCase& op_case : all) narrow.push_back(in_bf16(op_case, wide));
  return narrow;
}

Inputs values_of(const OpCase& op_case, const Graph& graph) {
  Inputs values = op_case.inputs;
  for (const Node& node : graph.nodes()) {
    if (!std::holds_alternative<Input>(node.op) || values.contains(node.name)) continue;
    const auto fill = op_case.fills.find(node.name);
    values[node.name] =
        draw(fill == op_case.fills.end() ? Fill{} : fill->second, node.outputs[0].shape.size(), op_case.name + "/" + node.name);
  }
  return values;
}

Wrapped wrap(const OpCase& op_case) {
  Graph plain;
  op_case.build(plain);
  Wrapped wrapped{Graph(plain.seed()), {}, {}};
  Graph& graph = wrapped.graph;
  std::vector<std::int32_t> node_of;
  for (const Node& node : plain.nodes()) {
    std::vector<Value> inputs;
    for (const Value v : node.inputs) inputs.push_back({node_of[static_cast<std::size_t>(v.node)], v.slot});
    Value v = graph.record(node.op, inputs, node.inputs.empty() ? node.name : std::string());
    const bool differentiable_input = std::holds_alternative<Input>(node.op) && is_float(node.outputs[0].dtype);
    if (differentiable_input || std::holds_alternative<Parameter>(node.op)) wrapped.inputs.push_back(v);
    if (differentiable_input) v = graph.scale(v, 0.7);
    node_of.push_back(v.node);
  }
  for (const auto& [name, value] : plain.outputs()) {
    Value y = {node_of[static_cast<std::size_t>(value.node)], value.slot};
    graph.output(name, y);
    if (!is_float(graph.type(y).dtype)) continue;
    if (graph.type(y).dtype != DType::f32) y = graph.cast(y, DType::f32);
    const Shape shape = graph.shape(y);
    const Value c = graph.constant(shape, draw({Fill::Kind::away, 0.0, 1.0}, shape.size(), op_case.name + "/cotangent/" + name));
    const Value straight = graph.scale(graph.sum(graph.mul(y, c)), -1.7);
    const Value bent = graph.scale(graph.sum(graph.mul(graph.tanh(graph.scale(y, 0.5)), c)), 0.6);
    const Value term = graph.add(straight, bent);
    wrapped.loss = wrapped.loss ? graph.add(wrapped.loss, term) : term;
  }
  return wrapped;
}

std::string no_gradient_of(const Op& op) {
  return std::visit(
      []<class T>(const T&) -> std::string {
        if constexpr (requires { T::no_gradient; }) {
          return std::string(T::no_gradient);
        } else {
          return {};
        }
      },
      op);
}

const Node* obstacle(const Graph& graph, Value loss, const std::vector<Value>& from) {
  const std::vector<Node>& nodes = graph.nodes();
  std::vector<char> depends(nodes.size(), 0), leads(nodes.size(), 0);
  for (const Value v : from) depends[static_cast<std::size_t>(v.node)] = 1;
  for (std::size_t i = 0; i < nodes.size(); ++i)
    for (const Value v : nodes[i].inputs)
      if (depends[static_cast<std::size_t>(v.node)] && !std::holds_alternative<StopGradient>(nodes[i].op)) depends[i] = 1;
  leads[static_cast<std::size_t>(loss.node)] = 1;
  for (std::size_t i = nodes.size(); i-- > 0;)
    if (leads[i])
      for (const Value v : nodes[i].inputs) leads[static_cast<std::size_t>(v.node)] = 1;
  for (std::size_t i = 0; i < nodes.size(); ++i)
    if (depends[i] && leads[i] && !no_gradient_of(nodes[i].op).empty()) return &nodes[i];
  return nullptr;
}

bool has_differences(const OpCase& op_case, const Wrapped& wrapped) {
  return wrapped.loss && !wrapped.inputs.empty() && !obstacle(wrapped.graph, wrapped.loss, wrapped.inputs) && op_case.no_differences.empty();
}

Graph with_gradients(const OpCase& op_case) {
  Wrapped wrapped = wrap(op_case);
  if (has_differences(op_case, wrapped)) {
    differentiate(wrapped.graph, wrapped.loss, wrapped.inputs, true);
    return std::move(wrapped.graph);
  }
  Graph graph;
  op_case.build(graph);
  return graph;
}

}  // namespace graft::testing
