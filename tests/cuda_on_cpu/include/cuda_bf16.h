#pragma once
// The part of NVIDIA's cuda_bf16.h that graft uses, on the CPU.
#include <cuda_runtime.h>

#include "graft/bf16.h"

struct alignas(2) __nv_bfloat16 {
  unsigned short __x;
};
struct alignas(4) __nv_bfloat162 {
  __nv_bfloat16 x, y;
};

inline float __bfloat162float(__nv_bfloat16 x) { return graft::to_float(graft::Bf16{x.__x}); }
inline __nv_bfloat16 __float2bfloat16_rn(float x) { return {graft::to_bf16(x).bits}; }
inline __nv_bfloat16 __float2bfloat16(float x) { return __float2bfloat16_rn(x); }
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short x) { return {x}; }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 x) { return x.__x; }
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) { return {__float2bfloat16_rn(x), __float2bfloat16_rn(y)}; }
inline __nv_bfloat162 __float22bfloat162_rn(float2 both) { return __floats2bfloat162_rn(both.x, both.y); }
inline float2 __bfloat1622float2(__nv_bfloat162 both) { return {__bfloat162float(both.x), __bfloat162float(both.y)}; }
inline float __low2float(__nv_bfloat162 both) { return __bfloat162float(both.x); }
inline float __high2float(__nv_bfloat162 both) { return __bfloat162float(both.y); }
