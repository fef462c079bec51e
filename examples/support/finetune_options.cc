#include "examples/support/finetune_options.h"

#include <algorithm>

#include "examples/support/hf_folder.h"
#include "examples/support/number_checks.h"
#include "examples/support/training_options.h"

namespace fs = std::filesystem;
using graft::Error;

namespace {

FinetuneConfig config_of(const std::string& json, const std::string& file) {
  try {
    return nlohmann::json::parse(json).get<FinetuneConfig>();
  } catch (const nlohmann::json::exception& error) {
    throw Error("checkpoint \"" + file + "\": its configuration is not one of finetune: " + error.what());
  }
}

}  // namespace

std::optional<FinetuneOptions> parse_finetune_options(int argc, char** argv, int& exit_code, std::optional<graft::Checkpoint>& checkpoint) {
  FinetuneOptions options;
  FinetuneConfig& run = options.run;
  run.context = 0;
  run.steps = 200;
  run.batch = 4;
  run.lr = 1e-4;
  run.weight_decay = 0.01;
  options.eval_every = options.save_every = 50;
  options.eval_windows = 60;
  CLI::App app{"Trains a model of Hugging Face's transformers further, on a text of your own: all of its weights, or low-rank adapters beside them (--lora-rank).\n"
               "Writes checkpoints (HDF5), metrics.csv and loss.svg to the output folder, and at the end a folder that transformers loads.\n"
               "Ctrl-C saves and stops; --resume goes on, bit for bit."};
  app.get_formatter()->column_width(34);
  KeptOptions kept_options(app);
  RunFolder folder;
  const std::string model = "Model", training = "Training", running = "Run";
  std::string model_folder, text;
  app.add_option("--model", model_folder, "Hugging Face folder: config.json, model.safetensors, tokenizer.json");
  app.add_option("--text", text, "text file, or folder of sources and documents");
  kept_options.flag("--bytes", "bytes", run.bytes, "tokens are the values of the text's bytes, for a model without tokenizer.json")->group(model);
  kept_options.add("--context", "context", run.context, "tokens of a window (default: 128, at most what the model was made for)")->check(positive())->group(model);
  kept_options.add("--lora-rank", "lora_rank", run.lora_rank, "rank of the adapters, 0: train all weights")->capture_default_str()->check(not_negative())->group(model);
  kept_options.add("--lora-alpha", "lora_alpha", run.lora_alpha, "adapters are scaled by alpha / rank (default: twice the rank)")->check(positive())->group(model);
  kept_options.add("--lora-targets", "lora_targets", run.lora_targets, "modules with adapters, as q_proj,v_proj (default: these; of GPT-2 c_attn)")->delimiter(',')->group(model);
  kept_options.add("--lora-dropout", "lora_dropout", run.lora_dropout, "on the inputs of the adapters")->capture_default_str()->check(between(0.0, 0.99))->group(model);
  kept_options.add("--dropout", "dropout", run.dropout, "on embeddings and residual branches")->capture_default_str()->check(between(0.0, 0.99))->group(model);
  add_training_options(kept_options, run, training);
  folder.add(app, options.out, running);
  add_loop_options(app, options, running);
  std::string save_as = "f32";
  app.add_option("--model-out", options.model_out, "the folder for transformers (default: model in the output folder)")->group(running);
  app.add_option("--save-as", save_as, "dtype of its weights: f32, bf16 or f16")->capture_default_str()->check(CLI::IsMember({"f32", "bf16", "f16"}))->group(running);
  app.add_option("--sample", options.sample, "tokens of the samples before and after, 0: none")->capture_default_str()->check(not_negative())->group(running);
  app.add_option("--prompt", options.prompt, "what the samples start with (default: a line of the validation text)")->group(running);
  app.add_option("--temperature", options.temperature, "of the samples")->capture_default_str()->check(not_negative())->group(running);
  if (!parse(app, "finetune", argc, argv, exit_code)) return std::nullopt;

  options.save_as = save_as == "f32" ? graft::hf::SaveAs::f32 : save_as == "bf16" ? graft::hf::SaveAs::bf16 : graft::hf::SaveAs::f16;
  if (folder.resuming()) checkpoint = kept_options.resume(folder.checkpoint(options.out), run, config_of);
  if (!model_folder.empty()) run.model = model_folder;
  if (!text.empty()) run.text = text;
  require(!run.model.empty(), "--model is required: a Hugging Face folder");
  require(is_hf_folder(run.model), "--model \"" + run.model + "\": is no folder with a config.json");
  require(!run.text.empty(), "--text is required: a text file, or a folder of sources and documents");
  settle(run);
  require(run.lora_rank > 0 || (run.lora_alpha == 0.0 && run.lora_targets.empty() && run.lora_dropout == 0.0),
          "--lora-alpha, --lora-targets and --lora-dropout need a --lora-rank above 0");
  if (run.lora_rank > 0 && run.lora_alpha == 0.0) run.lora_alpha = 2.0 * static_cast<double>(run.lora_rank);
  if (!folder.resuming()) folder.start(options.out);
  if (options.model_out.empty()) options.model_out = options.out / "model";
  require(!is_hf_folder(options.model_out), "--model-out: \"" + options.model_out.string() + "\" holds a model already, name another folder");
  return options;
}
