#include "kernels/cpu/gemm_blocks.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/vec.h"

namespace graft::cpu {
namespace {

/// y = x·B, or x·Bᵀ: a vector of k numbers, `x_step` apart, against a matrix. bias_step 0 adds one number everywhere.
struct RowProduct {
  const float* x;
  std::int64_t x_step, n, k;
  const float* b;
  std::int64_t ldb;
  const float* bias;
  std::int64_t bias_step;
  bool accumulate;
  float* y;
};

constexpr std::int64_t kBlock = 4 * kLanes;

void finish(const RowProduct& p, std::int64_t j, Vec value, std::int64_t lanes) {
  if (p.bias != nullptr) value += p.bias_step == 0 ? broadcast(*p.bias) : load_first(p.bias + j, lanes);
  if (p.accumulate) value += load_first(p.y + j, lanes);
  store_first(p.y + j, value, lanes);
}

/// Columns j … j + kBlock of x·B, B [k, n].
void columns(const RowProduct& p, std::int64_t j) {
  const std::int64_t width = std::min(kBlock, p.n - j);
  Vec acc[4] = {};
  if (width == kBlock) {
    for (std::int64_t i = 0; i < p.k; ++i) {
      const float* row = p.b + i * p.ldb + j;
      const Vec x = broadcast(p.x[i * p.x_step]);
      for (int v = 0; v < 4; ++v) acc[v] = fma(x, load(row + v * kLanes), acc[v]);
    }
    for (int v = 0; v < 4; ++v) finish(p, j + v * kLanes, acc[v], kLanes);
    return;
  }
  for (std::int64_t at = 0; at < width; at += kLanes) {
    const std::int64_t lanes = std::min<std::int64_t>(kLanes, width - at);
    Vec sum{};
    for (std::int64_t i = 0; i < p.k; ++i)
      sum = fma(broadcast(p.x[i * p.x_step]), load_first(p.b + i * p.ldb + j + at, lanes), sum);
    finish(p, j + at, sum, lanes);
  }
}

/// Element j of x·Bᵀ, B [n, k], x contiguous.
void dot(const RowProduct& p, std::int64_t j) {
  const float* row = p.b + j * p.ldb;
  Vec acc[4] = {};
  std::int64_t i = 0;
  for (; i + kBlock <= p.k; i += kBlock) {
    for (int v = 0; v < 4; ++v) acc[v] = fma(load(p.x + i + v * kLanes), load(row + i + v * kLanes), acc[v]);
  }
  for (; i < p.k; i += kLanes) {
    const std::int64_t lanes = std::min<std::int64_t>(kLanes, p.k - i);
    acc[0] = fma(load_first(p.x + i, lanes), load_first(row + i, lanes), acc[0]);
  }
  float result = sum((acc[0] + acc[1]) + (acc[2] + acc[3]));
  if (p.bias != nullptr) result += p.bias[j * p.bias_step];
  p.y[j] = p.accumulate ? p.y[j] + result : result;
}

/// Element j of x·Bᵀ, x anywhere.
void strided_dot(const RowProduct& p, std::int64_t j) {
  float result = 0.0f;
  for (std::int64_t i = 0; i < p.k; ++i) result += p.x[i * p.x_step] * p.b[j * p.ldb + i];
  if (p.bias != nullptr) result += p.bias[j * p.bias_step];
  p.y[j] = p.accumulate ? p.y[j] + result : result;
}

void row_product(const RowProduct& p, bool transpose_b, int threads) {
  if (p.n * p.k < 32768) threads = 1;
  if (!transpose_b) {
    parallel_tasks(threads, (p.n + kBlock - 1) / kBlock, [&](std::int64_t block, int) { columns(p, block * kBlock); });
  } else {
    parallel_ranges(threads, p.n, 16, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t j = begin; j < end; ++j) p.x_step == 1 ? dot(p, j) : strided_dot(p, j);
    });
  }
}

}  // namespace

bool small_gemm(const GemmCall& call, int threads) {
  constexpr std::int64_t kTiny = 16384;
  if (call.bf16) return false;
  const float *a = static_cast<const float*>(call.a), *b = static_cast<const float*>(call.b);
  const std::int64_t a_step = call.transpose_a ? call.lda : 1, b_step = call.transpose_b ? 1 : call.ldb;
  if (call.n == 1 && call.ldc == 1 && (b_step == 1 || call.transpose_a)) {
    // Cᵀ [1, m] = Bᵀ·Aᵀ
    const RowProduct p = {b, b_step, call.m, call.k, a, call.lda, call.bias, 0, call.accumulate, call.c};
    row_product(p, !call.transpose_a, threads);
    return true;
  }
  if (call.m != 1 && call.m * call.n * call.k > kTiny) return false;
  if (call.m == 1 && call.transpose_b && a_step != 1 && call.n * call.k > kTiny) return false;
  for (std::int64_t i = 0; i < call.m; ++i) {
    const float* x = a + i * (call.transpose_a ? 1 : call.lda);
    row_product({x, a_step, call.n, call.k, b, call.ldb, call.bias, 1, call.accumulate, call.c + i * call.ldc},
                call.transpose_b, threads);
  }
  return true;
}

}  // namespace graft::cpu
