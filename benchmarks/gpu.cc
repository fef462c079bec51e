// graft on a GPU: `./dev gpu-check`. Needs nothing but the library, so that it builds on a bare machine.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "benchmarks/measure.h"
#include "benchmarks/peer.h"
#include "benchmarks/row.h"
#include "graft/graft.h"

namespace {

using namespace graft;

constexpr int kRounds = 7;
/// The rate that model FLOP utilisation is a share of: bf16 products of an H100 SXM, dense (NVIDIA's data sheet).
constexpr double kPeak = 989e12;

std::string text(std::int64_t value) { return std::to_string(value); }

/// Where the figures come from and go to.
struct Run {
  Backend& backend;
  Peer* peer = nullptr;
  std::function<void(const std::vector<Row>&)> save;  ///< called with all rows whenever there is a new one: a run that is cut off keeps what it has
  std::vector<Row> rows = {};
  double copy = 0.0;  ///< the measured ceiling: bytes/s read and written

  /// In the place of the same row, if there is one.
  void add(const Row& row) {
    row.print();
    const auto same = std::find_if(rows.begin(), rows.end(), [&](const Row& r) { return r.bench == row.bench && r.name == row.name; });
    if (same != rows.end()) {
      *same = row;
    } else {
      rows.push_back(row);
    }
    save(rows);
  }
};

/// Writes normal numbers of the given spread to parameter `name`: some drawn once, over and over. Drawing them all on one thread would take longer than all
/// that is measured, and zeros would not do where a GPU's power limits it. Their number is a prime, so that rows differ.
void randomize(Session& session, const std::string& name, float spread = 1.0f) {
  static const std::vector<float> block = [] {
    std::vector<float> values(65521);
    std::mt19937 bits(1);
    std::normal_distribution<float> normal;
    for (float& value : values) value = normal(bits);
    return values;
  }();
  const Graph& graph = session.graph();
  std::vector<float> values(static_cast<std::size_t>(graph.shape(graph.find(name)).size()));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = spread * block[i % block.size()];
  session.write(name, std::span<const float>(values));
}

/// A graph that runs as often as it takes to fill about 20 ms, with nothing waited for in between; seconds of one step. One that is not timed goes before: it finds the GPU as the other
/// side left it.
class Side {
 public:
  Side(const Graph& graph, Backend& backend) : backend_(backend), session_(graph, backend) {}
  /// On the owner's memory.
  Side(const Graph& graph, Session& owner) : backend_(owner.backend()), session_(graph, owner) {}
  Session& session() { return session_; }
  double operator()() {
    if (repeat_ == 0) {
      for (int warm_up = 0; warm_up < 3; ++warm_up) once();
      repeat_ = std::clamp(static_cast<int>(0.02 / once()), 1, 2000);
    }
    once();
    return timed([&] {
             for (int i = 0; i < repeat_; ++i) session_.step();
             backend_.wait();
           }) /
           repeat_;
  }

 private:
  double once() {
    return timed([&] {
      session_.step();
      backend_.wait();
    });
  }
  Backend& backend_;
  Session session_;
  int repeat_ = 0;
};

double time_of(Side& side) {
  return alternate({[&] { return side(); }}, kRounds)[0];
}

void measure_ceilings(Run& run) {
  constexpr std::int64_t kRows = 32768, kCols = 8192;  // 1 GiB of f32, read and written
  Graph copy;
  copy.output("y", copy.neg(copy.parameter("x", {kRows, kCols}, Init::ones())));
  Side side(copy, run.backend);
  for (double busy = 0.0; busy < 0.5;) busy += timed([&] { side(); });  // until the GPU's clocks are up
  const double copy_seconds = time_of(side);
  run.copy = 2.0 * 4.0 * kRows * kCols / copy_seconds;
  Row row{"ceiling", "copy, 1 GiB", copy_seconds, {}, {}};
  row.more["GB/s"] = run.copy / 1e9;
  run.add(row);
}

void bench_gemm(Run& run) {
  struct Product {
    std::int64_t m, n, k;
    DType dtype;
  };
  for (const auto& [m, n, k, dtype] : {Product{8192, 8192, 8192, DType::bf16}, Product{16384, 2304, 768, DType::bf16}, Product{16384, 768, 3072, DType::bf16},
                                       Product{16384, 50304, 768, DType::bf16}, Product{4096, 4096, 4096, DType::f32}}) {
    Graph g(1);
    g.output("c", g.matmul(g.parameter("a", {m, k}, Init::zeros(), dtype), g.parameter("b", {k, n}, Init::zeros(), dtype)));
    Side side(g, run.backend);
    for (const char* name : {"a", "b"}) randomize(side.session(), name);
    const double seconds = time_of(side);
    Row row{"gemm", text(m) + "x" + text(n) + "x" + text(k) + " " + std::string(to_string(dtype)), seconds, {}, {}};
    row.more["TFLOP/s"] = 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k) / seconds / 1e12;
    run.add(row);
  }
}

struct AttentionCase {
  std::int64_t batch, length, heads, kv_heads, head_dim;
  Mask::Kind mask;
};

/// q, k and v of a layer, in bf16.
struct AttentionGraph {
  Graph graph{1};
  MultiHeadAttn attn;
  std::vector<Value> qkv;

  explicit AttentionGraph(const AttentionCase& c) {
    attn = {{c.heads, c.kv_heads, c.head_dim}, {c.mask, 0}, 1.0 / std::sqrt(static_cast<double>(c.head_dim)), {SegmentLayout::Kind::uniform, c.length, c.length}};
    const std::int64_t rows = c.batch * c.length;
    for (const auto& [name, heads] : {std::pair{"q", c.heads}, {"k", c.kv_heads}, {"v", c.kv_heads}})
      qkv.push_back(graph.parameter(name, {rows, heads * c.head_dim}, Init::zeros(), DType::bf16));
  }
};

/// The tensors of a case and of those after it that have the same shapes: q, k, v, dout and out.
struct AttentionTensors {
  Graph graph{1};
  std::unique_ptr<Session> session;
  Shape q, k;

  AttentionTensors(const Shape& q_shape, const Shape& k_shape, Backend& backend) : q(q_shape), k(k_shape) {
    for (const char* name : {"q", "dout", "out"}) graph.parameter(name, q, Init::zeros(), DType::bf16);
    for (const char* name : {"k", "v"}) graph.parameter(name, k, Init::zeros(), DType::bf16);
    session = std::make_unique<Session>(graph, backend);
    for (const char* name : {"q", "k", "v", "dout"}) randomize(*session, name);
    randomize(*session, "out", 0.02f);
  }
};

void bench_attention(Run& run) {
  std::vector<AttentionCase> cases;
  for (const std::int64_t head_dim : {std::int64_t{64}, std::int64_t{128}})
    for (const std::int64_t length : {std::int64_t{2048}, std::int64_t{8192}, std::int64_t{16384}})
      for (const Mask::Kind mask : {Mask::Kind::full, Mask::Kind::causal})
        cases.push_back({16384 / length, length, 2048 / head_dim, 2048 / head_dim, head_dim, mask});
  cases.push_back({1, 8192, 64, 8, 128, Mask::Kind::causal});
  std::unique_ptr<AttentionTensors> tensors;
  for (const AttentionCase& c : cases) {
    const std::string name = "D" + text(c.head_dim) + " T" + text(c.length) + " H" + text(c.heads) + "/" + text(c.kv_heads) +
                             (c.mask == Mask::Kind::causal ? " causal" : " full");
    const double flops = 4.0 * static_cast<double>(c.batch * c.heads * c.head_dim) * static_cast<double>(c.length) * static_cast<double>(c.length) /
                         (c.mask == Mask::Kind::causal ? 2 : 1);
    AttentionGraph forward(c), backward(c);
    const Value out = forward.graph.record(forward.attn, forward.qkv);
    forward.graph.output("out", out);
    forward.graph.output("lse", {out.node, 1});
    Graph& g = backward.graph;
    const Shape shape = g.shape(backward.qkv[0]);
    // as large as that of random queries and keys
    const Value lse = g.parameter("lse", {shape.rows(), c.heads}, Init::fill(std::log(static_cast<double>(c.length)) + 0.5)),
                dout = g.parameter("dout", shape, Init::zeros(), DType::bf16), saved = g.parameter("out", shape, Init::zeros(), DType::bf16);
    std::vector<Value> in = backward.qkv;
    in.insert(in.end(), {lse, dout, g.record(AttnDelta{backward.attn.heads}, {saved, dout})});
    g.output("dq", g.record(MultiHeadAttnGradQ{backward.attn}, in));
    g.output("dk", g.record(MultiHeadAttnGradK{backward.attn}, in));
    g.output("dv", g.record(MultiHeadAttnGradV{backward.attn}, in));
    if (const Shape k = g.shape(backward.qkv[1]); tensors == nullptr || tensors->q != shape || tensors->k != k) {
      tensors = nullptr;
      tensors = std::make_unique<AttentionTensors>(shape, k, run.backend);
    }
    for (const bool back : {false, true}) {
      Side ours(back ? g : forward.graph, *tensors->session);
      std::vector<std::function<double()>> sides = {[&] { return ours(); }};
      std::vector<std::string> peers;
      const auto measure_peer = [&](const char* kernel) {  // the peer holds one set-up at a time
        if (run.peer == nullptr) return;
        try {
          run.peer->ask("attention {\"batch\": " + text(c.batch) + ", \"length\": " + text(c.length) + ", \"heads\": " + text(c.heads) + ", \"kv_heads\": " +
                        text(c.kv_heads) + ", \"head_dim\": " + text(c.head_dim) + ", \"causal\": " + (c.mask == Mask::Kind::causal ? "true" : "false") +
                        ", \"backward\": " + (back ? "true" : "false") + ", \"kernel\": \"" + kernel + "\"}");
          const auto times = alternate({[&] { return ours(); }, [&] { return run.peer->run(); }}, kRounds);
          sides.push_back([seconds = times[1]] { return seconds; });
          peers.push_back(run.peer->description() + ", " + kernel);
        } catch (const Error& error) {
          std::printf("%s\n", error.what());
        }
      };
      measure_peer("flash");
      measure_peer("cudnn");
      const std::vector<double> times = alternate(sides, kRounds);
      Row row{back ? "attention backward" : "attention forward", name, times[0], {}, {}};
      row.more["TFLOP/s"] = flops * (back ? 2.5 : 1.0) / times[0] / 1e12;
      for (std::size_t i = 0; i < peers.size(); ++i) row.peers.emplace_back(peers[i], times[i + 1]);
      run.add(row);
    }
  }
}

/// A row of a kernel that moves so many bytes.
void add_moving(Run& run, const std::string& bench, const std::string& name, double seconds, double bytes) {
  Row row{bench, name, seconds, {}, {}};
  row.more["GB/s"] = bytes / seconds / 1e9;
  if (run.copy > 0) row.more["% of copy"] = 100 * bytes / seconds / run.copy;
  run.add(row);
}

/// A token of each sequence, in one layer; as many layers run one after the other as have more keys and values than caches hold.
void bench_decode(Run& run) {
  for (const auto& [batch, length] : {std::pair<std::int64_t, std::int64_t>{1, 1024}, {1, 32768}, {64, 8192}}) {
    constexpr std::int64_t kHeads = 32, kKvHeads = 8, kDim = 128;
    constexpr std::int64_t kManyBytes = std::int64_t{1} << 28;
    const std::int64_t bytes = 2 * 2 * batch * length * kKvHeads * kDim, layers = std::max<std::int64_t>(1, kManyBytes / bytes);
    Graph g(1);
    const Value q = g.parameter("q", {batch, kHeads * kDim}, Init::zeros(), DType::bf16),
                kv_len = g.constant({batch}, {static_cast<double>(length)}, DType::u32);
    for (std::int64_t layer = 0; layer < layers; ++layer) {
      const auto cache = [&](const char* name) { return g.parameter(name + text(layer), {batch * length, kKvHeads * kDim}, Init::zeros(), DType::bf16); };
      g.output("out" + text(layer), g.record(CachedAttention{{kHeads, kKvHeads, kDim}, 0.088}, {q, cache("k"), cache("v"), kv_len}));
    }
    Side side(g, run.backend);
    add_moving(run, "decode", "n" + text(batch) + " cache " + text(length) + " H32/8 D128", time_of(side) / static_cast<double>(layers), static_cast<double>(bytes));
  }
}

/// A kernel that moves bytes: `bytes` are each tensor read once and written once. It runs on the owner's tensors, if there is one.
void add_moving(Run& run, const std::string& bench, const std::string& name, const Graph& graph, double bytes, Session* owner = nullptr) {
  Side side = owner != nullptr ? Side(graph, *owner) : Side(graph, run.backend);
  add_moving(run, bench, name, time_of(side), bytes);
}

/// Zeros: what a kernel computes is not what it takes time for. The tensors are made once and seen in other shapes, as the host is slow to fill them.
void bench_rows(Run& run) {
  constexpr std::int64_t kElements = std::int64_t{1} << 27;
  constexpr double kBytes = 4.0 * kElements;
  const auto tensor = [](Graph& g, const char* name, std::int64_t cols, DType dtype = DType::f32) {
    return g.reshape(g.parameter(name, {kElements}, Init::zeros(), dtype), {kElements / cols, cols});
  };
  {
    Graph tensors;
    for (const char* name : {"x", "dout"}) tensors.parameter(name, {kElements});
    for (const char* name : {"gate", "up"}) tensors.parameter(name, {kElements}, Init::zeros(), DType::bf16);
    Session owner(tensors, run.backend);
    for (const std::int64_t cols : {std::int64_t{1024}, std::int64_t{4096}}) {
      const std::int64_t rows = kElements / cols;
      const std::string size = "[" + text(rows) + ", " + text(cols) + "] ";
      Graph rms, rms_grad, layer, swiglu;
      rms.output("y", rms.rms_norm(tensor(rms, "x", cols), rms.parameter("w", {cols}, Init::ones())));
      add_moving(run, "rms_norm", size + "f32", rms, 2 * kBytes, &owner);
      const Value dx = rms_grad.record(RmsNormGrad{}, {tensor(rms_grad, "x", cols), rms_grad.parameter("w", {cols}, Init::ones()),
                                                       rms_grad.parameter("rstd", {rows}, Init::ones()), tensor(rms_grad, "dout", cols)});
      rms_grad.output("dx", dx);
      rms_grad.output("dw", {dx.node, 1});
      add_moving(run, "rms_norm gradient", size + "f32", rms_grad, 3 * kBytes, &owner);
      layer.output("y", layer.layer_norm(tensor(layer, "x", cols), layer.parameter("w", {cols}, Init::ones()), layer.parameter("b", {cols})));
      add_moving(run, "layer_norm", size + "f32", layer, 2 * kBytes, &owner);
      swiglu.output("y", swiglu.swiglu(tensor(swiglu, "gate", cols, DType::bf16), tensor(swiglu, "up", cols, DType::bf16)));
      add_moving(run, "swiglu", size + "bf16", swiglu, 1.5 * kBytes, &owner);
    }
  }
  constexpr std::int64_t kRows = 8192, kVocabulary = 50304;
  const double bytes = 4.0 * kRows * kVocabulary;
  Graph tensors, g;
  tensors.parameter("logits", {kRows, kVocabulary});
  Session owner(tensors, run.backend);
  const Value logits = g.parameter("logits", {kRows, kVocabulary}), labels = g.constant({kRows}, {7}, DType::u32);
  const CrossEntropyResult loss = g.cross_entropy_with(logits, labels, {});
  g.output("loss", loss.loss);
  add_moving(run, "cross_entropy", "[8192, 50304] f32", g, bytes, &owner);
  g.output("dlogits", g.record(CrossEntropyGrad{}, {logits, labels, loss.lse, loss.counted, g.constant({}, {1.0})}));
  add_moving(run, "cross_entropy, gradient too", "[8192, 50304] f32", g, 3 * bytes, &owner);
}

/// A training step of a decoder: forward, backward, clipping, AdamW; bf16 with f32 master weights.
struct Model {
  std::string name, json;
  Graph graph{1};
  double parameters = 0, tokens = 0, attention = 0;
};

Model finished(Model model, const Value& loss) {
  Graph& g = model.graph;
  g.output("loss", loss);
  optim::adamw(g, differentiate(g, loss), {}, {.schedule = {.base = 1e-4}, .clip_norm = 1.0});
  for (const Value p : g.parameters()) model.parameters += static_cast<double>(g.shape(p).size());
  model.graph = passes::mixed_precision(passes::fuse(g));
  return model;
}

Model gpt2_124m(std::int64_t batch) {
  Model model{"GPT-2 124M, " + text(batch) + " x 1024",
              R"({"family": "gpt2", "vocab": 50304, "hidden": 768, "layers": 12, "heads": 12, "context": 1024, "batch": )" + text(batch) + "}"};
  nn::Gpt2Config config;
  config.vocab_size = 50304;
  Graph& g = model.graph;
  const std::int64_t rows = batch * 1024;
  const nn::Gpt2 gpt2(g, config);
  const Value logits = gpt2.forward(g, g.input_u32("ids", {rows}), Segments::uniform(1024));
  model.tokens = static_cast<double>(rows);
  model.attention = 6.0 * 12 * 768 * 1024;
  return finished(std::move(model), g.cross_entropy(logits, g.input_u32("labels", {rows})));
}

Model llama_half_billion(std::int64_t batch) {
  Model model{"Llama 0.5B, " + text(batch) + " x 2048",
              R"({"family": "llama", "vocab": 32000, "hidden": 1280, "layers": 20, "heads": 20, "kv_heads": 4, "intermediate": 4480, "context": 2048, "batch": )" + text(batch) + "}"};
  nn::LlamaConfig config;
  config.vocab_size = 32000;
  config.hidden_size = 1280;
  config.num_layers = 20;
  config.num_heads = 20;
  config.num_kv_heads = 4;
  config.intermediate_size = 4480;
  Graph& g = model.graph;
  const std::int64_t rows = batch * 2048;
  const nn::Llama llama(g, config);
  const Value logits = llama.forward(g, g.input_u32("ids", {rows}), Segments::uniform(2048));
  model.tokens = static_cast<double>(rows);
  model.attention = 6.0 * 20 * 1280 * 2048;
  return finished(std::move(model), g.cross_entropy(logits, g.input_u32("labels", {rows})));
}

/// A model that trains, measured by itself and then, when all else is measured, beside the peer, which may take minutes to compile.
class TrainingStep {
 public:
  TrainingStep(Run& run, Model model) : run_(run), model_(std::move(model)), side_(model_.graph, run.backend) {
    std::vector<std::uint32_t> ids(static_cast<std::size_t>(model_.tokens)), labels(ids.size());
    for (std::size_t i = 0; i < ids.size(); ++i) {
      ids[i] = static_cast<std::uint32_t>(i * 7919 % 32000);
      labels[i] = static_cast<std::uint32_t>(i * 104729 % 32000);
    }
    side_.session().write("ids", ids);
    side_.session().write("labels", labels);
  }
  void alone() { run_.add(row(time_of(side_))); }
  void beside_peer() {
    try {
      run_.peer->ask("step " + model_.json);
    } catch (const Error& error) {
      std::printf("%s\n", error.what());
      return;
    }
    const std::vector<double> times = alternate({[&] { return side_(); }, [&] { return run_.peer->run(); }}, kRounds);
    Row both = row(times[0]);
    both.peers.emplace_back(run_.peer->description() + ", compiled", times[1]);
    run_.add(both);
  }

 private:
  Row row(double seconds) {
    Row row{"step", model_.name, seconds, {}, {}};
    row.more["tokens/s"] = model_.tokens / seconds;
    row.more["% MFU of 989"] = 100 * (6 * model_.parameters + model_.attention) * model_.tokens / seconds / kPeak;
    row.more["M parameters"] = model_.parameters / 1e6;
    row.more["MiB"] = static_cast<double>(side_.session().memory_report().total) / 1048576.0;
    return row;
  }

  Run& run_;
  Model model_;
  Side side_;
};

/// AdamW with clipping over the tensors of a GPT-2 of 124M parameters, as the step has it.
void bench_adamw(Run& run) {
  Graph g(1);
  double size = 0;
  Gradients gradients;
  const nn::Gpt2 model(g, [] {
    nn::Gpt2Config config;
    config.vocab_size = 50304;
    return config;
  }());
  for (const Value p : g.parameters()) {
    gradients.all.push_back({p, g.state("gradient/" + g.node(p).name, g.shape(p), Init::fill(1e-3))});
    size += static_cast<double>(g.shape(p).size());
  }
  optim::adamw(g, gradients, {}, {.schedule = {.base = 1e-4}, .clip_norm = 1.0});
  add_moving(run, "adamw and norm", "124M parameters", g, (28 + 4) * size);
}

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) out += c == '"' || c == '\\' ? std::string{'\\', c} : std::string(1, c);
  return out + "\"";
}

/// `checks` is JSON: how the other parts of gpu-check ended. The file is complete at any time.
void write_results(const std::string& file, const std::string& device, const std::string& date, const std::string& driver, const std::string& checks,
                   const std::vector<Row>& rows) {
  const std::string unfinished = file + ".new";
  std::ofstream out(unfinished);
  out << "{\n  \"date\": " << quoted(date) << ",\n  \"backend\": " << quoted(device) << ",\n  \"driver\": " << quoted(driver) << ",\n  \"checks\": " << checks
      << ",\n  \"results\": [";
  const char* separator = "\n";
  for (const Row& row : rows) {
    out << separator << "    {\"bench\": " << quoted(row.bench) << ", \"case\": " << quoted(row.name) << ", \"ms\": " << row.seconds * 1e3;
    for (const auto& [name, value] : row.more.all) out << ", " << quoted(name) << ": " << value;
    if (!row.peers.empty()) {
      out << ", \"peers\": {";
      for (std::size_t i = 0; i < row.peers.size(); ++i) out << (i > 0 ? ", " : "") << quoted(row.peers[i].first) << ": " << row.peers[i].second * 1e3;
      out << "}";
    }
    out << "}";
    separator = ",\n";
  }
  out << "\n  ]\n}\n";
  out.close();
  if (!out) throw Error("cannot write \"" + unfinished + "\"");
  std::filesystem::rename(unfinished, file);
}

int run_all(int argc, char** argv) {
  if (argc < 5 || argc > 6) {
    std::fprintf(stderr, "usage: graft_gpu_bench RESULTS.json DATE DRIVER CHECKS [PYTHON]\n");
    return 2;
  }
  const std::unique_ptr<Backend> backend = cuda_backend();
  std::printf("%s, driver %s, %s\n", backend->description().c_str(), argv[3], argv[2]);
  std::unique_ptr<Peer> peer;
  if (argc == 6) {
    try {
      peer = std::make_unique<Peer>(argv[5], std::string(GRAFT_SOURCE_DIR) + "/benchmarks/peer_torch_gpu.py", 0);
    } catch (const Error& error) {
      std::printf("without a peer: %s\n", error.what());
    }
  }
  Run run{*backend, peer.get(), [&](const std::vector<Row>& rows) { write_results(argv[1], backend->description(), argv[2], argv[3], argv[4], rows); }};
  std::vector<std::unique_ptr<TrainingStep>> steps;
  const auto step_alone = [&](Model model) {
    steps.push_back(std::make_unique<TrainingStep>(run, std::move(model)));
    steps.back()->alone();
  };
  std::vector<std::function<void()>> parts = {[&] { measure_ceilings(run); }, [&] { bench_gemm(run); },          [&] { bench_rows(run); },
                                              [&] { bench_adamw(run); },      [&] { bench_decode(run); },        [&] { step_alone(gpt2_124m(16)); },
                                              [&] { bench_attention(run); },  [&] { step_alone(llama_half_billion(8)); }};
  if (run.peer != nullptr)
    parts.emplace_back([&] {
      for (const auto& step : steps) step->beside_peer();
    });
  int failed = 0;
  for (const auto& part : parts) {
    try {
      part();
    } catch (const std::exception& error) {
      std::printf("FAILED: %s\n", error.what());
      std::fflush(stdout);
      ++failed;
    }
  }
  return failed > 0 ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run_all(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "gpu bench: %s\n", error.what());
    return 1;
  }
}
