// The Llama decoder: against plain loops and finite differences, its parameters, how its options reach the layers.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "graft/error.h"
#include "graft/gtest.h"
#include "graft/nn.h"
#include "tests/message.h"
#include "tests/plain_module.h"

namespace graft {
namespace {

using testing::message_of;
using namespace plain;

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
  for (const char* name :
       {"model.layers.2.mlp.gate_proj.bias", "model.layers.2.mlp.up_proj.bias", "model.layers.2.mlp.down_proj.bias",
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
