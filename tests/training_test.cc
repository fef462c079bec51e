// Training a small Llama: it learns, and a run that stops and resumes is the run that did not stop.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "graft/backend.h"
#include "graft/session.h"
#include "tests/small_llama.h"

namespace graft {
namespace {

using testing::train_step;
using testing::training_graph;

TEST(Training, SmallLlamaLearnsToCount) {
  const auto backend = cpu_backend(2);
  Session session(training_graph(0.0), *backend);
  const double first = train_step(session, 0);
  EXPECT_NEAR(first, std::log(13.0), 0.1);
  double last = first;
  for (std::uint32_t step = 1; step < 300; ++step) last = train_step(session, step);
  EXPECT_LT(last, 0.5);  // the first token of a sequence cannot know its stride: log(3)/8 = 0.14 is the least
}

using Tensors = std::map<std::string, std::vector<std::byte>>;

Tensors bytes_of(const Session& session) {
  Tensors all;
  for (const SavedTensor& tensor : session.snapshot().tensors) all[tensor.path] = tensor.bytes;
  return all;
}

void expect_resumes(const std::function<std::unique_ptr<Backend>()>& make, const std::string& name) {
  const std::filesystem::path file = std::filesystem::path(::testing::TempDir()) / ("graft_resume_" + name + ".h5");
  const auto backend = make();
  Session straight(training_graph(0.2), *backend);
  std::vector<double> losses;
  for (std::uint32_t step = 0; step < 7; ++step) losses.push_back(train_step(straight, step));

  {
    Session before(training_graph(0.2), *backend);
    for (std::uint32_t step = 0; step < 4; ++step) EXPECT_EQ(train_step(before, step), losses[step]);
    before.save(file);
  }
  const auto fresh = make();
  Session after(training_graph(0.2), *fresh);
  train_step(after, 40);  // whatever it held before
  after.load(file);
  for (std::uint32_t step = 4; step < 7; ++step) EXPECT_EQ(train_step(after, step), losses[step]) << "step " << step;
  const Tensors got = bytes_of(after), want = bytes_of(straight);
  ASSERT_EQ(got.size(), want.size());
  for (const auto& [path, bytes] : want) EXPECT_EQ(got.at(path), bytes) << path;
  EXPECT_EQ(after.read_u32("rng/counter"), std::vector<std::uint32_t>{7});
  EXPECT_EQ(after.read_u32("optimizer/step"), std::vector<std::uint32_t>{7});
  std::filesystem::remove(file);
}

TEST(Training, ResumesBitForBitWithDropout) {
  expect_resumes([] { return reference_backend(); }, "reference");
}
TEST(Training, ResumesBitForBitWithDropoutOnTheCpuBackend) {
  expect_resumes([] { return cpu_backend(2); }, "cpu");
}

TEST(Training, DropoutChangesTheLossFromStepToStep) {
  const auto backend = reference_backend();
  Session session(training_graph(0.2), *backend);
  const Checkpoint start = session.snapshot();
  const double first = train_step(session, 0);
  session.restore(start);
  EXPECT_EQ(train_step(session, 0), first);
  session.restore(start);
  session.write("rng/counter", 1u);
  EXPECT_NE(train_step(session, 0), first);
}

}  // namespace
}  // namespace graft
