#include <cmath>

#include "graft/error.h"
#include "graft/philox.h"
#include "kernels/cpu/map.h"
#include "kernels/cpu/vector_math.h"
#include "kernels/cpu/views.h"

namespace graft::cpu {
namespace {

template <class F>
GRAFT_INLINE Vec lane_by_lane(Vec x, const F& f) {
  for (int i = 0; i < kLanes; ++i) x[i] = f(x[i]);
  return x;
}

/// sigmoid(x) and sigmoid(−x), each as precise as the other.
struct Sigmoids {
  Vec plus, minus;
};
GRAFT_INLINE Sigmoids sigmoids(Vec x) {
  const Vec e = exp(-abs(x)), large = 1.0f / (1.0f + e), small = e * large;
  return {x < 0.0f ? small : large, x < 0.0f ? large : small};
}

constexpr float kTanhScale = 0.797884561f, kTanhCubic = 0.044715f;  // √(2/π)
constexpr float kInverseSqrt2Pi = 0.398942280f;

/// Calls with(f) with the function itself, so that each has a loop of its own.
template <class With>
void with_function(UnaryFn fn, float alpha, const With& with) {
  switch (fn) {
    case UnaryFn::neg: return with([](Vec x) { return -x; });
    case UnaryFn::scale: return with([=](Vec x) { return alpha * x; });
    case UnaryFn::add_scalar: return with([=](Vec x) { return x + alpha; });
    case UnaryFn::exp: return with([](Vec x) { return exp(x); });
    case UnaryFn::log: return with([](Vec x) { return lane_by_lane(x, [](float v) { return std::log(v); }); });
    case UnaryFn::sqrt: return with([](Vec x) { return sqrt(x); });
    case UnaryFn::abs: return with([](Vec x) { return abs(x); });
    case UnaryFn::tanh: return with([](Vec x) { return tanh(x); });
    case UnaryFn::sigmoid: return with([](Vec x) { return sigmoid(x); });
    case UnaryFn::relu: return with([](Vec x) { return x < 0.0f ? Vec{} : x; });
    case UnaryFn::gelu: return with([](Vec x) { return x * normal_cdf(x); });
    case UnaryFn::gelu_tanh: return with([](Vec x) { return 0.5f * x * (1.0f + tanh(kTanhScale * (x + kTanhCubic * x * x * x))); });
    case UnaryFn::silu: return with([](Vec x) { return x * sigmoid(x); });
    case UnaryFn::softplus:
      return with(
          [](Vec x) { return lane_by_lane(x, [](float v) { return std::max(v, 0.0f) + std::log1p(std::exp(-std::abs(v))); }); });
  }
  GRAFT_ASSERT(!"a known function");
}

template <class With>
void with_derivative(UnaryFn fn, float alpha, const With& with) {
  const auto one_or_zero = [](auto mask) { return mask ? broadcast(1.0f) : Vec{}; };
  switch (fn) {
    case UnaryFn::neg: return with([](Vec) { return broadcast(-1.0f); });
    case UnaryFn::scale: return with([=](Vec) { return broadcast(alpha); });
    case UnaryFn::add_scalar: return with([](Vec) { return broadcast(1.0f); });
    case UnaryFn::exp: return with([](Vec x) { return exp(x); });
    case UnaryFn::log: return with([](Vec x) { return 1.0f / x; });
    case UnaryFn::sqrt: return with([](Vec x) { return 0.5f / sqrt(x); });
    case UnaryFn::abs: return with([=](Vec x) { return one_or_zero(x > 0.0f) - one_or_zero(x < 0.0f); });
    case UnaryFn::tanh:
      return with([](Vec x) {
        const Sigmoids s = sigmoids(x + x);  // 1 − tanh² = 4·sigmoid(2x)·sigmoid(−2x)
        return 4.0f * s.plus * s.minus;
      });
    case UnaryFn::sigmoid:
      return with([](Vec x) {
        const Sigmoids s = sigmoids(x);
        return s.plus * s.minus;
      });
    case UnaryFn::relu: return with([=](Vec x) { return one_or_zero(x > 0.0f); });
    case UnaryFn::gelu: return with([](Vec x) { return normal_cdf(x) + x * (kInverseSqrt2Pi * exp(-0.5f * x * x)); });
    case UnaryFn::gelu_tanh:
      return with([](Vec x) {
        const Vec t = tanh(kTanhScale * (x + kTanhCubic * x * x * x)), inner = kTanhScale * (1.0f + 3.0f * kTanhCubic * x * x);
        return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * inner;
      });
    case UnaryFn::silu:
      return with([](Vec x) {
        const Sigmoids s = sigmoids(x);
        return s.plus * (1.0f + x * s.minus);
      });
    case UnaryFn::softplus: return with([](Vec x) { return sigmoid(x); });
  }
  GRAFT_ASSERT(!"a known function");
}

template <class With>
void with_function(BinaryFn fn, const With& with) {
  switch (fn) {
    case BinaryFn::add: return with([](Vec a, Vec b) { return a + b; });
    case BinaryFn::sub: return with([](Vec a, Vec b) { return a - b; });
    case BinaryFn::mul: return with([](Vec a, Vec b) { return a * b; });
    case BinaryFn::div: return with([](Vec a, Vec b) { return a / b; });
  }
  GRAFT_ASSERT(!"a known function");
}

typedef std::uint64_t Words __attribute__((vector_size(kLanes * 4)));
constexpr int kGroups = kLanes / 2;  // of four elements each, in a vector of Words

/// Random bits of 4·kGroups elements from number 4·group on, as philox::bits, in order.
void philox_bits(std::uint64_t seed, std::uint32_t stream, std::uint32_t counter, std::uint64_t group, std::uint32_t* bits) {
  constexpr std::uint64_t kLow = 0xffffffffu;
  Words number;
  for (int i = 0; i < kGroups; ++i) number[i] = group + static_cast<std::uint64_t>(i);
  Words c0 = number & kLow, c1 = number >> 32, c2 = Words{} + stream, c3 = Words{} + counter;
  std::uint32_t k0 = static_cast<std::uint32_t>(seed), k1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const Words p0 = c0 * 0xD2511F53u, p1 = c2 * 0xCD9E8D57u;
    c0 = (p1 >> 32) ^ c1 ^ k0;
    c1 = p1 & kLow;
    c2 = (p0 >> 32) ^ c3 ^ k1;
    c3 = p0 & kLow;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  for (int i = 0; i < kGroups; ++i) {
    bits[4 * i] = static_cast<std::uint32_t>(c0[i]);
    bits[4 * i + 1] = static_cast<std::uint32_t>(c1[i]);
    bits[4 * i + 2] = static_cast<std::uint32_t>(c2[i]);
    bits[4 * i + 3] = static_cast<std::uint32_t>(c3[i]);
  }
}

}  // namespace

void run(const Unary& op, const Step& step, Context& context) {
  if (is_f64(step)) return reference::run(op, step);
  if (!step.out[0]) return;
  with_function(op.fn, static_cast<float>(op.alpha), [&](const auto& f) {
    with_types([&]<class T>() { map(context.threads, step.out[0].size(), output<T>(step), f, input<T>(step, 0)); }, step.out[0]);
  });
}

void run(const UnaryGrad& op, const Step& step, Context& context) {
  if (is_f64(step)) return reference::run(op, step);
  if (!step.out[0]) return;
  with_derivative(op.fn, static_cast<float>(op.alpha), [&](const auto& f) {
    const auto grad = [&](Vec x, Vec dout) { return dout * f(x); };
    with_types(
        [&]<class T>() { map(context.threads, step.out[0].size(), output<T>(step), grad, input<T>(step, 0), input<T>(step, 1)); },
        step.out[0]);
  });
}

namespace {

template <class T, class F>
void map_pairs(const F& f, const Step& step, const Context& context) {
  const TensorView &a = step.in[0], &b = step.in[1];
  const T *x = input<T>(step, 0), *y = input<T>(step, 1);
  T* out = output<T>(step);
  const std::int64_t cols = a.cols();
  if (b.size() == a.size()) return map(context.threads, a.size(), out, f, x, y);
  if (b.size() == 1) {
    const Vec one = broadcast(as_float(*y));
    return map(
        context.threads, a.size(), out, [&](Vec v) { return f(v, one); }, x);
  }
  const bool to_rows = b.rows() == 1;
  for_each_row(context.threads, a.rows(), cols, [&](std::int64_t row) {
    const std::int64_t at = row * cols;
    const Vec one = broadcast(to_rows ? 0.0f : as_float(y[row]));
    for_each_vector(0, cols,
                    [&](std::int64_t, const auto& get, const auto& put) { put(out + at, f(get(x + at), to_rows ? get(y) : one)); });
  });
}

}  // namespace

void run(const Binary& op, const Step& step, Context& context) {
  if (is_f64(step)) return reference::run(op, step);
  if (!step.out[0]) return;
  with_function(op.fn, [&](const auto& f) { with_types([&]<class T>() { map_pairs<T>(f, step, context); }, step.out[0]); });
}

void run(const Swiglu& op, const Step& step, Context& context) {
  if (is_f64(step)) return reference::run(op, step);
  if (!step.out[0]) return;
  const auto f = [](Vec gate, Vec up) { return gate * sigmoid(gate) * up; };
  with_types([&]<class T>() { map(context.threads, step.out[0].size(), output<T>(step), f, input<T>(step, 0), input<T>(step, 1)); },
             step.out[0]);
}

void run(const SwigluGrad& op, const Step& step, Context& context) {
  if (is_f64(step)) return reference::run(op, step);
  with_types(
      [&]<class T>() {
        const T *gate = input<T>(step, 0), *up = input<T>(step, 1), *dout = input<T>(step, 2);
        T *dgate = output<T>(step, 0), *dup = output<T>(step, 1);
        parallel_ranges(context.threads, step.in[0].size(), kElementGrain, [&](std::int64_t begin, std::int64_t end) {
          for_each_vector(begin, end, [&](std::int64_t, const auto& get, const auto& put) {
            const Vec g = get(gate), u = get(up), d = get(dout);
            const Sigmoids s = sigmoids(g);
            if (dgate != nullptr) put(dgate, d * u * (s.plus * (1.0f + g * s.minus)));
            if (dup != nullptr) put(dup, d * (g * s.plus));
          });
        });
      },
      step.in[0]);
}

void run(const Dropout& op, const Step& step, Context& context) {
  if (is_f64(step)) return reference::run(op, step);
  if (!step.out[0]) return;
  const std::uint32_t counter = *step.in[1].as<const std::uint32_t>();
  const float keep_scale = static_cast<float>(1.0 / (1.0 - op.p));
  // uniform(bits) < p is bits < p·2³², both sides being exact.
  const auto bound = static_cast<std::uint64_t>(std::ceil(op.p * 4294967296.0));
  constexpr std::int64_t kPiece = 4 * kGroups;
  with_types(
      [&]<class T>() {
        const T* x = input<T>(step, 0);
        T* out = output<T>(step);
        parallel_ranges(context.threads, step.out[0].size(), 4096, [&](std::int64_t begin, std::int64_t end) {
          std::uint32_t bits[kPiece];
          for (std::int64_t i = begin; i < end; i += kPiece) {
            philox_bits(op.seed, op.stream, counter, static_cast<std::uint64_t>(i) / 4, bits);
            const std::int64_t count = std::min(kPiece, end - i);
            for (std::int64_t j = 0; j < count; ++j)
              put_float(out[i + j], bits[j] < bound ? 0.0f : keep_scale * as_float(x[i + j]));
          }
        });
      },
      step.out[0]);
}

}  // namespace graft::cpu
