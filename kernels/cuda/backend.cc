#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

#include "graft/error.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/kernels.h"

namespace graft {
namespace {

using cuda::check;

std::string version_text(int version) { return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10); }

std::string in_mib(std::size_t bytes) { return std::to_string((bytes + (std::size_t{1} << 20) - 1) >> 20) + " MiB"; }

/// The properties of a GPU that these kernels run on; the Error says what is missing.
cudaDeviceProp find_device(int device) {
  int driver = 0, runtime = 0, count = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  if (driver == 0) throw Error("cuda: there is no NVIDIA driver on this machine");
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaErrorInsufficientDriver) {
    throw Error("cuda: the NVIDIA driver serves CUDA " + version_text(driver) + ", this build of graft needs " + version_text(runtime) + " or newer");
  }
  if (status == cudaErrorNoDevice || (status == cudaSuccess && count == 0)) throw Error("cuda: there is no NVIDIA GPU on this machine");
  check(status, "cannot ask for GPUs");
  if (device < 0 || device >= count) {
    throw Error("cuda: there is no device " + std::to_string(device) + ", this machine has " + std::to_string(count));
  }
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, device), "cannot ask for the GPU's properties");
  if (properties.major < 8) {
    throw Error("cuda: " + std::string(properties.name) + " has compute capability " + std::to_string(properties.major) + "." + std::to_string(properties.minor) +
                ", graft needs 8.0 or newer");
  }
  check(cudaSetDevice(device), "cannot use the GPU");
  if (!cuda::has_code_for_this_device()) {
    throw Error("cuda: this build of graft has no code for " + std::string(properties.name) + " (compute capability " + std::to_string(properties.major) + "." +
                std::to_string(properties.minor) + "); add it to CMAKE_CUDA_ARCHITECTURES");
  }
  return properties;
}

/// Host memory that the GPU copies from and to by itself, cut into slots: a copy takes the next one, once the copy before it is done.
class Staging {
 public:
  static constexpr std::size_t kSlot = std::size_t{1} << 20, kSlots = 8;

  Staging() {
    check(cudaMallocHost(&memory_, kSlot * kSlots), "cannot allocate pinned memory");
    for (cudaEvent_t& event : done_) check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cannot make an event");
  }
  ~Staging() {
    for (const cudaEvent_t event : done_) cudaEventDestroy(event);
    cudaFreeHost(memory_);
  }
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  void upload(std::byte* to, const std::byte* from, std::size_t bytes, cudaStream_t stream) {
    for (std::size_t at = 0; at < bytes; at += kSlot) {
      const std::size_t part = std::min(kSlot, bytes - at), slot = next_++ % kSlots;
      check(cudaEventSynchronize(done_[slot]), "a step failed");
      std::memcpy(at_slot(slot), from + at, part);
      check(cudaMemcpyAsync(to + at, at_slot(slot), part, cudaMemcpyHostToDevice, stream), "cannot copy to the GPU");
      check(cudaEventRecord(done_[slot], stream), "cannot record an event");
    }
  }

  void download(std::byte* to, const std::byte* from, std::size_t bytes, cudaStream_t stream) {
    for (std::size_t at = 0; at < bytes; at += kSlot * kSlots) {
      const std::size_t part = std::min(kSlot * kSlots, bytes - at);
      check(cudaMemcpyAsync(memory_, from + at, part, cudaMemcpyDeviceToHost, stream), "cannot copy from the GPU");
      check(cudaStreamSynchronize(stream), "a step failed");
      std::memcpy(to + at, memory_, part);
    }
  }

 private:
  std::byte* at_slot(std::size_t slot) const { return static_cast<std::byte*>(memory_) + slot * kSlot; }

  void* memory_ = nullptr;
  cudaEvent_t done_[kSlots] = {};
  std::size_t next_ = 0;
};

struct Stream {
  Stream() { check(cudaStreamCreateWithFlags(&handle, cudaStreamNonBlocking), "cannot make a stream"); }
  ~Stream() { cudaStreamDestroy(handle); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  cudaStream_t handle = nullptr;
};

struct DestroyGraph {
  void operator()(cudaGraphExec_t graph) const noexcept { cudaGraphExecDestroy(graph); }
};
using GraphExec = std::unique_ptr<std::remove_pointer_t<cudaGraphExec_t>, DestroyGraph>;

// The dispatcher. It must not be called run: an op without an overload would then convert to Op and call it for ever.
void dispatch(const Step& step, cuda::Context& context) {
  std::visit([&](const auto& op) { cuda::run(op, step, context); }, step.node->op);
}

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(const CudaOptions& options)
      : device_(options.device), properties_(find_device(options.device)), gemm_(stream_.handle, options.tf32) {
    context_ = {stream_.handle, &gemm_, properties_.multiProcessorCount};
  }
  ~CudaBackend() override { cudaStreamSynchronize(stream_.handle); }

  std::string description() const override {
    int driver = 0;
    cudaDriverGetVersion(&driver);
    return "cuda (" + std::string(properties_.name) + ", driver for CUDA " + version_text(driver) + ", " + gemm_.description() + ")";
  }

  void* allocate(std::size_t bytes) override {
    const std::lock_guard lock(mutex_);
    use_device();
    void* memory = nullptr;
    const cudaError_t status = cudaMalloc(&memory, bytes);
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      std::size_t free = 0, total = 0;
      check(cudaMemGetInfo(&free, &total), "cannot ask for free memory");
      throw Error("cuda: not enough memory for " + in_mib(bytes) + ", " + in_mib(free) + " of " + in_mib(total) + " are free");
    }
    check(status, "cannot allocate");
    check(cudaMemsetAsync(memory, 0, bytes, stream_.handle), "cannot clear memory");
    return memory;
  }
  void free(void* memory) noexcept override {
    const std::lock_guard lock(mutex_);
    cudaStreamSynchronize(stream_.handle);
    cudaFree(memory);
  }
  void upload(void* to, const void* from, std::size_t bytes) override {
    const std::lock_guard lock(mutex_);
    use_device();
    staging_.upload(static_cast<std::byte*>(to), static_cast<const std::byte*>(from), bytes, stream_.handle);
  }
  void download(void* to, const void* from, std::size_t bytes) override {
    const std::lock_guard lock(mutex_);
    use_device();
    staging_.download(static_cast<std::byte*>(to), static_cast<const std::byte*>(from), bytes, stream_.handle);
  }

  std::size_t workspace(const Graph& graph, const Node& node) override {
    const auto refuse_f64 = [&](const TensorType& type) {
      if (type.dtype == DType::f64) {
        throw Error(op_name(node.op) + " \"" + node.name + "\": is f64, the cuda backend computes in f32 and bf16; check gradients on the reference backend");
      }
    };
    for (const Value v : node.inputs) refuse_f64(graph.type(v));
    for (const TensorType& type : node.outputs) refuse_f64(type);
    return std::visit([&](const auto& op) { return cuda::workspace(op, graph, node); }, node.op);
  }

  void run(std::span<const Step> steps) override {
    const std::lock_guard lock(mutex_);
    use_device();
    if (steps.size() < 2) return enqueue(steps);
    // The first time kernels are loaded and products tuned, which no capture may do; from the second time on it is one graph.
    Recorded& recorded = recorded_[steps.data()];
    if (recorded.size != steps.size()) recorded = {steps.size(), false, nullptr};
    if (recorded.graph == nullptr && recorded.ran) recorded.graph = capture(steps);
    if (recorded.graph != nullptr) return check(cudaGraphLaunch(recorded.graph.get(), stream_.handle), "cannot start a step");
    enqueue(steps);
    recorded.ran = true;
  }

  void wait() override {
    const std::lock_guard lock(mutex_);
    use_device();
    check(cudaStreamSynchronize(stream_.handle), "a step failed");
  }

  void forget(std::span<const Step> steps) noexcept override {
    const std::lock_guard lock(mutex_);
    const auto found = recorded_.find(steps.data());
    if (found == recorded_.end()) return;
    cudaStreamSynchronize(stream_.handle);
    recorded_.erase(found);
  }

 private:
  struct Recorded {
    std::size_t size = 0;
    bool ran = false;
    GraphExec graph;
  };

  /// Each thread has a device of its own.
  void use_device() const { check(cudaSetDevice(device_), "cannot use the GPU"); }

  void enqueue(std::span<const Step> steps) {
    while (!steps.empty()) {
      std::size_t count = cuda::run_attention_gradients(steps, context_);
      if (count == 0) count = cuda::run_updates(steps, context_);
      if (count == 0) {
        dispatch(steps[0], context_);
        count = 1;
      }
      steps = steps.subspan(count);
    }
  }

  GraphExec capture(std::span<const Step> steps) {
    cudaGraph_t graph = nullptr;
    check(cudaStreamBeginCapture(stream_.handle, cudaStreamCaptureModeThreadLocal), "cannot capture a step");
    try {
      enqueue(steps);
    } catch (...) {
      cudaStreamEndCapture(stream_.handle, &graph);
      if (graph != nullptr) cudaGraphDestroy(graph);
      throw;
    }
    check(cudaStreamEndCapture(stream_.handle, &graph), "cannot capture a step");
    cudaGraphExec_t exec = nullptr;
    const cudaError_t status = cudaGraphInstantiate(&exec, graph, 0);
    cudaGraphDestroy(graph);
    check(status, "cannot make a graph of a step");
    return GraphExec(exec);
  }

  std::mutex mutex_;
  int device_;
  cudaDeviceProp properties_;
  Stream stream_;
  Staging staging_;
  cuda::Gemm gemm_;
  cuda::Context context_;
  std::map<const Step*, Recorded> recorded_;
};

}  // namespace

std::unique_ptr<Backend> cuda_backend(const CudaOptions& options) { return std::make_unique<CudaBackend>(options); }

}  // namespace graft
