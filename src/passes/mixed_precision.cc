// Which values of a graph are stored in bf16. Ops say how they read and write (Reading, Writing); the rest follows: a value is bf16 where its
// node can write that and all that read it can read it, and somebody wants it so.
#include <algorithm>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "graft/error.h"
#include "graft/passes.h"
#include "src/op_traits.h"
#include "src/passes/copy.h"

namespace graft::passes {
namespace {

/// How an op reads an input.
enum class Reading {
  f32,       ///< in f32
  either,    ///< as it comes
  gladly,    ///< as it comes, better in bf16
  bf16,      ///< in bf16: an operand of a product
  deciding,  ///< as all the node's values: bf16 if all that it decides by can be
  as_node,   ///< as the node's values: rounded where they are bf16
};
/// How an op writes an output.
enum class Writing {
  f32,
  either,   ///< by its attribute `bf16`
  bf16,     ///< as what it is made of
  as_node,  ///< as all the node's values
};

/// Whether small errors of x stay small: the others (exp, log, …) are left in f32.
bool keeps_precision(UnaryFn fn) {
  switch (fn) {
    case UnaryFn::neg:
    case UnaryFn::scale:
    case UnaryFn::abs:
    case UnaryFn::tanh:
    case UnaryFn::sigmoid:
    case UnaryFn::relu:
    case UnaryFn::gelu:
    case UnaryFn::gelu_tanh:
    case UnaryFn::silu: return true;
    case UnaryFn::add_scalar:
    case UnaryFn::exp:
    case UnaryFn::log:
    case UnaryFn::sqrt:
    case UnaryFn::softplus: return false;
  }
  GRAFT_ASSERT(!"a unary function");
}

struct ReadingOf {
  std::size_t input;
  Reading operand_below(std::size_t count) const { return input < count ? Reading::bf16 : Reading::f32; }
  Reading gradient() const { return input <= 2 || input == 4 ? Reading::bf16 : Reading::f32; }  // not lse and delta

  Reading operator()(const MatMul&) const { return operand_below(2); }
  Reading operator()(const LinearCrossEntropy&) const { return operand_below(2); }
  Reading operator()(const LinearCrossEntropyGrad&) const { return operand_below(2); }
  Reading operator()(const MultiHeadAttn&) const { return operand_below(3); }
  Reading operator()(const AttnDelta&) const { return Reading::bf16; }
  Reading operator()(const MultiHeadAttnGradQ&) const { return gradient(); }
  Reading operator()(const MultiHeadAttnGradK&) const { return gradient(); }
  Reading operator()(const MultiHeadAttnGradV&) const { return gradient(); }
  Reading operator()(const RmsNormGrad&) const { return input == 3 ? Reading::gladly : Reading::f32; }
  Reading operator()(const LayerNormGrad&) const { return input == 4 ? Reading::gladly : Reading::f32; }
  Reading operator()(const Reduce&) const { return Reading::either; }
  Reading operator()(const Unary& op) const { return keeps_precision(op.fn) ? Reading::deciding : Reading::f32; }
  Reading operator()(const UnaryGrad& op) const {
    return !keeps_precision(op.fn) ? Reading::f32 : input == 0 ? Reading::deciding : Reading::as_node;
  }
  Reading operator()(const Binary& op) const { return op.fn == BinaryFn::div ? Reading::f32 : Reading::deciding; }
  Reading operator()(const Swiglu&) const { return Reading::deciding; }
  Reading operator()(const SwigluGrad&) const { return input < 2 ? Reading::deciding : Reading::as_node; }
  Reading operator()(const Dropout&) const { return Reading::deciding; }
  Reading operator()(const Rope&) const { return Reading::deciding; }
  Reading operator()(const Reshape&) const { return Reading::deciding; }
  Reading operator()(const StopGradient&) const { return Reading::deciding; }
  Reading operator()(const Transpose&) const { return Reading::deciding; }
  Reading operator()(const Slice&) const { return Reading::deciding; }
  Reading operator()(const Pad&) const { return Reading::deciding; }
  Reading operator()(const Concat&) const { return Reading::deciding; }
  Reading operator()(const auto&) const { return Reading::f32; }
};

/// `addend`: whether it is a product with one.
struct WritingOf {
  std::int32_t slot;
  bool addend;
  Writing first(Writing writing) const { return slot == 0 ? writing : Writing::f32; }  // not statistics and gradients of parameters

  Writing operator()(const MatMul&) const { return addend ? Writing::f32 : Writing::either; }
  Writing operator()(const RmsNorm&) const { return first(Writing::either); }
  Writing operator()(const LayerNorm&) const { return first(Writing::either); }
  Writing operator()(const CrossEntropyGrad&) const { return Writing::either; }
  Writing operator()(const LinearCrossEntropyGrad&) const { return first(Writing::bf16); }
  Writing operator()(const MultiHeadAttn&) const { return first(Writing::bf16); }
  Writing operator()(const MultiHeadAttnGradQ&) const { return Writing::bf16; }
  Writing operator()(const MultiHeadAttnGradK&) const { return Writing::bf16; }
  Writing operator()(const MultiHeadAttnGradV&) const { return Writing::bf16; }
  Writing operator()(const auto& op) const { return ReadingOf{0}(op) == Reading::deciding ? Writing::as_node : Writing::f32; }
};

/// Of value v, from vectors of nodes and slots.
template <class T>
auto& at(T& per_value, Value v) {
  return per_value[static_cast<std::size_t>(v.node)][static_cast<std::size_t>(v.slot)];
}

/// Which values are bf16. All that can be are at first, and those that cannot be, for what they are made of or read by, are taken out until
/// none is left.
class Assignment {
 public:
  explicit Assignment(const Graph& graph) : graph_(graph) {
    for (const Node& node : graph.nodes()) {
      const bool f32 = is_f32(node);
      narrow_nodes_.push_back(f32);
      narrow_.emplace_back(node.outputs.size(), f32);
      readers_.emplace_back(node.outputs.size());
    }
    for (std::int32_t n = 0; n < count(); ++n)
      for (std::size_t i = 0; i < node(n).inputs.size(); ++i) at(readers_, node(n).inputs[i]).push_back({n, i});
    for (const auto& [name, value] : graph.outputs()) outputs_.insert(value);
    for (bool changed = true; changed;) {
      changed = false;
      for (std::int32_t n = 0; n < count(); ++n) changed |= update(n);
    }
  }

  bool is_output(Value v) const { return outputs_.contains(v); }
  /// Whether v is stored in bf16.
  bool operator[](Value v) const { return at(narrow_, v); }
  /// How node n reads input i; f32: as the graph has it.
  Reading reading(std::int32_t n, std::size_t i) const {
    if (!is_f32(node(n))) return Reading::f32;
    const Reading reading = std::visit(ReadingOf{i}, node(n).op);
    if (reading != Reading::deciding && reading != Reading::as_node) return reading;
    return narrow_nodes_[static_cast<std::size_t>(n)] ? Reading::bf16 : Reading::f32;
  }
  Writing writing(Value v) const {
    const Node& node = graph_.node(v);
    if (!is_f32(node)) return Writing::f32;
    const bool addend = node.inputs.size() == 3 && graph_.shape(node.inputs[2]).rank() == 2;
    return std::visit(WritingOf{v.slot, addend}, node.op);
  }

 private:
  struct Reader {
    std::int32_t node;
    std::size_t input;
  };
  std::int32_t count() const { return static_cast<std::int32_t>(graph_.nodes().size()); }
  const Node& node(std::int32_t n) const { return graph_.nodes()[static_cast<std::size_t>(n)]; }
  /// Whether it computes, and in f32: what the graph has in bf16 or f64 already stays as it is.
  bool is_f32(const Node& node) const {
    const auto wide = [](const TensorType& type) { return type.dtype == DType::f32 || type.dtype == DType::u32; };
    return !node.inputs.empty() && std::all_of(node.outputs.begin(), node.outputs.end(), wide) &&
           std::all_of(node.inputs.begin(), node.inputs.end(), [&](Value v) { return wide(graph_.type(v)); });
  }

  bool can_be_narrow(Value v) const {
    const Writing how = writing(v);
    if (how == Writing::bf16) return true;
    if (how == Writing::f32 || is_output(v) || (how == Writing::as_node && !narrow_nodes_[static_cast<std::size_t>(v.node)]))
      return false;
    bool wanted = false;
    for (const auto& [n, i] : at(readers_, v)) {
      const Reading how_read = reading(n, i);
      if (how_read == Reading::f32) return false;
      wanted |= how_read != Reading::either;
    }
    return wanted;
  }

  /// Takes out node n and its values where they cannot be bf16; whether any was.
  bool update(std::int32_t n) {
    bool changed = false;
    const auto set = [&](auto&& held, bool can) {
      changed |= held && !can;
      held = held && can;
    };
    bool all = true;
    for (std::size_t i = 0; i < node(n).inputs.size(); ++i)
      if (std::visit(ReadingOf{i}, node(n).op) == Reading::deciding && is_float(graph_.type(node(n).inputs[i]).dtype))
        all = all && (*this)[node(n).inputs[i]];
    for (std::int32_t slot = 0; slot < static_cast<std::int32_t>(node(n).outputs.size()); ++slot) {
      const Value v{n, slot};
      set(at(narrow_, v), can_be_narrow(v));
      if (writing(v) == Writing::as_node && (is_output(v) || !at(readers_, v).empty())) all = all && (*this)[v];
    }
    set(narrow_nodes_[static_cast<std::size_t>(n)], all);
    return changed;
  }

  const Graph& graph_;
  std::set<Value> outputs_;
  std::vector<std::vector<std::vector<Reader>>> readers_;  // of each value
  std::vector<std::vector<char>> narrow_;                  // value → whether it is bf16
  std::vector<char> narrow_nodes_;                         // node → whether its values of one type are bf16
};

}  // namespace

Graph mixed_precision(const Graph& graph) {
  const Assignment assignment(graph);
  Copy copy(graph);
  std::map<std::pair<Value, DType>, Value> casts;  // value of the new graph and type → the same in that type
  const auto free = [&](const std::string& name) { return graph.find(name) ? std::string() : name; };
  const auto as = [&](Value v, DType dtype) {
    if (copy.to.type(v).dtype == dtype) return v;
    Value& found = casts[{v, dtype}];
    if (!found) {
      const std::string name =
          std::string(to_string(dtype)) + ":" + copy.to.node(v).name + (v.slot > 0 ? ":" + std::to_string(v.slot) : "");
      found = copy.to.cast(v, dtype, free(name));
    }
    return found;
  };
  for (std::int32_t n = 0; n < static_cast<std::int32_t>(graph.nodes().size()); ++n) {
    const Node& node = graph.node({n, 0});
    std::vector<Value> inputs = copy(node.inputs);
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      if (!is_float(copy.to.type(inputs[i]).dtype)) continue;
      const Reading reading = assignment.reading(n, i);
      if (reading == Reading::bf16) inputs[i] = as(inputs[i], DType::bf16);
      if (reading == Reading::f32) inputs[i] = as(inputs[i], graph.type(node.inputs[i]).dtype);
    }
    Op op = node.op;
    std::visit(
        [&](auto& o) {
          if constexpr (requires { o.bf16; })
            o.bf16 = o.bf16 || (assignment.writing({n, 0}) == Writing::either && assignment[{n, 0}]);
        },
        op);
    // Outputs keep their names and types: a node that makes one in bf16 alone gets another name.
    const bool shown = assignment.writing({n, 0}) == Writing::bf16 && assignment.is_output({n, 0});
    const Value made = copy.record(n, op, std::move(inputs), shown ? free("bf16:" + node.name) : node.name);
    if (!shown) continue;
    const Value wide = copy.to.cast(made, DType::f32, node.name);
    copy.set({n, 0}, wide);
    casts[{wide, DType::bf16}] = made;
  }
  return copy.finish();
}

}  // namespace graft::passes
