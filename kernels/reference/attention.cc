#include <cmath>
#include <limits>

#include "kernels/reference/kernels.h"
#include "kernels/reference/views.h"
#include "kernels/segments.h"

namespace graft::reference {
namespace {

/// One head of one row of a tensor [rows, heads·head_dim].
template <class T>
Row<T> head_of(const TensorView& x, const AttentionShape& heads, std::int64_t row, std::int64_t head) {
  return {x.as<T>() + row * x.cols() + head * heads.head_dim, heads.head_dim};
}
template <class T>
ConstRow<T> const_head_of(const TensorView& x, const AttentionShape& heads, std::int64_t row, std::int64_t head) {
  return {x.as<const T>() + row * x.cols() + head * heads.head_dim, heads.head_dim};
}

/// A query row of one head, and the rows of the keys that it sees: keys.first ≤ j < keys.last.
struct Query {
  std::int64_t row, head, kv_head;
  detail::KeyRange keys;
};

/// Calls f(query) for each row and head, in a fixed order.
template <class F>
void for_each_query(const AttentionShape& heads, const Mask& mask, const detail::SegmentList& segments, F&& f) {
  const std::int64_t group = heads.heads / heads.kv_heads;
  for (std::int64_t s = 0; s < segments.count(); ++s) {
    const detail::Segment segment = segments[s];
    for (std::int64_t i = 0; i < segment.q_seq(); ++i) {
      const auto [first, last] = detail::visible_keys(mask, i, segment.q_seq(), segment.kv_seq());
      for (std::int64_t head = 0; head < heads.heads; ++head) {
        f(Query{segment.q_begin + i, head, head / group, {segment.kv_begin + first, segment.kv_begin + last}});
      }
    }
  }
}

/// out = softmax(scale·q·kᵀ)·v of one query, if `out` is there; returns its lse.
template <class T>
T attend(const AttentionShape& heads, T scale, const TensorView& q, const TensorView& k, const TensorView& v, const TensorView& out,
         const Query& query) {
  const auto q_row = const_head_of<T>(q, heads, query.row, query.head);
  const auto score = [&](std::int64_t j) { return scale * dot(q_row, const_head_of<T>(k, heads, j, query.kv_head)); };
  T max = -std::numeric_limits<T>::infinity();
  for (std::int64_t j = query.keys.first; j < query.keys.last; ++j) max = std::max(max, score(j));
  T sum = T{0};
  if (out) head_of<T>(out, heads, query.row, query.head).setZero();
  for (std::int64_t j = query.keys.first; j < query.keys.last; ++j) {
    const T weight = std::exp(score(j) - max);
    sum += weight;
    if (out) head_of<T>(out, heads, query.row, query.head) += weight * const_head_of<T>(v, heads, j, query.kv_head);
  }
  if (query.keys.first == query.keys.last) return -std::numeric_limits<T>::infinity();
  if (out) head_of<T>(out, heads, query.row, query.head) /= sum;
  return max + std::log(sum);
}

/// What the three gradients share: calls f(query, j, p, ds) for each key j that a query sees; p is its probability, ds the gradient
/// of its score.
template <class T, class F>
void for_each_pair(const MultiHeadAttn& attn, const Step& step, F&& f) {
  const TensorView &q = step.in[0], &k = step.in[1], &v = step.in[2], &dout = step.in[4];
  const T scale = static_cast<T>(attn.scale);
  for_each_query(attn.heads, attn.mask, detail::attention_segments(attn.segments, step.in), [&](const Query& query) {
    const std::int64_t index = query.row * attn.heads.heads + query.head;
    const T lse = step.in[3].as<const T>()[index], delta = step.in[5].as<const T>()[index];
    const auto q_row = const_head_of<T>(q, attn.heads, query.row, query.head);
    const auto dout_row = const_head_of<T>(dout, attn.heads, query.row, query.head);
    for (std::int64_t j = query.keys.first; j < query.keys.last; ++j) {
      const T p = std::exp(scale * dot(q_row, const_head_of<T>(k, attn.heads, j, query.kv_head)) - lse);
      const T ds = p * (dot(dout_row, const_head_of<T>(v, attn.heads, j, query.kv_head)) - delta);
      f(query, j, p, ds);
    }
  });
}

}  // namespace

void run(const MultiHeadAttn& op, const Step& step) {
  with_type(step.in[0], [&]<class T>() {
    for_each_query(op.heads, op.mask, detail::attention_segments(op.segments, step.in), [&](const Query& query) {
      const T lse = attend(op.heads, static_cast<T>(op.scale), step.in[0], step.in[1], step.in[2], step.out[0], query);
      if (step.out[1]) step.out[1].as<T>()[query.row * op.heads.heads + query.head] = lse;
    });
  });
}

void run(const AttnDelta& op, const Step& step) {
  if (!step.out[0]) return;
  with_type(step.in[0], [&]<class T>() {
    auto delta = matrix<T>(step.out[0]);
    for (std::int64_t i = 0; i < delta.rows(); ++i) {
      for (std::int64_t head = 0; head < op.heads.heads; ++head) {
        delta(i, head) = dot(const_head_of<T>(step.in[0], op.heads, i, head), const_head_of<T>(step.in[1], op.heads, i, head));
      }
    }
  });
}

void run(const MultiHeadAttnGradQ& op, const Step& step) {
  if (!step.out[0]) return;
  with_type(step.in[0], [&]<class T>() {
    const AttentionShape& heads = op.attn.heads;
    matrix<T>(step.out[0]).setZero();
    for_each_pair<T>(op.attn, step, [&](const Query& query, std::int64_t j, T, T ds) {
      head_of<T>(step.out[0], heads, query.row, query.head) +=
          static_cast<T>(op.attn.scale) * ds * const_head_of<T>(step.in[1], heads, j, query.kv_head);
    });
  });
}

void run(const MultiHeadAttnGradK& op, const Step& step) {
  if (!step.out[0]) return;
  with_type(step.in[0], [&]<class T>() {
    const AttentionShape& heads = op.attn.heads;
    matrix<T>(step.out[0]).setZero();
    for_each_pair<T>(op.attn, step, [&](const Query& query, std::int64_t j, T, T ds) {
      head_of<T>(step.out[0], heads, j, query.kv_head) +=
          static_cast<T>(op.attn.scale) * ds * const_head_of<T>(step.in[0], heads, query.row, query.head);
    });
  });
}

void run(const MultiHeadAttnGradV& op, const Step& step) {
  if (!step.out[0]) return;
  with_type(step.in[0], [&]<class T>() {
    const AttentionShape& heads = op.attn.heads;
    matrix<T>(step.out[0]).setZero();
    for_each_pair<T>(op.attn, step, [&](const Query& query, std::int64_t j, T p, T) {
      head_of<T>(step.out[0], heads, j, query.kv_head) += p * const_head_of<T>(step.in[4], heads, query.row, query.head);
    });
  });
}

void run(const CachedAttention& op, const Step& step) {
  if (!step.out[0]) return;
  with_type(step.in[0], [&]<class T>() {
    const detail::SegmentList segments(detail::CacheRows(op.sequences, step.in, 1, 3));
    for_each_query(op.heads, detail::cache_mask(op), segments, [&](const Query& query) {
      attend(op.heads, static_cast<T>(op.scale), step.in[0], step.in[1], step.in[2], step.out[0], query);
    });
  });
}

}  // namespace graft::reference
