#pragma once
// The bytes of TensorBoard's event files: the few messages of event.proto and summary.proto that are needed, framed as TFRecords.
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace graft::report::detail {

/// A protocol buffer message being put together (protobuf.dev/programming-guides/encoding).
class Message {
 public:
  Message& integer(int field, std::uint64_t value);             ///< int64, uint64, enum
  Message& number(int field, double value);                     ///< double
  Message& number32(int field, float value);                    ///< float
  Message& bytes(int field, std::string_view value);            ///< string, bytes, message
  Message& numbers(int field, std::span<const double> values);  ///< packed doubles
  const std::string& str() const { return out_; }

 private:
  void varint(std::uint64_t value);
  void key(int field, int wire);
  void fixed(std::uint64_t value, int bytes);
  std::string out_;
};

/// CRC-32C (Castagnoli) of bytes, and as TFRecords mask it.
std::uint32_t crc32c(std::string_view bytes);
std::uint32_t masked(std::uint32_t crc);

/// u64 length, masked crc of the length, the bytes, masked crc of the bytes; little-endian.
std::string record(std::string_view bytes);

std::string version_event(double wall_time);
std::string session_start_event(double wall_time, std::int64_t step);
std::string scalar_event(double wall_time, std::int64_t step, std::string_view tag, double value);
/// "" when no value is finite.
std::string histogram_event(double wall_time, std::int64_t step, std::string_view tag, std::span<const double> values);
std::string image_event(double wall_time, std::int64_t step, std::string_view tag, std::string_view png, std::int64_t width,
                        std::int64_t height);

}  // namespace graft::report::detail
