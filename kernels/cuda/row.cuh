#pragma once
// Kernels that need whole rows: a warp or a block a row, each thread keeps some elements of it in registers. What a row has beyond that is read again.
#include "kernels/cuda/map.cuh"

namespace graft::cuda {

/// Packs of kStep elements of a row that one thread keeps. Fewer elements if they come one by one: each needs an address of its own.
template <int kStep>
inline constexpr int kPacksKept = kStep == 1 ? 8 : 16 / kStep;

inline constexpr int kRowThreads = 512;  // at most, so that each may have 128 registers

/// blockDim.x: as many threads as keep a row, if kRowThreads do.
inline int threads_of_row(std::int64_t cols) {
  const std::int64_t kept_by_warp = (cols % 8 == 0 ? 16 : kPacksKept<1>)*kWarp;
  return static_cast<int>(std::min<std::int64_t>((cols + kept_by_warp - 1) / kept_by_warp * kWarp, kRowThreads));
}
/// blockDim.y: rows that a block works at. Several only if each has one warp, so barriers are for all threads.
inline int rows_of_block(int threads) { return threads == kWarp ? 4 : 1; }

__device__ __forceinline__ float row_sum(float x) { return blockDim.x == kWarp ? warp_sum(x) : block_sum(x); }
__device__ __forceinline__ float row_max(float x) { return blockDim.x == kWarp ? warp_max(x) : block_max(x); }

template <int N>
struct Floats {
  float at[N];
};
/// N neighbours in f32, at most 16 bytes at a time.
template <int N, class T>
__device__ __forceinline__ Floats<N> load_floats(const T* from) {
  constexpr int kPart = std::min(N, kPack<T>);
  Floats<N> all;
#pragma unroll
  for (int part = 0; part < N; part += kPart) {
    const auto pack = load_pack<kPart>(from + part);
#pragma unroll
    for (int e = 0; e < kPart; ++e) all.at[part + e] = to_float(pack.at[e]);
  }
  return all;
}
template <int N, class T>
__device__ __forceinline__ void store_floats(T* to, const Floats<N>& all) {
  constexpr int kPart = std::min(N, kPack<T>);
#pragma unroll
  for (int part = 0; part < N; part += kPart) {
    Pack<T, kPart> pack;
#pragma unroll
    for (int e = 0; e < kPart; ++e) pack.at[e] = from_float<T>(all.at[part + e]);
    store_pack(to + part, pack);
  }
}

/// Calls f(k, col) for each kStep columns from col on that are this thread's. Those with k < kPacksKept<kStep> are the ones that it keeps.
template <int kStep, class F>
__device__ __forceinline__ void for_own_columns(std::int64_t cols, F&& f) {
  constexpr int kPacks = kPacksKept<kStep>;
  const int own = static_cast<int>(threadIdx.x) * kStep, next = static_cast<int>(blockDim.x) * kStep;
#pragma unroll
  for (int k = 0; k < kPacks; ++k)
    if (own + k * next < cols) f(k, own + k * next);
  for (std::int64_t col = own + kPacks * next; col < cols; col += next) f(kPacks, col);
}

/// A row as one of its threads sees it. kStep: 1, or elements that divide the columns.
template <class T, int kStep>
class Row {
 public:
  __device__ __forceinline__ Row(const T* row, std::int64_t cols) : row_(row) {
    const int own = static_cast<int>(threadIdx.x) * kStep, next = static_cast<int>(blockDim.x) * kStep;
#pragma unroll
    for (int k = 0; k < kPacksKept<kStep>; ++k)
      if (own + k * next < cols) kept_[k] = load_pack<kStep>(row + own + k * next);
  }
  /// With the arguments of for_own_columns.
  __device__ __forceinline__ Floats<kStep> operator()(int k, std::int64_t col) const {
    if (k >= kPacksKept<kStep>) return load_floats<kStep>(row_ + col);
    Floats<kStep> floats;
#pragma unroll
    for (int e = 0; e < kStep; ++e) floats.at[e] = to_float(kept_[k].at[e]);
    return floats;
  }

 private:
  const T* row_;
  Pack<T, kStep> kept_[kPacksKept<kStep>];
};

/// Calls f<kStep>() with the elements of T that are moved at once: 16 bytes if that divides the columns, else one.
template <class T, class F>
void with_step(std::int64_t cols, F&& f) {
  if (cols % kPack<T> == 0) return f.template operator()<kPack<T>>();
  f.template operator()<1>();
}

/// This thread's first row, and how many rows the grid works at.
__device__ __forceinline__ std::int64_t first_row() { return std::int64_t{blockIdx.x} * blockDim.y + threadIdx.y; }
__device__ __forceinline__ std::int64_t rows_at_once() { return std::int64_t{gridDim.x} * blockDim.y; }

/// For kernels that go from row to row in steps of the grid.
inline LaunchShape row_shape(std::int64_t rows, std::int64_t cols, const Context& context) {
  const int threads = threads_of_row(cols), together = rows_of_block(threads);
  const std::int64_t blocks = std::min<std::int64_t>((rows + together - 1) / together, std::int64_t{context.multiprocessors} * 32);
  return {dim3(static_cast<unsigned>(blocks)), dim3(static_cast<unsigned>(threads), static_cast<unsigned>(together))};
}

}  // namespace graft::cuda
