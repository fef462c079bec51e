// The engine: what differentiate adds to a graph, and what it refuses.
#include "graft/autodiff.h"

#include <gtest/gtest.h>

#include <chrono>

#include "tests/autodiff_helpers.h"

namespace graft {
namespace {

using namespace autodiff_test;

TEST(Differentiate, AddsUpTheGradientsOfAValueReadThreeTimes) {
  Graph g;
  const Value x = g.input("x", {3});
  const Value loss = g.sum(g.add(g.mul(x, x), g.scale(x, 5.0)));
  const Gradients gradients = differentiate(g, loss, {x});
  g.verify();
  EXPECT_EQ(g.node(gradients.of(g, x)).name, "grad.d:x") << "the sum has the name, not one of its terms";
  EXPECT_EQ(evaluate(g, {gradients.of(g, x)}, {{"x", {1.0, -2.0, 0.5}}})[0], (Values{7.0, 1.0, 6.0}));
}

TEST(Differentiate, AddsUpBothSidesOfADiamond) {
  Graph g;
  const Value x = g.input("x", {});
  const Value top = g.scale(x, 2.0);
  const Value loss = g.mul(g.exp(top), g.mul(top, top));
  const Gradients gradients = differentiate(g, loss, {x});
  const double t = 0.6, want = 2.0 * (std::exp(t) * t * t + std::exp(t) * 2.0 * t);
  EXPECT_NEAR(evaluate(g, {gradients.of(g, x)}, {{"x", {0.3}}})[0][0], want, 1e-14);
}

TEST(Differentiate, TakesAllParametersByDefaultAndLeavesInputsAlone) {
  Graph g;
  const Value x = g.input("x", {2, 3});
  const Value w = g.parameter("w", {3, 4});
  const Value b = g.parameter("b", {4});
  const Gradients gradients = differentiate(g, g.mean(g.matmul_bias(x, w, b)));
  ASSERT_EQ(gradients.all.size(), 2u);
  EXPECT_EQ(gradients.all[0].of, w);
  EXPECT_EQ(gradients.all[1].of, b);
  for (const Gradient& gradient : gradients.all) EXPECT_EQ(g.type(gradient.gradient), g.type(gradient.of));
  EXPECT_EQ(count<MatMul>(g), 2) << "the gradient of the input was recorded though nobody asked for it";
}

TEST(Differentiate, ReportsWhatTheLossDoesNotReachAndRecordsNothingForIt) {
  Graph g;
  const Value used = g.parameter("used", {2}, Init::ones());
  const Value unused = g.parameter("unused", {2});
  const Value later = g.sum(g.mul(unused, used));
  const Value loss = g.sum(g.exp(used));
  const std::size_t before = g.nodes().size();
  const Gradients gradients = differentiate(g, loss);
  EXPECT_EQ(gradients.unreached, std::vector<std::string>{"unused"});
  ASSERT_EQ(gradients.all.size(), 1u);
  EXPECT_EQ(gradients.all[0].of, used);
  for (std::size_t n = before; n < g.nodes().size(); ++n)
    for (Value v : g.nodes()[n].inputs) EXPECT_TRUE(v != unused && v != later) << g.nodes()[n].name;
  EXPECT_EQ(message_of([&] { gradients.of(g, unused); }), "gradient of \"unused\": the loss does not reach it");
  EXPECT_EQ(message_of([&] { gradients.of(g, loss); }), "gradient of \"sum_1\": it was not asked for");
}

TEST(Differentiate, RecordsNothingWhenTheLossReachesNoParameter) {
  Graph g;
  g.parameter("w", {2});
  const Value loss = g.sum(g.input("x", {2}));
  const std::size_t before = g.nodes().size();
  EXPECT_EQ(differentiate(g, loss).unreached, std::vector<std::string>{"w"});
  EXPECT_EQ(g.nodes().size(), before);
}

TEST(Differentiate, StopsAtStopGradient) {
  Graph g;
  const Value a = g.parameter("a", {2}, Init::fill(3.0));
  const Value b = g.parameter("b", {2}, Init::fill(2.0));
  const Value loss = g.sum(g.add(g.mul(a, g.stop_gradient(a)), g.stop_gradient(b)));
  const Gradients gradients = differentiate(g, loss);
  EXPECT_EQ(gradients.unreached, std::vector<std::string>{"b"});
  EXPECT_EQ(evaluate(g, {gradients.of(g, a)})[0], (Values{3.0, 3.0}));
  EXPECT_EQ(g.node(gradients.of(g, a)).name, "grad.d:a");
}

TEST(Differentiate, KeepsTheCoefficientOfALossInTheMiddle) {
  Graph g;
  const Value w = g.parameter("w", {2}, Init::ones());
  const Value first = g.mean(g.mul(w, w));
  const Value loss = g.add_scalar(g.scale(first, -7.0), 1.0);
  const Gradients gradients = differentiate(g, loss, {w, first, loss});
  EXPECT_EQ(evaluate(g, {gradients.of(g, w), gradients.of(g, first), gradients.of(g, loss)}),
            (std::vector<Values>{{-7.0, -7.0}, {-7.0}, {1.0}}));
}

TEST(Differentiate, GivesValuesInTheMiddleTheirWholeGradient) {
  Graph g;
  const Value x = g.input("x", {});
  const Value y = g.exp(x);
  const Value loss = g.mul(y, g.scale(y, 0.5));
  const Gradients gradients = differentiate(g, loss, {y, x});
  const double e = std::exp(0.25);
  const auto got = evaluate(g, {gradients.of(g, y), gradients.of(g, x)}, {{"x", {0.25}}});
  EXPECT_NEAR(got[0][0], e, 1e-14);
  EXPECT_NEAR(got[1][0], e * e, 1e-14);
}

TEST(Differentiate, ListsAValueAskedForTwiceOnce) {
  Graph g;
  const Value x = g.input("x", {2});
  EXPECT_EQ(differentiate(g, g.sum(x), {x, x}).all.size(), 1u);
}

TEST(Differentiate, WorksAgainOnAnotherLossAlsoInsideAScope) {
  Graph g;
  const Value w = g.parameter("w", {2}, Init::fill(2.0));
  const Value square = g.sum(g.mul(w, w)), cube = g.sum(g.mul(g.mul(w, w), w));
  const Value d1 = differentiate(g, square).of(g, w), d2 = differentiate(g, cube).of(g, w), d3 = differentiate(g, cube).of(g, w);
  const Graph::Scope scope(g, "again");
  const Value d4 = differentiate(g, square).of(g, w), d5 = differentiate(g, square, {}, true).of(g, w);
  g.verify();
  EXPECT_EQ(evaluate(g, {d1, d2, d3, d4, d5}), (std::vector<Values>{{4, 4}, {12, 12}, {12, 12}, {4, 4}, {4, 4}}));
}

TEST(Differentiate, WorksTwiceInsideAScope) {
  Graph g;
  const Value w = g.parameter("w", {2});
  const Value loss = g.sum(g.exp(w));
  const Graph::Scope scope(g, "inside");
  EXPECT_EQ(g.node(differentiate(g, loss).of(g, w)).name, "inside.grad.d:w");
  EXPECT_NO_THROW(differentiate(g, loss));
}

TEST(Differentiate, GoesThroughNoInteger) {
  Graph g;
  const Value w = g.parameter("w", {2}, Init::ones());
  const Value step = g.state("step", {}, Init::zeros(), DType::u32), skipped = g.state("skipped", {}, Init::zeros(), DType::u32);
  const Value counted = g.record(CountStep{}, {step, skipped, g.sum(w)});
  const Value rate = g.record(LearningRate{Schedule{}}, {counted});
  const Value loss = g.mul(g.sum(w), rate);  // rate follows w by way of an integer
  EXPECT_EQ(differentiate(g, loss).all.size(), 1u);
}

TEST(Differentiate, NamesTheNodesOfGradients) {
  Graph g;
  const Value x = g.input("x", {2, 3});
  const Value w = g.parameter("w", {3, 3}, Init::ones());
  const Value h = g.matmul(x, w, false, false, "layer.up");
  const Value loss = g.mean(g.mul(g.matmul(h, w), h));
  g.output("loss", loss);
  const Gradients gradients = differentiate(g, loss, {}, true);
  EXPECT_EQ(g.node(gradients.of(g, w)).name, "grad.d:w");
  EXPECT_TRUE(g.find("grad.d:layer.up"));
  EXPECT_TRUE(g.find("grad.d:mean_0"));
  EXPECT_EQ(g.outputs().at("d:w"), gradients.of(g, w));
  EXPECT_EQ(g.outputs().size(), 2u);
}

TEST(Differentiate, AddsNoOutputsUnlessAsked) {
  Graph g;
  g.parameter("w", {2});
  differentiate(g, g.sum(g.find("w")));
  EXPECT_TRUE(g.outputs().empty());
}

TEST(Differentiate, GrowsWithTheGraphInProportion) {
  const auto nodes_added = [](int length) {
    Graph g;
    Value x = g.parameter("x", {2});
    for (int i = 0; i < length; ++i) x = g.add(x, g.scale(x, 0.5));  // 2^length ways from the loss to x
    const Value loss = g.sum(x);
    const std::size_t before = g.nodes().size();
    differentiate(g, loss);
    return g.nodes().size() - before;
  };
  const std::size_t small = nodes_added(50);
  EXPECT_LE(small, 3u * 50 + 3);
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(nodes_added(5000) - 2, (small - 2) * 100);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
}

TEST(Differentiate, RefusesOpsWithoutAGradientByName) {
  Graph g;
  const Value row = g.parameter("row", {1, 4});
  const Value cache = g.state("cache", {8, 4});
  const Value v_cache = g.state("v_cache", {8, 4});
  const Value pos = g.input_u32("pos", {});
  const Value len = g.input_u32("len", {});
  const Value attended = g.cached_attention(row, cache, v_cache, len, 2, 2, 2, {}, "layer.attend");
  const Value written = g.cache_write(row, cache, pos, "k_cache.write");
  const Value loss_a = g.sum(attended), loss_w = g.sum(written);
  EXPECT_EQ(message_of([&] { differentiate(g, loss_a); }),
            "cached_attention \"layer.attend\": no gradient, it decodes from a cache that is overwritten; train with "
            "causal_attention or multi_head_attn");
  EXPECT_EQ(message_of([&] { differentiate(g, loss_w); }),
            "cache_write \"k_cache.write\": no gradient, it overwrites its cache; train with causal_attention or multi_head_attn");
  EXPECT_EQ(differentiate(g, loss_w, {written}).all.size(), 1u)
      << "the gradient of the written cache itself needs no gradient of the write";
  EXPECT_EQ(differentiate(g, g.add(loss_w, g.sum(row)), {written}).all.size(), 1u);
}

TEST(Differentiate, RefusesSecondDerivativesByName) {
  Graph g;
  const Value x = g.parameter("x", {3});
  const Value dx = differentiate(g, g.sum(g.tanh(x))).of(g, x);
  const Value loss = g.sum(g.mul(dx, dx));
  EXPECT_EQ(message_of([&] { differentiate(g, loss); }),
            "tanh_grad \"grad.d:x\": no gradient, second derivatives of elementwise functions are not implemented");
}

TEST(Differentiate, RefusesALossThatIsNoFloatScalar) {
  Graph g;
  const Value x = g.input("x", {2, 3});
  const Value ids = g.input_u32("ids", {});
  EXPECT_EQ(message_of([&] { differentiate(g, x, {x}); }),
            "differentiate \"x\": the loss must be a float scalar [], got f32[2, 3]");
  const Value one = g.input("one", {1, 1});
  EXPECT_EQ(message_of([&] { differentiate(g, one, {x}); }),
            "differentiate \"one\": the loss must be a float scalar [], got f32[1, 1]");
  EXPECT_EQ(message_of([&] { differentiate(g, ids, {x}); }),
            "differentiate \"ids\": the loss must be a float scalar [], got u32[]");
  EXPECT_EQ(message_of([&] { differentiate(g, Value{9, 0}, {x}); }), "differentiate: the loss is not a value of this graph");
  EXPECT_EQ(message_of([&] { differentiate(g, Value{}, {x}); }), "differentiate: the loss is not a value of this graph");
}

TEST(Differentiate, RefusesGradientsOfIntegersAndOfForeignValues) {
  Graph g;
  const Value ids = g.input_u32("ids", {4});
  const Value loss = g.sum(g.embedding(g.parameter("table", {5, 2}), ids));
  EXPECT_EQ(message_of([&] { differentiate(g, loss, {ids}); }),
            "differentiate \"ids\": only float values have gradients, got u32[4]");
  EXPECT_EQ(message_of([&] {
              differentiate(g, loss, {Value{0, 1}});
            }),
            "differentiate: a value of wrt is not a value of this graph");
  EXPECT_EQ(message_of([&] {
              differentiate(g, loss, {Value{77, 0}});
            }),
            "differentiate: a value of wrt is not a value of this graph");
}

TEST(Differentiate, RefusesToDropTheGradientOfASavedStatistic) {
  Graph g;
  const Value x = g.parameter("x", {2, 3});
  const Value w = g.parameter("w", {3}), b = g.parameter("b", {3});
  const Value rms = g.rms_norm(x, w, 1e-5, "norm");
  const Value layer = g.layer_norm(x, w, b, 1e-5, "ln");
  const auto refusal = [&](Value out, Value saved) {
    return message_of([&] { differentiate(g, g.add(g.sum(out), g.sum(saved))); });
  };
  EXPECT_EQ(refusal(rms, {rms.node, 1}), "rms_norm \"norm\": output 1 (rstd) is saved for the backward pass and has no gradient");
  EXPECT_EQ(refusal(layer, {layer.node, 1}),
            "layer_norm \"ln\": output 1 (mean) is saved for the backward pass and has no gradient");
  EXPECT_EQ(refusal(layer, {layer.node, 2}),
            "layer_norm \"ln\": output 2 (rstd) is saved for the backward pass and has no gradient");
  EXPECT_EQ(refusal(g.scale(x, 1.0), {rms.node, 1}),
            "rms_norm \"norm\": output 1 (rstd) is saved for the backward pass and has no gradient");
}

TEST(Differentiate, RefusesToReadAStateThatWasOverwritten) {
  Graph g;
  const Value s = g.state("s", {2}, Init::ones());
  const Value w = g.parameter("w", {2});
  const Value loss = g.sum(g.mul(w, s));
  g.assign(w, s, "store");
  EXPECT_NE(message_of([&] { differentiate(g, loss); }).find("reads \"s\" after \"store\" overwrote it"), std::string::npos);
}

}  // namespace
}  // namespace graft
