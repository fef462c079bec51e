#include "src/report/png.h"

#include <algorithm>
#include <cmath>

#include "graft/error.h"

namespace graft::report::detail {
namespace {

std::string big_endian(std::uint32_t value) {
  return {static_cast<char>(value >> 24), static_cast<char>(value >> 16), static_cast<char>(value >> 8), static_cast<char>(value)};
}

/// CRC-32 of ISO 3309, as PNG wants it.
std::uint32_t crc32(const std::string& bytes) {
  std::uint32_t crc = 0xffffffffu;
  for (char c : bytes) {
    crc ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0u);
  }
  return ~crc;
}

std::uint32_t adler32(const std::string& bytes) {
  std::uint32_t a = 1, b = 0;
  for (char c : bytes) {
    a = (a + static_cast<unsigned char>(c)) % 65521;
    b = (b + a) % 65521;
  }
  return b << 16 | a;
}

std::string chunk(const std::string& type, const std::string& data) {
  return big_endian(static_cast<std::uint32_t>(data.size())) + type + data + big_endian(crc32(type + data));
}

/// One deflate block with the fixed codes of RFC 1951, section 3.2.6.
class Deflate {
 public:
  Deflate() { bits(0b011, 3); }

  void literal(std::uint32_t byte) { byte < 144 ? code(0x30 + byte, 8) : code(0x190 + byte - 144, 9); }

  /// `length` in 3 … 258 bytes, copied from `distance` in 1 … 32768 bytes before.
  void copy(std::uint32_t length, std::uint32_t distance) {
    std::uint32_t symbol = 285, extra = 0, extra_bits = 0;
    if (length < 258) {
      std::uint32_t base = 3;
      for (symbol = 257;; ++symbol) {
        extra_bits = symbol < 265 ? 0 : (symbol - 261) / 4;
        if (length < base + (1u << extra_bits)) break;
        base += 1u << extra_bits;
      }
      extra = length - base;
    }
    symbol < 280 ? code(symbol - 256, 7) : code(0xc0 + symbol - 280, 8);
    bits(extra, extra_bits);

    std::uint32_t base = 1;
    for (symbol = 0;; ++symbol) {
      extra_bits = symbol < 4 ? 0 : symbol / 2 - 1;
      if (distance < base + (1u << extra_bits)) break;
      base += 1u << extra_bits;
    }
    code(symbol, 5);
    bits(distance - base, extra_bits);
  }

  std::string finish() {
    code(0, 7);  // end of block
    if (used_ > 0) out_ += static_cast<char>(hold_);
    return std::move(out_);
  }

 private:
  /// Lowest bit first.
  void bits(std::uint32_t value, std::uint32_t count) {
    for (std::uint32_t i = 0; i < count; ++i) {
      hold_ |= (value >> i & 1) << used_;
      if (++used_ == 8) out_ += static_cast<char>(hold_), hold_ = 0, used_ = 0;
    }
  }
  /// Highest bit first.
  void code(std::uint32_t value, std::uint32_t count) {
    for (std::uint32_t i = count; i-- > 0;) bits(value >> i & 1, 1);
  }

  std::string out_;
  std::uint32_t hold_ = 0, used_ = 0;
};

/// Looks for a run, or a repetition of the row above: all that pictures made of cells have.
std::string deflated(const std::string& bytes, std::size_t row) {
  constexpr std::size_t kLongest = 258, kFarthest = 32768;
  Deflate out;
  for (std::size_t at = 0; at < bytes.size();) {
    std::size_t best = 0, distance = 0;
    for (std::size_t d : {std::size_t{1}, row}) {
      if (d > at || d > kFarthest) continue;
      std::size_t length = 0;
      while (length < kLongest && at + length < bytes.size() && bytes[at + length] == bytes[at + length - d]) ++length;
      if (length > best) best = length, distance = d;
    }
    if (best < 3) {
      out.literal(static_cast<unsigned char>(bytes[at++]));
    } else {
      out.copy(static_cast<std::uint32_t>(best), static_cast<std::uint32_t>(distance));
      at += best;
    }
  }
  return out.finish();
}

}  // namespace

std::string png(std::int64_t width, std::int64_t height, const std::vector<std::uint8_t>& pixels, const std::vector<Rgb>& palette) {
  GRAFT_ASSERT(width > 0 && height > 0 && pixels.size() == static_cast<std::size_t>(width * height) && !palette.empty() &&
               palette.size() <= 256);
  std::string colours, rows;
  for (const Rgb& rgb : palette) colours.append(rgb.begin(), rgb.end());
  for (std::int64_t y = 0; y < height; ++y) {
    rows += '\0';  // no filter
    const auto begin = pixels.begin() + static_cast<std::ptrdiff_t>(y * width);
    rows.append(begin, begin + static_cast<std::ptrdiff_t>(width));
  }
  const std::string header = big_endian(static_cast<std::uint32_t>(width)) + big_endian(static_cast<std::uint32_t>(height)) +
                             std::string("\x08\x03\0\0\0", 5);
  const std::string data = "\x78\x01" + deflated(rows, static_cast<std::size_t>(width) + 1) + big_endian(adler32(rows));
  return "\x89PNG\r\n\x1a\n" + chunk("IHDR", header) + chunk("PLTE", colours) + chunk("IDAT", data) + chunk("IEND", "");
}

Rgb heat(double f) {
  constexpr std::array<std::array<double, 3>, 5> kStops = {
      {{255, 255, 255}, {172, 208, 236}, {66, 133, 196}, {28, 64, 128}, {10, 16, 52}}};
  const double at = std::clamp(f, 0.0, 1.0) * (kStops.size() - 1);
  const auto low = std::min(static_cast<std::size_t>(at), kStops.size() - 2);
  Rgb rgb{};
  for (std::size_t c = 0; c < 3; ++c)
    rgb[c] = static_cast<std::uint8_t>(
        std::lround(kStops[low][c] + (at - static_cast<double>(low)) * (kStops[low + 1][c] - kStops[low][c])));
  return rgb;
}

std::string hex(const Rgb& rgb) {
  constexpr const char* kDigits = "0123456789abcdef";
  std::string text = "#";
  for (std::uint8_t c : rgb) text += {kDigits[c >> 4], kDigits[c & 15]};
  return text;
}

}  // namespace graft::report::detail
