#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace graft {

/// A CSV file that grows by a row a step: numbers under the given columns, the first of which is the step. Rows are flushed at once.
class MetricsLog {
 public:
  /// Opens or makes the file. Rows of an earlier run up to and including `resume_step` are kept, later ones (of steps that will be done again) and
  /// half-written ones are dropped; 0 starts anew. Throws Error naming the file when it cannot be written or has other columns.
  MetricsLog(std::filesystem::path file, std::vector<std::string> columns, std::int64_t resume_step = 0);
  /// One value a column; NaN is written as an empty cell.
  void append(const std::vector<double>& row);
  /// All rows in the file, NaN for empty cells.
  const std::vector<std::vector<double>>& rows() const { return rows_; }
  const std::vector<std::string>& columns() const { return columns_; }

 private:
  std::filesystem::path file_;
  std::vector<std::string> columns_;
  std::vector<std::vector<double>> rows_;
};

/// A line of a chart. `points` draws markers at each (x, y), otherwise they are joined; `faint` makes it a background line.
struct Series {
  std::string name;
  std::vector<std::pair<double, double>> xy;  ///< NaN points are passed over
  std::string colour = "#1f77b4";
  bool points = false, faint = false;
};

/// Writes a chart as a self-contained SVG. Throws Error naming the file when it cannot be written.
void write_chart_svg(const std::filesystem::path& file, const std::string& title, const std::string& x_label, const std::string& y_label,
                     const std::vector<Series>& series);

/// The points smoothed by an exponential moving average of the given weight of the past, bias-corrected.
std::vector<std::pair<double, double>> smoothed(const std::vector<std::pair<double, double>>& xy, double weight = 0.95);

}  // namespace graft
