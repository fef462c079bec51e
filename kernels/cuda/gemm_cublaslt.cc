#include <cublasLt.h>
#include <dlfcn.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <tuple>
#include <vector>

#include "graft/error.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/rows.h"

namespace graft::cuda {
namespace {

/// cuBLASLt is half a gigabyte, and takes 150 ms to load: it is loaded by the first who makes products on a GPU, not by every program. It stays: its kernels are
/// known to the driver, and to graphs.
class Library {
 public:
  static const Library& loaded() {
    static const Library library;
    return library;
  }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  void check(cublasStatus_t status, const char* what) const {
    if (status != CUBLAS_STATUS_SUCCESS) throw Error(std::string("cuda: cuBLASLt cannot ") + what + ": " + status_text(status));
  }

  decltype(&cublasLtCreate) create;
  decltype(&cublasLtDestroy) destroy;
  decltype(&cublasLtGetStatusString) status_text;
  decltype(&cublasLtGetVersion) version;
  decltype(&cublasLtMatmul) matmul;
  decltype(&cublasLtMatmulDescCreate) descriptor_create;
  decltype(&cublasLtMatmulDescDestroy) descriptor_destroy;
  decltype(&cublasLtMatmulDescSetAttribute) descriptor_set;
  decltype(&cublasLtMatrixLayoutCreate) layout_create;
  decltype(&cublasLtMatrixLayoutDestroy) layout_destroy;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create;
  decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic;

 private:
  Library() {
    const std::string name = "libcublasLt.so." + std::to_string(CUBLAS_VER_MAJOR);
    handle_ = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle_ == nullptr) handle_ = dlopen((GRAFT_CUDA_LIBRARY_DIR "/" + name).c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle_ == nullptr) throw Error("cuda: " + name + " cannot be loaded, install cuBLAS " + std::to_string(CUBLAS_VER_MAJOR) + " (" + dlerror() + ")");
    find(create, "cublasLtCreate");
    find(destroy, "cublasLtDestroy");
    find(status_text, "cublasLtGetStatusString");
    find(version, "cublasLtGetVersion");
    find(matmul, "cublasLtMatmul");
    find(descriptor_create, "cublasLtMatmulDescCreate");
    find(descriptor_destroy, "cublasLtMatmulDescDestroy");
    find(descriptor_set, "cublasLtMatmulDescSetAttribute");
    find(layout_create, "cublasLtMatrixLayoutCreate");
    find(layout_destroy, "cublasLtMatrixLayoutDestroy");
    find(preference_create, "cublasLtMatmulPreferenceCreate");
    find(preference_destroy, "cublasLtMatmulPreferenceDestroy");
    find(preference_set, "cublasLtMatmulPreferenceSetAttribute");
    find(heuristic, "cublasLtMatmulAlgoGetHeuristic");
  }

  template <class F>
  void find(F& function, const char* name) {
    function = reinterpret_cast<F>(dlsym(handle_, name));
    if (function == nullptr) throw Error(std::string("cuda: libcublasLt has no ") + name);
  }
  void* handle_;
};

constexpr std::size_t kWorkspace = std::size_t{32} << 20, kBiasSpace = std::size_t{1} << 20;

cudaDataType data_type(DType dtype) { return dtype == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F; }

/// What cuBLASLt must know of a product before it can choose how. Pointers are promised to be aligned to 16 bytes or not.
using Key = std::tuple<std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t, bool, bool, DType, DType, bool, bool, bool>;

bool aligned(const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0; }

Key key_of(const GemmCall& c) {
  return {c.m, c.n, c.k, c.lda, c.ldb, c.ldc, c.transpose_a, c.transpose_b, c.in, c.out, c.bias != nullptr, c.addend != nullptr,
          aligned(c.a) && aligned(c.b) && aligned(c.c) && aligned(c.addend)};
}

/// A product made ready. cuBLASLt's matrices are column-major: it is given Cᵀ = Bᵀ·Aᵀ, whose operands are ours as they lie.
class Prepared {
 public:
  Prepared(const Library& library, cublasLtHandle_t handle, const GemmCall& call, bool tf32) : library_(library) {
    library.check(library.descriptor_create(&product_, tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUDA_R_32F), "describe a product");
    set(CUBLASLT_MATMUL_DESC_TRANSA, call.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(CUBLASLT_MATMUL_DESC_TRANSB, call.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
    layout(&left_, data_type(call.in), call.transpose_b ? call.k : call.n, call.transpose_b ? call.n : call.k, call.ldb);
    layout(&right_, data_type(call.in), call.transpose_a ? call.m : call.k, call.transpose_a ? call.k : call.m, call.lda);
    layout(&result_, data_type(call.out), call.n, call.m, call.ldc);
    has_bias = call.bias != nullptr && static_cast<std::size_t>(call.n) * size_of(call.out) <= kBiasSpace && choose(handle, call, true);
    if (!has_bias && !choose(handle, call, false)) {
      throw Error("cuda: cuBLASLt has no product for [" + std::to_string(call.m) + ", " + std::to_string(call.k) + "]·[" + std::to_string(call.k) + ", " +
                  std::to_string(call.n) + "], " + std::string(to_string(call.in)) + " to " + std::string(to_string(call.out)));
    }
  }
  ~Prepared() {
    library_.layout_destroy(left_);
    library_.layout_destroy(right_);
    library_.layout_destroy(result_);
    library_.descriptor_destroy(product_);
  }
  Prepared(const Prepared&) = delete;
  Prepared& operator=(const Prepared&) = delete;

  void run(cublasLtHandle_t handle, const GemmCall& call, cudaStream_t stream) {
    const float one = 1.0f, beta = call.addend != nullptr ? 1.0f : 0.0f;
    if (has_bias) {
      const void* bias = bias_of(call);
      if (bias != call.bias) round_to_bf16(call.bias, bias_space(call), call.n, stream);
      set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
    }
    const auto start = [&] {
      return library_.matmul(handle, product_, &one, call.b, left_, call.a, right_, &beta, call.addend != nullptr ? call.addend : call.c, result_, call.c, result_,
                             &algorithms_.back(), call.workspace, kWorkspace, stream);
    };
    cublasStatus_t status = start();
    while (status == CUBLAS_STATUS_NOT_SUPPORTED && algorithms_.size() > 1) {  // the first time only: then the algorithm is known
      algorithms_.pop_back();
      status = start();
    }
    library_.check(status, "start a product");
  }

  bool has_bias = false;  ///< the product adds the bias itself

 private:
  template <class T>
  void set(cublasLtMatmulDescAttributes_t attribute, const T& value) {
    library_.check(library_.descriptor_set(product_, attribute, &value, sizeof(value)), "describe a product");
  }
  void layout(cublasLtMatrixLayout_t* to, cudaDataType type, std::int64_t rows, std::int64_t cols, std::int64_t stride) {
    library_.check(library_.layout_create(to, type, static_cast<std::uint64_t>(rows), static_cast<std::uint64_t>(cols), stride), "describe a matrix");
  }

  /// cuBLASLt adds a bias of the result's type, so one for bf16 is rounded first, into the end of the workspace.
  static void* bias_space(const GemmCall& call) { return static_cast<std::byte*>(call.workspace) + kWorkspace; }
  static const void* bias_of(const GemmCall& call) { return call.out == DType::bf16 ? bias_space(call) : call.bias; }

  bool choose(cublasLtHandle_t handle, const GemmCall& call, bool with_bias) {
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, with_bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT);
    if (with_bias) {
      set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, static_cast<std::int32_t>(data_type(call.out)));
      set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias_of(call));
    }
    cublasLtMatmulPreference_t preference = nullptr;
    library_.check(library_.preference_create(&preference), "describe a preference");
    const std::uint32_t alignment = aligned(call.a) && aligned(call.b) && aligned(call.c) && aligned(call.addend) ? 16 : static_cast<std::uint32_t>(size_of(call.in));
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
      library_.check(library_.preference_set(preference, attribute, &value, sizeof(value)), "describe a preference");
    };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspace);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment);
    // Parts of a sum over k are added in f32: the other schemes round them to the type of the result.
    prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
    cublasLtMatmulHeuristicResult_t found[8] = {};
    int count = 0;
    const cublasStatus_t status = library_.heuristic(handle, product_, left_, right_, result_, result_, preference, std::size(found), found, &count);
    library_.preference_destroy(preference);
    algorithms_.clear();
    if (status != CUBLAS_STATUS_SUCCESS) return false;
    while (count > 0)
      if (const auto& candidate = found[--count]; candidate.state == CUBLAS_STATUS_SUCCESS) algorithms_.push_back(candidate.algo);
    return !algorithms_.empty();
  }

  const Library& library_;
  cublasLtMatmulDesc_t product_ = nullptr;
  cublasLtMatrixLayout_t left_ = nullptr, right_ = nullptr, result_ = nullptr;
  std::vector<cublasLtMatmulAlgo_t> algorithms_;  ///< the last one is the best
};

}  // namespace

struct Gemm::Impl {
  Impl(cudaStream_t used_stream, bool may_tf32) : stream(used_stream), tf32(may_tf32) { library.check(library.create(&handle), "begin"); }
  ~Impl() {
    prepared.clear();
    library.destroy(handle);
  }

  const Library& library = Library::loaded();
  cublasLtHandle_t handle = nullptr;
  cudaStream_t stream;
  bool tf32;
  std::map<Key, std::unique_ptr<Prepared>> prepared;
};

Gemm::Gemm(cudaStream_t stream, bool tf32) : impl_(std::make_unique<Impl>(stream, tf32)) {}
Gemm::~Gemm() = default;

std::string Gemm::description() const {
  const std::size_t version = impl_->library.version();  // major·10000 + minor·100 + patch
  return "cuBLASLt " + std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." + std::to_string(version % 100);
}

std::size_t Gemm::workspace_bytes() { return kWorkspace + kBiasSpace; }

// 256 MiB of f32. A row takes 2·k·cols operations, and reading B, or adding to one like it in f32, moves some 8·k·cols bytes a product: below some 1000 rows
// a GPU waits for its memory.
std::int64_t Gemm::rows_at_once(std::int64_t cols) {
  constexpr std::int64_t kElements = std::int64_t{1} << 26, kLeast = 1024;
  return std::max(kLeast, kElements / cols / kLeast * kLeast);
}

void Gemm::operator()(const GemmCall& call) {
  std::unique_ptr<Prepared>& prepared = impl_->prepared[key_of(call)];
  if (prepared == nullptr) prepared = std::make_unique<Prepared>(impl_->library, impl_->handle, call, impl_->tf32 && call.in == DType::f32);
  prepared->run(impl_->handle, call, impl_->stream);
  if (call.bias != nullptr && !prepared->has_bias) add_bias(call.bias, call.c, call.out, call.m, call.n, call.ldc, impl_->stream);
}

}  // namespace graft::cuda
