#pragma once
// The part of the CUDA runtime that graft uses, on the CPU: see tests/cuda_on_cpu/README.md. Names, values and meanings are those of NVIDIA's cuda_runtime.h.
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#define CUDART_VERSION 12030  // what it has is that of CUDA 12.3 at least

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __restrict__  // other threads of a block write what a kernel's restricted pointers lead to while it waits at a barrier

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned vx = 1, unsigned vy = 1, unsigned vz = 1) : x(vx), y(vy), z(vz) {}
};

#include "tests/cuda_on_cpu/device_side.h"

#define threadIdx (::emulation::thread_index())
#define blockIdx (::emulation::block_index())
#define blockDim (::emulation::block_shape())
#define gridDim (::emulation::grid_shape())
inline constexpr int warpSize = 32;

// ---- vector types

struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

// ---- barriers, shuffles, votes; `site` is how a report names the call

inline void __syncthreads(emulation::Site site = emulation::Site::current()) {
  emulation::barrier(emulation::Barrier::plain, 0, site);
}
inline int __syncthreads_or(int predicate, emulation::Site site = emulation::Site::current()) {
  return emulation::barrier(emulation::Barrier::any, predicate, site);
}
inline int __syncthreads_and(int predicate, emulation::Site site = emulation::Site::current()) {
  return emulation::barrier(emulation::Barrier::all, predicate, site);
}
inline int __syncthreads_count(int predicate, emulation::Site site = emulation::Site::current()) {
  return emulation::barrier(emulation::Barrier::count, predicate, site);
}
inline void __syncwarp(unsigned mask = 0xffffffffu, emulation::Site site = emulation::Site::current()) {
  emulation::sync_warp(mask, site);
}

template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int width = warpSize, emulation::Site site = emulation::Site::current()) {
  return emulation::shuffle(emulation::Shuffle::from, mask, value, lane, width, site);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize, emulation::Site site = emulation::Site::current()) {
  return emulation::shuffle(emulation::Shuffle::up, mask, value, static_cast<int>(delta), width, site);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize,
                   emulation::Site site = emulation::Site::current()) {
  return emulation::shuffle(emulation::Shuffle::down, mask, value, static_cast<int>(delta), width, site);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = warpSize, emulation::Site site = emulation::Site::current()) {
  return emulation::shuffle(emulation::Shuffle::exclusive_or, mask, value, lanes, width, site);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, emulation::Site site = emulation::Site::current()) {
  return emulation::vote(mask, "__ballot_sync", predicate != 0, site);
}
inline int __any_sync(unsigned mask, int predicate, emulation::Site site = emulation::Site::current()) {
  return emulation::vote(mask, "__any_sync", predicate != 0, site) != 0;
}
inline int __all_sync(unsigned mask, int predicate, emulation::Site site = emulation::Site::current()) {
  return emulation::vote(mask, "__all_sync", predicate != 0, site) == mask;
}
template <class T>
unsigned __match_any_sync(unsigned mask, T value, emulation::Site site = emulation::Site::current()) {
  return emulation::match_any(mask, emulation::to_bits(value), site);
}

// ---- atomics: integers only; sums of floats in an order that changes are forbidden in graft

namespace emulation {
template <class T, class F>
T replace(T* at, F&& f) {
  static_assert(std::is_integral_v<T>, "atomics are for integers");
  T old = __atomic_load_n(at, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(at, &old, f(old), false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
  return old;
}
}  // namespace emulation

template <class T>
T atomicAdd(T* at, std::type_identity_t<T> value) {
  return emulation::replace(at, [=](T old) { return static_cast<T>(old + value); });
}
template <class T>
T atomicMax(T* at, std::type_identity_t<T> value) {
  return emulation::replace(at, [=](T old) { return old < value ? value : old; });
}
template <class T>
T atomicMin(T* at, std::type_identity_t<T> value) {
  return emulation::replace(at, [=](T old) { return value < old ? value : old; });
}
template <class T>
T atomicOr(T* at, std::type_identity_t<T> value) {
  return emulation::replace(at, [=](T old) { return static_cast<T>(old | value); });
}
template <class T>
T atomicExch(T* at, std::type_identity_t<T> value) {
  return emulation::replace(at, [=](T) { return value; });
}
template <class T>
T atomicCAS(T* at, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  return emulation::replace(at, [=](T old) { return old == expected ? value : old; });
}

inline void __threadfence() {}
inline void __threadfence_block() {}

// ---- arithmetic

template <class T>
T __ldg(const T* at) {
  return *at;
}
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __ffs(int x) { return x == 0 ? 0 : std::countr_zero(static_cast<unsigned>(x)) + 1; }
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>((std::uint64_t{a} * b) >> 32); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float __expf(float x) { return expf(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }

#include "tests/cuda_on_cpu/host_side.h"
