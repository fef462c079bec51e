// What is in checkpoints and safetensors files, and how two differ.
#include "graft/inspect.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <fstream>

#include "graft/bf16.h"
#include "tests/message.h"

namespace graft::report {
namespace {

using graft::testing::message_of;
namespace fs = std::filesystem;

template <class T>
std::vector<std::byte> bytes_of(const std::vector<T>& values) {
  std::vector<std::byte> bytes(values.size() * sizeof(T));
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

class Inspect : public ::testing::Test {
 protected:
  void SetUp() override {
    folder = fs::path(::testing::TempDir()) / ("inspect-" + std::to_string(::getpid()));
    fs::remove_all(folder);
    fs::create_directories(folder);
  }
  void TearDown() override { fs::remove_all(folder); }
  /// A checkpoint with a matrix, a scalar and numbers.
  fs::path checkpoint(const std::string& name, std::vector<float> matrix = {1, 2, 3, 4}, std::int64_t rows = 2) {
    Checkpoint c;
    c.step = 12;
    c.schedule = "constant";
    const std::int64_t columns = static_cast<std::int64_t>(matrix.size()) / rows;
    c.tensors.push_back({"model/w", {DType::f32, {rows, columns}}, bytes_of(matrix)});
    c.tensors.push_back({"data/train", {DType::u32, {2}}, bytes_of(std::vector<std::uint32_t>{7, 0xffffffffu})});
    c.tensors.push_back({"model/s", {DType::f64, {}}, bytes_of(std::vector<double>{0.5})});
    c.tensors.push_back(
        {"model/b", {DType::bf16, {2}}, bytes_of(std::vector<std::uint16_t>{to_bf16(1.5f).bits, to_bf16(-2.0f).bits})});
    write_checkpoint(folder / name, c);
    return folder / name;
  }
  fs::path safetensors(const std::string& name, const std::vector<float>& values, const std::string& dtype = "F32") {
    const auto bytes = dtype == "F32" ? bytes_of(values) : bytes_of(std::vector<double>(values.begin(), values.end()));
    const std::vector<hf::StoredTensor> tensors = {{"w", dtype, {static_cast<std::int64_t>(values.size())}, bytes}};
    hf::write_safetensors(folder / name, tensors);
    return folder / name;
  }
  fs::path folder;
};

TEST_F(Inspect, StatisticsCountEveryElement) {
  const std::vector<float> values = {0, -0.0f, 3, -1, std::nanf(""), HUGE_VALF, -HUGE_VALF, 4};
  const auto bytes = bytes_of(values);
  const TensorStatistics s = statistics({"w", "F32", {2, 4}, bytes});
  EXPECT_EQ(s.count, 8);
  EXPECT_EQ(s.zeros, 2);
  EXPECT_EQ(s.nan, 1);
  EXPECT_EQ(s.infinite, 2);
  EXPECT_EQ(s.min, -1);
  EXPECT_EQ(s.max, 4);
  EXPECT_DOUBLE_EQ(s.mean, 6.0 / 5);
  EXPECT_DOUBLE_EQ(s.stddev, std::sqrt((1.44 * 2 + 1.8 * 1.8 + 2.2 * 2.2 + 2.8 * 2.8) / 5));
  const auto none = bytes_of(std::vector<float>{std::nanf("")});
  EXPECT_TRUE(std::isnan(statistics({"w", "F32", {1}, none}).min));
  EXPECT_TRUE(std::isnan(statistics({"w", "F32", {0, 3}, {}}).stddev));
  EXPECT_EQ(statistics({"w", "F32", {0, 3}, {}}).count, 0);
}

TEST_F(Inspect, LongTensorsAreReadInPieces) {
  std::vector<double> values(40000, 1.0);
  values[16384] = -7, values[39999] = 9;
  const auto bytes = bytes_of(values);
  const TensorStatistics s = statistics({"w", "F64", {40000}, bytes});
  EXPECT_EQ(s.count, 40000);
  EXPECT_EQ(s.min, -7);
  EXPECT_EQ(s.max, 9);
  EXPECT_DOUBLE_EQ(s.mean, 1.0);
}

TEST_F(Inspect, ACheckpointIsListedByName) {
  const TensorFile file(checkpoint("c.h5"));
  EXPECT_EQ(file.format(), "graft checkpoint");
  EXPECT_EQ(describe(file), (folder / "c.h5").string() +
                                ": graft checkpoint, 4 tensors, 9 elements, 36 B\n"
                                "step: 12\n"
                                "schedule: constant\n"
                                "\n"
                                "name        type       min       max      mean       std  zeros  NaN  inf\n"
                                "data/train  U32[2]       7  4.29e+09  2.15e+09  2.15e+09      0    0    0\n"
                                "model/b     BF16[2]     -2       1.5     -0.25      1.75      0    0    0\n"
                                "model/s     F64[]      0.5       0.5       0.5         0      0    0    0\n"
                                "model/w     F32[2, 2]    1         4       2.5      1.12      0    0    0\n");
  CheckpointFolder run(folder / "run");
  Checkpoint c = read_checkpoint(folder / "c.h5");
  c.config = "{\"a\":1}";
  run.save(c, 0.25);
  const TensorFile latest(folder / "run");
  EXPECT_EQ(latest.path(), folder / "run" / "step-00000012.h5");
  EXPECT_EQ(latest.facts(), (std::vector<std::pair<std::string, std::string>>{
                                {"step", "12"}, {"metric", "0.25"}, {"schedule", "constant"}, {"config", "{\"a\":1}"}}));
}

TEST_F(Inspect, SafetensorsAreFoundByNameByContentAndInFolders) {
  safetensors("model.safetensors", {1, 2});
  EXPECT_EQ(TensorFile(folder / "model.safetensors").format(), "safetensors");
  EXPECT_EQ(TensorFile(folder).tensors().size(), 1u);
  fs::copy(folder / "model.safetensors", folder / "weights.bin");
  const TensorFile file(folder / "weights.bin");
  EXPECT_EQ(file.facts(), (std::vector<std::pair<std::string, std::string>>{{"format", "pt"}}));
  EXPECT_EQ(file.tensors()[0].name, "w");
  std::ofstream(folder / "bad.safetensors") << "x";
  EXPECT_NE(message_of([&] { TensorFile bad(folder / "bad.safetensors"); }).find("bad.safetensors\": "), std::string::npos);
}

TEST_F(Inspect, ForeignFilesAreRefusedByName) {
  std::ofstream(folder / "text") << "0123456789";
  std::ofstream(folder / "tiny") << "1";
  fs::create_directories(folder / "empty");
  const auto named = [&](const std::string& name, const std::string& what) {
    return "\"" + (folder / name).string() + "\": " + what;
  };
  EXPECT_EQ(message_of([&] { TensorFile f(folder / "text"); }),
            named("text", "is neither a graft checkpoint nor a safetensors file"));
  EXPECT_EQ(message_of([&] { TensorFile f(folder / "tiny"); }),
            named("tiny", "is neither a graft checkpoint nor a safetensors file"));
  EXPECT_EQ(message_of([&] { TensorFile f(folder / "gone"); }), named("gone", "no such file or folder"));
  EXPECT_EQ(message_of([&] { TensorFile f(folder / "empty"); }),
            named("empty", "the folder holds neither a checkpoint nor a model.safetensors"));
  std::ofstream(folder / "other.h5") << "\x89HDF\r\n\x1a\n and more";
  EXPECT_NE(message_of([&] { TensorFile f(folder / "other.h5"); }).find("checkpoint \""), std::string::npos);
}

TEST_F(Inspect, EqualFilesAreTheSame) {
  const Comparison c = compare(TensorFile(checkpoint("a.h5")), TensorFile(checkpoint("b.h5")));
  EXPECT_TRUE(c.different.empty());
  EXPECT_EQ(c.same, 4);
  EXPECT_EQ(describe(c), "0 different, 4 the same\n");
  const float nan = std::nanf("");
  EXPECT_EQ(compare(TensorFile(safetensors("a.safetensors", {nan, HUGE_VALF})),
                    TensorFile(safetensors("b.safetensors", {nan, HUGE_VALF})))
                .same,
            1);
}

TEST_F(Inspect, ValuesThatDifferAreMeasured) {
  const Comparison c = compare(TensorFile(checkpoint("a.h5")), TensorFile(checkpoint("b.h5", {1, 2.5f, 3, -4})));
  ASSERT_EQ(c.different.size(), 1u);
  EXPECT_EQ(c.same, 3);
  EXPECT_EQ(c.different[0].name, "model/w");
  EXPECT_EQ(c.different[0].differing, 2);
  EXPECT_EQ(c.different[0].largest, 8);
  EXPECT_EQ(c.different[0].largest_relative, 2);
  EXPECT_EQ(describe(c),
            "name     first      second     differing  largest  relative\n"
            "model/w  F32[2, 2]  F32[2, 2]          2        8         2\n"
            "\n"
            "1 different, 3 the same\n");
  for (const auto& [x, y] :
       std::vector<std::pair<float, float>>{{std::nanf(""), 1}, {HUGE_VALF, 1}, {1, std::nanf("")}, {HUGE_VALF, -HUGE_VALF}}) {
    const Comparison d =
        compare(TensorFile(safetensors("a.safetensors", {x, 5})), TensorFile(safetensors("b.safetensors", {y, 5})));
    ASSERT_EQ(d.different.size(), 1u);
    EXPECT_EQ(d.different[0].differing, 1);
    EXPECT_EQ(d.different[0].largest, HUGE_VAL);
    EXPECT_EQ(d.different[0].largest_relative, HUGE_VAL);
  }
  std::vector<float> a(40000, 1), b = a;
  b[39999] = 1.5;
  EXPECT_EQ(
      compare(TensorFile(safetensors("a.safetensors", a)), TensorFile(safetensors("b.safetensors", b))).different[0].differing, 1)
      << "beyond the first piece";
}

TEST_F(Inspect, NamesAndTypesThatDifferAreTold) {
  const Comparison names = compare(TensorFile(checkpoint("a.h5")), TensorFile(safetensors("b.safetensors", {1})));
  EXPECT_EQ(names.same, 0);
  ASSERT_EQ(names.different.size(), 5u);
  EXPECT_EQ(names.different[0].second, "");
  EXPECT_EQ(names.different[4].name, "w");
  EXPECT_EQ(names.different[4].first, "");
  EXPECT_NE(describe(names).find("\nw           -          F32[1]\n"), std::string::npos) << describe(names);

  const Comparison shapes = compare(TensorFile(checkpoint("a.h5")), TensorFile(checkpoint("b.h5", {1, 2, 3, 4}, 1)));
  ASSERT_EQ(shapes.different.size(), 1u);
  EXPECT_EQ(shapes.different[0].first, "F32[2, 2]");
  EXPECT_EQ(shapes.different[0].second, "F32[1, 4]");
  EXPECT_EQ(shapes.different[0].differing, 0);

  const Comparison dtypes =
      compare(TensorFile(safetensors("a.safetensors", {1, 2})), TensorFile(safetensors("b.safetensors", {1, 2}, "F64")));
  ASSERT_EQ(dtypes.different.size(), 1u) << "the same values in another type are not the same tensor";
  EXPECT_EQ(dtypes.different[0].differing, 0);
}

}  // namespace
}  // namespace graft::report
