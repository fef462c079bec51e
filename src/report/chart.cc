#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <limits>

#include "graft/error.h"
#include "graft/report.h"

namespace graft {
namespace {

constexpr double kWidth = 760, kHeight = 440, kLeft = 64, kRight = 20, kTop = 44, kBottom = 52;

std::string number(double value, int digits = 2) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%.*f", digits, value);
  return buffer;
}

std::string escaped(const std::string& text) {
  std::string out;
  for (char c : text) out += c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '>' ? "&gt;" : std::string(1, c);
  return out;
}

/// 1, 2 or 5 times a power of ten, so that the range holds about `count` steps.
double tick_step(double range, int count) {
  const double rough = range / count, power = std::pow(10.0, std::floor(std::log10(rough)));
  for (double factor : {1.0, 2.0, 5.0})
    if (factor * power >= rough) return factor * power;
  return 10.0 * power;
}

struct AxisRange {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  void include(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
  void settle() {
    if (low > high) low = 0.0, high = 1.0;
    if (low == high) low -= 0.5, high += 0.5;
  }
};

std::string text_at(double x, double y, const std::string& text, const std::string& attributes) {
  return "<text x=\"" + number(x) + "\" y=\"" + number(y) + "\" " + attributes + ">" + escaped(text) + "</text>\n";
}

}  // namespace

std::vector<std::pair<double, double>> smoothed(const std::vector<std::pair<double, double>>& xy, double weight) {
  std::vector<std::pair<double, double>> out;
  double mean = 0.0, correction = 0.0;
  for (const auto& [x, y] : xy) {
    if (!std::isfinite(y)) continue;
    mean = weight * mean + (1.0 - weight) * y;
    correction = weight * correction + (1.0 - weight);
    out.emplace_back(x, mean / correction);
  }
  return out;
}

void write_chart_svg(const std::filesystem::path& file, const std::string& title, const std::string& x_label, const std::string& y_label,
                     const std::vector<Series>& series) {
  AxisRange xs, ys;
  for (const Series& s : series)
    for (const auto& [x, y] : s.xy)
      if (std::isfinite(x) && std::isfinite(y)) xs.include(x), ys.include(y);
  xs.settle();
  ys.settle();
  const double x_step = tick_step(xs.high - xs.low, 8), y_step = tick_step(ys.high - ys.low, 6);
  ys.low = std::floor(ys.low / y_step) * y_step;
  ys.high = std::ceil(ys.high / y_step) * y_step;
  const auto px = [&](double x) { return kLeft + (x - xs.low) / (xs.high - xs.low) * (kWidth - kLeft - kRight); };
  const auto py = [&](double y) { return kHeight - kBottom - (y - ys.low) / (ys.high - ys.low) * (kHeight - kTop - kBottom); };

  std::string svg = "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " + number(kWidth, 0) + " " + number(kHeight, 0) +
                    "\" font-family=\"Helvetica, Arial, sans-serif\" font-size=\"12\" fill=\"#333\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n";
  svg += text_at(kLeft, 26, title, "font-size=\"15\" font-weight=\"bold\"");
  const int digits = std::max(0, -static_cast<int>(std::floor(std::log10(y_step))));
  for (double y = ys.low; y <= ys.high + y_step / 2; y += y_step) {
    svg += "<line x1=\"" + number(kLeft) + "\" x2=\"" + number(kWidth - kRight) + "\" y1=\"" + number(py(y)) + "\" y2=\"" + number(py(y)) + "\" stroke=\"#e5e5e5\"/>\n";
    svg += text_at(kLeft - 8, py(y) + 4, number(y, digits), "text-anchor=\"end\"");
  }
  const int x_digits = std::max(0, -static_cast<int>(std::floor(std::log10(x_step))));
  for (double x = std::ceil(xs.low / x_step) * x_step; x <= xs.high + x_step * 1e-6; x += x_step)
    svg += text_at(px(x), kHeight - kBottom + 18, number(x, x_digits), "text-anchor=\"middle\"");
  svg += "<path d=\"M" + number(kLeft) + " " + number(kTop) + "V" + number(kHeight - kBottom) + "H" + number(kWidth - kRight) + "\" fill=\"none\" stroke=\"#999\"/>\n";
  svg += text_at((kLeft + kWidth - kRight) / 2, kHeight - 12, x_label, "text-anchor=\"middle\"");
  svg += text_at(16, (kTop + kHeight - kBottom) / 2, y_label, "text-anchor=\"middle\" transform=\"rotate(-90 16 " + number((kTop + kHeight - kBottom) / 2) + ")\"");

  double legend = kWidth - kRight - 12;
  for (const Series& s : series) {
    std::string path, marks;
    for (const auto& [x, y] : s.xy) {
      if (!std::isfinite(x) || !std::isfinite(y)) continue;
      path += (path.empty() ? "M" : "L") + number(px(x)) + " " + number(py(y));
      if (s.points) marks += "<circle cx=\"" + number(px(x)) + "\" cy=\"" + number(py(y)) + "\" r=\"3\" fill=\"" + s.colour + "\"/>\n";
    }
    svg += "<path d=\"" + path + "\" fill=\"none\" stroke=\"" + s.colour + "\" stroke-width=\"" + (s.faint ? "1\" stroke-opacity=\"0.3" : "1.8") + "\"/>\n" + marks;
  }
  for (auto s = series.rbegin(); s != series.rend(); ++s) {
    if (s->name.empty()) continue;
    svg += text_at(legend, 26, s->name, "text-anchor=\"end\" fill=\"" + s->colour + "\" font-weight=\"bold\"");
    legend -= 7.5 * static_cast<double>(s->name.size()) + 18;
  }
  svg += "</svg>\n";

  std::ofstream out(file, std::ios::binary);
  out << svg << std::flush;
  if (!out) throw Error("chart \"" + file.string() + "\": cannot be written: " + std::strerror(errno));
}

}  // namespace graft
