#pragma once
// Steps with bf16 tensors for kernels that know f32 alone: values are widened before and rounded after.
#include <cstddef>

#include "graft/backend.h"

namespace graft::reference {

/// Ops whose kernels take bf16 as it is, for they only move elements.
constexpr bool moves(const auto&) { return false; }
constexpr bool moves(const Cast&) { return true; }
constexpr bool moves(const Broadcast&) { return true; }
constexpr bool moves(const Transpose&) { return true; }
constexpr bool moves(const Slice&) { return true; }
constexpr bool moves(const Pad&) { return true; }
constexpr bool moves(const Concat&) { return true; }
constexpr bool moves(const CacheWrite&) { return true; }
constexpr bool moves(const Assign&) { return true; }

bool has_bf16(const Step& step);

/// Bytes that widen() needs at the begin of the workspace; 0 for a node without bf16 tensors. What the kernel needs comes behind them.
std::size_t widened_bytes(const Graph& graph, const Node& node);
/// The step with f32 tensors in the place of bf16 ones, those of the inputs filled. No output may be one of the inputs.
Step widen(const Step& step);
/// Rounds the results of what widen() gave to the outputs of `step`.
void round_outputs(const Step& step, const Step& wide);

}  // namespace graft::reference
