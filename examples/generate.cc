// Writes text with a checkpoint of `train`, through the KV cache. `generate --help` lists the options.
#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>

#include "examples/support/files.h"
#include "examples/support/number_checks.h"
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

int run(int argc, char** argv) {
  CLI::App app{"Continues a prompt with a checkpoint of train."};
  std::string checkpoint, prompt = "\n", device = "cpu";
  std::int64_t tokens = 500, max_seq = 0;
  int threads = 0;
  SampleOptions sampling;
  app.add_option("--checkpoint", checkpoint, "a checkpoint, or a run's folder: its best one (default: the newest run)");
  app.add_option("--prompt", prompt, "what the text starts with (default: a new line)");
  app.add_option("--tokens", tokens, "tokens to write")->capture_default_str()->check(positive());
  app.add_option("--temperature", sampling.temperature, "0: always the likeliest token")->capture_default_str()->check(not_negative());
  app.add_option("--top-k", sampling.top_k, "draw from the k likeliest tokens only, 0: all")->capture_default_str()->check(not_negative());
  app.add_option("--seed", sampling.seed, "the same seed writes the same text")->capture_default_str()->check(not_negative());
  app.add_option("--max-seq", max_seq, "tokens the model looks back on (default: its context)")->check(between(2, 1 << 24));
  app.add_option("--device", device, "cpu, reference or cuda")->capture_default_str();
  app.add_option("--threads", threads, "threads of the cpu backend, 0: all")->capture_default_str()->check(not_negative());
  if (int exit_code = 0; !parse(app, "generate", argc, argv, exit_code)) return exit_code;
  if (prompt.empty()) throw Error("--prompt: is empty, give at least one character");

  const fs::path file = checkpoint_file(checkpoint);
  const Checkpoint loaded = read_checkpoint(file);
  const RunConfig config = run_config_of(loaded.config, file.string());
  const Tokenizer tokenizer = tokenizer_of(config);
  const std::unique_ptr<Backend> backend = make_backend(device, threads);
  Generator generator(model_of(config), *backend, {.max_seq = max_seq > 0 ? max_seq : std::max<std::int64_t>(2, config.context)});
  generator.restore(loaded);

  std::vector<std::uint32_t> ids;
  try {
    ids = tokenizer.encode(prompt);
  } catch (const Error& error) {
    throw Error(std::string("--prompt: ") + error.what());
  }
  std::fputs(prompt.c_str(), stdout);
  const auto start = std::chrono::steady_clock::now();
  generator.generate(ids, tokens, sampling, [&](std::uint32_t token) {
    const std::string bytes = tokenizer.decode(std::span(&token, 1));
    std::fwrite(bytes.data(), 1, bytes.size(), stdout);
    std::fflush(stdout);
    return true;
  });
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::printf("\n");
  std::fprintf(stderr, "%s, step %lld, %s: %.0f tokens/s\n", file.string().c_str(), static_cast<long long>(loaded.step), backend->description().c_str(),
               static_cast<double>(tokens + static_cast<std::int64_t>(ids.size())) / seconds);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const Error& error) {
    std::fprintf(stderr, "generate: %s\n", error.what());
    return 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "generate: %s\n", error.what());
    return 3;
  }
}
