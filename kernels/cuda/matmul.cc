#include "kernels/cuda/kernels.h"

namespace graft::cuda {

void run(const MatMul& op, const Step& step, Context& context) {
  const TensorView &a = step.in[0], &b = step.in[1], &out = step.out[0];
  if (!out) return;
  GemmCall call;
  call.m = out.rows();
  call.n = out.cols();
  call.k = op.transpose_a ? a.rows() : a.cols();
  call.transpose_a = op.transpose_a;
  call.transpose_b = op.transpose_b;
  call.in = a.type.dtype;
  call.out = out.type.dtype;
  call.a = a.data;
  call.b = b.data;
  call.c = out.data;
  call.lda = a.cols();
  call.ldb = b.cols();
  call.ldc = out.cols();
  call.workspace = step.workspace;
  if (step.in.size() > 2 && step.in[2].type.shape.rank() == 2) call.addend = step.in[2].data;
  if (step.in.size() > 2 && step.in[2].type.shape.rank() == 1) call.bias = step.in[2].as<const float>();
  (*context.gemm)(call);
}

std::size_t workspace(const MatMul&, const Graph&, const Node&) { return Gemm::workspace_bytes(); }

}  // namespace graft::cuda
