// Trains a Llama-style decoder on a text: the whole of graft in one program. `train --help` lists the options.
#include <cstdio>

#include "examples/support/files.h"
#include "examples/support/program.h"
#include "examples/support/train_options.h"
#include "examples/support/training_run.h"
#include "graft/graft.h"

namespace {

using namespace graft;

std::uint64_t hash_of(std::string_view text) {
  std::uint64_t h = 0xcbf29ce484222325u;  // FNV-1a
  for (char c : text) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return h;
}

/// What is trained on: a text, or a file of tokens.
struct Material {
  std::string name, description;  ///< for messages
  std::uint64_t hash = 0;
  std::string text;
  std::unique_ptr<TokenFile> file;
};

/// Opens it; a run without a tokenizer gets the vocabulary of its bytes.
Material material_of(RunConfig& run) {
  Material made;
  if (!run.tokens.empty()) {
    made.name = "--tokens \"" + run.tokens + "\"";
    made.file = std::make_unique<TokenFile>(run.tokens);
    made.hash = made.file->hash();
    run.tokenizer = made.file->tokenizer_json();
    made.description = run.tokens + ": " + grouped(static_cast<long long>(made.file->tokens().size())) + " tokens";
  } else {
    made.name = "--text \"" + run.text + "\"";
    made.text = gather_text(run.text);
    made.hash = hash_of(made.text);
    made.description = run.text + ": " + grouped(static_cast<long long>(made.text.size())) + " bytes";
  }
  if (run.tokenizer.empty()) {
    run.vocabulary.clear();
    const ByteVocabulary bytes = ByteVocabulary::of(made.text);
    for (char byte : bytes.bytes()) run.vocabulary.push_back(static_cast<unsigned char>(byte));
  } else {
    run.vocab_size = tokenizer_of(run).vocab_size();
  }
  if (made.file && made.file->vocab_size() != run.vocab_size)
    throw Error(made.name + ": has ids below " + std::to_string(made.file->vocab_size()) + ", but a tokenizer of " +
                std::to_string(run.vocab_size));
  return made;
}

Trainee trainee_of(const RunConfig& run) {
  Trainee trainee;
  trainee.logits = [&run](Graph& graph, Value ids, std::int64_t context, bool train) {
    nn::LlamaConfig config = model_of(run);
    if (!train) config.dropout = 0.0;
    return nn::Llama(graph, config).forward(graph, ids, Segments::uniform(context));
  };
  return trainee;
}

int run_training(TrainOptions& options, const std::optional<Checkpoint>& resumed) {
  RunConfig& run = options.run;
  const Material material = material_of(run);
  if (resumed && material.hash != run.text_hash)
    throw Error(material.name + ": is not the text that the checkpoint was trained on, so training cannot go on with it");
  run.text_hash = material.hash;
  const Tokenizer tokenizer = tokenizer_of(run);
  WindowDataset data =
      material.file
          ? WindowDataset(material.file->tokens(), run.context, run.validation, static_cast<std::uint64_t>(run.seed))
          : WindowDataset(tokenizer.encode(material.text), run.context, run.validation, static_cast<std::uint64_t>(run.seed));

  const std::unique_ptr<Backend> backend = make_backend(options.device, options.threads);
  const Trainee trainee = trainee_of(run);
  Trainer trainer(run, trainee, *backend, options);
  Validation validation(run, trainee, data, trainer.forward());
  TrainingRun training(run, options, trainer, data, resumed);

  const nn::LlamaConfig model = model_of(run);
  std::int64_t weights = 0;
  for (Value p : trainer.session().graph().parameters()) weights += trainer.session().graph().shape(p).size();
  std::printf("text       %s, %lld different; %s to train on, %s to validate\n", material.description.c_str(),
              static_cast<long long>(tokenizer.vocab_size()),
              grouped(static_cast<long long>(data.training_tokens().size())).c_str(),
              grouped(static_cast<long long>(data.validation_tokens().size())).c_str());
  std::printf("model      %s parameters: %lld layers, hidden %lld, heads %lld/%lld, intermediate %lld, context %lld\n",
              grouped(weights).c_str(), static_cast<long long>(model.num_layers), static_cast<long long>(model.hidden_size),
              static_cast<long long>(model.num_heads), static_cast<long long>(model.num_kv_heads),
              static_cast<long long>(model.intermediate_size), static_cast<long long>(run.context));
  training.print();

  training.train(validation, nlohmann::json(run).dump());
  training.draw(run.tokenizer.empty() ? "byte" : "token", trainee, tokenizer);
  if (const std::optional<int> code = training.end()) return *code;
  if (options.sample > 0) {
    std::string prompt = options.prompt;
    if (prompt.empty()) {
      std::vector<std::uint32_t> first_tokens(std::min<std::size_t>(400, data.validation_tokens().size()));
      data.validation_tokens().copy(0, first_tokens);
      const std::string held_out = tokenizer.decode(first_tokens);
      const std::size_t line = held_out.find('\n');
      prompt = line == std::string::npos ? held_out.substr(0, 40) : held_out.substr(line + 1, held_out.find('\n', line + 1) - line);
    }
    if (prompt.empty()) prompt = "\n";
    Generator generator(model, trainer.forward(), {.max_seq = run.context});
    std::printf("\n--- sample ---\n%s", prompt.c_str());
    generator.generate(tokenizer.encode(prompt), options.sample,
                       {.temperature = options.temperature, .seed = static_cast<std::uint64_t>(run.seed)},
                       [&](std::uint32_t token) {
                         const std::string bytes = tokenizer.decode(std::span(&token, 1));
                         std::fwrite(bytes.data(), 1, bytes.size(), stdout);
                         return true;
                       });
    std::printf("\n--------------\n");
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  stop_on_signals();
  return run_program("train", [&] {
    int exit_code = 0;
    std::optional<Checkpoint> checkpoint;
    std::optional<TrainOptions> options = parse_train_options(argc, argv, exit_code, checkpoint);
    return options ? run_training(*options, checkpoint) : exit_code;
  });
}
