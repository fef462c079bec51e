#pragma once
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace graft::tokenizer {

/// A regular expression of Oniguruma's syntax as PCRE2 writes it: the part of the syntax that both give the same meaning, or that can be rewritten.
/// \s is Unicode's White_Space, \p{…} a general category of Unicode 16. Throws Error naming what is not understood.
std::string translate(std::string_view oniguruma);

/// A regular expression that cuts a text into words.
class Pattern {
 public:
  /// In Oniguruma's syntax. Throws Error when it is not understood or can match the empty text.
  explicit Pattern(std::string_view oniguruma);
  ~Pattern();
  Pattern(Pattern&&) noexcept;
  Pattern& operator=(Pattern&&) noexcept;

  /// What one thread needs to match.
  class Scan {
   public:
    explicit Scan(const Pattern& pattern);
    ~Scan();
    Scan(const Scan&) = delete;
    Scan& operator=(const Scan&) = delete;
    /// The end of the match that starts at `at`; `at` when none does. The text is valid UTF-8 and `at` the start of a character.
    std::size_t match(std::string_view text, std::size_t at);

   private:
    struct State;
    std::unique_ptr<State> state_;
  };

 private:
  struct Code;
  std::unique_ptr<Code> code_;
};

}  // namespace graft::tokenizer
