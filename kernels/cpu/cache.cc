#include <cmath>
#include <limits>

#include "graft/graph.h"
#include "kernels/cpu/map.h"
#include "kernels/cpu/vector_math.h"
#include "kernels/cpu/views.h"

namespace graft::cpu {
namespace {

/// Rows of the cache that one thread attends to in one go.
constexpr std::int64_t kChunk = 256;

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
  const std::int64_t kv_len = *step.in[3].as<const std::uint32_t>(), heads = op.heads.heads, kv_heads = op.heads.kv_heads;
  const std::int64_t first = op.window > 0 ? std::max(kv_len - op.window, std::int64_t{0}) : 0;  // row of the cache
  const std::int64_t head_dim = op.heads.head_dim, group = heads / kv_heads, cols = kv_heads * head_dim,
                     chunks = (kv_len - first + kChunk - 1) / kChunk;
  const std::int64_t partial_size = kOut + head_dim;
  const float scale = static_cast<float>(op.scale);
  float* partial = static_cast<float*>(step.workspace);         // [chunks, heads, partial_size]
  float* all_scores = partial + chunks * heads * partial_size;  // [chunks, heads, kChunk]
  const int threads = (kv_len - first) * cols < kElementGrain ? 1 : context.threads;
  parallel_tasks(threads, chunks * kv_heads, [&](std::int64_t task, int) {
    const std::int64_t chunk = task / kv_heads, kv_head = task % kv_heads, head = kv_head * group;
    const std::int64_t begin = first + chunk * kChunk, rows = std::min(kChunk, kv_len - begin);
    const float* keys = input(step, 1) + begin * cols + kv_head * head_dim;
    const float* values = input(step, 2) + begin * cols + kv_head * head_dim;
    float* scores = all_scores + (chunk * heads + head) * kChunk;
    float* sums = partial + (chunk * heads + head) * partial_size;
    for (std::int64_t i = 0; i < rows; ++i)
      for (std::int64_t g = 0; g < group; ++g)
        scores[g * kChunk + i] = scale * dot(input(step, 0) + (head + g) * head_dim, keys + i * cols, head_dim);
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
  for (std::int64_t head = 0; head < heads; ++head) {
    const auto part = [&](std::int64_t chunk) { return partial + (chunk * heads + head) * partial_size; };
    float top = -std::numeric_limits<float>::infinity(), total = 0.0f;
    for (std::int64_t chunk = 0; chunk < chunks; ++chunk) top = std::max(top, part(chunk)[kMax]);
    float* out = output(step) + head * head_dim;
    std::fill_n(out, head_dim, 0.0f);
    for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
      const float weight = std::exp(part(chunk)[kMax] - top);
      total += weight * part(chunk)[kSum];
      for (std::int64_t j = 0; j < head_dim; ++j) out[j] += weight * part(chunk)[kOut + j];
    }
    for (std::int64_t j = 0; j < head_dim; ++j) out[j] /= total;
  }
}

std::size_t workspace(const CachedAttention& op, const Graph& graph, const Node& node, int) {
  const std::int64_t chunks = (graph.shape(node.inputs[1]).rows() + kChunk - 1) / kChunk;
  return static_cast<std::size_t>(chunks * op.heads.heads * (kOut + op.heads.head_dim + kChunk)) * sizeof(float);
}

}  // namespace graft::cpu
