#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include "graft/error.h"
#include "graft/pictures.h"
#include "src/op_traits.h"
#include "src/report/diagram.h"
#include "src/report/svg.h"

namespace graft::report {
namespace {

using namespace detail;

enum class Kind : std::uint8_t { saved, activation, gradient, weight_gradient, update, result };
struct Look {
  const char *name, *colour;
};
constexpr std::array<Look, 6> kLooks = {{{"saved for the backward pass", "#4e79a7"},
                                         {"forward only", "#a0cbe8"},
                                         {"gradients of activations", "#f28e2b"},
                                         {"gradients of parameters", "#e15759"},
                                         {"update", "#79706e"},
                                         {"results kept", "#59a14f"}}};

/// What one buffer of the arena holds, by the first value that lives in it.
struct Held {
  std::string name;
  Kind kind = Kind::activation;
};

class Memory {
 public:
  explicit Memory(const Plan& plan) : plan_(plan), parts_(parts_of(plan.graph())), held_(plan.buffers().size()) {
    const std::vector<Node>& nodes = plan.graph().nodes();
    std::vector<bool> named(held_.size()), read_by_backward(held_.size()), read_by_update(held_.size()), kept(held_.size());
    for (std::size_t n = 0; n < nodes.size(); ++n) {
      for (std::size_t slot = 0; slot < nodes[n].outputs.size(); ++slot) {
        const Value v = {static_cast<std::int32_t>(n), static_cast<std::int32_t>(slot)};
        const std::int32_t b = plan.buffer_of(v);
        if (b == Plan::kNone) continue;
        const auto buffer = static_cast<std::size_t>(b);
        if (plan.kept(v)) kept[buffer] = true;
        if (named[buffer]) continue;
        named[buffer] = true;
        held_[buffer].name = nodes[n].name + (slot > 0 ? ":" + std::to_string(slot) : "");
        held_[buffer].kind = parts_[n] == Part::forward    ? Kind::activation
                             : parts_[n] == Part::backward ? Kind::gradient
                                                           : Kind::update;
      }
      for (Value v : nodes[n].inputs) {
        const std::int32_t b = plan.buffer_of(v);
        if (b == Plan::kNone) continue;
        if (parts_[n] == Part::backward) read_by_backward[static_cast<std::size_t>(b)] = true;
        if (parts_[n] == Part::update && overwrites(nodes[n].op)) read_by_update[static_cast<std::size_t>(b)] = true;
      }
    }
    for (std::size_t b = 0; b < held_.size(); ++b) {
      if (held_[b].kind == Kind::activation && read_by_backward[b]) held_[b].kind = Kind::saved;
      if (held_[b].kind == Kind::gradient && read_by_update[b]) held_[b].kind = Kind::weight_gradient;
      if (kept[b]) held_[b].kind = Kind::result;
    }
  }

  const Held& held(std::size_t buffer) const { return held_[buffer]; }
  Part part(std::size_t position) const { return parts_[static_cast<std::size_t>(plan_.order()[position])]; }

 private:
  const Plan& plan_;
  std::vector<Part> parts_;
  std::vector<Held> held_;
};

/// Where each node of the order begins, and at last where the step ends: its number, or its time.
std::vector<double> begins(const Plan& plan, const Profile* profile) {
  std::vector<double> at = {0};
  for (std::size_t i = 0; i < plan.order().size(); ++i)
    at.push_back(at.back() + (profile != nullptr ? profile->nodes[i].seconds : 1.0));
  return at;
}

/// "20 MB", not "20.0 MB".
std::string tick_text(double bytes) {
  std::string text = byte_text(bytes);
  if (const std::size_t zero = text.find(".0 "); zero != std::string::npos) text.erase(zero, 2);
  return text;
}

/// "model.layers.0.mlp.gate_proj.matmul_0" without what every name of a decoder has.
std::string plain_name(std::string name) {
  for (std::string_view prefix : {"grad.", "model."})
    for (std::size_t found = name.find(prefix); found != std::string::npos; found = name.find(prefix))
      name.erase(found, prefix.size());
  return name;
}

}  // namespace

std::string memory_svg(const Plan& plan, const MemoryPicture& options) {
  const std::size_t steps = plan.order().size();
  if (options.profile != nullptr && options.profile->nodes.size() != steps)
    throw Error("memory picture: the profile is of another plan, of " + std::to_string(options.profile->nodes.size()) +
                " nodes and not " + std::to_string(steps));
  const Memory memory(plan);
  const std::vector<double> at = begins(plan, options.profile);
  std::vector<double> used(steps + 1);
  std::vector<std::size_t> shown;
  for (std::size_t b = 0; b < plan.buffers().size(); ++b) {
    const Plan::Buffer& buffer = plan.buffers()[b];
    if (buffer.persistent || buffer.first == Plan::kNone) continue;
    shown.push_back(b);
    for (std::int32_t i = buffer.first; i <= std::min(buffer.last, static_cast<std::int32_t>(steps) - 1); ++i)
      used[static_cast<std::size_t>(i)] += static_cast<double>(buffer.bytes);
  }
  const auto peak = static_cast<std::size_t>(std::max_element(used.begin(), used.end()) - used.begin());

  constexpr double kWidth = 860, kLeft = 76, kTop = 92, kPlotHeight = 330, kNames = 22;
  const double right = kWidth - 24, bottom = kTop + kPlotHeight;
  const double arena = std::max<double>(1, static_cast<double>(plan.arena_bytes())), y_step = tick_step(arena, 6),
               high = arena * 1.02;
  const double end = std::max(at.back(), 1e-12);
  const auto px = [&](double x) { return kLeft + x / end * (right - kLeft); };
  const auto py = [&](double bytes) { return bottom - bytes / high * kPlotHeight; };

  Svg svg;
  const std::string title = options.title.empty()
                                ? "Memory of a step: " + byte_text(arena) + ", " +
                                      byte_text(static_cast<double>(plan.bytes_without_reuse())) + " without reuse"
                                : options.title;
  svg.text(24, 28, title, "font-size=\"15\" font-weight=\"bold\"");
  for (double bytes = 0; bytes <= high; bytes += y_step) {
    svg.line(kLeft, py(bytes), right, py(bytes), "stroke=\"#ececec\"");
    svg.text(kLeft - 8, py(bytes) + 4, tick_text(bytes), "text-anchor=\"end\" font-size=\"11\"");
  }

  // The parts of the step, as bands above the plot.
  constexpr std::array<const char*, 3> kParts = {"forward", "backward", "update"};
  constexpr std::array<const char*, 3> kBands = {"#e3edf7", "#fdebd9", "#ececec"};
  for (std::size_t i = 0; i < steps;) {
    std::size_t next = i + 1;
    while (next < steps && memory.part(next) == memory.part(i)) ++next;
    const auto part = static_cast<std::size_t>(memory.part(i));
    const double x = px(at[i]), w = px(at[next]) - x;
    svg.rect(x, kTop - 22, w, 18, std::string("fill=\"") + kBands[part] + "\"");
    if (text_width(kParts[part], 11) + 8 < w)
      svg.text(x + w / 2, kTop - 9, kParts[part], "text-anchor=\"middle\" font-size=\"11\" fill=\"#666\"");
    if (i > 0 && w > 2) svg.line(x, kTop - 4, x, bottom, "stroke=\"#bbb\" stroke-dasharray=\"2 3\"");
    i = next;
  }

  std::vector<std::size_t> largest = shown;
  std::sort(largest.begin(), largest.end(), [&](std::size_t a, std::size_t b) {
    const auto size = [&](std::size_t i) { return plan.buffers()[i].bytes; };
    return size(a) != size(b) ? size(a) > size(b) : a < b;
  });
  largest.resize(std::min(largest.size(), static_cast<std::size_t>(std::max(0, options.named))));
  std::array<bool, kLooks.size()> occurs = {};
  for (std::size_t b : shown) {
    const Plan::Buffer& buffer = plan.buffers()[b];
    const auto kind = static_cast<std::size_t>(memory.held(b).kind);
    occurs[kind] = true;
    const auto last = std::min(static_cast<std::size_t>(buffer.last), steps - 1) + 1;
    const double x = px(at[static_cast<std::size_t>(buffer.first)]), w = std::max(0.5, px(at[last]) - x);
    const double h = std::max(0.4, py(0) - py(static_cast<double>(buffer.bytes))), y = py(static_cast<double>(buffer.offset)) - h;
    svg.raw("<g><title>" +
            escaped(memory.held(b).name + ", " + byte_text(static_cast<double>(buffer.bytes)) + ": " + kLooks[kind].name) +
            "</title>");
    svg.rect(
        x, y, w, h,
        std::string("fill=\"") + kLooks[kind].colour + "\"" + (h > 3 && w > 3 ? " stroke=\"white\" stroke-width=\"0.6\"" : ""));
    const auto rank = std::find(largest.begin(), largest.end(), b);
    if (rank != largest.end()) {
      const std::string mark = std::to_string(rank - largest.begin() + 1);
      svg.raw("</g>\n");
      if (h > 9)
        svg.text(x + w / 2, y + h / 2 + 3.5, mark,
                 "text-anchor=\"middle\" font-size=\"10\" font-weight=\"bold\" fill=\"white\" stroke=\"#333\" stroke-width=\"1.6\" "
                 "paint-order=\"stroke\"");
    } else {
      svg.raw("</g>\n");
    }
  }

  std::string line;
  for (std::size_t i = 0; i < steps; ++i)
    line += (i == 0 ? "M" : "L") + number(px(at[i]), 1) + " " + number(py(used[i]), 1) + "H" + number(px(at[i + 1]), 1);
  svg.path(line, "fill=\"none\" stroke=\"#222\" stroke-width=\"1.3\"");
  if (steps > 0) {
    const double x = px((at[peak] + at[peak + 1]) / 2), y = py(used[peak]);
    const std::string text = "peak " + byte_text(used[peak]) + " at " +
                             shortened(plain_name(plan.graph().nodes()[static_cast<std::size_t>(plan.order()[peak])].name), 34);
    const bool left = x > (kLeft + right) / 2;
    svg.raw("<circle cx=\"" + number(x, 1) + "\" cy=\"" + number(y, 1) + "\" r=\"3.5\" fill=\"#222\"/>\n");
    svg.text(x, 62, text, std::string("font-size=\"11\" font-weight=\"bold\" text-anchor=\"") + (left ? "end" : "start") + "\"");
    svg.line(x, 66, x, y, "stroke=\"#222\" stroke-width=\"0.8\" stroke-dasharray=\"3 2\"");
  }
  svg.path("M" + number(kLeft) + " " + number(kTop) + "V" + number(bottom) + "H" + number(right), "fill=\"none\" stroke=\"#999\"");
  const bool timed = options.profile != nullptr;
  const double x_step = tick_step(end, 8);
  for (double x = 0; x <= end * (1 + 1e-9); x += x_step)
    svg.text(px(x), bottom + 16, timed ? (x == 0 ? std::string("0") : time_text(x)) : number(x, 0),
             "text-anchor=\"middle\" font-size=\"11\"");
  svg.text((kLeft + right) / 2, bottom + 34, timed ? "time in the step" : "nodes in the order they run", "text-anchor=\"middle\"");
  svg.text(18, (kTop + bottom) / 2, "place in the arena",
           "text-anchor=\"middle\" transform=\"rotate(-90 18 " + number((kTop + bottom) / 2) + ")\"");

  double x = kLeft, y = bottom + 58;
  const auto entry = [&](double width, const auto& mark, const std::string& name) {
    if (x > kLeft && x + width > right) x = kLeft, y += 18;
    mark();
    svg.text(x + 16, y, name, "font-size=\"11\"");
    x += width;
  };
  for (std::size_t k = 0; k < kLooks.size(); ++k)
    if (occurs[k])
      entry(
          34 + text_width(kLooks[k].name, 11),
          [&] { svg.rect(x, y - 9, 11, 11, std::string("rx=\"2\" fill=\"") + kLooks[k].colour + "\""); }, kLooks[k].name);
  entry(
      40 + text_width("bytes in use", 11), [&] { svg.line(x - 2, y - 4, x + 12, y - 4, "stroke=\"#222\" stroke-width=\"1.3\""); },
      "bytes in use");
  y += kNames;
  for (std::size_t i = 0; i < largest.size(); ++i) {
    const double column = kLeft + static_cast<double>(i % 2) * (right - kLeft) / 2;
    if (i > 0 && i % 2 == 0) y += 15;
    svg.text(column, y,
             std::to_string(i + 1) + "  " + shortened(plain_name(memory.held(largest[i]).name), 46) + " · " +
                 byte_text(static_cast<double>(plan.buffers()[largest[i]].bytes)),
             "font-size=\"11\" fill=\"#555\"");
  }
  return svg.str(kWidth, y + 16, title);
}

}  // namespace graft::report
