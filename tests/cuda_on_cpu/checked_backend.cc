#include "tests/cuda_on_cpu/checked_backend.h"

#include <algorithm>
#include <string>

#include "tests/cuda_on_cpu/emulation.h"

namespace graft::testing {
namespace {

using emulation::Range;

std::string label(const Step& step) { return op_name(step.node->op) + " \"" + step.node->name + "\""; }

std::vector<Range> ranges_of(std::span<const TensorView> views, const std::string& what) {
  std::vector<Range> ranges;
  for (std::size_t i = 0; i < views.size(); ++i)
    if (views[i]) ranges.push_back({views[i].data, views[i].type.bytes(), what + " " + std::to_string(i)});
  return ranges;
}

bool overlap(const Range& a, const Range& b) {
  const auto begin = [](const Range& range) { return reinterpret_cast<std::uintptr_t>(range.data); };
  return begin(a) < begin(b) + b.bytes && begin(b) < begin(a) + a.bytes;
}

}  // namespace

void CheckedBackend::run(std::span<const Step> steps) {
  for (const Step& step : steps) {
    const std::vector<Range> in = ranges_of(step.in, "input"), out = ranges_of(step.out, "output");
    std::vector<Range> writable = out, fresh;
    for (const Range& range : out)
      if (std::none_of(in.begin(), in.end(), [&](const Range& other) { return overlap(range, other); })) fresh.push_back(range);
    if (const std::size_t bytes = workspace_.at(step.node); bytes > 0) {
      writable.push_back({step.workspace, bytes, "workspace"});
      fresh.push_back(writable.back());
    }
    try {
      const emulation::Access access(in, writable, fresh);
      inner_.run({&step, 1});
      emulation::synchronize();
    } catch (const emulation::Fault& fault) {
      throw emulation::Fault(fault.kind, label(step) + ": " + fault.what());
    }
    for (const Range& range : out) {
      if (const std::size_t count = emulation::unwritten_bytes(range.data, range.bytes); count > 0)
        throw emulation::Fault(emulation::FaultKind::unwritten, label(step) + ": leaves " + std::to_string(count) + " of the " +
                                                                    std::to_string(range.bytes) + " bytes of " + range.name +
                                                                    " unwritten");
    }
  }
}

}  // namespace graft::testing
