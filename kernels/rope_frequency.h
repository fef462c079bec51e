#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>

#include "graft/host_device.h"
#include "graft/ops.h"

namespace graft::detail {

/// The angle from one row to the next of elements i and i + D/2 of a head; formulas in ops.h.
GRAFT_HOST_DEVICE inline double rope_frequency(const Rope& op, std::int64_t i) {
  const RopeScaling& scaling = op.scaling;
  const double frequency = std::pow(op.theta, -2.0 * static_cast<double>(i) / static_cast<double>(op.head_dim));
  switch (scaling.kind) {
    case RopeScaling::Kind::none: break;
    case RopeScaling::Kind::linear: return frequency / scaling.factor;
    case RopeScaling::Kind::llama3: {
      const double turns = static_cast<double>(scaling.original_context) * frequency / (2.0 * std::numbers::pi);
      const double kept =
          std::clamp((turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor), 0.0, 1.0);
      return frequency * ((1.0 - kept) / scaling.factor + kept);
    }
  }
  return frequency;
}

}  // namespace graft::detail
