#include <dlfcn.h>

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <dnnl.hpp>
#include <optional>
#include <thread>
#include <unordered_map>
#include <vector>

#include "graft/error.h"
#include "graft/types.h"
#include "kernels/cpu/gemm_blocks.h"

namespace graft::cpu {
namespace {

using Memory = dnnl::memory;

/// What a product's primitives depend on.
struct Key {
  std::int64_t m, n, k, lda, ldb, ldc;
  bool transpose_a, transpose_b, bias, add, bf16, bf16_out;
  bool operator==(const Key&) const = default;
};

struct KeyHash {
  std::size_t operator()(const Key& key) const {
    std::size_t hash = 0;
    const std::int64_t flags = key.transpose_a + 2 * key.transpose_b + 4 * key.bias + 8 * key.add + 16 * key.bf16 + 32 * key.bf16_out;
    for (std::int64_t x : {key.m, key.n, key.k, key.lda, key.ldb, key.ldc, flags}) {
      hash = (hash ^ static_cast<std::size_t>(x)) * 0x9E3779B97F4A7C15u;
      hash ^= hash >> 29;
    }
    return hash;
  }
};

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

  Primitive(const dnnl::engine& engine, const Key& key, std::int64_t rows, std::int64_t cols, int thread_count) {
    const auto operands = key.bf16 ? Memory::data_type::bf16 : Memory::data_type::f32;
    const auto matrix = [](std::int64_t r, std::int64_t c, std::int64_t row_step, std::int64_t col_step, Memory::data_type type) {
      return Memory::desc({r, c}, type, {row_step, col_step});
    };
    const auto a = key.transpose_a ? matrix(rows, key.k, 1, key.lda, operands) : matrix(rows, key.k, key.lda, 1, operands);
    const auto b = key.transpose_b ? matrix(key.k, cols, 1, key.ldb, operands) : matrix(key.k, cols, key.ldb, 1, operands);
    const auto c = matrix(rows, cols, key.ldc, 1, key.bf16_out ? Memory::data_type::bf16 : Memory::data_type::f32);
    const auto bias = key.bias ? matrix(1, cols, cols, 1, Memory::data_type::f32) : Memory::desc();
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    if (key.add) {
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
      if (key.bias) {
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

/// Primitives of the inner blocks, of the last row of blocks and of the last column of blocks.
struct Product {
  GemmBlocks blocks;
  std::vector<Primitive> primitives;
};

/// Whether a core's cache may still hold the rows that it wrote before.
bool in_cache(const GemmCall& call) { return call.m * call.k + call.n * call.k + call.m * call.n <= 1 << 19; }

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};

}  // namespace

struct Gemm::Impl {
  /// A product of a loop, whose blocks are the tasks from `first` on.
  struct Part {
    const GemmCall* call;
    Product* product;
    std::int64_t first;
  };

  Threads threads;
  OpenMp openmp = find_openmp();
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  std::vector<dnnl::stream> streams;
  std::unordered_map<Key, Product, KeyHash> products;
  std::vector<std::unique_ptr<void, Free>> scratch;  // of each thread
  std::size_t scratch_bytes = 0;
  std::optional<bool> bf16;  // found out when asked
  std::vector<Part> parts;  // of the loop that runs

  explicit Impl(Threads who) : threads(who), scratch(static_cast<std::size_t>(who.count())) {
    for (int i = 0; i < who.count(); ++i) streams.emplace_back(engine);
    keep_workers_single();
  }

  /// OpenMP's setting is each thread's own. A task that waits for all others has every thread of the team take one.
  void keep_workers_single() {
    if (openmp.threads == nullptr) return;
    std::atomic<int> arrived{0};
    parallel_tasks(threads, threads.count(), [&](std::int64_t, int thread) {
      if (thread > 0) openmp.set_threads(1);
      ++arrived;
      while (arrived < threads.count()) std::this_thread::yield();
    });
  }

  Product& find(const GemmCall& call) {
    const Key key = {call.m,         call.n,   call.k, call.lda, call.ldb, call.ldc, call.transpose_a, call.transpose_b, call.bias != nullptr,
                     call.addend != nullptr, call.bf16, call.bf16_out};
    const auto known = products.find(key);
    if (known != products.end()) return known->second;
    Product product{gemm_blocks(key.m, key.n, key.k, key.transpose_a), {}};
    const GemmBlocks& blocks = product.blocks;
    const std::int64_t last_rows = key.m - (blocks.row_parts - 1) * blocks.rows;
    const std::int64_t last_cols = key.n - (blocks.col_parts - 1) * blocks.cols;
    for (std::int64_t rows : {blocks.rows, last_rows})
      for (std::int64_t cols : {blocks.cols, last_cols}) product.primitives.emplace_back(engine, key, rows, cols, threads.count());
    for (const Primitive& primitive : product.primitives) reserve_scratch(primitive.scratch_bytes);
    return products.emplace(key, std::move(product)).first->second;
  }

  void run_block(const GemmCall& call, Product& product, std::int64_t block, std::size_t thread) {
    const GemmBlocks& blocks = product.blocks;
    const std::int64_t row = block % blocks.row_parts, col = block / blocks.row_parts, i = row * blocks.rows, j = col * blocks.cols;
    const std::size_t which = (row + 1 == blocks.row_parts ? 2u : 0u) + (col + 1 == blocks.col_parts ? 1u : 0u);
    const auto at = [](auto* operand, bool bf16, std::int64_t element) {
      using Byte = std::conditional_t<std::is_const_v<std::remove_pointer_t<decltype(operand)>>, const std::byte, std::byte>;
      return static_cast<Byte*>(operand) + element * static_cast<std::int64_t>(size_of(bf16 ? DType::bf16 : DType::f32));
    };
    copy_addend(call, i, std::min(blocks.rows, call.m - i), j, std::min(blocks.cols, call.n - j));
    product.primitives[which].run(streams[thread], thread, at(call.a, call.bf16, i * (call.transpose_a ? 1 : call.lda)),
                                  at(call.b, call.bf16, j * (call.transpose_b ? call.ldb : 1)),
                                  call.bias == nullptr ? nullptr : call.bias + j, at(call.c, call.bf16_out, i * call.ldc + j),
                                  scratch[thread].get());
  }

  void reserve_scratch(std::size_t bytes) {
    if (bytes <= scratch_bytes) return;
    constexpr std::size_t kPage = 4096;
    scratch_bytes = (bytes + kPage - 1) / kPage * kPage;
    for (auto& memory : scratch) {
      memory.reset(std::aligned_alloc(kPage, scratch_bytes));
      if (!memory) throw Error("cpu backend: not enough memory for " + std::to_string(scratch_bytes) + " bytes of scratch");
    }
  }
};

Gemm::Gemm(Threads threads) : impl_(std::make_unique<Impl>(threads)) {}
Gemm::~Gemm() = default;

std::string Gemm::description() const {
  const dnnl_version_t& version = *dnnl_version();
  return "oneDNN " + std::to_string(version.major) + "." + std::to_string(version.minor) + "." + std::to_string(version.patch);
}

bool Gemm::takes_bf16() const {
  if (!impl_->bf16) {
    try {
      const OneThread guard(impl_->openmp);
      Primitive(impl_->engine, {64, 64, 64, 64, 64, 64, false, false, true, false, true, true}, 64, 64, 1);
      impl_->bf16 = true;
    } catch (const dnnl::error&) {
      impl_->bf16 = false;
    }
  }
  return *impl_->bf16;
}

void Gemm::operator()(std::span<const GemmCall> calls) {
  const OneThread guard(impl_->openmp);
  impl_->parts.clear();
  std::int64_t tasks = 0;
  bool near = true;
  for (const GemmCall& call : calls) {
    if (small_gemm(call, impl_->threads)) continue;
    Product& product = impl_->find(call);
    impl_->parts.push_back({&call, &product, tasks});
    tasks += product.blocks.count();
    near = near && in_cache(call);
  }
  const auto run = [&](std::int64_t task, int thread) {
    auto part = impl_->parts.end() - 1;
    while (part->first > task) --part;
    impl_->run_block(*part->call, *part->product, task - part->first, static_cast<std::size_t>(thread));
  };
  if (near)
    parallel_near(impl_->threads, tasks, run);
  else
    parallel_tasks(impl_->threads, tasks, run);
}

}  // namespace graft::cpu
