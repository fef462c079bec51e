#pragma once
// What the plan needs to know of an op's memory.
#include "graft/ops.h"

namespace graft {

namespace detail {

struct AliasOf {
  int slot;
  int operator()(const Reshape&) const { return 0; }
  int operator()(const StopGradient&) const { return 0; }
  int operator()(const CacheWrite&) const { return 1; }
  int operator()(const Assign&) const { return 1; }
  int operator()(const CountStep&) const { return slot; }
  int operator()(const Increment&) const { return 0; }
  int operator()(const SgdUpdate&) const { return slot == 0 ? 0 : 2; }
  int operator()(const LionUpdate&) const { return slot == 0 ? 0 : 2; }
  int operator()(const AdamUpdate&) const { return slot == 0 ? 0 : slot + 1; }
  int operator()(const auto&) const { return -1; }
};

struct MayReuse {
  int slot, input;
  bool operator()(const MatMul&) const { return input == 2; }
  bool operator()(const Unary&) const { return input == 0; }
  bool operator()(const UnaryGrad&) const { return true; }
  bool operator()(const Binary&) const { return true; }
  bool operator()(const Swiglu&) const { return true; }
  bool operator()(const SwigluGrad&) const { return input == slot; }
  bool operator()(const Dropout&) const { return input == 0; }
  bool operator()(const Softmax&) const { return true; }
  bool operator()(const SoftmaxGrad&) const { return true; }
  bool operator()(const LogSoftmax&) const { return true; }
  bool operator()(const LogSoftmaxGrad&) const { return true; }
  bool operator()(const RmsNormGrad&) const { return slot == 0 && (input == 0 || input >= 3); }
  bool operator()(const LayerNormGrad&) const { return slot == 0 && (input == 0 || input >= 4); }
  bool operator()(const EmbeddingGrad&) const { return input == 2; }
  bool operator()(const CrossEntropyGrad&) const { return input == 0; }
  bool operator()(const Rope&) const { return input == 0; }
  bool operator()(const auto&) const { return false; }
};

}  // namespace detail

/// The input whose memory output `slot` is: views (reshape, stop_gradient) and overwritten states. −1: none.
inline int alias_of(const Op& op, int slot) { return std::visit(detail::AliasOf{slot}, op); }

inline bool is_view(const Op& op) { return std::holds_alternative<Reshape>(op) || std::holds_alternative<StopGradient>(op); }

/// Whether the op overwrites the states that its outputs alias: an effect, kept in every plan, nothing moves across it.
inline bool overwrites(const Op& op) { return alias_of(op, 0) >= 0 && !is_view(op); }

inline bool is_source(const Op& op) { return op.index() <= 3; }
static_assert(std::is_same_v<std::variant_alternative_t<3, Op>, Constant>);

/// Whether the plan may give output `slot` the memory of `input` when that dies here and both have one type: kernels read an
/// element (a row, a rotated pair) before they write it.
inline bool may_reuse(const Op& op, int slot, int input) { return std::visit(detail::MayReuse{slot, input}, op); }

}  // namespace graft
