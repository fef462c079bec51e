#include <algorithm>

#include "autodiff/names.h"
#include "autodiff/rules.h"
#include "graft/autodiff.h"
#include "graft/error.h"

namespace graft {
namespace {

using detail::value_name;

std::string described(const Node& node) { return op_name(node.op) + " \"" + node.name + "\""; }

void require_value(const Graph& graph, Value v, const char* what) {
  if (!v || v.node >= static_cast<std::int32_t>(graph.nodes().size()) || v.slot < 0 ||
      v.slot >= static_cast<std::int32_t>(graph.node(v).outputs.size()))
    throw Error(std::string("differentiate: ") + what + " is not a value of this graph");
}

/// One thing per value of the graph as it was when the pass began.
template <class T>
class PerValue {
 public:
  explicit PerValue(const Graph& graph) {
    first_.reserve(graph.nodes().size());
    std::size_t count = 0;
    for (const Node& node : graph.nodes()) {
      first_.push_back(count);
      count += node.outputs.size();
    }
    things_.resize(count);
  }
  T& operator[](Value v) { return things_[first_[static_cast<std::size_t>(v.node)] + static_cast<std::size_t>(v.slot)]; }

 private:
  std::vector<std::size_t> first_;
  std::vector<T> things_;
};

struct ValueState {
  bool active = false;    ///< a change of some w changes it
  bool reaches = false;   ///< and it changes the loss
  std::int32_t uses = 0;  ///< inputs of nodes through which it does, less those done
  Value gradient;         ///< the sum so far
};

class ReversePass {
 public:
  ReversePass(Graph& graph, Value loss, const std::vector<Value>& wrt) : graph_(graph), loss_(loss), state_(graph) {
    mark_active(wrt);
    mark_reaching();
  }

  void run() {
    if (!state_[loss_].active) return;
    state_[loss_].gradient = record(Constant{graph_.type(loss_), {1.0}}, {}, gradient_name(loss_));
    for (std::int32_t n = loss_.node; n >= 0; --n) visit(n);
  }

  Value gradient_of(Value v) { return state_[v].gradient; }

 private:
  const Node& node(std::int32_t n) const { return graph_.nodes()[static_cast<std::size_t>(n)]; }

  void mark_active(const std::vector<Value>& wrt) {
    for (Value w : wrt) state_[w].active = true;
    for (std::int32_t n = 0; n <= loss_.node; ++n) {
      const Node& at = node(n);
      const bool any = std::any_of(at.inputs.begin(), at.inputs.end(), [&](Value v) { return state_[v].active; });
      for (std::int32_t slot = 0; any && slot < static_cast<std::int32_t>(at.outputs.size()); ++slot)
        if (is_float(at.outputs[static_cast<std::size_t>(slot)].dtype) && carries_gradient(at.op, slot))
          state_[{n, slot}].active = true;
    }
  }

  void mark_reaching() {
    state_[loss_].reaches = state_[loss_].active;
    for (std::int32_t n = loss_.node; n >= 0; --n) {
      if (!reaches(n)) continue;
      for (Value v : node(n).inputs) {
        if (!state_[v].active) continue;
        state_[v].reaches = true;
        ++state_[v].uses;
      }
    }
  }

  bool reaches(std::int32_t n) {
    for (std::int32_t slot = 0; slot < static_cast<std::int32_t>(node(n).outputs.size()); ++slot)
      if (state_[{n, slot}].reaches && carries_gradient(node(n).op, slot)) return true;
    return false;
  }

  void visit(std::int32_t n) {
    VjpContext c{graph_, {}, n, node(n).inputs, {}, {}, {}, {}};
    bool arrived = false, wanted = false;
    for (std::int32_t slot = 0; slot < static_cast<std::int32_t>(node(n).outputs.size()); ++slot) {
      c.cotangents.push_back(carries_gradient(node(n).op, slot) ? state_[{n, slot}].gradient : Value{});
      arrived |= static_cast<bool>(c.cotangents.back());
    }
    for (Value v : c.inputs) {
      const ValueState& state = state_[v];
      wanted |= state.active;
      c.wanted.push_back(state.active);
      c.names.push_back(arrived && state.active && state.uses == 1 && !state.gradient ? gradient_name(v) : std::string());
    }
    if (!arrived || !wanted) return;
    c.node = described(node(n));
    c.gradients.resize(c.inputs.size());
    apply_rule(Op(node(n).op), c);
    for (std::size_t i = 0; i < c.inputs.size(); ++i)
      if (c.wanted[i]) add(c.inputs[i], c.gradients[i]);
  }

  void add(Value v, Value gradient) {
    ValueState& state = state_[v];
    --state.uses;
    if (!gradient) return;
    if (!state.gradient) {
      state.gradient = gradient;
      return;
    }
    state.gradient = record(Binary{BinaryFn::add}, {state.gradient, gradient}, state.uses == 0 ? gradient_name(v) : std::string());
  }

  Value record(Op op, std::vector<Value> in, const std::string& name) {
    const Graph::Scope scope(graph_, "grad");
    return graph_.record(std::move(op), std::move(in), name);
  }

  /// "d:w" where that is free in the scope of gradients, else "".
  std::string gradient_name(Value v) const {
    std::string name = "d:" + value_name(graph_, v);
    return graph_.find(graph_.scope() + "grad." + name) ? std::string() : name;
  }

  Graph& graph_;
  Value loss_;
  PerValue<ValueState> state_;
};

}  // namespace

Gradients differentiate(Graph& graph, Value loss, const std::vector<Value>& wrt, bool name_outputs) {
  require_value(graph, loss, "the loss");
  if (const TensorType& type = graph.type(loss); !is_float(type.dtype) || type.shape.rank() != 0)
    throw Error("differentiate \"" + value_name(graph, loss) + "\": the loss must be a float scalar [], got " + to_string(type));
  const std::vector<Value> asked = wrt.empty() ? graph.parameters() : wrt;
  std::vector<Value> all;
  PerValue<char> listed(graph);
  for (Value w : asked) {
    require_value(graph, w, "a value of wrt");
    if (!is_float(graph.type(w).dtype))
      throw Error("differentiate \"" + value_name(graph, w) + "\": only float values have gradients, got " +
                  to_string(graph.type(w)));
    if (!std::exchange(listed[w], char{1})) all.push_back(w);
  }

  ReversePass pass(graph, loss, all);
  pass.run();
  Gradients gradients;
  for (Value w : all) {
    const Value gradient = pass.gradient_of(w);
    if (!gradient) {
      gradients.unreached.push_back(value_name(graph, w));
      continue;
    }
    gradients.all.push_back({w, gradient});
    if (name_outputs) graph.output("d:" + value_name(graph, w), gradient);
  }
  return gradients;
}

Value Gradients::of(const Graph& graph, Value v) const {
  for (const Gradient& g : all)
    if (g.of == v) return g.gradient;
  require_value(graph, v, "the value asked for");
  const std::string name = value_name(graph, v);
  const bool asked = std::find(unreached.begin(), unreached.end(), name) != unreached.end();
  throw Error("gradient of \"" + name + "\": " + (asked ? "the loss does not reach it" : "it was not asked for"));
}

}  // namespace graft
