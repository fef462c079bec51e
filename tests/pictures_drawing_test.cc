// Pictures of graphs as they are drawn: boxes, edges and texts in SVG, HTML and DOT.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <memory>
#include <sstream>

#include "graft/graft.h"
#include "src/report/diagram.h"
#include "src/report/svg.h"
#include "tests/small_pictures.h"
#include "tests/xml.h"

namespace graft::report {
namespace {

using detail::Diagram;
using detail::Part;
using graft::testing::box;
using graft::testing::decoder;
using graft::testing::Element;
using graft::testing::elements;
using graft::testing::parse_xml;
using graft::testing::says;

/// Boxes of the drawing: rectangles with a stroke and round corners, of the whole picture's coordinates.
std::vector<std::array<double, 4>> drawn_boxes(const std::vector<Element>& svg) {
  std::vector<std::array<double, 4>> found;
  for (const Element& e : svg)
    if (e.tag == "rect" && e.attributes.contains("rx") && e.attributes.contains("stroke") && e.attributes.at("fill") != "none")
      found.push_back({e.number("x"), e.number("y"), e.number("width"), e.number("height")});
  return found;
}

TEST(Pictures, TheGraphIsDrawnWithoutOverlapsInsideItsBounds) {
  const Graph g = decoder(1);
  const std::string text = graph_svg(g);
  const std::vector<Element> svg = parse_xml(text);
  ASSERT_EQ(svg[0].tag, "svg");
  EXPECT_EQ(svg[1].tag, "rect");
  EXPECT_EQ(svg[1].attributes.at("fill"), "white") << "a background of its own, for dark pages";
  const double width = svg[0].number("width"), height = svg[0].number("height");
  EXPECT_EQ(svg[0].attributes.at("viewBox"), "0 0 " + svg[0].attributes.at("width") + " " + svg[0].attributes.at("height"));
  const auto found = drawn_boxes(svg);
  ASSERT_EQ(found.size(), detail::diagrams_of(g, {})[0].boxes.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    const auto& a = found[i];
    EXPECT_GE(a[0], 0);
    EXPECT_GE(a[1], 0);
    EXPECT_LE(a[0] + a[2] + 20, width);
    EXPECT_LE(a[1] + a[3] + 64, height);
    for (std::size_t j = 0; j < i; ++j) {
      const auto& b = found[j];
      EXPECT_TRUE(a[0] + a[2] <= b[0] || b[0] + b[2] <= a[0] || a[1] + a[3] <= b[1] || b[1] + b[3] <= a[1]) << i << " and " << j;
    }
  }
  for (const char* part : {"forward  ↓", "backward  ↑", "update  ↓"}) EXPECT_TRUE(says(svg, part)) << part;
  for (const char* family : {"product", "attention", "norm", "loss", "token", "update", "element"})
    EXPECT_TRUE(says(svg, family)) << family;
  EXPECT_FALSE(says(svg, "shape"));
  EXPECT_FALSE(says(svg, "time"));
  EXPECT_EQ(text.find("href"), std::string::npos);
}

/// The numbers of a path: M, C, V and L commands as graft writes them.
std::vector<double> numbers(const std::string& path) {
  std::vector<double> found;
  std::string text = path;
  for (char& c : text)
    if (std::string("MCVLZ").find(c) != std::string::npos) c = ' ';
  std::istringstream in(text);
  for (double x; in >> x;) found.push_back(x);
  return found;
}

TEST(Pictures, EdgesLeadFromBoxToBox) {
  const Graph g = decoder(1);
  const std::vector<Element> svg = parse_xml(graph_svg(g));
  const auto boxes = drawn_boxes(svg);
  const auto middle_of_side = [&](double x, double y, bool sides) {  // of the left and right side, or of the upper and lower one
    return std::count_if(boxes.begin(), boxes.end(), [&](const auto& b) {
      const double cx = b[0] + b[2] / 2, cy = b[1] + b[3] / 2;
      return sides ? std::abs(std::abs(x - cx) - b[2] / 2) < 0.11 && std::abs(y - cy) < 0.11
                   : std::abs(x - cx) < 0.11 && std::abs(std::abs(y - cy) - b[3] / 2) < 0.11;
    });
  };
  const Diagram diagram = detail::diagrams_of(g, {})[0];
  const auto within = std::count_if(diagram.edges.begin(), diagram.edges.end(),
                                    [&](const auto& e) { return diagram.boxes[e.first].part == diagram.boxes[e.second].part; });
  const auto inner = elements(svg, "path", "stroke", "#7a8490"), heads = elements(svg, "path", "fill", "#7a8490"),
             across = elements(svg, "path", "stroke-dasharray", "4 3");
  EXPECT_EQ(inner.size(), static_cast<std::size_t>(within));
  EXPECT_EQ(heads.size(), inner.size());
  EXPECT_EQ(across.size() + inner.size(), diagram.edges.size());
  int up = 0;
  for (std::size_t e = 0; e < inner.size(); ++e) {
    const std::string& d = inner[e].attributes.at("d");
    const std::vector<double> line = numbers(d), head = numbers(heads[e].attributes.at("d"));
    EXPECT_EQ(middle_of_side(line[0], line[1], false), 1) << d;
    const std::size_t v = d.rfind('V'), c = d.rfind('C');
    const double end_x = v != std::string::npos && (c == std::string::npos || v > c) ? head[2] : line[line.size() - 2];
    EXPECT_EQ(middle_of_side(end_x, line.back(), false), 1) << d;
    ASSERT_EQ(head.size(), 6u);
    EXPECT_NEAR(head[2], end_x, 0.11);
    EXPECT_NEAR(head[3], line.back(), 0.11);
    EXPECT_NEAR(head[0] + head[4], 2 * head[2], 0.11);
    EXPECT_NEAR(head[4] - head[0], 7, 0.11);
    up += line.back() < line[1];
    EXPECT_NEAR(head[3] - head[1], line.back() < line[1] ? -6 : 6, 0.11) << "the point of the arrow is at the box";
  }
  EXPECT_EQ(up, std::count_if(diagram.edges.begin(), diagram.edges.end(), [&](const auto& e) {
              return diagram.boxes[e.first].part == Part::backward && diagram.boxes[e.second].part == Part::backward;
            }));
  for (const Element& e : across) {
    const std::vector<double> line = numbers(e.attributes.at("d"));
    ASSERT_EQ(line.size(), 8u);
    EXPECT_EQ(middle_of_side(line[0], line[1], true), 1);
    EXPECT_EQ(middle_of_side(line[6], line[7], true), 1);
    EXPECT_EQ(line[1], line[3]);
    EXPECT_EQ(line[5], line[7]);
    EXPECT_EQ(line[2] - line[0] > 0, line[6] > line[0]) << "it leaves on the side where it goes";
  }
}

TEST(Pictures, BoxesHoldTheirText) {
  const Graph g = decoder(2);
  const std::vector<Element> svg = parse_xml(graph_svg(g));
  std::size_t shadows = 0, titles = 0;
  for (std::size_t i = 0; i < svg.size(); ++i) {
    if (svg[i].tag != "g" || svg[i].attributes.contains("transform")) continue;
    ASSERT_EQ(svg[i + 1].tag, "title");
    ++titles;
    std::vector<Element> rects;
    double x = 0, y = 0, width = 0, height = 0, last = 0;
    for (std::size_t k = i + 2; k < svg.size() && svg[k].depth > svg[i].depth; ++k) {
      if (svg[k].tag == "rect") {
        rects.push_back(svg[k]);
        x = svg[k].number("x"), y = svg[k].number("y"), width = svg[k].number("width"), height = svg[k].number("height");
      }
      if (svg[k].tag != "text") continue;
      EXPECT_GE(svg[k].number("x"), x + 8) << svg[k].text;
      EXPECT_LE(svg[k].number("x") + detail::text_width(svg[k].text, svg[k].attributes.contains("font-weight") ? 12 : 10.5),
                x + width)
          << svg[k].text;
      EXPECT_GE(svg[k].number("y") - 10, y) << svg[k].text;
      EXPECT_LE(svg[k].number("y") + 3, y + height) << svg[k].text;
      EXPECT_GE(svg[k].number("y"), last);
      last = svg[k].number("y");
    }
    if (rects.size() == 3) {  // a folded block has two shadows
      ++shadows;
      EXPECT_NEAR(rects[0].number("x") - rects[2].number("x"), 6, 1e-9);
      EXPECT_NEAR(rects[1].number("y") - rects[2].number("y"), 3, 1e-9);
    }
  }
  EXPECT_EQ(shadows, 3u);
  const auto diagrams = detail::diagrams_of(g, {});
  EXPECT_EQ(titles, diagrams[0].boxes.size() +
                        diagrams[static_cast<std::size_t>(box(diagrams[0], "model.layers.0–1")->opens)].boxes.size() +
                        diagrams[static_cast<std::size_t>(box(diagrams[0], "gradients of model.layers.0–1")->opens)].boxes.size());
}

TEST(Pictures, WhatDoesNotRunIsFaint) {
  Graph g;
  const Value x = g.input("x", {4, 8});
  g.unary(UnaryFn::tanh, x, 0, "unused");
  g.output("y", g.unary(UnaryFn::relu, x, 0, "used"));
  const std::unique_ptr<Backend> backend = reference_backend();
  const Plan plan(g, *backend);
  EXPECT_EQ(elements(parse_xml(graph_svg(g, {.plan = &plan})), "g", "opacity", "0.45").size(), 1u);
  EXPECT_NE(graph_dot(g, {.plan = &plan}).find("unused  tanh\\nf32[4, 8] · no memory\", color=\"#76b7b2\", style=dashed]"),
            std::string::npos);
}

TEST(Pictures, TheBackwardPassLeadsUp) {
  const std::vector<Element> svg = parse_xml(graph_svg(decoder(1)));
  const auto y_of = [&](const std::string& text) {
    for (const Element& e : svg)
      if (e.tag == "text" && e.text == text) return e.number("y");
    ADD_FAILURE() << text;
    return 0.0;
  };
  EXPECT_LT(y_of("model.embed_tokens"), y_of("cross_entropy"));
  EXPECT_GT(y_of("∂ lm_head.matmul_0"), y_of("embedding_grad"));
  EXPECT_LT(y_of("optimizer/gradient_norm"), y_of("model.norm.weight"));
}

TEST(Pictures, FoldedLayersOfATrainingStepStandBelowIt) {
  const std::vector<Element> svg = parse_xml(graph_svg(decoder(2), {.title = "a < b"}));
  EXPECT_TRUE(says(svg, "a < b"));
  EXPECT_TRUE(says(svg, "model.layers.0–1, one of 2"));
  EXPECT_TRUE(says(svg, "gradients of model.layers.0–1, one of 2"));
  EXPECT_TRUE(says(svg, "self_attn.q_proj"));
  std::vector<Element> panels;
  for (const Element& e : elements(svg, "rect", "stroke-dasharray", "5 4")) panels.push_back(e);
  ASSERT_EQ(panels.size(), 2u);
  EXPECT_EQ(panels[0].number("y"), panels[1].number("y"));
  EXPECT_GE(panels[1].number("x"), panels[0].number("x") + panels[0].number("width"));
  for (const Element& p : panels) {
    EXPECT_LE(p.number("x") + p.number("width"), svg[0].number("width"));
    EXPECT_LE(p.number("y") + p.number("height"), svg[0].number("height"));
  }
  const std::vector<Element> beside = elements(parse_xml(graph_svg(decoder(2, false))), "rect", "stroke-dasharray", "5 4");
  ASSERT_EQ(beside.size(), 1u);
  EXPECT_LT(beside[0].number("y"), 100) << "a forward pass has room for one beside it";
}

TEST(Pictures, ThePageIsOneFileWhoseBlocksOpen) {
  const Graph g = decoder(2);
  Profile profile;
  profile.nodes = {{"cross_entropy_0", "cross_entropy", 0, 2e-3, {}}};
  profile.seconds = 2e-3;
  const std::string html = graph_html(g, {.title = "A <graph>", .profile = &profile});
  EXPECT_NE(html.find("<title>A &lt;graph&gt;</title>"), std::string::npos);
  for (const char* outside : {"http://", "https://", "src=", "@import", "<link"}) {
    std::string rest = html;
    for (std::size_t at; (at = rest.find("xmlns=\"http://www.w3.org/2000/svg\"")) != std::string::npos;) rest.erase(at, 34);
    EXPECT_EQ(rest.find(outside), std::string::npos) << outside;
  }
  std::size_t at = 0, pictures = 0;
  for (; (at = html.find("<svg", at)) != std::string::npos; ++pictures) {
    const std::size_t end = html.find("</svg>", at);
    parse_xml(html.substr(at, end + 6 - at));
    at = end;
  }
  EXPECT_EQ(pictures, 4u);
  for (int d = 1; d <= 3; ++d) {
    EXPECT_NE(html.find("<a href=\"#block-" + std::to_string(d) + "\">"), std::string::npos);
    EXPECT_NE(html.find("<details id=\"block-" + std::to_string(d) + "\">"), std::string::npos);
  }
  EXPECT_NE(html.find("All " + std::to_string(g.nodes().size()) + " nodes"), std::string::npos);
  EXPECT_NE(html.find("<td>cross_entropy_0<td>cross_entropy<td>reduction=mean<td>f32[], f32[6], f32[]<td class=\"n\">32 B<td "
                      "class=\"n\">2.00 ms</tr>"),
            std::string::npos);
}

TEST(Pictures, DotHasTheSameBoxes) {
  const std::string dot = graph_dot(decoder(2, false), {.title = "say \"hi\""});
  EXPECT_EQ(dot.rfind("digraph graft {\n", 0), 0u);
  EXPECT_NE(dot.find("label=\"say \\\"hi\\\"\""), std::string::npos);
  // Results of a layer: 216 + 3·192 + 2·192 + 240 + 192 + 192 + 216 + 3·288 + 192 + 192 = 3264 bytes.
  EXPECT_NE(dot.find("[label=\"model.layers.0–1  × 2\\n15 nodes each\\n1,120 parameters\\n6.5 KB of results\", color="),
            std::string::npos)
      << dot;
  EXPECT_NE(dot.find("[label=\"ids\\nu32[6] · 24 B\", shape=ellipse]"), std::string::npos) << dot;
  EXPECT_NE(dot.find("subgraph cluster_forward"), std::string::npos);
  EXPECT_EQ(dot.find("cluster_backward"), std::string::npos);
  EXPECT_NE(dot.find("b0 -> b1;"), std::string::npos);
}

}  // namespace
}  // namespace graft::report
