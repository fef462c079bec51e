// The engine: what differentiate adds to a graph, and what it refuses. That every rule is right is proven in op_test.cc; the rules that
// depend on more than one op's cases are proven here.
#include "graft/autodiff.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

#include "graft/backend.h"
#include "graft/error.h"
#include "graft/gtest.h"
#include "graft/session.h"

namespace graft {
namespace {

using Values = std::vector<double>;

/// Σ weights ∘ y with weights that differ from element to element.
Value weighted_sum(Graph& g, Value y) {
  Values weights;
  for (std::int64_t i = 0; i < g.shape(y).size(); ++i) weights.push_back(std::sin(1.0 + 1.7 * static_cast<double>(i)));
  return g.sum(g.mul(y, g.constant(g.shape(y), weights, g.type(y).dtype)));
}

/// The values of `wanted` after a step of the graph in f64 with the given inputs.
std::vector<Values> evaluate(Graph g, const std::vector<Value>& wanted, const std::map<std::string, Values>& inputs = {}) {
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

std::string message_of(const std::function<void()>& act) {
  try {
    act();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

template <class T>
std::int64_t count(const Graph& g) {
  return std::count_if(g.nodes().begin(), g.nodes().end(), [](const Node& node) { return std::holds_alternative<T>(node.op); });
}

template <class T>
const Node& only(const Graph& g) {
  return *std::find_if(g.nodes().begin(), g.nodes().end(), [](const Node& node) { return std::holds_alternative<T>(node.op); });
}

TEST(Differentiate, AddsUpTheGradientsOfAValueReadThreeTimes) {
  Graph g;
  const Value x = g.input("x", {3});
  const Value loss = g.sum(g.add(g.mul(x, x), g.scale(x, 5.0)));
  const Gradients gradients = differentiate(g, loss, {x});
  g.verify();
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
}

TEST(Differentiate, KeepsTheCoefficientOfALossInTheMiddle) {
  Graph g;
  const Value w = g.parameter("w", {2}, Init::ones());
  const Value first = g.mean(g.mul(w, w));
  const Value loss = g.add_scalar(g.scale(first, -7.0), 1.0);
  const Gradients gradients = differentiate(g, loss, {w, first, loss});
  EXPECT_EQ(evaluate(g, {gradients.of(g, w), gradients.of(g, first), gradients.of(g, loss)}), (std::vector<Values>{{-7.0, -7.0}, {-7.0}, {1.0}}));
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
            "cached_attention \"layer.attend\": no gradient, it decodes from a cache that is overwritten; train with causal_attention or multi_head_attn");
  EXPECT_EQ(message_of([&] { differentiate(g, loss_w); }),
            "cache_write \"k_cache.write\": no gradient, it overwrites its cache; train with causal_attention or multi_head_attn");
  EXPECT_EQ(differentiate(g, loss_w, {written}).all.size(), 1u) << "the gradient of the written cache itself needs no gradient of the write";
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
  EXPECT_EQ(message_of([&] { differentiate(g, x, {x}); }), "differentiate \"x\": the loss must be a float scalar [], got f32[2, 3]");
  EXPECT_EQ(message_of([&] { differentiate(g, ids, {x}); }), "differentiate \"ids\": the loss must be a float scalar [], got u32[]");
  EXPECT_EQ(message_of([&] { differentiate(g, Value{9, 0}, {x}); }), "differentiate: the loss is not a value of this graph");
  EXPECT_EQ(message_of([&] { differentiate(g, Value{}, {x}); }), "differentiate: the loss is not a value of this graph");
}

TEST(Differentiate, RefusesGradientsOfIntegersAndOfForeignValues) {
  Graph g;
  const Value ids = g.input_u32("ids", {4});
  const Value loss = g.sum(g.embedding(g.parameter("table", {5, 2}), ids));
  EXPECT_EQ(message_of([&] { differentiate(g, loss, {ids}); }), "differentiate \"ids\": only float values have gradients, got u32[4]");
  EXPECT_EQ(message_of([&] { differentiate(g, loss, {Value{0, 1}}); }), "differentiate: a value of wrt is not a value of this graph");
  EXPECT_EQ(message_of([&] { differentiate(g, loss, {Value{77, 0}}); }), "differentiate: a value of wrt is not a value of this graph");
}

TEST(Differentiate, RefusesToDropTheGradientOfASavedStatistic) {
  Graph g;
  const Value x = g.parameter("x", {2, 3});
  const Value w = g.parameter("w", {3}), b = g.parameter("b", {3});
  const Value rms = g.rms_norm(x, w, 1e-5, "norm");
  const Value layer = g.layer_norm(x, w, b, 1e-5, "ln");
  const auto refusal = [&](Value out, Value saved) { return message_of([&] { differentiate(g, g.add(g.sum(out), g.sum(saved))); }); };
  EXPECT_EQ(refusal(rms, {rms.node, 1}), "rms_norm \"norm\": output 1 (rstd) is saved for the backward pass and has no gradient");
  EXPECT_EQ(refusal(layer, {layer.node, 1}), "layer_norm \"ln\": output 1 (mean) is saved for the backward pass and has no gradient");
  EXPECT_EQ(refusal(layer, {layer.node, 2}), "layer_norm \"ln\": output 2 (rstd) is saved for the backward pass and has no gradient");
  EXPECT_EQ(refusal(g.scale(x, 1.0), {rms.node, 1}), "rms_norm \"norm\": output 1 (rstd) is saved for the backward pass and has no gradient");
}

TEST(Differentiate, RefusesToReadAStateThatWasOverwritten) {
  Graph g;
  const Value s = g.state("s", {2}, Init::ones());
  const Value w = g.parameter("w", {2});
  const Value loss = g.sum(g.mul(w, s));
  g.assign(w, s, "store");
  EXPECT_NE(message_of([&] { differentiate(g, loss); }).find("reads \"s\" after \"store\" overwrote it"), std::string::npos);
}

// ---- rules whose meaning spans nodes

TEST(AttentionRule, SharesDeltaReadsTheSavedLseAndRecordsOnlyWhatIsAsked) {
  Graph g;
  const Value q = g.parameter("q", {4, 8}), k = g.parameter("k", {4, 4}), v = g.parameter("v", {4, 4});
  const Value out = g.causal_attention(q, k, v, 4, 2, 2);
  const Value loss = weighted_sum(g, out);
  Graph all = g, one = g;
  differentiate(all, loss);
  EXPECT_EQ(count<AttnDelta>(all), 1);
  const std::vector<Value>& in = only<MultiHeadAttnGradQ>(all).inputs;
  EXPECT_EQ(in[3], (Value{out.node, 1}));
  EXPECT_EQ(only<MultiHeadAttnGradK>(all).inputs, in);
  EXPECT_EQ(only<MultiHeadAttnGradV>(all).inputs, in);
  differentiate(one, loss, {k});
  EXPECT_EQ(count<MultiHeadAttnGradQ>(one) + count<MultiHeadAttnGradV>(one), 0);
  EXPECT_EQ(count<MultiHeadAttnGradK>(one), 1);
}

struct LseCase {
  const char* name;
  double out_weight, lse_weight;
  Mask::Kind mask;
  bool packed;
};

class AttentionLse : public testing::TestWithParam<LseCase> {};

TEST_P(AttentionLse, GradientMatchesFiniteDifferences) {
  const LseCase& c = GetParam();
  Graph g(3);
  const Value q = g.parameter("q", {5, 12}, Init::normal(0, 1)), k = g.parameter("k", {5, 6}, Init::normal(0, 1));
  const Value v = g.parameter("v", {5, 6}, Init::normal(0, 1));
  AttentionOptions options;
  options.mask = c.mask;
  options.window = c.mask == Mask::Kind::window ? 2 : 0;
  if (c.packed) options.segments = Segments::packed(g.input_u32("offsets", {3}));
  const Value out = g.multi_head_attn(q, k, v, 4, 2, 3, false, options);
  const Value lse{out.node, 1};
  Value loss = g.scale(weighted_sum(g, g.mul(lse, lse)), c.lse_weight);
  if (c.out_weight != 0.0) loss = g.add(loss, g.scale(weighted_sum(g, out), c.out_weight));
  GradientCheckOptions check;
  if (c.packed) check.inputs["offsets"] = {0, 2, 5};
  const GradientCheckReport report = gradient_check(g, loss, check);
  EXPECT_TRUE(report.passed) << report.to_string();
  EXPECT_EQ(report.unreached, c.out_weight != 0.0 ? std::vector<std::string>{} : std::vector<std::string>{"v"});
}

INSTANTIATE_TEST_SUITE_P(Losses, AttentionLse,
                         testing::Values(LseCase{"lse_alone_causal", 0.0, 1.5, Mask::Kind::causal, false},
                                         LseCase{"lse_alone_full_packed", 0.0, -0.5, Mask::Kind::full, true},
                                         LseCase{"both_full", 1.0, 0.7, Mask::Kind::full, false},
                                         LseCase{"both_window", -2.0, 0.7, Mask::Kind::window, false},
                                         LseCase{"both_causal_packed", 1.0, 3.0, Mask::Kind::causal, true}),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(CrossEntropyRule, DifferentiatesTheLseBesideAndWithoutTheLoss) {
  for (const bool with_loss : {false, true}) {
    Graph g(5);
    const Value logits = g.parameter("logits", {4, 5}, Init::normal(0, 2));
    CrossEntropyOptions options;
    options.label_smoothing = 0.1;
    const CrossEntropyResult ce = g.cross_entropy_with(logits, g.input_u32("labels", {4}), options);
    Value loss = weighted_sum(g, g.mul(ce.lse, ce.lse));
    if (with_loss) loss = g.add(loss, g.scale(ce.loss, 3.0));
    GradientCheckOptions check;
    check.inputs["labels"] = {2, 4, 4294967295.0, 0};
    EXPECT_TRUE(gradients_match(g, loss, check)) << "with the loss: " << with_loss;
  }
}

TEST(CrossEntropyRule, TakesTheNumberOfCountedTokensForAConstant) {
  Graph g(5);
  const Value logits = g.parameter("logits", {3, 4}, Init::normal(0, 1));
  const Value labels = g.input_u32("labels", {3});
  CrossEntropyOptions sum;
  sum.reduction = Reduction::sum;
  const CrossEntropyResult summed = g.cross_entropy_with(logits, labels, sum);
  const Value divided = differentiate(g, g.div(summed.loss, summed.counted)).of(g, logits);
  const Value mean = differentiate(g, g.cross_entropy(logits, labels)).of(g, logits);
  EXPECT_EQ(differentiate(g, g.scale(summed.counted, 2.0)).unreached, std::vector<std::string>{"logits"});
  for (std::size_t i = 0; i < 2; ++i) g.output(i == 0 ? "divided" : "mean", i == 0 ? divided : mean);
  const Graph wide = g.to_f64();
  const auto backend = reference_backend();
  Session session(wide, *backend);
  session.write("labels", std::vector<std::uint32_t>{1, kIgnoreIndex, 3});
  session.step();
  const Values a = session.read_f64("divided"), b = session.read_f64("mean");
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-15);
}

TEST(RopeRule, TurnsBackByTheSameRunTimeOffsetAndSegments) {
  Graph g(1);
  const Value x = g.parameter("x", {5, 8}, Init::normal(0, 1));
  const Value offset = g.input_u32("offset", {}), offsets = g.input_u32("offsets", {3});
  const Value y = g.rope_dynamic_offset(x, 100.0, offset, 4, Segments::packed(offsets));
  const Value loss = weighted_sum(g, y);
  GradientCheckOptions check;
  check.inputs = {{"offset", {37}}, {"offsets", {0, 3, 5}}};
  EXPECT_TRUE(gradients_match(g, loss, check));
  differentiate(g, loss);
  const Node& back = *std::find_if(g.nodes().rbegin(), g.nodes().rend(), [](const Node& n) { return std::holds_alternative<Rope>(n.op); });
  EXPECT_TRUE(std::get<Rope>(back.op).inverse);
  EXPECT_EQ(back.inputs[1], offset);
  EXPECT_EQ(back.inputs[2], offsets);
}

TEST(RopeRule, TurnsForwardWhenTheOpTurnsBack) {
  Graph g(1);
  const Value x = g.parameter("x", {3, 4}, Init::normal(0, 1));
  Rope back;
  back.theta = 100.0;
  back.head_dim = 4;
  back.offset = 2;
  back.inverse = true;
  EXPECT_TRUE(gradients_match(g, weighted_sum(g, g.record(back, {x}))));
}

TEST(DropoutRule, DropsTheGradientOfTheSameElements) {
  Graph g(11);
  const Value x = g.parameter("x", {6, 7}, Init::ones());
  g.dropout(x, 0.5);  // takes stream 0
  const Value y = g.dropout(x, 0.4);
  const Value loss = g.sum(y);
  EXPECT_TRUE(gradients_match(g, weighted_sum(g, y)));
  const Value dx = differentiate(g, loss).of(g, x);
  const auto got = evaluate(g, {y, dx});
  EXPECT_EQ(got[0], got[1]) << "x is 1, so that y and its gradient are the mask";
  EXPECT_GT(std::count(got[1].begin(), got[1].end(), 0.0), 5);
}

TEST(BinaryRule, SumsOverWhatTheRightOperandWasRepeatedOver) {
  const std::vector<std::pair<Shape, Shape>> shapes = {{{3, 4}, {3, 4}}, {{3, 4}, {4}},    {{3, 4}, {1, 4}}, {{3, 4}, {3, 1}}, {{3, 4}, {}},
                                                       {{3, 3}, {3}},    {{3, 3}, {3, 1}}, {{4}, {4}},       {{4}, {}},        {{}, {}},
                                                       {{1, 4}, {4}},    {{1, 4}, {1, 1}}, {{4, 1}, {1}},    {{4, 1}, {1, 1}}, {{1, 1}, {}},
                                                       {{1, 1}, {1}},    {{1}, {}},        {{4, 1}, {4, 1}}, {{}, {1}}};
  for (const auto& [a_shape, b_shape] : shapes)
    for (const BinaryFn fn : kBinaryFns) {
      Graph g(7);
      const Value a = g.parameter("a", a_shape, Init::normal(0, 1)), b = g.parameter("b", b_shape, Init::uniform(0.5, 2.0));
      const Value loss = weighted_sum(g, g.binary(fn, a, b));
      EXPECT_TRUE(gradients_match(g, loss)) << to_string(a_shape) << " " << to_string(b_shape) << " function " << static_cast<int>(fn);
      GradientCheckOptions only_b;
      only_b.wrt = {b};
      EXPECT_TRUE(gradients_match(g, loss, only_b)) << "right operand alone: " << to_string(a_shape) << " " << to_string(b_shape);
    }
}

TEST(BinaryRule, AddsUpBothOperandsWhenTheyAreOneValue) {
  for (const BinaryFn fn : kBinaryFns) {
    Graph g(7);
    const Value a = g.parameter("a", {2, 3}, Init::uniform(0.5, 2.0));
    EXPECT_TRUE(gradients_match(g, weighted_sum(g, g.exp(g.binary(fn, a, a))))) << static_cast<int>(fn);
  }
}

TEST(BroadcastRule, SumsOverEveryKindOfRepetition) {
  const std::vector<std::pair<Shape, Shape>> shapes = {{{4}, {3, 4}}, {{1, 4}, {3, 4}}, {{3, 1}, {3, 4}}, {{}, {3, 4}}, {{}, {4}}, {{3}, {3, 3}}, {{1}, {4, 1}}, {{4}, {1, 4}}};
  for (const auto& [from, to] : shapes) {
    Graph g(7);
    const Value x = g.parameter("x", from, Init::normal(0, 1));
    EXPECT_TRUE(gradients_match(g, weighted_sum(g, g.broadcast(x, to)))) << to_string(from) << " to " << to_string(to);
  }
}

TEST(ReduceRule, RepeatsOverEveryShapeAndAxis) {
  for (const Shape& shape : {Shape{3, 4}, Shape{3, 3}, Shape{1, 4}, Shape{4, 1}, Shape{1, 1}, Shape{4}, Shape{1}, Shape{}})
    for (const Axis axis : {Axis::all, Axis::rows, Axis::columns})
      for (const ReduceFn fn : {ReduceFn::sum, ReduceFn::mean, ReduceFn::max}) {
        Graph g(7);
        const Value x = g.parameter("x", shape, Init::normal(0, 1));
        EXPECT_TRUE(gradients_match(g, weighted_sum(g, g.exp(g.reduce(fn, x, axis)))))
            << to_string(shape) << " axis " << static_cast<int>(axis) << " function " << static_cast<int>(fn);
      }
}

TEST(MatMulRule, HoldsForAllTransposesWithBias) {
  for (const bool ta : {false, true})
    for (const bool tb : {false, true}) {
      Graph g(7);
      const Value a = g.parameter("a", ta ? Shape{3, 2} : Shape{2, 3}, Init::normal(0, 1));
      const Value b = g.parameter("b", tb ? Shape{4, 3} : Shape{3, 4}, Init::normal(0, 1));
      const Value bias = g.parameter("bias", {4}, Init::normal(0, 1));
      EXPECT_TRUE(gradients_match(g, weighted_sum(g, g.tanh(g.matmul_bias(a, b, bias, ta, tb))))) << ta << tb;
    }
}

TEST(ShapeRules, PutEveryElementBackWhereItCameFrom) {
  Graph g(7);
  const Value x = g.parameter("x", {4, 6}, Init::normal(0, 1)), y = g.parameter("y", {2, 6}, Init::normal(0, 1)), z = g.parameter("z", {5}, Init::normal(0, 1));
  const Value stacked = g.concat(std::vector{x, y, x}, Axis::rows);                         // [10, 6]
  const std::vector<Value> parts = g.split(stacked, std::vector<std::int64_t>{1, 3, 2}, Axis::columns);
  const Value turned = g.transpose(g.concat(std::vector{parts[2], parts[0]}, Axis::columns));  // [3, 10]
  const Value inner = g.slice(turned, 1, 2, 3, 5);                                             // [2, 5]
  const Value padded = g.record(Pad{{4, 7}, 1, 2}, {inner});
  const Value vectors = g.concat(std::vector{g.slice(z, 0, 1, 1, 3), z}, Axis::columns);      // [8]
  const Value loss = g.add(weighted_sum(g, g.exp(g.reshape(padded, {7, 4}))), g.add(weighted_sum(g, g.exp(parts[1])), weighted_sum(g, g.exp(vectors))));
  EXPECT_TRUE(gradients_match(g, loss));
}

TEST(CastRule, GoesBackToTheTypeOfTheInput) {
  Graph g;
  const Value x = g.parameter("x", {3}, Init::fill(0.5));
  const Value loss = g.sum(g.exp(g.cast(x, DType::f64)));
  const Value dx = differentiate(g, loss).of(g, x);
  EXPECT_EQ(g.type(dx), (TensorType{DType::f32, {3}}));
  g.output("dx", dx);
  const auto backend = reference_backend();
  Session session(g, *backend);
  session.step();
  EXPECT_EQ(session.read("dx"), std::vector<float>(3, static_cast<float>(std::exp(0.5))));
}

TEST(UnaryRule, HoldsForEveryFunction) {
  for (const UnaryFn fn : kUnaryFns) {
    Graph g(7);
    const bool positive = fn == UnaryFn::log || fn == UnaryFn::sqrt;
    const Value x = g.parameter("x", {3, 4}, positive ? Init::uniform(0.3, 3.0) : Init::normal(0, 1.5));
    EXPECT_TRUE(gradients_match(g, weighted_sum(g, g.unary(fn, x, 1.75)))) << static_cast<int>(fn);
  }
}

TEST(Rules, HoldTogetherInADecoderWithTiedEmbeddings) {
  Graph g(17);
  const auto normal = Init::normal(0, 0.4);
  const Value ids = g.input_u32("ids", {6}), labels = g.input_u32("labels", {6});
  const Value table = g.parameter("table", {7, 8}, normal), wq = g.parameter("wq", {8, 8}, normal), wk = g.parameter("wk", {8, 4}, normal);
  const Value wv = g.parameter("wv", {8, 4}, normal), up = g.parameter("up", {8, 12}, normal), gate = g.parameter("gate", {8, 12}, normal);
  const Value down = g.parameter("down", {12, 8}, normal), norm = g.parameter("norm", {8}, Init::uniform(0.5, 1.5));
  const Value bias = g.parameter("bias", {8}, normal);
  const Segments segments = Segments::uniform(3);
  AttentionOptions options;
  options.segments = segments;
  const Value x = g.embedding(table, ids), n = g.rms_norm(x, norm);
  const Value q = g.rope(g.matmul(n, wq), 100.0, 4, segments), k = g.rope(g.matmul(n, wk), 100.0, 4, segments);
  const Value h = g.add(x, g.causal_attention(q, k, g.matmul(n, wv), 2, 1, 4, options));
  const Value m = g.layer_norm(h, norm, bias);
  const Value y = g.add(h, g.matmul(g.swiglu(g.matmul(m, gate), g.matmul(m, up)), down));
  const Value logits = g.matmul(g.mul(y, g.softmax(y)), table, false, true);
  const Value loss = g.add(g.scale(g.cross_entropy(logits, labels), 1.5), g.mean(g.log_softmax(logits)));
  GradientCheckOptions check;
  check.inputs = {{"ids", {0, 3, 3, 6, 1, 0}}, {"labels", {3, 3, 6, 1, 4294967295.0, 2}}};
  EXPECT_TRUE(gradients_match(g, loss, check));
}

}  // namespace
}  // namespace graft
