// The host's half of the CUDA runtime: devices, memory, kernels, and what went wrong.
#include "tests/cuda_on_cpu/runtime.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <optional>

#include "tests/cuda_on_cpu/accesses.h"
#include "tests/cuda_on_cpu/runtime_impl.h"
#include "tests/cuda_on_cpu/symbols.h"

namespace emulation {

Runtime& runtime() {
  static Runtime one;
  return one;
}

const Options& options() { return runtime().options; }

With::With(const Options& options) : before_(runtime().options) {
  run_all();
  runtime().options = options;
}
With::~With() {
  run_all();
  runtime().options = before_;
}

void synchronize() {
  run_all();
  if (!runtime().fault) return;
  const Fault fault = *runtime().fault;
  runtime().fault.reset();
  throw fault;
}

std::string forget_fault() {
  drop_all();
  const std::string text = runtime().fault ? runtime().fault->what() : "";
  runtime().fault.reset();
  runtime().last = cudaSuccess;
  return text;
}

Access::Access(std::vector<Range> readable, std::vector<Range> writable, const std::vector<Range>& fresh) {
  synchronize();
  memory().restrict(std::move(readable), std::move(writable), fresh);
}
Access::~Access() {
  run_all();
  memory().permit_all();
}

std::size_t unwritten_bytes(const void* data, std::size_t bytes) { return memory().count_unwritten(data, bytes); }
std::uint64_t threads_run() { return multiprocessor().threads_run(); }

cudaError_t failed(cudaError_t error) {
  if (error != cudaSuccess && error != cudaErrorNotReady) runtime().last = error;
  return error;
}

cudaError_t start(Call call, dim3 grid, dim3 block, std::size_t shared, cudaStream_t stream) {
  const auto within = [](unsigned x, std::uint64_t most) { return x >= 1 && x <= most; };
  const bool fits = within(grid.x, 0x7fffffff) && within(grid.y, 65535) && within(grid.z, 65535) && within(block.x, kMostThreads) &&
                    within(block.y, kMostThreads) && within(block.z, 64) &&
                    std::uint64_t{block.x} * block.y * block.z <= kMostThreads;
  const auto asked = runtime().shared_asked.find(call.kernel);
  const std::size_t most = asked == runtime().shared_asked.end() ? kMostStaticShared : asked->second;
  if (!fits || shared > most) return failed(cudaErrorInvalidConfiguration);
  if (!options().has_code) return failed(cudaErrorNoKernelImageForDevice);
  return enqueue(stream, [call = std::move(call), grid, block, shared] { multiprocessor().run(call, grid, block, shared); });
}

}  // namespace emulation

using namespace emulation;

// ---- errors

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
#define NAME(error) \
  case error: return #error
    NAME(cudaSuccess);
    NAME(cudaErrorInvalidValue);
    NAME(cudaErrorMemoryAllocation);
    NAME(cudaErrorInvalidConfiguration);
    NAME(cudaErrorInsufficientDriver);
    NAME(cudaErrorNoDevice);
    NAME(cudaErrorInvalidDevice);
    NAME(cudaErrorNoKernelImageForDevice);
    NAME(cudaErrorInvalidResourceHandle);
    NAME(cudaErrorIllegalState);
    NAME(cudaErrorNotReady);
    NAME(cudaErrorLaunchFailure);
    NAME(cudaErrorNotSupported);
    NAME(cudaErrorStreamCaptureUnsupported);
    NAME(cudaErrorStreamCaptureInvalidated);
    NAME(cudaErrorStreamCaptureImplicit);
#undef NAME
  }
  return "unrecognized error code";
}

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInvalidConfiguration: return "invalid configuration argument";
    case cudaErrorInsufficientDriver: return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorNoDevice: return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice: return "invalid device ordinal";
    case cudaErrorNoKernelImageForDevice: return "no kernel image is available for execution on the device";
    case cudaErrorInvalidResourceHandle: return "invalid resource handle";
    case cudaErrorIllegalState: return "the operation cannot be performed in the present state";
    case cudaErrorNotReady: return "device not ready";
    case cudaErrorNotSupported: return "operation not supported";
    case cudaErrorStreamCaptureUnsupported: return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated: return "operation failed due to a previous error during capture";
    case cudaErrorStreamCaptureImplicit: return "operation would make the legacy stream depend on a capturing blocking stream";
    case cudaErrorLaunchFailure: {
      if (!runtime().fault) return "unspecified launch failure";
      runtime().told = std::string("unspecified launch failure: ") + runtime().fault->what();
      runtime().fault.reset();
      return runtime().told.c_str();
    }
  }
  return "unrecognized error code";
}

cudaError_t cudaGetLastError() { return std::exchange(runtime().last, cudaSuccess); }
cudaError_t cudaPeekAtLastError() { return runtime().last; }

// ---- devices

cudaError_t cudaDriverGetVersion(int* version) {
  *version = options().driver;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = kRuntimeVersion;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int* count) {
  *count = 0;
  if (options().driver < kRuntimeVersion / 1000 * 1000) return failed(cudaErrorInsufficientDriver);
  if (options().devices == 0) return failed(cudaErrorNoDevice);
  *count = options().devices;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  return device >= 0 && device < options().devices ? cudaSuccess : failed(cudaErrorInvalidDevice);
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device < 0 || device >= options().devices) return failed(cudaErrorInvalidDevice);
  *properties = {};
  std::strcpy(properties->name, "emulated GPU");
  properties->totalGlobalMem = options().memory;
  properties->sharedMemPerBlock = kMostStaticShared;
  properties->sharedMemPerBlockOptin = kMostShared;
  properties->major = options().major;
  properties->minor = options().minor;
  properties->multiProcessorCount = options().multiprocessors;
  properties->warpSize = kWarp;
  properties->maxThreadsPerBlock = kMostThreads;
  properties->maxThreadsPerMultiProcessor = 2 * kMostThreads;
  properties->l2CacheSize = 50 << 20;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device < 0 || device >= options().devices) return failed(cudaErrorInvalidDevice);
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount: *value = options().multiprocessors; return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor: *value = options().major; return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor: *value = options().minor; return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = kMostShared; return cudaSuccess;
  }
  return failed(cudaErrorInvalidValue);
}

// ---- memory

cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  *free = options().memory - memory().used();
  *total = options().memory;
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** to, std::size_t bytes) {
  if (const cudaError_t status = forbidden_in_capture(); status != cudaSuccess) return status;
  *to = nullptr;
  if (bytes == 0) return cudaSuccess;
  *to = memory().allocate(bytes);
  return *to == nullptr ? failed(cudaErrorMemoryAllocation) : cudaSuccess;
}

cudaError_t cudaFree(void* freed) {
  if (freed == nullptr) return cudaSuccess;
  if (const cudaError_t status = forbidden_in_capture(); status != cudaSuccess) return status;
  const cudaError_t before = run_all();
  return memory().free(freed) ? before : failed(cudaErrorInvalidValue);
}

cudaError_t cudaMallocHost(void** to, std::size_t bytes) {
  if (const cudaError_t status = forbidden_in_capture(); status != cudaSuccess) return status;
  *to = std::malloc(bytes);
  if (*to == nullptr) return failed(cudaErrorMemoryAllocation);
  runtime().pinned[static_cast<std::byte*>(*to)] = bytes;
  return cudaSuccess;
}

cudaError_t cudaFreeHost(void* freed) {
  if (freed == nullptr) return cudaSuccess;
  if (const cudaError_t status = forbidden_in_capture(); status != cudaSuccess) return status;
  const cudaError_t before = run_all();
  if (runtime().pinned.erase(static_cast<std::byte*>(freed)) == 0) return failed(cudaErrorInvalidValue);
  std::free(freed);
  return before;
}

namespace {

bool is_pinned(const void* data) {
  const auto* byte = static_cast<const std::byte*>(data);
  const auto after = runtime().pinned.upper_bound(byte);
  return after != runtime().pinned.begin() && byte < std::prev(after)->first + std::prev(after)->second;
}

/// The kind as the pointers have it; kinds that do not fit them are refused, which CUDA leaves open.
bool fits(const void* to, const void* from, cudaMemcpyKind kind) {
  const bool to_device = memory().is_device(to), from_device = memory().is_device(from);
  switch (kind) {
    case cudaMemcpyHostToHost: return !to_device && !from_device;
    case cudaMemcpyHostToDevice: return to_device && !from_device;
    case cudaMemcpyDeviceToHost: return !to_device && from_device;
    case cudaMemcpyDeviceToDevice: return to_device && from_device;
    case cudaMemcpyDefault: return true;
  }
  return false;
}

void copy(void* to, const void* from, std::size_t bytes) {
  if (memory().is_device(from)) host_access("cudaMemcpy", from, bytes, false);
  if (memory().is_device(to)) host_access("cudaMemcpy", to, bytes, true);
  std::memmove(to, from, bytes);
}

void set(void* to, int value, std::size_t bytes) {
  host_access("cudaMemset", to, bytes, true);
  std::memset(to, value, bytes);
}

}  // namespace

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  if (!fits(to, from, kind)) return failed(cudaErrorInvalidValue);
  if (bytes == 0) return cudaSuccess;
  // Memory that is not pinned is read before the call returns, and written too; a capture keeps the pointers.
  if (!is_capturing(stream) && !memory().is_device(from) && !is_pinned(from)) {
    std::vector<std::byte> kept(static_cast<const std::byte*>(from), static_cast<const std::byte*>(from) + bytes);
    return enqueue(stream, [=, kept = std::move(kept)] { copy(to, kept.data(), bytes); });
  }
  const cudaError_t status = enqueue(stream, [=] { copy(to, from, bytes); });
  if (status != cudaSuccess || is_capturing(stream) || memory().is_device(to) || is_pinned(to)) return status;
  return cudaStreamSynchronize(stream);
}

cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  if (const cudaError_t status = forbidden_in_capture(); status != cudaSuccess) return status;
  const cudaError_t status = cudaMemcpyAsync(to, from, bytes, kind, nullptr);
  return status != cudaSuccess ? status : cudaStreamSynchronize(nullptr);
}

cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream) {
  if (bytes == 0) return cudaSuccess;
  if (!memory().is_device(to)) return failed(cudaErrorInvalidValue);
  return enqueue(stream, [=] { set(to, value, bytes); });
}
cudaError_t cudaMemset(void* to, int value, std::size_t bytes) {
  if (const cudaError_t status = forbidden_in_capture(); status != cudaSuccess) return status;
  return cudaMemsetAsync(to, value, bytes, nullptr);
}

// ---- kernels

cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  if (value < 0 || static_cast<std::size_t>(value) > kMostShared) return failed(cudaErrorInvalidValue);
  runtime().shared_asked[function] = static_cast<std::size_t>(value);
  return cudaSuccess;
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* function) {
  if (!options().has_code) return failed(cudaErrorNoKernelImageForDevice);
  const auto asked = runtime().shared_asked.find(function);
  *attributes = {};
  attributes->maxThreadsPerBlock = kMostThreads;
  attributes->maxDynamicSharedSizeBytes =
      static_cast<int>(asked == runtime().shared_asked.end() ? kMostStaticShared : asked->second);
  return cudaSuccess;
}
cudaError_t cudaFuncGetName(const char** name, const void* function) {
  *name = runtime().names.emplace(function, function_name(function)).first->second.c_str();
  return cudaSuccess;
}
