#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graft/data.h"

namespace graft::hf {

/// A tensor as a safetensors file holds it, little-endian and row-major.
struct StoredTensor {
  std::string name;
  std::string dtype;                 ///< the format's word: "F32", "BF16", "F16", "F64", "I64", "U8", "BOOL", …
  std::vector<std::int64_t> shape;   ///< any rank, [] for a scalar; a dimension may be 0
  std::span<const std::byte> bytes;  ///< where a file is mapped, at any alignment
  std::int64_t elements() const;
};
/// "BF16[3, 4]".
std::string to_string(const StoredTensor& tensor);

/// Tensors of a safetensors file, or of the files that an index names, mapped into memory. Everything is checked before anything is
/// given out: the size of the header (at most 100 MB), its JSON and UTF-8, names, dtypes, shapes, offsets; every byte belongs to
/// one tensor. Throws Error naming the file and the tensor.
class Safetensors {
 public:
  /// `path`: a file, an index (….index.json), or a folder that holds model.safetensors or model.safetensors.index.json.
  explicit Safetensors(const std::filesystem::path& path);

  const std::vector<StoredTensor>& tensors() const { return tensors_; }  ///< by name
  /// Throws Error that lists the near names.
  const StoredTensor& at(std::string_view name) const;
  bool contains(std::string_view name) const { return find(name) != nullptr; }
  /// "__metadata__" of the file, or of all shards together.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::filesystem::path& path() const { return path_; }                 ///< the file or the index
  const std::vector<std::filesystem::path>& files() const { return files_; }  ///< the shards, by name

 private:
  const StoredTensor* find(std::string_view name) const;
  std::filesystem::path path_;
  std::vector<std::filesystem::path> files_;
  std::vector<MappedFile> maps_;
  std::vector<StoredTensor> tensors_;
  std::map<std::string, std::string> metadata_;
};

/// Elements [first, first + to.size()) of a tensor in row-major order. As f32: F16, BF16 and F32 exactly, F64 rounded; other dtypes are
/// refused. As f64 integers and BOOL too, those above 2⁵³ rounded. Throws Error naming the tensor.
void read_values(const StoredTensor& tensor, std::int64_t first, std::span<float> to);
void read_values(const StoredTensor& tensor, std::int64_t first, std::span<double> to);

/// Writes a safetensors file whole or not at all. Tensors come in the order of the format's own writer, by size of element and then by
/// name, so the same content gives the same bytes. Throws Error naming the file and the tensor: a name twice, bytes that do not fit
/// dtype and shape, an unknown dtype.
void write_safetensors(const std::filesystem::path& file, std::span<const StoredTensor> tensors,
                       const std::map<std::string, std::string>& metadata = {{"format", "pt"}});

}  // namespace graft::hf
