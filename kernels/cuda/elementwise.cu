#include <cmath>

#include "graft/philox.h"
#include "kernels/cuda/map.cuh"
#include "kernels/cuda/rows.h"

namespace graft::cuda {
namespace {

/// sigmoid(x) and sigmoid(−x), each as precise as the other.
struct Sigmoids {
  float plus, minus;
};
__device__ __forceinline__ Sigmoids sigmoids(float x) {
  const float e = expf(-fabsf(x)), large = 1.0f / (1.0f + e), small = e * large;
  return {x < 0.0f ? small : large, x < 0.0f ? large : small};
}
__device__ __forceinline__ float sigmoid(float x) { return sigmoids(x).plus; }

/// Φ(x), the normal distribution; by erfc, which keeps its precision in the left tail.
__device__ __forceinline__ float normal_cdf(float x) { return 0.5f * erfcf(-0.707106781f * x); }

constexpr float kTanhScale = 0.797884561f, kTanhCubic = 0.044715f;  // √(2/π)
constexpr float kInverseSqrt2Pi = 0.398942280f;

struct Apply {
  UnaryFn fn;
  float alpha;
  __device__ float operator()(float x) const {
    switch (fn) {
      case UnaryFn::neg: return -x;
      case UnaryFn::scale: return alpha * x;
      case UnaryFn::add_scalar: return x + alpha;
      case UnaryFn::exp: return expf(x);
      case UnaryFn::log: return logf(x);
      case UnaryFn::sqrt: return sqrtf(x);
      case UnaryFn::abs: return fabsf(x);
      case UnaryFn::tanh: return tanhf(x);
      case UnaryFn::sigmoid: return sigmoid(x);
      case UnaryFn::relu: return x < 0.0f ? 0.0f : x;  // NaN stays NaN
      case UnaryFn::gelu: return x * normal_cdf(x);
      case UnaryFn::gelu_tanh: return 0.5f * x * (1.0f + tanhf(kTanhScale * (x + kTanhCubic * x * x * x)));
      case UnaryFn::silu: return x * sigmoid(x);
      case UnaryFn::softplus: return fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x)));
    }
    return 0.0f;
  }
};

struct ApplyGrad {
  UnaryFn fn;
  float alpha;
  __device__ float derivative(float x) const {
    switch (fn) {
      case UnaryFn::neg: return -1.0f;
      case UnaryFn::scale: return alpha;
      case UnaryFn::add_scalar: return 1.0f;
      case UnaryFn::exp: return expf(x);
      case UnaryFn::log: return 1.0f / x;
      case UnaryFn::sqrt: return 0.5f / sqrtf(x);
      case UnaryFn::abs: return static_cast<float>(x > 0.0f) - static_cast<float>(x < 0.0f);
      case UnaryFn::tanh: {
        const Sigmoids s = sigmoids(x + x);  // 1 − tanh² = 4·sigmoid(2x)·sigmoid(−2x)
        return 4.0f * s.plus * s.minus;
      }
      case UnaryFn::sigmoid: {
        const Sigmoids s = sigmoids(x);
        return s.plus * s.minus;
      }
      case UnaryFn::relu: return static_cast<float>(x > 0.0f);
      case UnaryFn::gelu: return normal_cdf(x) + x * (kInverseSqrt2Pi * expf(-0.5f * x * x));
      case UnaryFn::gelu_tanh: {
        const float t = tanhf(kTanhScale * (x + kTanhCubic * x * x * x)), inner = kTanhScale * (1.0f + 3.0f * kTanhCubic * x * x);
        return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * inner;
      }
      case UnaryFn::silu: {
        const Sigmoids s = sigmoids(x);
        return s.plus * (1.0f + x * s.minus);
      }
      case UnaryFn::softplus: return sigmoid(x);
    }
    return 0.0f;
  }
  __device__ float operator()(float x, float dout) const { return dout * derivative(x); }
};

struct Combine {
  BinaryFn fn;
  __device__ float operator()(float a, float b) const {
    switch (fn) {
      case BinaryFn::add: return a + b;
      case BinaryFn::sub: return a - b;
      case BinaryFn::mul: return a * b;
      case BinaryFn::div: return a / b;
    }
    return 0.0f;
  }
};

struct Swish {
  __device__ float operator()(float gate, float up) const { return gate * sigmoid(gate) * up; }
};

struct Identity {
  __device__ float operator()(float x) const { return x; }
};

/// b repeats over rows, columns or both: element (row, col) of it lies at row·row_stride + col·col_stride, col_stride being 0 or 1. N divides cols.
template <int N, class T>
__global__ void binary_repeated_kernel(Combine combine, std::int64_t packs, std::int64_t cols, std::int64_t row_stride, int col_stride, T* out, const T* a, const T* b) {
  for (std::int64_t i = thread_index() * N; i < packs * N; i += thread_count() * N) {
    const std::int64_t row = i / cols, from = row * row_stride + (i - row * cols) * col_stride;
    const auto left = load_pack<N>(a + i);
    Pack<T, N> right, result;
    if (col_stride == 1) {
      right = load_pack<N>(b + from);
    } else {
#pragma unroll
      for (int e = 0; e < N; ++e) right.at[e] = b[from];
    }
#pragma unroll
    for (int e = 0; e < N; ++e) result.at[e] = from_float<T>(combine(to_float(left.at[e]), to_float(right.at[e])));
    store_pack(out + i, result);
  }
}

/// dgate, dup may be null; dgate may be gate, dup may be up.
template <class T>
__global__ void swiglu_grad_kernel(std::int64_t size, const T* gate, const T* up, const T* dout, T* dgate, T* dup) {
  constexpr int kStep = kPack<T>;
  const auto gradients = [](float g, float u, float d, T& dg, T& du) {
    const Sigmoids s = sigmoids(g);
    dg = from_float<T>(d * u * (s.plus * (1.0f + g * s.minus)));
    du = from_float<T>(d * (g * s.plus));
  };
  const std::int64_t whole = size / kStep;
  for (std::int64_t i = thread_index(); i < whole; i += thread_count()) {
    const auto g = load_pack<kStep>(gate + i * kStep), u = load_pack<kStep>(up + i * kStep), d = load_pack<kStep>(dout + i * kStep);
    Pack<T, kStep> dg, du;
#pragma unroll
    for (int e = 0; e < kStep; ++e) gradients(to_float(g.at[e]), to_float(u.at[e]), to_float(d.at[e]), dg.at[e], du.at[e]);
    if (dgate != nullptr) store_pack(dgate + i * kStep, dg);
    if (dup != nullptr) store_pack(dup + i * kStep, du);
  }
  const std::int64_t rest = whole * kStep + thread_index();
  if (rest < size) {
    T dg, du;
    gradients(to_float(gate[rest]), to_float(up[rest]), to_float(dout[rest]), dg, du);
    if (dgate != nullptr) dgate[rest] = dg;
    if (dup != nullptr) dup[rest] = du;
  }
}

/// An element is dropped when its random bits are below `threshold`. Four neighbours share a Philox block.
template <class T>
__global__ void dropout_kernel(std::int64_t size, float keep_scale, std::uint64_t threshold, std::uint64_t seed, std::uint32_t stream,
                               const std::uint32_t* counter, const T* x, T* out) {
  constexpr int kStep = kPack<T>;
  const std::uint32_t count = *counter;
  const auto bits_of = [&](std::int64_t group) {
    return philox::block({static_cast<std::uint32_t>(group), static_cast<std::uint32_t>(static_cast<std::uint64_t>(group) >> 32), stream, count}, seed);
  };
  const auto kept = [&](std::uint32_t bits, T value) { return from_float<T>(bits < threshold ? 0.0f : to_float(value) * keep_scale); };
  const std::int64_t whole = size / kStep;
  for (std::int64_t i = thread_index(); i < whole; i += thread_count()) {
    auto pack = load_pack<kStep>(x + i * kStep);
#pragma unroll
    for (int group = 0; group < kStep / 4; ++group) {
      const philox::Block bits = bits_of(i * (kStep / 4) + group);
#pragma unroll
      for (int e = 0; e < 4; ++e) pack.at[group * 4 + e] = kept(bits[static_cast<std::size_t>(e)], pack.at[group * 4 + e]);
    }
    store_pack(out + i * kStep, pack);
  }
  const std::int64_t rest = whole * kStep + thread_index();
  if (rest < size) {
    const philox::Block bits = bits_of(rest / 4);
#pragma unroll
    for (int e = 0; e < 4; ++e)
      if (rest % 4 == e) out[rest] = kept(bits[static_cast<std::size_t>(e)], x[rest]);
  }
}

/// N divides cols, stride and the elements before c.
template <int N, class T>
__global__ void add_bias_kernel(const float* bias, T* c, std::int64_t packs, std::int64_t cols, std::int64_t stride) {
  constexpr int kFloats = std::min(N, kPack<float>);
  for (std::int64_t i = thread_index() * N; i < packs * N; i += thread_count() * N) {
    const std::int64_t row = i / cols, col = i - row * cols;
    T* const at = c + row * stride + col;
    auto sums = load_pack<N>(at);
#pragma unroll
    for (int part = 0; part < N; part += kFloats) {
      const auto added = load_pack<kFloats>(bias + col + part);
#pragma unroll
      for (int e = 0; e < kFloats; ++e) sums.at[part + e] = from_float<T>(to_float(sums.at[part + e]) + added.at[e]);
    }
    store_pack(at, sums);
  }
}

}  // namespace

bool has_code_for_this_device() {
  cudaFuncAttributes attributes;
  if (cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(map_kernel<Identity, float, float>)) == cudaSuccess) return true;
  cudaGetLastError();
  return false;
}

void round_to_bf16(const float* from, void* to, std::int64_t count, cudaStream_t stream) {
  map(Identity{}, count, Context{stream, nullptr, 64}, static_cast<bf16*>(to), from);
}

void add_bias(const float* bias, void* c, DType dtype, std::int64_t rows, std::int64_t cols, std::int64_t stride, cudaStream_t stream) {
  const Context context = {stream, nullptr, 64};
  with_float_type(dtype, [&]<class T>() {
    const auto begin = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(c) / sizeof(T));
    with_packs<T>({cols, stride, begin}, [&]<int N>() {
      launch(add_bias_kernel<N, T>, map_shape(rows * cols / N, context), stream, bias, static_cast<T*>(c), rows * cols / N, cols, stride);
    });
  });
}

void run(const Unary& op, const Step& step, Context& context) {
  if (!step.out[0]) return;
  with_float_type(step.in[0].type.dtype, [&]<class T>() {
    map(Apply{op.fn, static_cast<float>(op.alpha)}, step.out[0].size(), context, step.out[0].as<T>(), step.in[0].as<const T>());
  });
}

void run(const UnaryGrad& op, const Step& step, Context& context) {
  if (!step.out[0]) return;
  with_float_type(step.in[0].type.dtype, [&]<class T>() {
    map(ApplyGrad{op.fn, static_cast<float>(op.alpha)}, step.out[0].size(), context, step.out[0].as<T>(), step.in[0].as<const T>(), step.in[1].as<const T>());
  });
}

void run(const Binary& op, const Step& step, Context& context) {
  if (!step.out[0]) return;
  const TensorView &a = step.in[0], &b = step.in[1], &out = step.out[0];
  with_float_type(a.type.dtype, [&]<class T>() {
    if (a.size() == b.size()) return map(Combine{op.fn}, out.size(), context, out.as<T>(), a.as<const T>(), b.as<const T>());
    with_packs<T>({out.cols()}, [&]<int N>() {
      launch(binary_repeated_kernel<N, T>, map_shape(out.size() / N, context), context.stream, Combine{op.fn}, out.size() / N, out.cols(), b.rows() == 1 ? 0 : b.cols(),
             b.cols() == 1 ? 0 : 1, out.as<T>(), a.as<const T>(), b.as<const T>());
    });
  });
}

void run(const Swiglu&, const Step& step, Context& context) {
  if (!step.out[0]) return;
  with_float_type(step.in[0].type.dtype, [&]<class T>() {
    map(Swish{}, step.out[0].size(), context, step.out[0].as<T>(), step.in[0].as<const T>(), step.in[1].as<const T>());
  });
}

void run(const SwigluGrad&, const Step& step, Context& context) {
  if (!step.out[0] && !step.out[1]) return;
  with_float_type(step.in[0].type.dtype, [&]<class T>() {
    const std::int64_t size = step.in[0].size();
    launch(swiglu_grad_kernel<T>, map_shape((size + 3) / 4, context), context.stream, size, step.in[0].as<const T>(), step.in[1].as<const T>(),
           step.in[2].as<const T>(), step.out[0].as<T>(), step.out[1].as<T>());
  });
}

void run(const Cast&, const Step& step, Context& context) {
  if (!step.out[0]) return;
  with_float_type(step.in[0].type.dtype, [&]<class From>() {
    with_float_type(step.out[0].type.dtype,
                    [&]<class To>() { map(Identity{}, step.out[0].size(), context, step.out[0].as<To>(), step.in[0].as<const From>()); });
  });
}

void run(const Dropout& op, const Step& step, Context& context) {
  if (!step.out[0]) return;
  const auto threshold = static_cast<std::uint64_t>(std::ceil(op.p * 4294967296.0));  // uniform(bits) < p
  with_float_type(step.in[0].type.dtype, [&]<class T>() {
    launch(dropout_kernel<T>, map_shape((step.in[0].size() + 3) / 4, context), context.stream, step.in[0].size(), static_cast<float>(1.0 / (1.0 - op.p)), threshold,
           op.seed, op.stream, step.in[1].as<const std::uint32_t>(), step.in[0].as<const T>(), step.out[0].as<T>());
  });
}

}  // namespace graft::cuda
