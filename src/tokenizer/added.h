#pragma once
#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "src/tokenizer/pattern.h"
#include "src/tokenizer/spec.h"

namespace graft::tokenizer {

/// Finds added tokens in a text: the leftmost, of those the longest, then goes on behind it.
class AddedTokens {
 public:
  explicit AddedTokens(std::vector<AddedToken> tokens);
  /// Calls on_text(section) and on_token(id) in the order of the text; sections are never empty.
  void split(std::string_view text, const std::function<void(std::string_view)>& on_text,
             const std::function<void(std::uint32_t)>& on_token) const;

 private:
  struct Node {
    std::vector<std::pair<char, std::uint32_t>> next;
    std::int32_t token = -1;  // the one that ends here
  };
  /// The longest token that starts at `at`.
  const AddedToken* longest(std::string_view text, std::size_t at) const;
  bool stands_alone(std::string_view text, std::size_t begin, std::size_t end) const;
  std::vector<AddedToken> tokens_;
  std::vector<Node> nodes_;
  std::array<bool, 256> starts_{};
  std::optional<Pattern> word_character_;
};

}  // namespace graft::tokenizer
