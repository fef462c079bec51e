// Shape rules of attention, rotary embedding and the KV cache.
#include <cmath>

#include "src/infer.h"

namespace graft {
namespace {

void require_heads(const AttentionShape& s) {
  const auto text = [](std::int64_t v) { return std::to_string(v); };
  require(s.heads >= 1 && s.kv_heads >= 1, "numbers of heads must be at least 1, got " + text(s.heads) + " and " + text(s.kv_heads));
  require(s.heads % s.kv_heads == 0, "num_heads must divide by num_kv_heads, got " + text(s.heads) + " and " + text(s.kv_heads));
  require(s.head_dim >= 1 && s.head_dim <= 256, "head_dim must be 1 to 256, got " + text(s.head_dim));
}

void require_columns(const TensorType& type, std::int64_t heads, std::int64_t head_dim, const char* what) {
  require(type.shape.rank() == 2 && type.shape.cols() == heads * head_dim,
          std::string(what) + " must have " + std::to_string(heads) + " heads of " + std::to_string(head_dim) + ", so " + std::to_string(heads * head_dim) +
              " columns, got " + to_string(type.shape));
}

void require_uniform(std::int64_t length, std::int64_t rows, const char* what) {
  require(length >= 1 && rows % length == 0, std::string(what) + " must be a multiple of the segment length, got " + std::to_string(rows) + " rows and length " + std::to_string(length));
}

void require_offsets(const TensorType& type) {
  require_u32(type, "segment offsets");
  require(type.shape.rank() == 1 && type.shape.size() >= 2, "segment offsets must be a vector of at least 2, got " + to_string(type.shape));
}

/// Checks q, k, v and, if packed, the offsets that follow `fixed` inputs.
void require_attention(const MultiHeadAttn& op, InputTypes in, std::size_t fixed) {
  const bool packed = op.segments.kind == SegmentLayout::Kind::packed;
  require_inputs(in, fixed + 2 * packed, fixed + 2 * packed);
  require_float(in.first(3));
  require_heads(op.heads);
  require_columns(in[0], op.heads.heads, op.heads.head_dim, "q");
  require_columns(in[1], op.heads.kv_heads, op.heads.head_dim, "k");
  require_columns(in[2], op.heads.kv_heads, op.heads.head_dim, "v");
  require(in[1].shape == in[2].shape, "k and v differ, got " + to_string(in[1].shape) + " and " + to_string(in[2].shape));
  if (op.mask.kind == Mask::Kind::window) require(op.mask.window >= 1, "window must be at least 1, got " + std::to_string(op.mask.window));
  switch (op.segments.kind) {
    case SegmentLayout::Kind::single: break;
    case SegmentLayout::Kind::uniform: {
      require_uniform(op.segments.q_length, in[0].shape.rows(), "q");
      require_uniform(op.segments.kv_length, in[1].shape.rows(), "k");
      const std::int64_t nq = in[0].shape.rows() / op.segments.q_length, nk = in[1].shape.rows() / op.segments.kv_length;
      require(nq == nk, "q and k must hold equally many segments, got " + std::to_string(nq) + " and " + std::to_string(nk));
      break;
    }
    case SegmentLayout::Kind::packed:
      require_offsets(in[fixed]);
      require_equal(in[fixed], in[fixed + 1], "q and kv segment offsets");
      break;
  }
}

void require_scaling(const RopeScaling& s) {
  if (s.kind == RopeScaling::Kind::none) return;
  require(s.factor > 0.0 && std::isfinite(s.factor), "the scaling factor must be finite and above 0, got " + std::to_string(s.factor));
  if (s.kind == RopeScaling::Kind::linear) return;
  require(s.low_freq_factor > 0.0 && s.high_freq_factor > s.low_freq_factor && std::isfinite(s.high_freq_factor),
          "low_freq_factor must be above 0 and below high_freq_factor, got " + std::to_string(s.low_freq_factor) + " and " +
              std::to_string(s.high_freq_factor));
  require(s.original_context >= 1, "original_context must be at least 1, got " + std::to_string(s.original_context));
}

/// `places`: kv_pos or kv_len, and the slots if the cache holds `sequences` that the rows do not all come from.
void require_sequences(std::int64_t sequences, const Shape& rows, const char* what, const Shape& cache, InputTypes places,
                       const char* place) {
  require_u32(places[0], place);
  require(places[0].shape.rank() <= 1 && places[0].shape.size() >= 1,
          std::string(place) + " must be u32[] or a vector with a number for each sequence, got " + to_string(places[0]));
  const std::int64_t count = places[0].shape.size();
  require(sequences >= 0, "the cache's sequences must not be negative, got " + std::to_string(sequences));
  if (sequences > 0) require_equal(places[1], places[0], (std::string("slots and ") + place).c_str());
  const std::int64_t held = sequences > 0 ? sequences : count;
  require(rows.rows() >= 1 && rows.rows() % count == 0,
          std::string(what) + " must be equally many for each of " + std::to_string(count) + " sequences, got " + to_string(rows));
  require(cache.rows() % held == 0,
          "the cache must have equally many rows for each of " + std::to_string(held) + " sequences, got " + to_string(cache));
  require(rows.rows() / count <= cache.rows() / held, std::string(what) + " must fit in the cache, got " +
                                                          std::to_string(rows.rows() / count) + " rows a sequence and a cache of " +
                                                          std::to_string(cache.rows() / held));
}

TensorType lse_type(const TensorType& q, const AttentionShape& heads) { return {wide(q.dtype), {q.shape.rows(), heads.heads}}; }

void require_gradient_inputs(const MultiHeadAttn& op, InputTypes in) {
  require_attention(op, in, 6);
  require_equal(in[3], lse_type(in[0], op.heads), "lse and q");
  require_equal(in[4], in[0], "dout and q");
  require_equal(in[5], lse_type(in[0], op.heads), "delta and q");
}

}  // namespace

Types infer(const MultiHeadAttn& op, InputTypes in) {
  require_attention(op, in, 3);
  return {in[0], lse_type(in[0], op.heads)};
}

Types infer(const AttnDelta& op, InputTypes in) {
  require_inputs(in, 2, 2);
  require_float(in);
  require_equal(in[0], in[1], "out and dout");
  require_heads(op.heads);
  require_columns(in[0], op.heads.heads, op.heads.head_dim, "out");
  return {lse_type(in[0], op.heads)};
}

Types infer(const MultiHeadAttnGradQ& op, InputTypes in) {
  require_gradient_inputs(op.attn, in);
  return {in[0]};
}

Types infer(const MultiHeadAttnGradK& op, InputTypes in) {
  require_gradient_inputs(op.attn, in);
  return {in[1]};
}

Types infer(const MultiHeadAttnGradV& op, InputTypes in) {
  require_gradient_inputs(op.attn, in);
  return {in[2]};
}

Types infer(const Rope& op, InputTypes in) {
  const bool packed = op.segments.kind == SegmentLayout::Kind::packed;
  const std::size_t count = 1 + std::size_t{op.dynamic} + std::size_t{packed};
  require_inputs(in, count, count);
  require_float(in.first(1));
  const Shape& x = in[0].shape;
  require(op.head_dim >= 2 && op.head_dim % 2 == 0, "head_dim must be even, got " + std::to_string(op.head_dim));
  require(x.rank() == 2 && x.cols() % op.head_dim == 0, "columns must be a multiple of head_dim, got " + to_string(x) + " and " + std::to_string(op.head_dim));
  require(op.theta > 0.0, "theta must be positive, got " + std::to_string(op.theta));
  require_scaling(op.scaling);
  require(op.offset >= 0, "offset must not be negative, got " + std::to_string(op.offset));
  if (packed) require_offsets(in[count - 1]);
  if (op.segments.kind == SegmentLayout::Kind::uniform) require_uniform(op.segments.q_length, x.rows(), "x");
  if (op.dynamic) {
    const std::int64_t segments = packed                                             ? in[count - 1].shape.size() - 1
                                  : op.segments.kind == SegmentLayout::Kind::uniform ? x.rows() / op.segments.q_length
                                                                                     : 1;
    require_u32(in[1], "the offset");
    require(in[1].shape.rank() == 0 || in[1].shape == Shape{segments},
            "the offset must be u32[] or u32[" + std::to_string(segments) + "], one a segment, got " + to_string(in[1]));
  }
  return {in[0]};
}

Types infer(const CachedAttention& op, InputTypes in) {
  require_inputs(in, 4 + std::size_t{op.sequences != 0}, 4 + std::size_t{op.sequences != 0});
  require_float(in.first(3));
  require_heads(op.heads);
  require_columns(in[0], op.heads.heads, op.heads.head_dim, "q");
  require_columns(in[1], op.heads.kv_heads, op.heads.head_dim, "k_cache");
  require_equal(in[1], in[2], "k_cache and v_cache");
  require(op.window >= 0, "window must not be negative, got " + std::to_string(op.window));
  require_sequences(op.sequences, in[0].shape, "q", in[1].shape, in.subspan(3), "kv_len");
  return {in[0]};
}

Types infer(const CacheWrite& op, InputTypes in) {
  require_inputs(in, 3 + std::size_t{op.sequences != 0}, 3 + std::size_t{op.sequences != 0});
  require_float(in.first(2));
  require(in[1].shape.rank() == 2, "the cache must be a matrix, got " + to_string(in[1].shape));
  require(in[0].shape.rank() == 2 && in[0].shape.cols() == in[1].shape.cols(),
          "the new rows must have the columns of the cache, got " + to_string(in[0].shape) + " and " + to_string(in[1].shape));
  require_sequences(op.sequences, in[0].shape, "the new rows", in[1].shape, in.subspan(2), "kv_pos");
  return {in[1]};
}

}  // namespace graft
