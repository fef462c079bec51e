#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace graft::tokenizer {

/// Bytes of the valid UTF-8 sequence that `text` starts with (no surrogates, nothing overlong, at most U+10FFFF); 0 when it starts with none.
inline std::size_t sequence_length(std::string_view text) {
  if (text.empty()) return 0;
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const auto continues = [&](std::size_t i, unsigned low = 0x80, unsigned high = 0xBF) {
    return i < text.size() && byte(i) >= low && byte(i) <= high;
  };
  const unsigned first = byte(0);
  if (first < 0x80) return 1;
  if (first < 0xC2) return 0;
  if (first < 0xE0) return continues(1) ? 2 : 0;
  if (first < 0xF0) return continues(1, first == 0xE0 ? 0xA0 : 0x80, first == 0xED ? 0x9F : 0xBF) && continues(2) ? 3 : 0;
  if (first < 0xF5)
    return continues(1, first == 0xF0 ? 0x90 : 0x80, first == 0xF4 ? 0x8F : 0xBF) && continues(2) && continues(3) ? 4 : 0;
  return 0;
}

/// The code point of a valid sequence.
inline std::uint32_t code_point(std::string_view sequence) {
  const auto bits = [&](std::size_t i) { return static_cast<std::uint32_t>(static_cast<unsigned char>(sequence[i]) & 0x3F); };
  const auto first = static_cast<unsigned char>(sequence[0]);
  if (sequence.size() == 1) return first;
  if (sequence.size() == 2) return (first & 0x1Fu) << 6 | bits(1);
  if (sequence.size() == 3) return (first & 0x0Fu) << 12 | bits(1) << 6 | bits(2);
  return (first & 0x07u) << 18 | bits(1) << 12 | bits(2) << 6 | bits(3);
}

inline void append_utf8(std::string& out, std::uint32_t c) {
  const auto put = [&](std::uint32_t byte) { out += static_cast<char>(byte); };
  if (c < 0x80) return put(c);
  if (c < 0x800) {
    put(0xC0 | c >> 6);
  } else {
    if (c < 0x10000) {
      put(0xE0 | c >> 12);
    } else {
      put(0xF0 | c >> 18);
      put(0x80 | (c >> 12 & 0x3F));
    }
    put(0x80 | (c >> 6 & 0x3F));
  }
  put(0x80 | (c & 0x3F));
}

/// Length of the longest valid prefix.
inline std::size_t valid_prefix(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    std::uint64_t eight = 0;
    if (at + 8 <= text.size() && (std::memcpy(&eight, text.data() + at, 8), (eight & 0x8080808080808080u) == 0)) {
      at += 8;
      continue;
    }
    const std::size_t length = sequence_length(text.substr(at));
    if (length == 0) break;
    at += length;
  }
  return at;
}

/// Length of the run of bytes at the start that belong to no valid sequence.
inline std::size_t invalid_prefix(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size() && sequence_length(text.substr(at)) == 0) ++at;
  return at;
}

}  // namespace graft::tokenizer
