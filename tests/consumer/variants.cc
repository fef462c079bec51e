// Every copy of the cpu kernels in a portable program that this processor runs: the cases of all ops with their gradients, and a training
// step of a decoder, are what the reference backend makes of them, with the same bits for 1, 2 and 4 threads.
#include <cstdio>
#include <exception>
#include <string>

#include "graft/graft.h"
#include "tests/cpu_variants.h"
#include "tests/run_graph.h"

using namespace graft;
using testing::Inputs;

namespace {

int failures = 0;

void fail(const std::string& what) {
  std::printf("FAILED %s\n", what.c_str());
  ++failures;
}

void check(const cpu::Variant& variant, const std::string& name, const Graph& graph, const Inputs& inputs, double rtol) {
  const auto one = cpu::make_backend(variant, 1);
  const GradientCheckReport report = backend_check(graph, *one, {.rtol = rtol, .inputs = inputs});
  if (!report.passed) fail(name + ", " + one->description() + "\n" + report.to_string());
  const Inputs wanted = testing::run_once(graph, *one, inputs);
  for (const int threads : {2, 4}) {
    const auto backend = cpu::make_backend(variant, threads);
    const Inputs got = testing::run_once(graph, *backend, inputs);
    for (const auto& [output, values] : wanted)
      for (std::size_t i = 0; i < values.size(); ++i)
        if (got.at(output)[i] != values[i] && values[i] == values[i])
          return fail(name + ", " + backend->description() + ": " + output + " differs from that of one thread");
  }
}

/// Sizes that leave parts of vectors in every kernel, and work for several threads.
Graph training_step(Inputs& inputs) {
  constexpr std::int64_t kRows = 2 * 67;
  Graph g(3);
  const nn::Llama model(
      g, {.vocab_size = 61, .hidden_size = 72, .intermediate_size = 133, .num_layers = 2, .num_heads = 3, .num_kv_heads = 1});
  const Value logits = model.forward(g, g.input_u32("ids", {kRows}), Segments::uniform(67));
  const Value loss = g.cross_entropy(logits, g.input_u32("next", {kRows}));
  g.output("loss", loss);
  optim::sgd(g, differentiate(g, loss), {.momentum = 0.9}, {.schedule = {.base = 0.1}, .clip_norm = 1.0});
  for (std::int64_t i = 0; i < kRows; ++i) {
    inputs["ids"].push_back(static_cast<double>(i * i % 61));
    inputs["next"].push_back(static_cast<double>((i + 1) * (i + 1) % 61));
  }
  return g;
}

}  // namespace

int main() try {
  const auto variants = testing::cpu_variants();
  const std::string chosen = cpu_backend(1)->description();
  if (chosen != cpu::make_backend(variants.front(), 1)->description()) fail("the backend is " + chosen);
  Inputs step_inputs;
  const Graph step = training_step(step_inputs);
  const testing::OpCases cases = testing::all_cases();
  for (const cpu::Variant& variant : variants) {
    check(variant, "a training step", step, step_inputs, 1e-4);
    for (const testing::OpCase& op_case : cases) {
      const Graph graph = testing::with_gradients(op_case);
      check(variant, op_case.name, graph, testing::values_of(op_case, graph), op_case.rtol);
    }
    std::printf("%s: %zu graphs\n", cpu::make_backend(variant, 1)->description().c_str(), cases.size() + 1);
  }
  return failures == 0 ? 0 : 1;
} catch (const std::exception& error) {
  std::printf("FAILED %s\n", error.what());
  return 1;
}
