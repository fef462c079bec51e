#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>

namespace graft::reference {

/// Of one row: its maximum and Σ exp(x − max), so that log Σ exp(x) = max + log(sum).
template <class T>
struct RowLse {
  T max;
  double sum = 0.0;

  /// x[j] is element j, 0 ≤ j < cols.
  template <class Elements>
  RowLse(const Elements& x, std::int64_t cols) : max(x[0]) {
    for (std::int64_t j = 1; j < cols; ++j) max = std::max<T>(max, x[j]);
    for (std::int64_t j = 0; j < cols; ++j) sum += static_cast<double>(std::exp(x[j] - max));
  }
  T value() const { return static_cast<T>(static_cast<double>(max) + std::log(sum)); }
};

}  // namespace graft::reference
