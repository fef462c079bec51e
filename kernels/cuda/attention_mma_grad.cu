// The gradients of attention of bf16 tensors on tensor cores (mma.sync): FlashAttention-2 (Dao 2023), algorithm 2, with dq apart from dk and dv: seven products instead of
// five, but nothing is added by atomics. Scores, statistics and sums are f32; P and dS are rounded to bf16 for the products that they are operands of.
//
// Blocks have 4 warps. In a warp, lane 4g + t has of each result [16, 8] the rows g and g + 8 and the columns 2t and 2t + 1, in that order. Scores become the left operand of
// the next product in the registers where they are, so a kernel computes them with its own rows as rows: dq with queries, dk and dv with keys. The other side passes by in
// tiles, two of which are in shared memory: one that is computed with, one on its way by cp.async.
#include <cmath>

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/attention_tiles.cuh"

namespace graft::cuda {
namespace {

constexpr int kWarps = 4, kThreads = kWarps * kWarp;
constexpr int kUnrolled = 4;  // steps of a product of scores: all eight of kDim 128 at once want more registers than there are

/// Sizes for head dimensions up to kDim: strips of 16 rows that a warp has, rows of a tile that passes by, and how many of those are computed with at a time. Results and two tiles of scores must fit into 255 registers, the
/// tiles into 99 KiB, so that two blocks of an H100 stand on one multiprocessor.
template <int kDim>
struct QueryShape {
  static_assert(kDim == 64 || kDim == 128);
  static constexpr int kStrips = 2, kPassing = 32;
  static constexpr int kOwn = kWarps * kStrips * 16;
  static constexpr std::size_t kShared = sizeof(bf16) * kDim * (2 * kOwn + 2 * 2 * kPassing) +
                                         sizeof(float) * 2 * kOwn;  // queries and dout; keys and values, twice; lse and delta
};
template <int kDim>
struct KeyShape {
  static_assert(kDim == 64 || kDim == 128);
  static constexpr int kStrips = kDim == 64 ? 2 : 1, kPassing = 64, kStep = 32;
  static constexpr int kOwn = kWarps * kStrips * 16;
  static constexpr std::size_t kTiles =
      sizeof(bf16) * kDim * (2 * kOwn + 2 * 2 * kPassing);                           // keys and values; queries and dout, twice
  static constexpr std::size_t kShared = kTiles + sizeof(float) * 2 * 2 * kPassing;  // lse and delta, twice
  static_assert(2 * kPassing == kThreads);                                           // a thread brings one of them
};

template <int kStrips, int kColumns>
struct Results {
  float at[kStrips][kColumns / 8][4] = {};

  /// Those of which seen(strip, result, element) is not true become `hidden`.
  template <class Seen>
  __device__ __forceinline__ void keep(float hidden, Seen&& seen) {
#pragma unroll
    for (int i = 0; i < kStrips; ++i)
#pragma unroll
      for (int n = 0; n < kColumns / 8; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e)
          if (!seen(i, n, e)) at[i][n][e] = hidden;
  }
};

/// results += weights·passing, the weights rounded to bf16; if kCareful, of what is finite in `passing`.
template <int kDim, bool kCareful, int kStrips, int kColumns>
__device__ __forceinline__ void accumulate(Results<kStrips, kDim>& results, const Results<kStrips, kColumns>& weights,
                                           bf16* passing) {
#pragma unroll
  for (int j = 0; j < kColumns / 16; ++j) {
    std::uint32_t left[kStrips][4];
#pragma unroll
    for (int i = 0; i < kStrips; ++i) as_left_operand(left[i], weights.at[i][2 * j], weights.at[i][2 * j + 1]);
#pragma unroll
    for (int step = 0; step < kDim / 16; ++step) {
      std::uint32_t right[2][2];
      right_operands<kDim>(right, passing, j * 16, step);
      if constexpr (kCareful) keep_finite(right);
#pragma unroll
      for (int i = 0; i < kStrips; ++i) {
        ptx::mma_m16n8k16(results.at[i][2 * step], left[i], right[0]);
        ptx::mma_m16n8k16(results.at[i][2 * step + 1], left[i], right[1]);
      }
    }
  }
}

/// Element e of a lane's four in result [16, 8] number n of strip i, counted from the warp's first row.
__device__ __forceinline__ int row_of(int lane, int i, int e) { return 16 * i + e / 2 * 8 + lane / 4; }
__device__ __forceinline__ int column_of(int lane, int n, int e) { return 8 * n + 2 * (lane % 4) + e % 2; }

/// What is taken from scores in powers of 2; of a row that sees nothing +∞, so that its weights are 0 and not exp(−∞ + ∞).
__device__ __forceinline__ float exponent_of(float lse) { return lse == -INFINITY ? INFINITY : lse * kLog2E; }

/// dq of block number `block`, one tile of queries of one head. Shared memory: queries and dout [kOwn, kDim], of which a warp has its own rows; keys and values [2, kPassing, kDim] each.
template <int kDim, bool kCareful>
__device__ __forceinline__ void query_gradients(const AttentionProblem& p, const GradientTensors<bf16>& tensors, unsigned block, unsigned blocks) {
  using Shape = QueryShape<kDim>;
  constexpr int kStrips = Shape::kStrips, kPassing = Shape::kPassing, kTile = kPassing * kDim;
  const auto [tile, head] = block_tile(p, Side::queries, Shape::kOwn, block, blocks);
  const Sequence& s = tile.sequence;
  const int here = tile.rows.count(), kv_head = head / p.group();
  if (here <= 0) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, own = static_cast<int>(threadIdx.x) / kWarp * kStrips * 16;
  bf16 *queries = shared_memory<bf16>(), *douts = queries + Shape::kOwn * kDim, *keys = douts + Shape::kOwn * kDim,
       *values = keys + 2 * kTile;
  float *lse = reinterpret_cast<float*>(values + 2 * kTile), *delta = lse + Shape::kOwn;
  const std::int64_t q_at = (s.q_begin + tile.rows.first) * p.q_cols() + std::int64_t{head} * p.head_dim;
  const std::int64_t kv_at = s.kv_begin * p.kv_cols() + std::int64_t{kv_head} * p.head_dim;
  const Rows all = keys_of(p, s, tile.rows);
  const auto load = [&](int begin, int stage) {
    load_tile_async<kPassing, kDim, kThreads>(keys + stage * kTile, tensors.k + kv_at + begin * p.kv_cols(), p.kv_cols(),
                                              all.last - begin, p.head_dim);
    load_tile_async<kPassing, kDim, kThreads>(values + stage * kTile, tensors.v + kv_at + begin * p.kv_cols(), p.kv_cols(),
                                              all.last - begin, p.head_dim);
  };
  load_tile_async<Shape::kOwn, kDim, kThreads>(queries, tensors.q + q_at, p.q_cols(), here, p.head_dim);
  load_tile_async<Shape::kOwn, kDim, kThreads>(douts, tensors.dout + q_at, p.q_cols(), here, p.head_dim);
  load(all.first, 0);
  ptx::cp_async_commit();

  const float scale = p.scale * kLog2E;  // weights are powers of 2
  for (int row = static_cast<int>(threadIdx.x); row < Shape::kOwn; row += kThreads) {
    const std::int64_t at = (s.q_begin + tile.rows.first + row) * p.heads + head;
    lse[row] = row < here ? exponent_of(tensors.lse[at]) : 0.0f;
    delta[row] = row < here ? tensors.delta[at] : 0.0f;
  }
  const Rows own_queries = {tile.rows.first + own, std::min(tile.rows.first + own + kStrips * 16, tile.rows.last)};
  const Rows own_keys = own < here ? keys_of(p, s, own_queries) : Rows{0, 0};

  Results<kStrips, kDim> dq;
  int stage = 0;
  for (int begin = all.first; begin < all.last; begin += kPassing, stage ^= 1) {
    ptx::cp_async_wait<0>();
    __syncthreads();  // the tile is there for all, and nobody computes with the one before
    if (begin + kPassing < all.last) load(begin + kPassing, stage ^ 1);
    ptx::cp_async_commit();
    const Rows passing = {begin, begin + kPassing};
    if (passing.first >= own_keys.last || passing.last <= own_keys.first) continue;
    Results<kStrips, kPassing> scores, grads;
    multiply_by_rows<kDim, kUnrolled>(grads.at, douts, own, values + stage * kTile);
    multiply_by_rows<kDim, kUnrolled>(scores.at, queries, own, keys + stage * kTile);
    const auto seen = [&](int i, int n, int e) {
      const int key = passing.first + column_of(lane, n, e);
      return key < all.last && visible(p, s, own_queries.first + row_of(lane, i, e), key);
    };
    if (passing.last > all.last || !all_visible(p, s, own_queries, passing)) scores.keep(-INFINITY, seen);
#pragma unroll
    for (int i = 0; i < kStrips; ++i)
#pragma unroll
      for (int n = 0; n < kPassing / 8; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int row = own + row_of(lane, i, e);
          grads.at[i][n][e] = ptx::exp2(scores.at[i][n][e] * scale - lse[row]) * (grads.at[i][n][e] - delta[row]);
        }
    if constexpr (kCareful) grads.keep(0.0f, seen);
    accumulate<kDim, kCareful>(dq, grads, keys + stage * kTile);
  }
  ptx::cp_async_wait<0>();
  // Without keys, nothing has waited for the queries, in whose place the results go out.
  if (__syncthreads_or(!kCareful && !p.full && has_nan(dq.at))) dq.at[0][0][0] = NAN;
#pragma unroll
  for (int i = 0; i < kStrips; ++i) {
    const int row = own + i * 16;
    store_rows<kDim>(dq.at[i], p.scale, p.scale, queries + row * kDim, tensors.dq + q_at + row * p.q_cols(), p.q_cols(), here - row,
                     p.head_dim);
  }
}

/// dk and dv of block number `block`, one tile of keys of one kv head, summed over the query heads that read it and over the tiles of queries, in that order; dk or dv may be null. Shared memory:
/// keys and values [kOwn, kDim], of which a warp has its own rows; queries and dout [2, kPassing, kDim] each; lse and delta [2, 2, kPassing].
template <int kDim, bool kCareful>
__device__ __forceinline__ void key_gradients(const AttentionProblem& p, const GradientTensors<bf16>& tensors, unsigned block, unsigned blocks) {
  using Shape = KeyShape<kDim>;
  constexpr int kStrips = Shape::kStrips, kPassing = Shape::kPassing, kStep = Shape::kStep, kTile = kPassing * kDim;
  const auto [tile, kv_head] = block_tile(p, Side::keys, Shape::kOwn, block, blocks);
  const Sequence& s = tile.sequence;
  const int here = tile.rows.count(), thread = static_cast<int>(threadIdx.x);
  if (here <= 0) return;
  const int lane = thread % kWarp, own = thread / kWarp * kStrips * 16;
  bf16 *keys = shared_memory<bf16>(), *values = keys + Shape::kOwn * kDim, *queries = values + Shape::kOwn * kDim,
       *douts = queries + 2 * kTile;
  float* statistics = reinterpret_cast<float*>(douts + 2 * kTile);
  const std::int64_t kv_at = (s.kv_begin + tile.rows.first) * p.kv_cols() + std::int64_t{kv_head} * p.head_dim;
  const Rows all = queries_of(p, s, tile.rows);
  const auto load = [&](int head, int begin, int stage) {
    const std::int64_t at = (s.q_begin + begin) * p.q_cols() + std::int64_t{head} * p.head_dim;
    load_tile_async<kPassing, kDim, kThreads>(queries + stage * kTile, tensors.q + at, p.q_cols(), all.last - begin, p.head_dim);
    load_tile_async<kPassing, kDim, kThreads>(douts + stage * kTile, tensors.dout + at, p.q_cols(), all.last - begin, p.head_dim);
  };
  // This thread's lse or delta of a tile: on its way in a register while the tile before is computed with.
  const auto load_statistic = [&](int head, int begin) {
    const int row = begin + thread % kPassing;
    if (row >= all.last) return 0.0f;
    const std::int64_t at = (s.q_begin + row) * p.heads + head;
    return thread < kPassing ? exponent_of(tensors.lse[at]) : tensors.delta[at];
  };
  const auto store_statistic = [&](float statistic, int stage) { statistics[stage * 2 * kPassing + thread] = statistic; };
  load_tile_async<Shape::kOwn, kDim, kThreads>(keys, tensors.k + kv_at, p.kv_cols(), here, p.head_dim);
  load_tile_async<Shape::kOwn, kDim, kThreads>(values, tensors.v + kv_at, p.kv_cols(), here, p.head_dim);
  const int first_head = kv_head * p.group(), last_head = all.count() > 0 ? first_head + p.group() : first_head;
  if (first_head < last_head) {
    load(first_head, all.first, 0);
    store_statistic(load_statistic(first_head, all.first), 0);
  }
  ptx::cp_async_commit();

  const float scale = p.scale * kLog2E;
  const Rows own_keys = {tile.rows.first + own, std::min(tile.rows.first + own + kStrips * 16, tile.rows.last)};
  const Rows own_queries = own < here ? queries_of(p, s, own_keys) : Rows{0, 0};

  Results<kStrips, kDim> dk, dv;
  int begin = all.first, stage = 0;
  for (int head = first_head; head < last_head; stage ^= 1) {
    const Rows passing = {begin, begin + kPassing};
    begin += kPassing;
    if (begin >= all.last) begin = all.first, ++head;
    ptx::cp_async_wait<0>();
    __syncthreads();
    float next = 0.0f;
    if (head < last_head) {
      load(head, begin, stage ^ 1);
      next = load_statistic(head, begin);
    }
    ptx::cp_async_commit();
#pragma unroll 1
    for (int part = 0; part < kPassing; part += kStep) {
      const Rows rows = {passing.first + part, passing.first + part + kStep};
      if (rows.first >= own_queries.last || rows.last <= own_queries.first) continue;
      bf16 *part_queries = queries + stage * kTile + part * kDim, *part_douts = douts + stage * kTile + part * kDim;
      const float *lse = statistics + stage * 2 * kPassing + part, *delta = lse + kPassing;
      Results<kStrips, kStep> weights, grads;
      multiply_by_rows<kDim, kUnrolled>(grads.at, values, own, part_douts);
      multiply_by_rows<kDim, kUnrolled>(weights.at, keys, own, part_queries);
      const auto seen = [&](int i, int n, int e) {
        const int query = rows.first + column_of(lane, n, e);
        return query < all.last && visible(p, s, query, own_keys.first + row_of(lane, i, e));
      };
      if (rows.last > all.last || !all_visible(p, s, rows, own_keys)) weights.keep(-INFINITY, seen);
#pragma unroll
      for (int n = 0; n < kStep / 8; ++n) {
        const auto lses = load_pack<2>(lse + column_of(lane, n, 0)), deltas = load_pack<2>(delta + column_of(lane, n, 0));
#pragma unroll
        for (int i = 0; i < kStrips; ++i)
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            weights.at[i][n][e] = ptx::exp2(weights.at[i][n][e] * scale - lses.at[e % 2]);
            grads.at[i][n][e] = weights.at[i][n][e] * (grads.at[i][n][e] - deltas.at[e % 2]);
          }
      }
      if constexpr (kCareful) {
        weights.keep(0.0f, seen);
        grads.keep(0.0f, seen);
        if (tensors.dv != nullptr)
          add_not_finite<kDim, kStep>(dv.at, part_douts, [&](int i, int e, int row) { return visible(p, s, rows.first + row, own_keys.first + row_of(lane, i, e)); });
      }
      if (tensors.dv != nullptr) accumulate<kDim, kCareful>(dv, weights, part_douts);
      if (tensors.dk != nullptr) accumulate<kDim, kCareful>(dk, grads, part_queries);
    }
    store_statistic(next, stage ^ 1);
  }
  ptx::cp_async_wait<0>();
  if (__syncthreads_or(!kCareful && !p.full && (has_nan(dk.at) || has_nan(dv.at)))) dk.at[0][0][0] = dv.at[0][0][0] = NAN;
#pragma unroll
  for (int i = 0; i < kStrips; ++i) {
    const int row = own + i * 16;
    const std::int64_t at = kv_at + row * p.kv_cols();
    if (tensors.dk != nullptr)
      store_rows<kDim>(dk.at[i], p.scale, p.scale, keys + row * kDim, tensors.dk + at, p.kv_cols(), here - row, p.head_dim);
    if (tensors.dv != nullptr)
      store_rows<kDim>(dv.at[i], 1.0f, 1.0f, values + row * kDim, tensors.dv + at, p.kv_cols(), here - row, p.head_dim);
  }
}

template <int kDim>
__global__ void __launch_bounds__(kThreads) attention_mma_grad_q_kernel(AttentionProblem p, GradientTensors<bf16> tensors) {
  query_gradients<kDim, false>(p, tensors, blockIdx.x, gridDim.x);
}
template <int kDim>
__global__ void __launch_bounds__(kThreads) attention_mma_grad_kv_kernel(AttentionProblem p, GradientTensors<bf16> tensors) {
  key_gradients<kDim, false>(p, tensors, blockIdx.x, gridDim.x);
}
/// `blocks`: of the grid of the kernel before, here and below.
template <int kDim>
__global__ void __launch_bounds__(kThreads) attention_mma_careful_grad_q_kernel(AttentionProblem p, unsigned blocks, GradientTensors<bf16> tensors) {
  for_each_marked(p, Side::queries, QueryShape<kDim>::kOwn, blocks, tensors.dq, [&](unsigned block) { query_gradients<kDim, true>(p, tensors, block, blocks); });
}
template <int kDim>
__global__ void __launch_bounds__(kThreads) attention_mma_careful_grad_kv_kernel(AttentionProblem p, unsigned blocks, GradientTensors<bf16> tensors) {
  for_each_marked(p, Side::keys, KeyShape<kDim>::kOwn, blocks, tensors.dv != nullptr ? tensors.dv : tensors.dk,
                  [&](unsigned block) { key_gradients<kDim, true>(p, tensors, block, blocks); });
}

template <int kDim>
void launch_gradients(const AttentionProblem& p, const GradientTensors<bf16>& tensors, const Context& context) {
  const auto launch_both = [&](auto* fast, auto* careful, const LaunchShape& shape) {
    launch(fast, shape, context.stream, p, tensors);
    if (!p.full) launch(careful, careful_grid(shape, context), context.stream, p, shape.grid.x, tensors);
  };
  using Q = QueryShape<kDim>;
  using K = KeyShape<kDim>;
  if (tensors.dq != nullptr)
    launch_both(attention_mma_grad_q_kernel<kDim>, attention_mma_careful_grad_q_kernel<kDim>, tile_grid(p, Side::queries, Q::kOwn, kThreads, Q::kShared));
  if (tensors.dk != nullptr || tensors.dv != nullptr)
    launch_both(attention_mma_grad_kv_kernel<kDim>, attention_mma_careful_grad_kv_kernel<kDim>, tile_grid(p, Side::keys, K::kOwn, kThreads, K::kShared));
}

}  // namespace

void gradients_mma(const AttentionProblem& p, const GradientTensors<bf16>& tensors, const Context& context) {
  p.head_dim <= 64 ? launch_gradients<64>(p, tensors, context) : launch_gradients<128>(p, tensors, context);
}

}  // namespace graft::cuda
