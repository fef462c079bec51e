#include "src/convert.h"

#include <cstdint>
#include <cstring>

#include "graft/bf16.h"
#include "graft/error.h"

namespace graft {
namespace {

double load(const std::byte* from, DType type, std::size_t i) {
  const auto get = [&](auto value) {
    std::memcpy(&value, from + i * sizeof(value), sizeof(value));
    return value;
  };
  switch (type) {
    case DType::f32: return get(0.0f);
    case DType::f64: return get(0.0);
    case DType::bf16: return to_float(get(Bf16{}));
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
