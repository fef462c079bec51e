#pragma once
#include "graft/graph.h"

/// Passes from graph to graph. Each verifies what it made. Names of nodes, outputs and states stay, so sessions of both graphs can share memory
/// and load one another's checkpoints.
namespace graft::passes {

/// Mixed precision (Micikevicius et al. 2018, with bfloat16, which needs no loss scaling): the operands of every f32 matrix product are cast to bf16,
/// each value once; sums, results and all other ops stay f32, and so do parameters, moments and gradients. Apply it last, to the whole training graph
/// with its gradients and update, so that the products of the backward pass are narrow too.
Graph mixed_precision(const Graph& graph);

}  // namespace graft::passes
