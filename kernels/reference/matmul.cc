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
    out.setZero();
    for (std::int64_t i = 0; i < out.rows(); ++i) {
      // Both read b along its rows.
      if (op.transpose_b) {
        for (std::int64_t j = 0; j < out.cols(); ++j) {
          for (std::int64_t p = 0; p < inner; ++p) out(i, j) += a_at(i, p) * b(j, p);
        }
      } else {
        for (std::int64_t p = 0; p < inner; ++p) out.row(i) += a_at(i, p) * b.row(p);
      }
    }
    if (step.in.size() == 3) out.rowwise() += ConstRow<T>(step.in[2].as<const T>(), out.cols());
  });
}

}  // namespace graft::reference
