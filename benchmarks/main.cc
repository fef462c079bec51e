// graft's benchmarks: `./dev bench --help`.
#include <CLI/CLI.hpp>
#include <ctime>
#include <fstream>
#include <thread>

#include "benchmarks/measure.h"

namespace {

/// "AMD EPYC 9B14", from /proc/cpuinfo.
std::string processor() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "unknown";
}

std::string today() {
  const std::time_t now = std::time(nullptr);
  char text[16];
  std::strftime(text, sizeof text, "%Y-%m-%d", std::gmtime(&now));
  return text;
}

std::string figure(double value) {
  char text[32];
  std::snprintf(text, sizeof text, value >= 1000 ? "%.0f" : value >= 10 ? "%.1f" : "%.2f", value);
  return text;
}

void print(const Row& row) {
  std::printf("%-10s %-24s", row.bench.c_str(), row.name.c_str());
  if (row.seconds > 0) std::printf(" %10s ms", figure(row.seconds * 1e3).c_str());
  if (row.peer_seconds > 0) std::printf("  %5.2fx the peer's speed (%s ms)", row.peer_seconds / row.seconds, figure(row.peer_seconds * 1e3).c_str());
  for (const auto& [name, value] : row.more.items()) std::printf("  %s %s", figure(value.get<double>()).c_str(), name.c_str());
  std::printf("\n");
  std::fflush(stdout);
}

int run(int argc, char** argv) {
  CLI::App app{"Benchmarks of graft on the cpu backend. Both sides of a comparison alternate in one run; figures are medians."};
  std::vector<std::string> benches;
  std::string python, json_file;
  std::string peers = "step";
  Settings settings;
  bool child = false;
  app.add_option("bench", benches, "step, attention, gemm, memory, decode (default: all)")->check(CLI::IsMember({"step", "attention", "gemm", "memory", "decode"}));
  app.add_option("--peer", python, "a Python that has PyTorch: measured beside graft");
  app.add_option("--peer-modes", peers, "step (eager), compiled, or step,compiled")->capture_default_str()->check(CLI::IsMember({"step", "compiled", "step,compiled"}));
  app.add_option("--threads", settings.threads, "0: all")->capture_default_str()->check(CLI::NonNegativeNumber);
  app.add_option("--rounds", settings.rounds, "runs of each side after a warm-up")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--only", settings.only, "only cases whose name holds this");
  app.add_option("--json", json_file, "write the figures to this file");
  app.add_flag("--child", child)->group("");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  if (settings.threads == 0) settings.threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  if (child) return memory_child(settings.threads);

  const auto wants = [&](const std::string& name) { return benches.empty() || std::find(benches.begin(), benches.end(), name) != benches.end(); };
  const std::unique_ptr<graft::Backend> backend = graft::cpu_backend(settings.threads);
  settings.backend = backend.get();
  std::printf("%s, %s, %s\n", backend->description().c_str(), processor().c_str(), today().c_str());
  std::vector<Row> rows;
  const auto add = [&](std::vector<Row> more) {
    for (Row& row : more) {
      print(row);
      rows.push_back(std::move(row));
    }
  };
  const std::string script = std::string(GRAFT_SOURCE_DIR) + "/benchmarks/peer_torch.py";
  std::string peer_text;
  const auto make_peer = [&] {
    auto peer = std::make_unique<Peer>(python, script, settings.threads);
    peer_text = peer->description();
    return peer;
  };
  if (wants("memory")) {  // first: the peer's process must be fresh
    std::unique_ptr<Peer> peer;
    if (!python.empty()) settings.peers = {{"step", (peer = make_peer()).get()}};
    add(bench_memory(settings, argv[0]));
    settings.peers.clear();
  }
  std::vector<std::unique_ptr<Peer>> running;
  if (!python.empty())
    for (const std::string& mode : CLI::detail::split(peers, ',')) {
      running.push_back(make_peer());
      settings.peers.emplace_back(mode, running.back().get());
    }
  if (wants("gemm")) add(bench_gemm(settings));
  if (wants("attention")) add(bench_attention(settings));
  if (wants("decode")) add(bench_decode(settings));
  if (wants("step")) add(bench_step(settings));

  if (!json_file.empty()) {
    nlohmann::ordered_json out;
    out["date"] = today();
    out["processor"] = processor();
    out["backend"] = backend->description();
    out["threads"] = settings.threads;
    out["rounds"] = settings.rounds;
    out["peer"] = peer_text;
    for (const Row& row : rows) {
      nlohmann::ordered_json r = {{"bench", row.bench}, {"case", row.name}};
      if (row.seconds > 0) r["ms"] = row.seconds * 1e3;
      if (row.peer_seconds > 0) {
        r["peer ms"] = row.peer_seconds * 1e3;
        r["times the peer's speed"] = row.peer_seconds / row.seconds;
      }
      r.update(row.more);
      out["results"].push_back(r);
    }
    std::ofstream file(json_file);
    file << out.dump(2) << "\n";
    if (!file.flush()) throw graft::Error("--json: cannot write \"" + json_file + "\"");
  }
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
