#pragma once
#include <cuda_runtime.h>

#include <cstdint>

#include "graft/types.h"

namespace graft::cuda {

/// c[i, j] += bias[j] for i < rows, j < cols; stride elements from row to row. In elementwise.cu.
void add_bias(const float* bias, void* c, DType dtype, std::int64_t rows, std::int64_t cols, std::int64_t stride, cudaStream_t stream);

}  // namespace graft::cuda
