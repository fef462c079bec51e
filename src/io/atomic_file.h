#pragma once
#include <cstddef>
#include <filesystem>
#include <span>
#include <string>

#include "src/io/descriptor.h"

namespace graft::detail {

/// A file that appears under its name whole or not at all: bytes go to ".<name>.tmp-<pid>-<n>" in the same folder. Without
/// commit(), or when anything fails, that temporary is removed. Throws Error naming the file, the operation and the reason.
class AtomicFile {
 public:
  /// `kind`: what errors call the file, as in `checkpoint "file": cannot write`.
  explicit AtomicFile(std::filesystem::path file, std::string kind = "checkpoint");
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  const std::filesystem::path& file() const { return file_; }
  void write(std::span<const std::byte> bytes);
  /// Gives what was written another name in the same folder as well, in one step, whatever that name was before; false when the file
  /// system has no hard links.
  bool link_as(const std::filesystem::path& name);
  /// fsync, rename, fsync of the folder.
  void commit();

 private:
  [[noreturn]] void fail(const std::filesystem::path& file, const std::string& what, int error = 0) const;
  void sync();
  std::string kind_;
  std::filesystem::path file_, temporary_;
  Descriptor folder_, out_;  // out_ is locked while open, which tells a temporary in use from a stale one
};

/// Removes the temporaries that writers which no longer run have left in `folder`.
void remove_stale_temporaries(const std::filesystem::path& folder);

/// The folder a file is in, "." for a bare name.
std::filesystem::path folder_of(const std::filesystem::path& file);

}  // namespace graft::detail
