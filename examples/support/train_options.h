#pragma once
#include <filesystem>
#include <optional>
#include <string>

#include "examples/support/run_config.h"
#include "graft/checkpoint.h"

/// The command line of `train`.
struct TrainOptions {
  RunConfig run;
  std::filesystem::path out;
  bool resume = false;
  std::filesystem::path resume_from;  ///< a checkpoint file, if resume
  std::string device = "cpu", prompt;
  int threads = 0, keep = 2;
  std::int64_t eval_every = 250, eval_windows = 240, save_every = 500, stop_at = 0, sample = 400;
  double temperature = 0.8;
  bool name_nonfinite = false, profile = false;
  bool pictures = false, tensorboard = false;
  std::int64_t log_layers = 0;  ///< steps between norms by layer, 0: none
  double memory_budget = 0;     ///< MiB for the values of a step, 0: no limit
  std::filesystem::path trace;  ///< where to write one step's trace, if given
};

/// Reads the options, fills in the defaults and, when resuming, the configuration of the checkpoint, which is given back in `checkpoint`.
/// nullopt: there is nothing to do (--help), exit with `exit_code`. Contradictions throw graft::Error naming the options.
std::optional<TrainOptions> parse_train_options(int argc, char** argv, int& exit_code, std::optional<graft::Checkpoint>& checkpoint);
