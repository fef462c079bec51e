#pragma once
// Text of pictures: numbers, escapes, SVG elements.
#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace graft::report::detail {

/// With `digits` behind the point, trailing zeros and all.
std::string number(double value, int digits = 2);
/// With three significant digits: "0.0123", "1.23", "123", "1.2e-07".
std::string short_number(double value);
/// "512 B", "1.5 KB", "31.2 MB" (powers of 1000).
std::string byte_text(double bytes);
/// "12.3 µs", "1.23 ms", "2.1 s".
std::string time_text(double seconds);
/// 1234567 as "1,234,567".
std::string grouped(long long value);
/// &, <, >, " and control characters made harmless for XML and HTML.
std::string escaped(std::string_view text);
/// The text cut to `most` characters, with … in its middle.
std::string shortened(const std::string& text, std::size_t most);

/// Roughly how wide a text is in Helvetica of a size.
double text_width(std::string_view text, double size);

/// 1, 2 or 5 times a power of ten, so that the range holds about `count` steps.
double tick_step(double range, int count);
/// Digits behind the point that show multiples of a step.
int digits_of(double step);

/// Collects elements of one picture; `str` closes it. The background is white and rounded, so that it looks right on dark pages too.
class Svg {
 public:
  void rect(double x, double y, double w, double h, const std::string& attributes);
  void text(double x, double y, std::string_view content, const std::string& attributes = {});
  void line(double x1, double y1, double x2, double y2, const std::string& attributes);
  void path(const std::string& d, const std::string& attributes);
  void raw(const std::string& element) { body_ += element; }
  const std::string& body() const { return body_; }
  std::string str(double width, double height, std::string_view label) const;

 private:
  std::string body_;
};

/// Writes a file in one go. Throws Error `what "file": cannot be written: …`.
void write_text(const std::filesystem::path& file, std::string_view content, std::string_view what);

std::string base64(std::string_view bytes);

}  // namespace graft::report::detail
