#pragma once
// One step of a graph, from values to values.
#include <cstdint>
#include <string>
#include <vector>

#include "graft/session.h"
#include "tests/op_cases.h"

namespace graft::testing {

inline void write(Session& session, const std::string& name, const std::vector<double>& values) {
  const Value v = session.graph().find(name);
  if (session.graph().type(v).dtype != DType::u32) return session.write(name, std::span<const double>(values));
  std::vector<std::uint32_t> whole;
  for (const double value : values) whole.push_back(static_cast<std::uint32_t>(value));
  session.write(name, std::span<const std::uint32_t>(whole));
}

inline std::vector<double> read(Session& session, const std::string& name, DType dtype) {
  if (dtype != DType::u32) return session.read_f64(name);
  const std::vector<std::uint32_t> whole = session.read_u32(name);
  return {whole.begin(), whole.end()};
}

/// The outputs, parameters and states, by name.
inline Inputs read_all(Session& session) {
  Inputs values;
  const Graph& graph = session.graph();
  for (const auto& [name, value] : graph.outputs()) values[name] = read(session, name, graph.type(value).dtype);
  for (const Node& node : graph.nodes())
    if (std::holds_alternative<Parameter>(node.op) || std::holds_alternative<State>(node.op))
      values[node.name] = read(session, node.name, node.outputs[0].dtype);
  return values;
}

inline Inputs run_once(const Graph& graph, Backend& backend, const Inputs& inputs, const PlanOptions& options = {}) {
  Session session(graph, backend, options);
  for (const auto& [name, values] : inputs) write(session, name, values);
  session.step();
  return read_all(session);
}

}  // namespace graft::testing
