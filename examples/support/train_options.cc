#include "examples/support/train_options.h"

#include "examples/support/number_checks.h"
#include "examples/support/training_options.h"

namespace {

/// Defaults that depend on other options, and what contradicts what.
void settle_model(RunConfig& run) {
  const auto text = [](auto value) { return std::to_string(value); };
  if (run.kv_heads == 0) run.kv_heads = run.heads;
  if (run.intermediate == 0) run.intermediate = (run.hidden * 8 / 3 + 7) / 8 * 8;
  require(run.hidden % run.heads == 0, "--hidden " + text(run.hidden) + " does not divide by --heads " + text(run.heads));
  require(run.hidden / run.heads % 2 == 0, "--hidden / --heads must be even for rotary embedding, got " + text(run.hidden / run.heads));
  require(run.hidden / run.heads <= 256, "--hidden / --heads must be at most 256, got " + text(run.hidden / run.heads));
  require(run.heads % run.kv_heads == 0, "--heads " + text(run.heads) + " does not divide by --kv-heads " + text(run.kv_heads));
}

}  // namespace

std::optional<TrainOptions> parse_train_options(int argc, char** argv, int& exit_code, std::optional<graft::Checkpoint>& checkpoint) {
  TrainOptions options;
  RunConfig& run = options.run;
  CLI::App app{"Trains a Llama-style decoder on a text. Writes checkpoints (HDF5), metrics.csv and loss.svg to the output folder, and "
               "ends with a sample. Ctrl-C saves and stops; --resume goes on, bit for bit."};
  app.get_formatter()->column_width(34);
  KeptOptions kept_options(app);
  RunFolder folder;
  const std::string model = "Model", training = "Training", running = "Run";
  std::string text;
  app.add_option("--text", text, "text file, or folder of sources and documents (--resume: the one it was)");
  std::string tokens, tokenizer;
  app.add_option("--tokenizer", tokenizer, "tokenizer.json (default: one token a byte value)");
  app.add_option("--tokens", tokens, "instead of --text: a file of tokens, made by `tokenizer encode`, and their tokenizer")->excludes("--text")->excludes("--tokenizer");
  folder.add(app, options.out, running);
  add_loop_options(app, options, running);
  app.add_option("--sample", options.sample, "tokens of the sample at the end, 0: none")->capture_default_str()->check(not_negative())->group(running);
  app.add_option("--prompt", options.prompt, "what the sample starts with (default: a line of the validation text)")->group(running);
  app.add_option("--temperature", options.temperature, "of the sample")->capture_default_str()->check(not_negative())->group(running);

  kept_options.add("--layers", "layers", run.layers, "transformer blocks")->capture_default_str()->check(positive())->group(model);
  kept_options.add("--hidden", "hidden", run.hidden, "width")->capture_default_str()->check(positive())->group(model);
  kept_options.add("--heads", "heads", run.heads, "query heads")->capture_default_str()->check(positive())->group(model);
  kept_options.add("--kv-heads", "kv_heads", run.kv_heads, "key/value heads (default: as heads)")->check(positive())->group(model);
  kept_options.add("--intermediate", "intermediate", run.intermediate, "width inside the SwiGLU (default: 8/3 of hidden)")->check(positive())->group(model);
  kept_options.add("--context", "context", run.context, "tokens of a window")->capture_default_str()->check(positive())->group(model);
  kept_options.add("--rope-theta", "rope_theta", run.rope_theta, "base of the rotary embedding")->capture_default_str()->check(positive())->group(model);
  kept_options.add("--dropout", "dropout", run.dropout, "on embeddings and residual branches")->capture_default_str()->check(between(0.0, 0.99))->group(model);
  kept_options.flag("--untied", "untied", run.untied, "an output head of its own, not the embedding")->group(model);
  add_training_options(kept_options, run, training);

  if (!parse(app, "train", argc, argv, exit_code)) return std::nullopt;

  if (folder.resuming()) checkpoint = kept_options.resume(folder.checkpoint(options.out), run, run_config_of);
  if (!tokenizer.empty()) {
    const std::string json = graft::Tokenizer::load(tokenizer).json();
    require(!folder.resuming() || json == run.tokenizer, "--tokenizer \"" + tokenizer + "\" contradicts the checkpoint, which was trained with another");
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
  settle_model(run);
  settle(run);
  if (!folder.resuming()) folder.start(options.out);
  return options;
}
