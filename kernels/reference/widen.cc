#include "kernels/reference/widen.h"

#include <algorithm>
#include <memory>

#include "graft/bf16.h"
#include "graft/graph.h"

namespace graft::reference {
namespace {

constexpr std::size_t aligned(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

bool is_bf16(const TensorType& type) { return type.dtype == DType::bf16; }
std::size_t wide_bytes(const TensorType& type) {
  return is_bf16(type) ? aligned(static_cast<std::size_t>(type.shape.size()) * sizeof(float)) : 0;
}

}  // namespace

bool has_bf16(const Step& step) {
  const auto found = [](std::span<const TensorView> views) {
    return std::any_of(views.begin(), views.end(), [](const TensorView& x) { return is_bf16(x.type); });
  };
  return found(step.in) || found(step.out);
}

std::size_t widened_bytes(const Graph& graph, const Node& node) {
  std::size_t bytes = 0;
  for (const Value v : node.inputs) bytes += wide_bytes(graph.type(v));
  for (const TensorType& type : node.outputs) bytes += wide_bytes(type);
  return bytes == 0 ? 0 : bytes + aligned((node.inputs.size() + node.outputs.size()) * sizeof(TensorView));
}

Step widen(const Step& step) {
  auto* views = static_cast<TensorView*>(step.workspace);
  auto* at = static_cast<std::byte*>(step.workspace) + aligned((step.in.size() + step.out.size()) * sizeof(TensorView));
  const auto wide = [&](const TensorView& x) {
    if (!is_bf16(x.type)) return x;
    const TensorView f32{x ? at : nullptr, {DType::f32, x.type.shape}};
    at += wide_bytes(x.type);
    return f32;
  };
  TensorView* view = views;
  for (const TensorView& x : step.in) {
    std::construct_at(view, wide(x));
    if (is_bf16(x.type)) std::transform(x.as<const Bf16>(), x.as<const Bf16>() + x.size(), view->as<float>(), to_float);
    ++view;
  }
  for (const TensorView& x : step.out) std::construct_at(view++, wide(x));
  return {step.node, {views, step.in.size()}, {views + step.in.size(), step.out.size()}, at};
}

void round_outputs(const Step& step, const Step& wide) {
  for (std::size_t i = 0; i < step.out.size(); ++i) {
    const TensorView &to = step.out[i], &from = wide.out[i];
    if (!to || !is_bf16(to.type)) continue;
    std::transform(from.as<const float>(), from.as<const float>() + from.size(), to.as<Bf16>(), [](float x) { return to_bf16(x); });
  }
}

}  // namespace graft::reference
