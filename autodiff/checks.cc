#include "autodiff/checks.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numbers>

#include "graft/error.h"
#include "graft/philox.h"

namespace graft {
namespace detail {

std::vector<double> normal_values(std::uint64_t seed, std::string_view name, std::uint32_t stream, std::int64_t count) {
  std::uint32_t step = 2166136261u;  // FNV-1a of the name
  for (const char c : name) step = (step ^ static_cast<unsigned char>(c)) * 16777619u;
  std::vector<double> values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); ++i) {  // Box and Muller 1958
    const double u = philox::uniform(philox::bits(seed, stream, step, 2 * i)) + 0x1p-33;
    const double angle = 2.0 * std::numbers::pi * philox::uniform(philox::bits(seed, stream, step, 2 * i + 1));
    values[i] = std::sqrt(-2.0 * std::log(u)) * std::cos(angle);
  }
  return values;
}

void require_inputs_exist(const Graph& graph, const InputValues& given, std::string_view who) {
  for (const auto& [name, values] : given) {
    const Value v = graph.find(name);
    if (!v || !std::holds_alternative<Input>(graph.node(v).op))
      throw Error(std::string(who) + ": values are given for \"" + name + "\", which is not an input of the graph");
    if (static_cast<std::int64_t>(values.size()) != graph.shape(v).size())
      throw Error(std::string(who) + ": input \"" + name + "\" is " + to_string(graph.type(v)) + ", got " +
                  std::to_string(values.size()) + " values");
  }
}

void write_inputs(Session& session, const Graph& graph, const InputValues& given, std::uint64_t seed, std::string_view who) {
  for (const Node& node : graph.nodes()) {
    if (!std::holds_alternative<Input>(node.op)) continue;
    const TensorType& type = node.outputs[0];
    const auto it = given.find(node.name);
    if (is_float(type.dtype)) {
      session.write(node.name, it != given.end() ? it->second : normal_values(seed, node.name, 0, type.shape.size()));
      continue;
    }
    if (it == given.end())
      throw Error(std::string(who) + ": u32 input \"" + node.name + "\" needs values, put them in options.inputs");
    std::vector<std::uint32_t> ids;
    for (const double value : it->second) {
      if (!(value >= 0.0 && value <= 4294967295.0 && value == std::floor(value)))
        throw Error(std::string(who) + ": u32 input \"" + node.name + "\" takes whole numbers, got " + std::to_string(value));
      ids.push_back(static_cast<std::uint32_t>(value));
    }
    session.write(node.name, ids);
  }
}

std::string element_name(const Shape& shape, std::int64_t index) {
  if (shape.rank() == 0) return "[]";
  if (shape.rank() == 1) return "[" + std::to_string(index) + "]";
  return "[" + std::to_string(index / shape.cols()) + ", " + std::to_string(index % shape.cols()) + "]";
}

namespace {

std::string number(const char* format, double value) {
  char text[40];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

}  // namespace
}  // namespace detail

std::string GradientCheckReport::to_string() const {
  std::vector<std::vector<std::string>> table = {
      {"tensor", "shape", "checked", "worst", "analytic", "numeric", "relative error", ""}};
  for (const GradientCheckRow& row : rows)
    table.push_back({row.name, graft::to_string(row.shape),
                     std::to_string(row.checked) + (row.directions ? " directions" : " elements"),
                     row.directions ? "direction " + std::to_string(row.worst) : detail::element_name(row.shape, row.worst),
                     detail::number("%.9g", row.analytic), detail::number("%.9g", row.numeric), detail::number("%.2e", row.error),
                     row.passed ? "ok" : "FAILED"});
  std::vector<std::size_t> widths(table[0].size());
  for (const auto& line : table)
    for (std::size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], line[i].size());
  std::string text;
  for (const auto& line : table) {
    for (std::size_t i = 0; i < line.size(); ++i) {
      const std::string padding(widths[i] - line[i].size(), ' ');
      const bool left = i < 4 || i + 1 == line.size();  // text to the left, numbers to the right
      text += (i > 0 ? "  " : "") + (left ? line[i] + padding : padding + line[i]);
    }
    text.erase(text.find_last_not_of(' ') + 1);
    text += '\n';
  }
  if (!unreached.empty()) {
    text += "not reached by the loss:";
    for (std::size_t i = 0; i < unreached.size(); ++i) text += (i > 0 ? ", " : " ") + unreached[i];
    text += '\n';
  }
  return text;
}

}  // namespace graft
