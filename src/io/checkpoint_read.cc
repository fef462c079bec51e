#include <algorithm>
#include <array>
#include <memory>

#include "src/io/checkpoint_layout.h"
#include "src/io/errors.h"
#include "src/io/hdf5_handles.h"
#include "src/io/seal.h"

namespace graft::detail {
namespace {

struct Link {
  std::string name;
  bool hard;
};

herr_t add_link(hid_t, const char* name, const H5L_info_t* info, void* links) {
  try {
    static_cast<std::vector<Link>*>(links)->push_back({name, info->type == H5L_TYPE_HARD});
    return 0;
  } catch (...) {
    return -1;
  }
}

class Reader {
 public:
  explicit Reader(const std::filesystem::path& file) : h5_(file) {
    const PropertiesHandle access(h5_.check(H5Pcreate(H5P_FILE_ACCESS), "make properties"));
    h5_.check(H5Pset_fapl_sec2(access.get()), "make properties");
    file_ = FileHandle(h5_.check(H5Fopen(file.c_str(), H5F_ACC_RDONLY, access.get()), "open it as HDF5"));
    h5_.check(H5Fget_filesize(file_.get(), &left_), "read its size");
  }

  Checkpoint read() {
    const hid_t root = file_.get();
    if (text(root, kFormatAttribute) != kFormat) fail(h5_.file(), "is not a graft checkpoint: attribute \"format\" says otherwise");
    if (const auto version = number<std::int64_t>(root, kVersionAttribute, H5T_INTEGER, H5T_NATIVE_INT64);
        version > kCheckpointVersion) {
      fail(h5_.file(), "was written by a newer graft: format version " + std::to_string(version) + ", this build reads up to " +
                           std::to_string(kCheckpointVersion));
    }
    if (!has_attribute(root, kCompleteAttribute) ||
        number<std::int64_t>(root, kCompleteAttribute, H5T_INTEGER, H5T_NATIVE_INT64) != 1) {
      fail(h5_.file(), "is incomplete: its writing was not finished");
    }
    Checkpoint checkpoint;
    checkpoint.step = number<std::int64_t>(root, kStepAttribute, H5T_INTEGER, H5T_NATIVE_INT64);
    checkpoint.graph_hash = number<std::uint64_t>(root, kGraphHashAttribute, H5T_INTEGER, H5T_NATIVE_UINT64);
    if (has_attribute(root, kMetricAttribute)) {
      checkpoint.metric = number<double>(root, kMetricAttribute, H5T_FLOAT, H5T_NATIVE_DOUBLE);
    }
    checkpoint.config = text(root, kConfigAttribute);
    const GroupHandle schedule(h5_.check(H5Gopen2(root, kScheduleGroup, H5P_DEFAULT), "open group \"schedule\""));
    checkpoint.schedule = text(schedule.get(), kScheduleAttribute);
    read_group(root, "", 0, checkpoint.tensors);
    std::sort(checkpoint.tensors.begin(), checkpoint.tensors.end(),
              [](const SavedTensor& a, const SavedTensor& b) { return a.path < b.path; });
    return checkpoint;
  }

 private:
  bool has_attribute(hid_t object, const char* name) {
    return h5_.check(H5Aexists(object, name), std::string("look for attribute \"") + name + "\"") > 0;
  }

  // The open attribute `name`, which holds one element of the given class.
  std::pair<AttributeHandle, TypeHandle> attribute(hid_t object, const char* name, H5T_class_t expected) {
    if (!has_attribute(object, name)) fail(h5_.file(), std::string("has no attribute \"") + name + "\"");
    const std::string doing = std::string("read attribute \"") + name + "\"";
    AttributeHandle attribute(h5_.check(H5Aopen(object, name, H5P_DEFAULT), doing));
    TypeHandle type(h5_.check(H5Aget_type(attribute.get()), doing));
    const SpaceHandle space(h5_.check(H5Aget_space(attribute.get()), doing));
    if (H5Tget_class(type.get()) != expected || H5Sget_simple_extent_type(space.get()) != H5S_SCALAR) {
      fail(h5_.file(), std::string("attribute \"") + name + "\" has another type than a checkpoint's");
    }
    return {std::move(attribute), std::move(type)};
  }

  template <class T>
  T number(hid_t object, const char* name, H5T_class_t expected, hid_t memory_type) {
    const auto [handle, type] = attribute(object, name, expected);
    T value{};
    h5_.check(H5Aread(handle.get(), memory_type, &value), std::string("read attribute \"") + name + "\"");
    return value;
  }

  std::string text(hid_t object, const char* name) {
    const auto [handle, type] = attribute(object, name, H5T_STRING);
    if (h5_.check(H5Tis_variable_str(type.get()), "read a type") == 0) {
      fail(h5_.file(), std::string("attribute \"") + name + "\" has another type than a checkpoint's");
    }
    const TypeHandle memory_type = h5_.text_type();
    char* characters = nullptr;
    h5_.check(H5Aread(handle.get(), memory_type.get(), &characters), std::string("read attribute \"") + name + "\"");
    const std::unique_ptr<char, decltype(&H5free_memory)> owner(characters, H5free_memory);
    return characters == nullptr ? "" : characters;
  }

  void read_group(hid_t group, const std::string& prefix, int depth, std::vector<SavedTensor>& tensors) {
    constexpr int kDeepest = 64;  // a file made by others may hold a cycle
    if (depth > kDeepest) fail(h5_.file(), "group \"" + prefix + "\" lies too deep");
    std::vector<Link> links;
    h5_.check(H5Literate(group, H5_INDEX_NAME, H5_ITER_INC, nullptr, add_link, &links), "list group \"" + prefix + "\"");
    for (const Link& link : links) {
      const std::string path = prefix + link.name;
      // Its header takes that much at least. A file made by others may link one object many times, and so seem to hold any number.
      constexpr hsize_t kObjectBytes = 16;
      if (left_ < kObjectBytes) fail(h5_.file(), "\"" + path + "\" is more than a checkpoint of this size can hold");
      left_ -= kObjectBytes;
      if (!link.hard) fail(h5_.file(), "\"" + path + "\" is a soft or external link, which a checkpoint has none of");
      const ObjectHandle object(h5_.check(H5Oopen(group, link.name.c_str(), H5P_DEFAULT), "open \"" + path + "\""));
      if (const H5I_type_t kind = H5Iget_type(object.get()); kind == H5I_GROUP) {
        read_group(object.get(), path + "/", depth + 1, tensors);
      } else if (kind == H5I_DATASET) {
        tensors.push_back(read_tensor(object.get(), path));
      } else {
        fail(h5_.file(), "\"" + path + "\" is neither a group nor a dataset");
      }
    }
  }

  DType dtype_of(hid_t type, const std::string& path) {
    for (const DType dtype : {DType::f32, DType::f64, DType::bf16, DType::u32}) {
      if (H5Tequal(type, h5_.type(dtype).get()) > 0) return dtype;
    }
    fail(h5_.file(), "\"" + path + "\" has an element type other than f32, f64, bf16 and u32");
  }

  SavedTensor read_tensor(hid_t dataset, const std::string& path) {
    const std::string doing = "read \"" + path + "\"";
    const TypeHandle type(h5_.check(H5Dget_type(dataset), doing));
    const SpaceHandle space(h5_.check(H5Dget_space(dataset), doing));
    const int rank = H5Sget_simple_extent_ndims(space.get());
    if (H5Sget_simple_extent_type(space.get()) != H5S_SIMPLE || rank < 1 || rank > 2) {
      fail(h5_.file(), "\"" + path + "\" has neither one nor two dimensions");
    }
    std::array<hsize_t, 2> dims = {1, 1};
    h5_.check(H5Sget_simple_extent_dims(space.get(), dims.data() + (2 - rank), nullptr), doing);
    SavedTensor tensor{path, {dtype_of(type.get(), path), {}}, {}};
    const hsize_t most = left_ / size_of(tensor.type.dtype);  // nothing is compressed or there twice
    if (dims[0] == 0 || dims[1] == 0 || dims[0] > most || dims[1] > most / dims[0]) {
      fail(h5_.file(), "\"" + path + "\" has dimensions " + std::to_string(dims[0]) + " and " + std::to_string(dims[1]) +
                           ", which no checkpoint of this size can hold");
    }
    const auto rows = static_cast<std::int64_t>(dims[0]), cols = static_cast<std::int64_t>(dims[1]);
    if (!has_attribute(dataset, kScalarAttribute)) {
      tensor.type.shape = rank == 2 ? Shape{rows, cols} : Shape{cols};
    } else if (rank != 1 || cols != 1) {
      fail(h5_.file(), "\"" + path + "\" is marked as a scalar, but has more than one element");
    }
    const PropertiesHandle creation(h5_.check(H5Dget_create_plist(dataset), doing));
    unsigned flags = 0;
    std::size_t no_values = 0;
    if (H5Pget_layout(creation.get()) != H5D_CHUNKED || H5Pget_nfilters(creation.get()) != 1 ||
        H5Pget_filter2(creation.get(), 0, &flags, &no_values, nullptr, 0, nullptr, nullptr) != H5Z_FILTER_FLETCHER32) {
      fail(h5_.file(), "\"" + path + "\" is not stored as a checkpoint's tensors are");  // in another file, say
    }
    left_ -= tensor.type.bytes();
    tensor.bytes.resize(tensor.type.bytes());
    h5_.check(H5Dread(dataset, h5_.type(tensor.type.dtype).get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, tensor.bytes.data()), doing);
    return tensor;
  }

  Hdf5 h5_;
  FileHandle file_;
  hsize_t left_ = 0;  // of the file's bytes, those that nothing read so far takes
};

}  // namespace
}  // namespace graft::detail

namespace graft {

Checkpoint read_checkpoint(const std::filesystem::path& file) {
  detail::check_seal(file);
  return detail::Reader(file).read();
}

}  // namespace graft
