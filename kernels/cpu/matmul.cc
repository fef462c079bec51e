#include "kernels/cpu/gemm.h"
#include "kernels/cpu/views.h"

namespace graft::cpu {

bool takes_bf16(const MatMul&, const Context& context) { return context.gemm->takes_bf16(); }

void run(const MatMul& op, const Step& step, Context& context) {
  const bool bf16 = step.in[0].type.dtype == DType::bf16;
  if (!bf16 && !is_f32(step)) return reference::run(op, step);
  const TensorView &a = step.in[0], &b = step.in[1], &out = step.out[0];
  if (!out) return;
  GemmCall call;
  call.m = out.rows();
  call.n = out.cols();
  call.k = op.transpose_a ? a.rows() : a.cols();
  call.transpose_a = op.transpose_a;
  call.transpose_b = op.transpose_b;
  call.bf16 = bf16;
  call.a = a.data;
  call.b = b.data;
  call.bf16_out = out.type.dtype == DType::bf16;
  call.c = out.data;
  call.lda = a.cols();
  call.ldb = b.cols();
  call.ldc = out.cols();
  if (step.in.size() > 2) (step.in[2].type.shape.rank() == 2 ? call.addend : call.bias) = input(step, 2);
  (*context.gemm)(call);
}

}  // namespace graft::cpu
