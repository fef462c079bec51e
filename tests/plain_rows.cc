// Softmax, norms, tokens and the ops that overwrite states, as plain loops.
#include <cmath>
#include <numbers>

#include "tests/plain.h"

namespace graft::testing::plain {
namespace {

double log_sum_exp(const Tensor& x, std::int64_t row) {
  double largest = -INFINITY, sum = 0;
  for (std::int64_t j = 0; j < x.cols(); ++j) largest = std::max(largest, x.at(row, j));
  for (std::int64_t j = 0; j < x.cols(); ++j) sum += std::exp(x.at(row, j) - largest);
  return largest + std::log(sum);
}

}  // namespace

Tensors run(const Softmax&, const Tensors& in, Tensors out) {
  for (std::int64_t i = 0; i < in[0].rows(); ++i)
    for (std::int64_t j = 0; j < in[0].cols(); ++j) out[0].at(i, j) = std::exp(in[0].at(i, j) - log_sum_exp(in[0], i));
  return out;
}

Tensors run(const LogSoftmax&, const Tensors& in, Tensors out) {
  for (std::int64_t i = 0; i < in[0].rows(); ++i)
    for (std::int64_t j = 0; j < in[0].cols(); ++j) out[0].at(i, j) = in[0].at(i, j) - log_sum_exp(in[0], i);
  return out;
}

// both by their Jacobians: ∂out_k/∂x_j = out_k (δ_kj − out_j) and δ_kj − exp(out_j)
Tensors run(const SoftmaxGrad&, const Tensors& in, Tensors out) {
  for (std::int64_t i = 0; i < in[0].rows(); ++i)
    for (std::int64_t j = 0; j < in[0].cols(); ++j)
      for (std::int64_t k = 0; k < in[0].cols(); ++k)
        out[0].at(i, j) += in[1].at(i, k) * in[0].at(i, k) * ((k == j) - in[0].at(i, j));
  return out;
}

Tensors run(const LogSoftmaxGrad&, const Tensors& in, Tensors out) {
  for (std::int64_t i = 0; i < in[0].rows(); ++i)
    for (std::int64_t j = 0; j < in[0].cols(); ++j)
      for (std::int64_t k = 0; k < in[0].cols(); ++k) out[0].at(i, j) += in[1].at(i, k) * ((k == j) - std::exp(in[0].at(i, j)));
  return out;
}

Tensors run(const RmsNorm& op, const Tensors& in, Tensors out) {
  const std::int64_t n = in[0].cols();
  for (std::int64_t i = 0; i < in[0].rows(); ++i) {
    double squares = 0;
    for (std::int64_t j = 0; j < n; ++j) squares += in[0].at(i, j) * in[0].at(i, j);
    out[1][i] = 1 / std::sqrt(squares / static_cast<double>(n) + op.eps);
    for (std::int64_t j = 0; j < n; ++j) out[0].at(i, j) = in[0].at(i, j) * out[1][i] * in[1][j];
  }
  return out;
}

// ∂out_k/∂x_j = weight_k (δ_kj rstd − x_k x_j rstd³ / n)
Tensors run(const RmsNormGrad&, const Tensors& in, Tensors out) {
  const Tensor &x = in[0], &weight = in[1], &dout = in[3];
  const std::int64_t n = x.cols();
  for (std::int64_t i = 0; i < x.rows(); ++i) {
    const double rstd = in[2][i];
    for (std::int64_t j = 0; j < n; ++j) {
      if (in.size() > 4) out[0].at(i, j) = in[4].at(i, j);
      for (std::int64_t k = 0; k < n; ++k)
        out[0].at(i, j) +=
            dout.at(i, k) * weight[k] * ((k == j) * rstd - x.at(i, k) * x.at(i, j) * rstd * rstd * rstd / static_cast<double>(n));
      out[1][j] += dout.at(i, j) * x.at(i, j) * rstd;
    }
  }
  return out;
}

Tensors run(const LayerNorm& op, const Tensors& in, Tensors out) {
  const std::int64_t n = in[0].cols();
  for (std::int64_t i = 0; i < in[0].rows(); ++i) {
    double mean = 0, variance = 0;
    for (std::int64_t j = 0; j < n; ++j) mean += in[0].at(i, j) / static_cast<double>(n);
    for (std::int64_t j = 0; j < n; ++j) variance += (in[0].at(i, j) - mean) * (in[0].at(i, j) - mean) / static_cast<double>(n);
    out[1][i] = mean;
    out[2][i] = 1 / std::sqrt(variance + op.eps);
    for (std::int64_t j = 0; j < n; ++j) out[0].at(i, j) = (in[0].at(i, j) - mean) * out[2][i] * in[1][j] + in[2][j];
  }
  return out;
}

// ∂out_k/∂x_j = weight_k ((δ_kj − 1/n) rstd − (x_k − mean)(x_j − mean) rstd³ / n)
Tensors run(const LayerNormGrad&, const Tensors& in, Tensors out) {
  const Tensor &x = in[0], &weight = in[1], &dout = in[4];
  const double n = static_cast<double>(x.cols());
  for (std::int64_t i = 0; i < x.rows(); ++i) {
    const double mean = in[2][i], rstd = in[3][i];
    for (std::int64_t j = 0; j < x.cols(); ++j) {
      if (in.size() > 5) out[0].at(i, j) = in[5].at(i, j);
      for (std::int64_t k = 0; k < x.cols(); ++k)
        out[0].at(i, j) += dout.at(i, k) * weight[k] *
                           (((k == j) - 1 / n) * rstd - (x.at(i, k) - mean) * (x.at(i, j) - mean) * rstd * rstd * rstd / n);
      out[1][j] += dout.at(i, j) * (x.at(i, j) - mean) * rstd;
      out[2][j] += dout.at(i, j);
    }
  }
  return out;
}

Tensors run(const Embedding&, const Tensors& in, Tensors out) {
  for (std::int64_t i = 0; i < out[0].rows(); ++i)
    for (std::int64_t j = 0; j < out[0].cols(); ++j) out[0].at(i, j) = in[0].at(static_cast<std::int64_t>(in[1][i]), j);
  return out;
}

Tensors run(const EmbeddingGrad&, const Tensors& in, Tensors out) {
  if (in.size() > 2) out[0] = in[2];
  for (std::int64_t i = 0; i < in[1].rows(); ++i)
    for (std::int64_t j = 0; j < in[1].cols(); ++j) out[0].at(static_cast<std::int64_t>(in[0][i]), j) += in[1].at(i, j);
  return out;
}

Tensors run(const CrossEntropy& op, const Tensors& in, Tensors out) {
  const double v = static_cast<double>(in[0].cols()), s = op.label_smoothing;
  for (std::int64_t i = 0; i < in[0].rows(); ++i) {
    out[1][i] = log_sum_exp(in[0], i);
    if (in[1][i] == op.ignore_index) continue;
    out[2][0] += 1;
    for (std::int64_t j = 0; j < in[0].cols(); ++j) {  // −Σ target · log p
      const double target = (in[1][i] == static_cast<double>(j) ? 1 - s : 0) + s / v;
      out[0][0] -= target * (in[0].at(i, j) - out[1][i]);
    }
  }
  if (op.reduction == Reduction::mean && out[2][0] > 0) out[0][0] /= out[2][0];
  return out;
}

Tensors run(const CrossEntropyGrad& op, const Tensors& in, Tensors out) {
  const double v = static_cast<double>(in[0].cols()), s = op.loss.label_smoothing;
  for (std::int64_t i = 0; i < in[0].rows(); ++i) {
    if (in[1][i] == op.loss.ignore_index) continue;
    for (std::int64_t j = 0; j < in[0].cols(); ++j) {
      const double target = (in[1][i] == static_cast<double>(j) ? 1 - s : 0) + s / v;
      out[0].at(i, j) =
          in[4][0] * (std::exp(in[0].at(i, j) - in[2][i]) - target) / (op.loss.reduction == Reduction::mean ? in[3][0] : 1);
    }
  }
  return out;
}

/// x·W, each element a sum.
Tensor logits_of(const LinearCrossEntropy& op, const Tensors& in) {
  const std::int64_t classes = op.transpose_weight ? in[1].rows() : in[1].cols();
  Tensor logits{{in[0].rows(), classes}, std::vector<double>(static_cast<std::size_t>(in[0].rows() * classes), 0.0)};
  for (std::int64_t i = 0; i < in[0].rows(); ++i)
    for (std::int64_t j = 0; j < classes; ++j)
      for (std::int64_t k = 0; k < in[0].cols(); ++k)
        logits.at(i, j) += in[0].at(i, k) * (op.transpose_weight ? in[1].at(j, k) : in[1].at(k, j));
  return logits;
}

Tensors run(const LinearCrossEntropy& op, const Tensors& in, Tensors out) {
  return run(op.loss, {logits_of(op, in), in[2]}, std::move(out));
}

Tensors run(const LinearCrossEntropyGrad& op, const Tensors& in, Tensors out) {
  Tensor d = logits_of(op.linear, in);
  d = run(CrossEntropyGrad{op.linear.loss}, {d, in[2], in[3], in[4], in[5]},
          {Tensor{d.shape, std::vector<double>(d.values.size(), 0.0)}})[0];
  for (std::int64_t i = 0; i < d.rows(); ++i)
    for (std::int64_t j = 0; j < d.cols(); ++j)
      for (std::int64_t k = 0; k < in[0].cols(); ++k) {
        out[0].at(i, k) += d.at(i, j) * (op.linear.transpose_weight ? in[1].at(j, k) : in[1].at(k, j));
        (op.linear.transpose_weight ? out[1].at(j, k) : out[1].at(k, j)) += d.at(i, j) * in[0].at(i, k);
      }
  return out;
}

// ---- states

Tensors run(const Assign&, const Tensors& in, Tensors) { return {in[0]}; }

Tensors run(const CacheWrite& op, const Tensors& in, Tensors) {
  Tensor cache = in[1];
  const std::int64_t count = in[2].shape.size(), each = in[0].rows() / count;
  const std::int64_t max_seq = cache.rows() / (op.sequences > 0 ? op.sequences : count);
  for (std::int64_t i = 0; i < in[0].rows(); ++i) {
    const std::int64_t s = i / each, slot = op.sequences > 0 ? static_cast<std::int64_t>(in[3][s]) : s;
    const std::int64_t to = slot * max_seq + static_cast<std::int64_t>(in[2][s]) + i % each;
    for (std::int64_t j = 0; j < cache.cols(); ++j) cache.at(to, j) = in[0].at(i, j);
  }
  return {cache};
}

Tensors run(const GlobalNorm&, const Tensors& in, Tensors out) {
  for (const Tensor& x : in)
    for (const double value : x.values) out[0][0] += value * value;
  out[0][0] = std::sqrt(out[0][0]);
  return out;
}

Tensors run(const UpdateScale& op, const Tensors& in, Tensors out) {
  const double norm = in[0][0], loss = in.size() == 2 ? in[1][0] : 0;
  out[0][0] = !std::isfinite(norm) || !std::isfinite(loss) ? NAN : op.max_norm > 0 && norm > op.max_norm ? op.max_norm / norm : 1;
  return out;
}

Tensors run(const CountStep&, const Tensors& in, Tensors) {
  Tensors out = {in[0], in[1]};
  out[std::isfinite(in[2][0]) ? 0 : 1][0] += 1;
  return out;
}

Tensors run(const Increment&, const Tensors& in, Tensors) {
  Tensors out = {in[0]};
  out[0][0] += 1;
  return out;
}

Tensors run(const LearningRate& op, const Tensors& in, Tensors out) {
  const Schedule& s = op.schedule;
  const double t = in[0][0], total = static_cast<double>(s.total), warmup = static_cast<double>(s.warmup),
               decay = static_cast<double>(s.decay);
  double lr = s.base;
  if (t < warmup) {
    lr = s.base * (t + 1) / warmup;
  } else if (s.kind != Schedule::Kind::constant) {
    const double begin = s.kind == Schedule::Kind::wsd ? total - decay : warmup;
    const double f = std::clamp((t - begin) / (total - begin), 0.0, 1.0);
    lr = s.kind == Schedule::Kind::cosine ? s.min + 0.5 * (s.base - s.min) * (1 + std::cos(std::numbers::pi * f))
                                          : s.base + (s.min - s.base) * f;
  }
  out[0][0] = lr;
  return out;
}

Tensors run(const SgdUpdate& op, const Tensors& in, Tensors) {
  Tensors out = {in[0], in[2]};
  const double lr = in[3][0] * op.lr_scale, scale = in[4][0];
  for (std::int64_t i = 0; std::isfinite(scale) && i < in[0].shape.size(); ++i) {
    const double g = scale * in[1][i] + op.weight_decay * in[0][i], m = op.momentum * in[2][i] + g;
    out[1][i] = m;
    out[0][i] = in[0][i] - lr * (op.nesterov ? g + op.momentum * m : m);
  }
  return out;
}

Tensors run(const AdamUpdate& op, const Tensors& in, Tensors) {
  Tensors out = {in[0], in[2], in[3]};
  const double t = in[4][0] + 1, lr = in[5][0] * op.lr_scale, scale = in[6][0];
  for (std::int64_t i = 0; std::isfinite(scale) && i < in[0].shape.size(); ++i) {
    const double g = scale * in[1][i] + (op.decoupled ? 0 : op.weight_decay * in[0][i]);
    const double m = op.beta1 * in[2][i] + (1 - op.beta1) * g, v = op.beta2 * in[3][i] + (1 - op.beta2) * g * g;
    const double corrected_m = m / (1 - std::pow(op.beta1, t)), corrected_v = v / (1 - std::pow(op.beta2, t));
    out[0][i] = in[0][i] - lr * ((op.decoupled ? op.weight_decay * in[0][i] : 0) + corrected_m / (std::sqrt(corrected_v) + op.eps));
    out[1][i] = m;
    out[2][i] = v;
  }
  return out;
}

Tensors run(const LionUpdate& op, const Tensors& in, Tensors) {
  Tensors out = {in[0], in[2]};
  const double lr = in[3][0] * op.lr_scale, scale = in[4][0];
  for (std::int64_t i = 0; std::isfinite(scale) && i < in[0].shape.size(); ++i) {
    const double g = scale * in[1][i], direction = op.beta1 * in[2][i] + (1 - op.beta1) * g;
    out[0][i] = in[0][i] - lr * (op.weight_decay * in[0][i] + (direction > 0 ? 1 : direction < 0 ? -1 : 0));
    out[1][i] = op.beta2 * in[2][i] + (1 - op.beta2) * g;
  }
  return out;
}

}  // namespace graft::testing::plain
