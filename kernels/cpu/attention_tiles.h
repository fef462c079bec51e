#pragma once
// Small matrix products on tiles that stay in cache, for attention; packed products use their innermost loop and the transposes too. Tiles are row-major; their rows are padded to whole vectors.
#include <algorithm>
#include <cstdint>
#include <utility>

#include "kernels/cpu/vec.h"

namespace graft::cpu {

inline constexpr std::int64_t padded(std::int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

/// An operand: element (i, j) at data[i·row + j·col].
struct Strided {
  const float* data;
  std::int64_t row, col;
};

/// sums += A·B, kRows × kVecs vectors. A [kRows, k] is read number by number, B [k, kVecs vectors] by vectors.
template <int kRows, int kVecs>
GRAFT_INLINE void add_products(Vec (&sums)[kRows][kVecs], Strided a, const float* b, std::int64_t ldb, std::int64_t k) {
  for (std::int64_t p = 0; p < k; ++p) {
    Vec row[kVecs];
    GRAFT_UNROLL
    for (int j = 0; j < kVecs; ++j) row[j] = load(b + p * ldb + j * kLanes);
    GRAFT_UNROLL
    for (int i = 0; i < kRows; ++i) {
      const Vec x = broadcast(a.data[i * a.row + p * a.col]);
      GRAFT_UNROLL
      for (int j = 0; j < kVecs; ++j) sums[i][j] = fma(x, row[j], sums[i][j]);
    }
  }
}

/// kRows × kVecs vectors of C = A·B, or C += A·B.
template <int kRows, int kVecs>
GRAFT_INLINE void multiply_block(Strided a, const float* b, std::int64_t ldb, float* c, std::int64_t ldc, std::int64_t k,
                                 bool accumulate) {
  Vec sums[kRows][kVecs];
  GRAFT_UNROLL
  for (int i = 0; i < kRows; ++i) {
    GRAFT_UNROLL
    for (int j = 0; j < kVecs; ++j) sums[i][j] = accumulate ? load(c + i * ldc + j * kLanes) : Vec{};
  }
  add_products(sums, a, b, ldb, k);
  GRAFT_UNROLL
  for (int i = 0; i < kRows; ++i) {
    GRAFT_UNROLL
    for (int j = 0; j < kVecs; ++j) store(c + i * ldc + j * kLanes, sums[i][j]);
  }
}

// What fits the registers: 32 with AVX-512, 16 before.
inline constexpr int kBlockRows = kLanes >= 8 ? 6 : 4, kBlockVecs = kLanes == 16 ? 4 : 2;

template <int kRows>
void multiply_rows(std::int64_t n, std::int64_t k, Strided a, const float* b, std::int64_t ldb, float* c, std::int64_t ldc,
                   bool accumulate) {
  std::int64_t j = 0;
  for (; j + kBlockVecs * kLanes <= n; j += kBlockVecs * kLanes)
    multiply_block<kRows, kBlockVecs>(a, b + j, ldb, c + j, ldc, k, accumulate);
  if (kBlockVecs > 3 && j + 3 * kLanes <= n) {
    multiply_block<kRows, 3>(a, b + j, ldb, c + j, ldc, k, accumulate);
    j += 3 * kLanes;
  }
  for (; j + 2 * kLanes <= n; j += 2 * kLanes) multiply_block<kRows, 2>(a, b + j, ldb, c + j, ldc, k, accumulate);
  if (j < n) multiply_block<kRows, 1>(a, b + j, ldb, c + j, ldc, k, accumulate);
}

/// C [m, n] = A [m, k]·B [k, n], or C += A·B; n whole vectors.
inline void multiply(std::int64_t m, std::int64_t n, std::int64_t k, Strided a, const float* b, std::int64_t ldb, float* c,
                     std::int64_t ldc, bool accumulate) {
  std::int64_t i = 0;
  const auto rows = [&](auto count) {
    multiply_rows<count>(n, k, {a.data + i * a.row, a.row, a.col}, b, ldb, c + i * ldc, ldc, accumulate);
    i += count;
  };
  while (i + kBlockRows <= m) rows(std::integral_constant<int, kBlockRows>());
  if (m - i >= 4) rows(std::integral_constant<int, 4>());
  if (m - i >= 2) rows(std::integral_constant<int, 2>());
  if (m - i >= 1) rows(std::integral_constant<int, 1>());
}

/// Swaps the lanes whose number has bit kBit of row i with those that have not of row i + kBit.
template <int kBit, int... kLane>
GRAFT_INLINE void exchange(Vec& low, Vec& high, std::integer_sequence<int, kLane...>) {
  const Vec a = low, b = high;
  low = shuffle<((kLane & kBit) == 0 ? kLane : kLane - kBit + kLanes)...>(a, b);
  high = shuffle<((kLane & kBit) == 0 ? kLane + kBit : kLane + kLanes)...>(a, b);
}
template <int kBit, int... kRow>
GRAFT_INLINE void exchange_all(Vec* rows, std::integer_sequence<int, kRow...> lanes) {
  ((kRow & kBit ? void() : exchange<kBit>(rows[kRow], rows[kRow | kBit], lanes)), ...);
  if constexpr (kBit > 1) exchange_all<kBit / 2>(rows, lanes);
}

/// to [cols, rows] = fromᵀ, from [rows, cols]; rows are `ld` and `to_ld` apart. kWhole: each row of `to` is filled up with 0 to
/// whole vectors.
template <bool kWhole = false, class T>
void transpose_block(const T* from, std::int64_t ld, std::int64_t rows, std::int64_t cols, float* to, std::int64_t to_ld,
                     float factor = 1.0f) {
  for (std::int64_t i = 0; i < rows; i += kLanes) {
    const std::int64_t there = std::min<std::int64_t>(kLanes, rows - i);
    for (std::int64_t j = 0; j < cols; j += kLanes) {
      const std::int64_t lanes = std::min<std::int64_t>(kLanes, cols - j);
      Vec block[kLanes];
      if (lanes == kLanes && there == kLanes) {
        for (int r = 0; r < kLanes; ++r) block[r] = load(from + (i + r) * ld + j) * factor;
      } else {
        for (int r = 0; r < kLanes; ++r) block[r] = r < there ? load_first(from + (i + r) * ld + j, lanes) * factor : Vec{};
      }
      exchange_all<kLanes / 2>(block, std::make_integer_sequence<int, kLanes>());
      if (kWhole || there == kLanes) {
        for (int c = 0; c < lanes; ++c) store(to + (j + c) * to_ld + i, block[c]);
      } else {
        for (int c = 0; c < lanes; ++c) store_first(to + (j + c) * to_ld + i, block[c], there);
      }
    }
  }
}

/// to [cols, padded(rows)] = fromᵀ, from [rows, cols] with `ld` between rows; the padding is 0.
template <class T>
void transpose_tile(const T* from, std::int64_t ld, std::int64_t rows, std::int64_t cols, float* to, float factor = 1.0f) {
  transpose_block<true>(from, ld, rows, cols, to, padded(rows), factor);
}

/// Whether no element of [rows, cols], cols whole vectors, is infinite or NaN.
inline bool all_finite(const float* from, std::int64_t ld, std::int64_t rows, std::int64_t cols) {
  Vec zero{};
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t j = 0; j < cols; j += kLanes) zero = fma(load(from + i * ld + j), Vec{}, zero);
  return sum(zero) == 0.0f;
}

/// Asks for rows that will be read soon: they are too far apart for the processor to foresee.
template <class T>
void prefetch_tile(const T* from, std::int64_t ld, std::int64_t rows, std::int64_t cols) {
  constexpr std::int64_t kLine = 64 / sizeof(T);
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t j = 0; j < cols; j += kLine) __builtin_prefetch(from + i * ld + j, 0, 2);
}

/// to [rows, padded(cols)] = factor·from, from [rows, cols] with `ld` between rows; the padding is 0.
template <class T>
void copy_tile(const T* from, std::int64_t ld, std::int64_t rows, std::int64_t cols, float* to, float factor = 1.0f) {
  const std::int64_t width = padded(cols), whole = cols / kLanes * kLanes;
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < whole; j += kLanes) store(to + i * width + j, load(from + i * ld + j) * factor);
    if (whole < cols) store(to + i * width + whole, load_first(from + i * ld + whole, cols - whole) * factor);
  }
}

/// Rows of floats: the tensor's own, or a copy of bf16.
struct TileRows {
  const float* data;
  std::int64_t ld;
};
inline TileRows float_rows(const float* from, std::int64_t ld, std::int64_t, std::int64_t, float*) { return {from, ld}; }
inline TileRows float_rows(const Bf16* from, std::int64_t ld, std::int64_t rows, std::int64_t cols, float* copy) {
  copy_tile(from, ld, rows, cols, copy);
  return {copy, padded(cols)};
}
/// Rows that can be read by vectors as far as padded(cols): also a copy where cols are not whole vectors.
template <class T>
TileRows whole_rows(const T* from, std::int64_t ld, std::int64_t rows, std::int64_t cols, float* copy) {
  if (cols % kLanes == 0) return float_rows(from, ld, rows, cols, copy);
  copy_tile(from, ld, rows, cols, copy);
  return {copy, padded(cols)};
}

}  // namespace graft::cpu
