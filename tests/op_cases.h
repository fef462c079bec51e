#pragma once
// One list of cases an op. Every generic proof runs over all of them: gradients against finite differences, the reference
// against plain formulas, the cpu backend against the reference, printing, refusals. An op without cases does not compile.
#include <cstdint>
#include <functional>
#include <iosfwd>
#include <map>
#include <string>
#include <type_traits>
#include <vector>

#include "graft/graph.h"

namespace graft::testing {

using Inputs = std::map<std::string, std::vector<double>>;

/// How the values of an input are drawn when the case does not give them. All are floats exactly.
struct Fill {
  enum class Kind : std::uint8_t {
    normal,   ///< standard deviation b
    uniform,  ///< in [a, b)
    away,     ///< normal, but at least 0.1 from 0: for functions with a kink there
    apart,    ///< any two differ by at least 0.05: for max
  } kind = Kind::normal;
  double a = 0.0, b = 1.0;
};

struct OpCase {
  std::string name;
  /// Records inputs and ops, and names the results with graph.output.
  std::function<void(Graph&)> build;
  /// Values of inputs, by name; u32 inputs must be here.
  Inputs inputs = {};
  std::map<std::string, Fill> fills = {};
  /// Inputs that no gradient reaches.
  std::vector<std::string> unreached = {};
  /// Why finite differences say nothing about this case; empty: they are checked.
  std::string no_differences = {};
  /// Of backend_check; another one than 1e-5 says why.
  double rtol = 1e-5;
  std::string rtol_reason = {};
};
std::ostream& operator<<(std::ostream& out, const OpCase& op_case);

using OpCases = std::vector<OpCase>;

OpCases cases(std::type_identity<Input>);
OpCases cases(std::type_identity<Parameter>);
OpCases cases(std::type_identity<State>);
OpCases cases(std::type_identity<Constant>);
OpCases cases(std::type_identity<MatMul>);
OpCases cases(std::type_identity<Unary>);
OpCases cases(std::type_identity<UnaryGrad>);
OpCases cases(std::type_identity<Binary>);
OpCases cases(std::type_identity<Swiglu>);
OpCases cases(std::type_identity<SwigluGrad>);
OpCases cases(std::type_identity<Cast>);
OpCases cases(std::type_identity<StopGradient>);
OpCases cases(std::type_identity<Dropout>);
OpCases cases(std::type_identity<Reduce>);
OpCases cases(std::type_identity<ReduceMaxGrad>);
OpCases cases(std::type_identity<Broadcast>);
OpCases cases(std::type_identity<Reshape>);
OpCases cases(std::type_identity<Transpose>);
OpCases cases(std::type_identity<Slice>);
OpCases cases(std::type_identity<Pad>);
OpCases cases(std::type_identity<Concat>);
OpCases cases(std::type_identity<Softmax>);
OpCases cases(std::type_identity<SoftmaxGrad>);
OpCases cases(std::type_identity<LogSoftmax>);
OpCases cases(std::type_identity<LogSoftmaxGrad>);
OpCases cases(std::type_identity<RmsNorm>);
OpCases cases(std::type_identity<RmsNormGrad>);
OpCases cases(std::type_identity<LayerNorm>);
OpCases cases(std::type_identity<LayerNormGrad>);
OpCases cases(std::type_identity<Embedding>);
OpCases cases(std::type_identity<EmbeddingGrad>);
OpCases cases(std::type_identity<CrossEntropy>);
OpCases cases(std::type_identity<CrossEntropyGrad>);
OpCases cases(std::type_identity<LinearCrossEntropy>);
OpCases cases(std::type_identity<LinearCrossEntropyGrad>);
OpCases cases(std::type_identity<MultiHeadAttn>);
OpCases cases(std::type_identity<AttnDelta>);
OpCases cases(std::type_identity<MultiHeadAttnGradQ>);
OpCases cases(std::type_identity<MultiHeadAttnGradK>);
OpCases cases(std::type_identity<MultiHeadAttnGradV>);
OpCases cases(std::type_identity<Rope>);
OpCases cases(std::type_identity<CachedAttention>);
OpCases cases(std::type_identity<CacheWrite>);
OpCases cases(std::type_identity<Assign>);
OpCases cases(std::type_identity<GlobalNorm>);
OpCases cases(std::type_identity<UpdateScale>);
OpCases cases(std::type_identity<CountStep>);
OpCases cases(std::type_identity<Increment>);
OpCases cases(std::type_identity<LearningRate>);
OpCases cases(std::type_identity<SgdUpdate>);
OpCases cases(std::type_identity<AdamUpdate>);
OpCases cases(std::type_identity<LionUpdate>);

/// The cases of every alternative of Op.
OpCases all_cases();

/// The case with its float inputs and states in bf16, but for those named, and "_bf16" behind its name.
OpCase in_bf16(const OpCase& op_case, const std::vector<std::string>& wide = {});
/// The same of each.
OpCases in_bf16(const OpCases& all, const std::vector<std::string>& wide = {});

/// Values for every input of the graph: those of the case, the others drawn by its fills from a generator seeded by its name.
Inputs values_of(const OpCase& op_case, const Graph& graph);

/// The case's ops in the middle of a graph: float inputs come through scale(0.7), and every float output y is read twice,
/// loss = −1.7·Σ c ∘ y + 0.6·Σ c ∘ tanh(y/2), with random c. The outputs keep their names.
struct Wrapped {
  Graph graph;
  Value loss;
  std::vector<Value> inputs;  ///< the float inputs, before the scale, and the parameters
};
Wrapped wrap(const OpCase& op_case);

/// Why an op has no gradient; empty if it has one.
std::string no_gradient_of(const Op& op);

/// The first node without a gradient on a way from `from` to the loss, or null.
const Node* obstacle(const Graph& graph, Value loss, const std::vector<Value>& from);

/// Whether finite differences are to be taken of the wrapped case.
bool has_differences(const OpCase& op_case, const Wrapped& wrapped);

/// The case in the middle of a graph with the gradients of all inputs; or as it is, where there are none.
Graph with_gradients(const OpCase& op_case);

}  // namespace graft::testing
