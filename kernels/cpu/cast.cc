#include <bit>

#include "graft/bf16.h"
#include "kernels/cpu/views.h"

namespace graft::cpu {
namespace {

/// to_bf16 without a branch, so that the loop vectorises.
Bf16 rounded(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t nearest = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16, quiet = (bits >> 16) | 0x40u;
  return {static_cast<std::uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? quiet : nearest)};
}

}  // namespace

void run(const Cast& op, const Step& step, Context& context) {
  const TensorView &in = step.in[0], &out = step.out[0];
  constexpr std::int64_t kGrain = 1 << 15;
  if (!out) return;
  if (in.type.dtype == DType::f32 && out.type.dtype == DType::bf16) {
    const auto* from = in.as<const float>();
    auto* to = out.as<Bf16>();
    parallel_ranges(context.threads, in.size(), kGrain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) to[i] = rounded(from[i]);
    });
  } else if (in.type.dtype == DType::bf16 && out.type.dtype == DType::f32) {
    const auto* from = in.as<const Bf16>();
    auto* to = out.as<float>();
    parallel_ranges(context.threads, in.size(), kGrain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) to[i] = to_float(from[i]);
    });
  } else {
    reference::run(op, step);
  }
}

}  // namespace graft::cpu
