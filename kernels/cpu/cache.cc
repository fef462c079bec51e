#include <cmath>
#include <limits>

#include "graft/graph.h"
#include "kernels/cpu/attention_problem.h"
#include "kernels/cpu/map.h"
#include "kernels/cpu/vector_math.h"
#include "kernels/cpu/views.h"

namespace graft::cpu {
namespace {

/// Rows of the cache that one thread attends to in one go.
constexpr std::int64_t kChunk = 256;

std::int64_t chunks_of(std::int64_t rows) { return (rows + kChunk - 1) / kChunk; }

/// Of one head and chunk: the largest score, Σ exp(score − largest), and Σ exp(score − largest)·v.
constexpr std::int64_t kMax = 0, kSum = 1, kOut = 2;

float dot(const float* a, const float* b, std::int64_t n) {
  Vec x{}, y{};
  std::int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    x = fma(load(a + i), load(b + i), x);
    y = fma(load(a + i + kLanes), load(b + i + kLanes), y);
  }
  for (; i < n; i += kLanes) {
    const std::int64_t lanes = std::min<std::int64_t>(kLanes, n - i);
    x = fma(load_first(a + i, lanes), load_first(b + i, lanes), x);
  }
  return sum(x + y);
}

/// Adds weights[g]·row to the sums of each head of a group, `step` apart.
void add_weighted(const float* row, const float* weights, std::int64_t group, std::int64_t head_dim, float* sums,
                  std::int64_t step) {
  for (std::int64_t g = 0; g < group; ++g) {
    const Vec weight = broadcast(weights[g * kChunk]);
    for_each_vector(0, head_dim, [&](std::int64_t, const auto& get, const auto& put) {
      put(sums + g * step, fma(weight, get(row), get(sums + g * step)));
    });
  }
}

}  // namespace

void run(const CachedAttention& op, const Step& step, Context& context) {
  if (!is_f32(step)) return reference::run(op, step);
  if (!step.out[0]) return;
  const detail::CacheRows cache(op.sequences, step.in, 1, 3);
  if (cache.rows > 1) return attend_to_caches(op, step, context);
  const std::int64_t heads = op.heads.heads, kv_heads = op.heads.kv_heads, head_dim = op.heads.head_dim, group = heads / kv_heads,
                     cols = kv_heads * head_dim, most_chunks = chunks_of(cache.max_seq), partial_size = kOut + head_dim;
  const float scale = static_cast<float>(op.scale);
  float* partial = static_cast<float*>(step.workspace);                            // [count, most_chunks, heads, partial_size]
  float* all_scores = partial + cache.count * most_chunks * heads * partial_size;  // [count, most_chunks, heads, kChunk]
  const auto seen = [&](std::int64_t s) { return detail::visible_keys(detail::cache_mask(op), 0, 1, cache.place[s]); };
  const auto chunks_seen = [&](std::int64_t s) { return chunks_of(seen(s).last - seen(s).first); };
  std::int64_t rows_seen = 0, chunks = 0;
  for (std::int64_t s = 0; s < cache.count; ++s) {
    rows_seen += seen(s).last - seen(s).first;
    chunks = std::max(chunks, chunks_seen(s));
  }
  const int threads = rows_seen * cols < kElementGrain ? 1 : context.threads;
  parallel_tasks(threads, cache.count * chunks * kv_heads, [&](std::int64_t task, int) {
    const std::int64_t s = task / kv_heads / chunks, chunk = task / kv_heads % chunks, head = task % kv_heads * group;
    if (chunk >= chunks_seen(s)) return;
    const detail::KeyRange keys_seen = seen(s);
    const std::int64_t begin = keys_seen.first + chunk * kChunk, rows = std::min(kChunk, keys_seen.last - begin);
    const std::int64_t first = (cache.begin(s) + begin) * cols + task % kv_heads * head_dim;
    const float *q = input(step, 0) + (s * heads + head) * head_dim, *keys = input(step, 1) + first,
                *values = input(step, 2) + first;
    float* scores = all_scores + ((s * most_chunks + chunk) * heads + head) * kChunk;
    float* sums = partial + ((s * most_chunks + chunk) * heads + head) * partial_size;
    for (std::int64_t i = 0; i < rows; ++i)
      for (std::int64_t g = 0; g < group; ++g) scores[g * kChunk + i] = scale * dot(q + g * head_dim, keys + i * cols, head_dim);
    for (std::int64_t g = 0; g < group; ++g) {
      float *row = scores + g * kChunk, *to = sums + g * partial_size;
      to[kMax] = *std::max_element(row, row + rows);
      for_each_vector(0, rows, [&](std::int64_t, const auto& get, const auto& put) { put(row, exp(get(row) - to[kMax])); });
      to[kSum] = 0.0f;
      for (std::int64_t i = 0; i < rows; ++i) to[kSum] += row[i];
      std::fill_n(to + kOut, head_dim, 0.0f);
    }
    for (std::int64_t i = 0; i < rows; ++i) add_weighted(values + i * cols, scores + i, group, head_dim, sums + kOut, partial_size);
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
      for (std::int64_t j = 0; j < head_dim; ++j) out[j] += weight * part(chunk)[kOut + j];
    }
    for (std::int64_t j = 0; j < head_dim; ++j) out[j] /= total;
  }
}

std::size_t workspace(const CachedAttention& op, const Graph& graph, const Node& node, int threads) {
  const std::int64_t count = graph.shape(node.inputs[3]).size(), rows = graph.shape(node.inputs[0]).rows(),
                     max_seq = graph.shape(node.inputs[1]).rows() / (op.sequences > 0 ? op.sequences : count);
  if (rows > count) return attention_workspace(op.heads, rows / kTileRows + count, threads);
  return static_cast<std::size_t>(count * chunks_of(max_seq) * op.heads.heads * (kOut + op.heads.head_dim + kChunk)) *
         sizeof(float);
}

}  // namespace graft::cpu
