// Every case of every op on the CUDA backend, its kernels emulated.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>

#include "graft/error.h"
#include "graft/gtest.h"
#include "tests/cuda_on_cpu/checked_backend.h"
#include "tests/cuda_on_cpu/emulation.h"
#include "tests/op_cases.h"
#include "tests/run_graph.h"

namespace graft {
namespace {

using emulation::Options;
using testing::CheckedBackend;
using testing::Inputs;
using testing::OpCase;

class OpCuda : public ::testing::TestWithParam<OpCase> {};

std::string name_of(const ::testing::TestParamInfo<OpCase>& info) { return info.param.name; }

/// Without states, steps are equal.
bool has_state(const Graph& graph) {
  return std::any_of(graph.nodes().begin(), graph.nodes().end(), [](const Node& node) {
    return std::holds_alternative<State>(node.op) || std::holds_alternative<Parameter>(node.op);
  });
}

bool has_f64(const Graph& graph) {
  for (const Node& node : graph.nodes())
    for (const TensorType& type : node.outputs)
      if (type.dtype == DType::f64) return true;
  return false;
}

void expect_same(const Inputs& got, const Inputs& wanted, const std::string& what) {
  for (const auto& [name, values] : wanted)
    for (std::size_t i = 0; i < values.size(); ++i)
      ASSERT_EQ(std::bit_cast<std::uint64_t>(values[i]), std::bit_cast<std::uint64_t>(got.at(name)[i]))
          << name << " element " << i << ", " << what;
}

/// Every node may touch its own tensors only.
TEST_P(OpCuda, MatchesReference) {
  const std::unique_ptr<Backend> cuda = cuda_backend();
  CheckedBackend checked(*cuda);
  const Graph graph = testing::with_gradients(GetParam());
  BackendCheckOptions options;
  options.inputs = testing::values_of(GetParam(), graph);
  options.rtol = GetParam().rtol;
  try {
    EXPECT_TRUE(backend_matches(graph, checked, options)) << GetParam().rtol_reason;
    EXPECT_FALSE(has_f64(graph)) << "was not refused";
  } catch (const Error& error) {
    const std::string message = error.what();
    EXPECT_TRUE(has_f64(graph) && message.find(": is f64, the cuda backend computes in f32 and bf16; ") != std::string::npos)
        << message;
  }
}

/// Outputs in the place of inputs that die, and nothing in the place of anything; threads and blocks in another order, with races looked for. Three
/// steps: as they come, captured, and replayed.
TEST_P(OpCuda, GivesTheSameBitsInPlaceReplayedAndInAnyOrder) {
  const std::unique_ptr<Backend> cuda = cuda_backend();
  CheckedBackend checked(*cuda);
  for (const bool gradients : {true, false}) {
    const Graph graph = gradients ? testing::with_gradients(GetParam()) : testing::wrap(GetParam()).graph;
    if (has_f64(graph)) continue;
    const Inputs inputs = testing::values_of(GetParam(), graph);
    const auto steps = [&](int count, Backend& backend, const PlanOptions& plan, const Options& first, const Options& then) {
      Session session(graph, backend, plan);
      for (const auto& [name, values] : inputs) testing::write(session, name, values);
      std::vector<Inputs> all;
      for (int step = 0; step < count; ++step) {
        const emulation::With with(step == 0 ? first : then);
        session.step();
        all.push_back(testing::read_all(session));
      }
      return all;
    };
    const std::vector<Inputs> wanted = steps(has_state(graph) ? 3 : 1, checked, {.keep_all = true}, {}, {});
    const Options first = {.order = Options::Order::shuffled, .races = gradients}, then = {.order = Options::Order::reverse};
    const std::vector<Inputs> got = steps(3, *cuda, {}, first, then);
    for (std::size_t step = 0; step < 3; ++step)
      expect_same(got[step], wanted[std::min(step, wanted.size() - 1)], "step " + std::to_string(step));
  }
}

/// All but those with a million logits, which take seconds: linear_cross_entropy_pieces has more rows than Gemm::rows_at_once here, too.
testing::OpCases cases() {
  testing::OpCases all = testing::all_cases();
  std::erase_if(all, [](const OpCase& op_case) { return op_case.name.starts_with("linear_cross_entropy_chunks"); });
  return all;
}

INSTANTIATE_TEST_SUITE_P(, OpCuda, ::testing::ValuesIn(cases()), name_of);

}  // namespace
}  // namespace graft
