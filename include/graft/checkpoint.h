#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
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

/// Writes an HDF5 file whole or not at all: a temporary file in the same folder, fsynced, renamed, folder fsynced.
/// Throws Error naming the file; whatever stood there before is then untouched.
void write_checkpoint(const std::filesystem::path& file, const Checkpoint& checkpoint);
/// Throws Error naming the file and what is wrong: missing, not a checkpoint, truncated, incomplete, a checksum that fails, a newer
/// version.
Checkpoint read_checkpoint(const std::filesystem::path& file);

/// The file of the highest step in a folder of checkpoints, and its best.h5; an empty path when there is none. They only look.
std::filesystem::path latest_checkpoint(const std::filesystem::path& folder);
std::filesystem::path best_checkpoint(const std::filesystem::path& folder);

/// A folder that keeps the last n checkpoints and the best one: step-00000100.h5, …, and best.h5. Used by one thread.
class CheckpointFolder {
 public:
  /// Makes the folder if needed, locks it as long as this lives, and removes what killed writers left. Throws Error when it cannot be
  /// written to, when another process saves to it, or when the best.h5 in it cannot be read.
  explicit CheckpointFolder(std::filesystem::path folder, int keep_last = 2);
  /// Waits for a save that is under way; what went wrong with it is lost unless flush was called.
  ~CheckpointFolder();
  CheckpointFolder(const CheckpointFolder&) = delete;
  CheckpointFolder& operator=(const CheckpointFolder&) = delete;

  /// Writes the checkpoint under its step, then removes files of lower steps, so that keep_last remain with this one. If `metric`
  /// (smaller is better; NaN never is) beats that of best.h5, it is kept under that name too. Returns the file.
  /// Throws Error when something fails: the checkpoints that were there before are there still.
  std::filesystem::path save(const Checkpoint& checkpoint, double metric);
  /// The same beside training, in a thread of its own: returns at once. The checkpoint is a copy (Session::snapshot), which the
  /// next step cannot change. One save is under way at a time: save, save_async and flush first wait for the one before and throw what
  /// went wrong with it, once; nothing is begun then.
  void save_async(Checkpoint checkpoint, double metric);
  /// Whether a save begun by save_async has not ended yet.
  bool saving() const;
  void flush();

  std::filesystem::path latest() const { return latest_checkpoint(folder_); }
  std::filesystem::path best() const { return best_checkpoint(folder_); }
  const std::filesystem::path& path() const { return folder_; }

 private:
  struct State;
  std::filesystem::path write(const Checkpoint& checkpoint, double metric);
  std::filesystem::path folder_;
  int keep_last_;
  double best_metric_ = std::numeric_limits<double>::quiet_NaN();
  std::unique_ptr<State>
      state_;  // the lock, the save under way; last: it waits for the thread before the members go that that uses
};

}  // namespace graft
