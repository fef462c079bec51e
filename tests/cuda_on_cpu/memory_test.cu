// Faults at global and shared memory: each detector at a kernel that has the fault, and at its healthy twin.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "kernels/cuda/device_cuda.cuh"
#include "kernels/cuda/launch.cuh"
#include "tests/cuda_on_cpu/detectors.h"
#include "tests/cuda_on_cpu/device_array.h"
#include "tests/cuda_on_cpu/emulation.h"

namespace graft::cuda {
namespace {

using emulation::Access;
using emulation::FaultKind;
using emulation::Options;
using emulation::Range;
using emulation::With;
using testing::DeviceArray;
using testing::expect_fault;
using testing::expect_healthy;

class EmulatedMemory : public testing::Detector {};

std::vector<int> ones(std::size_t count) { return std::vector<int>(count, 1); }

// ---- global memory

__global__ void copy_kernel(int* to, const int* from, int shift, int count) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < count) to[i] = from[i + shift];
}
void copy(int* to, const int* from, int shift, int count, unsigned blocks = 2) {
  launch(copy_kernel, {dim3(blocks), dim3(20)}, nullptr, to, from, shift, count);
}

TEST_F(EmulatedMemory, ReadsBesideAnAllocationAreReported) {
  const DeviceArray<int> from(ones(40)), to(40);
  expect_healthy([&] { copy(to.data(), from.data(), 0, 40); });
  expect_healthy([&] { copy(to.data(), from.data(), 1, 39); });
  expect_fault(FaultKind::out_of_bounds,
               "copy_kernel, block (1, 0, 0), thread (19, 0, 0): reads 4 bytes out of bounds, 0 bytes after the end of allocation ",
               [&] { copy(to.data(), from.data(), 1, 40); });
  expect_fault(FaultKind::out_of_bounds,
               "block (0, 0, 0), thread (0, 0, 0): reads 4 bytes out of bounds, 8 bytes before allocation ",
               [&] { copy(to.data(), from.data(), -2, 40); });
  expect_fault(FaultKind::out_of_bounds, "thread (0, 0, 0): reads 4 bytes out of bounds, 0 bytes after the end of allocation ",
               [&] { copy(to.data(), from.data(), 40, 40); });
  expect_fault(FaultKind::out_of_bounds, "reads 4 bytes out of bounds, 65376 bytes before ",
               [&] { copy(to.data(), from.data(), -16344, 40); });
}

TEST_F(EmulatedMemory, WritesBesideAnAllocationAreReported) {
  const DeviceArray<int> from(ones(41)), to(40);
  expect_healthy([&] { copy(to.data(), from.data(), 0, 40); });
  expect_fault(FaultKind::out_of_bounds, "thread (0, 0, 0): writes 4 bytes out of bounds, 0 bytes after the end of allocation ",
               [&] { copy(to.data(), from.data(), 0, 41, 3); });
  EXPECT_EQ(to.values(), ones(40));
}

template <class T>
__global__ void read_kernel(T* to, const T* from) {
  *to = *from;
}

struct alignas(16) Sixteen {
  int at[4];
};

TEST_F(EmulatedMemory, AccessesThatReachOverTheEndAreReported) {
  const DeviceArray<int> six(ones(6)), two(ones(2)), eight(8);
  const DeviceArray<char> three(std::vector<char>(3, 1));
  auto* to = reinterpret_cast<Sixteen*>(eight.data());
  expect_healthy([&] { launch(read_kernel<Sixteen>, {dim3(1), dim3(1)}, nullptr, to, reinterpret_cast<Sixteen*>(six.data())); });
  expect_fault(FaultKind::out_of_bounds, "bytes out of bounds, 0 bytes after the end", [&] {
    launch(read_kernel<Sixteen>, {dim3(1), dim3(1)}, nullptr, to, reinterpret_cast<Sixteen*>(six.data() + 4));
  });
  expect_fault(FaultKind::out_of_bounds, "reads 8 bytes out of bounds", [&] {
    launch(read_kernel<long>, {dim3(1), dim3(1)}, nullptr, reinterpret_cast<long*>(to), reinterpret_cast<long*>(six.data() + 6));
  });
  expect_fault(FaultKind::out_of_bounds, "reads 2 bytes out of bounds", [&] {
    launch(read_kernel<short>, {dim3(1), dim3(1)}, nullptr, reinterpret_cast<short*>(to),
           reinterpret_cast<short*>(three.data() + 2));
  });
  expect_fault(FaultKind::out_of_bounds, "reads 1 byte out of bounds", [&] {
    launch(read_kernel<char>, {dim3(1), dim3(1)}, nullptr, reinterpret_cast<char*>(to), three.data() + 3);
  });
}

TEST_F(EmulatedMemory, UsesAfterFreeAreReported) {
  auto freed = std::make_unique<DeviceArray<int>>(ones(40));
  const DeviceArray<int> to(40);
  const int* const from = freed->data();
  expect_healthy([&] { copy(to.data(), from, 0, 40); });
  freed.reset();
  expect_fault(FaultKind::use_after_free, "reads 4 bytes at offset 0 of allocation ", [&] { copy(to.data(), from, 0, 40); });
  const DeviceArray<int> next(ones(40));  // does not come to lie there
  expect_fault(FaultKind::use_after_free, ", 160 bytes, which was freed", [&] { copy(to.data(), from, 3, 37); });
}

TEST_F(EmulatedMemory, MisalignedAccessesAreReported) {
  const DeviceArray<float> values(std::vector<float>(16, 1.0f)), to(4);
  const auto load = [&](int at) {
    launch(read_kernel<float4>, {dim3(1), dim3(1)}, nullptr, reinterpret_cast<float4*>(to.data()),
           reinterpret_cast<float4*>(values.data() + at));
  };
  for (const int at : {0, 4, 8, 12}) expect_healthy([&] { load(at); });
  for (const int at : {1, 2, 3, 6})
    expect_fault(FaultKind::misaligned, "uses an address that is no multiple of its type's alignment", [&] { load(at); });
}

TEST_F(EmulatedMemory, ReadsOfWhatNothingWroteAreReported) {
  const DeviceArray<int> half(40), to(40);
  check(cudaMemset(half.data(), 0, 20 * sizeof(int)), "cannot clear");
  expect_healthy([&] { copy(to.data(), half.data(), 0, 20); });
  expect_fault(FaultKind::unwritten, "thread (0, 0, 0): reads 4 bytes that nothing has written, at offset 80 of allocation ",
               [&] { copy(to.data(), half.data(), 0, 21); });
  int value = 0;
  EXPECT_EQ(cudaMemcpy(&value, to.data() + 20, sizeof(int), cudaMemcpyDeviceToHost), cudaErrorLaunchFailure);
  EXPECT_NE(std::string(cudaGetErrorString(cudaErrorLaunchFailure))
                .find("unspecified launch failure: cudaMemcpy reads 4 bytes that nothing has written, at offset 80 of"),
            std::string::npos);
  expect_healthy([&] { copy(half.data() + 20, to.data(), 0, 20); });
  expect_healthy([&] { copy(to.data(), half.data(), 0, 40); });
}

TEST_F(EmulatedMemory, CopiesBesideAnAllocationAreReported) {
  const DeviceArray<int> array(ones(4));
  std::vector<int> host(8);
  const auto text = [] { return std::string(cudaGetErrorString(cudaErrorLaunchFailure)); };
  EXPECT_EQ(cudaMemcpy(host.data(), array.data(), 20, cudaMemcpyDeviceToHost), cudaErrorLaunchFailure);
  EXPECT_NE(text().find("cudaMemcpy reads 20 bytes out of bounds"), std::string::npos);
  EXPECT_EQ(cudaMemcpy(array.data(), host.data(), 20, cudaMemcpyHostToDevice), cudaErrorLaunchFailure);
  EXPECT_NE(text().find("cudaMemcpy writes 20 bytes out of bounds"), std::string::npos);
  EXPECT_EQ(cudaMemset(array.data() + 3, 0, 5), cudaSuccess);  // which does not wait
  EXPECT_EQ(cudaDeviceSynchronize(), cudaErrorLaunchFailure);
  EXPECT_NE(text().find("cudaMemset writes 5 bytes out of bounds"), std::string::npos);
}

// ---- the host's memory

constexpr int kTable[4] = {2, 3, 5, 7};
int global_variable = 1;

__global__ void table_kernel(int* to) { to[threadIdx.x] = kTable[threadIdx.x] + static_cast<int>(blockDim.x); }
__global__ void global_variable_kernel(int* to) { *to = global_variable; }
__global__ void write_constant_kernel(int* to) { *to = 1; }
struct Big {
  int values[64];
};
__global__ void argument_kernel(int* to, Big big) { to[threadIdx.x] = big.values[threadIdx.x * 2]; }
__global__ void local_kernel(int* to, int shift) {
  int local[4] = {shift, 1, 2, 3};
  int** shared = shared_memory<int*>();
  shared[threadIdx.x] = local;
  __syncthreads();
  to[threadIdx.x] = shared[(threadIdx.x + static_cast<unsigned>(shift)) % blockDim.x][shift];
  __syncthreads();
}

TEST_F(EmulatedMemory, OnlyConstantsArgumentsAndTheOwnStackMayBeReadOfTheHost) {
  const DeviceArray<int> to(4);
  expect_healthy([&] { launch(table_kernel, {dim3(1), dim3(4)}, nullptr, to.data()); });
  EXPECT_EQ(to.values(), (std::vector<int>{6, 7, 9, 11}));
  expect_healthy([&] { launch(argument_kernel, {dim3(1), dim3(4)}, nullptr, to.data(), Big{{1, 0, 2, 0, 3, 0, 4}}); });
  EXPECT_EQ(to.values(), (std::vector<int>{1, 2, 3, 4}));
  expect_healthy([&] { launch(local_kernel, {dim3(1), dim3(4), 32}, nullptr, to.data(), 0); });

  std::vector<int> host(4, 1);
  expect_fault(FaultKind::host_memory, "reads 4 bytes of the host's memory", [&] { copy(to.data(), host.data(), 0, 4); });
  expect_fault(FaultKind::host_memory, "writes 4 bytes of the host's memory", [&] { copy(host.data(), to.data(), 0, 4); });
  expect_fault(FaultKind::host_memory, "reads 4 bytes of the host's memory", [&] {
    launch(global_variable_kernel, {dim3(1), dim3(1)}, nullptr, to.data());
  });
  expect_fault(FaultKind::host_memory, "writes 4 bytes of the host's memory", [&] {
    launch(write_constant_kernel, {dim3(1), dim3(1)}, nullptr, const_cast<int*>(kTable));
  });
  expect_fault(FaultKind::host_memory, "or of another thread's", [&] {
    launch(local_kernel, {dim3(1), dim3(4), 32}, nullptr, to.data(), 1);
  });
}

TEST_F(EmulatedMemory, TheHostMayNotTouchTheDevices) {
  const DeviceArray<int> array(ones(4));
  expect_fault(FaultKind::host_memory, "the host touches the device's memory", [&] { global_variable += array.data()[1]; });
}

// ---- shared memory

__global__ void dynamic_kernel(int* to, int at, int from) {
  int* shared = shared_memory<int>();
  shared[threadIdx.x] = static_cast<int>(threadIdx.x);
  if (at >= 0) shared[at] = 7;
  __syncthreads();
  to[threadIdx.x] = shared[from < 0 ? threadIdx.x : static_cast<unsigned>(from)];
}

TEST_F(EmulatedMemory, DynamicSharedMemoryHasBounds) {
  const DeviceArray<int> to(8);
  const auto run = [&](int at, int from, std::size_t bytes = 40) {
    launch(dynamic_kernel, {dim3(1), dim3(8), bytes}, nullptr, to.data(), at, from);
  };
  expect_healthy([&] { run(9, 9); });
  EXPECT_EQ(to.values(), std::vector<int>(8, 7));
  expect_healthy([&] { run(8, 8); });
  expect_fault(FaultKind::out_of_bounds,
               "writes 4 bytes out of bounds, 0 bytes after the end of the dynamic shared memory, 40 bytes", [&] { run(10, -1); });
  expect_fault(FaultKind::out_of_bounds,
               "reads 4 bytes out of bounds, 4 bytes after the end of the dynamic shared memory, 40 bytes", [&] { run(-1, 11); });
  expect_fault(FaultKind::unwritten, "reads 4 bytes that nothing has written, at offset 32 of the dynamic shared memory, 40 bytes",
               [&] { run(-1, 8); });
  expect_fault(FaultKind::out_of_bounds, "writes 4 bytes out of bounds, where nothing is", [&] { run(-1, -1, 0); });
}

struct One;
struct Two;
__global__ void static_kernel(int* to, int over) {
  int* one = shared_array<int, 8, One>();
  int* two = shared_array<int, 8, Two>();
  if (over == 2 && blockIdx.x == 1) to[threadIdx.x] = one[threadIdx.x];
  one[threadIdx.x] = 1;
  two[threadIdx.x] = 2;
  __syncthreads();
  to[threadIdx.x] = one[7 - threadIdx.x] + 10 * two[7 - threadIdx.x];
  if (over == 1) one[threadIdx.x + 1] = 1;
}

TEST_F(EmulatedMemory, StaticArraysAreApartHaveBoundsAndBelongToOneBlock) {
  const DeviceArray<int> to(8);
  const auto run = [&](int over) { launch(static_kernel, {dim3(2), dim3(8)}, nullptr, to.data(), over); };
  expect_healthy([&] { run(0); });
  EXPECT_EQ(to.values(), std::vector<int>(8, 21));
  expect_fault(FaultKind::out_of_bounds,
               "thread (7, 0, 0): writes 4 bytes out of bounds, 0 bytes after the end of a static array in shared memory, 32 bytes",
               [&] { run(1); });
  expect_fault(
      FaultKind::unwritten,
      "block (1, 0, 0), thread (0, 0, 0): reads 4 bytes that nothing has written, at offset 0 of a static array in shared memory",
      [&] { run(2); });
}

template <int N>
__global__ void large_static_kernel() {
  shared_array<int, N, One>()[threadIdx.x] = 0;
  shared_array<int, N, Two>()[threadIdx.x] = 0;
}

TEST_F(EmulatedMemory, StaticSharedMemoryEndsAt48KiB) {
  expect_healthy([&] { launch(large_static_kernel<6144>, {dim3(1), dim3(2)}, nullptr); });
  expect_fault(FaultKind::out_of_bounds, "needs more than 49152 bytes of static shared memory", [&] {
    launch(large_static_kernel<6145>, {dim3(1), dim3(2)}, nullptr);
  });
}

/// What was shared memory of a launch is nothing in the next one.
__global__ void keep_kernel(int** kept) { *kept = shared_memory<int>(); }
TEST_F(EmulatedMemory, SharedMemoryEndsWithItsLaunch) {
  const DeviceArray<int*> kept(1);
  expect_healthy([&] { launch(keep_kernel, {dim3(1), dim3(1), 64}, nullptr, kept.data()); });
  expect_fault(FaultKind::out_of_bounds, "writes 4 bytes out of bounds, where nothing is", [&] {
    launch(write_constant_kernel, {dim3(1), dim3(1)}, nullptr, kept.values()[0]);
  });
}

// ---- Access

TEST_F(EmulatedMemory, AccessForbidsWhatItDoesNotList) {
  const DeviceArray<int> array(ones(100)), beside(ones(4));
  int* const a = array.data();
  const std::vector<Range> in = {{a, 80, "x"}}, out = {{a + 40, 80, "y"}};
  const auto restricted = [&](int* to, const int* from, int count) {
    return [=] {
      const Access access(in, out, {});
      copy(to, from, 0, count);
      emulation::synchronize();
    };
  };
  expect_healthy(restricted(a + 40, a, 20));
  expect_healthy(restricted(a + 40, a + 50, 10));
  expect_fault(FaultKind::forbidden, "thread (0, 0, 0): reads 4 bytes where it may not, 0 bytes after the end of x, 80 bytes",
               restricted(a + 40, a, 21));
  expect_fault(FaultKind::forbidden, "writes 4 bytes where it may not, 0 bytes after the end of y, 80 bytes",
               restricted(a + 50, a, 20));
  expect_fault(FaultKind::forbidden, "writes 4 bytes where it may not, at offset 0 of x, 80 bytes", restricted(a, a + 40, 20));
  expect_fault(FaultKind::forbidden, "writes 4 bytes where it may not, 4 bytes before y, 80 bytes", restricted(a + 39, a, 1));
  expect_fault(FaultKind::forbidden, "where it may not", restricted(beside.data(), a, 1));
  expect_healthy([&] { copy(beside.data(), a + 90, 0, 4); });  // over with the scope
}

TEST_F(EmulatedMemory, AccessMakesFreshMemoryUnwritten) {
  const DeviceArray<int> array(ones(40));
  int* const a = array.data();
  const std::vector<Range> in = {{a, 40, "x"}}, out = {{a + 20, 80, "y"}}, fresh = {{a + 20, 40, "y"}};
  const auto restricted = [&](const int* from) {
    return [&, from] {
      const Access access(in, out, fresh);
      copy(a + 30, from, 0, 5);
      emulation::synchronize();
    };
  };
  expect_healthy(restricted(a));
  expect_healthy(restricted(a + 30));
  EXPECT_EQ(emulation::unwritten_bytes(a, 160), 40u);
  EXPECT_EQ(emulation::unwritten_bytes(a + 29, 8), 4u);
  expect_fault(FaultKind::unwritten, "that nothing has written, at offset 0 of y, 80 bytes", restricted(a + 20));
  copy(a + 20, a, 0, 10);
  emulation::synchronize();
  EXPECT_EQ(emulation::unwritten_bytes(a, 160), 0u);
}

TEST_F(EmulatedMemory, WorkEnqueuedBeforeAnAccessRunsBefore) {
  const DeviceArray<int> array(ones(40)), to(40);
  copy(to.data(), array.data(), 0, 40);
  { const Access access({}, {}, {}); }
  expect_healthy([] {});
  EXPECT_EQ(to.values(), ones(40));
}

}  // namespace

constexpr int kBeforeNamedKernel = __LINE__;
/// Outside of the unnamed namespace, with a template parameter: as kernels are.
template <class T>
__global__ void named_kernel(const T* from, T* to) {
  *to = *from;  // the line that the report names
}

TEST(EmulatedMemoryReports, NameKernelAndSourceLine) {
  const DeviceArray<float> to(1);
  testing::expect_fault(FaultKind::unwritten,
                        "graft::cuda::named_kernel<float>, block (0, 0, 0), thread (0, 0, 0): reads 4 bytes that nothing has "
                        "written, at offset 0 of allocation ",
                        [&] {
                          launch(named_kernel<float>, {dim3(1), dim3(1)}, nullptr, to.data(), to.data());
                        });
  testing::expect_fault(FaultKind::unwritten, "\n  at cuda_on_cpu/memory_test.cu:" + std::to_string(kBeforeNamedKernel + 4), [&] {
    launch(named_kernel<float>, {dim3(1), dim3(1)}, nullptr, to.data(), to.data());
  });
}

}  // namespace graft::cuda
