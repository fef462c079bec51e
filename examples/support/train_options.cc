#include "examples/support/train_options.h"

#include <CLI/CLI.hpp>
#include <map>

#include "examples/support/files.h"
#include "examples/support/number_checks.h"
#include "graft/error.h"

namespace fs = std::filesystem;
using graft::Error;

namespace {

void require(bool condition, const std::string& what) {
  if (!condition) throw Error(what);
}

/// Defaults that depend on other options, and what contradicts what.
void settle(RunConfig& run) {
  const auto text = [](auto value) { return std::to_string(value); };
  if (run.kv_heads == 0) run.kv_heads = run.heads;
  if (run.intermediate == 0) run.intermediate = (run.hidden * 8 / 3 + 7) / 8 * 8;
  if (run.warmup < 0) run.warmup = std::min<std::int64_t>(100, run.steps / 10);
  if (run.min_lr < 0.0) run.min_lr = run.lr / 10.0;
  if (run.beta2 < 0.0) run.beta2 = 0.99;
  require(run.hidden % run.heads == 0, "--hidden " + text(run.hidden) + " does not divide by --heads " + text(run.heads));
  require(run.hidden / run.heads % 2 == 0, "--hidden / --heads must be even for rotary embedding, got " + text(run.hidden / run.heads));
  require(run.hidden / run.heads <= 256, "--hidden / --heads must be at most 256, got " + text(run.hidden / run.heads));
  require(run.heads % run.kv_heads == 0, "--heads " + text(run.heads) + " does not divide by --kv-heads " + text(run.kv_heads));
  require(run.warmup <= run.steps, "--warmup " + text(run.warmup) + " is longer than --steps " + text(run.steps));
  require(run.min_lr <= run.lr, "--min-lr " + text(run.min_lr) + " is above --lr " + text(run.lr));
}

/// Explicit options that differ from what the checkpoint was trained with, but for the number of steps.
void refuse_contradictions(const CLI::App& app, const std::map<std::string, std::string>& option_of, const RunConfig& given, const RunConfig& kept) {
  const nlohmann::json a = given, b = kept;
  for (const auto& [key, option] : option_of)
    if (key != "steps" && app.get_option(option)->count() > 0 && a.at(key) != b.at(key))
      throw Error(option + " " + a.at(key).dump() + " contradicts the checkpoint, which was trained with " + b.at(key).dump());
}

}  // namespace

std::optional<TrainOptions> parse_train_options(int argc, char** argv, int& exit_code, std::optional<graft::Checkpoint>& checkpoint) {
  TrainOptions options;
  RunConfig& run = options.run;
  std::map<std::string, std::string> option_of;
  CLI::App app{"Trains a Llama-style decoder on a text. Writes checkpoints (HDF5), metrics.csv and loss.svg to the output folder, and "
               "ends with a sample. Ctrl-C saves and stops; --resume goes on, bit for bit."};
  app.get_formatter()->column_width(34);
  const auto keep = [&](const std::string& option, const std::string& key, auto& value, const std::string& help) {
    option_of[key] = option;
    return app.add_option(option, value, help);
  };
  const std::string model = "Model", training = "Training", running = "Run";
  std::string text;
  app.add_option("--text", text, "text file, or folder of sources and documents (--resume: the one it was)");
  std::string tokens, tokenizer;
  app.add_option("--tokenizer", tokenizer, "tokenizer.json (default: one token a byte value)");
  app.add_option("--tokens", tokens, "instead of --text: a file of tokens, made by `tokenizer encode`, and their tokenizer")->excludes("--text")->excludes("--tokenizer");
  app.add_option("--out", options.out, "output folder (default: runs/001, 002, …)")->group(running);
  std::string resume_from;
  CLI::Option* resume = app.add_option("--resume", resume_from, "go on with a run: a checkpoint or folder (default: --out, else the newest run)")->expected(0, 1)->group(running);
  app.add_option("--device", options.device, "cpu, reference or cuda")->capture_default_str()->group(running);
  app.add_option("--threads", options.threads, "threads of the cpu backend, 0: all")->capture_default_str()->check(not_negative())->group(running);
  app.add_option("--eval-every", options.eval_every, "steps between validations")->capture_default_str()->check(positive())->group(running);
  app.add_option("--eval-windows", options.eval_windows, "validation windows on the way (all at the end)")->capture_default_str()->check(positive())->group(running);
  app.add_option("--save-every", options.save_every, "steps between checkpoints")->capture_default_str()->check(positive())->group(running);
  app.add_option("--keep", options.keep, "checkpoints to keep, beside the best")->capture_default_str()->check(positive())->group(running);
  app.add_option("--stop-at", options.stop_at, "save and stop after this step, 0: no")->capture_default_str()->check(not_negative())->group(running);
  app.add_option("--sample", options.sample, "tokens of the sample at the end, 0: none")->capture_default_str()->check(not_negative())->group(running);
  app.add_option("--prompt", options.prompt, "what the sample starts with (default: a line of the validation text)")->group(running);
  app.add_option("--temperature", options.temperature, "of the sample")->capture_default_str()->check(not_negative())->group(running);
  app.add_flag("--name-nonfinite", options.name_nonfinite, "keep every value of a step, to name the first that is not finite")->group(running);
  app.add_option("--memory-budget", options.memory_budget, "MiB that the values of a step may take: recomputes activations, the same bits; 0: no limit")->capture_default_str()->check(not_negative())->group(running);
  app.add_flag("--profile", options.profile, "print where the time of the tenth step goes, by op")->group(running);
  app.add_option("--trace", options.trace, "write the tenth step as Chrome/Perfetto JSON to this file")->group(running);

  app.add_option("--log-gradients", options.log_layers, "steps between gradient norms and update ratios by layer (layers.csv, gradients.svg, updates.svg), 0: none")->capture_default_str()->check(not_negative())->group(running);
  app.add_flag("--tensorboard", options.tensorboard, "write events for TensorBoard, with --log-gradients also histograms of the weights")->group(running);
  app.add_flag("--pictures", options.pictures, "draw the step's graph and memory with the tenth step's times, and attention maps at the end")->group(running);

  keep("--layers", "layers", run.layers, "transformer blocks")->capture_default_str()->check(positive())->group(model);
  keep("--hidden", "hidden", run.hidden, "width")->capture_default_str()->check(positive())->group(model);
  keep("--heads", "heads", run.heads, "query heads")->capture_default_str()->check(positive())->group(model);
  keep("--kv-heads", "kv_heads", run.kv_heads, "key/value heads (default: as heads)")->check(positive())->group(model);
  keep("--intermediate", "intermediate", run.intermediate, "width inside the SwiGLU (default: 8/3 of hidden)")->check(positive())->group(model);
  keep("--context", "context", run.context, "tokens of a window")->capture_default_str()->check(positive())->group(model);
  keep("--rope-theta", "rope_theta", run.rope_theta, "base of the rotary embedding")->capture_default_str()->check(positive())->group(model);
  keep("--dropout", "dropout", run.dropout, "on embeddings and residual branches")->capture_default_str()->check(between(0.0, 0.99))->group(model);
  option_of["untied"] = "--untied";
  app.add_flag("--untied", run.untied, "an output head of its own, not the embedding")->group(model);

  keep("--steps", "steps", run.steps, "updates in all")->capture_default_str()->check(positive())->group(training);
  keep("--batch", "batch", run.batch, "windows a micro-batch")->capture_default_str()->check(positive())->group(training);
  keep("--accumulate", "accumulate", run.accumulate, "micro-batches an update")->capture_default_str()->check(positive())->group(training);
  keep("--dtype", "dtype", run.dtype, "f32, or bf16: matrix products of bf16 operands")->capture_default_str()->check(CLI::IsMember({"f32", "bf16"}))->group(training);
  keep("--optimizer", "optimizer", run.optimizer, "adamw, adam, sgd or lion")->capture_default_str()->check(CLI::IsMember({"adamw", "adam", "sgd", "lion"}))->group(training);
  keep("--lr", "lr", run.lr, "learning rate")->capture_default_str()->check(positive())->group(training);
  keep("--min-lr", "min_lr", run.min_lr, "learning rate at the end (default: a tenth)")->check(not_negative())->group(training);
  keep("--schedule", "schedule", run.schedule, "constant, linear, cosine or wsd")->capture_default_str()->check(CLI::IsMember({"constant", "linear", "cosine", "wsd"}))->group(training);
  keep("--warmup", "warmup", run.warmup, "steps of linear warm-up (default: 100, at most a tenth of the steps)")->check(not_negative())->group(training);
  keep("--beta1", "beta1", run.beta1, "momentum of adam and lion, momentum of sgd")->capture_default_str()->check(between(0.0, 0.999999))->group(training);
  keep("--beta2", "beta2", run.beta2, "second moment of adam, update of lion (default: 0.99)")->check(between(0.0, 0.999999))->group(training);
  keep("--weight-decay", "weight_decay", run.weight_decay, "not on norms, biases, embeddings")->capture_default_str()->check(not_negative())->group(training);
  keep("--clip", "clip", run.clip, "global gradient norm, 0: no clipping")->capture_default_str()->check(not_negative())->group(training);
  keep("--validation", "validation", run.validation, "fraction of the text that validates")->capture_default_str()->check(between(0.001, 0.9))->group(training);
  keep("--seed", "seed", run.seed, "of weights, order and dropout")->capture_default_str()->check(not_negative())->group(training);

  if (!parse(app, "train", argc, argv, exit_code)) return std::nullopt;

  const fs::path runs = "runs";
  options.resume = resume->count() > 0;
  if (options.resume) {
    const fs::path from = !resume_from.empty() ? fs::path(resume_from) : !options.out.empty() ? options.out : newest_run(runs);
    require(!from.empty(), "--resume: there is no run with a checkpoint in \"runs\", name one");
    require(fs::exists(from), "--resume: no such file or folder, got \"" + from.string() + "\"");
    options.resume_from = fs::is_directory(from) ? graft::latest_checkpoint(from) : from;
    require(!options.resume_from.empty(), "--resume: the folder \"" + from.string() + "\" holds no checkpoint");
    if (options.out.empty()) options.out = options.resume_from.has_parent_path() ? options.resume_from.parent_path() : fs::path(".");
    checkpoint = graft::read_checkpoint(options.resume_from);
    RunConfig kept = run_config_of(checkpoint->config, options.resume_from.string());
    refuse_contradictions(app, option_of, run, kept);
    const std::int64_t steps = app.get_option("--steps")->count() ? run.steps : kept.steps;
    run = kept;
    run.steps = steps;
    require(checkpoint->step <= run.steps, "--steps " + std::to_string(run.steps) + " is below the " + std::to_string(checkpoint->step) + " steps done already");
  }
  if (!tokenizer.empty()) {
    const std::string json = graft::Tokenizer::load(tokenizer).json();
    require(!options.resume || json == run.tokenizer, "--tokenizer \"" + tokenizer + "\" contradicts the checkpoint, which was trained with another");
    run.tokenizer = json;
  }
  if (!text.empty()) {
    require(run.tokens.empty(), "--text contradicts the checkpoint, which was trained on the tokens of \"" + run.tokens + "\"");
    run.text = text;
  }
  if (!tokens.empty()) {
    require(run.text.empty(), "--tokens contradicts the checkpoint, which was trained on the text \"" + run.text + "\"");
    run.tokens = tokens;
  }
  require(!run.text.empty() || !run.tokens.empty(), "--text is required: a text file, or a folder of sources and documents (or --tokens: a token file)");
  settle(run);
  if (options.out.empty()) options.out = next_run(runs);
  if (!options.resume && fs::is_directory(options.out))
    require(graft::latest_checkpoint(options.out).empty(), "--out: \"" + options.out.string() +
                                                                       "\" holds the checkpoints of an earlier run, give --resume to go on with it, or another folder");
  return options;
}
