// graft::cuda::Gemm on the emulated device: plain loops, sums in f32, enqueued like a kernel.
#include <algorithm>
#include <vector>

#include "graft/bf16.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/gemm.h"
#include "tests/cuda_on_cpu/accesses.h"
#include "tests/cuda_on_cpu/runtime.h"

namespace graft::cuda {
namespace {

constexpr std::size_t kWorkspace = 256;  // that the node has none of is found out

/// [rows, cols] of the device, transposed if so, as floats.
std::vector<float> load(const void* data, DType dtype, std::int64_t rows, std::int64_t cols, std::int64_t stride, bool transpose) {
  std::vector<float> values(static_cast<std::size_t>(rows * cols));
  const auto bytes = static_cast<std::int64_t>(size_of(dtype));
  for (std::int64_t r = 0; r < rows; ++r) {
    const char* row = static_cast<const char*>(data) + r * stride * bytes;
    emulation::host_access("a product", row, static_cast<std::size_t>(cols * bytes), false);
    for (std::int64_t c = 0; c < cols; ++c) {
      const float value =
          dtype == DType::bf16 ? to_float(reinterpret_cast<const Bf16*>(row)[c]) : reinterpret_cast<const float*>(row)[c];
      values[static_cast<std::size_t>(transpose ? c * rows + r : r * cols + c)] = value;
    }
  }
  return values;
}

void multiply(const GemmCall& call) {
  const auto [m, n, k] = std::tuple(call.m, call.n, call.k);
  const std::vector<float> a =
      call.transpose_a ? load(call.a, call.in, k, m, call.lda, true) : load(call.a, call.in, m, k, call.lda, false);
  const std::vector<float> b =
      call.transpose_b ? load(call.b, call.in, n, k, call.ldb, true) : load(call.b, call.in, k, n, call.ldb, false);
  emulation::host_access("a product", call.workspace, kWorkspace, true);
  std::vector<float> sums(static_cast<std::size_t>(n)), bias, addend;
  if (call.bias != nullptr) bias = load(call.bias, DType::f32, 1, n, n, false);
  if (call.out == DType::bf16)  // as cuBLASLt's epilogue takes it
    for (float& value : bias) value = to_float(to_bf16(value));
  if (call.addend != nullptr) addend = load(call.addend, call.out, m, n, call.ldc, false);
  for (std::int64_t i = 0; i < m; ++i) {
    std::fill(sums.begin(), sums.end(), 0.0f);
    for (std::int64_t l = 0; l < k; ++l) {
      const float left = a[static_cast<std::size_t>(i * k + l)];
      const float* right = b.data() + l * n;
      for (std::int64_t j = 0; j < n; ++j) sums[static_cast<std::size_t>(j)] += left * right[j];
    }
    char* const row = static_cast<char*>(call.c) + i * call.ldc * static_cast<std::int64_t>(size_of(call.out));
    emulation::host_access("a product", row, static_cast<std::size_t>(n) * size_of(call.out), true);
    for (std::int64_t j = 0; j < n; ++j) {
      float value = sums[static_cast<std::size_t>(j)];
      if (!bias.empty()) value += bias[static_cast<std::size_t>(j)];
      if (!addend.empty()) value += addend[static_cast<std::size_t>(i * n + j)];
      if (call.out == DType::bf16) {
        reinterpret_cast<Bf16*>(row)[j] = to_bf16(value);
      } else {
        reinterpret_cast<float*>(row)[j] = value;
      }
    }
  }
}

}  // namespace

struct Gemm::Impl {
  cudaStream_t stream;
};

Gemm::Gemm(cudaStream_t stream, bool) : impl_(std::make_unique<Impl>(stream)) {}
Gemm::~Gemm() = default;
std::string Gemm::description() const { return "plain products"; }
std::size_t Gemm::workspace_bytes() { return kWorkspace; }
std::int64_t Gemm::rows_at_once(std::int64_t) { return 8; }  // so few that the cases have more
void Gemm::operator()(const GemmCall& call) {
  check(emulation::enqueue(impl_->stream, [call] { multiply(call); }), "cannot start a product");
}

}  // namespace graft::cuda
