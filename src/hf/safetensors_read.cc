// The safetensors format: 8 bytes that count the header's, the header (JSON), then the tensors without a gap between them.
#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <optional>
#include <system_error>

#include "graft/bf16.h"
#include "graft/error.h"
#include "src/hf/f16.h"
#include "src/hf/json.h"
#include "src/hf/safetensors_format.h"
#include "src/util.h"

namespace graft::hf {
namespace detail {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian");

struct Word {
  std::string_view name;
  int bits;
};
constexpr std::array kDtypes = {
    Word{"BOOL", 8},    Word{"F4", 4},      Word{"F6_E2M3", 6}, Word{"F6_E3M2", 6},     Word{"U8", 8},          Word{"I8", 8},
    Word{"F8_E5M2", 8}, Word{"F8_E4M3", 8}, Word{"F8_E8M0", 8}, Word{"F8_E4M3FNUZ", 8}, Word{"F8_E5M2FNUZ", 8}, Word{"I16", 16},
    Word{"U16", 16},    Word{"F16", 16},    Word{"BF16", 16},   Word{"I32", 32},        Word{"U32", 32},        Word{"F32", 32},
    Word{"C64", 64},    Word{"F64", 64},    Word{"I64", 64},    Word{"U64", 64}};

/// A whole number of the header, at most `most`.
std::optional<std::uint64_t> whole(const SortedJson& value, std::uint64_t most) {
  if (!value.is_number_unsigned()) return {};
  const auto number = value.get<std::uint64_t>();
  return number <= most ? std::optional(number) : std::nullopt;
}

const SortedJson& member(const SortedJson& entry, const char* key, const std::string& what) {
  const auto found = entry.find(key);
  if (found == entry.end()) throw Error(what + "has no \"" + key + "\"");
  return *found;
}

std::vector<std::int64_t> parse_shape(const SortedJson& json, const std::string& what) {
  if (!json.is_array()) throw Error(what + "its shape must be an array, got " + shown(json));
  std::vector<std::int64_t> shape;
  for (const SortedJson& item : json) {
    const auto dim = whole(item, std::numeric_limits<std::int64_t>::max());
    if (!dim) throw Error(what + "a dimension must be a whole number, got " + shown(item));
    shape.push_back(static_cast<std::int64_t>(*dim));
  }
  return shape;
}

StoredTensor parse_tensor(const std::string& name, const SortedJson& entry, std::span<const std::byte> data,
                          const std::string& what) {
  if (!entry.is_object()) throw Error(what + "must be an object, got " + shown(entry));
  const SortedJson &dtype = member(entry, "dtype", what), &offsets = member(entry, "data_offsets", what);
  if (!dtype.is_string() || bits_of(dtype.get<std::string>()) == 0) throw Error(what + "unknown dtype " + shown(dtype));
  StoredTensor tensor{name, dtype.get<std::string>(), parse_shape(member(entry, "shape", what), what), {}};
  if (!offsets.is_array() || offsets.size() != 2)
    throw Error(what + "data_offsets must be two whole numbers, got " + shown(offsets));
  const auto begin = whole(offsets[0], std::numeric_limits<std::uint64_t>::max()),
             end = whole(offsets[1], std::numeric_limits<std::uint64_t>::max());
  if (!begin || !end) throw Error(what + "data_offsets must be two whole numbers, got " + shown(offsets));
  if (*begin > *end) throw Error(what + "ends before it begins, data_offsets are " + shown(offsets));
  if (*end > data.size())
    throw Error(what + "reaches to byte " + std::to_string(*end) + " of the data, which has " + std::to_string(data.size()) +
                "; the file is truncated or damaged");
  const std::size_t bytes = bytes_of(tensor.dtype, tensor.shape, what);
  if (*end - *begin != bytes)
    throw Error(what + to_string(tensor) + " takes " + std::to_string(bytes) + " bytes, its data_offsets hold " +
                std::to_string(*end - *begin));
  tensor.bytes = data.subspan(*begin, bytes);
  return tensor;
}

/// Every byte belongs to one tensor.
void check_coverage(const std::vector<StoredTensor>& tensors, std::span<const std::byte> data, const std::string& what) {
  std::size_t covered = 0;
  const std::string* before = nullptr;
  const auto hole = [&](std::size_t to) {
    throw Error(what + "bytes " + std::to_string(covered) + " to " + std::to_string(to) + " of the data belong to no tensor");
  };
  for (const StoredTensor& tensor : tensors) {
    const auto begin = static_cast<std::size_t>(tensor.bytes.data() - data.data());
    if (begin < covered) throw Error(what + "tensors \"" + *before + "\" and \"" + tensor.name + "\" overlap");
    if (begin > covered) hole(begin);
    covered = begin + tensor.bytes.size();
    before = &tensor.name;
  }
  if (covered < data.size()) hole(data.size());
}

}  // namespace

int bits_of(std::string_view dtype) {
  const auto* found = std::find_if(kDtypes.begin(), kDtypes.end(), [&](const Word& word) { return word.name == dtype; });
  return found == kDtypes.end() ? 0 : found->bits;
}

std::size_t bytes_of(std::string_view dtype, std::span<const std::int64_t> shape, const std::string& what) {
  // A dimension of 0 makes it 0, wherever it stands.
  const bool empty = std::find(shape.begin(), shape.end(), 0) != shape.end();
  std::int64_t bits = empty ? 0 : bits_of(dtype);
  for (const std::int64_t dim : shape) {
    if (dim < 0) throw Error(what + "a dimension must not be negative, got " + std::to_string(dim));
    if (__builtin_mul_overflow(bits, dim, &bits)) throw Error(what + "its shape has more elements than can be counted");
  }
  if (bits % 8 != 0) throw Error(what + "does not fill whole bytes");
  return static_cast<std::size_t>(bits / 8);
}

ParsedFile parse_safetensors(std::span<const std::byte> file, const std::string& what) {
  const std::string begin = what + ": ";
  std::uint64_t header_size = 0;
  if (file.size() < sizeof header_size)
    throw Error(begin + "is not a safetensors file, it has only " + std::to_string(file.size()) + " bytes");
  std::memcpy(&header_size, file.data(), sizeof header_size);
  if (header_size > kMostHeaderBytes)
    throw Error(begin + "is not a safetensors file: its header would have " + std::to_string(header_size) + " bytes, at most " +
                std::to_string(kMostHeaderBytes));
  if (header_size > file.size() - sizeof header_size)
    throw Error(begin + "its header would have " + std::to_string(header_size) + " bytes, the file has " +
                std::to_string(file.size()) + "; it is truncated or damaged");
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + sizeof header_size, header_size);
  if (!text.starts_with('{')) throw Error(begin + "is not a safetensors file: its header does not begin with {");
  const std::span<const std::byte> data = file.subspan(sizeof header_size + header_size);
  const SortedJson header = parse_sorted_json(text, begin + "header");

  ParsedFile parsed;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") {
      if (!entry.is_object()) throw Error(begin + "__metadata__ must be an object, got " + shown(entry));
      for (const auto& [key, value] : entry.items()) {
        if (!value.is_string()) throw Error(begin + "__metadata__ \"" + key + "\" must be text, got " + shown(value));
        parsed.metadata[key] = value.template get<std::string>();
      }
    } else {
      parsed.tensors.push_back(parse_tensor(name, entry, data, begin + "tensor \"" + name + "\": "));
    }
  }
  std::stable_sort(parsed.tensors.begin(), parsed.tensors.end(), [](const StoredTensor& a, const StoredTensor& b) {
    return a.bytes.data() != b.bytes.data() ? a.bytes.data() < b.bytes.data() : a.bytes.size() < b.bytes.size();
  });
  check_coverage(parsed.tensors, data, begin);
  return parsed;
}

std::map<std::string, std::string> parse_index(std::string_view text, const std::string& what) {
  const SortedJson json = parse_sorted_json(text, what);
  if (!json.is_object() || !json.contains("weight_map") || !json["weight_map"].is_object())
    throw Error(what + ": has no object \"weight_map\"");
  std::map<std::string, std::string> files;
  for (const auto& [name, file] : json["weight_map"].items()) {
    const auto* text_of = file.template get_ptr<const std::string*>();
    // Nothing outside of the folder.
    const bool plain = text_of != nullptr && !text_of->empty() && *text_of != "." && *text_of != ".." &&
                       text_of->find('/') == std::string::npos && text_of->find('\0') == std::string::npos;
    if (!plain) throw Error(what + ": tensor \"" + name + "\": must name a file of the same folder, got " + shown(file));
    files[name] = *text_of;
  }
  return files;
}

}  // namespace detail

namespace {

std::span<const std::byte> bytes_of(const MappedFile& file) { return std::as_bytes(std::span(file.text())); }

std::filesystem::path model_in(const std::filesystem::path& folder) {
  for (const char* name : {"model.safetensors", "model.safetensors.index.json"}) {
    std::error_code ignored;
    if (std::filesystem::exists(folder / name, ignored)) return folder / name;
  }
  throw Error("folder \"" + folder.string() + "\": holds neither model.safetensors nor model.safetensors.index.json");
}

bool by_name(const StoredTensor& a, const StoredTensor& b) { return a.name < b.name; }

template <class Stored, class To>
void convert(const std::byte* from, std::span<To> to) {
  for (std::size_t i = 0; i < to.size(); ++i) {
    Stored value;
    std::memcpy(&value, from + i * sizeof value, sizeof value);
    if constexpr (std::is_same_v<Stored, Bf16> || std::is_same_v<Stored, detail::F16>) {
      to[i] = static_cast<To>(to_float(value));
    } else {
      to[i] = static_cast<To>(value);
    }
  }
}

template <class To>
void read_any(const StoredTensor& tensor, std::int64_t first, std::span<To> to) {
  const auto size = static_cast<std::int64_t>(to.size());
  const std::string what = "tensor \"" + tensor.name + "\": ";
  if (first < 0 || first > tensor.elements() || size > tensor.elements() - first) {
    throw Error(what + "elements " + std::to_string(first) + " to " + std::to_string(first + size) + " are not in " +
                to_string(tensor));
  }
  const std::byte* from = tensor.bytes.data() + first * detail::bits_of(tensor.dtype) / 8;
  const std::string& d = tensor.dtype;
  if (d == "F32") return convert<float>(from, to);
  if (d == "BF16") return convert<Bf16>(from, to);
  if (d == "F16") return convert<detail::F16>(from, to);
  if (d == "F64") return convert<double>(from, to);
  if constexpr (std::is_same_v<To, double>) {
    if (d == "BOOL" || d == "U8") return convert<std::uint8_t>(from, to);
    if (d == "I8") return convert<std::int8_t>(from, to);
    if (d == "I16") return convert<std::int16_t>(from, to);
    if (d == "U16") return convert<std::uint16_t>(from, to);
    if (d == "I32") return convert<std::int32_t>(from, to);
    if (d == "U32") return convert<std::uint32_t>(from, to);
    if (d == "I64") return convert<std::int64_t>(from, to);
    if (d == "U64") return convert<std::uint64_t>(from, to);
  }
  throw Error(what + "cannot be read as " + (std::is_same_v<To, float> ? "f32" : "f64") + ", it is " + to_string(tensor));
}

}  // namespace

std::int64_t StoredTensor::elements() const {
  std::int64_t count = 1;
  for (const std::int64_t dim : shape) count = dim == 0 ? 0 : count * dim;
  return count;
}

std::string to_string(const StoredTensor& tensor) {
  std::string text = tensor.dtype + "[";
  for (std::size_t i = 0; i < tensor.shape.size(); ++i) text += (i ? ", " : "") + std::to_string(tensor.shape[i]);
  return text + "]";
}

Safetensors::Safetensors(const std::filesystem::path& path) {
  std::error_code ignored;
  path_ = std::filesystem::is_directory(path, ignored) ? model_in(path) : path;
  std::map<std::string, std::string> index;
  const bool sharded = path_.extension() == ".json";
  if (sharded) {
    index = detail::parse_index(MappedFile(path_).text(), "safetensors index \"" + path_.string() + "\"");
    for (const auto& [tensor, file] : index) files_.push_back(path_.parent_path() / file);
    std::sort(files_.begin(), files_.end());
    files_.erase(std::unique(files_.begin(), files_.end()), files_.end());
  } else {
    files_.push_back(path_);
  }

  for (const std::filesystem::path& file : files_) {
    const std::string what = "safetensors \"" + file.string() + "\"";
    maps_.emplace_back(file);
    detail::ParsedFile parsed = detail::parse_safetensors(bytes_of(maps_.back()), what);
    for (StoredTensor& tensor : parsed.tensors) {
      if (sharded) {
        const auto found = index.find(tensor.name);
        if (found == index.end()) throw Error(what + ": tensor \"" + tensor.name + "\" is not in the index");
        if (found->second != file.filename())
          throw Error(what + ": tensor \"" + tensor.name + "\" is in " + found->second + " by the index");
      }
      tensors_.push_back(std::move(tensor));
    }
    metadata_.merge(parsed.metadata);
  }
  std::sort(tensors_.begin(), tensors_.end(), by_name);
  for (const auto& [tensor, file] : index) {
    if (!contains(tensor)) throw Error("safetensors index \"" + path_.string() + "\": tensor \"" + tensor + "\" is not in " + file);
  }
}

const StoredTensor* Safetensors::find(std::string_view name) const {
  const auto found = std::lower_bound(tensors_.begin(), tensors_.end(), name,
                                      [](const StoredTensor& t, std::string_view n) { return t.name < n; });
  return found != tensors_.end() && found->name == name ? &*found : nullptr;
}

const StoredTensor& Safetensors::at(std::string_view name) const {
  if (const StoredTensor* found = find(name)) return *found;
  std::vector<std::string> known;
  for (const StoredTensor& tensor : tensors_) known.push_back(tensor.name);
  throw Error("safetensors \"" + path_.string() + "\": no tensor \"" + std::string(name) + "\"" + names_near(name, known));
}

void read_values(const StoredTensor& tensor, std::int64_t first, std::span<float> to) { read_any(tensor, first, to); }
void read_values(const StoredTensor& tensor, std::int64_t first, std::span<double> to) { read_any(tensor, first, to); }

}  // namespace graft::hf
