#include "src/tokenizer/byte_level.h"

#include <algorithm>
#include <cstdint>
#include <numeric>

#include "src/tokenizer/utf8.h"

namespace graft::tokenizer {
namespace {

constexpr bool shows_itself(unsigned byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

constexpr std::array<std::uint16_t, 256> characters() {
  std::array<std::uint16_t, 256> of{};
  std::uint16_t next = 0x100;
  for (unsigned byte = 0; byte < 256; ++byte) of[byte] = shows_itself(byte) ? static_cast<std::uint16_t>(byte) : next++;
  return of;
}

constexpr std::array<std::uint16_t, 256> kCharacterOf = characters();

constexpr std::array<std::int16_t, 0x144> bytes() {
  std::array<std::int16_t, 0x144> of{};
  for (std::int16_t& byte : of) byte = -1;
  for (unsigned byte = 0; byte < 256; ++byte) of[kCharacterOf[byte]] = static_cast<std::int16_t>(byte);
  return of;
}

constexpr std::array<std::int16_t, 0x144> kByteOf = bytes();

}  // namespace

std::string to_byte_characters(std::string_view bytes) {
  std::string text;
  for (const char c : bytes) append_utf8(text, kCharacterOf[static_cast<unsigned char>(c)]);
  return text;
}

std::optional<std::string> from_byte_characters(std::string_view text) {
  std::string bytes;
  while (!text.empty()) {
    const std::size_t length = sequence_length(text);
    if (length == 0) return std::nullopt;
    const std::uint32_t c = code_point(text.substr(0, length));
    if (c >= kByteOf.size() || kByteOf[c] < 0) return std::nullopt;
    bytes += static_cast<char>(kByteOf[c]);
    text.remove_prefix(length);
  }
  return bytes;
}

const std::array<unsigned char, 256>& bytes_by_character() {
  static const std::array<unsigned char, 256> order = [] {
    std::array<unsigned char, 256> all{};
    std::iota(all.begin(), all.end(), static_cast<unsigned char>(0));
    std::sort(all.begin(), all.end(), [](unsigned char a, unsigned char b) { return kCharacterOf[a] < kCharacterOf[b]; });
    return all;
  }();
  return order;
}

}  // namespace graft::tokenizer
