#include "examples/support/training_options.h"

#include "examples/support/files.h"
#include "examples/support/number_checks.h"
#include "graft/checkpoint.h"

namespace fs = std::filesystem;

namespace {

constexpr const char* kRuns = "runs";

}  // namespace

void add_training_options(KeptOptions& options, TrainingSettings& run, const std::string& group) {
  const auto add = [&](const std::string& option, const std::string& key, auto& value, const std::string& help) { return options.add(option, key, value, help)->group(group); };
  const auto with_default = [&](const std::string& option, const std::string& key, auto& value, const std::string& help) {
    return add(option, key, value, help)->capture_default_str();
  };
  with_default("--steps", "steps", run.steps, "updates in all")->check(positive());
  with_default("--batch", "batch", run.batch, "windows a micro-batch")->check(positive());
  with_default("--accumulate", "accumulate", run.accumulate, "micro-batches an update")->check(positive());
  with_default("--dtype", "dtype", run.dtype, "f32, or bf16: products, attention and what lies between")->check(CLI::IsMember({"f32", "bf16"}));
  with_default("--optimizer", "optimizer", run.optimizer, "adamw, adam, sgd or lion")->check(CLI::IsMember({"adamw", "adam", "sgd", "lion"}));
  with_default("--lr", "lr", run.lr, "learning rate")->check(positive());
  add("--min-lr", "min_lr", run.min_lr, "learning rate at the end (default: a tenth)")->check(not_negative());
  with_default("--schedule", "schedule", run.schedule, "constant, linear, cosine or wsd")->check(CLI::IsMember({"constant", "linear", "cosine", "wsd"}));
  add("--warmup", "warmup", run.warmup, "steps of linear warm-up (default: 100, at most a tenth of the steps)")->check(not_negative());
  with_default("--beta1", "beta1", run.beta1, "momentum of adam and lion, momentum of sgd")->check(between(0.0, 0.999999));
  add("--beta2", "beta2", run.beta2, "second moment of adam, update of lion (default: 0.99)")->check(between(0.0, 0.999999));
  with_default("--weight-decay", "weight_decay", run.weight_decay, "not on norms, biases, embeddings")->check(not_negative());
  with_default("--clip", "clip", run.clip, "global gradient norm, 0: no clipping")->check(not_negative());
  with_default("--validation", "validation", run.validation, "fraction of the text that validates")->check(between(0.001, 0.9));
  with_default("--seed", "seed", run.seed, "of weights, order and dropout")->check(not_negative());
}

void settle(TrainingSettings& run) {
  const auto text = [](auto value) { return std::to_string(value); };
  if (run.warmup < 0) run.warmup = std::min<std::int64_t>(100, run.steps / 10);
  if (run.min_lr < 0.0) run.min_lr = run.lr / 10.0;
  if (run.beta2 < 0.0) run.beta2 = 0.99;
  require(run.warmup <= run.steps, "--warmup " + text(run.warmup) + " is longer than --steps " + text(run.steps));
  require(run.min_lr <= run.lr, "--min-lr " + text(run.min_lr) + " is above --lr " + text(run.lr));
}

void add_loop_options(CLI::App& app, LoopOptions& options, const std::string& group) {
  app.add_option("--device", options.device, "cpu, reference or cuda")->capture_default_str()->group(group);
  app.add_option("--threads", options.threads, "threads of the cpu backend, 0: all")->capture_default_str()->check(not_negative())->group(group);
  app.add_option("--eval-every", options.eval_every, "steps between validations")->capture_default_str()->check(positive())->group(group);
  app.add_option("--eval-windows", options.eval_windows, "validation windows on the way (all at the end)")->capture_default_str()->check(positive())->group(group);
  app.add_option("--save-every", options.save_every, "steps between checkpoints")->capture_default_str()->check(positive())->group(group);
  app.add_option("--keep", options.keep, "checkpoints to keep, beside the best")->capture_default_str()->check(positive())->group(group);
  app.add_option("--stop-at", options.stop_at, "save and stop after this step, 0: no")->capture_default_str()->check(not_negative())->group(group);
  app.add_flag("--name-nonfinite", options.name_nonfinite, "keep every value of a step, to name the first that is not finite")->group(group);
  app.add_option("--memory-budget", options.memory_budget, "MiB that the values of a step may take: recomputes activations, the same bits; 0: no limit")->capture_default_str()->check(not_negative())->group(group);
  app.add_flag("--profile", options.profile, "print where the time of the tenth step goes, by op")->group(group);
  app.add_option("--trace", options.trace, "write the tenth step as Chrome/Perfetto JSON to this file")->group(group);
  app.add_option("--log-gradients", options.log_layers, "steps between gradient norms and update ratios by layer (layers.csv, gradients.svg, updates.svg), 0: none")->capture_default_str()->check(not_negative())->group(group);
  app.add_flag("--tensorboard", options.tensorboard, "write events for TensorBoard, with --log-gradients also histograms of the weights")->group(group);
  app.add_flag("--pictures", options.pictures, "draw the step's graph and memory with the tenth step's times, and attention maps at the end")->group(group);
}

void RunFolder::add(CLI::App& app, fs::path& out, const std::string& group) {
  app.add_option("--out", out, "output folder (default: runs/001, 002, …)")->group(group);
  resume = app.add_option("--resume", resume_from, "go on with a run: a checkpoint or folder (default: --out, else the newest run)")->expected(0, 1)->group(group);
}

fs::path RunFolder::checkpoint(fs::path& out) const {
  const fs::path from = !resume_from.empty() ? fs::path(resume_from) : !out.empty() ? out : newest_run(kRuns);
  require(!from.empty(), "--resume: there is no run with a checkpoint in \"runs\", name one");
  require(fs::exists(from), "--resume: no such file or folder, got \"" + from.string() + "\"");
  const fs::path file = fs::is_directory(from) ? graft::latest_checkpoint(from) : from;
  require(!file.empty(), "--resume: the folder \"" + from.string() + "\" holds no checkpoint");
  if (out.empty()) out = file.has_parent_path() ? file.parent_path() : fs::path(".");
  return file;
}

void RunFolder::start(fs::path& out) const {
  if (out.empty()) out = next_run(kRuns);
  require(!fs::is_directory(out) || graft::latest_checkpoint(out).empty(),
          "--out: \"" + out.string() + "\" holds the checkpoints of an earlier run, give --resume to go on with it, or another folder");
}
