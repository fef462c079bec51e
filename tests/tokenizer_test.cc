// Tokenizers: ids and texts as the tokenizers package gives them, files that are refused.
#include "graft/tokenizer.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <iterator>
#include <numeric>
#include <sstream>

#include "src/tokenizer/utf8.h"
#include "tests/checkpoint_files.h"
#include "tests/message.h"

namespace graft {
namespace {

using checkpoint_files::contents;
using checkpoint_files::TemporaryFolder;
using testing::message_of;
using Ids = std::vector<std::uint32_t>;

std::filesystem::path golden(const std::string& name) {
  return std::filesystem::path(GRAFT_SOURCE_DIR) / "tests/golden/tokenizer" / name;
}

std::string all_bytes() {
  std::string bytes(256, '\0');
  std::iota(bytes.begin(), bytes.end(), '\0');
  return bytes;
}

// "\xNN" back to bytes.
std::string unescaped(const std::string& text) {
  std::string bytes;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\') {
      bytes += text[i];
      continue;
    }
    bytes += static_cast<char>(std::stoi(text.substr(i + 2, 2), nullptr, 16));
    i += 3;
  }
  return bytes;
}

Ids ids_of(const std::string& text) {
  std::istringstream in(text);
  return {std::istream_iterator<std::uint32_t>(in), {}};
}

std::vector<std::string> fields(const std::string& line) {
  std::vector<std::string> all{""};
  for (const char c : line) {
    if (c == '\t')
      all.emplace_back();
    else
      all.back() += c;
  }
  return all;
}

class GoldenTokenizer : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenTokenizer, EncodesAndDecodesAsTheTokenizersPackage) {
  const Tokenizer tokenizer = Tokenizer::load(golden(std::string(GetParam()) + ".json"));
  std::istringstream lines(contents(golden(std::string(GetParam()) + ".txt")));
  int encoded = 0, decoded = 0;
  std::string everything;
  for (std::string line; std::getline(lines, line);) {
    const std::vector<std::string> field = fields(line);
    if (field[0] == "E") {
      const std::string text = unescaped(field[1]);
      const Ids ids = tokenizer.encode(text), with_special = tokenizer.encode(text, true);
      EXPECT_EQ(ids, ids_of(field[2])) << field[1];
      EXPECT_EQ(with_special, ids_of(field[3])) << field[1];
      if (field[4] != "?") {
        EXPECT_EQ(tokenizer.decode(with_special, true), unescaped(field[4])) << field[1];
      }
      ++encoded;
    } else {
      EXPECT_EQ(tokenizer.decode(ids_of(field[1])), unescaped(field[2])) << field[1];
      ++decoded;
    }
  }
  EXPECT_GT(encoded, 250);
  EXPECT_EQ(decoded, 60);
}

INSTANTIATE_TEST_SUITE_P(All, GoldenTokenizer, ::testing::Values("gpt2", "prefix", "llama3", "gpt4o"),
                         [](const auto& info) { return std::string(info.param); });

TEST(Tokenizer, SaysWhatItsTokensAre) {
  const Tokenizer tokenizer = Tokenizer::load(golden("llama3.json"));
  EXPECT_EQ(tokenizer.vocab_size(), 1214);
  EXPECT_EQ(tokenizer.id_of("<|begin_of_text|>"), 1200u);
  EXPECT_EQ(tokenizer.token(1200), "<|begin_of_text|>");
  EXPECT_TRUE(tokenizer.is_special(1203));
  EXPECT_FALSE(tokenizer.is_special(1204));
  EXPECT_FALSE(tokenizer.is_special(0));
  EXPECT_FALSE(tokenizer.is_special(1214));
  EXPECT_EQ(tokenizer.id_of("Ġ"), tokenizer.encode(" ").at(0));
  EXPECT_EQ(tokenizer.id_of("no such token"), std::nullopt);
  EXPECT_EQ(message_of([&] { tokenizer.token(1214); }), "tokenizer: id 1214 is not below 1214");
  EXPECT_EQ(message_of([&] { tokenizer.decode(Ids{5, 1214}); }), "tokenizer: id 1214 at position 1 is not below 1214");
  EXPECT_EQ(tokenizer.decode(Ids{1200, 1204}, true), "<left>");
  EXPECT_EQ(tokenizer.decode(Ids{1200, 1204}), "<|begin_of_text|><left>");
}

// Where tokenizers takes the "ß" for the byte 0xDF, which GPT-2's alphabet writes so.
TEST(Tokenizer, AddedTokensDecodeToTheirText) {
  const Tokenizer tokenizer = Tokenizer::load(golden("llama3.json"));
  const std::string text = "die stra\u00dfe!<left>";
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
  EXPECT_EQ(tokenizer.decode(Ids{*tokenizer.id_of("stra\u00dfe")}), "stra\u00dfe");
}

TEST(Tokenizer, AnyBytesMakeTheRoundTrip) {
  std::string noise;
  std::uint32_t state = 1;
  for (int i = 0; i < 20'000; ++i) noise += static_cast<char>((state = state * 1664525 + 1013904223) >> 24);
  for (const char* name : {"gpt2.json", "gpt4o.json"}) {
    const Tokenizer tokenizer = Tokenizer::load(golden(name));
    for (const std::string& bytes :
         {all_bytes(), noise, std::string("\xC3"), std::string("a\xFFz"), std::string("\xED\xA0\x80 \xF5")})
      EXPECT_EQ(tokenizer.decode(tokenizer.encode(bytes)), bytes);
  }
}

// What is written in the docs: invalid bytes are words, and separate the texts before and after them.
TEST(Tokenizer, InvalidUtf8SeparatesTexts) {
  const Tokenizer tokenizer = Tokenizer::load(golden("gpt2.json"));
  for (const std::string invalid : {"\x80", "\xFF\xFE", "\xC3", "\xE2\x82", "\xF0\x9F\x98", "\xC0\xAF", "\xED\xA0\x80",
                                    "\xF4\x90\x80\x80", "\xE0\x80\xAF", "\xF0\x80\x80\xAF", "\xF5\x80\x80\x80"}) {
    Ids expected;
    const auto add = [&](const std::string& text) {
      const Ids ids = tokenizer.encode(text);
      expected.insert(expected.end(), ids.begin(), ids.end());
    };
    add("the  ");  // not "the", " ", " fox"
    add(invalid);
    add(" fox");
    EXPECT_EQ(tokenizer.encode("the  " + invalid + " fox"), expected);
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(invalid)), invalid);
  }
}

TEST(Tokenizer, ValidUtf8IsAllOfUnicodeAndNothingElse) {
  using namespace tokenizer;
  for (const std::uint32_t c : {0u, 0x7Fu, 0x80u, 0x7FFu, 0x800u, 0xFFFu, 0x1000u, 0xD7FFu, 0xE000u, 0xFFFFu, 0x10000u, 0x3FFFFu,
                                0x40000u, 0xFFFFFu, 0x100000u, 0x10FFFFu}) {
    std::string text;
    append_utf8(text, c);
    EXPECT_EQ(sequence_length(text), text.size()) << c;
    EXPECT_EQ(text.size(), c < 0x80 ? 1u : c < 0x800 ? 2u : c < 0x10000 ? 3u : 4u) << c;
    EXPECT_EQ(code_point(text), c);
    EXPECT_EQ(valid_prefix("12345678" + text), 8 + text.size());
    EXPECT_EQ(valid_prefix("1234567" + text.substr(0, text.size() - 1)), 7u);
  }
  EXPECT_EQ(invalid_prefix("\x80\x80z"), 2u);
  EXPECT_EQ(invalid_prefix("z\x80"), 0u);
  EXPECT_EQ(valid_prefix("\xC3\xA9\xC3"), 2u);
}

TEST(Tokenizer, PiecesAreTheWhole) {
  const Tokenizer tokenizer = Tokenizer::load(golden("llama3.json"));
  std::string text;
  for (int i = 0; i < 40'000; ++i) text += " word" + std::to_string(i * 7919 % 10'000);
  const Ids whole = tokenizer.encode(text, true);
  Ids pieces;
  int calls = 0;
  tokenizer.encode(text, true, [&](std::span<const std::uint32_t> ids) {
    pieces.insert(pieces.end(), ids.begin(), ids.end());
    ++calls;
  });
  EXPECT_EQ(pieces, whole);
  EXPECT_GT(calls, 1);
  EXPECT_EQ(tokenizer.decode(whole, true), text);
  tokenizer.encode("", false, [&](std::span<const std::uint32_t>) { ADD_FAILURE() << "called for nothing"; });
}

// A text long enough for the cache of words, and pieces of it too short for it.
TEST(Tokenizer, TheCacheOfWordsChangesNothing) {
  const Tokenizer tokenizer = Tokenizer::load(golden("gpt2.json"));
  Ids expected;
  std::string text;
  std::uint32_t state = 5;
  for (int i = 0; i < 30'000; ++i) {
    state = state * 1664525 + 1013904223;
    const std::string word = " " + std::string(1 + (state >> 28), static_cast<char>('a' + (state >> 20) % 26)) + "an" +
                             std::string(1, static_cast<char>('a' + (state >> 12) % 26));
    const Ids ids = tokenizer.encode(word);
    expected.insert(expected.end(), ids.begin(), ids.end());
    text += word;
  }
  EXPECT_EQ(tokenizer.encode(text), expected);
}

TEST(Tokenizer, BytesAreTheirValues) {
  const Tokenizer bytes = Tokenizer::bytes();
  EXPECT_EQ(bytes.vocab_size(), 256);
  Ids values(256);
  std::iota(values.begin(), values.end(), 0u);
  EXPECT_EQ(bytes.encode(all_bytes()), values);
  EXPECT_EQ(bytes.decode(values), all_bytes());
  EXPECT_EQ(bytes.description(), "bytes, 256 tokens");
  const Tokenizer some = Tokenizer::bytes(ByteVocabulary::of("hello\xE9"));
  EXPECT_EQ(some.encode("hello\xE9"), (Ids{1, 0, 2, 2, 3, 4}));
  EXPECT_EQ(message_of([&] { some.encode("helXo"); }),
            "tokenizer: byte 0x58 ('X') at position 3 of the text is not in the vocabulary");
  EXPECT_EQ(Tokenizer::from_json(some.json()).encode("he"), (Ids{1, 0}));
}

TEST(Tokenizer, CharactersAreTheCodePointsOfAText) {
  const std::string text = "z\u00e9\u6f22a\n\xFF\x80 a\U0001F600";
  const Tokenizer tokenizer = Tokenizer::characters_of(text);
  EXPECT_EQ(tokenizer.vocab_size(), 9);
  EXPECT_EQ(tokenizer.description(), "characters, 9 tokens");
  EXPECT_EQ(tokenizer.encode("\n az\u00e9\u6f22\U0001F600\x80\xFF"), (Ids{0, 1, 2, 3, 4, 5, 6, 7, 8}));
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
  EXPECT_EQ(tokenizer.token(7), "<0x80>");
  EXPECT_EQ(tokenizer.token(5), "\u6f22");
  EXPECT_EQ(Tokenizer::from_json(tokenizer.json()).encode(text), tokenizer.encode(text));
  EXPECT_EQ(message_of([&] { tokenizer.encode("a\u0416"); }),
            "tokenizer: character U+0416 ('\u0416') at position 1 of the text is not in the vocabulary");
  EXPECT_EQ(message_of([&] { tokenizer.encode("\u00e9x"); }),
            "tokenizer: byte 0x78 ('x') at position 2 of the text is not in the vocabulary");
  EXPECT_EQ(message_of([&] { tokenizer.encode("a\xFE"); }),
            "tokenizer: byte 0xfe at position 1 of the text is not in the vocabulary");
  EXPECT_EQ(message_of([] { Tokenizer::characters_of(""); }), "tokenizer: there is no text, so there are no characters");
}

TEST(Tokenizer, FilesAreWrittenAsTheyWereRead) {
  const TemporaryFolder folder;
  const Tokenizer tokenizer = Tokenizer::load(golden("gpt2.json"));
  EXPECT_EQ(tokenizer.json(), contents(golden("gpt2.json")));
  EXPECT_EQ(tokenizer.description(), "byte-level BPE of 743 merges, 1000 tokens, 1 of them special");
  tokenizer.save(folder / "tokenizer.json");
  EXPECT_EQ(contents(folder / "tokenizer.json"), tokenizer.json());
  EXPECT_EQ(folder.names(), std::vector<std::string>{"tokenizer.json"});
  EXPECT_EQ(Tokenizer::load(folder / "tokenizer.json").hash(), tokenizer.hash());
  EXPECT_NE(Tokenizer::load(golden("llama3.json")).hash(), tokenizer.hash());
  EXPECT_EQ(message_of([&] { Tokenizer::load(folder / "none.json"); }),
            "file \"" + (folder / "none.json").string() + "\": cannot open: No such file or directory");
  EXPECT_EQ(message_of([&] { tokenizer.save(folder / "no" / "tokenizer.json"); }),
            "tokenizer \"" + (folder / "no" / "tokenizer.json").string() +
                "\": cannot write: cannot open its folder: No such file or directory");
}

constexpr std::string_view kSmall =
    R"({"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true},)"
    R"("post_processor":null,"decoder":{"type":"ByteLevel"},"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]}})";

std::string with(const std::string& part, const std::string& instead) {
  std::string text(kSmall);
  const std::size_t at = text.find(part);
  EXPECT_NE(at, std::string::npos) << part;
  return text.replace(at, part.size(), instead);
}

TEST(Tokenizer, ASmallFileIsUnderstood) {
  const Tokenizer tokenizer = Tokenizer::from_json(kSmall);
  EXPECT_EQ(tokenizer.encode("abba"), (Ids{2, 1, 0}));
  EXPECT_EQ(message_of([&] { tokenizer.encode("ab c"); }),
            "tokenizer: byte 0x20 (' ') at position 2 of the text is not in the vocabulary");
}

struct Refusal {
  std::string part, instead, message;
};

std::string added(const std::string& content, int id) {
  return R"({"id":)" + std::to_string(id) + R"(,"content":")" + content +
         R"(","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true})";
}

TEST(Tokenizer, WhatIsNotUnderstoodIsRefusedByName) {
  const std::string model = R"("vocab":{"a":0,"b":1,"ab":2},"merges":["a b"])",
                    pre = R"("pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true})";
  const auto split = [](const std::string& step) {
    return R"("pre_tokenizer":{"type":"Sequence","pretokenizers":[)" + step +
           R"(,{"type":"ByteLevel","add_prefix_space":false,"use_regex":false}]})";
  };
  const auto post = [](const std::string& processor) { return R"("post_processor":)" + processor; };
  const std::string none = R"("post_processor":null)", decoder = R"("decoder":{"type":"ByteLevel"})";
  const auto words = [](const std::string& vocab, const std::string& more) {
    return R"({"type":"WordLevel","vocab":)" + vocab + more + "}";
  };
  const std::string whole_model = R"({"type":"BPE",)" + model + "}";
  const std::vector<Refusal> cases = {
      {R"({"version":"1.0",)", "[",
       "is not JSON: parse error at line 1, column 14: syntax error while parsing array - unexpected ':'; expected ']'"},
      {R"("1.0")", R"("2.0")", R"(version is "2.0", only "1.0" is understood)"},
      {R"("version":"1.0",)", "", R"(version is null, only "1.0" is understood)"},
      {R"("truncation":null)", R"("truncation":{"max_length":8})",
       R"(truncation is {"max_length":8}, only null is understood: it would change the ids)"},
      {R"("padding":null)", R"("padding":1)", R"(padding is 1, only null is understood: it would change the ids)"},
      {R"("padding":null)", R"("paddling":null)", "paddling is null, a key that is not understood"},
      {R"("normalizer":null)", R"("normalizer":{"type":"NFKC"})", R"(normalizer is {"type":"NFKC"}, only null is understood)"},
      {R"("type":"BPE")", R"("type":"Unigram")",
       R"(model.type is "Unigram", only "BPE" (byte-level) and "WordLevel" (of characters) are understood)"},
      {R"("type":"BPE",)" + model, "", R"(model.type is null, must be a string)"},
      {whole_model, "7", "model is 7, must be an object"},
      {R"("type":"BPE")", R"("type":"BPE","dropout":0.1)", "model.dropout is 0.1, only null is understood"},
      {R"("type":"BPE")", R"("type":"BPE","unk_token":"a")",
       R"(model.unk_token is "a", only null is understood where a byte is missing from the vocabulary)"},
      {R"("type":"BPE")", R"("type":"BPE","continuing_subword_prefix":"##")",
       R"(model.continuing_subword_prefix is "##", only null is understood)"},
      {R"("type":"BPE")", R"("type":"BPE","end_of_word_suffix":"</w>")",
       R"(model.end_of_word_suffix is "</w>", only null is understood)"},
      {R"("type":"BPE")", R"("type":"BPE","byte_fallback":true)", "model.byte_fallback is true, only false is understood"},
      {R"("type":"BPE")", R"("type":"BPE","ignore_merges":"yes")", R"(model.ignore_merges is "yes", must be true or false)"},
      {R"("type":"BPE")", R"("type":"BPE","fuse_unk":0)", "model.fuse_unk is 0, must be true or false"},
      {R"("type":"BPE")", R"("type":"BPE","new":1)", "model.new is 1, a key that is not understood"},
      {R"({"a":0,"b":1,"ab":2})", "{}", "model.vocab is {}, must be an object with at least one token"},
      {R"("ab":2)", R"("ab":3)", R"(model.vocab["ab"] is 3, must be an id below 3)"},
      {R"("ab":2)", R"("ab":-1)", R"(model.vocab["ab"] is -1, must be an id below 3)"},
      {R"("ab":2)", R"("ab":1.5)", R"(model.vocab["ab"] is 1.5, must be an id below 3)"},
      {R"("ab":2)", R"("ab":1)", R"(model.vocab["b"] is 1, the id of "ab" too)"},
      {R"(["a b"])", R"({"a":1})", R"(model.merges is {"a":1}, must be an array)"},
      {R"(["a b"])", R"(["ab"])", R"(model.merges[0] is "ab", must be two tokens)"},
      {R"(["a b"])", R"(["a b c"])", R"(model.merges[0] is "a b c", must be two tokens)"},
      {R"(["a b"])", R"([["a","b","c"]])", R"(model.merges[0] is ["a","b","c"], must be two tokens)"},
      {R"(["a b"])", R"([["a",1]])", R"(model.merges[0] is ["a",1], must be two tokens)"},
      {R"(["a b"])", R"(["a b","x a"])", R"(model.merges[1] is "x a", "x" is not in the vocabulary)"},
      {R"(["a b"])", R"(["b a"])", R"(model.merges[0] is "b a", "ba" is not in the vocabulary)"},
      {R"(["a b"])", R"(["a b",["a","b"]])", R"(model.merges[1] is ["a","b"], the same as model.merges[0])"},
      {pre, R"("pre_tokenizer":null)",
       "pre_tokenizer is null, only ByteLevel, and Sequence of Split and ByteLevel, are understood"},
      {pre, R"("pre_tokenizer":{"type":"Metaspace"})", R"(pre_tokenizer.type is "Metaspace", only "ByteLevel" is understood)"},
      {pre, R"("pre_tokenizer":{"type":"ByteLevel","regex":1})", "pre_tokenizer.regex is 1, a key that is not understood"},
      {pre, R"("pre_tokenizer":{"type":"Sequence","pretokenizers":[]})",
       R"(pre_tokenizer is {"pretokenizers":[],"type":"Sequence"}, must end with ByteLevel)"},
      {pre, split(R"({"type":"Digits"})"), R"(pre_tokenizer.pretokenizers[0].type is "Digits", only "Split" is understood)"},
      {pre, split(R"({"type":"Split","pattern":{"String":"x"},"behavior":"Isolated","invert":false})"),
       R"(pre_tokenizer.pretokenizers[0].pattern.String is "x", a key that is not understood)"},
      {pre, split(R"({"type":"Split","pattern":{"Regex":"x"},"behavior":"Removed","invert":false})"),
       R"(pre_tokenizer.pretokenizers[0].behavior is "Removed", only "Isolated" is understood)"},
      {pre, split(R"({"type":"Split","pattern":{"Regex":"x"},"behavior":"Isolated","invert":true})"),
       "pre_tokenizer.pretokenizers[0].invert is true, only false is understood"},
      {pre, split(R"({"type":"Split","pattern":{"Regex":"x*"},"behavior":"Isolated","invert":false})"),
       R"(pre_tokenizer: pattern "x*": can match the empty text, which is no word)"},
      {pre,
       R"("pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"x"},"behavior":"Isolated","invert":false},{"type":"ByteLevel","add_prefix_space":true,"use_regex":false}]})",
       "pre_tokenizer.pretokenizers[1].add_prefix_space is true, only false is understood after Split"},
      {decoder, R"("decoder":null)", "decoder is null, only ByteLevel is understood"},
      {decoder, R"("decoder":{"type":"WordPiece"})", R"(decoder.type is "WordPiece", only "ByteLevel" is understood)"},
      {R"("added_tokens":[])", R"("added_tokens":[{"id":3,"content":"x"}])",
       "added_tokens[0].special is null, must be true or false"},
      {R"("added_tokens":[])", R"("added_tokens":[)" + added("", 3) + "]", R"(added_tokens[0].content is "", must not be empty)"},
      {R"("added_tokens":[])", R"("added_tokens":[)" + added("x", 4) + "]", "added_tokens[0].id is 4, must be an id below 4"},
      {R"("added_tokens":[])", R"("added_tokens":[)" + added("x", 2) + "]", R"(added_tokens[0].id is 2, must be 3 for "x")"},
      {R"("added_tokens":[])", R"("added_tokens":[)" + added("b", 3) + "]", R"(added_tokens[0].id is 3, must be 1 for "b")"},
      {R"("added_tokens":[])", R"("added_tokens":[)" + added("x", 3) + "," + added("x", 3) + "]",
       R"(added_tokens[1].content is "x", which was added before)"},
      {R"("added_tokens":[])", R"("added_tokens":3)", "added_tokens is 3, must be an array"},
      {none, post(R"({"type":"BertProcessing"})"),
       R"(post_processor.type is "BertProcessing", only ByteLevel, TemplateProcessing and Sequence are understood)"},
      {none, post("1"), "post_processor is 1, must be an object"},
      {none, post(R"({"type":"TemplateProcessing","single":[],"pair":[],"special_tokens":{}})"),
       "post_processor.single is [], the text must occur in it"},
      {none, post(R"({"type":"TemplateProcessing","single":[{"Sequence":{"id":"B","type_id":0}}]})"),
       R"(post_processor.single[0].Sequence.id is "B", only "A" is understood)"},
      {none, post(R"({"type":"TemplateProcessing","single":[{"Sequence":{"id":"A"}},{"Sequence":{"id":"A"}}]})"),
       R"(post_processor.single[1] is {"Sequence":{"id":"A"}}, the text occurs twice)"},
      {none, post(R"({"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"x"}}],"special_tokens":{}})"),
       "post_processor.special_tokens.x is null, must be an object"},
      {none,
       post(
           R"({"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"x"}}],"special_tokens":{"x":{"id":"x","ids":[3],"tokens":["x"]}}})"),
       "post_processor.special_tokens.x.ids[0] is 3, must be an id below 3"},
      {whole_model, words(R"({"ab":0})", ""),
       R"(model.vocab holds "ab", and only characters and bytes like "<0x80>" are understood)"},
      {whole_model, words(R"({"<0xfg>":0})", ""),
       R"(model.vocab holds "<0xfg>", and only characters and bytes like "<0x80>" are understood)"},
      {whole_model, words(R"({"a":0})", R"(,"unk_token":"a")"),
       R"(model.unk_token is "a", only a token that is not in the vocabulary is understood)"},
      {whole_model, words(R"({"a":0})", ""), R"(pre_tokenizer.type is "ByteLevel", only "Split" is understood)"},
  };
  for (const Refusal& c : cases) {
    const std::string json = with(c.part, c.instead);
    const std::string message = message_of([&] { Tokenizer::from_json(json, "t.json"); });
    EXPECT_EQ(message.substr(0, 20 + c.message.size()), "tokenizer \"t.json\": " + c.message) << c.instead;
  }
  EXPECT_EQ(message_of([] { Tokenizer::from_json("[]"); }), "tokenizer \"tokenizer.json\": must be a JSON object, got []");
  // Not as deep as the machine's stack: 32 levels, not counting what is quoted.
  const auto nested = [](std::size_t levels) { return std::string(levels, '[') + R"("]\"[[")" + std::string(levels, ']'); };
  EXPECT_EQ(message_of([&] { Tokenizer::from_json(nested(32)); }).substr(0, 59),
            "tokenizer \"tokenizer.json\": must be a JSON object, got [[[[");
  for (const std::size_t levels : {33, 1'000'000})
    EXPECT_EQ(message_of([&] { Tokenizer::from_json(nested(levels)); }), "tokenizer \"tokenizer.json\": nests deeper than 32");
  EXPECT_EQ(message_of([&] { Tokenizer::from_json("{" + nested(32) + "}"); }), "tokenizer \"tokenizer.json\": nests deeper than 32");
  const Tokenizer letters = Tokenizer::characters_of("ab");
  for (const auto& [part, instead, message] : std::vector<Refusal>{
           {R"([\\s\\S])", R"(\\S)", R"(pre_tokenizer.pattern is {"Regex":"\\S"}, only [\s\S] is understood with WordLevel)"},
           {R"({"type":"ByteFallback"},)", "", "decoder is "}}) {
    std::string json = letters.json();
    json.replace(json.find(part), part.size(), instead);
    EXPECT_EQ(message_of([&] { Tokenizer::from_json(json, "t.json"); }).find("tokenizer \"t.json\": " + message), 0u) << instead;
  }
}

// A template in two parts, and ids that it takes from the middle of the vocabulary.
TEST(Tokenizer, TemplatesOfASequenceNest) {
  const auto part = [](const std::string& before, const std::string& after) {
    const auto token = [](const std::string& name) { return R"({"SpecialToken":{"id":")" + name + R"(","type_id":0}})"; };
    return R"({"type":"TemplateProcessing","single":[)" + token(before) + R"(,{"Sequence":{"id":"A","type_id":0}},)" +
           token(after) +
           R"(],"pair":[],"special_tokens":{"x":{"id":"x","ids":[0,1],"tokens":["a","b"]},"y":{"id":"y","ids":[2],"tokens":["ab"]}}})";
  };
  const Tokenizer tokenizer =
      Tokenizer::from_json(with(R"("post_processor":null)", R"("post_processor":{"type":"Sequence","processors":[)" +
                                                                part("x", "y") + "," + part("y", "x") + "]}"));
  EXPECT_EQ(tokenizer.encode("b", true), (Ids{2, 0, 1, 1, 2, 0, 1}));
  EXPECT_EQ(tokenizer.encode("b"), Ids{1});
}

}  // namespace
}  // namespace graft
