// Token files: what is written is read, anything else is refused; windows straight from the mapping.
#include "graft/token_file.h"

#include <gtest/gtest.h>

#include <cstring>

#include "graft/tokenizer.h"
#include "tests/checkpoint_files.h"
#include "tests/message.h"

namespace graft {
namespace {

using checkpoint_files::contents;
using checkpoint_files::put;
using checkpoint_files::TemporaryFolder;
using testing::message_of;
using Ids = std::vector<std::uint32_t>;

Ids some_ids(std::size_t n, std::uint32_t below) {
  Ids ids(n);
  for (std::size_t i = 0; i < n; ++i) ids[i] = static_cast<std::uint32_t>(i * 2654435761u) % below;
  return ids;
}

void write(const std::filesystem::path& file, const Ids& ids, std::int64_t vocab_size, const std::string& json) {
  TokenFileWriter writer(file, vocab_size, json);
  writer.append(std::span(ids).first(ids.size() / 3));
  writer.append(std::span(ids).subspan(ids.size() / 3));
  EXPECT_EQ(writer.commit(), ids.size());
}

Ids all(TokenView view) {
  Ids ids(view.size());
  view.copy(0, ids);
  return ids;
}

TEST(TokenFile, HoldsWhatWasWritten) {
  const TemporaryFolder folder;
  for (const std::size_t count : {0u, 1u, 1000u}) {
    for (const std::int64_t vocab_size : {65'536, 65'537}) {
      for (const std::string& json : {std::string(), std::string(64, ' '), std::string(1000, 'x')}) {
        Ids ids = some_ids(count, static_cast<std::uint32_t>(vocab_size));
        if (count > 1) ids[1] = static_cast<std::uint32_t>(vocab_size - 1);
        write(folder / "t.bin", ids, vocab_size, json);
        const TokenFile file(folder / "t.bin");
        EXPECT_EQ(all(file.tokens()), ids);
        EXPECT_EQ(file.vocab_size(), vocab_size);
        EXPECT_EQ(file.tokenizer_json(), json);
        const std::size_t bytes = vocab_size <= 65'536 ? 2 : 4;
        EXPECT_EQ(std::filesystem::file_size(folder / "t.bin"), 64 + (json.size() + 63) / 64 * 64 + count * bytes + 16);
      }
    }
  }
  EXPECT_EQ(folder.names(), std::vector<std::string>{"t.bin"});
}

// The layout of docs/tokenizers.md, byte by byte.
TEST(TokenFile, HasTheDocumentedLayout) {
  const TemporaryFolder folder;
  write(folder / "t.bin", {5, 258, 0}, 300, "{}");
  const std::string bytes = contents(folder / "t.bin");
  EXPECT_EQ(bytes.substr(0, 24), std::string("graftTOK\1\0\0\0\2\0\0\0\x2C\1\0\0\0\0\0\0", 24));
  EXPECT_EQ(bytes.substr(32, 8), std::string("\2\0\0\0\0\0\0\0", 8));
  EXPECT_EQ(bytes.substr(40, 24), std::string(24, '\0'));
  EXPECT_EQ(bytes.substr(64, 64), "{}" + std::string(62, '\0'));
  EXPECT_EQ(bytes.substr(128, 14), std::string("\5\0\2\1\0\0\3\0\0\0\0\0\0\0", 14));
  EXPECT_EQ(bytes.size(), 150u);
  std::uint64_t hash = 0;
  std::memcpy(&hash, bytes.data() + 142, 8);
  EXPECT_EQ(TokenFile(folder / "t.bin").hash(), hash);
  write(folder / "u.bin", {5, 258, 1}, 300, "{}");
  EXPECT_NE(TokenFile(folder / "u.bin").hash(), hash);
}

TEST(TokenFile, NothingIsThereWithoutCommit) {
  const TemporaryFolder folder;
  {
    TokenFileWriter writer(folder / "t.bin", 10, "{}");
    writer.append(Ids{1, 2, 3});
    EXPECT_EQ(message_of([&] {
                writer.append(Ids{4, 10});
              }),
              "token file \"" + (folder / "t.bin").string() + "\": the id 10 is not below 10");
  }
  EXPECT_TRUE(folder.names().empty());
  EXPECT_EQ(message_of([&] { TokenFileWriter(folder / "no" / "t.bin", 10, ""); }),
            "token file \"" + (folder / "no" / "t.bin").string() + "\": cannot write: cannot open its folder: No such file or directory");
  for (const std::int64_t size : {std::int64_t{0}, std::int64_t{-1}, (std::int64_t{1} << 31) + 1})
    EXPECT_EQ(message_of([&] { TokenFileWriter(folder / "t.bin", size, ""); }), "token file \"" + (folder / "t.bin").string() +
                                                                                    "\": a vocabulary of " + std::to_string(size) +
                                                                                    " tokens; must be 1 to 2^31");
}

TEST(TokenFile, EveryTruncationAndEveryFlippedBitIsRefused) {
  const TemporaryFolder folder;
  for (const std::int64_t vocab_size : {300, 70'000}) {
    write(folder / "t.bin", some_ids(40, 300), vocab_size, R"({"a": 1})");
    const std::string good = contents(folder / "t.bin");
    const auto refused = [&](const std::string& bytes) {
      put(folder / "bad.bin", bytes);
      return message_of([&] { TokenFile file(folder / "bad.bin"); })
          .starts_with("token file \"" + (folder / "bad.bin").string() + "\": ");
    };
    for (std::size_t size = 1; size < good.size(); ++size) EXPECT_TRUE(refused(good.substr(0, size))) << size;
    EXPECT_TRUE(refused(good + std::string(vocab_size == 300 ? 2 : 4, '\0')));
    for (std::size_t at = 0; at < good.size(); ++at) {
      std::string bad = good;
      bad[at] = static_cast<char>(bad[at] ^ (1 << at % 8));
      if (at < 16 || at >= 24) {  // a larger vocabulary may be right
        EXPECT_TRUE(refused(bad)) << at;
      }
    }
  }
}

TEST(TokenFile, SaysWhatIsWrong) {
  const TemporaryFolder folder;
  write(folder / "t.bin", some_ids(40, 300), 300, "{}");
  const std::string good = contents(folder / "t.bin");
  const auto error = [&](std::size_t at, const std::string& bytes) {
    std::string bad = good;
    put(folder / "bad.bin", bad.replace(at, bytes.size(), bytes));
    const std::string message = message_of([&] { TokenFile file(folder / "bad.bin"); }),
                      start = "token file \"" + (folder / "bad.bin").string() + "\": ";
    return message.starts_with(start) ? message.substr(start.size()) : message;
  };
  EXPECT_EQ(error(0, "h"), "is no token file of graft; `tokenizer encode --out` writes one");
  EXPECT_EQ(error(8, "\2"), "has version 2, this program reads version 1");
  EXPECT_EQ(error(12, "\3"), "has 3 bytes a token, must be 2 or 4");
  EXPECT_EQ(error(12, "\4"), "is truncated or damaged: it has 80 bytes of tokens and says that they are 40 of 4 bytes");
  EXPECT_EQ(error(16, std::string(8, '\0')), "has a vocabulary of 0 tokens, must be 1 to 2^31");
  EXPECT_EQ(error(20, "\1"), "has a vocabulary of 4294967596 tokens, must be 1 to 2^31");
  EXPECT_EQ(error(16, std::string("\x20\0", 2)), "holds the id 294, which is not below 32");
  EXPECT_EQ(error(24, "!"), "is damaged: the checksum of its tokenizer is wrong");
  EXPECT_EQ(error(32, "\xFF"), "is truncated: it has 224 bytes");
  EXPECT_EQ(error(32, std::string(8, '\xFF')), "is truncated: it has 224 bytes");
  EXPECT_EQ(error(63, "!"), "is damaged: there is something where nothing should be");
  EXPECT_EQ(error(66, "!"), "is damaged: there is something where nothing should be");
  EXPECT_EQ(error(127, "!"), "is damaged: there is something where nothing should be");
  EXPECT_EQ(error(130, "!!"), "is damaged: the checksum of its tokens is wrong");
  EXPECT_EQ(error(208, "\x29"), "is truncated or damaged: it has 80 bytes of tokens and says that they are 41 of 2 bytes");
}

TEST(TokenFile, WindowsFromTheMappingAreThoseOfTheTokens) {
  const TemporaryFolder folder;
  for (const std::int64_t vocab_size : {500, 70'000}) {
    const Ids ids = some_ids(1200, 500);
    write(folder / "t.bin", ids, vocab_size, "{}");
    const TokenFile file(folder / "t.bin");
    WindowDataset mapped(file.tokens(), 16, 0.2, 3), held(ids, 16, 0.2, 3);
    EXPECT_EQ(mapped.training_windows(), held.training_windows());
    EXPECT_EQ(mapped.validation_windows(), held.validation_windows());
    EXPECT_EQ(all(mapped.training_tokens()), all(held.training_tokens()));
    EXPECT_EQ(all(mapped.validation_tokens()), Ids(ids.end() - 240, ids.end()));
    Ids inputs(32), labels(32), other_inputs(32), other_labels(32);
    for (int i = 0; i < 80; ++i) {
      mapped.next_batch(inputs, labels);
      held.next_batch(other_inputs, other_labels);
      ASSERT_EQ(inputs, other_inputs);
      ASSERT_EQ(labels, other_labels);
    }
    EXPECT_EQ(mapped.position(), held.position());
    Ids window(16), next(16), other_window(16), other_next(16);
    mapped.validation_window(7, window, next);
    held.validation_window(7, other_window, other_next);
    EXPECT_EQ(window, other_window);
    EXPECT_EQ(next, other_next);
    EXPECT_EQ(file.tokens().subview(10, 5).front(), ids[10]);
    EXPECT_EQ(file.tokens().subview(10, 5).back(), ids[14]);
  }
  EXPECT_EQ(message_of([] { WindowDataset(TokenView(), 4); }),
            "data: the text is too short: a window takes 5 tokens, the training part has 0 of all 0");
}

}  // namespace
}  // namespace graft
