#include <dlfcn.h>

#include <cstddef>
#include <dnnl.hpp>
#include <optional>
#include <vector>

#include "graft/error.h"
#include "graft/types.h"
#include "kernels/cpu/gemm_engine.h"
#include "kernels/cpu/vec.h"

namespace graft::cpu {
namespace {

using Memory = dnnl::memory;

/// The OpenMP runtime that oneDNN runs on, if it does: found among what is loaded, as graft itself needs none.
struct OpenMp {
  int (*threads)() = nullptr;
  void (*set_threads)(int) = nullptr;
};

OpenMp find_openmp() {
  OpenMp runtime;
  if constexpr (DNNL_CPU_THREADING_RUNTIME == DNNL_RUNTIME_OMP) {
    runtime.threads = reinterpret_cast<int (*)()>(dlsym(RTLD_DEFAULT, "omp_get_max_threads"));
    runtime.set_threads = reinterpret_cast<void (*)(int)>(dlsym(RTLD_DEFAULT, "omp_set_num_threads"));
    if (runtime.threads == nullptr || runtime.set_threads == nullptr)
      throw Error("cpu backend: oneDNN was built with OpenMP, whose functions cannot be found");
  }
  return runtime;
}

/// While it lives, oneDNN makes and runs primitives in this thread alone: graft decides how a product is split.
class OneThread {
 public:
  explicit OneThread(const OpenMp& openmp) : openmp_(openmp) {
    if (openmp_.threads == nullptr) return;
    before_ = openmp_.threads();
    openmp_.set_threads(1);
  }
  ~OneThread() {
    if (openmp_.threads != nullptr) openmp_.set_threads(before_);
  }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  const OpenMp& openmp_;
  int before_ = 1;
};

dnnl::matmul::primitive_desc describe(const dnnl::engine& engine, const Memory::desc& a, const Memory::desc& b,
                                      const Memory::desc& bias, const Memory::desc& c, const dnnl::primitive_attr& attributes) {
#if DNNL_VERSION_MAJOR >= 3
  return {engine, a, b, bias, c, attributes};
#else
  return {{a, b, bias, c}, attributes, engine};
#endif
}

/// One block's product for one thread; the memory objects are pointed at the operands of each call.
struct Arguments {
  Memory a, b, c, bias, scratch;
  std::vector<dnnl_exec_arg_t> list;
};

struct Primitive {
  dnnl::matmul matmul;
  std::size_t scratch_bytes = 0;
  std::vector<Arguments> threads;

  Primitive(const dnnl::engine& engine, const GemmCall& call, std::int64_t rows, std::int64_t cols, int thread_count) {
    const auto operands = call.bf16 ? Memory::data_type::bf16 : Memory::data_type::f32;
    const auto matrix = [](std::int64_t r, std::int64_t c, std::int64_t row_step, std::int64_t col_step, Memory::data_type type) {
      return Memory::desc({r, c}, type, {row_step, col_step});
    };
    const auto a = call.transpose_a ? matrix(rows, call.k, 1, call.lda, operands) : matrix(rows, call.k, call.lda, 1, operands);
    const auto b = call.transpose_b ? matrix(call.k, cols, 1, call.ldb, operands) : matrix(call.k, cols, call.ldb, 1, operands);
    const auto c = matrix(rows, cols, call.ldc, 1, call.bf16_out ? Memory::data_type::bf16 : Memory::data_type::f32);
    const auto bias = call.bias != nullptr ? matrix(1, cols, cols, 1, Memory::data_type::f32) : Memory::desc();
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    if (call.addend != nullptr) {
      dnnl::post_ops sum;
      sum.append_sum(1.0f);
      attributes.set_post_ops(sum);
    }
    const auto description = describe(engine, a, b, bias, c, attributes);
    matmul = dnnl::matmul(description);
    scratch_bytes = description.scratchpad_desc().get_size();
    threads.resize(static_cast<std::size_t>(thread_count));
    for (Arguments& x : threads) {
      x.a = Memory(a, engine, nullptr);
      x.b = Memory(b, engine, nullptr);
      x.c = Memory(c, engine, nullptr);
      x.scratch = Memory(description.scratchpad_desc(), engine, nullptr);
      x.list = {{DNNL_ARG_SRC, x.a.get()},
                {DNNL_ARG_WEIGHTS, x.b.get()},
                {DNNL_ARG_DST, x.c.get()},
                {DNNL_ARG_SCRATCHPAD, x.scratch.get()}};
      if (call.bias != nullptr) {
        x.bias = Memory(bias, engine, nullptr);
        x.list.push_back({DNNL_ARG_BIAS, x.bias.get()});
      }
    }
  }

  void run(const dnnl::stream& stream, std::size_t thread, const void* a, const void* b, const float* bias, void* c,
           void* scratch) {
    Arguments& x = threads[thread];
    x.a.set_data_handle(const_cast<void*>(a));
    x.b.set_data_handle(const_cast<void*>(b));
    x.c.set_data_handle(c);
    x.scratch.set_data_handle(scratch);
    if (bias != nullptr) x.bias.set_data_handle(const_cast<float*>(bias));
    // The C call: the C++ one makes a vector of its arguments each time.
    const dnnl_status_t status = dnnl_primitive_execute(matmul.get(), stream.get(), static_cast<int>(x.list.size()), x.list.data());
    GRAFT_ASSERT(status == dnnl_success);
  }
};

/// What all products share.
struct Library {
  OpenMp openmp = find_openmp();
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  std::vector<dnnl::stream> streams;  // of each thread

  explicit Library(int threads) {
    for (int i = 0; i < threads; ++i) streams.emplace_back(engine);
  }
};

class OneDnnProduct final : public GemmProduct {
 public:
  OneDnnProduct(Library& library, const GemmCall& call, const GemmBlocks& blocks) : library_(library), blocks_(blocks) {
    const OneThread guard(library.openmp);
    const std::int64_t last_rows = call.m - (blocks_.row_parts - 1) * blocks_.rows, last_cols = call.n - (blocks_.col_parts - 1) * blocks_.cols;
    for (std::int64_t rows : {blocks_.rows, last_rows})
      for (std::int64_t cols : {blocks_.cols, last_cols})
        primitives_.emplace_back(library.engine, call, rows, cols, static_cast<int>(library.streams.size()));
  }

  std::size_t scratch_bytes() const override {
    std::size_t bytes = 0;
    for (const Primitive& primitive : primitives_) bytes = std::max(bytes, primitive.scratch_bytes);
    return bytes;
  }

  void run(const GemmCall& call, std::uint64_t, std::int64_t i, std::int64_t rows, std::int64_t j, std::int64_t cols, int thread,
           void* scratch) override {
    const OneThread guard(library_.openmp);
    const auto at = [](auto* operand, bool bf16, std::int64_t element) {
      using Byte = std::conditional_t<std::is_const_v<std::remove_pointer_t<decltype(operand)>>, const std::byte, std::byte>;
      return static_cast<Byte*>(operand) + element * static_cast<std::int64_t>(size_of(bf16 ? DType::bf16 : DType::f32));
    };
    const std::size_t which = (rows < blocks_.rows ? 2u : 0u) + (cols < blocks_.cols ? 1u : 0u), who = static_cast<std::size_t>(thread);
    primitives_[which].run(library_.streams[who], who, at(call.a, call.bf16, i * (call.transpose_a ? 1 : call.lda)),
                           at(call.b, call.bf16, j * (call.transpose_b ? call.ldb : 1)), call.bias == nullptr ? nullptr : call.bias + j,
                           at(call.c, call.bf16_out, i * call.ldc + j), scratch);
  }

 private:
  Library& library_;
  GemmBlocks blocks_;
  std::vector<Primitive> primitives_;  // of the inner blocks, of the last column of blocks, of the last row, of their corner
};

class OneDnn final : public GemmEngine {
 public:
  explicit OneDnn(int threads) : library_(threads) {}

  std::string description() const override {
    const dnnl_version_t& version = *dnnl_version();
    return "oneDNN " + std::to_string(version.major) + "." + std::to_string(version.minor) + "." + std::to_string(version.patch);
  }
  bool takes_bf16() override {
    if (!bf16_) bf16_ = has_bf16();
    return *bf16_;
  }
  std::unique_ptr<GemmProduct> prepare(const GemmCall& call, const GemmBlocks& blocks) override {
    return std::make_unique<OneDnnProduct>(library_, call, blocks);
  }

 private:
  bool has_bf16() {
    GemmCall call{.m = 64, .n = 64, .k = 64, .bf16 = true, .bf16_out = true, .lda = 64, .ldb = 64, .ldc = 64};
    const float bias[64] = {};
    call.bias = bias;
    try {
      OneDnnProduct(library_, call, {.rows = 64, .cols = 64, .row_parts = 1, .col_parts = 1});
      return true;
    } catch (const dnnl::error&) {
      return false;
    }
  }

  Library library_;
  std::optional<bool> bf16_;  // found out when asked: that takes milliseconds
};

}  // namespace

std::unique_ptr<GemmEngine> onednn_gemm(int threads) { return std::make_unique<OneDnn>(threads); }

bool onednn_is_faster() {
  const auto has = static_cast<unsigned>(dnnl::get_effective_cpu_isa()), avx512 = static_cast<unsigned>(dnnl::cpu_isa::avx512_core);
  return kLanes == 4 || (has & avx512) == avx512;
}

}  // namespace graft::cpu
