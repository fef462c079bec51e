// The builders: each makes an op and records it.
#include <cmath>

#include "graft/error.h"
#include "graft/graph.h"

namespace graft {

Value Graph::input(std::string_view name, Shape shape, DType dtype) {
  if (name.empty()) throw Error("input: needs a name");
  return record(Input{{dtype, shape}}, {}, name);
}

Value Graph::input_u32(std::string_view name, Shape shape) { return input(name, shape, DType::u32); }

Value Graph::parameter(std::string_view name, Shape shape, Init init, DType dtype) {
  if (name.empty()) throw Error("parameter: needs a name");
  return record(Parameter{{dtype, shape}, init}, {}, name);
}

Value Graph::state(std::string_view name, Shape shape, Init init, DType dtype, bool saved) {
  if (name.empty()) throw Error("state: needs a name");
  return record(State{{dtype, shape}, init, saved}, {}, name);
}

Value Graph::constant(Shape shape, std::vector<double> values, DType dtype, std::string_view name) {
  return record(Constant{{dtype, shape}, std::move(values)}, {}, name);
}

Value Graph::matmul(Value a, Value b, bool transpose_a, bool transpose_b, std::string_view name) {
  return record(MatMul{transpose_a, transpose_b}, {a, b}, name);
}

Value Graph::matmul_bias(Value a, Value b, Value bias, bool transpose_a, bool transpose_b, std::string_view name) {
  return record(MatMul{transpose_a, transpose_b}, {a, b, bias}, name);
}

Value Graph::unary(UnaryFn fn, Value x, double alpha, std::string_view name) { return record(Unary{fn, alpha}, {x}, name); }
Value Graph::binary(BinaryFn fn, Value a, Value b, std::string_view name) { return record(Binary{fn}, {a, b}, name); }
Value Graph::swiglu(Value gate, Value up, std::string_view name) { return record(Swiglu{}, {gate, up}, name); }
Value Graph::cast(Value x, DType dtype, std::string_view name) { return type(x).dtype == dtype ? x : record(Cast{dtype}, {x}, name); }
Value Graph::stop_gradient(Value x, std::string_view name) { return record(StopGradient{}, {x}, name); }

Value Graph::dropout(Value x, double p, std::string_view name) {
  if (p == 0.0) return x;
  Value counter = find("rng/counter");
  if (!counter) counter = state("rng/counter", {}, Init::zeros(), DType::u32);
  const Value dropped = record(Dropout{p, seed_, static_cast<std::uint32_t>(dropouts_)}, {x, counter}, name);
  ++dropouts_;
  return dropped;
}

void Graph::advance_rng() {
  const Value counter = find("rng/counter");
  if (counter && !overwritten_.contains(counter.node)) record(Increment{}, {counter}, "rng/advance");
}

Value Graph::reduce(ReduceFn fn, Value x, Axis axis, std::string_view name) { return record(Reduce{fn, axis}, {x}, name); }
Value Graph::broadcast(Value x, Shape shape, std::string_view name) { return record(Broadcast{shape}, {x}, name); }
Value Graph::reshape(Value x, Shape shape, std::string_view name) { return record(Reshape{shape}, {x}, name); }
Value Graph::transpose(Value x, std::string_view name) { return record(Transpose{}, {x}, name); }

Value Graph::slice(Value x, std::int64_t row, std::int64_t rows, std::int64_t col, std::int64_t cols, std::string_view name) {
  return record(Slice{row, rows, col, cols}, {x}, name);
}

Value Graph::slice_rows(Value x, std::int64_t row, std::int64_t rows, std::string_view name) { return slice(x, row, rows, 0, shape(x).cols(), name); }
Value Graph::slice_cols(Value x, std::int64_t col, std::int64_t cols, std::string_view name) { return slice(x, 0, shape(x).rows(), col, cols, name); }

Value Graph::concat(std::span<const Value> parts, Axis axis, std::string_view name) {
  return record(Concat{axis}, {parts.begin(), parts.end()}, name);
}

std::vector<Value> Graph::split(Value x, std::span<const std::int64_t> sizes, Axis axis) {
  if (axis == Axis::all) throw Error("split \"" + node(x).name + "\": splits rows or columns, not all");
  const std::int64_t length = axis == Axis::rows ? shape(x).rows() : shape(x).cols();
  std::int64_t total = 0;
  for (std::int64_t size : sizes) total += size;
  if (total != length)
    throw Error("split \"" + node(x).name + "\": the sizes add up to " + std::to_string(total) + ", got " + std::to_string(length) +
                (axis == Axis::rows ? " rows" : " columns"));
  std::vector<Value> parts;
  std::int64_t at = 0;
  for (std::int64_t size : sizes) {
    parts.push_back(axis == Axis::rows ? slice_rows(x, at, size) : slice_cols(x, at, size));
    at += size;
  }
  return parts;
}

Value Graph::softmax(Value x, std::string_view name) { return record(Softmax{}, {x}, name); }
Value Graph::log_softmax(Value x, std::string_view name) { return record(LogSoftmax{}, {x}, name); }
Value Graph::rms_norm(Value x, Value weight, double eps, std::string_view name) { return record(RmsNorm{eps}, {x, weight}, name); }
Value Graph::layer_norm(Value x, Value weight, Value bias, double eps, std::string_view name) {
  return record(LayerNorm{eps}, {x, weight, bias}, name);
}
Value Graph::embedding(Value table, Value ids, std::string_view name) { return record(Embedding{}, {table, ids}, name); }

CrossEntropyResult Graph::cross_entropy_with(Value logits, Value labels, const CrossEntropyOptions& options, std::string_view name) {
  const Value loss = record(CrossEntropy{options.reduction, options.label_smoothing, options.ignore_index}, {logits, labels}, name);
  return {loss, {loss.node, 1}, {loss.node, 2}};
}
CrossEntropyResult Graph::linear_cross_entropy(Value x, Value weight, Value labels, const CrossEntropyOptions& options,
                                               bool transpose_weight, std::string_view name) {
  const CrossEntropy of_logits = {options.reduction, options.label_smoothing, options.ignore_index};
  const Value loss = record(LinearCrossEntropy{of_logits, transpose_weight}, {x, weight, labels}, name);
  return {loss, {loss.node, 1}, {loss.node, 2}};
}

Value Graph::mse(Value prediction, Value target) {
  if (shape(prediction) != shape(target))
    throw Error("mse: prediction and target differ, got " + to_string(shape(prediction)) + " and " + to_string(shape(target)));
  const Value error = sub(prediction, target);
  return mean(mul(error, error));
}

Value Graph::bce_with_logits(Value logits, Value targets) {
  if (shape(logits) != shape(targets))
    throw Error("bce_with_logits: logits and targets differ, got " + to_string(shape(logits)) + " and " + to_string(shape(targets)));
  return mean(sub(softplus(logits), mul(logits, targets)));
}

// ---- attention

Value Graph::attention(Value q, Value k, Value v, AttentionShape heads, Mask::Kind mask, bool equal_lengths, const AttentionOptions& options,
                       std::string_view default_name, std::string_view name) {
  const std::string made_name = name.empty() ? free_name(std::string(default_name)) : std::string(name);
  const auto check = [&](bool condition, const std::string& what) {
    if (!condition) throw Error(std::string(default_name) + " \"" + scope_ + made_name + "\": " + what);
  };
  const std::int64_t q_seq = shape(q).rows(), kv_seq = shape(k).rows();
  check(!equal_lengths || q_seq == kv_seq, "q and k must have equally many rows unless it is cross-attention, got " + std::to_string(q_seq) + " and " + std::to_string(kv_seq));
  check(options.window >= 0, "window must not be negative, got " + std::to_string(options.window));
  check(options.window == 0 || mask != Mask::Kind::full, "a window needs a causal mask, got a full one");
  check(mask != Mask::Kind::window || options.window > 0, "a window mask needs a window of at least 1, got 0");
  const Mask made_mask = options.window > 0 ? Mask{Mask::Kind::window, options.window} : Mask{mask, 0};
  std::vector<Value> inputs{q, k, v};
  if (options.segments.layout.kind == SegmentLayout::Kind::packed) {
    inputs.push_back(options.segments.q_offsets);
    inputs.push_back(options.segments.kv_offsets);
  }
  // A bad head_dim must reach the shape rule, which names it, not become a scale.
  const double scale = options.scale.value_or(heads.head_dim > 0 ? 1.0 / std::sqrt(static_cast<double>(heads.head_dim)) : 1.0);
  return record(MultiHeadAttn{heads, made_mask, scale, options.segments.layout}, std::move(inputs), made_name);
}

Value Graph::causal_attention(Value q, Value k, Value v, std::int64_t num_heads, std::int64_t num_kv_heads, std::int64_t head_dim,
                              const AttentionOptions& options, std::string_view name) {
  return attention(q, k, v, {num_heads, num_kv_heads, head_dim}, Mask::Kind::causal, false, options, "causal_attention", name);
}

Value Graph::full_attention(Value q, Value k, Value v, std::int64_t num_heads, std::int64_t num_kv_heads, std::int64_t head_dim,
                            const AttentionOptions& options, std::string_view name) {
  return attention(q, k, v, {num_heads, num_kv_heads, head_dim}, Mask::Kind::full, true, options, "full_attention", name);
}

Value Graph::cross_attention(Value q, Value k, Value v, std::int64_t num_heads, std::int64_t num_kv_heads, std::int64_t head_dim,
                             const AttentionOptions& options, std::string_view name) {
  return attention(q, k, v, {num_heads, num_kv_heads, head_dim}, Mask::Kind::full, false, options, "cross_attention", name);
}

Value Graph::multi_head_attn(Value q, Value k, Value v, std::int64_t num_heads, std::int64_t num_kv_heads, std::int64_t head_dim, bool is_cross,
                             const AttentionOptions& options, std::string_view name) {
  const Mask::Kind mask = options.mask.value_or(is_cross ? Mask::Kind::full : Mask::Kind::causal);
  return attention(q, k, v, {num_heads, num_kv_heads, head_dim}, mask, !is_cross, options, "multi_head_attn", name);
}

Value Graph::cached_attention(Value q, Value k_cache, Value v_cache, Value kv_len, std::int64_t num_heads,
                              std::int64_t num_kv_heads, std::int64_t head_dim, const CacheOptions& options,
                              std::string_view name) {
  const double scale = options.scale.value_or(head_dim > 0 ? 1.0 / std::sqrt(static_cast<double>(head_dim)) : 1.0);
  std::vector<Value> inputs{q, k_cache, v_cache, kv_len};
  if (options.slots.sequences != 0) inputs.push_back(options.slots.slots);
  return record(CachedAttention{{num_heads, num_kv_heads, head_dim}, scale, options.window, options.slots.sequences},
                std::move(inputs), name);
}

Value Graph::rope(const Rope& op, Value x, Value offset, const Segments& segments, std::string_view name) {
  std::vector<Value> inputs{x};
  if (op.dynamic) inputs.push_back(offset);
  if (segments.layout.kind == SegmentLayout::Kind::packed) inputs.push_back(segments.q_offsets);
  return record(op, std::move(inputs), name);
}

Value Graph::rope(Value x, double theta, std::int64_t head_dim, const Segments& segments, const RopeScaling& scaling, std::string_view name) {
  return rope_with_offset(x, theta, 0, head_dim, segments, scaling, name);
}

Value Graph::rope_with_offset(Value x, double theta, std::int64_t offset, std::int64_t head_dim, const Segments& segments, const RopeScaling& scaling,
                              std::string_view name) {
  return rope(Rope{theta, head_dim, offset, false, false, segments.layout, scaling}, x, {}, segments, name);
}

Value Graph::rope_dynamic_offset(Value x, double theta, Value offset, std::int64_t head_dim, const Segments& segments, const RopeScaling& scaling,
                                 std::string_view name) {
  return rope(Rope{theta, head_dim, 0, true, false, segments.layout, scaling}, x, offset, segments, name);
}

Value Graph::cache_write(Value rows, Value cache, Value kv_pos, const CacheSlots& slots, std::string_view name) {
  std::vector<Value> inputs{rows, cache, kv_pos};
  if (slots.sequences != 0) inputs.push_back(slots.slots);
  return record(CacheWrite{slots.sequences}, std::move(inputs), name);
}
Value Graph::assign(Value value, Value state, std::string_view name) { return record(Assign{}, {value, state}, name); }

}  // namespace graft
