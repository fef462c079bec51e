// The loss that never holds its logits beside the two ops that do: the same numbers in less memory.
#include <gtest/gtest.h>

#include "tests/passes_helpers.h"

namespace graft {
namespace {

constexpr std::int64_t kRows = 600, kVocab = 4096;

testing::Inputs batch(std::int64_t rows, std::int64_t vocab) {
  testing::Inputs inputs;
  for (std::int64_t i = 0; i < rows; ++i) {
    inputs["ids"].push_back(static_cast<double>(i * 7919 % vocab));
    inputs["labels"].push_back(i % 5 == 3 ? kIgnoreIndex : static_cast<double>(i * 104729 % vocab));
  }
  return inputs;
}

/// Loss, lse, count and all gradients.
void finish(Graph& g, const CrossEntropyResult& result) {
  g.output("loss", result.loss);
  g.output("lse", result.lse);
  g.output("counted", result.counted);
  differentiate(g, result.loss, {}, true);
}

Graph llama(bool linear, bool tied, std::int64_t rows, std::int64_t vocab, const Segments& segments) {
  Graph g(3);
  const nn::LlamaConfig config = {.vocab_size = vocab,
                                  .hidden_size = 16,
                                  .intermediate_size = 24,
                                  .num_layers = 1,
                                  .num_heads = 2,
                                  .num_kv_heads = 1,
                                  .tie_embeddings = tied,
                                  .dropout = 0.1};
  const nn::Llama model(g, config);
  const Value ids = g.input_u32("ids", {rows}), labels = g.input_u32("labels", {rows});
  const CrossEntropyOptions options = {.label_smoothing = 0.1};
  finish(g, linear ? model.loss(g, ids, labels, segments, options)
                   : g.cross_entropy_with(model.forward(g, ids, segments), labels, options));
  return g;
}

Graph gpt2(bool linear, bool tied, bool packed) {
  Graph g(3);
  const nn::Gpt2 model(g, {.vocab_size = 31,
                           .max_positions = 12,
                           .hidden_size = 16,
                           .num_layers = 1,
                           .num_heads = 2,
                           .tie_embeddings = tied,
                           .dropout = 0.1});
  const Value ids = g.input_u32("ids", {12}), labels = g.input_u32("labels", {12});
  const CrossEntropyOptions options = {.reduction = Reduction::sum};
  Segments segments = Segments::uniform(6);
  Value positions;
  if (packed) {
    const Value offsets = g.constant({3}, {0, 5, 12}, DType::u32);
    segments = Segments::packed(offsets, offsets);
    positions = g.constant({12}, {0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6}, DType::u32);
  }
  finish(g, linear ? model.loss(g, ids, labels, segments, options, positions)
                   : g.cross_entropy_with(model.forward(g, ids, segments, positions), labels, options));
  return g;
}

void expect_the_same(const Graph& linear, const Graph& whole, Backend& backend, const testing::Inputs& inputs, double rtol) {
  const testing::Inputs a = testing::run_once(linear, backend, inputs), b = testing::run_once(whole, backend, inputs);
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [name, values] : b) EXPECT_LT(testing::norm_of_difference(a.at(name), values), rtol) << name;
}

TEST(LinearCrossEntropy, GivesAModelTheLossAndGradientsOfItsLogits) {
  const auto backend = reference_backend();
  for (const bool tied : {false, true}) {
    for (const Segments& segments : {Segments::uniform(6), Segments()}) {
      expect_the_same(llama(true, tied, 12, 31, segments).to_f64(), llama(false, tied, 12, 31, segments).to_f64(), *backend,
                      batch(12, 31), 1e-13);
    }
    for (const bool packed : {false, true})
      expect_the_same(gpt2(true, tied, packed).to_f64(), gpt2(false, tied, packed).to_f64(), *backend, batch(12, 31), 1e-13);
  }
}

TEST(LinearCrossEntropy, SavesTheMemoryOfTheLogitsAndGivesTheSameNumbers) {
  const auto backend = cpu_backend(2);
  for (const bool tied : {false, true}) {
    const Graph linear = llama(true, tied, kRows, kVocab, Segments::uniform(100));
    const Graph whole = llama(false, tied, kRows, kVocab, Segments::uniform(100));
    const Plan small(linear, *backend), large(whole, *backend);
    constexpr std::size_t kLogits = kRows * kVocab * sizeof(float), kChunk = 256 * kVocab * sizeof(float);
    constexpr std::size_t kDx = kRows * 16 * sizeof(float);  // lies beside dweight where the logits would have made room for it
    EXPECT_LE(small.arena_bytes() + kLogits, large.arena_bytes() + kDx) << tied;
    EXPECT_EQ(small.workspace_bytes(), kChunk + kRows * sizeof(double)) << tied;
    expect_the_same(linear, whole, *backend, batch(kRows, kVocab), 2e-6);
  }
}

}  // namespace
}  // namespace graft
