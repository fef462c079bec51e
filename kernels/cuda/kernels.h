#pragma once
// The kernels of the CUDA backend, one overload an op: f32 and bf16. What an op computes is said in graft/ops.h. They enqueue and return. Nothing that may
// change between two runs of a step may be read here: ids, positions, offsets, counters and scalars are read by the kernels, from the device's memory.
#include <cuda_runtime.h>

#include <cstddef>

#include "graft/backend.h"
#include "kernels/cuda/gemm.h"

namespace graft::cuda {

/// What a kernel knows of the backend that runs it.
struct Context {
  cudaStream_t stream = nullptr;
  Gemm* gemm = nullptr;
  int multiprocessors = 1;
};

// sources and views are not run: the plan leaves them out
inline void run(const Input&, const Step&, Context&) {}
inline void run(const Parameter&, const Step&, Context&) {}
inline void run(const State&, const Step&, Context&) {}
inline void run(const Constant&, const Step&, Context&) {}
inline void run(const Reshape&, const Step&, Context&) {}
inline void run(const StopGradient&, const Step&, Context&) {}

// matmul.cc
void run(const MatMul&, const Step&, Context&);

// elementwise.cu
/// Whether this build holds machine code for the GPU in use.
bool has_code_for_this_device();
void run(const Unary&, const Step&, Context&);
void run(const UnaryGrad&, const Step&, Context&);
void run(const Binary&, const Step&, Context&);
void run(const Swiglu&, const Step&, Context&);
void run(const SwigluGrad&, const Step&, Context&);
void run(const Cast&, const Step&, Context&);
void run(const Dropout&, const Step&, Context&);

// reduce.cu
void run(const Reduce&, const Step&, Context&);
void run(const ReduceMaxGrad&, const Step&, Context&);
void run(const Broadcast&, const Step&, Context&);

// shape.cu
void run(const Transpose&, const Step&, Context&);
void run(const Slice&, const Step&, Context&);
void run(const Pad&, const Step&, Context&);
void run(const Concat&, const Step&, Context&);

// softmax.cu
void run(const Softmax&, const Step&, Context&);
void run(const SoftmaxGrad&, const Step&, Context&);
void run(const LogSoftmax&, const Step&, Context&);
void run(const LogSoftmaxGrad&, const Step&, Context&);

// norm.cu
void run(const RmsNorm&, const Step&, Context&);
void run(const RmsNormGrad&, const Step&, Context&);
void run(const LayerNorm&, const Step&, Context&);
void run(const LayerNormGrad&, const Step&, Context&);

// tokens.cu
void run(const Embedding&, const Step&, Context&);
void run(const EmbeddingGrad&, const Step&, Context&);

// cross_entropy.cu
void run(const CrossEntropy&, const Step&, Context&);
void run(const CrossEntropyGrad&, const Step&, Context&);
void run(const LinearCrossEntropy&, const Step&, Context&);
void run(const LinearCrossEntropyGrad&, const Step&, Context&);

// attention.cu
void run(const MultiHeadAttn&, const Step&, Context&);
void run(const AttnDelta&, const Step&, Context&);
void run(const MultiHeadAttnGradQ&, const Step&, Context&);
void run(const MultiHeadAttnGradK&, const Step&, Context&);
void run(const MultiHeadAttnGradV&, const Step&, Context&);

// attention_decode.cu
void run(const CachedAttention&, const Step&, Context&);

// rope.cu
void run(const Rope&, const Step&, Context&);

// cache.cu
void run(const CacheWrite&, const Step&, Context&);

// update.cu
void run(const Assign&, const Step&, Context&);
void run(const GlobalNorm&, const Step&, Context&);
void run(const UpdateScale&, const Step&, Context&);
void run(const CountStep&, const Step&, Context&);
void run(const Increment&, const Step&, Context&);
void run(const LearningRate&, const Step&, Context&);
void run(const SgdUpdate&, const Step&, Context&);
void run(const AdamUpdate&, const Step&, Context&);
void run(const LionUpdate&, const Step&, Context&);

/// Runs the gradients of k and v of one attention, if `steps` begins with such, as one kernel; returns how many steps that were.
std::size_t run_attention_gradients(std::span<const Step> steps, Context&);

/// Runs the updates of parameters that `steps` begins with, as one kernel; returns how many that were.
std::size_t run_updates(std::span<const Step> steps, Context&);

/// Scratch bytes that an op's kernel wants beside inputs and outputs.
std::size_t workspace(const MatMul&, const Graph&, const Node&);
std::size_t workspace(const Reduce&, const Graph&, const Node&);
std::size_t workspace(const ReduceMaxGrad&, const Graph&, const Node&);
std::size_t workspace(const RmsNormGrad&, const Graph&, const Node&);
std::size_t workspace(const LayerNormGrad&, const Graph&, const Node&);
std::size_t workspace(const EmbeddingGrad&, const Graph&, const Node&);
std::size_t workspace(const CrossEntropy&, const Graph&, const Node&);
std::size_t workspace(const LinearCrossEntropy&, const Graph&, const Node&);
std::size_t workspace(const LinearCrossEntropyGrad&, const Graph&, const Node&);
std::size_t workspace(const CachedAttention&, const Graph&, const Node&);
std::size_t workspace(const GlobalNorm&, const Graph&, const Node&);
/// The others want none.
template <class AnyOp>
std::size_t workspace(const AnyOp&, const Graph&, const Node&) {
  return 0;
}

}  // namespace graft::cuda
