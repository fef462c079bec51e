#include <cmath>

#include "graft/error.h"
#include "graft/nn.h"
#include "src/nn/scoped.h"

namespace graft::nn {

using detail::child;
using detail::scoped;

TransformerBlock::TransformerBlock(Graph& graph, std::string_view name, const AttentionConfig& attention, std::int64_t intermediate,
                                   double norm_eps, double dropout_p, double residual_stddev, bool mlp_bias)
    : dropout(dropout_p) {
  const Init residual = Init::normal(0.0, residual_stddev);
  input_layernorm = RMSNorm(graph, child(name, "input_layernorm"), attention.hidden_size, norm_eps);
  self_attn = CausalSelfAttention(graph, child(name, "self_attn"), attention, residual);
  post_attention_layernorm = RMSNorm(graph, child(name, "post_attention_layernorm"), attention.hidden_size, norm_eps);
  mlp = SwiGLU(graph, child(name, "mlp"), attention.hidden_size, intermediate, residual, mlp_bias);
}

Value TransformerBlock::forward(Graph& graph, Value x, const Segments& segments) const {
  const Value attended = scoped(graph, "self_attn", self_attn, scoped(graph, "input_layernorm", input_layernorm, x), segments);
  x = graph.add(x, graph.dropout(attended, dropout));
  const Value fed = scoped(graph, "mlp", mlp, scoped(graph, "post_attention_layernorm", post_attention_layernorm, x));
  return graph.add(x, graph.dropout(fed, dropout));
}

Value TransformerBlock::decode(Graph& graph, Value x, KvCache& cache, Value kv_pos, Value kv_len, const CacheSlots& slots) const {
  const Value normed = scoped(graph, "input_layernorm", input_layernorm, x);
  Value attended;
  {
    const Graph::Scope scope(graph, "self_attn");
    attended = self_attn.decode(graph, normed, cache, kv_pos, kv_len, slots);
  }
  x = graph.add(x, attended);
  return graph.add(x, scoped(graph, "mlp", mlp, scoped(graph, "post_attention_layernorm", post_attention_layernorm, x)));
}

namespace {

LlamaConfig checked(LlamaConfig c) {
  constexpr std::string_view name = "LlamaConfig";
  detail::check_size(name, "vocab_size", c.vocab_size);
  detail::check_size(name, "hidden_size", c.hidden_size);
  detail::check_size(name, "intermediate_size", c.intermediate_size);
  detail::check_size(name, "num_layers", c.num_layers);
  detail::check_size(name, "num_heads", c.num_heads);
  if (c.head_dim == 0) {
    if (c.hidden_size % c.num_heads != 0) {
      throw Error("LlamaConfig.hidden_size: " + std::to_string(c.hidden_size) + " does not divide by num_heads " +
                  std::to_string(c.num_heads));
    }
    c.head_dim = c.hidden_size / c.num_heads;
  }
  detail::check_heads(name, c.hidden_size, c.num_heads, c.num_kv_heads, c.head_dim, c.rope_theta);
  detail::check_not_negative(name, "window", c.window);
  detail::check_not_negative(name, "full_layers", c.full_layers);
  if (!(c.norm_eps > 0.0)) throw Error("LlamaConfig.norm_eps: must be above 0, got " + std::to_string(c.norm_eps));
  if (!(c.dropout >= 0.0 && c.dropout < 1.0))
    throw Error("LlamaConfig.dropout: must be in [0, 1), got " + std::to_string(c.dropout));
  return c;
}

std::string layer_name(std::size_t layer) { return "layers." + std::to_string(layer); }

/// What the head's norm reads, [n, hidden].
Value trunk(Graph& graph, const Llama& model, Value ids, const Segments& segments) {
  const Graph::Scope scope(graph, "model");
  Value x = graph.dropout(scoped(graph, "embed_tokens", model.embed_tokens, ids), model.config.dropout);
  for (std::size_t i = 0; i < model.layers.size(); ++i) x = scoped(graph, layer_name(i), model.layers[i], x, segments);
  return x;
}

/// norm, then the head: from [n, hidden] to logits [n, vocab_size].
Value head(Graph& graph, const Llama& model, Value x) {
  const Value normed = scoped(graph, "model.norm", model.norm, x);
  const Graph::Scope scope(graph, "lm_head");
  return model.config.tie_embeddings ? graph.matmul(normed, model.embed_tokens.weight, false, true)
                                     : model.lm_head.forward(graph, normed);
}

}  // namespace

Llama::Llama(Graph& graph, const LlamaConfig& wanted) : config(checked(wanted)) {
  AttentionConfig attention;
  attention.hidden_size = config.hidden_size;
  attention.kv_dim = config.num_kv_heads * config.head_dim;
  attention.num_heads = config.num_heads;
  attention.num_kv_heads = config.num_kv_heads;
  attention.head_dim = config.head_dim;
  attention.rope_theta = config.rope_theta;
  attention.rope_scaling = config.rope_scaling;
  attention.qkv_bias = config.qkv_bias;
  attention.o_bias = config.o_bias;
  // GPT-2: the 2·layers branches that add into the residual stream start smaller, so that their sum keeps the scale of one.
  const double residual_stddev = 0.02 / std::sqrt(2.0 * static_cast<double>(config.num_layers));

  embed_tokens = Embedding(graph, "model.embed_tokens", config.vocab_size, config.hidden_size);
  for (std::size_t i = 0; i < static_cast<std::size_t>(config.num_layers); ++i) {
    attention.window = static_cast<std::int64_t>(i) < config.full_layers ? 0 : config.window;
    layers.emplace_back(graph, child("model", layer_name(i)), attention, config.intermediate_size, config.norm_eps, config.dropout,
                        residual_stddev, config.mlp_bias);
  }
  norm = RMSNorm(graph, "model.norm", config.hidden_size, config.norm_eps);
  if (!config.tie_embeddings) lm_head = Linear(graph, "lm_head", config.hidden_size, config.vocab_size);
}

Value Llama::forward(Graph& graph, Value ids, const Segments& segments) const {
  return head(graph, *this, trunk(graph, *this, ids, segments));
}

CrossEntropyResult Llama::loss(Graph& graph, Value ids, Value labels, const Segments& segments,
                               const CrossEntropyOptions& options) const {
  const Value normed = scoped(graph, "model.norm", norm, trunk(graph, *this, ids, segments));
  const Graph::Scope scope(graph, "lm_head");
  const bool tied = config.tie_embeddings;
  return graph.linear_cross_entropy(normed, tied ? embed_tokens.weight : lm_head.weight, labels, options, tied);
}

std::vector<KvCache> Llama::make_caches(Graph& graph, std::int64_t max_seq) const {
  std::vector<KvCache> caches;
  for (std::size_t i = 0; i < layers.size(); ++i)
    caches.emplace_back(graph, "cache." + std::to_string(i), max_seq, config.num_kv_heads * config.head_dim);
  return caches;
}

Value Llama::decode(Graph& graph, std::vector<KvCache>& caches, const DecodeStep& step) const {
  if (caches.size() != layers.size()) {
    throw Error("Llama::decode: one cache a layer, got " + std::to_string(caches.size()) + " caches and " +
                std::to_string(layers.size()) + " layers");
  }
  Value x;
  {
    const Graph::Scope scope(graph, "model");
    x = scoped(graph, "embed_tokens", embed_tokens, step.ids);
    for (std::size_t i = 0; i < layers.size(); ++i) {
      const Graph::Scope layer(graph, layer_name(i));
      x = layers[i].decode(graph, x, caches[i], step.kv_pos, step.kv_len, step.slots);
    }
    if (step.rows) x = graph.embedding(x, step.rows, "rows");
  }
  return head(graph, *this, x);
}

std::int64_t Llama::parameter_count() const {
  const std::int64_t h = config.hidden_size, q = config.num_heads * config.head_dim, kv = config.num_kv_heads * config.head_dim;
  const std::int64_t attention = 2 * h * (q + kv) + (config.qkv_bias ? q + 2 * kv : 0) + (config.o_bias ? h : 0);
  const std::int64_t inner = config.intermediate_size, mlp = 3 * h * inner + (config.mlp_bias ? 2 * inner + h : 0), norms = 2 * h;
  const std::int64_t heads = config.tie_embeddings ? 1 : 2;
  return heads * config.vocab_size * h + config.num_layers * (attention + mlp + norms) + h;
}

}  // namespace graft::nn
