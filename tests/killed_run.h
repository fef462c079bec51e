#pragma once
// A run that is killed again and again: a tiny decoder with dropout, AdamW and shuffled windows that saves after every step, by turns
// beside training and not. tests/programs/killed_run.cc is its process, tests/checkpoint_kill_test.cc kills it.
#include <cstring>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include "graft/graft.h"

namespace graft::testing {

class KilledRun {
 public:
  /// Goes on from the newest checkpoint in `folder`, if there is one.
  explicit KilledRun(const std::filesystem::path& folder)
      : data_(tokens(), kContext, 0.0, 5), backend_(reference_backend()), session_(graph(), *backend_), folder_(folder, 2) {
    if (folder_.latest().empty()) return;
    const Checkpoint checkpoint = read_checkpoint(folder_.latest());
    session_.restore(checkpoint);
    std::vector<std::uint32_t> position(2);
    const SavedTensor& saved = checkpoint.at("data/train");
    if (saved.bytes.size() != 8) throw Error("data/train holds " + std::to_string(saved.bytes.size()) + " bytes");
    std::memcpy(position.data(), saved.bytes.data(), saved.bytes.size());
    data_.seek(position);
    step_ = checkpoint.step;
  }

  /// One step; its loss.
  double step() {
    std::vector<std::uint32_t> inputs(kBatch * kContext), labels(inputs.size());
    data_.next_batch(inputs, labels);
    session_.write("inputs", inputs);
    session_.write("labels", labels);
    session_.step();
    ++step_;
    return session_.scalar("loss");
  }

  Checkpoint snapshot() const {
    Checkpoint checkpoint = session_.snapshot();
    const std::vector<std::uint32_t> position = data_.position();
    const auto bytes = std::as_bytes(std::span(position));
    checkpoint.tensors.push_back({"data/train", {DType::u32, {2}}, {bytes.begin(), bytes.end()}});
    return checkpoint;
  }

  void save(double loss) { step_ % 2 == 0 ? folder_.save_async(snapshot(), loss) : void(folder_.save(snapshot(), loss)); }
  void flush() { folder_.flush(); }
  std::int64_t steps() const { return step_; }

 private:
  static constexpr std::int64_t kContext = 6, kBatch = 2, kVocabulary = 7;

  static std::vector<std::uint32_t> tokens() {
    std::vector<std::uint32_t> tokens(200);
    for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<std::uint32_t>(i * i / 3 % kVocabulary);
    return tokens;
  }

  static Graph graph() {
    Graph g(3);
    const nn::Llama model(g, {.vocab_size = kVocabulary,
                              .hidden_size = 8,
                              .intermediate_size = 8,
                              .num_layers = 1,
                              .num_heads = 2,
                              .num_kv_heads = 1,
                              .dropout = 0.1});
    const Value logits = model.forward(g, g.input_u32("inputs", {kBatch * kContext}), Segments::uniform(kContext));
    const Value loss = g.cross_entropy(logits, g.input_u32("labels", {kBatch * kContext}));
    g.output("loss", loss);
    optim::adamw(g, differentiate(g, loss), {}, {.schedule = {.base = 1e-3}, .clip_norm = 1.0});
    return g;
  }

  WindowDataset data_;
  std::unique_ptr<Backend> backend_;
  Session session_;
  std::int64_t step_ = 0;
  CheckpointFolder folder_;
};

}  // namespace graft::testing
