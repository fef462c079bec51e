#include "src/tokenizer/pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <array>

#include "graft/error.h"

namespace graft::tokenizer {
namespace {

std::string message_of(int code) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

struct FreeCode {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
};
struct FreeMatch {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};
struct FreeContext {
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};
struct FreeStack {
  void operator()(pcre2_jit_stack* stack) const { pcre2_jit_stack_free(stack); }
};

PCRE2_SPTR units(std::string_view text) { return reinterpret_cast<PCRE2_SPTR>(text.data()); }

}  // namespace

struct Pattern::Code {
  std::unique_ptr<pcre2_code, FreeCode> code;
  bool jit = false;
};

Pattern::Pattern(std::string_view oniguruma) : code_(std::make_unique<Code>()) {
  const std::string regex = translate(oniguruma);
  int error = 0;
  PCRE2_SIZE offset = 0;
  // Anchored: a word starts where the last one ended. Never UTF checks: Scan::match gets valid text only.
  code_->code.reset(pcre2_compile(units(regex), regex.size(), PCRE2_UTF | PCRE2_UCP | PCRE2_ANCHORED | PCRE2_NEVER_BACKSLASH_C,
                                  &error, &offset, nullptr));
  if (!code_->code) throw Error("pattern \"" + std::string(oniguruma) + "\": " + message_of(error));
  std::uint32_t empty = 0;
  pcre2_pattern_info(code_->code.get(), PCRE2_INFO_MATCHEMPTY, &empty);
  if (empty != 0) throw Error("pattern \"" + std::string(oniguruma) + "\": can match the empty text, which is no word");
  code_->jit = pcre2_jit_compile(code_->code.get(), PCRE2_JIT_COMPLETE) == 0;
}

Pattern::~Pattern() = default;
Pattern::Pattern(Pattern&&) noexcept = default;
Pattern& Pattern::operator=(Pattern&&) noexcept = default;

struct Pattern::Scan::State {
  const Code* code;
  std::unique_ptr<pcre2_match_data, FreeMatch> data;
  std::unique_ptr<pcre2_match_context, FreeContext> context;
  std::unique_ptr<pcre2_jit_stack, FreeStack> stack;

  int match(std::string_view text, std::size_t at) const {
    if (code->jit) return pcre2_jit_match(code->code.get(), units(text), text.size(), at, 0, data.get(), context.get());
    return pcre2_match(code->code.get(), units(text), text.size(), at, PCRE2_NO_UTF_CHECK, data.get(), context.get());
  }
};

Pattern::Scan::Scan(const Pattern& pattern) : state_(std::make_unique<State>()) {
  state_->code = pattern.code_.get();
  state_->data.reset(pcre2_match_data_create(1, nullptr));
  state_->context.reset(pcre2_match_context_create(nullptr));
  if (!state_->data || !state_->context) throw std::bad_alloc();
}

Pattern::Scan::~Scan() = default;

std::size_t Pattern::Scan::match(std::string_view text, std::size_t at) {
  int code = state_->match(text, at);
  if (code == PCRE2_ERROR_JIT_STACKLIMIT && !state_->stack) {  // a long word under a pattern that remembers every character of it
    state_->stack.reset(pcre2_jit_stack_create(std::size_t{1} << 16, std::size_t{1} << 28, nullptr));
    pcre2_jit_stack_assign(state_->context.get(), nullptr, state_->stack.get());
    code = state_->match(text, at);
  }
  if (code == PCRE2_ERROR_NOMATCH) return at;
  if (code < 0) throw Error("pattern: the word at byte " + std::to_string(at) + " cannot be matched: " + message_of(code));
  return pcre2_get_ovector_pointer(state_->data.get())[1];
}

}  // namespace graft::tokenizer
