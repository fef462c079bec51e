#include "graft/inspect.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <map>

#include "graft/error.h"
#include "src/report/svg.h"

namespace graft::report {
namespace {

namespace fs = std::filesystem;
using detail::byte_text;
using detail::grouped;
using detail::short_number;

constexpr std::int64_t kChunk = 1 << 14;

bool is_checkpoint(const fs::path& file) {
  std::array<char, 16> begin{};
  std::ifstream in(file, std::ios::binary);
  in.read(begin.data(), begin.size());
  const std::string_view text(begin.data(), static_cast<std::size_t>(in.gcount()));
  return text.starts_with("graft checkpoint") || text.starts_with("\x89HDF");
}

bool is_safetensors(const fs::path& file) {
  if (file.extension() == ".safetensors" || file.extension() == ".json") return true;
  std::array<char, 9> begin{};  // the length of the header, then its JSON
  std::ifstream in(file, std::ios::binary);
  in.read(begin.data(), begin.size());
  return in.gcount() == 9 && begin[8] == '{';
}

const char* word_of(DType dtype) {
  switch (dtype) {
    case DType::f32: return "F32";
    case DType::f64: return "F64";
    case DType::bf16: return "BF16";
    case DType::u32: return "U32";
  }
  return "";
}

/// Calls use(values) with the elements of a tensor, a chunk at a time.
void in_chunks(const hf::StoredTensor& tensor, const auto& use) {
  std::vector<double> values;
  for (std::int64_t first = 0; first < tensor.elements(); first += kChunk) {
    values.resize(static_cast<std::size_t>(std::min(kChunk, tensor.elements() - first)));
    hf::read_values(tensor, first, std::span<double>(values));
    use(values);
  }
}

/// Rows of cells as lines; the columns from `right` on are set to the right.
std::string table(const std::vector<std::vector<std::string>>& rows, std::size_t right) {
  std::vector<std::size_t> width;
  for (const auto& row : rows)
    for (std::size_t c = 0; c < row.size(); ++c) {
      width.resize(std::max(width.size(), c + 1));
      width[c] = std::max(width[c], row[c].size());
    }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t c = 0; c < row.size(); ++c) {
      const std::string blank(width[c] - row[c].size(), ' ');
      line += (c > 0 ? "  " : "") + (c >= right ? blank + row[c] : row[c] + blank);
    }
    text += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
  }
  return text;
}

std::string cell(double value) { return std::isnan(value) ? "-" : short_number(value); }

}  // namespace

TensorFile::TensorFile(const fs::path& path) : path_(path) {
  if (!fs::exists(path)) throw Error("\"" + path.string() + "\": no such file or folder");
  if (fs::is_directory(path) && !fs::exists(path / "model.safetensors") && !fs::exists(path / "model.safetensors.index.json")) {
    path_ = latest_checkpoint(path);
    if (path_.empty()) throw Error("\"" + path.string() + "\": the folder holds neither a checkpoint nor a model.safetensors");
  }
  if (!fs::is_directory(path_) && is_checkpoint(path_)) {
    format_ = "graft checkpoint";
    checkpoint_ = read_checkpoint(path_);
    facts_.emplace_back("step", std::to_string(checkpoint_.step));
    if (!std::isnan(checkpoint_.metric)) facts_.emplace_back("metric", short_number(checkpoint_.metric));
    if (!checkpoint_.schedule.empty()) facts_.emplace_back("schedule", checkpoint_.schedule);
    if (!checkpoint_.config.empty()) facts_.emplace_back("config", checkpoint_.config);
    for (const SavedTensor& t : checkpoint_.tensors) {
      std::vector<std::int64_t> shape;
      for (int axis = 0; axis < t.type.shape.rank(); ++axis) shape.push_back(t.type.shape[axis]);
      tensors_.push_back({t.path, word_of(t.type.dtype), std::move(shape), t.bytes});
    }
    std::sort(tensors_.begin(), tensors_.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  } else if (fs::is_directory(path_) || is_safetensors(path_)) {
    format_ = "safetensors";
    const hf::Safetensors& file = safetensors_.emplace_back(path_);
    if (file.files().size() > 1) facts_.emplace_back("files", std::to_string(file.files().size()));
    facts_.insert(facts_.end(), file.metadata().begin(), file.metadata().end());
    tensors_ = file.tensors();
  } else {
    throw Error("\"" + path_.string() + "\": is neither a graft checkpoint nor a safetensors file");
  }
}

TensorStatistics statistics(const hf::StoredTensor& tensor) {
  TensorStatistics s;
  double sum = 0, squares = 0, low = HUGE_VAL, high = -HUGE_VAL;
  in_chunks(tensor, [&](const std::vector<double>& values) {
    for (double x : values) {
      ++s.count;
      s.zeros += x == 0;
      s.nan += std::isnan(x);
      s.infinite += std::isinf(x);
      if (!std::isfinite(x)) continue;
      sum += x;
      low = std::min(low, x), high = std::max(high, x);
    }
  });
  const auto finite = static_cast<double>(s.count - s.nan - s.infinite);
  if (finite == 0) return s;
  s.min = low, s.max = high, s.mean = sum / finite;
  in_chunks(tensor, [&](const std::vector<double>& values) {
    for (double x : values)
      if (std::isfinite(x)) squares += (x - s.mean) * (x - s.mean);
  });
  s.stddev = std::sqrt(squares / finite);
  return s;
}

namespace {

void compare_values(const hf::StoredTensor& a, const hf::StoredTensor& b, TensorDifference& d) {
  std::int64_t first = 0;
  std::vector<double> other;
  in_chunks(a, [&](const std::vector<double>& values) {
    other.resize(values.size());
    hf::read_values(b, first, std::span<double>(other));
    first += static_cast<std::int64_t>(values.size());
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double x = values[i], y = other[i];
      if (x == y || (std::isnan(x) && std::isnan(y))) continue;
      ++d.differing;
      const bool finite = std::isfinite(x) && std::isfinite(y);
      d.largest = std::max(d.largest, finite ? std::abs(x - y) : HUGE_VAL);
      d.largest_relative = std::max(d.largest_relative, finite ? std::abs(x - y) / std::max(std::abs(x), std::abs(y)) : HUGE_VAL);
    }
  });
}

}  // namespace

Comparison compare(const TensorFile& first, const TensorFile& second) {
  std::map<std::string, std::pair<const hf::StoredTensor*, const hf::StoredTensor*>> by_name;
  for (const hf::StoredTensor& t : first.tensors()) by_name[t.name].first = &t;
  for (const hf::StoredTensor& t : second.tensors()) by_name[t.name].second = &t;
  Comparison result;
  for (const auto& [name, both] : by_name) {
    const auto& [a, b] = both;
    TensorDifference d{name, a ? to_string(*a) : "", b ? to_string(*b) : ""};
    if (a != nullptr && b != nullptr && a->shape == b->shape) compare_values(*a, *b, d);
    if (d.first == d.second && d.differing == 0)
      ++result.same;
    else
      result.different.push_back(d);
  }
  return result;
}

std::string describe(const TensorFile& file) {
  std::int64_t elements = 0;
  double bytes = 0;
  std::vector<std::vector<std::string>> rows = {{"name", "type", "min", "max", "mean", "std", "zeros", "NaN", "inf"}};
  for (const hf::StoredTensor& t : file.tensors()) {
    const TensorStatistics s = statistics(t);
    elements += s.count;
    bytes += static_cast<double>(t.bytes.size());
    rows.push_back({t.name, to_string(t), cell(s.min), cell(s.max), cell(s.mean), cell(s.stddev), std::to_string(s.zeros),
                    std::to_string(s.nan), std::to_string(s.infinite)});
  }
  std::string text = file.path().string() + ": " + file.format() + ", " + std::to_string(file.tensors().size()) + " tensors, " +
                     grouped(elements) + " elements, " + byte_text(bytes) + "\n";
  for (const auto& [name, value] : file.facts()) text += name + ": " + value + "\n";
  return text + "\n" + table(rows, 2);
}

std::string describe(const Comparison& comparison) {
  const std::string counts =
      std::to_string(comparison.different.size()) + " different, " + std::to_string(comparison.same) + " the same\n";
  if (comparison.different.empty()) return counts;
  std::vector<std::vector<std::string>> rows = {{"name", "first", "second", "differing", "largest", "relative"}};
  for (const TensorDifference& d : comparison.different) {
    std::vector<std::string> row = {d.name, d.first.empty() ? "-" : d.first, d.second.empty() ? "-" : d.second};
    if (d.differing > 0)
      row.insert(row.end(), {std::to_string(d.differing), short_number(d.largest), short_number(d.largest_relative)});
    rows.push_back(row);
  }
  return table(rows, 3) + "\n" + counts;
}

}  // namespace graft::report
