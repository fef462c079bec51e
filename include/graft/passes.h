#pragma once
#include "graft/graph.h"

/// Passes from graph to graph. Each verifies what it made. Names of nodes, outputs and states stay, so sessions of both graphs can share memory
/// and load one another's checkpoints.
namespace graft::passes {

/// Sums that a neighbour can do on its way: a + b becomes part of the later of the two where that is a matrix product or the gradient of a norm, and
/// nothing else reads it; the node is called as the sum was. So residuals, the gradients that meet at a residual or at the input of several
/// projections, and micro-batches' gradients are added where they are made. The same results up to the rounding of the last addition. Apply it to the
/// whole training graph, before mixed_precision.
Graph fuse(const Graph& graph);

/// Mixed precision (Micikevicius et al. 2018, with bfloat16, which needs no loss scaling): operands of products and attention, and what lies between
/// them, are stored in bf16; the residual stream, losses, statistics, parameters, their gradients and moments stay f32, and outputs keep their types.
/// Apply it after fuse, to the whole training graph with its gradients and update, so that the backward pass is narrow too.
Graph mixed_precision(const Graph& graph);

/// What `recompute` is to reach.
struct RecomputeOptions {
  std::size_t budget_bytes = 0;  ///< what MemoryReport::arena may be at most
};

/// Activation recompute (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost"): values that wait long for a later use, as the backward
/// pass's, are dropped in between and made anew by running their nodes once more, and what those need in turn, just before that use; those first
/// that save most bytes for their work, and no more than the budget demands. The same bits as without: dropout draws the same numbers. The nodes added
/// are called "again:" and the name. Throws Error that says the least that can be reached where the budget cannot be met; a graph that meets it
/// is given back as it is. Apply it last.
Graph recompute(const Graph& graph, const RecomputeOptions& options);

}  // namespace graft::passes
