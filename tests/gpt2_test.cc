// GPT-2: names, sizes, decoding, segments. That it computes what transformers computes is shown in hf_test.cc.
#include <gtest/gtest.h>

#include <cmath>

#include "graft/backend.h"
#include "graft/generate.h"
#include "graft/gtest.h"
#include "graft/nn.h"
#include "graft/session.h"
#include "tests/message.h"
#include "tests/plain_model.h"

namespace graft {
namespace {

using plain::values_for;
using testing::message_of;
using Tokens = std::vector<std::uint32_t>;

const nn::Gpt2Config kSmall = {
    .vocab_size = 11, .max_positions = 9, .hidden_size = 12, .intermediate_size = 20, .num_layers = 2, .num_heads = 3};
const Tokens kText = {3, 10, 0, 3, 7, 7, 1, 9};

void set_weights(Session& session) {
  for (const Value p : session.graph().parameters()) {
    const std::string& name = session.graph().node(p).name;
    session.write(name, values_for(name, session.graph().shape(p).size()));
  }
}

std::vector<double> run(Session& session, const Tokens& ids) {
  session.write("ids", ids);
  session.step();
  return session.read_f64("logits");
}

Graph forward_graph(std::int64_t rows, const Segments& segments = {}) {
  Graph g;
  const nn::Gpt2 model(g, kSmall);
  g.output("logits", model.forward(g, g.input_u32("ids", {rows}), segments));
  return g.to_f64();
}

void expect_rows(const std::vector<double>& got, const std::vector<double>& want, std::size_t first_row) {
  for (std::size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], want[first_row * 11 + i], 1e-11) << "element " << i;
}

TEST(Gpt2, ParametersAreNamedAsInHuggingFace) {
  for (const bool tied : {true, false}) {
    nn::Gpt2Config config = kSmall;
    config.tie_embeddings = tied;
    Graph g;
    const nn::Gpt2 model(g, config);
    std::vector<std::string> names, want = {"transformer.wte.weight [11, 12]", "transformer.wpe.weight [9, 12]"};
    std::int64_t count = 0;
    for (const Value p : g.parameters()) {
      names.push_back(g.node(p).name + " " + to_string(g.shape(p)));
      count += g.shape(p).size();
    }
    for (const std::string layer : {"transformer.h.0.", "transformer.h.1."})
      for (const char* rest :
           {"ln_1.weight [12]", "ln_1.bias [12]", "attn.c_attn.weight [12, 36]", "attn.c_attn.bias [36]",
            "attn.c_proj.weight [12, 12]", "attn.c_proj.bias [12]", "ln_2.weight [12]", "ln_2.bias [12]",
            "mlp.c_fc.weight [12, 20]", "mlp.c_fc.bias [20]", "mlp.c_proj.weight [20, 12]", "mlp.c_proj.bias [12]"})
        want.push_back(layer + rest);
    want.insert(want.end(), {"transformer.ln_f.weight [12]", "transformer.ln_f.bias [12]"});
    if (!tied) want.emplace_back("lm_head.weight [12, 11]");
    EXPECT_EQ(names, want);
    EXPECT_EQ(model.parameter_count(), count);
  }
}

TEST(Gpt2, GradientsMatchFiniteDifferencesTiedAndUntied) {
  for (const bool tied : {true, false}) {
    nn::Gpt2Config config = kSmall;
    config.tie_embeddings = tied;
    config.dropout = 0.2;
    Graph g;
    const nn::Gpt2 model(g, config);
    const Value loss = g.cross_entropy(model.forward(g, g.input_u32("ids", {8}), Segments::uniform(4)), g.input_u32("labels", {8}));
    GradientCheckOptions options;
    options.inputs["ids"] = {kText.begin(), kText.end()};
    options.inputs["labels"] = {1, 0, 10, 5, 3, 3, 8, 2};
    EXPECT_TRUE(gradients_match(g, loss, options));
  }
}

TEST(Gpt2, BranchesThatAddUpStartSmaller) {
  Graph g;
  const nn::Gpt2 model(g, {.vocab_size = 300, .max_positions = 300, .hidden_size = 64, .num_layers = 8, .num_heads = 2});
  EXPECT_EQ(model.config.intermediate_size, 256);
  for (const Node& node : g.nodes()) {
    const auto* parameter = std::get_if<Parameter>(&node.op);
    if (parameter == nullptr || parameter->type.shape.rank() != 2) continue;
    const bool residual = node.name.ends_with("c_proj.weight");
    EXPECT_EQ(parameter->init, Init::normal(0.0, residual ? 0.02 / 4.0 : 0.02)) << node.name;
  }
}

TEST(Gpt2, DropsOutInForwardOnly) {
  nn::Gpt2Config config = kSmall;
  config.dropout = 0.25;
  Graph g;
  const nn::Gpt2 model(g, config);
  const auto dropouts = [&] {
    int count = 0;
    for (const Node& node : g.nodes())
      if (const auto* dropout = std::get_if<Dropout>(&node.op)) count += dropout->p == 0.25 ? 1 : 100;
    return count;
  };
  model.forward(g, g.input_u32("ids", {5}));
  EXPECT_EQ(dropouts(), 5);  // the embedding, two branches a layer
  std::vector<nn::KvCache> caches = model.make_caches(g, 4);
  model.decode(g, caches, {g.input_u32("id", {1}), g.input_u32("kv_pos", {}), g.input_u32("kv_len", {})});
  EXPECT_EQ(dropouts(), 5);
}

TEST(Gpt2, DecodingGivesTheRowsOfTheCausalPass) {
  const auto backend = reference_backend();
  Session whole(forward_graph(8), *backend);
  set_weights(whole);
  const std::vector<double> want = run(whole, kText);

  Graph g;
  const nn::Gpt2 model(g, kSmall);
  std::vector<nn::KvCache> caches = model.make_caches(g, 9);
  g.output("logits", model.decode(g, caches, {g.input_u32("ids", {1}), g.input_u32("kv_pos", {}), g.input_u32("kv_len", {})}));
  Session step(g.to_f64(), whole);
  for (std::uint32_t i = 0; i < kText.size(); ++i) {
    step.write("kv_pos", i);
    step.write("kv_len", i + 1);
    expect_rows(run(step, {kText[i]}), want, i);
  }

  // Three tokens at once, of which only the last row's logits are asked for.
  Graph chunk;
  const nn::Gpt2 same(chunk, kSmall);
  caches = same.make_caches(chunk, 9);
  nn::DecodeStep chunk_step{chunk.input_u32("ids", {3}), chunk.input_u32("kv_pos", {}), chunk.input_u32("kv_len", {})};
  chunk_step.positions = chunk.input_u32("positions", {3});
  chunk_step.rows = chunk.input_u32("rows", {1});
  chunk.output("logits", same.decode(chunk, caches, chunk_step));
  Session three(chunk.to_f64(), step);
  three.write("kv_pos", 5u);
  three.write("kv_len", 8u);
  three.write("positions", Tokens{5, 6, 7});
  three.write("rows", 2u);
  expect_rows(run(three, {kText[5], kText[6], kText[7]}), want, 7);
}

TEST(Gpt2, SequencesStartAtPositionZero) {
  const auto backend = reference_backend();
  Session uniform(forward_graph(8, Segments::uniform(4)), *backend);
  set_weights(uniform);
  const std::vector<double> got = run(uniform, kText);
  Session alone(forward_graph(4), uniform);
  for (std::size_t s = 0; s < 2; ++s)
    expect_rows(
        run(alone, {kText.begin() + static_cast<std::ptrdiff_t>(4 * s), kText.begin() + static_cast<std::ptrdiff_t>(4 * s + 4)}),
        got, 4 * s);

  Graph g;
  const nn::Gpt2 model(g, kSmall);
  const Value positions = g.input_u32("positions", {8});
  g.output("logits", model.forward(g, g.input_u32("ids", {8}), Segments::packed(g.input_u32("offsets", {3})), positions));
  Session packed(g.to_f64(), uniform);
  packed.write("positions", Tokens{0, 1, 2, 3, 0, 1, 2, 3});
  packed.write("offsets", Tokens{0, 4, 8});
  expect_rows(run(packed, kText), got, 0);
}

TEST(Gpt2, AGeneratorWritesWhatTheForwardPassSays) {
  const auto backend = reference_backend();
  Graph g;
  const nn::Gpt2 model(g, kSmall);
  g.output("logits", model.forward(g, g.input_u32("ids", {8})));
  Session whole(g, *backend);
  set_weights(whole);
  Generator generator(kSmall, whole, {.max_seq = 9, .prefill = 3});
  const Tokens made = generator.generate(std::span(kText).first(7), 2, {.temperature = 0.0});
  Tokens text(kText.begin(), kText.begin() + 7);
  text.push_back(made.at(0));
  const std::vector<double> logits = run(whole, text);
  const auto best = [&](std::size_t row) {
    const auto begin = logits.begin() + static_cast<std::ptrdiff_t>(11 * row);
    return static_cast<std::uint32_t>(std::max_element(begin, begin + 11) - begin);
  };
  EXPECT_EQ(made, (Tokens{best(6), best(7)}));
  EXPECT_EQ(message_of([&] { Generator(kSmall, whole, {.max_seq = 10}); }), "generator: max_seq is 10, the model has 9 positions");
}

TEST(Gpt2, WhatDoesNotFitIsNamed) {
  const auto refused = [](const std::function<void(nn::Gpt2Config&)>& change) {
    return message_of([&] {
      nn::Gpt2Config config = kSmall;
      change(config);
      Graph g;
      nn::Gpt2(g, config);
    });
  };
  EXPECT_EQ(refused([](auto&) {}), "no error");
  EXPECT_EQ(refused([](auto& c) { c.vocab_size = 0; }), "Gpt2Config.vocab_size: 0, must be at least 1");
  EXPECT_EQ(refused([](auto& c) { c.max_positions = 0; }), "Gpt2Config.max_positions: 0, must be at least 1");
  EXPECT_EQ(refused([](auto& c) { c.hidden_size = 0; }), "Gpt2Config.hidden_size: 0, must be at least 1");
  EXPECT_EQ(refused([](auto& c) { c.num_layers = 0; }), "Gpt2Config.num_layers: 0, must be at least 1");
  EXPECT_EQ(refused([](auto& c) { c.num_heads = 0; }), "Gpt2Config.num_heads: 0, must be at least 1");
  EXPECT_EQ(refused([](auto& c) { c.intermediate_size = -1; }), "Gpt2Config.intermediate_size: -1, must be at least 1");
  EXPECT_EQ(refused([](auto& c) { c.num_heads = 5; }), "Gpt2Config.hidden_size: 12 does not divide by num_heads 5");
  EXPECT_EQ(refused([](auto& c) { c.hidden_size = 257, c.num_heads = 1; }),
            "Gpt2Config.hidden_size: 257 / num_heads 1 must be at most 256");
  EXPECT_EQ(refused([](auto& c) { c.hidden_size = 256, c.num_heads = 1; }), "no error");
  EXPECT_EQ(refused([](auto& c) { c.norm_eps = 0.0; }), "Gpt2Config.norm_eps: must be above 0, got 0.000000");
  EXPECT_EQ(refused([](auto& c) { c.dropout = 1.0; }), "Gpt2Config.dropout: must be in [0, 1), got 1.000000");
  EXPECT_EQ(refused([](auto& c) { c.dropout = -0.1; }), "Gpt2Config.dropout: must be in [0, 1), got -0.100000");

  Graph g;
  const nn::Gpt2 model(g, kSmall);
  EXPECT_EQ(message_of([&] { model.forward(g, g.input_u32("nine", {9})); }), "no error");
  EXPECT_EQ(message_of([&] { model.forward(g, g.input_u32("ten", {10})); }),
            "Gpt2::forward: a sequence of 10 tokens is longer than max_positions 9");
  EXPECT_EQ(message_of([&] { model.forward(g, g.input_u32("twice", {10}), Segments::uniform(5)); }), "no error");
  EXPECT_EQ(message_of([&] { model.forward(g, g.input_u32("some", {4}), Segments::packed(g.input_u32("offsets", {3}))); }),
            "Gpt2::forward: packed sequences need positions");
  EXPECT_EQ(message_of([&] { model.loss(g, g.find("ten"), g.find("ten")); }),
            "Gpt2::loss: a sequence of 10 tokens is longer than max_positions 9");
  EXPECT_EQ(message_of([&] { model.loss(g, g.find("some"), g.find("some"), Segments::packed(g.find("offsets"))); }),
            "Gpt2::loss: packed sequences need positions");
  std::vector<nn::KvCache> caches = model.make_caches(g, 4);
  EXPECT_EQ(message_of([&] {
              model.decode(g, caches, {g.input_u32("two", {2}), g.input_u32("kv_pos", {}), g.input_u32("kv_len", {})});
            }),
            "Gpt2::decode: several tokens of a sequence at once need positions, got 2 tokens and 1 sequences");
  caches.pop_back();
  EXPECT_EQ(message_of([&] {
              model.decode(g, caches, {g.find("two"), g.find("kv_pos"), g.find("kv_len")});
            }),
            "Gpt2::decode: one cache a layer, got 1 caches and 2 layers");
}

}  // namespace
}  // namespace graft
