#pragma once
// Shared memory of a block: these two functions are all there is to it in kernels, so that it also exists where there is no GPU.
#include <cuda_runtime.h>

namespace graft::cuda {

/// The dynamic shared memory, as large as the launch says, aligned to 128 bytes.
template <class T>
__device__ __forceinline__ T* shared_memory() {
  extern __shared__ __align__(128) unsigned char graft_dynamic_shared_memory[];
  return reinterpret_cast<T*>(graft_dynamic_shared_memory);
}

/// N elements of static shared memory; another array for each combination of T, N and Tag.
template <class T, int N, class Tag = void>
__device__ __forceinline__ T* shared_array() {
  __shared__ __align__(16) T array[N];
  return array;
}

}  // namespace graft::cuda
