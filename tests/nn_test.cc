// Each module against plain loops and finite differences, its parameters' names and shapes, and what wrong configurations are told.
#include "graft/nn.h"

#include <gtest/gtest.h>

#include <functional>

#include "graft/error.h"
#include "graft/gtest.h"
#include "tests/message.h"
#include "tests/plain_module.h"

namespace graft {
namespace {

using testing::message_of;
using namespace plain;

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
  EXPECT_EQ(parameters_of(g),
            (std::vector<std::string>{"attn.q_proj.weight [16, 24]", "attn.q_proj.bias [24]", "attn.k_proj.weight [16, 12]",
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

}  // namespace
}  // namespace graft
