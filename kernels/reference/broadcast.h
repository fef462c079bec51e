#pragma once
#include <cstdint>

#include "graft/backend.h"

namespace graft::reference {

/// Where an element of the whole lies in an operand that is repeated over rows, columns or both, or not at all.
class Repeat {
 public:
  explicit Repeat(const TensorView& x) : row_stride_(x.rows() == 1 ? 0 : x.cols()), col_stride_(x.cols() == 1 ? 0 : 1) {}
  std::int64_t index(std::int64_t row, std::int64_t col) const { return row * row_stride_ + col * col_stride_; }

 private:
  std::int64_t row_stride_, col_stride_;
};

}  // namespace graft::reference
