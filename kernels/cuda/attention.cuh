#pragma once
// What the attention kernels share: the problem as they see it, and which rows a block has to do with. Rows inside of a sequence are ints.
#include <algorithm>
#include <cstdint>
#include <string>

#include "graft/error.h"
#include "graft/ops.h"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.cuh"

namespace graft::cuda {

/// Rows of one tensor, and a window that sees everything.
inline constexpr std::int64_t kMostRows = std::int64_t{1} << 30;
inline constexpr float kLog2E = 1.44269504f, kLn2 = 0.693147181f;

struct AttentionProblem {
  std::int64_t q_rows, kv_rows;
  int heads, kv_heads, head_dim;
  float scale;
  bool full;   ///< no mask
  int window;  ///< otherwise: a query sees itself and window − 1 keys before it; kMostRows where all
  SegmentLayout::Kind layout;
  int q_length, kv_length, sequences;  ///< uniform: rows of each sequence; all: how many sequences
  const std::uint32_t *q_offsets, *kv_offsets;
  const std::uint32_t *kv_lengths, *slots;  ///< a cache's, of which each sequence has kv_length rows: how many of them are filled; which they are, or null

  __host__ __device__ std::int64_t q_cols() const { return std::int64_t{heads} * head_dim; }
  __host__ __device__ std::int64_t kv_cols() const { return std::int64_t{kv_heads} * head_dim; }
  __host__ __device__ int group() const { return heads / kv_heads; }
};

/// in: q, k, v, …; if packed, the offsets come last.
inline AttentionProblem attention_problem(const MultiHeadAttn& op, std::span<const TensorView> in) {
  const std::int64_t q_rows = in[0].rows(), kv_rows = in[1].rows();
  if (std::max(q_rows, kv_rows) > kMostRows)
    throw Error("cuda: attention takes at most 2^30 rows, got " + std::to_string(std::max(q_rows, kv_rows)));
  const bool packed = op.segments.kind == SegmentLayout::Kind::packed, uniform = op.segments.kind == SegmentLayout::Kind::uniform;
  AttentionProblem p = {q_rows,
                        kv_rows,
                        static_cast<int>(op.heads.heads),
                        static_cast<int>(op.heads.kv_heads),
                        static_cast<int>(op.heads.head_dim),
                        static_cast<float>(op.scale),
                        op.mask.kind == Mask::Kind::full,
                        static_cast<int>(op.mask.kind == Mask::Kind::window ? std::min(op.mask.window, kMostRows) : kMostRows),
                        op.segments.kind,
                        static_cast<int>(uniform ? op.segments.q_length : q_rows),
                        static_cast<int>(uniform ? op.segments.kv_length : kv_rows),
                        1,
                        nullptr,
                        nullptr,
                        nullptr,
                        nullptr};
  if (uniform) p.sequences = static_cast<int>(q_rows / op.segments.q_length);
  if (packed) {
    p.q_offsets = in[in.size() - 2].as<const std::uint32_t>();
    p.kv_offsets = in[in.size() - 1].as<const std::uint32_t>();
    p.sequences = static_cast<int>(in.back().size() - 1);
  }
  return p;
}

/// A range of rows of a sequence; empty where first ≥ last.
struct Rows {
  int first, last;
  __device__ int count() const { return last - first; }
};

/// One sequence: where its rows begin, and how many they are.
struct Sequence {
  std::int64_t q_begin, kv_begin;
  int q_seq, kv_seq;
  /// Query i stands at the key i + offset.
  __device__ int offset() const { return kv_seq - q_seq; }
};

__device__ __forceinline__ bool visible(const AttentionProblem& p, const Sequence& s, int query, int key) {
  return p.full || static_cast<unsigned>(query + s.offset() - key) < static_cast<unsigned>(p.window);
}
/// The keys that at least one of these queries sees. The same as visible(…) for a single one.
__device__ __forceinline__ Rows keys_of(const AttentionProblem& p, const Sequence& s, Rows queries) {
  if (p.full) return {0, s.kv_seq};
  return {std::max(queries.first + s.offset() - p.window + 1, 0), queries.last + s.offset()};
}
/// The queries that see at least one of these keys.
__device__ __forceinline__ Rows queries_of(const AttentionProblem& p, const Sequence& s, Rows keys) {
  if (p.full) return {0, s.q_seq};
  return {std::max(keys.first - s.offset(), 0), std::min(keys.last - 1 - s.offset() + p.window, s.q_seq)};
}
/// Whether each of these queries sees each of these keys.
__device__ __forceinline__ bool all_visible(const AttentionProblem& p, const Sequence& s, Rows queries, Rows keys) {
  return p.full || (keys.last - 1 <= queries.first + s.offset() && queries.last - 1 + s.offset() - keys.first < p.window);
}

enum class Side : std::uint8_t { queries, keys };

/// How many tiles of at most `rows` rows the sequences have on one side; of packed ones, whose lengths the host does not know, at most.
inline std::int64_t tile_count(const AttentionProblem& p, Side side, int rows) {
  const std::int64_t all = side == Side::queries ? p.q_rows : p.kv_rows;
  if (p.layout == SegmentLayout::Kind::packed) return all / rows + p.sequences;
  const std::int64_t length = side == Side::queries ? p.q_length : p.kv_length;
  return p.sequences * ((length + rows - 1) / rows);
}

/// A tile of one side: its sequence, and its rows there. Empty: the packed sequences have fewer tiles.
struct Tile {
  Sequence sequence;
  Rows rows;
};

/// Tile number `index` of 0 … tile_count − 1. Sequences of known length take turns, so that equal tiles of all come one after the other. The tiles of a packed
/// sequence s begin at number offsets[s] / rows + s: that leaves room for all tiles of the ones before, and s is found by bisection.
__device__ __forceinline__ Tile tile_at(const AttentionProblem& p, Side side, int rows, std::int64_t index) {
  Tile tile;
  Sequence& s = tile.sequence;
  int begin;
  if (p.layout == SegmentLayout::Kind::packed) {
    const std::uint32_t* offsets = side == Side::queries ? p.q_offsets : p.kv_offsets;
    int low = 0, high = p.sequences;  // the tile is of a sequence low ≤ s < high
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      (offsets[middle] / rows + middle <= index ? low : high) = middle;
    }
    s.q_begin = p.q_offsets[low];
    s.kv_begin = p.kv_offsets[low];
    s.q_seq = static_cast<int>(p.q_offsets[low + 1] - p.q_offsets[low]);
    s.kv_seq = static_cast<int>(p.kv_offsets[low + 1] - p.kv_offsets[low]);
    begin = static_cast<int>(index - offsets[low] / rows - low) * rows;
  } else {
    const std::int64_t number = index % p.sequences;
    s = {number * p.q_length, number * p.kv_length, p.q_length, p.kv_length};
    if (p.kv_lengths != nullptr) {
      s.kv_seq = static_cast<int>(p.kv_lengths[number]);
      if (p.slots != nullptr) s.kv_begin = std::int64_t{p.slots[number]} * p.kv_length;
    }
    begin = static_cast<int>(index / p.sequences) * rows;
  }
  const int end = side == Side::queries ? s.q_seq : s.kv_seq;
  tile.rows = {begin, std::min(begin + rows, end)};
  return tile;
}

/// The tile and the head of a block, in a grid of tile_count·heads. Those with most to do come first: with a mask, the last queries and the first keys.
struct BlockTile {
  Tile tile;
  int head;
};
__device__ __forceinline__ BlockTile block_tile(const AttentionProblem& p, Side side, int rows, unsigned block = blockIdx.x, unsigned blocks = gridDim.x) {
  const int heads = side == Side::queries ? p.heads : p.kv_heads;
  const std::int64_t tiles = blocks / heads, index = block / heads;
  return {tile_at(p, side, rows, side == Side::queries && !p.full ? tiles - 1 - index : index), static_cast<int>(block % heads)};
}

/// One block a tile and head.
inline LaunchShape tile_grid(const AttentionProblem& p, Side side, int rows, int threads, std::size_t shared) {
  const std::int64_t blocks = tile_count(p, side, rows) * (side == Side::queries ? p.heads : p.kv_heads);
  return {dim3(static_cast<unsigned>(blocks)), dim3(static_cast<unsigned>(threads)), shared};
}

/// The tensors of the gradients; dq, dk and dv may be null.
template <class T>
struct GradientTensors {
  const T *q, *k, *v;
  const float* lse;
  const T* dout;
  const float* delta;
  T *dq, *dk, *dv;
};

/// Whether tensor cores serve it: bf16, heads of a multiple of 8 elements (rows then begin at multiples of 16 bytes) up to 128, and scores of −∞ that stay so when scaled.
inline bool takes_mma(std::int64_t head_dim, float scale, DType dtype) { return dtype == DType::bf16 && head_dim % 8 == 0 && head_dim <= 128 && scale > 0.0f; }

// attention_mma.cu and attention_mma_grad.cu, for problems that takes_mma; out and lse may be null
void forward_mma(const AttentionProblem& p, const bf16* q, const bf16* k, const bf16* v, bf16* out, float* lse, const Context& context);
void gradients_mma(const AttentionProblem& p, const GradientTensors<bf16>& tensors, const Context& context);

}  // namespace graft::cuda
