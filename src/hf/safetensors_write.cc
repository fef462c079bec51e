#include <algorithm>
#include <cstring>
#include <numeric>
#include <set>

#include "graft/error.h"
#include "src/hf/json.h"
#include "src/hf/safetensors_format.h"
#include "src/io/atomic_file.h"

namespace graft::hf {
namespace detail {
void write_safetensors(const std::filesystem::path& file, std::span<const StoredTensor> tensors,
                       const std::map<std::string, std::string>& metadata,
                       const std::function<std::span<const std::byte>(std::size_t i)>& fill) {
  const std::string what = "safetensors \"" + file.string() + "\": ";
  std::vector<std::size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  // Elements of 8 bytes first: each tensor is then aligned to its own.
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    const int bits_a = bits_of(tensors[a].dtype), bits_b = bits_of(tensors[b].dtype);
    return bits_a != bits_b ? bits_a > bits_b : tensors[a].name < tensors[b].name;
  });

  std::string text = "{";
  std::vector<std::size_t> sizes;
  try {
    const auto member = [&](const std::string& key, const Json& value) {
      text += (text.size() > 1 ? "," : "") + Json(key).dump() + ":" + value.dump();
    };
    if (!metadata.empty()) member("__metadata__", metadata);
    std::set<std::string_view> names{"__metadata__"};
    std::size_t at = 0;
    for (const std::size_t i : order) {
      const StoredTensor& tensor = tensors[i];
      const std::string named = what + "tensor \"" + tensor.name + "\": ";
      if (!names.insert(tensor.name).second) throw Error(named + "the name is taken");
      if (bits_of(tensor.dtype) == 0) throw Error(named + "unknown dtype \"" + tensor.dtype + "\"");
      sizes.push_back(bytes_of(tensor.dtype, tensor.shape, named));
      member(tensor.name, {{"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {at, at + sizes.back()}}});
      at += sizes.back();
    }
    text += "}";
  } catch (const Json::exception&) {
    throw Error(what + "a name is not UTF-8");
  }
  text.append((8 - text.size() % 8) % 8, ' ');  // the data begins at a multiple of 8
  if (text.size() > kMostHeaderBytes)
    throw Error(what + "the header has " + std::to_string(text.size()) + " bytes, at most " + std::to_string(kMostHeaderBytes));

  graft::detail::AtomicFile out(file, "safetensors");
  const std::uint64_t header_size = text.size();
  out.write(std::as_bytes(std::span(&header_size, 1)));
  out.write(std::as_bytes(std::span(text)));
  for (std::size_t k = 0; k < order.size(); ++k) {
    const std::span<const std::byte> bytes = fill(order[k]);
    if (bytes.size() != sizes[k]) {
      throw Error(what + "tensor \"" + tensors[order[k]].name + "\": " + to_string(tensors[order[k]]) + " takes " +
                  std::to_string(sizes[k]) + " bytes, got " + std::to_string(bytes.size()));
    }
    out.write(bytes);
  }
  out.commit();
}

}  // namespace detail

void write_safetensors(const std::filesystem::path& file, std::span<const StoredTensor> tensors,
                       const std::map<std::string, std::string>& metadata) {
  detail::write_safetensors(file, tensors, metadata, [&](std::size_t i) { return tensors[i].bytes; });
}

}  // namespace graft::hf
