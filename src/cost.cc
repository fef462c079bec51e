#include <algorithm>

#include "graft/profile.h"
#include "src/op_traits.h"

namespace graft {
namespace {

/// Pairs of a query and a key that it sees, over all segments. Packed lengths are not known here: as if there were one segment.
double pairs(const MultiHeadAttn& op, std::int64_t q_rows, std::int64_t kv_rows) {
  const bool uniform = op.segments.kind == SegmentLayout::Kind::uniform;
  const std::int64_t q = uniform ? op.segments.q_length : q_rows, kv = uniform ? op.segments.kv_length : kv_rows;
  double seen = 0;
  for (std::int64_t i = 0; i < q; ++i) {
    const std::int64_t last = std::clamp(i + kv - q + 1, std::int64_t{0}, kv);
    switch (op.mask.kind) {
      case Mask::Kind::full: seen += static_cast<double>(kv); break;
      case Mask::Kind::causal: seen += static_cast<double>(last); break;
      case Mask::Kind::window: seen += static_cast<double>(std::min(last, op.mask.window)); break;
    }
  }
  return seen * static_cast<double>(q_rows / q);
}

struct Flops {
  const Graph& graph;
  const Node& node;

  double size(std::size_t input) const { return static_cast<double>(graph.shape(node.inputs[input]).size()); }
  double out() const { return static_cast<double>(node.outputs[0].shape.size()); }
  double attention(const MultiHeadAttn& op, double products) const {
    return 2 * products * pairs(op, graph.shape(node.inputs[0]).rows(), graph.shape(node.inputs[1]).rows()) *
           static_cast<double>(op.heads.heads * op.heads.head_dim);
  }
  double operator()(const MatMul& op) const {
    const Shape& a = graph.shape(node.inputs[0]);
    return 2 * out() * static_cast<double>(op.transpose_a ? a.rows() : a.cols());
  }
  double operator()(const MultiHeadAttn& op) const { return attention(op, 2); }
  double operator()(const MultiHeadAttnGradQ& op) const { return attention(op.attn, 3); }
  double operator()(const MultiHeadAttnGradK& op) const { return attention(op.attn, 3); }
  double operator()(const MultiHeadAttnGradV& op) const { return attention(op.attn, 2); }
  /// As if every cache were full.
  double operator()(const CachedAttention& op) const {
    const double max_seq =
        static_cast<double>(graph.shape(node.inputs[1]).rows()) / (op.sequences > 0 ? static_cast<double>(op.sequences) : size(3));
    return 4 * size(0) * (op.window > 0 ? std::min(max_seq, static_cast<double>(op.window)) : max_seq);
  }
  double operator()(const CrossEntropy&) const { return 4 * size(0); }
  double linear_cross_entropy(const LinearCrossEntropy& op, double products) const {
    const double classes = static_cast<double>(graph.shape(node.inputs[1])[!op.transpose_weight]);
    return 2 * products * size(0) * classes + 4 * size(2) * classes;
  }
  double operator()(const LinearCrossEntropy& op) const { return linear_cross_entropy(op, 1); }
  double operator()(const LinearCrossEntropyGrad& op) const { return linear_cross_entropy(op.linear, 3); }
  double operator()(const GlobalNorm&) const {
    double total = 0;
    for (std::size_t i = 0; i < node.inputs.size(); ++i) total += 2 * size(i);
    return total;
  }
  double operator()(const AdamUpdate&) const { return 14 * out(); }
  /// Copies do no arithmetic.
  template <class T>
    requires std::is_same_v<T, Transpose> || std::is_same_v<T, Slice> || std::is_same_v<T, Pad> || std::is_same_v<T, Concat> || std::is_same_v<T, Broadcast> ||
             std::is_same_v<T, Embedding> || std::is_same_v<T, CacheWrite> || std::is_same_v<T, Assign> || std::is_same_v<T, Cast>
  double operator()(const T&) const { return 0; }
  template <class T>
  double operator()(const T&) const { return is_source(node.op) || is_view(node.op) ? 0 : 4 * out(); }
};

}  // namespace

Cost cost(const Graph& graph, const Node& node) {
  Cost result{std::visit(Flops{graph, node}, node.op), 0};
  if (is_source(node.op) || is_view(node.op)) return result;
  for (std::size_t i = 0; i < node.inputs.size(); ++i) {
    const bool table = std::holds_alternative<Embedding>(node.op) && i == 0;  // only the rows looked up are read
    const bool cache = std::holds_alternative<CacheWrite>(node.op) && i == 1;  // only the new rows are written
    const auto* attention = std::get_if<CachedAttention>(&node.op);            // only the caches of its sequences are read
    const bool part = attention && attention->sequences > 0 && (i == 1 || i == 2);
    const double share =
        part ? static_cast<double>(graph.shape(node.inputs[3]).size()) / static_cast<double>(attention->sequences) : 1.0;
    if (!cache) result.bytes += share * static_cast<double>(table ? node.outputs[0].bytes() : graph.type(node.inputs[i]).bytes());
  }
  for (std::size_t slot = 0; slot < node.outputs.size(); ++slot)
    result.bytes += static_cast<double>(std::holds_alternative<CacheWrite>(node.op) ? graph.type(node.inputs[0]).bytes() : node.outputs[slot].bytes());
  return result;
}

}  // namespace graft
