#include <cmath>
#include <cstring>
#include <limits>

#include "graft/schedule.h"
#include "kernels/reference/kernels.h"
#include "kernels/reference/views.h"

// Outputs are the states among the inputs: they are written there, also when nothing reads the output.
namespace graft::reference {
namespace {

template <class T>
T scalar(const TensorView& x) {
  return *x.as<const T>();
}

}  // namespace

void run(const Assign&, const Step& step) { std::memmove(step.in[1].data, step.in[0].data, step.in[0].type.bytes()); }

void run(const GlobalNorm&, const Step& step) {
  if (!step.out[0]) return;
  with_type(step.in[0], [&]<class T>() {
    double squares = 0.0;
    for (const TensorView& x : step.in) {
      for (std::int64_t i = 0; i < x.size(); ++i) squares += static_cast<double>(x.as<const T>()[i]) * x.as<const T>()[i];
    }
    *step.out[0].as<T>() = static_cast<T>(std::sqrt(squares));
  });
}

void run(const UpdateScale& op, const Step& step) {
  if (!step.out[0]) return;
  with_type(step.in[0], [&]<class T>() {
    const T norm = scalar<T>(step.in[0]);
    const bool finite = std::isfinite(norm) && (step.in.size() == 1 || std::isfinite(scalar<T>(step.in[1])));
    const bool clip = op.max_norm > 0.0 && norm > op.max_norm;
    *step.out[0].as<T>() = !finite ? std::numeric_limits<T>::quiet_NaN() : clip ? static_cast<T>(op.max_norm / norm) : T{1};
  });
}

void run(const CountStep&, const Step& step) {
  with_type(step.in[2], [&]<class T>() {
    const TensorView& count = std::isfinite(scalar<T>(step.in[2])) ? step.in[0] : step.in[1];
    ++*count.as<std::uint32_t>();
  });
}

void run(const Increment&, const Step& step) { ++*step.in[0].as<std::uint32_t>(); }

void run(const LearningRate& op, const Step& step) {
  if (!step.out[0]) return;
  with_type(step.out[0],
            [&]<class T>() { *step.out[0].as<T>() = static_cast<T>(learning_rate_at(op.schedule, u32_scalar(step.in[0]))); });
}

void run(const SgdUpdate& op, const Step& step) {
  with_type(step.in[0], [&]<class T>() {
    T* p = step.in[0].as<T>();
    const T* grad = step.in[1].as<const T>();
    T* m = step.in[2].as<T>();
    const T rate = scalar<T>(step.in[3]) * static_cast<T>(op.lr_scale);
    const T scale = scalar<T>(step.in[4]);
    const T momentum = static_cast<T>(op.momentum), decay = static_cast<T>(op.weight_decay);
    if (!std::isfinite(scale)) return;
    for (std::int64_t i = 0; i < step.in[0].size(); ++i) {
      const T g = scale * grad[i] + decay * p[i];
      m[i] = momentum * m[i] + g;
      p[i] -= rate * (op.nesterov ? g + momentum * m[i] : m[i]);
    }
  });
}

void run(const AdamUpdate& op, const Step& step) {
  with_type(step.in[0], [&]<class T>() {
    T* p = step.in[0].as<T>();
    const T* grad = step.in[1].as<const T>();
    T* m = step.in[2].as<T>();
    T* v = step.in[3].as<T>();
    const double t = static_cast<double>(u32_scalar(step.in[4])) + 1.0;
    const T rate = scalar<T>(step.in[5]) * static_cast<T>(op.lr_scale);
    const T scale = scalar<T>(step.in[6]);
    const T beta1 = static_cast<T>(op.beta1), rest1 = static_cast<T>(1.0 - op.beta1);
    const T beta2 = static_cast<T>(op.beta2), rest2 = static_cast<T>(1.0 - op.beta2);
    const T correction1 = static_cast<T>(1.0 / (1.0 - std::pow(op.beta1, t)));
    const T correction2 = static_cast<T>(1.0 / (1.0 - std::pow(op.beta2, t)));
    const T eps = static_cast<T>(op.eps), decay = static_cast<T>(op.weight_decay);
    if (!std::isfinite(scale)) return;
    for (std::int64_t i = 0; i < step.in[0].size(); ++i) {
      const T g = op.decoupled ? scale * grad[i] : scale * grad[i] + decay * p[i];
      m[i] = beta1 * m[i] + rest1 * g;
      v[i] = beta2 * v[i] + rest2 * g * g;
      const T move = m[i] * correction1 / (std::sqrt(v[i] * correction2) + eps);
      p[i] -= rate * (op.decoupled ? decay * p[i] + move : move);
    }
  });
}

void run(const LionUpdate& op, const Step& step) {
  with_type(step.in[0], [&]<class T>() {
    T* p = step.in[0].as<T>();
    const T* grad = step.in[1].as<const T>();
    T* m = step.in[2].as<T>();
    const T rate = scalar<T>(step.in[3]) * static_cast<T>(op.lr_scale);
    const T scale = scalar<T>(step.in[4]);
    const T beta1 = static_cast<T>(op.beta1), rest1 = static_cast<T>(1.0 - op.beta1);
    const T beta2 = static_cast<T>(op.beta2), rest2 = static_cast<T>(1.0 - op.beta2);
    const T decay = static_cast<T>(op.weight_decay);
    if (!std::isfinite(scale)) return;
    for (std::int64_t i = 0; i < step.in[0].size(); ++i) {
      const T g = scale * grad[i];
      const T mix = beta1 * m[i] + rest1 * g;
      const T sign = T(mix > T{0}) - T(mix < T{0});
      p[i] -= rate * (decay * p[i] + sign);
      m[i] = beta2 * m[i] + rest2 * g;
    }
  });
}

}  // namespace graft::reference
