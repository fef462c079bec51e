#include "src/report/svg.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>

#include "graft/error.h"

namespace graft::report::detail {

std::string number(double value, int digits) {
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, "%.*f", digits, value);
  return buffer;
}

std::string short_number(double value) {
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, "%.3g", value);
  return buffer;
}

std::string byte_text(double bytes) {
  constexpr const char* kUnits[] = {" B", " KB", " MB", " GB", " TB"};
  std::size_t unit = 0;
  for (; bytes >= 999.5 && unit < 4; ++unit) bytes /= 1000;
  return number(bytes, unit == 0 || bytes >= 99.95 ? 0 : 1) + kUnits[unit];
}

std::string time_text(double seconds) {
  if (seconds < 0.9995e-3) return number(seconds * 1e6, seconds < 99.95e-6 ? 1 : 0) + " µs";
  if (seconds < 0.9995) return number(seconds * 1e3, seconds < 9.995e-3 ? 2 : seconds < 99.95e-3 ? 1 : 0) + " ms";
  return number(seconds, 2) + " s";
}

std::string grouped(long long value) {
  std::string text = std::to_string(value);
  const std::size_t first = text[0] == '-' ? 1 : 0;
  for (std::size_t at = text.size(); at > first + 3;) text.insert(at -= 3, ",");
  return text;
}

std::string escaped(std::string_view text) {
  std::string out;
  for (char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      default: out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    }
  }
  return out;
}

std::string shortened(const std::string& text, std::size_t most) {
  if (text.size() <= most) return text;
  const std::size_t end = (most - 1) * 2 / 3, begin = most - 1 - end;
  return text.substr(0, begin) + "…" + text.substr(text.size() - end);
}

double text_width(std::string_view text, double size) {
  double width = 0;
  for (char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x80 && byte < 0xc0) continue;  // the rest of a UTF-8 character
    width += std::strchr("iljt.,:;'|![]()/ ", c) != nullptr ? 0.32 : std::strchr("mwMW%@", c) != nullptr ? 0.86 : 0.57;
  }
  return width * size;
}

double tick_step(double range, int count) {
  const double rough = range / count, power = std::pow(10.0, std::floor(std::log10(rough)));
  for (double factor : {1.0, 2.0, 5.0})
    if (factor * power >= rough) return factor * power;
  return 10.0 * power;
}

int digits_of(double step) { return std::max(0, -static_cast<int>(std::floor(std::log10(step)))); }

void Svg::rect(double x, double y, double w, double h, const std::string& attributes) {
  body_ += "<rect x=\"" + number(x) + "\" y=\"" + number(y) + "\" width=\"" + number(w) + "\" height=\"" + number(h) + "\" " +
           attributes + "/>\n";
}

void Svg::text(double x, double y, std::string_view content, const std::string& attributes) {
  body_ += "<text x=\"" + number(x) + "\" y=\"" + number(y) + "\"" + (attributes.empty() ? "" : " " + attributes) + ">" +
           escaped(content) + "</text>\n";
}

void Svg::line(double x1, double y1, double x2, double y2, const std::string& attributes) {
  body_ += "<line x1=\"" + number(x1) + "\" y1=\"" + number(y1) + "\" x2=\"" + number(x2) + "\" y2=\"" + number(y2) + "\" " +
           attributes + "/>\n";
}

void Svg::path(const std::string& d, const std::string& attributes) { body_ += "<path d=\"" + d + "\" " + attributes + "/>\n"; }

std::string Svg::str(double width, double height, std::string_view label) const {
  const std::string w = number(std::ceil(width), 0), h = number(std::ceil(height), 0);
  return "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"" + w + "\" height=\"" + h + "\" viewBox=\"0 0 " + w + " " + h +
         "\" role=\"img\" aria-label=\"" + escaped(label) +
         "\" font-family=\"Helvetica, Arial, sans-serif\" font-size=\"12\" fill=\"#333\">\n<rect width=\"100%\" height=\"100%\" "
         "rx=\"8\" fill=\"white\"/>\n" +
         body_ + "</svg>\n";
}

void write_text(const std::filesystem::path& file, std::string_view content, std::string_view what) {
  errno = 0;
  std::ofstream out(file, std::ios::binary);
  out.write(content.data(), static_cast<std::streamsize>(content.size())).flush();
  if (!out) throw Error(std::string(what) + " \"" + file.string() + "\": cannot be written: " + std::strerror(errno));
}

std::string base64(std::string_view bytes) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t group = 0;
    for (std::size_t k = 0; k < 3; ++k) group = group << 8 | (i + k < bytes.size() ? static_cast<unsigned char>(bytes[i + k]) : 0u);
    for (std::size_t k = 0; k < 4; ++k) out += i + k <= bytes.size() ? kDigits[group >> (18 - 6 * k) & 63] : '=';
  }
  return out;
}

}  // namespace graft::report::detail
