#include "kernels/reference/kernels.h"
#include "kernels/reference/views.h"

namespace graft::reference {

void run(const MatMul& op, const Step& step) {
  if (!step.out[0]) return;
  with_type(step.in[0], [&]<class T>() {
    const auto a = const_matrix<T>(step.in[0]);
    const auto b = const_matrix<T>(step.in[1]);
    auto out = matrix<T>(step.out[0]);
    const std::int64_t inner = op.transpose_a ? a.rows() : a.cols();
    const auto a_at = [&](std::int64_t i, std::int64_t p) { return op.transpose_a ? a(p, i) : a(i, p); };
    for (std::int64_t i = 0; i < out.rows(); ++i) {
      out.row(i).setZero();
      for (std::int64_t p = 0; p < inner; ++p) {
        if (op.transpose_b) {
          out.row(i) += a_at(i, p) * b.col(p).transpose();
        } else {
          out.row(i) += a_at(i, p) * b.row(p);
        }
      }
    }
    if (step.in.size() == 3) out.rowwise() += ConstRow<T>(step.in[2].as<const T>(), out.cols());
  });
}

}  // namespace graft::reference
