// Checkpoints of every format version that was ever written, as files that are never written again: each must load as long as graft
// lives. A new version adds its file (write_checkpoint of `plain_sample`) and its line here; the old ones stay as they are.
#include <gtest/gtest.h>

#include "tests/checkpoint_files.h"

namespace graft {
namespace {

using namespace checkpoint_files;

TEST(CheckpointVersions, EveryOneStillLoads) {
  const std::filesystem::path folder = std::filesystem::path(GRAFT_SOURCE_DIR) / "tests" / "golden" / "checkpoints";
  for (int version = 1; version <= kCheckpointVersion; ++version) {
    const auto file = folder / ("version-" + std::to_string(version) + ".h5");
    ASSERT_TRUE(std::filesystem::exists(file)) << file << " is missing";
    expect_same(read_checkpoint(file), plain_sample());
  }
}

}  // namespace
}  // namespace graft
