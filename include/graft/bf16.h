#pragma once
#include <bit>
#include <cmath>
#include <cstdint>

namespace graft {

/// bfloat16: the upper half of a float.
struct Bf16 {
  std::uint16_t bits;
};

inline float to_float(Bf16 x) { return std::bit_cast<float>(static_cast<std::uint32_t>(x.bits) << 16); }

/// To the nearest, ties to even; NaN stays NaN.
inline Bf16 to_bf16(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if (std::isnan(x)) return {static_cast<std::uint16_t>((bits >> 16) | 0x40u)};
  return {static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

/// Rounded once: the float between is rounded to odd, which keeps what decides a tie.
inline Bf16 to_bf16(double x) {
  const float nearest = static_cast<float>(x);
  const double back = nearest;
  auto bits = std::bit_cast<std::uint32_t>(nearest);
  if (back != x && !std::isnan(x)) bits = (std::abs(back) > std::abs(x) ? bits - 1 : bits) | 1u;
  return to_bf16(std::bit_cast<float>(bits));
}

}  // namespace graft
