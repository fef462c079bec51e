#include <algorithm>
#include <string_view>

#include "graft/error.h"
#include "src/tokenizer/pattern.h"
#include "src/tokenizer/utf8.h"
#include "tests/fuzz/targets.h"

namespace graft::fuzz {

/// A pattern, and in the lines below it a text that it cuts into words.
void fuzz_pattern(std::span<const std::byte> input) {
  using namespace tokenizer;
  const std::string_view all(reinterpret_cast<const char*>(input.data()), input.size());
  const std::size_t end = std::min(all.find('\n'), all.size());
  std::string_view text = all.substr(std::min(end + 1, all.size()));
  text = text.substr(0, valid_prefix(text.substr(0, 40)));
  try {
    const Pattern pattern(all.substr(0, end));
    Pattern::Scan scan(pattern);
    for (std::size_t at = 0; at < text.size(); at += sequence_length(text.substr(at))) {
      const std::size_t to = scan.match(text, at);
      GRAFT_ASSERT(to >= at && to <= text.size());
      GRAFT_ASSERT(to == text.size() || sequence_length(text.substr(to)) > 0);
    }
  } catch (const Error&) {}
}

}  // namespace graft::fuzz
