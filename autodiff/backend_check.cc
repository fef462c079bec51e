#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "autodiff/checks.h"
#include "graft/error.h"
#include "graft/gradient_check.h"
#include "graft/session.h"

namespace graft {
namespace {

using Values = std::vector<double>;

const char* const kWho = "backend_check";

bool is_kept(const Op& op) { return std::holds_alternative<Parameter>(op) || std::holds_alternative<State>(op); }

Values read(Session& session, const std::string& name, DType dtype) {
  if (is_float(dtype)) return session.read_f64(name);
  const std::vector<std::uint32_t> values = session.read_u32(name);
  return {values.begin(), values.end()};
}

void write(Session& session, const std::string& name, DType dtype, const Values& values) {
  if (is_float(dtype)) return session.write(name, values);
  session.write(name, std::vector<std::uint32_t>(values.begin(), values.end()));
}

/// |got − want|; equal infinities and NaN on both sides do not differ.
double difference(double got, double want) {
  if (got == want || (std::isnan(got) && std::isnan(want))) return 0.0;
  const double difference = std::abs(got - want);
  return std::isnan(difference) ? std::numeric_limits<double>::infinity() : difference;
}

bool holds_bf16(const Graph& graph) {
  for (const Node& node : graph.nodes())
    for (const TensorType& type : node.outputs)
      if (type.dtype == DType::bf16) return true;
  return false;
}

/// The graph in f64, its values rounded where they are bf16.
Graph rounded(const Graph& graph) {
  const Graph wide = graph.to_f64();
  Graph made(graph.seed());
  std::vector<std::vector<Value>> now;  // node → slot → what it is in `made`
  const auto mapped = [&](Value v) { return now[static_cast<std::size_t>(v.node)][static_cast<std::size_t>(v.slot)]; };
  for (std::size_t n = 0; n < wide.nodes().size(); ++n) {
    const Node& node = wide.nodes()[n];
    std::vector<Value> inputs;
    for (const Value v : node.inputs) inputs.push_back(mapped(v));
    const Value v = made.record(node.op, inputs, node.inputs.empty() ? node.name : std::string());
    // sources hold rounded values already, and those alone are written to states
    const bool is_rounded = node.inputs.empty() || std::holds_alternative<CacheWrite>(node.op) || std::holds_alternative<Assign>(node.op);
    now.emplace_back();
    for (std::int32_t slot = 0; slot < static_cast<std::int32_t>(node.outputs.size()); ++slot) {
      const Value out{v.node, slot};
      const bool narrow = graph.nodes()[n].outputs[static_cast<std::size_t>(slot)].dtype == DType::bf16;
      now.back().push_back(narrow && !is_rounded ? made.cast(made.cast(out, DType::bf16), DType::f64) : out);
    }
  }
  for (const auto& [name, value] : wide.outputs()) made.output(name, mapped(value));
  return made;
}

GradientCheckRow compare(const std::string& name, const TensorType& type, const Values& got, const Values& want,
                         const BackendCheckOptions& options) {
  GradientCheckRow row;
  row.name = name;
  row.shape = type.shape;
  row.checked = type.shape.size();
  double worst = -1.0, distance = 0.0, norm = 0.0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    const double d = difference(got[i], want[i]);
    distance += d * d;
    if (std::isfinite(want[i])) norm += want[i] * want[i];
    if (d > worst) {
      worst = d;
      row.worst = static_cast<std::int64_t>(i);
      row.analytic = got[i];
      row.numeric = want[i];
    }
  }
  const double tiny = options.tiny * std::sqrt(static_cast<double>(want.size()));
  row.error = std::sqrt(distance) / std::max(std::sqrt(norm), tiny);
  row.passed = is_float(type.dtype) ? row.error <= options.rtol : distance == 0.0;
  return row;
}

}  // namespace

GradientCheckReport backend_check(const Graph& graph, Backend& backend, const BackendCheckOptions& options) {
  if (!(options.rtol > 0.0)) throw Error(std::string(kWho) + ": rtol must be positive, got " + std::to_string(options.rtol));
  detail::require_inputs_exist(graph, options.inputs, kWho);
  const std::unique_ptr<Backend> oracle = reference_backend();
  const Graph wide = graph.to_f64();
  Session got(graph, backend), want(wide, *oracle);
  std::optional<Session> narrow;
  if (holds_bf16(graph)) narrow.emplace(rounded(graph), *oracle);

  // The oracle gets what the session under test holds: rounded to its types.
  detail::write_inputs(got, graph, options.inputs, options.seed, kWho);
  std::vector<Values> initial(graph.nodes().size());
  for (std::size_t n = 0; n < graph.nodes().size(); ++n) {
    const Node& node = graph.nodes()[n];
    if (!is_kept(node.op) && !std::holds_alternative<Input>(node.op)) continue;
    initial[n] = read(got, node.name, node.outputs[0].dtype);
    write(want, node.name, node.outputs[0].dtype, initial[n]);
    if (narrow) write(*narrow, node.name, node.outputs[0].dtype, initial[n]);
  }
  got.step();
  want.step();
  if (narrow) narrow->step();

  GradientCheckReport report;
  const auto add = [&](const std::string& name, const TensorType& type, const Values& a, const Values& b) {
    BackendCheckOptions allowed = options;
    if (narrow && is_float(type.dtype)) allowed.rtol += 2 * compare(name, type, read(*narrow, name, type.dtype), b, options).error;
    if (type.dtype == DType::bf16) allowed.rtol += 0x1p-9;
    report.rows.push_back(compare(name, type, a, b, allowed));
    report.passed = report.passed && report.rows.back().passed;
  };
  for (const auto& [name, value] : graph.outputs()) {
    const TensorType& type = graph.type(value);
    add(name, type, read(got, name, type.dtype), read(want, name, type.dtype));
  }
  for (std::size_t n = 0; n < graph.nodes().size(); ++n) {
    const Node& node = graph.nodes()[n];
    if (!is_kept(node.op)) continue;
    const Values a = read(got, node.name, node.outputs[0].dtype), b = read(want, node.name, node.outputs[0].dtype);
    if (a != initial[n] || b != initial[n]) add(node.name, node.outputs[0], a, b);
  }
  if (report.rows.empty())
    throw Error(std::string(kWho) + ": the graph has no output and overwrites no state, so that there is nothing to compare");
  return report;
}

}  // namespace graft
