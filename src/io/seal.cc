#include "src/io/seal.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graft/checkpoint.h"
#include "src/io/content_hash.h"
#include "src/io/descriptor.h"
#include "src/io/errors.h"

namespace graft::detail {
namespace {

constexpr std::string_view kMagic = "graft checkpoint\n";
constexpr std::string_view kHdf5Signature = "\x89HDF\r\n\x1a\n";

// The number after `key`, or nothing when there is no such line.
std::optional<std::uint64_t> number_of(std::string_view text, std::string_view key, int base) {
  const std::string start = "\n" + std::string(key) + " ";
  const std::size_t at = text.find(start);
  if (at == std::string_view::npos) return std::nullopt;
  const std::string_view rest = text.substr(at + start.size());
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), number, base);
  if (error != std::errc() || end == rest.data() + rest.size() || *end != '\n') return std::nullopt;
  return number;
}

// Fills `to` from the file unless it ends before; returns the number of bytes read.
std::size_t read_some(int fd, std::span<std::byte> to, const std::filesystem::path& file) {
  std::size_t filled = 0;
  while (filled < to.size()) {
    const ssize_t n = ::read(fd, to.data() + filled, to.size() - filled);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(file, "cannot read", errno);
    if (n == 0) break;
    filled += static_cast<std::size_t>(n);
  }
  return filled;
}

std::string has_but_should_have(std::uint64_t has, const std::string& should_have) {
  return "has " + std::to_string(has) + " bytes, should have " + should_have;
}

}  // namespace

Seal make_seal(int format_version, std::uint64_t bytes, std::uint64_t checksum) {
  std::array<char, kSealSize> text{};
  std::snprintf(text.data(), text.size(), "%sformat_version %d\nbytes %llu\nchecksum %016llx\n", kMagic.data(), format_version,
                static_cast<unsigned long long>(bytes), static_cast<unsigned long long>(checksum));
  Seal seal;
  std::memcpy(seal.data(), text.data(), seal.size());
  return seal;
}

void check_seal(const std::filesystem::path& file) {
  const Descriptor fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) {
    if (errno == ENOENT) fail(file, "there is no such file");
    fail(file, "cannot open", errno);
  }
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) fail(file, "cannot open", errno);
  if (S_ISDIR(status.st_mode)) fail(file, "is a folder, not a file");
  if (!S_ISREG(status.st_mode)) fail(file, "is not a regular file");
  const auto size = static_cast<std::uint64_t>(status.st_size);
  if (size == 0) fail(file, "is empty");

  Seal seal;
  const std::string_view text(reinterpret_cast<const char*>(seal.data()), read_some(fd.get(), seal, file));
  if (text.starts_with(kHdf5Signature)) fail(file, "is an HDF5 file, but not a graft checkpoint");
  const std::string_view magic = text.substr(0, kMagic.size());
  if (magic != kMagic.substr(0, magic.size())) fail(file, "is not a graft checkpoint");
  if (size < kSealSize) fail(file, "is truncated: " + has_but_should_have(size, "at least " + std::to_string(kSealSize)));

  const auto version = number_of(text, "format_version", 10);
  if (version && *version > kCheckpointVersion) {
    fail(file, "was written by a newer graft: format version " + std::to_string(*version) + ", this build reads up to " +
                   std::to_string(kCheckpointVersion));
  }
  const auto bytes = number_of(text, "bytes", 10);
  const auto checksum = number_of(text, "checksum", 16);
  if (!version || *version == 0 || !bytes || !checksum || make_seal(static_cast<int>(*version), *bytes, *checksum) != seal) {
    fail(file, "is damaged: its first " + std::to_string(kSealSize) + " bytes are not as written");
  }
  if (size < *bytes) fail(file, "is truncated: " + has_but_should_have(size, std::to_string(*bytes)));
  if (size > *bytes) fail(file, "is damaged: " + has_but_should_have(size, std::to_string(*bytes)));

  ContentHash hash;
  std::vector<std::byte> buffer(std::min<std::uint64_t>(size, std::uint64_t{1} << 18));
  while (const std::size_t n = read_some(fd.get(), buffer, file)) hash.update(std::span(buffer).first(n));
  if (hash.value() != *checksum) fail(file, "is damaged: its checksum differs from the one it was written with");
}

}  // namespace graft::detail
