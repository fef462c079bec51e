#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "src/tokenizer/spec.h"

namespace graft::tokenizer {

/// (left, right) → (rank, merged): a flat table, a power of two in size, searched from the hash on.
class MergeTable {
 public:
  static constexpr std::uint32_t kNone = 0xFFFFFFFF;
  struct Found {
    std::uint32_t rank = kNone, merged = 0;
  };
  explicit MergeTable(const std::vector<Merge>& merges);
  Found find(std::uint32_t left, std::uint32_t right) const;

 private:
  struct Slot {
    std::uint64_t key = ~std::uint64_t{0};
    Found found;
  };
  std::vector<Slot> slots_;
  unsigned shift_ = 0;
};

/// Strings → ids: the same kind of table; the strings stay with their owner.
class WordTable {
 public:
  explicit WordTable(const std::vector<std::optional<std::string>>& words);
  std::optional<std::uint32_t> find(std::string_view word) const;

 private:
  const std::vector<std::optional<std::string>>* words_;
  std::vector<std::uint32_t> slots_;
};

/// Words of bytes to ids.
class Bpe {
 public:
  explicit Bpe(const Spec& spec);
  Bpe(const Bpe&) = delete;
  Bpe& operator=(const Bpe&) = delete;
  /// The bytes for which there is no token: encode must not meet them.
  bool lacks(unsigned char byte) const { return byte_ids_[byte] < 0; }
  bool lacks_any() const { return lacks_any_; }
  void encode(std::string_view word, std::vector<std::uint32_t>& out) const;

 private:
  void merge_short(std::string_view word, std::vector<std::uint32_t>& out) const;
  void merge_long(std::string_view word, std::vector<std::uint32_t>& out) const;
  std::uint32_t byte_id(char c) const { return static_cast<std::uint32_t>(byte_ids_[static_cast<unsigned char>(c)]); }
  std::array<std::int32_t, 256> byte_ids_{};
  bool lacks_any_ = false, ignore_merges_, merges_any_;
  MergeTable merges_;
  std::vector<std::optional<std::string>> bytes_;  // of the model's tokens by id; a token that no bytes give has none
  WordTable words_;
};

/// What the last words became: most words of a text are in it. Direct mapped, so that it never grows.
class WordCache {
 public:
  explicit WordCache(std::size_t entries_log2);
  void encode(const Bpe& bpe, std::string_view word, std::vector<std::uint32_t>& out);

 private:
  static constexpr std::size_t kBytes = 22, kIds = 6;
  struct Entry {
    unsigned char length = 0, count = 0;  // length 0: empty
    std::array<char, kBytes> word;
    std::array<std::uint32_t, kIds> ids;
  };
  std::vector<Entry> entries_;
};

}  // namespace graft::tokenizer
