// A whole training step: forward, backward, clipping, AdamW; and the memory it takes.
#include <sys/resource.h>
#include <unistd.h>

#include <array>

#include "benchmarks/measure.h"

namespace {

using namespace graft;

struct StepCase {
  const char* name;
  std::int64_t vocab, context, batch, hidden, layers, heads, kv_heads, intermediate;
};
constexpr std::array kCases = {
    StepCase{"S", 65, 64, 12, 128, 4, 4, 4, 344},
    StepCase{"M", 256, 256, 8, 384, 6, 6, 2, 1024},
    StepCase{"L", 256, 1024, 2, 384, 6, 6, 2, 1024},
    StepCase{"W", 4096, 256, 8, 512, 8, 8, 4, 1408},
};

nlohmann::json json_of(const StepCase& c) {
  return {{"vocab", c.vocab},   {"context", c.context}, {"batch", c.batch},       {"hidden", c.hidden},
          {"layers", c.layers}, {"heads", c.heads},     {"kv_heads", c.kv_heads}, {"intermediate", c.intermediate}};
}

/// A session that trains, its inputs written.
class TrainingStep {
 public:
  TrainingStep(const StepCase& c, Backend& backend) {
    Graph g(1);
    nn::LlamaConfig config;
    config.vocab_size = c.vocab;
    config.hidden_size = c.hidden;
    config.num_layers = c.layers;
    config.num_heads = c.heads;
    config.num_kv_heads = c.kv_heads;
    config.intermediate_size = c.intermediate;
    const nn::Llama model(g, config);
    const std::int64_t rows = c.batch * c.context;
    const Value logits = model.forward(g, g.input_u32("ids", {rows}), Segments::uniform(c.context));
    const Value loss = g.cross_entropy(logits, g.input_u32("labels", {rows}));
    g.output("loss", loss);
    optim::adamw(g, differentiate(g, loss), {}, {.schedule = {.base = 1e-4}, .clip_norm = 1.0});
    parameters_ = model.parameter_count();
    session_ = std::make_unique<Session>(g, backend);
    std::vector<std::uint32_t> ids(static_cast<std::size_t>(rows)), labels(ids.size());
    for (std::size_t i = 0; i < ids.size(); ++i) {
      ids[i] = static_cast<std::uint32_t>(i * 7919 % static_cast<std::size_t>(c.vocab));
      labels[i] = static_cast<std::uint32_t>(i * 104729 % static_cast<std::size_t>(c.vocab));
    }
    session_->write("ids", ids);
    session_->write("labels", labels);
  }
  void run() {
    session_->step();
    session_->scalar("loss");
  }
  /// 6·N·tokens + 12·L·h·T·tokens/2.
  double flops(const StepCase& c) const {
    const auto tokens = static_cast<double>(c.batch * c.context);
    return 6 * static_cast<double>(parameters_) * tokens + 6 * static_cast<double>(c.layers * c.hidden * c.context) * tokens;
  }

 private:
  std::unique_ptr<Session> session_;
  std::int64_t parameters_ = 0;
};

}  // namespace

std::vector<Row> bench_step(const Settings& settings) {
  std::vector<Row> rows;
  CeilingProbe ceiling(*settings.backend);
  for (const StepCase& c : kCases) {
    if (std::string(c.name).find(settings.only) == std::string::npos) continue;
    TrainingStep step(c, *settings.backend);
    std::vector<std::function<double()>> sides = {[&] { return timed([&] { step.run(); }); }, [&] { return ceiling.product(); }};
    for (const auto& [command, peer] : settings.peers) {
      peer->ask(command + " " + json_of(c).dump());
      sides.push_back([peer = peer] { return peer->run(); });
    }
    const std::vector<double> times = alternate(sides, settings.rounds);
    const double rate = step.flops(c) / times[0], limit = CeilingProbe::kProductFlops / times[1];
    Row row{"step", std::string(c.name) + " f32", times[0], 0, {}};
    row.more["tokens/s"] = static_cast<double>(c.batch * c.context) / times[0];
    row.more["GFLOP/s"] = rate / 1e9;
    row.more["GEMM GFLOP/s"] = limit / 1e9;
    row.more["% of GEMM"] = 100 * rate / limit;
    for (std::size_t i = 0; i < settings.peers.size(); ++i) {
      const double seconds = times[i + 2];
      if (row.peer_seconds == 0 || seconds < row.peer_seconds) row.peer_seconds = seconds;
      row.more[settings.peers[i].second->description() + " " + settings.peers[i].first + " ms"] = seconds * 1e3;
    }
    rows.push_back(row);
  }
  return rows;
}

int memory_child(int threads) {
  const std::unique_ptr<Backend> backend = cpu_backend(threads);
  TrainingStep step(kCases[2], *backend);
  for (int i = 0; i < 3; ++i) step.run();
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  std::printf("%ld\n", usage.ru_maxrss * 1024);
  return 0;
}

std::vector<Row> bench_memory(const Settings& settings, const std::string& self) {
  const std::string command = "'" + self + "' memory --child --threads " + std::to_string(settings.threads);
  std::FILE* child = popen(command.c_str(), "r");
  double bytes = 0;
  if (child == nullptr || std::fscanf(child, "%lf", &bytes) != 1 || pclose(child) != 0) throw Error("memory: \"" + command + "\" failed");
  Row row{"memory", "L f32", 0, 0, {}};
  row.more["peak MB"] = bytes / 1e6;
  for (const auto& [setup, peer] : settings.peers) {
    if (setup != "step") continue;
    peer->ask(setup + " " + json_of(kCases[2]).dump());
    for (int i = 0; i < 3; ++i) peer->run();
    const double theirs = std::stod(peer->ask("memory"));
    row.more[peer->description() + " peak MB"] = theirs / 1e6;
    row.more["ratio"] = bytes / theirs;
  }
  return {row};
}
