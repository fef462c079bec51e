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

/// Who computes products that are not small: oneDNN if this build has it and it is the faster one here, or graft's own packed product
/// (gemm_packed.cc); or the one that is asked for. Without oneDNN it is the packed product always.
enum class GemmChoice { fastest, packed, onednn };

/// Matrix products: the same bits whatever the number of threads.
class Gemm {
 public:
  explicit Gemm(Threads threads, GemmChoice choice = GemmChoice::fastest);
  ~Gemm();
  Gemm(const Gemm&) = delete;
  Gemm& operator=(const Gemm&) = delete;
  /// "oneDNN 2.6.3" or "own products".
  std::string description() const;
  /// Whether calls with bf16 operands may be made: not to oneDNN on a processor that it has no such products for.
  bool takes_bf16() const;
  /// Products none of which reads or writes what another one writes, in one loop over the blocks of all.
  void operator()(std::span<const GemmCall> calls);
  void operator()(const GemmCall& call) { (*this)({&call, 1}); }

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace graft::cpu
