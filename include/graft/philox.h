#pragma once
#include <array>
#include <cstdint>
#include <string_view>

// Counter-based random numbers: the same bits on every backend, in any order (Salmon et al. 2011, "Parallel random numbers: as easy as
// 1, 2, 3", Philox4x32-10). Plain constexpr functions, so that device code can use them too.
#include "graft/host_device.h"

namespace graft::philox {

using Block = std::array<std::uint32_t, 4>;

/// The 128 random bits of (counter, key).
GRAFT_HOST_DEVICE constexpr Block block(Block counter, std::uint64_t key) {
  std::uint32_t k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * counter[0];
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<std::uint32_t>(p1 >> 32) ^ counter[1] ^ k0, static_cast<std::uint32_t>(p1),
               static_cast<std::uint32_t>(p0 >> 32) ^ counter[3] ^ k1, static_cast<std::uint32_t>(p0)};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return counter;
}

/// Number `index` of the sequence (seed, stream, step): 32 uniform bits.
GRAFT_HOST_DEVICE constexpr std::uint32_t bits(std::uint64_t seed, std::uint32_t stream, std::uint32_t step, std::uint64_t index) {
  const std::uint64_t group = index / 4;
  return block({static_cast<std::uint32_t>(group), static_cast<std::uint32_t>(group >> 32), stream, step}, seed)[index % 4];
}

/// As a double in [0, 1).
GRAFT_HOST_DEVICE constexpr double uniform(std::uint32_t bits) { return bits * (1.0 / 4294967296.0); }

/// Whether dropout drops element `index`: uniform(bits) < p.
GRAFT_HOST_DEVICE constexpr bool drops(double p, std::uint64_t seed, std::uint32_t stream, std::uint32_t counter, std::uint64_t index) {
  return uniform(bits(seed, stream, counter, index)) < p;
}

}  // namespace graft::philox
