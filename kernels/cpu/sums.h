#pragma once
// Sums in a fixed order: over pieces that depend on the size alone.
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/cpu/vec.h"

namespace graft::cpu {

/// Elements that one thread sums in one go, in double.
inline constexpr std::int64_t kSumPiece = 32768;
inline std::int64_t sum_pieces(std::int64_t n) { return (n + kSumPiece - 1) / kSumPiece; }

/// Σ f(x[i]); f takes and gives vectors of doubles.
template <class T, class F>
double sum_of(const T* x, std::int64_t n, const F& f) {
  constexpr std::int64_t kHalf = kLanes / 2, kAtOnce = 4;
  DoubleVec sums[kAtOnce] = {};
  std::int64_t i = 0;
  for (; i + kAtOnce * kHalf <= n; i += kAtOnce * kHalf) {
    GRAFT_UNROLL
    for (std::int64_t s = 0; s < kAtOnce; ++s) sums[s] += f(load_double(x + i + s * kHalf));
  }
  for (; i + kHalf <= n; i += kHalf) sums[0] += f(load_double(x + i));
  double total = sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
  if (i < n) {
    T rest[kHalf] = {};
    std::copy(x + i, x + n, rest);
    const DoubleVec last = f(load_double(rest));
    for (std::int64_t lane = 0; lane < n - i; ++lane) total += last[lane];
  }
  return total;
}

/// Rows cut into at most 64 chunks of at least 32 rows; each sums columns into a row of its own, and the rows are added in order.
struct RowChunks {
  std::int64_t rows, step, count;
  explicit RowChunks(std::int64_t all)
      : rows(all), step(std::max<std::int64_t>(32, (all + 63) / 64)), count((all + step - 1) / step) {}
  std::int64_t begin(std::int64_t chunk) const { return chunk * step; }
  std::int64_t end(std::int64_t chunk) const { return std::min(rows, (chunk + 1) * step); }
  std::size_t bytes(std::int64_t cols) const { return static_cast<std::size_t>(count * cols) * sizeof(float); }
};

inline void add_row(float* sums, const float* row, std::int64_t cols) {
  for (std::int64_t j = 0; j < cols; ++j) sums[j] += row[j];
}
inline void add_row(float* sums, const Bf16* row, std::int64_t cols) {
  for (std::int64_t j = 0; j < cols; ++j) sums[j] += to_float(row[j]);
}

inline void sum_chunks(const RowChunks& chunks, const float* partial, std::int64_t cols, float* out) {
  std::copy_n(partial, cols, out);
  for (std::int64_t chunk = 1; chunk < chunks.count; ++chunk) add_row(out, partial + chunk * cols, cols);
}

}  // namespace graft::cpu
