#include <cmath>
#include <cstring>
#include <limits>

#include "graft/graph.h"
#include "kernels/cpu/attention_tiles.h"
#include "kernels/cpu/tiles.h"
#include "kernels/cpu/vector_math.h"
#include "kernels/cpu/views.h"
#include "kernels/segments.h"

namespace graft::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// What the kernels have of a step: sizes, and a thread's scratch memory.
struct Problem {
  const MultiHeadAttn& attn;
  std::int64_t head_dim, width, group, q_cols, kv_cols;  // width: head_dim in whole vectors
  detail::SegmentList segments;
  float scale;

  Problem(const MultiHeadAttn& op, const Step& step)
      : attn(op),
        head_dim(op.heads.head_dim),
        width(padded(head_dim)),
        group(op.heads.heads / op.heads.kv_heads),
        q_cols(op.heads.heads * head_dim),
        kv_cols(op.heads.kv_heads * head_dim),
        segments(detail::attention_segments(op.segments, step.in)),
        scale(static_cast<float>(op.scale)) {}

  const float* query(const Step& step, std::size_t i, std::int64_t row, std::int64_t head) const {
    return input(step, i) + row * q_cols + head * head_dim;
  }
  const float* key(const Step& step, std::size_t i, std::int64_t row, std::int64_t kv_head) const {
    return input(step, i) + row * kv_cols + kv_head * head_dim;
  }
  /// The keys of `tile` that query `row` of the tensor sees, counted from the tile's first.
  detail::KeyRange visible(const detail::Segment& segment, std::int64_t row, std::int64_t key_begin, std::int64_t keys) const {
    const detail::KeyRange range = detail::visible_keys(attn.mask, row - segment.q_begin, segment.q_seq(), segment.kv_seq());
    const std::int64_t first = segment.kv_begin + range.first - key_begin, last = segment.kv_begin + range.last - key_begin;
    return {std::clamp<std::int64_t>(first, 0, keys), std::clamp<std::int64_t>(last, 0, keys)};
  }
};

constexpr std::int64_t kRowStats = 3 * kTileRows;

/// Floats of scratch that one thread needs: square tiles, transposed tiles, tiles of rows.
std::int64_t scratch_floats(std::int64_t head_dim) {
  return 2 * kTileRows * kTileRows + kRowStats + 7 * kTileRows * padded(head_dim);
}

struct Scratch {
  float *scores, *grads, *stats, *keys_t, *values_t, *keys, *queries, *douts, *sum_a, *sum_b;

  Scratch(void* memory, int thread, std::int64_t head_dim) {
    float* at = static_cast<float*>(memory) + thread * scratch_floats(head_dim);
    const auto take = [&](std::int64_t n) { return std::exchange(at, at + n); };
    const std::int64_t square = kTileRows * kTileRows, rows = kTileRows * padded(head_dim);
    scores = take(square), grads = take(square), stats = take(kRowStats);
    keys_t = take(rows), values_t = take(rows), keys = take(rows), queries = take(rows), douts = take(rows);
    sum_a = take(rows), sum_b = take(rows);
  }
};

Tile* tile_list(void* workspace, int threads, std::int64_t head_dim) {
  return reinterpret_cast<Tile*>(static_cast<float*>(workspace) + threads * scratch_floats(head_dim));
}

GRAFT_INLINE Vec keep_visible(Vec v, std::int64_t at, detail::KeyRange range, float otherwise) {
  const IntVec key = lane_numbers() + static_cast<std::int32_t>(at);
  return (key >= static_cast<std::int32_t>(range.first)) & (key < static_cast<std::int32_t>(range.last)) ? v : broadcast(otherwise);
}

/// One row of scores becomes exp(scale·score − max): max and sum go on from the tiles before. Returns what the sums before must be
/// multiplied with.
float softmax_row(float* row, std::int64_t width, detail::KeyRange range, float scale, float& max_so_far, float& sum_so_far) {
  if (range.first >= range.last) {
    std::memset(row, 0, static_cast<std::size_t>(width) * sizeof(float));
    return 1.0f;
  }
  Vec top = broadcast(-kInfinity);
  for (std::int64_t j = 0; j < width; j += kLanes) {
    Vec v = load(row + j) * scale;
    if (j < range.first || j + kLanes > range.last) v = keep_visible(v, j, range, -kInfinity);
    store(row + j, v);
    top = max(top, v);
  }
  const float top_now = std::max(max_so_far, max(top));
  // All scores −∞: they weigh nothing, as if not seen.
  const Vec shift = broadcast(top_now == -kInfinity ? 0.0f : top_now);
  Vec total{};
  for (std::int64_t j = 0; j < width; j += kLanes) {
    const Vec p = exp(load(row + j) - shift);
    store(row + j, p);
    total += p;
  }
  const float factor = max_so_far == -kInfinity ? 0.0f : std::exp(max_so_far - top_now);
  sum_so_far = sum_so_far * factor + sum(total);
  max_so_far = top_now;
  return factor;
}

/// Whether any query of the tile sees any key of the other.
bool meet(const Problem& p, const detail::Segment& segment, const Tile& queries, const Tile& keys) {
  const detail::KeyRange top = p.visible(segment, queries.begin, keys.begin, keys.rows);
  const detail::KeyRange low = p.visible(segment, queries.begin + queries.rows - 1, keys.begin, keys.rows);
  return low.last > 0 && top.first < keys.rows;
}

/// out and lse of one tile of queries of one head.
void attend(const Problem& p, const Step& step, const Tile& tile, std::int64_t head, const Scratch& s) {
  const detail::Segment segment = p.segments[tile.segment];
  const std::int64_t kv_head = head / p.group;
  float *max_of = s.stats, *sum_of = s.stats + kTileRows, *out = s.sum_a;
  std::fill_n(max_of, tile.rows, -kInfinity);
  std::fill_n(sum_of, tile.rows, 0.0f);
  std::memset(out, 0, static_cast<std::size_t>(tile.rows * p.width) * sizeof(float));
  const float* query = p.query(step, 0, tile.begin, head);
  for (std::int64_t key = segment.kv_begin; key < segment.kv_end; key += kTileRows) {
    const std::int64_t keys = std::min(kTileRows, segment.kv_end - key), width = padded(keys);
    if (!meet(p, segment, tile, {tile.segment, key, keys})) continue;
    transpose_tile(p.key(step, 1, key, kv_head), p.kv_cols, keys, p.head_dim, s.keys_t);
    multiply(tile.rows, width, p.head_dim, {query, p.q_cols, 1}, s.keys_t, width, s.scores, kTileRows, false);
    for (std::int64_t i = 0; i < tile.rows; ++i) {
      const float factor = softmax_row(s.scores + i * kTileRows, width, p.visible(segment, tile.begin + i, key, keys), p.scale, max_of[i], sum_of[i]);
      if (factor != 1.0f)
        for (std::int64_t j = 0; j < p.width; j += kLanes) store(out + i * p.width + j, load(out + i * p.width + j) * factor);
    }
    const TileRows values = whole_rows(p.key(step, 2, key, kv_head), p.kv_cols, keys, p.head_dim, s.keys);
    multiply(tile.rows, p.width, keys, {s.scores, kTileRows, 1}, values.data, values.ld, out, p.width, true);
  }
  for (std::int64_t i = 0; i < tile.rows; ++i) {
    const std::int64_t row = tile.begin + i;
    if (step.out[1]) output(step, 1)[row * p.attn.heads.heads + head] = sum_of[i] == 0.0f ? -kInfinity : max_of[i] + std::log(sum_of[i]);
    if (!step.out[0]) continue;
    const float inverse = sum_of[i] == 0.0f ? 0.0f : 1.0f / sum_of[i];
    float* to = output(step) + row * p.q_cols + head * p.head_dim;
    for (std::int64_t j = 0; j < p.head_dim; j += kLanes)
      store_first(to + j, load(out + i * p.width + j) * inverse, std::min<std::int64_t>(kLanes, p.head_dim - j));
  }
}

/// Probabilities of a tile, from its scores: exp(scale·score − lse), 0 where a query does not see a key.
void probabilities(const Problem& p, const Step& step, const detail::Segment& segment, const Tile& queries, const Tile& keys, std::int64_t head,
                   float* scores) {
  const std::int64_t width = padded(keys.rows);
  for (std::int64_t i = 0; i < queries.rows; ++i) {
    float* row = scores + i * kTileRows;
    const detail::KeyRange range = p.visible(segment, queries.begin + i, keys.begin, keys.rows);
    const float lse = input(step, 3)[(queries.begin + i) * p.attn.heads.heads + head];
    if (range.first >= range.last || lse == -kInfinity) {
      std::memset(row, 0, static_cast<std::size_t>(width) * sizeof(float));
      continue;
    }
    for (std::int64_t j = 0; j < width; j += kLanes) {
      Vec v = exp(load(row + j) * p.scale - lse);
      if (j < range.first || j + kLanes > range.last) v = keep_visible(v, j, range, 0.0f);
      store(row + j, v);
    }
  }
}

/// grads = P ∘ (grads − delta)
void score_gradients(const Problem& p, const Step& step, const Tile& queries, const Tile& keys, std::int64_t head, const float* probability,
                     float* grads) {
  for (std::int64_t i = 0; i < queries.rows; ++i) {
    const float delta = input(step, 5)[(queries.begin + i) * p.attn.heads.heads + head];
    for (std::int64_t j = i * kTileRows; j < i * kTileRows + padded(keys.rows); j += kLanes) {
      const Vec weight = load(probability + j);
      // Not seen: 0, also where dout·v is not finite.
      store(grads + j, weight == 0.0f ? weight : weight * (load(grads + j) - delta));
    }
  }
}

/// rows [rows, width] · factor to `to`, whose rows are `ld` apart.
void write_rows(const Problem& p, const float* from, std::int64_t rows, float factor, float* to, std::int64_t ld) {
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t j = 0; j < p.head_dim; j += kLanes)
      store_first(to + i * ld + j, load(from + i * p.width + j) * factor, std::min<std::int64_t>(kLanes, p.head_dim - j));
}

/// Scores of queries × keys into s.scores, then P; s.keys_t holds the keys.
void tile_probabilities(const Problem& p, const Step& step, const detail::Segment& segment, const Tile& queries, const Tile& keys,
                        std::int64_t head, const Scratch& s) {
  const std::int64_t width = padded(keys.rows);
  multiply(queries.rows, width, p.head_dim, {p.query(step, 0, queries.begin, head), p.q_cols, 1}, s.keys_t, width, s.scores, kTileRows, false);
  probabilities(p, step, segment, queries, keys, head, s.scores);
}

/// dS into s.grads; s.values_t holds the values.
void tile_score_gradients(const Problem& p, const Step& step, const Tile& queries, const Tile& keys, std::int64_t head, const Scratch& s) {
  const std::int64_t width = padded(keys.rows);
  multiply(queries.rows, width, p.head_dim, {p.query(step, 4, queries.begin, head), p.q_cols, 1}, s.values_t, width, s.grads, kTileRows, false);
  score_gradients(p, step, queries, keys, head, s.scores, s.grads);
}

void query_gradient(const Problem& p, const Step& step, const Tile& queries, std::int64_t head, const Scratch& s) {
  const detail::Segment segment = p.segments[queries.segment];
  const std::int64_t kv_head = head / p.group;
  std::memset(s.sum_a, 0, static_cast<std::size_t>(queries.rows * p.width) * sizeof(float));
  for (std::int64_t key = segment.kv_begin; key < segment.kv_end; key += kTileRows) {
    const Tile keys = {queries.segment, key, std::min(kTileRows, segment.kv_end - key)};
    if (!meet(p, segment, queries, keys)) continue;
    const float* key_rows = p.key(step, 1, key, kv_head);
    transpose_tile(key_rows, p.kv_cols, keys.rows, p.head_dim, s.keys_t);
    transpose_tile(p.key(step, 2, key, kv_head), p.kv_cols, keys.rows, p.head_dim, s.values_t);
    tile_probabilities(p, step, segment, queries, keys, head, s);
    tile_score_gradients(p, step, queries, keys, head, s);
    const TileRows whole = whole_rows(key_rows, p.kv_cols, keys.rows, p.head_dim, s.keys);
    multiply(queries.rows, p.width, keys.rows, {s.grads, kTileRows, 1}, whole.data, whole.ld, s.sum_a, p.width, true);
  }
  write_rows(p, s.sum_a, queries.rows, p.scale, output(step) + queries.begin * p.q_cols + head * p.head_dim, p.q_cols);
}

enum class Of { keys, values };

/// dk or dv of one tile of keys, summed over the query heads that read it and over the tiles of queries, in that order.
void key_gradient(const Problem& p, const Step& step, const Tile& keys, std::int64_t kv_head, Of which, const Scratch& s) {
  const detail::Segment segment = p.segments[keys.segment];
  std::memset(s.sum_a, 0, static_cast<std::size_t>(keys.rows * p.width) * sizeof(float));
  transpose_tile(p.key(step, 1, keys.begin, kv_head), p.kv_cols, keys.rows, p.head_dim, s.keys_t);
  if (which == Of::keys) transpose_tile(p.key(step, 2, keys.begin, kv_head), p.kv_cols, keys.rows, p.head_dim, s.values_t);
  for (std::int64_t head = kv_head * p.group; head < (kv_head + 1) * p.group; ++head) {
    for (std::int64_t query = segment.q_begin; query < segment.q_end; query += kTileRows) {
      const Tile queries = {keys.segment, query, std::min(kTileRows, segment.q_end - query)};
      if (!meet(p, segment, queries, keys)) continue;
      tile_probabilities(p, step, segment, queries, keys, head, s);
      if (which == Of::keys) tile_score_gradients(p, step, queries, keys, head, s);
      const TileRows right = whole_rows(p.query(step, which == Of::keys ? 0 : 4, query, head), p.q_cols, queries.rows, p.head_dim, s.queries);
      const float* left = which == Of::keys ? s.grads : s.scores;
      multiply(keys.rows, p.width, queries.rows, {left, 1, kTileRows}, right.data, right.ld, s.sum_a, p.width, true);
    }
  }
  write_rows(p, s.sum_a, keys.rows, which == Of::keys ? p.scale : 1.0f, output(step) + keys.begin * p.kv_cols + kv_head * p.head_dim, p.kv_cols);
}

/// Calls body(tile, head, scratch) for all tiles and heads, the last tiles first: with a causal mask they see most.
template <class Body>
void for_each_tile(const Problem& p, const Step& step, const Context& context, Side side, const Body& body) {
  Tile* tiles = tile_list(step.workspace, context.threads, p.head_dim);
  const std::int64_t count = list_tiles(p.segments, side, tiles);
  const std::int64_t heads = side == Side::keys ? p.attn.heads.kv_heads : p.attn.heads.heads;
  parallel_tasks(context.threads, count * heads, [&](std::int64_t task, int thread) {
    body(tiles[count - 1 - task / heads], task % heads, Scratch(step.workspace, thread, p.head_dim));
  });
}

void key_gradients(const MultiHeadAttn& attn, const Step& step, const Context& context, Of which) {
  if (!step.out[0]) return;
  const Problem p(attn, step);
  for_each_tile(p, step, context, Side::keys,
                [&](const Tile& tile, std::int64_t kv_head, const Scratch& s) { key_gradient(p, step, tile, kv_head, which, s); });
}

}  // namespace

void run(const MultiHeadAttn& op, const Step& step, Context& context) {
  if (!is_f32(step)) return reference::run(op, step);
  const Problem p(op, step);
  for_each_tile(p, step, context, Side::queries, [&](const Tile& tile, std::int64_t head, const Scratch& s) { attend(p, step, tile, head, s); });
}

void run(const MultiHeadAttnGradQ& op, const Step& step, Context& context) {
  if (!is_f32(step)) return reference::run(op, step);
  if (!step.out[0]) return;
  const Problem p(op.attn, step);
  for_each_tile(p, step, context, Side::queries, [&](const Tile& tile, std::int64_t head, const Scratch& s) { query_gradient(p, step, tile, head, s); });
}

void run(const MultiHeadAttnGradK& op, const Step& step, Context& context) {
  if (!is_f32(step)) return reference::run(op, step);
  key_gradients(op.attn, step, context, Of::keys);
}

void run(const MultiHeadAttnGradV& op, const Step& step, Context& context) {
  if (!is_f32(step)) return reference::run(op, step);
  key_gradients(op.attn, step, context, Of::values);
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
        total = lanes == kLanes ? fma(load(a + j), load(b + j), total) : fma(load_first(a + j, lanes), load_first(b + j, lanes), total);
      }
      output(step)[i] = sum(total);
    }
  });
}

std::size_t workspace(const MultiHeadAttn& op, const Graph& graph, const Node& node, int threads) {
  const std::int64_t q_rows = graph.shape(node.inputs[0]).rows(), kv_rows = graph.shape(node.inputs[1]).rows();
  const std::int64_t tiles = max_tiles(op.segments, q_rows, std::max(q_rows, kv_rows), graph.shape(node.inputs.back()));
  return static_cast<std::size_t>(threads * scratch_floats(op.heads.head_dim)) * sizeof(float) +
         static_cast<std::size_t>(tiles) * sizeof(Tile);
}

}  // namespace graft::cpu
