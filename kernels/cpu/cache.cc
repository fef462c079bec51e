#include <cmath>
#include <limits>

#include "graft/graph.h"
#include "kernels/cpu/attention_problem.h"
#include "kernels/cpu/map.h"
#include "kernels/cpu/vector_math.h"
#include "kernels/cpu/views.h"

namespace graft::cpu {
namespace {

/// Rows of the cache that one thread attends to in one go, for all heads: they lie behind one another in memory.
constexpr std::int64_t kChunk = 128;
static_assert(kChunk % kLanes == 0);

std::int64_t chunks_of(std::int64_t rows) { return (rows + kChunk - 1) / kChunk; }

/// Of one head and chunk: the largest score, Σ exp(score − largest), and Σ exp(score − largest)·v.
constexpr std::int64_t kMax = 0, kSum = 1, kOut = 2;

/// Lane i is the sum of the lanes of v[i].
template <int kBit = kLanes / 2>
GRAFT_INLINE Vec sum_each(Vec* v) {
  for (int i = 0; i < kBit; ++i) {
    exchange<kBit>(v[i], v[i + kBit], std::make_integer_sequence<int, kLanes>());
    v[i] += v[i + kBit];
  }
  if constexpr (kBit == 1)
    return v[0];
  else
    return sum_each<kBit / 2>(v);
}

/// Rows that are asked for while others are computed with.
constexpr std::int64_t kAhead = 16;

/// Scores of `rows` keys for all heads, scaled, in whole vectors: −∞ behind the last key. Reads the keys as they lie in memory;
/// products: [heads, kLanes] vectors.
void score_chunk(const CachedAttention& op, const float* q, const float* keys, std::int64_t rows, float* products, float* scores) {
  const std::int64_t heads = op.heads.heads, group = heads / op.heads.kv_heads, head_dim = op.heads.head_dim,
                     cols = op.heads.kv_heads * head_dim;
  const Vec scale = broadcast(static_cast<float>(op.scale));
  for (std::int64_t i = 0; i < rows; i += kLanes) {
    const std::int64_t here = std::min<std::int64_t>(kLanes, rows - i);
    for (std::int64_t r = 0; r < here; ++r) {
      prefetch_tile(keys + (i + r + kAhead) * cols, 0, 1, cols);
      for (std::int64_t head = 0; head < heads; ++head) {
        const float *x = q + head * head_dim, *key = keys + (i + r) * cols + head / group * head_dim;
        Vec product{};
        for_each_vector(0, head_dim, [&](std::int64_t, const auto& get, const auto&) { product = fma(get(x), get(key), product); });
        store(products + (head * kLanes + r) * kLanes, product);
      }
    }
    for (std::int64_t head = 0; head < heads; ++head) {
      Vec sums[kLanes];
      for (int r = 0; r < kLanes; ++r) sums[r] = load(products + (head * kLanes + r) * kLanes);
      const Vec score = scale * sum_each(sums);
      store(scores + head * kChunk + i, where_visible(score, 0, {0, here}, -std::numeric_limits<float>::infinity()));
    }
  }
}

/// sums += weights·values of kRows rows, for all heads; sums are `step` apart.
template <int kRows>
void add_rows(const CachedAttention& op, const float* weights, const float* values, float* sums, std::int64_t step) {
  const std::int64_t heads = op.heads.heads, group = heads / op.heads.kv_heads, head_dim = op.heads.head_dim,
                     cols = op.heads.kv_heads * head_dim;
  for (std::int64_t head = 0; head < heads; ++head) {
    const float *value = values + head / group * head_dim, *weight = weights + head * kChunk;
    float* out = sums + head * step;
    for_each_vector(0, head_dim, [&](std::int64_t, const auto& get, const auto& put) {
      Vec sum = get(out);
      for (int r = 0; r < kRows; ++r) sum = fma(broadcast(weight[r]), get(value + r * cols), sum);
      put(out, sum);
    });
  }
}

/// sums += weightsᵀ·values, for all heads; reads the values as they lie in memory.
void add_chunk(const CachedAttention& op, const float* weights, const float* values, std::int64_t rows, float* sums,
               std::int64_t step) {
  constexpr int kRows = 4;
  const std::int64_t cols = op.heads.kv_heads * op.heads.head_dim;
  std::int64_t i = 0;
  for (; i + kRows <= rows; i += kRows) {
    prefetch_tile(values + (i + kAhead) * cols, 0, 1, kRows * cols);
    add_rows<kRows>(op, weights + i, values + i * cols, sums, step);
  }
  for (; i < rows; ++i) add_rows<1>(op, weights + i, values + i * cols, sums, step);
}

/// A row of scores in whole vectors becomes exp(score − largest); the largest and the sum go to `to`.
void softmax_chunk(float* row, std::int64_t rows, float* to) {
  Vec top = load(row), total{};
  for (std::int64_t i = kLanes; i < rows; i += kLanes) top = max(top, load(row + i));
  to[kMax] = max(top);
  const Vec shift = broadcast(to[kMax]);
  for (std::int64_t i = 0; i < rows; i += kLanes) {
    const Vec weight = exp_nonpositive(load(row + i) - shift);
    store(row + i, weight);
    total += weight;
  }
  to[kSum] = sum(total);
}

}  // namespace

void run(const CachedAttention& op, const Step& step, Context& context) {
  if (!is_f32(step)) return reference::run(op, step);
  if (!step.out[0]) return;
  const detail::CacheRows cache(op.sequences, step.in, 1, 3);
  if (cache.rows > 1) return attend_to_caches(op, step, context);
  const std::int64_t heads = op.heads.heads, kv_heads = op.heads.kv_heads, head_dim = op.heads.head_dim, cols = kv_heads * head_dim,
                     most_chunks = chunks_of(cache.max_seq), partial_size = kOut + head_dim;
  float* partial = static_cast<float*>(step.workspace);                            // [count, most_chunks, heads, partial_size]
  float* all_scores = partial + cache.count * most_chunks * heads * partial_size;  // [count, most_chunks, heads, kChunk]
  float* products = all_scores + cache.count * most_chunks * heads * kChunk;       // [threads, heads, kLanes, kLanes]
  const auto seen = [&](std::int64_t s) { return detail::visible_keys(detail::cache_mask(op), 0, 1, cache.place[s]); };
  const auto chunks_seen = [&](std::int64_t s) { return chunks_of(seen(s).last - seen(s).first); };
  std::int64_t rows_seen = 0, chunks = 0;
  for (std::int64_t s = 0; s < cache.count; ++s) {
    rows_seen += seen(s).last - seen(s).first;
    chunks = std::max(chunks, chunks_seen(s));
  }
  const Threads threads = rows_seen * cols < kElementGrain ? Threads() : context.threads;
  parallel_tasks(threads, cache.count * chunks, [&](std::int64_t task, int thread) {
    const std::int64_t s = task / chunks, chunk = task % chunks;
    if (chunk >= chunks_seen(s)) return;
    const detail::KeyRange keys_seen = seen(s);
    const std::int64_t begin = keys_seen.first + chunk * kChunk, rows = std::min(kChunk, keys_seen.last - begin);
    const std::int64_t first = (cache.begin(s) + begin) * cols;
    float* scores = all_scores + (s * most_chunks + chunk) * heads * kChunk;
    float* sums = partial + (s * most_chunks + chunk) * heads * partial_size;
    score_chunk(op, input(step, 0) + s * heads * head_dim, input(step, 1) + first, rows,
                products + thread * heads * kLanes * kLanes, scores);
    for (std::int64_t head = 0; head < heads; ++head) {
      softmax_chunk(scores + head * kChunk, rows, sums + head * partial_size);
      std::fill_n(sums + head * partial_size + kOut, head_dim, 0.0f);
    }
    add_chunk(op, scores, input(step, 2) + first, rows, sums + kOut, partial_size);
  });
  for (std::int64_t row = 0; row < cache.count * heads; ++row) {
    const std::int64_t s = row / heads, head = row % heads;
    const auto part = [&](std::int64_t chunk) { return partial + ((s * most_chunks + chunk) * heads + head) * partial_size; };
    float top = -std::numeric_limits<float>::infinity(), total = 0.0f;
    for (std::int64_t chunk = 0; chunk < chunks_seen(s); ++chunk) top = std::max(top, part(chunk)[kMax]);
    float* out = output(step) + row * head_dim;
    std::fill_n(out, head_dim, 0.0f);
    for (std::int64_t chunk = 0; chunk < chunks_seen(s); ++chunk) {
      const float weight = std::exp(part(chunk)[kMax] - top);
      total += weight * part(chunk)[kSum];
      for_each_vector(0, head_dim, [&](std::int64_t, const auto& get, const auto& put) {
        put(out, fma(broadcast(weight), get(part(chunk) + kOut), get(out)));
      });
    }
    for_each_vector(0, head_dim, [&](std::int64_t, const auto& get, const auto& put) { put(out, get(out) / total); });
  }
}

std::size_t workspace(const CachedAttention& op, const Graph& graph, const Node& node, int threads) {
  const std::int64_t count = graph.shape(node.inputs[3]).size(), rows = graph.shape(node.inputs[0]).rows(),
                     max_seq = graph.shape(node.inputs[1]).rows() / (op.sequences > 0 ? op.sequences : count);
  if (rows > count) return attention_workspace(op.heads, rows / kTileRows + count, threads);
  const std::int64_t chunks = count * chunks_of(max_seq) * (kOut + op.heads.head_dim + kChunk);
  return static_cast<std::size_t>(op.heads.heads * (chunks + threads * kLanes * kLanes)) * sizeof(float);
}

}  // namespace graft::cpu
