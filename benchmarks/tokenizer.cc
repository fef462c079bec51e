#include <unistd.h>
#include <fstream>
#include <iterator>

#include "benchmarks/measure.h"

using namespace graft;

namespace {

namespace fs = std::filesystem;

/// The sources and documents of graft, as often as makes 8 MB.
std::string sample_text() {
  std::vector<fs::path> files;
  for (const char* folder : {"src", "kernels", "include", "tests", "docs"})
    for (const auto& entry : fs::recursive_directory_iterator(fs::path(GRAFT_SOURCE_DIR) / folder))
      if (const std::string ending = entry.path().extension().string(); ending == ".cc" || ending == ".h" || ending == ".md")
        files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  std::string once, text;
  for (const fs::path& file : files) {
    std::ifstream in(file, std::ios::binary);
    once.append(std::istreambuf_iterator<char>(in), {});
  }
  while (text.size() < 8'000'000) text += once;
  return text;
}

}  // namespace

void bench_tokenizer(const Settings& settings) {
  const std::string text = sample_text();
  const auto megabytes = static_cast<double>(text.size()) / 1e6;
  const fs::path folder = fs::temp_directory_path() / ("graft_bench_" + std::to_string(::getpid()));
  fs::create_directories(folder);
  std::ofstream(folder / "text", std::ios::binary) << text;
  for (const auto& [name, pattern] : {std::pair("gpt2", kGpt2Pattern), std::pair("llama3", kLlama3Pattern)}) {
    const std::string title = std::string("encode, ") + name + " pattern, 16,384 tokens";
    if (title.find(settings.only) == std::string::npos) continue;
    BpeOptions options;
    options.vocab_size = 16'384;
    options.pattern = pattern;
    std::unique_ptr<Tokenizer> tokenizer;
    const double training = timed([&] { tokenizer = std::make_unique<Tokenizer>(Tokenizer::train_bpe(text, options)); });
    tokenizer->save(folder / "tokenizer.json");
    std::size_t tokens = 0;
    std::vector<std::function<double()>> sides = {[&] { return timed_in_loop([&] { tokens = tokenizer->encode(text).size(); }); }};
    std::vector<std::string> peers;
    for (const PeerSide& side : settings.peers) {
      if (side.setup != "step") continue;
      std::string made;
      try {
        made = side.peer->ask("tokenize {\"tokenizer\": \"" + (folder / "tokenizer.json").string() + "\", \"text\": \"" +
                              (folder / "text").string() + "\"}");
      } catch (const Error&) {  // a Python without tokenizers
        continue;
      }
      sides.push_back([peer = side.peer] { return peer->run(); });
      peers.push_back(made);
    }
    const std::vector<double> times = alternate(sides, settings.rounds);
    Row row{"tokenizer", title, times[0], {}, {}};
    for (std::size_t i = 0; i < peers.size(); ++i) row.peers.emplace_back(peers[i], times[i + 1]);
    row.more["MB/s"] = megabytes / times[0];
    row.more["bytes a token"] = static_cast<double>(text.size()) / static_cast<double>(tokens);
    row.more["s to train"] = training;
    settings.add(row);
  }
  fs::remove_all(folder);
}
