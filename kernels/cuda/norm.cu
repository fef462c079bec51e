#include "kernels/cuda/row.cuh"

// LayerNorm, and RmsNorm as the same without a mean (kMean: false). Products with weights and all sums are f32.
namespace graft::cuda {
namespace {

template <class T, class Out>
struct Norm {
  const T* x;
  const float *weight, *bias;
  std::int64_t rows, cols;
  float eps;
  Out* out;
  float *mean, *rstd;
};

template <class T, class Out, int kStep, bool kMean>
__global__ void __launch_bounds__(kRowThreads, 1) norm_kernel(Norm<T, Out> n) {
  const float each = 1.0f / static_cast<float>(n.cols);
  for (std::int64_t row = first_row(); row < n.rows; row += rows_at_once()) {
    const Row<T, kStep> x(n.x + row * n.cols, n.cols);
    float about = 0.0f, left = 0.0f, squares = 0.0f;  // about: the mean as f32 finds it, left: what it is short of
    if constexpr (kMean) {
      for_own_columns<kStep>(n.cols, [&](int k, auto col) {
        const auto values = x(k, col);
#pragma unroll
        for (int e = 0; e < kStep; ++e) about += values.at[e];
      });
      about = row_sum(about) * each;
    }
    for_own_columns<kStep>(n.cols, [&](int k, auto col) {
      const auto values = x(k, col);
#pragma unroll
      for (int e = 0; e < kStep; ++e) {
        const float centered = values.at[e] - about;
        squares += centered * centered;
        if constexpr (kMean) left += centered;
      }
    });
    squares = row_sum(squares) * each;
    if constexpr (kMean) left = row_sum(left) * each;
    const float rstd = 1.0f / sqrtf(squares - left * left + n.eps);
    if (threadIdx.x == 0) {
      if (kMean && n.mean != nullptr) n.mean[row] = about + left;
      if (n.rstd != nullptr) n.rstd[row] = rstd;
    }
    if (n.out == nullptr) continue;
    for_own_columns<kStep>(n.cols, [&](int k, auto col) {
      auto values = x(k, col);
      const auto weight = load_floats<kStep>(n.weight + col);
      Floats<kStep> bias = {};
      if constexpr (kMean) bias = load_floats<kStep>(n.bias + col);
#pragma unroll
      for (int e = 0; e < kStep; ++e) values.at[e] = ((values.at[e] - about) - left) * rstd * weight.at[e] + bias.at[e];
      store_floats(n.out + row * n.cols + col, values);
    });
  }
}

/// Of how many partial sums the gradients of weight and bias are made; by the shapes alone. Each is of two rows or more, by as many threads as make two
/// blocks of 256 for each multiprocessor of an H100.
std::int64_t parts_of(std::int64_t rows, std::int64_t cols) {
  return std::min<std::int64_t>((rows + 1) / 2, 264 * 256 / threads_of_row(cols));
}

template <class T, class D>
struct NormGrad {
  const T* x;
  const float *weight, *mean, *rstd;
  const D* dout;
  const T* addend;
  std::int64_t rows, cols, parts;
  T* dx;
  float *dweight, *dbias;  ///< [parts, cols], or null
};

/// dx may lie where x, dout or the addend does: a thread writes columns that it alone reads, after all have read the row.
template <class T, class D, int kStep, bool kMean>
__global__ void __launch_bounds__(kRowThreads, 1) norm_grad_kernel(NormGrad<T, D> n) {
  const std::int64_t part = first_row();
  if (part >= n.parts) return;  // one of several warps of a block
  const float each = 1.0f / static_cast<float>(n.cols);
  Floats<kStep> dweight[kPacksKept<kStep>] = {},
                dbias[kPacksKept<kStep>] = {};  // of the columns in registers; those beyond are added up in memory
  for (std::int64_t row = part; row < n.rows; row += n.parts) {
    const Row<T, kStep> x(n.x + row * n.cols, n.cols);
    const Row<D, kStep> dout(n.dout + row * n.cols, n.cols);
    const float mean = kMean ? n.mean[row] : 0.0f, rstd = n.rstd[row];
    float sum = 0.0f, sum_normed = 0.0f;  // of g = dout ∘ weight, of g ∘ normed
    if (n.dx != nullptr) {
      for_own_columns<kStep>(n.cols, [&](int k, auto col) {
        const auto values = x(k, col), gradients = dout(k, col), weight = load_floats<kStep>(n.weight + col);
#pragma unroll
        for (int e = 0; e < kStep; ++e) {
          const float g = gradients.at[e] * weight.at[e];
          if constexpr (kMean) sum += g;
          sum_normed += g * ((values.at[e] - mean) * rstd);
        }
      });
      if constexpr (kMean) sum = row_sum(sum) * each;
      sum_normed = row_sum(sum_normed) * each;
    }
    for_own_columns<kStep>(n.cols, [&](int k, auto col) {
      const auto values = x(k, col), gradients = dout(k, col);
      Floats<kStep> normed;
#pragma unroll
      for (int e = 0; e < kStep; ++e) normed.at[e] = (values.at[e] - mean) * rstd;
      if (k < kPacksKept<kStep>) {
#pragma unroll
        for (int e = 0; e < kStep; ++e) {
          dweight[k].at[e] += gradients.at[e] * normed.at[e];
          if constexpr (kMean) dbias[k].at[e] += gradients.at[e];
        }
      } else {
        for (int e = 0; e < kStep; ++e) {
          const std::int64_t at = part * n.cols + col + e;
          if (n.dweight != nullptr) n.dweight[at] = (row == part ? 0.0f : n.dweight[at]) + gradients.at[e] * normed.at[e];
          if (kMean && n.dbias != nullptr) n.dbias[at] = (row == part ? 0.0f : n.dbias[at]) + gradients.at[e];
        }
      }
      if (n.dx == nullptr) return;
      const auto weight = load_floats<kStep>(n.weight + col);
      Floats<kStep> dx = {};
      if (n.addend != nullptr) dx = load_floats<kStep>(n.addend + row * n.cols + col);
#pragma unroll
      for (int e = 0; e < kStep; ++e) dx.at[e] += rstd * (gradients.at[e] * weight.at[e] - sum - normed.at[e] * sum_normed);
      store_floats(n.dx + row * n.cols + col, dx);
    });
  }
  for_own_columns<kStep>(n.cols, [&](int k, auto col) {
    if (k >= kPacksKept<kStep>) return;
    if (n.dweight != nullptr) store_floats(n.dweight + part * n.cols + col, dweight[k]);
    if (kMean && n.dbias != nullptr) store_floats(n.dbias + part * n.cols + col, dbias[k]);
  });
}

constexpr int kSumColumns = 8, kSumThreads = 64;

/// out[col] = Σ over the parts, in order for each of kSumThreads, then theirs as a tree. blockIdx.y: 0 for the weight, 1 for the bias.
__global__ void sum_of_parts_kernel(const float* dweight_parts, const float* dbias_parts, std::int64_t parts, std::int64_t cols,
                                    float* dweight, float* dbias) {
  const float* from = blockIdx.y == 0 ? dweight_parts : dbias_parts;
  float* to = blockIdx.y == 0 ? dweight : dbias;
  if (to == nullptr) return;
  float* sums = shared_array<float, kSumColumns * kSumThreads>();
  const std::int64_t col = std::int64_t{blockIdx.x} * kSumColumns + threadIdx.x;
  float sum = 0.0f;
  if (col < cols)
    for (std::int64_t part = threadIdx.y; part < parts; part += kSumThreads) sum += from[part * cols + col];
  sums[threadIdx.y * kSumColumns + threadIdx.x] = sum;
  for (unsigned half = kSumThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.y < half) sums[threadIdx.y * kSumColumns + threadIdx.x] += sums[(threadIdx.y + half) * kSumColumns + threadIdx.x];
  }
  if (threadIdx.y == 0 && col < cols) to[col] = sums[threadIdx.x];
}

/// Calls f<T, D>(): T of a, D of b, which is the same or bf16.
template <class F>
void with_types(const TensorView& a, const TensorView& b, F&& f) {
  with_float_type(a.type.dtype, [&]<class T>() {
    if (b.type.dtype == a.type.dtype) return f.template operator()<T, T>();
    f.template operator()<T, bf16>();
  });
}

template <bool kMean>
void norm(const Step& step, double eps, const Context& context) {
  const TensorView &x = step.in[0], &out = step.out[0], &mean = step.out[1], &rstd = step.out[kMean ? 2 : 1];
  with_types(x, out, [&]<class T, class Out>() {
    with_step<T>(x.cols(), [&]<int kStep>() {
      launch(norm_kernel<T, Out, kStep, kMean>, row_shape(x.rows(), x.cols(), context), context.stream,
             Norm<T, Out>{x.as<const T>(), step.in[1].as<const float>(), kMean ? step.in[2].as<const float>() : nullptr, x.rows(),
                          x.cols(), static_cast<float>(eps), out.as<Out>(), kMean ? mean.as<float>() : nullptr, rstd.as<float>()});
    });
  });
}

template <bool kMean>
void norm_grad(const Step& step, const Context& context) {
  const std::size_t saved = kMean ? 3 : 2;  // rstd, then dout and the addend
  const TensorView &x = step.in[0], &dout = step.in[saved + 1], &dx = step.out[0], &dweight = step.out[1];
  float* dbias = kMean ? step.out[2].as<float>() : nullptr;
  const std::int64_t rows = x.rows(), cols = x.cols(), parts = parts_of(rows, cols);
  auto* dweight_parts = static_cast<float*>(step.workspace);
  float* dbias_parts = dweight_parts + parts * cols;
  const int threads = threads_of_row(cols), together = rows_of_block(threads);
  const LaunchShape shape = {dim3(static_cast<unsigned>((parts + together - 1) / together)),
                             dim3(static_cast<unsigned>(threads), static_cast<unsigned>(together))};
  with_types(x, dout, [&]<class T, class D>() {
    with_step<T>(cols, [&]<int kStep>() {
      launch(norm_grad_kernel<T, D, kStep, kMean>, shape, context.stream,
             NormGrad<T, D>{x.as<const T>(), step.in[1].as<const float>(), kMean ? step.in[2].as<const float>() : nullptr,
                            step.in[saved].as<const float>(), dout.as<const D>(),
                            step.in.size() > saved + 2 ? step.in[saved + 2].as<const T>() : nullptr, rows, cols, parts, dx.as<T>(),
                            dweight ? dweight_parts : nullptr, dbias != nullptr ? dbias_parts : nullptr});
    });
  });
  if (dweight || dbias != nullptr)
    launch(sum_of_parts_kernel,
           LaunchShape{dim3(static_cast<unsigned>((cols + kSumColumns - 1) / kSumColumns), kMean ? 2 : 1),
                       dim3(kSumColumns, kSumThreads)},
           context.stream, dweight_parts, dbias_parts, parts, cols, dweight.as<float>(), dbias);
}

std::size_t bytes_of_parts(const Graph& graph, const Node& node) {
  const Shape& x = graph.shape(node.inputs[0]);
  return static_cast<std::size_t>(parts_of(x.rows(), x.cols()) * x.cols()) * sizeof(float);
}

}  // namespace

void run(const RmsNorm& op, const Step& step, Context& context) { norm<false>(step, op.eps, context); }
void run(const LayerNorm& op, const Step& step, Context& context) { norm<true>(step, op.eps, context); }

void run(const RmsNormGrad&, const Step& step, Context& context) { norm_grad<false>(step, context); }
void run(const LayerNormGrad&, const Step& step, Context& context) { norm_grad<true>(step, context); }

std::size_t workspace(const RmsNormGrad&, const Graph& graph, const Node& node) { return bytes_of_parts(graph, node); }
std::size_t workspace(const LayerNormGrad&, const Graph& graph, const Node& node) { return 2 * bytes_of_parts(graph, node); }

}  // namespace graft::cuda
