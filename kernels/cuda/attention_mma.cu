// Attention forward of bf16 tensors on tensor cores (mma.sync): FlashAttention-2 (Dao 2023), algorithm 1. Scores and sums are f32; P is rounded to bf16 for P·V.
//
// A block of 4 warps answers 128 queries of one head, 32 a warp, and goes over the keys in tiles, two of which are in shared memory: one that is computed with, one that is on
// its way. In a warp, lane 4g + t has of each [16, 8] result the rows g and g + 8 and the columns 2t and 2t + 1; the four lanes of a row share what is of the row.
#include <cmath>

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/attention_tiles.cuh"

namespace graft::cuda {
namespace {

constexpr int kWarps = 4, kThreads = kWarps * kWarp;
constexpr int kStrips = 2;                      // of 16 queries, a warp
constexpr int kQueries = kWarps * kStrips * 16;  // of a block

/// Keys of a tile: as many as leave the results of a warp in registers.
template <int kDim>
constexpr int kKeysOf = 64;

template <int kDim>
constexpr std::size_t kShared = sizeof(bf16) * kDim * (kQueries + 2 * 2 * kKeysOf<kDim>);  // queries, and keys and values twice

/// Over the four lanes of a row.
template <class Combine>
__device__ __forceinline__ float over_row(float x, Combine&& combine) {
  x = combine(x, __shfl_xor_sync(kFullWarp, x, 1));
  return combine(x, __shfl_xor_sync(kFullWarp, x, 2));
}

/// out and lse of block number `block`, one tile of queries of one head; both may be null. Head dimensions up to kDim, multiples of 8.
template <int kDim, bool kCareful>
__device__ __forceinline__ void attend(const AttentionProblem& p, const bf16* q, const bf16* k, const bf16* v, bf16* out, float* lse, unsigned block, unsigned blocks) {
  static_assert(kDim == 64 || kDim == 128);
  constexpr int kKeys = kKeysOf<kDim>;
  const auto [tile, head] = block_tile(p, Side::queries, kQueries, block, blocks);
  const Sequence& s = tile.sequence;
  const int here = tile.rows.count(), kv_head = head / p.group();
  if (here <= 0) return;
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp, g = lane / 4, t = lane % 4;
  bf16* queries = shared_memory<bf16>();
  bf16* keys = queries + kQueries * kDim;    // two tiles
  bf16* values = keys + 2 * kKeys * kDim;
  const std::int64_t q_at = (s.q_begin + tile.rows.first) * p.q_cols() + std::int64_t{head} * p.head_dim;
  const std::int64_t kv_at = s.kv_begin * p.kv_cols() + std::int64_t{kv_head} * p.head_dim;
  const Rows all = keys_of(p, s, tile.rows);
  const auto load_keys = [&](int begin, int stage) {
    const int count = all.last - begin;
    load_tile_async<kKeys, kDim, kThreads>(keys + stage * kKeys * kDim, k + kv_at + begin * p.kv_cols(), p.kv_cols(), count, p.head_dim);
    load_tile_async<kKeys, kDim, kThreads>(values + stage * kKeys * kDim, v + kv_at + begin * p.kv_cols(), p.kv_cols(), count, p.head_dim);
  };
  load_tile_async<kQueries, kDim, kThreads>(queries, q + q_at, p.q_cols(), here, p.head_dim);
  if (all.first < all.last) load_keys(all.first, 0);
  ptx::cp_async_commit();

  // The warp's own queries, and the keys that they see.
  const int own = warp * kStrips * 16;
  const Rows own_queries = {tile.rows.first + own, tile.rows.first + own + kStrips * 16};
  const Rows own_keys = keys_of(p, s, own_queries);
  const float scale = p.scale * kLog2E;  // weights are powers of 2
  float results[kStrips][kDim / 8][4], maxima[kStrips][2], sums[kStrips][2];
#pragma unroll
  for (int i = 0; i < kStrips; ++i) {
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) results[i][n][e] = 0.0f;
    maxima[i][0] = maxima[i][1] = -INFINITY;
    sums[i][0] = sums[i][1] = 0.0f;
  }

  int stage = 0;
  for (int begin = all.first; begin < all.last; begin += kKeys, stage ^= 1) {
    ptx::cp_async_wait<0>();
    __syncthreads();  // the tile is there for all, and nobody computes with the one before
    if (begin + kKeys < all.last) load_keys(begin + kKeys, stage ^ 1);
    ptx::cp_async_commit();
    if (begin < own_keys.last && begin + kKeys > own_keys.first) {
      bf16 *tile_keys = keys + stage * kKeys * kDim, *tile_values = values + stage * kKeys * kDim;
      float scores[kStrips][kKeys / 8][4] = {};
      multiply_by_rows<kDim, kDim / 16>(scores, queries, own, tile_keys);
      if (begin + kKeys > all.last || !all_visible(p, s, own_queries, {begin, begin + kKeys})) {
#pragma unroll
        for (int i = 0; i < kStrips; ++i)
#pragma unroll
          for (int j = 0; j < kKeys / 8; ++j)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
              const int query = own_queries.first + i * 16 + e / 2 * 8 + g, key = begin + j * 8 + 2 * t + e % 2;
              if (key >= all.last || !visible(p, s, query, key)) scores[i][j][e] = -INFINITY;
            }
      }
      float factors[kStrips][2];
      bool grown = false;
#pragma unroll
      for (int i = 0; i < kStrips; ++i) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          float top = scores[i][0][2 * half];
#pragma unroll
          for (int j = 0; j < kKeys / 8; ++j)
#pragma unroll
            for (int e = 0; e < 2; ++e) top = fmaxf(top, scores[i][j][2 * half + e]);
          top = fmaxf(maxima[i][half], over_row(top, [](float a, float b) { return fmaxf(a, b); }) * scale);
          const float shift = top == -INFINITY ? 0.0f : top;  // nothing seen so far: all weights are 0
          factors[i][half] = ptx::exp2(maxima[i][half] - shift);
          grown |= factors[i][half] != 1.0f;
          maxima[i][half] = top;
          float sum = 0.0f;
#pragma unroll
          for (int j = 0; j < kKeys / 8; ++j)
#pragma unroll
            for (int e = 0; e < 2; ++e) {
              float& score = scores[i][j][2 * half + e];
              score = ptx::exp2(fmaf(score, scale, -shift));
              sum += score;
            }
          sums[i][half] = sums[i][half] * factors[i][half] + sum;
        }
      }
      if (__any_sync(kFullWarp, grown)) {  // after the first tiles, most leave all maxima as they are
#pragma unroll
        for (int i = 0; i < kStrips; ++i)
#pragma unroll
          for (int n = 0; n < kDim / 8; ++n)
#pragma unroll
            for (int e = 0; e < 4; ++e) results[i][n][e] *= factors[i][e / 2];
      }

      std::uint32_t weights[kKeys / 16][kStrips][4];  // all of them first: they take half the registers that the scores took
#pragma unroll
      for (int step = 0; step < kKeys / 16; ++step)
#pragma unroll
        for (int i = 0; i < kStrips; ++i) as_left_operand(weights[step][i], scores[i][2 * step], scores[i][2 * step + 1]);
#pragma unroll
      for (int n = 0; n < kDim / 16; ++n)
#pragma unroll
        for (int step = 0; step < kKeys / 16; ++step) {
          std::uint32_t right[2][2];
          right_operands<kDim>(right, tile_values, step * 16, n);
          if constexpr (kCareful) keep_finite(right);
#pragma unroll
          for (int i = 0; i < kStrips; ++i) {
            ptx::mma_m16n8k16(results[i][2 * n], weights[step][i], right[0]);
            ptx::mma_m16n8k16(results[i][2 * n + 1], weights[step][i], right[1]);
          }
        }
      if constexpr (kCareful) {
        add_not_finite<kDim, kKeys>(results, tile_values,
                                    [&](int i, int e, int row) { return visible(p, s, own_queries.first + i * 16 + e / 2 * 8 + g, begin + row); });
      }
    }
  }
  ptx::cp_async_wait<0>();
  // Without keys, nothing has waited for the queries, in whose place the results go out.
  if (__syncthreads_or(!kCareful && !p.full && has_nan(results))) results[0][0][0] = NAN;

#pragma unroll
  for (int i = 0; i < kStrips; ++i) {
    float factors[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float sum = over_row(sums[i][half], [](float a, float b) { return a + b; });
      const int row = own + i * 16 + half * 8 + g;
      factors[half] = sum == 0.0f ? 0.0f : 1.0f / sum;
      if (lse != nullptr && t == 0 && row < here)
        lse[(s.q_begin + tile.rows.first + row) * p.heads + head] = maxima[i][half] * kLn2 + logf(sum);  // −∞ where nothing is seen
    }
    const int first = own + i * 16;
    if (out != nullptr)
      store_rows<kDim>(results[i], factors[0], factors[1], queries + first * kDim, out + q_at + first * p.q_cols(), p.q_cols(), here - first, p.head_dim);
  }
}

template <int kDim>
__global__ void __launch_bounds__(kThreads) attention_mma_kernel(AttentionProblem p, const bf16* q, const bf16* k, const bf16* v, bf16* out, float* lse) {
  attend<kDim, false>(p, q, k, v, out, lse, blockIdx.x, gridDim.x);
}
/// `blocks`: of the grid of the kernel before. Its lse stays.
template <int kDim>
__global__ void __launch_bounds__(kThreads) attention_mma_careful_kernel(AttentionProblem p, unsigned blocks, const bf16* q, const bf16* k, const bf16* v, bf16* out) {
  for_each_marked(p, Side::queries, kQueries, blocks, out, [&](unsigned block) { attend<kDim, true>(p, q, k, v, out, nullptr, block, blocks); });
}

}  // namespace

void forward_mma(const AttentionProblem& p, const bf16* q, const bf16* k, const bf16* v, bf16* out, float* lse, const Context& context) {
  const auto start = [&]<int kDim>() {
    const LaunchShape shape = tile_grid(p, Side::queries, kQueries, kThreads, kShared<kDim>);
    launch(attention_mma_kernel<kDim>, shape, context.stream, p, q, k, v, out, lse);
    if (!p.full && out != nullptr) launch(attention_mma_careful_kernel<kDim>, careful_grid(shape, context), context.stream, p, shape.grid.x, q, k, v, out);
  };
  if (p.head_dim <= 64) {
    start.template operator()<64>();
  } else {
    start.template operator()<128>();
  }
}

}  // namespace graft::cuda
