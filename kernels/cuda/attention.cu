// Attention in f32 arithmetic, for any head_dim and for f32 and bf16 tensors: FlashAttention-2 (Dao 2023), algorithms 1 and 2, with dq apart from dk and dv, so that
// nothing is added by atomics. bf16 tensors go to attention_mma.cu where that serves them.
//
// A block has 64 threads that stand as 8×8 and compute with square tiles of Tiles::kRows rows, in shared memory as f32: thread (y, x) has of a tile of scores the rows
// y + 8i and the columns x + 8j, of a tile of results the rows y + 8i and the columns 32c + 4x … + 3. The 8 threads of a row are lanes of one warp, so what they
// share goes by shuffles, and weights that they write to shared memory for each other need a barrier of the warp only.
#include <cmath>

#include "kernels/attention_siblings.h"
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/map.cuh"

namespace graft::cuda {
namespace {

constexpr int kSide = 8, kThreads = kSide * kSide;

/// Head dimensions up to kDim.
template <int kDim>
struct Tiles {
  static_assert(kDim == 64 || kDim == 128 || kDim == 256);
  static constexpr int kRows = kDim > 128 ? 16 : 32;  // of a tile
  static constexpr int kEach = kRows / kSide;         // rows, and columns of scores, of a thread
  static constexpr int kParts = kDim / (4 * kSide);   // columns of results of a thread, four in each part
  static constexpr int kWeightPitch = kRows + 4;      // elements from row to row
  using Scores = float[kEach][kEach];
  using Results = Pack<float, 4>[kEach][kParts];
};

__device__ __forceinline__ int thread_y() { return static_cast<int>(threadIdx.x) / kSide; }
__device__ __forceinline__ int thread_x() { return static_cast<int>(threadIdx.x) % kSide; }

/// Columns of a row in shared memory that are computed with, the last ones being 0; and elements from row to row: an odd number of 16 bytes, so that 8 rows
/// read at the same column lie in different banks.
__host__ __device__ constexpr int width_of(int head_dim) { return (head_dim + 3) / 4 * 4; }
__host__ __device__ constexpr int pitch_of(int head_dim) { return (width_of(head_dim) / 4 | 1) * 4; }

/// `count` rows of one head, `stride` elements apart, to shared memory; the rest of the tile and of the columns is 0.
template <int kRows, class T>
__device__ void load_tile(float* to, const T* from, int count, std::int64_t stride, int head_dim) {
  const int parts = width_of(head_dim) / 4, pitch = pitch_of(head_dim);
  for (int i = static_cast<int>(threadIdx.x); i < kRows * parts; i += kThreads) {
    const int row = i / parts, column = i % parts * 4;
    Pack<float, 4> values = {};
    if (row < count) {
      const T* at = from + row * stride + column;
      if (head_dim % 4 == 0) {
        const auto pack = load_pack<4>(at);
#pragma unroll
        for (int e = 0; e < 4; ++e) values.at[e] = to_float(pack.at[e]);
      } else {
#pragma unroll
        for (int e = 0; e < 4; ++e)
          if (column + e < head_dim) values.at[e] = to_float(at[e]);
      }
    }
    store_pack(to + row * pitch + column, values);
  }
}

/// Results times `factor(row)`, as rows of one head; only the first `count` rows are there.
template <int kDim, class T, class Factor>
__device__ void store_results(const typename Tiles<kDim>::Results& results, T* to, int count, std::int64_t stride, int head_dim,
                              Factor&& factor) {
#pragma unroll
  for (int i = 0; i < Tiles<kDim>::kEach; ++i) {
    const int row = thread_y() + kSide * i;
    if (row >= count) continue;
#pragma unroll
    for (int c = 0; c < Tiles<kDim>::kParts; ++c) {
      const int column = 4 * (kSide * c + thread_x());
      if (column >= head_dim) continue;
      T* at = to + row * stride + column;
      Pack<T, 4> values;
#pragma unroll
      for (int e = 0; e < 4; ++e) values.at[e] = from_float<T>(results[i][c].at[e] * factor(i));
      if (head_dim % 4 == 0) {
        store_pack(at, values);
      } else {
#pragma unroll
        for (int e = 0; e < 4; ++e)
          if (column + e < head_dim) at[e] = values.at[e];
      }
    }
  }
}

/// scores = a·bᵀ of two tiles in shared memory.
template <int kDim>
__device__ __forceinline__ void multiply(typename Tiles<kDim>::Scores& scores, const float* a, const float* b, int head_dim) {
  constexpr int kEach = Tiles<kDim>::kEach;
  const int pitch = pitch_of(head_dim);
  a += thread_y() * pitch;
  b += thread_x() * pitch;
#pragma unroll
  for (int i = 0; i < kEach; ++i)
#pragma unroll
    for (int j = 0; j < kEach; ++j) scores[i][j] = 0.0f;
  for (int d = 0; d < head_dim; d += 4) {
    Pack<float, 4> left[kEach], right[kEach];
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      left[i] = load_pack<4>(a + kSide * i * pitch + d);
      right[i] = load_pack<4>(b + kSide * i * pitch + d);
    }
#pragma unroll
    for (int i = 0; i < kEach; ++i)
#pragma unroll
      for (int j = 0; j < kEach; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) scores[i][j] += left[i].at[e] * right[j].at[e];
  }
}

/// results += weights·rows of two tiles in shared memory, of `rows` the first `count`; the weights of four at a time must be there. If kMasked, a row of weight 0 is left out for
/// that result: it may be hidden, and hold infinity or NaN.
template <int kDim, bool kMasked>
__device__ __forceinline__ void accumulate(typename Tiles<kDim>::Results& results, const float* weights, const float* rows,
                                           int count, int head_dim) {
  constexpr int kEach = Tiles<kDim>::kEach, kParts = Tiles<kDim>::kParts, kPitch = Tiles<kDim>::kWeightPitch;
  const int pitch = pitch_of(head_dim);
  for (int j = 0; j < count; j += 4) {
    Pack<float, 4> left[kEach];
#pragma unroll
    for (int i = 0; i < kEach; ++i) left[i] = load_pack<4>(weights + (thread_y() + kSide * i) * kPitch + j);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
#pragma unroll
      for (int c = 0; c < kParts; ++c) {
        const int column = 4 * (kSide * c + thread_x());
        if (column >= head_dim) continue;
        const auto right = load_pack<4>(rows + (j + k) * pitch + column);
#pragma unroll
        for (int i = 0; i < kEach; ++i) {
          if (kMasked && left[i].at[k] == 0.0f) continue;
#pragma unroll
          for (int e = 0; e < 4; ++e) results[i][c].at[e] += left[i].at[k] * right.at[e];
        }
      }
    }
  }
}

template <int kDim>
__device__ __forceinline__ void accumulate(typename Tiles<kDim>::Results& results, const float* weights, const float* rows,
                                           int count, int head_dim, bool masked) {
  masked ? accumulate<kDim, true>(results, weights, rows, count, head_dim)
         : accumulate<kDim, false>(results, weights, rows, count, head_dim);
}

/// Over the 8 threads of a row.
template <class Combine>
__device__ __forceinline__ float over_row(float x, Combine&& combine) {
#pragma unroll
  for (int step = kSide / 2; step > 0; step /= 2) x = combine(x, __shfl_xor_sync(kFullWarp, x, step));
  return x;
}

template <int kDim>
__device__ __forceinline__ void store_weights(float* to, const typename Tiles<kDim>::Scores& weights) {
#pragma unroll
  for (int i = 0; i < Tiles<kDim>::kEach; ++i)
#pragma unroll
    for (int j = 0; j < Tiles<kDim>::kEach; ++j)
      to[(thread_y() + kSide * i) * Tiles<kDim>::kWeightPitch + thread_x() + kSide * j] = weights[i][j];
}

/// exp(x), x ≤ 0 (or as good as): the difference first, so that large scores lose nothing to the factor.
__device__ __forceinline__ float weight_of(float x) { return exp2f(x * kLog2E); }

/// Bytes of shared memory for tiles of rows, and tiles of weights.
template <int kDim>
std::size_t shared_bytes(int head_dim, int row_tiles, int weight_tiles) {
  using T = Tiles<kDim>;
  return sizeof(float) * static_cast<std::size_t>(T::kRows) *
         static_cast<std::size_t>(row_tiles * pitch_of(head_dim) + weight_tiles * T::kWeightPitch);
}

/// out and lse of one tile of queries of one head; both may be null. Shared memory: queries, keys, values, weights [queries, keys].
template <class T, int kDim>
__global__ void __launch_bounds__(kThreads)
    attention_kernel(AttentionProblem p, const T* q, const T* k, const T* v, T* out, float* lse) {
  using Shape = Tiles<kDim>;
  constexpr int kRows = Shape::kRows, kEach = Shape::kEach;
  const auto [tile, head] = block_tile(p, Side::queries, kRows);
  const Sequence& s = tile.sequence;
  const int here = tile.rows.count(), kv_head = head / p.group();
  if (here <= 0) return;
  float* queries = shared_memory<float>();
  float *keys = queries + kRows * pitch_of(p.head_dim), *values = keys + kRows * pitch_of(p.head_dim),
        *weights = values + kRows * pitch_of(p.head_dim);
  const std::int64_t q_at = (s.q_begin + tile.rows.first) * p.q_cols() + std::int64_t{head} * p.head_dim;
  const std::int64_t kv_at = s.kv_begin * p.kv_cols() + std::int64_t{kv_head} * p.head_dim;
  load_tile<kRows>(queries, q + q_at, here, p.q_cols(), p.head_dim);

  typename Shape::Results results = {};
  float maxima[kEach], sums[kEach];
  Rows seen[kEach];
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const int query = tile.rows.first + thread_y() + kSide * i;
    maxima[i] = -INFINITY;
    sums[i] = 0.0f;
    seen[i] = keys_of(p, s, {query, query + 1});
  }
  const Rows all = keys_of(p, s, tile.rows);
  for (int begin = all.first; begin < all.last; begin += kRows) {
    const int count = std::min(kRows, all.last - begin);
    __syncthreads();  // whoever still computes with the keys before
    load_tile<kRows>(keys, k + kv_at + begin * p.kv_cols(), count, p.kv_cols(), p.head_dim);
    load_tile<kRows>(values, v + kv_at + begin * p.kv_cols(), count, p.kv_cols(), p.head_dim);
    __syncthreads();
    typename Shape::Scores scores;
    multiply<kDim>(scores, queries, keys, p.head_dim);
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      float top = maxima[i];
#pragma unroll
      for (int j = 0; j < kEach; ++j) {
        const int key = begin + thread_x() + kSide * j;
        scores[i][j] = key >= seen[i].first && key < seen[i].last ? scores[i][j] * p.scale : -INFINITY;
        top = fmaxf(top, scores[i][j]);
      }
      top = over_row(top, [](float a, float b) { return fmaxf(a, b); });
      const float shift = top == -INFINITY ? 0.0f : top;  // nothing seen so far: all weights are 0
      const float factor = weight_of(maxima[i] - shift);
      maxima[i] = top;
      sums[i] *= factor;
#pragma unroll
      for (int j = 0; j < kEach; ++j) {
        scores[i][j] = weight_of(scores[i][j] - shift);
        sums[i] += scores[i][j];
      }
#pragma unroll
      for (int c = 0; c < Shape::kParts; ++c)
#pragma unroll
        for (int e = 0; e < 4; ++e) results[i][c].at[e] *= factor;
    }
    store_weights<kDim>(weights, scores);
    __syncwarp();
    accumulate<kDim>(results, weights, values, count, p.head_dim, !all_visible(p, s, tile.rows, {begin, begin + count}));
  }
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    sums[i] = over_row(sums[i], [](float a, float b) { return a + b; });
    const int row = thread_y() + kSide * i;
    if (lse != nullptr && thread_x() == 0 && row < here)
      lse[(s.q_begin + tile.rows.first + row) * p.heads + head] = maxima[i] + logf(sums[i]);  // −∞ where nothing is seen
  }
  if (out != nullptr)
    store_results<kDim>(results, out + q_at, here, p.q_cols(), p.head_dim,
                        [&](int i) { return sums[i] == 0.0f ? 0.0f : 1.0f / sums[i]; });
}

/// dq of one tile of queries of one head. Shared memory: queries, dout, keys, values, dS [queries, keys].
template <class T, int kDim>
__global__ void __launch_bounds__(kThreads) attention_grad_q_kernel(AttentionProblem p, GradientTensors<T> g) {
  using Shape = Tiles<kDim>;
  constexpr int kRows = Shape::kRows, kEach = Shape::kEach;
  const auto [tile, head] = block_tile(p, Side::queries, kRows);
  const Sequence& s = tile.sequence;
  const int here = tile.rows.count(), kv_head = head / p.group();
  if (here <= 0) return;
  const int size = kRows * pitch_of(p.head_dim);
  float *queries = shared_memory<float>(), *douts = queries + size, *keys = douts + size, *values = keys + size,
        *weights = values + size;
  const std::int64_t q_at = (s.q_begin + tile.rows.first) * p.q_cols() + std::int64_t{head} * p.head_dim;
  const std::int64_t kv_at = s.kv_begin * p.kv_cols() + std::int64_t{kv_head} * p.head_dim;
  load_tile<kRows>(queries, g.q + q_at, here, p.q_cols(), p.head_dim);
  load_tile<kRows>(douts, g.dout + q_at, here, p.q_cols(), p.head_dim);

  typename Shape::Results results = {};
  float lse[kEach], delta[kEach];
  Rows seen[kEach];
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const int row = thread_y() + kSide * i, query = tile.rows.first + row;
    const std::int64_t at = (s.q_begin + query) * p.heads + head;
    lse[i] = row < here ? g.lse[at] : 0.0f;
    delta[i] = row < here ? g.delta[at] : 0.0f;
    seen[i] = keys_of(p, s, {query, query + 1});
  }
  const Rows all = keys_of(p, s, tile.rows);
  for (int begin = all.first; begin < all.last; begin += kRows) {
    const int count = std::min(kRows, all.last - begin);
    __syncthreads();
    load_tile<kRows>(keys, g.k + kv_at + begin * p.kv_cols(), count, p.kv_cols(), p.head_dim);
    load_tile<kRows>(values, g.v + kv_at + begin * p.kv_cols(), count, p.kv_cols(), p.head_dim);
    __syncthreads();
    typename Shape::Scores scores, grads;
    multiply<kDim>(scores, queries, keys, p.head_dim);
    multiply<kDim>(grads, douts, values, p.head_dim);
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
#pragma unroll
      for (int j = 0; j < kEach; ++j) {
        const int key = begin + thread_x() + kSide * j;
        grads[i][j] = key >= seen[i].first && key < seen[i].last
                          ? weight_of(scores[i][j] * p.scale - lse[i]) * (grads[i][j] - delta[i])
                          : 0.0f;
      }
    }
    store_weights<kDim>(weights, grads);
    __syncwarp();
    accumulate<kDim>(results, weights, keys, count, p.head_dim, !all_visible(p, s, tile.rows, {begin, begin + count}));
  }
  store_results<kDim>(results, g.dq + q_at, here, p.q_cols(), p.head_dim, [&](int) { return p.scale; });
}

/// dk and dv of one tile of keys of one kv head, summed over the query heads that read it and over the tiles of queries, in that order; dk or dv may be null. All
/// products are computed with a row a key. Shared memory: keys, values, queries, dout, P [keys, queries], dS, lse, delta.
template <class T, int kDim>
__global__ void __launch_bounds__(kThreads) attention_grad_kv_kernel(AttentionProblem p, GradientTensors<T> g) {
  using Shape = Tiles<kDim>;
  constexpr int kRows = Shape::kRows, kEach = Shape::kEach;
  const auto [tile, kv_head] = block_tile(p, Side::keys, kRows);
  const Sequence& s = tile.sequence;
  const int here = tile.rows.count();
  if (here <= 0) return;
  const int size = kRows * pitch_of(p.head_dim);
  float *keys = shared_memory<float>(), *values = keys + size, *queries = values + size, *douts = queries + size;
  float *weights = douts + size, *grad_weights = weights + kRows * Shape::kWeightPitch;
  float *lse = grad_weights + kRows * Shape::kWeightPitch, *delta = lse + kRows;
  const std::int64_t kv_at = (s.kv_begin + tile.rows.first) * p.kv_cols() + std::int64_t{kv_head} * p.head_dim;
  load_tile<kRows>(keys, g.k + kv_at, here, p.kv_cols(), p.head_dim);
  load_tile<kRows>(values, g.v + kv_at, here, p.kv_cols(), p.head_dim);

  typename Shape::Results dk = {}, dv = {};
  const Rows all = queries_of(p, s, tile.rows);
  for (int head = kv_head * p.group(); head < (kv_head + 1) * p.group(); ++head) {
    for (int begin = all.first; begin < all.last; begin += kRows) {
      const int count = std::min(kRows, all.last - begin);
      const std::int64_t row = s.q_begin + begin, q_at = row * p.q_cols() + std::int64_t{head} * p.head_dim;
      __syncthreads();
      load_tile<kRows>(queries, g.q + q_at, count, p.q_cols(), p.head_dim);
      load_tile<kRows>(douts, g.dout + q_at, count, p.q_cols(), p.head_dim);
      for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) {
        lse[i] = g.lse[(row + i) * p.heads + head];
        delta[i] = g.delta[(row + i) * p.heads + head];
      }
      __syncthreads();
      typename Shape::Scores scores, grads;
      multiply<kDim>(scores, keys, queries, p.head_dim);
      multiply<kDim>(grads, values, douts, p.head_dim);
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
        const int key = tile.rows.first + thread_y() + kSide * i;
#pragma unroll
        for (int j = 0; j < kEach; ++j) {
          const int column = thread_x() + kSide * j;
          const bool seen = column < count && visible(p, s, begin + column, key);
          scores[i][j] = seen ? weight_of(scores[i][j] * p.scale - lse[column]) : 0.0f;
          grads[i][j] = seen ? scores[i][j] * (grads[i][j] - delta[column]) : 0.0f;
        }
      }
      store_weights<kDim>(weights, scores);
      store_weights<kDim>(grad_weights, grads);
      __syncwarp();
      const bool masked = !all_visible(p, s, {begin, begin + count}, tile.rows);
      accumulate<kDim>(dv, weights, douts, count, p.head_dim, masked);
      accumulate<kDim>(dk, grad_weights, queries, count, p.head_dim, masked);
    }
  }
  if (g.dk != nullptr) store_results<kDim>(dk, g.dk + kv_at, here, p.kv_cols(), p.head_dim, [&](int) { return p.scale; });
  if (g.dv != nullptr) store_results<kDim>(dv, g.dv + kv_at, here, p.kv_cols(), p.head_dim, [](int) { return 1.0f; });
}

/// delta of `count` rows of one head, which lie one after the other in out and dout; `lanes` lanes each, a power of two.
template <class T>
__global__ void attention_delta_kernel(std::int64_t count, int head_dim, int lanes, const T* out, const T* dout, float* delta) {
  const int lane = static_cast<int>(threadIdx.x) % lanes;
  const std::int64_t rows = (count + kWarp - 1) / kWarp * kWarp;  // whole warps stay together
  for (std::int64_t row = thread_index() / lanes; row < rows; row += thread_count() / lanes) {
    float total = 0.0f;
    if (row < count) {
      const T *a = out + row * head_dim, *b = dout + row * head_dim;
      if (head_dim % 4 == 0) {
        for (int i = lane * 4; i < head_dim; i += lanes * 4) {
          const auto x = load_pack<4>(a + i), y = load_pack<4>(b + i);
#pragma unroll
          for (int e = 0; e < 4; ++e) total += to_float(x.at[e]) * to_float(y.at[e]);
        }
      } else {
        for (int i = lane; i < head_dim; i += lanes) total += to_float(a[i]) * to_float(b[i]);
      }
    }
    for (int step = lanes / 2; step > 0; step /= 2) total += __shfl_xor_sync(kFullWarp, total, step);
    if (lane == 0 && row < count) delta[row] = total;
  }
}

/// Calls f<T, kDim>() for the type of the tensors and the smallest kDim that holds the head.
template <class F>
void with_tiles(const AttentionProblem& p, DType dtype, F&& f) {
  with_float_type(dtype, [&]<class T>() {
    if (p.head_dim <= 64) return f.template operator()<T, 64>();
    if (p.head_dim <= 128) return f.template operator()<T, 128>();
    f.template operator()<T, 256>();
  });
}

void forward(const MultiHeadAttn& op, const Step& step, const Context& context) {
  const AttentionProblem p = attention_problem(op, step.in);
  if (takes_mma(p.head_dim, p.scale, step.in[0].type.dtype)) {
    return forward_mma(p, step.in[0].as<const bf16>(), step.in[1].as<const bf16>(), step.in[2].as<const bf16>(), step.out[0].as<bf16>(), step.out[1].as<float>(), context);
  }
  with_tiles(p, step.in[0].type.dtype, [&]<class T, int kDim>() {
    launch(attention_kernel<T, kDim>,
           tile_grid(p, Side::queries, Tiles<kDim>::kRows, kThreads, shared_bytes<kDim>(p.head_dim, 3, 1)), context.stream, p,
           step.in[0].as<const T>(), step.in[1].as<const T>(), step.in[2].as<const T>(), step.out[0].as<T>(),
           step.out[1].as<float>());
  });
}

template <class T>
GradientTensors<T> gradient_tensors(std::span<const TensorView> in, const detail::AttentionGradients& out) {
  return {in[0].as<const T>(),     in[1].as<const T>(),     in[2].as<const T>(),     in[3].as<const float>(), in[4].as<const T>(),
          in[5].as<const float>(), static_cast<T*>(out.dq), static_cast<T*>(out.dk), static_cast<T*>(out.dv)};
}

void gradients(const MultiHeadAttn& op, std::span<const TensorView> in, const detail::AttentionGradients& out, const Context& context) {
  const AttentionProblem p = attention_problem(op, in);
  if (takes_mma(p.head_dim, p.scale, in[0].type.dtype)) return gradients_mma(p, gradient_tensors<bf16>(in, out), context);
  with_tiles(p, in[0].type.dtype, [&]<class T, int kDim>() {
    const GradientTensors<T> tensors = gradient_tensors<T>(in, out);
    constexpr int kRows = Tiles<kDim>::kRows;
    if (out.dq != nullptr) {
      launch(attention_grad_q_kernel<T, kDim>, tile_grid(p, Side::queries, kRows, kThreads, shared_bytes<kDim>(p.head_dim, 4, 1)),
             context.stream, p, tensors);
    }
    if (out.dk != nullptr || out.dv != nullptr) {
      const std::size_t shared = shared_bytes<kDim>(p.head_dim, 4, 2) + 2 * sizeof(float) * kRows;
      launch(attention_grad_kv_kernel<T, kDim>, tile_grid(p, Side::keys, kRows, kThreads, shared), context.stream, p, tensors);
    }
  });
}

}  // namespace

std::size_t run_attention_gradients(std::span<const Step> steps, Context& context) {
  const detail::AttentionSiblings all = detail::attention_siblings(steps);
  if (all.attn != nullptr) gradients(*all.attn, steps[0].in, all.out, context);
  return all.count;
}

void run(const MultiHeadAttn& op, const Step& step, Context& context) {
  if (step.out[0] || step.out[1]) forward(op, step, context);
}

void run(const MultiHeadAttnGradQ&, const Step& step, Context& context) { run_attention_gradients({&step, 1}, context); }
void run(const MultiHeadAttnGradK&, const Step& step, Context& context) { run_attention_gradients({&step, 1}, context); }
void run(const MultiHeadAttnGradV&, const Step& step, Context& context) { run_attention_gradients({&step, 1}, context); }

void run(const AttnDelta& op, const Step& step, Context& context) {
  if (!step.out[0]) return;
  const std::int64_t count = step.out[0].size();
  const int head_dim = static_cast<int>(op.heads.head_dim);
  int lanes = 1;
  while (lanes < kWarp && lanes * 4 < head_dim) lanes *= 2;
  with_float_type(step.in[0].type.dtype, [&]<class T>() {
    launch(attention_delta_kernel<T>, map_shape(count * lanes, context), context.stream, count, head_dim, lanes,
           step.in[0].as<const T>(), step.in[1].as<const T>(), step.out[0].as<float>());
  });
}

}  // namespace graft::cuda
