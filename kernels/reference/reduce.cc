#include "kernels/reference/broadcast.h"
#include "kernels/reference/kernels.h"
#include "kernels/reference/views.h"

namespace graft::reference {
namespace {

/// The elements that one result of a reduction is made of: `count` elements, `stride` apart from `first`.
struct Group {
  std::int64_t first, stride, count;
};
Group group_of(Axis axis, const TensorView& x, std::int64_t index) {
  switch (axis) {
    case Axis::all: break;
    case Axis::rows: return {index, x.cols(), x.rows()};
    case Axis::columns: return {index * x.cols(), 1, x.cols()};
  }
  return {0, 1, x.size()};
}

/// Index in x of the first maximum; a NaN counts as larger than all.
template <class T>
std::int64_t first_maximum(const T* x, const Group& group) {
  std::int64_t best = group.first;
  for (std::int64_t n = 1; n < group.count; ++n) {
    const std::int64_t i = group.first + n * group.stride;
    if (x[i] > x[best] || (x[i] != x[i] && x[best] == x[best])) best = i;
  }
  return best;
}

template <class T>
T reduce(ReduceFn fn, const T* x, const Group& group) {
  if (fn == ReduceFn::max) return x[first_maximum(x, group)];
  double sum = 0.0;
  for (std::int64_t n = 0; n < group.count; ++n) sum += static_cast<double>(x[group.first + n * group.stride]);
  return static_cast<T>(fn == ReduceFn::mean ? sum / static_cast<double>(group.count) : sum);
}

}  // namespace

void run(const Reduce& op, const Step& step) {
  if (!step.out[0]) return;
  with_type(step.in[0], [&]<class T>() {
    for (std::int64_t i = 0; i < step.out[0].size(); ++i) {
      step.out[0].as<T>()[i] = reduce(op.fn, step.in[0].as<const T>(), group_of(op.axis, step.in[0], i));
    }
  });
}

void run(const ReduceMaxGrad& op, const Step& step) {
  if (!step.out[0]) return;
  with_type(step.in[0], [&]<class T>() {
    const T* x = step.in[0].as<const T>();
    const T* dout = step.in[1].as<const T>();
    matrix<T>(step.out[0]).setZero();
    for (std::int64_t i = 0; i < step.in[1].size(); ++i) {
      step.out[0].as<T>()[first_maximum(x, group_of(op.axis, step.in[0], i))] = dout[i];
    }
  });
}

void run(const Broadcast&, const Step& step) {
  if (!step.out[0]) return;
  with_elements(step.in[0], [&]<class T>() {
    auto out = matrix<T>(step.out[0]);
    const Repeat repeat(step.in[0]);
    for (std::int64_t i = 0; i < out.rows(); ++i) {
      for (std::int64_t j = 0; j < out.cols(); ++j) out(i, j) = step.in[0].as<const T>()[repeat.index(i, j)];
    }
  });
}

}  // namespace graft::reference
