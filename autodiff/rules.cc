#include "autodiff/rules.h"

#include <type_traits>

#include "graft/error.h"

namespace graft {

Value VjpContext::record(Op op, std::vector<Value> in) {
  const Graph::Scope scope(graph, "grad");
  return graph.record(std::move(op), std::move(in));
}

void VjpContext::give(std::size_t i, Value gradient) {
  GRAFT_ASSERT(wanted[i] && !gradients[i]);
  GRAFT_ASSERT(graph.type(gradient) == graph.type(inputs[i]));
  gradients[i] = gradient;
}

void VjpContext::give(std::size_t i, Op op, std::vector<Value> in) {
  const Graph::Scope scope(graph, "grad");
  give(i, graph.record(std::move(op), std::move(in), names[i]));
}

void VjpContext::give_summed(std::size_t i, Value value, bool negate) {
  const Shape from = shape(value), to = shape(inputs[i]);
  std::vector<Op> ops;
  if (to.size() != from.size()) {
    const Axis axis = to.size() == 1 ? Axis::all : to.cols() == from.cols() ? Axis::rows : Axis::columns;
    const Shape sum = axis == Axis::all ? Shape{} : axis == Axis::rows ? Shape{from.cols()} : Shape{from.rows(), 1};
    ops.emplace_back(Reduce{ReduceFn::sum, axis});
    if (sum != to) ops.emplace_back(Reshape{to});
  } else if (from != to) {
    ops.emplace_back(Reshape{to});
  }
  if (negate) ops.emplace_back(Unary{UnaryFn::neg});
  if (to.size() != from.size() && graph.type(inputs[i]).dtype == DType::bf16) ops.emplace_back(Cast{DType::bf16});  // sums are f32
  if (ops.empty()) return give(i, value);
  for (std::size_t k = 0; k + 1 < ops.size(); ++k) value = record(ops[k], {value});
  give(i, ops.back(), {value});
}

void VjpContext::refuse(std::int32_t slot, const char* what) const {
  if (cotangents[static_cast<std::size_t>(slot)])
    throw Error(node + ": output " + std::to_string(slot) + " (" + what + ") is saved for the backward pass and has no gradient");
}

void apply_rule(const Op& op, VjpContext& c) {
  std::visit(
      [&c](const auto& o) {
        if constexpr (requires { o.no_gradient; })
          throw Error(c.node + ": no gradient, " + std::string(o.no_gradient));
        else
          vjp(o, c);
      },
      op);
}

bool carries_gradient(const Op& op, std::int32_t slot) {
  if (std::holds_alternative<StopGradient>(op)) return false;
  return slot != 2 || !(std::holds_alternative<CrossEntropy>(op) || std::holds_alternative<LinearCrossEntropy>(op));
}

// Sources end every way, and no gradient goes through stop_gradient: the engine never asks.
void vjp(const Input&, VjpContext&) {}
void vjp(const Parameter&, VjpContext&) {}
void vjp(const State&, VjpContext&) {}
void vjp(const Constant&, VjpContext&) {}
void vjp(const StopGradient&, VjpContext&) {}

}  // namespace graft
