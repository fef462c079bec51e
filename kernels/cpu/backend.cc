#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <thread>

#include "graft/error.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/thread_team.h"

namespace graft {
namespace {

constexpr std::size_t kAlignment = 64;

// The dispatcher. It must not be called run: an op without an overload would then convert to Op and call it for ever.
void dispatch(const Step& step, cpu::Context& context) {
  std::visit([&](const auto& op) { cpu::run(op, step, context); }, step.node->op);
}

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(int threads) : team_(threads), gemm_(team_) { context_ = {team_, &gemm_}; }

  std::string description() const override {
    return "cpu (" + gemm_.description() + ", " + std::to_string(team_.size()) +
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
    return std::visit([&](const auto& op) { return cpu::workspace(op, graph, node, team_.size()); }, node.op);
  }

  void run(std::span<const Step> steps) override {
    const std::lock_guard lock(mutex_);
    while (!steps.empty()) {
      std::size_t count = cpu::run_attention_gradients(steps, context_);
      if (count == 0) count = cpu::run_updates(steps, context_);
      if (count == 0) {
        dispatch(steps[0], context_);
        count = 1;
      }
      steps = steps.subspan(count);
    }
  }

 private:
  std::mutex mutex_;  // of the team, the products' primitives and their scratch memory
  cpu::ThreadTeam team_;
  cpu::Gemm gemm_;
  cpu::Context context_;
};

}  // namespace

std::unique_ptr<Backend> cpu_backend(int threads) {
  if (threads < 0) throw Error("cpu backend: the number of threads must not be negative, got " + std::to_string(threads));
  if (threads == 0) threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  return std::make_unique<CpuBackend>(threads);
}

}  // namespace graft
