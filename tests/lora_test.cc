// Low-rank adapters: their formula, what trains and what does not, and the weights they merge into.
#include "graft/lora.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "graft/autodiff.h"
#include "graft/backend.h"
#include "graft/generate.h"
#include "graft/optim.h"
#include "tests/message.h"
#include "tests/plain_model.h"

namespace graft {
namespace {

using plain::values_for;
using testing::message_of;
using Names = std::set<std::string>;

/// Two linear layers, the second without bias, and a product that is no module's.
Graph two_layers() {
  Graph g(7);
  const Value x = g.input("x", {5, 4});
  const nn::Linear up(g, "block.up_proj", 4, 6, true), down(g, "block.down_proj", 6, 3);
  const Value y = down.forward(g, g.tanh(up.forward(g, x)));
  g.output("y", y);
  g.output("loss", g.mse(g.matmul(y, g.transpose(y)), g.input("target", {5, 5})));
  return g;
}

Names parameters_of(const Graph& graph) {
  Names names;
  for (const Value p : graph.parameters()) names.insert(graph.node(p).name);
  return names;
}

/// Every parameter and unsaved float state gets values of its own.
void set_values(Session& session) {
  for (const Node& node : session.graph().nodes()) {
    const auto* state = std::get_if<State>(&node.op);
    if (std::holds_alternative<Parameter>(node.op) || (state && !state->saved && is_float(state->type.dtype)))
      session.write(node.name, values_for(node.name, node.outputs[0].shape.size()));
  }
  session.write("x", values_for("x", 20));
  session.write("target", values_for("target", 25));
}

plain::Matrix matrix(Session& session, const std::string& name) {
  const Shape& shape = session.graph().shape(session.graph().find(name));
  return {static_cast<std::size_t>(shape.rows()), static_cast<std::size_t>(shape.cols()), session.read_f64(name)};
}

void expect_near(const std::vector<double>& got, const std::vector<double>& wanted, double tolerance) {
  ASSERT_EQ(got.size(), wanted.size());
  for (std::size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], wanted[i], tolerance) << i;
}

TEST(Lora, AddsTheScaledProductOfItsTwoFactors) {
  const auto backend = reference_backend();
  const Graph graph = passes::lora(two_layers(), {.rank = 2, .alpha = 5.0, .targets = {"up_proj", "down_proj"}}).to_f64();
  Session session(graph, *backend);
  set_values(session);
  session.step();
  // y = h·W + 5/2·(h·A)·B, h = tanh(x·W + b + 5/2·(x·A)·B)
  const auto linear = [&](const plain::Matrix& x, const std::string& module, const std::vector<double>& bias) {
    plain::Matrix y = plain::matmul(x, matrix(session, module + ".weight"));
    const plain::Matrix low =
        plain::matmul(plain::matmul(x, matrix(session, module + ".lora_A.weight")), matrix(session, module + ".lora_B.weight"));
    for (std::size_t i = 0; i < y.rows; ++i)
      for (std::size_t j = 0; j < y.cols; ++j) y.at(i, j) += (bias.empty() ? 0.0 : bias[j]) + 2.5 * low.at(i, j);
    return y;
  };
  plain::Matrix h = linear(matrix(session, "x"), "block.up_proj", session.read_f64("block.up_proj.bias"));
  for (double& v : h.data) v = std::tanh(v);
  expect_near(session.read_f64("y"), linear(h, "block.down_proj", {}).data, 1e-14);
}

TEST(Lora, ChangesNothingBeforeItIsTrained) {
  const auto backend = reference_backend();
  Session base(two_layers(), *backend);
  Session adapted(passes::lora(two_layers(), {.rank = 3, .targets = {"up_proj", "down_proj"}}), base);
  set_values(base);
  for (const char* input : {"x", "target"}) adapted.write(input, base.read(input));
  base.step();
  adapted.step();
  EXPECT_EQ(adapted.read("loss"), base.read("loss")) << "on the weights of the session that it shares";
  double largest = 0.0;
  for (const double v : adapted.read_f64("block.down_proj.lora_A.weight")) largest = std::max(largest, std::abs(v));
  EXPECT_GT(largest, 0.8 / std::sqrt(6.0)) << "of 18 numbers that are uniform in ±1/√6";
  EXPECT_LT(largest, 1.0 / std::sqrt(6.0));
  EXPECT_EQ(adapted.read("block.down_proj.lora_B.weight"), std::vector<float>(9, 0.0f));
}

TEST(Lora, TrainsTheAdaptersAlone) {
  const auto backend = cpu_backend(2);
  Graph graph = passes::lora(two_layers(), {.rank = 2, .targets = {"up_proj", "down_proj"}});
  const Names adapters = {"block.down_proj.lora_A.weight", "block.down_proj.lora_B.weight", "block.up_proj.lora_A.weight",
                          "block.up_proj.lora_B.weight"};
  EXPECT_EQ(parameters_of(graph), adapters);
  const Value loss = graph.outputs().at("loss");
  const auto products = [&] {
    return std::count_if(graph.nodes().begin(), graph.nodes().end(),
                         [](const Node& n) { return std::holds_alternative<MatMul>(n.op); });
  };
  const auto forward = products();
  const Gradients gradients = differentiate(graph, loss);
  Names reached;
  for (const Gradient& g : gradients.all) reached.insert(graph.node(g.of).name);
  EXPECT_EQ(reached, adapters);
  // Of y·yᵀ two; of each adapter's B: dB and d(x·A); of A: dA; of down's inputs, through W and A: two. Up's inputs need none, weights neither.
  EXPECT_EQ(products() - forward, 2 + 2 * 3 + 2);
  optim::adamw(graph, gradients, {}, {.schedule = {.base = 0.1}});
  Session session(graph, *backend);
  set_values(session);
  const std::vector<float> before = session.read("block.up_proj.weight"), bias = session.read("block.up_proj.bias");
  for (int i = 0; i < 3; ++i) session.step();
  EXPECT_EQ(session.read("block.up_proj.weight"), before);
  EXPECT_EQ(session.read("block.up_proj.bias"), bias);
  Names saved;
  for (const SavedTensor& tensor : session.snapshot().tensors) saved.insert(tensor.path);
  Names wanted = {"optimizer/skipped", "optimizer/step"};
  for (const std::string& name : adapters) {
    EXPECT_NE(session.read_f64(name), values_for(name, session.graph().shape(session.graph().find(name)).size())) << name;
    for (const char* slot : {"model/", "optimizer/exp_avg/", "optimizer/exp_avg_sq/"}) wanted.insert(slot + name);
  }
  EXPECT_EQ(saved, wanted);
}

TEST(Lora, GradientsMatchFiniteDifferences) {
  const auto backend = reference_backend();
  Graph graph = passes::lora(two_layers(), {.rank = 2, .alpha = 3.0, .targets = {"up_proj", "down_proj"}});
  differentiate(graph, graph.outputs().at("loss"), {}, true);
  Session session(graph.to_f64(), *backend);
  set_values(session);
  for (const Value p : session.graph().parameters()) {
    session.step();
    const std::string& name = session.graph().node(p).name;
    const std::vector<double> gradient = session.read_f64("d:" + name), at = session.read_f64(name);
    for (std::size_t i = 0; i < at.size(); ++i) {
      const auto loss_at = [&](double step) {
        std::vector<double> moved = at;
        moved[i] += step;
        session.write(name, moved);
        session.step();
        return session.scalar("loss");
      };
      const double difference = (loss_at(1e-5) - loss_at(-1e-5)) / 2e-5;
      EXPECT_NEAR(gradient[i], difference, 1e-7 * (1.0 + std::abs(difference))) << name << " " << i;
    }
    session.write(name, at);
  }
}

TEST(Lora, MergesIntoTheWeight) {
  const auto backend = reference_backend();
  const LoraOptions options = {.rank = 2, .alpha = 5.0, .targets = {"down_proj"}};
  Session adapted(passes::lora(two_layers(), options).to_f64(), *backend), merged(two_layers().to_f64(), *backend);
  set_values(adapted);
  set_values(merged);
  const plain::Matrix low =
      plain::matmul(matrix(adapted, "block.down_proj.lora_A.weight"), matrix(adapted, "block.down_proj.lora_B.weight"));
  std::vector<double> wanted = adapted.read_f64("block.down_proj.weight");
  for (std::size_t i = 0; i < wanted.size(); ++i) wanted[i] += 2.5 * low.data[i];
  expect_near(merged_weight(adapted, "block.down_proj.weight", options), wanted, 1e-15);
  for (const char* whole : {"block.up_proj.weight", "block.up_proj.bias"})
    EXPECT_EQ(merged_weight(adapted, whole, options), adapted.read_f64(whole));
  merged.write("block.down_proj.weight", wanted);
  adapted.step();
  merged.step();
  expect_near(merged.read_f64("y"), adapted.read_f64("y"), 1e-14);
}

TEST(Lora, FindsTargetsByTheirLastParts) {
  const nn::LlamaConfig config = {
      .vocab_size = 11, .hidden_size = 8, .intermediate_size = 12, .num_layers = 2, .num_heads = 2, .num_kv_heads = 1};
  Graph graph;
  const nn::Llama model(graph, config);
  graph.output("logits", model.forward(graph, graph.input_u32("ids", {3})));
  const auto adapted = [&](const std::vector<std::string>& targets) {
    Names modules;
    for (const std::string& name : parameters_of(passes::lora(graph, {.rank = 2, .targets = targets})))
      if (name.ends_with(".lora_B.weight")) modules.insert(name.substr(0, name.size() - 14));
    return modules;
  };
  EXPECT_EQ(adapted({"q_proj", "v_proj"}), (Names{"model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj",
                                                  "model.layers.1.self_attn.q_proj", "model.layers.1.self_attn.v_proj"}));
  EXPECT_EQ(adapted({"layers.1.mlp.up_proj"}), (Names{"model.layers.1.mlp.up_proj"}));
  EXPECT_EQ(adapted({"model.layers.0.self_attn.o_proj"}), (Names{"model.layers.0.self_attn.o_proj"}));
  const std::string there = ", there are: down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj";
  EXPECT_EQ(message_of([&] { adapted({"q_proj", "proj"}); }), "lora: target \"proj\" names no product's weight" + there);
  EXPECT_EQ(message_of([&] { adapted({"embed_tokens"}); }), "lora: target \"embed_tokens\" names no product's weight" + there)
      << "it is transposed, as the head";
  Graph empty;
  empty.input("x", {1});
  EXPECT_EQ(message_of([&] { passes::lora(empty, {}); }), "lora: target \"q_proj\" names no product's weight, there are: none");
}

TEST(Lora, OfAWeightThatIsUsedTwiceIsOne) {
  Graph g;
  const nn::Linear square(g, "square", 4, 4);
  g.output("y", square.forward(g, square.forward(g, g.input("x", {2, 4}))));
  const Graph adapted = passes::lora(g, {.rank = 1, .targets = {"square"}});
  EXPECT_EQ(parameters_of(adapted), (Names{"square.lora_A.weight", "square.lora_B.weight"}));
  EXPECT_EQ(std::count_if(adapted.nodes().begin(), adapted.nodes().end(),
                          [](const Node& n) { return std::holds_alternative<MatMul>(n.op); }),
            6);
}

TEST(Lora, DropsTheInputsOfItsAdapters) {
  const auto backend = reference_backend();
  const LoraOptions options = {.rank = 2, .targets = {"up_proj"}, .dropout = 0.5};
  Graph graph = passes::lora(two_layers(), options);
  graph.advance_rng();
  Session session(graph, *backend);
  set_values(session);
  session.step();
  const std::vector<float> first = session.read("y");
  session.step();
  EXPECT_NE(session.read("y"), first) << "the counter went on";
  session.write("rng/counter", 0u);
  session.step();
  EXPECT_EQ(session.read("y"), first);
  session.write("block.up_proj.lora_B.weight", std::vector<float>(12, 0.0f));
  session.step();
  Session base(two_layers(), *backend);
  set_values(base);
  base.step();
  EXPECT_EQ(session.read("y"), base.read("y")) << "the base's own inputs are whole";
  EXPECT_FALSE(passes::lora(two_layers(), {.rank = 2, .targets = {"up_proj"}}).find("rng/counter"));

  Graph with_dropout;  // a counter that the graph has already, and streams of its own
  const nn::Linear layer(with_dropout, "layer", 64, 2);
  const Value x = with_dropout.input("x", {1, 64});
  with_dropout.output("y", layer.forward(with_dropout, with_dropout.dropout(x, 0.5)));
  const Graph twice = passes::lora(with_dropout, {.rank = 1, .targets = {"layer"}, .dropout = 0.5});
  std::set<std::uint32_t> streams;
  for (const Node& node : twice.nodes())
    if (const auto* dropout = std::get_if<Dropout>(&node.op)) streams.insert(dropout->stream);
  EXPECT_EQ(streams.size(), 2u);
}

TEST(Lora, RefusesOptionsThatMakeNoSense) {
  const auto message = [](const LoraOptions& options) { return message_of([&] { passes::lora(two_layers(), options); }); };
  const std::vector<std::string> targets = {"up_proj"};
  EXPECT_EQ(message({.rank = 0, .targets = targets}), "lora: rank is 0, must be at least 1");
  EXPECT_EQ(message({.rank = 5, .targets = targets}), "lora: rank is 5, more than \"block.up_proj.weight\" [4, 6] can have");
  EXPECT_EQ(message({.rank = 4, .targets = targets}), "no error");
  EXPECT_EQ(message({.rank = 4, .targets = {"down_proj"}}),
            "lora: rank is 4, more than \"block.down_proj.weight\" [6, 3] can have");
  EXPECT_EQ(message({.rank = 2, .alpha = 0.0, .targets = targets}), "lora: alpha is 0.000000, must be finite and above 0");
  EXPECT_EQ(message({.rank = 2, .alpha = INFINITY, .targets = targets}), "lora: alpha is inf, must be finite and above 0");
  EXPECT_EQ(message({.rank = 2, .targets = targets, .dropout = 1.0}), "lora: dropout is 1.000000, must be in [0, 1)");
  EXPECT_EQ(message({.rank = 2, .targets = targets, .dropout = -0.1}), "lora: dropout is -0.100000, must be in [0, 1)");
  EXPECT_EQ(message({.rank = 2, .targets = {}}), "lora: there are no targets");
}

TEST(Lora, WritesTextThroughCachesAsItsMergedWeightsDo) {
  const auto backend = cpu_backend(2);
  const nn::LlamaConfig config = {
      .vocab_size = 19, .hidden_size = 24, .intermediate_size = 32, .num_layers = 2, .num_heads = 4, .num_kv_heads = 2};
  const LoraOptions options = {.rank = 3, .alpha = 4.0, .targets = {"q_proj", "v_proj", "down_proj"}};
  GeneratorOptions with_adapters = {.max_seq = 32};
  with_adapters.pass = [&](const Graph& graph) { return passes::lora(graph, options); };
  Generator adapted(config, *backend, with_adapters), merged(config, *backend, {.max_seq = 32});
  for (const Node& node : adapted.session().graph().nodes())
    if (node.name.ends_with(".weight") && node.inputs.empty())
      adapted.session().write(node.name, values_for(node.name, node.outputs[0].shape.size()));
  for (const Value p : merged.session().graph().parameters()) {
    const std::string& name = merged.session().graph().node(p).name;
    merged.session().write(name, merged_weight(adapted.session(), name, options));
  }
  const std::vector<std::uint32_t> prompt = {3, 16, 0, 3, 7, 7, 11};
  EXPECT_EQ(adapted.generate(prompt, 20, {.temperature = 0.0}), merged.generate(prompt, 20, {.temperature = 0.0}));
}

}  // namespace
}  // namespace graft
