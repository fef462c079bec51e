#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <set>

#include "graft/pictures.h"
#include "src/report/diagram.h"
#include "src/report/layout.h"
#include "src/report/svg.h"

namespace graft::report {
namespace {

using namespace detail;

constexpr double kTitle = 12, kText = 10.5, kLine = 14, kPad = 8, kMargin = 20, kPartGap = 56, kPanelGap = 30, kHead = 26;

struct Area {
  double x = 0, y = 0, width = 0, height = 0;
};

/// A diagram drawn at the origin.
struct Drawing {
  Svg svg;
  double width = 0, height = 0;
};

bool is_pill(const Box& box) {
  return box.kind == Box::Kind::input || box.kind == Box::Kind::output || box.kind == Box::Kind::outside;
}

LayoutBox measured(const Box& box) {
  double width = text_width(box.title, kTitle) * 1.06 + (box.about.empty() ? 0 : 8 + text_width(box.about, kText));
  for (const std::string& line : box.lines) width = std::max(width, text_width(line, kText));
  const double lines = static_cast<double>(box.lines.size());
  return {std::max(width + 2 * kPad + 8, is_pill(box) ? 60.0 : 104.0), kTitle + 2 * kPad - 2 + kLine * lines, 0, 0};
}

/// From the points of a layout, an edge that leaves and arrives upright.
std::string curve(const std::vector<std::pair<double, double>>& points, const auto& place) {
  std::string d;
  for (std::size_t i = 0; i < points.size(); ++i) {
    const auto [x, y] = place(points[i].first, points[i].second);
    if (i == 0) {
      d = "M" + number(x, 1) + " " + number(y, 1);
      continue;
    }
    const auto [px, py] = place(points[i - 1].first, points[i - 1].second);
    const double middle = (py + y) / 2;
    d += std::abs(px - x) < 0.05 ? "V" + number(y, 1)
                                 : "C" + number(px, 1) + " " + number(middle, 1) + " " + number(x, 1) + " " + number(middle, 1) +
                                       " " + number(x, 1) + " " + number(y, 1);
  }
  return d;
}

void draw_box(Svg& svg, const Box& box, const Area& a, bool links, double slowest) {
  const bool link = links && box.opens >= 0;
  if (link) svg.raw("<a href=\"#block-" + std::to_string(box.opens) + "\">\n");
  svg.raw(box.idle ? "<g opacity=\"0.45\">" : "<g>");
  svg.raw("<title>" + escaped(box.tip) + "</title>\n");
  if (is_pill(box)) {
    svg.rect(a.x, a.y, a.width, a.height,
             "rx=\"" + number(std::min(14.0, a.height / 2), 1) + "\" fill=\"" +
                 (box.kind == Box::Kind::outside ? "#fafafa" : "#eef2f7") + "\" stroke=\"#9aa5b1\"" +
                 (box.kind == Box::Kind::outside ? " stroke-dasharray=\"3 3\"" : ""));
  } else {
    const bool group = box.kind == Box::Kind::group;
    const std::string colour = group ? "#5c677d" : family_colour(box.family);
    if (group && !box.about.empty())
      for (double shift : {6.0, 3.0})
        svg.rect(a.x + shift, a.y + shift, a.width, a.height, "rx=\"4\" fill=\"#f4f5f7\" stroke=\"#9aa5b1\"");
    svg.rect(a.x, a.y, a.width, a.height,
             std::string("rx=\"4\" fill=\"") + (group ? "#f4f5f7" : "white") + "\" stroke=\"" + colour + "\"");
    svg.path("M" + number(a.x + 4, 1) + " " + number(a.y, 1) + "h1.5v" + number(a.height, 1) + "h-1.5a4 4 0 0 1 -4 -4v" +
                 number(8 - a.height, 1) + "a4 4 0 0 1 4 -4z",
             "fill=\"" + colour + "\"");
    if (slowest > 0 && box.seconds > 0)
      svg.rect(a.x + 6, a.y + a.height - 3.5, (a.width - 7) * box.seconds / slowest, 3, "fill=\"#e15759\" fill-opacity=\"0.75\"");
  }
  double y = a.y + kPad + kTitle - 3;
  const double x = a.x + kPad + 4;
  svg.text(x, y, box.title, "font-weight=\"bold\"");
  if (!box.about.empty()) svg.text(x + text_width(box.title, kTitle) * 1.06 + 8, y, box.about, "font-size=\"10.5\" fill=\"#666\"");
  for (const std::string& line : box.lines) svg.text(x, y += kLine, line, "font-size=\"10.5\" fill=\"#555\"");
  svg.raw("</g>\n");
  if (link) svg.raw("</a>\n");
}

constexpr std::array<const char*, 3> kPartNames = {"forward", "backward", "update"};

Drawing draw(const Diagram& diagram, bool links) {
  Drawing drawing;
  const std::size_t count = diagram.boxes.size();
  std::vector<Area> areas(count);
  double slowest = 0;
  for (const Box& box : diagram.boxes)
    if (!is_pill(box)) slowest = std::max(slowest, box.seconds);

  // Each part has a layout of its own; they stand side by side.
  struct PartLayout {
    std::vector<std::size_t> boxes;
    std::vector<LayoutBox> layout;
    std::vector<LayoutEdge> edges;
    LayoutSize size;
    bool up = false;
    double x = 0;
  };
  std::array<PartLayout, 3> parts;
  std::vector<std::size_t> index(count);
  for (std::size_t b = 0; b < count; ++b) {
    PartLayout& part = parts[static_cast<std::size_t>(diagram.boxes[b].part)];
    index[b] = part.boxes.size();
    part.boxes.push_back(b);
    part.layout.push_back(measured(diagram.boxes[b]));
  }
  std::vector<std::pair<std::size_t, std::size_t>> across;
  for (const auto& [from, to] : diagram.edges) {
    const Part part = diagram.boxes[from].part;
    if (part == diagram.boxes[to].part)
      parts[static_cast<std::size_t>(part)].edges.push_back({index[from], index[to], {}});
    else
      across.emplace_back(from, to);
  }
  const bool many = std::count_if(parts.begin(), parts.end(), [](const PartLayout& p) { return !p.boxes.empty(); }) > 1;
  const double top = many ? kHead : 0;
  double x = 0;
  for (std::size_t p = 0; p < parts.size(); ++p) {
    PartLayout& part = parts[p];
    if (part.boxes.empty()) continue;
    part.up = p == 1;
    part.size = lay_out(part.layout, part.edges);
    part.x = x;
    x += part.size.width + kPartGap;
    drawing.height = std::max(drawing.height, top + part.size.height);
  }
  drawing.width = x - kPartGap + 8;
  drawing.height += 8;  // the shadows of folded blocks
  const auto place = [&](const PartLayout& part) {
    return [&, base = drawing.height - 8](double px, double py) { return std::pair(part.x + px, part.up ? base - py : top + py); };
  };
  for (const PartLayout& part : parts) {
    for (std::size_t i = 0; i < part.boxes.size(); ++i) {
      const LayoutBox& box = part.layout[i];
      const auto [cx, cy] = place(part)(box.x, box.y);
      areas[part.boxes[i]] = {cx - box.width / 2, cy - box.height / 2, box.width, box.height};
    }
  }

  for (const auto& [from, to] : across) {
    const Area &a = areas[from], &b = areas[to];
    const bool right = a.x < b.x;
    const double x1 = right ? a.x + a.width : a.x, y1 = a.y + a.height / 2, x2 = right ? b.x : b.x + b.width,
                 y2 = b.y + b.height / 2, bend = right ? 30 : -30;
    drawing.svg.path("M" + number(x1, 1) + " " + number(y1, 1) + "C" + number(x1 + bend, 1) + " " + number(y1, 1) + " " +
                         number(x2 - bend, 1) + " " + number(y2, 1) + " " + number(x2, 1) + " " + number(y2, 1),
                     std::string("fill=\"none\" stroke=\"") + (diagram.boxes[to].part == Part::update ? "#f28e2b" : "#8d99ae") +
                         "\" stroke-opacity=\"0.6\" stroke-dasharray=\"4 3\"");
  }
  for (const PartLayout& part : parts) {
    for (const LayoutEdge& edge : part.edges) {
      if (edge.points.empty()) continue;
      drawing.svg.path(curve(edge.points, place(part)), "fill=\"none\" stroke=\"#7a8490\" stroke-width=\"1.2\"");
      const auto [ex, ey] = place(part)(edge.points.back().first, edge.points.back().second);
      const double down = part.up ? -1 : 1;
      drawing.svg.path("M" + number(ex - 3.5, 1) + " " + number(ey - 6 * down, 1) + "L" + number(ex, 1) + " " + number(ey, 1) +
                           "L" + number(ex + 3.5, 1) + " " + number(ey - 6 * down, 1) + "Z",
                       "fill=\"#7a8490\"");
    }
  }
  for (std::size_t b = 0; b < count; ++b) draw_box(drawing.svg, diagram.boxes[b], areas[b], links, slowest);
  for (std::size_t p = 0; p < parts.size() && many; ++p)
    if (!parts[p].boxes.empty())
      drawing.svg.text(parts[p].x + parts[p].size.width / 2, kTitle, std::string(kPartNames[p]) + (parts[p].up ? "  ↑" : "  ↓"),
                       "text-anchor=\"middle\" font-size=\"13\" fill=\"#888\" letter-spacing=\"1\"");
  return drawing;
}

/// The colours that occur.
double legend(Svg& svg, const std::vector<Diagram>& diagrams, double x, double y, bool times) {
  std::set<std::string> families;
  for (const Diagram& d : diagrams)
    for (const Box& box : d.boxes)
      if (!is_pill(box) && box.kind != Box::Kind::group) families.insert(box.family);
  for (const std::string& family : families) {
    svg.rect(x, y - 9, 10, 10, "rx=\"2\" fill=\"" + family_colour(family) + "\"");
    svg.text(x + 14, y, family, "font-size=\"11\" fill=\"#555\"");
    x += 30 + text_width(family, 11);
  }
  if (times) {
    svg.rect(x, y - 5, 22, 3, "fill=\"#e15759\" fill-opacity=\"0.75\"");
    svg.text(x + 27, y, "time", "font-size=\"11\" fill=\"#555\"");
    x += 60;
  }
  return x;
}

std::string moved(const Drawing& drawing, double x, double y) {
  return "<g transform=\"translate(" + number(x, 1) + " " + number(y, 1) + ")\">\n" + drawing.svg.body() + "</g>\n";
}

std::string panel_title(const Diagram& diagrams_first, std::size_t which) {
  for (const Box& box : diagrams_first.boxes)
    if (box.opens == static_cast<std::int32_t>(which))
      return box.title + (box.about.empty() ? "" : ", one of " + box.about.substr(box.about.find(' ') + 1));
  return {};
}

/// The first folded blocks of the forward and of the backward pass that stand for the most layers.
std::vector<std::size_t> shown_blocks(const Diagram& whole) {
  std::vector<std::size_t> shown;
  for (Part part : {Part::forward, Part::backward}) {
    const Box* best = nullptr;
    for (const Box& box : whole.boxes)
      if (box.opens > 0 && box.part == part && (best == nullptr || box.nodes.size() > best->nodes.size())) best = &box;
    if (best != nullptr) shown.push_back(static_cast<std::size_t>(best->opens));
  }
  return shown;
}

std::string dot_text(std::string_view text) {
  std::string out;
  for (char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out;
}

}  // namespace

std::string graph_svg(const Graph& graph, const GraphPicture& options) {
  const std::vector<Diagram> diagrams = diagrams_of(graph, options);
  Svg svg;
  const double top = 64;
  double x = kMargin, y = top, width = 0, height = 0;
  std::vector<std::pair<std::size_t, Drawing>> drawings = {{0, draw(diagrams[0], false)}};
  for (std::size_t block : shown_blocks(diagrams[0])) drawings.emplace_back(block, draw(diagrams[block], false));
  for (const auto& [which, drawing] : drawings) {
    if (which == 0) {
      svg.raw(moved(drawing, x, y));
    } else {
      svg.rect(x, y - 8, drawing.width + 2 * 14, drawing.height + kHead + 20,
               "rx=\"6\" fill=\"none\" stroke=\"#c3c9d1\" stroke-dasharray=\"5 4\"");
      svg.text(x + 14, y + 10, panel_title(diagrams[0], which), "font-size=\"12\" fill=\"#666\"");
      svg.raw(moved(drawing, x + 14, y + kHead));
    }
    const double right = x + drawing.width + (which == 0 ? 0 : 28);
    width = std::max(width, right);
    height = std::max(height, y + drawing.height + (which == 0 ? 8 : kHead + 20));
    x = right + kPanelGap;
    if (which == 0 && drawings.size() > 2) x = kMargin, y = height + kPanelGap;  // a training step is wide: its layers stand below
  }
  svg.text(kMargin, 26, diagrams[0].title, "font-size=\"15\" font-weight=\"bold\"");
  const double end = legend(svg, diagrams, kMargin, 46, options.profile != nullptr);
  return svg.str(std::max(end, width + kMargin), height + 12, diagrams[0].title);
}

std::string graph_html(const Graph& graph, const GraphPicture& options) {
  const std::vector<Diagram> diagrams = diagrams_of(graph, options);
  const std::string title = escaped(diagrams[0].title);
  std::string html =
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" "
      "content=\"width=device-width\">\n<title>" +
      title +
      "</title>\n<style>\n"
      ":root { color-scheme: light dark; }\n"
      "body { font: 14px/1.5 Helvetica, Arial, sans-serif; margin: 24px; }\n"
      "h1 { font-size: 20px; } summary { cursor: pointer; font-size: 15px; padding: 6px 0; } figure { margin: 8px 0; overflow-x: "
      "auto; }\n"
      "details:target > summary { font-weight: bold; } svg a:hover rect { stroke-width: 2; }\n"
      "table { border-collapse: collapse; font-size: 12px; } th, td { text-align: left; padding: 2px 12px 2px 0; border-bottom: "
      "1px solid #8884; }\n"
      "td.n { text-align: right; font-variant-numeric: tabular-nums; }\n"
      "</style>\n</head>\n<body>\n<h1>" +
      title + "</h1>\n";
  const auto figure = [&](const Diagram& diagram, bool with_legend) {
    const Drawing drawing = draw(diagram, true);
    Svg svg;
    double end = 0;
    if (with_legend) end = legend(svg, diagrams, kMargin, 26, options.profile != nullptr);
    svg.raw(moved(drawing, kMargin, with_legend ? 44 : kMargin));
    return "<figure>\n" +
           svg.str(std::max(end, drawing.width + 2 * kMargin), drawing.height + kMargin + (with_legend ? 44 : kMargin),
                   diagram.title) +
           "</figure>\n";
  };
  html += figure(diagrams[0], true);
  for (std::size_t d = 1; d < diagrams.size(); ++d)
    html += "<details id=\"block-" + std::to_string(d) + "\"><summary>" + escaped(panel_title(diagrams[0], d)) + "</summary>\n" +
            figure(diagrams[d], false) + "</details>\n";

  std::map<std::string, double> seconds;
  if (options.profile != nullptr)
    for (const NodeTime& node : options.profile->nodes) seconds[node.name] += node.seconds;
  html += "<details><summary>All " + std::to_string(graph.nodes().size()) +
          " nodes</summary>\n<table>\n<tr><th>name<th>op<th>attributes<th>results<th>bytes" +
          std::string(options.profile != nullptr ? "<th>time" : "") + "</tr>\n";
  for (const Node& node : graph.nodes()) {
    std::string types;
    double bytes = 0;
    for (const TensorType& type : node.outputs)
      types += (types.empty() ? "" : ", ") + to_string(type), bytes += static_cast<double>(type.bytes());
    html += "<tr><td>" + escaped(node.name) + "<td>" + op_name(node.op) + "<td>" + escaped(op_attributes(node.op)) + "<td>" +
            types + "<td class=\"n\">" + byte_text(bytes);
    if (options.profile != nullptr)
      html += "<td class=\"n\">" + (seconds.contains(node.name) ? time_text(seconds[node.name]) : std::string());
    html += "</tr>\n";
  }
  html +=
      "</table>\n</details>\n"
      // Browsers that do not open a <details> themselves when a link leads to it.
      "<script>addEventListener('hashchange', () => { const d = document.querySelector(location.hash); if (d) { d.open = true; "
      "d.scrollIntoView(); } });</script>\n"
      "</body>\n</html>\n";
  return html;
}

std::string graph_dot(const Graph& graph, const GraphPicture& options) {
  const Diagram diagram = diagrams_of(graph, options)[0];
  std::string dot =
      "digraph graft {\n  label=\"" + dot_text(diagram.title) + "\";\n  node [shape=box, fontname=\"Helvetica\", fontsize=10];\n";
  for (std::size_t p = 0; p < kPartNames.size(); ++p) {
    std::string boxes;
    for (std::size_t b = 0; b < diagram.boxes.size(); ++b) {
      const Box& box = diagram.boxes[b];
      if (static_cast<std::size_t>(box.part) != p) continue;
      std::string label = dot_text(box.title + (box.about.empty() ? "" : "  " + box.about));
      for (const std::string& line : box.lines) label += "\\n" + dot_text(line);
      boxes += "    b" + std::to_string(b) + " [label=\"" + label + "\"" +
               (is_pill(box) ? ", shape=ellipse" : ", color=\"" + family_colour(box.family) + "\"") +
               (box.idle ? ", style=dashed" : "") + "];\n";
    }
    if (!boxes.empty())
      dot += "  subgraph cluster_" + std::string(kPartNames[p]) + " {\n    label=\"" + kPartNames[p] + "\"; color=\"#c3c9d1\";\n" +
             boxes + "  }\n";
  }
  for (const auto& [from, to] : diagram.edges) dot += "  b" + std::to_string(from) + " -> b" + std::to_string(to) + ";\n";
  return dot + "}\n";
}

void write_picture(const std::filesystem::path& file, std::string_view content) { write_text(file, content, "picture"); }

}  // namespace graft::report
