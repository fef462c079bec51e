// Trains a model of Hugging Face's transformers further. `finetune --help` lists the options; docs/finetuning.md tells the whole way.
#include <cstdio>

#include "examples/support/files.h"
#include "examples/support/finetune_options.h"
#include "examples/support/hf_folder.h"
#include "examples/support/program.h"
#include "examples/support/training_run.h"
#include "graft/graft.h"

namespace {

using namespace graft;

LoraOptions adapters_of(const FinetuneConfig& run, bool train) {
  return {run.lora_rank, run.lora_alpha, run.lora_targets, train ? run.lora_dropout : 0.0};
}

/// A line of the validation text, or the beginning of it.
std::vector<std::uint32_t> sample_prompt(const FinetuneOptions& options, const Tokenizer& tokenizer, const WindowDataset& data, std::int64_t vocabulary) {
  if (!options.prompt.empty()) return encode(tokenizer, options.prompt, vocabulary, "--prompt");
  const TokenView held_out = data.validation_tokens();
  std::vector<std::uint32_t> first(std::min<std::size_t>(held_out.size(), 16));
  held_out.copy(0, first);
  return first;
}

void print_sample(const char* title, Generator& generator, const FinetuneOptions& options, const Tokenizer& tokenizer, std::span<const std::uint32_t> prompt,
                  const std::vector<std::uint32_t>& stop) {
  const std::vector<std::uint32_t> prompts[] = {{prompt.begin(), prompt.end()}};
  const GenerateOptions how = {.max_tokens = options.sample,
                               .sampling = {.temperature = options.temperature, .seed = static_cast<std::uint64_t>(options.run.seed)},
                               .stop = stop};
  std::vector<std::uint32_t> text = prompts[0];
  const std::vector<std::uint32_t> made = generator.generate(prompts, how)[0];
  text.insert(text.end(), made.begin(), made.end());
  std::printf("\n--- %s ---\n%s\n%s\n", title, tokenizer.decode(text).c_str(), std::string(std::string(title).size() + 8, '-').c_str());
}

int run_finetuning(FinetuneOptions& options, const std::optional<Checkpoint>& resumed) {
  FinetuneConfig& run = options.run;
  const hf::Model model = hf::load(run.model);
  const hf::Config& config = model.config();
  const bool gpt2 = std::holds_alternative<nn::Gpt2Config>(config.model());
  if (run.lora_rank > 0 && run.lora_targets.empty()) run.lora_targets = gpt2 ? std::vector<std::string>{"c_attn"} : std::vector<std::string>{"q_proj", "v_proj"};
  if (run.context == 0) run.context = std::min<std::int64_t>(128, max_positions(config));
  if (run.context > max_positions(config))
    throw Error("--context " + std::to_string(run.context) + " is above the " + std::to_string(max_positions(config)) + " positions that the model was made for");

  const Tokenizer tokenizer = tokenizer_of(run.model, run.bytes);
  const std::vector<std::uint32_t> tokens = encode(tokenizer, gather_text(run.text), vocab_size(config), "text \"" + run.text + "\"");
  const std::uint64_t model_hash = hash_of(model), text_hash = hash_of(std::as_bytes(std::span(tokens)));
  if (resumed && model_hash != run.model_hash)
    throw Error("--model \"" + run.model + "\": is not the model that the run began with, so training cannot go on with it");
  if (resumed && text_hash != run.text_hash) throw Error("--text \"" + run.text + "\": is not the text that the checkpoint was trained on, so training cannot go on with it");
  run.model_hash = model_hash;
  run.text_hash = text_hash;
  WindowDataset data(tokens, run.context, run.validation, static_cast<std::uint64_t>(run.seed));

  Trainee trainee;
  trainee.logits = [&](Graph& graph, Value ids, std::int64_t context, bool train) { return logits_of(graph, config, ids, context, train ? run.dropout : 0.0); };
  if (run.lora_rank > 0) trainee.pass = [&](const Graph& graph, bool train) { return passes::lora(graph, adapters_of(run, train)); };
  const std::unique_ptr<Backend> backend = make_backend(options.device, options.threads);
  Trainer trainer(run, trainee, *backend, options);
  set_weights(model, trainer.forward());
  Validation validation(run, trainee, data, trainer.forward());
  TrainingRun training(run, options, trainer, data, resumed);

  std::int64_t trained = 0;
  for (const Value p : trainer.session().graph().parameters()) trained += trainer.session().graph().shape(p).size();
  std::printf("model      %s: %s, %s\n", run.model.c_str(), gpt2 ? "GPT-2" : "Llama type", tokenizer.description().c_str());
  if (run.lora_rank > 0) {
    std::string targets;
    for (const std::string& target : run.lora_targets) targets += (targets.empty() ? "" : ", ") + target;
    std::printf("adapters   rank %lld, alpha %g, on %s: %s parameters train\n", static_cast<long long>(run.lora_rank), run.lora_alpha, targets.c_str(), grouped(trained).c_str());
  } else {
    std::printf("weights    all %s train\n", grouped(trained).c_str());
  }
  std::printf("text       %s: %s tokens; %s to train on, %s to validate, in windows of %lld\n", run.text.c_str(), grouped(static_cast<long long>(tokens.size())).c_str(),
              grouped(static_cast<long long>(data.training_tokens().size())).c_str(), grouped(static_cast<long long>(data.validation_tokens().size())).c_str(),
              static_cast<long long>(run.context));
  training.print();

  std::optional<Generator> generator;
  std::vector<std::uint32_t> prompt, stop;
  if (options.sample > 0) {
    GeneratorOptions how = {.max_seq = std::max<std::int64_t>(2, run.context)};
    if (trainee.pass) how.pass = [&](const Graph& graph) { return trainee.pass(graph, false); };
    generator.emplace(config.decoder(), trainer.forward(), how);
    prompt = sample_prompt(options, tokenizer, data, vocab_size(config));
    stop = stop_tokens(run.model);
    if (!resumed) print_sample("before", *generator, options, tokenizer, prompt, stop);
    std::printf("\n");
  }
  if (!resumed) std::printf("validation loss before %.4f\n", validation.loss(options.eval_windows));

  training.train(validation, nlohmann::json(run).dump());
  training.draw("token", trainee, tokenizer);
  if (const std::optional<int> code = training.end()) return *code;
  const LoraOptions adapters = adapters_of(run, false);
  export_model(options.model_out, run.model, config, trainer.forward(), run.lora_rank > 0 ? &adapters : nullptr, options.save_as);
  std::printf("the model is in %s: AutoModelForCausalLM.from_pretrained(\"%s\")\n", options.model_out.string().c_str(), options.model_out.string().c_str());
  if (generator) print_sample("after", *generator, options, tokenizer, prompt, stop);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  stop_on_signals();
  return run_program("finetune", [&] {
    int exit_code = 0;
    std::optional<Checkpoint> checkpoint;
    std::optional<FinetuneOptions> options = parse_finetune_options(argc, argv, exit_code, checkpoint);
    return options ? run_finetuning(*options, checkpoint) : exit_code;
  });
}
