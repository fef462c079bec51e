#include "src/tokenizer/added.h"

#include <algorithm>

#include "src/tokenizer/utf8.h"

namespace graft::tokenizer {
namespace {

// What the Rust crate regex, which tokenizers asks here, means by \w: Alphabetic, marks, decimal numbers, connectors and joiners.
constexpr std::string_view kWordCharacter =
    R"([\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{200C}\x{200D}\x{24B6}-\x{24E9}\x{1F130}-\x{1F149}\x{1F150}-\x{1F169}\x{1F170}-\x{1F189}])";

bool is_white_space(std::uint32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) ||
         c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

// The valid sequence at the end of a text; empty when there is none.
std::string_view last_sequence(std::string_view text) {
  for (std::size_t length = 1; length <= std::min<std::size_t>(4, text.size()); ++length) {
    const std::string_view tail = text.substr(text.size() - length);
    if (sequence_length(tail) == length) return tail;
  }
  return {};
}

std::size_t space_before(std::string_view text) {
  std::size_t begin = text.size();
  for (std::string_view c = last_sequence(text); !c.empty() && is_white_space(code_point(c));
       c = last_sequence(text.substr(0, begin)))
    begin -= c.size();
  return text.size() - begin;
}

std::size_t space_after(std::string_view text) {
  std::size_t end = 0;
  for (std::size_t length = sequence_length(text); length != 0 && is_white_space(code_point(text.substr(end, length)));
       length = sequence_length(text.substr(end)))
    end += length;
  return end;
}

}  // namespace

AddedTokens::AddedTokens(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)), nodes_(1) {
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    std::size_t node = 0;
    for (const char c : tokens_[i].content) {
      const auto& next = nodes_[node].next;
      const auto found = std::find_if(next.begin(), next.end(), [&](const auto& edge) { return edge.first == c; });
      if (found != next.end()) {
        node = found->second;
        continue;
      }
      nodes_[node].next.emplace_back(c, static_cast<std::uint32_t>(nodes_.size()));
      node = nodes_.size();
      nodes_.emplace_back();
    }
    nodes_[node].token = static_cast<std::int32_t>(i);
    starts_[static_cast<unsigned char>(tokens_[i].content[0])] = true;
    if (tokens_[i].single_word && !word_character_) word_character_.emplace(kWordCharacter);
  }
}

const AddedToken* AddedTokens::longest(std::string_view text, std::size_t at) const {
  const AddedToken* found = nullptr;
  std::size_t node = 0;
  for (; at < text.size(); ++at) {
    const auto& next = nodes_[node].next;
    const auto edge = std::find_if(next.begin(), next.end(), [&](const auto& candidate) { return candidate.first == text[at]; });
    if (edge == next.end()) break;
    node = edge->second;
    if (nodes_[node].token >= 0) found = &tokens_[static_cast<std::size_t>(nodes_[node].token)];
  }
  return found;
}

bool AddedTokens::stands_alone(std::string_view text, std::size_t begin, std::size_t end) const {
  Pattern::Scan word(*word_character_);
  const auto is_word = [&](std::string_view c) { return !c.empty() && word.match(c, 0) != 0; };
  const std::string_view after = text.substr(end);
  return !is_word(last_sequence(text.substr(0, begin))) && !is_word(after.substr(0, sequence_length(after)));
}

void AddedTokens::split(std::string_view text, const std::function<void(std::string_view)>& on_text,
                        const std::function<void(std::uint32_t)>& on_token) const {
  std::size_t done = 0;
  for (std::size_t at = 0; at < text.size();) {
    const AddedToken* token = starts_[static_cast<unsigned char>(text[at])] ? longest(text, at) : nullptr;
    if (token == nullptr) {
      ++at;
      continue;
    }
    std::size_t begin = at, end = at + token->content.size();
    at = end;
    if (token->single_word && !stands_alone(text, begin, end)) continue;
    if (token->lstrip) begin = std::max(done, begin - space_before(text.substr(0, begin)));
    if (token->rstrip) end += space_after(text.substr(end));
    if (begin > done) on_text(text.substr(done, begin - done));
    on_token(token->id);
    done = end;
  }
  if (done < text.size()) on_text(text.substr(done));
}

}  // namespace graft::tokenizer
