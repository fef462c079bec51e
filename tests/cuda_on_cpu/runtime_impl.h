#pragma once
// What the two files of the emulated runtime share.
#include <cuda_runtime.h>

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "tests/cuda_on_cpu/emulation.h"

namespace emulation {

using Work = std::function<void()>;

inline constexpr int kRuntimeVersion = 13000;

/// What an event has recorded: record number `recorded` is done when `reached` is as large.
struct EventState {
  CUstream_st* stream = nullptr;
  std::uint64_t recorded = 0, reached = 0;
  std::chrono::steady_clock::time_point at;
  bool timed = true;
};

struct Runtime {
  Options options;
  cudaError_t last = cudaSuccess;
  std::optional<Fault> fault;  ///< that nobody has looked at
  std::string told;
  std::set<CUstream_st*> streams;
  std::map<std::byte*, std::size_t, std::less<>> pinned;
  std::map<const void*, std::size_t> shared_asked;  ///< by kernel
  std::map<const void*, std::string> names;
};
Runtime& runtime();

/// Remembers the error for cudaGetLastError.
cudaError_t failed(cudaError_t error);

bool is_capturing(CUstream_st* stream);
/// For calls that no capture may meet: while a stream captures, it refuses and spoils the capture.
cudaError_t forbidden_in_capture();
/// Runs what all streams hold. cudaErrorLaunchFailure: a Fault, now in runtime().fault.
cudaError_t run_all();
void drop_all();

}  // namespace emulation

struct CUgraph_st {
  std::vector<emulation::Work> work;
};
struct CUgraphExec_st {
  std::vector<emulation::Work> work;
};
struct CUevent_st {
  std::shared_ptr<emulation::EventState> state;
};
struct CUstream_st {
  std::deque<emulation::Work> queue;
  bool waits_for_default = true;  ///< not made with cudaStreamNonBlocking
  std::unique_ptr<CUgraph_st> capture;
  bool spoiled = false;  ///< the capture
};
