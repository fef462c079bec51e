#include <array>
#include <cmath>

#include "graft/error.h"
#include "graft/nn.h"
#include "src/nn/scoped.h"

namespace graft::nn {

using detail::child;
using detail::scoped;

namespace {

Gpt2Config checked(Gpt2Config c) {
  constexpr std::string_view name = "Gpt2Config";
  detail::check_size(name, "vocab_size", c.vocab_size);
  detail::check_size(name, "max_positions", c.max_positions);
  detail::check_size(name, "hidden_size", c.hidden_size);
  detail::check_size(name, "num_layers", c.num_layers);
  detail::check_size(name, "num_heads", c.num_heads);
  if (c.intermediate_size == 0) c.intermediate_size = 4 * c.hidden_size;
  detail::check_size(name, "intermediate_size", c.intermediate_size);
  if (c.hidden_size % c.num_heads != 0) {
    throw Error("Gpt2Config.hidden_size: " + std::to_string(c.hidden_size) + " does not divide by num_heads " +
                std::to_string(c.num_heads));
  }
  if (c.hidden_size / c.num_heads > 256) {
    throw Error("Gpt2Config.hidden_size: " + std::to_string(c.hidden_size) + " / num_heads " + std::to_string(c.num_heads) +
                " must be at most 256");
  }
  if (!(c.norm_eps > 0.0)) throw Error("Gpt2Config.norm_eps: must be above 0, got " + std::to_string(c.norm_eps));
  if (!(c.dropout >= 0.0 && c.dropout < 1.0))
    throw Error("Gpt2Config.dropout: must be in [0, 1), got " + std::to_string(c.dropout));
  return c;
}

std::string block_name(std::size_t layer) { return "h." + std::to_string(layer); }

/// ln_f, then the head: from [n, hidden] to logits [n, vocab_size].
Value head(Graph& graph, const Gpt2& model, Value x) {
  const Value normed = scoped(graph, "transformer.ln_f", model.ln_f, x);
  const Graph::Scope scope(graph, "lm_head");
  return model.config.tie_embeddings ? graph.matmul(normed, model.wte.weight, false, true) : model.lm_head.forward(graph, normed);
}

Value embedded(Graph& graph, const Gpt2& model, Value ids, Value positions) {
  return graph.add(scoped(graph, "wte", model.wte, ids), scoped(graph, "wpe", model.wpe, positions));
}

/// What the head's norm reads, [n, hidden]. `who` speaks in errors.
Value trunk(Graph& graph, const std::string& who, const Gpt2& model, Value ids, const Segments& segments, Value positions) {
  const Graph::Scope scope(graph, "transformer");
  if (!positions) {
    if (segments.layout.kind == SegmentLayout::Kind::packed) throw Error(who + ": packed sequences need positions");
    const std::int64_t rows = graph.shape(ids).size();
    const std::int64_t length = segments.layout.kind == SegmentLayout::Kind::uniform ? segments.layout.q_length : rows;
    if (length > model.config.max_positions) {
      throw Error(who + ": a sequence of " + std::to_string(length) + " tokens is longer than max_positions " +
                  std::to_string(model.config.max_positions));
    }
    std::vector<double> places(static_cast<std::size_t>(rows));
    for (std::int64_t i = 0; i < rows; ++i) places[static_cast<std::size_t>(i)] = static_cast<double>(i % length);
    positions = graph.constant({rows}, std::move(places), DType::u32);
  }
  Value x = graph.dropout(embedded(graph, model, ids, positions), model.config.dropout);
  for (std::size_t i = 0; i < model.layers.size(); ++i) x = scoped(graph, block_name(i), model.layers[i], x, segments);
  return x;
}

/// q, k and v [n, hidden] of a normed x.
std::array<Value, 3> projected(Graph& graph, const Gpt2Block& block, Value x) {
  const Value all = scoped(graph, "attn.c_attn", block.c_attn, x);
  const std::int64_t hidden = graph.shape(x).cols();
  return {graph.slice_cols(all, 0, hidden), graph.slice_cols(all, hidden, hidden), graph.slice_cols(all, 2 * hidden, hidden)};
}

/// What attention gave, projected and added to x; then the feed-forward branch.
Value finished(Graph& graph, const Gpt2Block& block, Value x, Value attended, double dropout) {
  x = graph.add(x, graph.dropout(scoped(graph, "attn.c_proj", block.attn_c_proj, attended), dropout));
  const Value inner = scoped(graph, "mlp.c_fc", block.c_fc, scoped(graph, "ln_2", block.ln_2, x));
  const Value fed = scoped(graph, "mlp.c_proj", block.mlp_c_proj, graph.unary(block.activation, inner));
  return graph.add(x, graph.dropout(fed, dropout));
}

}  // namespace

Gpt2Block::Gpt2Block(Graph& graph, std::string_view name, const Gpt2Config& config)
    : num_heads(config.num_heads), activation(config.activation), dropout(config.dropout) {
  const std::int64_t hidden = config.hidden_size, inner = config.intermediate_size;
  const Init init = Init::normal(0.0, 0.02);
  // The 2·layers branches that add into the residual stream start smaller, so that their sum keeps the scale of one.
  const Init residual = Init::normal(0.0, 0.02 / std::sqrt(2.0 * static_cast<double>(config.num_layers)));
  ln_1 = LayerNorm(graph, child(name, "ln_1"), hidden, config.norm_eps);
  c_attn = Linear(graph, child(name, "attn.c_attn"), hidden, 3 * hidden, true, init);
  attn_c_proj = Linear(graph, child(name, "attn.c_proj"), hidden, hidden, true, residual);
  ln_2 = LayerNorm(graph, child(name, "ln_2"), hidden, config.norm_eps);
  c_fc = Linear(graph, child(name, "mlp.c_fc"), hidden, inner, true, init);
  mlp_c_proj = Linear(graph, child(name, "mlp.c_proj"), inner, hidden, true, residual);
}

Value Gpt2Block::forward(Graph& graph, Value x, const Segments& segments) const {
  const auto [q, k, v] = projected(graph, *this, scoped(graph, "ln_1", ln_1, x));
  AttentionOptions options;
  options.segments = segments;
  const Value attended = graph.causal_attention(q, k, v, num_heads, num_heads, graph.shape(x).cols() / num_heads, options);
  return finished(graph, *this, x, attended, dropout);
}

Value Gpt2Block::decode(Graph& graph, Value x, KvCache& cache, const DecodeStep& step) const {
  const auto [q, k, v] = projected(graph, *this, scoped(graph, "ln_1", ln_1, x));
  cache.k = graph.cache_write(k, cache.k, step.kv_pos, step.slots);
  cache.v = graph.cache_write(v, cache.v, step.kv_pos, step.slots);
  const Value attended = graph.cached_attention(q, cache.k, cache.v, step.kv_len, num_heads, num_heads,
                                                graph.shape(x).cols() / num_heads, {.slots = step.slots});
  return finished(graph, *this, x, attended, 0.0);
}

Gpt2::Gpt2(Graph& graph, const Gpt2Config& wanted) : config(checked(wanted)) {
  wte = Embedding(graph, "transformer.wte", config.vocab_size, config.hidden_size);
  wpe = Embedding(graph, "transformer.wpe", config.max_positions, config.hidden_size);
  for (std::size_t i = 0; i < static_cast<std::size_t>(config.num_layers); ++i)
    layers.emplace_back(graph, child("transformer", block_name(i)), config);
  ln_f = LayerNorm(graph, "transformer.ln_f", config.hidden_size, config.norm_eps);
  if (!config.tie_embeddings) lm_head = Linear(graph, "lm_head", config.hidden_size, config.vocab_size);
}

Value Gpt2::forward(Graph& graph, Value ids, const Segments& segments, Value positions) const {
  return head(graph, *this, trunk(graph, "Gpt2::forward", *this, ids, segments, positions));
}

CrossEntropyResult Gpt2::loss(Graph& graph, Value ids, Value labels, const Segments& segments, const CrossEntropyOptions& options,
                              Value positions) const {
  const Value normed = scoped(graph, "transformer.ln_f", ln_f, trunk(graph, "Gpt2::loss", *this, ids, segments, positions));
  const Graph::Scope scope(graph, "lm_head");
  const bool tied = config.tie_embeddings;
  return graph.linear_cross_entropy(normed, tied ? wte.weight : lm_head.weight, labels, options, tied);
}

std::vector<KvCache> Gpt2::make_caches(Graph& graph, std::int64_t max_seq) const {
  std::vector<KvCache> caches;
  for (std::size_t i = 0; i < layers.size(); ++i)
    caches.emplace_back(graph, "cache." + std::to_string(i), max_seq, config.hidden_size);
  return caches;
}

Value Gpt2::decode(Graph& graph, std::vector<KvCache>& caches, const DecodeStep& step) const {
  if (caches.size() != layers.size()) {
    throw Error("Gpt2::decode: one cache a layer, got " + std::to_string(caches.size()) + " caches and " +
                std::to_string(layers.size()) + " layers");
  }
  const std::int64_t tokens = graph.shape(step.ids).size(), sequences = graph.shape(step.kv_pos).size();
  if (!step.positions && tokens != sequences) {
    throw Error("Gpt2::decode: several tokens of a sequence at once need positions, got " + std::to_string(tokens) +
                " tokens and " + std::to_string(sequences) + " sequences");
  }
  Value x;
  {
    const Graph::Scope scope(graph, "transformer");
    x = embedded(graph, *this, step.ids, step.positions ? step.positions : graph.reshape(step.kv_pos, {tokens}));
    for (std::size_t i = 0; i < layers.size(); ++i) {
      const Graph::Scope layer(graph, block_name(i));
      x = layers[i].decode(graph, x, caches[i], step);
    }
    if (step.rows) x = graph.embedding(x, step.rows, "rows");
  }
  return head(graph, *this, x);
}

std::int64_t Gpt2::parameter_count() const {
  const std::int64_t h = config.hidden_size, inner = config.intermediate_size;
  const std::int64_t block = 4 * h * h + 4 * h + 2 * h * inner + inner + h + 4 * h;
  return (config.vocab_size + config.max_positions) * h + config.num_layers * block + 2 * h +
         (config.tie_embeddings ? 0 : h * config.vocab_size);
}

}  // namespace graft::nn
