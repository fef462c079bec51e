#pragma once
#include <algorithm>
#include <cstdint>

#include "kernels/segments.h"

namespace graft::cpu {

/// Rows of a tile of queries, keys or positions at most.
inline constexpr std::int64_t kTileRows = 64;

/// Up to kTileRows rows of one segment, from row `begin` of the tensor on.
struct Tile {
  std::int64_t segment, begin, rows;
};

enum class Side { queries, keys };

/// Writes the tiles of all segments to `tiles`, in order; returns their number.
inline std::int64_t list_tiles(const detail::SegmentList& segments, Side side, Tile* tiles) {
  std::int64_t count = 0;
  for (std::int64_t s = 0; s < segments.count(); ++s) {
    const detail::Segment segment = segments[s];
    const std::int64_t begin = side == Side::keys ? segment.kv_begin : segment.q_begin;
    const std::int64_t end = side == Side::keys ? segment.kv_end : segment.q_end;
    for (std::int64_t row = begin; row < end; row += kTileRows) tiles[count++] = {s, row, std::min(kTileRows, end - row)};
  }
  return count;
}

/// At least as many as list_tiles writes. `last`: the op's last input, the offsets if packed.
inline std::int64_t max_tiles(const SegmentLayout& layout, std::int64_t q_rows, std::int64_t rows, const Shape& last) {
  std::int64_t segments = 1;
  if (layout.kind == SegmentLayout::Kind::packed) segments = last.size();
  if (layout.kind == SegmentLayout::Kind::uniform) segments = q_rows / layout.q_length;
  return rows / kTileRows + segments;
}

}  // namespace graft::cpu
