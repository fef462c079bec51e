#pragma once
#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>

#include "graft/backend.h"
#include "graft/ops.h"

namespace graft::detail {

/// The rows of one sequence: q_begin ≤ i < q_end, and the rows of the keys and values that it attends to.
struct Segment {
  std::int64_t q_begin, q_end, kv_begin, kv_end;
  std::int64_t q_seq() const { return q_end - q_begin; }
  std::int64_t kv_seq() const { return kv_end - kv_begin; }
};

/// Where n sequences stand in caches; kv_len, kv_pos and slots are in host memory.
struct CacheRows {
  std::int64_t count, rows, max_seq;  ///< sequences, new rows of each, rows of each in the cache
  const std::uint32_t* place;         ///< kv_len or kv_pos of each
  const std::uint32_t* slots;         ///< null: in order

  /// `cache`, `place`: inputs of the op; the slots, if any, come after `place`.
  CacheRows(std::int64_t sequences, std::span<const TensorView> in, std::size_t cache, std::size_t at)
      : count(in[at].size()),
        rows(in[0].rows() / count),
        max_seq(in[cache].rows() / (sequences > 0 ? sequences : count)),
        place(in[at].as<const std::uint32_t>()),
        slots(sequences > 0 ? in[at + 1].as<const std::uint32_t>() : nullptr) {}
  /// The cache's first row of sequence s.
  std::int64_t begin(std::int64_t s) const { return (slots ? slots[s] : s) * max_seq; }
};

/// The sequences of a SegmentLayout, in order. Offsets are read only when the layout is packed; they are in host memory.
class SegmentList {
 public:
  /// Of attention: `offsets` holds q_offsets and kv_offsets if packed.
  SegmentList(const SegmentLayout& layout, std::int64_t q_rows, std::int64_t kv_rows, std::span<const TensorView> offsets)
      : layout_(layout), q_rows_(q_rows), kv_rows_(kv_rows) {
    if (layout.kind == SegmentLayout::Kind::packed) {
      q_offsets_ = offsets[0].as<const std::uint32_t>();
      kv_offsets_ = offsets[1].as<const std::uint32_t>();
      count_ = offsets[0].size() - 1;
    } else if (layout.kind == SegmentLayout::Kind::uniform) {
      count_ = q_rows / layout.q_length;
    }
  }
  /// Of cached attention: the queries and the filled rows of each sequence.
  explicit SegmentList(const CacheRows& cache) : q_rows_(0), kv_rows_(0), count_(cache.count), cache_(cache) {}
  std::int64_t count() const { return count_; }
  Segment operator[](std::int64_t s) const {
    if (cache_) {
      const std::int64_t begin = cache_->begin(s);
      return {s * cache_->rows, (s + 1) * cache_->rows, begin, begin + cache_->place[s]};
    }
    switch (layout_.kind) {
      case SegmentLayout::Kind::single: break;
      case SegmentLayout::Kind::uniform:
        return {s * layout_.q_length, (s + 1) * layout_.q_length, s * layout_.kv_length, (s + 1) * layout_.kv_length};
      case SegmentLayout::Kind::packed: return {q_offsets_[s], q_offsets_[s + 1], kv_offsets_[s], kv_offsets_[s + 1]};
    }
    return {0, q_rows_, 0, kv_rows_};
  }

 private:
  SegmentLayout layout_;
  std::int64_t q_rows_, kv_rows_, count_ = 1;
  const std::uint32_t* q_offsets_ = nullptr;
  const std::uint32_t* kv_offsets_ = nullptr;
  std::optional<CacheRows> cache_;
};

/// What the queries of a CachedAttention see: segments are those of its CacheRows.
inline Mask cache_mask(const CachedAttention& op) {
  return op.window > 0 ? Mask{Mask::Kind::window, op.window} : Mask{Mask::Kind::causal, 0};
}

/// in: q, k, v, …; if packed, the offsets come last.
inline SegmentList attention_segments(const SegmentLayout& layout, std::span<const TensorView> in) {
  return {layout, in[0].rows(), in[1].rows(), layout.kind == SegmentLayout::Kind::packed ? in.last(2) : in.first(0)};
}

/// in: x, …; if packed, the offsets come last. Only the q side of each segment means something.
inline SegmentList rope_segments(const SegmentLayout& layout, std::span<const TensorView> in) {
  const TensorView both[] = {in.back(), in.back()};
  return {layout, in[0].rows(), in[0].rows(), both};
}

/// The position of the first row of segment s.
inline std::int64_t rope_offset(const Rope& op, std::span<const TensorView> in, std::int64_t s) {
  return op.offset + (op.dynamic ? in[1].as<const std::uint32_t>()[in[1].size() == 1 ? 0 : s] : 0);
}

/// first ≤ j < last; empty when a query sees nothing.
struct KeyRange {
  std::int64_t first, last;
};
/// The keys that query i of a segment sees; i and the keys count from the segment's first rows.
inline KeyRange visible_keys(const Mask& mask, std::int64_t i, std::int64_t q_seq, std::int64_t kv_seq) {
  const std::int64_t p = i + kv_seq - q_seq;
  switch (mask.kind) {
    case Mask::Kind::full: break;
    case Mask::Kind::causal: return {0, std::clamp(p + 1, std::int64_t{0}, kv_seq)};
    case Mask::Kind::window: {
      const std::int64_t last = std::clamp(p + 1, std::int64_t{0}, kv_seq);
      return {std::clamp(p - mask.window + 1, std::int64_t{0}, last), last};
    }
  }
  return {0, kv_seq};
}

}  // namespace graft::detail
