#include "src/arena.h"

#include <algorithm>
#include <map>
#include <numeric>

namespace graft {
namespace {

using Order = std::vector<std::size_t>;

bool meet(const ArenaBlock& a, const ArenaBlock& b) { return a.first <= b.last && b.first <= a.last; }

std::size_t place(std::vector<ArenaBlock>& blocks, const Order& order, bool tightest) {
  Order placed;  // by offset
  placed.reserve(blocks.size());
  std::size_t size = 0;
  for (const std::size_t index : order) {
    ArenaBlock& block = blocks[index];
    const std::size_t bytes = aligned(block.bytes);
    std::size_t end = 0, best = 0, best_gap = 0;
    bool found = false;
    for (const std::size_t other_index : placed) {
      const ArenaBlock& other = blocks[other_index];
      if (!meet(block, other)) continue;
      const std::size_t gap = other.offset > end ? other.offset - end : 0;
      if (gap >= bytes && (!found || gap < best_gap)) {
        best = end;
        best_gap = gap;
        found = true;
        if (!tightest) break;
      }
      end = std::max(end, other.offset + aligned(other.bytes));
    }
    block.offset = found ? best : end;
    size = std::max(size, block.offset + bytes);
    const auto at = std::upper_bound(placed.begin(), placed.end(), block.offset,
                                     [&](std::size_t offset, std::size_t i) { return offset < blocks[i].offset; });
    placed.insert(at, index);
  }
  return size;
}

}  // namespace

std::size_t most_in_use(const std::vector<ArenaBlock>& blocks) {
  std::map<std::int32_t, std::int64_t> change;
  for (const ArenaBlock& block : blocks) {
    change[block.first] += static_cast<std::int64_t>(aligned(block.bytes));
    change[block.last + 1] -= static_cast<std::int64_t>(aligned(block.bytes));
  }
  std::int64_t now = 0, most = 0;
  for (const auto& [step, bytes] : change) {
    now += bytes;
    most = std::max(most, now);
  }
  return static_cast<std::size_t>(most);
}

std::size_t arrange(std::vector<ArenaBlock>& blocks) {
  Order by_size(blocks.size());
  std::iota(by_size.begin(), by_size.end(), std::size_t{0});
  Order by_first = by_size, by_weight = by_size;
  const auto size = [&](std::size_t i) { return blocks[i].bytes; };
  const auto length = [&](std::size_t i) { return static_cast<std::size_t>(blocks[i].last - blocks[i].first + 1); };
  std::stable_sort(by_size.begin(), by_size.end(),
                   [&](std::size_t a, std::size_t b) { return size(a) != size(b) ? size(a) > size(b) : length(a) > length(b); });
  std::stable_sort(by_weight.begin(), by_weight.end(),
                   [&](std::size_t a, std::size_t b) { return size(a) * length(a) > size(b) * length(b); });
  std::stable_sort(by_first.begin(), by_first.end(), [&](std::size_t a, std::size_t b) {
    return blocks[a].first != blocks[b].first ? blocks[a].first < blocks[b].first : length(a) > length(b);
  });

  const std::size_t least = most_in_use(blocks);
  std::vector<ArenaBlock> best;
  std::size_t best_size = 0;
  for (const Order* order : {&by_size, &by_weight, &by_first}) {
    for (const bool tightest : {false, true}) {
      if (!best.empty() && best_size == least) break;
      std::vector<ArenaBlock> attempt = blocks;
      const std::size_t attempt_size = place(attempt, *order, tightest);
      if (best.empty() || attempt_size < best_size) {
        best = std::move(attempt);
        best_size = attempt_size;
      }
    }
  }
  blocks = std::move(best);
  return best_size;
}

}  // namespace graft
