#include <algorithm>

#include "kernels/reference/kernels.h"
#include "kernels/reference/views.h"

namespace graft::reference {
namespace {

template <class T>
void product(const MatMul& op, const Step& step) {
  const TensorView &a = step.in[0], &b = step.in[1];
  auto out = matrix<T>(step.out[0]);
  const std::int64_t inner = op.transpose_a ? a.rows() : a.cols();
  const auto a_at = [&](std::int64_t i, std::int64_t p) { return a.as<const T>()[op.transpose_a ? p * a.cols() + i : i * a.cols() + p]; };
  const auto b_row = [&](std::int64_t r) { return b.as<const T>() + r * b.cols(); };
  const T* added = step.in.size() == 3 ? step.in[2].as<const T>() : nullptr;
  const std::int64_t added_step = added != nullptr && step.in[2].type.shape.rank() == 2 ? out.cols() : 0;
  constexpr std::int64_t kBlock = 64;  // columns summed apart, for out may lie where the addend does
  for (std::int64_t i = 0; i < out.rows(); ++i) {
    for (std::int64_t first = 0; first < out.cols(); first += kBlock) {
      const std::int64_t cols = std::min(kBlock, out.cols() - first);
      T sum[kBlock] = {};
      // Both read b along its rows.
      if (op.transpose_b) {
        for (std::int64_t j = 0; j < cols; ++j) {
          for (std::int64_t p = 0; p < inner; ++p) sum[j] += a_at(i, p) * b_row(first + j)[p];
        }
      } else {
        for (std::int64_t p = 0; p < inner; ++p) {
          for (std::int64_t j = 0; j < cols; ++j) sum[j] += a_at(i, p) * b_row(p)[first + j];
        }
      }
      for (std::int64_t j = 0; j < cols; ++j) {
        out(i, first + j) = added == nullptr ? sum[j] : sum[j] + added[i * added_step + first + j];
      }
    }
  }
}

}  // namespace

void run(const MatMul& op, const Step& step) {
  if (!step.out[0]) return;
  with_type(step.in[0], [&]<class T>() { product<T>(op, step); });
}

}  // namespace graft::reference
