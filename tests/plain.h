#pragma once
// Every op once more, as plain loops over doubles: written from the formulas of graft/ops.h alone, so that the reference
// kernels have something to be compared with that shares no code with them.
#include <vector>

#include "graft/graph.h"
#include "tests/op_cases.h"

namespace graft::testing::plain {

struct Tensor {
  Shape shape;
  std::vector<double> values;

  std::int64_t rows() const { return shape.rows(); }
  std::int64_t cols() const { return shape.cols(); }
  double& at(std::int64_t i, std::int64_t j) { return values[static_cast<std::size_t>(i * cols() + j)]; }
  double at(std::int64_t i, std::int64_t j) const { return values[static_cast<std::size_t>(i * cols() + j)]; }
  double& operator[](std::int64_t i) { return values[static_cast<std::size_t>(i)]; }
  double operator[](std::int64_t i) const { return values[static_cast<std::size_t>(i)]; }
};
using Tensors = std::vector<Tensor>;

/// The outputs of an op; `types` are their types. Sources give nothing.
Tensors evaluate(const Op& op, const Tensors& in, const std::vector<TensorType>& types);

// by topic, as the kernels
Tensors run(const MatMul& op, const Tensors& in, Tensors out);
Tensors run(const Unary& op, const Tensors& in, Tensors out);
Tensors run(const UnaryGrad& op, const Tensors& in, Tensors out);
Tensors run(const Binary& op, const Tensors& in, Tensors out);
Tensors run(const Swiglu& op, const Tensors& in, Tensors out);
Tensors run(const SwigluGrad& op, const Tensors& in, Tensors out);
Tensors run(const Cast& op, const Tensors& in, Tensors out);
Tensors run(const StopGradient& op, const Tensors& in, Tensors out);
Tensors run(const Dropout& op, const Tensors& in, Tensors out);
Tensors run(const Reduce& op, const Tensors& in, Tensors out);
Tensors run(const ReduceMaxGrad& op, const Tensors& in, Tensors out);
Tensors run(const Broadcast& op, const Tensors& in, Tensors out);
Tensors run(const Reshape& op, const Tensors& in, Tensors out);
Tensors run(const Transpose& op, const Tensors& in, Tensors out);
Tensors run(const Slice& op, const Tensors& in, Tensors out);
Tensors run(const Pad& op, const Tensors& in, Tensors out);
Tensors run(const Concat& op, const Tensors& in, Tensors out);
Tensors run(const Softmax& op, const Tensors& in, Tensors out);
Tensors run(const SoftmaxGrad& op, const Tensors& in, Tensors out);
Tensors run(const LogSoftmax& op, const Tensors& in, Tensors out);
Tensors run(const LogSoftmaxGrad& op, const Tensors& in, Tensors out);
Tensors run(const RmsNorm& op, const Tensors& in, Tensors out);
Tensors run(const RmsNormGrad& op, const Tensors& in, Tensors out);
Tensors run(const LayerNorm& op, const Tensors& in, Tensors out);
Tensors run(const LayerNormGrad& op, const Tensors& in, Tensors out);
Tensors run(const Embedding& op, const Tensors& in, Tensors out);
Tensors run(const EmbeddingGrad& op, const Tensors& in, Tensors out);
Tensors run(const CrossEntropy& op, const Tensors& in, Tensors out);
Tensors run(const CrossEntropyGrad& op, const Tensors& in, Tensors out);
Tensors run(const LinearCrossEntropy& op, const Tensors& in, Tensors out);
Tensors run(const LinearCrossEntropyGrad& op, const Tensors& in, Tensors out);
Tensors run(const MultiHeadAttn& op, const Tensors& in, Tensors out);
Tensors run(const AttnDelta& op, const Tensors& in, Tensors out);
Tensors run(const MultiHeadAttnGradQ& op, const Tensors& in, Tensors out);
Tensors run(const MultiHeadAttnGradK& op, const Tensors& in, Tensors out);
Tensors run(const MultiHeadAttnGradV& op, const Tensors& in, Tensors out);
Tensors run(const Rope& op, const Tensors& in, Tensors out);
Tensors run(const CachedAttention& op, const Tensors& in, Tensors out);
Tensors run(const CacheWrite& op, const Tensors& in, Tensors out);
Tensors run(const Assign& op, const Tensors& in, Tensors out);
Tensors run(const GlobalNorm& op, const Tensors& in, Tensors out);
Tensors run(const UpdateScale& op, const Tensors& in, Tensors out);
Tensors run(const CountStep& op, const Tensors& in, Tensors out);
Tensors run(const Increment& op, const Tensors& in, Tensors out);
Tensors run(const LearningRate& op, const Tensors& in, Tensors out);
Tensors run(const SgdUpdate& op, const Tensors& in, Tensors out);
Tensors run(const AdamUpdate& op, const Tensors& in, Tensors out);
Tensors run(const LionUpdate& op, const Tensors& in, Tensors out);

}  // namespace graft::testing::plain
