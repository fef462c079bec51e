// Checkpoints of every format version that was ever written, as files that are never written again: each must load as long as graft
// lives. A new version adds its file (write_checkpoint of what `written` gives) and its line here; the old ones stay as they are.
#include <gtest/gtest.h>

#include <limits>

#include "tests/checkpoint_files.h"

namespace graft {
namespace {

using namespace checkpoint_files;

template <class T>
SavedTensor of(std::string path, DType dtype, Shape shape, const std::vector<T>& values) {
  SavedTensor made{std::move(path), {dtype, shape}, std::vector<std::byte>(values.size() * sizeof(T))};
  std::memcpy(made.bytes.data(), values.data(), made.bytes.size());
  return made;
}

/// What stands in the files, by path.
Checkpoint written() {
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
      of<std::uint32_t>("data/train", DType::u32, {3}, {7, 0xFFFFFFFF, 1000}),
      of<float>("model/bias", DType::f32, {5}, {0.0f, -0.0f, 1.0f, 3.40282347e38f, 1.40129846e-45f}),
      of<std::uint16_t>("model/half.weight", DType::bf16, {2, 3}, {0x3F80, 0xC040, 0x0001, 0x7F80, 0xFF80, 0x7F7F}),
      of<float>("model/model.layers.0.self_attn.q_proj.weight", DType::f32, {63, 17}, rows),
      of<double>("model/scalar", DType::f64, {}, {0.1}),
      of<double>("optimizer/exp_avg/bias", DType::f64, {1, 4}, {1e-300, -kInfinity, kInfinity, 2.5}),
      of<std::uint32_t>("optimizer/step", DType::u32, {}, {41}),
      of<std::uint32_t>("rng/counter", DType::u32, {1}, {0xFF030201}),
  };
  return c;
}

TEST(CheckpointVersions, EveryOneStillLoads) {
  const std::filesystem::path folder = std::filesystem::path(GRAFT_SOURCE_DIR) / "tests" / "golden" / "checkpoints";
  for (int version = 1; version <= kCheckpointVersion; ++version) {
    const auto file = folder / ("version-" + std::to_string(version) + ".h5");
    ASSERT_TRUE(std::filesystem::exists(file)) << file << " is missing";
    expect_same(read_checkpoint(file), written());
  }
}

}  // namespace
}  // namespace graft
