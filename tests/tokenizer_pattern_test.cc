// Patterns that cut a text into words: what is understood, what is refused, and long words.
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <string>

#include "graft/tokenizer.h"
#include "src/tokenizer/pattern.h"
#include "tests/message.h"

namespace graft {
namespace {

using testing::message_of;

const std::filesystem::path kGolden = std::filesystem::path(GRAFT_SOURCE_DIR) / "tests/golden/tokenizer";

std::string translated(const std::string& pattern) { return tokenizer::translate(pattern); }

TEST(TokenizerPattern, KeepsWhatMeansTheSame) {
  for (const std::string same : {"a|bc", "(?:a|b)+?c", "x(?=y)z", "x(?!y)*+", "(?>ab)", "(?i:'d|ll)", "[^a-z\\-\\]]{2,3}",
                                 "a{3}b{1,}", "\\.\\*\\(", "[\\r\\n\\t]++", "\xC3\xA9?", "[a-]", "[-a]"})
    EXPECT_EQ(translated(same), same);
  EXPECT_EQ(translated("(a)"), "(?:a)");
  EXPECT_EQ(translated("a.b"), "a[^\\n]b");
  EXPECT_EQ(translated("a{,4}"), "a{0,4}");
  EXPECT_EQ(translated("\\v\\u00e9\\x{1F600}[\\x{41}-\\x{5A}]"), "\\x{b}\\x{00e9}\\x{1F600}[\\x{41}-\\x{5A}]");
  EXPECT_EQ(translated("\\p{Lt}[^\\p{Lt}]\\P{Lt}"), "[\\p{Lt}][^\\p{Lt}][^\\p{Lt}]");
  EXPECT_EQ(translated("[x\\p{Lu}]").find("[x\\p{Lu}\\x{1c89}"), 0u);
  EXPECT_EQ(translated("\\d"), "[\\p{Nd}" + translated("[\\p{Nd}]").substr(7));
}

TEST(TokenizerPattern, RefusesWhatDoesNot) {
  const std::map<std::string, std::string> cases = {
      {"a^b", R"("^" at byte 1 is not understood)"},
      {"a$", R"("$" at byte 1 is not understood)"},
      {"\\bx", R"("\b" at byte 0 is not understood)"},
      {"x\\w", R"("\w" at byte 1 is not understood)"},
      {"\\1", R"("\1" at byte 0 is not understood)"},
      {"\\D", R"("\D" at byte 0 is not understood)"},
      {"x\\", R"("\" at byte 1 ends the pattern)"},
      {"\\p{Han}", R"("\p{Han}" at byte 0 is not understood)"},
      {"\\pL", R"("\p" at byte 0 is not understood)"},
      {"\\p{L", R"("\p" at byte 0 is not understood)"},
      {"\\x41", R"("\x" at byte 0 is not understood)"},
      {"\\x{}", R"("\x" at byte 0 is not understood)"},
      {"\\x{zz}", R"("\x" at byte 0 is not understood)"},
      {"\\x{1234567}", R"("\x" at byte 0 is not understood)"},
      {"\\u12", R"("\u" at byte 0 is not understood)"},
      {"(?i)x", R"("(?i" at byte 0 is not understood)"},
      {"(?<=a)b", R"("(?<" at byte 0 is not understood)"},
      {"(*ACCEPT)", R"("(*A" at byte 0 is not understood)"},
      {"(a", R"("(" at byte 2 is not closed)"},
      {"a)", "\")\" at byte 1 closes nothing"},
      {"a]", R"("]" at byte 1 is not understood)"},
      {"a}", R"("}" at byte 1 is not understood)"},
      {"*a", R"("*" at byte 0 has nothing to repeat)"},
      {"a|+", R"("+" at byte 2 has nothing to repeat)"},
      {"(?:+)", R"("+" at byte 3 has nothing to repeat)"},
      {"(+)", R"("+" at byte 1 has nothing to repeat)"},
      {"a+?+", R"("+" at byte 3 has nothing to repeat)"},
      {"a{x}", R"("{" at byte 1 is no quantifier; write \{ for the character)"},
      {"a{,}", R"("{" at byte 1 is no quantifier; write \{ for the character)"},
      {"a{12345}", R"("{" at byte 1 is no quantifier; write \{ for the character)"},
      {"a{1", R"("{" at byte 1 is no quantifier; write \{ for the character)"},
      {"a{1}+", R"("+" at byte 4 after {} is not understood)"},
      {"a{1}?", R"("?" at byte 4 after {} is not understood)"},
      {"x[a", R"("[" at byte 1 is not closed)"},
      {"[]a]", R"("]" at byte 1 in an empty class)"},
      {"[[:alpha:]]", R"("[" at byte 1 inside a class is not understood)"},
      {"[a&&b]", R"("&&" at byte 2 is not understood)"},
      {"[a\\P{L}]", R"("\P{L}" at byte 2 inside a class is not understood)"},
      {"[a-\\s]", R"("\s" at byte 3 after - is not understood)"},
      {"[\\d-x]", R"("-" at byte 3 after a set is not understood)"},
      {"(?i:ss)", R"("ss" at byte 5 under (?i:) is not understood)"},
      {"(?i:aFi)", R"("fi" at byte 6 under (?i:) is not understood)"},
      {"(?i:\xC3\xA9)", "\"\xC3\" at byte 4 under (?i:) is not understood"},
      {"(?i:[\xC3\xA9])", "\"\xC3\" at byte 5 under (?i:) is not understood"},
      {"(?i:(?:\\p{Lu}))", R"("\p{Lu}" at byte 7 under (?i:) is not understood)"},
      {"(?i:\\x{e9})", R"("\x" at byte 4 under (?i:) is not understood)"},
  };
  for (const auto& [pattern, message] : cases)
    EXPECT_EQ(message_of([&] { translated(pattern); }), "pattern \"" + pattern + "\": " + message);
  EXPECT_EQ(translated("(?i:a)ss"), "(?i:a)ss") << "the group is closed";
  EXPECT_EQ(translated("(?i:s|s)"), "(?i:s|s)") << "not one after the other";
  EXPECT_EQ(translated("[\\d-]"), translated("[\\d\\-]").substr(0, translated("[\\d-]").size() - 2) + "-]");
  EXPECT_EQ(message_of([] { tokenizer::Pattern("[z-a]"); }).find("pattern \"[z-a]\": range out of order in character class"), 0u);
}

// Under a pattern that remembers where each character of a group ended, a long word needs more than the machine's stack that PCRE2 starts with.
TEST(TokenizerPattern, LongWordsNeedNoDeepStack) {
  const tokenizer::Pattern pattern("(?:a|bc?)+");
  tokenizer::Pattern::Scan scan(pattern);
  const std::string word(1'000'000, 'a');
  EXPECT_EQ(scan.match(word + "!", 0), word.size());
  EXPECT_EQ(scan.match("!" + word, 0), 0u);
  EXPECT_EQ(scan.match("!" + word, 1), word.size() + 1);
}

TEST(TokenizerPattern, LongWordsAreEncoded) {
  const Tokenizer tokenizer = Tokenizer::load(kGolden / "gpt2.json");
  const std::string word =
      std::string(300'000, 'a') + std::string(300'000, '!') + std::string(300'000, ' ') + std::string(100'000, '\n');
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(word)), word);
}

}  // namespace
}  // namespace graft
