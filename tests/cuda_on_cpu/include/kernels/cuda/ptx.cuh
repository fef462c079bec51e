#pragma once
// The emulation's kernels/cuda/ptx.cuh: what it declares is said there.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "tests/cuda_on_cpu/device_side.h"

namespace graft::cuda::ptx {

using emulation::Site;

inline void ldmatrix_x4(std::uint32_t (&to)[4], const void* row, Site site = Site::current()) {
  emulation::load_matrices(to, 4, row, false, site);
}
inline void ldmatrix_x4_trans(std::uint32_t (&to)[4], const void* row, Site site = Site::current()) {
  emulation::load_matrices(to, 4, row, true, site);
}
inline void ldmatrix_x2(std::uint32_t (&to)[2], const void* row, Site site = Site::current()) {
  emulation::load_matrices(to, 2, row, false, site);
}
inline void ldmatrix_x2_trans(std::uint32_t (&to)[2], const void* row, Site site = Site::current()) {
  emulation::load_matrices(to, 2, row, true, site);
}

inline void mma_m16n8k16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], Site site = Site::current()) {
  emulation::multiply_matrices(d, a, b, site);
}

inline std::uint32_t pack_bf16(float low, float high) { return std::bit_cast<std::uint32_t>(__floats2bfloat162_rn(low, high)); }

inline float exp2(float x) {
  const float power = std::exp2(x);
  return power < std::numeric_limits<float>::min() ? 0.0f : power;
}

inline void cp_async_16(void* shared, const void* global, bool valid = true) { emulation::copy_async(shared, global, valid); }
inline void cp_async_commit() { emulation::commit_copies(); }
template <int Groups>
void cp_async_wait() {
  emulation::wait_for_copies(Groups);
}

}  // namespace graft::cuda::ptx
