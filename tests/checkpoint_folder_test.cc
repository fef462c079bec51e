// CheckpointFolder: the last n and the best, over several processes.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <future>
#include <limits>
#include <memory>
#include <span>
#include <thread>

#include "graft/session.h"
#include "src/io/atomic_file.h"
#include "src/io/descriptor.h"
#include "src/io/hdf5_handles.h"
#include "tests/checkpoint_files.h"

namespace graft {
namespace {

using namespace checkpoint_files;
using Names = std::vector<std::string>;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

Checkpoint at_step(std::int64_t step) {
  Checkpoint checkpoint = sample();
  checkpoint.step = step;
  return checkpoint;
}

std::string folder_message(const std::filesystem::path& folder, const std::string& what) {
  return "checkpoint folder \"" + folder.string() + "\": " + what;
}

TEST(CheckpointFolder, IsMadeWithItsParentsAndIsEmptyAtFirst) {
  const TemporaryFolder temporary;
  const auto path = temporary.path() / "runs" / "first";
  const CheckpointFolder folder(path);
  EXPECT_TRUE(std::filesystem::is_directory(path));
  EXPECT_TRUE(std::filesystem::is_empty(path));
  EXPECT_EQ(folder.path(), path);
  EXPECT_TRUE(folder.latest().empty());
  EXPECT_TRUE(folder.best().empty());
}

TEST(CheckpointFolder, KeepsTheLastAndTheBest) {
  const TemporaryFolder temporary;
  CheckpointFolder folder(temporary.path(), 2);
  EXPECT_EQ(folder.save(at_step(100), 3.0), temporary / "step-00000100.h5");
  EXPECT_EQ(temporary.names(), (Names{"best.h5", "step-00000100.h5"}));
  folder.save(at_step(200), 2.0);
  EXPECT_EQ(temporary.names(), (Names{"best.h5", "step-00000100.h5", "step-00000200.h5"}));
  folder.save(at_step(300), 2.5);
  EXPECT_EQ(temporary.names(), (Names{"best.h5", "step-00000200.h5", "step-00000300.h5"}));
  folder.save(at_step(400), 2.0);
  EXPECT_EQ(temporary.names(), (Names{"best.h5", "step-00000300.h5", "step-00000400.h5"}));
  EXPECT_EQ(folder.latest(), temporary / "step-00000400.h5");
  EXPECT_EQ(folder.best(), temporary / "best.h5");
  EXPECT_EQ(read_checkpoint(folder.best()).step, 200) << "an equal metric is not better";
  EXPECT_EQ(read_checkpoint(folder.best()).metric, 2.0);
  EXPECT_EQ(read_checkpoint(folder.latest()).metric, 2.0);
  Checkpoint expected = at_step(300);
  expected.metric = 2.5;
  expect_same(read_checkpoint(temporary / "step-00000300.h5"), expected);
}

TEST(CheckpointFolder, KeepsOneOrMany) {
  for (const int keep : {1, 3}) {
    const TemporaryFolder temporary;
    CheckpointFolder folder(temporary.path(), keep);
    for (std::int64_t step = 1; step <= 5; ++step) folder.save(at_step(step), kNan);
    EXPECT_EQ(temporary.names(),
              keep == 1 ? Names{"step-00000005.h5"} : (Names{"step-00000003.h5", "step-00000004.h5", "step-00000005.h5"}));
  }
  const TemporaryFolder temporary;
  for (const int keep : {0, -1}) {
    EXPECT_EQ(error_of([&] { CheckpointFolder(temporary.path(), keep); }),
              folder_message(temporary.path(), "must keep at least 1 checkpoint, got " + std::to_string(keep)));
  }
}

TEST(CheckpointFolder, RemembersTheBestMetricInAnotherProcess) {
  const TemporaryFolder temporary;
  CheckpointFolder(temporary.path(), 1).save(at_step(1), 2.0);
  CheckpointFolder(temporary.path(), 1).save(at_step(2), 2.5);
  EXPECT_EQ(read_checkpoint(temporary / "best.h5").step, 1);
  CheckpointFolder(temporary.path(), 1).save(at_step(3), 1.5);
  EXPECT_EQ(read_checkpoint(temporary / "best.h5").step, 3);
  EXPECT_EQ(read_checkpoint(temporary / "best.h5").metric, 1.5);
}

TEST(CheckpointFolder, NanIsNeverBestAndInfinityOnlyWhenAlone) {
  const TemporaryFolder temporary;
  CheckpointFolder folder(temporary.path(), 9);
  folder.save(at_step(1), kNan);
  EXPECT_TRUE(folder.best().empty());
  folder.save(at_step(2), std::numeric_limits<double>::infinity());
  EXPECT_EQ(read_checkpoint(folder.best()).step, 2);
  folder.save(at_step(3), 5.0);
  EXPECT_EQ(read_checkpoint(folder.best()).step, 3);
  folder.save(at_step(4), kNan);
  folder.save(at_step(5), std::numeric_limits<double>::infinity());
  EXPECT_EQ(read_checkpoint(folder.best()).step, 3);
}

TEST(CheckpointFolder, TheBestTakesNoRoomOfItsOwnUntilItsStepIsRemoved) {
  const TemporaryFolder temporary;
  CheckpointFolder folder(temporary.path(), 1);
  folder.save(at_step(1), 1.0);
  EXPECT_TRUE(std::filesystem::equivalent(temporary / "best.h5", temporary / "step-00000001.h5"));
  folder.save(at_step(2), 2.0);
  Checkpoint expected = at_step(1);
  expected.metric = 1.0;
  expect_same(read_checkpoint(temporary / "best.h5"), expected);
}

TEST(CheckpointFolder, SavingAStepAgainReplacesIt) {
  const TemporaryFolder temporary;
  CheckpointFolder folder(temporary.path(), 2);
  folder.save(at_step(1), 2.0);
  Checkpoint again = at_step(1);
  again.config = "again";
  folder.save(again, 3.0);
  EXPECT_EQ(read_checkpoint(folder.latest()).config, "again");
  EXPECT_EQ(read_checkpoint(folder.best()).config, sample().config) << "the best is not overwritten with it";
  folder.save(again, 1.0);
  EXPECT_EQ(read_checkpoint(folder.best()).config, "again");
  EXPECT_EQ(temporary.names(), (Names{"best.h5", "step-00000001.h5"}));
}

TEST(CheckpointFolder, ARewoundRunRemovesNeitherItselfNorLaterSteps) {
  const TemporaryFolder temporary;
  CheckpointFolder folder(temporary.path(), 2);
  for (const std::int64_t step : {100, 200, 300, 400, 150}) folder.save(at_step(step), kNan);
  EXPECT_EQ(temporary.names(), (Names{"step-00000150.h5", "step-00000300.h5", "step-00000400.h5"}));
}

TEST(CheckpointFolder, LatestIsTheHighestStepNotTheLastName) {
  const TemporaryFolder temporary;
  CheckpointFolder folder(temporary.path(), 9);
  folder.save(at_step(99'999'999), kNan);
  folder.save(at_step(123'456'789), kNan);
  folder.save(at_step(0), kNan);
  EXPECT_EQ(temporary.names(), (Names{"step-00000000.h5", "step-123456789.h5", "step-99999999.h5"}));
  EXPECT_EQ(folder.latest(), temporary / "step-123456789.h5");
  EXPECT_EQ(error_of([&] { folder.save(at_step(-1), kNan); }), folder_message(temporary.path(), "cannot save step -1"));
}

TEST(CheckpointFolder, LeavesOtherFilesAlone) {
  const TemporaryFolder temporary;
  const Names others = {".step-00000001.h5.tmp-12",
                        ".step-00000001.h5.tmp-12-",
                        ".step-00000001.h5.tmp--12",
                        ".step-00000001.h5.tmp-12-x",
                        ".step-00000001.tmp-12-34",
                        "x.step-00000001.h5.tmp-12-34",
                        "metrics.csv",
                        "old-step-00000001.h5",
                        "step--0000001.h5",
                        "step-.h5",
                        "step-000000001.h5",
                        "step-00000001.h5.old",
                        "step-00000001x.h5",
                        "step-1.h5",
                        "step-99999999999999999999.h5"};
  for (const std::string& name : others) put(temporary / name, "x");
  std::filesystem::create_directory(temporary / "step-00000009.h5");
  CheckpointFolder folder(temporary.path(), 1);
  EXPECT_TRUE(folder.latest().empty());
  folder.save(at_step(20), kNan);
  folder.save(at_step(30), kNan);
  EXPECT_EQ(folder.latest(), temporary / "step-00000030.h5");
  EXPECT_EQ(temporary.names().size(), others.size() + 2);
  for (const std::string& name : others) EXPECT_TRUE(std::filesystem::exists(temporary / name)) << name;
}

TEST(CheckpointFolder, RemovesWhatKilledWritersLeftButNotWhatIsBeingWritten) {
  const TemporaryFolder temporary;
  put(temporary / ".step-00000001.h5.tmp-1-0", "its process lives, but does not write it");
  put(temporary / ".best.h5.tmp-4000000000-12", "no such process");
  put(temporary / ".step-00000002.h5.tmp-5-0", "being written");
  const detail::Descriptor writer(::open((temporary / ".step-00000002.h5.tmp-5-0").c_str(), O_RDWR));
  ASSERT_EQ(::flock(writer.get(), LOCK_EX), 0);
  const CheckpointFolder folder(temporary.path());
  EXPECT_EQ(temporary.names(), Names{".step-00000002.h5.tmp-5-0"});
}

TEST(CheckpointFolder, AnotherProcessDoesNotRemoveWhatIsBeingSaved) {
  const TemporaryFolder temporary;
  detail::AtomicFile writer(temporary / "step-00000001.h5");
  writer.write(std::as_bytes(std::span("text", 4)));
  const CheckpointFolder folder(temporary.path());
  EXPECT_EQ(temporary.names().size(), 1u);
  writer.commit();
  EXPECT_EQ(temporary.names(), Names{"step-00000001.h5"});
  EXPECT_EQ(contents(temporary / "step-00000001.h5"), "text");
}

TEST(CheckpointFolder, AStaleTemporaryOfTheSameNameIsNotInTheWay) {
  const TemporaryFolder temporary;
  CheckpointFolder folder(temporary.path());
  for (const char* number : {"0", "1"}) {
    put(temporary / (".step-00000001.h5.tmp-" + std::to_string(::getpid()) + "-" + number), "x");
    put(temporary / (".best.h5.tmp-" + std::to_string(::getpid()) + "-" + number), "x");
  }
  folder.save(at_step(1), 1.0);
  EXPECT_EQ(read_checkpoint(folder.latest()).step, 1);
  EXPECT_TRUE(std::filesystem::equivalent(folder.best(), folder.latest()));
  EXPECT_EQ(temporary.names().size(), 6u);
}

TEST(CheckpointFolder, LookingForACheckpointTouchesNothing) {
  const TemporaryFolder temporary;
  const Names names = {".best.h5.tmp-4000000000-0", "best.h5", "step-00000002.h5", "step-00000010.h5"};
  for (const std::string& name : names) put(temporary / name, "x");
  EXPECT_EQ(latest_checkpoint(temporary.path()), temporary / "step-00000010.h5");
  EXPECT_EQ(best_checkpoint(temporary.path()), temporary / "best.h5");
  EXPECT_EQ(temporary.names(), names);
  EXPECT_TRUE(best_checkpoint(temporary / "no").empty());
  EXPECT_NE(error_of([&] { latest_checkpoint(temporary / "no"); }), "");
  EXPECT_FALSE(std::filesystem::exists(temporary / "no"));
}

TEST(CheckpointFolder, ADamagedBestIsReportedAtOnce) {
  const TemporaryFolder temporary;
  put(temporary / "best.h5", "x");
  EXPECT_EQ(error_of([&] { CheckpointFolder(temporary.path()); }), message(temporary / "best.h5", "is not a graft checkpoint"));
  EXPECT_EQ(temporary.names(), Names{"best.h5"});
}

TEST(CheckpointFolder, FoldersThatCannotBeUsed) {
  const TemporaryFolder temporary;
  put(temporary / "file", "x");
  EXPECT_EQ(error_of([&] { CheckpointFolder(temporary / "file"); }),
            folder_message(temporary / "file", "cannot create: Not a directory"));
  EXPECT_EQ(error_of([&] { CheckpointFolder(temporary.path() / "file" / "sub"); }),
            folder_message(temporary.path() / "file" / "sub", "cannot create: Not a directory"));

  CheckpointFolder folder(temporary / "sub");
  std::filesystem::remove_all(temporary / "sub");
  const auto file = temporary.path() / "sub" / "step-00000001.h5";
  EXPECT_EQ(error_of([&] { folder.save(at_step(1), 1.0); }),
            message(file, "cannot write: cannot open its folder: No such file or directory"));
  EXPECT_EQ(error_of([&] { folder.latest(); }), folder_message(temporary / "sub", "cannot list: No such file or directory"));
}

TEST(CheckpointFolder, BelongsToOneProcessAtATime) {
  const TemporaryFolder temporary;
  {
    const CheckpointFolder folder(temporary.path());
    put(temporary / ".step-00000001.h5.tmp-1-0", "x");
    EXPECT_EQ(error_of([&] { CheckpointFolder(temporary.path()); }),
              folder_message(temporary.path(), "another process saves to it"));
    EXPECT_EQ(temporary.names().size(), 1u) << "it touches nothing";
    latest_checkpoint(temporary.path());  // looking is free
  }
  const CheckpointFolder folder(temporary.path());
  EXPECT_TRUE(temporary.names().empty());
}

// ---- beside training

TEST(CheckpointFolderAsync, WritesWhatSaveWrites) {
  const TemporaryFolder temporary;
  CheckpointFolder plain(temporary / "plain", 2), beside(temporary / "beside", 2);
  EXPECT_FALSE(beside.saving());
  for (const std::int64_t step : {1, 2, 3, 4}) {
    plain.save(at_step(step), step == 2 ? 0.5 : 1.0);
    beside.save_async(at_step(step), step == 2 ? 0.5 : 1.0);
  }
  beside.flush();
  EXPECT_FALSE(beside.saving());
  for (const char* name : {"best.h5", "step-00000003.h5", "step-00000004.h5"}) {
    EXPECT_TRUE(contents(plain.path() / name) == contents(beside.path() / name)) << name;
  }
  EXPECT_FALSE(std::filesystem::exists(beside.path() / "step-00000002.h5"));
}

/// Holds up every use of HDF5, and so the save under way, until it is released or `longest` has passed.
class Held {
 public:
  explicit Held(std::chrono::milliseconds longest = std::chrono::hours(1))
      : thread_([this, longest] {
          const detail::Hdf5 alone("held");
          taken_.set_value();
          released_.get_future().wait_for(longest);
        }) {
    taken_.get_future().wait();
  }
  ~Held() { release(); }
  void release() {
    if (!thread_.joinable()) return;
    released_.set_value();
    thread_.join();
  }

 private:
  std::promise<void> taken_, released_;
  std::thread thread_;
};
constexpr std::chrono::milliseconds kMoment(50);

TEST(CheckpointFolderAsync, ReturnsWhileItIsWrittenAndTheNextSaveWaits) {
  const TemporaryFolder temporary;
  CheckpointFolder folder(temporary.path(), 9);
  Held held;
  folder.save_async(at_step(1), kNan);
  EXPECT_TRUE(folder.saving());
  EXPECT_TRUE(folder.latest().empty()) << "not there before it is whole";
  std::thread later([&] {
    std::this_thread::sleep_for(kMoment);
    held.release();
  });
  folder.save_async(at_step(2), kNan);  // would never return if it were not written in another thread
  EXPECT_TRUE(std::filesystem::exists(temporary / "step-00000001.h5"));
  folder.save(at_step(3), kNan);
  EXPECT_FALSE(folder.saving());
  later.join();
  EXPECT_EQ(temporary.names(), (Names{"step-00000001.h5", "step-00000002.h5", "step-00000003.h5"}));
}

TEST(CheckpointFolderAsync, DestructionWaits) {
  const TemporaryFolder temporary;
  const Held held(kMoment);
  CheckpointFolder(temporary.path()).save_async(at_step(1), 1.0);
  EXPECT_EQ(temporary.names(), (Names{"best.h5", "step-00000001.h5"}));
}

TEST(CheckpointFolderAsync, WhatWentWrongIsThrownOnceByTheNextCall) {
  const TemporaryFolder temporary;
  CheckpointFolder folder(temporary / "sub", 9);
  const auto gone =
      message(temporary.path() / "sub" / "step-00000001.h5", "cannot write: cannot open its folder: No such file or directory");
  for (const int next : {0, 1, 2}) {
    std::filesystem::remove_all(temporary / "sub");
    folder.save_async(at_step(1), kNan);
    while (folder.saving()) std::this_thread::yield();
    std::filesystem::create_directory(temporary / "sub");
    EXPECT_EQ(error_of([&] {
                if (next == 0) folder.flush();
                if (next == 1) folder.save_async(at_step(2), kNan);
                if (next == 2) folder.save(at_step(2), kNan);
              }),
              gone);
    EXPECT_FALSE(folder.saving());
    EXPECT_TRUE(std::filesystem::is_empty(temporary / "sub")) << "nothing is begun";
    folder.flush();
    folder.save_async(at_step(3), kNan);
    folder.flush();
    EXPECT_EQ(read_checkpoint(folder.latest()).step, 3) << "the folder is there again, and so are the saves";
  }
  std::filesystem::remove_all(temporary / "sub");
  CheckpointFolder(temporary / "other").save_async(at_step(-1), kNan);  // nobody asks: destruction throws nothing
}

TEST(CheckpointFolderAsync, ASnapshotIsNotTornByTheNextStep) {
  const TemporaryFolder temporary;
  Graph g;
  const Value w = g.state("w", {1000}, Init::fill(1.0));
  g.assign(g.add(w, g.constant({1000}, {1.0})), w);
  const auto backend = reference_backend();
  Session session(g, *backend);
  CheckpointFolder folder(temporary.path());
  Held held;
  session.step();
  Checkpoint checkpoint = session.snapshot();
  checkpoint.step = 1;
  folder.save_async(std::move(checkpoint), kNan);
  for (int i = 0; i < 100; ++i) session.step();
  held.release();
  folder.flush();
  Session again(g, *backend);
  again.load(folder.latest());
  EXPECT_EQ(again.read("w"), std::vector<float>(1000, 2.0f));
  EXPECT_EQ(session.read("w"), std::vector<float>(1000, 102.0f));
}

TEST(CheckpointFolderAsync, TheBestIsThereBeforeItsStep) {
  const TemporaryFolder temporary;
  CheckpointFolder folder(temporary.path());
  Held held;
  folder.save_async(at_step(1), 1.0);
  while (temporary.names().empty()) std::this_thread::yield();
  std::filesystem::create_directory(temporary / "step-00000001.h5");  // so that the last thing that it does fails
  held.release();
  EXPECT_EQ(error_of([&] { folder.flush(); }),
            message(temporary / "step-00000001.h5", "cannot write: cannot rename its temporary file: Is a directory"));
  EXPECT_EQ(temporary.names(), (Names{"best.h5", "step-00000001.h5"}));
  EXPECT_EQ(read_checkpoint(folder.best()).step, 1);
  folder.save(at_step(2), 2.0);
  EXPECT_EQ(read_checkpoint(folder.best()).step, 1) << "its metric is known";
}

TEST(CheckpointFolderAsync, ABestThatCannotBeWrittenIsTriedAgain) {
  const TemporaryFolder temporary;
  CheckpointFolder folder(temporary.path());
  Held held;
  folder.save_async(at_step(1), 1.0);
  while (temporary.names().empty()) std::this_thread::yield();
  std::filesystem::create_directory(temporary / "best.h5");
  held.release();
  EXPECT_EQ(error_of([&] { folder.flush(); }),
            message(temporary / "best.h5", "cannot write: cannot rename its temporary file: Is a directory"));
  EXPECT_EQ(temporary.names(), Names{"best.h5"});
  std::filesystem::remove(temporary / "best.h5");
  folder.save(at_step(2), 2.0);
  EXPECT_EQ(read_checkpoint(folder.best()).step, 2);
}

TEST(AtomicFile, WithoutHardLinksLinkAsSaysSo) {
  const TemporaryFolder temporary;
  detail::AtomicFile file(temporary / "a.h5");
  EXPECT_FALSE(file.link_as(temporary.path() / "no" / "b.h5"));
  EXPECT_EQ(temporary.names().size(), 1u);
}

TEST(CheckpointFolder, AReadOnlyFolderIsReportedAtOnce) {
  const TemporaryFolder temporary;
  std::filesystem::permissions(temporary.path(), std::filesystem::perms(0555));
  const uid_t user = ::geteuid();
  constexpr uid_t kNobody = 65534;  // root may write anywhere
  const bool limited = (user != 0 || ::seteuid(kNobody) == 0) && ::eaccess(temporary.path().c_str(), R_OK | X_OK) == 0;
  const std::string error = limited ? error_of([&] { CheckpointFolder(temporary.path()); }) : "";
  EXPECT_EQ(::seteuid(user), 0);
  std::filesystem::permissions(temporary.path(), std::filesystem::perms(0755));
  if (!limited) GTEST_SKIP() << "cannot become a user who may not write to the folder";
  EXPECT_EQ(error, message(temporary / "best.h5", "cannot write: cannot create a temporary file beside it: Permission denied"));
}

}  // namespace
}  // namespace graft
