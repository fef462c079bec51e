// Texts that a Generator writes are those of the model's forward pass, token by token, whatever the chunks, the batch and the window.
#include "graft/generate.h"

#include <gtest/gtest.h>

#include <cmath>

#include "graft/backend.h"
#include "graft/error.h"
#include "tests/message.h"
#include "tests/plain_model.h"

namespace graft {
namespace {

using plain::values_for;
using testing::message_of;
using Tokens = std::vector<std::uint32_t>;

const nn::LlamaConfig kConfig = {.vocab_size = 19,
                                 .hidden_size = 24,
                                 .intermediate_size = 40,
                                 .num_layers = 2,
                                 .num_heads = 6,
                                 .num_kv_heads = 2,
                                 .rope_theta = 100.0};
const std::vector<Tokens> kPrompts = {{3, 16, 0, 3, 7, 7, 11, 2, 15, 1, 9, 4}, {8}, {8, 8, 5, 14, 0}, {12, 1, 1, 18, 6, 2, 9}};

nn::LlamaConfig with(const std::function<void(nn::LlamaConfig&)>& change) {
  nn::LlamaConfig config = kConfig;
  change(config);
  return config;
}

/// Weights far from their small initial values, so that every part of the model matters.
void set_weights(Session& session) {
  for (const Value p : session.graph().parameters()) {
    const std::string& name = session.graph().node(p).name;
    session.write(name, values_for(name, session.graph().shape(p).size()));
  }
}

/// What a Generator must write: the forward pass over the tokens that it looks back on, for each new one.
Tokens written(const nn::LlamaConfig& config, Session& owner, const Tokens& prompt, std::int64_t count,
               const SampleOptions& sampling, std::int64_t max_seq = 1000) {
  Tokens text = prompt, made;
  auto from = static_cast<std::int64_t>(text.size()) > max_seq ? static_cast<std::int64_t>(text.size()) - max_seq : 0;
  for (std::uint32_t i = 0; i < count; ++i) {
    if (static_cast<std::int64_t>(text.size()) - from > max_seq) from = static_cast<std::int64_t>(text.size()) - 1 - max_seq / 2;
    const Tokens seen(text.begin() + from, text.end());
    Graph graph;
    const nn::Llama model(graph, config);
    graph.output("logits", model.forward(graph, graph.input_u32("ids", {static_cast<std::int64_t>(seen.size())})));
    Session session(graph, owner);
    session.write("ids", seen);
    session.step();
    const std::vector<float> logits = session.read("logits");
    made.push_back(sample(std::span(logits).last(static_cast<std::size_t>(config.vocab_size)), sampling, i, text));
    text.push_back(made.back());
  }
  return made;
}

class Generate : public ::testing::TestWithParam<std::string> {
 protected:
  std::unique_ptr<Backend> backend = make_backend(GetParam(), 2);
};
INSTANTIATE_TEST_SUITE_P(Backends, Generate, ::testing::Values("reference", "cpu"), [](const auto& info) { return info.param; });

TEST_P(Generate, WritesWhatTheForwardPassSays) {
  const nn::LlamaConfig configs[] = {kConfig, with([](auto& c) { c.window = 4, c.full_layers = 1; }),
                                     with([](auto& c) { c.tie_embeddings = false, c.num_kv_heads = 6; })};
  for (const nn::LlamaConfig& config : configs) {
    for (const std::int64_t prefill : {1, 3, 4, 64}) {
      Generator generator(config, *backend, {.max_seq = 40, .batch = 3, .prefill = prefill});
      set_weights(generator.session());
      const GenerateOptions options = {.max_tokens = 9,
                                       .sampling = {.temperature = 1.2, .top_k = 12, .repetition_penalty = 1.5, .seed = 5}};
      const std::vector<Tokens> got = generator.generate(kPrompts, options);
      ASSERT_EQ(got.size(), kPrompts.size());
      for (std::size_t i = 0; i < kPrompts.size(); ++i) {
        SampleOptions sampling = options.sampling;
        sampling.seed += i;
        EXPECT_EQ(got[i], written(config, generator.session(), kPrompts[i], 9, sampling))
            << "prompt " << i << ", chunks of " << prefill;
      }
    }
  }
}

TEST_P(Generate, LongTextsGoOnFromTheirNewestHalf) {
  for (const std::int64_t max_seq : {2, 7, 8}) {
    Generator generator(kConfig, *backend, {.max_seq = max_seq, .batch = 2, .prefill = 3});
    set_weights(generator.session());
    const std::vector<Tokens> got = generator.generate(kPrompts, {.max_tokens = 20, .sampling = {.temperature = 0.0}});
    for (std::size_t i = 0; i < kPrompts.size(); ++i)
      EXPECT_EQ(got[i], written(kConfig, generator.session(), kPrompts[i], 20, {.temperature = 0.0}, max_seq))
          << "prompt " << i << ", max_seq " << max_seq;
  }
}

TEST_P(Generate, ATextHasTheSameBitsAloneAndInABatch) {
  Generator alone(kConfig, *backend, {.max_seq = 30});
  set_weights(alone.session());
  for (const std::int64_t batch : {2, 5, 8}) {
    Generator many(kConfig, *backend, {.max_seq = 30, .batch = batch});
    set_weights(many.session());
    const GenerateOptions options = {.max_tokens = 12, .sampling = {.temperature = 1.5, .seed = 3}};
    const std::vector<Tokens> got = many.generate(kPrompts, options);
    for (std::size_t i = 0; i < kPrompts.size(); ++i) {
      EXPECT_EQ(got[i], alone.generate(kPrompts[i], 12, {.temperature = 1.5, .seed = 3 + i}))
          << "prompt " << i << ", batch " << batch;
    }
    many.generate(std::span(kPrompts).first(2), options);
    const std::vector<float> together = many.session().read("logits");
    alone.generate(kPrompts[0], 12, options.sampling);
    EXPECT_EQ(std::vector<float>(together.begin(), together.begin() + 19), alone.session().read("logits"));
    alone.generate(kPrompts[1], 12, {.temperature = 1.5, .seed = 4});
    EXPECT_EQ(std::vector<float>(together.begin() + 19, together.begin() + 38), alone.session().read("logits"));
  }
}

TEST_P(Generate, WritesOnTheWeightsOfAnotherSession) {
  Graph graph;
  const nn::Llama model(graph, kConfig);
  graph.output("logits", model.forward(graph, graph.input_u32("ids", {1})));
  Session session(graph, *backend);
  Generator generator(kConfig, session, {.max_seq = 30});
  const Tokens first = generator.generate(kPrompts[0], 8, {.temperature = 0.0});
  set_weights(session);
  const Tokens then = generator.generate(kPrompts[0], 8, {.temperature = 0.0});
  EXPECT_NE(then, first);
  EXPECT_EQ(then, written(kConfig, session, kPrompts[0], 8, {.temperature = 0.0}));
  Generator own(kConfig, *backend, {.max_seq = 30});
  own.restore(session.snapshot());
  EXPECT_EQ(own.generate(kPrompts[0], 8, {.temperature = 0.0}), then);
}

TEST_P(Generate, EndsATextAtAStopTokenOrWhenToldTo) {
  Generator generator(kConfig, *backend, {.max_seq = 30, .batch = 2});
  set_weights(generator.session());
  GenerateOptions options = {.max_tokens = 12, .sampling = {.temperature = 0.8, .seed = 9}};
  const std::vector<Tokens> whole = generator.generate(kPrompts, options);
  options.stop = {18, whole[0][3]};  // neither first nor last
  const std::vector<Tokens> stopped = generator.generate(kPrompts, options);
  for (std::size_t i = 0; i < whole.size(); ++i) {
    Tokens wanted;
    for (const std::uint32_t token : whole[i]) {
      wanted.push_back(token);
      if (token == options.stop[0] || token == options.stop[1]) break;
    }
    EXPECT_EQ(stopped[i], wanted) << i;
  }
  EXPECT_LE(stopped[0].size(), 4u);

  options.stop = {};
  std::vector<Tokens> told(kPrompts.size());
  const std::vector<Tokens> cut = generator.generate(kPrompts, options, [&](std::size_t text, std::uint32_t token) {
    told[text].push_back(token);
    return told[text].size() < 2 + text;
  });
  EXPECT_EQ(cut, told);
  for (std::size_t i = 0; i < whole.size(); ++i)
    EXPECT_EQ(cut[i], Tokens(whole[i].begin(), whole[i].begin() + 2 + static_cast<std::ptrdiff_t>(i)));
  EXPECT_EQ(generator.generate(kPrompts[2], 3, {.temperature = 0.8, .seed = 11}, [](std::uint32_t) { return false; }),
            Tokens(whole[2].begin(), whole[2].begin() + 1));
}

TEST_P(Generate, OfNothingIsNothing) {
  Generator generator(kConfig, *backend, {.max_seq = 4});
  EXPECT_EQ(generator.generate(kPrompts, {.max_tokens = 0}), std::vector<Tokens>(4));
  EXPECT_EQ(generator.generate(std::vector<Tokens>{}, {.max_tokens = 3}), std::vector<Tokens>{});
}

TEST_P(Generate, RefusesOptionsThatMakeNoSense) {
  const auto made = [&](const GeneratorOptions& options) { return message_of([&] { Generator(kConfig, *backend, options); }); };
  EXPECT_EQ(made({.max_seq = 1}), "generator: max_seq is 1, must be at least 2");
  EXPECT_EQ(made({.max_seq = 2, .batch = 0}), "generator: batch is 0, must be at least 1");
  EXPECT_EQ(made({.max_seq = 2, .batch = 1, .prefill = 0}), "generator: prefill is 0, must be at least 1");
  EXPECT_EQ(made({.max_seq = 2, .batch = 1, .prefill = 1}), "no error");
  Generator generator(kConfig, *backend, {.max_seq = 4});
  const auto message = [&](const std::vector<Tokens>& prompts, const GenerateOptions& options) {
    return message_of([&] { generator.generate(prompts, options); });
  };
  EXPECT_EQ(message({{1}, {}}, {.max_tokens = 3}), "generator: prompt 1 is empty");
  EXPECT_EQ(message({{1}}, {.max_tokens = -1}), "generator: max_tokens is -1, must be at least 0");
  EXPECT_EQ(message({{1}}, {.max_tokens = 3, .sampling = {.top_p = 2.0}}),
            "sample: top_p is 2.000000, must be above 0 and at most 1");
  EXPECT_EQ(message({{1, 19}}, {.max_tokens = 3}),
            "embedding \"model.embed_tokens.embedding_0\": id 19 at position 1 is outside the table of 19 rows");
}

}  // namespace
}  // namespace graft
