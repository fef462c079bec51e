#pragma once
// The modules of a decoder in plain loops over doubles, written from their papers' formulas: what nn is held against.
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "graft/philox.h"

namespace graft::plain {

/// Numbers in [−1, 1), different for every name.
inline std::vector<double> values_for(const std::string& name, std::int64_t size) {
  std::uint64_t key = 1469598103934665603u;
  for (const char c : name) key = (key ^ static_cast<unsigned char>(c)) * 1099511628211u;
  std::vector<double> values;
  for (std::int64_t i = 0; i < size; ++i)
    values.push_back(2.0 * philox::uniform(philox::bits(key, 0, 0, static_cast<std::uint64_t>(i))) - 1.0);
  return values;
}

struct Matrix {
  std::size_t rows = 0, cols = 0;
  std::vector<double> data;

  Matrix() = default;
  Matrix(std::size_t r, std::size_t c) : rows(r), cols(c), data(r * c) {}
  Matrix(std::size_t r, std::size_t c, std::vector<double> values) : rows(r), cols(c), data(std::move(values)) {}
  double& at(std::size_t r, std::size_t c) { return data[r * cols + c]; }
  double at(std::size_t r, std::size_t c) const { return data[r * cols + c]; }
};

inline Matrix matmul(const Matrix& a, const Matrix& b) {
  Matrix out(a.rows, b.cols);
  for (std::size_t i = 0; i < a.rows; ++i)
    for (std::size_t j = 0; j < b.cols; ++j)
      for (std::size_t k = 0; k < a.cols; ++k) out.at(i, j) += a.at(i, k) * b.at(k, j);
  return out;
}

inline Matrix transposed(const Matrix& a) {
  Matrix out(a.cols, a.rows);
  for (std::size_t i = 0; i < a.rows; ++i)
    for (std::size_t j = 0; j < a.cols; ++j) out.at(j, i) = a.at(i, j);
  return out;
}

inline Matrix add(Matrix a, const Matrix& b) {
  for (std::size_t i = 0; i < a.data.size(); ++i) a.data[i] += b.data[i];
  return a;
}

inline Matrix rms_norm(const Matrix& x, const std::vector<double>& weight, double eps) {
  Matrix out(x.rows, x.cols);
  for (std::size_t i = 0; i < x.rows; ++i) {
    double squares = 0.0;
    for (std::size_t j = 0; j < x.cols; ++j) squares += x.at(i, j) * x.at(i, j);
    const double rms = std::sqrt(squares / static_cast<double>(x.cols) + eps);
    for (std::size_t j = 0; j < x.cols; ++j) out.at(i, j) = x.at(i, j) / rms * weight[j];
  }
  return out;
}

inline Matrix layer_norm(const Matrix& x, const std::vector<double>& weight, const std::vector<double>& bias, double eps) {
  Matrix out(x.rows, x.cols);
  for (std::size_t i = 0; i < x.rows; ++i) {
    double mean = 0.0, variance = 0.0;
    for (std::size_t j = 0; j < x.cols; ++j) mean += x.at(i, j) / static_cast<double>(x.cols);
    for (std::size_t j = 0; j < x.cols; ++j) variance += (x.at(i, j) - mean) * (x.at(i, j) - mean) / static_cast<double>(x.cols);
    for (std::size_t j = 0; j < x.cols; ++j) out.at(i, j) = (x.at(i, j) - mean) / std::sqrt(variance + eps) * weight[j] + bias[j];
  }
  return out;
}

inline double silu(double x) { return x / (1.0 + std::exp(-x)); }
inline double gelu(double x) { return 0.5 * x * (1.0 + std::erf(x / std::sqrt(2.0))); }

inline Matrix swiglu(const Matrix& x, const Matrix& gate, const Matrix& up, const Matrix& down) {
  Matrix inner = matmul(x, gate);
  const Matrix raised = matmul(x, up);
  for (std::size_t i = 0; i < inner.data.size(); ++i) inner.data[i] = silu(inner.data[i]) * raised.data[i];
  return matmul(inner, down);
}

/// Halves rotated, row i at position i / stretch.
inline Matrix rope(const Matrix& x, double theta, std::size_t head_dim, double stretch = 1.0) {
  Matrix out(x.rows, x.cols);
  for (std::size_t i = 0; i < x.rows; ++i)
    for (std::size_t h = 0; h < x.cols; h += head_dim)
      for (std::size_t p = 0; p < head_dim / 2; ++p) {
        const double angle =
            static_cast<double>(i) / stretch * std::pow(theta, -2.0 * static_cast<double>(p) / static_cast<double>(head_dim));
        const double a = x.at(i, h + p), b = x.at(i, h + p + head_dim / 2);
        out.at(i, h + p) = a * std::cos(angle) - b * std::sin(angle);
        out.at(i, h + p + head_dim / 2) = b * std::cos(angle) + a * std::sin(angle);
      }
  return out;
}

/// One sequence, causal, grouped queries; with a window only the newest keys.
inline Matrix attention(const Matrix& q, const Matrix& k, const Matrix& v, std::size_t heads, std::size_t kv_heads,
                        std::size_t window = 0) {
  const std::size_t dim = q.cols / heads;
  Matrix out(q.rows, q.cols);
  for (std::size_t h = 0; h < heads; ++h) {
    const std::size_t from = h / (heads / kv_heads) * dim;
    for (std::size_t i = 0; i < q.rows; ++i) {
      std::vector<double> weight(i + 1);
      double sum = 0.0;
      const std::size_t first = window > 0 && i + 1 > window ? i + 1 - window : 0;
      for (std::size_t j = first; j <= i; ++j) {
        double score = 0.0;
        for (std::size_t d = 0; d < dim; ++d) score += q.at(i, h * dim + d) * k.at(j, from + d);
        sum += weight[j] = std::exp(score / std::sqrt(static_cast<double>(dim)));
      }
      for (std::size_t j = first; j <= i; ++j)
        for (std::size_t d = 0; d < dim; ++d) out.at(i, h * dim + d) += weight[j] / sum * v.at(j, from + d);
    }
  }
  return out;
}

}  // namespace graft::plain
