// ldmatrix, mma.sync and cp.async of the emulation: fragments element by element, products by plain loops, and what is reported of copies that go wrong.
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "graft/bf16.h"
#include "kernels/cuda/device_cuda.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ptx.cuh"
#include "tests/cuda_on_cpu/detectors.h"
#include "tests/cuda_on_cpu/device_array.h"
#include "tests/cuda_on_cpu/emulation.h"

namespace graft::cuda {
namespace {

using emulation::FaultKind;
using emulation::Options;
using emulation::With;
using testing::DeviceArray;
using testing::expect_fault;
using testing::expect_healthy;

class EmulatedPtx : public testing::Detector {};

// ---- ldmatrix

constexpr int kPitch = 24;  // elements from row to row of the matrices, in shared memory

/// Element (r, c) of matrix m is 100·m + 10·r + c. Each lane stores its registers.
__global__ void ldmatrix_kernel(std::uint32_t* to, int count, bool transposed, int shift, int rows) {
  auto* shared = shared_memory<std::uint16_t>();
  for (int i = static_cast<int>(threadIdx.x); i < rows * kPitch; i += 32)
    if (i % kPitch < 8) shared[i] = static_cast<std::uint16_t>(100 * (i / kPitch / 8) + 10 * (i / kPitch % 8) + i % kPitch);
  __syncthreads();
  const std::uint16_t* row = shared + static_cast<int>(threadIdx.x) % (8 * count) * kPitch + shift;
  std::uint32_t four[4] = {}, two[2] = {};
  if (count == 4 && !transposed) ptx::ldmatrix_x4(four, row);
  if (count == 4 && transposed) ptx::ldmatrix_x4_trans(four, row);
  if (count == 2 && !transposed) ptx::ldmatrix_x2(two, row);
  if (count == 2 && transposed) ptx::ldmatrix_x2_trans(two, row);
  for (int m = 0; m < count; ++m) to[static_cast<int>(threadIdx.x) * count + m] = count == 4 ? four[m] : two[m];
}

TEST_F(EmulatedPtx, LdmatrixGivesTheDocumentedFragments) {
  const With with(Options{.races = true, .locate = false});
  for (const int count : {2, 4}) {
    for (const bool transposed : {false, true}) {
      const DeviceArray<std::uint32_t> to(static_cast<std::size_t>(32 * count));
      launch(ldmatrix_kernel, {dim3(1), dim3(32), std::size_t{2} * 8 * 4 * kPitch}, nullptr, to.data(), count, transposed, 0,
             8 * count);
      const std::vector<std::uint32_t> got = to.values();
      for (int lane = 0; lane < 32; ++lane) {
        for (int m = 0; m < count; ++m) {
          const int row = lane / 4, column = lane % 4 * 2;
          const auto element = [&](int r, int c) { return static_cast<std::uint32_t>(100 * m + 10 * r + c); };
          const std::uint32_t lower = transposed ? element(column, row) : element(row, column),
                              upper = transposed ? element(column + 1, row) : element(row, column + 1);
          ASSERT_EQ(got[static_cast<std::size_t>(lane * count + m)], lower | upper << 16)
              << "lane " << lane << ", matrix " << m << " of " << count << (transposed ? ", transposed" : "");
        }
      }
    }
  }
}

TEST_F(EmulatedPtx, LdmatrixChecksItsRows) {
  const DeviceArray<std::uint32_t> to(128);
  const auto run = [&](int shift, int rows, std::size_t bytes = std::size_t{2} * 8 * 4 * kPitch) {
    launch(ldmatrix_kernel, {dim3(1), dim3(32), bytes}, nullptr, to.data(), 4, false, shift, rows);
  };
  expect_healthy([&] { run(0, 32); });
  expect_fault(FaultKind::misaligned, "reads 16 bytes at an address that is no multiple of that", [&] { run(4, 32); });
  expect_fault(FaultKind::unwritten, "thread (31, 0, 0): reads 16 bytes that nothing has written", [&] { run(0, 31); });
  expect_fault(FaultKind::unwritten, "thread (0, 0, 0): reads 16 bytes that nothing has written", [&] { run(8, 32); });
  expect_fault(FaultKind::out_of_bounds, "thread (31, 0, 0): reads 16 bytes out of bounds", [&] { run(0, 31, 31 * kPitch * 2); });
}

__global__ void ldmatrix_global_kernel(const std::uint16_t* from) {
  std::uint32_t to[2];
  ptx::ldmatrix_x2(to, from);
}
__global__ void ldmatrix_part_kernel(int lanes) {
  auto* shared = shared_memory<std::uint16_t>();
  for (int i = 0; i < 8; ++i) shared[threadIdx.x * 8 + i] = 0;
  std::uint32_t to[2];
  if (static_cast<int>(threadIdx.x) < lanes) ptx::ldmatrix_x2(to, shared + threadIdx.x % 16 * 8);
}

TEST_F(EmulatedPtx, LdmatrixReadsSharedMemoryByWholeWarps) {
  const DeviceArray<std::uint16_t> global(std::vector<std::uint16_t>(8));
  expect_fault(FaultKind::out_of_bounds, "takes memory for shared that is not", [&] {
    launch(ldmatrix_global_kernel, {dim3(1), dim3(32)}, nullptr, global.data());
  });
  expect_healthy([] { launch(ldmatrix_part_kernel, {dim3(1), dim3(32), 512}, nullptr, 32); });
  expect_fault(FaultKind::divergence, "waits at ldmatrix(0xffffffff) (", [] {
    launch(ldmatrix_part_kernel, {dim3(1), dim3(32), 512}, nullptr, 31);
  });
}

// ---- mma

/// a [16, 16], b [16, 8], c [16, 8], row-major, as pairs of bf16 and as floats; fragments by the documentation of mma.m16n8k16.
__global__ void mma_kernel(const std::uint16_t* a, const std::uint16_t* b, float* c) {
  const int g = static_cast<int>(threadIdx.x) / 4, t = static_cast<int>(threadIdx.x) % 4;
  const auto pair = [](std::uint16_t low, std::uint16_t high) {
    return static_cast<std::uint32_t>(low) | static_cast<std::uint32_t>(high) << 16;
  };
  const auto of_a = [&](int r, int k) { return pair(a[r * 16 + k], a[r * 16 + k + 1]); };
  const auto of_b = [&](int k, int n) { return pair(b[k * 8 + n], b[(k + 1) * 8 + n]); };
  const std::uint32_t left[4] = {of_a(g, 2 * t), of_a(g + 8, 2 * t), of_a(g, 2 * t + 8), of_a(g + 8, 2 * t + 8)},
                      right[2] = {of_b(2 * t, g), of_b(2 * t + 8, g)};
  float sums[4] = {c[g * 8 + 2 * t], c[g * 8 + 2 * t + 1], c[(g + 8) * 8 + 2 * t], c[(g + 8) * 8 + 2 * t + 1]};
  ptx::mma_m16n8k16(sums, left, right);
  c[g * 8 + 2 * t] = sums[0];
  c[g * 8 + 2 * t + 1] = sums[1];
  c[(g + 8) * 8 + 2 * t] = sums[2];
  c[(g + 8) * 8 + 2 * t + 1] = sums[3];
}

TEST_F(EmulatedPtx, MmaMultipliesAndAdds) {
  // A single 1 in a, and one in b: each element of each fragment by itself.
  const std::uint16_t one = to_bf16(1.0f).bits;
  for (int r = 0; r < 16; ++r) {
    for (int k = 0; k < 16; ++k) {
      std::vector<std::uint16_t> a(256), b(128);
      a[static_cast<std::size_t>(r * 16 + k)] = one;
      for (int n = 0; n < 8; ++n) b[static_cast<std::size_t>(k * 8 + n)] = to_bf16(static_cast<float>(1 + n)).bits;
      const DeviceArray<std::uint16_t> left(a), right(b);
      const DeviceArray<float> sums(std::vector<float>(128, 0.5f));
      launch(mma_kernel, {dim3(1), dim3(32)}, nullptr, left.data(), right.data(), sums.data());
      const std::vector<float> got = sums.values();
      for (int i = 0; i < 128; ++i)
        ASSERT_EQ(got[static_cast<std::size_t>(i)], i / 8 == r ? 1.5f + static_cast<float>(i % 8) : 0.5f)
            << "a(" << r << ", " << k << "), element " << i;
    }
  }
}

TEST_F(EmulatedPtx, MmaMatchesPlainLoops) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<std::uint16_t> a(256), b(128);
  std::vector<float> c(128);
  for (std::uint16_t& x : a) x = to_bf16(normal(random)).bits;
  for (std::uint16_t& x : b) x = to_bf16(normal(random)).bits;
  for (float& x : c) x = normal(random);
  const DeviceArray<std::uint16_t> left(a), right(b);
  const DeviceArray<float> sums(c);
  launch(mma_kernel, {dim3(1), dim3(32)}, nullptr, left.data(), right.data(), sums.data());
  const std::vector<float> got = sums.values();
  for (std::size_t i = 0; i < 128; ++i) {
    double sum = c[i];
    for (std::size_t k = 0; k < 16; ++k)
      sum += double{to_float(Bf16{a[i / 8 * 16 + k]})} * double{to_float(Bf16{b[k * 8 + i % 8]})};
    EXPECT_NEAR(got[i], sum, 1e-5);
  }
}

TEST_F(EmulatedPtx, PackPutsTheFirstInTheLowerHalf) {
  EXPECT_EQ(ptx::pack_bf16(1.0f, -2.0f), 0xc0003f80u);
  EXPECT_EQ(ptx::pack_bf16(1.00390625f, 1.01171875f), 0x3f823f80u);  // ties go to even
}

TEST_F(EmulatedPtx, PowersThatAreSubnormalAreZero) {
  EXPECT_EQ(ptx::exp2(3.0f), 8.0f);
  EXPECT_EQ(ptx::exp2(-126.0f), 0x1p-126f);
  EXPECT_EQ(ptx::exp2(-127.0f), 0.0f);
  EXPECT_EQ(ptx::exp2(-INFINITY), 0.0f);
  EXPECT_EQ(ptx::exp2(INFINITY), INFINITY);
  EXPECT_TRUE(std::isnan(ptx::exp2(NAN)));
}

// ---- cp.async

enum class Fault { none, no_wait, no_commit, waits_for_older, not_valid, reads_while_copying, bad_source };

/// Two rounds over one buffer: 32 threads copy 16 bytes each, and store what arrived.
__global__ void copy_async_kernel(const int4* from, int4* to, Fault fault) {
  auto* shared = shared_memory<int4>();
  for (unsigned round = 0; round < 2; ++round) {
    const unsigned t = threadIdx.x, at = 32 * round + t;
    const bool valid = fault != Fault::not_valid || t % 2 == 0;
    const int4* source = fault == Fault::bad_source && t == 5 ? from + 64 : from + at;
    ptx::cp_async_16(shared + t, valid ? source : from + 10000, valid);
    const bool last = round == 1;
    if (!(last && fault == Fault::no_commit)) ptx::cp_async_commit();
    if (last && fault == Fault::reads_while_copying) to[t] = shared[t];
    if (last && fault == Fault::waits_for_older) {
      ptx::cp_async_wait<1>();
    } else if (!(last && fault == Fault::no_wait)) {
      ptx::cp_async_wait<0>();
    }
    __syncthreads();
    to[at] = shared[(t + 1) % 32];
    __syncthreads();
  }
}

TEST_F(EmulatedPtx, CopiesArriveWhenTheyAreWaitedFor) {
  std::vector<int4> values;
  for (int i = 0; i < 64; ++i) values.push_back({i, -i, i + 1, i + 2});
  const DeviceArray<int4> from(values), to(64);
  for (const auto order : {Options::Order::forward, Options::Order::shuffled}) {
    const With with(Options{.order = order, .races = true, .locate = false});
    const auto run = [&](Fault fault) {
      launch(copy_async_kernel, {dim3(1), dim3(32), 512}, nullptr, from.data(), to.data(), fault);
    };
    expect_healthy([&] { run(Fault::none); });
    const std::vector<int4> got = to.values();
    for (std::size_t i = 0; i < 64; ++i) EXPECT_EQ(got[i].w, values[i / 32 * 32 + (i + 1) % 32].w);
    expect_healthy([&] { run(Fault::not_valid); });
    const std::vector<int4> zeros = to.values();
    for (std::size_t i = 0; i < 64; ++i) EXPECT_EQ(zeros[i].w, i % 2 == 1 ? got[i].w : 0);
    for (const Fault fault : {Fault::no_wait, Fault::no_commit, Fault::waits_for_older, Fault::reads_while_copying})
      expect_fault(FaultKind::unwritten, "that nothing has written, at offset ", [&] { run(fault); });
    expect_fault(FaultKind::out_of_bounds, "thread (5, 0, 0): reads 16 bytes out of bounds, 0 bytes after the end of allocation",
                 [&] { run(Fault::bad_source); });
  }
}

/// Three groups of one copy, of which the newest `Left` need not have arrived.
template <int Left>
__global__ void groups_kernel(const int4* from, int4* to, int read) {
  auto* shared = shared_memory<int4>();
  for (int group = 0; group < 3; ++group) {
    ptx::cp_async_16(shared + group, from + group);
    ptx::cp_async_commit();
  }
  ptx::cp_async_wait<Left>();
  to[0] = shared[read];
  ptx::cp_async_wait<0>();
}

TEST_F(EmulatedPtx, WaitingLeavesTheNewestGroups) {
  const DeviceArray<int4> from(std::vector<int4>(3)), to(1);
  const auto run = [&](auto kernel, int read) { launch(kernel, {dim3(1), dim3(1), 48}, nullptr, from.data(), to.data(), read); };
  const auto late = [&](auto kernel, int read) { expect_fault(FaultKind::unwritten, "reads", [&] { run(kernel, read); }); };
  for (const int read : {0, 1, 2}) {
    expect_healthy([&] { run(groups_kernel<0>, read); });
    if (read < 2) expect_healthy([&] { run(groups_kernel<1>, read); });
    if (read < 1) expect_healthy([&] { run(groups_kernel<2>, read); });
    if (read >= 2) late(groups_kernel<1>, read);
    if (read >= 1) late(groups_kernel<2>, read);
    late(groups_kernel<3>, read);
  }
}

/// Ends some of two steps after it has begun to copy: to commit, and to wait.
__global__ void leaving_kernel(const int4* from, int steps) {
  if (threadIdx.x == 3) ptx::cp_async_16(shared_memory<int4>(), from);
  if (steps > 0) ptx::cp_async_commit();
  if (steps > 1) ptx::cp_async_wait<0>();
}

TEST_F(EmulatedPtx, ThreadsWaitForTheirCopiesBeforeTheyEnd) {
  const DeviceArray<int4> from(std::vector<int4>(1));
  const auto run = [&](int steps) { launch(leaving_kernel, {dim3(1), dim3(32), 16}, nullptr, from.data(), steps); };
  for (const int steps : {0, 1})
    expect_fault(FaultKind::unwritten, "thread (3, 0, 0): ends while a copy by cp.async is on its way", [&] { run(steps); });
  expect_healthy([&] { run(2); });
}

__global__ void copy_bytes_kernel(char* to, const char* from) {
  ptx::cp_async_16(to == nullptr ? shared_memory<char>() : to, from);
  ptx::cp_async_commit();
  ptx::cp_async_wait<0>();
}
__global__ void copy_to_odd_kernel(const char* from) { ptx::cp_async_16(shared_memory<char>() + 8, from); }

TEST_F(EmulatedPtx, CopiesAreAlignedAndGoToSharedMemory) {
  const DeviceArray<char> array(std::vector<char>(64));
  const auto run = [&](char* to, int shift, std::size_t bytes = 16) {
    launch(copy_bytes_kernel, {dim3(1), dim3(1), bytes}, nullptr, to, array.data() + shift);
  };
  expect_healthy([&] { run(nullptr, 16); });
  expect_fault(FaultKind::misaligned, "copies by cp.async from an address that is no multiple of 16", [&] { run(nullptr, 8); });
  expect_fault(FaultKind::out_of_bounds, "takes memory for shared that is not", [&] { run(array.data() + 32, 0); });
  expect_fault(FaultKind::out_of_bounds, "writes 16 bytes out of bounds", [&] { run(nullptr, 0, 8); });
  expect_fault(FaultKind::misaligned, "writes 16 bytes at an address that is no multiple of that", [&] {
    launch(copy_to_odd_kernel, {dim3(1), dim3(1), 64}, nullptr, array.data());
  });
}

/// The buffer is still read by one thread when another begins to copy into it.
__global__ void copy_race_kernel(const int4* from, int4* to, bool barrier) {
  auto* shared = shared_memory<int4>();
  if (threadIdx.x == 0) shared[0] = int4{};
  __syncthreads();
  if (threadIdx.x == 0) to[0] = shared[0];
  if (barrier) __syncthreads();
  if (threadIdx.x == 40) ptx::cp_async_16(shared, from);
  ptx::cp_async_commit();
  ptx::cp_async_wait<0>();
}

TEST_F(EmulatedPtx, CopiesRaceFromTheTimeTheyBegin) {
  const With with(Options{.races = true, .locate = false});
  const DeviceArray<int4> from(std::vector<int4>(1)), to(1);
  const auto run = [&](bool barrier) {
    launch(copy_race_kernel, {dim3(1), dim3(64), 16}, nullptr, from.data(), to.data(), barrier);
  };
  expect_healthy([&] { run(true); });
  expect_fault(FaultKind::race, "thread (40, 0, 0): writes shared memory that thread (0, 0, 0) reads", [&] { run(false); });
}

}  // namespace
}  // namespace graft::cuda
