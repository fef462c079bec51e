#include "src/tokenizer/bpe.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <limits>
#include <queue>
#include <utility>

#include "graft/error.h"
#include "src/tokenizer/byte_level.h"
#include "src/tokenizer/hash.h"

namespace graft::tokenizer {
namespace {

constexpr std::size_t kShort = 48;  // bytes of a word that is merged by looking at all its pairs again and again

std::uint64_t pair_key(std::uint32_t left, std::uint32_t right) { return std::uint64_t{left} << 32 | right; }

std::size_t table_size(std::size_t entries) { return std::bit_ceil(2 * entries + 2); }

std::vector<std::optional<std::string>> bytes_of_tokens(const Spec& spec) {
  std::vector<std::optional<std::string>> bytes;
  for (std::size_t id = 0; id < spec.model_size; ++id) bytes.push_back(from_byte_characters(spec.tokens[id]));
  return bytes;
}

}  // namespace

MergeTable::MergeTable(const std::vector<Merge>& merges)
    : slots_(table_size(merges.size())), shift_(64 - static_cast<unsigned>(std::countr_zero(slots_.size()))) {
  for (std::size_t rank = 0; rank < merges.size(); ++rank) {
    const std::uint64_t key = pair_key(merges[rank].left, merges[rank].right);
    std::size_t at = mixed(key) >> shift_;
    while (slots_[at].found.rank != kNone) at = (at + 1) & (slots_.size() - 1);
    slots_[at] = {key, {static_cast<std::uint32_t>(rank), merges[rank].merged}};
  }
}

MergeTable::Found MergeTable::find(std::uint32_t left, std::uint32_t right) const {
  const std::uint64_t key = pair_key(left, right);
  std::size_t at = mixed(key) >> shift_;
  while (slots_[at].key != key && slots_[at].found.rank != kNone) at = (at + 1) & (slots_.size() - 1);
  return slots_[at].found;
}

WordTable::WordTable(const std::vector<std::optional<std::string>>& words)
    : words_(&words), slots_(table_size(words.size()), MergeTable::kNone) {
  for (std::size_t id = 0; id < words.size(); ++id) {
    if (!words[id]) continue;
    std::size_t at = hash_of(*words[id]) & (slots_.size() - 1);
    while (slots_[at] != MergeTable::kNone) at = (at + 1) & (slots_.size() - 1);
    slots_[at] = static_cast<std::uint32_t>(id);
  }
}

std::optional<std::uint32_t> WordTable::find(std::string_view word) const {
  for (std::size_t at = hash_of(word) & (slots_.size() - 1); slots_[at] != MergeTable::kNone; at = (at + 1) & (slots_.size() - 1))
    if (*(*words_)[slots_[at]] == word) return slots_[at];
  return std::nullopt;
}

Bpe::Bpe(const Spec& spec)
    : ignore_merges_(spec.ignore_merges),
      merges_any_(!spec.merges.empty()),
      merges_(spec.merges),
      bytes_(bytes_of_tokens(spec)),
      words_(bytes_) {
  for (std::size_t byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    const std::optional<std::uint32_t> id = words_.find({&c, 1});
    byte_ids_[byte] = id ? static_cast<std::int32_t>(*id) : -1;
    lacks_any_ = lacks_any_ || !id;
  }
}

void Bpe::encode(std::string_view word, std::vector<std::uint32_t>& out) const {
  if (ignore_merges_) {
    if (const std::optional<std::uint32_t> id = words_.find(word)) return out.push_back(*id);
  }
  if (!merges_any_) {
    for (const char c : word) out.push_back(byte_id(c));
  } else if (word.size() <= kShort) {
    merge_short(word, out);
  } else {
    merge_long(word, out);
  }
}

// Merges the pair of the lowest rank, the leftmost of its kind, until no pair has a rank.
void Bpe::merge_short(std::string_view word, std::vector<std::uint32_t>& out) const {
  std::array<std::uint32_t, kShort> ids;
  std::array<MergeTable::Found, kShort> pairs;  // pairs[i]: of ids[i] and ids[i + 1]
  std::size_t n = word.size();
  for (std::size_t i = 0; i < n; ++i) ids[i] = byte_id(word[i]);
  for (std::size_t i = 0; i + 1 < n; ++i) pairs[i] = merges_.find(ids[i], ids[i + 1]);
  while (n > 1) {
    std::size_t best = 0;
    for (std::size_t i = 1; i + 1 < n; ++i)
      if (pairs[i].rank < pairs[best].rank) best = i;
    if (pairs[best].rank == MergeTable::kNone) break;
    ids[best] = pairs[best].merged;
    --n;
    for (std::size_t i = best + 1; i < n; ++i) ids[i] = ids[i + 1];
    for (std::size_t i = best + 1; i + 1 < n; ++i) pairs[i] = pairs[i + 1];
    if (best + 1 < n) pairs[best] = merges_.find(ids[best], ids[best + 1]);
    if (best > 0) pairs[best - 1] = merges_.find(ids[best - 1], ids[best]);
  }
  out.insert(out.end(), ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(n));
}

// The same with a queue of pairs by (rank, position): n log n.
void Bpe::merge_long(std::string_view word, std::vector<std::uint32_t>& out) const {
  if (word.size() >= std::numeric_limits<std::uint32_t>::max())
    throw Error("tokenizer: a word of " + std::to_string(word.size()) + " bytes is too long");
  const auto n = static_cast<std::uint32_t>(word.size());
  struct Symbol {
    std::uint32_t id, previous, next;
  };
  constexpr std::uint32_t kGone = MergeTable::kNone;
  std::vector<Symbol> symbols(n);
  std::priority_queue<std::uint64_t, std::vector<std::uint64_t>, std::greater<>> queue;
  const auto push = [&](std::uint32_t left) {
    const std::uint32_t rank = merges_.find(symbols[left].id, symbols[symbols[left].next].id).rank;
    if (rank != MergeTable::kNone) queue.push(std::uint64_t{rank} << 32 | left);
  };
  for (std::uint32_t i = 0; i < n; ++i) symbols[i] = {byte_id(word[i]), i - 1, i + 1};
  for (std::uint32_t i = 0; i + 1 < n; ++i) push(i);
  while (!queue.empty()) {
    const auto rank = static_cast<std::uint32_t>(queue.top() >> 32), left = static_cast<std::uint32_t>(queue.top());
    queue.pop();
    Symbol& symbol = symbols[left];
    const std::uint32_t right = symbol.next;
    if (symbol.id == kGone || right == n) continue;
    const MergeTable::Found found = merges_.find(symbol.id, symbols[right].id);
    if (found.rank != rank) continue;  // one of the two has been merged since
    symbol.id = found.merged;
    symbol.next = symbols[right].next;
    symbols[right].id = kGone;
    if (symbol.next != n) {
      symbols[symbol.next].previous = left;
      push(left);
    }
    if (left != 0) push(symbol.previous);
  }
  for (std::uint32_t i = 0; i != n; i = symbols[i].next) out.push_back(symbols[i].id);
}

WordCache::WordCache(std::size_t entries_log2) : entries_(std::size_t{1} << entries_log2) {}

void WordCache::encode(const Bpe& bpe, std::string_view word, std::vector<std::uint32_t>& out) {
  if (word.size() > kBytes) return bpe.encode(word, out);
  Entry& entry = entries_[hash_of(word) & (entries_.size() - 1)];
  if (std::string_view(entry.word.data(), entry.length) != word) {
    const std::size_t before = out.size();
    bpe.encode(word, out);
    const std::size_t count = out.size() - before;
    if (count > kIds) return;
    entry.length = static_cast<unsigned char>(word.size());
    entry.count = static_cast<unsigned char>(count);
    std::copy(word.begin(), word.end(), entry.word.begin());
    std::copy_n(out.end() - static_cast<std::ptrdiff_t>(count), count, entry.ids.begin());
    return;
  }
  out.insert(out.end(), entry.ids.begin(), entry.ids.begin() + entry.count);
}

}  // namespace graft::tokenizer
