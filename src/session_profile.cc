#include <algorithm>
#include <chrono>

#include "graft/error.h"
#include "graft/profile.h"
#include "src/session_impl.h"

namespace graft {
namespace {

using Clock = std::chrono::steady_clock;

double seconds(Clock::time_point from, Clock::time_point to) { return std::chrono::duration<double>(to - from).count(); }

/// Median seconds of a step of a graph of one op.
double median_step(const Graph& graph, Backend& backend, int runs) {
  Session session(graph, backend);
  session.step();
  backend.wait();
  std::vector<double> times;
  for (int i = 0; i < runs; ++i) {
    const auto start = Clock::now();
    session.step();
    backend.wait();
    times.push_back(seconds(start, Clock::now()));
  }
  std::nth_element(times.begin(), times.begin() + runs / 2, times.end());
  return times[static_cast<std::size_t>(runs / 2)];
}

}  // namespace

Profile Session::profile(int steps) {
  if (steps < 1) throw Error("profile: steps must be at least 1, got " + std::to_string(steps));
  Impl& impl = *impl_;
  Profile profile;
  profile.steps = steps;
  for (const Step& step : impl.steps) {
    profile.nodes.push_back({step.node->name, op_name(step.node->op), 0, 0, cost(graph(), *step.node)});
  }
  for (int i = 0; i < steps; ++i) {
    impl.check_step();
    for (std::size_t s = 0; s < impl.steps.size(); ++s) {
      const auto start = Clock::now();
      impl.backend.run(std::span(impl.steps).subspan(s, 1));
      impl.backend.wait();
      profile.nodes[s].seconds += seconds(start, Clock::now()) / steps;
    }
    impl.stepped = true;
  }
  for (NodeTime& node : profile.nodes) {
    node.start = profile.seconds;
    profile.seconds += node.seconds;
  }
  return profile;
}

Ceilings measure_ceilings(Backend& backend) {
  constexpr std::int64_t kSide = 1024, kRows = 4096, kColumns = 2048;
  Graph product;
  product.output("c", product.matmul(product.parameter("a", {kSide, kSide}, Init::normal(0, 1)), product.parameter("b", {kSide, kSide}, Init::normal(0, 1))));
  Graph copy;
  copy.output("y", copy.neg(copy.parameter("x", {kRows, kColumns}, Init::ones())));
  return {2.0 * kSide * kSide * kSide / median_step(product, backend, 15), 2.0 * kRows * kColumns * sizeof(float) / median_step(copy, backend, 15)};
}

}  // namespace graft
