#pragma once
// A small Llama that learns to count: what tests of training share.
#include <cstdint>
#include <vector>

#include "graft/autodiff.h"
#include "graft/nn.h"
#include "graft/optim.h"
#include "graft/session.h"

namespace graft::testing {

inline constexpr std::int64_t kSequences = 4, kLength = 8, kRows = kSequences * kLength;

inline Graph training_graph(double dropout) {
  Graph g(17);
  const nn::Llama model(g, {.vocab_size = 13,
                            .hidden_size = 16,
                            .intermediate_size = 24,
                            .num_layers = 2,
                            .num_heads = 4,
                            .num_kv_heads = 2,
                            .dropout = dropout});
  const Value logits = model.forward(g, g.input_u32("ids", {kRows}), Segments::uniform(kLength));
  const Value loss = g.cross_entropy(logits, g.input_u32("labels", {kRows}));
  g.output("loss", loss);
  optim::UpdateOptions options;
  options.schedule = {.kind = Schedule::Kind::cosine, .base = 2e-2, .min = 1e-3, .total = 300, .warmup = 3};
  options.clip_norm = 1.0;
  options.loss = loss;
  optim::adamw(g, differentiate(g, loss), {}, options);
  return g;
}

/// Sequences that count up by their own stride: the next token follows from the two before it.
inline double train_step(Session& session, std::uint32_t step) {
  std::vector<std::uint32_t> ids, labels;
  for (std::uint32_t s = 0; s < kSequences; ++s)
    for (std::uint32_t i = 0; i < kLength; ++i) {
      const std::uint32_t start = 3 * step + 5 * s, stride = 1 + (step + s) % 3;
      ids.push_back((start + i * stride) % 13);
      labels.push_back((start + (i + 1) * stride) % 13);
    }
  session.write("ids", ids);
  session.write("labels", labels);
  session.step();
  return session.scalar("loss");
}

}  // namespace graft::testing
