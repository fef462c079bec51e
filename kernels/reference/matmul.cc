#include "kernels/reference/kernels.h"
#include "kernels/reference/views.h"

namespace graft::reference {

void run(const MatMul& op, const Step& step) {
  if (!step.out[0]) return;
  with_type(step.in[0], [&]<class T>() {
    const auto a = const_matrix<T>(step.in[0]);
    const auto b = const_matrix<T>(step.in[1]);
    auto out = matrix<T>(step.out[0]);
    // lazyProduct: element by element, without the packed copies that Eigen's fast product allocates
    if (op.transpose_a && op.transpose_b) {
      out = a.transpose().lazyProduct(b.transpose());
    } else if (op.transpose_a) {
      out = a.transpose().lazyProduct(b);
    } else if (op.transpose_b) {
      out = a.lazyProduct(b.transpose());
    } else {
      out = a.lazyProduct(b);
    }
    if (step.in.size() == 3) out.rowwise() += ConstRow<T>(step.in[2].as<const T>(), out.cols());
  });
}

}  // namespace graft::reference
