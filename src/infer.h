#pragma once
// All shape and dtype rules. One overload an op: the types of its outputs from those of its inputs. They throw Error without the node's
// name ("inner dimensions differ, got [4, 8] and [9, 16]"); Graph::record puts it in front.
#include <span>
#include <string>
#include <vector>

#include "graft/error.h"
#include "graft/ops.h"

namespace graft {

using Types = std::vector<TensorType>;
using InputTypes = std::span<const TensorType>;

Types infer(const Input& op, InputTypes in);
Types infer(const Parameter& op, InputTypes in);
Types infer(const State& op, InputTypes in);
Types infer(const Constant& op, InputTypes in);
Types infer(const MatMul& op, InputTypes in);
Types infer(const Unary& op, InputTypes in);
Types infer(const UnaryGrad& op, InputTypes in);
Types infer(const Binary& op, InputTypes in);
Types infer(const Swiglu& op, InputTypes in);
Types infer(const SwigluGrad& op, InputTypes in);
Types infer(const Cast& op, InputTypes in);
Types infer(const StopGradient& op, InputTypes in);
Types infer(const Dropout& op, InputTypes in);
Types infer(const Reduce& op, InputTypes in);
Types infer(const ReduceMaxGrad& op, InputTypes in);
Types infer(const Broadcast& op, InputTypes in);
Types infer(const Reshape& op, InputTypes in);
Types infer(const Transpose& op, InputTypes in);
Types infer(const Slice& op, InputTypes in);
Types infer(const Pad& op, InputTypes in);
Types infer(const Concat& op, InputTypes in);
Types infer(const Softmax& op, InputTypes in);
Types infer(const SoftmaxGrad& op, InputTypes in);
Types infer(const LogSoftmax& op, InputTypes in);
Types infer(const LogSoftmaxGrad& op, InputTypes in);
Types infer(const RmsNorm& op, InputTypes in);
Types infer(const RmsNormGrad& op, InputTypes in);
Types infer(const LayerNorm& op, InputTypes in);
Types infer(const LayerNormGrad& op, InputTypes in);
Types infer(const Embedding& op, InputTypes in);
Types infer(const EmbeddingGrad& op, InputTypes in);
Types infer(const CrossEntropy& op, InputTypes in);
Types infer(const CrossEntropyGrad& op, InputTypes in);
Types infer(const LinearCrossEntropy& op, InputTypes in);
Types infer(const LinearCrossEntropyGrad& op, InputTypes in);
Types infer(const MultiHeadAttn& op, InputTypes in);
Types infer(const AttnDelta& op, InputTypes in);
Types infer(const MultiHeadAttnGradQ& op, InputTypes in);
Types infer(const MultiHeadAttnGradK& op, InputTypes in);
Types infer(const MultiHeadAttnGradV& op, InputTypes in);
Types infer(const Rope& op, InputTypes in);
Types infer(const CachedAttention& op, InputTypes in);
Types infer(const CacheWrite& op, InputTypes in);
Types infer(const Assign& op, InputTypes in);
Types infer(const GlobalNorm& op, InputTypes in);
Types infer(const UpdateScale& op, InputTypes in);
Types infer(const CountStep& op, InputTypes in);
Types infer(const Increment& op, InputTypes in);
Types infer(const LearningRate& op, InputTypes in);
Types infer(const SgdUpdate& op, InputTypes in);
Types infer(const AdamUpdate& op, InputTypes in);
Types infer(const LionUpdate& op, InputTypes in);

/// The overload of the op held. Not called infer: an op without a rule must not convert to Op and come back here.
Types infer_types(const Op& op, InputTypes in);

// ---- checks that several rules share
void require(bool condition, const std::string& what);
void require_inputs(InputTypes in, std::size_t least, std::size_t most);
/// All of one float type.
void require_float(InputTypes in);
/// All of one float type, f32 or f64.
void require_wide(InputTypes in);
/// The type of what an op sums of values of type x, and of the weights of norms: f32 for bf16.
DType wide(DType x);
void require_dtype(const TensorType& type, DType dtype, const char* what);
void require_equal(const TensorType& a, const TensorType& b, const char* what);
void require_u32(const TensorType& type, const char* what);
void require_u32_scalar(const TensorType& type, const char* what);

}  // namespace graft
