#pragma once
#include <cstddef>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graft/safetensors.h"

namespace graft::hf::detail {

/// Largest header that the format allows.
inline constexpr std::size_t kMostHeaderBytes = 100'000'000;

struct ParsedFile {
  std::vector<StoredTensor> tensors;  ///< in the order of their bytes, which lie in `file`
  std::map<std::string, std::string> metadata;
};
/// Checks all of a file that is in memory; errors begin with `what`.
ParsedFile parse_safetensors(std::span<const std::byte> file, const std::string& what);

/// The "weight_map" of an index: tensor → name of a file in the same folder.
std::map<std::string, std::string> parse_index(std::string_view text, const std::string& what);

/// Bits of an element, 0 for a dtype that the format does not know.
int bits_of(std::string_view dtype);
/// Bytes of a tensor of a known dtype; throws Error when they cannot be counted or are no whole number.
std::size_t bytes_of(std::string_view dtype, std::span<const std::int64_t> shape, const std::string& what);

/// write_safetensors with bytes that are made one tensor at a time, in the order they are written: `fill` gives those of tensors[i],
/// whose own `bytes` are not looked at.
void write_safetensors(const std::filesystem::path& file, std::span<const StoredTensor> tensors,
                       const std::map<std::string, std::string>& metadata,
                       const std::function<std::span<const std::byte>(std::size_t i)>& fill);

}  // namespace graft::hf::detail
