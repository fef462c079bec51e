#include "graft/token_file.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <utility>

#include "graft/error.h"
#include "src/io/atomic_file.h"
#include "src/io/content_hash.h"

namespace graft {
namespace {

constexpr std::string_view kMagic = "graftTOK";
constexpr std::uint32_t kVersion = 1;
constexpr std::size_t kBlock = 64;  // the tokens start at a multiple of it

struct Header {
  std::array<char, 8> magic{};
  std::uint32_t version = kVersion, bytes_per_token = 0;
  std::uint64_t vocab_size = 0, tokenizer_hash = 0, tokenizer_bytes = 0;
  std::array<std::uint64_t, 3> reserved{};
};
static_assert(sizeof(Header) == kBlock);

struct Trailer {
  std::uint64_t count = 0, hash = 0;
};

[[noreturn]] void refuse(const std::filesystem::path& file, const std::string& what) {
  throw Error("token file \"" + file.string() + "\": " + what);
}

std::uint64_t hash_of(std::span<const std::byte> bytes) {
  detail::ContentHash hash;
  hash.update(bytes);
  return hash.value();
}

std::uint64_t padded(std::uint64_t bytes) { return (bytes + kBlock - 1) / kBlock * kBlock; }

template <class Id>
std::uint32_t largest(std::span<const Id> ids) {
  return ids.empty() ? 0 : *std::max_element(ids.begin(), ids.end());
}

}  // namespace

TokenFile::TokenFile(const std::filesystem::path& file) : file_(file) {
  const std::string_view all = file_.text();
  Header header;
  if (all.size() < sizeof header || !all.starts_with(kMagic))
    refuse(file, "is no token file of graft; `tokenizer encode --out` writes one");
  std::memcpy(&header, all.data(), sizeof header);
  if (header.version != kVersion)
    refuse(file, "has version " + std::to_string(header.version) + ", this program reads version " + std::to_string(kVersion));
  if (header.bytes_per_token != 2 && header.bytes_per_token != 4)
    refuse(file, "has " + std::to_string(header.bytes_per_token) + " bytes a token, must be 2 or 4");
  if (header.vocab_size < 1 || header.vocab_size > std::uint64_t{1} << 31)
    refuse(file, "has a vocabulary of " + std::to_string(header.vocab_size) + " tokens, must be 1 to 2^31");
  if (header.reserved != std::array<std::uint64_t, 3>{}) refuse(file, "is damaged: there is something where nothing should be");
  const std::uint64_t rest = all.size() - sizeof header;
  if (header.tokenizer_bytes > rest || padded(header.tokenizer_bytes) + sizeof(Trailer) > rest)
    refuse(file, "is truncated: it has " + std::to_string(all.size()) + " bytes");
  json_ = all.substr(sizeof header, header.tokenizer_bytes);
  const std::string_view padding = all.substr(sizeof header + json_.size(), padded(json_.size()) - json_.size());
  if (padding.find_first_not_of('\0') != std::string_view::npos)
    refuse(file, "is damaged: there is something where nothing should be");
  const std::uint64_t first = sizeof header + padded(header.tokenizer_bytes), bytes = all.size() - first - sizeof(Trailer);
  Trailer trailer;
  std::memcpy(&trailer, all.data() + first + bytes, sizeof trailer);
  if (bytes % header.bytes_per_token != 0 || trailer.count != bytes / header.bytes_per_token) {
    refuse(file, "is truncated or damaged: it has " + std::to_string(bytes) + " bytes of tokens and says that they are " +
                     std::to_string(trailer.count) + " of " + std::to_string(header.bytes_per_token) + " bytes");
  }
  if (hash_of(std::as_bytes(std::span(json_))) != header.tokenizer_hash)
    refuse(file, "is damaged: the checksum of its tokenizer is wrong");
  const std::span tokens = std::as_bytes(std::span(all)).subspan(first, bytes);
  if (hash_of(tokens) != trailer.hash) refuse(file, "is damaged: the checksum of its tokens is wrong");
  std::uint32_t most = 0;
  if (header.bytes_per_token == 2) {
    const std::span ids(reinterpret_cast<const std::uint16_t*>(tokens.data()), trailer.count);
    most = largest(ids);
    tokens_ = ids;
  } else {
    const std::span ids(reinterpret_cast<const std::uint32_t*>(tokens.data()), trailer.count);
    most = largest(ids);
    tokens_ = ids;
  }
  if (most >= header.vocab_size)
    refuse(file, "holds the id " + std::to_string(most) + ", which is not below " + std::to_string(header.vocab_size));
  vocab_size_ = static_cast<std::int64_t>(header.vocab_size);
  hash_ = trailer.hash;
}

struct TokenFileWriter::Impl {
  std::filesystem::path file;
  detail::AtomicFile out;
  std::uint64_t vocab_size;
  std::uint32_t bytes_per_token;
  std::uint64_t count = 0;
  detail::ContentHash hash;
  std::vector<std::uint16_t> narrow;

  void write(std::span<const std::byte> bytes) {
    hash.update(bytes);
    out.write(bytes);
  }
};

TokenFileWriter::TokenFileWriter(const std::filesystem::path& file, std::int64_t vocab_size, std::string_view tokenizer_json) {
  if (vocab_size < 1 || vocab_size > std::int64_t{1} << 31)
    refuse(file, "a vocabulary of " + std::to_string(vocab_size) + " tokens; must be 1 to 2^31");
  Header header;
  std::copy(kMagic.begin(), kMagic.end(), header.magic.begin());
  header.bytes_per_token = vocab_size <= std::int64_t{1} << 16 ? 2 : 4;
  header.vocab_size = static_cast<std::uint64_t>(vocab_size);
  header.tokenizer_bytes = tokenizer_json.size();
  header.tokenizer_hash = hash_of(std::as_bytes(std::span(tokenizer_json)));
  impl_.reset(new Impl{file, detail::AtomicFile(file, "token file"), header.vocab_size, header.bytes_per_token, 0, {}, {}});
  impl_->out.write(std::as_bytes(std::span(&header, 1)));
  impl_->out.write(std::as_bytes(std::span(tokenizer_json)));
  const std::array<std::byte, kBlock> zeros{};
  impl_->out.write(std::span(zeros).first(padded(tokenizer_json.size()) - tokenizer_json.size()));
}

TokenFileWriter::~TokenFileWriter() = default;

void TokenFileWriter::append(std::span<const std::uint32_t> tokens) {
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < impl_->vocab_size) continue;
    refuse(impl_->file, "the id " + std::to_string(tokens[i]) + " is not below " + std::to_string(impl_->vocab_size));
  }
  impl_->count += tokens.size();
  if (impl_->bytes_per_token == 4) return impl_->write(std::as_bytes(tokens));
  impl_->narrow.assign(tokens.begin(), tokens.end());
  impl_->write(std::as_bytes(std::span(impl_->narrow)));
}

std::uint64_t TokenFileWriter::commit() {
  const Trailer trailer{impl_->count, impl_->hash.value()};
  impl_->out.write(std::as_bytes(std::span(&trailer, 1)));
  impl_->out.commit();
  return impl_->count;
}

}  // namespace graft
