#include "src/io/content_hash.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace graft::detail {
namespace {

static_assert(std::endian::native == std::endian::little,
              "checkpoints are little-endian, and so is every machine that graft builds for");

std::uint64_t step(std::uint64_t lane, std::uint64_t word) {
  return std::rotl((lane ^ word ^ (word >> 32)) * 0x9E3779B97F4A7C15u, 29);
}

}  // namespace

void ContentHash::absorb(Lanes& lanes, const std::byte* block) {
  Lanes words;
  std::memcpy(words.data(), block, sizeof words);
  for (std::size_t i = 0; i < 4; ++i) lanes[i] = step(lanes[i], words[i]);
}

void ContentHash::update(std::span<const std::byte> bytes) {
  const std::size_t held = length_ % 32;
  length_ += bytes.size();
  if (held != 0) {
    const std::size_t taken = std::min(bytes.size(), 32 - held);
    std::copy_n(bytes.begin(), taken, pending_.begin() + static_cast<std::ptrdiff_t>(held));
    bytes = bytes.subspan(taken);
    if (held + taken < 32) return;
    absorb(lanes_, pending_.data());
  }
  Lanes lanes = lanes_;
  for (; bytes.size() >= 32; bytes = bytes.subspan(32)) absorb(lanes, bytes.data());
  lanes_ = lanes;
  std::copy(bytes.begin(), bytes.end(), pending_.begin());
}

std::uint64_t ContentHash::value() const {
  Lanes lanes = lanes_;
  if (const std::size_t held = length_ % 32; held != 0) {
    std::array<std::byte, 32> last{};
    std::copy_n(pending_.begin(), held, last.begin());
    absorb(lanes, last.data());
  }
  std::uint64_t hash = length_;
  for (const std::uint64_t lane : lanes) hash = step(hash, lane);
  hash ^= hash >> 32;
  hash *= 0xD6E8FEB86659FD93u;
  return hash ^ (hash >> 32);
}

}  // namespace graft::detail
