#include "graft/tokenizer.h"

#include <algorithm>
#include <cstdio>
#include <unordered_map>
#include <utility>

#include "graft/error.h"
#include "src/io/atomic_file.h"
#include "src/io/content_hash.h"
#include "src/tokenizer/added.h"
#include "src/tokenizer/bpe.h"
#include "src/tokenizer/byte_level.h"
#include "src/tokenizer/pattern.h"
#include "src/tokenizer/spec.h"
#include "src/tokenizer/utf8.h"
#include "src/tokenizer/words.h"
#include "src/util.h"

namespace graft {
namespace {

using namespace tokenizer;  // NOLINT(google-build-using-namespace)

std::vector<AddedToken> added_tokens(const Spec& spec, bool normalized) {
  std::vector<AddedToken> some;
  std::copy_if(spec.added.begin(), spec.added.end(), std::back_inserter(some),
               [&](const AddedToken& token) { return token.normalized == normalized; });
  return some;
}

// The bytes a token's characters stand for or, if one of them stands for none, its text, as tokenizers has it; but of an added token its text always.
std::string bytes_of(const Spec& spec, std::size_t id) {
  const std::string& token = spec.tokens[id];
  if (id >= spec.model_size) return token;
  if (!spec.characters) return from_byte_characters(token).value_or(token);
  const int byte = byte_of_token(token);
  return byte < 0 ? token : std::string(1, static_cast<char>(byte));
}

// Characters by code point; bytes that are no part of one lie behind all code points.
constexpr std::uint32_t kFirstByte = 0x110000;

}  // namespace

struct Tokenizer::Impl {
  Impl(std::string json_text, const std::string& name)
      : json(std::move(json_text)),
        spec(read_spec(json, name)),
        unnormalized(added_tokens(spec, false)),
        normalized(added_tokens(spec, true)) {
    detail::ContentHash content;
    content.update(std::as_bytes(std::span(json)));
    hash = content.value();
    special.resize(spec.tokens.size());
    for (const AddedToken& token : spec.added) special[token.id] = token.special;
    for (std::size_t id = 0; id < spec.tokens.size(); ++id) {
      bytes.push_back(bytes_of(spec, id));
      ids.emplace(spec.tokens[id], static_cast<std::uint32_t>(id));
    }
    if (spec.characters) {
      for (std::size_t id = 0; id < spec.model_size; ++id) {
        const int byte = byte_of_token(spec.tokens[id]);
        characters.emplace(byte < 0 ? code_point(spec.tokens[id]) : kFirstByte + static_cast<std::uint32_t>(byte),
                           static_cast<std::uint32_t>(id));
      }
      return;
    }
    bpe.emplace(spec);
    try {
      for (const std::string& pattern : spec.patterns) patterns.emplace_back(pattern);
    } catch (const Error& error) {
      throw Error("tokenizer \"" + name + "\": pre_tokenizer: " + error.what());
    }
  }

  std::string json;
  Spec spec;
  std::uint64_t hash = 0;
  AddedTokens unnormalized, normalized;
  std::optional<Bpe> bpe;
  std::vector<Pattern> patterns;
  std::unordered_map<std::uint32_t, std::uint32_t> characters;
  std::vector<std::string> bytes;  // by id
  std::vector<bool> special;
  std::unordered_map<std::string_view, std::uint32_t> ids;
};

namespace {

/// One call of encode.
template <class Impl>
class Encoding {
 public:
  using Each = std::function<void(std::span<const std::uint32_t>)>;
  Encoding(const Impl& impl, std::string_view text, const Each* each)
      : impl_(impl), text_(text), each_(each), words_(impl.patterns) {
    if (impl.bpe && !impl.patterns.empty() && text.size() >= kWorthACache) cache_.emplace(kCacheLog2);
  }

  std::vector<std::uint32_t> run(bool add_special_tokens) {
    if (add_special_tokens) out_ = impl_.spec.before;
    const auto token = [&](std::uint32_t id) { out_.push_back(id); };
    impl_.unnormalized.split(
        text_,
        [&](std::string_view part) {
          impl_.normalized.split(
              part, [&](std::string_view section) { encode_section(section); }, token);
        },
        token);
    if (add_special_tokens) out_.insert(out_.end(), impl_.spec.after.begin(), impl_.spec.after.end());
    if (each_ != nullptr && !out_.empty()) (*each_)(out_);
    return std::move(out_);
  }

 private:
  static constexpr std::size_t kWorthACache = 4096, kCacheLog2 = 14, kPiece = 1 << 16;

  [[noreturn]] void fail(const std::string& what, const char* at) const {
    throw Error("tokenizer: " + what + " at position " + std::to_string(at - text_.data()) +
                " of the text is not in the vocabulary");
  }

  void flush() {
    if (each_ == nullptr || out_.size() < kPiece) return;
    (*each_)(out_);
    out_.clear();
  }

  void encode_section(std::string_view section) {
    if (impl_.spec.characters) return encode_characters(section);
    if (impl_.bpe->lacks_any())
      for (const char& c : section)
        if (impl_.bpe->lacks(static_cast<unsigned char>(c))) fail("byte " + byte_text(static_cast<unsigned char>(c)), &c);
    std::string with_space;
    if (impl_.spec.prefix_space && section[0] != ' ') section = with_space = " " + std::string(section);
    words_.split(section, [&](std::string_view word) { encode_word(word); });
  }

  void encode_word(std::string_view word) {
    if (cache_)
      cache_->encode(*impl_.bpe, word, out_);
    else
      impl_.bpe->encode(word, out_);
    flush();
  }

  void encode_characters(std::string_view text) {
    while (!text.empty()) {
      const std::size_t length = sequence_length(text);
      const std::uint32_t character =
          length == 0 ? kFirstByte + static_cast<unsigned char>(text[0]) : code_point(text.substr(0, length));
      const auto found = impl_.characters.find(character);
      if (found == impl_.characters.end()) {
        char code[16];
        std::snprintf(code, sizeof code, "U+%04X", character);
        fail(length < 2 ? "byte " + byte_text(static_cast<unsigned char>(text[0]))
                        : std::string("character ") + code + " ('" + std::string(text.substr(0, length)) + "')",
             text.data());
      }
      out_.push_back(found->second);
      flush();
      text.remove_prefix(std::max<std::size_t>(1, length));
    }
  }

  const Impl& impl_;
  std::string_view text_;
  const Each* each_;
  WordSplitter words_;
  std::optional<WordCache> cache_;
  std::vector<std::uint32_t> out_;
};

}  // namespace

Tokenizer::Tokenizer(std::unique_ptr<const Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Tokenizer Tokenizer::from_json(std::string_view json, const std::string& name) {
  return Tokenizer(std::make_unique<const Impl>(std::string(json), name));
}

Tokenizer Tokenizer::load(const std::filesystem::path& file) { return from_json(MappedFile(file).text(), file.string()); }

Tokenizer Tokenizer::bytes() {
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all.push_back(static_cast<char>(byte));
  return bytes(ByteVocabulary(all));
}

Tokenizer Tokenizer::bytes(const ByteVocabulary& vocabulary) {
  std::vector<std::string> tokens;
  for (const char c : vocabulary.bytes()) tokens.emplace_back(1, c);
  return from_json(write_bpe(tokens, {}, "", {}), "bytes");
}

Tokenizer Tokenizer::characters_of(std::string_view text) {
  if (text.empty()) throw Error("tokenizer: there is no text, so there are no characters");
  std::vector<bool> occurs(kFirstByte + 256);
  while (!text.empty()) {
    const std::size_t length = sequence_length(text);
    occurs[length == 0 ? kFirstByte + static_cast<unsigned char>(text[0]) : code_point(text.substr(0, length))] = true;
    text.remove_prefix(std::max<std::size_t>(1, length));
  }
  std::vector<std::string> tokens;
  for (std::uint32_t c = 0; c < occurs.size(); ++c) {
    if (!occurs[c]) continue;
    tokens.emplace_back();
    if (c < kFirstByte)
      append_utf8(tokens.back(), c);
    else
      tokens.back() = byte_token(static_cast<unsigned char>(c - kFirstByte));
  }
  return from_json(write_characters(tokens), "characters");
}

std::int64_t Tokenizer::vocab_size() const { return static_cast<std::int64_t>(impl_->spec.tokens.size()); }

std::vector<std::uint32_t> Tokenizer::encode(std::string_view text, bool add_special_tokens) const {
  return Encoding<Impl>(*impl_, text, nullptr).run(add_special_tokens);
}

void Tokenizer::encode(std::string_view text, bool add_special_tokens,
                       const std::function<void(std::span<const std::uint32_t>)>& each) const {
  Encoding<Impl>(*impl_, text, &each).run(add_special_tokens);
}

std::string Tokenizer::decode(std::span<const std::uint32_t> ids, bool skip_special_tokens) const {
  std::string text;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= impl_->bytes.size()) {
      throw Error("tokenizer: id " + std::to_string(ids[i]) + " at position " + std::to_string(i) + " is not below " +
                  std::to_string(impl_->bytes.size()));
    }
    if (!skip_special_tokens || !impl_->special[ids[i]]) text += impl_->bytes[ids[i]];
  }
  return text;
}

const std::string& Tokenizer::token(std::uint32_t id) const {
  if (id >= impl_->spec.tokens.size())
    throw Error("tokenizer: id " + std::to_string(id) + " is not below " + std::to_string(impl_->spec.tokens.size()));
  return impl_->spec.tokens[id];
}

std::optional<std::uint32_t> Tokenizer::id_of(std::string_view token) const {
  const auto found = impl_->ids.find(token);
  return found == impl_->ids.end() ? std::nullopt : std::optional(found->second);
}

bool Tokenizer::is_special(std::uint32_t id) const { return id < impl_->special.size() && impl_->special[id]; }

std::string Tokenizer::description() const {
  const Spec& spec = impl_->spec;
  const auto special = std::count(impl_->special.begin(), impl_->special.end(), true);
  const std::string kind = spec.characters       ? "characters"
                           : spec.merges.empty() ? "bytes"
                                                 : "byte-level BPE of " + std::to_string(spec.merges.size()) + " merges";
  return kind + ", " + std::to_string(spec.tokens.size()) + " tokens" +
         (special > 0 ? ", " + std::to_string(special) + " of them special" : "");
}

const std::string& Tokenizer::json() const { return impl_->json; }
std::uint64_t Tokenizer::hash() const { return impl_->hash; }

void Tokenizer::save(const std::filesystem::path& file) const {
  detail::AtomicFile out(file, "tokenizer");
  out.write(std::as_bytes(std::span(impl_->json)));
  out.commit();
}

}  // namespace graft
