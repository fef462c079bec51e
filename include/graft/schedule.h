#pragma once
#include <cmath>
#include <cstdint>
#include <numbers>

#include "graft/host_device.h"
#include "graft/ops.h"

namespace graft {

/// The learning rate of 0-based step t; the formulas are at Schedule in ops.h. f runs from 0 at the end of the warm-up (wsd: D steps
/// before N) to 1 at step N, so the first step after the warm-up has base and step N has min.
GRAFT_HOST_DEVICE inline double learning_rate_at(const Schedule& schedule, std::int64_t step) {
  const auto fraction = [&](std::int64_t begin) {
    return static_cast<double>(step - begin) / static_cast<double>(schedule.total - begin);
  };
  const auto linear = [&](double f) { return schedule.base + f * (schedule.min - schedule.base); };
  if (step < schedule.warmup) return schedule.base * static_cast<double>(step + 1) / static_cast<double>(schedule.warmup);
  if (schedule.kind == Schedule::Kind::constant) return schedule.base;
  if (step >= schedule.total) return schedule.min;
  switch (schedule.kind) {
    case Schedule::Kind::constant: break;
    case Schedule::Kind::linear: return linear(fraction(schedule.warmup));
    case Schedule::Kind::cosine:
      return schedule.min + 0.5 * (schedule.base - schedule.min) * (1.0 + std::cos(std::numbers::pi * fraction(schedule.warmup)));
    case Schedule::Kind::wsd: {
      const std::int64_t decay_begin = schedule.total - schedule.decay;
      return step < decay_begin ? schedule.base : linear(fraction(decay_begin));
    }
  }
  return schedule.base;
}

}  // namespace graft
