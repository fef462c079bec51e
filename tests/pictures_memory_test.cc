// Pictures of memory: what they say and where.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>

#include "graft/graft.h"
#include "src/report/diagram.h"
#include "src/report/svg.h"
#include "tests/message.h"
#include "tests/small_pictures.h"
#include "tests/xml.h"

namespace graft::report {
namespace {

using detail::Part;
using graft::testing::Element;
using graft::testing::elements;
using graft::testing::message_of;
using graft::testing::parse_xml;
using graft::testing::says;

/// Values of every kind.
struct SmallPlan {
  SmallPlan() {
    const Value x = graph.input("x", {16, 16});
    const Value a = graph.matmul(x, graph.parameter("w", {16, 32}, Init::ones()), false, false, "first");
    const Value b = graph.unary(UnaryFn::relu, a, 0, "bend");
    const Value c = graph.matmul(b, graph.parameter("u", {32, 16}, Init::ones()), false, false, "second");
    loss = graph.sum(c);
    graph.output("loss", loss);
    optim::sgd(graph, differentiate(graph, loss), {}, {.schedule = {.base = 1e-2}});
  }
  Graph graph;
  Value loss;
  std::unique_ptr<Backend> backend = reference_backend();
};

TEST(Pictures, EveryBufferOfTheArenaIsARectangleAtItsPlace) {
  SmallPlan small;
  const Plan plan(small.graph, *small.backend);
  const std::vector<Element> svg = parse_xml(memory_svg(plan));
  // The axis: "0 B" at the bottom, and where the plot begins and ends.
  double bottom = 0, left = 1e9, right = 0;
  for (const Element& e : elements(svg, "line", "stroke", "#ececec")) {
    bottom = std::max(bottom, e.number("y1"));
    left = std::min(left, e.number("x1")), right = std::max(right, e.number("x2"));
  }
  const double steps = static_cast<double>(plan.order().size());
  std::vector<Element> rects;
  for (std::size_t i = 0; i + 1 < svg.size(); ++i)
    if (svg[i].tag == "title" && svg[i + 1].tag == "rect") rects.push_back(svg[i + 1]), rects.back().text = svg[i].text;
  std::vector<Plan::Buffer> buffers;
  for (const Plan::Buffer& b : plan.buffers())
    if (!b.persistent) buffers.push_back(b);
  ASSERT_EQ(rects.size(), buffers.size());
  const double scale =
      (bottom - rects[0].number("y") - rects[0].number("height")) * 0 + 330 / (static_cast<double>(plan.arena_bytes()) * 1.02);
  for (std::size_t i = 0; i < rects.size(); ++i) {
    const Plan::Buffer& b = buffers[i];
    const double end = std::min<double>(b.last, steps - 1) + 1;
    EXPECT_NEAR(rects[i].number("x"), left + b.first / steps * (right - left), 0.01) << rects[i].text;
    EXPECT_NEAR(rects[i].number("x") + rects[i].number("width"), left + end / steps * (right - left), 0.02);
    EXPECT_NEAR(bottom - rects[i].number("y") - rects[i].number("height"), static_cast<double>(b.offset) * scale, 0.02);
    EXPECT_NEAR(rects[i].number("height"), std::max(0.4, static_cast<double>(b.bytes) * scale), 0.02);
  }
}

TEST(Pictures, MemoryIsColouredByKind) {
  SmallPlan small;
  const Plan plan(small.graph, *small.backend);
  const std::vector<Element> svg = parse_xml(memory_svg(plan));
  const auto kind_of = [&](const std::string& name) {
    for (const Element& e : svg)
      if (e.tag == "title" && e.text.rfind(name + ", ", 0) == 0) return e.text.substr(e.text.rfind(": ") + 2);
    return std::string("none");
  };
  EXPECT_EQ(kind_of("first"), "saved for the backward pass");
  EXPECT_EQ(kind_of("second"), "forward only");
  EXPECT_EQ(kind_of("sum_0"), "results kept");
  EXPECT_EQ(kind_of("grad.d:second"), "gradients of activations");
  EXPECT_EQ(kind_of("grad.d:w"), "gradients of parameters");
  EXPECT_EQ(kind_of("optimizer/scale"), "update");
  EXPECT_EQ(kind_of("bend"), "saved for the backward pass");
  EXPECT_EQ(kind_of("ids"), "none");
  for (const char* name : {"saved for the backward pass", "forward only", "gradients of activations", "gradients of parameters",
                           "update", "results kept", "bytes in use"})
    EXPECT_TRUE(says(svg, name)) << name;
  Graph forward;
  forward.output("y", forward.tanh(forward.matmul(forward.input("x", {4, 4}), forward.parameter("w", {4, 4}))));
  const Plan only(forward, *small.backend);
  EXPECT_FALSE(says(parse_xml(memory_svg(only)), "gradients of activations"));
}

TEST(Pictures, ThePartsOfTheStepAreBands) {
  SmallPlan small;
  const Plan plan(small.graph, *small.backend);
  const std::vector<Part> parts = detail::parts_of(small.graph);
  const std::vector<Element> svg = parse_xml(memory_svg(plan));
  double end = 0, total = 0;
  for (const auto& [part, colour] : std::vector<std::pair<Part, std::string>>{
           {Part::forward, "#e3edf7"}, {Part::backward, "#fdebd9"}, {Part::update, "#ececec"}}) {
    const auto bands = elements(svg, "rect", "fill", colour);
    ASSERT_FALSE(bands.empty());
    const auto nodes = std::count_if(plan.order().begin(), plan.order().end(),
                                     [&](std::int32_t n) { return parts[static_cast<std::size_t>(n)] == part; });
    double width = 0;
    for (const Element& band : bands) width += band.number("width");
    EXPECT_NEAR(width, static_cast<double>(nodes) / static_cast<double>(plan.order().size()) * 760, 0.1) << colour;
    EXPECT_GE(bands[0].number("x"), end - 0.1);
    end = bands[0].number("x") + bands[0].number("width");
    total += width;
  }
  EXPECT_NEAR(total, 760, 0.1);
  EXPECT_TRUE(says(svg, "forward"));
  EXPECT_TRUE(says(svg, "backward"));
}

TEST(Pictures, ThePeakAndTheLargestAreNamed) {
  SmallPlan small;
  const Plan plan(small.graph, *small.backend);
  std::vector<double> used(plan.order().size());
  for (const Plan::Buffer& b : plan.buffers())
    for (std::size_t i = 0; i < used.size() && !b.persistent; ++i)
      if (static_cast<std::int32_t>(i) >= b.first && static_cast<std::int32_t>(i) <= b.last)
        used[i] += static_cast<double>(b.bytes);
  const auto peak = static_cast<std::size_t>(std::max_element(used.begin(), used.end()) - used.begin());
  std::string name = small.graph.nodes()[static_cast<std::size_t>(plan.order()[peak])].name;
  if (name.starts_with("grad.")) name.erase(0, 5);
  const std::vector<Element> svg = parse_xml(memory_svg(plan, {.named = 2}));
  EXPECT_TRUE(says(svg, "peak " + detail::byte_text(used[peak]) + " at " + name)) << ::testing::PrintToString(texts(svg));
  std::vector<std::string> named;
  for (const std::string& text : texts(svg))
    if (text.find(" · ") != std::string::npos) named.push_back(text);
  EXPECT_EQ(named, (std::vector<std::string>{"1  first · 2.0 KB", "2  bend · 2.0 KB"}));
  EXPECT_TRUE(says(svg, "Memory of a step: " + detail::byte_text(static_cast<double>(plan.arena_bytes())) + ", " +
                            detail::byte_text(static_cast<double>(plan.bytes_without_reuse())) + " without reuse"));
  EXPECT_TRUE(says(parse_xml(memory_svg(plan, {.title = "mine"})), "mine"));
  const auto no_names = texts(parse_xml(memory_svg(plan, {.named = 0})));
  EXPECT_TRUE(
      std::none_of(no_names.begin(), no_names.end(), [](const std::string& t) { return t.find(" · ") != std::string::npos; }));
}

TEST(Pictures, TheLineIsTheBytesInUse) {
  SmallPlan small;
  const Plan plan(small.graph, *small.backend);
  const std::vector<Element> svg = parse_xml(memory_svg(plan));
  const double steps = static_cast<double>(plan.order().size()), scale = 330 / (static_cast<double>(plan.arena_bytes()) * 1.02);
  std::string want;
  double most = 0, most_at = 0;
  for (std::size_t i = 0; i < plan.order().size(); ++i) {
    double used = 0;
    for (const Plan::Buffer& b : plan.buffers())
      if (!b.persistent && b.first != Plan::kNone && b.first <= static_cast<std::int32_t>(i) &&
          static_cast<std::int32_t>(i) <= b.last)
        used += static_cast<double>(b.bytes);
    const auto x = [&](double at) { return detail::number(76 + at / steps * 760, 1); };
    want += (i == 0 ? "M" : "L") + x(static_cast<double>(i)) + " " + detail::number(422 - used * scale, 1) + "H" +
            x(static_cast<double>(i) + 1);
    if (used > most) most = used, most_at = 76 + (static_cast<double>(i) + 0.5) / steps * 760;
  }
  EXPECT_EQ(elements(svg, "path", "stroke", "#222")[0].attributes.at("d"), want);
  const Element dot = elements(svg, "circle")[0];
  EXPECT_NEAR(dot.number("cx"), most_at, 0.06);
  EXPECT_NEAR(dot.number("cy"), 422 - most * scale, 0.06);
  for (const Element& e : svg) {  // marks of the largest stand in the middle of their rectangles
    if (e.tag != "text" || e.text != "1" || !e.attributes.contains("paint-order")) continue;
    for (std::size_t i = 0; i + 1 < svg.size(); ++i)
      if (svg[i].tag == "title" && svg[i].text.starts_with("first, ")) {
        EXPECT_NEAR(e.number("x"), svg[i + 1].number("x") + svg[i + 1].number("width") / 2, 0.02);
        EXPECT_NEAR(e.number("y"), svg[i + 1].number("y") + svg[i + 1].number("height") / 2 + 3.5, 0.02);
      }
  }
  EXPECT_TRUE(says(svg, "nodes in the order they run"));
  EXPECT_TRUE(says(svg, "place in the arena"));
  EXPECT_TRUE(says(svg, "2 KB")) << "ticks without a zero behind the point";
  for (const Element& e : svg) EXPECT_TRUE(e.tag != "text" || e.number("y") <= svg[0].number("height")) << e.text;
}

TEST(Pictures, AStepWithoutNodesHasNoPeak) {
  Graph g;
  g.output("x", g.input("x", {3}));
  const std::unique_ptr<Backend> backend = reference_backend();
  EXPECT_TRUE(elements(parse_xml(memory_svg(Plan(g, *backend))), "circle").empty());
}

TEST(Pictures, NamesOfMemoryStandInTwoColumnsAndPartsInTheirBands) {
  SmallPlan small;
  const std::vector<Element> svg = parse_xml(memory_svg(Plan(small.graph, *small.backend), {.named = 4}));
  std::vector<std::pair<double, double>> places;
  for (const Element& e : svg)
    if (e.tag == "text" && e.text.find(" · ") != std::string::npos) places.emplace_back(e.number("x"), e.number("y"));
  ASSERT_EQ(places.size(), 4u);
  for (std::size_t i = 0; i < 4; ++i)
    EXPECT_EQ(places[i], std::pair(i % 2 == 0 ? 76.0 : 456.0, places[0].second + (i < 2 ? 0 : 15)));
  const Element band = elements(svg, "rect", "fill", "#e3edf7")[0];
  for (const Element& e : svg)
    if (e.tag == "text" && e.text == "forward") {
      EXPECT_NEAR(e.number("x"), band.number("x") + band.number("width") / 2, 0.02);
    }
}

TEST(Pictures, WithAProfileTheAxisIsTime) {
  SmallPlan small;
  Session session(small.graph, *small.backend);
  const Plan& plan = session.plan();
  Profile profile;
  for (std::size_t i = 0; i < plan.order().size(); ++i)
    profile.nodes.push_back({"", "", 0, i == 0 ? 3e-3 * static_cast<double>(plan.order().size() - 1) : 1e-3, {}});
  const std::vector<Element> svg = parse_xml(memory_svg(plan, {.profile = &profile}));
  EXPECT_TRUE(says(svg, "time in the step"));
  EXPECT_FALSE(says(svg, "nodes in the order they run"));
  EXPECT_NEAR(elements(svg, "line", "stroke", "#bbb")[0].number("x1"),
              76 + 760 * (0.75 + 0.25 * (3.0 / static_cast<double>(plan.order().size() - 1))), 0.1)
      << "four forward nodes, the first of which takes three quarters";
  profile.nodes.pop_back();
  EXPECT_EQ(message_of([&] { memory_svg(plan, {.profile = &profile}); }),
            "memory picture: the profile is of another plan, of " + std::to_string(profile.nodes.size()) + " nodes and not " +
                std::to_string(plan.order().size()));
}

}  // namespace
}  // namespace graft::report
