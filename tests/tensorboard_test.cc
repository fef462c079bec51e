// Event files: their bytes, read back by a reader of its own, and by TensorBoard where it is installed.
#include <gtest/gtest.h>
#include <unistd.h>

#include <bit>
#include <cmath>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <map>

#include "graft/tensorboard.h"
#include "src/report/events.h"
#include "tests/message.h"

namespace graft::report {
namespace {

using graft::testing::message_of;
using namespace detail;
namespace fs = std::filesystem;

std::string text_of(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(in), {});
}

struct Folder {
  Folder()
      : path(fs::path(::testing::TempDir()) /
             ("events-" + std::to_string(::getpid()) + "-" + ::testing::UnitTest::GetInstance()->current_test_info()->name())) {
    fs::remove_all(path);
  }
  ~Folder() { fs::remove_all(path); }
  fs::path path;
};

TEST(TensorBoard, Crc32cHasItsKnownValues) {  // RFC 3720, appendix B.4
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43u);
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(crc32c(""), 0u);
  EXPECT_EQ(masked(0), 0xa282ead8u);
  EXPECT_EQ(masked(0x00008001u), 0xa282ead8u + 0x00020001u);  // rotated right by 15 bits
}

TEST(TensorBoard, MessagesAreEncodedAsProtocolBuffers) {  // the examples of protobuf.dev/programming-guides/encoding
  EXPECT_EQ(Message().integer(1, 150).str(), "\x08\x96\x01");
  EXPECT_EQ(Message().bytes(2, "testing").str(), "\x12\x07testing");
  EXPECT_EQ(Message().bytes(3, Message().integer(1, 150).str()).str(), "\x1a\x03\x08\x96\x01");
  EXPECT_EQ(Message().integer(2, 0).str(), std::string("\x10\0", 2));
  EXPECT_EQ(Message().integer(1, 127).str(), "\x08\x7f");
  EXPECT_EQ(Message().integer(1, 128).str(), "\x08\x80\x01");
  EXPECT_EQ(Message().integer(1, ~std::uint64_t{0}).str(), "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
  EXPECT_EQ(Message().number(1, 1.0).str(), std::string("\x09\0\0\0\0\0\0\xf0\x3f", 9));
  EXPECT_EQ(Message().number32(2, 1.0f).str(), std::string("\x15\0\0\x80\x3f", 5));
  const std::vector<double> two = {1.0, -2.0};
  EXPECT_EQ(Message().numbers(6, two).str(), std::string("\x32\x10\0\0\0\0\0\0\xf0\x3f\0\0\0\0\0\0\0\xc0", 18));
  EXPECT_EQ(Message().bytes(16, "").str(), std::string("\x82\x01\0", 3));
}

TEST(TensorBoard, RecordsAreFramed) {
  const std::string framed = record("abc");
  ASSERT_EQ(framed.size(), 8u + 4 + 3 + 4);
  const std::string length("\3\0\0\0\0\0\0\0", 8);
  EXPECT_EQ(framed.substr(0, 8), length);
  const auto little = [&](std::size_t at) {
    std::uint32_t v = 0;
    for (std::size_t i = 4; i-- > 0;) v = v << 8 | static_cast<unsigned char>(framed[at + i]);
    return v;
  };
  EXPECT_EQ(little(8), masked(crc32c(length)));
  EXPECT_EQ(framed.substr(12, 3), "abc");
  EXPECT_EQ(little(15), masked(crc32c("abc")));
}

// ---- a reader: fields of a message, in order

struct Field {
  int number, wire;
  std::uint64_t value;
  std::string bytes;
  double number64() const { return std::bit_cast<double>(value); }
};

std::vector<Field> fields(const std::string& message) {
  std::vector<Field> found;
  std::size_t at = 0;
  const auto varint = [&] {
    std::uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = static_cast<unsigned char>(message.at(at++));
      value |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
  };
  while (at < message.size()) {
    const std::uint64_t key = varint();
    Field field{static_cast<int>(key >> 3), static_cast<int>(key & 7), 0, {}};
    if (field.wire == 0) field.value = varint();
    if (field.wire == 1 || field.wire == 5) {
      const std::size_t size = field.wire == 1 ? 8 : 4;
      for (std::size_t i = size; i-- > 0;) field.value = field.value << 8 | static_cast<unsigned char>(message.at(at + i));
      at += size;
    }
    if (field.wire == 2) {
      const std::uint64_t size = varint();
      field.bytes = message.substr(at, size);
      at += size;
    }
    found.push_back(field);
  }
  return found;
}

std::vector<double> doubles(const std::string& packed) {
  std::vector<double> values;
  for (std::size_t at = 0; at + 8 <= packed.size(); at += 8) {
    std::uint64_t v = 0;
    for (std::size_t i = 8; i-- > 0;) v = v << 8 | static_cast<unsigned char>(packed[at + i]);
    values.push_back(std::bit_cast<double>(v));
  }
  return values;
}

std::vector<std::string> records(const std::string& file) {
  std::vector<std::string> found;
  for (std::size_t at = 0; at < file.size();) {
    std::uint64_t size = 0;
    for (std::size_t i = 8; i-- > 0;) size = size << 8 | static_cast<unsigned char>(file[at + i]);
    found.push_back(file.substr(at + 12, size));
    EXPECT_EQ(file.substr(at, 16 + size), record(found.back()));
    at += 16 + size;
  }
  return found;
}

struct HistogramRead {
  double min, max, num, sum, squares;
  std::vector<double> limits, counts;
};

HistogramRead read_histogram(const std::string& event) {
  const auto value = fields(fields(fields(event).at(2).bytes).at(0).bytes);
  EXPECT_EQ(value.at(0).bytes, "tag");
  EXPECT_EQ(value.at(1).number, 5);
  const auto h = fields(value.at(1).bytes);
  EXPECT_EQ(h.size(), 7u);
  for (int i = 0; i < 7; ++i) EXPECT_EQ(h.at(static_cast<std::size_t>(i)).number, i + 1);
  return {h[0].number64(), h[1].number64(),     h[2].number64(),    h[3].number64(),
          h[4].number64(), doubles(h[5].bytes), doubles(h[6].bytes)};
}

TEST(TensorBoard, AScalarIsOneSummary) {
  const auto event = fields(scalar_event(1.5, 300, "loss", 0.25));
  ASSERT_EQ(event.size(), 3u);
  EXPECT_EQ(event[0].number, 1);
  EXPECT_EQ(event[0].number64(), 1.5);
  EXPECT_EQ(event[1].number, 2);
  EXPECT_EQ(event[1].value, 300u);
  EXPECT_EQ(event[2].number, 5);
  const auto value = fields(fields(event[2].bytes).at(0).bytes);
  EXPECT_EQ(value.at(0).number, 1);
  EXPECT_EQ(value.at(0).bytes, "loss");
  EXPECT_EQ(value.at(1).number, 2);
  EXPECT_EQ(value.at(1).wire, 5);
  EXPECT_EQ(std::bit_cast<float>(static_cast<std::uint32_t>(value.at(1).value)), 0.25f);
  EXPECT_EQ(fields(scalar_event(1.5, 0, "loss", 0.25)).size(), 2u) << "step 0 is the default";
}

TEST(TensorBoard, AHistogramCountsEveryFiniteValueOnce) {
  const double inf = HUGE_VAL;
  const std::vector<double> values = {0, 30, 1, 1.5, 29.5, 2, std::nan(""), inf, -inf, 15};
  const HistogramRead h = read_histogram(histogram_event(1, 2, "tag", values));
  EXPECT_EQ(h.min, 0);
  EXPECT_EQ(h.max, 30);
  EXPECT_EQ(h.num, 7);
  EXPECT_EQ(h.sum, 79);
  EXPECT_EQ(h.squares, 900 + 1 + 2.25 + 29.5 * 29.5 + 4 + 225);
  ASSERT_EQ(h.limits.size(), 30u);
  ASSERT_EQ(h.counts.size(), 30u);
  for (std::size_t i = 0; i < 30; ++i) EXPECT_DOUBLE_EQ(h.limits[i], static_cast<double>(i + 1));
  std::vector<double> want(30);
  want[0] = 2, want[1] = 2, want[14] = 1, want[29] = 2;  // 0 and 1; 1.5 and 2; 15; 29.5 and 30
  EXPECT_EQ(h.counts, want);
}

TEST(TensorBoard, AHistogramOfOneValueIsOneBin) {
  const HistogramRead h = read_histogram(histogram_event(1, 2, "tag", std::vector<double>{3, 3, 3}));
  EXPECT_EQ(h.limits, std::vector<double>{3});
  EXPECT_EQ(h.counts, std::vector<double>{3});
  EXPECT_EQ(histogram_event(1, 2, "tag", std::vector<double>{std::nan("")}), "");
  EXPECT_EQ(histogram_event(1, 2, "tag", std::vector<double>{}), "");
}

TEST(TensorBoard, AnImageSaysItsSize) {
  const auto value = fields(fields(fields(image_event(1, 2, "tag", "PNG!", 640, 480)).at(2).bytes).at(0).bytes);
  EXPECT_EQ(value.at(1).number, 4);
  const auto image = fields(value.at(1).bytes);
  ASSERT_EQ(image.size(), 4u);
  EXPECT_EQ(image[0].number, 1);
  EXPECT_EQ(image[0].value, 480u);
  EXPECT_EQ(image[1].value, 640u);
  EXPECT_EQ(image[2].value, 3u);
  EXPECT_EQ(image[3].bytes, "PNG!");
}

TEST(TensorBoard, TheFileBeginsWithItsVersionAndGrows) {
  const Folder folder;
  TensorBoardLog log(folder.path / "a" / "b");
  EXPECT_EQ(log.file().parent_path(), folder.path / "a" / "b");
  EXPECT_EQ(log.file().filename().string().rfind("events.out.tfevents.", 0), 0u);
  auto all = records(text_of(log.file()));
  ASSERT_EQ(all.size(), 1u);
  EXPECT_EQ(fields(all[0]).at(1).number, 3);
  EXPECT_EQ(fields(all[0]).at(1).bytes, "brain.Event:2");
  EXPECT_NEAR(fields(all[0]).at(0).number64(), static_cast<double>(std::time(nullptr)), 5);
  log.scalar("loss", 1, 2.5);
  log.histogram("w", 1, std::vector<float>{1, 2});
  log.histogram("none", 1, std::vector<float>{std::nanf("")});
  log.image("map", 1, "PNG", 2, 3);
  all = records(text_of(log.file()));
  ASSERT_EQ(all.size(), 4u);
  EXPECT_EQ(fields(fields(fields(all[2]).at(2).bytes).at(0).bytes).at(0).bytes, "w");
  const TensorBoardLog other(folder.path / "a" / "b");
  EXPECT_NE(other.file(), log.file());
  EXPECT_EQ(records(text_of(log.file())).size(), 4u);
}

TEST(TensorBoard, AResumedRunSaysFromWhereItGoesOn) {
  const Folder folder;
  const TensorBoardLog log(folder.path, 7);
  const auto all = records(text_of(log.file()));
  ASSERT_EQ(all.size(), 2u);
  const auto start = fields(all[1]);
  EXPECT_EQ(start.at(1).value, 8u) << "the first step that it will write";
  EXPECT_EQ(start.at(2).number, 7);
  EXPECT_EQ(start.at(2).bytes, "\x08\x01");
}

TEST(TensorBoard, FoldersAndFilesThatCannotBeWrittenAreNamed) {
  const Folder folder;
  fs::create_directories(folder.path);
  std::ofstream(folder.path / "file") << "x";
  EXPECT_EQ(message_of([&] { TensorBoardLog log(folder.path / "file" / "x"); }),
            "tensorboard folder \"" + (folder.path / "file" / "x").string() + "\": cannot be made: Not a directory");
  TensorBoardLog log(folder.path / "gone");
  const fs::path file = log.file();
  fs::remove_all(folder.path / "gone");
  EXPECT_EQ(message_of([&] { log.scalar("loss", 1, 1); }),
            "tensorboard file \"" + file.string() + "\": cannot be written: No such file or directory");
}

TEST(TensorBoard, TensorBoardReadsScalarsAndHistograms) {
  const char* given = std::getenv("GRAFT_TEST_PYTHON");
  const std::string python = given != nullptr ? given : "python3";
  if (std::system((python + " -c 'import tensorboard' >/dev/null 2>&1").c_str()) != 0)
    GTEST_SKIP() << python << " has no tensorboard";
  const Folder folder;
  {
    TensorBoardLog log(folder.path);
    for (int step = 1; step <= 4; ++step) log.scalar("loss", step, 1.0 / step);
    std::vector<float> values;
    for (int i = 0; i <= 100; ++i) values.push_back(static_cast<float>(i) / 100);
    log.histogram("weights", 2, values);
  }
  {
    TensorBoardLog log(folder.path, 2);  // steps 3 and 4 are done again
    log.scalar("loss", 3, 30.0);
  }
  const fs::path script = folder.path / "read.py";
  std::ofstream(script) << R"(
import sys
from tensorboard.backend.event_processing import event_accumulator as ea
log = ea.EventAccumulator(sys.argv[1], size_guidance={ea.SCALARS: 0, ea.HISTOGRAMS: 0})
log.Reload()
print([(e.step, e.value) for e in log.Scalars("loss")])
for e in log.Histograms("weights"):
    h = e.histogram_value
    print(e.step, h.num, h.min, h.max, round(h.sum, 4), round(sum(h.bucket)), len(h.bucket))
)";
  const fs::path out = folder.path / "out.txt";
  ASSERT_EQ(std::system(
                (python + " " + script.string() + " " + folder.path.string() + " >" + out.string() + " 2>" + out.string() + ".err")
                    .c_str()),
            0)
      << text_of(out.string() + ".err");
  EXPECT_EQ(text_of(out), "[(1, 1.0), (2, 0.5), (3, 30.0)]\n2 101.0 0.0 1.0 50.5 101 30\n");
}

}  // namespace
}  // namespace graft::report
