// The reference kernels against plain loops (tests/plain.h), for every case and every output of every node; and what
// formulas do not say.
#include <gtest/gtest.h>

#include <cmath>

#include "graft/error.h"
#include "graft/philox.h"
#include "src/op_traits.h"
#include "tests/op_cases.h"
#include "tests/plain.h"
#include "tests/run_graph.h"

namespace graft {
namespace {

using testing::Inputs;
using testing::OpCase;

/// Largest |got − wanted| over max(1, largest |wanted|); NaN and infinities must be the same ones.
::testing::AssertionResult near(const std::vector<double>& got, const std::vector<double>& wanted, double tolerance) {
  if (got.size() != wanted.size()) return ::testing::AssertionFailure() << got.size() << " elements, wanted " << wanted.size();
  double largest = 1.0;
  for (const double w : wanted)
    if (std::isfinite(w)) largest = std::max(largest, std::abs(w));
  for (std::size_t i = 0; i < got.size(); ++i) {
    const bool same = std::isfinite(wanted[i]) ? std::abs(got[i] - wanted[i]) <= tolerance * largest
                                               : got[i] == wanted[i] || (std::isnan(got[i]) && std::isnan(wanted[i]));
    if (!same) return ::testing::AssertionFailure() << "element " << i << " is " << got[i] << ", wanted " << wanted[i];
  }
  return ::testing::AssertionSuccess();
}

class OpForward : public ::testing::TestWithParam<OpCase> {};

/// The case in f64 with every output of every node that lives to the end as an output of the graph.
Graph fully_read(const OpCase& op_case) {
  Graph recorded;
  op_case.build(recorded);
  Graph graph = recorded.to_f64();
  const auto nodes = static_cast<std::int32_t>(graph.nodes().size());
  for (std::int32_t n = 0; n < nodes; ++n)
    for (std::int32_t slot = 0; slot < static_cast<std::int32_t>(graph.node({n, 0}).outputs.size()); ++slot) try {
        graph.output("value " + std::to_string(n) + ":" + std::to_string(slot), {n, slot});
      } catch (const Error&) {  // overwritten later
      }
  return graph;
}

TEST_P(OpForward, ReferenceMatchesPlainLoops) {
  const Graph graph = fully_read(GetParam());
  const std::unique_ptr<Backend> backend = reference_backend();
  Session session(graph, *backend);
  for (const auto& [name, values] : testing::values_of(GetParam(), graph)) testing::write(session, name, values);

  std::vector<testing::plain::Tensors> values;
  for (const Node& node : graph.nodes()) {
    testing::plain::Tensors in;
    for (const Value v : node.inputs) in.push_back(values[static_cast<std::size_t>(v.node)][static_cast<std::size_t>(v.slot)]);
    values.push_back(testing::plain::evaluate(node.op, in, node.outputs));
    testing::plain::Tensor& first = values.back()[0];
    if (const auto* constant = std::get_if<Constant>(&node.op)) {
      for (std::size_t i = 0; i < first.values.size(); ++i)
        first.values[i] = constant->values[constant->values.size() == 1 ? 0 : i];
    } else if (is_source(node.op)) {
      first.values = testing::read(session, node.name, node.outputs[0].dtype);
    }
  }
  // an overwritten state ends with the last value written to it
  for (std::size_t n = 0; n < values.size(); ++n) {
    const Node& node = graph.nodes()[n];
    for (std::size_t slot = 0; overwrites(node.op) && slot < node.outputs.size(); ++slot) {
      Value at = {static_cast<std::int32_t>(n), static_cast<std::int32_t>(slot)};
      while (!is_source(graph.node(at).op))
        at = graph.node(at).inputs[static_cast<std::size_t>(alias_of(graph.node(at).op, at.slot))];
      values[static_cast<std::size_t>(at.node)][0] = values[n][slot];
    }
  }

  session.step();
  int compared = 0;
  for (const auto& [name, v] : graph.outputs()) {
    const std::vector<double>& wanted = values[static_cast<std::size_t>(v.node)][static_cast<std::size_t>(v.slot)].values;
    EXPECT_TRUE(near(testing::read(session, name, graph.type(v).dtype), wanted, 1e-10)) << name << ", " << graph.node(v).name;
    ++compared;
  }
  for (std::size_t n = 0; n < values.size(); ++n) {
    const Node& node = graph.nodes()[n];
    if (!std::holds_alternative<State>(node.op) && !std::holds_alternative<Parameter>(node.op)) continue;
    EXPECT_TRUE(near(testing::read(session, node.name, node.outputs[0].dtype), values[n][0].values, 1e-10)) << node.name;
  }
  EXPECT_GE(compared, 1);
}

INSTANTIATE_TEST_SUITE_P(, OpForward, ::testing::ValuesIn(testing::all_cases()), [](const auto& info) { return info.param.name; });

TEST(Philox, MatchesThePublishedVectors) {
  const philox::Block zeros = philox::block({0, 0, 0, 0}, 0);
  EXPECT_EQ(zeros, (philox::Block{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u}));
  const philox::Block ones = philox::block({0xffffffffu, 0xffffffffu, 0xffffffffu, 0xffffffffu}, 0xffffffffffffffffu);
  EXPECT_EQ(ones, (philox::Block{0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu}));
  const philox::Block pi = philox::block({0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u}, 0x299f31d0a4093822u);
  EXPECT_EQ(pi, (philox::Block{0xd16cfe09u, 0x94fdcceb, 0x5001e420u, 0x24126ea1u}));
}

std::vector<double> dropped(double p, std::uint64_t seed, int dropouts_before, std::uint32_t counter, Backend& backend) {
  Graph g(seed);
  const Value x = g.input("x", {100, 200});
  for (int i = 0; i < dropouts_before; ++i) g.dropout(x, 0.5);
  g.output("out", g.dropout(x, p));
  Session session(g, backend);
  session.write("x", std::vector<double>(20000, 3.0));
  session.write("rng/counter", counter);
  session.step();
  return session.read_f64("out");
}

TEST(Dropout, KeepsTheShareAskedForAndScalesIt) {
  for (const char* name : {"reference", "cpu"}) {
    const std::unique_ptr<Backend> backend = make_backend(name);
    for (const double p : {0.1, 0.5, 0.9}) {
      double kept = 0;
      for (const double y : dropped(p, 7, 0, 0, *backend)) {
        if (y == 0.0) continue;
        EXPECT_NEAR(y, 3.0 / (1 - p), 1e-5);
        kept += 1;
      }
      EXPECT_NEAR(kept / 20000, 1 - p, 5 * std::sqrt(p * (1 - p) / 20000)) << name;  // five standard deviations
    }
  }
}

TEST(Dropout, DependsOnSeedStreamAndCounterAlone) {
  const std::unique_ptr<Backend> reference = reference_backend(), cpu = cpu_backend(2);
  const std::vector<double> first = dropped(0.5, 7, 0, 3, *reference);
  EXPECT_EQ(first, dropped(0.5, 7, 0, 3, *reference));
  EXPECT_EQ(first, dropped(0.5, 7, 0, 3, *cpu));
  const std::vector<double> others[] = {dropped(0.5, 8, 0, 3, *reference), dropped(0.5, 7, 1, 3, *reference),
                                        dropped(0.5, 7, 0, 4, *reference)};
  for (const std::vector<double>& other : others) {
    double equal = 0;
    for (std::size_t i = 0; i < first.size(); ++i) equal += first[i] == other[i];
    EXPECT_NEAR(equal / 20000, 0.5, 0.02);
  }
}

TEST(Dropout, KeepsAnElementWhoseNumberIsExactlyP) {
  for (const char* name : {"reference", "cpu"}) {
    const std::unique_ptr<Backend> backend = make_backend(name);
    for (const std::uint64_t element : {0u, 1u, 6u, 19999u}) {
      const double p = philox::uniform(philox::bits(7, 0, 3, element));
      EXPECT_NE(dropped(p, 7, 0, 3, *backend)[element], 0.0) << name << " element " << element;
      EXPECT_EQ(dropped(std::nextafter(p, 1.0), 7, 0, 3, *backend)[element], 0.0) << name << " element " << element;
    }
  }
}

TEST(Dropout, AdvancesWithTheCounter) {
  Graph g;
  g.output("out", g.dropout(g.input("x", {10, 20}), 0.5));
  g.advance_rng();
  const std::unique_ptr<Backend> backend = reference_backend();
  Session session(g, *backend);
  session.write("x", std::vector<double>(200, 1.0));
  session.step();
  const std::vector<double> first = session.read_f64("out");
  session.step();
  EXPECT_NE(session.read_f64("out"), first);
  EXPECT_EQ(session.read_u32("rng/counter"), std::vector<std::uint32_t>{2});
}

TEST(UnaryGrad, IsZeroAtTheKinksOfAbsAndRelu) {
  for (const char* name : {"reference", "cpu"}) {
    Graph g;
    const Value x = g.input("x", {3}), dout = g.constant({3}, {5.0});
    g.output("abs", g.record(UnaryGrad{UnaryFn::abs}, {x, dout}));
    g.output("relu", g.record(UnaryGrad{UnaryFn::relu}, {x, dout}));
    const std::unique_ptr<Backend> backend = make_backend(name);
    const Inputs out = testing::run_once(g, *backend, {{"x", {0.0, -0.0, 1.0}}});
    EXPECT_EQ(out.at("abs"), (std::vector<double>{0, 0, 5})) << name;
    EXPECT_EQ(out.at("relu"), (std::vector<double>{0, 0, 5})) << name;
  }
}

}  // namespace
}  // namespace graft
