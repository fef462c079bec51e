// Gradient rules whose meaning spans nodes or many shapes. op_test.cc proves each rule on the op's own cases.
#include <gtest/gtest.h>

#include "graft/autodiff.h"
#include "graft/gtest.h"
#include "tests/autodiff_helpers.h"

namespace graft {
namespace {

using namespace autodiff_test;

template <class T>
const Node& only(const Graph& g) {
  return *std::find_if(g.nodes().begin(), g.nodes().end(), [](const Node& node) { return std::holds_alternative<T>(node.op); });
}

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

class AttentionLse : public ::testing::TestWithParam<LseCase> {};

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
                         ::testing::Values(LseCase{"lse_alone_causal", 0.0, 1.5, Mask::Kind::causal, false},
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

TEST(LinearCrossEntropyRule, TakesTheNumberOfCountedTokensForAConstant) {
  Graph g;
  const Value x = g.parameter("x", {3, 4}), w = g.parameter("w", {4, 5});
  const CrossEntropyResult loss = g.linear_cross_entropy(x, w, g.input_u32("labels", {3}));
  EXPECT_EQ(differentiate(g, g.scale(loss.counted, 2.0)).unreached, (std::vector<std::string>{"x", "w"}));
  EXPECT_TRUE(differentiate(g, g.div(loss.loss, loss.counted)).unreached.empty());
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
  const Node& back =
      *std::find_if(g.nodes().rbegin(), g.nodes().rend(), [](const Node& n) { return std::holds_alternative<Rope>(n.op); });
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
  const std::vector<std::pair<Shape, Shape>> shapes = {
      {{3, 4}, {3, 4}}, {{3, 4}, {4}}, {{3, 4}, {1, 4}}, {{3, 4}, {3, 1}}, {{3, 4}, {}},     {{3, 3}, {3}}, {{3, 3}, {3, 1}},
      {{4}, {4}},       {{4}, {}},     {{}, {}},         {{1, 4}, {4}},    {{1, 4}, {1, 1}}, {{4, 1}, {1}}, {{4, 1}, {1, 1}},
      {{1, 1}, {}},     {{1, 1}, {1}}, {{1}, {}},        {{4, 1}, {4, 1}}, {{}, {1}}};
  for (const auto& [a_shape, b_shape] : shapes)
    for (const BinaryFn fn : kBinaryFns) {
      Graph g(7);
      const Value a = g.parameter("a", a_shape, Init::normal(0, 1)), b = g.parameter("b", b_shape, Init::uniform(0.5, 2.0));
      const Value loss = weighted_sum(g, g.binary(fn, a, b));
      EXPECT_TRUE(gradients_match(g, loss)) << to_string(a_shape) << " " << to_string(b_shape) << " function "
                                            << static_cast<int>(fn);
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

TEST(BinaryRule, GivesARepeatedBf16OperandABf16Gradient) {
  for (const Shape& shape : {Shape{3, 4}, Shape{4}, Shape{3, 1}, Shape{}}) {
    Graph g(7);
    const Value a = g.cast(g.parameter("a", {3, 4}, Init::normal(0, 1)), DType::bf16), b = g.cast(g.parameter("b", shape, Init::normal(0, 1)), DType::bf16);
    const Value loss = g.sum(g.exp(g.cast(g.mul(a, b), DType::f32)));
    EXPECT_EQ(g.type(differentiate(g, loss, {b}).of(g, b)), (TensorType{DType::bf16, shape})) << to_string(shape);
  }
}

TEST(BroadcastRule, SumsOverEveryKindOfRepetition) {
  const std::vector<std::pair<Shape, Shape>> shapes = {{{4}, {3, 4}}, {{1, 4}, {3, 4}}, {{3, 1}, {3, 4}}, {{}, {3, 4}},
                                                       {{}, {4}},     {{3}, {3, 3}},    {{1}, {4, 1}},    {{4}, {1, 4}}};
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
  const Value x = g.parameter("x", {4, 6}, Init::normal(0, 1)), y = g.parameter("y", {2, 6}, Init::normal(0, 1)),
              z = g.parameter("z", {5}, Init::normal(0, 1));
  const Value stacked = g.concat(std::vector{x, y, x}, Axis::rows);  // [10, 6]
  const std::vector<Value> parts = g.split(stacked, std::vector<std::int64_t>{1, 3, 2}, Axis::columns);
  const Value turned = g.transpose(g.concat(std::vector{parts[2], parts[0]}, Axis::columns));  // [3, 10]
  const Value inner = g.slice(turned, 1, 2, 3, 5);                                             // [2, 5]
  const Value padded = g.record(Pad{{4, 7}, 1, 2}, {inner});
  const Value vectors = g.concat(std::vector{g.slice(z, 0, 1, 1, 3), z}, Axis::columns);  // [8]
  const Value loss = g.add(weighted_sum(g, g.exp(g.reshape(padded, {7, 4}))),
                           g.add(weighted_sum(g, g.exp(parts[1])), weighted_sum(g, g.exp(vectors))));
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
  const Value table = g.parameter("table", {7, 8}, normal), wq = g.parameter("wq", {8, 8}, normal),
              wk = g.parameter("wk", {8, 4}, normal);
  const Value wv = g.parameter("wv", {8, 4}, normal), up = g.parameter("up", {8, 12}, normal),
              gate = g.parameter("gate", {8, 12}, normal);
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
