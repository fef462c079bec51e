#pragma once
// What the attention kernels share: sizes, scratch memory, and which part of a tile of scores is seen.
#include <limits>
#include <type_traits>
#include <utility>

#include "kernels/cpu/attention_tiles.h"
#include "kernels/cpu/map.h"
#include "kernels/cpu/tiles.h"
#include "kernels/cpu/views.h"

namespace graft::cpu {

/// Rows of a tile of queries or keys at most. Larger ones leave more of a product to each load of its sums; at 128, the tiles of
/// head_dim 128 still fit a cache of 1 MB.
inline constexpr std::int64_t kTileRows = 128;

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
  template <class T>
  const T* query(std::size_t i, std::int64_t row, std::int64_t head) const {
    return in[i].as<const T>() + row * q_cols + head * head_dim;
  }
  template <class T>
  const T* key(std::size_t i, std::int64_t row, std::int64_t kv_head) const {
    return in[i].as<const T>() + row * kv_cols + kv_head * head_dim;
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
    if (empty_ || whole_) return;
    for (std::int64_t i = 0; i < q.rows; ++i) ranges_[i] = visible(i);
  }

  bool empty() const { return empty_; }
  bool whole() const { return whole_; }
  /// Whether query i sees a key.
  bool sees(std::int64_t i) const { return range(i).first < range(i).last; }
  /// Whether each query sees a key, and whether each key is seen: sums of the first pair need no zeros to start with.
  bool all_see() const {
    for (std::int64_t i = 0; i < queries.rows; ++i)
      if (!sees(i)) return false;
    return true;
  }
  bool all_seen() const {
    std::int64_t seen = 0;  // the keys before this one are
    for (std::int64_t i = 0; i < queries.rows && range(i).first <= seen; ++i) seen = std::max(seen, range(i).last);
    return seen == keys.rows;
  }
  /// The keys that query i sees.
  detail::KeyRange range(std::int64_t i) const { return whole_ ? detail::KeyRange{0, keys.rows} : ranges_[i]; }
  /// Calls f(first, rows, keys) for groups of queries; keys: those that the group sees. `one_by_one`: in groups of one, where not all is seen.
  template <class F>
  void for_query_groups(const F& f, bool one_by_one = false) const {
    const std::int64_t step = whole_ ? queries.rows : one_by_one ? 1 : kGroup;
    for (std::int64_t i = 0; i < queries.rows; i += step) {
      const std::int64_t rows = std::min(step, queries.rows - i);
      const detail::KeyRange seen = {range(i).first, range(i + rows - 1).last};
      if (seen.first < seen.last) f(i, rows, seen);
    }
  }
  /// Calls f(first, rows, queries) for groups of keys; queries: the first and last that see a key of the group.
  template <class F>
  void for_key_groups(const F& f, bool one_by_one = false) const {
    const std::int64_t step = whole_ ? keys.rows : one_by_one ? 1 : kGroup;
    std::int64_t begin = 0, end = 0;
    for (std::int64_t i = 0; i < keys.rows; i += step) {
      const std::int64_t rows = std::min(step, keys.rows - i);
      while (begin < queries.rows && range(begin).last <= i) ++begin;
      while (end < queries.rows && range(end).first < i + rows) ++end;
      if (begin < end) f(i, rows, detail::KeyRange{begin, end});
    }
  }

 private:
  static constexpr std::int64_t kGroup = 2 * kBlockRows;
  bool empty_ = false, whole_ = false;
  detail::KeyRange ranges_[kTileRows];
};

/// The vectors that hold a range.
inline detail::KeyRange whole_vectors(detail::KeyRange range) { return {range.first / kLanes * kLanes, padded(range.last)}; }

/// v where the query sees the keys from `at` on, else `otherwise`.
GRAFT_INLINE Vec where_visible(Vec v, std::int64_t at, detail::KeyRange range, float otherwise) {
  const IntVec key = lane_numbers() + static_cast<std::int32_t>(at);
  const IntVec seen = (key >= static_cast<std::int32_t>(range.first)) & (key < static_cast<std::int32_t>(range.last));
  return seen != 0 ? v : broadcast(otherwise);
}

/// The keys that kLanes queries see, a query a lane.
struct LaneKeys {
  detail::KeyRange any, all;  // that one of them sees, that all see
  IntVec first{}, last{};     // of each

  LaneKeys(const TilePair& pair, std::int64_t i) {
    const std::int64_t rows = std::min<std::int64_t>(kLanes, pair.queries.rows - i);
    any = {pair.range(i).first, pair.range(i + rows - 1).last};
    all = {pair.range(i + rows - 1).first, pair.range(i).last};
    if (all.first >= all.last) all = {any.last, any.last};
    if (pair.whole()) return;
    for (int lane = 0; lane < kLanes; ++lane) {
      const detail::KeyRange seen = pair.range(std::min(i + lane, pair.queries.rows - 1));
      first[lane] = static_cast<std::int32_t>(seen.first);
      last[lane] = static_cast<std::int32_t>(seen.last);
    }
  }

  /// Calls f(key, partial) for the keys that a query sees; partial: std::true_type where not all see it.
  template <class F>
  GRAFT_INLINE void for_each(const F& f) const {
    for (std::int64_t j = any.first; j < all.first; ++j) f(j, std::true_type());
    for (std::int64_t j = all.first; j < all.last; ++j) f(j, std::false_type());
    for (std::int64_t j = all.last; j < any.last; ++j) f(j, std::true_type());
  }
  GRAFT_INLINE Vec only(std::false_type, std::int64_t, Vec scores) const { return scores; }
  GRAFT_INLINE Vec only(std::true_type, std::int64_t key, Vec scores) const {
    const auto j = static_cast<std::int32_t>(key);
    return (first <= j) & (last > j) ? scores : broadcast(-std::numeric_limits<float>::infinity());
  }
};

/// to[j] = f(from[j], to[j]) for the head_dim elements of a row.
template <class T, class F>
GRAFT_INLINE void write_row(const AttentionProblem& p, const float* from, T* to, const F& f) {
  for_each_vector(0, p.head_dim, [&](std::int64_t, const auto& get, const auto& put) { put(to, f(get(from), get(to))); });
}

/// A thread's scratch memory: square tiles of scores, a number a query, tiles of rows.
struct AttentionScratch {
  float *scores, *grads, *maxima, *sums, *factors, *queries, *douts, *keys_t, *values_t, *rows, *sums_of_rows, *dk, *dv;

  AttentionScratch(void* memory, int thread, std::int64_t head_dim) {
    float* at = static_cast<float*>(memory) + thread * floats(head_dim);
    const auto take = [&](std::int64_t n) { return std::exchange(at, at + n); };
    for (float** square : {&scores, &grads}) *square = take(kTileRows * kTileRows);
    for (float** number : {&maxima, &sums, &factors}) *number = take(kTileRows);
    for (float** tile : {&queries, &douts, &keys_t, &values_t, &rows, &sums_of_rows, &dk, &dv})
      *tile = take(kTileRows * padded(head_dim));
  }
  static std::int64_t floats(std::int64_t head_dim) {
    return 2 * kTileRows * kTileRows + 3 * kTileRows + 8 * kTileRows * padded(head_dim);
  }
};

/// scores [queries, kTileRows] = rows [queries, head_dim]·b_t [head_dim, padded(keys)], where something is seen.
inline void score_products(const AttentionProblem& p, const TilePair& pair, TileRows rows, const float* b_t, float* scores) {
  const std::int64_t ld = padded(pair.keys.rows);
  pair.for_query_groups([&](std::int64_t i, std::int64_t count, detail::KeyRange seen) {
    const detail::KeyRange at = whole_vectors(seen);
    multiply(count, at.last - at.first, p.head_dim, {rows.data + i * rows.ld, rows.ld, 1}, b_t + at.first, ld,
             scores + i * kTileRows + at.first, kTileRows, false);
  });
}

/// Whether a product must leave out what is not seen, where a group of rows else multiplies it by 0: 0·∞ and 0·NaN are NaN.
inline bool keeps_out(const AttentionProblem& p, const TilePair& pair, const float* rows, std::int64_t count, std::int64_t ld) {
  return !pair.whole() && !all_finite(rows, ld, count, p.width);
}

/// sums [queries, width] = weights [queries, keys]·rows of keys, where something is seen; or += if accumulate.
inline void sum_key_rows(const AttentionProblem& p, const TilePair& pair, Strided weights, TileRows rows, float* sums,
                         bool accumulate) {
  const auto add = [&](std::int64_t i, std::int64_t count, detail::KeyRange seen) {
    const Strided some = {weights.data + i * weights.row + seen.first * weights.col, weights.row, weights.col};
    multiply(count, p.width, seen.last - seen.first, some, rows.data + seen.first * rows.ld, rows.ld, sums + i * p.width, p.width,
             accumulate);
  };
  pair.for_query_groups(add, keeps_out(p, pair, rows.data, pair.keys.rows, rows.ld));
}

/// sums [keys, width] = weightsᵀ·rows [queries, width], where something is seen; or += if accumulate.
inline void add_query_rows(const AttentionProblem& p, const TilePair& pair, const float* weights, TileRows rows, float* sums,
                           bool accumulate) {
  const auto add = [&](std::int64_t j, std::int64_t count, detail::KeyRange seeing) {
    multiply(count, p.width, seeing.last - seeing.first, {weights + seeing.first * kTileRows + j, 1, kTileRows},
             rows.data + seeing.first * rows.ld, rows.ld, sums + j * p.width, p.width, accumulate);
  };
  pair.for_key_groups(add, keeps_out(p, pair, rows.data, pair.queries.rows, rows.ld));
}

/// What all threads share, behind their scratch: the tiles of one side, and how far each task is.
struct AttentionTasks {
  Tile* tiles;
  std::int64_t count;
  std::int64_t* progress;

  AttentionTasks(const AttentionProblem& p, void* workspace, int threads, Side side)
      : tiles(reinterpret_cast<Tile*>(static_cast<float*>(workspace) + threads * AttentionScratch::floats(p.head_dim))),
        count(list_tiles(p.segments, side, kTileRows, tiles)),
        progress(reinterpret_cast<std::int64_t*>(tiles + count)) {}
};

/// Bytes of scratch memory for all threads, and of what they share but a dq in bf16.
inline std::size_t attention_workspace(const AttentionShape& heads, std::int64_t tiles, int threads) {
  return static_cast<std::size_t>(threads * AttentionScratch::floats(heads.head_dim)) * sizeof(float) +
         static_cast<std::size_t>(tiles) * (sizeof(Tile) + static_cast<std::size_t>(heads.kv_heads) * sizeof(std::int64_t));
}

/// Calls body(tile) for the tiles of one side of a segment, in order.
template <class Body>
void for_segment_tiles(std::int64_t index, std::int64_t begin, std::int64_t end, const Body& body) {
  for (std::int64_t row = begin; row < end; row += kTileRows) body(Tile{index, row, std::min(kTileRows, end - row)});
}

/// Cached attention with several queries a sequence, by the tiles of multi-head attention.
void attend_to_caches(const CachedAttention& op, const Step& step, const Context& context);

}  // namespace graft::cpu
