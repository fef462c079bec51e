#pragma once
#include <utility>

#include "graft/backend.h"
#include "graft/bf16.h"
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

inline bool is_f64(const Step& step) {
  const auto found = [](std::span<const TensorView> views) {
    for (const TensorView& x : views)
      if (x.type.dtype == DType::f64) return true;
    return false;
  };
  return found(step.in) || found(step.out);
}

inline float as_float(float x) { return x; }
inline float as_float(Bf16 x) { return to_float(x); }
inline void put_float(float& to, float x) { to = x; }
inline void put_float(Bf16& to, float x) { to = to_bf16(x); }

/// Calls f.operator()<float>() or <Bf16>(), by the type of each of `like`.
template <class F>
void with_types(F&& f, const TensorView& like) {
  if (like.type.dtype == DType::bf16) return std::forward<F>(f).template operator()<Bf16>();
  std::forward<F>(f).template operator()<float>();
}
template <class F>
void with_types(F&& f, const TensorView& a, const TensorView& b) {
  with_types([&]<class A>() { with_types([&]<class B>() { std::forward<F>(f).template operator()<A, B>(); }, b); }, a);
}

template <class T = float>
const T* input(const Step& step, std::size_t i) {
  return step.in[i].as<const T>();
}
template <class T = float>
T* output(const Step& step, std::size_t i = 0) {
  return step.out[i].as<T>();
}

}  // namespace graft::cpu
