// Every case of every op on the GPU of this machine: `./dev gpu-check`. The same cases run on an emulated device in every test run (tests/cuda_on_cpu).
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstdio>

#include "graft/error.h"
#include "graft/gtest.h"
#include "tests/op_cases.h"
#include "tests/run_graph.h"

namespace graft {
namespace {

using testing::Inputs;
using testing::OpCase;

Backend& gpu() {
  static const std::unique_ptr<Backend> backend = cuda_backend();
  return *backend;
}

class OpGpu : public ::testing::TestWithParam<OpCase> {};

std::string name_of(const ::testing::TestParamInfo<OpCase>& info) { return info.param.name; }

TEST_P(OpGpu, MatchesReference) {
  const Graph graph = testing::with_gradients(GetParam());
  BackendCheckOptions options;
  options.inputs = testing::values_of(GetParam(), graph);
  options.rtol = GetParam().rtol;
  EXPECT_TRUE(backend_matches(graph, gpu(), options)) << GetParam().rtol_reason;
}

std::vector<Inputs> steps_of(const Graph& graph, const Inputs& inputs, const PlanOptions& options) {
  Session session(graph, gpu(), options);
  for (const auto& [name, values] : inputs) testing::write(session, name, values);
  std::vector<Inputs> all;
  for (int step = 0; step < 3; ++step) {  // as they come, captured, replayed
    session.step();
    all.push_back(testing::read_all(session));
  }
  return all;
}

TEST_P(OpGpu, GivesTheSameBitsInPlaceAndReplayed) {
  for (const Graph& graph : {testing::with_gradients(GetParam()), testing::wrap(GetParam()).graph}) {
    const Inputs inputs = testing::values_of(GetParam(), graph);
    const std::vector<Inputs> wanted = steps_of(graph, inputs, {.keep_all = true}), got = steps_of(graph, inputs, {});
    for (std::size_t step = 0; step < wanted.size(); ++step)
      for (const auto& [name, values] : wanted[step])
        for (std::size_t i = 0; i < values.size(); ++i)
          ASSERT_EQ(std::bit_cast<std::uint64_t>(got[step].at(name)[i]), std::bit_cast<std::uint64_t>(values[i])) << name << " element " << i << ", step " << step;
  }
}

/// All but those with a value of f64, which the backend refuses.
testing::OpCases cases() {
  testing::OpCases all = testing::all_cases();
  std::erase_if(all, [](const OpCase& op_case) {
    const Graph graph = testing::with_gradients(op_case);
    return std::any_of(graph.nodes().begin(), graph.nodes().end(), [](const Node& node) {
      return std::any_of(node.outputs.begin(), node.outputs.end(), [](const TensorType& type) { return type.dtype == DType::f64; });
    });
  });
  return all;
}

INSTANTIATE_TEST_SUITE_P(, OpGpu, ::testing::ValuesIn(cases()), name_of);

}  // namespace
}  // namespace graft

/// Without a GPU no case runs, and that is said once.
int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  try {
    graft::gpu();
  } catch (const graft::Error& error) {
    std::fprintf(stderr, "gpu tests: %s\n", error.what());
    return 1;
  }
  return RUN_ALL_TESTS();
}
