#pragma once
// Rows moved as they are, a block each.
#include <algorithm>
#include <cstdint>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/launch.cuh"

namespace graft::cuda {

/// Calls f<Unit>() with the widest unit that rows of `bytes` bytes, one behind the other, are made of: 16, 4 or 2 bytes.
template <class F>
void with_copy_unit(std::int64_t bytes, F&& f) {
  if (bytes % 16 == 0) return f.template operator()<uint4>();
  if (bytes % 4 == 0) return f.template operator()<std::uint32_t>();
  f.template operator()<std::uint16_t>();
}

inline LaunchShape row_copy_shape(std::int64_t rows, std::int64_t units) {
  const auto threads = std::min<std::int64_t>((units + kWarp - 1) / kWarp * kWarp, 256);
  return {dim3(static_cast<unsigned>(rows)), dim3(static_cast<unsigned>(threads))};
}

/// Called by all threads of a block.
template <class Unit>
__device__ __forceinline__ void copy_row(const Unit* from, Unit* to, std::int64_t units) {
  for (std::int64_t i = threadIdx.x; i < units; i += blockDim.x) to[i] = from[i];
}

}  // namespace graft::cuda
