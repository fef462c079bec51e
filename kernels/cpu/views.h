#pragma once
#include "graft/backend.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/parallel.h"
#include "kernels/reference/kernels.h"

namespace graft::cpu {

/// Whether all float tensors of a step are f32: what the kernels here are for.
inline bool is_f32(const Step& step) {
  for (const TensorView& x : step.in)
    if (is_float(x.type.dtype) && x.type.dtype != DType::f32) return false;
  for (const TensorView& x : step.out)
    if (is_float(x.type.dtype) && x.type.dtype != DType::f32) return false;
  return true;
}

inline const float* input(const Step& step, std::size_t i) { return step.in[i].as<const float>(); }
inline float* output(const Step& step, std::size_t i = 0) { return step.out[i].as<float>(); }

}  // namespace graft::cpu
