#pragma once
// What the attention kernels share: sizes, scratch memory, and which part of a tile of scores is seen.
#include <utility>

#include "kernels/cpu/attention_tiles.h"
#include "kernels/cpu/tiles.h"
#include "kernels/cpu/views.h"

namespace graft::cpu {

struct AttentionProblem {
  const MultiHeadAttn& attn;
  std::span<const TensorView> in;
  std::int64_t heads, kv_heads, head_dim, width, group, q_cols, kv_cols;  // width: head_dim in whole vectors
  detail::SegmentList segments;
  float scale;

  AttentionProblem(const MultiHeadAttn& op, std::span<const TensorView> inputs)
      : AttentionProblem(op, inputs, detail::attention_segments(op.segments, inputs)) {}
  AttentionProblem(const MultiHeadAttn& op, std::span<const TensorView> inputs, const detail::SegmentList& list)
      : attn(op),
        in(inputs),
        heads(op.heads.heads),
        kv_heads(op.heads.kv_heads),
        head_dim(op.heads.head_dim),
        width(padded(head_dim)),
        group(heads / kv_heads),
        q_cols(heads * head_dim),
        kv_cols(kv_heads * head_dim),
        segments(list),
        scale(static_cast<float>(op.scale)) {}

  /// From this row and head on, of an input like q, like k, or with a number a head.
  const float* query(std::size_t i, std::int64_t row, std::int64_t head) const {
    return in[i].as<const float>() + row * q_cols + head * head_dim;
  }
  const float* key(std::size_t i, std::int64_t row, std::int64_t kv_head) const {
    return in[i].as<const float>() + row * kv_cols + kv_head * head_dim;
  }
  float statistic(std::size_t i, std::int64_t row, std::int64_t head) const { return in[i].as<const float>()[row * heads + head]; }
};

/// A tile of queries and one of keys of the same segment: the keys that each query sees, counted from the tile's first.
class TilePair {
 public:
  Tile queries, keys;

  TilePair(const AttentionProblem& p, const Tile& q, const Tile& k) : queries(q), keys(k) {
    const detail::Segment segment = p.segments[q.segment];
    const auto visible = [&](std::int64_t i) {
      const detail::KeyRange seen =
          detail::visible_keys(p.attn.mask, q.begin + i - segment.q_begin, segment.q_seq(), segment.kv_seq());
      const std::int64_t offset = segment.kv_begin - k.begin;
      return detail::KeyRange{std::clamp<std::int64_t>(seen.first + offset, 0, k.rows),
                              std::clamp<std::int64_t>(seen.last + offset, 0, k.rows)};
    };
    // Ranges move right from query to query, so the first and last tell whether there is anything to see, or all.
    const detail::KeyRange top = visible(0), bottom = visible(q.rows - 1);
    empty_ = bottom.last == 0 || top.first == k.rows;
    whole_ = top.last == k.rows && bottom.first == 0;
    if (empty_) return;
    for (std::int64_t i = 0; i < q.rows; ++i) ranges_[i] = whole_ ? top : visible(i);
  }

  bool empty() const { return empty_; }
  detail::KeyRange range(std::int64_t i) const { return ranges_[i]; }
  bool partial(std::int64_t i, std::int64_t j) const { return j < ranges_[i].first || j + kLanes > ranges_[i].last; }

  /// Calls f(first, rows, keys) for groups of queries, none of which sees a key from `keys` on.
  template <class F>
  void for_query_groups(const F& f) const {
    const std::int64_t step = whole_ ? queries.rows : kGroup;
    for (std::int64_t i = 0; i < queries.rows; i += step) {
      const std::int64_t rows = std::min(step, queries.rows - i);
      f(i, rows, ranges_[i + rows - 1].last);
    }
  }
  /// Calls f(first, rows, query) for groups of keys, none of which is seen by a query before `query`.
  template <class F>
  void for_key_groups(const F& f) const {
    const std::int64_t step = whole_ ? keys.rows : kGroup;
    std::int64_t query = 0;
    for (std::int64_t i = 0; i < keys.rows; i += step) {
      while (query < queries.rows && ranges_[query].last <= i) ++query;
      f(i, std::min(step, keys.rows - i), query);
    }
  }

 private:
  static constexpr std::int64_t kGroup = 2 * kBlockRows;
  bool empty_ = false, whole_ = false;
  detail::KeyRange ranges_[kTileRows];
};

/// v where the query sees the keys from `at` on, else `otherwise`.
GRAFT_INLINE Vec where_visible(Vec v, std::int64_t at, detail::KeyRange range, float otherwise) {
  const IntVec key = lane_numbers() + static_cast<std::int32_t>(at);
  const IntVec seen = (key >= static_cast<std::int32_t>(range.first)) & (key < static_cast<std::int32_t>(range.last));
  return seen != 0 ? v : broadcast(otherwise);
}

/// A thread's scratch memory: square tiles of scores, transposed tiles, tiles of rows.
struct AttentionScratch {
  float *scores, *grads, *maxima, *sums, *factors, *keys_t, *values_t, *rows, *queries, *douts, *out_a, *out_b;

  AttentionScratch(void* memory, int thread, std::int64_t head_dim) {
    float* at = static_cast<float*>(memory) + thread * floats(head_dim);
    const auto take = [&](std::int64_t n) { return std::exchange(at, at + n); };
    const std::int64_t square = kTileRows * kTileRows, tile = kTileRows * padded(head_dim);
    scores = take(square), grads = take(square), maxima = take(kTileRows), sums = take(kTileRows), factors = take(kTileRows);
    keys_t = take(tile), values_t = take(tile), rows = take(tile), queries = take(tile), douts = take(tile);
    out_a = take(tile), out_b = take(tile);
  }
  static std::int64_t floats(std::int64_t head_dim) {
    return 2 * kTileRows * kTileRows + 3 * kTileRows + 7 * kTileRows * padded(head_dim);
  }
};

/// scores [queries, kTileRows] = rows [queries, width]·b_t [head_dim, padded(keys)], where something is seen.
inline void score_products(const AttentionProblem& p, const TilePair& pair, const float* rows, const float* b_t, float* scores) {
  const std::int64_t ld = padded(pair.keys.rows);
  pair.for_query_groups([&](std::int64_t i, std::int64_t count, std::int64_t keys) {
    multiply(count, padded(keys), p.head_dim, {rows + i * p.width, p.width, 1}, b_t, ld, scores + i * kTileRows, kTileRows, false);
  });
}

/// sums [queries, width] += weights [queries, keys]·rows of keys
inline void add_key_rows(const AttentionProblem& p, const TilePair& pair, const float* weights, TileRows rows, float* sums,
                         std::int64_t ld) {
  pair.for_query_groups([&](std::int64_t i, std::int64_t count, std::int64_t keys) {
    multiply(count, p.width, keys, {weights + i * kTileRows, kTileRows, 1}, rows.data, rows.ld, sums + i * ld, ld, true);
  });
}

/// sums [keys, width] += weightsᵀ·rows [queries, width]
inline void add_query_rows(const AttentionProblem& p, const TilePair& pair, const float* weights, const float* rows, float* sums) {
  pair.for_key_groups([&](std::int64_t i, std::int64_t count, std::int64_t query) {
    multiply(count, p.width, pair.queries.rows - query, {weights + query * kTileRows + i, 1, kTileRows}, rows + query * p.width,
             p.width, sums + i * p.width, p.width, true);
  });
}

/// Rows [rows, width] times `factor`, to the head's columns of a tensor; they may lie there already.
inline void write_rows(const AttentionProblem& p, const float* from, std::int64_t from_ld, std::int64_t rows, float factor,
                       float* to, std::int64_t ld) {
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t j = 0; j < p.head_dim; j += kLanes)
      store_first(to + i * ld + j, load(from + i * from_ld + j) * factor, std::min<std::int64_t>(kLanes, p.head_dim - j));
}

inline void clear(float* rows, std::int64_t n) { std::fill_n(rows, n, 0.0f); }

/// Bytes of scratch memory for all threads, and a list of tiles.
inline std::size_t attention_workspace(std::int64_t head_dim, std::int64_t tiles, int threads) {
  return static_cast<std::size_t>(threads * AttentionScratch::floats(head_dim)) * sizeof(float) +
         static_cast<std::size_t>(tiles) * sizeof(Tile);
}

/// Calls body(tile, head, scratch) for all tiles and heads, the last tiles first: with a causal mask they have most to do.
template <class Body>
void for_each_tile(const AttentionProblem& p, void* workspace, int threads, Side side, const Body& body) {
  Tile* tiles = reinterpret_cast<Tile*>(static_cast<float*>(workspace) + threads * AttentionScratch::floats(p.head_dim));
  const std::int64_t count = list_tiles(p.segments, side, tiles), heads = side == Side::keys ? p.kv_heads : p.heads;
  parallel_tasks(threads, count * heads, [&](std::int64_t task, int thread) {
    body(tiles[count - 1 - task / heads], task % heads, AttentionScratch(workspace, thread, p.head_dim));
  });
}

/// Calls body(tile) for the tiles of one side of a segment, in order.
template <class Body>
void for_segment_tiles(std::int64_t index, std::int64_t begin, std::int64_t end, const Body& body) {
  for (std::int64_t row = begin; row < end; row += kTileRows) body(Tile{index, row, std::min(kTileRows, end - row)});
}

/// Cached attention with several queries a sequence, by the tiles of multi-head attention.
void attend_to_caches(const CachedAttention& op, const Step& step, const Context& context);

/// The gradients of attention that are not null; `in` as of MultiHeadAttnGradQ. The same bits together as one by one.
struct AttentionGradients {
  float *dq = nullptr, *dk = nullptr, *dv = nullptr;
};
void attention_gradients(const MultiHeadAttn& attn, std::span<const TensorView> in, const AttentionGradients& out, void* workspace,
                         const Context& context);

}  // namespace graft::cpu
