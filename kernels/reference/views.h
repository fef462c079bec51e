#pragma once
#include <Eigen/Core>
#include <cstdint>
#include <utility>

#include "graft/backend.h"
#include "graft/error.h"

namespace graft::reference {

template <class T>
using Matrix = Eigen::Map<Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>;
template <class T>
using ConstMatrix = Eigen::Map<const Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>;
template <class T>
using Row = Eigen::Map<Eigen::Matrix<T, 1, Eigen::Dynamic>>;
template <class T>
using ConstRow = Eigen::Map<const Eigen::Matrix<T, 1, Eigen::Dynamic>>;

template <class T>
Matrix<T> matrix(const TensorView& x) {
  return {x.as<T>(), x.rows(), x.cols()};
}
template <class T>
ConstMatrix<T> const_matrix(const TensorView& x) {
  return {x.as<const T>(), x.rows(), x.cols()};
}

/// Calls f.operator()<float>() or <double>(), by the type of `like`.
template <class F>
void with_type(const TensorView& like, F&& f) {
  switch (like.type.dtype) {
    case DType::f32: return std::forward<F>(f).template operator()<float>();
    case DType::f64: return std::forward<F>(f).template operator()<double>();
    case DType::bf16:
    case DType::u32: break;
  }
  GRAFT_ASSERT(!"a floating-point tensor");
}

/// The same for what only moves elements: a bf16 is its bits.
template <class F>
void with_elements(const TensorView& like, F&& f) {
  if (like.type.dtype == DType::bf16) return std::forward<F>(f).template operator()<std::uint16_t>();
  with_type(like, std::forward<F>(f));
}

/// In order, one element after the other: Eigen's sums depend on how wide the machine's vectors are.
template <class T>
T dot(const ConstRow<T>& a, const ConstRow<T>& b) {
  T sum{0};
  for (Eigen::Index i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

inline std::uint32_t u32_scalar(const TensorView& x) { return *x.as<const std::uint32_t>(); }

}  // namespace graft::reference
