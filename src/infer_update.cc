// Shape rules of the ops that overwrite states, and of what they read.
#include "src/infer.h"

namespace graft {
namespace {

void require_scalar(const TensorType& type, DType dtype, const char* what) {
  require(type == TensorType{dtype, {}}, std::string(what) + " must be " + std::string(to_string(dtype)) + "[], got " + to_string(type));
}

/// p, grad and the moments [1, 2 + moments) alike.
void require_alike(InputTypes in, std::size_t count) {
  require_wide(in.first(count));
  for (std::size_t i = 1; i < count; ++i) require_equal(in[0], in[i], i == 1 ? "parameter and gradient" : "parameter and moment");
}

}  // namespace

Types infer(const Assign&, InputTypes in) {
  require_inputs(in, 2, 2);
  require_equal(in[0], in[1], "value and state");
  return {in[1]};
}

Types infer(const GlobalNorm&, InputTypes in) {
  require(!in.empty(), "takes at least one input");
  require_wide(in);
  return {{in[0].dtype, {}}};
}

Types infer(const UpdateScale& op, InputTypes in) {
  require_inputs(in, 1, 2);
  require_wide(in);
  require_scalar(in[0], in[0].dtype, "norm");
  if (in.size() == 2) require_scalar(in[1], in[0].dtype, "loss");
  require(op.max_norm >= 0.0, "max_norm must not be negative, got " + std::to_string(op.max_norm));
  return {in[0]};
}

Types infer(const CountStep&, InputTypes in) {
  require_inputs(in, 3, 3);
  require_u32_scalar(in[0], "step");
  require_u32_scalar(in[1], "skipped");
  require_scalar(in[2], in[2].dtype == DType::f64 ? DType::f64 : DType::f32, "scale");
  return {in[0], in[1]};
}

Types infer(const Increment&, InputTypes in) {
  require_inputs(in, 1, 1);
  require_u32_scalar(in[0], "the counter");
  return {in[0]};
}

Types infer(const LearningRate& op, InputTypes in) {
  require_inputs(in, 1, 1);
  require_u32_scalar(in[0], "step");
  return {{op.dtype, {}}};
}

Types infer(const SgdUpdate&, InputTypes in) {
  require_inputs(in, 5, 5);
  require_alike(in, 3);
  require_scalar(in[3], in[0].dtype, "lr");
  require_scalar(in[4], in[0].dtype, "scale");
  return {in[0], in[2]};
}

Types infer(const AdamUpdate& op, InputTypes in) {
  require_inputs(in, 7, 7);
  require_alike(in, 4);
  require_u32_scalar(in[4], "step");
  require_scalar(in[5], in[0].dtype, "lr");
  require_scalar(in[6], in[0].dtype, "scale");
  require(op.eps > 0.0, "eps must be positive, got " + std::to_string(op.eps));
  return {in[0], in[2], in[3]};
}

Types infer(const LionUpdate&, InputTypes in) {
  require_inputs(in, 5, 5);
  require_alike(in, 3);
  require_scalar(in[3], in[0].dtype, "lr");
  require_scalar(in[4], in[0].dtype, "scale");
  return {in[0], in[2]};
}

}  // namespace graft
