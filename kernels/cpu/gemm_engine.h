#pragma once
#include <cstddef>
#include <memory>
#include <string>

#include "kernels/cpu/gemm_blocks.h"

namespace graft::cpu {

/// Products of one shape, a block at a time.
class GemmProduct {
 public:
  virtual ~GemmProduct() = default;
  virtual std::size_t scratch_bytes() const = 0;
  /// C of rows [i, i + rows) and columns [j, j + cols), in this thread alone: one of the blocks. `scratch` is this thread's,
  /// aligned to a page and all zeros at first; `number` is another one for each call, and not 0.
  virtual void run(const GemmCall& call, std::uint64_t number, std::int64_t i, std::int64_t rows, std::int64_t j, std::int64_t cols, int thread,
                   void* scratch) = 0;
};

/// Who computes products that are not small.
class GemmEngine {
 public:
  virtual ~GemmEngine() = default;
  /// "oneDNN 2.6.3"
  virtual std::string description() const = 0;
  virtual bool takes_bf16() = 0;
  /// For calls with the sizes, strides, transposes, types, bias and addend (or none) of this one, cut into these blocks.
  virtual std::unique_ptr<GemmProduct> prepare(const GemmCall& call, const GemmBlocks& blocks) = 0;
};

/// graft's own: gemm_packed.cc.
std::unique_ptr<GemmEngine> packed_gemm();
/// oneDNN for so many threads; null if this build has none. Defined by exactly one of gemm_onednn.cc and gemm_no_onednn.cc.
std::unique_ptr<GemmEngine> onednn_gemm(int threads);
/// Whether oneDNN uses wider vectors than this file is compiled for, or AVX-512, for which it is the faster one (docs/performance.md).
bool onednn_is_faster();

}  // namespace graft::cpu
