#pragma once
// The emulation's kernels/cuda/device_cuda.cuh: what it declares is said there.
#include <cuda_runtime.h>

namespace graft::cuda {

template <class T>
T* shared_memory() {
  return static_cast<T*>(emulation::dynamic_shared());
}

template <class T, int N, class Tag = void>
T* shared_array() {
  static const char key = 0;  // its address is another one for each instantiation
  return static_cast<T*>(emulation::static_shared(&key, sizeof(T) * N));
}

}  // namespace graft::cuda
