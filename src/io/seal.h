#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>

namespace graft::detail {

/// The first 512 bytes of a checkpoint, HDF5's user block: text that says how long the file is and what its other bytes hash to,
/// so that a damaged file is refused before HDF5 sees it. The first two lines keep their form in all later versions:
///   graft checkpoint / format_version 1 / bytes 213600 / checksum 0123456789abcdef / zero bytes to the end
inline constexpr std::size_t kSealSize = 512;
using Seal = std::array<std::byte, kSealSize>;

/// `bytes` of the whole file, `checksum` of all bytes after the seal.
Seal make_seal(int format_version, std::uint64_t bytes, std::uint64_t checksum);

/// Reads the whole file; throws Error unless it is exactly what make_seal sealed.
void check_seal(const std::filesystem::path& file);

}  // namespace graft::detail
