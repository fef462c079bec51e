#include <cmath>

#include "kernels/reference/kernels.h"
#include "kernels/reference/views.h"

namespace graft::reference {

void run(const RmsNorm& op, const Step& step) {
  with_type(step.in[0], [&]<class T>() {
    const std::int64_t cols = step.in[0].cols();
    const T* weight = step.in[1].as<const T>();
    for (std::int64_t i = 0; i < step.in[0].rows(); ++i) {
      const T* x = step.in[0].as<const T>() + i * cols;
      double squares = 0.0;
      for (std::int64_t j = 0; j < cols; ++j) squares += static_cast<double>(x[j]) * x[j];
      const T rstd = static_cast<T>(1.0 / std::sqrt(squares / static_cast<double>(cols) + op.eps));
      if (step.out[1]) step.out[1].as<T>()[i] = rstd;
      if (!step.out[0]) continue;
      T* out = step.out[0].as<T>() + i * cols;
      for (std::int64_t j = 0; j < cols; ++j) out[j] = x[j] * rstd * weight[j];
    }
  });
}

void run(const RmsNormGrad&, const Step& step) {
  with_type(step.in[0], [&]<class T>() {
    const auto x = const_matrix<T>(step.in[0]);
    const T* weight = step.in[1].as<const T>();
    const T* rstd = step.in[2].as<const T>();
    const auto dout = const_matrix<T>(step.in[3]);
    const std::int64_t rows = x.rows(), cols = x.cols();
    // With n = x·rstd and g = dout ∘ weight:  dx = rstd·(g − n·mean(g ∘ n)),  dweight = Σ_rows dout ∘ n
    for (std::int64_t j = 0; step.out[1] && j < cols; ++j) {
      double sum = 0.0;
      for (std::int64_t i = 0; i < rows; ++i) sum += static_cast<double>(dout(i, j)) * (x(i, j) * rstd[i]);
      step.out[1].as<T>()[j] = static_cast<T>(sum);
    }
    // Last: dx may lie where x, dout or the addend does.
    const T* addend = step.in.size() > 4 ? step.in[4].as<const T>() : nullptr;
    if (step.out[0]) {
      auto dx = matrix<T>(step.out[0]);
      for (std::int64_t i = 0; i < rows; ++i) {
        double sum = 0.0;
        for (std::int64_t j = 0; j < cols; ++j) sum += static_cast<double>(dout(i, j) * weight[j]) * (x(i, j) * rstd[i]);
        const T mean = static_cast<T>(sum / static_cast<double>(cols));
        for (std::int64_t j = 0; j < cols; ++j) {
          const T own = rstd[i] * (dout(i, j) * weight[j] - x(i, j) * rstd[i] * mean);
          dx(i, j) = addend == nullptr ? own : addend[i * cols + j] + own;
        }
      }
    }
  });
}

void run(const LayerNorm& op, const Step& step) {
  with_type(step.in[0], [&]<class T>() {
    const std::int64_t cols = step.in[0].cols();
    const T* weight = step.in[1].as<const T>();
    const T* bias = step.in[2].as<const T>();
    for (std::int64_t i = 0; i < step.in[0].rows(); ++i) {
      const T* x = step.in[0].as<const T>() + i * cols;
      double sum = 0.0, squares = 0.0;
      for (std::int64_t j = 0; j < cols; ++j) sum += static_cast<double>(x[j]);
      const double mean = sum / static_cast<double>(cols);
      for (std::int64_t j = 0; j < cols; ++j) squares += (x[j] - mean) * (x[j] - mean);
      const double rstd = 1.0 / std::sqrt(squares / static_cast<double>(cols) + op.eps);
      if (step.out[1]) step.out[1].as<T>()[i] = static_cast<T>(mean);
      if (step.out[2]) step.out[2].as<T>()[i] = static_cast<T>(rstd);
      if (!step.out[0]) continue;
      T* out = step.out[0].as<T>() + i * cols;
      for (std::int64_t j = 0; j < cols; ++j) out[j] = static_cast<T>((x[j] - mean) * rstd) * weight[j] + bias[j];
    }
  });
}

void run(const LayerNormGrad&, const Step& step) {
  with_type(step.in[0], [&]<class T>() {
    const auto x = const_matrix<T>(step.in[0]);
    const T* weight = step.in[1].as<const T>();
    const T* mean = step.in[2].as<const T>();
    const T* rstd = step.in[3].as<const T>();
    const auto dout = const_matrix<T>(step.in[4]);
    const std::int64_t rows = x.rows(), cols = x.cols();
    const auto normed = [&](std::int64_t i, std::int64_t j) { return (x(i, j) - mean[i]) * rstd[i]; };
    // With n = (x − mean)·rstd and g = dout ∘ weight:  dx = rstd·(g − mean(g) − n·mean(g ∘ n))
    for (std::int64_t j = 0; j < cols; ++j) {
      double dweight = 0.0, dbias = 0.0;
      for (std::int64_t i = 0; i < rows; ++i) {
        dweight += static_cast<double>(dout(i, j)) * normed(i, j);
        dbias += static_cast<double>(dout(i, j));
      }
      if (step.out[1]) step.out[1].as<T>()[j] = static_cast<T>(dweight);
      if (step.out[2]) step.out[2].as<T>()[j] = static_cast<T>(dbias);
    }
    // Last: dx may lie where x, dout or the addend does.
    const T* addend = step.in.size() > 5 ? step.in[5].as<const T>() : nullptr;
    if (step.out[0]) {
      auto dx = matrix<T>(step.out[0]);
      for (std::int64_t i = 0; i < rows; ++i) {
        double sum = 0.0, sum_normed = 0.0;
        for (std::int64_t j = 0; j < cols; ++j) {
          const double g = static_cast<double>(dout(i, j) * weight[j]);
          sum += g;
          sum_normed += g * normed(i, j);
        }
        const T mean_g = static_cast<T>(sum / static_cast<double>(cols));
        const T mean_gn = static_cast<T>(sum_normed / static_cast<double>(cols));
        for (std::int64_t j = 0; j < cols; ++j) {
          const T own = rstd[i] * (dout(i, j) * weight[j] - mean_g - normed(i, j) * mean_gn);
          dx(i, j) = addend == nullptr ? own : addend[i * cols + j] + own;
        }
      }
    }
  });
}

}  // namespace graft::reference
