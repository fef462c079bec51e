#include <string>
#include <string_view>

#include "graft/error.h"
#include "graft/tokenizer.h"
#include "tests/fuzz/targets.h"

namespace graft::fuzz {
namespace {

void use(const Tokenizer& tokenizer, std::string_view text, bool exact) {
  const std::vector<std::uint32_t> ids = tokenizer.encode(text, true);
  for (const std::uint32_t id : ids) GRAFT_ASSERT(id < static_cast<std::uint64_t>(tokenizer.vocab_size()));
  const std::string back = tokenizer.decode(ids);
  GRAFT_ASSERT(!exact || back == text);
}

}  // namespace

void fuzz_tokenizer(std::span<const std::byte> input) {
  const std::string_view text(reinterpret_cast<const char*>(input.data()), input.size());
  try {
    const Tokenizer tokenizer = Tokenizer::from_json(text);
    use(tokenizer, "", false);
    use(tokenizer, "The quick  fox's 12345 \xC3\xA9\xFF\n", false);
    use(tokenizer, text, false);
  } catch (const Error&) {}
  static const Tokenizer llama3 =
      Tokenizer::train_bpe("the cat sat on the mat; the cat's 100 mats, the 100 cats", {.vocab_size = 280});
  static const Tokenizer gpt2 =
      Tokenizer::train_bpe("aaaa bbbb aaaa bbbb", {.vocab_size = 270, .pattern = std::string(kGpt2Pattern)});
  use(llama3, text, true);
  use(gpt2, text, true);
  if (!input.empty()) use(Tokenizer::characters_of(text), text, true);
  use(Tokenizer::train_bpe(text, {.vocab_size = 300, .min_frequency = 1}), text, true);
}

}  // namespace graft::fuzz
