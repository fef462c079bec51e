#pragma once
// All gradient rules: one overload of vjp for each op that has no `no_gradient`. A rule turns the gradients of a node's outputs
// into gradients of its inputs, as new nodes; the engine (differentiate.cc) says which are wanted and adds up those of one value.
#include <string>
#include <utility>
#include <vector>

#include "graft/graph.h"

namespace graft {

/// What a rule sees of its node. It holds copies, for the graph's nodes move while a rule records.
struct VjpContext {
  Graph& graph;
  std::string node;  ///< op and name, for messages: rms_norm "model.norm"
  std::int32_t index = -1;
  std::vector<Value> inputs;
  std::vector<Value> cotangents;   ///< of each output slot; names nothing where no gradient arrives
  std::vector<bool> wanted;        ///< of each input
  std::vector<std::string> names;  ///< for the node of each input's gradient; "" gives a numbered one
  std::vector<Value> gradients;    ///< of each input: the result

  Value in(std::size_t i) const { return inputs[i]; }
  Value out(std::int32_t slot = 0) const { return {index, slot}; }
  Value dout(std::size_t slot = 0) const { return cotangents[slot]; }
  const Shape& shape(Value v) const { return graph.shape(v); }
  bool wants(std::size_t i) const { return wanted[i]; }

  /// A node on the way to a gradient.
  Value record(Op op, std::vector<Value> in);
  /// The gradient of input i.
  void give(std::size_t i, Value gradient);
  void give(std::size_t i, Op op, std::vector<Value> in);
  /// `value`, which has the shape of the node's first output, summed over what input i was repeated over; times −1 if `negate`.
  void give_summed(std::size_t i, Value value, bool negate = false);
  /// Throws Error when a gradient arrives at an output that is there only for the backward pass.
  void refuse(std::int32_t slot, const char* what) const;
};

void vjp(const Input& op, VjpContext& c);
void vjp(const Parameter& op, VjpContext& c);
void vjp(const State& op, VjpContext& c);
void vjp(const Constant& op, VjpContext& c);
void vjp(const MatMul& op, VjpContext& c);
void vjp(const Unary& op, VjpContext& c);
void vjp(const Binary& op, VjpContext& c);
void vjp(const Swiglu& op, VjpContext& c);
void vjp(const Cast& op, VjpContext& c);
void vjp(const StopGradient& op, VjpContext& c);
void vjp(const Dropout& op, VjpContext& c);
void vjp(const Reduce& op, VjpContext& c);
void vjp(const Broadcast& op, VjpContext& c);
void vjp(const Reshape& op, VjpContext& c);
void vjp(const Transpose& op, VjpContext& c);
void vjp(const Slice& op, VjpContext& c);
void vjp(const Pad& op, VjpContext& c);
void vjp(const Concat& op, VjpContext& c);
void vjp(const Softmax& op, VjpContext& c);
void vjp(const LogSoftmax& op, VjpContext& c);
void vjp(const RmsNorm& op, VjpContext& c);
void vjp(const LayerNorm& op, VjpContext& c);
void vjp(const Embedding& op, VjpContext& c);
void vjp(const CrossEntropy& op, VjpContext& c);
void vjp(const LinearCrossEntropy& op, VjpContext& c);
void vjp(const MultiHeadAttn& op, VjpContext& c);
void vjp(const Rope& op, VjpContext& c);

/// Runs the rule of the op held; throws Error with the reason when it has none. Not called vjp: an op without a rule must not
/// convert to Op and come back here.
void apply_rule(const Op& op, VjpContext& c);

/// Whether a gradient goes through output `slot` of `op`: not what stop_gradient gives, nor the number of counted tokens.
bool carries_gradient(const Op& op, std::int32_t slot);

}  // namespace graft
