// The gradients of attention of bf16 tensors on tensor cores (mma.sync): FlashAttention-2 (Dao 2023), algorithm 2, with dq apart from dk and dv. That costs 7 products where 5
// would do, but needs no atomics, so the same bits come out each time. Sums are f32; P and dS are rounded to bf16 for the products that they go into.
//
// Blocks have 4 warps, each with 16 rows of the block's tile; what the tile is multiplied with goes by in tiles, two of which are in shared memory: one that is computed
// with, one that is on its way. In a warp, lane 4g + t has of each [16, 8] result the rows g and g + 8 and the columns 2t and 2t + 1.
#include <cmath>

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/attention_tiles.cuh"

namespace graft::cuda {
namespace {

constexpr int kWarps = 4, kThreads = kWarps * kWarp, kStrip = 16;
constexpr int kRows = kWarps * kStrip;  // of a block: queries for dq, keys for dk and dv

/// Rows of a tile that goes by: as many as leave all results of a warp in registers.
template <int kDim>
constexpr int kPassing = kDim == 64 ? 64 : 32;

/// [16, kColumns] of a product, summed up in a warp.
template <int kColumns>
using Results = float[kColumns / 8][4];

/// results = left·rightᵀ: 16 rows of a tile by all rows of another.
template <int kDim, int kColumns>
__device__ __forceinline__ void multiply(Results<kColumns>& results, bf16* left_tile, int first_row, bf16* right_tile) {
#pragma unroll
  for (int n = 0; n < kColumns / 8; ++n)
#pragma unroll
    for (int e = 0; e < 4; ++e) results[n][e] = 0.0f;
#pragma unroll
  for (int step = 0; step < kDim / 16; ++step) {
    std::uint32_t left[4];
    left_operand<kDim>(left, left_tile, first_row, step);
#pragma unroll
    for (int n = 0; n < kColumns / 16; ++n) {
      std::uint32_t right[2][2];
      right_operands_of_rows<kDim>(right, right_tile, n * 16, step);
      ptx::mma_m16n8k16(results[2 * n], left, right[0]);
      ptx::mma_m16n8k16(results[2 * n + 1], left, right[1]);
    }
  }
}

/// results += weights·tile, the weights rounded.
template <int kDim, int kColumns>
__device__ __forceinline__ void accumulate(Results<kDim>& results, const Results<kColumns>& weights, bf16* tile) {
#pragma unroll
  for (int step = 0; step < kColumns / 16; ++step) {
    std::uint32_t left[4];
    as_left_operand(left, weights[2 * step], weights[2 * step + 1]);
#pragma unroll
    for (int n = 0; n < kDim / 16; ++n) {
      std::uint32_t right[2][2];
      right_operands<kDim>(right, tile, step * 16, n);
      ptx::mma_m16n8k16(results[2 * n], left, right[0]);
      ptx::mma_m16n8k16(results[2 * n + 1], left, right[1]);
    }
  }
}

template <int kDim>
__device__ __forceinline__ void clear(Results<kDim>& results) {
#pragma unroll
  for (int n = 0; n < kDim / 8; ++n)
#pragma unroll
    for (int e = 0; e < 4; ++e) results[n][e] = 0.0f;
}

/// Queries and dout, keys and values twice.
template <int kDim>
constexpr std::size_t kSharedOfQ = sizeof(bf16) * kDim * (2 * kRows + 2 * 2 * kPassing<kDim>);

/// dq of one tile of queries of one head.
template <int kDim>
__global__ void __launch_bounds__(kThreads) attention_mma_grad_q_kernel(AttentionProblem p, GradientTensors<bf16> tensors) {
  constexpr int kKeys = kPassing<kDim>;
  const auto [tile, head] = block_tile(p, Side::queries, kRows);
  const Sequence& s = tile.sequence;
  const int here = tile.rows.count(), kv_head = head / p.group();
  if (here <= 0) return;
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp, g = lane / 4, t = lane % 4;
  bf16* queries = shared_memory<bf16>();
  bf16 *douts = queries + kRows * kDim, *keys = douts + kRows * kDim, *values = keys + 2 * kKeys * kDim;
  const std::int64_t q_at = (s.q_begin + tile.rows.first) * p.q_cols() + std::int64_t{head} * p.head_dim;
  const std::int64_t kv_at = s.kv_begin * p.kv_cols() + std::int64_t{kv_head} * p.head_dim;
  const Rows all = keys_of(p, s, tile.rows);
  const auto load_keys = [&](int begin, int stage) {
    load_tile_async<kKeys, kDim, kThreads>(keys + stage * kKeys * kDim, tensors.k + kv_at + begin * p.kv_cols(), p.kv_cols(), all.last - begin, p.head_dim);
    load_tile_async<kKeys, kDim, kThreads>(values + stage * kKeys * kDim, tensors.v + kv_at + begin * p.kv_cols(), p.kv_cols(), all.last - begin, p.head_dim);
  };
  load_tile_async<kRows, kDim, kThreads>(queries, tensors.q + q_at, p.q_cols(), here, p.head_dim);
  load_tile_async<kRows, kDim, kThreads>(douts, tensors.dout + q_at, p.q_cols(), here, p.head_dim);
  if (all.first < all.last) load_keys(all.first, 0);
  ptx::cp_async_commit();

  const int own = warp * kStrip;
  const Rows own_queries = {tile.rows.first + own, tile.rows.first + own + kStrip}, own_keys = keys_of(p, s, own_queries);
  const float scale = p.scale * kLog2E;
  float lse[2], delta[2];  // lse in powers of 2
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = own + half * 8 + g;
    const std::int64_t at = (s.q_begin + tile.rows.first + row) * p.heads + head;
    lse[half] = row < here ? tensors.lse[at] * kLog2E : 0.0f;
    delta[half] = row < here ? tensors.delta[at] : 0.0f;
  }
  Results<kDim> dq;
  clear<kDim>(dq);
  int stage = 0;
  for (int begin = all.first; begin < all.last; begin += kKeys, stage ^= 1) {
    if (begin + kKeys < all.last) load_keys(begin + kKeys, stage ^ 1);
    ptx::cp_async_commit();
    ptx::cp_async_wait<1>();
    __syncthreads();
    if (begin < own_keys.last && begin + kKeys > own_keys.first) {
      bf16 *tile_keys = keys + stage * kKeys * kDim, *tile_values = values + stage * kKeys * kDim;
      Results<kKeys> scores, grads;
      multiply<kDim, kKeys>(scores, queries, own, tile_keys);
      multiply<kDim, kKeys>(grads, douts, own, tile_values);
      const bool masked = begin + kKeys > s.kv_seq || !all_visible(p, s, own_queries, {begin, begin + kKeys});
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int query = own_queries.first + e / 2 * 8 + g, key = begin + n * 8 + 2 * t + e % 2;
          const bool seen = !masked || (key < s.kv_seq && visible(p, s, query, key));
          grads[n][e] = seen ? exp2f(scores[n][e] * scale - lse[e / 2]) * (grads[n][e] - delta[e / 2]) : 0.0f;
        }
      accumulate<kDim, kKeys>(dq, grads, tile_keys);
    }
    __syncthreads();  // this tile's place is the one after next's
  }
  ptx::cp_async_wait<0>();
  store_rows<kDim>(dq, p.scale, p.scale, queries + own * kDim, tensors.dq + q_at + own * p.q_cols(), p.q_cols(), here - own, p.head_dim);
}

/// Keys and values, queries and dout twice, lse and delta of those.
template <int kDim>
constexpr std::size_t kSharedOfKv = sizeof(bf16) * kDim * (2 * kRows + 2 * 2 * kPassing<kDim>) + sizeof(float) * 2 * 2 * kPassing<kDim>;

/// dk and dv of one tile of keys of one kv head, summed over the query heads that read it and over the tiles of queries, in that order; dk or dv may be null. All products have
/// a row a key: Sᵀ = K·Qᵀ and dPᵀ = V·dOᵀ, so that Pᵀ and dSᵀ are left operands as they come.
template <int kDim>
__global__ void __launch_bounds__(kThreads) attention_mma_grad_kv_kernel(AttentionProblem p, GradientTensors<bf16> tensors) {
  constexpr int kQueries = kPassing<kDim>;
  static_assert(kQueries <= kThreads);
  const auto [tile, kv_head] = block_tile(p, Side::keys, kRows);
  const Sequence& s = tile.sequence;
  const int here = tile.rows.count();
  if (here <= 0) return;
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp, g = lane / 4, t = lane % 4;
  bf16* keys = shared_memory<bf16>();
  bf16 *values = keys + kRows * kDim, *queries = values + kRows * kDim, *douts = queries + 2 * kQueries * kDim;
  auto* lses = reinterpret_cast<float*>(douts + 2 * kQueries * kDim);  // in powers of 2
  float* deltas = lses + 2 * kQueries;
  const std::int64_t kv_at = (s.kv_begin + tile.rows.first) * p.kv_cols() + std::int64_t{kv_head} * p.head_dim;
  const Rows all = queries_of(p, s, tile.rows);
  const auto load_queries = [&](int head, int begin, int stage) {
    const std::int64_t row = s.q_begin + begin, q_at = row * p.q_cols() + std::int64_t{head} * p.head_dim;
    const int count = all.last - begin;
    load_tile_async<kQueries, kDim, kThreads>(queries + stage * kQueries * kDim, tensors.q + q_at, p.q_cols(), count, p.head_dim);
    load_tile_async<kQueries, kDim, kThreads>(douts + stage * kQueries * kDim, tensors.dout + q_at, p.q_cols(), count, p.head_dim);
    if (const int i = static_cast<int>(threadIdx.x); i < kQueries) {
      lses[stage * kQueries + i] = i < count ? tensors.lse[(row + i) * p.heads + head] * kLog2E : 0.0f;
      deltas[stage * kQueries + i] = i < count ? tensors.delta[(row + i) * p.heads + head] : 0.0f;
    }
  };
  load_tile_async<kRows, kDim, kThreads>(keys, tensors.k + kv_at, p.kv_cols(), here, p.head_dim);
  load_tile_async<kRows, kDim, kThreads>(values, tensors.v + kv_at, p.kv_cols(), here, p.head_dim);
  if (all.first < all.last) load_queries(kv_head * p.group(), all.first, 0);
  ptx::cp_async_commit();

  const int own = warp * kStrip;
  const Rows own_keys = {tile.rows.first + own, tile.rows.first + own + kStrip}, own_queries = queries_of(p, s, own_keys);
  const float scale = p.scale * kLog2E;
  Results<kDim> dk, dv;
  clear<kDim>(dk);
  clear<kDim>(dv);
  const int last_head = (kv_head + 1) * p.group();
  int head = kv_head * p.group(), begin = all.first, stage = 0;
  while (head < last_head && begin < all.last) {
    int next_head = head, next = begin + kQueries;
    if (next >= all.last) next = all.first, ++next_head;
    if (next_head < last_head) load_queries(next_head, next, stage ^ 1);
    ptx::cp_async_commit();
    ptx::cp_async_wait<1>();
    __syncthreads();
    if (begin < own_queries.last && begin + kQueries > own_queries.first) {
      bf16 *tile_queries = queries + stage * kQueries * kDim, *tile_douts = douts + stage * kQueries * kDim;
      Results<kQueries> weights, grads;
      multiply<kDim, kQueries>(weights, keys, own, tile_queries);
      multiply<kDim, kQueries>(grads, values, own, tile_douts);
      const bool masked = begin + kQueries > s.q_seq || !all_visible(p, s, {begin, begin + kQueries}, own_keys);
#pragma unroll
      for (int n = 0; n < kQueries / 8; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int column = n * 8 + 2 * t + e % 2, query = begin + column, key = own_keys.first + e / 2 * 8 + g;
          const bool seen = !masked || (query < s.q_seq && visible(p, s, query, key));
          weights[n][e] = seen ? exp2f(weights[n][e] * scale - lses[stage * kQueries + column]) : 0.0f;
          grads[n][e] = seen ? weights[n][e] * (grads[n][e] - deltas[stage * kQueries + column]) : 0.0f;
        }
      accumulate<kDim, kQueries>(dv, weights, tile_douts);
      accumulate<kDim, kQueries>(dk, grads, tile_queries);
    }
    __syncthreads();  // this tile's place is the one after next's
    head = next_head;
    begin = next;
    stage ^= 1;
  }
  ptx::cp_async_wait<0>();
  __syncthreads();  // of a tile that nobody sees, too, the copies are done
  const std::int64_t to = kv_at + own * p.kv_cols();
  if (tensors.dk != nullptr) store_rows<kDim>(dk, p.scale, p.scale, keys + own * kDim, tensors.dk + to, p.kv_cols(), here - own, p.head_dim);
  if (tensors.dv != nullptr) store_rows<kDim>(dv, 1.0f, 1.0f, values + own * kDim, tensors.dv + to, p.kv_cols(), here - own, p.head_dim);
}

template <int kDim>
void start(const AttentionProblem& p, const GradientTensors<bf16>& tensors, const Context& context) {
  if (tensors.dq != nullptr)
    launch(attention_mma_grad_q_kernel<kDim>, tile_grid(p, Side::queries, kRows, kThreads, kSharedOfQ<kDim>), context.stream, p, tensors);
  if (tensors.dk != nullptr || tensors.dv != nullptr)
    launch(attention_mma_grad_kv_kernel<kDim>, tile_grid(p, Side::keys, kRows, kThreads, kSharedOfKv<kDim>), context.stream, p, tensors);
}

}  // namespace

void gradients_mma(const AttentionProblem& p, const GradientTensors<bf16>& tensors, const Context& context) {
  if (p.head_dim <= 64) {
    start<64>(p, tensors, context);
  } else {
    start<128>(p, tensors, context);
  }
}

}  // namespace graft::cuda
