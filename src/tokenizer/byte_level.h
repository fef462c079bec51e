#pragma once
#include <array>
#include <optional>
#include <string>
#include <string_view>

namespace graft::tokenizer {

/// GPT-2's way to write any byte as a visible character: bytes that are printable in Latin-1 as themselves, the others, in order, as U+0100, U+0101, …
/// (so a space is Ġ).
std::string to_byte_characters(std::string_view bytes);
/// Back to bytes; nullopt when a character stands for no byte.
std::optional<std::string> from_byte_characters(std::string_view text);
/// The byte values in order of their characters' code points.
const std::array<unsigned char, 256>& bytes_by_character();

}  // namespace graft::tokenizer
