#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graft/data.h"

namespace graft {

/// How GPT-2 and Llama 3 cut a text into words before byte pairs are merged, in Oniguruma's syntax, as tokenizer.json has them.
inline constexpr std::string_view kGpt2Pattern = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

/// How Tokenizer::train_bpe trains.
struct BpeOptions {
  std::int64_t vocab_size = 8192;                     ///< tokens in all: special ones, 256 bytes, merged ones
  std::string pattern = std::string(kLlama3Pattern);  ///< what is a word; no token reaches beyond one. "": the text is one word
  std::vector<std::string> special_tokens{};          ///< get the first ids; where the text holds one, nothing is learnt from it
  std::int64_t min_frequency = 2;                     ///< a pair that occurs less often is not merged
};

/// Text to token ids and back, as a Hugging Face tokenizer.json says; docs/tokenizers.md lists what of it is understood. Everything that is
/// not is refused when loading, naming key and value. It is immutable; any number of threads may use one.
///
/// Text is bytes. Bytes that are no valid UTF-8 are no characters: a run of them is a word of its own, and the text before and after it is cut into
/// words as if it stood alone. Byte-level tokenizers encode any bytes, and decode(encode(bytes)) == bytes unless a normalizer or a prefix space changes the text.
class Tokenizer {
 public:
  /// One token a byte value; the id is the value. With `vocabulary`: only the bytes in it, in its order.
  static Tokenizer bytes();
  static Tokenizer bytes(const ByteVocabulary& vocabulary);
  /// One token a Unicode code point of the text, in order of value, then one a byte of it that is no valid UTF-8. Throws Error when it is empty.
  static Tokenizer characters_of(std::string_view text);
  /// Byte-level BPE that fits a text: the most frequent pair of tokens is merged, of equally frequent ones that of the lowest ids, until there are
  /// vocab_size tokens or no pair is frequent enough. Throws Error when an option is out of range.
  static Tokenizer train_bpe(std::string_view text, const BpeOptions& options = {});
  /// The text of a tokenizer.json; errors call it `name`.
  static Tokenizer from_json(std::string_view json, const std::string& name = "tokenizer.json");
  static Tokenizer load(const std::filesystem::path& file);

  Tokenizer(Tokenizer&& other) noexcept;
  Tokenizer& operator=(Tokenizer&& other) noexcept;
  ~Tokenizer();

  std::int64_t vocab_size() const;  ///< ids are below
  /// Added tokens in the text become their ids. With `add_special_tokens`, what the tokenizer's post-processor puts before and after a text (as
  /// <|begin_of_text|>) is put there. Throws Error naming byte or character and position when the vocabulary lacks it.
  std::vector<std::uint32_t> encode(std::string_view text, bool add_special_tokens = false) const;
  /// The same ids in pieces, so that a text larger than memory can be mapped and encoded.
  void encode(std::string_view text, bool add_special_tokens,
              const std::function<void(std::span<const std::uint32_t>)>& each) const;
  /// The bytes of the ids: of a multi-byte character cut in two, the half. Throws Error naming an id that is not in the vocabulary.
  std::string decode(std::span<const std::uint32_t> ids, bool skip_special_tokens = false) const;

  /// The token's text as tokenizer.json has it: " the" is "Ġthe" in byte-level BPE.
  const std::string& token(std::uint32_t id) const;
  /// The id of a token as tokenizer.json has it.
  std::optional<std::uint32_t> id_of(std::string_view token) const;
  bool is_special(std::uint32_t id) const;
  /// "byte-level BPE, 8,192 tokens, 2 special", for people.
  std::string description() const;

  /// The tokenizer.json it was made from or, where it was not, one that says the same.
  const std::string& json() const;
  /// 64-bit hash of json(), not cryptographic.
  std::uint64_t hash() const;
  /// Writes json(), whole or not at all.
  void save(const std::filesystem::path& file) const;

 private:
  struct Impl;
  explicit Tokenizer(std::unique_ptr<const Impl> impl);
  std::unique_ptr<const Impl> impl_;
};

}  // namespace graft
