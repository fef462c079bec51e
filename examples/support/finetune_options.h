#pragma once
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "examples/support/training.h"
#include "graft/checkpoint.h"
#include "graft/hf.h"
#include "graft/lora.h"

/// What a fine-tuning run was made with: what a checkpoint keeps as JSON, and a resumed run must not contradict.
struct FinetuneConfig : TrainingSettings {
  std::string model;              ///< the Hugging Face folder
  std::uint64_t model_hash = 0;   ///< of its configuration and weights
  std::string text;               ///< where it came from
  std::uint64_t text_hash = 0;    ///< of its tokens
  bool bytes = false;             ///< tokens are bytes
  double dropout = 0.0;
  std::int64_t lora_rank = 0;     ///< 0: all weights train
  double lora_alpha = 0.0, lora_dropout = 0.0;
  std::vector<std::string> lora_targets;
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(FinetuneConfig, context, steps, batch, accumulate, warmup, seed, optimizer, schedule, dtype, lr, min_lr, beta1, beta2, weight_decay, clip,
                                   validation, model, model_hash, text, text_hash, bytes, dropout, lora_rank, lora_alpha, lora_dropout, lora_targets)

/// The command line of `finetune`.
struct FinetuneOptions : LoopOptions {
  FinetuneConfig run;
  std::string prompt;
  std::int64_t sample = 100;
  double temperature = 0.8;
  std::filesystem::path model_out;  ///< the folder for transformers
  graft::hf::SaveAs save_as = graft::hf::SaveAs::f32;
};

/// Reads the options, fills in the defaults and, when resuming, the configuration of the checkpoint, which is given back in `checkpoint`.
/// nullopt: there is nothing to do (--help), exit with `exit_code`. Contradictions throw graft::Error naming the options.
std::optional<FinetuneOptions> parse_finetune_options(int argc, char** argv, int& exit_code, std::optional<graft::Checkpoint>& checkpoint);
