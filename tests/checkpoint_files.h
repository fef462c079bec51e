#pragma once
// What the tests of checkpoints share: a folder of their own, sample checkpoints, whole files as strings, messages.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "graft/checkpoint.h"
#include "graft/error.h"
#include "graft/philox.h"

namespace graft::checkpoint_files {

/// An empty folder, removed at the end.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    const std::string name =
        std::string("graft_") + test->test_suite_name() + "_" + test->name() + "_" + std::to_string(::getpid());
    path_ = std::filesystem::path(testing::TempDir()) / name;
    std::filesystem::remove_all(path_);
    std::filesystem::create_directories(path_);
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }
  const std::filesystem::path& path() const { return path_; }
  /// Names of everything in it, sorted.
  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(path_)) names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
  }

 private:
  std::filesystem::path path_;
};

/// Random bits: any of them must survive, NaN and denormals included.
inline SavedTensor tensor(std::string path, DType dtype, Shape shape, std::uint32_t seed) {
  SavedTensor made{std::move(path), {dtype, shape}, {}};
  made.bytes.resize(made.type.bytes());
  for (std::size_t i = 0; i < made.bytes.size(); i += 16) {
    const philox::Block block = philox::block({static_cast<std::uint32_t>(i), 0, 0, 0}, seed);
    std::memcpy(&made.bytes[i], block.data(), std::min<std::size_t>(16, made.bytes.size() - i));
  }
  return made;
}

inline Checkpoint sample() {
  Checkpoint checkpoint;
  checkpoint.step = 123456789012;
  checkpoint.graph_hash = 0xFEDCBA9876543210u;
  checkpoint.config = R"({"layers": 2, "text": "a \"quoted\" naïve µ"})";
  checkpoint.schedule = "cosine(0.001, 100, 2000)";
  checkpoint.metric = 1.75;
  checkpoint.tensors = {
      tensor("data/train", DType::u32, Shape{2}, 1),
      tensor("model/bias", DType::f32, Shape{5}, 2),
      tensor("model/half.weight", DType::bf16, Shape{3, 7}, 3),
      tensor("model/model.layers.0.self_attn.q_proj.weight", DType::f32, Shape{6, 4}, 4),
      tensor("model/scalar", DType::f64, Shape{}, 5),
      tensor("optimizer/exp_avg/bias", DType::f64, Shape{1, 5}, 6),
      tensor("rng/counter", DType::u32, Shape{}, 7),
      tensor("step", DType::u32, Shape{1}, 8),
  };
  return checkpoint;
}

/// A checkpoint of some 600 KB.
inline Checkpoint large() {
  Checkpoint checkpoint = sample();
  checkpoint.tensors.push_back(tensor("zzz", DType::f32, Shape{300, 500}, 9));
  return checkpoint;
}

template <class T>
SavedTensor tensor_of(std::string path, DType dtype, Shape shape, const std::vector<T>& values) {
  SavedTensor made{std::move(path), {dtype, shape}, std::vector<std::byte>(values.size() * sizeof(T))};
  std::memcpy(made.bytes.data(), values.data(), made.bytes.size());
  return made;
}

/// One of numbers that can be told apart by eye; the files in tests/golden/checkpoints hold it.
inline Checkpoint plain_sample() {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  Checkpoint c;
  c.step = 1234567890123;
  c.graph_hash = 0xFEDCBA9876543210u;
  c.config = "{\"layers\": 2, \"text\": \"na\u00efve \u00b5, a\\nb\"}";
  c.schedule = "cosine base=0.001 min=1e-04 total=2000 warmup=100";
  c.metric = 1.375;
  std::vector<float> rows(63 * 17);
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<float>(i) / 8.0f - 60.0f;
  c.tensors = {
      tensor_of<std::uint32_t>("data/train", DType::u32, {3}, {7, 0xFFFFFFFF, 1000}),
      tensor_of<float>("model/bias", DType::f32, {5}, {0.0f, -0.0f, 1.0f, 3.40282347e38f, 1.40129846e-45f}),
      tensor_of<std::uint16_t>("model/half.weight", DType::bf16, {2, 3}, {0x3F80, 0xC040, 0x0001, 0x7F80, 0xFF80, 0x7F7F}),
      tensor_of<float>("model/model.layers.0.self_attn.q_proj.weight", DType::f32, {63, 17}, rows),
      tensor_of<double>("model/scalar", DType::f64, {}, {0.1}),
      tensor_of<double>("optimizer/exp_avg/bias", DType::f64, {1, 4}, {1e-300, -kInfinity, kInfinity, 2.5}),
      tensor_of<std::uint32_t>("optimizer/step", DType::u32, {}, {41}),
      tensor_of<std::uint32_t>("rng/counter", DType::u32, {1}, {0xFF030201}),
  };
  return c;
}

inline void expect_same(const Checkpoint& got, const Checkpoint& expected) {
  EXPECT_EQ(got.step, expected.step);
  EXPECT_EQ(got.graph_hash, expected.graph_hash);
  EXPECT_EQ(got.config, expected.config);
  EXPECT_EQ(got.schedule, expected.schedule);
  EXPECT_EQ(std::memcmp(&got.metric, &expected.metric, sizeof(double)), 0) << got.metric << " and " << expected.metric;
  ASSERT_EQ(got.tensors.size(), expected.tensors.size());
  for (std::size_t i = 0; i < got.tensors.size(); ++i) {
    EXPECT_EQ(got.tensors[i].path, expected.tensors[i].path);
    EXPECT_EQ(to_string(got.tensors[i].type), to_string(expected.tensors[i].type)) << got.tensors[i].path;
    EXPECT_TRUE(got.tensors[i].bytes == expected.tensors[i].bytes) << got.tensors[i].path;
  }
}

inline std::string contents(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  EXPECT_TRUE(in) << file;
  return {std::istreambuf_iterator<char>(in), {}};
}

inline void put(const std::filesystem::path& file, std::string_view bytes) {
  std::ofstream(file, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

/// The message of the Error that `action` throws, "" when it throws none.
inline std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

inline std::string read_error(const std::filesystem::path& file) {
  return error_of([&] { read_checkpoint(file); });
}

/// The message that reading or writing `file` is to give.
inline std::string message(const std::filesystem::path& file, const std::string& what) {
  return "checkpoint \"" + file.string() + "\": " + what;
}

}  // namespace graft::checkpoint_files
