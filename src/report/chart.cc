#include <algorithm>
#include <cmath>
#include <limits>

#include "graft/report.h"
#include "src/report/svg.h"

namespace graft {
namespace {

constexpr double kWidth = 760, kHeight = 440, kLeft = 64, kRight = 20, kTop = 44, kBottom = 52;

using namespace report::detail;

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

void write_chart_svg(const std::filesystem::path& file, const std::string& title, const std::string& x_label,
                     const std::string& y_label, const std::vector<Series>& series) {
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

  Svg svg;
  svg.text(kLeft, 26, title, "font-size=\"15\" font-weight=\"bold\"");
  const int digits = digits_of(y_step);
  for (double y = ys.low; y <= ys.high + y_step / 2; y += y_step) {
    svg.line(kLeft, py(y), kWidth - kRight, py(y), "stroke=\"#e5e5e5\"");
    svg.text(kLeft - 8, py(y) + 4, number(y, digits), "text-anchor=\"end\"");
  }
  for (double x = std::ceil(xs.low / x_step) * x_step; x <= xs.high + x_step * 1e-6; x += x_step)
    svg.text(px(x), kHeight - kBottom + 18, number(x, digits_of(x_step)), "text-anchor=\"middle\"");
  svg.path("M" + number(kLeft) + " " + number(kTop) + "V" + number(kHeight - kBottom) + "H" + number(kWidth - kRight),
           "fill=\"none\" stroke=\"#999\"");
  svg.text((kLeft + kWidth - kRight) / 2, kHeight - 12, x_label, "text-anchor=\"middle\"");
  svg.text(16, (kTop + kHeight - kBottom) / 2, y_label,
           "text-anchor=\"middle\" transform=\"rotate(-90 16 " + number((kTop + kHeight - kBottom) / 2) + ")\"");

  for (const Series& s : series) {
    std::string path, marks;
    for (const auto& [x, y] : s.xy) {
      if (!std::isfinite(x) || !std::isfinite(y)) continue;
      path += (path.empty() ? "M" : "L") + number(px(x)) + " " + number(py(y));
      if (s.points)
        marks += "<circle cx=\"" + number(px(x)) + "\" cy=\"" + number(py(y)) + "\" r=\"3\" fill=\"" + s.colour + "\"/>\n";
    }
    svg.path(path,
             "fill=\"none\" stroke=\"" + s.colour + "\" stroke-width=\"" + (s.faint ? "1\" stroke-opacity=\"0.6\"" : "1.8\""));
    svg.raw(marks);
  }
  double legend = kWidth - kRight - 12;
  for (auto s = series.rbegin(); s != series.rend(); ++s) {
    if (s->name.empty()) continue;
    svg.text(legend, 26, s->name, "text-anchor=\"end\" fill=\"" + s->colour + "\" font-weight=\"bold\"");
    legend -= text_width(s->name, 13) + 20;
  }
  write_text(file, svg.str(kWidth, kHeight, title), "chart");
}

}  // namespace graft
