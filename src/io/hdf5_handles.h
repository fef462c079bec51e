#pragma once
#include <hdf5.h>

#include <filesystem>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

#include "graft/types.h"

namespace graft::detail {

/// An HDF5 identifier that closes itself.
template <herr_t (*close)(hid_t)>
class Handle {
 public:
  Handle() = default;
  explicit Handle(hid_t id) : id_(id) {}
  ~Handle() {
    if (id_ >= 0) close(id_);
  }
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, -1)) {}
  Handle& operator=(Handle&& other) noexcept {
    std::swap(id_, other.id_);
    return *this;
  }
  hid_t get() const { return id_; }

 private:
  hid_t id_ = -1;
};
using FileHandle = Handle<H5Fclose>;
using GroupHandle = Handle<H5Gclose>;
using DatasetHandle = Handle<H5Dclose>;
using AttributeHandle = Handle<H5Aclose>;
using SpaceHandle = Handle<H5Sclose>;
using TypeHandle = Handle<H5Tclose>;
using PropertiesHandle = Handle<H5Pclose>;
using ObjectHandle = Handle<H5Oclose>;

/// One use of the HDF5 library for `file`: alone in the library, which not every build of it protects; its error printing is
/// off meanwhile, and its failures become graft::Error.
class Hdf5 {
 public:
  explicit Hdf5(std::filesystem::path file);
  ~Hdf5();
  Hdf5(const Hdf5&) = delete;
  Hdf5& operator=(const Hdf5&) = delete;

  const std::filesystem::path& file() const { return file_; }
  /// Gives `result` back, or throws Error `checkpoint "file": cannot <doing>: <HDF5's reason>` when it is negative.
  template <class T>
  T check(T result, std::string_view doing) const {
    if (result < 0) fail_with_reason(doing);
    return result;
  }

  /// The type of a dataset, and of its elements in memory.
  TypeHandle type(DType dtype) const;
  /// The type of attributes that hold text: variable length, UTF-8.
  TypeHandle text_type() const;

 private:
  [[noreturn]] void fail_with_reason(std::string_view doing) const;
  std::filesystem::path file_;
  std::lock_guard<std::mutex> alone_;
  H5E_auto2_t print_ = nullptr;
  void* print_data_ = nullptr;
};

}  // namespace graft::detail
