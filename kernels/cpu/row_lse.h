#pragma once
#include <limits>

#include "kernels/cpu/map.h"
#include "kernels/cpu/vector_math.h"

namespace graft::cpu {

GRAFT_INLINE float row_max(const float* x, std::int64_t cols) {
  Vec top = broadcast(-std::numeric_limits<float>::infinity());
  std::int64_t j = 0;
  for (; j + kLanes <= cols; j += kLanes) top = max(top, load(x + j));
  float result = max(top);
  for (; j < cols; ++j) result = std::max(result, x[j]);
  return result;
}

/// Σ exp(x[j] − top), calling also(put, vector) with each vector of exponentials; put(p, v) stores it at p.
template <class Also>
GRAFT_INLINE float row_exp(const float* x, std::int64_t cols, float top, const Also& also) {
  Vec total{};
  for_each_vector(0, cols, [&](std::int64_t j, const auto& get, const auto& put) {
    const Vec e = exp(get(x) - top);
    also(put, e);
    const std::int64_t left = cols - j;
    total += left >= kLanes ? e : lane_numbers() < static_cast<std::int32_t>(left) ? e : Vec{};
  });
  return sum(total);
}

}  // namespace graft::cpu
