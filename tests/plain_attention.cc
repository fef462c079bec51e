// Attention, rotary embedding and decoding, as plain loops.
#include <cmath>
#include <functional>

#include "tests/plain.h"

namespace graft::testing::plain {
namespace {

/// The segment of a row and its place there.
struct Place {
  std::int64_t segment = 0, index = 0, length = 0;
};

Place place_of(std::int64_t row, std::int64_t rows, SegmentLayout::Kind kind, std::int64_t length, const Tensor* offsets) {
  if (kind == SegmentLayout::Kind::single) return {0, row, rows};
  if (kind == SegmentLayout::Kind::uniform) return {row / length, row % length, length};
  std::int64_t s = 0;
  while ((*offsets)[s + 1] <= static_cast<double>(row)) ++s;
  return {s, row - static_cast<std::int64_t>((*offsets)[s]), static_cast<std::int64_t>((*offsets)[s + 1] - (*offsets)[s])};
}

/// Rows that a segment has among all.
std::int64_t length_of(std::int64_t segment, std::int64_t rows, SegmentLayout::Kind kind, std::int64_t length,
                       const Tensor* offsets) {
  if (kind == SegmentLayout::Kind::single) return rows;
  if (kind == SegmentLayout::Kind::uniform) return length;
  return static_cast<std::int64_t>((*offsets)[segment + 1] - (*offsets)[segment]);
}

/// Calls f(query row, head, key row, score) for every pair that sees each other. `in` starts with q, k, v and ends with the
/// offsets, if packed.
void for_each_pair(const MultiHeadAttn& op, const Tensors& in,
                   const std::function<void(std::int64_t, std::int64_t, std::int64_t, double)>& f) {
  const Tensor &q = in[0], &k = in[1];
  const bool packed = op.segments.kind == SegmentLayout::Kind::packed;
  const Tensor *q_offsets = packed ? &in[in.size() - 2] : nullptr, *kv_offsets = packed ? &in[in.size() - 1] : nullptr;
  const std::int64_t dim = op.heads.head_dim, group = op.heads.heads / op.heads.kv_heads;
  for (std::int64_t i = 0; i < q.rows(); ++i) {
    const Place query = place_of(i, q.rows(), op.segments.kind, op.segments.q_length, q_offsets);
    const std::int64_t keys = length_of(query.segment, k.rows(), op.segments.kind, op.segments.kv_length, kv_offsets);
    const std::int64_t p = query.index + keys - query.length;
    for (std::int64_t j = 0; j < k.rows(); ++j) {
      const Place key = place_of(j, k.rows(), op.segments.kind, op.segments.kv_length, kv_offsets);
      if (key.segment != query.segment) continue;
      if (op.mask.kind != Mask::Kind::full && key.index > p) continue;
      if (op.mask.kind == Mask::Kind::window && key.index <= p - op.mask.window) continue;
      for (std::int64_t h = 0; h < op.heads.heads; ++h) {
        double score = 0;
        for (std::int64_t d = 0; d < dim; ++d) score += q.at(i, h * dim + d) * k.at(j, h / group * dim + d);
        f(i, h, j, op.scale * score);
      }
    }
  }
}

/// Calls f(query row, head, key row, P, dS) with the P and dS of the backward pass; in: q, k, v, lse, dout, delta, offsets.
void for_each_gradient(const MultiHeadAttn& op, const Tensors& in,
                       const std::function<void(std::int64_t, std::int64_t, std::int64_t, double, double)>& f) {
  const std::int64_t dim = op.heads.head_dim, group = op.heads.heads / op.heads.kv_heads;
  for_each_pair(op, in, [&](std::int64_t i, std::int64_t h, std::int64_t j, double score) {
    const double probability = std::exp(score - in[3].at(i, h));
    double dp = 0;
    for (std::int64_t d = 0; d < dim; ++d) dp += in[4].at(i, h * dim + d) * in[2].at(j, h / group * dim + d);
    f(i, h, j, probability, probability * (dp - in[5].at(i, h)));
  });
}

}  // namespace

Tensors run(const MultiHeadAttn& op, const Tensors& in, Tensors out) {
  const std::int64_t dim = op.heads.head_dim, group = op.heads.heads / op.heads.kv_heads;
  Tensor largest = out[1], sum = out[1];
  largest.values.assign(largest.values.size(), -INFINITY);
  for_each_pair(op, in,
                [&](std::int64_t i, std::int64_t h, std::int64_t, double s) { largest.at(i, h) = std::max(largest.at(i, h), s); });
  for_each_pair(op, in,
                [&](std::int64_t i, std::int64_t h, std::int64_t, double s) { sum.at(i, h) += std::exp(s - largest.at(i, h)); });
  for_each_pair(op, in, [&](std::int64_t i, std::int64_t h, std::int64_t j, double s) {
    for (std::int64_t d = 0; d < dim; ++d)
      out[0].at(i, h * dim + d) += std::exp(s - largest.at(i, h)) / sum.at(i, h) * in[2].at(j, h / group * dim + d);
  });
  for (std::int64_t i = 0; i < out[1].shape.size(); ++i) out[1][i] = sum[i] > 0 ? largest[i] + std::log(sum[i]) : -INFINITY;
  return out;
}

Tensors run(const AttnDelta& op, const Tensors& in, Tensors out) {
  for (std::int64_t i = 0; i < in[0].rows(); ++i)
    for (std::int64_t j = 0; j < in[0].cols(); ++j) out[0].at(i, j / op.heads.head_dim) += in[0].at(i, j) * in[1].at(i, j);
  return out;
}

Tensors run(const MultiHeadAttnGradQ& op, const Tensors& in, Tensors out) {
  const std::int64_t dim = op.attn.heads.head_dim, group = op.attn.heads.heads / op.attn.heads.kv_heads;
  for_each_gradient(op.attn, in, [&](std::int64_t i, std::int64_t h, std::int64_t j, double, double ds) {
    for (std::int64_t d = 0; d < dim; ++d) out[0].at(i, h * dim + d) += op.attn.scale * ds * in[1].at(j, h / group * dim + d);
  });
  return out;
}

Tensors run(const MultiHeadAttnGradK& op, const Tensors& in, Tensors out) {
  const std::int64_t dim = op.attn.heads.head_dim, group = op.attn.heads.heads / op.attn.heads.kv_heads;
  for_each_gradient(op.attn, in, [&](std::int64_t i, std::int64_t h, std::int64_t j, double, double ds) {
    for (std::int64_t d = 0; d < dim; ++d) out[0].at(j, h / group * dim + d) += op.attn.scale * ds * in[0].at(i, h * dim + d);
  });
  return out;
}

Tensors run(const MultiHeadAttnGradV& op, const Tensors& in, Tensors out) {
  const std::int64_t dim = op.attn.heads.head_dim, group = op.attn.heads.heads / op.attn.heads.kv_heads;
  for_each_gradient(op.attn, in, [&](std::int64_t i, std::int64_t h, std::int64_t j, double probability, double) {
    for (std::int64_t d = 0; d < dim; ++d) out[0].at(j, h / group * dim + d) += probability * in[4].at(i, h * dim + d);
  });
  return out;
}

namespace {

/// Llama 3's rule case by case: by wavelength, long ones stretched, short ones kept, those between a mixture.
double scaled(double frequency, const RopeScaling& s) {
  if (s.kind == RopeScaling::Kind::none) return frequency;
  if (s.kind == RopeScaling::Kind::linear) return frequency / s.factor;
  const auto context = static_cast<double>(s.original_context);
  const double wavelength = 2.0 * std::acos(-1.0) / frequency;
  if (wavelength > context / s.low_freq_factor) return frequency / s.factor;
  if (wavelength < context / s.high_freq_factor) return frequency;
  const double smooth = (context / wavelength - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
  return (1.0 - smooth) * frequency / s.factor + smooth * frequency;
}

}  // namespace

Tensors run(const Rope& op, const Tensors& in, Tensors out) {
  const Tensor& x = in[0];
  const Tensor* offsets = op.segments.kind == SegmentLayout::Kind::packed ? &in.back() : nullptr;
  const std::int64_t dim = op.head_dim;
  for (std::int64_t row = 0; row < x.rows(); ++row) {
    const Place place = place_of(row, x.rows(), op.segments.kind, op.segments.q_length, offsets);
    const double position =
        static_cast<double>(op.offset + place.index) + (op.dynamic ? in[1][in[1].shape.size() > 1 ? place.segment : 0] : 0);
    for (std::int64_t head = 0; head < x.cols() / dim; ++head)
      for (std::int64_t i = 0; i < dim / 2; ++i) {
        double angle = position * scaled(std::pow(op.theta, -2.0 * static_cast<double>(i) / static_cast<double>(dim)), op.scaling);
        if (op.inverse) angle = -angle;
        const std::int64_t a = head * dim + i, b = a + dim / 2;
        out[0].at(row, a) = x.at(row, a) * std::cos(angle) - x.at(row, b) * std::sin(angle);
        out[0].at(row, b) = x.at(row, b) * std::cos(angle) + x.at(row, a) * std::sin(angle);
      }
  }
  return out;
}

Tensors run(const CachedAttention& op, const Tensors& in, Tensors out) {
  const std::int64_t dim = op.heads.head_dim, group = op.heads.heads / op.heads.kv_heads, count = in[3].shape.size(),
                     each = in[0].rows() / count;
  const std::int64_t max_seq = in[1].rows() / (op.sequences > 0 ? op.sequences : count);
  for (std::int64_t i = 0; i < in[0].rows(); ++i) {
    const std::int64_t s = i / each, base = max_seq * (op.sequences > 0 ? static_cast<std::int64_t>(in[4][s]) : s);
    const std::int64_t end = static_cast<std::int64_t>(in[3][s]) - each + i % each + 1;
    const std::int64_t begin = std::max<std::int64_t>(0, op.window > 0 ? end - op.window : 0);
    for (std::int64_t h = 0; h < op.heads.heads; ++h) {
      std::vector<double> scores;
      for (std::int64_t j = begin; j < end; ++j) {
        scores.push_back(0);
        for (std::int64_t d = 0; d < dim; ++d)
          scores.back() += op.scale * in[0].at(i, h * dim + d) * in[1].at(base + j, h / group * dim + d);
      }
      double largest = -INFINITY, sum = 0;
      for (const double score : scores) largest = std::max(largest, score);
      for (const double score : scores) sum += std::exp(score - largest);
      for (std::int64_t j = begin; j < end; ++j) {
        const double weight = std::exp(scores[static_cast<std::size_t>(j - begin)] - largest) / sum;
        for (std::int64_t d = 0; d < dim; ++d) out[0].at(i, h * dim + d) += weight * in[2].at(base + j, h / group * dim + d);
      }
    }
  }
  return out;
}

}  // namespace graft::testing::plain
