// What CheckedBackend finds out about kernels of nodes, and what the CUDA backend says where it cannot run.
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <numeric>
#include <string>

#include "graft/backend.h"
#include "graft/error.h"
#include "graft/session.h"
#include "kernels/cuda/device_cuda.cuh"
#include "kernels/cuda/launch.cuh"
#include "tests/cuda_on_cpu/checked_backend.h"
#include "tests/cuda_on_cpu/detectors.h"
#include "tests/cuda_on_cpu/emulation.h"

namespace graft {
namespace {

using emulation::FaultKind;
using emulation::Options;
using emulation::With;
using testing::CheckedBackend;
using testing::expect_fault;

class CheckedNodes : public testing::Detector {};

// ---- CheckedBackend

/// The memory of the real backend, and one kernel for all nodes.
class OneKernel final : public Backend {
 public:
  using Run = std::function<void(const Step&)>;
  explicit OneKernel(Run run) : run_(std::move(run)) {}
  std::string description() const override { return cuda_->description(); }
  void* allocate(std::size_t bytes) override { return cuda_->allocate(bytes); }
  void free(void* memory) noexcept override { cuda_->free(memory); }
  void upload(void* to, const void* from, std::size_t bytes) override { cuda_->upload(to, from, bytes); }
  void download(void* to, const void* from, std::size_t bytes) override { cuda_->download(to, from, bytes); }
  std::size_t workspace(const Graph&, const Node&) override { return 64; }
  void run(std::span<const Step> steps) override {
    cuda_->wait();
    for (const Step& step : steps) run_(step);
  }

 private:
  Run run_;
  std::unique_ptr<Backend> cuda_ = cuda_backend();
};

/// to[i] = from[i] for i < count, then workspace[0] read or written.
__global__ void copy_kernel(float* to, const float* from, int count, float* workspace, bool reads_workspace) {
  for (int i = 0; i < count; ++i) to[i] = from[i];
  if (reads_workspace) to[0] = workspace[0];
  workspace[0] = 1.0f;
}

/// Runs x → neg → neg → neg → neg → z on the kernel, whose copies are `run`.
void step_with(const OneKernel::Run& run, bool keep_all = true) {
  Graph graph;
  const Value y = graph.neg(graph.input("x", {4, 4}));
  graph.output("z", graph.neg(graph.neg(graph.neg(y))));
  OneKernel backend(run);
  CheckedBackend checked(backend);
  Session session(graph, checked, {.keep_all = keep_all});
  session.write("x", std::vector<float>(16, 2.0f));
  session.step();
  EXPECT_EQ(session.read("z"), std::vector<float>(16, 2.0f));
}

OneKernel::Run copy(int count, bool reads_workspace = false, std::ptrdiff_t from = 0, std::ptrdiff_t to = 0) {
  return [=](const Step& step) {
    cuda::launch(copy_kernel, {dim3(1), dim3(1)}, nullptr, step.out[0].as<float>() + to, step.in[0].as<const float>() + from, count,
                 static_cast<float*>(step.workspace), reads_workspace);
  };
}

TEST_F(CheckedNodes, MayReadInputsAndWriteOutputsAndWorkspace) { step_with(copy(16)); }

TEST_F(CheckedNodes, MayNotReachIntoOtherTensors) {
  expect_fault(FaultKind::forbidden,
               "neg \"neg_0\": graft::copy_kernel, block (0, 0, 0), thread (0, 0, 0): writes 4 bytes where it may not, 0 bytes "
               "after the end of output 0, 64 bytes",
               [] { step_with(copy(16, false, 0, 1)); });
  expect_fault(FaultKind::forbidden,
               "neg \"neg_1\": graft::copy_kernel, block (0, 0, 0), thread (0, 0, 0): writes 4 bytes where it may not, at offset "
               "60 of input 0, 64 bytes",
               [] { step_with([](const Step& step) { copy(16, false, 0, step.node->name == "neg_1" ? -1 : 0)(step); }); });
  expect_fault(FaultKind::forbidden,
               "neg \"neg_2\": graft::copy_kernel, block (0, 0, 0), thread (0, 0, 0): reads 4 bytes where it may not, 4 bytes "
               "before input 0, 64 bytes",
               [] { step_with([](const Step& step) { copy(16, false, step.node->name == "neg_2" ? -1 : 0)(step); }); });
  expect_fault(FaultKind::out_of_bounds, "reads 4 bytes out of bounds, 0 bytes after the end of input 0, 64 bytes",
               [] { step_with(copy(17)); });
}

TEST_F(CheckedNodes, MustWriteTheirOutputsWhole) {
  expect_fault(FaultKind::unwritten, "neg \"neg_0\": leaves 8 of the 64 bytes of output 0 unwritten", [] { step_with(copy(14)); });
}

TEST_F(CheckedNodes, FindTheirWorkspaceUnwrittenEachTime) {
  expect_fault(FaultKind::unwritten, "that nothing has written, at offset 0 of workspace, 64 bytes",
               [] { step_with(copy(16, true)); });
}

/// In the place of an input that dies, an output begins as that input.
TEST_F(CheckedNodes, MayFindTheirInputsInTheirOutputs) {
  Graph graph;
  Value value = graph.input("x", {4, 4});
  for (int i = 0; i < 3; ++i) value = graph.neg(value);
  graph.output("y", value);
  OneKernel backend([in_place = 0](const Step& step) mutable {
    in_place += step.in[0].data == step.out[0].data;
    EXPECT_EQ(in_place, step.node->name.back() - '0');
    cuda::launch(copy_kernel, {dim3(1), dim3(1)}, nullptr, step.out[0].as<float>(), step.in[0].as<const float>(), 16,
                 static_cast<float*>(step.workspace), false);
  });
  CheckedBackend checked(backend);
  Session session(graph, checked);
  session.write("x", std::vector<float>(16, 2.0f));
  session.step();
  EXPECT_EQ(session.read("y"), std::vector<float>(16, 2.0f));
}

// ---- the CUDA backend

std::string refusal(const Options& options, int device = 0) {
  const With with(options);
  try {
    cuda_backend({.device = device});
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(CudaBackend, SaysWhatIsMissing) {
  EXPECT_EQ(refusal({}), "");
  EXPECT_EQ(refusal({.driver = 0}), "cuda: there is no NVIDIA driver on this machine");
  EXPECT_EQ(refusal({.driver = 11080}), "cuda: the NVIDIA driver serves CUDA 11.8, this build of graft needs 13.0 or newer");
  EXPECT_EQ(refusal({.devices = 0}), "cuda: there is no NVIDIA GPU on this machine");
  EXPECT_EQ(refusal({.devices = 2}, 2), "cuda: there is no device 2, this machine has 2");
  EXPECT_EQ(refusal({.devices = 2}, -1), "cuda: there is no device -1, this machine has 2");
  EXPECT_EQ(refusal({.devices = 2}, 1), "");
  EXPECT_EQ(refusal({.major = 7, .minor = 5}), "cuda: emulated GPU has compute capability 7.5, graft needs 8.0 or newer");
  EXPECT_EQ(refusal({.major = 8}), "");
  EXPECT_EQ(refusal({.major = 12, .minor = 1, .has_code = false}),
            "cuda: this build of graft has no code for emulated GPU (compute capability 12.1); add it to CMAKE_CUDA_ARCHITECTURES");
}

TEST(CudaBackend, DescribesItself) {
  EXPECT_EQ(make_backend("cuda")->description(), "cuda (emulated GPU, driver for CUDA 13.0, plain products)");
}

TEST(CudaBackend, MovesMoreThanItsStagingHolds) {
  const std::unique_ptr<Backend> backend = cuda_backend();
  std::vector<std::uint32_t> values((std::size_t{9} << 20) / 4 + 3), got(values.size());
  std::iota(values.begin(), values.end(), 7u);
  const std::vector<std::uint32_t> wanted = values;
  void* memory = backend->allocate(values.size() * 4);
  backend->upload(memory, values.data(), values.size() * 4);
  std::fill(values.begin(), values.end(), 0u);  // the caller's again as soon as the call is over
  backend->download(got.data(), memory, got.size() * 4);
  EXPECT_EQ(got, wanted);
  backend->free(memory);
}

TEST(CudaBackend, ClearsWhatItAllocates) {
  const std::unique_ptr<Backend> backend = cuda_backend();
  void* memory = backend->allocate(100);
  std::vector<char> got(100, 1);
  backend->download(got.data(), memory, 100);
  EXPECT_EQ(got, std::vector<char>(100, 0));
  backend->free(memory);
}

}  // namespace
}  // namespace graft
