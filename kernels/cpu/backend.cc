#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>

#include "graft/error.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/thread_team.h"
#include "kernels/cpu/variants.h"

namespace graft {
namespace {

constexpr std::size_t kAlignment = 64;

// The dispatcher. It must not be called run: an op without an overload would then convert to Op and call it for ever.
void dispatch(const Step& step, cpu::Context& context) {
  std::visit(
      [&](const auto& op) {
        if (cpu::takes_bf16(op, context) || !reference::has_bf16(step)) return cpu::run(op, step, context);
        const Step wide = reference::widen(step);
        cpu::run(op, wide, context);
        reference::round_outputs(step, wide);
      },
      step.node->op);
}

class CpuBackend final : public Backend {
 public:
  CpuBackend(int threads, std::string_view variant) : variant_(variant), team_(threads), gemm_(team_) {
    context_ = {team_, &gemm_};
  }

  std::string description() const override {
    return "cpu (" + gemm_.description() + ", " + variant_ + (variant_.empty() ? "" : ", ") + std::to_string(team_.size()) +
           (team_.size() == 1 ? " thread)" : " threads)");
  }

  void* allocate(std::size_t bytes) override {
    void* memory = bytes > PTRDIFF_MAX ? nullptr : std::aligned_alloc(kAlignment, (bytes / kAlignment + 1) * kAlignment);
    if (memory == nullptr) throw Error("cpu backend: not enough memory for " + std::to_string(bytes) + " bytes");
    return std::memset(memory, 0, bytes);
  }
  void free(void* memory) noexcept override { std::free(memory); }
  void upload(void* to, const void* from, std::size_t bytes) override { std::memcpy(to, from, bytes); }
  void download(void* to, const void* from, std::size_t bytes) override { std::memcpy(to, from, bytes); }

  std::size_t workspace(const Graph& graph, const Node& node) override {
    return std::visit(
        [&](const auto& op) {
          const std::size_t own = cpu::workspace(op, graph, node, team_.size());
          return cpu::takes_bf16(op, context_) ? own : own + reference::widened_bytes(graph, node);
        },
        node.op);
  }

  void run(std::span<const Step> steps) override {
    const std::lock_guard lock(mutex_);
    while (!steps.empty()) {
      std::size_t count = cpu::run_attention_gradients(steps, context_);
      if (count == 0) count = cpu::run_updates(steps, context_);
      if (count == 0) count = cpu::run_products(steps, context_);
      if (count == 0) {
        dispatch(steps[0], context_);
        count = 1;
      }
      steps = steps.subspan(count);
    }
  }

 private:
  std::string variant_;
  std::mutex mutex_;  // of the team, the products' primitives and their scratch memory
  cpu::ThreadTeam team_;
  cpu::Gemm gemm_;
  cpu::Context context_;
};

}  // namespace
}  // namespace graft

graft::Backend* graft_cpu_backend(int threads, std::string_view name) { return new graft::CpuBackend(threads, name); }
