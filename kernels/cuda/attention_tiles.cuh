#pragma once
// Tiles of bf16 in shared memory, and the operands that tensor cores take from them (ptx.cuh has the layouts).
//
// A tile has rows of kDim elements, in chunks of 8 (16 bytes). Chunk c of row r lies where chunk c ^ (r % 8) would lie plainly: the 8 rows that one ldmatrix reads at
// the same chunk then lie in different banks, and so do the 8 chunks that neighbouring threads copy.
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/ptx.cuh"

namespace graft::cuda {

inline constexpr int kChunk = 8;

template <int kDim>
__device__ __forceinline__ bf16* chunk_at(bf16* tile, int row, int chunk) {
  static_assert(kDim % (8 * kChunk) == 0);
  return tile + row * kDim + (chunk ^ (row % 8)) * kChunk;
}

/// Begins to copy `count` rows of head_dim elements, `stride` apart in global memory, to a tile of kRows; the rest of it becomes 0. By all kThreads threads of a
/// block; head_dim is a multiple of 8, and rows begin at multiples of 16 bytes.
template <int kRows, int kDim, int kThreads>
__device__ __forceinline__ void load_tile_async(bf16* tile, const bf16* from, std::int64_t stride, int count, int head_dim) {
  constexpr int kChunks = kDim / kChunk, kStep = kThreads / kChunks;  // rows that the threads copy at a time
  static_assert(kThreads % kChunks == 0 && kStep % 8 == 0 && kRows % kStep == 0);  // a thread's chunk lies at the same place in each of its rows
  const int first = static_cast<int>(threadIdx.x) / kChunks, chunk = static_cast<int>(threadIdx.x) % kChunks;
  bf16* to = chunk_at<kDim>(tile, first, chunk);
  const bf16* at = from + first * stride + chunk * kChunk;
  if (chunk * kChunk >= head_dim) count = 0;
#pragma unroll
  for (int row = 0; row < kRows; row += kStep) {
    ptx::cp_async_16(to + row * kDim, at, first + row < count);
    at += kStep * stride;
  }
}

/// Where in a tile a lane finds its chunk of an operand: in row `row` of a strip of 16, chunk 2·step + `chunk` of it, chunk being 0 or 1. Written so that only one exclusive or
/// depends on the step, and all else is a constant or the lane's.
template <int kDim>
__device__ __forceinline__ bf16* operand_at(bf16* tile, int first_row, int row, int step, int chunk) {
  return tile + first_row * kDim + ((row * kDim + (chunk ^ (row % 8)) * kChunk) ^ (2 * step * kChunk));
}

/// The left operand: rows first_row … + 15, columns 16·step … + 15. first_row is a multiple of 8, here and below.
template <int kDim>
__device__ __forceinline__ void left_operand(std::uint32_t (&to)[4], bf16* tile, int first_row, int step) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  ptx::ldmatrix_x4(to, operand_at<kDim>(tile, first_row, lane % 16, step, lane / 16));
}

/// Two right operands whose columns are the tile's rows, as in a·tileᵀ: rows first_row … + 7 and first_row + 8 … + 15, columns 16·step … + 15.
template <int kDim>
__device__ __forceinline__ void right_operands_of_rows(std::uint32_t (&to)[2][2], bf16* tile, int first_row, int step) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  std::uint32_t both[4];
  ptx::ldmatrix_x4(both, operand_at<kDim>(tile, first_row, lane / 16 * 8 + lane % 8, step, lane / 8 % 2));
  to[0][0] = both[0], to[0][1] = both[1], to[1][0] = both[2], to[1][1] = both[3];
}

/// Two right operands whose rows are the tile's, as in a·tile: rows first_row … + 15, columns 16·step … + 7 and 16·step + 8 … + 15.
template <int kDim>
__device__ __forceinline__ void right_operands(std::uint32_t (&to)[2][2], bf16* tile, int first_row, int step) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  std::uint32_t both[4];
  ptx::ldmatrix_x4_trans(both, operand_at<kDim>(tile, first_row, lane % 16, step, lane / 16));
  to[0][0] = both[0], to[0][1] = both[1], to[1][0] = both[2], to[1][1] = both[3];
}

/// results += rows·passingᵀ: the 16·kStrips rows of one tile from `own` on, times the first 8·kTiles rows of another. kUnrolled steps along kDim at a time.
template <int kDim, int kUnrolled, int kStrips, int kTiles>
__device__ __forceinline__ void multiply_by_rows(float (&results)[kStrips][kTiles][4], bf16* rows, int own, bf16* passing) {
#pragma unroll kUnrolled
  for (int step = 0; step < kDim / 16; ++step) {
    std::uint32_t left[kStrips][4];
#pragma unroll
    for (int i = 0; i < kStrips; ++i) left_operand<kDim>(left[i], rows, own + i * 16, step);
#pragma unroll
    for (int j = 0; j < kTiles / 2; ++j) {
      std::uint32_t right[2][2];
      right_operands_of_rows<kDim>(right, passing, j * 16, step);
#pragma unroll
      for (int i = 0; i < kStrips; ++i) {
        ptx::mma_m16n8k16(results[i][2 * j], left[i], right[0]);
        ptx::mma_m16n8k16(results[i][2 * j + 1], left[i], right[1]);
      }
    }
  }
}

/// The left operand made of two neighbouring results [16, 8] of products, rounded: they lie in the same threads.
__device__ __forceinline__ void as_left_operand(std::uint32_t (&to)[4], const float (&low)[4], const float (&high)[4]) {
  to[0] = ptx::pack_bf16(low[0], low[1]);
  to[1] = ptx::pack_bf16(low[2], low[3]);
  to[2] = ptx::pack_bf16(high[0], high[1]);
  to[3] = ptx::pack_bf16(high[2], high[3]);
}

// What a mask hides has the weight 0, and yet reaches results where it is infinite or NaN: 0·∞ is NaN. Looking for that in each tile would cost time, so kernels look for NaN in their
// results at the end, and mark a block that has one by a NaN as its first result. A second kernel, which shares no registers with the first, computes marked blocks again, carefully: with
// products of what is finite, and the infinity and NaN of values and of dout added to the rows that see them. Those of keys and queries need not be added: where they are seen, the
// scores are not finite either, which makes weights and dS NaN, or 0.

template <int kStrips, int kTiles>
__device__ __forceinline__ bool has_nan(const float (&results)[kStrips][kTiles][4]) {
  bool found = false;
#pragma unroll
  for (int i = 0; i < kStrips; ++i)
#pragma unroll
    for (int n = 0; n < kTiles; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) found |= results[i][n][e] != results[i][n][e];
  return found;
}

/// Whether block number `block` of `blocks` is marked in `results`, which are rows of that side.
__device__ __forceinline__ bool is_marked(const AttentionProblem& p, Side side, int rows, unsigned block, unsigned blocks, const bf16* results) {
  const auto [tile, head] = block_tile(p, side, rows, block, blocks);
  if (tile.rows.count() <= 0) return false;
  const bool queries = side == Side::queries;
  const std::int64_t row = (queries ? tile.sequence.q_begin : tile.sequence.kv_begin) + tile.rows.first;
  const float first = to_float(results[row * (queries ? p.q_cols() : p.kv_cols()) + std::int64_t{head} * p.head_dim]);
  return first != first;
}

/// compute(block) for each marked one of `blocks`. A grid of any size shares them; a block looks at 32 of its share at a time, one a lane.
template <class Compute>
__device__ __forceinline__ void for_each_marked(const AttentionProblem& p, Side side, int rows, unsigned blocks, const bf16* results, Compute&& compute) {
  const unsigned lane = threadIdx.x % kWarp;
  for (unsigned first = blockIdx.x; first < blocks; first += kWarp * gridDim.x) {
    const unsigned own = first + lane * gridDim.x;
    unsigned marks = __ballot_sync(kFullWarp, own < blocks && is_marked(p, side, rows, own, blocks, results));  // the same in all warps
    for (; marks != 0; marks &= marks - 1) {
      compute(first + static_cast<unsigned>(__ffs(static_cast<int>(marks)) - 1) * gridDim.x);
      __syncthreads();  // the next one takes the shared memory
    }
  }
}

/// The grid of the second kernel: blocks that run at once, two on a multiprocessor, so that it ends soon where nothing is marked.
inline LaunchShape careful_grid(LaunchShape shape, const Context& context) {
  shape.grid.x = std::min(shape.grid.x, 2 * static_cast<unsigned>(context.multiprocessors));
  return shape;
}

/// Operands with 0 for what is infinite or NaN.
__device__ __forceinline__ void keep_finite(std::uint32_t (&operands)[2][2]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    std::uint32_t& pair = operands[i / 2][i % 2];
    if ((~pair & 0x7f80u) == 0) pair &= 0xffff0000u;
    if ((~pair & 0x7f800000u) == 0) pair &= 0xffffu;
  }
}

/// results += what is infinite or NaN in the tile's rows, where seen(strip, result's element, row); the row's weight is taken to be 1.
template <int kDim, int kRows, int kStrips, class Seen>
__device__ __forceinline__ void add_not_finite(float (&results)[kStrips][kDim / 8][4], bf16* tile, Seen&& seen) {
  const int t = static_cast<int>(threadIdx.x) % 4;
#pragma unroll 1
  for (int row = 0; row < kRows; ++row)
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
      const auto pair = load_pack<2>(chunk_at<kDim>(tile, row, n) + 2 * t);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float x = to_float(pair.at[e % 2]);
        if (fabsf(x) < INFINITY) continue;
#pragma unroll
        for (int i = 0; i < kStrips; ++i)
          if (seen(i, e, row)) results[i][n][e] += x;
      }
    }
}

/// 16 rows of results [16, kDim], times a factor for the rows g and g + 8 of each lane, by way of a warp's own 16 rows of shared memory, to the first `count` rows in
/// global memory.
template <int kDim>
__device__ __forceinline__ void store_rows(const float (&results)[kDim / 8][4], float low_factor, float high_factor, bf16* own_rows, bf16* to, std::int64_t stride, int count,
                                           int head_dim) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, g = lane / 4, t = lane % 4;
  __syncwarp();
#pragma unroll
  for (int n = 0; n < kDim / 8; ++n) {
    *reinterpret_cast<std::uint32_t*>(chunk_at<kDim>(own_rows, g, n) + 2 * t) = ptx::pack_bf16(results[n][0] * low_factor, results[n][1] * low_factor);
    *reinterpret_cast<std::uint32_t*>(chunk_at<kDim>(own_rows, g + 8, n) + 2 * t) = ptx::pack_bf16(results[n][2] * high_factor, results[n][3] * high_factor);
  }
  __syncwarp();
  constexpr int kChunks = kDim / kChunk;
#pragma unroll
  for (int i = lane; i < 16 * kChunks; i += kWarp) {
    const int row = i / kChunks, chunk = i % kChunks;
    if (row < count && chunk * kChunk < head_dim) store_pack(to + row * stride + chunk * kChunk, load_pack<kChunk>(chunk_at<kDim>(own_rows, row, chunk)));
  }
}

}  // namespace graft::cuda
