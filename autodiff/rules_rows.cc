// Row-wise ops: softmax, norms, tokens and their loss.
#include "autodiff/rules.h"

namespace graft {

void vjp(const Softmax&, VjpContext& c) { c.give(0, SoftmaxGrad{}, {c.out(), c.dout()}); }

void vjp(const LogSoftmax&, VjpContext& c) { c.give(0, LogSoftmaxGrad{}, {c.out(), c.dout()}); }

void vjp(const RmsNorm&, VjpContext& c) {
  c.refuse(1, "rstd");
  const Value grad = c.record(RmsNormGrad{}, {c.in(0), c.in(1), c.out(1), c.dout()});
  for (std::size_t i = 0; i < 2; ++i)
    if (c.wants(i)) c.give(i, {grad.node, static_cast<std::int32_t>(i)});
}

void vjp(const LayerNorm&, VjpContext& c) {
  c.refuse(1, "mean");
  c.refuse(2, "rstd");
  const Value grad = c.record(LayerNormGrad{}, {c.in(0), c.in(1), c.out(1), c.out(2), c.dout()});
  for (std::size_t i = 0; i < 3; ++i)
    if (c.wants(i)) c.give(i, {grad.node, static_cast<std::int32_t>(i)});
}

void vjp(const Embedding&, VjpContext& c) { c.give(0, EmbeddingGrad{c.shape(c.in(0)).rows()}, {c.in(1), c.dout()}); }

// Slot 1, the lse, has a gradient too (a loss on it keeps logits small): dlogits[i] = dlse[i] · exp(logits[i] − lse[i]).
void vjp(const CrossEntropy& op, VjpContext& c) {
  const Value logits = c.in(0), lse = c.out(1), dloss = c.dout(0), dlse = c.dout(1);
  if (!dlse) return c.give(0, CrossEntropyGrad{op}, {logits, c.in(1), lse, c.out(2), dloss});
  const Shape column{c.shape(lse).size(), 1};
  const Value shifted = c.record(Binary{BinaryFn::sub}, {logits, c.record(Reshape{column}, {lse})});
  const Value softmax = c.record(Unary{UnaryFn::exp}, {shifted});
  const std::vector<Value> scaled = {softmax, c.record(Reshape{column}, {dlse})};
  if (!dloss) return c.give(0, Binary{BinaryFn::mul}, scaled);
  const Value of_loss = c.record(CrossEntropyGrad{op}, {logits, c.in(1), lse, c.out(2), dloss});
  c.give(0, Binary{BinaryFn::add}, {of_loss, c.record(Binary{BinaryFn::mul}, scaled)});
}

void vjp(const LinearCrossEntropy& op, VjpContext& c) {
  c.refuse(1, "lse");
  const Value grad = c.record(LinearCrossEntropyGrad{op}, {c.in(0), c.in(1), c.in(2), c.out(1), c.out(2), c.dout()});
  if (c.wants(0)) c.give(0, grad);
  if (!c.wants(1)) return;
  if (const Value dweight{grad.node, 1}; c.graph.type(c.in(1)).dtype == DType::bf16)
    c.give(1, Cast{DType::bf16}, {dweight});
  else
    c.give(1, dweight);
}

}  // namespace graft
