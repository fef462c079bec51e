#pragma once
// How a kernel is started: by launch(…) and by nothing else, so that the kernels also run where there is no GPU (tests/cuda_on_cpu).
#include <cuda_runtime.h>

#include <cstddef>
#include <tuple>
#include <utility>

#include "kernels/cuda/check.h"

namespace graft::cuda {

/// Blocks, threads of each, and bytes of dynamic shared memory of each.
struct LaunchShape {
  dim3 grid, block;
  std::size_t shared = 0;
};

/// Dynamic shared memory that every kernel may have; more must be asked for. 48 KiB less 16 KiB: its static shared memory counts too, and none has more
/// (./dev kernels lists it).
inline constexpr std::size_t kSharedWithoutAsking = 32 * 1024;

/// Enqueues kernel(args…). Throws Error that names the kernel when it cannot be started.
template <class... Params, class... Args>
void launch(void (*kernel)(Params...), const LaunchShape& shape, cudaStream_t stream, Args&&... args) {
  static_assert(sizeof...(Params) == sizeof...(Args));
  const auto* function = reinterpret_cast<const void*>(kernel);
  std::tuple<std::remove_cv_t<Params>...> values(static_cast<Params>(std::forward<Args>(args))...);
  std::apply(
      [&](auto&... value) {
        void* pointers[] = {&value..., nullptr};
        if (shape.shared > kSharedWithoutAsking)
          check_launch(cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shape.shared)), function);
        check_launch(cudaLaunchKernel(function, shape.grid, shape.block, pointers, shape.shared, stream), function);
      },
      values);
}

}  // namespace graft::cuda
