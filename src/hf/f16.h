#pragma once
#include <bit>
#include <cstdint>

namespace graft::hf::detail {

/// IEEE 754 binary16: 1 sign, 5 exponent and 10 fraction bits.
struct F16 {
  std::uint16_t bits;
};

inline float to_float(F16 x) {
  const std::uint32_t sign = static_cast<std::uint32_t>(x.bits & 0x8000u) << 16, exponent = (x.bits >> 10) & 0x1fu,
                      fraction = x.bits & 0x3ffu;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | fraction << 13);
  if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | fraction << 13);
  const float magnitude = static_cast<float>(fraction) * 0x1p-24f;  // subnormal
  return sign != 0 ? -magnitude : magnitude;
}

/// To the nearest, ties to even; beyond 65504 to infinity; NaN stays NaN.
inline F16 to_f16(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  std::uint32_t half = 0;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u | (magnitude >> 13 & 0x3ffu);
  } else if (magnitude >= 0x477ff000u) {  // 65520, half way to what would be the next number
    half = 0x7c00u;
  } else if (magnitude >= 0x38800000u) {  // 2^−14, the least normal one
    half = (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
  } else {
    // Adding 0.5 leaves the multiple of 2^−24 in the low bits of the fraction, rounded by the processor.
    half = std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u;
  }
  return {static_cast<std::uint16_t>(sign | half)};
}

}  // namespace graft::hf::detail
