// Products of bf16 operands, and the pass that makes a training graph's products narrow.
#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>
#include <set>

#include "graft/bf16.h"
#include "graft/graft.h"
#include "tests/message.h"
#include "tests/run_graph.h"

namespace graft {
namespace {

using testing::message_of;

int count(const Graph& graph, const std::string& op) {
  int found = 0;
  for (const Node& node : graph.nodes()) found += op_name(node.op) == op;
  return found;
}

double norm_of_difference(const std::vector<double>& a, const std::vector<double>& b) {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    norm += b[i] * b[i];
  }
  return std::sqrt(difference / norm);
}

struct Product {
  std::int64_t m, k, n;
  bool ta, tb, bias;
};

class Bf16Product : public ::testing::TestWithParam<Product> {};

TEST_P(Bf16Product, SumsTheRoundedOperandsInF32OnEveryBackend) {
  const auto [m, k, n, ta, tb, bias] = GetParam();
  Graph g(3);
  const Value a = g.parameter("a", ta ? Shape{k, m} : Shape{m, k}, Init::normal(0, 1));
  const Value b = g.parameter("b", tb ? Shape{n, k} : Shape{k, n}, Init::normal(0, 1));
  const Value na = g.cast(a, DType::bf16), nb = g.cast(b, DType::bf16);
  const Value out = bias ? g.matmul_bias(na, nb, g.parameter("bias", {n}, Init::normal(0, 1)), ta, tb) : g.matmul(na, nb, ta, tb);
  g.output("out", out);
  EXPECT_EQ(g.type(out), (TensorType{DType::f32, {m, n}}));

  const auto reference = reference_backend();
  const testing::Inputs values = testing::run_once(g, *reference, {});
  const std::vector<double>&va = values.at("a"), &vb = values.at("b");
  const auto rounded = [](double x) { return static_cast<double>(to_float(to_bf16(static_cast<float>(x)))); };
  std::vector<double> want;
  for (std::int64_t i = 0; i < m; ++i)
    for (std::int64_t j = 0; j < n; ++j) {
      double sum = bias ? values.at("bias")[static_cast<std::size_t>(j)] : 0.0;
      for (std::int64_t p = 0; p < k; ++p)
        sum += rounded(va[static_cast<std::size_t>(ta ? p * m + i : i * k + p)]) * rounded(vb[static_cast<std::size_t>(tb ? j * k + p : p * n + j)]);
      want.push_back(sum);
    }
  EXPECT_LT(norm_of_difference(values.at("out"), want), 1e-6);
  std::vector<double> with_one_thread;
  for (int threads : {1, 2, 4}) {
    const auto cpu = cpu_backend(threads);
    const std::vector<double> got = testing::run_once(g, *cpu, {}).at("out");
    EXPECT_LT(norm_of_difference(got, want), 1e-5) << threads << " threads";
    if (threads == 1) with_one_thread = got;
    EXPECT_EQ(got, with_one_thread) << threads << " threads";
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, Bf16Product,
                         ::testing::Values(Product{64, 96, 128, false, false, true}, Product{64, 96, 128, false, true, false},
                                           Product{64, 96, 128, true, false, false}, Product{33, 70, 65, true, true, false},
                                           Product{300, 129, 70, false, false, false}, Product{1, 70, 96, false, false, true},
                                           Product{50, 1, 3, false, false, false}, Product{600, 40, 520, false, true, true}));

TEST(Bf16, CastRoundsToNearestEvenOnEveryBackend) {
  const float infinity = std::numeric_limits<float>::infinity();
  // From the bits: a bf16 is the upper half of a float; ties go to the even one.
  const std::vector<float> from = {1.0f,  1.00390625f, 1.01171875f, -1.00390625f, 1.00390637f, 255.0f, 257.0f, 3.3895314e38f, 3.4e38f, 1e-40f, -0.0f, infinity};
  const std::vector<float> want = {1.0f,  1.0f,        1.015625f,   -1.0f,        1.0078125f,  255.0f, 256.0f, 3.3895314e38f, infinity, 0x1p-133f, -0.0f, infinity};
  for (const char* name : {"reference", "cpu"}) {
    const auto backend = make_backend(name, 1);
    Graph g;
    g.output("out", g.cast(g.cast(g.input("x", {12}), DType::bf16), DType::f32));
    Session session(g, *backend);
    session.write("x", from);
    session.step();
    const std::vector<float> got = session.read("out");
    for (std::size_t i = 0; i < want.size(); ++i) EXPECT_EQ(got[i], want[i]) << name << " " << from[i];
    session.write("x", std::vector<float>(12, std::nanf("")));
    session.step();
    EXPECT_TRUE(std::isnan(session.read("out")[3])) << name;
  }
}

TEST(Bf16, DtypesMustAgree) {
  Graph g;
  const Value a = g.input("a", {2, 3}), b = g.input("b", {3, 4});
  const Value na = g.cast(a, DType::bf16), nb = g.cast(b, DType::bf16);
  EXPECT_NE(message_of([&] { g.matmul(a, nb, false, false, "m"); }).find("matmul \"m\": "), std::string::npos);
  EXPECT_NE(message_of([&] { g.matmul(na, b, false, false, "m"); }).find("matmul \"m\": "), std::string::npos);
  const Value bias = g.input("bias", {4}, DType::f64);
  EXPECT_EQ(message_of([&] { g.matmul_bias(na, nb, bias, false, false, "m"); }), "matmul \"m\": bias must be f32, got f64[4]");
}

Graph training_graph(std::uint64_t seed = 5, int layers = 2, double dropout = 0.1) {
  Graph g(seed);
  nn::LlamaConfig config;
  config.vocab_size = 17;
  config.hidden_size = 32;
  config.intermediate_size = 48;
  config.num_layers = layers;
  config.num_heads = config.num_kv_heads = 2;
  config.dropout = dropout;
  const nn::Llama model(g, config);
  const Value logits = model.forward(g, g.input_u32("ids", {32}), Segments::uniform(16));
  const Value loss = g.cross_entropy(logits, g.input_u32("labels", {32}));
  g.output("loss", loss);
  optim::adamw(g, differentiate(g, loss), {}, {.schedule = {.base = 1e-2}, .clip_norm = 1.0});
  return g;
}

Graph gpt2_training_graph() {
  Graph g(6);
  nn::Gpt2Config config;
  config.vocab_size = 17;
  config.max_positions = 16;
  config.hidden_size = 32;
  config.num_layers = 1;
  config.num_heads = 2;
  const nn::Gpt2 model(g, config);
  const Value loss = g.cross_entropy(model.forward(g, g.input_u32("ids", {32}), Segments::uniform(16)), g.input_u32("labels", {32}));
  g.output("loss", loss);
  optim::adamw(g, differentiate(g, loss), {}, {.schedule = {.base = 1e-2}, .clip_norm = 1.0});
  return g;
}

using Names = std::set<std::string>;

/// The values that are stored in bf16, but for casts.
Names stored_in_bf16(const Graph& graph) {
  Names names;
  for (const Node& node : graph.nodes())
    for (std::size_t slot = 0; slot < node.outputs.size(); ++slot)
      if (node.outputs[slot].dtype == DType::bf16 && !std::holds_alternative<Cast>(node.op))
        names.insert(node.name + (slot > 0 ? ":" + std::to_string(slot) : ""));
  return names;
}

/// What is cast, and to which type.
Names casts(const Graph& graph) {
  Names names;
  for (const Node& node : graph.nodes())
    if (std::holds_alternative<Cast>(node.op)) {
      const bool fresh = names.insert(op_attributes(node.op) + " " + graph.node(node.inputs[0]).name).second;
      EXPECT_TRUE(fresh) << node.name << " casts what was cast before";
    }
  return names;
}

TEST(MixedPrecision, OfALlamaTheResidualStreamAndWhatIsSummedStayWide) {
  const Graph narrow = passes::mixed_precision(passes::fuse(training_graph(5, 1, 0.0)));
  const std::string attn = "model.layers.0.self_attn.", mlp = "model.layers.0.mlp.";
  EXPECT_EQ(stored_in_bf16(narrow),
            (Names{"model.layers.0.input_layernorm.rms_norm_0", attn + "q_proj.matmul_0", attn + "k_proj.matmul_0", attn + "v_proj.matmul_0",
                   attn + "rope_0", attn + "rope_1", attn + "causal_attention_0", "model.layers.0.post_attention_layernorm.rms_norm_0",
                   mlp + "gate_proj.matmul_0", mlp + "up_proj.matmul_0", mlp + "swiglu_0", "model.norm.rms_norm_0",
                   // back
                   "grad.d:lm_head.matmul_0", "grad.d:model.norm.rms_norm_0", "grad.d:" + mlp + "swiglu_0", "grad.swiglu_grad_0",
                   "grad.swiglu_grad_0:1", "grad.d:" + attn + "causal_attention_0", "grad.d:" + attn + "rope_0", "grad.d:" + attn + "rope_1",
                   "grad.d:" + attn + "v_proj.matmul_0", "grad.d:" + attn + "q_proj.matmul_0", "grad.d:" + attn + "k_proj.matmul_0"}));
  Names weights;  // and the gradient of the residual stream where it goes into a product
  for (const char* name : {"q_proj", "k_proj", "v_proj", "o_proj"}) weights.insert("bf16 " + attn + name + ".weight");
  for (const char* name : {"gate_proj", "up_proj", "down_proj"}) weights.insert("bf16 " + mlp + name + ".weight");
  weights.insert({"bf16 model.embed_tokens.weight", "bf16 grad.rms_norm_grad_0", "bf16 grad.d:model.layers.0.add_0"});
  EXPECT_EQ(casts(narrow), weights);
}

TEST(MixedPrecision, OfAGpt2TheResidualStreamAndWhatIsSummedStayWide) {
  const Graph narrow = passes::mixed_precision(passes::fuse(gpt2_training_graph()));
  const std::string h = "transformer.h.0.";
  EXPECT_EQ(stored_in_bf16(narrow),
            (Names{h + "ln_1.layer_norm_0", h + "attn.c_attn.matmul_0", h + "slice_0", h + "slice_1", h + "slice_2", h + "causal_attention_0",
                   h + "ln_2.layer_norm_0", h + "mlp.c_fc.matmul_0", h + "gelu_tanh_0", "transformer.ln_f.layer_norm_0",
                   // back
                   "grad.d:lm_head.matmul_0", "grad.d:transformer.ln_f.layer_norm_0", "grad.d:" + h + "gelu_tanh_0",
                   "grad.d:" + h + "mlp.c_fc.matmul_0", "grad.d:" + h + "ln_2.layer_norm_0", "grad.d:" + h + "causal_attention_0",
                   "grad.d:" + h + "slice_0", "grad.d:" + h + "slice_1", "grad.d:" + h + "slice_2", "grad.pad_0", "grad.pad_1", "grad.pad_2",
                   "grad.add_0", "grad.d:" + h + "attn.c_attn.matmul_0", "grad.d:" + h + "ln_1.layer_norm_0"}));
  EXPECT_EQ(casts(narrow), (Names{"bf16 " + h + "attn.c_attn.weight", "bf16 " + h + "attn.c_proj.weight", "bf16 " + h + "mlp.c_fc.weight",
                                  "bf16 " + h + "mlp.c_proj.weight", "bf16 transformer.wte.weight", "bf16 grad.layer_norm_grad_0",
                                  "bf16 grad.d:" + h + "add_0"}));
}

TEST(MixedPrecision, KeepsNamesOutputsStatesAndTheSeed) {
  const Graph wide = training_graph(), narrow = passes::mixed_precision(wide);
  EXPECT_EQ(static_cast<int>(narrow.nodes().size()), static_cast<int>(wide.nodes().size()) + count(narrow, "cast"));
  for (const Node& node : wide.nodes()) {
    const Value same = narrow.find(node.name);
    ASSERT_TRUE(same) << node.name;
    EXPECT_EQ(op_name(narrow.node(same).op), op_name(node.op)) << node.name;
    if (node.inputs.empty()) {
      EXPECT_EQ(narrow.node(same).outputs, node.outputs) << node.name;
    }
  }
  EXPECT_EQ(narrow.outputs().size(), wide.outputs().size());
  for (const auto& [name, value] : wide.outputs()) EXPECT_EQ(narrow.type(narrow.outputs().at(name)), wide.type(value)) << name;
  EXPECT_EQ(narrow.seed(), wide.seed());
}

TEST(MixedPrecision, TrainsAsTheWideGraphDoes) {
  const auto backend = cpu_backend(2);
  std::vector<std::uint32_t> ids(32), labels(32);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    ids[i] = static_cast<std::uint32_t>(i * 5 % 17);
    labels[i] = static_cast<std::uint32_t>((i + 1) * 5 % 17);
  }
  std::vector<double> last;
  for (const bool narrow : {false, true}) {
    const Graph wide = training_graph();
    Session session(narrow ? passes::mixed_precision(wide) : wide, *backend);
    session.write("ids", ids);
    session.write("labels", labels);
    session.step();
    const double first = session.scalar("loss");
    for (int i = 0; i < 60; ++i) session.step();
    last.push_back(session.scalar("loss"));
    EXPECT_LT(last.back(), first / 3) << (narrow ? "bf16" : "f32");
  }
  EXPECT_NEAR(last[1], last[0], 0.05);
  EXPECT_NE(last[1], last[0]);
}

DType stored(const Graph& graph, const std::string& name) { return graph.node(graph.find(name)).outputs[0].dtype; }

/// x [4, 8] in f32 → x·W, a product that can be stored in bf16.
Value product(Graph& g, const std::string& name, Value x) {
  return g.matmul(x, g.parameter(name + ".weight", {8, 8}, Init::normal(0, 1)), false, false, name);
}

TEST(MixedPrecision, LeavesFunctionsThatMagnifyErrorsInF32) {
  using Function = std::function<Value(Graph&, Value)>;
  const std::pair<const char*, Function> functions[] = {
      {"exp", [](Graph& g, Value x) { return g.exp(x); }},
      {"softplus", [](Graph& g, Value x) { return g.softplus(x); }},
      {"add_scalar", [](Graph& g, Value x) { return g.add_scalar(x, 100.0); }},
      {"softmax", [](Graph& g, Value x) { return g.softmax(x); }},
      {"div", [](Graph& g, Value x) { return g.div(x, x); }},
  };
  for (const auto& [name, f] : functions) {
    Graph g;
    const Value a = product(g, "a", g.input("x", {4, 8}));
    g.output("loss", g.sum(product(g, "b", f(g, a))));
    const Graph narrow = passes::mixed_precision(g);
    EXPECT_EQ(stored(narrow, "a"), DType::f32) << name;
    EXPECT_EQ(casts(narrow), (Names{"bf16 x", "bf16 a.weight", "bf16 b.weight", std::string("bf16 ") + name + "_0"})) << name;
  }
  const std::pair<const char*, Function> harmless[] = {
      {"relu", [](Graph& g, Value x) { return g.relu(x); }},       {"scale", [](Graph& g, Value x) { return g.scale(x, 3.0); }},
      {"mul", [](Graph& g, Value x) { return g.mul(x, x); }},      {"dropout", [](Graph& g, Value x) { return g.dropout(x, 0.5); }},
      {"transpose", [](Graph& g, Value x) { return g.transpose(g.slice_rows(g.concat(std::array{x, x}, Axis::rows), 0, 8)); }},
      {"reshape", [](Graph& g, Value x) { return g.reshape(g.stop_gradient(x), {4, 8}); }},
  };
  for (const auto& [name, f] : harmless) {
    Graph g;
    g.output("loss", g.sum(product(g, "b", f(g, product(g, "a", g.input("x", {4, 8}))))));
    const Graph narrow = passes::mixed_precision(g);
    EXPECT_EQ(stored(narrow, "a"), DType::bf16) << name;
    EXPECT_EQ(stored(narrow, std::string(name) + "_0"), DType::bf16) << name;
    EXPECT_EQ(casts(narrow), (Names{"bf16 x", "bf16 a.weight", "bf16 b.weight"})) << name;
  }
}

TEST(MixedPrecision, AValueThatSomethingReadsInF32StaysF32) {
  Graph g;
  const Value x = g.input("x", {4, 8}), a = product(g, "a", x), b = g.relu(a);
  const Value shown = product(g, "shown", b), sum = product(g, "summed", b), gate = product(g, "gate", b);
  g.output("shown", shown);
  g.output("total", g.sum(sum));  // nobody wants it in bf16
  g.output("all", g.sum(g.add(g.swiglu(gate, product(g, "up", shown)), g.exp(gate))));
  const Graph narrow = passes::mixed_precision(g);
  EXPECT_EQ(stored_in_bf16(narrow), (Names{"a", "relu_0"}));
  EXPECT_EQ(casts(narrow), (Names{"bf16 x", "bf16 a.weight", "bf16 shown.weight", "bf16 summed.weight", "bf16 gate.weight", "bf16 up.weight",
                                  "bf16 shown"}));
}

TEST(MixedPrecision, ASumWithAnAddendStaysF32AndIsRoundedForTheGradientThatReadsIt) {
  Graph g;
  const Value x = g.input("x", {4, 8}), a = product(g, "a", x), first = product(g, "first", x);
  const Value w = g.parameter("second.weight", {8, 8});
  const Value sum = g.record(MatMul{}, {x, w, first}, "second");
  const Value dx = g.record(UnaryGrad{UnaryFn::gelu}, {a, sum}, "dx");
  g.output("out", g.sum(product(g, "b", dx)));
  EXPECT_EQ(stored_in_bf16(passes::mixed_precision(g)), (Names{"a", "dx"}));
  g.output("other", g.sum(product(g, "c", g.record(UnaryGrad{UnaryFn::exp}, {a, sum}))));
  EXPECT_EQ(stored_in_bf16(passes::mixed_precision(g)), Names{}) << "exp's gradient reads a in f32";
}

TEST(MixedPrecision, AnOutputOfTheGraphStaysF32AndWhatNobodyReadsDoesNotMatter) {
  Graph g;
  const Value a = product(g, "a", g.input("x", {4, 8}));
  g.output("relu", g.relu(a));
  EXPECT_EQ(stored_in_bf16(passes::mixed_precision(g)), Names{});
  Graph h;
  const Value b = product(h, "b", h.input("x", {4, 8})), grad = h.record(SwigluGrad{}, {b, b, b}, "grad");
  h.output("out", h.sum(product(h, "c", grad)));
  EXPECT_EQ(stored_in_bf16(passes::mixed_precision(h)), (Names{"b", "grad", "grad:1"}));
}

TEST(MixedPrecision, CastsEachOutputOfANodeUnderANameOfItsOwn) {
  Graph g;
  const Value x = g.input("x", {4, 8}), grad = g.record(SwigluGrad{}, {x, x, x}, "grad");
  g.output("out", g.sum(g.matmul(grad, Value{grad.node, 1}, true, false)));
  const Graph narrow = passes::mixed_precision(g);
  EXPECT_TRUE(narrow.find("bf16:grad"));
  EXPECT_TRUE(narrow.find("bf16:grad:1"));
}

TEST(MixedPrecision, StatisticsAndGradientsOfWeightsStayF32WhateverReadsThem) {
  Graph g;
  const Value q = product(g, "q", g.input("x", {4, 8})), w = g.parameter("w", {8, 5}), labels = g.input_u32("labels", {4});
  const Value attention = g.causal_attention(q, q, q, 2, 2, 4);
  const Value lse = g.scale(Value{attention.node, 1}, 2.0);
  const LinearCrossEntropy op;
  const Value loss = g.record(op, {q, w, labels});
  const Value grad = g.record(LinearCrossEntropyGrad{op}, {q, w, labels, {loss.node, 1}, {loss.node, 2}, loss}, "grad");
  const Value dweight = g.relu(Value{grad.node, 1});
  g.output("out", g.sum(g.matmul(g.matmul(lse, lse, true, false), g.slice_rows(dweight, 0, 2))));
  EXPECT_EQ(stored_in_bf16(passes::mixed_precision(g)), (Names{"q", "causal_attention_0", "grad", "matmul_0"}))
      << "only what else is made of them";
}

TEST(MixedPrecision, AttentionIsNarrowEvenWhereItsResultIsReadInF32) {
  Graph g;
  const Value q = product(g, "q", g.input("x", {4, 8})), k = g.exp(q);
  const Value out = g.causal_attention(q, k, k, 2, 2, 4, {}, "attention");
  g.output("attention", out);
  g.output("lse", {out.node, 1});
  g.output("again", g.sum(g.exp(out)));
  g.output("product", g.sum(product(g, "o", out)));
  const Graph narrow = passes::mixed_precision(g);
  EXPECT_EQ(stored_in_bf16(narrow), Names{"bf16:attention"});
  EXPECT_EQ(casts(narrow), (Names{"bf16 x", "bf16 q.weight", "bf16 q", "bf16 exp_0", "f32 bf16:attention", "bf16 o.weight"}));
  EXPECT_EQ(stored(narrow, "attention"), DType::f32);
  EXPECT_EQ(narrow.node(narrow.node(narrow.find("o")).inputs[0]).name, "bf16:attention") << "not cast there and back";
}

TEST(MixedPrecision, LeavesGraphsAloneThatAreNotF32) {
  for (const Graph& narrow : {passes::mixed_precision(passes::fuse(training_graph())), passes::mixed_precision(gpt2_training_graph())})
    EXPECT_EQ(passes::mixed_precision(narrow).to_text(), narrow.to_text());
  Graph shown = training_graph();
  shown.output("attention", shown.find("model.layers.0.self_attn.causal_attention_0"));
  const Graph f64 = shown.to_f64();
  EXPECT_EQ(passes::mixed_precision(f64).to_text(), f64.to_text());
}

/// A Llama that has all: adapters, dropout, packed sequences, a loss without logits; and the gradients of its adapters.
Graph everything(bool adapters) {
  Graph g(7);
  nn::LlamaConfig config;
  config.vocab_size = 17;
  config.hidden_size = 32;
  config.intermediate_size = 48;
  config.num_layers = 2;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.dropout = 0.1;
  const nn::Llama model(g, config);
  const Segments segments = Segments::packed(g.input_u32("offsets", {4}));
  const Value loss = model.loss(g, g.input_u32("ids", {32}), g.input_u32("labels", {32}), segments).loss;
  g.output("loss", loss);
  if (!adapters) return g;
  return passes::lora(g, {.rank = 4, .targets = {"q_proj", "down_proj", "up_proj"}, .dropout = 0.1});
}

TEST(MixedPrecision, GradientsStayCloseToThoseOfTheWideGraph) {
  const auto backend = cpu_backend(2);
  std::vector<double> ids, labels;
  for (int i = 0; i < 32; ++i) {
    ids.push_back(i * 5 % 17);
    labels.push_back((i + 1) * 5 % 17);
  }
  for (const bool adapters : {false, true}) {
    Graph wide = everything(adapters);
    differentiate(wide, wide.outputs().at("loss"), {}, true);
    const Graph fused = passes::fuse(wide);
    const testing::Inputs inputs = {{"ids", ids}, {"labels", labels}, {"offsets", {0, 5, 16, 32}}};
    const testing::Inputs want = testing::run_once(wide, *backend, inputs);
    for (const Graph* graph : std::array<const Graph*, 2>{&wide, &fused}) {
      const Graph narrow = passes::mixed_precision(*graph);
      const testing::Inputs got = testing::run_once(narrow, *backend, inputs);
      EXPECT_NEAR(got.at("loss")[0], want.at("loss")[0], 1e-3);
      EXPECT_NE(got.at("loss")[0], want.at("loss")[0]);
      int compared = 0;
      for (const auto& [name, values] : want) {
        if (!name.starts_with("d:") || values == std::vector<double>(values.size(), 0.0)) continue;
        EXPECT_LT(norm_of_difference(got.at(name), values), 2e-2) << name << (adapters ? ", adapters" : "");
        ++compared;
      }
      EXPECT_GT(compared, adapters ? 5 : 15);
      for (const std::string& cast : casts(narrow)) EXPECT_TRUE(cast.starts_with("bf16 ")) << cast;
    }
  }
}

TEST(MixedPrecision, SharesCheckpointsWithTheWideGraph) {
  const auto backend = reference_backend();
  const Graph wide = training_graph();
  Session a(wide, *backend), b(passes::mixed_precision(training_graph(6)), *backend);
  b.restore(a.snapshot());
  EXPECT_EQ(a.read("model.embed_tokens.weight"), b.read("model.embed_tokens.weight"));
}

TEST(Bf16, GradientsAreCastOnlyWhereTypesDiffer) {
  Graph g;
  const Value a = g.input("a", {3, 4}, DType::bf16), b = g.input("b", {4, 5}, DType::bf16), c = g.input("c", {3, 5}, DType::bf16);
  const Value out = g.sub(g.record(MatMul{false, false, true}, {a, b}), c);
  const Value loss = g.sum(g.cast(out, DType::f32));
  const Gradients gradients = differentiate(g, loss, {a, b, c});
  for (const Gradient& gradient : gradients.all) EXPECT_EQ(g.type(gradient.gradient), g.type(gradient.of));
  EXPECT_EQ(count(g, "cast"), 2) << "to the loss and back";
}

TEST(Bf16, WhatIsNotANumberStaysSo) {
  // a NaN whose lower bits would carry into the sign
  const std::vector<float> from = {1.0f, std::bit_cast<float>(0x7fffffffu), 2.0f, -3.0f, 0.5f};
  for (const char* name : {"reference", "cpu"}) {
    const auto backend = make_backend(name, 1);
    Graph g;
    const Value x = g.input("x", {1, 5}), weight = g.constant({5}, {1.0});
    g.output("out", g.record(RmsNorm{1e-5, true}, {x, weight}));
    Session session(g, *backend);
    session.write("x", from);
    session.step();
    for (const float value : session.read("out")) EXPECT_TRUE(std::isnan(value)) << name;
  }
}

TEST(Bf16, AttributesSayThatAResultIsRounded) {
  EXPECT_EQ(op_attributes(MatMul{false, true, true}), "transpose_b bf16");
  EXPECT_EQ(op_attributes(MatMul{true, true}), "transpose_a transpose_b");
  EXPECT_EQ(op_attributes(MatMul{false, false, true}), "bf16");
  EXPECT_EQ(op_attributes(RmsNorm{0.5, true}), "eps=0.5 bf16");
  EXPECT_EQ(op_attributes(LayerNorm{0.5, true}), "eps=0.5 bf16");
  EXPECT_EQ(op_attributes(CrossEntropyGrad{{}, true}), "reduction=mean bf16");
}

TEST(MixedPrecision, GradientsOfNarrowProductsAreNarrowProducts) {
  Graph g;
  const Value a = g.input("a", {3, 4}), b = g.input("b", {4, 5});
  const Value loss = g.sum(g.matmul(g.cast(a, DType::bf16), g.cast(b, DType::bf16)));
  const Gradients gradients = differentiate(g, loss, {a, b});
  EXPECT_EQ(g.type(gradients.of(g, a)), g.type(a));
  EXPECT_EQ(count(g, "matmul"), 3);
  for (const Node& node : g.nodes())
    if (std::holds_alternative<MatMul>(node.op)) {
      EXPECT_EQ(g.type(node.inputs[0]).dtype, DType::bf16);
    }
}

}  // namespace
}  // namespace graft
