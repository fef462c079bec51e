// Each detector of the emulation at a kernel that has the fault, and at its healthy twin.
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "kernels/cuda/device_cuda.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ptx.cuh"
#include "tests/cuda_on_cpu/device_array.h"
#include "tests/cuda_on_cpu/emulation.h"

namespace graft::cuda {
namespace {

using emulation::Fault;
using emulation::FaultKind;
using emulation::Options;
using testing::DeviceArray;

constexpr unsigned kAll = 0xffffffffu;

/// The report of what `run` enqueues; it must be of that kind.
std::string fault_of(FaultKind kind, const std::function<void()>& run) {
  try {
    run();
    emulation::synchronize();
  } catch (const Fault& fault) {
    EXPECT_EQ(static_cast<int>(fault.kind), static_cast<int>(kind)) << fault.what();
    return fault.what();
  }
  ADD_FAILURE() << "no fault was found";
  return "";
}

void expect_healthy(const std::function<void()>& run) {
  run();
  EXPECT_NO_THROW(emulation::synchronize());
}

class Detector : public ::testing::Test {
  emulation::With quick_{Options{.locate = false}};
};

// ---- global memory

__global__ void copy_kernel(int* to, const int* from, int shift, int count) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < count) to[i] = from[i + shift];
}

TEST_F(Detector, ReadsBesideAnAllocation) {
  const DeviceArray<int> from(std::vector<int>(40, 1)), to(40);
  const auto copy = [&](int shift, int count) { launch(copy_kernel, {dim3(2), dim3(20)}, nullptr, to.data(), from.data(), shift, count); };
  expect_healthy([&] { copy(0, 40); });
  expect_healthy([&] { copy(1, 39); });
  EXPECT_NE(fault_of(FaultKind::out_of_bounds, [&] { copy(1, 40); }).find("copy_kernel, block (1, 0, 0), thread (19, 0, 0): reads 4 bytes out of bounds, 0 bytes after the end of allocation "), std::string::npos);
  EXPECT_NE(fault_of(FaultKind::out_of_bounds, [&] { copy(-2, 40); }).find("block (0, 0, 0), thread (0, 0, 0): reads 4 bytes out of bounds, 8 bytes before allocation "), std::string::npos);
}

TEST_F(Detector, WritesBesideAnAllocation) {
  const DeviceArray<int> from(std::vector<int>(41, 1)), to(40);
  const auto copy = [&](int count) { launch(copy_kernel, {dim3(1), dim3(64)}, nullptr, to.data(), from.data(), 0, count); };
  expect_healthy([&] { copy(40); });
  EXPECT_NE(fault_of(FaultKind::out_of_bounds, [&] { copy(41); }).find("thread (40, 0, 0): writes 4 bytes out of bounds, 0 bytes after the end of allocation "), std::string::npos);
}

}  // namespace
}  // namespace graft::cuda
