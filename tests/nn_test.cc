// Each module against plain loops and finite differences, its parameters' names and shapes, and what wrong configurations are told.
#include "graft/nn.h"

#include <gtest/gtest.h>

#include <functional>
#include <map>

#include "graft/backend.h"
#include "graft/error.h"
#include "graft/gtest.h"
#include "graft/session.h"
#include "tests/message.h"
#include "tests/plain_model.h"

namespace graft {
namespace {

using testing::message_of;

using plain::Matrix;
using plain::values_for;

/// Runs the graph in f64 with all parameters and float inputs set by name: larger than they are initialised, norms not all ones.
struct Module {
  explicit Module(Graph& graph, Value result) : backend(reference_backend()) {
    graph.output("y", result);
    session = std::make_unique<Session>(graph.to_f64(), *backend);
    for (const Node& node : graph.nodes()) {
      const bool random = std::holds_alternative<Parameter>(node.op) || std::holds_alternative<Input>(node.op);
      if (random && is_float(node.outputs[0].dtype)) session->write(node.name, values_for(node.name, node.outputs[0].shape.size()));
    }
  }

  Matrix run() {
    session->step();
    return matrix("y");
  }
  Matrix matrix(const std::string& name) {
    const Graph& g = session->graph();
    const auto output = g.outputs().find(name);
    const Shape shape = g.shape(output == g.outputs().end() ? g.find(name) : output->second);
    return {static_cast<std::size_t>(shape.rows()), static_cast<std::size_t>(shape.cols()), session->read_f64(name)};
  }
  std::vector<double> vector(const std::string& name) { return session->read_f64(name); }

  std::unique_ptr<Backend> backend;
  std::unique_ptr<Session> session;
};

void expect_near(const Matrix& got, const Matrix& want, double tolerance = 1e-12) {
  ASSERT_EQ(got.rows, want.rows);
  ASSERT_EQ(got.cols, want.cols);
  for (std::size_t i = 0; i < got.data.size(); ++i) EXPECT_NEAR(got.data[i], want.data[i], tolerance) << "element " << i;
}

/// name → shape of all parameters, in the order of registration.
std::vector<std::string> parameters_of(const Graph& graph) {
  std::vector<std::string> list;
  for (const Value p : graph.parameters()) list.push_back(graph.node(p).name + " " + to_string(graph.shape(p)));
  return list;
}

/// A loss that weighs every element of y differently.
Value weigh(Graph& g, Value y) {
  const Shape shape = g.shape(y);
  return g.sum(g.mul(y, g.constant(shape, values_for("weights of the loss", shape.size()))));
}

TEST(Linear, IsXTimesWPlusB) {
  Graph g;
  const nn::Linear linear(g, "fc", 3, 2, true);
  const Value y = linear.forward(g, g.input("x", {4, 3}));
  EXPECT_EQ(parameters_of(g), (std::vector<std::string>{"fc.weight [3, 2]", "fc.bias [2]"}));
  EXPECT_TRUE(gradients_match(g, weigh(g, y)));
  Module m(g, y);
  Matrix want = plain::matmul(m.matrix("x"), m.matrix("fc.weight"));
  for (std::size_t i = 0; i < want.rows; ++i)
    for (std::size_t j = 0; j < want.cols; ++j) want.at(i, j) += m.vector("fc.bias")[j];
  expect_near(m.run(), want);
}

TEST(Linear, HasNoBiasUnlessAsked) {
  Graph g;
  const nn::Linear linear(g, "fc", 3, 2);
  const Value y = linear.forward(g, g.input("x", {4, 3}));
  EXPECT_EQ(parameters_of(g), (std::vector<std::string>{"fc.weight [3, 2]"}));
  Module m(g, y);
  expect_near(m.run(), plain::matmul(m.matrix("x"), m.matrix("fc.weight")));
}

TEST(Linear, WithoutANameRegistersItsPartsOnly) {
  Graph g;
  const nn::Linear linear(g, "", 3, 2, true);
  EXPECT_EQ(parameters_of(g), (std::vector<std::string>{"weight [3, 2]", "bias [2]"}));
}

TEST(Embedding, LooksUpRows) {
  Graph g;
  const nn::Embedding embedding(g, "embed", 5, 3);
  const Value y = embedding.forward(g, g.input_u32("ids", {4}));
  EXPECT_EQ(parameters_of(g), (std::vector<std::string>{"embed.weight [5, 3]"}));
  GradientCheckOptions options;
  options.inputs["ids"] = {4, 0, 4, 2};
  EXPECT_TRUE(gradients_match(g, weigh(g, y), options));
  Module m(g, y);
  const std::vector<std::uint32_t> ids = {4, 0, 4, 2};
  m.session->write("ids", ids);
  const Matrix table = m.matrix("embed.weight");
  Matrix want(4, 3);
  for (std::size_t i = 0; i < 4; ++i)
    for (std::size_t j = 0; j < 3; ++j) want.at(i, j) = table.at(ids[i], j);
  expect_near(m.run(), want, 0.0);
}

TEST(RMSNorm, MatchesFormula) {
  Graph g;
  const nn::RMSNorm norm(g, "norm", 6, 1e-2);
  const Value y = norm.forward(g, g.input("x", {3, 6}));
  EXPECT_EQ(parameters_of(g), (std::vector<std::string>{"norm.weight [6]"}));
  EXPECT_TRUE(gradients_match(g, weigh(g, y)));
  Module m(g, y);
  expect_near(m.run(), plain::rms_norm(m.matrix("x"), m.vector("norm.weight"), 1e-2));
}

TEST(LayerNorm, MatchesFormula) {
  Graph g;
  const nn::LayerNorm norm(g, "norm", 6, 1e-2);
  const Value y = norm.forward(g, g.input("x", {3, 6}));
  EXPECT_EQ(parameters_of(g), (std::vector<std::string>{"norm.weight [6]", "norm.bias [6]"}));
  EXPECT_TRUE(gradients_match(g, weigh(g, y)));
  Module m(g, y);
  expect_near(m.run(), plain::layer_norm(m.matrix("x"), m.vector("norm.weight"), m.vector("norm.bias"), 1e-2));
}

TEST(Norms, StartAsIdentityOnNormalisedRows) {
  Graph g;
  nn::RMSNorm(g, "rms", 2);
  nn::LayerNorm(g, "layer", 2);
  const auto backend = reference_backend();
  Session session(g, *backend);
  EXPECT_EQ(session.read("rms.weight"), (std::vector<float>{1.0f, 1.0f}));
  EXPECT_EQ(session.read("layer.weight"), (std::vector<float>{1.0f, 1.0f}));
  EXPECT_EQ(session.read("layer.bias"), (std::vector<float>{0.0f, 0.0f}));
}

TEST(SwiGLU, MatchesFormula) {
  Graph g;
  const nn::SwiGLU mlp(g, "mlp", 4, 6);
  const Value y = mlp.forward(g, g.input("x", {3, 4}));
  EXPECT_EQ(parameters_of(g),
            (std::vector<std::string>{"mlp.gate_proj.weight [4, 6]", "mlp.up_proj.weight [4, 6]", "mlp.down_proj.weight [6, 4]"}));
  EXPECT_TRUE(gradients_match(g, weigh(g, y)));
  Module m(g, y);
  expect_near(m.run(), plain::swiglu(m.matrix("x"), m.matrix("mlp.gate_proj.weight"), m.matrix("mlp.up_proj.weight"),
                                     m.matrix("mlp.down_proj.weight")));
}

TEST(Mlp, MatchesFormulaWithBiasesAndTheActivationAskedFor) {
  for (const UnaryFn fn : {UnaryFn::gelu, UnaryFn::silu}) {
    Graph g;
    const nn::Mlp mlp(g, "mlp", 4, 6, fn);
    const Value y = mlp.forward(g, g.input("x", {3, 4}));
    EXPECT_EQ(parameters_of(g),
              (std::vector<std::string>{"mlp.fc1.weight [4, 6]", "mlp.fc1.bias [6]", "mlp.fc2.weight [6, 4]", "mlp.fc2.bias [4]"}));
    EXPECT_TRUE(gradients_match(g, weigh(g, y)));
    Module m(g, y);
    Matrix inner = plain::matmul(m.matrix("x"), m.matrix("mlp.fc1.weight"));
    for (std::size_t i = 0; i < inner.data.size(); ++i) {
      const double x = inner.data[i] + m.vector("mlp.fc1.bias")[i % 6];
      inner.data[i] = fn == UnaryFn::gelu ? plain::gelu(x) : plain::silu(x);
    }
    Matrix want = plain::matmul(inner, m.matrix("mlp.fc2.weight"));
    for (std::size_t i = 0; i < want.data.size(); ++i) want.data[i] += m.vector("mlp.fc2.bias")[i % 4];
    expect_near(m.run(), want);
  }
}

// ---- attention and blocks: hidden 16, four query heads of 4, two key/value heads

constexpr nn::AttentionConfig kAttention = {
    .hidden_size = 16, .kv_dim = 8, .num_heads = 4, .num_kv_heads = 2, .head_dim = 4, .rope_theta = 50.0};

Matrix plain_attention(Module& m, const std::string& name, const Matrix& x, std::size_t heads, std::size_t kv_heads, double theta) {
  const auto project = [&](const char* part) { return plain::matmul(x, m.matrix(name + "." + part + ".weight")); };
  const std::size_t head_dim = x.cols / heads;
  const Matrix out = plain::attention(plain::rope(project("q_proj"), theta, head_dim),
                                      plain::rope(project("k_proj"), theta, head_dim), project("v_proj"), heads, kv_heads);
  return plain::matmul(out, m.matrix(name + ".o_proj.weight"));
}

Matrix plain_block(Module& m, const std::string& name, const Matrix& x, std::size_t heads, std::size_t kv_heads, double theta,
                   double eps) {
  const auto normed = [&](const Matrix& from, const char* part) {
    return plain::rms_norm(from, m.vector(name + "." + part + ".weight"), eps);
  };
  const Matrix h = plain::add(x, plain_attention(m, name + ".self_attn", normed(x, "input_layernorm"), heads, kv_heads, theta));
  return plain::add(h, plain::swiglu(normed(h, "post_attention_layernorm"), m.matrix(name + ".mlp.gate_proj.weight"),
                                     m.matrix(name + ".mlp.up_proj.weight"), m.matrix(name + ".mlp.down_proj.weight")));
}

TEST(CausalSelfAttention, MatchesFormula) {
  Graph g;
  const nn::CausalSelfAttention attention(g, "attn", kAttention);
  const Value y = attention.forward(g, g.input("x", {7, 16}));
  EXPECT_EQ(parameters_of(g), (std::vector<std::string>{"attn.q_proj.weight [16, 16]", "attn.k_proj.weight [16, 8]",
                                                        "attn.v_proj.weight [16, 8]", "attn.o_proj.weight [16, 16]"}));
  Module m(g, y);
  expect_near(m.run(), plain_attention(m, "attn", m.matrix("x"), 4, 2, 50.0));
}

/// Heads that are wider than hidden_size / num_heads, every option on.
constexpr nn::AttentionConfig kAllOptions = {.hidden_size = 16,
                                             .kv_dim = 12,
                                             .num_heads = 4,
                                             .num_kv_heads = 2,
                                             .head_dim = 6,
                                             .rope_theta = 50.0,
                                             .rope_scaling = {RopeScaling::Kind::linear, 2.5},
                                             .qkv_bias = true,
                                             .o_bias = true,
                                             .window = 3};

TEST(CausalSelfAttention, MatchesFormulaWithBiasesWindowScalingAndWideHeads) {
  Graph g;
  const nn::CausalSelfAttention attention(g, "attn", kAllOptions);
  const Value y = attention.forward(g, g.input("x", {7, 16}));
  EXPECT_EQ(parameters_of(g), (std::vector<std::string>{"attn.q_proj.weight [16, 24]", "attn.q_proj.bias [24]", "attn.k_proj.weight [16, 12]",
                                                        "attn.k_proj.bias [12]", "attn.v_proj.weight [16, 12]", "attn.v_proj.bias [12]",
                                                        "attn.o_proj.weight [24, 16]", "attn.o_proj.bias [16]"}));
  Module m(g, y);
  const auto projected = [&](const Matrix& x, const std::string& part) {
    Matrix out = plain::matmul(x, m.matrix("attn." + part + ".weight"));
    for (std::size_t i = 0; i < out.data.size(); ++i) out.data[i] += m.vector("attn." + part + ".bias")[i % out.cols];
    return out;
  };
  const Matrix x = m.matrix("x");
  const Matrix q = plain::rope(projected(x, "q_proj"), 50.0, 6, 2.5), k = plain::rope(projected(x, "k_proj"), 50.0, 6, 2.5);
  expect_near(m.run(), projected(plain::attention(q, k, projected(x, "v_proj"), 4, 2, 3), "o_proj"));
}

TEST(CausalSelfAttention, EachBiasIsThereOnlyIfAskedFor) {
  const auto biases = [](bool qkv, bool o) {
    nn::AttentionConfig config = kAttention;
    config.qkv_bias = qkv;
    config.o_bias = o;
    Graph g;
    const nn::CausalSelfAttention attention(g, "", config);
    std::string names;
    for (const Value p : g.parameters())
      if (g.node(p).name.ends_with("bias")) names += g.node(p).name + " ";
    return names;
  };
  EXPECT_EQ(biases(false, false), "");
  EXPECT_EQ(biases(true, false), "q_proj.bias k_proj.bias v_proj.bias ");
  EXPECT_EQ(biases(false, true), "o_proj.bias ");
}

TEST(CausalSelfAttention, GradientsMatchFiniteDifferences) {
  Graph g;
  const nn::CausalSelfAttention attention(g, "attn", kAttention);
  const Value loss = weigh(g, attention.forward(g, g.input("x", {5, 16})));
  GradientCheckOptions options;
  for (const double x : values_for("x", 80)) options.inputs["x"].push_back(20.0 * x);  // so that the attention is not near uniform
  EXPECT_TRUE(gradients_match(g, loss, options));
}

TEST(TransformerBlock, MatchesFormula) {
  Graph g;
  const nn::TransformerBlock block(g, "block", kAttention, 6, 1e-2);
  const Value y = block.forward(g, g.input("x", {7, 16}));
  EXPECT_EQ(parameters_of(g),
            (std::vector<std::string>{"block.input_layernorm.weight [16]", "block.self_attn.q_proj.weight [16, 16]",
                                      "block.self_attn.k_proj.weight [16, 8]", "block.self_attn.v_proj.weight [16, 8]",
                                      "block.self_attn.o_proj.weight [16, 16]", "block.post_attention_layernorm.weight [16]",
                                      "block.mlp.gate_proj.weight [16, 6]", "block.mlp.up_proj.weight [16, 6]",
                                      "block.mlp.down_proj.weight [6, 16]"}));
  Module m(g, y);
  expect_near(m.run(), plain_block(m, "block", m.matrix("x"), 4, 2, 50.0, 1e-2));
}

TEST(TransformerBlock, GradientsMatchFiniteDifferences) {
  Graph g;
  const nn::TransformerBlock block(g, "block", kAttention, 6, 1e-5, 0.3, 0.1);
  EXPECT_TRUE(gradients_match(g, weigh(g, block.forward(g, g.input("x", {5, 16}), Segments::single()))));
}

TEST(AttentionConfig, WrongSizesAreNamed) {
  const auto refused = [](const std::function<void(nn::AttentionConfig&)>& change) {
    return message_of([&] {
      nn::AttentionConfig config = kAttention;
      change(config);
      Graph g;
      nn::CausalSelfAttention(g, "attn", config);
    });
  };
  EXPECT_EQ(refused([](auto& c) { c.num_kv_heads = 3; }), "AttentionConfig.num_heads: 4 does not divide by num_kv_heads 3");
  EXPECT_EQ(refused([](auto& c) { c.kv_dim = 16; }), "AttentionConfig.kv_dim: 16 is not num_kv_heads * head_dim = 2 * 4");
  EXPECT_EQ(refused([](auto& c) { c.window = -1; }), "AttentionConfig.window: -1, must not be negative");
  EXPECT_EQ(refused([](auto& c) { c.head_dim = 3; }), "AttentionConfig.head_dim: 3 is odd, rope rotates pairs");
  EXPECT_EQ(refused([](auto& c) { c.head_dim = 258; }), "AttentionConfig.head_dim: 258, must be at most 256");
  EXPECT_EQ(refused([](auto& c) { c.head_dim = 0; }), "AttentionConfig.head_dim: 0, must be at least 1");
  EXPECT_EQ(refused([](auto& c) { c.num_heads = -4; }), "AttentionConfig.num_heads: -4, must be at least 1");
  EXPECT_EQ(refused([](auto& c) { c.num_kv_heads = 0; }), "AttentionConfig.num_kv_heads: 0, must be at least 1");
  EXPECT_EQ(refused([](auto& c) { c.hidden_size = 0; }), "AttentionConfig.hidden_size: 0, must be at least 1");
  EXPECT_EQ(refused([](auto& c) { c.rope_theta = 0.0; }), "AttentionConfig.rope_theta: must be finite and above 0, got 0.000000");
}

// ---- Llama

const nn::LlamaConfig kLlama = {.vocab_size = 11,
                                .hidden_size = 16,
                                .intermediate_size = 6,
                                .num_layers = 2,
                                .num_heads = 4,
                                .num_kv_heads = 2,
                                .rope_theta = 50.0,
                                .norm_eps = 1e-3};
const std::vector<std::uint32_t> kIds = {3, 10, 0, 3, 7};
const std::vector<double> kIdValues(kIds.begin(), kIds.end());

nn::LlamaConfig untied() {
  nn::LlamaConfig config = kLlama;
  config.tie_embeddings = false;
  return config;
}

Matrix plain_llama(Module& m, const nn::LlamaConfig& config) {
  const Matrix table = m.matrix("model.embed_tokens.weight");
  Matrix x(kIds.size(), 16);
  for (std::size_t i = 0; i < kIds.size(); ++i)
    for (std::size_t j = 0; j < 16; ++j) x.at(i, j) = table.at(kIds[i], j);
  for (std::int64_t l = 0; l < config.num_layers; ++l)
    x = plain_block(m, "model.layers." + std::to_string(l), x, 4, 2, config.rope_theta, config.norm_eps);
  x = plain::rms_norm(x, m.vector("model.norm.weight"), config.norm_eps);
  return plain::matmul(x, config.tie_embeddings ? plain::transposed(table) : m.matrix("lm_head.weight"));
}

TEST(Llama, MatchesFormulaTiedAndUntied) {
  for (const nn::LlamaConfig& config : {kLlama, untied()}) {
    Graph g;
    const nn::Llama model(g, config);
    Module m(g, model.forward(g, g.input_u32("ids", {5})));
    m.session->write("ids", kIds);
    expect_near(m.run(), plain_llama(m, config), 1e-11);
  }
}

TEST(Llama, GradientsMatchFiniteDifferencesTiedAndUntied) {
  for (const nn::LlamaConfig& config : {kLlama, untied()}) {
    Graph g;
    const nn::Llama model(g, config);
    const Value loss = g.cross_entropy(model.forward(g, g.input_u32("ids", {5})), g.input_u32("labels", {5}));
    GradientCheckOptions options;
    options.inputs["ids"] = kIdValues;
    options.inputs["labels"] = {1, 0, 10, 5, 3};
    EXPECT_TRUE(gradients_match(g, loss, options));
  }
}

TEST(Llama, ParametersAreNamedAsInHuggingFace) {
  Graph g;
  const nn::Llama model(g, untied());
  std::vector<std::string> want = {"model.embed_tokens.weight [11, 16]"};
  for (const std::string layer : {"model.layers.0.", "model.layers.1."})
    for (const char* rest :
         {"input_layernorm.weight [16]", "self_attn.q_proj.weight [16, 16]", "self_attn.k_proj.weight [16, 8]",
          "self_attn.v_proj.weight [16, 8]", "self_attn.o_proj.weight [16, 16]", "post_attention_layernorm.weight [16]",
          "mlp.gate_proj.weight [16, 6]", "mlp.up_proj.weight [16, 6]", "mlp.down_proj.weight [6, 16]"})
      want.push_back(layer + rest);
  want.push_back("model.norm.weight [16]");
  want.push_back("lm_head.weight [16, 11]");
  EXPECT_EQ(parameters_of(g), want);

  Graph tied;
  nn::Llama(tied, kLlama);
  want.pop_back();
  EXPECT_EQ(parameters_of(tied), want);
}

TEST(Llama, CountsItsParameters) {
  for (const nn::LlamaConfig& config : {kLlama, untied()}) {
    Graph g;
    const nn::Llama model(g, config);
    std::int64_t count = 0;
    for (const Value p : g.parameters()) count += g.shape(p).size();
    EXPECT_EQ(model.parameter_count(), count);
  }
}

/// Everything that a LlamaConfig may ask for.
nn::LlamaConfig with_all_options() {
  nn::LlamaConfig config = untied();
  config.num_layers = 3;
  config.head_dim = 6;
  config.rope_scaling = {RopeScaling::Kind::llama3, 8.0, 1.0, 4.0, 32};
  config.qkv_bias = config.o_bias = config.mlp_bias = true;
  config.window = 3;
  config.full_layers = 1;
  return config;
}

TEST(Llama, CountsTheParametersOfAllOptions) {
  nn::LlamaConfig one = kLlama, two = kLlama, three = kLlama;
  one.qkv_bias = two.o_bias = three.mlp_bias = true;
  for (const nn::LlamaConfig& config : {one, two, three, with_all_options()}) {
    Graph g;
    const nn::Llama model(g, config);
    std::int64_t count = 0;
    for (const Value p : g.parameters()) count += g.shape(p).size();
    EXPECT_EQ(model.parameter_count(), count);
  }
}

TEST(Llama, OptionsReachEveryLayer) {
  const nn::LlamaConfig config = with_all_options();
  Graph g;
  const nn::Llama model(g, config);
  model.forward(g, g.input_u32("ids", {5}));
  std::vector<nn::KvCache> caches = model.make_caches(g, 8);
  model.decode(g, g.input_u32("id", {1}), caches, g.input_u32("kv_pos", {}), g.input_u32("kv_len", {}));
  std::vector<std::int64_t> windows, cached_windows;
  int ropes = 0;
  for (const Node& node : g.nodes()) {
    if (const auto* attention = std::get_if<MultiHeadAttn>(&node.op)) windows.push_back(attention->mask.window);
    if (const auto* attention = std::get_if<CachedAttention>(&node.op)) cached_windows.push_back(attention->window);
    if (const auto* rope = std::get_if<Rope>(&node.op)) {
      EXPECT_EQ(rope->scaling, config.rope_scaling) << node.name;
      ++ropes;
    }
  }
  EXPECT_EQ(windows, (std::vector<std::int64_t>{0, 3, 3}));
  EXPECT_EQ(cached_windows, windows);
  EXPECT_EQ(ropes, 12);
  for (const char* name : {"model.layers.2.mlp.gate_proj.bias", "model.layers.2.mlp.up_proj.bias", "model.layers.2.mlp.down_proj.bias",
                           "model.layers.2.self_attn.q_proj.bias", "model.layers.2.self_attn.o_proj.bias"})
    EXPECT_TRUE(g.find(name)) << name;
  EXPECT_FALSE(g.find("lm_head.bias"));
}

TEST(Llama, FillsInHeadDim) {
  Graph g;
  EXPECT_EQ(nn::Llama(g, kLlama).config.head_dim, 4);
}

TEST(Llama, TiedGradientIsTheSumOfBothUses) {
  const auto gradients = [](const nn::LlamaConfig& config) {
    Graph g;
    const nn::Llama model(g, config);
    const Value loss = g.cross_entropy(model.forward(g, g.input_u32("ids", {5})), g.input_u32("labels", {5}));
    differentiate(g, loss, {}, true);
    Module m(g, loss);
    if (!config.tie_embeddings) m.session->write("lm_head.weight", plain::transposed(m.matrix("model.embed_tokens.weight")).data);
    m.session->write("ids", kIds);
    m.session->write("labels", std::vector<std::uint32_t>{1, 0, 10, 5, 3});
    m.session->step();
    const Matrix embedding = m.matrix("d:model.embed_tokens.weight");
    return config.tie_embeddings ? embedding : plain::add(embedding, plain::transposed(m.matrix("d:lm_head.weight")));
  };
  expect_near(gradients(kLlama), gradients(untied()), 1e-13);
}

double stddev_of(Session& session, const std::string& name) {
  double squares = 0.0;
  const std::vector<double> values = session.read_f64(name);
  for (const double v : values) squares += v * v;
  return std::sqrt(squares / static_cast<double>(values.size()));
}

TEST(Llama, BranchesIntoTheResidualStreamStartSmaller) {
  Graph g;
  const nn::Llama model(
      g, {.vocab_size = 200, .hidden_size = 64, .intermediate_size = 96, .num_layers = 8, .num_heads = 4, .tie_embeddings = false});
  const auto backend = reference_backend();
  Session session(g, *backend);
  for (const char* name : {"model.embed_tokens", "lm_head", "model.layers.3.self_attn.q_proj", "model.layers.3.self_attn.k_proj",
                           "model.layers.3.self_attn.v_proj", "model.layers.3.mlp.gate_proj", "model.layers.3.mlp.up_proj"})
    EXPECT_NEAR(stddev_of(session, std::string(name) + ".weight"), 0.02, 0.0015) << name;
  for (const char* name : {"model.layers.3.self_attn.o_proj", "model.layers.7.mlp.down_proj"})
    EXPECT_NEAR(stddev_of(session, std::string(name) + ".weight"), 0.02 / 4.0, 0.0004) << name;
  EXPECT_EQ(session.read("model.norm.weight"), std::vector<float>(64, 1.0f));
}

TEST(Llama, NodesAreNamedAfterTheirModules) {
  Graph g;
  const nn::Llama model(g, kLlama);
  model.forward(g, g.input_u32("ids", {5}));
  for (const char* name :
       {"model.embed_tokens.embedding_0", "model.layers.0.self_attn.causal_attention_0", "model.layers.1.self_attn.q_proj.matmul_0",
        "model.layers.1.mlp.swiglu_0", "model.layers.1.input_layernorm.rms_norm_0", "model.norm.rms_norm_0", "lm_head.matmul_0"})
    EXPECT_TRUE(g.find(name)) << name << "\n" << g.to_text();
}

int dropouts_in(const Graph& graph) {
  int count = 0;
  for (const Node& node : graph.nodes()) count += std::holds_alternative<Dropout>(node.op);
  return count;
}

TEST(Llama, DropsOutInForwardOnly) {
  nn::LlamaConfig config = kLlama;
  config.dropout = 0.25;
  Graph forward;
  const nn::Llama model(forward, config);
  model.forward(forward, forward.input_u32("ids", {5}));
  EXPECT_EQ(dropouts_in(forward), 5);  // the embedding, two branches a layer
  for (const Node& node : forward.nodes()) {
    const auto* dropout = std::get_if<Dropout>(&node.op);
    EXPECT_EQ(dropout ? dropout->p : 0.25, 0.25);
  }

  Graph decode;
  const nn::Llama decoder(decode, config);
  std::vector<nn::KvCache> caches = decoder.make_caches(decode, 16);
  decoder.decode(decode, decode.input_u32("id", {1}), caches, decode.input_u32("kv_pos", {}), decode.input_u32("kv_len", {}));
  EXPECT_EQ(dropouts_in(decode), 0);
}

TEST(Llama, CachesAreStatesThatNoCheckpointHolds) {
  Graph g;
  const nn::Llama model(g, kLlama);
  EXPECT_EQ(model.make_caches(g, 16).size(), 2u);
  for (const char* name : {"cache.0.k", "cache.0.v", "cache.1.k", "cache.1.v"}) {
    ASSERT_TRUE(g.find(name)) << name;
    const Node& node = g.node(g.find(name));
    EXPECT_EQ(node.outputs[0], (TensorType{DType::f32, {16, 8}}));
    EXPECT_FALSE(std::get<State>(node.op).saved);
  }
}

TEST(LlamaConfig, WrongSizesAreNamed) {
  const auto refused = [](const std::function<void(nn::LlamaConfig&)>& change) {
    return message_of([&] {
      nn::LlamaConfig config = kLlama;
      change(config);
      Graph g;
      nn::Llama(g, config);
    });
  };
  EXPECT_EQ(refused([](auto&) {}), "no error");
  EXPECT_EQ(refused([](auto& c) { c.vocab_size = 0; }), "LlamaConfig.vocab_size: 0, must be at least 1");
  EXPECT_EQ(refused([](auto& c) { c.hidden_size = -1; }), "LlamaConfig.hidden_size: -1, must be at least 1");
  EXPECT_EQ(refused([](auto& c) { c.intermediate_size = 0; }), "LlamaConfig.intermediate_size: 0, must be at least 1");
  EXPECT_EQ(refused([](auto& c) { c.num_layers = 0; }), "LlamaConfig.num_layers: 0, must be at least 1");
  EXPECT_EQ(refused([](auto& c) { c.num_heads = 0; }), "LlamaConfig.num_heads: 0, must be at least 1");
  EXPECT_EQ(refused([](auto& c) { c.num_heads = 3; }), "LlamaConfig.hidden_size: 16 does not divide by num_heads 3");
  EXPECT_EQ(refused([](auto& c) { c.num_heads = 2, c.num_kv_heads = 4; }),
            "LlamaConfig.num_heads: 2 does not divide by num_kv_heads 4");
  EXPECT_EQ(refused([](auto& c) { c.num_heads = 16, c.num_kv_heads = 16; }), "LlamaConfig.head_dim: 1 is odd, rope rotates pairs");
  EXPECT_EQ(refused([](auto& c) { c.window = -1; }), "LlamaConfig.window: -1, must not be negative");
  EXPECT_EQ(refused([](auto& c) { c.full_layers = -1; }), "LlamaConfig.full_layers: -1, must not be negative");
  EXPECT_EQ(refused([](auto& c) { c.norm_eps = 0.0; }), "LlamaConfig.norm_eps: must be above 0, got 0.000000");
  EXPECT_EQ(refused([](auto& c) { c.dropout = 1.0; }), "LlamaConfig.dropout: must be in [0, 1), got 1.000000");
}

TEST(Llama, DecodeWantsOneCacheALayer) {
  Graph g;
  const nn::Llama model(g, kLlama);
  std::vector<nn::KvCache> caches = model.make_caches(g, 4);
  caches.pop_back();
  EXPECT_EQ(
      message_of([&] { model.decode(g, g.input_u32("id", {1}), caches, g.input_u32("kv_pos", {}), g.input_u32("kv_len", {})); }),
      "Llama::decode: one cache a layer, got 1 caches and 2 layers");
}

}  // namespace
}  // namespace graft
