#include "kernels/cpu/gemm.h"

#include <cstdlib>
#include <cstring>
#include <unordered_map>
#include <vector>

#include "graft/error.h"
#include "kernels/cpu/gemm_engine.h"

namespace graft::cpu {
namespace {

/// What a prepared product depends on.
struct Key {
  std::int64_t m, n, k, lda, ldb, ldc;
  bool transpose_a, transpose_b, bias, add, bf16, bf16_out;
  explicit Key(const GemmCall& call)
      : m(call.m), n(call.n), k(call.k), lda(call.lda), ldb(call.ldb), ldc(call.ldc), transpose_a(call.transpose_a), transpose_b(call.transpose_b),
        bias(call.bias != nullptr), add(call.addend != nullptr), bf16(call.bf16), bf16_out(call.bf16_out) {}
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

struct Product {
  GemmBlocks blocks;
  std::unique_ptr<GemmProduct> prepared;
};

/// Whether a core's cache may still hold the rows that it wrote before.
bool in_cache(const GemmCall& call) { return call.m * call.k + call.n * call.k + call.m * call.n <= 1 << 19; }

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};

std::unique_ptr<GemmEngine> make_engine(GemmChoice choice, int threads) {
  auto library = choice == GemmChoice::packed || (choice == GemmChoice::fastest && !onednn_is_faster()) ? nullptr : onednn_gemm(threads);
  return library ? std::move(library) : packed_gemm();
}

}  // namespace

struct Gemm::Impl {
  /// A product of a loop, whose blocks are the tasks from `first` on.
  struct Part {
    const GemmCall* call;
    Product* product;
    std::int64_t first;
    std::uint64_t number;
  };

  Threads threads;
  std::unique_ptr<GemmEngine> engine;
  std::unordered_map<Key, Product, KeyHash> products;
  std::vector<std::unique_ptr<void, Free>> scratch;  // of each thread
  std::size_t scratch_bytes = 0;
  std::vector<Part> parts;  // of the loop that runs
  std::uint64_t calls = 0;

  Impl(Threads who, GemmChoice choice)
      : threads(who), engine(make_engine(choice, who.count())), scratch(static_cast<std::size_t>(who.count())) {}

  Product& find(const GemmCall& call) {
    const Key key(call);
    const auto known = products.find(key);
    if (known != products.end()) return known->second;
    const GemmBlocks blocks = gemm_blocks(call.m, call.n, call.k, call.transpose_a);
    Product product{blocks, engine->prepare(call, blocks)};
    reserve_scratch(product.prepared->scratch_bytes());
    return products.emplace(key, std::move(product)).first->second;
  }

  void run_block(const Part& part, std::int64_t block, int thread) {
    const GemmCall& call = *part.call;
    const GemmBlocks& blocks = part.product->blocks;
    const std::int64_t i = block % blocks.row_parts * blocks.rows, j = block / blocks.row_parts * blocks.cols;
    const std::int64_t rows = std::min(blocks.rows, call.m - i), cols = std::min(blocks.cols, call.n - j);
    copy_addend(call, i, rows, j, cols);
    part.product->prepared->run(call, part.number, i, rows, j, cols, thread, scratch[static_cast<std::size_t>(thread)].get());
  }

  void reserve_scratch(std::size_t bytes) {
    if (bytes <= scratch_bytes) return;
    constexpr std::size_t kPage = 4096;
    scratch_bytes = (bytes + kPage - 1) / kPage * kPage;
    for (auto& memory : scratch) {
      memory.reset(std::aligned_alloc(kPage, scratch_bytes));
      if (!memory) throw Error("cpu backend: not enough memory for " + std::to_string(scratch_bytes) + " bytes of scratch");
      std::memset(memory.get(), 0, scratch_bytes);
    }
  }
};

Gemm::Gemm(Threads threads, GemmChoice choice) : impl_(std::make_unique<Impl>(threads, choice)) {}
Gemm::~Gemm() = default;

std::string Gemm::description() const { return impl_->engine->description(); }
bool Gemm::takes_bf16() const { return impl_->engine->takes_bf16(); }

void Gemm::operator()(std::span<const GemmCall> calls) {
  impl_->parts.clear();
  std::int64_t tasks = 0;
  bool near = true;
  for (const GemmCall& call : calls) {
    if (small_gemm(call, impl_->threads)) continue;
    Product& product = impl_->find(call);
    impl_->parts.push_back({&call, &product, tasks, ++impl_->calls});
    tasks += product.blocks.count();
    near = near && in_cache(call);
  }
  const auto run = [&](std::int64_t task, int thread) {
    auto part = impl_->parts.end() - 1;
    while (part->first > task) --part;
    impl_->run_block(*part, task - part->first, thread);
  };
  if (near)
    parallel_near(impl_->threads, tasks, run);
  else
    parallel_tasks(impl_->threads, tasks, run);
}

}  // namespace graft::cpu
