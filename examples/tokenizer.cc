// Trains tokenizers, and turns texts into tokens and back: `tokenizer --help`.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <sstream>

#include "examples/support/files.h"
#include "examples/support/number_checks.h"
#include "examples/support/program.h"
#include "graft/graft.h"

namespace {

using namespace graft;
namespace fs = std::filesystem;

std::string counted(std::uint64_t number) { return grouped(static_cast<long long>(number)); }

Tokenizer tokenizer_named(const std::string& name) { return name == "bytes" ? Tokenizer::bytes() : Tokenizer::load(name); }

struct Options {
  std::string text, out, tokenizer, tokens, ids, kind = "bpe", pattern = "llama3";
  std::vector<std::string> special;
  std::int64_t vocab_size = 8192, min_frequency = 2;
  bool add_special = false, skip_special = false;
};

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void train(const Options& options) {
  const std::string text = gather_text(options.text);
  const auto start = std::chrono::steady_clock::now();
  BpeOptions bpe;
  bpe.vocab_size = options.vocab_size;
  bpe.pattern = options.pattern == "llama3" ? kLlama3Pattern
                : options.pattern == "gpt2" ? kGpt2Pattern
                                            : std::string_view(options.pattern);
  bpe.special_tokens = options.special;
  bpe.min_frequency = options.min_frequency;
  const Tokenizer made = options.kind == "characters" ? Tokenizer::characters_of(text) : Tokenizer::train_bpe(text, bpe);
  const double seconds = seconds_since(start);
  made.save(options.out);
  const std::uint64_t tokens = made.encode(text).size();
  std::printf("%s: %s\n%s bytes in %.1f s; %s tokens, %.2f bytes a token\n", options.out.c_str(), made.description().c_str(),
              counted(text.size()).c_str(), seconds, counted(tokens).c_str(),
              static_cast<double>(text.size()) / static_cast<double>(std::max<std::uint64_t>(1, tokens)));
}

void encode(const Options& options) {
  const Tokenizer tokenizer = tokenizer_named(options.tokenizer);
  std::string gathered;
  std::unique_ptr<MappedFile> mapped;  // a file may be larger than memory
  if (fs::is_regular_file(options.text))
    mapped = std::make_unique<MappedFile>(options.text);
  else
    gathered = gather_text(options.text);
  const std::string_view text = mapped ? mapped->text() : gathered;
  if (options.out.empty()) {
    const char* between = "";
    tokenizer.encode(text, options.add_special, [&](std::span<const std::uint32_t> ids) {
      for (const std::uint32_t id : ids) {
        std::printf("%s%u", between, id);
        between = " ";
      }
    });
    std::printf("\n");
    return;
  }
  const auto start = std::chrono::steady_clock::now();
  TokenFileWriter writer(options.out, tokenizer.vocab_size(), tokenizer.json());
  tokenizer.encode(text, options.add_special, [&](std::span<const std::uint32_t> ids) { writer.append(ids); });
  const std::uint64_t tokens = writer.commit();
  const double seconds = seconds_since(start);
  std::printf("%s: %s tokens of %s bytes (%.2f bytes a token), %.1f MB/s\n", options.out.c_str(), counted(tokens).c_str(),
              counted(text.size()).c_str(),
              static_cast<double>(text.size()) / static_cast<double>(std::max<std::uint64_t>(1, tokens)),
              static_cast<double>(text.size()) / 1e6 / seconds);
}

std::vector<std::uint32_t> ids_of(const std::string& text) {
  std::vector<std::uint32_t> ids;
  std::istringstream in(text);
  for (std::string word; in >> word;) {
    std::uint32_t id = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), id);
    if (error != std::errc() || end != word.data() + word.size()) throw Error("--ids: must be numbers, got \"" + word + "\"");
    ids.push_back(id);
  }
  return ids;
}

void decode(const Options& options) {
  const auto write = [](const std::string& text) { std::fwrite(text.data(), 1, text.size(), stdout); };
  if (options.tokens.empty()) {
    if (options.tokenizer.empty()) throw Error("--ids needs --tokenizer");
    write(tokenizer_named(options.tokenizer).decode(ids_of(options.ids), options.skip_special));
    return write("\n");
  }
  const TokenFile file(options.tokens);
  const Tokenizer tokenizer = Tokenizer::from_json(file.tokenizer_json(), options.tokens);
  std::vector<std::uint32_t> ids;
  for (std::size_t at = 0; at < file.tokens().size(); at += ids.size()) {
    ids.resize(std::min<std::size_t>(1 << 16, file.tokens().size() - at));
    file.tokens().copy(at, ids);
    write(tokenizer.decode(ids, options.skip_special));
  }
}

void info(const Options& options) {
  std::unique_ptr<TokenFile> file;
  if (!options.tokens.empty()) {
    file = std::make_unique<TokenFile>(options.tokens);
    std::printf("tokens      %s: %s, ids below %s, hash %016llx\n", options.tokens.c_str(), counted(file->tokens().size()).c_str(),
                counted(static_cast<std::uint64_t>(file->vocab_size())).c_str(), static_cast<unsigned long long>(file->hash()));
  } else if (options.tokenizer.empty()) {
    throw Error("info needs --tokenizer or --tokens");
  }
  const Tokenizer tokenizer =
      file ? Tokenizer::from_json(file->tokenizer_json(), options.tokens) : tokenizer_named(options.tokenizer);
  std::printf("tokenizer   %s, hash %016llx\n", tokenizer.description().c_str(), static_cast<unsigned long long>(tokenizer.hash()));
  for (std::uint32_t id = 0; id < static_cast<std::uint32_t>(tokenizer.vocab_size()); ++id)
    if (tokenizer.is_special(id)) std::printf("special     %u  %s\n", id, tokenizer.token(id).c_str());
}

int run(int argc, char** argv) {
  CLI::App app{
      "Trains tokenizers on a text, and turns texts into tokens and back. Tokenizers are files as Hugging Face's tokenizer.json."};
  Options options;
  app.require_subcommand(1);
  CLI::App* training = app.add_subcommand("train", "make a tokenizer that fits a text");
  training->add_option("--text", options.text, "text file, or folder of sources and documents")->required();
  training->add_option("--kind", options.kind, "bpe (byte-level), or characters: one token a Unicode code point")
      ->capture_default_str()
      ->check(CLI::IsMember({"bpe", "characters"}));
  training->add_option("--vocab-size", options.vocab_size, "tokens of a bpe in all")->capture_default_str()->check(positive());
  training->add_option("--pattern", options.pattern, "what is a word: gpt2, llama3, or a regular expression")
      ->capture_default_str();
  training->add_option("--special", options.special, "a special token, as <|endoftext|>; may be given several times");
  training->add_option("--min-frequency", options.min_frequency, "pairs that occur less often are not merged")
      ->capture_default_str()
      ->check(positive());
  training->add_option("--out", options.out, "the file to write (default: tokenizer.json)");
  CLI::App* encoding = app.add_subcommand("encode", "turn a text into ids, printed or as a token file");
  encoding->add_option("--tokenizer", options.tokenizer, "tokenizer.json, or bytes: one token a byte value")->required();
  encoding->add_option("--text", options.text, "text file, or folder of sources and documents")->required();
  encoding->add_option("--out", options.out, "write a token file, for train --tokens (default: print the ids)");
  encoding->add_flag("--add-special", options.add_special, "put what the tokenizer's post-processor puts before and after");
  CLI::App* decoding = app.add_subcommand("decode", "turn ids into their text, on standard output");
  decoding->add_option("--tokenizer", options.tokenizer, "tokenizer.json, or bytes");
  CLI::Option* from_ids = decoding->add_option("--ids", options.ids, "as \"15 2 7\"");
  decoding->add_option("--tokens", options.tokens, "a token file, which has its tokenizer in it")->excludes(from_ids);
  decoding->add_flag("--skip-special", options.skip_special, "leave special tokens out");
  CLI::App* about = app.add_subcommand("info", "what a tokenizer or a token file is");
  about->add_option("--tokenizer", options.tokenizer, "tokenizer.json, or bytes");
  about->add_option("--tokens", options.tokens, "a token file");
  if (int exit_code = 0; !parse(app, "tokenizer", argc, argv, exit_code)) return exit_code;

  if (*training) {
    if (options.out.empty()) options.out = "tokenizer.json";
    train(options);
  } else if (*encoding) {
    encode(options);
  } else if (*decoding) {
    decode(options);
  } else {
    info(options);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return run_program("tokenizer", [&] { return run(argc, argv); });
}
