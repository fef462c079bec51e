#include "graft/profile.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <map>

#include "graft/error.h"

namespace graft {
namespace {

struct Row {
  std::string op;
  int calls = 0;
  double seconds = 0, ceiling = 0;
  Cost cost;
};

/// The time that the ceilings allow at best.
double least_seconds(const Cost& cost, const Ceilings& ceilings) {
  return std::max(ceilings.flops > 0 ? cost.flops / ceilings.flops : 0.0, ceilings.bytes > 0 ? cost.bytes / ceilings.bytes : 0.0);
}

std::string json_text(const std::string& text) {
  std::string out = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  }
  return out + "\"";
}

std::string formatted(const char* format, auto... values) {
  char line[256];
  std::snprintf(line, sizeof line, format, values...);
  return line;
}

}  // namespace

std::string Profile::to_string(const Ceilings& ceilings) const {
  std::map<std::string, Row> by_op;
  Row total{"total", 0, 0, 0, {}};
  const auto add = [&](Row& row, const NodeTime& node) {
    ++row.calls;
    row.seconds += node.seconds;
    row.ceiling += least_seconds(node.cost, ceilings);
    row.cost.flops += node.cost.flops;
    row.cost.bytes += node.cost.bytes;
  };
  for (const NodeTime& node : nodes) {
    Row& row = by_op[node.op];
    row.op = node.op;
    add(row, node);
    add(total, node);
  }
  std::vector<Row> rows;
  for (auto& [op, row] : by_op) rows.push_back(row);
  std::sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) { return a.seconds > b.seconds; });
  rows.push_back(total);
  std::string text = formatted("%-24s %6s %10s %7s %9s %8s %9s\n", "op", "calls", "ms", "share", "GFLOP/s", "GB/s", "ceiling");
  for (const Row& row : rows) {
    const double seconds = std::max(row.seconds, 1e-12);
    text += formatted("%-24s %6d %10.3f %6.1f%% %9.1f %8.1f ", row.op.c_str(), row.calls, row.seconds * 1e3, 100 * row.seconds / std::max(total.seconds, 1e-12),
                      row.cost.flops / seconds / 1e9, row.cost.bytes / seconds / 1e9);
    text += row.ceiling > 0 ? formatted("%8.0f%%\n", 100 * row.ceiling / seconds) : formatted("%9s\n", "-");
  }
  return text;
}

void Profile::write_trace(const std::filesystem::path& file) const {
  std::string json = "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n";
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    const NodeTime& node = nodes[i];
    json += formatted("{\"ph\":\"X\",\"pid\":1,\"tid\":1,\"ts\":%.3f,\"dur\":%.3f,", node.start * 1e6, node.seconds * 1e6);
    json += "\"name\":" + json_text(node.name) + ",\"cat\":" + json_text(node.op);
    json += formatted(",\"args\":{\"flops\":%.0f,\"bytes\":%.0f,\"GFLOP/s\":%.2f,\"GB/s\":%.2f}}", node.cost.flops, node.cost.bytes,
                      node.cost.flops / std::max(node.seconds, 1e-12) / 1e9, node.cost.bytes / std::max(node.seconds, 1e-12) / 1e9);
    json += i + 1 < nodes.size() ? ",\n" : "\n";
  }
  std::ofstream out(file, std::ios::binary);
  out << json << "]}\n" << std::flush;
  if (!out) throw Error("trace \"" + file.string() + "\": cannot be written: " + std::strerror(errno));
}

}  // namespace graft
