#include <cmath>
#include <limits>

#include "graft/graph.h"
#include "kernels/cpu/attention_problem.h"
#include "kernels/cpu/vector_math.h"

namespace graft::cpu {
namespace {

using Problem = AttentionProblem;
using Scratch = AttentionScratch;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// The part of query i's row that is seen, in whole vectors from the first key on.
std::int64_t seen(const TilePair& pair, std::int64_t i) {
  const detail::KeyRange range = pair.range(i);
  return range.first < range.last ? padded(range.last) : 0;
}

/// Scales a row of scores, with −∞ where the query does not see a key; returns the largest.
float scale_row(const TilePair& pair, std::int64_t i, float scale, float* row) {
  Vec top = broadcast(-kInfinity);
  for (std::int64_t j = 0; j < seen(pair, i); j += kLanes) {
    Vec v = load(row + j) * scale;
    if (pair.partial(i, j)) v = where_visible(v, j, pair.range(i), -kInfinity);
    store(row + j, v);
    top = max(top, v);
  }
  return max(top);
}

/// A row of scaled scores becomes exp(score − shift), 0 where nothing is seen; returns the sum.
float exponentiate_row(const TilePair& pair, std::int64_t i, float shift, float* row) {
  Vec total{};
  for (std::int64_t j = 0; j < seen(pair, i); j += kLanes) {
    const Vec weight = exp(load(row + j) - shift);
    store(row + j, weight);
    total += weight;
  }
  clear(row + seen(pair, i), padded(pair.keys.rows) - seen(pair, i));
  return sum(total);
}

/// Scores become exp(scale·score − max); s.maxima and s.sums go on from the tiles before, and s.out_a is scaled to the new maxima.
void softmax_tile(const Problem& p, const TilePair& pair, const Scratch& s) {
  const std::int64_t rows = pair.queries.rows;
  float shifts[kTileRows] = {};
  for (std::int64_t i = 0; i < rows; ++i) shifts[i] = std::max(s.maxima[i], scale_row(pair, i, p.scale, s.scores + i * kTileRows));
  for (std::int64_t i = 0; i < kTileRows; i += kLanes) {
    const Vec top = load(shifts + i);
    const Vec shift = top == -kInfinity ? Vec{} : top;  // all scores −∞: they weigh nothing, as if not seen
    const Vec factor = exp(load(s.maxima + i) - shift);
    store(s.maxima + i, top);
    store(shifts + i, shift);
    store(s.factors + i, factor);
    store(s.sums + i, load(s.sums + i) * factor);
  }
  for (std::int64_t i = 0; i < rows; ++i) {
    s.sums[i] += exponentiate_row(pair, i, shifts[i], s.scores + i * kTileRows);
    if (s.factors[i] == 1.0f) continue;
    float* out = s.out_a + i * p.width;
    for (std::int64_t j = 0; j < p.width; j += kLanes) store(out + j, load(out + j) * s.factors[i]);
  }
}

/// out and lse of one tile of queries of one head.
void attend(const Problem& p, const Step& step, const Tile& queries, std::int64_t head, const Scratch& s) {
  const detail::Segment segment = p.segments[queries.segment];
  const std::int64_t kv_head = head / p.group;
  std::fill_n(s.maxima, kTileRows, -kInfinity);
  clear(s.sums, kTileRows);
  clear(s.out_a, queries.rows * p.width);
  copy_tile(p.query(0, queries.begin, head), p.q_cols, queries.rows, p.head_dim, s.queries);
  for_segment_tiles(queries.segment, segment.kv_begin, segment.kv_end, [&](const Tile& keys) {
    const TilePair pair(p, queries, keys);
    if (pair.empty()) return;
    transpose_tile(p.key(1, keys.begin, kv_head), p.kv_cols, keys.rows, p.head_dim, s.keys_t);
    score_products(p, pair, s.queries, s.keys_t, s.scores);
    softmax_tile(p, pair, s);
    const TileRows values = whole_rows(p.key(2, keys.begin, kv_head), p.kv_cols, keys.rows, p.head_dim, s.rows);
    add_key_rows(p, pair, s.scores, values, s.out_a, p.width);
  });
  for (std::int64_t i = 0; i < queries.rows; ++i) {
    const std::int64_t row = queries.begin + i;
    const bool blind = s.sums[i] == 0.0f;
    if (step.out[1]) output(step, 1)[row * p.heads + head] = blind ? -kInfinity : s.maxima[i] + std::log(s.sums[i]);
    if (!step.out[0]) continue;
    write_rows(p, s.out_a + i * p.width, p.width, 1, blind ? 0.0f : 1.0f / s.sums[i],
               output(step) + row * p.q_cols + head * p.head_dim, p.q_cols);
  }
}

/// Scores become P = exp(scale·score − lse), 0 where a query does not see a key.
void probabilities(const Problem& p, const TilePair& pair, std::int64_t head, float* scores) {
  for (std::int64_t i = 0; i < pair.queries.rows; ++i) {
    float* row = scores + i * kTileRows;
    const float lse = p.statistic(3, pair.queries.begin + i, head);
    const std::int64_t width = lse == -kInfinity ? 0 : seen(pair, i);
    for (std::int64_t j = 0; j < width; j += kLanes) {
      const Vec weight = exp(load(row + j) * p.scale - lse);
      store(row + j, pair.partial(i, j) ? where_visible(weight, j, pair.range(i), 0.0f) : weight);
    }
    clear(row + width, padded(pair.keys.rows) - width);
  }
}

/// grads = P ∘ (grads − delta)
void score_gradients(const Problem& p, const TilePair& pair, std::int64_t head, const float* weights, float* grads) {
  for (std::int64_t i = 0; i < pair.queries.rows; ++i) {
    const float delta = p.statistic(5, pair.queries.begin + i, head);
    const std::int64_t begin = i * kTileRows, end = begin + seen(pair, i);
    for (std::int64_t j = begin; j < end; j += kLanes) {
      const Vec weight = load(weights + j);
      store(grads + j, weight == 0.0f ? weight : weight * (load(grads + j) - delta));  // not seen: 0, whatever is there
    }
    clear(grads + end, begin + padded(pair.keys.rows) - end);
  }
}

/// The keys of a pair, and the values if dS is wanted, transposed.
void prepare_keys(const Problem& p, const Tile& keys, std::int64_t kv_head, bool values, const Scratch& s) {
  transpose_tile(p.key(1, keys.begin, kv_head), p.kv_cols, keys.rows, p.head_dim, s.keys_t);
  if (values) transpose_tile(p.key(2, keys.begin, kv_head), p.kv_cols, keys.rows, p.head_dim, s.values_t);
}

/// The queries of a pair, and their dout.
void prepare_queries(const Problem& p, const Tile& queries, std::int64_t head, const Scratch& s) {
  copy_tile(p.query(0, queries.begin, head), p.q_cols, queries.rows, p.head_dim, s.queries);
  copy_tile(p.query(4, queries.begin, head), p.q_cols, queries.rows, p.head_dim, s.douts);
}

/// P of a pair into s.scores, and dS into s.grads if wanted.
void tile_gradients(const Problem& p, const TilePair& pair, std::int64_t head, bool grads, const Scratch& s) {
  score_products(p, pair, s.queries, s.keys_t, s.scores);
  probabilities(p, pair, head, s.scores);
  if (!grads) return;
  score_products(p, pair, s.douts, s.values_t, s.grads);
  score_gradients(p, pair, head, s.scores, s.grads);
}

/// dq of one tile of queries of one head.
void query_gradient(const Problem& p, const Tile& queries, std::int64_t head, float* dq, const Scratch& s) {
  const detail::Segment segment = p.segments[queries.segment];
  const std::int64_t kv_head = head / p.group;
  clear(s.out_a, queries.rows * p.width);
  prepare_queries(p, queries, head, s);
  for_segment_tiles(queries.segment, segment.kv_begin, segment.kv_end, [&](const Tile& keys) {
    const TilePair pair(p, queries, keys);
    if (pair.empty()) return;
    prepare_keys(p, keys, kv_head, true, s);
    tile_gradients(p, pair, head, true, s);
    const TileRows rows = whole_rows(p.key(1, keys.begin, kv_head), p.kv_cols, keys.rows, p.head_dim, s.rows);
    add_key_rows(p, pair, s.grads, rows, s.out_a, p.width);
  });
  write_rows(p, s.out_a, p.width, queries.rows, p.scale, dq + queries.begin * p.q_cols + head * p.head_dim, p.q_cols);
}

/// dk and dv of one tile of keys, where they are not null, summed over the query heads that read it and over the tiles of
/// queries, in that order. Adds to dq what it has of it, unscaled, if that is not null; head_dim must then be whole vectors.
void key_gradient(const Problem& p, const Tile& keys, std::int64_t kv_head, const AttentionGradients& out, const Scratch& s) {
  const detail::Segment segment = p.segments[keys.segment];
  const bool grads = out.dk != nullptr || out.dq != nullptr;
  float *dk = s.out_a, *dv = s.out_b;
  clear(dk, keys.rows * p.width);
  clear(dv, keys.rows * p.width);
  prepare_keys(p, keys, kv_head, grads, s);
  for (std::int64_t head = kv_head * p.group; head < (kv_head + 1) * p.group; ++head) {
    for_segment_tiles(keys.segment, segment.q_begin, segment.q_end, [&](const Tile& queries) {
      const TilePair pair(p, queries, keys);
      if (pair.empty()) return;
      prepare_queries(p, queries, head, s);
      tile_gradients(p, pair, head, grads, s);
      if (out.dv != nullptr) add_query_rows(p, pair, s.scores, s.douts, dv);
      if (out.dk != nullptr) add_query_rows(p, pair, s.grads, s.queries, dk);
      if (out.dq != nullptr) {
        float* dq = out.dq + queries.begin * p.q_cols + head * p.head_dim;
        add_key_rows(p, pair, s.grads, {p.key(1, keys.begin, kv_head), p.kv_cols}, dq, p.q_cols);
      }
    });
  }
  const std::int64_t at = keys.begin * p.kv_cols + kv_head * p.head_dim;
  if (out.dk != nullptr) write_rows(p, dk, p.width, keys.rows, p.scale, out.dk + at, p.kv_cols);
  if (out.dv != nullptr) write_rows(p, dv, p.width, keys.rows, 1.0f, out.dv + at, p.kv_cols);
}

/// Which gradient a node computes, and of what; null for other ops.
struct GradientNode {
  const MultiHeadAttn* attn = nullptr;
  float* AttentionGradients::*slot = nullptr;
};
GradientNode gradient_node(const Op& op) {
  if (const auto* q = std::get_if<MultiHeadAttnGradQ>(&op)) return {&q->attn, &AttentionGradients::dq};
  if (const auto* k = std::get_if<MultiHeadAttnGradK>(&op)) return {&k->attn, &AttentionGradients::dk};
  if (const auto* v = std::get_if<MultiHeadAttnGradV>(&op)) return {&v->attn, &AttentionGradients::dv};
  return {};
}

bool same_attention(const MultiHeadAttn& a, const MultiHeadAttn& b) {
  return a.heads == b.heads && a.mask == b.mask && a.scale == b.scale && a.segments == b.segments;
}

bool same_inputs(const Step& a, const Step& b) {
  return std::equal(a.in.begin(), a.in.end(), b.in.begin(), b.in.end(),
                    [](const TensorView& x, const TensorView& y) { return x.data == y.data && x.type == y.type; });
}

/// All of a segment and kv head at once: each pair's P and dS are computed once.
void segment_gradients(const Problem& p, std::int64_t index, std::int64_t kv_head, const AttentionGradients& out,
                       const Scratch& s) {
  const detail::Segment segment = p.segments[index];
  const std::int64_t columns = p.group * p.head_dim;
  const auto dq_row = [&](std::int64_t row) { return out.dq + row * p.q_cols + kv_head * columns; };
  for (std::int64_t row = segment.q_begin; row < segment.q_end; ++row) clear(dq_row(row), columns);
  for_segment_tiles(index, segment.kv_begin, segment.kv_end, [&](const Tile& keys) { key_gradient(p, keys, kv_head, out, s); });
  for (std::int64_t row = segment.q_begin; row < segment.q_end; ++row)
    for (std::int64_t j = 0; j < columns; j += kLanes) store(dq_row(row) + j, load(dq_row(row) + j) * p.scale);
}

}  // namespace

void attention_gradients(const MultiHeadAttn& attn, std::span<const TensorView> in, const AttentionGradients& out, void* workspace,
                         const Context& context) {
  const Problem p(attn, in);
  const int threads = context.threads;
  const bool keys = out.dk != nullptr || out.dv != nullptr;
  const std::int64_t whole = p.segments.count() * p.kv_heads;
  if (keys && out.dq != nullptr && p.width == p.head_dim && (whole >= 4 * threads || threads == 1)) {
    parallel_tasks(threads, whole, [&](std::int64_t task, int thread) {
      segment_gradients(p, task / p.kv_heads, task % p.kv_heads, out, Scratch(workspace, thread, p.head_dim));
    });
    return;
  }
  if (out.dq != nullptr) {
    for_each_tile(p, workspace, threads, Side::queries,
                  [&](const Tile& tile, std::int64_t head, const Scratch& s) { query_gradient(p, tile, head, out.dq, s); });
  }
  if (keys) {
    const AttentionGradients rest = {nullptr, out.dk, out.dv};
    for_each_tile(p, workspace, threads, Side::keys,
                  [&](const Tile& tile, std::int64_t kv_head, const Scratch& s) { key_gradient(p, tile, kv_head, rest, s); });
  }
}

std::size_t run_attention_gradients(std::span<const Step> steps, Context& context) {
  const GradientNode first = gradient_node(steps[0].node->op);
  if (first.attn == nullptr || !is_f32(steps[0])) return 0;
  AttentionGradients out;
  std::size_t count = 0;
  for (const Step& step : steps) {
    const GradientNode node = gradient_node(step.node->op);
    if (node.attn == nullptr || !same_attention(*node.attn, *first.attn) || !same_inputs(step, steps[0])) break;
    if (out.*node.slot != nullptr) break;
    out.*node.slot = output(step);
    ++count;
  }
  attention_gradients(*first.attn, steps[0].in, out, steps[0].workspace, context);
  return count;
}

void run(const MultiHeadAttn& op, const Step& step, Context& context) {
  if (!is_f32(step)) return reference::run(op, step);
  if (!step.out[0] && !step.out[1]) return;
  const Problem p(op, step.in);
  for_each_tile(p, step.workspace, context.threads, Side::queries,
                [&](const Tile& tile, std::int64_t head, const Scratch& s) { attend(p, step, tile, head, s); });
}

void attend_to_caches(const CachedAttention& op, const Step& step, const Context& context) {
  const MultiHeadAttn attn{op.heads, detail::cache_mask(op), op.scale, {}};
  const Problem p(attn, step.in, detail::SegmentList(detail::CacheRows(op.sequences, step.in, 1, 3)));
  const TensorView outputs[] = {step.out[0], {}};  // no lse
  const Step both{step.node, step.in, outputs, step.workspace};
  for_each_tile(p, step.workspace, context.threads, Side::queries,
                [&](const Tile& tile, std::int64_t head, const Scratch& s) { attend(p, both, tile, head, s); });
}

void run(const MultiHeadAttnGradQ& op, const Step& step, Context& context) {
  if (!is_f32(step)) return reference::run(op, step);
  attention_gradients(op.attn, step.in, {output(step), nullptr, nullptr}, step.workspace, context);
}

void run(const MultiHeadAttnGradK& op, const Step& step, Context& context) {
  if (!is_f32(step)) return reference::run(op, step);
  attention_gradients(op.attn, step.in, {nullptr, output(step), nullptr}, step.workspace, context);
}

void run(const MultiHeadAttnGradV& op, const Step& step, Context& context) {
  if (!is_f32(step)) return reference::run(op, step);
  attention_gradients(op.attn, step.in, {nullptr, nullptr, output(step)}, step.workspace, context);
}

void run(const AttnDelta& op, const Step& step, Context& context) {
  if (!is_f32(step)) return reference::run(op, step);
  if (!step.out[0]) return;
  const std::int64_t heads = op.heads.heads, head_dim = op.heads.head_dim;
  parallel_ranges(context.threads, step.in[0].rows() * heads, row_grain(head_dim), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const float *a = input(step, 0) + i * head_dim, *b = input(step, 1) + i * head_dim;
      Vec total{};
      for (std::int64_t j = 0; j < head_dim; j += kLanes) {
        const std::int64_t lanes = std::min<std::int64_t>(kLanes, head_dim - j);
        total =
            lanes == kLanes ? fma(load(a + j), load(b + j), total) : fma(load_first(a + j, lanes), load_first(b + j, lanes), total);
      }
      output(step)[i] = sum(total);
    }
  });
}

std::size_t workspace(const MultiHeadAttn& op, const Graph& graph, const Node& node, int threads) {
  const std::int64_t q_rows = graph.shape(node.inputs[0]).rows(), kv_rows = graph.shape(node.inputs[1]).rows();
  const std::int64_t tiles = max_tiles(op.segments, q_rows, std::max(q_rows, kv_rows), graph.shape(node.inputs.back()));
  return attention_workspace(op.heads.head_dim, tiles, threads);
}

}  // namespace graft::cpu
