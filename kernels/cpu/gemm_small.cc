#include <type_traits>

#include "kernels/cpu/gemm_blocks.h"
#include "kernels/cpu/map.h"
#include "kernels/cpu/turns.h"

namespace graft::cpu {
namespace {

/// Y = X·B, or X·Bᵀ, for a few rows of k numbers, `x_step` apart, against a matrix. bias_step 0 adds one number everywhere. A row's
/// result does not depend on the others.
struct RowProduct {
  const float* x;
  std::int64_t x_step, ldx, rows, n, k;
  const float* b;
  std::int64_t ldb;
  const float* bias;
  std::int64_t bias_step;
  const float* addend;  // with ldy, or null; may be y
  float* y;
  std::int64_t ldy;
};

constexpr std::int64_t kBlock = 4 * kLanes;
/// Rows that share what is read of B.
constexpr std::int64_t kGroup = 4;

/// Calls f.operator()<rows>(first row) for groups of rows.
template <class F>
void for_row_groups(std::int64_t rows, const F& f) {
  std::int64_t row = 0;
  for (; row + kGroup <= rows; row += kGroup) f.template operator()<kGroup>(row);
  switch (rows - row) {
    case 3: return f.template operator()<3>(row);
    case 2: return f.template operator()<2>(row);
    case 1: return f.template operator()<1>(row);
  }
}

/// A part of X·B, B [k, n], is a slab of B: rows that lie behind one another in memory, which is then read at its full speed.
struct Slabs {
  static constexpr std::int64_t kMaxCols = 2048, kSize = 16384, kStep = 8;
  std::int64_t cols, depth, col_parts, depth_parts;

  Slabs(std::int64_t n, std::int64_t k)
      : cols(std::min(n, kMaxCols)),
        depth(std::max(kStep, kSize / cols / kStep * kStep)),
        col_parts((n + cols - 1) / cols),
        depth_parts((k + depth - 1) / depth) {}
};

/// sums[r][j] += Σ x·B over kDepth rows of B.
template <int kRows, int kDepth>
GRAFT_INLINE void add_slab_rows(const RowProduct& p, const float* x, const float* b, std::int64_t cols,
                                float (*sums)[Slabs::kMaxCols]) {
  constexpr std::int64_t kAhead = 512;  // columns
  for_each_vector(0, cols, [&](std::int64_t j, const auto& get, const auto& put) {
    const float* soon = j + kAhead < cols ? b + j + kAhead : b + kDepth * p.ldb + j + kAhead - cols;
    Vec row[kDepth];
    for (int i = 0; i < kDepth; ++i) {
      row[i] = get(b + i * p.ldb);
      __builtin_prefetch(soon + i * p.ldb, 0, 2);
    }
    for (int r = 0; r < kRows; ++r) {
      Vec acc = get(sums[r]);
      for (int i = 0; i < kDepth; ++i) acc = fma(broadcast(x[r * p.ldx + i * p.x_step]), row[i], acc);
      put(sums[r], acc);
    }
  });
}

/// A slab's share of kRows rows of X·B, added to y when it is its turn.
template <int kRows>
void add_slab(const RowProduct& p, const Slabs& slabs, std::int64_t first, std::int64_t task, std::int64_t& done) {
  const std::int64_t j = task % slabs.col_parts * slabs.cols, begin = task / slabs.col_parts * slabs.depth;
  const std::int64_t cols = std::min(slabs.cols, p.n - j), end = std::min(p.k, begin + slabs.depth);
  float sums[kRows][Slabs::kMaxCols];
  for (auto& row : sums) std::fill_n(row, cols, 0.0f);
  std::int64_t i = begin;
  const auto at = [&](auto depth) {
    add_slab_rows<kRows, depth>(p, p.x + first * p.ldx + i * p.x_step, p.b + i * p.ldb + j, cols, sums);
    i += depth;
  };
  while (i + Slabs::kStep <= end) at(std::integral_constant<int, Slabs::kStep>());
  while (i < end) at(std::integral_constant<int, 1>());
  wait_for_turn(done, task - 1);
  for (int r = 0; r < kRows; ++r) {
    const std::int64_t row = (first + r) * p.ldy + j;
    float* y = p.y + row;
    const float* before = begin > 0 ? y : p.addend != nullptr ? p.addend + row : nullptr;
    for_each_vector(0, cols, [&](std::int64_t, const auto& get, const auto& put) {
      Vec value = get(sums[r]);
      if (begin == 0 && p.bias != nullptr) value += p.bias_step == 0 ? broadcast(*p.bias) : get(p.bias + j);
      if (before != nullptr) value += get(before);
      put(y, value);
    });
  }
  end_turn(done, task + 1);
}

/// Element j of rows of X·Bᵀ, B [n, k], x contiguous.
template <int kRows>
void dots(const RowProduct& p, std::int64_t first, std::int64_t j) {
  const float *row = p.b + j * p.ldb, *x = p.x + first * p.ldx;
  Vec acc[kRows][4] = {};
  std::int64_t i = 0;
  for (; i + kBlock <= p.k; i += kBlock) {
    for (int v = 0; v < 4; ++v) {
      const Vec b = load(row + i + v * kLanes);
      for (int r = 0; r < kRows; ++r) acc[r][v] = fma(load(x + r * p.ldx + i + v * kLanes), b, acc[r][v]);
    }
  }
  for (; i < p.k; i += kLanes) {
    const std::int64_t lanes = std::min<std::int64_t>(kLanes, p.k - i);
    const Vec b = load_first(row + i, lanes);
    for (int r = 0; r < kRows; ++r) acc[r][0] = fma(load_first(x + r * p.ldx + i, lanes), b, acc[r][0]);
  }
  for (int r = 0; r < kRows; ++r) {
    float result = sum((acc[r][0] + acc[r][1]) + (acc[r][2] + acc[r][3]));
    if (p.bias != nullptr) result += p.bias[j * p.bias_step];
    const std::int64_t at = (first + r) * p.ldy + j;
    p.y[at] = p.addend != nullptr ? p.addend[at] + result : result;
  }
}

/// Element j of one row of X·Bᵀ, x anywhere.
void strided_dot(const RowProduct& p, std::int64_t row, std::int64_t j) {
  float result = 0.0f;
  for (std::int64_t i = 0; i < p.k; ++i) result += p.x[row * p.ldx + i * p.x_step] * p.b[j * p.ldb + i];
  if (p.bias != nullptr) result += p.bias[j * p.bias_step];
  const std::int64_t at = row * p.ldy + j;
  p.y[at] = p.addend != nullptr ? p.addend[at] + result : result;
}

void row_products(const RowProduct& p, bool transpose_b, Threads threads) {
  if (p.n * p.k < 32768) threads = Threads();
  if (!transpose_b) {
    const Slabs slabs(p.n, p.k);
    for_row_groups(p.rows, [&]<int kRows>(std::int64_t first) {
      std::int64_t done = 0;
      parallel_tasks(threads, slabs.col_parts * slabs.depth_parts,
                     [&](std::int64_t task, int) { add_slab<kRows>(p, slabs, first, task, done); });
    });
    return;
  }
  parallel_ranges(threads, p.n, 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t j = begin; j < end; ++j) {
      if (p.x_step == 1) {
        for_row_groups(p.rows, [&]<int kRows>(std::int64_t row) { dots<kRows>(p, row, j); });
      } else {
        for (std::int64_t row = 0; row < p.rows; ++row) strided_dot(p, row, j);
      }
    }
  });
}

}  // namespace

bool small_gemm(const GemmCall& call, Threads threads) {
  constexpr std::int64_t kTiny = 16384;
  if (call.bf16) return false;
  const float *a = static_cast<const float*>(call.a), *b = static_cast<const float*>(call.b);
  float* c = static_cast<float*>(call.c);
  const std::int64_t a_step = call.transpose_a ? call.lda : 1, b_step = call.transpose_b ? 1 : call.ldb;
  if (call.n == 1 && call.ldc == 1 && (b_step == 1 || call.transpose_a)) {
    // Cᵀ [1, m] = Bᵀ·Aᵀ
    const RowProduct p = {b, b_step, 0, 1, call.m, call.k, a, call.lda, call.bias, 0, call.addend, c, 0};
    row_products(p, !call.transpose_a, threads);
    return true;
  }
  const bool few = call.m == 1 || (call.m <= kFewRows && !call.transpose_a);
  if (!few && call.m * call.n * call.k > kTiny) return false;
  if (call.m == 1 && call.transpose_b && a_step != 1 && call.n * call.k > kTiny) return false;
  row_products({a, a_step, call.transpose_a ? 1 : call.lda, call.m, call.n, call.k, b, call.ldb, call.bias, 1, call.addend, c,
                call.ldc},
               call.transpose_b, threads);
  return true;
}

}  // namespace graft::cpu
