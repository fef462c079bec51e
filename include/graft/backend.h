#pragma once
#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "graft/graph.h"

namespace graft {

/// Memory that somebody else owns, seen as a row-major matrix. `data` is null for an output that nothing reads: kernels skip it.
/// On a GPU backend it is a device pointer.
struct TensorView {
  void* data = nullptr;
  TensorType type;

  std::int64_t rows() const { return type.shape.rows(); }
  std::int64_t cols() const { return type.shape.cols(); }
  std::int64_t size() const { return type.shape.size(); }
  template <class T>
  T* as() const { return static_cast<T*>(data); }
  explicit operator bool() const { return data != nullptr; }
};

/// One node made ready to run. Outputs that alias an input (views, overwritten states) have its pointer.
struct Step {
  const Node* node = nullptr;
  std::span<const TensorView> in, out;
  void* workspace = nullptr;  ///< as many bytes as Backend::workspace asked for, aligned to 64; its contents do not outlive the step
};

/// What runs a plan. These calls are all that a session knows of it. Shapes, dtypes, attributes and u32 values (ids, labels,
/// positions, offsets) have been checked when `run` is called, so kernels do not check.
class Backend {
 public:
  virtual ~Backend() = default;
  /// One line for people: "cpu (oneDNN 2.6.3, 2 threads)".
  virtual std::string description() const = 0;
  /// Memory aligned to 64 bytes; throws Error with what was asked when there is not enough.
  virtual void* allocate(std::size_t bytes) = 0;
  virtual void free(void* memory) noexcept = 0;
  /// Host to backend and back; `run`s that were called before are complete for `download`.
  virtual void upload(void* to, const void* from, std::size_t bytes) = 0;
  virtual void download(void* to, const void* from, std::size_t bytes) = 0;
  /// Scratch bytes that the node's kernel wants beside its inputs and outputs.
  virtual std::size_t workspace(const Graph& graph, const Node& node) = 0;
  /// Runs the steps in order; a GPU backend returns when they are enqueued. Called again with the same span, it may replay what it recorded then.
  virtual void run(std::span<const Step> steps) = 0;
  /// All that was run is complete.
  virtual void wait() {}
  /// This span will not be run again: what was recorded of it goes.
  virtual void forget(std::span<const Step> steps) noexcept { static_cast<void>(steps); }
};

/// Eigen, f32 and f64, one thread: plain and right. The oracle of the other two.
std::unique_ptr<Backend> reference_backend();
/// f32, oneDNN if it was built in. threads 0: as many as the machine has; they are started here, and Error says if they cannot be. f64
/// graphs run on the reference kernels. Sessions of several threads may share it: their steps take turns.
std::unique_ptr<Backend> cpu_backend(int threads = 0);
/// Which GPU, and how.
struct CudaOptions {
  int device = 0;
  bool tf32 = false;  ///< f32 products may round their operands to 10 bits of mantissa
};
/// One NVIDIA GPU, compute capability 8.0 or newer; f32 and bf16. From the second step of a session on, the whole step is one CUDA graph. Throws Error when
/// graft was built without CUDA, or there is no such GPU, or no driver that serves it.
std::unique_ptr<Backend> cuda_backend(const CudaOptions& options = {});
/// "reference", "cpu" or "cuda"; throws Error that lists them.
std::unique_ptr<Backend> make_backend(std::string_view name, int threads = 0);

}  // namespace graft
