#pragma once
// Inline PTX, all of it (PTX ISA 8.0, "warp-level matrix instructions" and "asynchronous copy"). tests/cuda_on_cpu has the same functions in plain C++.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace graft::cuda::ptx {

/// The address in shared memory's own address space, which PTX takes.
__device__ __forceinline__ std::uint32_t shared_address(const void* shared) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(shared));
}

// ---- ldmatrix: 8×8 matrices of 16-bit elements from shared memory. Lane l gives the address of a row of 8 elements (16 bytes, aligned to 16):
// lanes 0–7 the rows of matrix 0, 8–15 of matrix 1, and so on (x1, x2: the other lanes' addresses are not read). Lane l receives of each matrix the elements
// (row l/4, columns 2·(l%4) and 2·(l%4) + 1), the lower column in the lower half; transposed: (rows 2·(l%4) and + 1, column l/4).

__device__ __forceinline__ void ldmatrix_x4(std::uint32_t (&to)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address(row))
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x4_trans(std::uint32_t (&to)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address(row))
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x2(std::uint32_t (&to)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];" : "=r"(to[0]), "=r"(to[1]) : "r"(shared_address(row)) : "memory");
}
__device__ __forceinline__ void ldmatrix_x2_trans(std::uint32_t (&to)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(to[0]), "=r"(to[1])
               : "r"(shared_address(row))
               : "memory");
}

// ---- mma: d = a·b + d, a [16, 16] and b [16, 8] of bf16, d [16, 8] of f32. With g = lane/4, t = lane%4, each register holding two neighbours:
// a[0]: (g, 2t)  a[1]: (g + 8, 2t)  a[2]: (g, 2t + 8)  a[3]: (g + 8, 2t + 8), the pair along columns
// b[0]: (2t, g)  b[1]: (2t + 8, g), the pair along rows
// d[0], d[1]: (g, 2t), (g, 2t + 1)   d[2], d[3]: (g + 8, 2t), (g + 8, 2t + 1)

__device__ __forceinline__ void mma_m16n8k16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/// Two floats as bf16 in one register, `low` in the lower half: a pair of mma's operands.
__device__ __forceinline__ std::uint32_t pack_bf16(float low, float high) {
  std::uint32_t both;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  return both;
}

/// 2^x by the special function unit alone, where exp2f guards subnormal results with three instructions more: with a relative error of about 2^-22, and 0 for what is smaller
/// than 2^-126. exp2(−∞) is 0.
__device__ __forceinline__ float exp2(float x) {
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
  return power;
}

// ---- cp.async: 16 bytes from global to shared memory, both aligned to 16, behind the thread's back. Copies belong to the group that the next commit
// closes; cp_async_wait<N> returns when all but the newest N groups of this thread are done. Others see the bytes after a barrier.

/// Zeros instead of the bytes if not `valid`; `global` is not read then.
__device__ __forceinline__ void cp_async_16(void* shared, const void* global, bool valid = true) {
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(bytes) : "memory");
}
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int Groups>
__device__ __forceinline__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Groups) : "memory");
}

}  // namespace graft::cuda::ptx
