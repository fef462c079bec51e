#include <algorithm>
#include <array>
#include <optional>

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/views.h"

namespace graft::cpu {
namespace {

/// Empty if the product is not one for Gemm.
std::optional<GemmCall> gemm_call(const Step& step) {
  const MatMul* op = std::get_if<MatMul>(&step.node->op);
  const bool bf16 = step.in[0].type.dtype == DType::bf16;
  if (op == nullptr || (!bf16 && !is_f32(step))) return {};
  const TensorView &a = step.in[0], &b = step.in[1], &out = step.out[0];
  if (!out) return {};
  GemmCall call;
  call.m = out.rows();
  call.n = out.cols();
  call.k = op->transpose_a ? a.rows() : a.cols();
  call.transpose_a = op->transpose_a;
  call.transpose_b = op->transpose_b;
  call.bf16 = bf16;
  call.a = a.data;
  call.b = b.data;
  call.bf16_out = out.type.dtype == DType::bf16;
  call.c = out.data;
  call.lda = a.cols();
  call.ldb = b.cols();
  call.ldc = out.cols();
  if (step.in.size() > 2) (step.in[2].type.shape.rank() == 2 ? call.addend : call.bias) = input(step, 2);
  return call;
}

bool overlap(const TensorView& x, const TensorView& y) {
  const auto *a = static_cast<const std::byte*>(x.data), *b = static_cast<const std::byte*>(y.data);
  return a < b + y.type.bytes() && b < a + x.type.bytes();
}

/// Whether they may run at once. Memory is given anew where a tensor is not read again.
bool independent(const Step& x, const Step& y) {
  const auto reads = [](const Step& step, const TensorView& out) {
    return std::any_of(step.in.begin(), step.in.end(), [&](const TensorView& in) { return overlap(in, out); });
  };
  return !overlap(x.out[0], y.out[0]) && !reads(x, y.out[0]) && !reads(y, x.out[0]);
}

}  // namespace

bool takes_bf16(const MatMul&, const Context& context) { return context.gemm->takes_bf16(); }

std::size_t run_products(std::span<const Step> steps, Context& context) {
  constexpr std::size_t kMost = 8;
  std::array<GemmCall, kMost> calls;
  std::size_t count = 0;
  for (; count < std::min(kMost, steps.size()); ++count) {
    const Step& step = steps[count];
    const std::optional<GemmCall> call = gemm_call(step);
    if (!call || (call->bf16 && !context.gemm->takes_bf16())) break;
    if (!std::all_of(steps.begin(), steps.begin() + count, [&](const Step& before) { return independent(before, step); })) break;
    calls[count] = *call;
  }
  if (count > 0) (*context.gemm)({calls.data(), count});
  return count;
}

void run(const MatMul& op, const Step& step, Context& context) {
  if (is_f64(step)) return reference::run(op, step);
  run_products({&step, 1}, context);
}

}  // namespace graft::cpu
