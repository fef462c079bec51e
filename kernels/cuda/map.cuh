#pragma once
// Elementwise kernels: 16 bytes of each tensor a thread at a time.
#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <utility>

#include "graft/error.h"
#include "graft/types.h"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.cuh"

namespace graft::cuda {

inline constexpr int kMapThreads = 256;

/// Enough threads for `count` items, one each, but no more than keep the GPU busy: kernels go on in steps of the grid.
inline LaunchShape map_shape(std::int64_t count, const Context& context) {
  const std::int64_t blocks = (count + kMapThreads - 1) / kMapThreads, most = std::int64_t{context.multiprocessors} * 32;
  return {dim3(static_cast<unsigned>(std::clamp<std::int64_t>(blocks, 1, most))), dim3(kMapThreads)};
}

/// Calls f<T>() with the type of a tensor's elements, float or bf16.
template <class F>
void with_float_type(DType dtype, F&& f) {
  if (dtype == DType::f32) return f.template operator()<float>();
  GRAFT_ASSERT(dtype == DType::bf16);
  f.template operator()<bf16>();
}

/// Calls f<N>() with how many elements of T are moved at once: 16 bytes, or 1 where not all numbers of elements are whole packs.
template <class T, class F>
void with_packs(std::initializer_list<std::int64_t> elements, F&& f) {
  if (std::all_of(elements.begin(), elements.end(), [](std::int64_t n) { return n % kPack<T> == 0; }))
    return f.template operator()<kPack<T>>();
  f.template operator()<1>();
}

/// out[i] = f(in0[i], in1[i], …), computed in f32. `out` may be any of the inputs. All are aligned to 16 bytes.
template <class F, class Out, class... In>
__global__ void map_kernel(F f, std::int64_t size, Out* out, const In*... in) {
  constexpr int kStep = std::min({kPack<Out>, kPack<In>...});
  const std::int64_t whole = size / kStep;
  for (std::int64_t i = thread_index(); i < whole; i += thread_count()) {
    [&](auto... packs) {
      Pack<Out, kStep> result;
#pragma unroll
      for (int e = 0; e < kStep; ++e) result.at[e] = from_float<Out>(f(to_float(packs.at[e])...));
      store_pack(out + i * kStep, result);
    }(load_pack<kStep>(in + i * kStep)...);
  }
  const std::int64_t rest = whole * kStep + thread_index();
  if (rest < size) out[rest] = from_float<Out>(f(to_float(in[rest])...));
}

template <class F, class Out, class... In>
void map(F f, std::int64_t size, const Context& context, Out* out, const In*... in) {
  launch(map_kernel<F, Out, In...>, map_shape((size + 3) / 4, context), context.stream, f, size, out, in...);
}

}  // namespace graft::cuda
