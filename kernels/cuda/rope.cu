#include <algorithm>

#include "kernels/cuda/map.cuh"
#include "kernels/rope_frequency.h"

namespace graft::cuda {
namespace {

constexpr int kThreads = 256, kTileRows = 4;  ///< of a block

/// Where rows stand: segment s has `length` rows, or those from offsets[s] to offsets[s + 1]; both null and 0: one segment.
struct Positions {
  std::int64_t offset, length;
  const std::uint32_t* dynamic;  ///< null, or added to the offset
  bool dynamic_each;             ///< a number a segment
  const std::uint32_t* offsets;
  std::int64_t segments;

  __device__ std::int64_t operator()(std::int64_t row) const {
    std::int64_t segment = 0, begin = 0;
    if (offsets != nullptr) {
      std::int64_t behind = segments;  // the last segment that begins at the row or before it; empty ones come before it
      while (behind - segment > 1) {
        const std::int64_t middle = (segment + behind) / 2;
        (offsets[middle] <= row ? segment : behind) = middle;
      }
      begin = offsets[segment];
    } else if (length > 0) {
      segment = row / length;
      begin = segment * length;
    }
    return offset + row - begin + (dynamic == nullptr ? 0 : dynamic[dynamic_each ? segment : 0]);
  }
};

/// Blocks take tiles of kTileRows rows: first their angles, once for all heads, then the heads. N divides half a head. out may be x.
/// Shared memory: for each element of half a head a frequency, and for each row of a tile a cosine and a sine.
template <int N, class T>
__global__ void __launch_bounds__(kThreads)
    rope_kernel(Rope op, Positions positions, std::int64_t rows, int cols, const T* x, T* out) {
  const int half = static_cast<int>(op.head_dim / 2), packs = half / N, pairs = cols / (2 * N);
  double* const frequency = shared_memory<double>();
  float2* const turns = reinterpret_cast<float2*>(frequency + half);
  for (int i = threadIdx.x; i < half; i += kThreads) frequency[i] = detail::rope_frequency(op, i);
  for (std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kTileRows; first < rows;
       first += static_cast<std::int64_t>(gridDim.x) * kTileRows) {
    const int here = static_cast<int>(std::min<std::int64_t>(rows - first, kTileRows));
    __syncthreads();
    for (int i = threadIdx.x; i < here * half; i += kThreads) {
      const double angle = static_cast<double>(positions(first + i / half)) * frequency[i % half];
      const float sine = static_cast<float>(sin(angle));
      turns[i] = {static_cast<float>(cos(angle)), op.inverse ? -sine : sine};
    }
    __syncthreads();
    for (int i = threadIdx.x; i < here * pairs; i += kThreads) {
      const int row = i / pairs, pair = i - row * pairs, head = pair / packs, j = (pair - head * packs) * N;
      const std::int64_t at = (first + row) * cols + static_cast<std::int64_t>(head) * 2 * half + j;
      Pack<T, N> first_half = load_pack<N>(x + at), second_half = load_pack<N>(x + at + half);
#pragma unroll
      for (int e = 0; e < N; ++e) {
        const float2 turn = turns[row * half + j + e];
        const float a = to_float(first_half.at[e]), b = to_float(second_half.at[e]);
        first_half.at[e] = from_float<T>(a * turn.x - b * turn.y);
        second_half.at[e] = from_float<T>(b * turn.x + a * turn.y);
      }
      store_pack(out + at, first_half);
      store_pack(out + at + half, second_half);
    }
  }
}

}  // namespace

void run(const Rope& op, const Step& step, Context& context) {
  if (!step.out[0]) return;
  using Kind = SegmentLayout::Kind;
  const TensorView &x = step.in[0], &last = step.in.back();
  const bool packed = op.segments.kind == Kind::packed;
  Positions positions = {};
  positions.offset = op.offset;
  positions.length = op.segments.kind == Kind::uniform ? op.segments.q_length : 0;
  if (op.dynamic) {
    positions.dynamic = step.in[1].as<const std::uint32_t>();
    positions.dynamic_each = step.in[1].size() > 1;
  }
  if (packed) {
    positions.offsets = last.as<const std::uint32_t>();
    positions.segments = last.size() - 1;
  }
  const std::int64_t half = op.head_dim / 2, tiles = (x.rows() + kTileRows - 1) / kTileRows;
  const LaunchShape shape = {dim3(static_cast<unsigned>(std::min<std::int64_t>(tiles, context.multiprocessors * 8))),
                             dim3(kThreads), static_cast<std::size_t>(half) * (sizeof(double) + kTileRows * sizeof(float2))};
  with_float_type(x.type.dtype, [&]<class T>() {
    const auto run_by = [&]<int N>() {
      launch(rope_kernel<N, T>, shape, context.stream, op, positions, x.rows(), static_cast<int>(x.cols()), x.as<const T>(),
             step.out[0].as<T>());
    };
    if (half % kPack<T> == 0) return run_by.template operator()<kPack<T>>();
    run_by.template operator()<1>();
  });
}

}  // namespace graft::cuda
