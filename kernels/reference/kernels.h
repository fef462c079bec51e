#pragma once
#include "graft/backend.h"
#include "graft/ops.h"

/// One kernel an op, by overload: f32 and f64, one thread, no scratch memory; what only moves elements (widen.h) takes bf16 too. What an op
/// computes is said in graft/ops.h.
/// Whoever dispatches over Op must not be called `run`: a forgotten op would convert to Op and recurse for ever.
namespace graft::reference {

// backend.cc: sources and views, which a plan leaves out
void run(const Input& op, const Step& step);
void run(const Parameter& op, const Step& step);
void run(const State& op, const Step& step);
void run(const Constant& op, const Step& step);
void run(const StopGradient& op, const Step& step);
void run(const Reshape& op, const Step& step);

// matmul.cc
void run(const MatMul& op, const Step& step);

// elementwise.cc
void run(const Unary& op, const Step& step);
void run(const UnaryGrad& op, const Step& step);
void run(const Binary& op, const Step& step);
void run(const Swiglu& op, const Step& step);
void run(const SwigluGrad& op, const Step& step);
void run(const Cast& op, const Step& step);
void run(const Dropout& op, const Step& step);

// reduce.cc
void run(const Reduce& op, const Step& step);
void run(const ReduceMaxGrad& op, const Step& step);
void run(const Broadcast& op, const Step& step);

// shape.cc
void run(const Transpose& op, const Step& step);
void run(const Slice& op, const Step& step);
void run(const Pad& op, const Step& step);
void run(const Concat& op, const Step& step);

// softmax.cc
void run(const Softmax& op, const Step& step);
void run(const SoftmaxGrad& op, const Step& step);
void run(const LogSoftmax& op, const Step& step);
void run(const LogSoftmaxGrad& op, const Step& step);

// norm.cc
void run(const RmsNorm& op, const Step& step);
void run(const RmsNormGrad& op, const Step& step);
void run(const LayerNorm& op, const Step& step);
void run(const LayerNormGrad& op, const Step& step);

// tokens.cc
void run(const Embedding& op, const Step& step);
void run(const EmbeddingGrad& op, const Step& step);
void run(const CrossEntropy& op, const Step& step);
void run(const CrossEntropyGrad& op, const Step& step);
void run(const LinearCrossEntropy& op, const Step& step);
void run(const LinearCrossEntropyGrad& op, const Step& step);

// attention.cc
void run(const MultiHeadAttn& op, const Step& step);
void run(const AttnDelta& op, const Step& step);
void run(const MultiHeadAttnGradQ& op, const Step& step);
void run(const MultiHeadAttnGradK& op, const Step& step);
void run(const MultiHeadAttnGradV& op, const Step& step);
void run(const CachedAttention& op, const Step& step);

// rope.cc
void run(const Rope& op, const Step& step);

// cache.cc
void run(const CacheWrite& op, const Step& step);

// update.cc
void run(const Assign& op, const Step& step);
void run(const GlobalNorm& op, const Step& step);
void run(const UpdateScale& op, const Step& step);
void run(const CountStep& op, const Step& step);
void run(const Increment& op, const Step& step);
void run(const LearningRate& op, const Step& step);
void run(const SgdUpdate& op, const Step& step);
void run(const AdamUpdate& op, const Step& step);
void run(const LionUpdate& op, const Step& step);

}  // namespace graft::reference
