#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace graft::detail {

/// 64-bit checksum of a stream of bytes, however it is cut into pieces; not cryptographic.
/// Little-endian 8-byte words go round four lanes, lane = rotl((lane ^ word ^ word >> 32) · odd, 29), the last block of 32 bytes
/// padded with zeros; then the length and the four lanes are folded by the same step and the bits are mixed. Every step is
/// one-to-one in the lane and in the word, so that a change inside a single word always changes the result; the shift lets a
/// word's highest bits reach the others.
class ContentHash {
 public:
  void update(std::span<const std::byte> bytes);
  std::uint64_t value() const;

 private:
  using Lanes = std::array<std::uint64_t, 4>;
  static void absorb(Lanes& lanes, const std::byte* block);
  Lanes lanes_{0x243F6A8885A308D3u, 0x13198A2E03707344u, 0xA4093822299F31D0u, 0x082EFA98EC4E6C89u};  // digits of pi
  std::array<std::byte, 32> pending_{};
  std::uint64_t length_ = 0;
};

}  // namespace graft::detail
