#pragma once
#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

namespace graft {

enum class DType : std::uint8_t { f32, f64, bf16, u32 };

std::string_view to_string(DType dtype);
constexpr bool is_float(DType dtype) { return dtype != DType::u32; }
/// Bytes of one element.
constexpr std::size_t size_of(DType dtype) {
  return dtype == DType::f64 ? 8 : dtype == DType::bf16 ? 2 : 4;
}

/// Dimensions of a tensor: rank 0 (scalar), 1 (vector) or 2 (matrix), row-major, every dimension ≥ 1.
/// Sequences of a batch are stacked as rows and heads are concatenated in the columns, so rank 2 is all there is.
class Shape {
 public:
  Shape() = default;
  /// Throws Error when the rank is above 2 or a dimension is below 1.
  Shape(std::initializer_list<std::int64_t> dims);

  int rank() const { return rank_; }
  std::int64_t operator[](int axis) const { return dims_[static_cast<std::size_t>(axis)]; }
  /// Rows of the matrix this shape is stored as: a vector or scalar has one.
  std::int64_t rows() const { return rank_ == 2 ? dims_[0] : 1; }
  /// Length of the last dimension: 1 for a scalar.
  std::int64_t cols() const { return rank_ == 0 ? 1 : dims_[static_cast<std::size_t>(rank_ - 1)]; }
  std::int64_t size() const { return rows() * cols(); }
  bool operator==(const Shape&) const = default;

 private:
  std::array<std::int64_t, 2> dims_{};
  int rank_ = 0;
};

/// "[3, 4]", "[3]" or "[]".
std::string to_string(const Shape& shape);

struct TensorType {
  DType dtype = DType::f32;
  Shape shape;
  std::size_t bytes() const { return static_cast<std::size_t>(shape.size()) * size_of(dtype); }
  bool operator==(const TensorType&) const = default;
};

/// "f32[3, 4]".
std::string to_string(const TensorType& type);

/// One output of one node of a graph. A default-made Value names nothing.
struct Value {
  std::int32_t node = -1;
  std::int32_t slot = 0;
  explicit operator bool() const { return node >= 0; }
  auto operator<=>(const Value&) const = default;
};

}  // namespace graft
