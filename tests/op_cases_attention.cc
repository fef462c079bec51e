// Cases of attention, rotary embedding and the KV cache.
#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <string_view>

#include "tests/op_cases.h"

namespace graft::testing {
namespace {

using Kind = Mask::Kind;
using Offsets = std::vector<double>;

struct Attention {
  std::string name;
  std::int64_t q_rows, kv_rows, heads, kv_heads, head_dim;
  Kind mask = Kind::causal;
  std::int64_t window = 0;
  std::optional<double> scale = {};
  std::int64_t q_length = 0, kv_length = 0;  // uniform segments
  Offsets q_offsets = {}, kv_offsets = {};   // packed segments
  bool blind_rows = false;                   // some rows see nothing: lse is −inf there, and exp(lse) stands in as the output
  double spread = 1.0;                       // standard deviation of q and k
};

OpCase attention(const Attention& a) {
  OpCase c;
  c.name = "multi_head_attn_" + a.name;
  c.build = [a](Graph& g) {
    const Value q = g.input("q", {a.q_rows, a.heads * a.head_dim});
    const Value k = g.input("k", {a.kv_rows, a.kv_heads * a.head_dim}), v = g.input("v", {a.kv_rows, a.kv_heads * a.head_dim});
    AttentionOptions options;
    options.scale = a.scale;
    options.window = a.window;
    options.mask = a.mask;
    if (a.q_length > 0) options.segments = Segments::uniform(a.q_length, a.kv_length);
    if (!a.q_offsets.empty()) {
      const Shape shape{static_cast<std::int64_t>(a.q_offsets.size())};
      const Value q_offsets = g.input_u32("q_offsets", shape);
      options.segments = Segments::packed(q_offsets, a.kv_offsets.empty() ? q_offsets : g.input_u32("kv_offsets", shape));
    }
    const Value out = g.multi_head_attn(q, k, v, a.heads, a.kv_heads, a.head_dim, true, options);
    const Value lse{out.node, 1};
    g.output("out", out);
    g.output("lse", a.blind_rows ? g.exp(lse) : lse);
  };
  if (!a.q_offsets.empty()) c.inputs["q_offsets"] = a.q_offsets;
  if (!a.kv_offsets.empty()) c.inputs["kv_offsets"] = a.kv_offsets;
  c.fills["q"] = c.fills["k"] = {Fill::Kind::normal, 0.0, a.spread};
  return c;
}

std::vector<Attention> head_specs() {
  std::vector<Attention> specs;
  for (const std::int64_t dim : {1, 2, 8, 24, 64, 80, 128, 256}) {
    specs.push_back({"dim" + std::to_string(dim) + "_causal", 5, 5, 2, 1, dim});
    specs.push_back({"dim" + std::to_string(dim) + "_batch_of_3", 9, 12, 2, 2, dim, Kind::full, 0, {}, 3, 4});
  }
  for (const std::int64_t group : {1, 2, 4, 8}) {
    const std::string gqa = "gqa" + std::to_string(group);
    specs.push_back({gqa + "_causal", 6, 6, 8, 8 / group, 3});
    specs.push_back({gqa + "_full", 6, 6, 8, 8 / group, 3, Kind::full});
    specs.push_back({gqa + "_causal_ragged", 9, 9, 8, 8 / group, 2, Kind::causal, 0, {}, 0, 0, {0, 3, 3, 4, 9}});
    specs.push_back({gqa + "_cross", 3, 7, 8, 8 / group, 3, Kind::full});
  }
  specs.push_back({"gqa3_of_6", 5, 5, 6, 2, 4});
  return specs;
}

std::vector<Attention> length_specs() {
  return {
      {"one_row", 1, 1, 2, 1, 4},
      {"one_row_of_many_keys", 1, 7, 2, 1, 4},
      {"cross_q_longer", 7, 3, 2, 1, 4, Kind::full},
      {"causal_q_shorter", 3, 7, 2, 1, 4},
      {"causal_q_longer_blind_rows", 7, 3, 2, 1, 4, Kind::causal, 0, {}, 0, 0, {}, {}, true},
      {"uniform_causal", 9, 9, 2, 1, 4, Kind::causal, 0, {}, 3, 3},
      {"uniform_rows_alone", 5, 5, 2, 1, 4, Kind::causal, 0, {}, 1, 1},
      {"uniform_causal_q_shorter", 4, 8, 2, 1, 4, Kind::causal, 0, {}, 2, 4},
      {"uniform_causal_q_longer_blind_rows", 8, 4, 2, 1, 4, Kind::causal, 0, {}, 4, 2, {}, {}, true},
      {"uniform_window", 10, 10, 2, 1, 4, Kind::window, 2, {}, 5, 5},
      {"packed_full", 9, 9, 2, 1, 4, Kind::full, 0, {}, 0, 0, {0, 3, 3, 4, 9}},
      {"packed_first_and_last_empty", 6, 6, 2, 1, 4, Kind::causal, 0, {}, 0, 0, {0, 0, 5, 6, 6}},
      {"packed_one_segment", 5, 5, 2, 1, 4, Kind::causal, 0, {}, 0, 0, {0, 5}},
      {"packed_cross", 6, 9, 2, 1, 4, Kind::full, 0, {}, 0, 0, {0, 2, 2, 5, 6}, {0, 4, 5, 7, 9}},
      {"packed_cross_blind_rows", 6, 9, 2, 1, 4, Kind::full, 0, {}, 0, 0, {0, 2, 2, 5, 6}, {0, 3, 5, 5, 9}, true},
      {"packed_causal_bottom_right", 6, 9, 2, 1, 4, Kind::causal, 0, {}, 0, 0, {0, 2, 2, 5, 6}, {0, 4, 5, 7, 9}, true},
      {"packed_window", 9, 9, 4, 2, 3, Kind::window, 2, {}, 0, 0, {0, 3, 3, 4, 9}},
      {"packed_window_blind_rows", 8, 6, 2, 1, 4, Kind::window, 2, {}, 0, 0, {0, 5, 6, 8}, {0, 2, 4, 6}, true},
      {"window_1", 7, 7, 2, 1, 4, Kind::window, 1},
      {"window_3", 7, 7, 2, 1, 4, Kind::window, 3},
      {"window_of_whole_length", 7, 7, 2, 1, 4, Kind::window, 7},
      {"window_longer_than_length", 7, 7, 2, 1, 4, Kind::window, 100},
      {"window_longer_than_ints", 7, 7, 2, 1, 4, Kind::window, (std::int64_t{1} << 32) + 2},
      {"window_q_shorter", 3, 8, 2, 1, 4, Kind::window, 2},
      {"window_of_all_keys_but_the_first", 1, 7, 2, 1, 4, Kind::window, 6},
      {"window_q_longer_blind_rows", 8, 3, 2, 1, 4, Kind::window, 2, {}, 0, 0, {}, {}, true},
      {"scale_given", 5, 5, 2, 1, 4, Kind::causal, 0, 0.3},
      {"scale_zero", 5, 5, 2, 1, 8, Kind::causal, 0, 0.0},
      {"scale_one", 5, 5, 2, 1, 4, Kind::full, 0, 1.0},
      {"large_logits", 6, 6, 2, 1, 4, Kind::causal, 0, 0.5, 0, 0, {}, {}, false, 8.0},
      {"large_logits_full_dim64", 5, 5, 2, 1, 64, Kind::full, 0, 0.125, 0, 0, {}, {}, false, 7.0},
  };
}

/// Longer than the blocks of a fast kernel, and not a multiple of any.
std::vector<Attention> long_specs() {
  return {
      {"long_causal_gqa2", 130, 130, 4, 2, 16},
      {"long_full_dim80", 133, 133, 2, 1, 80, Kind::full},
      {"long_causal_dim128", 70, 200, 2, 1, 128},
      {"long_causal_blind_rows", 200, 70, 2, 1, 16, Kind::causal, 0, {}, 0, 0, {}, {}, true},
      {"long_cross", 37, 257, 3, 3, 24, Kind::full},
      {"long_window", 200, 200, 2, 1, 16, Kind::window, 50},
      {"long_window_1", 150, 150, 2, 1, 16, Kind::window, 1},
      {"long_window_q_shorter", 100, 190, 2, 2, 8, Kind::window, 70},
      {"long_batch_dim256", 130, 130, 2, 1, 256, Kind::causal, 0, {}, 65, 65},
      {"long_ragged", 200, 200, 4, 1, 16, Kind::causal, 0, {}, 0, 0, {0, 1, 1, 67, 68, 131, 200}},
      {"long_ragged_window", 200, 200, 2, 2, 16, Kind::window, 33, {}, 0, 0, {0, 64, 65, 130, 200}},
      {"long_ragged_cross_blind_rows", 131, 200, 2, 1, 16, Kind::causal, 0, {}, 0, 0, {0, 66, 100, 131}, {0, 130, 130, 200}, true},
      {"long_large_logits", 140, 140, 2, 1, 16, Kind::causal, 0, 0.5, 0, 0, {}, {}, false, 5.0},
      {"tiles_causal", 257, 257, 2, 1, 3},
      {"tiles_window", 400, 400, 1, 1, 8, Kind::window, 270},  // whole tiles of keys between the window's ends
      {"tiles_window_far_from_the_first_keys", 128, 390, 1, 1, 4, Kind::window, 20},
      {"tiles_packed_causal", 300, 390, 2, 2, 5, Kind::causal, 0, {}, 0, 0, {0, 130, 131, 300}, {0, 130, 200, 390}},
  };
}

/// Those that are run in bf16 too.
constexpr std::array<std::string_view, 14> kNarrow = {
    "dim1_causal",        "dim24_batch_of_3",        "dim80_causal",     "dim256_batch_of_3",
    "gqa4_causal_ragged", "packed_cross_blind_rows", "window_q_shorter", "uniform_causal_q_longer_blind_rows",
    "scale_given",        "long_causal_gqa2",        "long_full_dim80",  "long_ragged_window",
    "long_cross",         "scale_zero"};

using Build = Value (Graph::*)(Value, Value, Value, std::int64_t, std::int64_t, std::int64_t, const AttentionOptions&,
                               std::string_view);

OpCase named(const std::string& name, Build build, std::int64_t q_rows, std::int64_t kv_rows, std::int64_t window = 0) {
  return {name, [=](Graph& g) {
            AttentionOptions options;
            options.window = window;
            const Value q = g.input("q", {q_rows, 12}), k = g.input("k", {kv_rows, 6}), v = g.input("v", {kv_rows, 6});
            g.output("out", (g.*build)(q, k, v, 4, 2, 3, options, {}));
          }};
}

/// The attention of `spec` and one of its gradients, recorded by hand. op(attn, {q, k, v, lse, dout, delta[, offsets]})
OpCase direct(const std::string& name, Mask mask, bool packed, const std::function<Op(const MultiHeadAttn&)>& op) {
  return {name,
          [=](Graph& g) {
            const AttentionShape heads = {4, 2, 6};
            MultiHeadAttn attn = {heads, mask, 0.4, {}};
            std::vector<Value> in = {g.input("q", {7, 24}), g.input("k", {7, 12}), g.input("v", {7, 12})};
            std::vector<Value> offsets;
            if (packed) {
              attn.segments.kind = SegmentLayout::Kind::packed;
              offsets.assign(2, g.input_u32("offsets", {4}));
            }
            std::vector<Value> forward = in;
            forward.insert(forward.end(), offsets.begin(), offsets.end());
            const Value out = g.record(attn, forward), dout = g.input("dout", {7, 24});
            in.insert(in.end(), {Value{out.node, 1}, dout, g.record(AttnDelta{heads}, {out, dout})});
            in.insert(in.end(), offsets.begin(), offsets.end());
            g.output("gradient", g.record(op(attn), in));
          },
          packed ? Inputs{{"offsets", {0, 4, 4, 7}}} : Inputs{}};
}

OpCases direct_cases(const std::string& name, const std::function<Op(const MultiHeadAttn&)>& op) {
  const OpCases all = {direct(name + "_full", {}, false, op), direct(name + "_causal_ragged", {Kind::causal}, true, op),
                       direct(name + "_window", {Kind::window, 2}, false, op)};
  return {all[0], all[1], all[2], in_bf16(all[1])};
}

OpCase rope(const std::string& name, Shape shape, Rope op, std::optional<double> offset = {}, Offsets segments = {}) {
  Inputs inputs;
  if (offset) inputs["offset"] = {*offset};
  if (!segments.empty()) inputs["segments"] = segments;
  const auto count = static_cast<std::int64_t>(segments.size());
  return {"rope_" + name,
          [=](Graph& g) {
            std::vector<Value> in = {g.input("x", shape)};
            Rope node = op;
            if (offset) {
              node.dynamic = true;
              in.push_back(g.input_u32("offset", {}));
            }
            if (count > 0) {
              node.segments.kind = SegmentLayout::Kind::packed;
              in.push_back(g.input_u32("segments", {count}));
            }
            g.output("out", g.record(node, in));
          },
          inputs};
}

OpCase cached(const std::string& name, std::int64_t max_seq, std::int64_t heads, std::int64_t kv_heads, std::int64_t dim,
              double kv_len, std::optional<double> scale = {}, std::int64_t window = 0) {
  return {"cached_attention_" + name,
          [=](Graph& g) {
            const Value q = g.input("q", {1, heads * dim});
            const Value k = g.input("k", {max_seq, kv_heads * dim}), v = g.input("v", {max_seq, kv_heads * dim});
            g.output("out", g.cached_attention(q, k, v, g.input_u32("kv_len", {}), heads, kv_heads, dim,
                                               {.scale = scale, .window = window}));
          },
          {{"kv_len", {kv_len}}}};
}

/// t queries of each of the sequences whose kv_len is given; with slots, in caches of `sequences`.
struct Batch {
  std::string name;
  std::int64_t t, max_seq, heads, kv_heads, dim;
  std::vector<double> kv_len;
  std::int64_t window = 0, sequences = 0;
  std::vector<double> slots = {};
};

OpCase cached(const Batch& batch) {
  OpCase made = {"cached_attention_" + batch.name,
                 [=](Graph& g) {
                   const auto n = static_cast<std::int64_t>(batch.kv_len.size());
                   const std::int64_t rows = batch.max_seq * (batch.sequences > 0 ? batch.sequences : n),
                                      cols = batch.kv_heads * batch.dim;
                   const Value q = g.input("q", {n * batch.t, batch.heads * batch.dim});
                   const Value k = g.input("k", {rows, cols}), v = g.input("v", {rows, cols}), kv_len = g.input_u32("kv_len", {n});
                   CacheOptions options;
                   options.window = batch.window;
                   if (batch.sequences > 0) options.slots = {batch.sequences, g.input_u32("slots", {n})};
                   g.output("out", g.cached_attention(q, k, v, kv_len, batch.heads, batch.kv_heads, batch.dim, options));
                 },
                 {{"kv_len", batch.kv_len}}};
  if (batch.sequences > 0) made.inputs["slots"] = batch.slots;
  return made;
}

/// `t` rows for each of the positions given; with slots, into a cache of `sequences`.
OpCase written(const std::string& name, std::int64_t t, std::int64_t max_seq, const std::vector<double>& kv_pos,
               std::int64_t sequences = 0, const std::vector<double>& slots = {}, std::int64_t cols = 5) {
  OpCase made = {"cache_write_" + name,
                 [=](Graph& g) {
                   const auto n = static_cast<std::int64_t>(kv_pos.size());
                   const Value cache = g.state("cache", {max_seq * (sequences > 0 ? sequences : n), cols}, Init::normal(0.0, 1.0));
                   const Value rows = g.input("rows", {n * t, cols}), at = g.input_u32("kv_pos", {n});
                   g.output("out", sequences > 0 ? g.cache_write(rows, cache, at, CacheSlots{sequences, g.input_u32("slots", {n})})
                                                 : g.cache_write(rows, cache, at));
                 },
                 {{"kv_pos", kv_pos}}};
  if (sequences > 0) made.inputs["slots"] = slots;
  return made;
}

OpCase written(const std::string& name, std::int64_t max_seq, double kv_pos) {
  return {"cache_write_" + name,
          [=](Graph& g) {
            const Value cache = g.state("cache", {max_seq, 6}, Init::normal(0.0, 1.0));
            g.output("out", g.cache_write(g.input("row", {1, 6}), cache, g.input_u32("kv_pos", {})));
          },
          {{"kv_pos", {kv_pos}}}};
}

}  // namespace

OpCases cases(std::type_identity<MultiHeadAttn>) {
  OpCases all;
  for (const auto& specs : {head_specs(), length_specs(), long_specs()})
    for (const Attention& spec : specs) {
      all.push_back(attention(spec));
      if (std::find(kNarrow.begin(), kNarrow.end(), spec.name) != kNarrow.end()) all.push_back(in_bf16(all.back()));
    }
  all.push_back(named("causal_attention", &Graph::causal_attention, 5, 5));
  all.push_back(named("causal_attention_window", &Graph::causal_attention, 5, 5, 2));
  all.push_back(named("causal_attention_q_shorter", &Graph::causal_attention, 3, 5));
  all.push_back(named("full_attention", &Graph::full_attention, 5, 5));
  all.push_back(named("cross_attention", &Graph::cross_attention, 4, 6));
  for (const bool is_cross : {false, true})
    all.push_back({is_cross ? "multi_head_attn_is_cross" : "multi_head_attn_is_self", [=](Graph& g) {
                     const Value q = g.input("q", {4, 8}), kv = g.input("kv", {is_cross ? 6 : 4, 4});
                     g.output("out", g.multi_head_attn(q, kv, g.tanh(kv), 2, 1, 4, is_cross));
                   }});
  all.push_back({"multi_head_attn_of_one_value", [](Graph& g) {
                   const Value x = g.input("x", {5, 6});
                   g.output("out", g.causal_attention(x, x, x, 2, 2, 3));
                 }});
  all.push_back(
      {"multi_head_attn_lse_alone", [](Graph& g) {
         const Value out = g.multi_head_attn(g.input("q", {5, 16}), g.input("k", {5, 8}), g.constant({5, 8}, {0.5}), 2, 1, 8, false);
         g.output("lse", {out.node, 1});
       }});
  all.push_back(in_bf16(all.back()));
  // keys that grow with their position, in a batch: wrong tiles of later sequences cannot hide among alike numbers
  OpCase ordered = attention({"dim256_batch_of_ordered_keys", 8, 8, 2, 1, 256, Kind::causal, 0, 1.0 / 256, 4, 4});
  for (std::int64_t row = 0; row < 8; ++row)
    for (std::int64_t d = 0; d < 256; ++d) ordered.inputs["k"].push_back(0.25 * static_cast<double>((row + 1) * (d % 7 - 3)));
  all.push_back(ordered);
  return all;
}

OpCases cases(std::type_identity<AttnDelta>) {
  return {
      {"attn_delta_direct",
       [](Graph& g) {
         g.output("delta", g.record(AttnDelta{{3, 1, 7}}, {g.input("out", {5, 21}), g.input("dout", {5, 21})}));
       }},
      in_bf16(OpCase{"attn_delta_wide", [](Graph& g) {
                       g.output("delta", g.record(AttnDelta{{3, 1, 37}}, {g.input("out", {5, 111}), g.input("dout", {5, 111})}));
                     }})};
}

OpCases cases(std::type_identity<MultiHeadAttnGradQ>) {
  return direct_cases("multi_head_attn_grad_q", [](const MultiHeadAttn& attn) { return MultiHeadAttnGradQ{attn}; });
}
OpCases cases(std::type_identity<MultiHeadAttnGradK>) {
  return direct_cases("multi_head_attn_grad_k", [](const MultiHeadAttn& attn) { return MultiHeadAttnGradK{attn}; });
}
OpCases cases(std::type_identity<MultiHeadAttnGradV>) {
  return direct_cases("multi_head_attn_grad_v", [](const MultiHeadAttn& attn) { return MultiHeadAttnGradV{attn}; });
}

OpCases cases(std::type_identity<Rope>) {
  OpCases all = {
      rope("one_head", {5, 8}, {.head_dim = 8, .segments = {}}),
      rope("three_heads", {5, 24}, {.head_dim = 8, .segments = {}}),
      rope("dim2", {5, 6}, {.head_dim = 2, .segments = {}}),
      rope("dim80", {7, 160}, {.head_dim = 80, .segments = {}}),
      rope("dim256", {3, 256}, {.head_dim = 256, .segments = {}}),
      rope("dim264", {2, 528}, {.head_dim = 264, .segments = {}}, 3),
      rope("theta_of_llama3", {5, 8}, {.theta = 500000.0, .head_dim = 8, .segments = {}}),
      rope("offset", {5, 8}, {.head_dim = 4, .offset = 3, .segments = {}}),
      rope("far_offset", {5, 8}, {.head_dim = 8, .offset = 100003, .segments = {}}),
      rope("inverse", {5, 8}, {.head_dim = 4, .offset = 2, .inverse = true, .segments = {}}),
      rope("dynamic_offset", {5, 8}, {.head_dim = 4, .segments = {}}, 11),
      rope("dynamic_offset_0", {5, 8}, {.head_dim = 4, .segments = {}}, 0),
      rope("dynamic_and_static_offset", {5, 8}, {.head_dim = 4, .offset = 2, .segments = {}}, 5),
      rope("dynamic_offset_inverse", {5, 8}, {.head_dim = 4, .inverse = true, .segments = {}}, 11),
      rope("dynamic_far_offset", {1, 64}, {.head_dim = 64, .segments = {}}, 131071),
      rope("uniform", {6, 8}, {.head_dim = 4, .segments = {SegmentLayout::Kind::uniform, 3, 3}}),
      rope("uniform_dynamic", {6, 8}, {.head_dim = 4, .offset = 1, .segments = {SegmentLayout::Kind::uniform, 2, 2}}, 7),
      rope("packed", {9, 8}, {.head_dim = 4, .segments = {}}, {}, {0, 3, 3, 4, 9}),
      rope("packed_dynamic", {9, 8}, {.head_dim = 4, .offset = 1, .segments = {}}, 7, {0, 0, 3, 4, 9}),
      rope("linear_scaling", {5, 8}, {.head_dim = 8, .offset = 3, .segments = {}, .scaling = {RopeScaling::Kind::linear, 2.5}}),
      // wavelengths 6, 63, 628, 6283: one below 128 / 4, one between, two above 128 / 2
      rope("llama3_scaling", {5, 8},
           {.head_dim = 8, .offset = 40, .segments = {}, .scaling = {RopeScaling::Kind::llama3, 8.0, 2.0, 4.0, 128}}),
      rope("llama3_scaling_between", {5, 16},
           {.head_dim = 16, .offset = 40, .segments = {}, .scaling = {RopeScaling::Kind::llama3, 3.0, 1.0, 40.0, 300}}),
      rope("llama3_scaling_inverse", {5, 8},
           {.head_dim = 8, .inverse = true, .segments = {}, .scaling = {RopeScaling::Kind::llama3, 8.0, 1.0, 4.0, 128}}, 70),
      rope("millionth_row", {1, 16}, {.head_dim = 16, .offset = 999999, .segments = {}}),
      rope("long", {300, 48}, {.head_dim = 24, .segments = {}}),
      rope("long_dim16", {300, 48}, {.head_dim = 16, .segments = {}}),
  };
  for (const OpCase& c : OpCases(all))
    for (const char* name :
         {"rope_three_heads", "rope_dim2", "rope_packed_dynamic", "rope_long", "rope_long_dim16", "rope_inverse"})
      if (c.name == name) all.push_back(in_bf16(c));
  const Offsets offsets = {9, 0, 4};
  all.push_back(
      {"rope_offset_a_row",
       [](Graph& g) {
         g.output("out", g.rope_dynamic_offset(g.input("x", {3, 8}), 50.0, g.input_u32("offset", {3}), 4, Segments::uniform(1)));
       },
       {{"offset", offsets}}});
  all.push_back(
      {"rope_offset_a_uniform_segment",
       [](Graph& g) {
         g.output("out", g.rope_dynamic_offset(g.input("x", {6, 8}), 50.0, g.input_u32("offset", {3}), 4, Segments::uniform(2)));
       },
       {{"offset", offsets}}});
  all.push_back({"rope_offset_a_packed_segment",
                 [](Graph& g) {
                   const Segments segments = Segments::packed(g.input_u32("segments", {4}));
                   g.output("out", g.rope_dynamic_offset(g.input("x", {80, 4}), 50.0, g.input_u32("offset", {3}), 4, segments));
                 },
                 {{"offset", offsets}, {"segments", {0, 70, 70, 80}}}});
  all.push_back({"rope_graph_methods",
                 [](Graph& g) {
                   const Value x = g.input("x", {4, 8}), offset = g.input_u32("offset", {});
                   g.output("rope", g.rope(x, 10000.0, 4));
                   g.output("static", g.rope_with_offset(x, 100.0, 5, 8, Segments::uniform(2)));
                   g.output("dynamic", g.rope_dynamic_offset(x, 50.0, offset, 2));
                   g.output("scaled", g.rope(x, 10.0, 4, {}, {RopeScaling::Kind::linear, 3.0}));
                   g.output("scaled_static", g.rope_with_offset(x, 10.0, 5, 8, {}, {RopeScaling::Kind::linear, 4.0}));
                   g.output("scaled_dynamic", g.rope_dynamic_offset(x, 10.0, offset, 4, {}, {RopeScaling::Kind::linear, 5.0}));
                 },
                 {{"offset", {9}}}});
  return all;
}

OpCases cases(std::type_identity<CachedAttention>) {
  OpCases all;
  for (int kv_len = 1; kv_len <= 5; ++kv_len) all.push_back(cached("kv_len_" + std::to_string(kv_len), 5, 4, 2, 3, kv_len));
  for (const std::int64_t group : {1, 2, 4, 8}) all.push_back(cached("gqa" + std::to_string(group), 9, 8, 8 / group, 5, 7));
  for (const std::int64_t dim : {1, 8, 17, 24, 64, 80, 128, 256}) all.push_back(cached("dim" + std::to_string(dim), 6, 2, 1, dim, 4));
  all.push_back(cached("long", 300, 4, 2, 16, 201));
  all.push_back(cached("long_dim136", 257, 1, 1, 136, 140));
  all.push_back(cached("long_and_full", 257, 4, 1, 24, 257));
  all.push_back(cached("scale_given", 6, 2, 1, 4, 5, 0.3));
  all.push_back(cached("window_1", 6, 4, 2, 3, 5, {}, 1));
  all.push_back(cached("window_3", 6, 4, 2, 3, 5, {}, 3));
  all.push_back(cached("window_of_whole_length", 6, 2, 1, 4, 5, {}, 5));
  all.push_back(cached("window_longer_than_length", 6, 2, 1, 4, 5, {}, 6));
  all.push_back(cached("long_window", 700, 4, 2, 8, 650, {}, 300));
  for (OpCase large : {cached("large_logits", 6, 2, 1, 4, 5, 0.5), cached("long_large_logits", 300, 2, 1, 24, 201, 0.5)}) {
    large.fills["q"] = large.fills["k"] = {Fill::Kind::normal, 0.0, 6.0};
    all.push_back(large);
  }
  OpCase low = cached("low_logits_and_a_part_without_keys", 600, 1, 1, 24, 3, 1.0);
  low.fills["q"] = {Fill::Kind::uniform, 1.0, 1.01};
  low.fills["k"] = {Fill::Kind::uniform, -4.8, -4.7};
  all.push_back(low);
  OpCase infinite = cached("logit_of_minus_infinity", 6, 1, 1, 2, 4);
  infinite.inputs["q"] = {1, 2};
  infinite.inputs["k"] = {1, 0.5, -INFINITY, 1, 0, 1, 0.25, 0, 1, 1, 1, 1};
  all.push_back(infinite);
  const Batch batches[] = {
      {"batch", 1, 7, 4, 2, 3, {5, 1, 7}},
      {"batch_long", 1, 600, 4, 1, 24, {600, 3, 256, 257, 80}},
      {"batch_slots", 1, 6, 2, 1, 8, {4, 6}, 0, 5, {3, 0}},
      {"batch_window", 1, 9, 4, 2, 5, {9, 3, 4}, 4},
      {"batch_window_1", 1, 9, 2, 2, 4, {7, 1}, 1},
      {"batch_window_long", 1, 700, 2, 1, 16, {690, 300, 20}, 290},
      {"chunk", 4, 9, 4, 2, 6, {7}},
      {"chunk_from_0", 4, 6, 2, 1, 3, {4}},
      {"chunk_longer_than_kv_len", 4, 6, 2, 1, 3, {2}},
      {"chunk_longer_than_kv_len_in_parts", 4, 257, 1, 1, 8, {2}},
      {"chunk_full", 5, 5, 2, 1, 3, {5}},
      {"chunk_window", 5, 12, 4, 2, 5, {11}, 3},
      {"chunk_tiles", 70, 200, 4, 2, 20, {150}},
      {"chunk_tiles_window", 70, 200, 2, 1, 16, {170}, 40},
      {"chunks", 3, 8, 4, 1, 7, {3, 8, 5}},
      {"chunks_tiles", 66, 140, 2, 1, 16, {66, 140}},
      {"chunk_slot", 3, 7, 2, 2, 8, {6}, 0, 4, {2}},
      {"chunks_slots", 3, 7, 4, 2, 8, {6, 3}, 2, 5, {4, 1}},
      {"chunks_slots_tiles", 40, 90, 4, 2, 8, {75, 33}, 0, 3, {2, 0}},
      {"chunk_of_32", 32, 70, 2, 1, 72, {70}},
  };
  for (const Batch& batch : batches) {
    all.push_back(cached(batch));
    for (const char* name : {"batch_slots", "batch_window_long", "chunks", "chunk_tiles_window", "chunk_tiles", "chunks_tiles", "chunks_slots_tiles", "chunk_of_32"})
      if (batch.name == name) all.push_back(in_bf16(all.back()));
  }
  return all;
}

OpCases cases(std::type_identity<CacheWrite>) {
  OpCases all = {written("first_row", 4, 0), written("middle_row", 4, 2), written("last_row", 4, 3), written("only_row", 1, 0)};
  all.push_back(written("batch", 1, 4, {2, 0, 3}));
  all.push_back(written("chunk", 3, 7, {4}));
  all.push_back(written("chunks", 2, 4, {2, 0, 1}));
  all.push_back(written("slots", 1, 4, {2, 3}, 5, {3, 1}));
  all.push_back(written("chunks_slots", 3, 5, {2, 0}, 3, {2, 0}));
  all.push_back(in_bf16(all.back()));
  all.push_back(written("slot_twice", 3, 7, {1, 2, 0, 4}, 2, {1, 1, 0, 1}));
  all.push_back(written("slot_twice_falling", 3, 7, {4, 2, 0, 1}, 2, {1, 1, 0, 1}));
  all.push_back(written("slot_twice_many", 1, 2, std::vector<double>(40, 1.0), 2, std::vector<double>(40, 1.0)));
  all.push_back(written("wide", 2, 3, {0, 1}, 0, {}, 1032));
  all.push_back({"cache_write_then_read",
                 [](Graph& g) {
                   const Value k = g.state("k", {4, 6}, Init::normal(0.0, 1.0)), v = g.state("v", {4, 6}, Init::normal(0.0, 1.0));
                   const Value kv_pos = g.input_u32("kv_pos", {}), row = g.input("row", {1, 6});
                   const Value new_k = g.cache_write(row, k, kv_pos), new_v = g.cache_write(g.scale(row, 2.0), v, kv_pos);
                   g.output("out", g.cached_attention(g.input("q", {1, 12}), new_k, new_v, g.input_u32("kv_len", {}), 4, 2, 3));
                 },
                 {{"kv_pos", {2}}, {"kv_len", {3}}}});
  all.push_back({"cache_write_after_a_read",
                 [](Graph& g) {
                   const Value cache = g.state("cache", {3, 4}, Init::normal(0.0, 1.0));
                   g.output("before", g.exp(cache));
                   const Value first = g.cache_write(g.input("row", {1, 4}), cache, g.input_u32("first", {}));
                   g.output("between", g.scale(first, 2.0));
                   g.output("after", g.cache_write(g.input("other", {1, 4}), first, g.input_u32("second", {})));
                 },
                 {{"first", {0}}, {"second", {2}}}});
  return all;
}

}  // namespace graft::testing
