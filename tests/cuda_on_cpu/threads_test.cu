// Barriers, what a warp does together, and races: what they compute, and what is reported of those that go wrong.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <numeric>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "kernels/cuda/device_cuda.cuh"
#include "kernels/cuda/launch.cuh"
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

constexpr unsigned kAll = 0xffffffffu;

class EmulatedThreads : public testing::Detector {};

__device__ unsigned flat() { return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z); }

/// to[thread] = f(thread), in one block.
template <class T, class F>
__global__ void map_threads_kernel(T* to, F f) {
  to[flat()] = f(flat());
}
template <class T, class F>
std::vector<T> map_threads(unsigned threads, F f) {
  const DeviceArray<T> to(threads);
  launch(map_threads_kernel<T, F>, {dim3(1), dim3(threads)}, nullptr, to.data(), f);
  emulation::synchronize();
  return to.values();
}
template <class F>
std::function<void()> running(unsigned threads, F f, std::size_t shared = 0) {
  return [=] {
    const DeviceArray<int> to(threads);
    launch(map_threads_kernel<int, F>, {dim3(1), dim3(threads), shared}, nullptr, to.data(), f);
    emulation::synchronize();
  };
}

// ---- indices

__global__ void indices_kernel(unsigned* to) {
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z),
                 threads = blockDim.x * blockDim.y * blockDim.z;
  unsigned* at = to + 6 * (block * threads + flat());
  at[0] = blockIdx.x, at[1] = blockIdx.y, at[2] = blockIdx.z, at[3] = threadIdx.x, at[4] = threadIdx.y, at[5] = threadIdx.z;
}

TEST_F(EmulatedThreads, EveryThreadOfEveryBlockRunsOnceInAnyOrder) {
  for (const auto order : {Options::Order::forward, Options::Order::reverse, Options::Order::shuffled}) {
    const With with(Options{.order = order});
    const std::uint64_t before = emulation::threads_run();
    const DeviceArray<unsigned> to(6 * 24 * 30);
    launch(indices_kernel, {dim3(2, 3, 4), dim3(5, 3, 2)}, nullptr, to.data());
    const std::vector<unsigned> got = to.values();
    EXPECT_EQ(emulation::threads_run() - before, 24u * 30u);
    std::size_t at = 0;
    for (unsigned bz = 0; bz < 4; ++bz)
      for (unsigned by = 0; by < 3; ++by)
        for (unsigned bx = 0; bx < 2; ++bx)
          for (unsigned tz = 0; tz < 2; ++tz)
            for (unsigned ty = 0; ty < 3; ++ty)
              for (unsigned tx = 0; tx < 5; ++tx)
                for (const unsigned wanted : {bx, by, bz, tx, ty, tz}) ASSERT_EQ(got[at++], wanted);
  }
}

__global__ void order_kernel(int* count, int* to) { to[blockIdx.x * blockDim.x + threadIdx.x] = atomicAdd(count, 1); }
std::vector<int> order(const Options& options) {
  const With with(options);
  const DeviceArray<int> count(std::vector<int>{0}), to(64);
  launch(order_kernel, {dim3(4), dim3(16)}, nullptr, count.data(), to.data());
  return to.values();
}

TEST_F(EmulatedThreads, TheOrderIsThatOfTheOptions) {
  std::vector<int> wanted(64);
  std::iota(wanted.begin(), wanted.end(), 0);
  EXPECT_EQ(order({}), wanted);
  std::reverse(wanted.begin(), wanted.end());
  EXPECT_EQ(order({.order = Options::Order::reverse}), wanted);
  const std::vector<int> one = order({.order = Options::Order::shuffled, .seed = 1}),
                         two = order({.order = Options::Order::shuffled, .seed = 2});
  EXPECT_EQ(one, order({.order = Options::Order::shuffled, .seed = 1}));
  EXPECT_NE(one, two);
  for (const std::vector<int>& shuffled : {one, two}) {
    EXPECT_EQ(std::set<int>(shuffled.begin(), shuffled.end()).size(), 64u);
    bool apart = false;  // blocks too
    for (int block = 0; block < 4; ++block) apart |= shuffled[static_cast<std::size_t>(16 * block)] / 16 != block;
    EXPECT_TRUE(apart);
    EXPECT_FALSE(std::is_sorted(shuffled.begin(), shuffled.begin() + 16));
  }
}

// ---- barriers

TEST_F(EmulatedThreads, BarriersVoteOverTheBlock) {
  for (const unsigned bound : {0u, 1u, 17u, 70u}) {
    const auto vote = [=](unsigned t) {
      const int yes = t < bound ? 2 : 0;
      const int any = __syncthreads_or(yes), all = __syncthreads_and(yes), count = __syncthreads_count(yes);
      return any + 10 * all + 100 * count;
    };
    const int wanted = (bound > 0) + 10 * (bound == 70) + 100 * static_cast<int>(bound);
    EXPECT_EQ(map_threads<int>(70, vote), std::vector<int>(70, wanted));
  }
}

TEST_F(EmulatedThreads, AfterABarrierAllSeeWhatWasWrittenBefore) {
  for (const auto order : {Options::Order::forward, Options::Order::reverse, Options::Order::shuffled}) {
    const With with(Options{.order = order, .races = true});
    const auto rotate = [](unsigned t) {
      int* shared = shared_array<int, 1024>();
      int value = static_cast<int>(t);
      for (int round = 0; round < 3; ++round) {
        shared[t] = value;
        __syncthreads();
        value = shared[(t + 1) % blockDim.x];
        __syncthreads();
      }
      return value;
    };
    for (const unsigned threads : {1u, 31u, 33u, 1024u}) {
      const std::vector<int> got = map_threads<int>(threads, rotate);
      for (unsigned t = 0; t < threads; ++t) ASSERT_EQ(got[t], static_cast<int>((t + 3) % threads));
    }
  }
}

TEST_F(EmulatedThreads, BarriersThatNotAllThreadsReachAreReported) {
  const int line = __LINE__ + 3;
  const auto ends_early = [](unsigned t) {
    if (t == 40) return 0;
    __syncthreads();
    return 1;
  };
  expect_fault(FaultKind::divergence,
               "waits at __syncthreads (cuda_on_cpu/threads_test.cu:" + std::to_string(line) + "), but thread (40, 0, 0) has ended",
               running(64, ends_early));
  expect_fault(FaultKind::divergence, "waits at __syncthreads (", running(64, [](unsigned t) {
                 if (t < 32) {
                   __syncthreads();
                 } else {
                   __syncthreads();  // another one
                 }
                 return 0;
               }));
  expect_fault(FaultKind::divergence, "__syncthreads_or (",
               running(2, [](unsigned t) { return t == 0 ? __syncthreads_or(1) : __syncthreads_and(1); }));
  expect_fault(FaultKind::divergence, "waits at __syncwarp(0xffffffff) (", running(64, [](unsigned t) {
                 if (t == 3) {
                   __syncthreads();
                 } else {
                   __syncwarp();
                 }
                 return 0;
               }));
  expect_healthy(running(64, [](unsigned t) {
    for (unsigned round = 0; round < 3; ++round) __syncthreads();
    return static_cast<int>(t);
  }));
}

// ---- warps

TEST_F(EmulatedThreads, ShufflesTakeTheDocumentedLane) {
  for (const int width : {1, 2, 8, 32}) {
    for (const int n : {0, 1, 3, 7, 31}) {
      const auto shuffle = [=](unsigned t) {
        const auto value = 1000 + static_cast<int>(t);
        return int4{__shfl_sync(kAll, value, n, width), __shfl_up_sync(kAll, value, static_cast<unsigned>(n), width),
                    __shfl_down_sync(kAll, value, static_cast<unsigned>(n), width), __shfl_xor_sync(kAll, value, n % width, width)};
      };
      const std::vector<int4> got = map_threads<int4>(64, shuffle);
      for (int t = 0; t < 64; ++t) {
        const int begin = t / width * width, at = t % width;
        const int4 lane = got[static_cast<std::size_t>(t)];
        EXPECT_EQ(lane.x, 1000 + begin + n % width);
        EXPECT_EQ(lane.y, 1000 + (at >= n ? t - n : t)) << t << " up " << n << " of " << width;
        EXPECT_EQ(lane.z, 1000 + (at + n < width ? t + n : t)) << t << " down " << n << " of " << width;
        EXPECT_EQ(lane.w, 1000 + begin + (at ^ (n % width)));
      }
    }
  }
  // xor beyond the part: to an earlier one it reaches, to a later one it does not
  const std::vector<int> got = map_threads<int>(32, [](unsigned t) { return __shfl_xor_sync(kAll, static_cast<int>(t), 8, 8); });
  for (int t = 0; t < 32; ++t) EXPECT_EQ(got[static_cast<std::size_t>(t)], t % 16 < 8 ? t : t - 8);
}

TEST_F(EmulatedThreads, ShufflesMoveValuesOfUpToEightBytes) {
  const std::vector<double> doubles = map_threads<double>(32, [](unsigned t) { return __shfl_xor_sync(kAll, t + 0.1, 1); });
  const std::vector<float> floats =
      map_threads<float>(32, [](unsigned t) { return __shfl_down_sync(kAll, static_cast<float>(t) + 0.1f, 1); });
  EXPECT_EQ(doubles[4], 5.1);
  EXPECT_EQ(floats[4], 5.1f);
}

TEST_F(EmulatedThreads, VotesCountTheLanesOfTheMask) {
  const auto vote = [](unsigned t) {
    const unsigned mask = t % 32 < 16 ? 0xffffu : 0xffff0000u;
    const bool yes = t % 32 < 16 ? t % 3 == 0 : t >= 32;
    return uint4{__ballot_sync(mask, yes), static_cast<unsigned>(__any_sync(mask, yes)),
                 static_cast<unsigned>(__all_sync(mask, yes)), __match_any_sync(mask, t % 4)};
  };
  const std::vector<uint4> got = map_threads<uint4>(64, vote);
  for (unsigned t = 0; t < 64; ++t) {
    unsigned ballot = 0, match = 0;
    for (unsigned other = t / 16 * 16; other < t / 16 * 16 + 16; ++other) {
      ballot |= static_cast<unsigned>(other % 32 < 16 ? other % 3 == 0 : other >= 32) << other % 32;
      match |= static_cast<unsigned>(other % 4 == t % 4) << other % 32;
    }
    EXPECT_EQ(got[t].x, ballot) << t;
    EXPECT_EQ(got[t].y, ballot != 0) << t;
    EXPECT_EQ(got[t].z, t >= 48 ? 1u : 0u) << t;
    EXPECT_EQ(got[t].w, match) << t;
  }
}

TEST_F(EmulatedThreads, WarpCallsThatNotAllLanesOfTheMaskReachAreReported) {
  expect_fault(FaultKind::divergence, "waits at __shfl_xor_sync(0xffffffff) (",
               running(32, [](unsigned t) { return t == 5 ? 0 : __shfl_xor_sync(kAll, 1, 1); }));
  expect_fault(FaultKind::divergence, "but thread (5, 0, 0) has ended",
               running(32, [](unsigned t) { return t == 5 ? 0 : __shfl_xor_sync(kAll, 1, 1); }));
  expect_fault(FaultKind::divergence, "sync(0xffffffff) (",
               running(32, [](unsigned t) { return t < 16 ? __any_sync(kAll, 1) : __all_sync(kAll, 1); }));
  expect_fault(FaultKind::divergence, "at __shfl_up_sync(0x3) (",
               running(32, [](unsigned t) { return __shfl_up_sync(t == 0 ? 3u : kAll, 1, 1); }));
  expect_fault(FaultKind::divergence, "calls __shfl_up_sync(0xffff) (",
               running(32, [](unsigned) { return __shfl_up_sync(0xffffu, 1, 1); }));
  expect_fault(FaultKind::divergence, "which does not name its own lane",
               running(32, [](unsigned) { return __shfl_up_sync(0xffffu, 1, 1); }));
  expect_fault(FaultKind::divergence, "but its warp has 8 lanes", running(40, [](unsigned) { return __shfl_up_sync(kAll, 1, 1); }));
  expect_fault(FaultKind::divergence, "thread (0, 0, 0): reads by __shfl_sync from lane 16, which its mask 0xffff does not name",
               running(16, [](unsigned) { return __shfl_sync(0xffffu, 1, 16); }));
  expect_healthy(running(16, [](unsigned t) { return __shfl_sync(0xffffu, static_cast<int>(t), 15); }));
  expect_healthy(
      running(32, [](unsigned t) { return t < 16 ? __shfl_up_sync(0xffffu, 1, 1, 16) : __shfl_up_sync(0xffff0000u, 1, 1, 16); }));
  // lanes of one mask from different lines
  expect_fault(FaultKind::divergence, "waits at __shfl_up_sync(0xffffffff) (", running(32, [](unsigned t) {
                 if (t < 16) return __shfl_up_sync(kAll, 1, 1);
                 return __shfl_up_sync(kAll, 1, 1);
               }));
}

TEST_F(EmulatedThreads, AFaultLeavesTheNextLaunchAlone) {
  for (int round = 0; round < 3; ++round) {
    expect_fault(FaultKind::divergence, "has ended", running(1024, [](unsigned t) {
                   if (t == 1023) return 0;
                   __syncthreads();
                   return 1;
                 }));
    const std::vector<int> got = map_threads<int>(1024, [](unsigned t) { return __syncthreads_count(t % 2 == 0); });
    EXPECT_EQ(got, std::vector<int>(1024, 512));
  }
}

/// Instrumented, and run by a thread of the host beside the kernel.
int count_up(std::atomic<int>& number) { return ++number; }

TEST_F(EmulatedThreads, OtherThreadsOfTheHostGoOn) {
  std::atomic<int> number = 0;
  std::atomic<bool> over = false;
  std::thread other([&] {
    while (!over) count_up(number);
  });
  for (int begin = number; number == begin;) std::this_thread::yield();
  int seen = 0;
  do {
    const int before = number;
    expect_healthy(running(1024, [](unsigned t) { return __syncthreads_count(static_cast<int>(t) % 2); }));
    seen += number != before;
  } while (seen < 5);
  over = true;
  other.join();
}

TEST_F(EmulatedThreads, ExceptionsOfDeviceCodeComeOut) {
  EXPECT_THROW(running(64,
                       [](unsigned t) {
                         __syncthreads();
                         if (t == 40) throw std::runtime_error("from a thread");
                         return 0;
                       })(),
               std::runtime_error);
  expect_healthy(running(64, [](unsigned) { return __syncthreads_or(1); }));
}

// ---- atomics

__global__ void atomics_kernel(int* numbers, unsigned* more, unsigned long long* wide) {
  const int t = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  atomicAdd(&numbers[0], t);
  atomicMax(&numbers[1], t);
  atomicMin(&numbers[2], -t);
  atomicOr(&more[0], 1u << t % 8);
  if (atomicCAS(&more[1], 5u, 6u) == 5u) atomicAdd(&more[2], 1u);
  if (t == 3) more[4] = atomicExch(&more[3], 9u);
  atomicAdd(&wide[0], 1ull << 40);
}

TEST_F(EmulatedThreads, AtomicsCompute) {
  const DeviceArray<int> numbers(std::vector<int>{0, 0, 0});
  const DeviceArray<unsigned> more(std::vector<unsigned>{0, 5, 0, 8, 0});
  const DeviceArray<unsigned long long> wide(std::vector<unsigned long long>{0});
  const With with(Options{.races = true, .locate = false});
  launch(atomics_kernel, {dim3(2), dim3(50)}, nullptr, numbers.data(), more.data(), wide.data());
  EXPECT_EQ(numbers.values(), (std::vector<int>{4950, 99, -99}));
  EXPECT_EQ(more.values(), (std::vector<unsigned>{255, 6, 1, 9, 8}));
  EXPECT_EQ(wide.values()[0], 100ull << 40);
}

TEST_F(EmulatedThreads, AtomicsAreCheckedToo) {
  const DeviceArray<int> numbers(std::vector<int>{0, 0, 0}), fresh(3);
  const DeviceArray<unsigned> more(std::vector<unsigned>{0, 5, 0, 8, 0});
  const auto run = [&](int* at, unsigned long long* wide) {
    launch(atomics_kernel, {dim3(1), dim3(1)}, nullptr, at, more.data(), wide);
  };
  const DeviceArray<unsigned long long> wide(std::vector<unsigned long long>{0, 0});
  expect_healthy([&] { run(numbers.data(), wide.data()); });
  expect_fault(FaultKind::unwritten, "reads 4 bytes that nothing has written", [&] { run(fresh.data(), wide.data()); });
  expect_fault(FaultKind::out_of_bounds, "reads 4 bytes out of bounds", [&] { run(numbers.data() + 1, wide.data()); });
  expect_fault(FaultKind::misaligned, "no multiple",
               [&] { run(numbers.data(), reinterpret_cast<unsigned long long*>(reinterpret_cast<char*>(wide.data()) + 4)); });
}

// ---- races

struct Races : EmulatedThreads {
  With with{Options{.races = true, .locate = false}};
};

template <class F>
std::function<void()> racing(F f, unsigned threads = 64) {
  return running(threads, [=](unsigned t) {
    int* shared = shared_array<int, 64>();
    shared[t] = 0;
    __syncthreads();
    f(shared, t);
    return 0;
  });
}

TEST_F(Races, ReadAfterWriteNeedsABarrier) {
  expect_healthy(racing([](int* s, unsigned t) {
    s[t] = 1;
    __syncthreads();
    const int other = s[t ^ 32];
    __syncthreads();
    s[t] = other;
  }));
  expect_fault(FaultKind::race, "reads shared memory that thread (0, 0, 0) writes, and nothing orders the two",
               racing([](int* s, unsigned t) {
                 if (t < 32) s[t] = 1;
                 if (t >= 32) s[t] = s[t ^ 32];
               }));
}

TEST_F(Races, WriteAfterReadNeedsABarrier) {
  expect_fault(FaultKind::race, "thread (32, 0, 0): writes shared memory that thread (0, 0, 0) reads, and nothing orders the two",
               racing([](int* s, unsigned t) {
                 if (t < 32) s[t] = s[t ^ 32];
                 if (t >= 32) s[t] = 1;
               }));
}

TEST_F(Races, WriteAfterWriteNeedsABarrier) {
  expect_fault(FaultKind::race, "thread (1, 0, 0): writes shared memory that thread (0, 0, 0) writes",
               racing([](int* s, unsigned) { s[0] = 1; }));
  expect_healthy(racing([](int* s, unsigned t) {
    if (t == 0) s[0] = 1;
  }));
}

TEST_F(Races, WarpCallsOrderTheLanesOfTheirMask) {
  const auto exchange = [](auto sync) {
    return racing([=](int* s, unsigned t) {
      s[t] = 1;
      sync(t);
      const int other = s[t ^ 1];
      sync(t);
      s[t] = other;
    });
  };
  expect_healthy(exchange([](unsigned) { __syncwarp(); }));
  expect_healthy(exchange([](unsigned) { __shfl_sync(kAll, 0, 0); }));
  expect_healthy(exchange([](unsigned t) { __syncwarp(t % 32 < 16 ? 0xffffu : 0xffff0000u); }));
  expect_fault(FaultKind::race, "nothing orders the two", exchange([](unsigned) {}));
  expect_fault(FaultKind::race, "nothing orders the two",
               exchange([](unsigned t) { __syncwarp(t % 2 == 0 ? 0x55555555u : 0xaaaaaaaau); }));
  // a warp's call orders no other warp
  expect_fault(FaultKind::race, "nothing orders the two", racing([](int* s, unsigned t) {
                 s[t] = 1;
                 __syncwarp();
                 const int other = s[t ^ 32];
                 __syncthreads();
                 s[t] = other;
               }));
  // what comes after the call is not ordered by it
  expect_fault(FaultKind::race, "nothing orders the two", racing([](int* s, unsigned t) {
                 s[t] = 1;
                 __syncwarp();
                 s[t] = 2;
                 const int other = s[t ^ 1];
                 __syncwarp();
                 s[t] = other;
               }));
  // by way of a third lane
  expect_healthy(racing(
      [](int* s, unsigned t) {
        if (t == 0) s[0] = 1;
        if (t == 0 || t == 1) __syncwarp(3u);
        if (t == 1 || t == 2) __syncwarp(6u);
        if (t == 2) s[1] = s[0];
      },
      32));
}

__global__ void static_sum_kernel(int* to) {
  int* s = shared_array<int, 1>();
  if (threadIdx.x == blockIdx.x) s[0] = 1;
  __syncthreads();
  to[blockIdx.x * blockDim.x + threadIdx.x] = s[0];
}

TEST_F(Races, ThoseWhoReadTogetherDoNotHideEachOther) {
  const auto all_read = [](unsigned first_readers, unsigned writer) {  // the writer reads last
    return racing([=](int* s, unsigned t) {
      if (t < first_readers || t == writer) s[t] = s[63];
      if (t == writer) s[63] = 1;
    });
  };
  expect_fault(FaultKind::race, "thread (62, 0, 0): writes shared memory that thread (61, 0, 0) reads", all_read(62, 62));
  expect_fault(FaultKind::race, "thread (62, 0, 0): writes shared memory that thread (1, 0, 0) reads", all_read(2, 62));
  expect_healthy(all_read(0, 62));
  expect_fault(FaultKind::race, "thread (9, 0, 0): writes shared memory that thread (8, 0, 0) reads", all_read(9, 9));
  expect_healthy(racing([](int* s, unsigned t) {
    const int all = s[0];
    if (t == 99) s[0] = all + 1;
  }));
}

TEST_F(Races, OneBlockDoesNotRaceWithTheNext) {
  const DeviceArray<int> to(32);
  expect_healthy([&] { launch(static_sum_kernel, {dim3(2), dim3(16)}, nullptr, to.data()); });
}

TEST_F(EmulatedThreads, RacesAreLookedForOnlyWhenAsked) {
  expect_healthy(racing([](int* s, unsigned) { s[0] = 1; }));
}

}  // namespace
}  // namespace graft::cuda
