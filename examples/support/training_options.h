#pragma once
// The options of programs that train: settings, which a checkpoint keeps, and how a run goes.
#include <CLI/CLI.hpp>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "examples/support/training.h"
#include "graft/checkpoint.h"
#include "graft/error.h"

inline void require(bool condition, const std::string& what) {
  if (!condition) throw graft::Error(what);
}

/// Options that set what a checkpoint keeps, by their keys in its JSON.
class KeptOptions {
 public:
  explicit KeptOptions(CLI::App& app) : app_(app) {}
  template <class T>
  CLI::Option* add(const std::string& option, const std::string& key, T& value, const std::string& help) {
    option_of_[key] = option;
    return app_.add_option(option, value, help);
  }
  CLI::Option* flag(const std::string& option, const std::string& key, bool& value, const std::string& help) {
    option_of_[key] = option;
    return app_.add_flag(option, value, help);
  }
  /// The checkpoint of a file; `run` becomes what it was trained with, as `config_of(json, file)` reads it, but for a number of steps that is given.
  /// Any other explicit option that differs throws Error.
  template <class Config, class Read>
  graft::Checkpoint resume(const std::filesystem::path& file, Config& run, Read config_of) const {
    graft::Checkpoint checkpoint = graft::read_checkpoint(file);
    Config kept = config_of(checkpoint.config, file.string());
    const nlohmann::json a = run, b = kept;
    for (const auto& [key, option] : option_of_)
      if (key != "steps" && given(key) && a.at(key) != b.at(key))
        throw graft::Error(option + " " + a.at(key).dump() + " contradicts the checkpoint, which was trained with " + b.at(key).dump());
    if (given("steps")) kept.steps = run.steps;
    run = kept;
    require(checkpoint.step <= run.steps, "--steps " + std::to_string(run.steps) + " is below the " + std::to_string(checkpoint.step) + " steps done already");
    return checkpoint;
  }

 private:
  bool given(const std::string& key) const { return app_.get_option(option_of_.at(key))->count() > 0; }

  CLI::App& app_;
  std::map<std::string, std::string> option_of_;
};

/// --steps, --batch, … --seed.
void add_training_options(KeptOptions& options, TrainingSettings& run, const std::string& group);
/// Defaults that depend on other options, and what contradicts what.
void settle(TrainingSettings& run);

/// --device, --eval-every, … --pictures.
void add_loop_options(CLI::App& app, LoopOptions& options, const std::string& group);

/// --out and --resume: the folder of a run.
struct RunFolder {
  std::string resume_from;
  CLI::Option* resume = nullptr;
  void add(CLI::App& app, std::filesystem::path& out, const std::string& group);
  bool resuming() const { return resume->count() > 0; }
  /// The checkpoint file to go on with; fills in `out`.
  std::filesystem::path checkpoint(std::filesystem::path& out) const;
  /// A new run's folder, which must not hold another.
  void start(std::filesystem::path& out) const;
};
