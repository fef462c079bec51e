// A training process that is killed at 200 random moments loses nothing: what it saved loads, it goes on from there, and ends with the
// bits of a run that nobody disturbed.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <map>
#include <random>
#include <thread>

#include "src/io/content_hash.h"
#include "src/io/descriptor.h"
#include "tests/checkpoint_files.h"
#include "tests/killed_run.h"

namespace graft {
namespace {

using namespace checkpoint_files;
using detail::Descriptor;

/// A process of tests/programs/killed_run.cc.
class Process {
 public:
  Process(const std::filesystem::path& folder, std::int64_t last_step) {
    int ends[2] = {-1, -1};
    EXPECT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    out_ = Descriptor(ends[0]);
    const Descriptor in(ends[1]);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in.get(), STDOUT_FILENO);
    const std::string last = std::to_string(last_step);
    const char* arguments[] = {GRAFT_KILLED_RUN, folder.c_str(), last.c_str(), nullptr};
    EXPECT_EQ(::posix_spawn(&id_, GRAFT_KILLED_RUN, &actions, nullptr, const_cast<char**>(arguments), environ), 0);
    posix_spawn_file_actions_destroy(&actions);
  }
  /// Returns when it has begun that many saves, or has ended.
  void wait_for_saves(int saves) {
    for (char byte = 0; saves > 0; --saves) {
      while (::read(out_.get(), &byte, 1) < 0 && errno == EINTR) {}
    }
  }
  void kill() { ::kill(id_, SIGKILL); }
  /// As waitpid gives it.
  int status() {
    int status = -1;
    while (::waitpid(id_, &status, 0) < 0 && errno == EINTR) {}
    return status;
  }

 private:
  pid_t id_ = -1;
  Descriptor out_;
};

/// Of all that a checkpoint holds but its metric.
std::uint64_t fingerprint(Checkpoint checkpoint) {
  std::sort(checkpoint.tensors.begin(), checkpoint.tensors.end(), [](const auto& a, const auto& b) { return a.path < b.path; });
  detail::ContentHash hash;
  const auto text = [&](const std::string& text) { hash.update(std::as_bytes(std::span(text.c_str(), text.size() + 1))); };
  text(std::to_string(checkpoint.step) + "," + std::to_string(checkpoint.graph_hash));
  for (const SavedTensor& tensor : checkpoint.tensors) {
    text(tensor.path + " " + to_string(tensor.type));
    hash.update(tensor.bytes);
  }
  return hash.value();
}

/// What a checkpoint file of a step held after a kill.
struct Seen {
  int kill;
  std::string name;
  std::int64_t step;
  double metric;
  std::uint64_t fingerprint;
};

TEST(CheckpointKill, TwoHundredKillsLoseNothing) {
  constexpr unsigned kSeed = 20;
  constexpr int kKills = 200, kKept = 2;
  constexpr std::int64_t kNever = 1'000'000'000;
  const TemporaryFolder temporary;
  const auto folder = temporary / "killed";
  std::filesystem::create_directory(folder);
  std::mt19937 random(kSeed);
  const auto up_to = [&](double milliseconds) {
    return std::chrono::duration<double, std::milli>(std::uniform_real_distribution<double>(0.0, milliseconds)(random));
  };

  std::vector<Seen> seen;
  std::int64_t newest = 0;
  int inside_saves = 0;
  for (int kill = 1; kill <= kKills; ++kill) {
    // One in eight dies while it starts and reads its checkpoint, the others in the first to fourth save or soon after.
    const int saves = kill % 8 == 0 ? 0 : std::uniform_int_distribution<int>(1, 4)(random);
    const auto delay = up_to(saves == 0 ? 30.0 : 6.0);
    SCOPED_TRACE("seed " + std::to_string(kSeed) + ", kill " + std::to_string(kill) + ", " + std::to_string(delay.count()) +
                 " ms after save " + std::to_string(saves) + " began");
    Process process(folder, kNever);
    process.wait_for_saves(saves);
    std::this_thread::sleep_for(delay);
    process.kill();
    const int status = process.status();
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << "it ended by itself, status " << status;

    int temporaries = 0;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      const std::string name = entry.path().filename().string();
      if (name.find(".tmp-") != std::string::npos) {
        ++temporaries;
        continue;
      }
      const Checkpoint checkpoint = read_checkpoint(entry.path());
      if (name != "best.h5") {
        ASSERT_NE(name.find(std::to_string(checkpoint.step)), std::string::npos) << name << " holds step " << checkpoint.step;
      }
      seen.push_back({kill, name, checkpoint.step, checkpoint.metric, fingerprint(checkpoint)});
    }
    ASSERT_LE(temporaries, 2) << "temporary files pile up";  // a step's and the link that becomes best.h5
    inside_saves += temporaries > 0;
    if (const auto latest = latest_checkpoint(folder); !latest.empty()) {
      const std::int64_t step = read_checkpoint(latest).step;
      ASSERT_GE(step, newest) << "a checkpoint was lost";
      newest = step;
    }
  }
  EXPECT_GE(inside_saves, kKills / 4) << "too few kills fell into saves for this to prove much";
  EXPECT_GE(newest, kKills / 2) << "training hardly went on";

  const std::int64_t last = newest + 3;
  ASSERT_EQ(Process(folder, last).status(), 0);
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) names.push_back(entry.path().filename().string());
  EXPECT_EQ(names.size(), static_cast<std::size_t>(kKept + 1)) << "the best, the last " << kKept << ", and no temporary files";

  // The run that nobody disturbs.
  testing::KilledRun whole(temporary / "whole");
  CheckpointFolder kept(temporary / "kept", kKept);
  std::map<std::int64_t, std::pair<double, std::uint64_t>> at;
  double best = std::numeric_limits<double>::infinity();
  while (whole.steps() < last) {
    const double loss = whole.step();
    const Checkpoint checkpoint = whole.snapshot();
    at[whole.steps()] = {loss, fingerprint(checkpoint)};
    if (loss < best || whole.steps() > last - kKept) kept.save(checkpoint, loss);
    best = std::min(best, loss);
  }
  for (const Seen& s : seen) {
    const auto& [loss, bits] = at.at(s.step);
    ASSERT_EQ(s.metric, loss) << s.name << " after kill " << s.kill << ", seed " << kSeed;
    ASSERT_EQ(s.fingerprint, bits) << s.name << " after kill " << s.kill << ", seed " << kSeed;
  }
  for (const auto& entry : std::filesystem::directory_iterator(kept.path())) {
    EXPECT_TRUE(contents(folder / entry.path().filename().string()) == contents(entry.path())) << entry.path().filename();
  }
}

}  // namespace
}  // namespace graft
