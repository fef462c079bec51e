#pragma once
// The emulation's kernels/cuda/launch.cuh: what it declares is said there.
#include <cuda_runtime.h>

#include <cstddef>
#include <memory>
#include <tuple>
#include <utility>

#include "kernels/cuda/check.h"

namespace emulation {

/// A kernel and a copy of its arguments.
struct Call {
  const void* kernel = nullptr;
  void (*run)(const void* kernel, void* arguments) = nullptr;
  std::shared_ptr<void> arguments;
  std::size_t bytes = 0;  ///< of the arguments
};
cudaError_t start(Call call, dim3 grid, dim3 block, std::size_t shared, cudaStream_t stream);

}  // namespace emulation

namespace graft::cuda {

struct LaunchShape {
  dim3 grid, block;
  std::size_t shared = 0;
};
inline constexpr std::size_t kSharedWithoutAsking = 32 * 1024;

template <class... Params, class... Args>
void launch(void (*kernel)(Params...), const LaunchShape& shape, cudaStream_t stream, Args&&... args) {
  static_assert(sizeof...(Params) == sizeof...(Args));
  using Values = std::tuple<std::remove_cv_t<Params>...>;
  const auto* function = reinterpret_cast<const void*>(kernel);
  const auto run = [](const void* k, void* values) {
    std::apply(reinterpret_cast<void (*)(Params...)>(const_cast<void*>(k)), *static_cast<Values*>(values));
  };
  emulation::Call call = {function, run, std::make_shared<Values>(static_cast<Params>(std::forward<Args>(args))...),
                          sizeof(Values)};
  if (shape.shared > kSharedWithoutAsking)
    check_launch(cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shape.shared)),
                 function);
  check_launch(emulation::start(std::move(call), shape.grid, shape.block, shape.shared, stream), function);
}

}  // namespace graft::cuda
