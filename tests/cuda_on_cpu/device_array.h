#pragma once
// Device memory for tests of kernels.
#include <cuda_runtime.h>

#include <cstddef>
#include <vector>

#include "kernels/cuda/check.h"

namespace graft::testing {

/// `count` elements on the device, which nothing has written; or a copy of values.
template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(std::size_t count) : count_(count) { cuda::check(cudaMalloc(&data_, count * sizeof(T)), "cannot allocate"); }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) {
    cuda::check(cudaMemcpy(data_, values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice), "cannot upload");
  }
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* data() const { return data_; }
  std::size_t bytes() const { return count_ * sizeof(T); }
  std::vector<T> values() const {
    std::vector<T> to(count_);
    cuda::check(cudaMemcpy(to.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost), "cannot download");
    return to;
  }

 private:
  std::size_t count_;
  T* data_ = nullptr;
};

}  // namespace graft::testing
