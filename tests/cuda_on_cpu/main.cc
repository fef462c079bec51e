// Tests on the emulated device. A fault that no test has looked at fails the test in which it came about.
#include <gtest/gtest.h>

#include "tests/cuda_on_cpu/emulation.h"

namespace {

class Faults final : public ::testing::EmptyTestEventListener {
  void OnTestEnd(const ::testing::TestInfo&) override {
    if (const std::string report = emulation::forget_fault(); !report.empty()) ADD_FAILURE() << report;
  }
};

}  // namespace

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  ::testing::UnitTest::GetInstance()->listeners().Append(new Faults);
  return RUN_ALL_TESTS();
}
