#pragma once
#include <string>
#include <vector>

#include "graft/graph.h"

namespace graft {

struct Gradient {
  Value of;        ///< what it is the gradient of
  Value gradient;  ///< same type
};

struct Gradients {
  std::vector<Gradient> all;             ///< in the order of wrt, those that the loss reaches
  std::vector<std::string> unreached;    ///< names of the others: no gradient node exists, no optimizer touches them

  /// The gradient of v; throws Error naming it when the loss does not reach v or it was not asked for.
  Value of(const Graph& graph, Value v) const;
};

/// Adds the nodes of ∂loss/∂w to the graph for every w of wrt (default: all parameters), in reverse mode. `loss` is a float
/// scalar []. Gradients of a value read more than once are added up. The nodes are named behind "grad."; the gradient of "w" is an
/// output of the graph, called "d:w", only if `name_outputs`.
/// Throws Error naming the node when the way from loss to a w leads through an op without a gradient.
Gradients differentiate(Graph& graph, Value loss, const std::vector<Value>& wrt = {}, bool name_outputs = false);

}  // namespace graft
