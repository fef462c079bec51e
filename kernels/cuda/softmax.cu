#include "kernels/cuda/row.cuh"

// The gradients may lie in the place of out or dout: a thread writes columns that it alone reads, after all have read the row.
namespace graft::cuda {
namespace {

/// e^x for x ≤ 0: where the product is rounded by much, the result is next to nothing.
__device__ __forceinline__ float exponential(float x) { return exp2f(x * 1.44269504f); }

template <class T, int kStep, bool kLog>
__global__ void __launch_bounds__(kRowThreads, 1) softmax_kernel(const T* x, std::int64_t rows, std::int64_t cols, T* out) {
  for (std::int64_t row = first_row(); row < rows; row += rows_at_once()) {
    const Row<T, kStep> in(x + row * cols, cols);
    float most = -INFINITY, sum = 0.0f;
    for_own_columns<kStep>(cols, [&](int k, auto col) {
      const auto values = in(k, col);
#pragma unroll
      for (int e = 0; e < kStep; ++e) most = fmaxf(most, values.at[e]);
    });
    most = row_max(most);
    for_own_columns<kStep>(cols, [&](int k, auto col) {
      const auto values = in(k, col);
#pragma unroll
      for (int e = 0; e < kStep; ++e) sum += exponential(values.at[e] - most);
    });
    sum = row_sum(sum);
    const float rest = kLog ? logf(sum) : 1.0f / sum;
    for_own_columns<kStep>(cols, [&](int k, auto col) {
      auto values = in(k, col);
#pragma unroll
      for (int e = 0; e < kStep; ++e) {
        const float from_most = values.at[e] - most;
        values.at[e] = kLog ? from_most - rest : exponential(from_most) * rest;
      }
      store_floats(out + row * cols + col, values);
    });
  }
}

template <class T, int kStep, bool kLog>
__global__ void __launch_bounds__(kRowThreads, 1)
    softmax_grad_kernel(const T* out, const T* dout, std::int64_t rows, std::int64_t cols, T* dx) {
  for (std::int64_t row = first_row(); row < rows; row += rows_at_once()) {
    const Row<T, kStep> y(out + row * cols, cols), dy(dout + row * cols, cols);
    float sum = 0.0f;
    for_own_columns<kStep>(cols, [&](int k, auto col) {
      const auto values = y(k, col), gradients = dy(k, col);
#pragma unroll
      for (int e = 0; e < kStep; ++e) sum += kLog ? gradients.at[e] : gradients.at[e] * values.at[e];
    });
    sum = row_sum(sum);
    for_own_columns<kStep>(cols, [&](int k, auto col) {
      const auto values = y(k, col);
      auto gradients = dy(k, col);
#pragma unroll
      for (int e = 0; e < kStep; ++e)
        gradients.at[e] = kLog ? gradients.at[e] - exponential(values.at[e]) * sum : values.at[e] * (gradients.at[e] - sum);
      store_floats(dx + row * cols + col, gradients);
    });
  }
}

template <bool kLog>
void softmax(const Step& step, const Context& context) {
  if (!step.out[0]) return;
  const TensorView& x = step.in[0];
  with_float_type(x.type.dtype, [&]<class T>() {
    with_step<T>(x.cols(), [&]<int kStep>() {
      launch(softmax_kernel<T, kStep, kLog>, row_shape(x.rows(), x.cols(), context), context.stream, x.as<const T>(), x.rows(),
             x.cols(), step.out[0].as<T>());
    });
  });
}

template <bool kLog>
void softmax_grad(const Step& step, const Context& context) {
  if (!step.out[0]) return;
  const TensorView& out = step.in[0];
  with_float_type(out.type.dtype, [&]<class T>() {
    with_step<T>(out.cols(), [&]<int kStep>() {
      launch(softmax_grad_kernel<T, kStep, kLog>, row_shape(out.rows(), out.cols(), context), context.stream, out.as<const T>(),
             step.in[1].as<const T>(), out.rows(), out.cols(), step.out[0].as<T>());
    });
  });
}

}  // namespace

void run(const Softmax&, const Step& step, Context& context) { softmax<false>(step, context); }
void run(const SoftmaxGrad&, const Step& step, Context& context) { softmax_grad<false>(step, context); }
void run(const LogSoftmax&, const Step& step, Context& context) { softmax<true>(step, context); }
void run(const LogSoftmaxGrad&, const Step& step, Context& context) { softmax_grad<true>(step, context); }

}  // namespace graft::cuda
