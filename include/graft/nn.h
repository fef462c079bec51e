#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "graft/graph.h"

/// Modules: small structs that register their parameters when made and record ops in `forward`. Matrix weights are [in, out].
namespace graft::nn {

/// y = x·W (+ b).   x [n, in] → [n, out].  Registers {name}.weight [in, out] and, with bias, {name}.bias [out].
struct Linear {
  Value weight, bias;
  Linear() = default;
  Linear(Graph& graph, std::string_view name, std::int64_t in, std::int64_t out, bool with_bias = false,
         Init init = Init::normal(0.0, 0.02));
  Value forward(Graph& graph, Value x) const;
};

/// {name}.weight [vocabulary, dim].   ids u32 [n] → [n, dim]
struct Embedding {
  Value weight;
  Embedding() = default;
  Embedding(Graph& graph, std::string_view name, std::int64_t vocabulary, std::int64_t dim, Init init = Init::normal(0.0, 0.02));
  Value forward(Graph& graph, Value ids) const;
};

/// {name}.weight [dim], ones.   x [n, dim] → [n, dim]
struct RMSNorm {
  Value weight;
  double eps = 1e-5;
  RMSNorm() = default;
  RMSNorm(Graph& graph, std::string_view name, std::int64_t dim, double eps = 1e-5);
  Value forward(Graph& graph, Value x) const;
};

/// {name}.weight [dim] ones, {name}.bias [dim] zeros.   x [n, dim] → [n, dim]
struct LayerNorm {
  Value weight, bias;
  double eps = 1e-5;
  LayerNorm() = default;
  LayerNorm(Graph& graph, std::string_view name, std::int64_t dim, double eps = 1e-5);
  Value forward(Graph& graph, Value x) const;
};

/// down(swiglu(gate(x), up(x))), as Llama: {name}.gate_proj, .up_proj [hidden, intermediate], .down_proj [intermediate, hidden];
/// no biases unless asked for.
struct SwiGLU {
  Linear gate_proj, up_proj, down_proj;
  SwiGLU() = default;
  SwiGLU(Graph& graph, std::string_view name, std::int64_t hidden, std::int64_t intermediate,
         Init down_init = Init::normal(0.0, 0.02), bool with_bias = false);
  Value forward(Graph& graph, Value x) const;
};

/// fc2(fn(fc1(x))) with biases: {name}.fc1, {name}.fc2.
struct Mlp {
  Linear fc1, fc2;
  UnaryFn activation = UnaryFn::gelu;
  Mlp() = default;
  Mlp(Graph& graph, std::string_view name, std::int64_t hidden, std::int64_t intermediate, UnaryFn activation = UnaryFn::gelu);
  Value forward(Graph& graph, Value x) const;
};

struct AttentionConfig {
  std::int64_t hidden_size = 0;   ///< model dimension
  std::int64_t kv_dim = 0;        ///< num_kv_heads * head_dim
  std::int64_t num_heads = 0;     ///< query heads
  std::int64_t num_kv_heads = 0;  ///< key/value heads; must divide num_heads
  std::int64_t head_dim = 0;
  double rope_theta = 10000.0;    ///< 10000 for standard, 500000 for Llama 3
  RopeScaling rope_scaling = {};  ///< see ops.h
  bool qkv_bias = false;          ///< the projections to q, k and v have biases, as Qwen2's
  bool o_bias = false;            ///< the output projection has one
  std::int64_t window = 0;        ///< above 0: a token sees itself and the window − 1 before it, as Mistral's; 0: all before it
};

/// What a step of decoding reads: the t newest tokens of each of n sequences; see CachedAttention in ops.h.
struct DecodeStep {
  Value ids;             ///< u32 [n·t]
  Value kv_pos;          ///< u32 [n] (n = 1: or []): where the first of them stands
  Value kv_len;          ///< like kv_pos: kv_pos + t
  CacheSlots slots = {};  ///< in caches of more sequences, which ones these are
  Value rows = {};       ///< u32 [m]: only these rows of ids get logits; by default all
  Value positions = {};  ///< u32 [n·t]: where each token stands, for models with learned positions; they need it if t > 1
};

/// Keys and values of the tokens so far, for decoding: states [max_seq, kv_dim] that no checkpoint holds.
struct KvCache {
  Value k, v;
  KvCache() = default;
  /// Declares the states {name}.k and {name}.v.
  KvCache(Graph& graph, std::string_view name, std::int64_t max_seq, std::int64_t kv_dim);
};

/// Causal self-attention with grouped-query attention and RoPE; the four projections have no biases unless the configuration says so.
/// Registers {name}.q_proj, .k_proj, .v_proj, .o_proj (each with .weight and perhaps .bias).
struct CausalSelfAttention {
  Linear q_proj;  ///< hidden → num_heads * head_dim
  Linear k_proj;  ///< hidden → kv_dim
  Linear v_proj;  ///< hidden → kv_dim
  Linear o_proj;  ///< num_heads * head_dim → hidden
  std::int64_t num_heads = 0, num_kv_heads = 0, head_dim = 0;
  double rope_theta = 10000.0;
  RopeScaling rope_scaling;
  std::int64_t window = 0;

  CausalSelfAttention() = default;
  /// Throws Error naming the field when the sizes do not fit: num_heads does not divide by num_kv_heads, kv_dim ≠ num_kv_heads · head_dim.
  CausalSelfAttention(Graph& graph, std::string_view name, const AttentionConfig& config, Init o_init = Init::normal(0.0, 0.02));
  /// Projects to q, k, v, rotates q and k, attends causally inside each segment, projects.   x [seq, hidden] → [seq, hidden]
  Value forward(Graph& graph, Value x, const Segments& segments = {}) const;
  /// One new token at position kv_pos (u32 []), kv_len = kv_pos + 1: writes the cache (which then holds the new values) and attends
  /// to it. x [1, hidden] → [1, hidden]; or several tokens of several sequences, see DecodeStep.
  Value decode(Graph& graph, Value x, KvCache& cache, Value kv_pos, Value kv_len, const CacheSlots& slots = {}) const;
};

/// x + attention(norm(x)), then + mlp(norm(·)), pre-norm as Llama: {name}.input_layernorm, .self_attn, .post_attention_layernorm,
/// .mlp.
struct TransformerBlock {
  RMSNorm input_layernorm, post_attention_layernorm;
  CausalSelfAttention self_attn;
  SwiGLU mlp;
  double dropout = 0.0;
  TransformerBlock() = default;
  TransformerBlock(Graph& graph, std::string_view name, const AttentionConfig& attention, std::int64_t intermediate,
                   double norm_eps, double dropout = 0.0, double residual_stddev = 0.02, bool mlp_bias = false);
  Value forward(Graph& graph, Value x, const Segments& segments = {}) const;
  Value decode(Graph& graph, Value x, KvCache& cache, Value kv_pos, Value kv_len, const CacheSlots& slots = {}) const;
};

struct LlamaConfig {
  std::int64_t vocab_size = 0;
  std::int64_t hidden_size = 128;
  std::int64_t intermediate_size = 344;
  std::int64_t num_layers = 4;
  std::int64_t num_heads = 4;
  std::int64_t num_kv_heads = 4;
  std::int64_t head_dim = 0;  ///< 0: hidden_size / num_heads
  double rope_theta = 10000.0;
  RopeScaling rope_scaling = {};  ///< Llama 3.1 and newer; see ops.h
  bool qkv_bias = false;          ///< biases of the projections to q, k and v (Qwen2)
  bool o_bias = false;            ///< bias of attention's output projection
  bool mlp_bias = false;          ///< biases of the feed-forward part
  std::int64_t window = 0;        ///< above 0: attention looks back over so many tokens, itself among them (Mistral)
  std::int64_t full_layers = 0;   ///< the first layers, which look back over all tokens whatever the window (Qwen2)
  double norm_eps = 1e-5;
  bool tie_embeddings = true;  ///< the output head is the embedding, transposed
  double dropout = 0.0;        ///< on embeddings and both residual branches, in forward only
};

/// A decoder as in Hugging Face's LlamaForCausalLM, with its parameter names: model.embed_tokens, model.layers.N.…, model.norm,
/// lm_head (if not tied). Throws Error naming the field when the sizes do not fit.
struct Llama {
  LlamaConfig config;
  Embedding embed_tokens;
  std::vector<TransformerBlock> layers;
  RMSNorm norm;
  Linear lm_head;  ///< without values if tied

  Llama(Graph& graph, const LlamaConfig& config);
  /// ids u32 [n] → logits [n, vocab_size]. Sequences are stacked as `segments` says.
  Value forward(Graph& graph, Value ids, const Segments& segments = {}) const;
  /// The cross-entropy of forward's logits with labels u32 [n], by Graph::linear_cross_entropy: without holding the logits.
  CrossEntropyResult loss(Graph& graph, Value ids, Value labels, const Segments& segments = {},
                          const CrossEntropyOptions& options = {}) const;
  /// Declares one cache a layer: cache.N.k, cache.N.v; max_seq rows for each sequence, stacked.
  std::vector<KvCache> make_caches(Graph& graph, std::int64_t max_seq) const;
  /// ids u32 [1], kv_pos, kv_len u32 [] → logits [1, vocab_size]
  Value decode(Graph& graph, Value id, std::vector<KvCache>& caches, Value kv_pos, Value kv_len) const {
    return decode(graph, caches, {id, kv_pos, kv_len});
  }
  /// → logits [n·t, vocab_size], or of step.rows
  Value decode(Graph& graph, std::vector<KvCache>& caches, const DecodeStep& step) const;
  /// Number of weights, tied ones once.
  std::int64_t parameter_count() const;
};

/// Sizes of a GPT-2, as in Hugging Face's GPT2Config.
struct Gpt2Config {
  std::int64_t vocab_size = 0;
  std::int64_t max_positions = 1024;  ///< tokens of a sequence, at most: rows of the table of positions
  std::int64_t hidden_size = 768;
  std::int64_t intermediate_size = 0;  ///< 0: 4 · hidden_size
  std::int64_t num_layers = 12;
  std::int64_t num_heads = 12;
  double norm_eps = 1e-5;
  UnaryFn activation = UnaryFn::gelu_tanh;
  bool tie_embeddings = true;  ///< the output head is the embedding, transposed
  double dropout = 0.0;        ///< on embeddings and both residual branches, in forward only
};

/// x + attn(ln_1(x)), then + mlp(ln_2(·)), pre-norm as GPT-2 (Radford et al. 2019): {name}.ln_1, .attn.c_attn [hidden, 3·hidden] (q, k
/// and v side by side), .attn.c_proj, .ln_2, .mlp.c_fc, .mlp.c_proj, each with .weight and .bias.
struct Gpt2Block {
  LayerNorm ln_1, ln_2;
  Linear c_attn, attn_c_proj, c_fc, mlp_c_proj;
  std::int64_t num_heads = 0;
  UnaryFn activation = UnaryFn::gelu_tanh;
  double dropout = 0.0;
  Gpt2Block() = default;
  Gpt2Block(Graph& graph, std::string_view name, const Gpt2Config& config);
  Value forward(Graph& graph, Value x, const Segments& segments = {}) const;
  Value decode(Graph& graph, Value x, KvCache& cache, const DecodeStep& step) const;
};

/// A decoder as in Hugging Face's GPT2LMHeadModel, with its parameter names: transformer.wte, transformer.wpe, transformer.h.N.…,
/// transformer.ln_f, lm_head (if not tied). Throws Error naming the field when the sizes do not fit.
struct Gpt2 {
  Gpt2Config config;
  Embedding wte, wpe;
  std::vector<Gpt2Block> layers;
  LayerNorm ln_f;
  Linear lm_head;  ///< without values if tied

  Gpt2(Graph& graph, const Gpt2Config& config);
  /// ids u32 [n] → logits [n, vocab_size]. Sequences are stacked as `segments` says; packed ones need `positions`, u32 [n], the place of
  /// each token in its sequence. Throws Error when a sequence is longer than max_positions.
  Value forward(Graph& graph, Value ids, const Segments& segments = {}, Value positions = {}) const;
  /// The cross-entropy of forward's logits with labels u32 [n], by Graph::linear_cross_entropy: without holding the logits.
  CrossEntropyResult loss(Graph& graph, Value ids, Value labels, const Segments& segments = {},
                          const CrossEntropyOptions& options = {}, Value positions = {}) const;
  /// Declares one cache a layer: cache.N.k, cache.N.v; max_seq rows for each sequence, stacked.
  std::vector<KvCache> make_caches(Graph& graph, std::int64_t max_seq) const;
  /// → logits [n·t, vocab_size], or of step.rows
  Value decode(Graph& graph, std::vector<KvCache>& caches, const DecodeStep& step) const;
  /// Number of weights, tied ones once.
  std::int64_t parameter_count() const;
};

}  // namespace graft::nn
