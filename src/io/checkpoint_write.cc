#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <numeric>
#include <set>
#include <span>

#include "src/io/atomic_file.h"
#include "src/io/checkpoint_layout.h"
#include "src/io/content_hash.h"
#include "src/io/errors.h"
#include "src/io/hdf5_handles.h"
#include "src/io/seal.h"

namespace graft::detail {
namespace {

bool is_path(std::string_view path) {
  if (path.find('\0') != std::string_view::npos) return false;
  for (std::size_t begin = 0;;) {
    const std::size_t end = std::min(path.find('/', begin), path.size());
    const std::string_view part = path.substr(begin, end - begin);
    if (part.empty() || part == "." || part == "..") return false;
    if (end == path.size()) return true;
    begin = end + 1;
  }
}

// The tensors by path, so that the order they come in leaves no mark in the file.
std::vector<const SavedTensor*> checked_and_sorted(const std::filesystem::path& file, const Checkpoint& checkpoint) {
  if (checkpoint.config.find('\0') != std::string::npos) fail(file, "cannot write: the configuration holds a zero byte");
  if (checkpoint.schedule.find('\0') != std::string::npos) fail(file, "cannot write: the schedule holds a zero byte");
  std::vector<const SavedTensor*> tensors;
  std::set<std::string_view> groups = {kScheduleGroup};
  for (const SavedTensor& tensor : checkpoint.tensors) {
    const std::string named = "cannot write: tensor \"" + tensor.path + "\"";
    if (!is_path(tensor.path)) fail(file, named + " has a name that is no path");
    if (tensor.bytes.size() != tensor.type.bytes()) {
      fail(file, named + " of type " + to_string(tensor.type) + " needs " + std::to_string(tensor.type.bytes()) + " bytes, got " +
                     std::to_string(tensor.bytes.size()));
    }
    for (std::size_t slash = tensor.path.find('/'); slash != std::string::npos; slash = tensor.path.find('/', slash + 1)) {
      groups.insert(std::string_view(tensor.path).substr(0, slash));
    }
    tensors.push_back(&tensor);
  }
  std::sort(tensors.begin(), tensors.end(), [](const SavedTensor* a, const SavedTensor* b) { return a->path < b->path; });
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (i > 0 && tensors[i]->path == tensors[i - 1]->path)
      fail(file, "cannot write: two tensors are named \"" + tensors[i]->path + "\"");
    if (groups.contains(tensors[i]->path)) fail(file, "cannot write: \"" + tensors[i]->path + "\" names a tensor and a group");
  }
  return tensors;
}

class Writer {
 public:
  Writer(const std::filesystem::path& file, std::size_t bytes) : h5_(file) {
    const auto properties = [this](hid_t of) { return PropertiesHandle(h5_.check(H5Pcreate(of), "make properties")); };
    // The file is made in memory: HDF5 never meets a full disk, which it does not survive well.
    PropertiesHandle access = properties(H5P_FILE_ACCESS), creation = properties(H5P_FILE_CREATE);
    const std::size_t growth = std::clamp(bytes / 16, std::size_t{1} << 16, std::size_t{1} << 26);
    h5_.check(H5Pset_fapl_core(access.get(), growth, false), "make a file in memory");
    h5_.check(H5Pset_libver_bounds(access.get(), H5F_LIBVER_V18, H5F_LIBVER_V18), "set the library version");
    h5_.check(H5Pset_userblock(creation.get(), kSealSize), "set the user block");
    h5_.check(H5Pset_obj_track_times(creation.get(), false), "leave out times");
    image_ = FileHandle(
        h5_.check(H5Fcreate("/dev/null/checkpoint", H5F_ACC_TRUNC, creation.get(), access.get()), "make a file in memory"));

    group_creation_ = properties(H5P_GROUP_CREATE);
    h5_.check(H5Pset_obj_track_times(group_creation_.get(), false), "leave out times");
    link_creation_ = properties(H5P_LINK_CREATE);
    h5_.check(H5Pset_char_encoding(link_creation_.get(), H5T_CSET_UTF8), "set the encoding of names");
    dataset_creation_ = properties(H5P_DATASET_CREATE);
    h5_.check(H5Pset_obj_track_times(dataset_creation_.get(), false), "leave out times");
    h5_.check(H5Pset_fletcher32(dataset_creation_.get()), "set the checksum");
    scalar_ = SpaceHandle(h5_.check(H5Screate(H5S_SCALAR), "make a data space"));
  }

  template <class T>
  void root_attribute(const char* name, hid_t type, const T& value) {
    attribute(image_.get(), name, type, type, &value);
  }
  void root_text(const char* name, const std::string& text) { text_attribute(image_.get(), name, text); }

  void schedule(const std::string& text) { text_attribute(group(kScheduleGroup), kScheduleAttribute, text); }

  void tensor(const SavedTensor& tensor) {
    const std::string doing = "write \"" + tensor.path + "\"";
    const Shape& shape = tensor.type.shape;
    const auto element = static_cast<std::int64_t>(size_of(tensor.type.dtype));
    const std::int64_t chunk_cols = std::min(shape.cols(), kChunkBytes / element);
    const std::int64_t chunk_rows = std::clamp<std::int64_t>(kChunkBytes / (chunk_cols * element), 1, shape.rows());
    const std::array<hsize_t, 2> dims = {static_cast<hsize_t>(shape.rows()), static_cast<hsize_t>(shape.cols())};
    const std::array<hsize_t, 2> chunk = {static_cast<hsize_t>(chunk_rows), static_cast<hsize_t>(chunk_cols)};
    const int rank = shape.rank() == 2 ? 2 : 1;  // HDF5 cannot checksum a scalar: it is stored as one element
    const std::size_t first = rank == 2 ? 0 : 1;

    const SpaceHandle space(h5_.check(H5Screate_simple(rank, dims.data() + first, nullptr), doing));
    h5_.check(H5Pset_chunk(dataset_creation_.get(), rank, chunk.data() + first), doing);
    const TypeHandle type = h5_.type(tensor.type.dtype);
    const std::size_t slash = tensor.path.rfind('/');
    const hid_t parent = slash == std::string::npos ? image_.get() : group(tensor.path.substr(0, slash));
    const DatasetHandle dataset(h5_.check(H5Dcreate2(parent, tensor.path.c_str() + (slash + 1), type.get(), space.get(),
                                                     link_creation_.get(), dataset_creation_.get(), H5P_DEFAULT),
                                          doing));
    h5_.check(H5Dwrite(dataset.get(), type.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, tensor.bytes.data()), doing);
    if (shape.rank() == 0) {
      const std::int32_t one = 1;
      attribute(dataset.get(), kScalarAttribute, H5T_STD_I32LE, H5T_NATIVE_INT32, &one);
    }
  }

  /// The file's bytes, valid as long as this writer; the first kSealSize are for the seal.
  std::span<const std::byte> bytes() {
    h5_.check(H5Fflush(image_.get(), H5F_SCOPE_GLOBAL), "finish the file in memory");
    hsize_t held = 0;
    h5_.check(H5Fget_filesize(image_.get(), &held), "finish the file in memory");
    void* handle = nullptr;  // of a file in memory: where the pointer to its bytes stands
    h5_.check(H5Fget_vfd_handle(image_.get(), H5P_DEFAULT, &handle), "finish the file in memory");
    const auto* data = static_cast<const std::byte*>(*static_cast<void**>(handle));
    std::uint64_t end = 0;  // "end of file address" of a version 2 superblock
    GRAFT_ASSERT(held > kSealSize + 48);
    std::memcpy(&end, data + kSealSize + 28, sizeof end);
    GRAFT_ASSERT(data[kSealSize + 8] == std::byte{2} && end > kSealSize && end <= held);
    return {data, static_cast<std::size_t>(end)};
  }

 private:
  void attribute(hid_t object, const char* name, hid_t file_type, hid_t memory_type, const void* value) {
    const std::string doing = std::string("write attribute \"") + name + "\"";
    const AttributeHandle handle(h5_.check(H5Acreate2(object, name, file_type, scalar_.get(), H5P_DEFAULT, H5P_DEFAULT), doing));
    h5_.check(H5Awrite(handle.get(), memory_type, value), doing);
  }

  void text_attribute(hid_t object, const char* name, const std::string& text) {
    const TypeHandle type = h5_.text_type();
    const char* characters = text.c_str();
    attribute(object, name, type.get(), type.get(), &characters);
  }

  hid_t group(const std::string& path) {
    const auto [at, is_new] = groups_.try_emplace(path);
    if (is_new) {
      const std::size_t slash = path.rfind('/');
      const hid_t parent = slash == std::string::npos ? image_.get() : group(path.substr(0, slash));
      at->second = GroupHandle(
          h5_.check(H5Gcreate2(parent, path.c_str() + (slash + 1), link_creation_.get(), group_creation_.get(), H5P_DEFAULT),
                    "make group \"" + path + "\""));
    }
    return at->second.get();
  }

  Hdf5 h5_;
  FileHandle image_;
  PropertiesHandle group_creation_, link_creation_, dataset_creation_;
  SpaceHandle scalar_;
  std::map<std::string, GroupHandle> groups_;
};

}  // namespace

void write_checkpoint(AtomicFile& out, const Checkpoint& checkpoint, double metric) {
  const std::filesystem::path& file = out.file();
  const std::vector<const SavedTensor*> tensors = checked_and_sorted(file, checkpoint);
  const std::size_t total = std::transform_reduce(tensors.begin(), tensors.end(), std::size_t{0}, std::plus<>(),
                                                  [](const SavedTensor* tensor) { return tensor->bytes.size(); });
  Writer writer(file, total);
  writer.root_text(kFormatAttribute, kFormat);
  writer.root_attribute(kVersionAttribute, H5T_STD_I32LE, std::int32_t{kCheckpointVersion});
  writer.root_attribute(kStepAttribute, H5T_STD_I64LE, checkpoint.step);
  writer.root_attribute(kGraphHashAttribute, H5T_STD_U64LE, checkpoint.graph_hash);
  if (!std::isnan(metric)) writer.root_attribute(kMetricAttribute, H5T_IEEE_F64LE, metric);
  writer.root_text(kConfigAttribute, checkpoint.config);
  writer.schedule(checkpoint.schedule);
  for (const SavedTensor* tensor : tensors) writer.tensor(*tensor);
  writer.root_attribute(kCompleteAttribute, H5T_STD_I32LE, std::int32_t{1});

  const std::span<const std::byte> bytes = writer.bytes();
  ContentHash hash;
  hash.update(bytes.subspan(kSealSize));
  out.write(make_seal(kCheckpointVersion, bytes.size(), hash.value()));
  out.write(bytes.subspan(kSealSize));
}

}  // namespace graft::detail

namespace graft {

void write_checkpoint(const std::filesystem::path& file, const Checkpoint& checkpoint) {
  detail::AtomicFile out(file);
  detail::write_checkpoint(out, checkpoint, checkpoint.metric);
  out.commit();
}

}  // namespace graft
