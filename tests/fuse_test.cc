// Sums done by the products and norm gradients beside them.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "graft/graft.h"
#include "tests/passes_helpers.h"

namespace graft {
namespace {

using testing::count_ops;
using testing::norm_of_difference;
using testing::tiny_llama_batch;
using testing::tiny_llama_step;

std::vector<std::string> inputs_of(const Graph& graph, const std::string& name) {
  std::vector<std::string> names;
  for (Value v : graph.node(graph.find(name)).inputs) names.push_back(graph.node(v).name);
  return names;
}

using Names = std::vector<std::string>;

TEST(Fuse, TheLaterOfTwoOperandsTakesTheOtherOnBothSidesOfTheSum) {
  for (const bool product_first : {false, true}) {
    Graph g;
    const Value x = g.input("x", {4, 3}), w = g.input("w", {3, 3});
    const Value product = g.matmul(x, w, false, false, "product");
    g.output("y", g.binary(BinaryFn::add, product_first ? product : x, product_first ? x : product, "sum"));
    const Graph fused = passes::fuse(g);
    EXPECT_EQ(count_ops(fused, "add"), 0);
    EXPECT_FALSE(fused.find("product"));
    EXPECT_EQ(inputs_of(fused, "sum"), (Names{"x", "w", "x"}));
    EXPECT_EQ(fused.outputs().at("y"), fused.find("sum"));
  }
}

TEST(Fuse, AChainOfSumsBecomesAChainOfProducts) {
  Graph g;
  const Value x = g.input("x", {4, 3}), w = g.input("w", {3, 3}), v = g.input("v", {3, 3}), u = g.input("u", {3, 3});
  const Value a = g.matmul(x, w, false, false, "a"), b = g.matmul(x, v, false, false, "b");
  const Value ab = g.binary(BinaryFn::add, a, b, "ab");
  const Value c = g.matmul(w, u, true, false, "c");
  (void)c;
  const Value d = g.matmul(x, u, false, false, "d");
  g.output("y", g.binary(BinaryFn::add, d, ab, "abd"));
  const Graph fused = passes::fuse(g);
  EXPECT_EQ(count_ops(fused, "add"), 0);
  EXPECT_EQ(inputs_of(fused, "ab"), (Names{"x", "v", "a"}));
  EXPECT_EQ(inputs_of(fused, "abd"), (Names{"x", "u", "ab"}));
}

TEST(Fuse, LeavesASumWhoseProductIsReadElsewhereOrIsAResult) {
  Graph g;
  const Value x = g.input("x", {3, 3}), w = g.input("w", {3, 3});
  const Value read_twice = g.matmul(x, w), result = g.matmul(w, x), doubled = g.matmul(w, w), with_bias = g.matmul_bias(x, w, g.input("bias", {3}));
  g.output("result", result);
  g.output("y", g.mul(g.mul(g.add(x, read_twice), read_twice), g.add(x, result)));
  g.output("z", g.add(g.add(doubled, doubled), g.add(x, with_bias)));
  EXPECT_EQ(passes::fuse(g).to_text(), g.to_text());
}

TEST(Fuse, LeavesWhatIsNotASumOfTwoValuesOfOneType) {
  Graph g;
  const Value x = g.input("x", {3, 3}), w = g.input("w", {3, 3}), row = g.input("row", {3}), one_row = g.input("one_row", {1, 3});
  g.output("difference", g.sub(x, g.matmul(x, w)));
  g.output("broadcast", g.add(x, g.matmul(one_row, w)));
  g.output("bias", g.add(g.matmul(x, w), row));
  const Value product = g.matmul(x, w);
  g.output("later", g.add(product, g.exp(x)));  // the later of the two is no product
  EXPECT_EQ(passes::fuse(g).to_text(), g.to_text());
}

TEST(Fuse, OnlyTheGradientOfXTakesAnAddend) {
  Graph g;
  const Value x = g.input("x", {1, 4}), weight = g.input("weight", {4}), vector = g.input("v", {4});
  const Value rms = g.rms_norm(x, weight), layer = g.layer_norm(x, weight, g.input("bias", {4}));
  const Value dr = g.record(RmsNormGrad{}, {x, weight, {rms.node, 1}, x}, "dr");
  const Value dl = g.record(LayerNormGrad{}, {x, weight, {layer.node, 1}, {layer.node, 2}, x}, "dl");
  g.output("dweight", g.add(vector, {dr.node, 1}));
  g.output("dbias", g.add(vector, {dl.node, 2}));
  EXPECT_EQ(count_ops(passes::fuse(g), "add"), 2);
  g.output("r", g.binary(BinaryFn::add, x, dr, "sum_r"));
  g.output("l", g.binary(BinaryFn::add, dl, x, "sum_l"));
  const Graph fused = passes::fuse(g);
  EXPECT_EQ(count_ops(fused, "add"), 2);
  EXPECT_EQ(inputs_of(fused, "sum_r"), (Names{"x", "weight", "rms_norm_0", "x", "x"}));
  EXPECT_EQ(inputs_of(fused, "sum_l").size(), 6u);
  const auto backend = cpu_backend(1);
  const testing::Inputs in = {{"x", {1, -2, 3, 0.5}}, {"weight", {1, 2, -1, 0.5}}, {"bias", {0, 1, 2, 3}}, {"v", {5, 6, 7, 8}}};
  const testing::Inputs want = testing::run_once(g, *backend, in), got = testing::run_once(fused, *backend, in);
  for (const auto& [name, values] : want) EXPECT_LT(norm_of_difference(got.at(name), values), 1e-7) << name;
}

TEST(Fuse, WhatHasItsAddendTakesNoOther) {
  Graph g;
  const Value x = g.input("x", {2, 4}), weight = g.input("weight", {4}), v = g.input("v", {2, 4}), ids = g.input_u32("ids", {2});
  const Value rms = g.rms_norm(x, weight), layer = g.layer_norm(x, weight, g.input("bias", {4}));
  const Value made[] = {g.record(MatMul{}, {x, g.input("w", {4, 4}), v}), g.record(EmbeddingGrad{2}, {ids, x, v}),
                        g.record(RmsNormGrad{}, {x, weight, {rms.node, 1}, x, v}),
                        g.record(LayerNormGrad{}, {x, weight, {layer.node, 1}, {layer.node, 2}, x, v})};
  for (int i = 0; i < 4; ++i) g.output("y" + std::to_string(i), g.add(made[i], x));
  EXPECT_EQ(passes::fuse(g).to_text(), g.to_text());
}

TEST(Fuse, ATrainingStepHasNoSumsLeftAndTheSameResultsUpToRounding) {
  const Graph plain = tiny_llama_step(), fused = passes::fuse(plain);
  EXPECT_EQ(count_ops(plain, "add"), 15);  // a layer: two residuals, their gradients, q + k + v, gate + up; one at the tied embedding
  EXPECT_EQ(count_ops(fused, "add"), 0);
  EXPECT_EQ(fused.nodes().size() + 15, plain.nodes().size());
  EXPECT_EQ(fused.outputs().size(), plain.outputs().size());
  EXPECT_EQ(fused.seed(), plain.seed());
  for (const Node& node : plain.nodes())
    if (std::holds_alternative<Parameter>(node.op) || std::holds_alternative<State>(node.op) || op_name(node.op) == "add") {
      EXPECT_TRUE(fused.find(node.name)) << node.name;
    }
  for (const char* name : {"reference", "cpu"}) {
    const auto backend = make_backend(name, 2);
    const testing::Inputs want = testing::run_once(plain, *backend, tiny_llama_batch()), got = testing::run_once(fused, *backend, tiny_llama_batch());
    for (const auto& [key, values] : want) EXPECT_LT(norm_of_difference(got.at(key), values), 1e-5) << name << " " << key;
  }
}

TEST(Fuse, TheSumOfAStepTakesThePlaceOfItsAddend) {
  const Graph fused = passes::fuse(tiny_llama_step());
  const auto backend = cpu_backend(1);
  const Plan plan(fused, *backend);
  int in_place = 0;
  for (std::int32_t n = 0; n < static_cast<std::int32_t>(fused.nodes().size()); ++n) {
    const Node& node = fused.nodes()[static_cast<std::size_t>(n)];
    const bool product = std::holds_alternative<MatMul>(node.op) && node.inputs.size() == 3;
    const bool norm = std::holds_alternative<RmsNormGrad>(node.op) && node.inputs.size() == 5;
    if (product || norm) in_place += std::any_of(node.inputs.begin(), node.inputs.end(), [&](Value v) { return plan.buffer_of({n, 0}) == plan.buffer_of(v); });
  }
  EXPECT_EQ(in_place, 10);  // all but the forward pass's residuals, which the backward pass reads
}

TEST(Fuse, GradientsAccumulateInTheProductsThatMakeThem) {
  Graph g;
  const Value x = g.input("x", {6, 3}), w = g.parameter("w", {3, 2}, Init::normal(0, 1));
  const Value loss = g.sum(g.tanh(g.matmul(x, w)));
  optim::accumulate(g, differentiate(g, loss), loss, g.constant({}, {6.0}));
  const Graph fused = passes::fuse(g);
  const Value assigned = fused.find("accumulated/w");
  EXPECT_TRUE(std::holds_alternative<MatMul>(fused.node(fused.node(assigned).inputs[0]).op));
  const auto backend = cpu_backend(1);
  std::vector<double> values;
  for (int i = 0; i < 18; ++i) values.push_back(0.1 * i - 0.7);
  Session plain(g, *backend), shorter(fused, *backend);
  for (Session* session : {&plain, &shorter}) {
    session->write("x", values);
    for (int i = 0; i < 3; ++i) session->step();
  }
  EXPECT_LT(norm_of_difference(shorter.read_f64("accumulate/w"), plain.read_f64("accumulate/w")), 1e-6);
}

TEST(Fuse, AnAddendHasAGradientToo) {
  Graph g;
  const Value x = g.input("x", {4, 3}), w = g.input("w", {3, 2}), c = g.input("c", {4, 2});
  const Value loss = g.sum(g.tanh(g.record(MatMul{}, {x, w, c})));
  const Gradients gradients = differentiate(g, loss, {c});
  EXPECT_EQ(g.type(gradients.of(g, c)), g.type(c));
  EXPECT_EQ(count_ops(g, "sum"), 1);  // the loss: no rows are summed
}

}  // namespace
}  // namespace graft
