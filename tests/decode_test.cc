// Decoding through the caches gives the rows of the causal pass, and packed sequences those of each alone: op by op, and in a Llama.
#include <gtest/gtest.h>

#include <cmath>

#include "graft/backend.h"
#include "graft/nn.h"
#include "graft/session.h"
#include "tests/plain_model.h"

namespace graft {
namespace {

using plain::values_for;

struct Where {
  std::string name;
  std::function<std::unique_ptr<Backend>()> make;
  bool f64;
  double rtol;  ///< of a row's norm
};
void PrintTo(const Where& where, std::ostream* out) { *out << where.name; }

const Where kEverywhere[] = {{"reference_f64", [] { return reference_backend(); }, true, 1e-13},
                             {"reference_f32", [] { return reference_backend(); }, false, 1e-5},
                             {"cpu_f32", [] { return cpu_backend(2); }, false, 1e-5}};

class Decode : public ::testing::TestWithParam<Where> {
 protected:
  Graph typed(const Graph& graph) const { return GetParam().f64 ? graph.to_f64() : graph; }

  void expect_row(const std::vector<double>& got, const std::vector<double>& all, std::size_t row, const std::string& what) const {
    double error = 0.0, norm = 0.0;
    for (std::size_t i = 0; i < got.size(); ++i) {
      const double want = all[row * got.size() + i];
      error += (got[i] - want) * (got[i] - want);
      norm += want * want;
    }
    ASSERT_GT(norm, 0.0);
    EXPECT_LE(std::sqrt(error), GetParam().rtol * std::sqrt(norm)) << what << ", row " << row;
  }

  std::unique_ptr<Backend> backend = GetParam().make();
};

class Segmented : public Decode {};
std::string name_of(const ::testing::TestParamInfo<Where>& info) { return info.param.name; }
INSTANTIATE_TEST_SUITE_P(Backends, Decode, ::testing::ValuesIn(kEverywhere), name_of);
INSTANTIATE_TEST_SUITE_P(Backends, Segmented, ::testing::ValuesIn(kEverywhere), name_of);

// ---- the ops alone

TEST_P(Decode, OpsGiveTheRowsOfTheCausalPass) {
  struct Heads {
    std::int64_t heads, kv_heads, head_dim;
  };
  for (const Heads h : {Heads{1, 1, 2}, Heads{6, 2, 8}, Heads{4, 4, 24}, Heads{8, 1, 80}}) {
    constexpr std::int64_t kSeq = 9, kMaxSeq = 13;
    constexpr double kTheta = 100.0, kScale = 0.7;
    const std::int64_t q_dim = h.heads * h.head_dim, kv_dim = h.kv_heads * h.head_dim;
    Graph prefill;
    const Value q = prefill.rope(prefill.input("q", {kSeq, q_dim}), kTheta, h.head_dim);
    const Value k = prefill.rope(prefill.input("k", {kSeq, kv_dim}), kTheta, h.head_dim);
    AttentionOptions options;
    options.scale = kScale;
    prefill.output("y",
                   prefill.causal_attention(q, k, prefill.input("v", {kSeq, kv_dim}), h.heads, h.kv_heads, h.head_dim, options));
    Session whole(typed(prefill), *backend);
    const std::vector<double> qs = values_for("q", kSeq * q_dim), ks = values_for("k", kSeq * kv_dim),
                              vs = values_for("v", kSeq * kv_dim);
    whole.write("q", qs);
    whole.write("k", ks);
    whole.write("v", vs);
    whole.step();

    Graph decode;
    const Value pos = decode.input_u32("kv_pos", {}), len = decode.input_u32("kv_len", {});
    const Value q1 = decode.rope_dynamic_offset(decode.input("q", {1, q_dim}), kTheta, pos, h.head_dim);
    const Value k1 = decode.rope_dynamic_offset(decode.input("k", {1, kv_dim}), kTheta, pos, h.head_dim);
    // Rows that were never written must not be read.
    const Value k_cache = decode.cache_write(k1, decode.state("k_cache", {kMaxSeq, kv_dim}, Init::fill(NAN)), pos);
    const Value v_cache =
        decode.cache_write(decode.input("v", {1, kv_dim}), decode.state("v_cache", {kMaxSeq, kv_dim}, Init::fill(NAN)), pos);
    decode.output("y", decode.cached_attention(q1, k_cache, v_cache, len, h.heads, h.kv_heads, h.head_dim, {.scale = kScale}));
    Session step(typed(decode), *backend);
    const auto row = [](const std::vector<double>& all, std::int64_t i, std::int64_t cols) {
      return std::vector<double>(all.begin() + i * cols, all.begin() + (i + 1) * cols);
    };
    for (std::int64_t i = 0; i < kSeq; ++i) {
      step.write("q", row(qs, i, q_dim));
      step.write("k", row(ks, i, kv_dim));
      step.write("v", row(vs, i, kv_dim));
      step.write("kv_pos", static_cast<std::uint32_t>(i));
      step.write("kv_len", static_cast<std::uint32_t>(i + 1));
      step.step();
      expect_row(step.read_f64("y"), whole.read_f64("y"), static_cast<std::size_t>(i), "head_dim " + std::to_string(h.head_dim));
    }
  }
}

// ---- a whole model: six query heads on two key/value heads, two layers

const nn::LlamaConfig kConfig = {.vocab_size = 17,
                                 .hidden_size = 24,
                                 .intermediate_size = 32,
                                 .num_layers = 2,
                                 .num_heads = 6,
                                 .num_kv_heads = 2,
                                 .rope_theta = 100.0,
                                 .dropout = 0.0};

/// Everything that changes what a token sees or where it stands.
const nn::LlamaConfig kAllOptions = {.vocab_size = 17,
                                     .hidden_size = 24,
                                     .intermediate_size = 32,
                                     .num_layers = 2,
                                     .num_heads = 6,
                                     .num_kv_heads = 2,
                                     .head_dim = 6,
                                     .rope_theta = 100.0,
                                     .rope_scaling = {RopeScaling::Kind::llama3, 4.0, 1.0, 4.0, 24},
                                     .qkv_bias = true,
                                     .o_bias = true,
                                     .mlp_bias = true,
                                     .window = 4,
                                     .full_layers = 1,
                                     .dropout = 0.0};

const std::vector<std::uint32_t> kText = {3, 16, 0, 3, 7, 7, 11, 2, 15, 1, 9, 4};
const std::vector<std::uint32_t> kOther = {8, 8, 5, 14, 0};

/// Weights far from their small initial values, so that every part of the model matters.
void set_weights(Session& session) {
  for (const Value p : session.graph().parameters()) {
    const std::string& name = session.graph().node(p).name;
    session.write(name, values_for(name, session.graph().shape(p).size()));
  }
}

Graph forward_graph(std::size_t rows, const nn::LlamaConfig& config = kConfig) {
  Graph g;
  const nn::Llama model(g, config);
  g.output("logits", model.forward(g, g.input_u32("ids", {static_cast<std::int64_t>(rows)})));
  return g;
}

Graph decode_graph(std::int64_t max_seq, const nn::LlamaConfig& config = kConfig) {
  Graph g;
  const nn::Llama model(g, config);
  std::vector<nn::KvCache> caches = model.make_caches(g, max_seq);
  g.output("logits", model.decode(g, g.input_u32("id", {1}), caches, g.input_u32("kv_pos", {}), g.input_u32("kv_len", {})));
  return g;
}

std::vector<double> logits_of(Session& session, const std::vector<std::uint32_t>& ids) {
  session.write("ids", ids);
  session.step();
  return session.read_f64("logits");
}

TEST_P(Decode, LlamaGivesTheRowsOfTheCausalPass) {
  for (const nn::LlamaConfig& config : {kConfig, kAllOptions}) {
    Session whole(typed(forward_graph(kText.size(), config)), *backend);
    set_weights(whole);
    const std::vector<double> want = logits_of(whole, kText);
    Session other(typed(forward_graph(kOther.size(), config)), whole);
    const std::vector<double> want_other = logits_of(other, kOther);

    Session step(typed(decode_graph(static_cast<std::int64_t>(kText.size()), config)), whole);
    const auto expect_decodes = [&](const std::vector<std::uint32_t>& ids, const std::vector<double>& rows) {
      for (std::uint32_t i = 0; i < ids.size(); ++i) {
        step.write("id", ids[i]);
        step.write("kv_pos", i);
        step.write("kv_len", i + 1);
        step.step();
        expect_row(step.read_f64("logits"), rows, i, "token");
      }
    };
    expect_decodes(kText, want);
    expect_decodes(kOther, want_other);  // over a cache that still holds the first text
  }
}

// ---- segments

Graph segmented_graph(std::size_t rows, const std::function<Segments(Graph&)>& segments) {
  Graph g;
  const nn::Llama model(g, kConfig);
  g.output("logits", model.forward(g, g.input_u32("ids", {static_cast<std::int64_t>(rows)}), segments(g)));
  return g;
}

TEST_P(Segmented, PackedSequencesGiveTheRowsOfEachAlone) {
  std::vector<std::uint32_t> both = kText;
  both.insert(both.end(), kOther.begin(), kOther.end());
  const auto n = static_cast<std::uint32_t>(kText.size()), all = static_cast<std::uint32_t>(both.size());
  Session packed(typed(segmented_graph(both.size(), [](Graph& g) { return Segments::packed(g.input_u32("offsets", {4})); })),
                 *backend);
  set_weights(packed);
  packed.write("offsets", std::vector<std::uint32_t>{0, n, n, all});  // an empty sequence between the two
  const std::vector<double> got = logits_of(packed, both);

  Session first(typed(forward_graph(kText.size())), packed);
  Session second(typed(forward_graph(kOther.size())), packed);
  std::vector<double> want = logits_of(first, kText);
  const std::vector<double> rest = logits_of(second, kOther);
  want.insert(want.end(), rest.begin(), rest.end());
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t row = 0; row < both.size(); ++row) {
    const auto begin = got.begin() + static_cast<std::ptrdiff_t>(row * 17);
    expect_row({begin, begin + 17}, want, row, "packed");
  }
}

TEST_P(Segmented, UniformSequencesGiveTheRowsOfEachAlone) {
  Session uniform(typed(segmented_graph(kText.size(), [](Graph&) { return Segments::uniform(4); })), *backend);
  set_weights(uniform);
  const std::vector<double> got = logits_of(uniform, kText);
  Session alone(typed(forward_graph(4)), uniform);
  for (std::size_t sequence = 0; sequence < 3; ++sequence) {
    const auto ids = kText.begin() + static_cast<std::ptrdiff_t>(4 * sequence);
    const std::vector<double> want = logits_of(alone, {ids, ids + 4});
    for (std::size_t row = 0; row < 4; ++row) {
      const auto begin = got.begin() + static_cast<std::ptrdiff_t>((4 * sequence + row) * 17);
      expect_row({begin, begin + 17}, want, row, "sequence " + std::to_string(sequence));
    }
  }
}

}  // namespace
}  // namespace graft
