#pragma once
// Streams of the emulated runtime.
#include <cuda_runtime.h>

#include <functional>

namespace emulation {

/// Runs `work` in the stream's order, or records it where the stream captures. What it throws is a Fault.
cudaError_t enqueue(cudaStream_t stream, std::function<void()> work);

}  // namespace emulation
