#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // g++ 12, in its own AVX-512 headers
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <Eigen/Core>

#include "kernels/cpu/gemm_blocks.h"

namespace graft::cpu {
namespace {

using Stride = Eigen::OuterStride<>;
using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using ColMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic>;
template <class M>
using Map = Eigen::Map<M, 0, Stride>;

/// A block of C: its operands' maps are transposed by being column-major.
template <class A, class B>
void multiply(const GemmCall& call, std::int64_t i, std::int64_t rows, std::int64_t j, std::int64_t cols) {
  const Map<const A> a(static_cast<const float*>(call.a) + i * (call.transpose_a ? 1 : call.lda), rows, call.k, Stride(call.lda));
  const Map<const B> b(static_cast<const float*>(call.b) + j * (call.transpose_b ? call.ldb : 1), call.k, cols, Stride(call.ldb));
  Map<RowMajor> c(static_cast<float*>(call.c) + i * call.ldc + j, rows, cols, Stride(call.ldc));
  if (call.addend != nullptr) {
    copy_addend(call, i, rows, j, cols);
    c.noalias() += a * b;
  } else {
    c.noalias() = a * b;
  }
  if (call.bias != nullptr) c.rowwise() += Eigen::Map<const Eigen::RowVectorXf>(call.bias + j, cols);
}

}  // namespace

struct Gemm::Impl {
  Threads threads;

  void run(const GemmCall& call);
};

Gemm::Gemm(Threads threads) : impl_(std::make_unique<Impl>(Impl{threads})) {}
Gemm::~Gemm() = default;

std::string Gemm::description() const {
  return "Eigen " + std::to_string(EIGEN_WORLD_VERSION) + "." + std::to_string(EIGEN_MAJOR_VERSION) + "." +
         std::to_string(EIGEN_MINOR_VERSION);
}

bool Gemm::takes_bf16() const { return false; }

void Gemm::operator()(std::span<const GemmCall> calls) {
  for (const GemmCall& call : calls)
    if (!small_gemm(call, impl_->threads)) impl_->run(call);
}

void Gemm::Impl::run(const GemmCall& call) {
  const GemmBlocks blocks = gemm_blocks(call.m, call.n, call.k, call.transpose_a);
  parallel_tasks(threads, blocks.count(), [&](std::int64_t task, int) {
    const std::int64_t i = task % blocks.row_parts * blocks.rows, j = task / blocks.row_parts * blocks.cols;
    const std::int64_t rows = std::min(blocks.rows, call.m - i), cols = std::min(blocks.cols, call.n - j);
    if (call.transpose_a && call.transpose_b) return multiply<ColMajor, ColMajor>(call, i, rows, j, cols);
    if (call.transpose_a) return multiply<ColMajor, RowMajor>(call, i, rows, j, cols);
    if (call.transpose_b) return multiply<RowMajor, ColMajor>(call, i, rows, j, cols);
    multiply<RowMajor, RowMajor>(call, i, rows, j, cols);
  });
}

}  // namespace graft::cpu
