#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "graft/types.h"

namespace graft {

/// Tensors of a training run by path, as in the file: "model/<parameter>", "optimizer/<slot>/<parameter>", "rng/counter",
/// "data/train".
struct SavedTensor {
  std::string path;
  TensorType type;
  std::vector<std::byte> bytes;  ///< row-major, this machine's byte order
};

/// A checkpoint in memory; what write_checkpoint writes and read_checkpoint gives back.
struct Checkpoint {
  std::int64_t step = 0;
  std::uint64_t graph_hash = 0;
  std::string config;    ///< JSON: what the model and the run were made with
  std::string schedule;  ///< the learning rate schedule as text, for people
  /// What CheckpointFolder::save was given, NaN when there is none.
  double metric = std::numeric_limits<double>::quiet_NaN();
  std::vector<SavedTensor> tensors;  ///< in any order; read_checkpoint gives them by path

  /// The tensor at `path`; throws Error that lists the near ones.
  const SavedTensor& at(std::string_view path) const;
  bool contains(std::string_view path) const;
};

/// Version of the layout that this build writes; it reads this one and older ones.
inline constexpr int kCheckpointVersion = 1;

/// Writes an HDF5 file whole or not at all: a temporary file in the same folder, closed, fsynced, renamed, folder fsynced.
/// Throws Error naming the file; whatever stood there before is then untouched.
void write_checkpoint(const std::filesystem::path& file, const Checkpoint& checkpoint);
/// Throws Error naming the file and what is wrong: missing, not a checkpoint, truncated, incomplete, a checksum that fails, a newer
/// version.
Checkpoint read_checkpoint(const std::filesystem::path& file);

/// The file of the highest step in a folder of checkpoints, and its best.h5; an empty path when there is none. They only look.
std::filesystem::path latest_checkpoint(const std::filesystem::path& folder);
std::filesystem::path best_checkpoint(const std::filesystem::path& folder);

/// A folder that keeps the last n checkpoints and the best one: step-00000100.h5, …, and best.h5.
class CheckpointFolder {
 public:
  /// Makes the folder if needed, and removes what killed writers left; throws Error when it cannot be written to, or when the
  /// best.h5 in it cannot be read.
  CheckpointFolder(std::filesystem::path folder, int keep_last = 2);
  /// Writes the checkpoint under its step, then removes files of lower steps, so that keep_last remain with this one. If `metric`
  /// (smaller is better; NaN never is) beats that of best.h5, it is kept under that name too. Returns the file.
  std::filesystem::path save(const Checkpoint& checkpoint, double metric);
  std::filesystem::path latest() const { return latest_checkpoint(folder_); }
  std::filesystem::path best() const { return best_checkpoint(folder_); }
  const std::filesystem::path& path() const { return folder_; }

 private:
  std::filesystem::path folder_;
  int keep_last_;
  double best_metric_ = std::numeric_limits<double>::quiet_NaN();
};

}  // namespace graft
