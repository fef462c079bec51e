#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace graft {

/// Alignment of every value, in bytes.
inline constexpr std::size_t kAlignment = 64;
constexpr std::size_t aligned(std::size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

/// Memory that is in use from step `first` to step `last`, both included.
struct ArenaBlock {
  std::size_t bytes = 0;
  std::int32_t first = 0, last = 0;
  std::size_t offset = 0;  ///< the result
};

/// The most bytes in use at one step: no arrangement is smaller.
std::size_t most_in_use(const std::vector<ArenaBlock>& blocks);

/// Gives every block an aligned offset such that blocks in use at the same step do not overlap. Returns the size of the arena.
/// Places the blocks greedily, in a few orders, at the first gap that fits or at the tightest one, and keeps the smallest result.
std::size_t arrange(std::vector<ArenaBlock>& blocks);

}  // namespace graft
