#include <cmath>

#include "kernels/reference/kernels.h"
#include "kernels/reference/row_lse.h"
#include "kernels/reference/views.h"

namespace graft::reference {

void run(const Embedding&, const Step& step) {
  if (!step.out[0]) return;
  with_type(step.in[0], [&]<class T>() {
    const auto table = const_matrix<T>(step.in[0]);
    const std::uint32_t* ids = step.in[1].as<const std::uint32_t>();
    auto out = matrix<T>(step.out[0]);
    for (std::int64_t i = 0; i < out.rows(); ++i) out.row(i) = table.row(ids[i]);
  });
}

void run(const EmbeddingGrad&, const Step& step) {
  if (!step.out[0]) return;
  with_type(step.in[1], [&]<class T>() {
    const std::uint32_t* ids = step.in[0].as<const std::uint32_t>();
    const auto dout = const_matrix<T>(step.in[1]);
    auto dtable = matrix<T>(step.out[0]);
    if (step.in.size() > 2)
      dtable = const_matrix<T>(step.in[2]);
    else
      dtable.setZero();
    for (std::int64_t i = 0; i < dout.rows(); ++i) dtable.row(ids[i]) += dout.row(i);
  });
}

void run(const CrossEntropy& op, const Step& step) {
  with_type(step.in[0], [&]<class T>() {
    const std::int64_t rows = step.in[0].rows(), cols = step.in[0].cols();
    const std::uint32_t* labels = step.in[1].as<const std::uint32_t>();
    double loss = 0.0;
    std::int64_t counted = 0;
    for (std::int64_t i = 0; i < rows; ++i) {
      const T* x = step.in[0].as<const T>() + i * cols;
      const RowLse<T> lse(x, cols);
      if (step.out[1]) step.out[1].as<T>()[i] = lse.value();
      if (labels[i] == op.ignore_index) continue;
      ++counted;
      // x is taken relative to the maximum: lse and x[label] may be large and close
      loss += std::log(lse.sum) - (1.0 - op.label_smoothing) * static_cast<double>(x[labels[i]] - lse.max);
      if (op.label_smoothing == 0.0) continue;
      double sum = 0.0;
      for (std::int64_t j = 0; j < cols; ++j) sum += static_cast<double>(x[j] - lse.max);
      loss -= op.label_smoothing * sum / static_cast<double>(cols);
    }
    if (op.reduction == Reduction::mean && counted > 0) loss /= static_cast<double>(counted);
    if (step.out[0]) *step.out[0].as<T>() = static_cast<T>(loss);
    if (step.out[2]) *step.out[2].as<T>() = static_cast<T>(counted);
  });
}

void run(const CrossEntropyGrad& op, const Step& step) {
  if (!step.out[0]) return;
  with_type(step.in[0], [&]<class T>() {
    const std::int64_t rows = step.in[0].rows(), cols = step.in[0].cols();
    const std::uint32_t* labels = step.in[1].as<const std::uint32_t>();
    const T* lse = step.in[2].as<const T>();
    const T counted = *step.in[3].as<const T>();
    const T dloss = *step.in[4].as<const T>();
    const T scale = op.loss.reduction == Reduction::mean ? dloss / counted : dloss;
    const T smoothing = static_cast<T>(op.loss.label_smoothing);
    for (std::int64_t i = 0; i < rows; ++i) {
      const T* x = step.in[0].as<const T>() + i * cols;
      T* dx = step.out[0].as<T>() + i * cols;
      for (std::int64_t j = 0; j < cols; ++j) {
        const T target = (j == labels[i] ? T{1} - smoothing : T{0}) + smoothing / static_cast<T>(cols);
        dx[j] = labels[i] == op.loss.ignore_index ? T{0} : scale * (std::exp(x[j] - lse[i]) - target);
      }
    }
  });
}

}  // namespace graft::reference
