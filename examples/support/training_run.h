#pragma once
// A training run: the loop over steps, and the files of its folder.
#include <chrono>
#include <csignal>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>

#include "examples/support/training.h"
#include "examples/support/watching.h"
#include "graft/checkpoint.h"
#include "graft/report.h"
#include "graft/tokenizer.h"

/// The signal that asks a run for an end, 0 if none did; `stop_on_signals` makes SIGINT and SIGTERM set it.
extern volatile std::sig_atomic_t interrupted;
void stop_on_signals();

class TrainingRun {
 public:
  /// Opens the files of the folder; with `resumed`, puts trainer and data where it was written. Everything given but that outlives the run.
  TrainingRun(const TrainingSettings& settings, const LoopOptions& options, Trainer& trainer, graft::WindowDataset& data,
              const std::optional<graft::Checkpoint>& resumed);
  /// Prints what is trained how: steps, backend, folder.
  void print() const;
  /// Trains until all steps are done, `stop_at`, or a signal. Writes checkpoints with `config`, metrics.csv and what is watched, and prints progress.
  void train(Validation& validation, const std::string& config);
  /// Draws loss.svg, of losses in `unit`, what was watched, and the pictures that were asked for.
  void draw(const std::string& unit, const Trainee& trainee, const graft::Tokenizer& tokenizer) const;
  /// Prints what is done, or how to go on; the exit code of a run that is not at its end.
  std::optional<int> end() const;

 private:
  graft::Checkpoint snapshot(const std::string& config) const;

  const TrainingSettings& settings_;
  const LoopOptions& options_;
  Trainer& trainer_;
  graft::WindowDataset& data_;
  graft::CheckpointFolder checkpoints_;
  bool resumed_;
  std::int64_t first_, step_;  ///< steps done when it began, and now
  graft::MetricsLog metrics_;
  Watching watching_;
  double best_ = std::numeric_limits<double>::infinity(), validation_ = std::numeric_limits<double>::quiet_NaN();
  double seconds_before_;  ///< of the runs before it
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};
