#pragma once
#include <algorithm>
#include <cstdint>

#include "kernels/segments.h"

namespace graft::cpu {

/// Some rows of one segment, from row `begin` of the tensor on.
struct Tile {
  std::int64_t segment, begin, rows;
};

enum class Side { queries, keys };

/// Writes the tiles of all segments, of tile_rows or less, to `tiles`, in order; returns their number.
inline std::int64_t list_tiles(const detail::SegmentList& segments, Side side, std::int64_t tile_rows, Tile* tiles) {
  std::int64_t count = 0;
  for (std::int64_t s = 0; s < segments.count(); ++s) {
    const detail::Segment segment = segments[s];
    const std::int64_t begin = side == Side::keys ? segment.kv_begin : segment.q_begin;
    const std::int64_t end = side == Side::keys ? segment.kv_end : segment.q_end;
    for (std::int64_t row = begin; row < end; row += tile_rows) tiles[count++] = {s, row, std::min(tile_rows, end - row)};
  }
  return count;
}

/// At least as many as list_tiles writes. `last`: the op's last input, the offsets if packed.
inline std::int64_t max_tiles(const SegmentLayout& layout, std::int64_t q_rows, std::int64_t rows, std::int64_t tile_rows,
                              const Shape& last) {
  std::int64_t segments = 1;
  if (layout.kind == SegmentLayout::Kind::packed) segments = last.size();
  if (layout.kind == SegmentLayout::Kind::uniform) segments = q_rows / layout.q_length;
  return rows / tile_rows + segments;
}

}  // namespace graft::cpu
