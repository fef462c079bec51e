#include "kernels/cpu/attention_tiles.h"
#include "kernels/cpu/map.h"
#include "kernels/cpu/views.h"

namespace graft::cpu {

void run(const Transpose& op, const Step& step, Context& context) {
  if (!is_f32(step)) return reference::run(op, step);
  if (!step.out[0]) return;
  const std::int64_t rows = step.in[0].rows(), cols = step.in[0].cols();
  constexpr std::int64_t kBlock = 64;
  const std::int64_t across = (cols + kBlock - 1) / kBlock, down = (rows + kBlock - 1) / kBlock;
  parallel_tasks(rows * cols < kElementGrain ? Threads() : context.threads, across * down, [&](std::int64_t task, int) {
    const std::int64_t i = task / across * kBlock, j = task % across * kBlock;
    transpose_block(input(step, 0) + i * cols + j, cols, std::min(kBlock, rows - i), std::min(kBlock, cols - j),
                    output(step) + j * rows + i, rows);
  });
}

namespace {

/// Calls f.operator()<T>() with the type of the elements.
template <class F>
void with_elements(const TensorView& x, const F& f) {
  if (x.type.dtype == DType::f64) return f.template operator()<double>();
  with_types(f, x);
}

}  // namespace

void run(const Slice& op, const Step& step, Context& context) {
  if (!step.out[0]) return;
  with_elements(step.in[0], [&]<class T>() {
    const std::int64_t cols = step.in[0].cols();
    for_each_row(context.threads, op.rows, op.cols, [&](std::int64_t i) {
      std::copy_n(input<T>(step, 0) + (op.row + i) * cols + op.col, op.cols, output<T>(step) + i * op.cols);
    });
  });
}

void run(const Pad& op, const Step& step, Context& context) {
  if (!step.out[0]) return;
  with_elements(step.in[0], [&]<class T>() {
    const std::int64_t x_rows = step.in[0].rows(), x_cols = step.in[0].cols(), cols = step.out[0].cols();
    for_each_row(context.threads, step.out[0].rows(), cols, [&](std::int64_t i) {
      T* to = output<T>(step) + i * cols;
      std::fill_n(to, cols, T{});
      if (i >= op.row && i < op.row + x_rows) std::copy_n(input<T>(step, 0) + (i - op.row) * x_cols, x_cols, to + op.col);
    });
  });
}

void run(const Concat& op, const Step& step, Context& context) {
  if (!step.out[0]) return;
  with_elements(step.in[0], [&]<class T>() {
    const std::int64_t cols = step.out[0].cols();
    T* to = output<T>(step);
    for (std::size_t part = 0; part < step.in.size(); ++part) {
      const std::int64_t rows = step.in[part].rows(), width = step.in[part].cols();
      for_each_row(context.threads, rows, width,
                   [&](std::int64_t i) { std::copy_n(input<T>(step, part) + i * width, width, to + i * cols); });
      to += op.axis == Axis::rows ? rows * cols : width;
    }
  });
}

}  // namespace graft::cpu
