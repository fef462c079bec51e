#include <cmath>

#include "kernels/reference/kernels.h"
#include "kernels/reference/row_lse.h"
#include "kernels/reference/views.h"

namespace graft::reference {

void run(const Softmax&, const Step& step) {
  if (!step.out[0]) return;
  with_type(step.in[0], [&]<class T>() {
    const std::int64_t cols = step.in[0].cols();
    for (std::int64_t i = 0; i < step.in[0].rows(); ++i) {
      const T* x = step.in[0].as<const T>() + i * cols;
      T* out = step.out[0].as<T>() + i * cols;
      const RowLse<T> lse(x, cols);
      for (std::int64_t j = 0; j < cols; ++j) out[j] = static_cast<T>(std::exp(x[j] - lse.max) / lse.sum);
    }
  });
}

void run(const SoftmaxGrad&, const Step& step) {
  if (!step.out[0]) return;
  with_type(step.in[0], [&]<class T>() {
    const std::int64_t cols = step.in[0].cols();
    for (std::int64_t i = 0; i < step.in[0].rows(); ++i) {
      const T* out = step.in[0].as<const T>() + i * cols;
      const T* dout = step.in[1].as<const T>() + i * cols;
      T* dx = step.out[0].as<T>() + i * cols;
      double dot = 0.0;
      for (std::int64_t j = 0; j < cols; ++j) dot += static_cast<double>(dout[j]) * out[j];
      for (std::int64_t j = 0; j < cols; ++j) dx[j] = static_cast<T>(out[j] * (dout[j] - dot));
    }
  });
}

void run(const LogSoftmax&, const Step& step) {
  if (!step.out[0]) return;
  with_type(step.in[0], [&]<class T>() {
    const std::int64_t cols = step.in[0].cols();
    for (std::int64_t i = 0; i < step.in[0].rows(); ++i) {
      const T* x = step.in[0].as<const T>() + i * cols;
      T* out = step.out[0].as<T>() + i * cols;
      const RowLse<T> lse(x, cols);
      const double log_sum = std::log(lse.sum);
      for (std::int64_t j = 0; j < cols; ++j) out[j] = static_cast<T>(x[j] - lse.max - log_sum);
    }
  });
}

void run(const LogSoftmaxGrad&, const Step& step) {
  if (!step.out[0]) return;
  with_type(step.in[0], [&]<class T>() {
    const std::int64_t cols = step.in[0].cols();
    for (std::int64_t i = 0; i < step.in[0].rows(); ++i) {
      const T* out = step.in[0].as<const T>() + i * cols;
      const T* dout = step.in[1].as<const T>() + i * cols;
      T* dx = step.out[0].as<T>() + i * cols;
      double sum = 0.0;
      for (std::int64_t j = 0; j < cols; ++j) sum += static_cast<double>(dout[j]);
      for (std::int64_t j = 0; j < cols; ++j) dx[j] = static_cast<T>(dout[j] - std::exp(out[j]) * sum);
    }
  });
}

}  // namespace graft::reference
