#pragma once
// Which gradient nodes of one attention run together: they share all products but the last.
#include <algorithm>
#include <cstddef>
#include <span>
#include <variant>

#include "graft/backend.h"
#include "graft/graph.h"
#include "graft/ops.h"

namespace graft::detail {

/// Where the gradients of an attention go; null: not wanted.
struct AttentionGradients {
  void *dq = nullptr, *dk = nullptr, *dv = nullptr;
};

/// The gradients of one attention that steps begin with: none if `attn` is null.
struct AttentionSiblings {
  const MultiHeadAttn* attn = nullptr;
  AttentionGradients out = {};
  std::size_t count = 0;
};

/// The longest beginning of `steps`, which is not empty, of gradients of one attention with the same inputs, each of them once.
inline AttentionSiblings attention_siblings(std::span<const Step> steps) {
  AttentionSiblings all;
  for (const Step& step : steps) {
    const Op& op = step.node->op;
    const MultiHeadAttn* attn = nullptr;
    void** slot = nullptr;
    if (const auto* q = std::get_if<MultiHeadAttnGradQ>(&op)) attn = &q->attn, slot = &all.out.dq;
    if (const auto* k = std::get_if<MultiHeadAttnGradK>(&op)) attn = &k->attn, slot = &all.out.dk;
    if (const auto* v = std::get_if<MultiHeadAttnGradV>(&op)) attn = &v->attn, slot = &all.out.dv;
    if (attn == nullptr || *slot != nullptr) break;
    if (all.attn == nullptr) all.attn = attn;
    const MultiHeadAttn &a = *attn, &first = *all.attn;
    if (a.heads != first.heads || a.mask != first.mask || a.scale != first.scale || a.segments != first.segments) break;
    const auto same = [](const TensorView& x, const TensorView& y) { return x.data == y.data && x.type == y.type; };
    if (!std::equal(step.in.begin(), step.in.end(), steps[0].in.begin(), steps[0].in.end(), same)) break;
    *slot = step.out[0].data;
    ++all.count;
  }
  return all;
}

}  // namespace graft::detail
