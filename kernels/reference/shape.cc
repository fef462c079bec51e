#include "kernels/reference/kernels.h"
#include "kernels/reference/views.h"

namespace graft::reference {

void run(const Transpose&, const Step& step) {
  if (!step.out[0]) return;
  with_elements(step.in[0], [&]<class T>() { matrix<T>(step.out[0]) = const_matrix<T>(step.in[0]).transpose(); });
}

void run(const Slice& op, const Step& step) {
  if (!step.out[0]) return;
  with_elements(step.in[0],
            [&]<class T>() { matrix<T>(step.out[0]) = const_matrix<T>(step.in[0]).block(op.row, op.col, op.rows, op.cols); });
}

void run(const Pad& op, const Step& step) {
  if (!step.out[0]) return;
  with_elements(step.in[0], [&]<class T>() {
    const auto x = const_matrix<T>(step.in[0]);
    auto out = matrix<T>(step.out[0]);
    out.setZero();
    out.block(op.row, op.col, x.rows(), x.cols()) = x;
  });
}

void run(const Concat& op, const Step& step) {
  if (!step.out[0]) return;
  with_elements(step.in[0], [&]<class T>() {
    auto out = matrix<T>(step.out[0]);
    std::int64_t row = 0, col = 0;
    for (const TensorView& part : step.in) {
      out.block(row, col, part.rows(), part.cols()) = const_matrix<T>(part);
      (op.axis == Axis::rows ? row : col) += op.axis == Axis::rows ? part.rows() : part.cols();
    }
  });
}

}  // namespace graft::reference
