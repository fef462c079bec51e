#include "src/io/atomic_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <string>
#include <string_view>
#include <system_error>

#include "graft/error.h"

namespace graft::detail {
namespace {

constexpr std::string_view kInfix = ".tmp-";

std::filesystem::path temporary_name(const std::filesystem::path& file, int n) {
  const std::string suffix = std::string(kInfix) + std::to_string(::getpid()) + "-" + std::to_string(n);
  return folder_of(file) / ("." + file.filename().string() + suffix);
}

// "." <name> ".h5.tmp-" <digits> "-" <digits>
bool is_temporary_name(std::string_view name) {
  const std::size_t infix = name.rfind(kInfix);
  if (!name.starts_with('.') || infix == std::string_view::npos || !name.substr(0, infix).ends_with(".h5")) return false;
  const std::string_view numbers = name.substr(infix + kInfix.size());
  const std::size_t dash = numbers.find('-');
  if (dash == std::string_view::npos || dash == 0 || dash + 1 == numbers.size()) return false;
  const auto digits = [](std::string_view s) {
    return std::all_of(s.begin(), s.end(), [](unsigned char c) { return std::isdigit(c) != 0; });
  };
  return digits(numbers.substr(0, dash)) && digits(numbers.substr(dash + 1));
}

}  // namespace

std::filesystem::path folder_of(const std::filesystem::path& file) {
  return file.has_parent_path() ? file.parent_path() : std::filesystem::path(".");
}

AtomicFile::AtomicFile(std::filesystem::path file, std::string kind) : kind_(std::move(kind)), file_(std::move(file)) {
  if (!file_.has_filename()) fail(file_, "is not the name of a file");
  std::error_code ignored;
  if (std::filesystem::is_directory(file_, ignored)) fail(file_, "cannot write: a folder of that name is there");
  folder_ = Descriptor(::open(folder_of(file_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder_) fail(file_, "cannot write: cannot open its folder", errno);

  for (int n = 0; !out_; ++n) {
    temporary_ = temporary_name(file_, n);
    out_ = Descriptor(::open(temporary_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
    if (!out_) {
      if (errno == EEXIST) continue;
      const int error = errno;
      temporary_.clear();
      fail(file_, "cannot write: cannot create a temporary file beside it", error);
    }
    struct stat status {};
    // Shared, as it holds for a moment after the file has its name, and HDF5 takes a shared lock to read.
    ::flock(out_.get(), LOCK_SH);
    // Whoever removes stale temporaries may have come between creation and lock.
    if (::fstat(out_.get(), &status) != 0 || status.st_nlink == 0) out_ = Descriptor();
  }
}

void AtomicFile::fail(const std::filesystem::path& file, const std::string& what, int error) const {
  throw Error(kind_ + " \"" + file.string() + "\": " + what + (error != 0 ? ": " + std::generic_category().message(error) : ""));
}

AtomicFile::~AtomicFile() {
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  constexpr std::size_t kPiece = std::size_t{8} << 20;
  while (!bytes.empty()) {
    const ssize_t n = ::write(out_.get(), bytes.data(), std::min(bytes.size(), kPiece));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(file_, "cannot write", errno);
    if (n == 0) fail(file_, "cannot write", ENOSPC);
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
}

void AtomicFile::sync() {
  if (::fsync(out_.get()) != 0) fail(file_, "cannot write: fsync failed", errno);
}

bool AtomicFile::link_as(const std::filesystem::path& name) {
  sync();
  std::filesystem::path link = temporary_name(name, 0);
  for (int n = 1; ::link(temporary_.c_str(), link.c_str()) != 0; ++n) {
    if (errno != EEXIST) return false;
    link = temporary_name(name, n);
  }
  if (::rename(link.c_str(), name.c_str()) != 0) {
    const int error = errno;
    ::unlink(link.c_str());
    fail(name, "cannot write: cannot rename its temporary file", error);
  }
  return true;
}

void AtomicFile::commit() {
  sync();
  // Still open, and so locked: it is no stale temporary to anyone until it has its name.
  if (::rename(temporary_.c_str(), file_.c_str()) != 0) fail(file_, "cannot write: cannot rename its temporary file", errno);
  temporary_.clear();
  // Some file systems cannot sync a folder, and say so.
  if (::fsync(folder_.get()) != 0 && errno != EINVAL && errno != ENOTSUP) fail(file_, "cannot sync the folder it is in", errno);
}

void remove_stale_temporaries(const std::filesystem::path& folder) {
  std::error_code error;
  for (std::filesystem::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    if (!is_temporary_name(entry->path().filename().string())) continue;
    const Descriptor fd(::open(entry->path().c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
    if (fd && ::flock(fd.get(), LOCK_EX | LOCK_NB) == 0) ::unlink(entry->path().c_str());
  }
}

}  // namespace graft::detail
