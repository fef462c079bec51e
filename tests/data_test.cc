// Text to batches: mapped files, the byte vocabulary, shuffled windows with a position that is saved.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <set>

#include "graft/data.h"
#include "tests/checkpoint_files.h"

namespace graft {
namespace {

using namespace checkpoint_files;
using Ids = std::vector<std::uint32_t>;

Ids count_up(std::size_t n) {
  Ids ids(n);
  std::iota(ids.begin(), ids.end(), 0u);
  return ids;
}

struct Batch {
  Ids inputs, labels;
  bool operator==(const Batch&) const = default;
};

Batch next(WindowDataset& data, std::size_t tokens) {
  Batch batch{Ids(tokens), Ids(tokens)};
  data.next_batch(batch.inputs, batch.labels);
  return batch;
}

// First tokens of the windows of one epoch, in order; tokens count up, so a window's first token is its place.
Ids starts_of_epoch(WindowDataset& data, std::size_t window) {
  Ids starts;
  for (std::int64_t i = 0; i < data.training_windows(); ++i) starts.push_back(next(data, window).inputs[0]);
  return starts;
}

TEST(MappedFile, HoldsTheBytesOfTheFile) {
  const TemporaryFolder folder;
  const std::string text = std::string("a\0b\n\xFF", 5).append(10'000, 'x');
  put(folder / "text", text);
  MappedFile file(folder / "text");
  EXPECT_EQ(file.text(), text);
  MappedFile moved(std::move(file));
  EXPECT_EQ(moved.text(), text);
  EXPECT_EQ(file.text(), "");  // NOLINT(bugprone-use-after-move)
  put(folder / "other", "y");
  MappedFile other(folder / "other");
  other = std::move(moved);
  EXPECT_EQ(other.text(), text);
  std::filesystem::remove(folder / "text");
  EXPECT_EQ(other.text(), text);
}

TEST(MappedFile, NamesFilesThatCannotBeMapped) {
  const TemporaryFolder folder;
  const auto error = [](const std::filesystem::path& file) { return error_of([&] { MappedFile mapped(file); }); };
  const auto expected = [](const std::filesystem::path& file, const std::string& what) {
    return "file \"" + file.string() + "\": " + what;
  };
  EXPECT_EQ(error(folder / "no"), expected(folder / "no", "cannot open: No such file or directory"));
  EXPECT_EQ(error(folder.path()), expected(folder.path(), "is a folder, not a file"));
  put(folder / "empty", "");
  EXPECT_EQ(error(folder / "empty"), expected(folder / "empty", "is empty"));
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  EXPECT_EQ(error(folder / "pipe"), expected(folder / "pipe", "is not a regular file"));
}

TEST(ByteVocabulary, NumbersTheBytesThatOccurByValue) {
  const std::string text = std::string("hello\xE9\n\0 hello", 14);
  const ByteVocabulary vocabulary = ByteVocabulary::of(text);
  EXPECT_EQ(vocabulary.bytes(), std::string("\0\n ehlo\xE9", 8));
  EXPECT_EQ(vocabulary.size(), 8);
  EXPECT_EQ(vocabulary.encode("hello\xE9"), (Ids{4, 3, 5, 5, 6, 7}));
  EXPECT_EQ(vocabulary.decode(vocabulary.encode(text)), text);
  EXPECT_EQ(ByteVocabulary(vocabulary.bytes()).encode(text), vocabulary.encode(text));
  EXPECT_TRUE(vocabulary.encode("").empty());
  EXPECT_EQ(vocabulary.decode({}), "");
}

TEST(ByteVocabulary, HoldsAll256Bytes) {
  std::string text;
  for (int byte = 255; byte >= 0; --byte) text.push_back(static_cast<char>(byte));
  const ByteVocabulary vocabulary = ByteVocabulary::of(text);
  EXPECT_EQ(vocabulary.size(), 256);
  EXPECT_EQ(vocabulary.encode(text).front(), 255u);
  EXPECT_EQ(vocabulary.decode(vocabulary.encode(text)), text);
}

TEST(ByteVocabulary, SaysWhatIsWrong) {
  const ByteVocabulary vocabulary = ByteVocabulary::of("abc");
  EXPECT_EQ(error_of([&] { vocabulary.encode("abz"); }),
            "vocabulary: byte 0x7a ('z') at position 2 of the text is not one of its 3 bytes");
  EXPECT_EQ(error_of([&] { vocabulary.encode("\xC3\xA9"); }),
            "vocabulary: byte 0xc3 at position 0 of the text is not one of its 3 bytes");
  EXPECT_EQ(error_of([&] { vocabulary.decode(Ids{0, 3}); }), "vocabulary: id 3 at position 1 is not below 3");
  EXPECT_EQ(error_of([] { ByteVocabulary::of(""); }), "vocabulary: there are no bytes, so no tokens");
  EXPECT_EQ(error_of([] { ByteVocabulary("aa"); }), "vocabulary: bytes must rise, got 0x61 ('a') at position 1 after 0x61 ('a')");
  EXPECT_EQ(error_of([] { ByteVocabulary("\xE9z"); }), "vocabulary: bytes must rise, got 0x7a ('z') at position 1 after 0xe9");
}

TEST(WindowDataset, SplitsOffTheEndForValidation) {
  const WindowDataset data(count_up(1009), 10, 0.1);
  EXPECT_EQ(data.training_tokens().size(), 909u);
  EXPECT_EQ(data.validation_tokens().size(), 100u);
  EXPECT_EQ(data.training_tokens().front(), 0u);
  EXPECT_EQ(data.validation_tokens().front(), 909u);
  EXPECT_EQ(data.validation_tokens().back(), 1008u);
  EXPECT_EQ(data.validation_windows(), 9);
}

TEST(WindowDataset, LabelsAreTheTokensAfterTheInputs) {
  WindowDataset data(count_up(500), 7, 0.2, 3);
  for (int i = 0; i < 60; ++i) {
    const Batch batch = next(data, 3 * 7);
    for (std::size_t at = 0; at < batch.inputs.size(); ++at) {
      EXPECT_EQ(batch.labels[at], batch.inputs[at] + 1);
      EXPECT_EQ(batch.inputs[at], batch.inputs[at - at % 7] + at % 7);
    }
  }
}

TEST(WindowDataset, AnEpochVisitsEveryWindowOnce) {
  WindowDataset data(count_up(1003), 8, 0.1, 1);
  std::set<Ids> orders;
  std::set<std::uint32_t> phases;
  for (std::uint32_t epoch = 0; epoch < 12; ++epoch) {
    EXPECT_EQ(data.epoch(), epoch);
    Ids starts = starts_of_epoch(data, 8);
    orders.insert(starts);
    std::sort(starts.begin(), starts.end());
    phases.insert(starts.front());
    EXPECT_EQ(starts.size(), 111u);  // (903 - 8) / 8
    for (std::size_t i = 1; i < starts.size(); ++i) ASSERT_EQ(starts[i], starts[i - 1] + 8);
    EXPECT_LT(starts.back() + 8, 903u) << "the last label is a training token";
  }
  EXPECT_EQ(orders.size(), 12u);
  EXPECT_GT(phases.size(), 5u);
}

TEST(WindowDataset, EveryTrainingTokenHasItsTurnAsInputAndAsLabel) {
  for (const std::size_t size : {11u, 12u, 19u, 20u, 21u, 39u, 40u, 47u}) {
    WindowDataset data(count_up(size), 10, 0.0, 5);
    std::set<std::uint32_t> inputs, labels;
    for (int i = 0; i < 600; ++i) {
      const Batch batch = next(data, 10);
      inputs.insert(batch.inputs.begin(), batch.inputs.end());
      labels.insert(batch.labels.begin(), batch.labels.end());
    }
    EXPECT_EQ(inputs.size(), size - 1) << size;
    EXPECT_EQ(*inputs.rbegin(), size - 2) << size;
    EXPECT_EQ(labels.size(), size - 1) << size;
    EXPECT_EQ(*labels.rbegin(), size - 1) << size;
  }
}

TEST(WindowDataset, ValidationNeverOverlapsTraining) {
  WindowDataset data(count_up(300), 9, 0.3, 2);
  std::set<std::uint32_t> validation;
  Batch window{Ids(9), Ids(9)};
  for (std::int64_t i = 0; i < data.validation_windows(); ++i) {
    data.validation_window(i, window.inputs, window.labels);
    EXPECT_EQ(window.inputs.front(), 210 + 9 * i) << "in fixed order";
    EXPECT_EQ(window.labels.front(), window.inputs.front() + 1);
    EXPECT_EQ(window.labels.back(), window.inputs.back() + 1);
    validation.insert(window.inputs.begin(), window.inputs.end());
    validation.insert(window.labels.back());
  }
  EXPECT_EQ(validation.size(), 9u * 9 + 1);
  for (int i = 0; i < 500; ++i) {
    const Batch batch = next(data, 9);
    EXPECT_LT(batch.labels.back(), 210u);
  }
}

TEST(WindowDataset, SeedsGiveDifferentOrders) {
  WindowDataset a(count_up(500), 5, 0.1, 1), again(count_up(500), 5, 0.1, 1), b(count_up(500), 5, 0.1, 2);
  const Ids order = starts_of_epoch(a, 5);
  EXPECT_EQ(starts_of_epoch(again, 5), order);
  EXPECT_NE(starts_of_epoch(b, 5), order);
}

TEST(WindowDataset, BatchesMayCrossAnEpoch) {
  WindowDataset one_by_one(count_up(100), 10, 0.2, 4), together(count_up(100), 10, 0.2, 4);
  EXPECT_EQ(together.training_windows(), 7);
  Batch expected;
  for (int i = 0; i < 20; ++i) {
    const Batch batch = next(one_by_one, 10);
    expected.inputs.insert(expected.inputs.end(), batch.inputs.begin(), batch.inputs.end());
    expected.labels.insert(expected.labels.end(), batch.labels.begin(), batch.labels.end());
  }
  EXPECT_EQ(next(together, 200), expected);
  EXPECT_EQ(together.position(), one_by_one.position());
  EXPECT_EQ(together.position(), (Ids{2, 6}));
}

TEST(WindowDataset, SeekGoesOnExactly) {
  WindowDataset data(count_up(400), 6, 0.1, 9);
  for (int i = 0; i < 130; ++i) {
    WindowDataset other(count_up(400), 6, 0.1, 9);
    next(other, 6 * 5);
    other.seek(data.position());
    EXPECT_EQ(other.position(), data.position());
    EXPECT_EQ(other.epoch(), data.epoch());
    WindowDataset ahead = data;
    for (int more = 0; more < 3; ++more) ASSERT_EQ(next(other, 6), next(ahead, 6)) << i;
    next(data, 6);
  }
  EXPECT_EQ(data.epoch(), 2u);
}

// The order is part of what a checkpoint means: a resumed run goes on in it.
TEST(WindowDataset, OrderIsFrozen) {
  WindowDataset data(count_up(100), 8, 0.1, 7);
  EXPECT_EQ(starts_of_epoch(data, 8), (Ids{74, 18, 42, 2, 58, 50, 66, 34, 10, 26}));
  EXPECT_EQ(starts_of_epoch(data, 8), (Ids{44, 36, 28, 68, 76, 52, 60, 20, 12, 4}));
  data.seek(Ids{1000, 3});
  EXPECT_EQ(next(data, 8).inputs, (Ids{0, 1, 2, 3, 4, 5, 6, 7}));
}

TEST(WindowDataset, TooShortATextIsRefusedWithTheLengths) {
  const auto error = [](std::size_t tokens, std::int64_t window, double fraction) {
    return error_of([&] { WindowDataset(count_up(tokens), window, fraction); });
  };
  EXPECT_EQ(error(0, 64, 0.1), "data: the text is too short: a window takes 65 tokens, the training part has 0 of all 0");
  EXPECT_EQ(error(100, 64, 0.5), "data: the text is too short: a window takes 65 tokens, the training part has 50 of all 100");
  EXPECT_EQ(error(649, 64, 0.1), "data: the text is too short: a window takes 65 tokens, the validation part has 64 of all 649");
  EXPECT_EQ(error(650, 64, 0.1), "");
  EXPECT_EQ(error(64, 64, 0.0), "data: the text is too short: a window takes 65 tokens, the training part has 64 of all 64");
  EXPECT_EQ(error(65, 64, 0.0), "");
  EXPECT_EQ(WindowDataset(count_up(65), 64, 0.0).validation_windows(), 0);
}

TEST(WindowDataset, BadArgumentsAreRefused) {
  EXPECT_EQ(error_of([] { WindowDataset(count_up(100), 0); }), "data: window must be at least 1, got 0");
  EXPECT_EQ(error_of([] { WindowDataset(count_up(100), -4); }), "data: window must be at least 1, got -4");
  for (const double fraction : {-0.1, 1.0, std::numeric_limits<double>::quiet_NaN()}) {
    const std::string error = error_of([&] { WindowDataset(count_up(100), 4, fraction); });
    EXPECT_EQ(error.find("data: validation fraction must be in [0, 1), got "), 0u) << error;
  }
  WindowDataset data(count_up(100), 4);
  const std::string batch = "data: a batch needs as many inputs as labels, and whole windows of 4, got ";
  Ids four(4), five(5), eight(8);
  EXPECT_EQ(error_of([&] { data.next_batch(four, eight); }), batch + "4 and 8");
  EXPECT_EQ(error_of([&] { data.next_batch(five, five); }), batch + "5 and 5");
  EXPECT_EQ(error_of([&] { data.next_batch({}, {}); }), batch + "0 and 0");
  EXPECT_EQ(data.position(), (Ids{0, 0}));

  EXPECT_EQ(data.validation_windows(), 2);
  EXPECT_EQ(error_of([&] { data.validation_window(2, four, four); }), "data: there is no validation window 2, there are 2");
  EXPECT_EQ(error_of([&] { data.validation_window(-1, four, four); }), "data: there is no validation window -1, there are 2");
  EXPECT_EQ(error_of([&] { data.validation_window(0, four, five); }),
            "data: a validation window has 4 inputs and labels, got 4 and 5");
  EXPECT_EQ(error_of([&] { data.validation_window(0, five, four); }),
            "data: a validation window has 4 inputs and labels, got 5 and 4");
}

TEST(WindowDataset, APositionOfAnotherTextIsRefused) {
  WindowDataset data(count_up(100), 4);
  next(data, 8);
  EXPECT_EQ(data.training_windows(), 21);
  EXPECT_EQ(error_of([&] { data.seek(Ids{1}); }), "data: a position is an epoch and a window, got 1 numbers");
  EXPECT_EQ(error_of([&] {
              data.seek(Ids{1, 21});
            }),
            "data: position is window 21, but an epoch of this text has 21: it is not the text that the position was saved with");
  EXPECT_EQ(data.position(), (Ids{0, 2}));
  data.seek(Ids{1, 20});
  EXPECT_EQ(data.position(), (Ids{1, 20}));
}

}  // namespace
}  // namespace graft
