#pragma once
#include <algorithm>
#include <cstdint>

#include "kernels/cpu/gemm.h"

namespace graft::cpu {

/// How the threads share C: row_parts × col_parts blocks of `rows` × `cols` elements, less at the end. By shape alone, so that a
/// product has the same bits with any number of threads; enough blocks for 16 threads where they stay big enough to be worth one.
struct GemmBlocks {
  std::int64_t rows, cols, row_parts, col_parts;
  std::int64_t count() const { return row_parts * col_parts; }
};

inline GemmBlocks gemm_blocks(std::int64_t m, std::int64_t n, std::int64_t k) {
  constexpr std::int64_t kRowStep = 16, kColStep = 64, kMinWork = 1 << 18, kMaxRows = 256, kMaxCols = 512;
  const auto part = [](std::int64_t size, std::int64_t parts, std::int64_t step) {
    return std::min(size, ((size + parts - 1) / parts + step - 1) / step * step);
  };
  std::int64_t row_parts = 1, col_parts = 1;
  for (;;) {
    const std::int64_t rows = part(m, row_parts, kRowStep), cols = part(n, col_parts, kColStep);
    const bool too_large = rows > kMaxRows || cols > kMaxCols;
    const bool split_rows = rows >= 4 * kRowStep && (rows > kMaxRows || cols <= kMaxCols) && (rows >= cols || cols < 2 * kColStep);
    const bool split_cols = cols >= 2 * kColStep;
    const bool enough = row_parts * col_parts >= 16 || rows * cols * k < 2 * kMinWork;
    if ((enough && !too_large) || (!split_rows && !split_cols)) {
      return {rows, cols, (m + rows - 1) / rows, (n + cols - 1) / cols};
    }
    (split_rows ? row_parts : col_parts) *= 2;
  }
}

/// Rows of a product that is memory bound: a batch of sequences that decodes. Each row has the bits it has alone.
inline constexpr std::int64_t kFewRows = 8;

/// The products that no library is asked for: few rows or one column (memory bound), and tiny ones. False if it is neither.
bool small_gemm(const GemmCall& call, int threads);

}  // namespace graft::cpu
