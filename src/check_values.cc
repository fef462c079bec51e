#include "src/check_values.h"

#include <algorithm>
#include <string>
#include <tuple>

#include "graft/error.h"
#include "src/op_traits.h"

namespace graft {
namespace {

struct Read {
  std::size_t input;
  ValueCheck::Kind kind;
  const char* what;
  std::int64_t bound;
  std::uint32_t ignore_index = kIgnoreIndex;
  std::int64_t rows = 1;
};
using Reads = std::vector<Read>;

/// The rules: which inputs of a node hold u32 values that must be in range. Counters and RoPE offsets may be anything.
struct Rules {
  const Graph& graph;
  const Node& node;

  std::int64_t rows(std::size_t input) const { return graph.shape(node.inputs[input]).rows(); }

  Reads operator()(const Embedding&) const { return {{1, ValueCheck::Kind::id, "id", rows(0)}}; }
  Reads operator()(const EmbeddingGrad& op) const { return {{0, ValueCheck::Kind::id, "id", op.vocabulary}}; }
  Reads operator()(const CrossEntropy& op) const {
    return {{1, ValueCheck::Kind::label, "label", graph.shape(node.inputs[0]).cols(), op.ignore_index}};
  }
  Reads operator()(const CrossEntropyGrad& op) const { return (*this)(op.loss); }
  Reads operator()(const LinearCrossEntropy& op) const {
    return {{2, ValueCheck::Kind::label, "label", graph.shape(node.inputs[1])[!op.transpose_weight], op.loss.ignore_index}};
  }
  Reads operator()(const LinearCrossEntropyGrad& op) const { return (*this)(op.linear); }
  /// `place`: the input that holds positions or lengths; the slots, if any, come next.
  Reads cache(std::int64_t sequences, std::size_t place, ValueCheck::Kind kind, const char* what) const {
    const std::int64_t count = graph.shape(node.inputs[place]).size();
    const std::int64_t written = kind == ValueCheck::Kind::position ? rows(0) / count : 1;
    Reads reads = {{place, kind, what, rows(1) / (sequences > 0 ? sequences : count), kIgnoreIndex, written}};
    if (sequences > 0) reads.push_back({place + 1, ValueCheck::Kind::slot, "slot", sequences});
    return reads;
  }
  Reads operator()(const CacheWrite& op) const { return cache(op.sequences, 2, ValueCheck::Kind::position, "position"); }
  Reads operator()(const CachedAttention& op) const { return cache(op.sequences, 3, ValueCheck::Kind::length, "kv_len"); }
  Reads operator()(const Rope& op) const {
    if (op.segments.kind != SegmentLayout::Kind::packed) return {};
    return {{node.inputs.size() - 1, ValueCheck::Kind::offsets, "offsets", rows(0)}};
  }
  Reads attention(const MultiHeadAttn& op) const {
    if (op.segments.kind != SegmentLayout::Kind::packed) return {};
    const std::size_t at = node.inputs.size() - 2;
    return {{at, ValueCheck::Kind::offsets, "q_offsets", rows(0)}, {at + 1, ValueCheck::Kind::offsets, "kv_offsets", rows(1)}};
  }
  Reads operator()(const MultiHeadAttn& op) const { return attention(op); }
  Reads operator()(const MultiHeadAttnGradQ& op) const { return attention(op.attn); }
  Reads operator()(const MultiHeadAttnGradK& op) const { return attention(op.attn); }
  Reads operator()(const MultiHeadAttnGradV& op) const { return attention(op.attn); }
  Reads operator()(const auto&) const { return {}; }
};

/// Follows v back to the source that holds its values when the step begins.
ValueCheck trace(const Graph& graph, Value v, ValueCheck check) {
  for (;;) {
    const Node& node = graph.node(v);
    if (is_source(node.op)) {
      check.source = v.node;
      return check;
    }
    if (std::holds_alternative<Increment>(node.op)) {
      ++check.added;
    } else if (!is_view(node.op) && !std::holds_alternative<Assign>(node.op)) {
      const Node& reader = graph.nodes()[static_cast<std::size_t>(check.node)];
      throw Error(label(reader) + ": " + check.what +
                  " must come from an input, a constant or a state as it is before the step, got the result of " + label(node));
    }
    v = node.inputs[0];
  }
}

}  // namespace

std::string label(const Node& node) { return op_name(node.op) + " \"" + node.name + "\""; }

std::vector<ValueCheck> value_checks(const Plan& plan) {
  const Graph& graph = plan.graph();
  std::vector<ValueCheck> checks;
  const auto key = [](const ValueCheck& c) { return std::tie(c.kind, c.bound, c.ignore_index, c.rows, c.source, c.added); };
  for (const std::int32_t n : plan.order()) {
    const Node& node = graph.nodes()[static_cast<std::size_t>(n)];
    for (const Read& read : std::visit(Rules{graph, node}, node.op)) {
      const ValueCheck check =
          trace(graph, node.inputs[read.input], {read.kind, n, read.what, read.bound, read.ignore_index, read.rows, -1, 0});
      if (std::none_of(checks.begin(), checks.end(), [&](const ValueCheck& other) { return key(other) == key(check); }))
        checks.push_back(check);
    }
  }
  return checks;
}

void check_values(const Graph& graph, const ValueCheck& check, std::span<const std::uint32_t> values) {
  const auto fail = [&](const std::string& what) {
    throw Error(label(graph.nodes()[static_cast<std::size_t>(check.node)]) + ": " + what);
  };
  const auto text = [](auto number) { return std::to_string(number); };
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::uint32_t value = values[i] + check.added;
    const bool outside = value >= check.bound;
    const std::string sequence = values.size() > 1 ? " of sequence " + text(i) : "";
    switch (check.kind) {
      case ValueCheck::Kind::id:
        if (outside)
          fail("id " + text(value) + " at position " + text(i) + " is outside the table of " + text(check.bound) + " rows");
        break;
      case ValueCheck::Kind::label:
        if (outside && value != check.ignore_index) {
          fail("label " + text(value) + " at position " + text(i) + " is outside the " + text(check.bound) + " classes");
        }
        break;
      case ValueCheck::Kind::position:
        if (value > check.bound - check.rows) {
          const std::string last = check.rows > 1 ? " to " + text(std::int64_t{value} + check.rows - 1) : "";
          fail("position " + text(value) + last + sequence + " is outside the cache of " + text(check.bound) + " rows");
        }
        break;
      case ValueCheck::Kind::length:
        if (value < 1 || value > check.bound) {
          fail(check.what + sequence + " must be from 1 to " + text(check.bound) + ", the rows of the cache, got " + text(value));
        }
        break;
      case ValueCheck::Kind::slot:
        if (outside)
          fail("slot " + text(value) + " at position " + text(i) + " is outside the cache of " + text(check.bound) + " sequences");
        break;
      case ValueCheck::Kind::offsets:
        if (i == 0 && value != 0) fail(check.what + (" must begin with 0, got " + text(value)));
        if (i > 0 && value < values[i - 1]) {
          fail(check.what + (" must never fall, got " + text(value)) + " after " + text(values[i - 1]) + " at position " + text(i));
        }
        if (i + 1 == values.size() && value != check.bound) {
          fail(check.what + (" must end with " + text(check.bound)) + ", the number of rows, got " + text(value));
        }
        break;
    }
  }
}

}  // namespace graft
