#include <cmath>
#include <cstring>
#include <charconv>
#include <fstream>
#include <sstream>

#include "graft/error.h"
#include "graft/report.h"

namespace graft {
namespace {

std::string line_of(const std::vector<double>& row) {
  std::string line;
  char buffer[32];
  for (std::size_t i = 0; i < row.size(); ++i) {
    if (i) line += ',';
    if (!std::isnan(row[i])) line.append(buffer, std::to_chars(buffer, buffer + sizeof buffer, row[i]).ptr);
  }
  return line + "\n";
}

/// False when the line is not `count` numbers or empty cells.
bool parse(const std::string& line, std::size_t count, std::vector<double>& row) {
  row.clear();
  std::stringstream cells(line + ",");
  for (std::string cell; std::getline(cells, cell, ',');) {
    double value = std::nan("");
    if (!cell.empty()) {
      const auto [end, error] = std::from_chars(cell.data(), cell.data() + cell.size(), value);
      if (error != std::errc() || end != cell.data() + cell.size()) return false;
    }
    row.push_back(value);
  }
  return row.size() == count && !std::isnan(row[0]);
}

}  // namespace

MetricsLog::MetricsLog(std::filesystem::path file, std::vector<std::string> columns, std::int64_t resume_step)
    : file_(std::move(file)), columns_(std::move(columns)) {
  GRAFT_ASSERT(!columns_.empty());
  std::string header;
  for (const std::string& column : columns_) header += (header.empty() ? "" : ",") + column;
  if (std::ifstream old(file_, std::ios::binary); resume_step > 0 && old) {
    std::string line;
    if (std::getline(old, line) && line != header)
      throw Error("metrics file \"" + file_.string() + "\": has other columns, got \"" + line + "\" and \"" + header + "\"");
    for (std::vector<double> row; std::getline(old, line) && !old.eof();)
      if (parse(line, columns_.size(), row) && row[0] <= static_cast<double>(resume_step)) rows_.push_back(row);
  }
  const std::filesystem::path temporary = file_.string() + ".new";
  std::ofstream fresh(temporary, std::ios::binary);
  fresh << header << '\n';
  for (const auto& row : rows_) fresh << line_of(row);
  fresh.close();
  std::error_code error;
  if (fresh) std::filesystem::rename(temporary, file_, error);
  if (!fresh || error) throw Error("metrics file \"" + file_.string() + "\": cannot be written: " + (error ? error.message() : std::strerror(errno)));
}

void MetricsLog::append(const std::vector<double>& row) {
  GRAFT_ASSERT(row.size() == columns_.size());
  std::ofstream out(file_, std::ios::binary | std::ios::app);
  out << line_of(row) << std::flush;
  if (!out) throw Error("metrics file \"" + file_.string() + "\": cannot be written: " + std::strerror(errno));
  rows_.push_back(row);
}

}  // namespace graft
