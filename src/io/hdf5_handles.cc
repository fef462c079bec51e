#include "src/io/hdf5_handles.h"

#include "src/io/errors.h"

namespace graft::detail {
namespace {

// The library has one state for the whole process, so its lock is the process's too.
std::mutex& hdf5_lock() {
  static std::mutex lock;
  return lock;
}

// The first record of an upward walk is the innermost: the reason.
herr_t keep_first(unsigned n, const H5E_error2_t* error, void* reason) {
  if (n == 0 && error->desc != nullptr) *static_cast<std::string*>(reason) = error->desc;
  return 0;
}

}  // namespace

Hdf5::Hdf5(std::filesystem::path file) : file_(std::move(file)), alone_(hdf5_lock()) {
  H5Eget_auto2(H5E_DEFAULT, &print_, &print_data_);
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}

Hdf5::~Hdf5() { H5Eset_auto2(H5E_DEFAULT, print_, print_data_); }

void Hdf5::fail_with_reason(std::string_view doing) const {
  std::string reason = "HDF5 gives no reason";
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_first, &reason);
  fail(file_, "cannot " + std::string(doing) + ": " + reason);
}

TypeHandle Hdf5::type(DType dtype) const {
  const auto copy = [this](hid_t type) { return TypeHandle(check(H5Tcopy(type), "make a data type")); };
  switch (dtype) {
    case DType::f32: return copy(H5T_IEEE_F32LE);
    case DType::f64: return copy(H5T_IEEE_F64LE);
    case DType::u32: return copy(H5T_STD_U32LE);
    case DType::bf16: break;
  }
  TypeHandle bf16 = copy(H5T_IEEE_F32LE);  // 1 sign bit, 8 exponent bits with bias 127, 7 mantissa bits
  const std::string_view doing = "make the data type bf16";
  check(H5Tset_fields(bf16.get(), 15, 7, 8, 0, 7), doing);
  check(H5Tset_precision(bf16.get(), 16), doing);
  check(H5Tset_size(bf16.get(), 2), doing);
  check(H5Tset_ebias(bf16.get(), 127), doing);
  return bf16;
}

TypeHandle Hdf5::text_type() const {
  TypeHandle type(check(H5Tcopy(H5T_C_S1), "make a text type"));
  check(H5Tset_size(type.get(), H5T_VARIABLE), "make a text type");
  check(H5Tset_cset(type.get(), H5T_CSET_UTF8), "make a text type");
  return type;
}

}  // namespace graft::detail
