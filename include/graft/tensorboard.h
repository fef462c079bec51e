#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace graft::report {

/// An event file that TensorBoard opens (tensorboard --logdir FOLDER): scalars, histograms and images by step. Each value is in the file
/// when the call returns.
class TensorBoardLog {
 public:
  /// Makes the folder if needed and a new file in it, named by time, host and process. After `resume_step` steps of an earlier run TensorBoard
  /// then drops what that run wrote of later steps. Throws Error naming the file when it cannot be written; so do the others.
  explicit TensorBoardLog(const std::filesystem::path& folder, std::int64_t resume_step = 0);
  void scalar(std::string_view tag, std::int64_t step, double value);
  /// The distribution of values, in 30 equal bins from the least to the largest. What is not finite is left out; without a finite value
  /// nothing is written.
  void histogram(std::string_view tag, std::int64_t step, std::span<const float> values);
  void histogram(std::string_view tag, std::int64_t step, std::span<const double> values);
  /// A PNG of the given size, attention_png's for example.
  void image(std::string_view tag, std::int64_t step, std::string_view png, std::int64_t width, std::int64_t height);
  const std::filesystem::path& file() const { return file_; }

 private:
  void write(std::string_view event);
  std::filesystem::path file_;
};

}  // namespace graft::report
