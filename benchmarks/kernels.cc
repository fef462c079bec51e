// Attention alone, products alone, and one token against a cache.
#include "benchmarks/measure.h"

namespace {

using namespace graft;

std::string text(std::int64_t value) { return std::to_string(value); }

}  // namespace

void bench_attention(const Settings& settings) {
  constexpr std::int64_t kHeads = 6, kKvHeads = 2;
  CeilingProbe ceiling(*settings.backend);
  for (const std::int64_t head_dim : {64, 128}) {
    for (const std::int64_t length : {256, 1024, 4096, 16384}) {
      const std::string name = "D" + text(head_dim) + " T" + text(length) + " causal";
      if (name.find(settings.only) == std::string::npos || (head_dim == 128 && length == 16384)) continue;
      Graph g(1);
      const Value q = g.parameter("q", {length, kHeads * head_dim}, Init::normal(0, 1)),
                  k = g.parameter("k", {length, kKvHeads * head_dim}, Init::normal(0, 1)),
                  v = g.parameter("v", {length, kKvHeads * head_dim}, Init::normal(0, 1)),
                  dout = g.parameter("dout", {length, kHeads * head_dim}, Init::normal(0, 1));
      // Attention and its gradients alone, as differentiate records them, and as the peer runs them.
      const Value out = g.causal_attention(q, k, v, kHeads, kKvHeads, head_dim);
      const MultiHeadAttn attn = std::get<MultiHeadAttn>(g.node(out).op);
      const std::vector<Value> in = {q, k, v, {out.node, 1}, dout, g.record(AttnDelta{attn.heads}, {out, dout})};
      g.output("dq", g.record(MultiHeadAttnGradQ{attn}, in));
      g.output("dk", g.record(MultiHeadAttnGradK{attn}, in));
      g.output("dv", g.record(MultiHeadAttnGradV{attn}, in));
      Session session(g, *settings.backend);
      std::vector<std::function<double()>> sides = {[&] { return timed_in_loop([&] { session.step(); }); },
                                                    [&] { return ceiling.product(); }};
      std::vector<std::string> peers;
      for (const PeerSide& side : settings.peers) {
        if (side.setup != "step" || length > 4096) continue;
        side.peer->ask("attention {\"length\": " + text(length) + ", \"head_dim\": " + text(head_dim) +
                       ", \"heads\": " + text(kHeads) + ", \"kv_heads\": " + text(kKvHeads) + ", \"causal\": true}");
        sides.push_back([peer = side.peer] { return peer->run(); });
        peers.push_back(side.peer->description());
      }
      const std::vector<double> times = alternate(sides, length > 4096 ? 3 : settings.rounds);
      const double flops =
          3.5 * 4 * static_cast<double>(kHeads * head_dim) * static_cast<double>(length) * static_cast<double>(length) / 2;
      const double rate = flops / times[0], limit = CeilingProbe::kProductFlops / times[1];
      Row row{"attention", name, times[0], {}, {}};
      for (std::size_t i = 0; i < peers.size(); ++i) row.peers.emplace_back(peers[i], times[i + 2]);
      row.more["GFLOP/s"] = rate / 1e9;
      row.more["% of GEMM"] = 100 * rate / limit;
      row.more["arena + workspace MB"] = static_cast<double>(session.plan().arena_bytes() + session.plan().workspace_bytes()) / 1e6;
      settings.add(row);
    }
  }
}

void bench_gemm(const Settings& settings) {
  struct Shape3 {
    std::int64_t m, n, k;
    bool transpose_a, transpose_b;
  };
  CeilingProbe ceiling(*settings.backend);
  for (const Shape3 s :
       {Shape3{1024, 1024, 1024, false, false}, Shape3{2048, 1024, 384, false, false}, Shape3{2048, 384, 1024, false, true},
        Shape3{384, 1024, 2048, true, false}, Shape3{2048, 384, 384, false, false}, Shape3{768, 344, 128, false, false},
        Shape3{768, 65, 128, false, true}, Shape3{1, 1408, 512, false, false}}) {
    const std::string name =
        text(s.m) + "x" + text(s.n) + "x" + text(s.k) + (s.transpose_a ? " at" : "") + (s.transpose_b ? " bt" : "");
    if (name.find(settings.only) == std::string::npos) continue;
    Graph g(1);
    const Value a = g.parameter("a", s.transpose_a ? Shape{s.k, s.m} : Shape{s.m, s.k}, Init::uniform(-1, 1));
    const Value b = g.parameter("b", s.transpose_b ? Shape{s.n, s.k} : Shape{s.k, s.n}, Init::uniform(-1, 1));
    g.output("c", g.matmul(a, b, s.transpose_a, s.transpose_b));
    Session session(g, *settings.backend);
    const double flops = 2.0 * static_cast<double>(s.m) * static_cast<double>(s.n) * static_cast<double>(s.k);
    const std::vector<double> times = alternate(
        {[&] { return timed_in_loop([&] { session.step(); }); }, [&] { return ceiling.product(); }}, settings.rounds);
    Row row{"gemm", name, times[0], {}, {}};
    row.more["GFLOP/s"] = flops / times[0] / 1e9;
    row.more["% of 1024^3"] = 100 * flops / times[0] / (CeilingProbe::kProductFlops / times[1]);
    settings.add(row);
  }
}

void bench_decode(const Settings& settings) {
  constexpr std::int64_t kCache = 4096;
  nn::LlamaConfig config;
  config.vocab_size = 4096;
  config.hidden_size = 512;
  config.num_layers = 8;
  config.num_heads = 8;
  config.num_kv_heads = 4;
  config.intermediate_size = 1408;
  Graph g(1);
  const nn::Llama model(g, config);
  std::vector<nn::KvCache> caches = model.make_caches(g, kCache);
  g.output("logits", model.decode(g, g.input_u32("id", {1}), caches, g.input_u32("kv_pos", {}), g.input_u32("kv_len", {})));
  Session session(g, *settings.backend);
  session.write("id", 1u);
  session.write("kv_pos", static_cast<std::uint32_t>(kCache - 1));
  session.write("kv_len", static_cast<std::uint32_t>(kCache));
  CeilingProbe ceiling(*settings.backend);
  const std::vector<double> times =
      alternate({[&] { return timed([&] { session.step(); }); }, [&] { return ceiling.read(); }}, settings.rounds * 3);
  const double weights = 4.0 * static_cast<double>(model.parameter_count());
  const double cache =
      2.0 * 4.0 * static_cast<double>(config.num_layers * kCache * config.num_kv_heads * (config.hidden_size / config.num_heads));
  const double rate = (weights + cache) / times[0], limit = CeilingProbe::kReadBytes / times[1];
  Row row{"decode", "28M, 4k cache, f32", times[0], {}, {}};
  row.more["tokens/s"] = 1 / times[0];
  row.more["GB/s"] = rate / 1e9;
  row.more["read GB/s"] = limit / 1e9;
  row.more["% of read"] = 100 * rate / limit;
  settings.add(row);
}
