// Products and elementwise ops.
#include "autodiff/rules.h"
#include "graft/error.h"

namespace graft {

// C = A·B: dA = dC·Bᵀ, dB = Aᵀ·dC; transposed when the operand is. dbias sums over rows; an addend's gradient is dC. Products of bf16
// operands are bf16 products again, and their gradients bf16.
void vjp(const MatMul& op, VjpContext& c) {
  const Value a = c.in(0), b = c.in(1);
  const bool narrow = c.graph.type(a).dtype == DType::bf16;
  const bool products = c.wants(0) || c.wants(1);
  const Value dout = narrow && products && !op.bf16 ? c.record(Cast{DType::bf16}, {c.dout()}) : c.dout();
  const auto give = [&](std::size_t i, MatMul product, std::vector<Value> in) {
    product.bf16 = narrow;
    c.give(i, product, std::move(in));
  };
  if (c.wants(0)) {
    if (op.transpose_a)
      give(0, MatMul{op.transpose_b, true}, {b, dout});
    else
      give(0, MatMul{false, !op.transpose_b}, {dout, b});
  }
  if (c.wants(1)) {
    if (op.transpose_b)
      give(1, MatMul{true, op.transpose_a}, {dout, a});
    else
      give(1, MatMul{!op.transpose_a, false}, {a, dout});
  }
  if (c.inputs.size() < 3 || !c.wants(2)) return;
  if (c.shape(c.in(2)).rank() == 2)
    c.give(2, c.dout());
  else
    c.give(2, Reduce{ReduceFn::sum, Axis::rows}, {c.dout()});
}

void vjp(const Unary& op, VjpContext& c) {
  switch (op.fn) {
    case UnaryFn::neg:
    case UnaryFn::scale: return c.give(0, op, {c.dout()});
    case UnaryFn::add_scalar: return c.give(0, c.dout());
    case UnaryFn::exp:
    case UnaryFn::log:
    case UnaryFn::sqrt:
    case UnaryFn::abs:
    case UnaryFn::tanh:
    case UnaryFn::sigmoid:
    case UnaryFn::relu:
    case UnaryFn::gelu:
    case UnaryFn::gelu_tanh:
    case UnaryFn::silu:
    case UnaryFn::softplus: return c.give(0, UnaryGrad{op.fn, op.alpha}, {c.in(0), c.dout()});
  }
  GRAFT_ASSERT(!"a unary function");
}

void vjp(const Binary& op, VjpContext& c) {
  const Value a = c.in(0), b = c.in(1), dout = c.dout();
  switch (op.fn) {
    case BinaryFn::add:
      if (c.wants(0)) c.give(0, dout);
      if (c.wants(1)) c.give_summed(1, dout);
      return;
    case BinaryFn::sub:
      if (c.wants(0)) c.give(0, dout);
      if (c.wants(1)) c.give_summed(1, dout, true);
      return;
    case BinaryFn::mul:
      if (c.wants(0)) c.give(0, Binary{BinaryFn::mul}, {dout, b});
      if (c.wants(1)) {
        if (c.shape(a) == c.shape(b))
          c.give(1, Binary{BinaryFn::mul}, {dout, a});
        else
          c.give_summed(1, c.record(Binary{BinaryFn::mul}, {dout, a}));
      }
      return;
    case BinaryFn::div: {
      if (c.wants(0)) c.give(0, Binary{BinaryFn::div}, {dout, b});
      if (!c.wants(1)) return;
      const Value da = c.wants(0) ? c.gradients[0] : c.record(Binary{BinaryFn::div}, {dout, b});
      return c.give_summed(1, c.record(Binary{BinaryFn::mul}, {da, c.out()}), true);  // ∂(a/b)/∂b = −(a/b)/b
    }
  }
  GRAFT_ASSERT(!"a binary function");
}

void vjp(const Swiglu&, VjpContext& c) {
  const Value grad = c.record(SwigluGrad{}, {c.in(0), c.in(1), c.dout()});
  for (std::int32_t i : {0, 1})
    if (c.wants(static_cast<std::size_t>(i))) c.give(static_cast<std::size_t>(i), {grad.node, i});
}

void vjp(const Cast&, VjpContext& c) { c.give(0, Cast{c.graph.type(c.in(0)).dtype}, {c.dout()}); }

// The same elements are dropped: the mask is a function of the counter, which the gradient reads too.
void vjp(const Dropout& op, VjpContext& c) { c.give(0, op, {c.dout(), c.in(1)}); }

}  // namespace graft
