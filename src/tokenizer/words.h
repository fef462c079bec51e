#pragma once
#include <memory>
#include <string_view>
#include <vector>

#include "src/tokenizer/pattern.h"
#include "src/tokenizer/utf8.h"

namespace graft::tokenizer {

/// Cuts texts into words by patterns, one after the other; what lies between two matches is a word too. Each run of bytes that are no valid
/// UTF-8 is a word, and what lies between such runs is cut as a text of its own. Without patterns, a text is one word. For one thread.
class WordSplitter {
 public:
  explicit WordSplitter(const std::vector<Pattern>& patterns) {
    for (const Pattern& pattern : patterns) scans_.push_back(std::make_unique<Pattern::Scan>(pattern));
  }

  template <class OnWord>
  void split(std::string_view text, const OnWord& on_word) {
    if (scans_.empty()) return on_word(text);
    while (!text.empty()) {
      const std::size_t valid = valid_prefix(text);
      split_valid(text.substr(0, valid), 0, on_word);
      text.remove_prefix(valid);
      const std::size_t invalid = invalid_prefix(text);
      if (invalid > 0) on_word(text.substr(0, invalid));
      text.remove_prefix(invalid);
    }
  }

 private:
  template <class OnWord>
  void split_valid(std::string_view text, std::size_t level, const OnWord& on_word) {
    if (level == scans_.size()) return on_word(text);
    std::size_t done = 0;
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t end = scans_[level]->match(text, at);
      if (end == at) {
        at += sequence_length(text.substr(at));
        continue;
      }
      if (at > done) split_valid(text.substr(done, at - done), level + 1, on_word);
      split_valid(text.substr(at, end - at), level + 1, on_word);
      done = at = end;
    }
    if (done < text.size()) split_valid(text.substr(done), level + 1, on_word);
  }

  std::vector<std::unique_ptr<Pattern::Scan>> scans_;
};

}  // namespace graft::tokenizer
