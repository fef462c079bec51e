#pragma once
// The kernels of the cpu backend, one overload an op. f32 is fast here; f64 and what speed does not matter for go to
// graft::reference::run.
#include <cstddef>

#include "graft/backend.h"
#include "kernels/cpu/parallel.h"
#include "kernels/reference/widen.h"

namespace graft::cpu {

class Gemm;

/// What a kernel knows of the backend that runs it.
struct Context {
  Threads threads;
  Gemm* gemm = nullptr;
};

// sources and views are not run: the plan leaves them out
void run(const Input&, const Step&, Context&);
void run(const Parameter&, const Step&, Context&);
void run(const State&, const Step&, Context&);
void run(const Constant&, const Step&, Context&);
void run(const Reshape&, const Step&, Context&);
void run(const StopGradient&, const Step&, Context&);

void run(const MatMul&, const Step&, Context&);

void run(const Unary&, const Step&, Context&);
void run(const UnaryGrad&, const Step&, Context&);
void run(const Binary&, const Step&, Context&);
void run(const Swiglu&, const Step&, Context&);
void run(const SwigluGrad&, const Step&, Context&);
void run(const Cast&, const Step&, Context&);
void run(const Dropout&, const Step&, Context&);

void run(const Reduce&, const Step&, Context&);
void run(const ReduceMaxGrad&, const Step&, Context&);
void run(const Broadcast&, const Step&, Context&);

void run(const Transpose&, const Step&, Context&);
void run(const Slice&, const Step&, Context&);
void run(const Pad&, const Step&, Context&);
void run(const Concat&, const Step&, Context&);

void run(const Softmax&, const Step&, Context&);
void run(const SoftmaxGrad&, const Step&, Context&);
void run(const LogSoftmax&, const Step&, Context&);
void run(const LogSoftmaxGrad&, const Step&, Context&);

void run(const RmsNorm&, const Step&, Context&);
void run(const RmsNormGrad&, const Step&, Context&);
void run(const LayerNorm&, const Step&, Context&);
void run(const LayerNormGrad&, const Step&, Context&);

void run(const Embedding&, const Step&, Context&);
void run(const EmbeddingGrad&, const Step&, Context&);
void run(const CrossEntropy&, const Step&, Context&);
void run(const CrossEntropyGrad&, const Step&, Context&);
void run(const LinearCrossEntropy&, const Step&, Context&);
void run(const LinearCrossEntropyGrad&, const Step&, Context&);

void run(const MultiHeadAttn&, const Step&, Context&);
void run(const AttnDelta&, const Step&, Context&);
void run(const MultiHeadAttnGradQ&, const Step&, Context&);
void run(const MultiHeadAttnGradK&, const Step&, Context&);
void run(const MultiHeadAttnGradV&, const Step&, Context&);
void run(const CachedAttention&, const Step&, Context&);
void run(const Rope&, const Step&, Context&);
void run(const CacheWrite&, const Step&, Context&);

void run(const Assign&, const Step&, Context&);
void run(const GlobalNorm&, const Step&, Context&);
void run(const UpdateScale&, const Step&, Context&);
void run(const CountStep&, const Step&, Context&);
void run(const Increment&, const Step&, Context&);
void run(const LearningRate&, const Step&, Context&);
void run(const SgdUpdate&, const Step&, Context&);
void run(const AdamUpdate&, const Step&, Context&);
void run(const LionUpdate&, const Step&, Context&);

/// Runs the attention gradients that `steps` begins with and that have the same inputs, together; returns how many that were. The
/// same bits as one by one.
std::size_t run_attention_gradients(std::span<const Step> steps, Context&);

/// Runs the products that `steps` begins with, as far as they are independent, together; returns how many that were. The same bits as one
/// by one.
std::size_t run_products(std::span<const Step> steps, Context&);

/// Runs the updates of parameters that `steps` begins with, together, in one loop over all their elements; returns how many that were.
std::size_t run_updates(std::span<const Step> steps, Context&);

/// Ops whose kernels take bf16 tensors as they are; for the others the backend widens and rounds (reference/widen.h).
bool takes_bf16(const MatMul&, const Context&);
bool takes_bf16(const LinearCrossEntropy&, const Context&);
bool takes_bf16(const LinearCrossEntropyGrad&, const Context&);
inline bool takes_bf16(const Unary&, const Context&) { return true; }
inline bool takes_bf16(const UnaryGrad&, const Context&) { return true; }
inline bool takes_bf16(const Binary&, const Context&) { return true; }
inline bool takes_bf16(const Swiglu&, const Context&) { return true; }
inline bool takes_bf16(const SwigluGrad&, const Context&) { return true; }
inline bool takes_bf16(const Dropout&, const Context&) { return true; }
inline bool takes_bf16(const Reduce& op, const Context&) { return op.fn != ReduceFn::max; }
inline bool takes_bf16(const RmsNorm&, const Context&) { return true; }
inline bool takes_bf16(const RmsNormGrad&, const Context&) { return true; }
inline bool takes_bf16(const LayerNorm&, const Context&) { return true; }
inline bool takes_bf16(const LayerNormGrad&, const Context&) { return true; }
inline bool takes_bf16(const CrossEntropyGrad&, const Context&) { return true; }
inline bool takes_bf16(const MultiHeadAttn&, const Context&) { return true; }
inline bool takes_bf16(const AttnDelta&, const Context&) { return true; }
inline bool takes_bf16(const MultiHeadAttnGradQ&, const Context&) { return true; }
inline bool takes_bf16(const MultiHeadAttnGradK&, const Context&) { return true; }
inline bool takes_bf16(const MultiHeadAttnGradV&, const Context&) { return true; }
inline bool takes_bf16(const Rope&, const Context&) { return true; }
inline bool takes_bf16(const auto& op, const Context&) { return reference::moves(op); }

/// Scratch bytes that an op's kernel wants beside inputs and outputs.
std::size_t workspace(const MultiHeadAttn&, const Graph&, const Node&, int threads);
std::size_t workspace(const MultiHeadAttnGradQ&, const Graph&, const Node&, int threads);
inline std::size_t workspace(const MultiHeadAttnGradK& op, const Graph& graph, const Node& node, int threads) {
  return workspace(op.attn, graph, node, threads);
}
inline std::size_t workspace(const MultiHeadAttnGradV& op, const Graph& graph, const Node& node, int threads) {
  return workspace(op.attn, graph, node, threads);
}
std::size_t workspace(const CachedAttention&, const Graph&, const Node&, int threads);
std::size_t workspace(const Rope&, const Graph&, const Node&, int threads);
std::size_t workspace(const CrossEntropy&, const Graph&, const Node&, int threads);
std::size_t workspace(const LinearCrossEntropy&, const Graph&, const Node&, int threads);
std::size_t workspace(const LinearCrossEntropyGrad&, const Graph&, const Node&, int threads);
std::size_t workspace(const RmsNormGrad&, const Graph&, const Node&, int threads);
std::size_t workspace(const LayerNormGrad&, const Graph&, const Node&, int threads);
std::size_t workspace(const Reduce&, const Graph&, const Node&, int threads);
std::size_t workspace(const GlobalNorm&, const Graph&, const Node&, int threads);
/// The others want none.
template <class AnyOp>
std::size_t workspace(const AnyOp&, const Graph&, const Node&, int) {
  return 0;
}

}  // namespace graft::cpu
