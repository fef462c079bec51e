#include <algorithm>
#include <array>
#include <limits>
#include <queue>
#include <unordered_map>
#include <utility>

#include "graft/error.h"
#include "graft/tokenizer.h"
#include "src/tokenizer/added.h"
#include "src/tokenizer/byte_level.h"
#include "src/tokenizer/hash.h"
#include "src/tokenizer/pattern.h"
#include "src/tokenizer/spec.h"
#include "src/tokenizer/utf8.h"
#include "src/tokenizer/words.h"

namespace graft {
namespace {

using namespace tokenizer;  // NOLINT(google-build-using-namespace)

struct HashText {
  std::size_t operator()(std::string_view text) const { return hash_of(text); }
};
struct HashPair {
  std::size_t operator()(std::uint64_t pair) const { return mixed(pair); }
};

using WordCounts = std::unordered_map<std::string_view, std::int64_t, HashText>;

// How often each word occurs; the words lie in the text.
WordCounts count_words(std::string_view text, const BpeOptions& options) {
  std::vector<AddedToken> special;
  for (const std::string& content : options.special_tokens) special.push_back({.content = content});
  std::vector<Pattern> patterns;
  if (!options.pattern.empty()) patterns.emplace_back(options.pattern);
  WordSplitter splitter(patterns);
  WordCounts counts;
  const auto section = [&](std::string_view part) { splitter.split(part, [&](std::string_view word) { ++counts[word]; }); };
  AddedTokens(std::move(special)).split(text, section, [](std::uint32_t) {});
  return counts;
}

/// Counts of pairs are kept up to date as words change; the queue holds the count that a pair once had, and is put right when it comes to the top.
class Trainer {
 public:
  Trainer(const WordCounts& counts, std::vector<std::string>& tokens, std::uint32_t first_byte) : tokens_(tokens) {
    std::array<std::uint32_t, 256> id_of{};
    for (std::uint32_t i = 0; i < 256; ++i) id_of[bytes_by_character()[i]] = first_byte + i;
    for (std::uint32_t id = 0; id < tokens.size(); ++id) ids_.emplace(tokens[id], id);
    for (const auto& [text, count] : counts) {
      if (text.size() < 2) continue;
      const auto word = static_cast<std::uint32_t>(words_.size());
      words_.push_back({symbols_.size(), static_cast<std::uint32_t>(text.size()), count});
      for (const char c : text) symbols_.push_back(id_of[static_cast<unsigned char>(c)]);
      const std::uint32_t* symbol = symbols_.data() + words_.back().first;
      for (std::size_t i = 0; i + 1 < text.size(); ++i) change(symbol[i], symbol[i + 1], count, word);
    }
    if (words_.size() >= std::numeric_limits<std::uint32_t>::max()) throw Error("tokenizer: the text has too many different words");
    queue_changed();
  }

  std::vector<Merge> merge(std::size_t vocab_size, std::int64_t min_frequency) {
    std::vector<Merge> merges;
    while (tokens_.size() < vocab_size && !queue_.empty()) {
      const Candidate top = queue_.top();
      queue_.pop();
      const auto found = pairs_.find(top.pair);
      if (found == pairs_.end()) continue;  // merged since
      Pair& pair = found->second;
      if (pair.count != top.count) {
        if (pair.count > 0) queue_.push({pair.count, top.pair});
        continue;
      }
      if (pair.count < min_frequency) break;
      const auto left = static_cast<std::uint32_t>(top.pair >> 32), right = static_cast<std::uint32_t>(top.pair);
      const std::string text = tokens_[left] + tokens_[right];
      const auto [known, is_new] =
          ids_.emplace(text, static_cast<std::uint32_t>(tokens_.size()));  // another pair may have given it before
      const std::uint32_t merged = known->second;
      if (is_new) tokens_.push_back(text);
      merges.push_back({left, right, merged});
      const std::vector<std::uint32_t> where = std::exchange(pair.words, {});
      for (const std::uint32_t word : where) merge_in(word, left, right, merged);
      pairs_.erase(found);
      queue_changed();
    }
    return merges;
  }

 private:
  struct Word {
    std::size_t first;
    std::uint32_t length;
    std::int64_t count;
  };
  struct Pair {
    std::int64_t count = 0;
    bool changed = false;
    std::vector<std::uint32_t> words;  // some of them may hold it no more
  };
  struct Candidate {
    std::int64_t count;
    std::uint64_t pair;
    bool operator<(const Candidate& other) const { return count != other.count ? count < other.count : pair > other.pair; }
  };

  void change(std::uint32_t left, std::uint32_t right, std::int64_t by, std::uint32_t word) {
    const std::uint64_t key = std::uint64_t{left} << 32 | right;
    Pair& pair = pairs_[key];
    pair.count += by;
    if (by < 0) return;
    if (pair.words.empty() || pair.words.back() != word) pair.words.push_back(word);
    if (!std::exchange(pair.changed, true)) changed_.push_back(key);
  }

  void queue_changed() {
    for (const std::uint64_t key : changed_) {
      Pair& pair = pairs_.find(key)->second;
      pair.changed = false;
      queue_.push({pair.count, key});
    }
    changed_.clear();
  }

  void merge_in(std::uint32_t number, std::uint32_t left, std::uint32_t right, std::uint32_t merged) {
    Word& word = words_[number];
    std::uint32_t* symbols = symbols_.data() + word.first;
    std::uint32_t kept = 0;
    for (std::uint32_t i = 0; i < word.length; ++i) {
      if (i + 1 == word.length || symbols[i] != left || symbols[i + 1] != right) {
        symbols[kept++] = symbols[i];
        continue;
      }
      if (kept > 0) {
        change(symbols[kept - 1], left, -word.count, number);
        change(symbols[kept - 1], merged, word.count, number);
      }
      if (i + 2 < word.length) {
        change(right, symbols[i + 2], -word.count, number);
        change(merged, symbols[i + 2], word.count, number);
      }
      symbols[kept++] = merged;
      ++i;
    }
    word.length = kept;
  }

  std::vector<std::string>& tokens_;
  std::unordered_map<std::string, std::uint32_t> ids_;
  std::vector<std::uint32_t> symbols_;
  std::vector<Word> words_;
  std::unordered_map<std::uint64_t, Pair, HashPair> pairs_;
  std::vector<std::uint64_t> changed_;  // pairs that occur more often than the queue knows
  std::priority_queue<Candidate> queue_;
};

void check(const BpeOptions& options) {
  const auto special = static_cast<std::int64_t>(options.special_tokens.size());
  if (options.vocab_size < 256 + special || options.vocab_size > std::int64_t{1} << 30) {
    throw Error("tokenizer: vocab_size must be at least " + std::to_string(256 + special) + " (256 bytes and " +
                std::to_string(special) + " special tokens) and at most 2^30, got " + std::to_string(options.vocab_size));
  }
  if (options.min_frequency < 1)
    throw Error("tokenizer: min_frequency must be at least 1, got " + std::to_string(options.min_frequency));
  for (auto token = options.special_tokens.begin(); token != options.special_tokens.end(); ++token) {
    if (token->empty()) throw Error("tokenizer: a special token is empty");
    if (valid_prefix(*token) != token->size()) throw Error("tokenizer: special token \"" + *token + "\" is not valid UTF-8");
    if (std::find(options.special_tokens.begin(), token, *token) != token)
      throw Error("tokenizer: special token \"" + *token + "\" is given twice");
    if (const auto bytes = from_byte_characters(*token); bytes && bytes->size() == 1)
      throw Error("tokenizer: special token \"" + *token + "\" is how a byte is written");
  }
}

}  // namespace

Tokenizer Tokenizer::train_bpe(std::string_view text, const BpeOptions& options) {
  check(options);
  const WordCounts counts = count_words(text, options);
  std::vector<std::string> tokens;
  for (const std::string& special : options.special_tokens) tokens.push_back(from_byte_characters(special).value_or(""));
  const auto first_byte = static_cast<std::uint32_t>(tokens.size());
  for (const unsigned char byte : bytes_by_character()) tokens.emplace_back(1, static_cast<char>(byte));
  const std::vector<Merge> merges =
      Trainer(counts, tokens, first_byte).merge(static_cast<std::size_t>(options.vocab_size), options.min_frequency);
  return from_json(write_bpe(tokens, merges, options.pattern, options.special_tokens), "trained");
}

}  // namespace graft
