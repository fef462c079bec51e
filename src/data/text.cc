#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <system_error>
#include <utility>

#include "graft/data.h"
#include "graft/error.h"
#include "src/util.h"

namespace graft {
namespace {

[[noreturn]] void fail(const std::filesystem::path& file, const std::string& what) {
  throw Error("file \"" + file.string() + "\": " + what);
}

}  // namespace

MappedFile::MappedFile(const std::filesystem::path& file) {
  const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) fail(file, "cannot open: " + std::generic_category().message(errno));
  struct stat status {};
  void* mapped = MAP_FAILED;
  int error = ::fstat(fd, &status) == 0 ? 0 : errno;
  const bool regular = error == 0 && S_ISREG(status.st_mode);
  if (regular && status.st_size > 0) {
    mapped = ::mmap(nullptr, static_cast<std::size_t>(status.st_size), PROT_READ, MAP_PRIVATE, fd, 0);
    if (mapped == MAP_FAILED) error = errno;
  }
  ::close(fd);
  if (error != 0) fail(file, "cannot map into memory: " + std::generic_category().message(error));
  if (S_ISDIR(status.st_mode)) fail(file, "is a folder, not a file");
  if (!regular) fail(file, "is not a regular file");
  if (status.st_size == 0) fail(file, "is empty");
  data_ = static_cast<const char*>(mapped);
  size_ = static_cast<std::size_t>(status.st_size);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<char*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

ByteVocabulary ByteVocabulary::of(std::string_view text) {
  std::array<bool, 256> occurs{};
  for (const char c : text) occurs[static_cast<unsigned char>(c)] = true;
  std::string bytes;
  for (std::size_t byte = 0; byte < occurs.size(); ++byte) {
    if (occurs[byte]) bytes.push_back(static_cast<char>(byte));
  }
  return ByteVocabulary(std::move(bytes));
}

ByteVocabulary::ByteVocabulary(std::string bytes) : bytes_(std::move(bytes)), id_of_(256, -1) {
  if (bytes_.empty()) throw Error("vocabulary: there are no bytes, so no tokens");
  for (std::size_t i = 0; i < bytes_.size(); ++i) {
    const auto byte = static_cast<unsigned char>(bytes_[i]);
    if (i > 0 && static_cast<unsigned char>(bytes_[i - 1]) >= byte) {
      throw Error("vocabulary: bytes must rise, got " + byte_text(byte) + " at position " + std::to_string(i) + " after " +
                  byte_text(static_cast<unsigned char>(bytes_[i - 1])));
    }
    id_of_[byte] = static_cast<std::int32_t>(i);
  }
}

std::vector<std::uint32_t> ByteVocabulary::encode(std::string_view text) const {
  std::vector<std::uint32_t> ids(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (id_of_[byte] < 0) {
      throw Error("vocabulary: byte " + byte_text(byte) + " at position " + std::to_string(i) + " of the text is not one of its " +
                  std::to_string(bytes_.size()) + " bytes");
    }
    ids[i] = static_cast<std::uint32_t>(id_of_[byte]);
  }
  return ids;
}

std::string ByteVocabulary::decode(std::span<const std::uint32_t> ids) const {
  std::string text(ids.size(), '\0');
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= bytes_.size()) {
      throw Error("vocabulary: id " + std::to_string(ids[i]) + " at position " + std::to_string(i) + " is not below " +
                  std::to_string(bytes_.size()));
    }
    text[i] = bytes_[ids[i]];
  }
  return text;
}

}  // namespace graft
