#include <Eigen/Core>
#include <cstring>
#include <new>

#include "graft/backend.h"
#include "graft/error.h"
#include "kernels/reference/kernels.h"
#include "kernels/reference/widen.h"

namespace graft {
namespace reference {

void run(const Input&, const Step&) { GRAFT_ASSERT(!"an input is run"); }
void run(const Parameter&, const Step&) { GRAFT_ASSERT(!"a parameter is run"); }
void run(const State&, const Step&) { GRAFT_ASSERT(!"a state is run"); }
void run(const Constant&, const Step&) { GRAFT_ASSERT(!"a constant is run"); }
void run(const StopGradient&, const Step&) { GRAFT_ASSERT(!"a view is run"); }
void run(const Reshape&, const Step&) { GRAFT_ASSERT(!"a view is run"); }

}  // namespace reference

namespace {

constexpr std::align_val_t kAlignment{64};

template <class AnyOp>
void run_step(const AnyOp& op, const Step& step) {
  if (reference::moves(op) || !reference::has_bf16(step)) return reference::run(op, step);
  const Step wide = reference::widen(step);
  reference::run(op, wide);
  reference::round_outputs(step, wide);
}

class ReferenceBackend final : public Backend {
 public:
  std::string description() const override {
    return "reference (Eigen " + std::to_string(EIGEN_WORLD_VERSION) + "." + std::to_string(EIGEN_MAJOR_VERSION) + "." +
           std::to_string(EIGEN_MINOR_VERSION) + ", 1 thread)";
  }
  void* allocate(std::size_t bytes) override {
    void* memory = ::operator new(bytes, kAlignment, std::nothrow);
    if (memory == nullptr) throw Error("reference: cannot allocate " + std::to_string(bytes) + " bytes");
    return std::memset(memory, 0, bytes);
  }
  void free(void* memory) noexcept override { ::operator delete(memory, kAlignment); }
  void upload(void* to, const void* from, std::size_t bytes) override { std::memcpy(to, from, bytes); }
  void download(void* to, const void* from, std::size_t bytes) override { std::memcpy(to, from, bytes); }
  std::size_t workspace(const Graph& graph, const Node& node) override { return reference::widened_bytes(graph, node); }
  void run(std::span<const Step> steps) override {
    for (const Step& step : steps) std::visit([&](const auto& op) { run_step(op, step); }, step.node->op);
  }
};

}  // namespace

std::unique_ptr<Backend> reference_backend() { return std::make_unique<ReferenceBackend>(); }

}  // namespace graft
