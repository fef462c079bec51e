#include "kernels/cuda/map.cuh"

// Sums are made in f64: what is left of terms that cancel is still precise, and memory is the limit all the same.
namespace graft::cuda {
namespace {

/// Elements that one block adds up when all of a tensor becomes one number; and rows, when they become one.
constexpr std::int64_t kGrain = 16384, kLeastRows = 128, kMostParts = 256;

/// Σ over x[begin, end) by one block.
template <class T>
__device__ double block_sum_of(const T* x, std::int64_t begin, std::int64_t end) {
  double sum = 0.0;
  for (std::int64_t i = begin + threadIdx.x; i < end; i += blockDim.x) sum += to_float(x[i]);
  return block_sum(sum);
}

/// partial[block] = Σ of the block's kGrain elements.
template <class T>
__global__ void sum_parts_kernel(const T* x, std::int64_t size, double* partial) {
  const std::int64_t begin = static_cast<std::int64_t>(blockIdx.x) * kGrain;
  const double sum = block_sum_of(x, begin, begin + kGrain < size ? begin + kGrain : size);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}
__global__ void sum_of_parts_kernel(const double* partial, std::int64_t count, double factor, float* out) {
  double sum = 0.0;
  for (std::int64_t i = threadIdx.x; i < count; i += blockDim.x) sum += partial[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) *out = static_cast<float>(sum * factor);
}

/// out[row] = factor·Σ of the row: a warp a row.
template <class T>
__global__ void sum_rows_kernel(const T* x, std::int64_t rows, std::int64_t cols, double factor, float* out) {
  const std::int64_t warps = static_cast<std::int64_t>(gridDim.x) * (blockDim.x / kWarp);
  for (std::int64_t row = thread_index() / kWarp; row < rows; row += warps) {
    double sum = 0.0;
    for (std::int64_t col = threadIdx.x % kWarp; col < cols; col += kWarp) sum += to_float(x[row * cols + col]);
    sum = warp_sum(sum);
    if (threadIdx.x % kWarp == 0) out[row] = static_cast<float>(sum * factor);
  }
}

/// partial[part, col] = Σ over the part's rows; a thread a column, so that a warp reads neighbours.
template <class T>
__global__ void sum_columns_kernel(const T* x, std::int64_t rows, std::int64_t cols, std::int64_t rows_of_part, double* partial) {
  const std::int64_t col = thread_index(), part = blockIdx.y;
  if (col >= cols) return;
  const std::int64_t end = (part + 1) * rows_of_part < rows ? (part + 1) * rows_of_part : rows;
  double sum = 0.0;
  for (std::int64_t row = part * rows_of_part; row < end; ++row) sum += to_float(x[row * cols + col]);
  partial[part * cols + col] = sum;
}
__global__ void sum_of_columns_kernel(const double* partial, std::int64_t parts, std::int64_t cols, double factor, float* out) {
  const std::int64_t col = thread_index();
  if (col >= cols) return;
  double sum = 0.0;
  for (std::int64_t part = 0; part < parts; ++part) sum += partial[part * cols + col];
  out[col] = static_cast<float>(sum * factor);
}

/// The elements that one result of a reduction is made of: `count` of them, `stride` apart, those of group g from g·next on.
struct Groups {
  std::int64_t number, next, stride, count;
};
Groups groups_of(Axis axis, const TensorView& x) {
  switch (axis) {
    case Axis::all: break;
    case Axis::rows: return {x.cols(), 1, x.cols(), x.rows()};
    case Axis::columns: return {x.rows(), x.cols(), 1, x.cols()};
  }
  return {1, 0, 1, x.size()};
}

struct Largest {
  float value;
  std::int64_t at;
};
/// The first of the larger; a NaN is larger than all else.
__device__ __forceinline__ Largest larger(const Largest& a, const Largest& b) {
  const bool a_nan = a.value != a.value, b_nan = b.value != b.value;
  if (a_nan != b_nan) return a_nan ? a : b;
  if (!a_nan && a.value != b.value) return a.value > b.value ? a : b;
  return a.at < b.at ? a : b;
}

/// Where the block's group has its first maximum, for all of its threads.
template <class T>
__device__ Largest largest_of_block(const T* x, const Groups& groups) {
  Largest* found = shared_array<Largest, kMapThreads>();
  Largest best = {-INFINITY, groups.count};  // behind all elements
  for (std::int64_t i = threadIdx.x; i < groups.count; i += blockDim.x) best = larger(best, {to_float(x[blockIdx.x * groups.next + i * groups.stride]), i});
  found[threadIdx.x] = best;
  for (unsigned half = kMapThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) found[threadIdx.x] = larger(found[threadIdx.x], found[threadIdx.x + half]);
  }
  __syncthreads();
  return found[0];
}

template <class T>
__global__ void max_kernel(const T* x, Groups groups, float* out) {
  const Largest best = largest_of_block(x, groups);
  if (threadIdx.x == 0) out[blockIdx.x] = best.value;
}
template <class T>
__global__ void max_grad_kernel(const T* x, Groups groups, const float* dout, T* dx) {
  const Largest best = largest_of_block(x, groups);
  for (std::int64_t i = threadIdx.x; i < groups.count; i += blockDim.x)
    dx[blockIdx.x * groups.next + i * groups.stride] = from_float<T>(i == best.at ? dout[blockIdx.x] : 0.0f);
}

/// out[row, col] = x[row·row_stride + col·col_stride].
template <class Word>
__global__ void broadcast_kernel(const Word* x, std::int64_t row_stride, std::int64_t col_stride, std::int64_t size, std::int64_t cols, Word* out) {
  for (std::int64_t i = thread_index(); i < size; i += thread_count()) out[i] = x[i / cols * row_stride + i % cols * col_stride];
}

std::int64_t parts_of(std::int64_t size, std::int64_t part) { return (size + part - 1) / part; }
std::int64_t rows_of_part(std::int64_t rows) { return std::max(kLeastRows, parts_of(rows, kMostParts)); }

LaunchShape threads_for(std::int64_t count, std::int64_t layers = 1) {
  return {dim3(static_cast<unsigned>(parts_of(count, kMapThreads)), static_cast<unsigned>(layers)), dim3(kMapThreads)};
}

}  // namespace

void run(const Reduce& op, const Step& step, Context& context) {
  if (!step.out[0]) return;
  const TensorView& x = step.in[0];
  auto* out = step.out[0].as<float>();
  auto* partial = static_cast<double*>(step.workspace);
  with_float_type(x.type.dtype, [&]<class T>() {
    const Groups groups = groups_of(op.axis, x);
    if (op.fn == ReduceFn::max)
      return launch(max_kernel<T>, LaunchShape{dim3(static_cast<unsigned>(groups.number)), dim3(kMapThreads)}, context.stream, x.as<const T>(), groups, out);
    const double factor = op.fn == ReduceFn::mean ? 1.0 / static_cast<double>(groups.count) : 1.0;
    switch (op.axis) {
      case Axis::all: {
        const std::int64_t parts = parts_of(x.size(), kGrain);
        launch(sum_parts_kernel<T>, LaunchShape{dim3(static_cast<unsigned>(parts)), dim3(kMapThreads)}, context.stream, x.as<const T>(), x.size(), partial);
        return launch(sum_of_parts_kernel, LaunchShape{dim3(1), dim3(kMapThreads)}, context.stream, partial, parts, factor, out);
      }
      case Axis::columns:
        return launch(sum_rows_kernel<T>, map_shape(x.rows() * kWarp, context), context.stream, x.as<const T>(), x.rows(), x.cols(), factor, out);
      case Axis::rows: {
        const std::int64_t parts = parts_of(x.rows(), rows_of_part(x.rows()));
        launch(sum_columns_kernel<T>, threads_for(x.cols(), parts), context.stream, x.as<const T>(), x.rows(), x.cols(), rows_of_part(x.rows()), partial);
        return launch(sum_of_columns_kernel, threads_for(x.cols()), context.stream, partial, parts, x.cols(), factor, out);
      }
    }
  });
}

std::size_t workspace(const Reduce& op, const Graph& graph, const Node& node) {
  const Shape& x = graph.shape(node.inputs[0]);
  const std::int64_t partials = op.axis == Axis::all    ? parts_of(x.size(), kGrain)
                                : op.axis == Axis::rows ? parts_of(x.rows(), rows_of_part(x.rows())) * x.cols()
                                                        : 0;
  return static_cast<std::size_t>(partials) * sizeof(double);
}

void run(const ReduceMaxGrad& op, const Step& step, Context& context) {
  if (!step.out[0]) return;
  with_float_type(step.in[0].type.dtype, [&]<class T>() {
    const Groups groups = groups_of(op.axis, step.in[0]);
    launch(max_grad_kernel<T>, LaunchShape{dim3(static_cast<unsigned>(groups.number)), dim3(kMapThreads)}, context.stream, step.in[0].as<const T>(), groups,
           step.in[1].as<const float>(), step.out[0].as<T>());
  });
}

void run(const Broadcast&, const Step& step, Context& context) {
  if (!step.out[0]) return;
  const TensorView &x = step.in[0], &out = step.out[0];
  const auto copy = [&]<class Word>() {
    launch(broadcast_kernel<Word>, map_shape(out.size(), context), context.stream, x.as<const Word>(), x.rows() == 1 ? std::int64_t{0} : x.cols(),
           x.cols() == 1 ? std::int64_t{0} : std::int64_t{1}, out.size(), out.cols(), out.as<Word>());
  };
  if (size_of(x.type.dtype) == 2) {
    copy.template operator()<std::uint16_t>();
  } else {
    copy.template operator()<std::uint32_t>();
  }
}

}  // namespace graft::cuda
