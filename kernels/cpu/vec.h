#pragma once
// A vector register of floats, by the compilers' vector extension (g++ and clang++): + - * / and comparisons work on it lane by
// lane.
#include <cstdint>
#include <utility>

#include "graft/bf16.h"
#if defined(__SSE2__)
#include <immintrin.h>
#else
#include <cmath>
#endif

namespace graft::cpu {

#if defined(__AVX512F__)
inline constexpr int kLanes = 16;
#elif defined(__AVX__)
inline constexpr int kLanes = 8;
#else
inline constexpr int kLanes = 4;
#endif

typedef float Vec __attribute__((vector_size(kLanes * 4)));
typedef std::int32_t IntVec __attribute__((vector_size(kLanes * 4)));
typedef float UnalignedVec __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));

#define GRAFT_INLINE inline __attribute__((always_inline))
// Before a short loop over an array of vectors that shall stay in registers: g++ may clear such an array in memory before it sees that.
#if defined(__clang__)
#define GRAFT_UNROLL _Pragma("unroll")
#else
#define GRAFT_UNROLL _Pragma("GCC unroll 16")
#endif

GRAFT_INLINE Vec broadcast(float x) { return x - Vec{}; }
GRAFT_INLINE Vec load(const float* p) { return *reinterpret_cast<const UnalignedVec*>(p); }
GRAFT_INLINE void store(float* p, Vec v) { *reinterpret_cast<UnalignedVec*>(p) = v; }
#if defined(__AVX2__) && !defined(__AVX512F__)
GRAFT_INLINE __m256i first_lanes(std::int64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
#endif
/// The first n < kLanes elements; the other lanes are 0.
GRAFT_INLINE Vec load_first(const float* p, std::int64_t n) {
#if defined(__AVX512F__)
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1u), p);
#elif defined(__AVX2__)
  return _mm256_maskload_ps(p, first_lanes(n));
#else
  Vec v{};
  for (int i = 0; i < static_cast<int>(n); ++i) v[i] = p[i];
  return v;
#endif
}
GRAFT_INLINE void store_first(float* p, Vec v, std::int64_t n) {
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1u), v);
#elif defined(__AVX2__)
  _mm256_maskstore_ps(p, first_lanes(n), v);
#else
  for (int i = 0; i < static_cast<int>(n); ++i) p[i] = v[i];
#endif
}

// bf16 in memory, floats in registers.
typedef std::uint32_t BitsVec __attribute__((vector_size(kLanes * 4)));
typedef std::uint16_t HalfBitsVec __attribute__((vector_size(kLanes * 2)));
typedef std::uint16_t UnalignedHalfBitsVec __attribute__((vector_size(kLanes * 2), aligned(2), may_alias));

// Where a vector becomes a wider one, g++ 12 makes two halves of __builtin_convertvector and joins them; the plain intrinsics of AVX-512 warn in it.
GRAFT_INLINE Vec widen(HalfBitsVec bits) {
#if defined(__AVX512F__)
  const auto wide = reinterpret_cast<BitsVec>(_mm512_maskz_cvtepu16_epi32(0xffff, reinterpret_cast<__m256i>(bits)));
#elif defined(__AVX2__)
  const auto wide = reinterpret_cast<BitsVec>(_mm256_cvtepu16_epi32(reinterpret_cast<__m128i>(bits)));
#else
  const auto wide = __builtin_convertvector(bits, BitsVec);
#endif
  return reinterpret_cast<Vec>(wide << 16);
}
/// As to_bf16.
GRAFT_INLINE HalfBitsVec round(Vec v) {
  const BitsVec bits = reinterpret_cast<BitsVec>(v), nearest = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16,
                quiet = (bits >> 16) | 0x40u;
  return __builtin_convertvector((bits & 0x7fffffffu) > 0x7f800000u ? quiet : nearest, HalfBitsVec);
}
GRAFT_INLINE Vec load(const Bf16* p) { return widen(*reinterpret_cast<const UnalignedHalfBitsVec*>(p)); }
GRAFT_INLINE void store(Bf16* p, Vec v) { *reinterpret_cast<UnalignedHalfBitsVec*>(p) = round(v); }
GRAFT_INLINE Vec load_first(const Bf16* p, std::int64_t n) {
  HalfBitsVec bits{};
  for (int i = 0; i < static_cast<int>(n); ++i) bits[i] = p[i].bits;
  return widen(bits);
}
GRAFT_INLINE void store_first(Bf16* p, Vec v, std::int64_t n) {
  const HalfBitsVec bits = round(v);
  for (int i = 0; i < static_cast<int>(n); ++i) p[i].bits = bits[i];
}

/// a·b + c, rounded once where the processor can. This folder is compiled with -ffp-contract=off, so that nothing else is fused:
/// which products a compiler fuses depends on how it inlines, and would make the bits depend on the number of threads.
GRAFT_INLINE Vec fma(Vec a, Vec b, Vec c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__AVX__) && defined(__FMA__)
  return _mm256_fmadd_ps(a, b, c);
#else
  return a * b + c;
#endif
}
/// NaN in b goes to the result, NaN in a does not.
GRAFT_INLINE Vec max(Vec a, Vec b) { return a > b ? a : b; }
GRAFT_INLINE Vec min(Vec a, Vec b) { return a < b ? a : b; }
GRAFT_INLINE Vec abs(Vec a) { return reinterpret_cast<Vec>(reinterpret_cast<IntVec>(a) & 0x7fffffff); }
GRAFT_INLINE Vec sqrt(Vec a) {
#if defined(__AVX512F__)
  return _mm512_maskz_sqrt_ps(0xffff, a);  // the plain one warns in g++ 12
#elif defined(__AVX__)
  return _mm256_sqrt_ps(a);
#elif defined(__SSE2__)
  return _mm_sqrt_ps(a);
#else
  for (int i = 0; i < kLanes; ++i) a[i] = std::sqrt(a[i]);
  return a;
#endif
}

/// Lane i is lane kFrom[i] of a, or kFrom[i] − kLanes of b.
template <int... kFrom>
GRAFT_INLINE Vec shuffle(Vec a, Vec b) {
#if defined(__clang__) || __GNUC__ >= 12
  return __builtin_shufflevector(a, b, kFrom...);
#else
  return __builtin_shuffle(a, b, IntVec{kFrom...});
#endif
}

template <int kBy, int... kLane>
GRAFT_INLINE Vec rotate(Vec v, std::integer_sequence<int, kLane...>) {
  return shuffle<((kLane + kBy) % kLanes)...>(v, v);
}
template <int kBy>
GRAFT_INLINE Vec rotate(Vec v) {
  return rotate<kBy>(v, std::make_integer_sequence<int, kLanes>());
}
/// Σ of the lanes, halves added to halves.
template <int kHalf = kLanes / 2>
GRAFT_INLINE float sum(Vec v) {
  v += rotate<kHalf>(v);
  if constexpr (kHalf == 1)
    return v[0];
  else
    return sum<kHalf / 2>(v);
}
template <int kHalf = kLanes / 2>
GRAFT_INLINE float max(Vec v) {
  v = max(v, rotate<kHalf>(v));
  if constexpr (kHalf == 1)
    return v[0];
  else
    return max<kHalf / 2>(v);
}

/// Sums in double take half a vector of floats at a time.
typedef float HalfVec __attribute__((vector_size(kLanes * 2), aligned(4), may_alias));
typedef double DoubleVec __attribute__((vector_size(kLanes * 4)));
GRAFT_INLINE DoubleVec widen(HalfVec v) {
#if defined(__AVX512F__)
  return _mm512_maskz_cvtps_pd(0xff, reinterpret_cast<__m256>(v));
#elif defined(__AVX__)
  return _mm256_cvtps_pd(reinterpret_cast<__m128>(v));
#else
  return __builtin_convertvector(v, DoubleVec);
#endif
}
GRAFT_INLINE DoubleVec load_double(const float* p) { return widen(*reinterpret_cast<const HalfVec*>(p)); }
GRAFT_INLINE DoubleVec load_double(const Bf16* p) {
  typedef std::uint32_t Half __attribute__((vector_size(kLanes * 2)));
#if defined(__AVX512F__)
  const auto wide = reinterpret_cast<Half>(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#elif defined(__AVX2__)
  const auto wide = reinterpret_cast<Half>(_mm_cvtepu16_epi32(_mm_loadu_si64(p)));
#else
  typedef std::uint16_t Quarter __attribute__((vector_size(kLanes), aligned(2), may_alias));
  const auto wide = __builtin_convertvector(*reinterpret_cast<const Quarter*>(p), Half);
#endif
  return widen(reinterpret_cast<HalfVec>(wide << 16));
}
GRAFT_INLINE double sum(DoubleVec v) {
  double total = 0.0;
  for (int i = 0; i < kLanes / 2; ++i) total += v[i];
  return total;
}

/// 0, 1, 2, …
GRAFT_INLINE IntVec lane_numbers() {
  IntVec v;
  for (int i = 0; i < kLanes; ++i) v[i] = i;
  return v;
}

}  // namespace graft::cpu
