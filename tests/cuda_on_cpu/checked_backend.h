#pragma once
// A backend that watches over another one on the emulated device.
#include <map>

#include "graft/backend.h"

namespace graft::testing {

/// Runs steps one by one on `inner`. A node's kernels may read its inputs only, and write its outputs and workspace only; outputs (but for those that lie in the
/// place of an input) and workspace count as never written before, and outputs must be wholly written after. Throws emulation::Fault.
class CheckedBackend final : public Backend {
 public:
  explicit CheckedBackend(Backend& inner) : inner_(inner) {}

  std::string description() const override { return inner_.description(); }
  void* allocate(std::size_t bytes) override { return inner_.allocate(bytes); }
  void free(void* memory) noexcept override { inner_.free(memory); }
  void upload(void* to, const void* from, std::size_t bytes) override { inner_.upload(to, from, bytes); }
  void download(void* to, const void* from, std::size_t bytes) override { inner_.download(to, from, bytes); }
  std::size_t workspace(const Graph& graph, const Node& node) override { return workspace_[&node] = inner_.workspace(graph, node); }
  void run(std::span<const Step> steps) override;
  void wait() override { inner_.wait(); }
  void forget(std::span<const Step> steps) noexcept override { inner_.forget(steps); }

 private:
  Backend& inner_;
  std::map<const Node*, std::size_t> workspace_;
};

}  // namespace graft::testing
