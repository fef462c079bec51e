#include <cmath>

#include "kernels/reference/kernels.h"
#include "kernels/reference/row_lse.h"
#include "kernels/reference/views.h"

namespace graft::reference {
namespace {

/// Adds a row's loss to `loss` and itself to `counted`, unless it is ignored; `lse`, if it is there, gets the row's. x[j] is logit j.
template <class T, class Logits>
void add_loss(const CrossEntropy& op, const Logits& x, std::int64_t cols, std::uint32_t label, T* lse_out, double& loss,
              std::int64_t& counted) {
  const RowLse<T> lse(x, cols);
  if (lse_out != nullptr) *lse_out = lse.value();
  if (label == op.ignore_index) return;
  ++counted;
  // x is taken relative to the maximum: lse and x[label] may be large and close
  loss += std::log(lse.sum) - (1.0 - op.label_smoothing) * static_cast<double>(x[label] - lse.max);
  if (op.label_smoothing == 0.0) return;
  double sum = 0.0;
  for (std::int64_t j = 0; j < cols; ++j) sum += static_cast<double>(x[j] - lse.max);
  loss -= op.label_smoothing * sum / static_cast<double>(cols);
}

/// Outputs 0 and 2.
template <class T>
void put_loss(const CrossEntropy& op, const Step& step, double loss, std::int64_t counted) {
  if (op.reduction == Reduction::mean && counted > 0) loss /= static_cast<double>(counted);
  if (step.out[0]) *step.out[0].as<T>() = static_cast<T>(loss);
  if (step.out[2]) *step.out[2].as<T>() = static_cast<T>(counted);
}

/// The gradient of logit j, of value x.
template <class T>
T logit_gradient(const CrossEntropy& op, T x, std::int64_t j, std::int64_t cols, std::uint32_t label, T lse, T scale) {
  const T smoothing = static_cast<T>(op.label_smoothing);
  const T target = (j == label ? T{1} - smoothing : T{0}) + smoothing / static_cast<T>(cols);
  return label == op.ignore_index ? T{0} : scale * (std::exp(x - lse) - target);
}

/// One row of x·W: each logit is computed when it is asked for.
template <class T>
struct RowLogits {
  ConstRow<T> x;
  ConstMatrix<T> weight;
  bool transposed;
  T operator[](std::int64_t j) const {
    T sum{0};
    for (Eigen::Index p = 0; p < x.size(); ++p) sum += x[p] * (transposed ? weight(j, p) : weight(p, j));
    return sum;
  }
};

template <class T>
RowLogits<T> row_logits(const LinearCrossEntropy& op, const Step& step, std::int64_t row) {
  const std::int64_t hidden = step.in[0].cols();
  return {{step.in[0].as<const T>() + row * hidden, hidden}, const_matrix<T>(step.in[1]), op.transpose_weight};
}

}  // namespace

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
    for (std::int64_t i = 0; i < rows; ++i)
      add_loss<T>(op, step.in[0].as<const T>() + i * cols, cols, labels[i], step.out[1] ? step.out[1].as<T>() + i : nullptr, loss,
                  counted);
    put_loss<T>(op, step, loss, counted);
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
    for (std::int64_t i = 0; i < rows; ++i) {
      const T* x = step.in[0].as<const T>() + i * cols;
      T* dx = step.out[0].as<T>() + i * cols;
      for (std::int64_t j = 0; j < cols; ++j) dx[j] = logit_gradient(op.loss, x[j], j, cols, labels[i], lse[i], scale);
    }
  });
}

void run(const LinearCrossEntropy& op, const Step& step) {
  with_type(step.in[0], [&]<class T>() {
    const std::int64_t rows = step.in[0].rows(), classes = step.in[1].type.shape[!op.transpose_weight];
    const std::uint32_t* labels = step.in[2].as<const std::uint32_t>();
    double loss = 0.0;
    std::int64_t counted = 0;
    for (std::int64_t i = 0; i < rows; ++i)
      add_loss<T>(op.loss, row_logits<T>(op, step, i), classes, labels[i], step.out[1] ? step.out[1].as<T>() + i : nullptr, loss,
                  counted);
    put_loss<T>(op.loss, step, loss, counted);
  });
}

void run(const LinearCrossEntropyGrad& op, const Step& step) {
  with_type(step.in[0], [&]<class T>() {
    const std::int64_t rows = step.in[0].rows(), classes = step.in[1].type.shape[!op.linear.transpose_weight];
    const std::uint32_t* labels = step.in[2].as<const std::uint32_t>();
    const T* lse = step.in[3].as<const T>();
    const T counted = *step.in[4].as<const T>();
    const T dloss = *step.in[5].as<const T>();
    const T scale = op.linear.loss.reduction == Reduction::mean ? dloss / counted : dloss;
    auto dx = matrix<T>(step.out[0]), dweight = matrix<T>(step.out[1]);
    if (step.out[0]) dx.setZero();
    if (step.out[1]) dweight.setZero();
    for (std::int64_t i = 0; i < rows; ++i) {
      const RowLogits<T> logits = row_logits<T>(op.linear, step, i);
      for (std::int64_t j = 0; j < classes; ++j) {
        const T dlogit = logit_gradient(op.linear.loss, logits[j], j, classes, labels[i], lse[i], scale);
        for (Eigen::Index p = 0; p < logits.x.size(); ++p) {
          const Eigen::Index row = op.linear.transpose_weight ? j : p, col = op.linear.transpose_weight ? p : j;
          if (step.out[0]) dx(i, p) += dlogit * logits.weight(row, col);
          if (step.out[1]) dweight(row, col) += dlogit * logits.x[p];
        }
      }
    }
  });
}

}  // namespace graft::reference
