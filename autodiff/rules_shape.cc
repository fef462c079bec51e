// Reductions, broadcast, shape.
#include "autodiff/rules.h"
#include "graft/error.h"

namespace graft {
namespace {

/// `value`, the result of a reduction of input 0, repeated over input 0.
void give_repeated(VjpContext& c, Value value) {
  const Shape from = c.shape(value), to = c.shape(c.in(0));
  if (c.graph.type(c.in(0)).dtype == DType::bf16) value = c.record(Cast{DType::bf16}, {value});  // sums are f32
  if (from == to) return c.give(0, value);
  if (from.size() == 1 && from.rank() > 0) value = c.record(Reshape{Shape{}}, {value});
  c.give(0, Broadcast{to}, {value});
}

}  // namespace

void vjp(const Reduce& op, VjpContext& c) {
  switch (op.fn) {
    case ReduceFn::sum: return give_repeated(c, c.dout());
    case ReduceFn::mean: {
      const double count = static_cast<double>(c.shape(c.in(0)).size()) / static_cast<double>(c.shape(c.out()).size());
      return give_repeated(c, c.record(Unary{UnaryFn::scale, 1.0 / count}, {c.dout()}));
    }
    case ReduceFn::max: return c.give(0, ReduceMaxGrad{op.axis}, {c.in(0), c.dout()});
  }
  GRAFT_ASSERT(!"a reduction");
}

void vjp(const Broadcast&, VjpContext& c) { c.give_summed(0, c.dout()); }

void vjp(const Reshape&, VjpContext& c) { c.give(0, Reshape{c.shape(c.in(0))}, {c.dout()}); }

void vjp(const Transpose&, VjpContext& c) { c.give(0, Transpose{}, {c.dout()}); }

void vjp(const Slice& op, VjpContext& c) { c.give(0, Pad{c.shape(c.in(0)), op.row, op.col}, {c.dout()}); }

void vjp(const Pad& op, VjpContext& c) {
  const Shape& x = c.shape(c.in(0));
  c.give(0, Slice{op.row, x.rows(), op.col, x.cols()}, {c.dout()});
}

void vjp(const Concat& op, VjpContext& c) {
  std::int64_t row = 0, col = 0;
  for (std::size_t i = 0; i < c.inputs.size(); ++i) {
    const Shape part = c.shape(c.in(i));
    if (c.wants(i)) c.give(i, Slice{row, part.rows(), col, part.cols()}, {c.dout()});
    (op.axis == Axis::rows ? row : col) += op.axis == Axis::rows ? part.rows() : part.cols();
  }
}

}  // namespace graft
