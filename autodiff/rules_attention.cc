// Attention and rotary embedding.
#include "autodiff/rules.h"

namespace graft {

// A gradient of the lse adds P ∘ dlse to dS = P ∘ (dP − delta), so that it is taken off delta; it does not reach v.
void vjp(const MultiHeadAttn& op, VjpContext& c) {
  const Value out = c.out(0), lse = c.out(1), dlse = c.dout(1);
  Value dout = c.dout(0), delta;
  if (dout) {
    delta = c.record(AttnDelta{op.heads}, {out, dout});
    if (dlse) delta = c.record(Binary{BinaryFn::sub}, {delta, dlse});
  } else if (c.wants(0) || c.wants(1)) {
    const TensorType type = c.graph.type(out);
    dout = c.record(Constant{type, {0.0}}, {});
    delta = c.record(Unary{UnaryFn::neg}, {dlse});
  }
  std::vector<Value> inputs = {c.in(0), c.in(1), c.in(2), lse, dout, delta};
  inputs.insert(inputs.end(), c.inputs.begin() + 3, c.inputs.end());  // the offsets, if packed
  if (c.wants(0)) c.give(0, MultiHeadAttnGradQ{op}, inputs);
  if (c.wants(1)) c.give(1, MultiHeadAttnGradK{op}, inputs);
  if (c.wants(2) && c.dout(0)) c.give(2, MultiHeadAttnGradV{op}, inputs);
}

// A rotation's transpose is its inverse, by the same positions: same offsets, static and dynamic, and same segments.
void vjp(const Rope& op, VjpContext& c) {
  Rope inverse = op;
  inverse.inverse = !op.inverse;
  std::vector<Value> inputs = c.inputs;
  inputs[0] = c.dout();
  c.give(0, inverse, inputs);
}

}  // namespace graft
