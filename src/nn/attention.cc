#include <cmath>

#include "graft/error.h"
#include "graft/nn.h"
#include "src/nn/scoped.h"

namespace graft::nn {
namespace detail {
namespace {

[[noreturn]] void refuse(std::string_view config, std::string_view field, const std::string& what) {
  throw Error(std::string(config) + "." + std::string(field) + ": " + what);
}

}  // namespace

void check_size(std::string_view config, std::string_view field, std::int64_t size) {
  if (size < 1) refuse(config, field, std::to_string(size) + ", must be at least 1");
}

void check_not_negative(std::string_view config, std::string_view field, std::int64_t size) {
  if (size < 0) refuse(config, field, std::to_string(size) + ", must not be negative");
}

void check_heads(std::string_view config, std::int64_t hidden_size, std::int64_t num_heads, std::int64_t num_kv_heads,
                 std::int64_t head_dim, double rope_theta) {
  check_size(config, "hidden_size", hidden_size);
  check_size(config, "num_heads", num_heads);
  check_size(config, "num_kv_heads", num_kv_heads);
  check_size(config, "head_dim", head_dim);
  if (num_heads % num_kv_heads != 0)
    refuse(config, "num_heads", std::to_string(num_heads) + " does not divide by num_kv_heads " + std::to_string(num_kv_heads));
  if (head_dim % 2 != 0) refuse(config, "head_dim", std::to_string(head_dim) + " is odd, rope rotates pairs");
  if (head_dim > 256) refuse(config, "head_dim", std::to_string(head_dim) + ", must be at most 256");
  if (!(rope_theta > 0.0) || !std::isfinite(rope_theta))
    refuse(config, "rope_theta", "must be finite and above 0, got " + std::to_string(rope_theta));
}

}  // namespace detail

using detail::child;
using detail::scoped;

namespace {

AttentionConfig checked(const AttentionConfig& c) {
  detail::check_heads("AttentionConfig", c.hidden_size, c.num_heads, c.num_kv_heads, c.head_dim, c.rope_theta);
  if (c.kv_dim != c.num_kv_heads * c.head_dim) {
    throw Error("AttentionConfig.kv_dim: " + std::to_string(c.kv_dim) +
                " is not num_kv_heads * head_dim = " + std::to_string(c.num_kv_heads) + " * " + std::to_string(c.head_dim));
  }
  detail::check_not_negative("AttentionConfig", "window", c.window);
  return c;
}

}  // namespace

KvCache::KvCache(Graph& graph, std::string_view name, std::int64_t max_seq, std::int64_t kv_dim)
    : k(graph.state(child(name, "k"), {max_seq, kv_dim}, Init::zeros(), DType::f32, false)),
      v(graph.state(child(name, "v"), {max_seq, kv_dim}, Init::zeros(), DType::f32, false)) {}

CausalSelfAttention::CausalSelfAttention(Graph& graph, std::string_view name, const AttentionConfig& config, Init o_init)
    : num_heads(checked(config).num_heads),
      num_kv_heads(config.num_kv_heads),
      head_dim(config.head_dim),
      rope_theta(config.rope_theta),
      rope_scaling(config.rope_scaling),
      window(config.window) {
  const std::int64_t q_dim = num_heads * head_dim;
  q_proj = Linear(graph, child(name, "q_proj"), config.hidden_size, q_dim, config.qkv_bias);
  k_proj = Linear(graph, child(name, "k_proj"), config.hidden_size, config.kv_dim, config.qkv_bias);
  v_proj = Linear(graph, child(name, "v_proj"), config.hidden_size, config.kv_dim, config.qkv_bias);
  o_proj = Linear(graph, child(name, "o_proj"), q_dim, config.hidden_size, config.o_bias, o_init);
}

Value CausalSelfAttention::forward(Graph& graph, Value x, const Segments& segments) const {
  // The products lie side by side, so that a backend can run them together.
  const Value flat_q = scoped(graph, "q_proj", q_proj, x), flat_k = scoped(graph, "k_proj", k_proj, x);
  const Value v = scoped(graph, "v_proj", v_proj, x);
  const Value q = graph.rope(flat_q, rope_theta, head_dim, segments, rope_scaling);
  const Value k = graph.rope(flat_k, rope_theta, head_dim, segments, rope_scaling);
  AttentionOptions options;
  options.segments = segments;
  options.window = window;
  const Value attended = graph.causal_attention(q, k, v, num_heads, num_kv_heads, head_dim, options);
  return scoped(graph, "o_proj", o_proj, attended);
}

Value CausalSelfAttention::decode(Graph& graph, Value x, KvCache& cache, Value kv_pos, Value kv_len,
                                  const CacheSlots& slots) const {
  const std::int64_t sequences = graph.shape(kv_pos).size();
  const Segments segments = sequences > 1 ? Segments::uniform(graph.shape(x).rows() / sequences) : Segments::single();
  const Value flat_q = scoped(graph, "q_proj", q_proj, x), flat_k = scoped(graph, "k_proj", k_proj, x);
  const Value v = scoped(graph, "v_proj", v_proj, x);
  const Value q = graph.rope_dynamic_offset(flat_q, rope_theta, kv_pos, head_dim, segments, rope_scaling);
  const Value k = graph.rope_dynamic_offset(flat_k, rope_theta, kv_pos, head_dim, segments, rope_scaling);
  cache.k = graph.cache_write(k, cache.k, kv_pos, slots);
  cache.v = graph.cache_write(v, cache.v, kv_pos, slots);
  const Value attended =
      graph.cached_attention(q, cache.k, cache.v, kv_len, num_heads, num_kv_heads, head_dim, {.window = window, .slots = slots});
  return scoped(graph, "o_proj", o_proj, attended);
}

}  // namespace graft::nn
