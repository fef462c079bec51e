// Checkpoints that cannot be written, or are written by two at once: one clear error, nothing half done.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdio>
#include <functional>

#include "tests/checkpoint_files.h"

namespace graft {
namespace {

using namespace checkpoint_files;

class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit = {bytes, before_.rlim_max};
    EXPECT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_{};
  void (*handler_)(int);
};

TEST(CheckpointWrite, AFullDiskLeavesThePreviousFileAndNothingElse) {
  const TemporaryFolder folder;
  const auto file = folder / "a.h5";
  write_checkpoint(file, sample());
  const std::string before = contents(file);
  Checkpoint larger = sample();
  larger.tensors.push_back(tensor("zzz", DType::f32, Shape{3000, 1000}, 1));
  write_checkpoint(folder / "b.h5", larger);
  const std::uintmax_t size = std::filesystem::file_size(folder / "b.h5");
  std::filesystem::remove(folder / "b.h5");
  for (const std::uintmax_t limit : {std::uintmax_t{0}, std::uintmax_t{1}, std::uintmax_t{511}, std::uintmax_t{512},
                                     std::uintmax_t{513}, size / 3, std::uintmax_t{8'388'608} + 512, size - 1}) {
    std::string error;
    {
      const FileSizeLimit full(limit);
      error = error_of([&] { write_checkpoint(file, larger); });
    }
    EXPECT_EQ(error, message(file, "cannot write: File too large")) << limit;
    EXPECT_TRUE(contents(file) == before) << limit;
    EXPECT_EQ(folder.names(), std::vector<std::string>{"a.h5"}) << limit;
  }
  const FileSizeLimit enough(size);
  write_checkpoint(file, larger);
  expect_same(read_checkpoint(file), larger);
}

/// What a shell command prints; `status` as waitpid gives it.
std::string output_of(const std::string& command, int& status) {
  std::string text;
  std::FILE* out = ::popen((command + " 2>&1").c_str(), "r");
  for (int c; (c = std::fgetc(out)) != EOF;) text += static_cast<char>(c);
  status = ::pclose(out);
  return text;
}

TEST(CheckpointWrite, ADiskThatIsReallyFull) {
  const TemporaryFolder folder;
  const std::string disk = (folder / "disk").string(), kept = (folder / "kept").string();
  std::filesystem::create_directories(disk);
  std::filesystem::create_directories(kept);
  const std::string in_own_mounts = "unshare --map-root-user --mount ";
  const std::string mount = "mount -t tmpfs -o size=200k graft '" + disk + "'";
  int status = 0;
  output_of(in_own_mounts + mount, status);
  if (status != 0) GTEST_SKIP() << "this user may not mount a small disk";
  // Three checkpoints fill it, two are kept: one fits, the next one does not, and nobody clears up.
  const std::string program = "'" GRAFT_KILLED_RUN "' '" + disk + "' ";
  const std::string output =
      output_of(in_own_mounts + "sh -c \"" + mount + " && " + program + "1 >/dev/null && head -c 1m /dev/zero 2>/dev/null > '" +
                    disk + "/ballast'; " + program + "5 > /dev/null; echo status \\$?; ls -A '" + disk + "'; cp '" + disk +
                    "'/*.h5 '" + kept + "'\"",
                status);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(output, "killed_run: " + message(disk + "/step-00000002.h5", "cannot write: No space left on device") +
                        "\n"
                        "status 1\nballast\nbest.h5\nstep-00000001.h5\n");
  EXPECT_EQ(read_checkpoint(kept + "/step-00000001.h5").step, 1);
  EXPECT_EQ(read_checkpoint(kept + "/best.h5").step, 1);
}

/// Runs `action` in a process of its own; its exit code is 0 unless it throws.
pid_t in_a_process(const std::function<void()>& action) {
  const pid_t child = ::fork();
  if (child != 0) return child;
  int code = 0;
  try {
    action();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    code = 1;
  }
  ::_exit(code);
}

TEST(CheckpointWrite, TwoProcessesThatWriteOneFileLeaveOneOfTheirs) {
  const TemporaryFolder folder;
  const auto file = folder / "a.h5";
  std::array<Checkpoint, 2> theirs = {sample(), large()};
  theirs[1].step = 7;
  write_checkpoint(file, theirs[0]);
  std::array<pid_t, 2> writers{};
  for (std::size_t i = 0; i < 2; ++i) {
    writers[i] = in_a_process([&] {
      for (int n = 0; n < 20; ++n) write_checkpoint(file, theirs[i]);
    });
  }
  for (const pid_t writer : writers) {
    int status = -1;
    while (::waitpid(writer, &status, WNOHANG) == 0) {
      const Checkpoint read = read_checkpoint(file);
      expect_same(read, theirs[read.step == 7 ? 1 : 0]);
    }
    EXPECT_EQ(status, 0);
  }
  EXPECT_EQ(folder.names(), std::vector<std::string>{"a.h5"});
}

TEST(CheckpointWrite, FoldersThatCannotBeWrittenTo) {
  const TemporaryFolder folder;
  const auto error_at = [](const std::filesystem::path& file) { return error_of([&] { write_checkpoint(file, sample()); }); };
  EXPECT_EQ(error_at(folder / "no" / "a.h5"),
            message(folder / "no" / "a.h5", "cannot write: cannot open its folder: No such file or directory"));
  put(folder / "file", "x");
  EXPECT_EQ(error_at(folder / "file" / "a.h5"),
            message(folder / "file" / "a.h5", "cannot write: cannot open its folder: Not a directory"));
  std::filesystem::create_directory(folder / "sub");
  EXPECT_EQ(error_at(folder / "sub"), message(folder / "sub", "cannot write: a folder of that name is there"));
  EXPECT_EQ(error_at(folder / "sub" / ""), message(folder / "sub" / "", "is not the name of a file"));
  EXPECT_EQ(error_at(folder / std::string(300, 'x')),
            message(folder / std::string(300, 'x'), "cannot write: cannot create a temporary file beside it: File name too long"));
  EXPECT_EQ(folder.names(), (std::vector<std::string>{"file", "sub"}));
  EXPECT_EQ(contents(folder / "file"), "x");
}

TEST(CheckpointWrite, AReadOnlyFolder) {
  const TemporaryFolder folder;
  write_checkpoint(folder / "a.h5", sample());
  std::filesystem::permissions(folder.path(), std::filesystem::perms(0555));
  const uid_t user = ::geteuid();
  constexpr uid_t kNobody = 65534;  // root may write anywhere
  const bool limited = (user != 0 || ::seteuid(kNobody) == 0) && ::eaccess(folder.path().c_str(), R_OK | X_OK) == 0;
  const std::string error = limited ? error_of([&] { write_checkpoint(folder / "a.h5", {}); }) : "";
  EXPECT_EQ(::seteuid(user), 0);
  std::filesystem::permissions(folder.path(), std::filesystem::perms(0755));
  if (!limited) GTEST_SKIP() << "cannot become a user who may not write to the folder";
  EXPECT_EQ(error, message(folder / "a.h5", "cannot write: cannot create a temporary file beside it: Permission denied"));
  expect_same(read_checkpoint(folder / "a.h5"), sample());
  EXPECT_EQ(folder.names(), std::vector<std::string>{"a.h5"});
}

}  // namespace
}  // namespace graft
