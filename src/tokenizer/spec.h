#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace graft::tokenizer {

/// A token that is found in the text itself, before it is cut into words.
struct AddedToken {
  std::string content;
  std::uint32_t id = 0;
  bool special = false;
  bool single_word = false;             ///< only where no word character stands before or after
  bool lstrip = false, rstrip = false;  ///< takes the white space before, after
  bool normalized = false;              ///< found in the normalized text, after the others
};

struct Merge {
  std::uint32_t left = 0, right = 0, merged = 0;
};

/// What a tokenizer.json says. Every tokenizer is made from one.
struct Spec {
  bool characters = false;            ///< a token a code point; else byte-level BPE
  std::vector<std::string> tokens;    ///< by id, as written in the file; those of the model come first
  std::size_t model_size = 0;         ///< how many are the model's
  std::vector<Merge> merges;          ///< by rank
  bool ignore_merges = false;         ///< a word that is a token is that token, whatever the merges give
  std::vector<std::string> patterns;  ///< cut the text into words, one after the other, in Oniguruma's syntax
  bool prefix_space = false;          ///< a space is put before a text that starts with none
  std::vector<AddedToken> added;
  std::vector<std::uint32_t> before, after;  ///< of a text, if special tokens are asked for
};

/// Throws Error `tokenizer "name": …`, naming key and value, when there is anything that is not understood.
Spec read_spec(std::string_view json, const std::string& name);

/// The text of a tokenizer.json of a byte-level BPE: `tokens` by id as bytes, merges by rank; special tokens have the first ids.
std::string write_bpe(const std::vector<std::string>& tokens, const std::vector<Merge>& merges, std::string_view pattern,
                      const std::vector<std::string>& special);
/// The same of a tokenizer whose tokens are characters or bytes that are no part of one.
std::string write_characters(const std::vector<std::string>& tokens);

/// "<0xE9>", which stands for a byte that is no part of a character.
std::string byte_token(unsigned char byte);
/// Back to the byte; -1 when it is no such token.
int byte_of_token(std::string_view token);
/// What cuts a text into characters.
inline constexpr std::string_view kCharacterPattern = R"([\s\S])";

}  // namespace graft::tokenizer
