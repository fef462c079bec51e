#pragma once
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "graft/types.h"

namespace graft::cuda {

/// C [m, n] = A·B + bias + addend. A is [m, k], or [k, m] if transpose_a; B is [k, n], or [n, k] if transpose_b; row-major, with lda, ldb, ldc elements from
/// row to row. C overlaps neither A nor B, but the addend may be C itself.
struct GemmCall {
  std::int64_t m = 0, n = 0, k = 0;
  bool transpose_a = false, transpose_b = false;
  DType in = DType::f32, out = DType::f32;  ///< A and B; C and addend. Sums are f32.
  const void* a = nullptr;
  const void* b = nullptr;
  void* c = nullptr;
  std::int64_t lda = 0, ldb = 0, ldc = 0;
  const float* bias = nullptr;   ///< [n], f32, or null
  const void* addend = nullptr;  ///< [m, n] with ldc, or null
  void* workspace = nullptr;     ///< Gemm::workspace_bytes()
};

/// Matrix products on the device. Implemented by exactly one of gemm_cublaslt.cc and tests/cuda_on_cpu/gemm_host.cc.
class Gemm {
 public:
  /// tf32: f32 products may round their operands to 10 bits of mantissa.
  Gemm(cudaStream_t stream, bool tf32);
  ~Gemm();
  Gemm(const Gemm&) = delete;
  Gemm& operator=(const Gemm&) = delete;
  /// "cuBLASLt 13.0.0".
  std::string description() const;
  /// Of scratch memory that each product may use.
  static std::size_t workspace_bytes();
  /// How many rows of A·B of `cols` columns to make in one product where they are made piece by piece: few for memory, enough to be worth reading B.
  static std::int64_t rows_at_once(std::int64_t cols);
  /// Enqueues the product.
  void operator()(const GemmCall& call);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace graft::cuda
