// Training of tokenizers: against a plain trainer, special tokens, patterns, bad options, the tokenizers package.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "graft/tokenizer.h"
#include "src/tokenizer/byte_level.h"
#include "tests/checkpoint_files.h"
#include "tests/message.h"

namespace graft {
namespace {

using checkpoint_files::contents;
using checkpoint_files::TemporaryFolder;
using testing::message_of;
using Ids = std::vector<std::uint32_t>;

const std::filesystem::path kGolden = std::filesystem::path(GRAFT_SOURCE_DIR) / "tests/golden/tokenizer";

// Against counting everything again after each merge.
class PlainTrainer {
 public:
  explicit PlainTrainer(const std::vector<std::string>& words) {
    for (std::size_t i = 0; i < 256; ++i) tokens.emplace_back(1, static_cast<char>(tokenizer::bytes_by_character()[i]));
    for (const std::string& word : words) {
      texts_.emplace_back();
      for (const char c : word)
        texts_.back().push_back(
            static_cast<std::uint32_t>(std::find(tokens.begin(), tokens.end(), std::string(1, c)) - tokens.begin()));
    }
  }
  bool merge(std::int64_t min_frequency) {
    std::map<std::pair<std::uint32_t, std::uint32_t>, std::int64_t> counts;
    for (const Ids& text : texts_)
      for (std::size_t i = 0; i + 1 < text.size(); ++i) ++counts[{text[i], text[i + 1]}];
    const auto best =
        std::max_element(counts.begin(), counts.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
    if (best == counts.end() || best->second < min_frequency) return false;
    const auto [left, right] = best->first;
    const std::string text = tokens[left] + tokens[right];
    const auto known = std::find(tokens.begin(), tokens.end(), text);
    const auto id = static_cast<std::uint32_t>(known - tokens.begin());
    if (known == tokens.end()) tokens.push_back(text);
    for (Ids& ids : texts_) {
      Ids merged;
      for (std::size_t i = 0; i < ids.size(); ++i) {
        const bool both = i + 1 < ids.size() && ids[i] == left && ids[i + 1] == right;
        merged.push_back(both ? id : ids[i]);
        i += both ? 1 : 0;
      }
      ids = merged;
    }
    return true;
  }
  std::vector<std::string> tokens;

 private:
  std::vector<Ids> texts_;
};

TEST(TokenizerTraining, IsThatOfCountingAgainAfterEachMerge) {
  std::vector<std::string> words;
  std::string text;
  std::uint32_t state = 3;
  for (int i = 0; i < 400; ++i) {
    std::string word = i == 0 ? "" : " ";
    for (std::uint32_t n = 1 + (state >> 29); n > 0; --n)
      word += static_cast<char>('a' + ((state = state * 1664525 + 1013904223) >> 24) % 3);
    words.push_back(word);
    text += word;
  }
  words.emplace_back("\n\xFF\xFF\xFF");  // invalid UTF-8 is a word of its own
  words.back() = "\n";
  words.emplace_back("\xFF\xFF\xFF");
  text += "\n\xFF\xFF\xFF";
  for (const std::int64_t min_frequency : {1, 2, 5}) {
    const Tokenizer trained = Tokenizer::train_bpe(text, {.vocab_size = 420, .min_frequency = min_frequency});
    PlainTrainer plain(words);
    while (plain.tokens.size() < 420 && plain.merge(min_frequency)) {}
    ASSERT_EQ(trained.vocab_size(), static_cast<std::int64_t>(plain.tokens.size())) << min_frequency;
    for (std::uint32_t id = 0; id < plain.tokens.size(); ++id)
      ASSERT_EQ(trained.token(id), tokenizer::to_byte_characters(plain.tokens[id])) << id;
    EXPECT_EQ(trained.decode(trained.encode(text)), text);
  }
}

TEST(TokenizerTraining, SpecialTokensComeFirstAndTeachNothing) {
  std::string text;
  for (int i = 0; i < 50; ++i) text += "<|stop|>ab";
  const Tokenizer tokenizer = Tokenizer::train_bpe(text, {.vocab_size = 300, .special_tokens = {"<|stop|>", "ab"}});
  EXPECT_EQ(tokenizer.vocab_size(), 258) << "nothing is left to learn from";
  EXPECT_EQ(tokenizer.encode("ab<|stop|>"), (Ids{1, 0}));
  EXPECT_TRUE(tokenizer.is_special(1));
  EXPECT_EQ(tokenizer.token(2), "!");
  // A special token that a merge would give keeps its id.
  const Tokenizer merged = Tokenizer::train_bpe(
      "xyz xyz xyz", {.vocab_size = 300, .pattern = std::string(kGpt2Pattern), .special_tokens = {"xyz!", "xy"}});
  EXPECT_EQ(merged.id_of("xy"), 1u);
}

TEST(TokenizerTraining, PatternsBoundTheTokens) {
  std::string text;
  for (int i = 0; i < 20; ++i) text += "12345 it's ";
  const auto longest = [&](std::string_view pattern, std::string_view of) {
    const Tokenizer tokenizer = Tokenizer::train_bpe(text, {.vocab_size = 400, .pattern = std::string(pattern)});
    std::size_t most = 0;
    for (std::uint32_t id = 0; id < static_cast<std::uint32_t>(tokenizer.vocab_size()); ++id) {
      const std::string token = tokenizer.decode(Ids{id});
      if (token.find_first_not_of(of) == std::string::npos) most = std::max(most, token.size());
    }
    return most;
  };
  EXPECT_EQ(longest(kLlama3Pattern, "12345"), 3u);
  EXPECT_EQ(longest(kGpt2Pattern, "12345"), 5u);
  EXPECT_EQ(longest("", "12345 it's"), 88u) << "without a pattern, the text is one word";
}

TEST(TokenizerTraining, BadOptionsAreRefused) {
  const auto error = [](BpeOptions options) { return message_of([&] { Tokenizer::train_bpe("some text", options); }); };
  EXPECT_EQ(error({.vocab_size = 256, .special_tokens = {"x1"}}),
            "tokenizer: vocab_size must be at least 257 (256 bytes and 1 special tokens) and at most 2^30, got 256");
  EXPECT_EQ(error({.vocab_size = (1 << 30) + 1}),
            "tokenizer: vocab_size must be at least 256 (256 bytes and 0 special tokens) and at most 2^30, got 1073741825");
  EXPECT_EQ(error({.min_frequency = 0}), "tokenizer: min_frequency must be at least 1, got 0");
  EXPECT_EQ(error({.special_tokens = {"a", ""}}), "tokenizer: special token \"a\" is how a byte is written");
  EXPECT_EQ(error({.special_tokens = {""}}), "tokenizer: a special token is empty");
  EXPECT_EQ(error({.special_tokens = {"<x>", "<x>"}}), "tokenizer: special token \"<x>\" is given twice");
  EXPECT_EQ(error({.special_tokens = {"<\xFF>"}}), "tokenizer: special token \"<\xFF>\" is not valid UTF-8");
  EXPECT_EQ(error({.pattern = "a^"}), "pattern \"a^\": \"^\" at byte 1 is not understood");
  EXPECT_EQ(Tokenizer::train_bpe("", {}).vocab_size(), 256);
}

// What is written here, the package reads, and gives the same ids and the same tokens for the same text.
TEST(TokenizerTraining, TheTokenizersPackageReadsWhatIsWritten) {
  const std::string find = "python3 -c 'import tokenizers' > /dev/null 2>&1";
  if (std::system(find.c_str()) != 0) GTEST_SKIP() << "python3 with tokenizers is not installed";
  const TemporaryFolder folder;
  const std::string text = contents(kGolden / "make_golden.py");
  const BpeOptions options{.vocab_size = 600, .special_tokens = {"<|endoftext|>"}};
  Tokenizer::train_bpe(text, options).save(folder / "llama.json");
  Tokenizer::train_bpe(text, {.vocab_size = 600, .pattern = std::string(kGpt2Pattern)}).save(folder / "gpt2.json");
  Tokenizer::bytes().save(folder / "bytes.json");
  Tokenizer::characters_of(text + "\xFF").save(folder / "characters.json");
  checkpoint_files::put(folder / "text", text);
  for (const char* name : {"llama.json", "gpt2.json", "bytes.json", "characters.json"}) {
    std::string ids;
    for (const std::uint32_t id : Tokenizer::load(folder / name).encode(text)) ids += std::to_string(id) + " ";
    checkpoint_files::put(folder / (std::string(name) + ".ids"), ids);
  }
  checkpoint_files::put(folder / "check.py", R"python(
import sys, tokenizers
from tokenizers import pre_tokenizers, trainers
folder = sys.argv[1]
text = open(folder + "/text", encoding="utf-8", newline="").read()
for name in ["llama", "gpt2", "bytes", "characters"]:
    tokenizer = tokenizers.Tokenizer.from_file(f"{folder}/{name}.json")
    ids = tokenizer.encode(text).ids
    assert ids == list(map(int, open(f"{folder}/{name}.json.ids").read().split())), name
    assert tokenizer.decode(ids, skip_special_tokens=False) == text, name
    if name in ["llama", "gpt2"]:
        again = tokenizers.Tokenizer(tokenizers.models.BPE())
        again.pre_tokenizer = tokenizer.pre_tokenizer
        special = ["<|endoftext|>"] if name == "llama" else []
        again.train_from_iterator([part for part in text.split("<|endoftext|>")] if special else [text], trainers.BpeTrainer(vocab_size=600, min_frequency=2,
            special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
        assert again.get_vocab() == tokenizer.get_vocab(), name
)python");
  EXPECT_EQ(std::system(("python3 '" + (folder / "check.py").string() + "' '" + folder.path().string() + "'").c_str()), 0);
}

}  // namespace
}  // namespace graft
