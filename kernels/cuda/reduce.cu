#include <algorithm>
#include <type_traits>

#include "graft/graph.h"
#include "kernels/cuda/map.cuh"

namespace graft::cuda {
namespace {

// ---- sum, mean, max. Sums are double: they cost no time where memory is what is waited for.

struct Sum {
  using Total = double;
  static constexpr double kNone = 0.0;
  __device__ double operator()(double a, double b) const { return a + b; }
};
/// NaN is larger than all.
struct Max {
  using Total = float;
  static constexpr float kNone = -INFINITY;
  __device__ float operator()(float a, float b) const { return b > a || b != b ? b : a; }
};

/// An element, or a part of a sum.
template <class Total, class T>
__device__ __forceinline__ Total total_of(T x) {
  if constexpr (std::is_same_v<T, double>) {
    return x;
  } else {
    return to_float(x);
  }
}

template <class F>
void with_function(ReduceFn fn, F&& f) {
  if (fn == ReduceFn::max) return f.template operator()<Max>();
  f.template operator()<Sum>();
}

/// Over the threads beside each other in a block (blockDim.x, whole warps), in a fixed order; each gets the result. All of the block must come here together.
template <class T, class F>
__device__ __forceinline__ T team_reduce(T x, F f, T none) {
  const auto of_warp = [&](T value) {
    for (int step = kWarp / 2; step > 0; step /= 2) value = f(value, __shfl_xor_sync(kFullWarp, value, step));
    return value;
  };
  x = of_warp(x);
  if (blockDim.x == kWarp) return x;
  T* const partial = shared_array<T, kWarp>();
  const unsigned lane = threadIdx.x % kWarp, warps = blockDim.x / kWarp, first = threadIdx.y * warps;
  __syncthreads();  // whoever still reads the last result
  if (lane == 0) partial[first + threadIdx.x / kWarp] = x;
  __syncthreads();
  return of_warp(lane < warps ? partial[first + lane] : none);
}

/// Calls f(row) for the rows of each team of threads; the teams of a block go on together, so row may be ≥ rows.
template <class F>
__device__ __forceinline__ void for_each_row(std::int64_t rows, F f) {
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.y;
  for (std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * blockDim.y; first < rows; first += step) f(first + threadIdx.y);
}

/// Threads for `rows` teams, each with `items` to look at.
LaunchShape row_shape(std::int64_t rows, std::int64_t items, const Context& context) {
  constexpr std::int64_t kEach = 4, kMost = 512;
  const auto team = static_cast<unsigned>(std::clamp<std::int64_t>((items / kEach + kWarp - 1) / kWarp * kWarp, kWarp, kMost));
  const unsigned teams = std::max(1u, 256 / team);
  const std::int64_t blocks = std::min<std::int64_t>((rows + teams - 1) / teams, context.multiprocessors * 16);
  return {dim3(static_cast<unsigned>(blocks)), dim3(team, teams)};
}

/// Each piece of x to a number, · share. Pieces are `length` elements of the `size`, a multiple of N; the last one may have fewer.
template <class F, int N, class T, class Out>
__global__ void reduce_pieces_kernel(std::int64_t pieces, std::int64_t length, std::int64_t size, double share, const T* x,
                                     Out* out) {
  for_each_row(pieces, [&](std::int64_t piece) {
    typename F::Total total = F::kNone;
    const std::int64_t begin = piece * length, end = std::min(begin + length, size), whole = begin + (end - begin) / N * N;
    if (piece < pieces) {
#pragma unroll 4
      for (std::int64_t i = begin + threadIdx.x * N; i < whole; i += blockDim.x * N) {
        const auto pack = load_pack<N>(x + i);
        for (int e = 0; e < N; ++e) total = F{}(total, total_of<typename F::Total>(pack.at[e]));
      }
      for (std::int64_t i = whole + threadIdx.x; i < end; i += blockDim.x) total = F{}(total, total_of<typename F::Total>(x[i]));
    }
    total = team_reduce(total, F{}, F::kNone);
    if (piece < pieces && threadIdx.x == 0) out[piece] = static_cast<Out>(total * share);
  });
}

constexpr int kLanes = 32, kSlices = 8;  ///< threads of a block beside each other and below each other

/// out[chunk, j] = of x[i, j] over the rows i of the chunk, · share; a block has kLanes·N columns of one chunk. N divides cols.
template <class F, int N, class T, class Out>
__global__ void reduce_rows_kernel(std::int64_t rows, std::int64_t cols, std::int64_t chunk, double share, const T* x, Out* out) {
  using Total = typename F::Total;
  const std::int64_t column_blocks = (cols + kLanes * N - 1) / (kLanes * N);
  const std::int64_t of_chunk = blockIdx.x / column_blocks, j = (blockIdx.x % column_blocks * kLanes + threadIdx.x) * N;
  Total totals[N];
  for (Total& total : totals) total = F::kNone;
  if (j < cols) {
    const std::int64_t end = std::min(rows, (of_chunk + 1) * chunk);
#pragma unroll 4
    for (std::int64_t i = of_chunk * chunk + threadIdx.y; i < end; i += kSlices) {
      const auto pack = load_pack<N>(x + i * cols + j);
      for (int e = 0; e < N; ++e) totals[e] = F{}(totals[e], total_of<Total>(pack.at[e]));
    }
  }
  Total* const slices = shared_array<Total, kSlices * kLanes>();
  for (int e = 0; e < N; ++e) {
    __syncthreads();
    slices[threadIdx.y * kLanes + threadIdx.x] = totals[e];
    __syncthreads();
    if (threadIdx.y > 0 || j >= cols) continue;
    Total total = slices[threadIdx.x];
    for (int slice = 1; slice < kSlices; ++slice) total = F{}(total, slices[slice * kLanes + threadIdx.x]);
    out[of_chunk * cols + j + e] = static_cast<Out>(total * share);
  }
}

/// Rows cut into chunks of their own blocks, so many that the GPU is busy; by shape alone.
struct Chunks {
  std::int64_t rows = 0, count = 1;
  Chunks(std::int64_t all, std::int64_t cols) {
    const std::int64_t column_blocks = (cols + 127) / 128;
    count = std::clamp<std::int64_t>(512 / column_blocks, 1, (all + 63) / 64);
    rows = (all + count - 1) / count;
    count = (all + rows - 1) / rows;
  }
};

template <class F, class T, class Out>
void reduce_rows(std::int64_t rows, std::int64_t cols, std::int64_t chunk, double share, const T* x, Out* out,
                 cudaStream_t stream) {
  with_packs<T>({cols}, [&]<int N>() {
    const std::int64_t blocks = (cols + kLanes * N - 1) / (kLanes * N) * ((rows + chunk - 1) / chunk);
    launch(reduce_rows_kernel<F, N, T, Out>, {dim3(static_cast<unsigned>(blocks)), dim3(kLanes, kSlices)}, stream, rows, cols,
           chunk, share, x, out);
  });
}

template <class F, class T, class Out>
void reduce_pieces(std::int64_t length, std::int64_t size, double share, const T* x, Out* out, const Context& context) {
  const std::int64_t pieces = (size + length - 1) / length;
  with_packs<T>({length}, [&]<int N>() {
    launch(reduce_pieces_kernel<F, N, T, Out>, row_shape(pieces, length / N, context), context.stream, pieces, length, size, share,
           x, out);
  });
}

/// How many elements are a piece when all are reduced: whole packs, and 1024 pieces at most.
std::int64_t piece_of_all(std::int64_t size) { return std::max<std::int64_t>(8192, (size + (1 << 20) - 1) / (1 << 20) * 1024); }

// ---- the gradient of max

struct Smaller {
  __device__ std::int64_t operator()(std::int64_t a, std::int64_t b) const { return a < b ? a : b; }
};
__device__ __forceinline__ bool same(float a, float b) { return a == b || (a != a && b != b); }

/// The largest of `count` elements, and where the first such is; by a team of threads.
struct Largest {
  float top;
  std::int64_t first;
};
template <class T>
__device__ __forceinline__ Largest largest_of(const T* x, std::int64_t count) {
  float top = Max::kNone;
  for (std::int64_t j = threadIdx.x; j < count; j += blockDim.x) top = Max{}(top, to_float(x[j]));
  top = team_reduce(top, Max{}, Max::kNone);
  std::int64_t first = count;
  for (std::int64_t j = threadIdx.x; j < count; j += blockDim.x)
    if (same(to_float(x[j]), top)) first = Smaller{}(first, j);
  return {top, team_reduce(first, Smaller{}, count)};
}

/// Groups are rows.
template <class T>
__global__ void max_grad_of_columns_kernel(std::int64_t rows, std::int64_t cols, const T* x, const float* dout, T* dx) {
  for_each_row(rows, [&](std::int64_t row) {
    const std::int64_t end = row < rows ? cols : 0;
    const std::int64_t first = largest_of(x + row * cols, end).first;
    for (std::int64_t j = threadIdx.x; j < end; j += blockDim.x) dx[row * cols + j] = from_float<T>(j == first ? dout[row] : 0.0f);
  });
}

/// Of each piece of `length` elements the largest, and where the first such is.
template <class T>
__global__ void largest_of_pieces_kernel(std::int64_t pieces, std::int64_t length, std::int64_t size, const T* x, float* tops, std::int64_t* firsts) {
  for_each_row(pieces, [&](std::int64_t piece) {
    const std::int64_t begin = piece * length;
    const Largest found = largest_of(x + begin, piece < pieces ? std::min(length, size - begin) : 0);
    if (piece >= pieces || threadIdx.x > 0) return;
    tops[piece] = found.top;
    firsts[piece] = begin + found.first;
  });
}

/// dx, which is 0, where the largest of all is. One block.
template <class T>
__global__ void max_grad_of_all_kernel(std::int64_t pieces, const float* tops, const std::int64_t* firsts, const float* dout, T* dx) {
  const std::int64_t piece = largest_of(tops, pieces).first;
  if (threadIdx.x == 0) dx[firsts[piece]] = from_float<T>(*dout);
}

/// Groups are columns, one a thread.
template <class T>
__global__ void max_grad_of_rows_kernel(std::int64_t rows, std::int64_t cols, const T* x, const float* dout, T* dx) {
  for (std::int64_t j = thread_index(); j < cols; j += thread_count()) {
    std::int64_t first = 0;
    float top = to_float(x[j]);
    for (std::int64_t i = 1; i < rows; ++i) {
      const float value = to_float(x[i * cols + j]), larger = Max{}(top, value);
      if (!same(larger, top)) first = i;
      top = larger;
    }
    for (std::int64_t i = 0; i < rows; ++i) dx[i * cols + j] = from_float<T>(i == first ? dout[j] : 0.0f);
  }
}

// ---- broadcast

/// Element (row, col) of x lies at row·row_stride + col·col_stride. N divides cols.
template <int N, class T>
__global__ void broadcast_kernel(std::int64_t packs, std::int64_t cols, std::int64_t row_stride, int col_stride, const T* x,
                                 T* out) {
  for (std::int64_t i = thread_index() * N; i < packs * N; i += thread_count() * N) {
    const std::int64_t row = i / cols, from = row * row_stride + (i - row * cols) * col_stride;
    Pack<T, N> pack;
    for (int e = 0; e < N; ++e) pack.at[e] = x[from + e * col_stride];
    store_pack(out + i, pack);
  }
}

}  // namespace

void run(const Reduce& op, const Step& step, Context& context) {
  if (!step.out[0]) return;
  const TensorView& x = step.in[0];
  const std::int64_t rows = x.rows(), cols = x.cols();
  float* const out = step.out[0].as<float>();
  const auto share = [&](std::int64_t count) { return op.fn == ReduceFn::mean ? 1.0 / static_cast<double>(count) : 1.0; };
  with_float_type(x.type.dtype, [&]<class T>() {
    with_function(op.fn, [&]<class F>() {
      using Total = typename F::Total;
      Total* const partial = static_cast<Total*>(step.workspace);
      switch (op.axis) {
        case Axis::columns: return reduce_pieces<F>(cols, x.size(), share(cols), x.as<const T>(), out, context);
        case Axis::all: {
          const std::int64_t piece = piece_of_all(x.size()), pieces = (x.size() + piece - 1) / piece;
          reduce_pieces<F>(piece, x.size(), 1.0, x.as<const T>(), partial, context);
          return reduce_pieces<F>(pieces, pieces, share(x.size()), static_cast<const Total*>(partial), out, context);
        }
        case Axis::rows: {
          const Chunks chunks(rows, cols);
          reduce_rows<F>(rows, cols, chunks.rows, 1.0, x.as<const T>(), partial, context.stream);
          return reduce_rows<F>(chunks.count, cols, chunks.count, share(rows), static_cast<const Total*>(partial), out,
                                context.stream);
        }
      }
      GRAFT_ASSERT(!"an axis");
    });
  });
}

std::size_t workspace(const Reduce& op, const Graph& graph, const Node& node) {
  const Shape& x = graph.shape(node.inputs[0]);
  switch (op.axis) {
    case Axis::all: return static_cast<std::size_t>(x.size() / piece_of_all(x.size()) + 1) * sizeof(double);
    case Axis::rows: return static_cast<std::size_t>(Chunks(x.rows(), x.cols()).count * x.cols()) * sizeof(double);
    case Axis::columns: break;
  }
  return 0;
}

void run(const ReduceMaxGrad& op, const Step& step, Context& context) {
  if (!step.out[0]) return;
  const TensorView& x = step.in[0];
  with_float_type(x.type.dtype, [&]<class T>() {
    if (op.axis == Axis::all) {
      const std::int64_t length = piece_of_all(x.size()), pieces = (x.size() + length - 1) / length;
      auto* const firsts = static_cast<std::int64_t*>(step.workspace);
      auto* const tops = reinterpret_cast<float*>(firsts + pieces);
      launch(largest_of_pieces_kernel<T>, row_shape(pieces, length, context), context.stream, pieces, length, x.size(), x.as<const T>(), tops, firsts);
      check(cudaMemsetAsync(step.out[0].data, 0, step.out[0].type.bytes(), context.stream), "cannot clear memory");  // it may be x
      launch(max_grad_of_all_kernel<T>, row_shape(1, pieces, context), context.stream, pieces, static_cast<const float*>(tops),
             static_cast<const std::int64_t*>(firsts), step.in[1].as<const float>(), step.out[0].as<T>());
    } else if (op.axis == Axis::rows) {
      launch(max_grad_of_rows_kernel<T>, map_shape(x.cols(), context), context.stream, x.rows(), x.cols(), x.as<const T>(),
             step.in[1].as<const float>(), step.out[0].as<T>());
    } else {
      launch(max_grad_of_columns_kernel<T>, row_shape(x.rows(), x.cols(), context), context.stream, x.rows(), x.cols(), x.as<const T>(),
             step.in[1].as<const float>(), step.out[0].as<T>());
    }
  });
}

std::size_t workspace(const ReduceMaxGrad& op, const Graph& graph, const Node& node) {
  if (op.axis != Axis::all) return 0;
  const std::int64_t size = graph.shape(node.inputs[0]).size();
  return static_cast<std::size_t>((size + piece_of_all(size) - 1) / piece_of_all(size)) * (sizeof(std::int64_t) + sizeof(float));
}

void run(const Broadcast&, const Step& step, Context& context) {
  if (!step.out[0]) return;
  const TensorView &x = step.in[0], &out = step.out[0];
  with_float_type(x.type.dtype, [&]<class T>() {
    with_packs<T>({out.cols()}, [&]<int N>() {
      const std::int64_t packs = out.size() / N;
      launch(broadcast_kernel<N, T>, map_shape(packs, context), context.stream, packs, out.cols(), x.rows() == 1 ? 0 : x.cols(),
             x.cols() == 1 ? 0 : 1, x.as<const T>(), out.as<T>());
    });
  });
}

}  // namespace graft::cuda
