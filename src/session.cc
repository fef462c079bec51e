#include "graft/session.h"

#include <algorithm>

#include "graft/error.h"
#include "src/convert.h"
#include "src/initialize.h"
#include "src/op_traits.h"
#include "src/session_impl.h"

namespace graft {
namespace {

const Init* init_of(const Op& op, bool parameters) {
  if (const auto* state = std::get_if<State>(&op)) return &state->init;
  const auto* parameter = std::get_if<Parameter>(&op);
  return parameter != nullptr && parameters ? &parameter->init : nullptr;
}

std::string in_units(std::size_t bytes) {
  if (bytes < 1024) return std::to_string(bytes) + " B";
  constexpr const char* kUnits[] = {" KiB", " MiB", " GiB"};
  std::size_t unit = 0, tenths = (bytes * 10 + 512) / 1024;
  for (; tenths >= 10240 && unit + 1 < std::size(kUnits); ++unit) tenths = (tenths + 512) / 1024;
  return std::to_string(tenths / 10) + "." + std::to_string(tenths % 10) + kUnits[unit];
}

}  // namespace

Session::Impl::Impl(const Graph& graph, Backend& used_backend, const Impl* owner, const PlanOptions& options)
    : backend(used_backend), plan(graph, used_backend, options) {
  allocate(owner);
  make_steps();
  make_checks();
  fill_constants();
  initialize(true, true);
}

void Session::Impl::allocate(const Impl* owner) {
  const auto own_memory = [&](std::size_t bytes) -> void* {
    if (bytes == 0) return nullptr;
    try {
      own.push_back(Memory(backend.allocate(bytes), FreeMemory{&backend}));
    } catch (const Error& error) {
      throw Error(std::string(error.what()) + "; the session needs " + in_units(plan.arena_bytes()) + " for the values of a step, " +
                  in_units(plan.workspace_bytes()) + " of workspace and " + in_units(plan.persistent_bytes()) +
                  " for parameters, states, inputs and constants; less: smaller batches or sequences, passes::recompute, passes::mixed_precision");
    }
    return own.back().get();
  };
  auto* arena = static_cast<std::byte*>(own_memory(plan.arena_bytes()));
  workspace = own_memory(plan.workspace_bytes());
  for (const Plan::Buffer& buffer : plan.buffers()) {
    if (!buffer.persistent) {
      memory.push_back(arena + buffer.offset);
      shared.push_back(false);
      continue;
    }
    const Node& here = node(buffer.source);
    const Value theirs = owner != nullptr && init_of(here.op, true) != nullptr ? owner->plan.graph().find(here.name) : Value{};
    const bool share = theirs && init_of(owner->node(theirs.node).op, true) != nullptr;
    if (share && owner->plan.graph().type(theirs) != here.outputs[0]) {
      throw Error(label(here) + ": is " + to_string(here.outputs[0]) + " here, " + to_string(owner->plan.graph().type(theirs)) +
                  " in the session that shares its memory");
    }
    memory.push_back(share ? owner->data(theirs) : own_memory(buffer.bytes));
    shared.push_back(share);
  }
}

void Session::Impl::make_steps() {
  const Graph& graph = plan.graph();
  std::size_t count = 0;
  for (const std::int32_t n : plan.order()) count += node(n).inputs.size() + node(n).outputs.size();
  views.reserve(count);  // steps hold spans of it
  for (const std::int32_t n : plan.order()) {
    const Node& here = node(n);
    const std::size_t in = views.size(), out = in + here.inputs.size();
    for (const Value v : here.inputs) views.push_back({data(v), graph.type(v)});
    for (std::int32_t slot = 0; slot < static_cast<std::int32_t>(here.outputs.size()); ++slot) {
      views.push_back({data({n, slot}), here.outputs[static_cast<std::size_t>(slot)]});
    }
    steps.push_back({&here, std::span(views).subspan(in, out - in), std::span(views).subspan(out), workspace});
  }
  written.assign(graph.nodes().size(), false);
  for (const Plan::Buffer& buffer : plan.buffers()) {
    if (buffer.persistent && buffer.first != Plan::kNone && std::holds_alternative<Input>(node(buffer.source).op))
      required.push_back(buffer.source);
  }
}

void Session::Impl::make_checks() {
  for (const ValueCheck& check : value_checks(plan)) {
    const Node& source = node(check.source);
    const auto size = static_cast<std::size_t>(source.outputs[0].shape.size());
    if (const auto* constant = std::get_if<Constant>(&source.op)) {
      std::vector<std::uint32_t> values(size);
      for (std::size_t i = 0; i < size; ++i)
        values[i] = static_cast<std::uint32_t>(constant->values[constant->values.size() == 1 ? 0 : i]);
      check_values(plan.graph(), check, values);
      continue;
    }
    checks.push_back(check);
    if (host_copy(check.source) == nullptr) {
      host.push_back({check.source, std::holds_alternative<State>(source.op), std::vector<std::uint32_t>(size)});
    }
  }
}

Session::Impl::HostCopy* Session::Impl::host_copy(std::int32_t index) {
  const auto found = std::find_if(host.begin(), host.end(), [&](const HostCopy& copy) { return copy.node == index; });
  return found == host.end() ? nullptr : &*found;
}

void Session::Impl::fill_constants() {
  for (const Plan::Buffer& buffer : plan.buffers()) {
    if (!buffer.persistent) continue;
    const auto* constant = std::get_if<Constant>(&node(buffer.source).op);
    if (constant == nullptr) continue;
    std::vector<double> values = constant->values;
    values.resize(static_cast<std::size_t>(constant->type.shape.size()), values.front());
    put(buffer.source, values.data(), DType::f64);
  }
}

void Session::Impl::initialize(bool parameters, bool only_own) {
  constexpr std::size_t kChunk = 4096;
  std::vector<double> chunk;
  for (std::size_t b = 0; b < plan.buffers().size(); ++b) {
    const Plan::Buffer& buffer = plan.buffers()[b];
    if (!buffer.persistent || (only_own && shared[b])) continue;
    const Node& source = node(buffer.source);
    const Init* init = init_of(source.op, parameters);
    if (init == nullptr) continue;
    const TensorType& type = source.outputs[0];
    const auto size = static_cast<std::size_t>(type.shape.size());
    staging.resize(type.bytes());
    for (std::size_t first = 0; first < size; first += kChunk) {
      chunk.resize(std::min(kChunk, size - first));
      initial_values(*init, type.shape, source.name, plan.graph().seed(), first, chunk);
      convert(chunk.data(), DType::f64, staging.data() + first * size_of(type.dtype), type.dtype, chunk.size());
    }
    backend.upload(memory[b], staging.data(), type.bytes());
  }
}

void Session::Impl::check_step() {
  for (const std::int32_t input : required) {
    if (!written[static_cast<std::size_t>(input)]) throw Error(label(node(input)) + ": was never written");
  }
  for (HostCopy& copy : host) {
    if (copy.state) backend.download(copy.values.data(), data({copy.node, 0}), copy.values.size() * sizeof(std::uint32_t));
  }
  for (const ValueCheck& check : checks) check_values(plan.graph(), check, host_copy(check.source)->values);
}

void Session::Impl::step() {
  check_step();
  backend.run(steps);
  stepped = true;
}

Session::Session(const Graph& graph, Backend& backend, const PlanOptions& options)
    : impl_(std::make_unique<Impl>(graph, backend, nullptr, options)) {}

Session::Session(const Graph& graph, Session& owner, const PlanOptions& options)
    : impl_(std::make_unique<Impl>(graph, owner.backend(), owner.impl_.get(), options)) {}

Session::~Session() = default;

void Session::step() { impl_->step(); }
void Session::reset() { impl_->initialize(true, false); }
void Session::reset_states() { impl_->initialize(false, false); }

const Plan& Session::plan() const { return impl_->plan; }
const Graph& Session::graph() const { return impl_->plan.graph(); }
Backend& Session::backend() { return impl_->backend; }

MemoryReport Session::memory_report() const {
  const Plan& plan = impl_->plan;
  MemoryReport report;
  for (std::size_t b = 0; b < plan.buffers().size(); ++b) {
    const Plan::Buffer& buffer = plan.buffers()[b];
    if (!buffer.persistent) continue;
    const Op& op = impl_->node(buffer.source).op;
    std::size_t& kind = impl_->shared[b]                        ? report.shared
                        : std::holds_alternative<Input>(op)     ? report.inputs
                        : std::holds_alternative<Parameter>(op) ? report.parameters
                        : std::holds_alternative<State>(op)     ? report.states
                                                                : report.constants;
    kind += buffer.bytes;
  }
  report.arena = plan.arena_bytes();
  report.arena_without_reuse = plan.bytes_without_reuse();
  report.workspace = plan.workspace_bytes();
  report.total = report.parameters + report.states + report.inputs + report.constants + report.arena + report.workspace;
  return report;
}

std::string MemoryReport::to_string() const {
  const auto line = [](std::string_view name, std::size_t bytes, const std::string& note = {}) {
    const std::string size = in_units(bytes);
    const std::size_t digits = size.find(' ');  // ends in one column
    return std::string(name) + std::string(20 - name.size() - digits, ' ') + size + note + "\n";
  };
  std::string text = line("parameters", parameters) + line("states", states) + line("inputs", inputs) +
                     line("constants", constants) + line("arena", arena, " (without reuse " + in_units(arena_without_reuse) + ")") +
                     line("workspace", workspace) + line("total", total);
  if (shared > 0) text += line("shared", shared, " (parameters and states in another session's memory)");
  return text;
}

}  // namespace graft
