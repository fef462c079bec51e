// Training on the CUDA backend, its kernels emulated: beside the cpu backend, and checkpoints that go from one to the other.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "graft/backend.h"
#include "graft/error.h"
#include "graft/passes.h"
#include "graft/session.h"
#include "tests/cuda_on_cpu/checked_backend.h"
#include "tests/cuda_on_cpu/emulation.h"
#include "tests/small_llama.h"

namespace graft {
namespace {

using testing::train_step;
using testing::training_graph;

constexpr std::uint32_t kSteps = 12;

std::vector<double> losses_of(Session& session, std::uint32_t first, std::uint32_t last) {
  std::vector<double> losses;
  for (std::uint32_t step = first; step < last; ++step) losses.push_back(train_step(session, step));
  return losses;
}

void expect_near(const std::vector<double>& got, const std::vector<double>& wanted, double tolerance) {
  ASSERT_EQ(got.size(), wanted.size());
  for (std::size_t step = 0; step < wanted.size(); ++step) EXPECT_NEAR(got[step], wanted[step], tolerance) << "step " << step;
}

/// Fused, with dropout, whose bits are the same everywhere. The first steps weigh small differences little; later ones more.
TEST(CudaTraining, LossesAreThoseOfTheCpu) {
  const Graph graph = passes::fuse(training_graph(0.2));
  const std::unique_ptr<Backend> cuda = cuda_backend(), cpu = cpu_backend(2);
  Session on_cuda(graph, *cuda), on_cpu(graph, *cpu);
  const std::vector<double> wanted = losses_of(on_cpu, 0, kSteps);
  expect_near(losses_of(on_cuda, 0, kSteps), wanted, 1e-4);
  EXPECT_LT(wanted.back(), wanted.front());
}

TEST(CudaTraining, LossesInBf16AreThoseOfTheCpu) {
  const Graph graph = passes::mixed_precision(passes::fuse(training_graph(0.0)));
  const std::unique_ptr<Backend> cuda = cuda_backend(), cpu = cpu_backend(2);
  Session on_cuda(graph, *cuda), on_cpu(graph, *cpu);
  expect_near(losses_of(on_cuda, 0, kSteps), losses_of(on_cpu, 0, kSteps), 2e-2);
}

/// Threads in any order, every node in its own memory: the bits are those of the plain run, and of the first run.
TEST(CudaTraining, GivesTheSameBitsInAnyOrder) {
  const Graph graph = passes::fuse(training_graph(0.2));
  const std::unique_ptr<Backend> cuda = cuda_backend();
  testing::CheckedBackend checked(*cuda);
  const auto losses = [&](Backend& backend, const emulation::Options& options) {
    const emulation::With with(options);
    Session session(graph, backend);
    return losses_of(session, 0, 4);
  };
  const std::vector<double> wanted = losses(*cuda, {});
  EXPECT_EQ(losses(checked, {}), wanted);
  EXPECT_EQ(losses(*cuda, {.order = emulation::Options::Order::shuffled, .races = true}), wanted);
}

std::map<std::string, std::vector<std::byte>> bytes_of(const Session& session) {
  std::map<std::string, std::vector<std::byte>> all;
  for (const SavedTensor& tensor : session.snapshot().tensors) all[tensor.path] = tensor.bytes;
  return all;
}

/// Trains on one backend, saves, and goes on with the file on both.
void expect_moves(const std::string& from, const std::string& to) {
  const std::filesystem::path file = std::filesystem::path(::testing::TempDir()) / ("graft_" + from + "_to_" + to + ".h5");
  const Graph graph = training_graph(0.2);
  const std::unique_ptr<Backend> first = make_backend(from, 2), second = make_backend(to, 2);
  Session straight(graph, *first);
  losses_of(straight, 0, 4);
  straight.save(file);

  Session moved(graph, *second), stayed(graph, *first);
  moved.load(file);
  stayed.load(file);
  std::filesystem::remove(file);
  EXPECT_EQ(bytes_of(moved), bytes_of(straight));
  const std::vector<double> wanted = losses_of(straight, 4, 8);
  EXPECT_EQ(losses_of(stayed, 4, 8), wanted);
  expect_near(losses_of(moved, 4, 8), wanted, 1e-4);
}

TEST(CudaTraining, CheckpointsGoFromCudaToCpu) { expect_moves("cuda", "cpu"); }
TEST(CudaTraining, CheckpointsGoFromCpuToCuda) { expect_moves("cpu", "cuda"); }

TEST(CudaTraining, SaysWhatItNeedsWhenThereIsNotEnoughMemory) {
  const std::unique_ptr<Backend> cuda = cuda_backend();
  for (const std::size_t memory :
       {std::size_t{0}, std::size_t{40000}}) {  // none for the values of a step, too little for the parameters
    const emulation::With with(emulation::Options{.memory = memory});
    try {
      const Session session(training_graph(0.0), *cuda);
      FAIL() << "there was enough";
    } catch (const Error& error) {
      const std::string message = error.what();
      EXPECT_TRUE(message.starts_with("cuda: not enough memory for 1 MiB, ")) << message;
      EXPECT_NE(message.find(" of 1 MiB are free; the session needs ") == std::string::npos, memory > 0) << message;
      EXPECT_NE(message.find(" for the values of a step, "), std::string::npos) << message;
      EXPECT_NE(message.find("; less: smaller batches or sequences, passes::recompute, passes::mixed_precision"), std::string::npos)
          << message;
    }
  }
  const Session session(training_graph(0.0), *cuda);  // what was allocated before has been freed
}

}  // namespace
}  // namespace graft
