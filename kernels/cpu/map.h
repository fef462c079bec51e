#pragma once
// Elementwise loops over vectors; results may lie where an operand lies.
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/vec.h"

namespace graft::cpu {

/// Calls f(offset, load, store) for each vector of [begin, end); load and store take pointers to element 0, a float or a bf16, and cut the
/// last vector short.
template <class F>
GRAFT_INLINE void for_each_vector(std::int64_t begin, std::int64_t end, const F& f) {
  std::int64_t i = begin;
  for (; i + kLanes <= end; i += kLanes) {
    f(
        i, [i](const auto* p) { return load(p + i); }, [i](auto* p, Vec v) { store(p + i, v); });
  }
  if (i < end) {
    const std::int64_t lanes = end - i;
    f(
        i, [=](const auto* p) { return load_first(p + i, lanes); }, [=](auto* p, Vec v) { store_first(p + i, v, lanes); });
  }
}

inline constexpr std::int64_t kElementGrain = 16384;

/// out[i] = f(x[i], …) for 0 ≤ i < n.
template <class Out, class F, class... X>
void map(Threads threads, std::int64_t n, Out* out, const F& f, const X*... x) {
  parallel_ranges(threads, n, kElementGrain, [&](std::int64_t begin, std::int64_t end) {
    for_each_vector(begin, end, [&](std::int64_t, const auto& get, const auto& put) { put(out, f(get(x)...)); });
  });
}

/// Calls body(row) for each row, rows of `cols` elements.
template <class Body>
void for_each_row(Threads threads, std::int64_t rows, std::int64_t cols, const Body& body) {
  parallel_ranges(threads, rows, row_grain(cols), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) body(row);
  });
}

}  // namespace graft::cpu
