// Writes text with a checkpoint of `train` or a Hugging Face folder, through the KV cache. `generate --help` lists the options.
#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <fstream>

#include "examples/support/files.h"
#include "examples/support/hf_folder.h"
#include "examples/support/number_checks.h"
#include "examples/support/program.h"
#include "examples/support/run_config.h"
#include "graft/graft.h"

namespace {

using namespace graft;
namespace fs = std::filesystem;

/// The file named, the best checkpoint of the folder named, or that of the newest run.
fs::path checkpoint_file(const std::string& given) {
  const fs::path path = given.empty() ? newest_run("runs") : fs::path(given);
  if (path.empty()) throw Error("--checkpoint: there is no run with a checkpoint in \"runs\", name one");
  if (!fs::is_directory(path)) return path;
  const fs::path file = best_checkpoint(path).empty() ? latest_checkpoint(path) : best_checkpoint(path);
  if (file.empty()) throw Error("--checkpoint: the folder \"" + path.string() + "\" holds no checkpoint");
  return file;
}

/// What writes: a model with its weights, and its tokens.
struct Writer {
  std::string description;
  Tokenizer tokenizer;
  std::int64_t vocab_size;
  std::vector<std::uint32_t> stop;
  std::unique_ptr<Generator> generator;
};

struct Options {
  std::string checkpoint, prompts_file, device = "cpu";
  std::vector<std::string> prompts;
  std::int64_t tokens = 500, max_seq = 0, batch = 0;
  int threads = 0;
  bool bytes = false, ignore_eos = false;
  SampleOptions sampling;
};

Writer of_folder(const Options& options, const fs::path& folder, Backend& backend, std::int64_t batch) {
  const hf::Model model = hf::load(folder);
  const std::int64_t positions = max_positions(model.config());
  const std::int64_t max_seq = options.max_seq > 0 ? options.max_seq : std::min<std::int64_t>(positions, 2048);
  Writer writer = {folder.string(), tokenizer_of(folder, options.bytes), vocab_size(model.config()), stop_tokens(folder), nullptr};
  writer.generator = std::make_unique<Generator>(model.config().decoder(), backend, GeneratorOptions{.max_seq = max_seq, .batch = batch});
  set_weights(model, writer.generator->session());
  return writer;
}

Writer of_run(const Options& options, Backend& backend, std::int64_t batch) {
  const fs::path file = checkpoint_file(options.checkpoint);
  const Checkpoint loaded = read_checkpoint(file);
  const RunConfig config = run_config_of(loaded.config, file.string());
  const nn::LlamaConfig model = model_of(config);
  const std::int64_t max_seq = options.max_seq > 0 ? options.max_seq : std::max<std::int64_t>(2, config.context);
  Writer writer = {file.string() + ", step " + std::to_string(loaded.step), tokenizer_of(config), model.vocab_size, {}, nullptr};
  writer.generator = std::make_unique<Generator>(model, backend, GeneratorOptions{.max_seq = max_seq, .batch = batch});
  writer.generator->restore(loaded);
  return writer;
}

std::vector<std::string> prompts_of(const Options& options) {
  std::vector<std::string> prompts = options.prompts;
  if (!options.prompts_file.empty()) {
    std::ifstream file(options.prompts_file);
    if (!file) throw Error("--prompts \"" + options.prompts_file + "\": cannot be read");
    for (std::string line; std::getline(file, line);)
      if (!line.empty()) prompts.push_back(line);
    if (prompts.empty()) throw Error("--prompts \"" + options.prompts_file + "\": holds no line that is not empty");
  }
  if (prompts.empty()) prompts.emplace_back("\n");
  for (const std::string& prompt : prompts)
    if (prompt.empty()) throw Error("--prompt: is empty, give at least one character");
  return prompts;
}

int run(int argc, char** argv) {
  CLI::App app{"Continues prompts with a checkpoint of train, or with a model of Hugging Face's transformers."};
  Options options;
  SampleOptions& sampling = options.sampling;
  app.add_option("--checkpoint", options.checkpoint, "a checkpoint, a run's folder (its best one), or a Hugging Face folder (default: the newest run)");
  app.add_option("--prompt", options.prompts, "what a text starts with (default: a new line); given several times: several texts at once")->take_all()->allow_extra_args(false);
  app.add_option("--prompts", options.prompts_file, "a file with a prompt in each line");
  app.add_option("--tokens", options.tokens, "tokens to write, of each text")->capture_default_str()->check(positive());
  app.add_option("--temperature", sampling.temperature, "0: always the likeliest token")->capture_default_str()->check(not_negative());
  app.add_option("--top-k", sampling.top_k, "draw from the k likeliest tokens only, 0: all")->capture_default_str()->check(not_negative());
  app.add_option("--top-p", sampling.top_p, "draw from the likeliest tokens that have this probability together")->capture_default_str()->check(between(1e-9, 1.0));
  app.add_option("--min-p", sampling.min_p, "no token less likely than this times the likeliest")->capture_default_str()->check(between(0.0, 0.999999));
  app.add_option("--repetition-penalty", sampling.repetition_penalty, "above 1: tokens in the text so far become less likely")->capture_default_str()->check(positive());
  app.add_option("--seed", sampling.seed, "the same seed writes the same text; text i of several has seed + i")->capture_default_str()->check(not_negative());
  app.add_option("--batch", options.batch, "texts written at once (default: all, at most 8)")->check(positive());
  app.add_option("--max-seq", options.max_seq, "tokens the model looks back on (default: its context)")->check(between(2, 1 << 24));
  app.add_flag("--bytes", options.bytes, "of a Hugging Face folder without tokenizer.json: tokens are byte values");
  app.add_flag("--ignore-eos", options.ignore_eos, "write on after the model's end of text");
  app.add_option("--device", options.device, "cpu, reference or cuda")->capture_default_str();
  app.add_option("--threads", options.threads, "threads of the cpu backend, 0: all")->capture_default_str()->check(not_negative());
  if (int exit_code = 0; !parse(app, "generate", argc, argv, exit_code)) return exit_code;

  const std::vector<std::string> prompts = prompts_of(options);
  const auto count = static_cast<std::int64_t>(prompts.size());
  const std::int64_t batch = std::min(count, options.batch > 0 ? options.batch : 8);
  const std::unique_ptr<Backend> backend = make_backend(options.device, options.threads);
  Writer writer = is_hf_folder(options.checkpoint) ? of_folder(options, options.checkpoint, *backend, batch) : of_run(options, *backend, batch);

  std::vector<std::vector<std::uint32_t>> ids;
  std::size_t tokens = 0;
  for (const std::string& prompt : prompts) {
    try {
      ids.push_back(encode(writer.tokenizer, prompt, writer.vocab_size, "the prompt"));
    } catch (const Error& error) {
      throw Error(std::string("--prompt: ") + error.what());
    }
    tokens += ids.back().size();
  }
  const GenerateOptions how = {.max_tokens = options.tokens, .sampling = sampling, .stop = options.ignore_eos ? std::vector<std::uint32_t>() : writer.stop};
  const auto start = std::chrono::steady_clock::now();
  if (count == 1) std::fputs(prompts[0].c_str(), stdout);
  std::string shown;  // of one text, as it grows: a token's bytes may depend on those before it
  std::vector<std::uint32_t> made;
  const std::vector<std::vector<std::uint32_t>> texts = writer.generator->generate(ids, how, [&](std::size_t, std::uint32_t token) {
    if (count > 1) return true;
    made.push_back(token);
    const std::string text = writer.tokenizer.decode(made, true);
    if (text.starts_with(shown)) std::fwrite(text.data() + shown.size(), 1, text.size() - shown.size(), stdout);
    shown = text;
    std::fflush(stdout);
    return true;
  });
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  for (std::size_t i = 0; i < texts.size(); ++i) {
    tokens += texts[i].size();
    if (count > 1) std::printf("--- %zu ---\n%s%s\n", i + 1, prompts[i].c_str(), writer.tokenizer.decode(texts[i], true).c_str());
  }
  if (count == 1) std::printf("\n");
  std::fprintf(stderr, "%s, %s: %.0f tokens/s\n", writer.description.c_str(), backend->description().c_str(), static_cast<double>(tokens) / seconds);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return run_program("generate", [&] { return run(argc, argv); });
}
