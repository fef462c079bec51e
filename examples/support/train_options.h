#pragma once
#include <optional>
#include <string>

#include "examples/support/run_config.h"
#include "graft/checkpoint.h"

/// The command line of `train`.
struct TrainOptions : LoopOptions {
  RunConfig run;
  std::string prompt;
  std::int64_t sample = 400;
  double temperature = 0.8;
};

/// Reads the options, fills in the defaults and, when resuming, the configuration of the checkpoint, which is given back in `checkpoint`.
/// nullopt: there is nothing to do (--help), exit with `exit_code`. Contradictions throw graft::Error naming the options.
std::optional<TrainOptions> parse_train_options(int argc, char** argv, int& exit_code, std::optional<graft::Checkpoint>& checkpoint);
