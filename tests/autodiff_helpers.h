#pragma once
#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "graft/backend.h"
#include "graft/error.h"
#include "graft/graph.h"
#include "graft/session.h"
#include "tests/message.h"

namespace graft::autodiff_test {

using testing::message_of;

using Values = std::vector<double>;

/// Σ weights ∘ y with weights that differ from element to element.
inline Value weighted_sum(Graph& g, Value y) {
  Values weights;
  for (std::int64_t i = 0; i < g.shape(y).size(); ++i) weights.push_back(std::sin(1.0 + 1.7 * static_cast<double>(i)));
  return g.sum(g.mul(y, g.constant(g.shape(y), weights, g.type(y).dtype)));
}

/// The values of `wanted` after a step of the graph in f64 with the given inputs.
inline std::vector<Values> evaluate(Graph g, const std::vector<Value>& wanted, const std::map<std::string, Values>& inputs = {}) {
  for (std::size_t i = 0; i < wanted.size(); ++i) g.output("wanted " + std::to_string(i), wanted[i]);
  const Graph wide = g.to_f64();
  const auto backend = reference_backend();
  Session session(wide, *backend);
  for (const auto& [name, values] : inputs) session.write(name, values);
  session.step();
  std::vector<Values> results;
  for (std::size_t i = 0; i < wanted.size(); ++i) results.push_back(session.read_f64("wanted " + std::to_string(i)));
  return results;
}

template <class T>
std::int64_t count(const Graph& g) {
  return std::count_if(g.nodes().begin(), g.nodes().end(), [](const Node& node) { return std::holds_alternative<T>(node.op); });
}

}  // namespace graft::autodiff_test
