// The emulated runtime: streams, events, captures, memory, launches, errors.
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "graft/error.h"
#include "kernels/cuda/launch.cuh"
#include "tests/cuda_on_cpu/detectors.h"
#include "tests/cuda_on_cpu/device_array.h"
#include "tests/cuda_on_cpu/emulation.h"

namespace graft::cuda {
namespace {

using emulation::Options;
using emulation::With;
using testing::DeviceArray;

/// Pinned memory of the host.
struct Pinned {
  Pinned(int value) {
    check(cudaMallocHost(&at, sizeof(int)), "cannot allocate");
    *at = value;
  }
  ~Pinned() { cudaFreeHost(at); }
  Pinned(const Pinned&) = delete;
  Pinned& operator=(const Pinned&) = delete;
  int* at = nullptr;
};

struct Stream {
  explicit Stream(unsigned flags = cudaStreamNonBlocking) {
    check(cudaStreamCreateWithFlags(&handle, flags), "cannot make a stream");
  }
  ~Stream() { cudaStreamDestroy(handle); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  cudaStream_t handle = nullptr;
};

struct Event {
  explicit Event(unsigned flags = cudaEventDefault) { check(cudaEventCreateWithFlags(&handle, flags), "cannot make an event"); }
  ~Event() { cudaEventDestroy(handle); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  cudaEvent_t handle = nullptr;
};

__global__ void add_kernel(int* to, int value) { *to += value; }
void add(const DeviceArray<int>& to, int value, cudaStream_t stream) {
  launch(add_kernel, {dim3(1), dim3(1)}, stream, to.data(), value);
}
void download(const Pinned& to, const DeviceArray<int>& from, cudaStream_t stream) {
  check(cudaMemcpyAsync(to.at, from.data(), sizeof(int), cudaMemcpyDeviceToHost, stream), "cannot download");
}
void upload(const DeviceArray<int>& to, const Pinned& from, cudaStream_t stream) {
  check(cudaMemcpyAsync(to.data(), from.at, sizeof(int), cudaMemcpyHostToDevice, stream), "cannot upload");
}

struct EmulatedRuntime : testing::Detector {
  DeviceArray<int> one{std::vector<int>{1}};
  Pinned host{0};
  Stream stream;
};

// ---- streams

TEST_F(EmulatedRuntime, WorkIsDoneWhenItIsWaitedFor) {
  add(one, 4, stream.handle);
  download(host, one, stream.handle);
  EXPECT_EQ(*host.at, 0);
  EXPECT_EQ(cudaStreamSynchronize(stream.handle), cudaSuccess);
  EXPECT_EQ(*host.at, 5);
  download(host, one, stream.handle);
  add(one, 1, stream.handle);
  *host.at = 0;
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_EQ(*host.at, 5);
  EXPECT_EQ(one.values()[0], 6);
}

TEST_F(EmulatedRuntime, OrAtOnceWhereOptionsSaySo) {
  const With with(Options{.deferred = false});
  add(one, 4, stream.handle);
  download(host, one, stream.handle);
  EXPECT_EQ(*host.at, 5);
}

TEST_F(EmulatedRuntime, StreamsWaitForEachOtherOnlyWhereTheyMust) {
  download(host, one, stream.handle);
  add(one, 4, nullptr);  // does not wait for a stream that is not blocking
  EXPECT_EQ(cudaStreamSynchronize(nullptr), cudaSuccess);
  EXPECT_EQ(*host.at, 0);
  EXPECT_EQ(cudaStreamSynchronize(stream.handle), cudaSuccess);
  EXPECT_EQ(*host.at, 5);

  const Stream blocking(cudaStreamDefault);
  add(one, 1, blocking.handle);
  download(host, one, nullptr);
  EXPECT_EQ(cudaStreamSynchronize(nullptr), cudaSuccess);
  EXPECT_EQ(*host.at, 6);
  add(one, 1, nullptr);
  download(host, one, blocking.handle);
  EXPECT_EQ(cudaStreamSynchronize(blocking.handle), cudaSuccess);
  EXPECT_EQ(*host.at, 7);
}

TEST_F(EmulatedRuntime, AskingAStreamLetsItGoOn) {
  EXPECT_EQ(cudaStreamQuery(stream.handle), cudaSuccess);
  add(one, 1, stream.handle);
  add(one, 1, stream.handle);
  EXPECT_EQ(cudaStreamQuery(stream.handle), cudaErrorNotReady);
  EXPECT_EQ(cudaStreamQuery(stream.handle), cudaSuccess);
  EXPECT_EQ(one.values()[0], 3);
}

TEST_F(EmulatedRuntime, DestroyingAStreamFinishesItsWork) {
  {
    const Stream other;
    add(one, 1, other.handle);
    EXPECT_EQ(cudaStreamDestroy(reinterpret_cast<cudaStream_t>(host.at)), cudaErrorInvalidResourceHandle);
  }
  EXPECT_EQ(one.values()[0], 2);
}

// ---- copies

TEST_F(EmulatedRuntime, PinnedMemoryIsReadLateOtherMemoryAtOnce) {
  *host.at = 7;
  upload(one, host, stream.handle);
  *host.at = 8;
  EXPECT_EQ(cudaStreamSynchronize(stream.handle), cudaSuccess);
  EXPECT_EQ(one.values()[0], 8);
  int plain = 9;
  EXPECT_EQ(cudaMemcpyAsync(one.data(), &plain, sizeof(int), cudaMemcpyHostToDevice, stream.handle), cudaSuccess);
  plain = 10;
  EXPECT_EQ(cudaStreamSynchronize(stream.handle), cudaSuccess);
  EXPECT_EQ(one.values()[0], 9);
  EXPECT_EQ(cudaMemcpyAsync(&plain, one.data(), sizeof(int), cudaMemcpyDeviceToHost, stream.handle), cudaSuccess);
  EXPECT_EQ(plain, 9);
}

TEST_F(EmulatedRuntime, CopiesGoTheirWay) {
  const DeviceArray<int> two(1);
  int a = 1, b = 2;
  EXPECT_EQ(cudaMemcpy(two.data(), one.data(), sizeof(int), cudaMemcpyDeviceToDevice), cudaSuccess);
  EXPECT_EQ(two.values()[0], 1);
  EXPECT_EQ(cudaMemcpy(&a, &b, sizeof(int), cudaMemcpyHostToHost), cudaSuccess);
  EXPECT_EQ(a, 2);
  EXPECT_EQ(cudaMemcpy(&b, two.data(), sizeof(int), cudaMemcpyDefault), cudaSuccess);
  EXPECT_EQ(b, 1);
  EXPECT_EQ(cudaMemcpy(one.data(), nullptr, 0, cudaMemcpyHostToDevice), cudaSuccess);
  for (const auto kind : {cudaMemcpyHostToHost, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice})
    EXPECT_EQ(cudaMemcpy(one.data(), &a, sizeof(int), kind), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemcpy(&a, one.data(), sizeof(int), cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemset(&a, 0, sizeof(int)), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemset(one.data(), 1, sizeof(int)), cudaSuccess);
  EXPECT_EQ(one.values()[0], 0x01010101);
}

// ---- events

TEST_F(EmulatedRuntime, EventsWaitForWhatWasBeforeThem) {
  const Event event;
  EXPECT_EQ(cudaEventSynchronize(event.handle), cudaSuccess);
  EXPECT_EQ(cudaEventQuery(event.handle), cudaSuccess);
  download(host, one, stream.handle);
  EXPECT_EQ(cudaEventRecord(event.handle, stream.handle), cudaSuccess);
  add(one, 1, stream.handle);
  download(host, one, stream.handle);
  EXPECT_EQ(cudaEventSynchronize(event.handle), cudaSuccess);
  EXPECT_EQ(*host.at, 1);
  EXPECT_EQ(cudaStreamSynchronize(stream.handle), cudaSuccess);
  EXPECT_EQ(*host.at, 2);
}

TEST_F(EmulatedRuntime, AskingAnEventLetsItsStreamGoOn) {
  const Event event;
  add(one, 1, stream.handle);
  EXPECT_EQ(cudaEventRecord(event.handle, stream.handle), cudaSuccess);
  EXPECT_EQ(cudaEventQuery(event.handle), cudaErrorNotReady);
  EXPECT_EQ(cudaEventQuery(event.handle), cudaSuccess);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
}

TEST_F(EmulatedRuntime, AStreamWaitsForAnEventOfAnother) {
  const Event event;
  const Stream other;
  add(one, 4, stream.handle);
  EXPECT_EQ(cudaEventRecord(event.handle, stream.handle), cudaSuccess);
  add(one, 4, stream.handle);
  EXPECT_EQ(cudaStreamWaitEvent(other.handle, event.handle), cudaSuccess);
  download(host, one, other.handle);
  EXPECT_EQ(cudaStreamSynchronize(other.handle), cudaSuccess);
  EXPECT_EQ(*host.at, 5);
}

TEST_F(EmulatedRuntime, EventsTellTheTimeBetween) {
  const Event begin, end, untimed(cudaEventDisableTiming);
  float milliseconds = -1.0f;
  EXPECT_EQ(cudaEventElapsedTime(&milliseconds, begin.handle, end.handle), cudaErrorInvalidResourceHandle);
  for (const Event* event : {&begin, &end, &untimed}) EXPECT_EQ(cudaEventRecord(event->handle, stream.handle), cudaSuccess);
  EXPECT_EQ(cudaEventElapsedTime(&milliseconds, begin.handle, end.handle), cudaErrorNotReady);
  EXPECT_EQ(cudaStreamSynchronize(stream.handle), cudaSuccess);
  EXPECT_EQ(cudaEventElapsedTime(&milliseconds, begin.handle, end.handle), cudaSuccess);
  EXPECT_GE(milliseconds, 0.0f);
  EXPECT_EQ(cudaEventElapsedTime(&milliseconds, begin.handle, untimed.handle), cudaErrorInvalidResourceHandle);
}

// ---- captures

struct Capture : EmulatedRuntime {
  cudaGraph_t graph = nullptr;
  void begin() { EXPECT_EQ(cudaStreamBeginCapture(stream.handle, cudaStreamCaptureModeThreadLocal), cudaSuccess); }
  cudaError_t end() { return cudaStreamEndCapture(stream.handle, &graph); }
  cudaStreamCaptureStatus status() {
    cudaStreamCaptureStatus status;
    EXPECT_EQ(cudaStreamIsCapturing(stream.handle, &status), cudaSuccess);
    return status;
  }
};

TEST_F(Capture, RecordsWorkThatEachLaunchRepeats) {
  EXPECT_EQ(status(), cudaStreamCaptureStatusNone);
  add(one, 1, stream.handle);  // before: runs once
  begin();
  EXPECT_EQ(status(), cudaStreamCaptureStatusActive);
  int value = 10;
  add(one, value, stream.handle);
  value = 100;
  EXPECT_EQ(cudaMemcpyAsync(host.at, one.data(), sizeof(int), cudaMemcpyDeviceToHost, stream.handle), cudaSuccess);
  EXPECT_EQ(end(), cudaSuccess);
  EXPECT_EQ(status(), cudaStreamCaptureStatusNone);
  EXPECT_EQ(one.values()[0], 1);
  EXPECT_EQ(cudaStreamSynchronize(stream.handle), cudaSuccess);
  EXPECT_EQ(one.values()[0], 2);

  cudaGraphExec_t exec = nullptr;
  EXPECT_EQ(cudaGraphInstantiate(&exec, graph), cudaSuccess);
  EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
  for (const int wanted : {12, 22}) {
    EXPECT_EQ(cudaGraphLaunch(exec, stream.handle), cudaSuccess);
    EXPECT_EQ(cudaStreamSynchronize(stream.handle), cudaSuccess);
    EXPECT_EQ(*host.at, wanted);
  }
  EXPECT_EQ(cudaGraphExecDestroy(exec), cudaSuccess);
}

TEST_F(Capture, IsSpoiltByWhatCannotBeRecorded) {
  const Event event;
  void* memory = nullptr;
  const Pinned other(0);
  void* const freed = one.data();
  const std::vector<std::function<cudaError_t()>> calls = {
      [&] { return cudaMalloc(&memory, 4); },
      [&] { return cudaFree(freed); },
      [&] { return cudaMallocHost(&memory, 4); },
      [&] { return cudaFreeHost(host.at); },
      [&] { return cudaMemcpy(one.data(), host.at, 4, cudaMemcpyHostToDevice); },
      [&] { return cudaMemset(one.data(), 0, 4); },
      [&] { return cudaStreamSynchronize(stream.handle); },
      [&] { return cudaStreamQuery(stream.handle); },
      [&] { return cudaDeviceSynchronize(); },
      [&] { return cudaEventSynchronize(event.handle); },
      [&] { return cudaEventQuery(event.handle); },
  };
  for (std::size_t i = 0; i < calls.size(); ++i) {
    begin();
    EXPECT_EQ(calls[i](), cudaErrorStreamCaptureUnsupported) << i;
    EXPECT_EQ(status(), cudaStreamCaptureStatusInvalidated) << i;
    EXPECT_EQ(cudaMemsetAsync(one.data(), 0, 4, stream.handle), cudaErrorStreamCaptureInvalidated) << i;
    EXPECT_EQ(end(), cudaErrorStreamCaptureInvalidated) << i;
    EXPECT_EQ(graph, nullptr);
    EXPECT_EQ(status(), cudaStreamCaptureStatusNone) << i;
  }
  EXPECT_EQ(one.values()[0], 1);
}

TEST_F(Capture, RefusesWhatDoesNotFit) {
  EXPECT_EQ(end(), cudaErrorIllegalState);
  EXPECT_EQ(cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeGlobal), cudaErrorStreamCaptureUnsupported);
  begin();
  EXPECT_EQ(cudaStreamBeginCapture(stream.handle, cudaStreamCaptureModeGlobal), cudaErrorIllegalState);
  const Event event;
  EXPECT_EQ(cudaEventRecord(event.handle, stream.handle), cudaErrorNotSupported);
  EXPECT_EQ(cudaStreamWaitEvent(stream.handle, event.handle), cudaErrorNotSupported);
  EXPECT_EQ(cudaGraphLaunch(nullptr, stream.handle), cudaErrorNotSupported);
  EXPECT_EQ(end(), cudaSuccess);
  EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);

  const Stream blocking(cudaStreamDefault);
  EXPECT_EQ(cudaStreamBeginCapture(blocking.handle, cudaStreamCaptureModeRelaxed), cudaSuccess);
  EXPECT_EQ(cudaMemsetAsync(one.data(), 0, 4, nullptr), cudaErrorStreamCaptureImplicit);
  EXPECT_EQ(cudaStreamEndCapture(blocking.handle, &graph), cudaSuccess);
  EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
}

// ---- errors

__global__ void fault_kernel(int* at) { at[1] = 0; }

TEST_F(EmulatedRuntime, AFaultIsTheErrorOfWhoeverWaits) {
  launch(fault_kernel, {dim3(1), dim3(1)}, stream.handle, one.data());
  add(one, 1, stream.handle);  // does not run any more
  EXPECT_EQ(cudaStreamSynchronize(stream.handle), cudaErrorLaunchFailure);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaErrorLaunchFailure) << "nobody has looked at the report";
  EXPECT_STREQ(cudaGetErrorName(cudaGetLastError()), "cudaErrorLaunchFailure");
  EXPECT_NE(
      std::string(cudaGetErrorString(cudaErrorLaunchFailure)).find("unspecified launch failure: graft::cuda::fault_kernel, block"),
      std::string::npos);
  EXPECT_STREQ(cudaGetErrorString(cudaErrorLaunchFailure), "unspecified launch failure");
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_EQ(one.values()[0], 1);
  launch(fault_kernel, {dim3(1), dim3(1)}, stream.handle, one.data());
  try {
    check(cudaStreamSynchronize(stream.handle), "a step failed");
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what())
                  .find("cuda: a step failed: unspecified launch failure: graft::cuda::fault_kernel, block (0, 0, 0), thread (0, "
                        "0, 0): writes 4 bytes out of bounds"),
              std::string::npos)
        << error.what();
  }
}

TEST_F(EmulatedRuntime, AFaultThatNobodySawIsFoundOut) {
  launch(fault_kernel, {dim3(1), dim3(1)}, stream.handle, one.data());
  cudaStreamSynchronize(stream.handle);  // as in a destructor
  EXPECT_NE(emulation::forget_fault().find("fault_kernel"), std::string::npos);
  EXPECT_EQ(emulation::forget_fault(), "");
}

TEST_F(EmulatedRuntime, TheLastErrorIsKeptUntilItIsAskedFor) {
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  EXPECT_EQ(cudaSetDevice(1), cudaErrorInvalidDevice);
  EXPECT_EQ(cudaSetDevice(0), cudaSuccess);
  EXPECT_EQ(cudaPeekAtLastError(), cudaErrorInvalidDevice);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidDevice);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
}

TEST_F(EmulatedRuntime, ErrorsHaveTheirNames) {
  const std::vector<std::pair<cudaError_t, std::string>> names = {
      {cudaSuccess, "cudaSuccess: no error"},
      {cudaErrorInvalidValue, "cudaErrorInvalidValue: invalid argument"},
      {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation: out of memory"},
      {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration: invalid configuration argument"},
      {cudaErrorNoDevice, "cudaErrorNoDevice: no CUDA-capable device is detected"},
      {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported: operation not permitted when stream is capturing"},
  };
  for (const auto& [error, text] : names) EXPECT_EQ(std::string(cudaGetErrorName(error)) + ": " + cudaGetErrorString(error), text);
}

// ---- memory

TEST_F(EmulatedRuntime, MemoryIsAsLargeAsTheOptionsSay) {
  std::size_t free = 0, total = 0;
  EXPECT_EQ(cudaMemGetInfo(&free, &total), cudaSuccess);
  const With with(Options{.memory = total - free + 1000});
  EXPECT_EQ(cudaMemGetInfo(&free, &total), cudaSuccess);
  EXPECT_EQ(free, 1000u);
  void *a = nullptr, *b = nullptr;
  EXPECT_EQ(cudaMalloc(&a, 1001), cudaErrorMemoryAllocation);
  EXPECT_EQ(a, nullptr);
  EXPECT_EQ(cudaMalloc(&a, SIZE_MAX), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaMalloc(&a, 600), cudaSuccess);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(a) % 256, 0u);
  EXPECT_EQ(cudaMalloc(&b, 600), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaFree(a), cudaSuccess);
  EXPECT_EQ(cudaMalloc(&b, 1000), cudaSuccess);
  EXPECT_EQ(cudaFree(a), cudaErrorInvalidValue);
  EXPECT_EQ(cudaFree(static_cast<char*>(b) + 256), cudaErrorInvalidValue);
  EXPECT_EQ(cudaFree(b), cudaSuccess);
  EXPECT_EQ(cudaFree(nullptr), cudaSuccess);
  EXPECT_EQ(cudaFreeHost(b), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMalloc(&a, 0), cudaSuccess);
  EXPECT_EQ(a, nullptr);
}

TEST_F(EmulatedRuntime, AddressesComeIntoUseAgainInTheEnd) {
  void *first = nullptr, *memory = nullptr;
  EXPECT_EQ(cudaMalloc(&first, 4), cudaSuccess);
  EXPECT_EQ(cudaFree(first), cudaSuccess);
  int rounds = 0;
  for (; rounds < 200000 && memory != first; ++rounds) {  // 4 GiB of addresses, 64 KiB apart
    ASSERT_EQ(cudaMalloc(&memory, 4), cudaSuccess) << rounds;
    ASSERT_NE(memory, one.data());
    ASSERT_EQ(cudaFree(memory), cudaSuccess);
  }
  EXPECT_GT(rounds, 50000);
  EXPECT_EQ(one.values()[0], 1);
}

// ---- launches

__global__ void none_kernel() {}
__global__ void large_kernel() {}

TEST_F(EmulatedRuntime, LaunchesKeepTheLimits) {
  const auto fine = [](dim3 grid, dim3 block, std::size_t shared = 0) {
    launch(none_kernel, {grid, block, shared}, nullptr);
    emulation::synchronize();
  };
  fine(dim3(1, 65535), dim3(1));
  fine(dim3(1, 1, 65535), dim3(1));
  fine(dim3(1), dim3(1024));
  fine(dim3(1), dim3(4, 4, 64));
  fine(dim3(1), dim3(1), std::size_t{227} * 1024);
  const auto refused = [&](dim3 grid, dim3 block,
                           const char* why = "invalid configuration argument (cudaErrorInvalidConfiguration)",
                           std::size_t shared = 0) {
    try {
      launch(none_kernel, {grid, block, shared}, nullptr);
      ADD_FAILURE() << "was not refused";
    } catch (const Error& error) {
      EXPECT_EQ(std::string(error.what()), std::string("cuda: cannot start kernel graft::cuda::none_kernel: ") + why);
    }
  };
  refused(dim3(1, 65536), dim3(1));
  refused(dim3(1, 1, 65536), dim3(1));
  refused(dim3(0x80000000u), dim3(1));
  refused(dim3(0), dim3(1));
  refused(dim3(1, 0), dim3(1));
  refused(dim3(1), dim3(1025));
  refused(dim3(1), dim3(33, 32));
  refused(dim3(1), dim3(1, 1, 65));
  refused(dim3(1), dim3(1, 0));
  refused(dim3(1), dim3(1), "invalid argument (cudaErrorInvalidValue)", std::size_t{227} * 1024 + 1);

  // more than 48 KiB only for who has asked
  const auto start = [](std::size_t shared) {
    return emulation::start({reinterpret_cast<const void*>(&large_kernel), [](const void*, void*) {}, nullptr, 0}, dim3(1), dim3(1),
                            shared, nullptr);
  };
  EXPECT_EQ(start(48 * 1024), cudaSuccess);
  EXPECT_EQ(start(48 * 1024 + 1), cudaErrorInvalidConfiguration);
  cudaFuncAttributes attributes;
  EXPECT_EQ(cudaFuncGetAttributes(&attributes, large_kernel), cudaSuccess);
  EXPECT_EQ(attributes.maxDynamicSharedSizeBytes, 48 * 1024);
  EXPECT_EQ(cudaFuncSetAttribute(large_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 60000), cudaSuccess);
  EXPECT_EQ(start(60000), cudaSuccess);
  EXPECT_EQ(start(60001), cudaErrorInvalidConfiguration);
  EXPECT_EQ(cudaFuncGetAttributes(&attributes, large_kernel), cudaSuccess);
  EXPECT_EQ(attributes.maxDynamicSharedSizeBytes, 60000);
}

TEST_F(EmulatedRuntime, WithoutCodeForTheDeviceNothingStarts) {
  const With with(Options{.has_code = false});
  cudaFuncAttributes attributes;
  EXPECT_EQ(cudaFuncGetAttributes(&attributes, none_kernel), cudaErrorNoKernelImageForDevice);
  EXPECT_THROW(launch(none_kernel, {dim3(1), dim3(1)}, nullptr), Error);
}

TEST_F(EmulatedRuntime, TheDeviceIsThatOfTheOptions) {
  const With with(Options{.memory = 1 << 30, .devices = 2, .driver = 13010, .major = 8, .minor = 6, .multiprocessors = 7});
  int value = 0;
  EXPECT_EQ(cudaDriverGetVersion(&value), cudaSuccess);
  EXPECT_EQ(value, 13010);
  EXPECT_EQ(cudaGetDeviceCount(&value), cudaSuccess);
  EXPECT_EQ(value, 2);
  EXPECT_EQ(cudaSetDevice(1), cudaSuccess);
  EXPECT_EQ(cudaSetDevice(2), cudaErrorInvalidDevice);
  cudaDeviceProp properties;
  EXPECT_EQ(cudaGetDeviceProperties(&properties, 2), cudaErrorInvalidDevice);
  ASSERT_EQ(cudaGetDeviceProperties(&properties, 1), cudaSuccess);
  EXPECT_EQ(std::vector<std::size_t>({properties.totalGlobalMem, properties.sharedMemPerBlock, properties.sharedMemPerBlockOptin}),
            (std::vector<std::size_t>{1 << 30, 48 << 10, 227 << 10}));
  EXPECT_EQ(std::vector<int>({properties.major, properties.minor, properties.multiProcessorCount, properties.warpSize,
                              properties.maxThreadsPerBlock}),
            (std::vector<int>{8, 6, 7, 32, 1024}));
  for (const auto& [attribute, wanted] :
       std::vector<std::pair<cudaDeviceAttr, int>>{{cudaDevAttrMultiProcessorCount, 7},
                                                   {cudaDevAttrComputeCapabilityMajor, 8},
                                                   {cudaDevAttrComputeCapabilityMinor, 6},
                                                   {cudaDevAttrMaxSharedMemoryPerBlockOptin, 227 << 10}}) {
    EXPECT_EQ(cudaDeviceGetAttribute(&value, attribute, 0), cudaSuccess);
    EXPECT_EQ(value, wanted);
  }
}

}  // namespace
}  // namespace graft::cuda
