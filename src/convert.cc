#include "src/convert.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "graft/error.h"

namespace graft {
namespace {

/// bfloat16 from the nearest float: ties to even, NaN stays NaN.
std::uint16_t to_bf16(double x) {
  const float nearest = static_cast<float>(x);
  const double back = nearest;
  auto bits = std::bit_cast<std::uint32_t>(nearest);
  if (std::isnan(x)) return static_cast<std::uint16_t>((bits >> 16) | 0x40u);
  // The float between is rounded to odd, which keeps what decides a tie.
  if (back != x) bits = (std::abs(back) > std::abs(x) ? bits - 1 : bits) | 1u;
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

double load(const std::byte* from, DType type, std::size_t i) {
  const auto get = [&](auto value) {
    std::memcpy(&value, from + i * sizeof(value), sizeof(value));
    return value;
  };
  switch (type) {
    case DType::f32: return get(0.0f);
    case DType::f64: return get(0.0);
    case DType::bf16: return std::bit_cast<float>(static_cast<std::uint32_t>(get(std::uint16_t{0})) << 16);
    case DType::u32: return get(std::uint32_t{0});
  }
  GRAFT_ASSERT(!"a dtype");
  return 0.0;
}

void store(std::byte* to, DType type, std::size_t i, double value) {
  const auto put = [&](auto stored) { std::memcpy(to + i * sizeof(stored), &stored, sizeof(stored)); };
  switch (type) {
    case DType::f32: put(static_cast<float>(value)); return;
    case DType::f64: put(value); return;
    case DType::bf16: put(to_bf16(value)); return;
    case DType::u32: put(static_cast<std::uint32_t>(value)); return;
  }
}

}  // namespace

void convert(const void* from, DType from_type, void* to, DType to_type, std::size_t count) {
  if (from_type == to_type) {
    std::memcpy(to, from, count * size_of(to_type));
    return;
  }
  for (std::size_t i = 0; i < count; ++i) {
    store(static_cast<std::byte*>(to), to_type, i, load(static_cast<const std::byte*>(from), from_type, i));
  }
}

}  // namespace graft
