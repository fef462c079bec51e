#include "src/report/events.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <vector>

namespace graft::report::detail {

void Message::varint(std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) out_ += static_cast<char>(value | 0x80);
  out_ += static_cast<char>(value);
}

void Message::key(int field, int wire) { varint(static_cast<std::uint64_t>(field) << 3 | static_cast<std::uint64_t>(wire)); }

void Message::fixed(std::uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out_ += static_cast<char>(value >> (8 * i));
}

Message& Message::integer(int field, std::uint64_t value) {
  key(field, 0);
  varint(value);
  return *this;
}

Message& Message::number(int field, double value) {
  key(field, 1);
  fixed(std::bit_cast<std::uint64_t>(value), 8);
  return *this;
}

Message& Message::number32(int field, float value) {
  key(field, 5);
  fixed(std::bit_cast<std::uint32_t>(value), 4);
  return *this;
}

Message& Message::bytes(int field, std::string_view value) {
  key(field, 2);
  varint(value.size());
  out_ += value;
  return *this;
}

Message& Message::numbers(int field, std::span<const double> values) {
  key(field, 2);
  varint(values.size() * 8);
  for (double value : values) fixed(std::bit_cast<std::uint64_t>(value), 8);
  return *this;
}

std::uint32_t crc32c(std::string_view bytes) {
  static const std::array<std::uint32_t, 256> table = [] {
    std::array<std::uint32_t, 256> made{};
    for (std::uint32_t i = 0; i < 256; ++i) {
      made[i] = i;
      for (int bit = 0; bit < 8; ++bit) made[i] = made[i] >> 1 ^ (made[i] & 1 ? 0x82f63b78u : 0u);
    }
    return made;
  }();
  std::uint32_t crc = 0xffffffffu;
  for (char c : bytes) crc = crc >> 8 ^ table[(crc ^ static_cast<unsigned char>(c)) & 0xff];
  return ~crc;
}

std::uint32_t masked(std::uint32_t crc) { return std::rotr(crc, 15) + 0xa282ead8u; }

std::string record(std::string_view bytes) {
  const auto little = [](std::uint64_t value, int count) {
    std::string out;
    for (int i = 0; i < count; ++i) out += static_cast<char>(value >> (8 * i));
    return out;
  };
  const std::string length = little(bytes.size(), 8);
  return length + little(masked(crc32c(length)), 4) + std::string(bytes) + little(masked(crc32c(bytes)), 4);
}

namespace {

// Field numbers of event.proto: wall_time 1, step 2, file_version 3, summary 5, session_log 7;
// of summary.proto, Summary: value 1; Summary.Value: tag 1, simple_value 2, image 4, histo 5; Image: height 1, width 2, colorspace 3,
// encoded_image_string 4; HistogramProto: min 1, max 2, num 3, sum 4, sum_squares 5, bucket_limit 6, bucket 7; SessionLog: status 1 (START 1).
Message event(double wall_time, std::int64_t step) {
  Message message;
  message.number(1, wall_time);
  if (step != 0) message.integer(2, static_cast<std::uint64_t>(step));
  return message;
}

std::string summary(double wall_time, std::int64_t step, const Message& value) {
  return event(wall_time, step).bytes(5, Message().bytes(1, value.str()).str()).str();
}

}  // namespace

std::string version_event(double wall_time) { return event(wall_time, 0).bytes(3, "brain.Event:2").str(); }

std::string session_start_event(double wall_time, std::int64_t step) {
  return event(wall_time, step).bytes(7, Message().integer(1, 1).str()).str();
}

std::string scalar_event(double wall_time, std::int64_t step, std::string_view tag, double value) {
  return summary(wall_time, step, Message().bytes(1, tag).number32(2, static_cast<float>(value)));
}

std::string histogram_event(double wall_time, std::int64_t step, std::string_view tag, std::span<const double> values) {
  constexpr int kBins = 30;
  double low = HUGE_VAL, high = -HUGE_VAL, sum = 0, squares = 0, count = 0;
  for (double x : values) {
    if (!std::isfinite(x)) continue;
    low = std::min(low, x), high = std::max(high, x);
    sum += x, squares += x * x, count += 1;
  }
  if (count == 0) return {};
  std::vector<double> limits, counts;
  if (low == high) {
    limits = {high}, counts = {count};
  } else {
    counts.assign(kBins, 0);
    for (int i = 1; i < kBins; ++i) limits.push_back(low + (high - low) * i / kBins);
    limits.push_back(high);
    // A bin holds what is above the limit before it, and at most its own.
    for (double x : values)
      if (std::isfinite(x))
        counts[static_cast<std::size_t>(std::lower_bound(limits.begin(), limits.end() - 1, x) - limits.begin())] += 1;
  }
  const Message histogram = Message()
                                .number(1, low)
                                .number(2, high)
                                .number(3, count)
                                .number(4, sum)
                                .number(5, squares)
                                .numbers(6, limits)
                                .numbers(7, counts);
  return summary(wall_time, step, Message().bytes(1, tag).bytes(5, histogram.str()));
}

std::string image_event(double wall_time, std::int64_t step, std::string_view tag, std::string_view png, std::int64_t width,
                        std::int64_t height) {
  const Message image = Message()
                            .integer(1, static_cast<std::uint64_t>(height))
                            .integer(2, static_cast<std::uint64_t>(width))
                            .integer(3, 3)
                            .bytes(4, png);
  return summary(wall_time, step, Message().bytes(1, tag).bytes(4, image.str()));
}

}  // namespace graft::report::detail
