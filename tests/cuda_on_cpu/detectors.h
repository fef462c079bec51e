#pragma once
// For tests of the detectors: what the emulation says of a kernel.
#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "tests/cuda_on_cpu/emulation.h"

namespace graft::testing {

/// `run` enqueues work that has a fault of this kind; the report must hold `text`.
inline void expect_fault(emulation::FaultKind kind, const std::string& text, const std::function<void()>& run) {
  try {
    run();
    emulation::synchronize();
  } catch (const emulation::Fault& fault) {
    EXPECT_EQ(static_cast<int>(fault.kind), static_cast<int>(kind)) << fault.what();
    EXPECT_NE(std::string(fault.what()).find(text), std::string::npos) << fault.what();
    return;
  }
  ADD_FAILURE() << "no fault was found: " << text;
}

inline void expect_healthy(const std::function<void()>& run) {
  EXPECT_NO_THROW({
    run();
    emulation::synchronize();
  });
}

/// Reports without source lines, which take time.
class Detector : public ::testing::Test {
  emulation::With quick_{emulation::Options{.locate = false}};
};

}  // namespace graft::testing
