#include "tests/plain.h"

#include <cmath>
#include <numbers>
#include <stdexcept>

#include "graft/philox.h"

namespace graft::testing::plain {
namespace {

constexpr double kPi = std::numbers::pi;

double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }
double normal_cdf(double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); }

double value(UnaryFn fn, double x, double alpha) {
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
    case UnaryFn::relu: return x > 0 ? x : 0;
    case UnaryFn::gelu: return x * normal_cdf(x);
    case UnaryFn::gelu_tanh: return 0.5 * x * (1 + std::tanh(std::sqrt(2 / kPi) * (x + 0.044715 * x * x * x)));
    case UnaryFn::silu: return x * sigmoid(x);
    case UnaryFn::softplus: return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x));
  }
  throw std::logic_error("a function");
}

double derivative(UnaryFn fn, double x, double alpha) {
  switch (fn) {
    case UnaryFn::neg: return -1;
    case UnaryFn::scale: return alpha;
    case UnaryFn::add_scalar: return 1;
    case UnaryFn::exp: return std::exp(x);
    case UnaryFn::log: return 1 / x;
    case UnaryFn::sqrt: return 0.5 / std::sqrt(x);
    case UnaryFn::abs: return x > 0 ? 1 : x < 0 ? -1 : 0;
    case UnaryFn::tanh: return 1 / (std::cosh(x) * std::cosh(x));
    case UnaryFn::sigmoid: return sigmoid(x) * sigmoid(-x);
    case UnaryFn::relu: return x > 0 ? 1 : 0;
    case UnaryFn::gelu: return normal_cdf(x) + x * std::exp(-x * x / 2) / std::sqrt(2 * kPi);
    case UnaryFn::gelu_tanh: {
      const double c = std::sqrt(2 / kPi), u = c * (x + 0.044715 * x * x * x), du = c * (1 + 3 * 0.044715 * x * x);
      return 0.5 * (1 + std::tanh(u)) + 0.5 * x * du / (std::cosh(u) * std::cosh(u));
    }
    case UnaryFn::silu: return sigmoid(x) * (1 + x * sigmoid(-x));
    case UnaryFn::softplus: return sigmoid(x);
  }
  throw std::logic_error("a function");
}

/// Element (i, j) of b repeated over a matrix.
double repeated(const Tensor& b, std::int64_t i, std::int64_t j) { return b.at(b.rows() == 1 ? 0 : i, b.cols() == 1 ? 0 : j); }

/// The group of a reduction that element (i, j) falls into.
std::int64_t group(Axis axis, std::int64_t i, std::int64_t j) { return axis == Axis::all ? 0 : axis == Axis::rows ? j : i; }

/// To 8 significant bits, ties to even.
double bf16(double x) {
  if (x == 0 || !std::isfinite(x)) return x;
  int exponent = 0;
  std::frexp(x, &exponent);
  const double unit = std::ldexp(1.0, std::max(exponent - 8, -133));
  return std::nearbyint(x / unit) * unit;
}

template <class T>
Tensors run_or_nothing(const T& op, const Tensors& in, Tensors out) {
  if constexpr (std::is_same_v<T, Input> || std::is_same_v<T, Parameter> || std::is_same_v<T, State> || std::is_same_v<T, Constant>)
    return out;
  else
    return run(op, in, std::move(out));
}

}  // namespace

Tensors evaluate(const Op& op, const Tensors& in, const std::vector<TensorType>& types) {
  Tensors out;
  for (const TensorType& type : types)
    out.push_back({type.shape, std::vector<double>(static_cast<std::size_t>(type.shape.size()), 0.0)});
  return std::visit([&](const auto& o) { return run_or_nothing(o, in, std::move(out)); }, op);
}

Tensors run(const MatMul& op, const Tensors& in, Tensors out) {
  const std::int64_t inner = op.transpose_a ? in[0].rows() : in[0].cols();
  for (std::int64_t i = 0; i < out[0].rows(); ++i)
    for (std::int64_t j = 0; j < out[0].cols(); ++j) {
      double sum = in.size() < 3 ? 0.0 : in[2].shape.rank() == 2 ? in[2].at(i, j) : in[2][j];
      for (std::int64_t k = 0; k < inner; ++k)
        sum += (op.transpose_a ? in[0].at(k, i) : in[0].at(i, k)) * (op.transpose_b ? in[1].at(j, k) : in[1].at(k, j));
      out[0].at(i, j) = sum;
    }
  return out;
}

Tensors run(const Unary& op, const Tensors& in, Tensors out) {
  for (std::int64_t i = 0; i < in[0].shape.size(); ++i) out[0][i] = value(op.fn, in[0][i], op.alpha);
  return out;
}

Tensors run(const UnaryGrad& op, const Tensors& in, Tensors out) {
  for (std::int64_t i = 0; i < in[0].shape.size(); ++i) out[0][i] = in[1][i] * derivative(op.fn, in[0][i], op.alpha);
  return out;
}

Tensors run(const Binary& op, const Tensors& in, Tensors out) {
  for (std::int64_t i = 0; i < out[0].rows(); ++i)
    for (std::int64_t j = 0; j < out[0].cols(); ++j) {
      const double a = in[0].at(i, j), b = repeated(in[1], i, j);
      switch (op.fn) {
        case BinaryFn::add: out[0].at(i, j) = a + b; break;
        case BinaryFn::sub: out[0].at(i, j) = a - b; break;
        case BinaryFn::mul: out[0].at(i, j) = a * b; break;
        case BinaryFn::div: out[0].at(i, j) = a / b; break;
      }
    }
  return out;
}

Tensors run(const Swiglu&, const Tensors& in, Tensors out) {
  for (std::int64_t i = 0; i < in[0].shape.size(); ++i) out[0][i] = in[0][i] * sigmoid(in[0][i]) * in[1][i];
  return out;
}

Tensors run(const SwigluGrad&, const Tensors& in, Tensors out) {
  for (std::int64_t i = 0; i < in[0].shape.size(); ++i) {
    out[0][i] = in[2][i] * in[1][i] * derivative(UnaryFn::silu, in[0][i], 0);
    out[1][i] = in[2][i] * in[0][i] * sigmoid(in[0][i]);
  }
  return out;
}

Tensors run(const Cast& op, const Tensors& in, Tensors out) {
  for (std::int64_t i = 0; i < in[0].shape.size(); ++i) out[0][i] = op.dtype == DType::bf16 ? bf16(in[0][i]) : in[0][i];
  return out;
}

Tensors run(const StopGradient&, const Tensors& in, Tensors) { return in; }

Tensors run(const Dropout& op, const Tensors& in, Tensors out) {
  for (std::int64_t i = 0; i < in[0].shape.size(); ++i) {
    const bool dropped =
        philox::drops(op.p, op.seed, op.stream, static_cast<std::uint32_t>(in[1][0]), static_cast<std::uint64_t>(i));
    out[0][i] = dropped ? 0.0 : in[0][i] / (1 - op.p);
  }
  return out;
}

/// NaN is larger than all.
double larger(double a, double b) { return std::isnan(b) || b > a ? b : a; }

Tensors run(const Reduce& op, const Tensors& in, Tensors out) {
  const std::int64_t groups = out[0].shape.size(), count = in[0].shape.size() / groups;
  if (op.fn == ReduceFn::max) out[0].values.assign(out[0].values.size(), -INFINITY);
  for (std::int64_t i = 0; i < in[0].rows(); ++i)
    for (std::int64_t j = 0; j < in[0].cols(); ++j) {
      double& y = out[0][group(op.axis, i, j)];
      const double x = in[0].at(i, j);
      switch (op.fn) {
        case ReduceFn::sum: y += x; break;
        case ReduceFn::mean: y += x / static_cast<double>(count); break;
        case ReduceFn::max: y = larger(y, x); break;
      }
    }
  return out;
}

Tensors run(const ReduceMaxGrad& op, const Tensors& in, Tensors out) {
  Tensor best = in[1];
  best.values.assign(best.values.size(), -INFINITY);
  for (std::int64_t i = 0; i < in[0].rows(); ++i)
    for (std::int64_t j = 0; j < in[0].cols(); ++j)
      best[group(op.axis, i, j)] = larger(best[group(op.axis, i, j)], in[0].at(i, j));
  std::vector<char> taken(best.values.size(), 0);
  for (std::int64_t i = 0; i < in[0].rows(); ++i)
    for (std::int64_t j = 0; j < in[0].cols(); ++j) {
      const std::int64_t g = group(op.axis, i, j);
      if ((in[0].at(i, j) != best[g] && !(std::isnan(in[0].at(i, j)) && std::isnan(best[g]))) || std::exchange(taken[static_cast<std::size_t>(g)], 1)) continue;
      out[0].at(i, j) = in[1][g];
    }
  return out;
}

Tensors run(const Broadcast&, const Tensors& in, Tensors out) {
  for (std::int64_t i = 0; i < out[0].rows(); ++i)
    for (std::int64_t j = 0; j < out[0].cols(); ++j) out[0].at(i, j) = repeated(in[0], i, j);
  return out;
}

Tensors run(const Reshape&, const Tensors& in, Tensors out) {
  out[0].values = in[0].values;
  return out;
}

Tensors run(const Transpose&, const Tensors& in, Tensors out) {
  for (std::int64_t i = 0; i < in[0].rows(); ++i)
    for (std::int64_t j = 0; j < in[0].cols(); ++j) out[0].at(j, i) = in[0].at(i, j);
  return out;
}

Tensors run(const Slice& op, const Tensors& in, Tensors out) {
  for (std::int64_t i = 0; i < out[0].rows(); ++i)
    for (std::int64_t j = 0; j < out[0].cols(); ++j) out[0].at(i, j) = in[0].at(op.row + i, op.col + j);
  return out;
}

Tensors run(const Pad& op, const Tensors& in, Tensors out) {
  for (std::int64_t i = 0; i < in[0].rows(); ++i)
    for (std::int64_t j = 0; j < in[0].cols(); ++j) out[0].at(op.row + i, op.col + j) = in[0].at(i, j);
  return out;
}

Tensors run(const Concat& op, const Tensors& in, Tensors out) {
  std::int64_t begin = 0;
  for (const Tensor& part : in) {
    for (std::int64_t i = 0; i < part.rows(); ++i)
      for (std::int64_t j = 0; j < part.cols(); ++j)
        (op.axis == Axis::rows ? out[0].at(begin + i, j) : out[0].at(i, begin + j)) = part.at(i, j);
    begin += op.axis == Axis::rows ? part.rows() : part.cols();
  }
  return out;
}

}  // namespace graft::testing::plain
