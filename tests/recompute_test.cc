// Values dropped and made anew so that a step fits a memory budget.
#include <gtest/gtest.h>

#include <set>

#include "graft/graft.h"
#include "tests/message.h"
#include "tests/passes_helpers.h"

namespace graft {
namespace {

using testing::count_ops;
using testing::message_of;
using testing::tiny_llama_batch;
using testing::tiny_llama_step;

std::size_t arena(const Graph& graph) {
  const auto backend = reference_backend();
  return Plan(graph, *backend).arena_bytes();
}

/// The nodes that run, less those of the graph as it was.
std::vector<std::string> again(const Graph& graph) {
  std::vector<std::string> names;
  for (const Node& node : graph.nodes())
    if (node.name.starts_with("again:")) names.push_back(node.name.substr(6));
  return names;
}

/// The bytes from the message that says what can be reached.
std::size_t least_of(const Graph& graph) {
  const std::string message = message_of([&] { passes::recompute(graph, {.budget_bytes = 1}); });
  return std::stoull(message.substr(message.find("the least is ") + 13));
}

TEST(Recompute, AGraphThatFitsIsGivenBackAsItIs) {
  const Graph g = tiny_llama_step();
  EXPECT_EQ(passes::recompute(g, {.budget_bytes = arena(g)}).to_text(), g.to_text());
  EXPECT_FALSE(again(passes::recompute(g, {.budget_bytes = arena(g) - 1})).empty());
}

TEST(Recompute, TheArenaMeetsTheBudgetAndEveryBitStays) {
  for (const double dropout : {0.0, 0.2}) {
    const Graph plain = passes::fuse(tiny_llama_step(dropout, 4));
    const std::size_t before = arena(plain), least = least_of(plain);
    EXPECT_LT(least, before * 3 / 4);
    for (const char* name : {"reference", "cpu"}) {
      const auto backend = make_backend(name, 2);
      Session want(plain, *backend);
      for (const auto& [key, values] : tiny_llama_batch()) testing::write(want, key, values);
      for (int i = 0; i < 3; ++i) want.step();
      const testing::Inputs results = testing::read_all(want);
      for (const std::size_t budget : {least, (least + before) / 2, before - 1}) {
        const Graph smaller = passes::recompute(plain, {.budget_bytes = budget});
        EXPECT_LE(arena(smaller), budget);
        Session session(smaller, *backend);
        for (const auto& [key, values] : tiny_llama_batch()) testing::write(session, key, values);
        for (int i = 0; i < 3; ++i) session.step();
        EXPECT_EQ(testing::read_all(session), results) << name << " in " << budget;
      }
    }
  }
}

TEST(Recompute, ALargerBudgetCostsLessWork) {
  const Graph plain = tiny_llama_step(0.0, 4);
  const std::size_t before = arena(plain), least = least_of(plain);
  const auto work = [&](std::size_t budget) {
    const Graph graph = passes::recompute(plain, {.budget_bytes = budget});
    double flops = 0;
    for (const Node& node : graph.nodes())
      if (node.name.starts_with("again:")) flops += cost(graph, node).flops;
    return flops;
  };
  const double little = work(before * 9 / 10), some = work((least + before) / 2), much = work(least);
  EXPECT_GT(little, 0);
  EXPECT_LT(2 * little, some);
  EXPECT_LT(2 * some, much);
}

TEST(Recompute, WhatIsCheapGoesFirst) {
  const Graph plain = tiny_llama_step(0.0, 4);
  const std::set<std::string> cheap = {"embedding", "rms_norm", "swiglu"};
  const Graph smaller = passes::recompute(plain, {.budget_bytes = arena(plain) * 88 / 100});
  int others = 0;
  for (const std::string& name : again(smaller)) others += !cheap.contains(op_name(smaller.node(smaller.find(name)).op));
  EXPECT_FALSE(again(smaller).empty());
  EXPECT_EQ(others, 0);
}

/// y = Σ over a chain of exps, each read again after a long wait.
Graph long_wait(bool states) {
  Graph g;
  const Value x = g.input("x", {64, 64});
  const Value s = states ? g.state("s", {64, 64}, Init::fill(0.5)) : g.input("s", {64, 64});
  const Value waits = g.binary(BinaryFn::mul, x, s, "waits");
  Value y = g.tanh(waits);
  for (int i = 0; i < 4; ++i) y = g.binary(BinaryFn::mul, y, g.tanh(y), "step" + std::to_string(i));
  if (states) g.assign(y, s);
  g.output("y", g.add(y, waits));
  return g;
}

TEST(Recompute, RunsANodeAgainJustBeforeItsLateUse) {
  const Graph g = long_wait(false);
  const Graph smaller = passes::recompute(g, {.budget_bytes = arena(g) - 1});
  EXPECT_EQ(again(smaller), std::vector<std::string>{"waits"});
  const Value made = smaller.find("again:waits"), y = smaller.outputs().at("y");
  EXPECT_EQ(made.node, y.node - 1);
  EXPECT_EQ(smaller.node(y).inputs[1], made);
  EXPECT_EQ(smaller.node(smaller.find("tanh_0")).inputs[0], smaller.find("waits"));
  EXPECT_LT(arena(smaller), arena(g));
}

TEST(Recompute, NothingIsMadeAnewFromAStateThatWasOverwritten) {
  const Graph g = long_wait(true);
  EXPECT_EQ(message_of([&] { passes::recompute(g, {.budget_bytes = arena(g) - 1}); }),
            "recompute: the budget of " + std::to_string(arena(g) - 1) + " bytes cannot be met, the least is " + std::to_string(arena(g)) + " bytes, and " +
                std::to_string(arena(g)) + " without recomputing");
}

TEST(Recompute, GoesThroughViews) {
  Graph g;
  const Value x = g.input("x", {64, 64});
  const Value waits = g.exp(x), seen = g.reshape(waits, {32, 128}, "seen");
  Value y = g.tanh(waits);
  for (int i = 0; i < 4; ++i) y = g.mul(y, g.tanh(y));
  g.output("y", g.add(g.reshape(y, {32, 128}), seen));
  const Graph smaller = passes::recompute(g, {.budget_bytes = arena(g) - 1});
  EXPECT_EQ(again(smaller), (std::vector<std::string>{"exp_0", "seen"}));
  const auto backend = reference_backend();
  std::vector<double> values;
  for (int i = 0; i < 4096; ++i) values.push_back(0.001 * (i % 977) - 0.4);
  EXPECT_EQ(testing::run_once(smaller, *backend, {{"x", values}}), testing::run_once(g, *backend, {{"x", values}}));
}

TEST(Recompute, KeepsResultsThatAreReadAfterTheStep) {
  Graph g = long_wait(false);
  g.output("waits", g.find("waits"));
  EXPECT_NE(message_of([&] { passes::recompute(g, {.budget_bytes = arena(g) - 1}); }).find("cannot be met"), std::string::npos);
}

TEST(Recompute, WorksOnNarrowGraphs) {
  const Graph plain = passes::mixed_precision(passes::fuse(tiny_llama_step(0.1, 3)));
  const Graph smaller = passes::recompute(plain, {.budget_bytes = arena(plain) * 8 / 10});
  EXPECT_LE(arena(smaller), arena(plain) * 8 / 10);
  const auto backend = cpu_backend(2);
  EXPECT_EQ(testing::run_once(smaller, *backend, tiny_llama_batch()), testing::run_once(plain, *backend, tiny_llama_batch()));
}

}  // namespace
}  // namespace graft
