// graft's benchmarks: `./dev bench --help`.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "benchmarks/measure.h"
#include "benchmarks/results.h"

namespace {

/// ", AVX-512 with bf16": the widest vectors of an x86 processor, which decide its speed more than its name does.
std::string vectors() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return __builtin_cpu_supports("avx512bf16") ? ", AVX-512 with bf16" : ", AVX-512";
  if (__builtin_cpu_supports("avx2")) return ", AVX2";
#endif
  return "";
}

/// "AMD EPYC 9B14, family 25, AVX-512 with bf16", from /proc/cpuinfo. The family, as the name may hide it: virtual machines say "AMD EPYC" of all.
std::string processor() {
  std::ifstream in("/proc/cpuinfo");
  std::string family;
  for (std::string line; std::getline(in, line);) {
    const std::size_t value = line.find(':') + 2;
    if (line.starts_with("cpu family")) family = ", family " + line.substr(value);
    if (line.starts_with("model name")) return line.substr(value) + family + vectors();
  }
  return "unknown" + family + vectors();
}

std::string today() {
  const std::time_t now = std::time(nullptr);
  char text[16];
  std::strftime(text, sizeof text, "%Y-%m-%d", std::gmtime(&now));
  return text;
}

/// "AMD EPYC" → "amd-epyc", for a file's name.
std::string slug(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (std::isalnum(static_cast<unsigned char>(c)) != 0) {
      out += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    } else if (!out.empty() && out.back() != '-') {
      out += '-';
    }
  }
  while (out.ends_with('-')) out.pop_back();
  return out;
}

std::string compiler() {
#if defined(__clang__)
  return "clang++ " + std::to_string(__clang_major__) + "." + std::to_string(__clang_minor__);
#else
  return "g++ " + std::to_string(__GNUC__) + "." + std::to_string(__GNUC_MINOR__);
#endif
}

nlohmann::ordered_json read_json(const std::string& file) {
  std::ifstream in(file);
  if (!in) throw graft::Error("cannot read \"" + file + "\"");
  return nlohmann::ordered_json::parse(in);
}

void write_text(const std::filesystem::path& file, const std::string& text) {
  const std::filesystem::path whole = file.string() + ".new";  // a run that is stopped leaves the file as it was
  std::ofstream out(whole);
  out << text;
  if (!out.flush()) throw graft::Error("cannot write \"" + whole.string() + "\"");
  std::filesystem::rename(whole, file);
}

/// Writes a row to FOLDER/<processor>-<date>.json, with a chart beside it; other rows of an earlier run of that day stay. A run that is
/// stopped keeps what it has measured.
std::filesystem::path keep(const Row& row, const std::string& folder, const Settings& settings, const std::string& backend) {
  nlohmann::ordered_json results = {{"date", today()},        {"processor", processor()},    {"backend", backend},
                                    {"compiler", compiler()}, {"threads", settings.threads}, {"results", nlohmann::ordered_json::array({to_json(row)})}};
  results["results"][0]["rounds"] = settings.rounds;
  std::filesystem::create_directories(folder);
  std::filesystem::path file = std::filesystem::path(folder) / (slug(processor()) + "-" + today() + ".json");
  if (std::filesystem::exists(file)) {
    nlohmann::ordered_json whole = read_json(file.string());
    merge_results(whole, results);
    results = whole;
  }
  write_text(file, results.dump(2) + "\n");
  const std::string chart = svg_chart(results);
  if (!chart.empty()) write_text(std::filesystem::path(file).replace_extension(".svg"), chart);
  return file;
}

const std::vector<std::string> kBenches = {"step", "scaling", "attention", "gemm", "memory", "decode", "tokenizer", "start", "save"};

int run(int argc, char** argv) {
  CLI::App app{"Benchmarks of graft on the cpu backend. Both sides of a comparison alternate in one run; figures are medians."};
  std::vector<std::string> benches, pythons;
  std::string out_folder, table_of, gpu_table_of, child;
  Settings settings;
  bool compiled = true;
  int child_steps = 1;
  std::string list;
  for (const std::string& bench : kBenches) list += (list.empty() ? "" : ", ") + bench;
  app.add_option("bench", benches, list + " (default: all)")->check(CLI::IsMember(kBenches));
  app.add_option(
      "--peer", pythons,
      "a Python that has PyTorch, measured beside graft; may be given several times. For ./dev bench also: torch (the newest, from "
      "PyPI), debian (that of the distribution); both are installed when missing")
      ->allow_extra_args(false);
  app.add_flag("--compiled,!--no-compiled", compiled, "peers of version 2 and newer also run with torch.compile (default: yes)");
  app.add_option("--threads", settings.threads, "0: all")->capture_default_str()->check(CLI::NonNegativeNumber);
  app.add_option("--rounds", settings.rounds, "runs of each side after a warm-up")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--only", settings.only, "only cases whose name holds this");
  app.add_option("--out", out_folder,
                 "write the figures to FOLDER/<processor>-<date>.json, with a chart as .svg beside it; rows of an earlier run of "
                 "that day stay");
  app.add_option("--table", table_of, "print the README's table of such a file, and measure nothing");
  app.add_option("--gpu-table", gpu_table_of, "the same of a file of ./dev gpu-check, or of none: \"-\"");
  app.add_option("--child", child)->group("");
  app.add_option("--child-steps", child_steps)->group("");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  if (!gpu_table_of.empty()) {
    std::fputs(gpu_table(gpu_table_of == "-" ? nlohmann::ordered_json() : read_json(gpu_table_of)).c_str(), stdout);
    return 0;
  }
  if (!table_of.empty()) {
    std::fputs(markdown_table(read_json(table_of)).c_str(), stdout);
    return 0;
  }
  if (settings.threads == 0) settings.threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  if (!child.empty()) return training_child(child, settings.threads, child_steps);

  const auto wants = [&](const std::string& name) {
    return benches.empty() || std::find(benches.begin(), benches.end(), name) != benches.end();
  };
  const std::unique_ptr<graft::Backend> backend = graft::cpu_backend(settings.threads);
  settings.backend = backend.get();
  std::printf("%s, %s, %s, %s\n", backend->description().c_str(), compiler().c_str(), processor().c_str(), today().c_str());
  std::filesystem::path file;
  settings.add = [&](const Row& row) {
    row.print();
    std::fflush(stdout);
    if (!out_folder.empty()) file = keep(row, out_folder, settings, backend->description());
  };
  const std::string script = std::string(GRAFT_SOURCE_DIR) + "/benchmarks/peer_torch.py";
  std::vector<std::unique_ptr<Peer>> running;
  const auto start_peers = [&](bool with_compiled) {  // a process for each way of running a step
    settings.peers.clear();
    running.clear();
    for (const std::string& python : pythons) {
      running.push_back(std::make_unique<Peer>(python, script, settings.threads));
      settings.peers.push_back({"step", running.back().get()});
      if (!with_compiled || running.back()->description().starts_with("torch 1.")) continue;
      running.push_back(std::make_unique<Peer>(python, script, settings.threads));
      settings.peers.push_back({"compiled", running.back().get()});
    }
  };
  start_peers(false);
  if (wants("memory")) bench_memory(settings, argv[0]);  // first: the peer's process must be fresh
  if (wants("start")) bench_start(settings, argv[0]);
  if (wants("gemm")) bench_gemm(settings);
  if (wants("attention")) bench_attention(settings);
  if (wants("decode")) bench_decode(settings);
  if (wants("tokenizer")) bench_tokenizer(settings);
  if (wants("scaling")) bench_scaling(settings);
  if (wants("save")) bench_save(settings);
  if (wants("step")) {
    start_peers(compiled);
    bench_step(settings);
  }

  if (!file.empty()) std::printf("written to %s\n", file.string().c_str());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench: %s\n", error.what());
    return 1;
  }
}
