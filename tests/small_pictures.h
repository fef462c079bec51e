#pragma once
// What tests of pictures share.
#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "graft/graft.h"
#include "src/report/diagram.h"
#include "tests/xml.h"

namespace graft::testing {

inline bool says(const std::vector<Element>& all, const std::string& text) {
  const std::vector<std::string> said = texts(all);
  return std::find(said.begin(), said.end(), text) != said.end();
}

/// A Llama of small layers, with all of a training step unless `train` is false.
inline Graph decoder(std::int64_t layers, bool train = true, double dropout = 0.0) {
  Graph g(1);
  const nn::Llama model(g, {.vocab_size = 11,
                            .hidden_size = 8,
                            .intermediate_size = 12,
                            .num_layers = layers,
                            .num_heads = 2,
                            .num_kv_heads = 2,
                            .dropout = dropout});
  const Value logits = model.forward(g, g.input_u32("ids", {6}));
  if (!train) {
    g.output("logits", logits);
    return g;
  }
  const Value loss = g.cross_entropy(logits, g.input_u32("next", {6}));
  g.output("loss", loss);
  optim::adamw(g, differentiate(g, loss), {}, {.schedule = {.base = 1e-2}, .clip_norm = 1.0});
  return g;
}

/// The box of that title, or null.
inline const report::detail::Box* box(const report::detail::Diagram& diagram, std::string_view title) {
  for (const report::detail::Box& b : diagram.boxes)
    if (b.title == title) return &b;
  return nullptr;
}

}  // namespace graft::testing
