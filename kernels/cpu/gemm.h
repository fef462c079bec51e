#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "kernels/cpu/parallel.h"

namespace graft::cpu {

/// C [m, n] = A·B + bias + addend. A is [m, k], or [k, m] if transpose_a; B is [k, n], or [n, k] if transpose_b; row-major,
/// with lda, ldb, ldc elements from row to row. C overlaps neither, but the addend may be C itself.
struct GemmCall {
  std::int64_t m = 0, n = 0, k = 0;
  bool transpose_a = false, transpose_b = false;
  bool bf16 = false;      ///< A and B are bf16, not f32; bias and addend are f32 always
  bool bf16_out = false;  ///< C is, with such operands and no addend
  const void* a = nullptr;
  const void* b = nullptr;
  void* c = nullptr;
  std::int64_t lda = 0, ldb = 0, ldc = 0;
  const float* bias = nullptr;  ///< [n] or null
  const float* addend = nullptr;  ///< [m, n] with ldc, or null; C: C += A·B
};

/// Matrix products: the same bits whatever the number of threads. Implemented by exactly one of gemm_onednn.cc and gemm_eigen.cc.
class Gemm {
 public:
  explicit Gemm(Threads threads);
  ~Gemm();
  Gemm(const Gemm&) = delete;
  Gemm& operator=(const Gemm&) = delete;
  /// "oneDNN 2.6.3" or "Eigen 3.4.0".
  std::string description() const;
  /// Whether calls with bf16 operands may be made: oneDNN, on a processor that it has such products for.
  bool takes_bf16() const;
  /// Products none of which reads or writes what another one writes, in one loop over the blocks of all.
  void operator()(std::span<const GemmCall> calls);
  void operator()(const GemmCall& call) { (*this)({&call, 1}); }

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace graft::cpu
