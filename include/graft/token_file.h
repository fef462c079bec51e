#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string_view>

#include "graft/data.h"

namespace graft {

/// A text as tokens, memory-mapped: 2 bytes a token where the vocabulary has at most 65,536, else 4, and the tokenizer.json that made them. The layout is in
/// docs/tokenizers.md.
class TokenFile {
 public:
  /// Reads the whole file once. Throws Error naming it when a size, a checksum or an id is wrong.
  explicit TokenFile(const std::filesystem::path& file);
  TokenView tokens() const { return tokens_; }
  std::int64_t vocab_size() const { return vocab_size_; }
  std::string_view tokenizer_json() const { return json_; }
  /// 64-bit checksum of the tokens.
  std::uint64_t hash() const { return hash_; }

 private:
  MappedFile file_;
  std::string_view json_;
  TokenView tokens_;
  std::int64_t vocab_size_ = 0;
  std::uint64_t hash_ = 0;
};

/// Writes a token file piece by piece, whole or not at all: without commit() nothing is there.
class TokenFileWriter {
 public:
  TokenFileWriter(const std::filesystem::path& file, std::int64_t vocab_size, std::string_view tokenizer_json);
  ~TokenFileWriter();
  TokenFileWriter(const TokenFileWriter&) = delete;
  TokenFileWriter& operator=(const TokenFileWriter&) = delete;
  /// Throws Error when an id is not below the vocabulary's size.
  void append(std::span<const std::uint32_t> tokens);
  /// The number of tokens.
  std::uint64_t commit();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace graft
