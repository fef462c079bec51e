// A whole training step: forward, backward, clipping, AdamW; and the memory it takes.
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <filesystem>

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

/// What peer_torch.py sets the same step up from.
std::string json_of(const StepCase& c, bool bf16 = false) {
  std::string json = "{";
  for (const auto& [key, value] : {std::pair{"vocab", c.vocab},
                                   {"context", c.context},
                                   {"batch", c.batch},
                                   {"hidden", c.hidden},
                                   {"layers", c.layers},
                                   {"heads", c.heads},
                                   {"kv_heads", c.kv_heads},
                                   {"intermediate", c.intermediate}})
    json += "\"" + std::string(key) + "\": " + std::to_string(value) + ", ";
  return json + "\"dtype\": \"" + (bf16 ? "bf16" : "f32") + "\"}";
}

/// A session that trains, its inputs written.
class TrainingStep {
 public:
  TrainingStep(const StepCase& c, Backend& backend, bool bf16 = false) {
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
    g = passes::fuse(g);
    session_ = std::make_unique<Session>(bf16 ? passes::mixed_precision(g) : g, backend);
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
  Session& session() { return *session_; }
  /// 6·N·tokens + 12·L·h·T·tokens/2.
  double flops(const StepCase& c) const {
    const auto tokens = static_cast<double>(c.batch * c.context);
    return 6 * static_cast<double>(parameters_) * tokens + 6 * static_cast<double>(c.layers * c.hidden * c.context) * tokens;
  }

 private:
  std::unique_ptr<Session> session_;
  std::int64_t parameters_ = 0;
};

const StepCase& step_case(const std::string& name) {
  for (const StepCase& c : kCases)
    if (name == c.name) return c;
  throw Error("there is no configuration \"" + name + "\"");
}

/// Runs this program again as a child; what it printed.
double child(const std::string& self, const Settings& settings, const std::string& name, int steps) {
  const std::string command = "'" + self + "' --child " + name + " --child-steps " + std::to_string(steps) + " --threads " +
                              std::to_string(settings.threads);
  std::FILE* process = popen(command.c_str(), "r");
  double printed = 0;
  const bool read = process != nullptr && std::fscanf(process, "%lf", &printed) == 1;
  if (process == nullptr || pclose(process) != 0 || !read) throw Error("\"" + command + "\" failed");
  return printed;
}

}  // namespace

void bench_step(const Settings& settings) {
  CeilingProbe ceiling(*settings.backend);
  for (const StepCase& c : kCases) {
    for (const bool bf16 : {false, true}) {
      const std::string name = std::string(c.name) + (bf16 ? " bf16" : " f32");
      if (name.find(settings.only) == std::string::npos) continue;
      TrainingStep step(c, *settings.backend, bf16);
      std::vector<std::function<double()>> sides = {[&] { return timed_in_loop([&] { step.run(); }); }, [&] { return ceiling.product(); }};
      for (const PeerSide& side : settings.peers) {
        side.peer->ask(side.setup + " " + json_of(c, bf16));
        sides.push_back([peer = side.peer] { return peer->run(); });
      }
      std::unique_ptr<TrainingStep> wide;
      if (bf16) {
        wide = std::make_unique<TrainingStep>(c, *settings.backend);
        sides.push_back([&] { return timed_in_loop([&] { wide->run(); }); });
      }
      const std::vector<double> times = alternate(sides, settings.rounds);
      const double rate = step.flops(c) / times[0], limit = CeilingProbe::kProductFlops / times[1];
      Row row{"step", name, times[0], {}, {}};
      row.more["tokens/s"] = static_cast<double>(c.batch * c.context) / times[0];
      row.more["GFLOP/s"] = rate / 1e9;
      row.more["f32 GEMM GFLOP/s"] = limit / 1e9;
      row.more["% of GEMM"] = 100 * rate / limit;
      if (bf16) row.more["times f32"] = times.back() / times[0];
      for (std::size_t i = 0; i < settings.peers.size(); ++i) row.peers.emplace_back(settings.peers[i].label(), times[i + 2]);
      settings.add(row);
    }
  }
}

void bench_save(const Settings& settings) {
  constexpr int kEvery = 10;
  const std::filesystem::path folder = std::filesystem::temp_directory_path() / ("graft_bench_save_" + std::to_string(getpid()));
  for (const char* name : {"S", "M"}) {
    if (std::string(name).find(settings.only) == std::string::npos) continue;
    TrainingStep step(step_case(name), *settings.backend);
    CheckpointFolder checkpoints(folder);
    const auto train = [&] {
      for (int i = 0; i < kEvery; ++i) step.run();
    };
    const auto side = [&](const std::function<void()>& run) { return [run] { return timed(run) / kEvery; }; };
    const std::vector<double> times = alternate({side(train), side([&] {
                                                   checkpoints.save_async(step.session().snapshot(), 0);
                                                   train();
                                                   checkpoints.flush();
                                                 }),
                                                 side([&] {
                                                   checkpoints.save(step.session().snapshot(), 0);
                                                   train();
                                                 })},
                                                settings.rounds);
    Row row{"save", std::string(name) + " f32, every 10 steps", times[1], {}, {}};
    row.more["% over no saving"] = 100 * (times[1] / times[0] - 1);
    row.more["% not beside"] = 100 * (times[2] / times[0] - 1);
    row.more["MB"] = static_cast<double>(std::filesystem::file_size(checkpoints.latest())) / 1e6;
    settings.add(row);
  }
  std::filesystem::remove_all(folder);
}

void bench_scaling(const Settings& settings) {
  const StepCase& c = step_case("M");
  const std::unique_ptr<Backend> one = cpu_backend(1);
  TrainingStep alone(c, *one), all(c, *settings.backend);
  const std::vector<double> times =
      alternate({[&] { return timed_in_loop([&] { all.run(); }); }, [&] { return timed_in_loop([&] { alone.run(); }); }}, settings.rounds);
  Row row{"scaling", "M f32", times[0], {}, {}};
  row.more["1 thread ms"] = times[1] * 1e3;
  row.more[std::to_string(settings.threads) + " threads over 1"] = times[1] / times[0];
  settings.add(row);
}

int training_child(const std::string& name, int threads, int steps) {
  const std::unique_ptr<Backend> backend = cpu_backend(threads);
  TrainingStep step(step_case(name), *backend);
  for (int i = 0; i < steps; ++i) step.run();
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  std::printf("%ld\n", usage.ru_maxrss * 1024);
  return 0;
}

void bench_memory(const Settings& settings, const std::string& self) {
  const double bytes = child(self, settings, "L", 3);
  Row row{"memory", "L f32", 0, {}, {}};
  row.more["peak MB"] = bytes / 1e6;
  for (const PeerSide& side : settings.peers) {
    side.peer->ask(side.setup + " " + json_of(step_case("L")));
    for (int i = 0; i < 3; ++i) side.peer->run();
    const double theirs = std::stod(side.peer->ask("memory"));
    row.more[side.label() + " peak MB"] = theirs / 1e6;
    row.more["of " + side.label()] = bytes / theirs;
  }
  settings.add(row);
}

void bench_start(const Settings& settings, const std::string& self) {
  const std::vector<double> times = alternate({[&] { return timed([&] { child(self, settings, "S", 1); }); }}, settings.rounds);
  settings.add({"start", "S f32", times[0], {}, {}});
}
