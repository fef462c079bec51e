#pragma once
#include <cuda_runtime.h>

#include <cstdint>

#include "graft/types.h"

namespace graft::cuda {

/// `to` [count] in bf16. In elementwise.cu, like the next.
void round_to_bf16(const float* from, void* to, std::int64_t count, cudaStream_t stream);

/// c[i, j] += bias[j] for i < rows, j < cols; stride elements from row to row.
void add_bias(const float* bias, void* c, DType dtype, std::int64_t rows, std::int64_t cols, std::int64_t stride, cudaStream_t stream);

}  // namespace graft::cuda
