#include <cmath>
#include <numbers>

#include "graft/bf16.h"
#include "graft/philox.h"
#include "kernels/reference/broadcast.h"
#include "kernels/reference/kernels.h"
#include "kernels/reference/views.h"

namespace graft::reference {
namespace {

template <class T>
T sigmoid(T x) {
  return T{1} / (T{1} + std::exp(-x));
}

/// Φ(x), the normal distribution; by erfc, which keeps its precision in the left tail.
template <class T>
T normal_cdf(T x) {
  return T{0.5} * std::erfc(-x / std::numbers::sqrt2_v<T>);
}

/// The argument of gelu_tanh's tanh is kTanhScale·(x + kTanhCubic·x³), kTanhScale = √(2/π).
template <class T>
inline constexpr T kTanhScale = std::numbers::sqrt2_v<T>* std::numbers::inv_sqrtpi_v<T>;
template <class T>
inline constexpr T kTanhCubic = T(0.044715);

template <class T>
T apply(UnaryFn fn, T alpha, T x) {
  switch (fn) {
    case UnaryFn::neg: return -x;
    case UnaryFn::scale: return alpha * x;
    case UnaryFn::add_scalar: return x + alpha;
    case UnaryFn::exp: return std::exp(x);
    case UnaryFn::log: return std::log(x);
    case UnaryFn::sqrt: return std::sqrt(x);
    case UnaryFn::abs: return std::abs(x);
    case UnaryFn::tanh: return std::tanh(x);
    case UnaryFn::sigmoid: return sigmoid(x);
    case UnaryFn::relu: return x < T{0} ? T{0} : x;  // NaN stays NaN
    case UnaryFn::gelu: return x * normal_cdf(x);
    case UnaryFn::gelu_tanh: return T{0.5} * x * (T{1} + std::tanh(kTanhScale<T> * (x + kTanhCubic<T> * x * x * x)));
    case UnaryFn::silu: return x * sigmoid(x);
    case UnaryFn::softplus: return x > T{0} ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x));
  }
  GRAFT_ASSERT(!"a known function");
  return T{};
}

template <class T>
T derivative(UnaryFn fn, T alpha, T x) {
  switch (fn) {
    case UnaryFn::neg: return T{-1};
    case UnaryFn::scale: return alpha;
    case UnaryFn::add_scalar: return T{1};
    case UnaryFn::exp: return std::exp(x);
    case UnaryFn::log: return T{1} / x;
    case UnaryFn::sqrt: return T{0.5} / std::sqrt(x);
    case UnaryFn::abs: return T(x > T{0}) - T(x < T{0});
    case UnaryFn::tanh: return T{1} - std::tanh(x) * std::tanh(x);
    case UnaryFn::sigmoid: return sigmoid(x) * sigmoid(-x);
    case UnaryFn::relu: return T(x > T{0});
    case UnaryFn::gelu: {
      const T density = std::exp(T{-0.5} * x * x) * std::numbers::inv_sqrtpi_v<T> / std::numbers::sqrt2_v<T>;
      return normal_cdf(x) + x * density;
    }
    case UnaryFn::gelu_tanh: {
      const T t = std::tanh(kTanhScale<T> * (x + kTanhCubic<T> * x * x * x));
      const T inner = kTanhScale<T> * (T{1} + T{3} * kTanhCubic<T> * x * x);
      return T{0.5} * (T{1} + t) + T{0.5} * x * (T{1} - t * t) * inner;
    }
    case UnaryFn::silu: return sigmoid(x) * (T{1} + x * sigmoid(-x));
    case UnaryFn::softplus: return sigmoid(x);
  }
  GRAFT_ASSERT(!"a known function");
  return T{};
}

template <class T>
T apply(BinaryFn fn, T a, T b) {
  switch (fn) {
    case BinaryFn::add: return a + b;
    case BinaryFn::sub: return a - b;
    case BinaryFn::mul: return a * b;
    case BinaryFn::div: return a / b;
  }
  GRAFT_ASSERT(!"a known function");
  return T{};
}

template <class From, class To>
To convert(From x) {
  if constexpr (std::is_same_v<From, To>) {
    return x;
  } else if constexpr (std::is_same_v<From, Bf16>) {
    return To(to_float(x));
  } else if constexpr (std::is_same_v<To, Bf16>) {
    return to_bf16(x);
  } else {
    return To(x);
  }
}

template <class From>
void cast_from(const TensorView& x, const TensorView& out) {
  const auto to = [&]<class To>() {
    for (std::int64_t i = 0; i < x.size(); ++i) out.as<To>()[i] = convert<From, To>(x.as<const From>()[i]);
  };
  if (out.type.dtype == DType::bf16) {
    to.template operator()<Bf16>();
  } else {
    with_type(out, to);
  }
}

}  // namespace

void run(const Unary& op, const Step& step) {
  if (!step.out[0]) return;
  with_type(step.in[0], [&]<class T>() {
    const T* x = step.in[0].as<const T>();
    T* out = step.out[0].as<T>();
    for (std::int64_t i = 0; i < step.in[0].size(); ++i) out[i] = apply(op.fn, T(op.alpha), x[i]);
  });
}

void run(const UnaryGrad& op, const Step& step) {
  if (!step.out[0]) return;
  with_type(step.in[0], [&]<class T>() {
    const T* x = step.in[0].as<const T>();
    const T* dout = step.in[1].as<const T>();
    T* dx = step.out[0].as<T>();
    for (std::int64_t i = 0; i < step.in[0].size(); ++i) dx[i] = dout[i] * derivative(op.fn, T(op.alpha), x[i]);
  });
}

void run(const Binary& op, const Step& step) {
  if (!step.out[0]) return;
  with_type(step.in[0], [&]<class T>() {
    const T* a = step.in[0].as<const T>();
    const T* b = step.in[1].as<const T>();
    T* out = step.out[0].as<T>();
    const std::int64_t rows = step.in[0].rows(), cols = step.in[0].cols();
    const Repeat repeat(step.in[1]);
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t j = 0; j < cols; ++j) out[i * cols + j] = apply(op.fn, a[i * cols + j], b[repeat.index(i, j)]);
    }
  });
}

void run(const Swiglu&, const Step& step) {
  if (!step.out[0]) return;
  with_type(step.in[0], [&]<class T>() {
    const T* gate = step.in[0].as<const T>();
    const T* up = step.in[1].as<const T>();
    T* out = step.out[0].as<T>();
    for (std::int64_t i = 0; i < step.in[0].size(); ++i) out[i] = apply(UnaryFn::silu, T{}, gate[i]) * up[i];
  });
}

void run(const SwigluGrad&, const Step& step) {
  with_type(step.in[0], [&]<class T>() {
    const T* gate = step.in[0].as<const T>();
    const T* up = step.in[1].as<const T>();
    const T* dout = step.in[2].as<const T>();
    T* dgate = step.out[0].as<T>();
    T* dup = step.out[1].as<T>();
    for (std::int64_t i = 0; i < step.in[0].size(); ++i) {
      const T g = gate[i], u = up[i], d = dout[i];
      if (dgate) dgate[i] = d * u * derivative(UnaryFn::silu, T{}, g);
      if (dup) dup[i] = d * apply(UnaryFn::silu, T{}, g);
    }
  });
}

void run(const Cast&, const Step& step) {
  if (!step.out[0]) return;
  if (step.in[0].type.dtype == DType::bf16) {
    cast_from<Bf16>(step.in[0], step.out[0]);
  } else {
    with_type(step.in[0], [&]<class From>() { cast_from<From>(step.in[0], step.out[0]); });
  }
}

void run(const Dropout& op, const Step& step) {
  if (!step.out[0]) return;
  with_type(step.in[0], [&]<class T>() {
    const T* x = step.in[0].as<const T>();
    T* out = step.out[0].as<T>();
    const std::uint32_t counter = u32_scalar(step.in[1]);
    const T keep_scale = T(1.0 / (1.0 - op.p));
    for (std::int64_t i = 0; i < step.in[0].size(); ++i) {
      const bool drop = philox::drops(op.p, op.seed, op.stream, counter, static_cast<std::uint64_t>(i));
      out[i] = drop ? T{0} : keep_scale * x[i];
    }
  });
}

}  // namespace graft::reference
