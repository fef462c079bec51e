#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graft/session.h"
#include "src/check_values.h"

namespace graft {

struct FreeMemory {
  Backend* backend = nullptr;
  void operator()(void* memory) const noexcept { backend->free(memory); }
};
/// A backend's memory, given back with it.
using Memory = std::unique_ptr<void, FreeMemory>;

struct Session::Impl {
  Impl(const Graph& graph, Backend& used_backend, const Impl* owner, const PlanOptions& options);
  ~Impl() { backend.forget(steps); }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  // ---- session.cc
  void allocate(const Impl* owner);
  void make_steps();
  void make_checks();
  void fill_constants();
  /// Sets the states, and the parameters if asked, to their Init; only those of this session's own memory if `only_own`.
  void initialize(bool parameters, bool only_own);
  /// Throws Error when an input was never written or a u32 value is out of range.
  void check_step();
  void step();

  // ---- session_values.cc
  void write(std::string_view name, const void* values, DType dtype, std::size_t count);
  void put(std::int32_t node, const void* values, DType dtype);
  /// The value called `name`, an output or a node, and how messages call it.
  struct Named {
    Value value;
    std::string label;
  };
  Named readable(std::string_view name) const;
  /// Throws Error unless `named` has a value now, of a dtype that reads as `dtype`.
  void check_readable(const Named& named, DType dtype) const;
  void read(const Named& named, DType dtype, void* to, std::size_t count);
  std::string first_nonfinite();

  // ---- session_checkpoint.cc
  struct Saved {
    std::int32_t node;
    std::string path;
  };
  std::vector<Saved> saved(bool only_parameters) const;
  void restore(const Checkpoint& checkpoint, bool only_parameters, bool may_convert, const std::string& what);

  const Node& node(std::int32_t index) const { return plan.graph().nodes()[static_cast<std::size_t>(index)]; }
  /// Where the value lives, or null.
  void* data(Value v) const {
    const std::int32_t buffer = plan.buffer_of(v);
    return buffer == Plan::kNone ? nullptr : memory[static_cast<std::size_t>(buffer)];
  }

  /// What a check reads: the host's copy of u32 values. A state's is brought from the backend at each step.
  struct HostCopy {
    std::int32_t node = -1;
    bool state = false;
    std::vector<std::uint32_t> values;
  };
  HostCopy* host_copy(std::int32_t node);

  Backend& backend;
  const Plan plan;
  std::vector<Memory> own;    // the persistent buffers that are not shared, the arena, the workspace
  std::vector<void*> memory;  // buffer → where it is
  std::vector<bool> shared;   // buffer → whether it is another session's
  void* workspace = nullptr;
  std::vector<TensorView> views;
  std::vector<Step> steps;
  std::vector<std::int32_t> required;  // the inputs that the plan reads
  std::vector<bool> written;           // node → whether it is an input that was written
  std::vector<ValueCheck> checks;
  std::vector<HostCopy> host;
  std::vector<std::byte> staging;
  bool stepped = false;
};

}  // namespace graft
