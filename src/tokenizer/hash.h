#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace graft::tokenizer {

/// For tables in memory: all 64 bits are good, but the values may change from version to version.
inline std::uint64_t mixed(std::uint64_t x) {
  x *= 0x9E3779B97F4A7C15u;
  return x ^ (x >> 32);
}

inline std::uint64_t hash_of(std::string_view bytes) {
  const char* at = bytes.data();
  std::size_t left = bytes.size();
  std::uint64_t hash = left, word = 0;
  for (; left >= 8; left -= 8, at += 8) {
    std::memcpy(&word, at, 8);
    hash = mixed(hash ^ word);
  }
  word = 0;
  if (left > 0) std::memcpy(&word, at, left);
  return mixed(mixed(hash ^ word));
}

}  // namespace graft::tokenizer
