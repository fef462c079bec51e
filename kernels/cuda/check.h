#pragma once
// What the CUDA runtime answers, as graft::Error.
#include <cuda_runtime.h>

#include <string>

#include "graft/error.h"

namespace graft::cuda {

/// `what` was being done: "cuda: cannot copy to the device: invalid argument (cudaErrorInvalidValue)".
inline void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // an error that is told is not told again
  throw Error(std::string("cuda: ") + what + ": " + cudaGetErrorString(status) + " (" + cudaGetErrorName(status) + ")");
}

/// The same of a kernel, which the message names where the runtime can tell it: since CUDA 12.3.
inline void check_launch(cudaError_t status, [[maybe_unused]] const void* kernel) {
  if (status == cudaSuccess) return;
  cudaGetLastError();
  const char* name = nullptr;
#if CUDART_VERSION >= 12030
  if (cudaFuncGetName(&name, kernel) != cudaSuccess) name = nullptr;
#endif
  throw Error(std::string("cuda: cannot start kernel ") + (name == nullptr ? "?" : name) + ": " + cudaGetErrorString(status) + " (" + cudaGetErrorName(status) + ")");
}

}  // namespace graft::cuda
