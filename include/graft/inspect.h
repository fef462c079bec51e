#pragma once
#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "graft/checkpoint.h"
#include "graft/safetensors.h"

/// What is in checkpoints and safetensors files, and how two of them differ: what `graft inspect` shows.
namespace graft::report {

/// The tensors of a file, whatever its format.
class TensorFile {
 public:
  /// A checkpoint of graft, a safetensors file or index, or a folder: a Hugging Face folder, or the latest checkpoint of a run.
  /// Throws Error naming the file when it is none of them or damaged.
  explicit TensorFile(const std::filesystem::path& path);
  TensorFile(const TensorFile&) = delete;
  TensorFile& operator=(const TensorFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  const std::string& format() const { return format_; }  ///< "graft checkpoint" or "safetensors"
  /// What the file says beside its tensors: step, metric, schedule, configuration; the metadata of safetensors.
  const std::vector<std::pair<std::string, std::string>>& facts() const { return facts_; }
  const std::vector<hf::StoredTensor>& tensors() const { return tensors_; }  ///< by name

 private:
  std::filesystem::path path_;
  std::string format_;
  std::vector<std::pair<std::string, std::string>> facts_;
  std::vector<hf::StoredTensor> tensors_;
  Checkpoint checkpoint_;                     // holds the bytes of one format
  std::vector<hf::Safetensors> safetensors_;  // and of the other
};

/// Of the elements of a tensor; min to stddev (biased) of the finite ones, NaN if there is none.
struct TensorStatistics {
  std::int64_t count = 0, zeros = 0, nan = 0, infinite = 0;
  double min = std::numeric_limits<double>::quiet_NaN(), max = min, mean = min, stddev = min;
};
TensorStatistics statistics(const hf::StoredTensor& tensor);

/// A tensor that two files do not have alike.
struct TensorDifference {
  std::string name;
  std::string first, second;  ///< types as "F32[3, 4]"; "" where the file has no such tensor
  /// With equal shapes: elements that differ, the largest |a − b|, and the largest |a − b| / max(|a|, |b|). NaN equals NaN; otherwise what is
  /// not finite differs from everything else by infinity.
  std::int64_t differing = 0;
  double largest = 0, largest_relative = 0;
};
/// How two files differ.
struct Comparison {
  std::vector<TensorDifference> different;  ///< by name
  std::int64_t same = 0;                    ///< tensors with the same type and values
};
Comparison compare(const TensorFile& first, const TensorFile& second);

/// Tables for people.
std::string describe(const TensorFile& file);
std::string describe(const Comparison& comparison);

}  // namespace graft::report
