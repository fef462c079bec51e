#pragma once
// What programs that train share: the settings, and the graphs of training and validation. The loop over steps is training_run.h.
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "graft/backend.h"
#include "graft/data.h"
#include "graft/graph.h"
#include "graft/profile.h"
#include "graft/session.h"

/// How a model is trained: the part of a run's configuration that is about training.
struct TrainingSettings {
  std::int64_t context = 128, steps = 2000, batch = 12, accumulate = 1, warmup = -1, seed = 1;
  std::string optimizer = "adamw", schedule = "cosine", dtype = "f32";
  double lr = 1e-3, min_lr = -1.0, beta1 = 0.9, beta2 = -1.0, weight_decay = 0.1, clip = 1.0, validation = 0.1;
};

/// How a run goes: nothing that a checkpoint keeps.
struct LoopOptions {
  std::filesystem::path out;
  std::string device = "cpu";
  int threads = 0, keep = 2;
  std::int64_t eval_every = 250, eval_windows = 240, save_every = 500, stop_at = 0;
  bool name_nonfinite = false, profile = false, pictures = false, tensorboard = false;
  std::int64_t log_layers = 0;  ///< steps between norms by layer, 0: none
  double memory_budget = 0;     ///< MiB for the values of a step, 0: no limit
  std::filesystem::path trace;  ///< where to write one step's trace, if given
};

graft::Schedule schedule_of(const TrainingSettings& settings);

/// What is trained.
struct Trainee {
  /// ids u32 [n], sequences of `context` → logits; `train`: with dropout, if it has any.
  std::function<graft::Value(graft::Graph& graph, graft::Value ids, std::int64_t context, bool train)> logits;
  /// A pass over the forward pass and its loss, before there are gradients; may be empty.
  std::function<graft::Graph(const graft::Graph& graph, bool train)> pass = {};
};

/// The training step: one graph, or a micro-batch graph run `accumulate` times and the graph of the update.
class Trainer {
 public:
  Trainer(const TrainingSettings& settings, const Trainee& trainee, graft::Backend& backend, const LoopOptions& options);
  /// With `profile`, times the nodes of the last micro-batch.
  void step(graft::WindowDataset& data, graft::Profile* profile);
  /// Takes the next step's first batch to the backend already, which a GPU does beside the step that runs.
  void prepare(graft::WindowDataset& data);
  /// Where the data stands for a checkpoint: behind the batches that steps have used.
  std::vector<std::uint32_t> position(const graft::WindowDataset& data) const { return prepared_ ? before_ : data.position(); }
  /// The session that holds weights, moments and results.
  graft::Session& session() { return update_ ? *update_ : micro_; }
  graft::Session& forward() { return micro_; }

 private:
  std::int64_t accumulate_;
  graft::Graph micro_graph_;
  graft::Session micro_;
  std::unique_ptr<graft::Session> update_;
  std::vector<std::uint32_t> inputs_, labels_;
  bool prepared_ = false;
  std::vector<std::uint32_t> before_;  ///< the position before the batch that is prepared
};

/// Mean loss over validation windows, evenly spread when there are more than `windows`.
class Validation {
 public:
  Validation(const TrainingSettings& settings, const Trainee& trainee, const graft::WindowDataset& data, graft::Session& owner);
  double loss(std::int64_t windows);

 private:
  const graft::WindowDataset& data_;
  std::int64_t context_, batch_;
  graft::Session session_;
};
