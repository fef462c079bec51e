#pragma once
#include <algorithm>
#include <cstdint>

#include "kernels/cpu/gemm.h"

namespace graft::cpu {

/// How the threads share C: row_parts × col_parts blocks of `rows` × `cols` elements, less at the end.
struct GemmBlocks {
  std::int64_t rows, cols, row_parts, col_parts;
  std::int64_t count() const { return row_parts * col_parts; }
};

/// By shape alone, so that a product has the same bits with any number of threads: eight blocks where they are worth a thread each, more
/// where C is large. Each block packs its own operands, so blocks are cut along one side as far as that goes: rows of whole length, which
/// oneDNN is fastest at; or, where A must be transposed, along the longer side. docs/performance.md has the figures.
inline GemmBlocks gemm_blocks(std::int64_t m, std::int64_t n, std::int64_t k, bool transpose_a) {
  constexpr std::int64_t kParts = 8, kMinWork = 1 << 18, kRowStep = 16, kColStep = 64, kMinRows = 48, kMinCols = 128,
                         kMaxCols = 2048, kLargeB = 1 << 19;
  const std::int64_t max_rows = transpose_a ? 1024 : 256;
  // A block packs all of B that it reads: rows that are few beside a B of several MB would not be worth it.
  const std::int64_t min_rows = !transpose_a && n * k > kLargeB ? std::clamp<std::int64_t>(n / 4, kMinRows, 256) : kMinRows;
  const std::int64_t parts = std::clamp<std::int64_t>(m * n * k / kMinWork, 1, kParts);
  const bool rows_first = !transpose_a || m >= n;
  const auto most = [](std::int64_t size, std::int64_t least, std::int64_t wanted) {
    return std::clamp<std::int64_t>(size / least, 1, wanted);
  };
  std::int64_t row_parts = rows_first ? most(m, min_rows, parts) : 1;
  std::int64_t col_parts = most(n, kMinCols, parts / row_parts);
  if (!rows_first) row_parts = most(m, kMinRows, parts / col_parts);
  row_parts = std::max(row_parts, (m + max_rows - 1) / max_rows);
  col_parts = std::max(col_parts, (n + kMaxCols - 1) / kMaxCols);
  const auto part = [](std::int64_t size, std::int64_t count, std::int64_t step) {
    return std::min(size, ((size + count - 1) / count + step - 1) / step * step);
  };
  const std::int64_t rows = part(m, row_parts, kRowStep), cols = part(n, col_parts, kColStep);
  return {rows, cols, (m + rows - 1) / rows, (n + cols - 1) / cols};
}

/// Brings a block of the addend to C, where the block's product is then added: it is in the cache when that comes.
inline void copy_addend(const GemmCall& call, std::int64_t i, std::int64_t rows, std::int64_t j, std::int64_t cols) {
  if (call.addend == nullptr || call.addend == call.c) return;
  for (std::int64_t row = i; row < i + rows; ++row)
    std::copy_n(call.addend + row * call.ldc + j, cols, static_cast<float*>(call.c) + row * call.ldc + j);
}

/// Rows of a product that is memory bound: a batch of sequences that decodes. Each row has the bits it has alone.
inline constexpr std::int64_t kFewRows = 8;

/// The products that no library is asked for: few rows or one column (memory bound), and tiny ones. False if it is neither.
bool small_gemm(const GemmCall& call, Threads threads);

}  // namespace graft::cpu
