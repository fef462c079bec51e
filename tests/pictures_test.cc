// Pictures of graphs and of memory: what they say and where.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "graft/graft.h"
#include "src/report/diagram.h"
#include "src/report/svg.h"
#include "tests/message.h"
#include "tests/xml.h"

namespace graft::report {
namespace {

using detail::Box;
using detail::Diagram;
using detail::Part;
using graft::testing::Element;
using graft::testing::elements;
using graft::testing::message_of;
using graft::testing::parse_xml;
using graft::testing::texts;

bool says(const std::vector<Element>& all, const std::string& text) {
  const std::vector<std::string> said = texts(all);
  return std::find(said.begin(), said.end(), text) != said.end();
}

Graph decoder(std::int64_t layers, bool train = true, double dropout = 0.0) {
  Graph g(1);
  const nn::Llama model(g, {.vocab_size = 11,
                            .hidden_size = 8,
                            .intermediate_size = 12,
                            .num_layers = layers,
                            .num_heads = 2,
                            .num_kv_heads = 2,
                            .dropout = dropout});
  const Value logits = model.forward(g, g.input_u32("ids", {6}));
  if (!train) {
    g.output("logits", logits);
    return g;
  }
  const Value loss = g.cross_entropy(logits, g.input_u32("next", {6}));
  g.output("loss", loss);
  optim::adamw(g, differentiate(g, loss), {}, {.schedule = {.base = 1e-2}, .clip_norm = 1.0});
  return g;
}

const Box* box(const Diagram& diagram, std::string_view title) {
  for (const Box& b : diagram.boxes)
    if (b.title == title) return &b;
  return nullptr;
}

bool leads(const Diagram& d, std::string_view from, std::string_view to) {
  return std::any_of(d.edges.begin(), d.edges.end(),
                     [&](const auto& e) { return d.boxes[e.first].title == from && d.boxes[e.second].title == to; });
}

TEST(Pictures, NumbersForPeople) {
  using namespace detail;
  EXPECT_EQ(byte_text(0), "0 B");
  EXPECT_EQ(byte_text(999), "999 B");
  EXPECT_EQ(byte_text(1000), "1.0 KB");
  EXPECT_EQ(byte_text(99940), "99.9 KB");
  EXPECT_EQ(byte_text(99960), "100 KB");
  EXPECT_EQ(byte_text(999499), "999 KB");
  EXPECT_EQ(byte_text(999500), "1.0 MB");
  EXPECT_EQ(byte_text(31.24e6), "31.2 MB");
  EXPECT_EQ(byte_text(5e15), "5000 TB");
  EXPECT_EQ(time_text(1.26e-6), "1.3 µs");
  EXPECT_EQ(time_text(123e-6), "123 µs");
  EXPECT_EQ(time_text(1.234e-3), "1.23 ms");
  EXPECT_EQ(time_text(12.34e-3), "12.3 ms");
  EXPECT_EQ(time_text(123.4e-3), "123 ms");
  EXPECT_EQ(time_text(1.5), "1.50 s");
  EXPECT_EQ(grouped(999), "999");
  EXPECT_EQ(grouped(1234567), "1,234,567");
  EXPECT_EQ(grouped(-1234), "-1,234");
  EXPECT_EQ(grouped(-123), "-123");
  EXPECT_EQ(escaped("a<b> & \"c\"\n"), "a&lt;b&gt; &amp; &quot;c&quot; ");
  EXPECT_EQ(shortened("0123456789", 10), "0123456789");
  EXPECT_EQ(shortened("0123456789", 7), "01…6789");
  EXPECT_EQ(tick_step(10, 5), 2);
  EXPECT_EQ(tick_step(11, 5), 5);
  EXPECT_EQ(tick_step(30, 5), 10);
  EXPECT_EQ(digits_of(0.5), 1);
  EXPECT_EQ(digits_of(20), 0);
  EXPECT_EQ(short_number(0.012345), "0.0123");
  EXPECT_EQ(base64(""), "");
  EXPECT_EQ(base64("f"), "Zg==");
  EXPECT_EQ(base64("fo"), "Zm8=");
  EXPECT_EQ(base64("foobar"), "Zm9vYmFy");
  EXPECT_EQ(base64("\xfb\xff\xfe"), "+//+");
  EXPECT_GT(text_width("mmm", 10), text_width("iii", 10));
  EXPECT_DOUBLE_EQ(text_width("é", 10), text_width("a", 10));
}

TEST(Pictures, BlocksAreFoundInNames) {
  using detail::block_of;
  EXPECT_EQ(block_of("model.layers.3.mlp.up"), (detail::Block{"model.layers", 3}));
  EXPECT_EQ(block_of("h.12"), (detail::Block{"h", 12}));
  EXPECT_EQ(block_of("a.x2.1.y.7.z"), (detail::Block{"a.x2", 1}));
  for (const char* none : {"", "model.norm", "3.x", "a.3b.c", "a..b", "matmul_3", "a.-1.b"})
    EXPECT_EQ(block_of(none).number, none == std::string("a.-1.b") ? -1 : -1) << none;
}

TEST(Pictures, NamesAreShort) {
  using detail::short_name;
  EXPECT_EQ(short_name("model.layers.0.self_attn.q_proj.matmul_0", "model.layers.0.", "matmul"), "self_attn.q_proj");
  EXPECT_EQ(short_name("matmul_12", "", "matmul"), "matmul");
  EXPECT_EQ(short_name("my_product_2", "", "matmul"), "my_product_2");
  EXPECT_EQ(short_name("grad.d:model.norm.rms_norm_0", "model.", "matmul"), "∂ norm.rms_norm_0");
  EXPECT_EQ(short_name("grad.d:matmul_0", "", "matmul"), "∂ matmul_0");
  EXPECT_EQ(short_name("grad.matmul_3", "", "matmul"), "matmul");
  EXPECT_EQ(short_name("update/model.norm.weight", "model.", "adam_update"), "norm.weight");
  EXPECT_EQ(short_name("a.add_", "", "add"), "a.add_");
}

TEST(Pictures, EachNodeBelongsToAPartOfTheStep) {
  const Graph g = decoder(1);
  const std::vector<Part> parts = detail::parts_of(g);
  const auto part = [&](std::string_view name) { return parts[static_cast<std::size_t>(g.find(name).node)]; };
  EXPECT_EQ(part("ids"), Part::forward);
  EXPECT_EQ(part("optimizer/step"), Part::forward);
  EXPECT_EQ(part("cross_entropy_0"), Part::forward);
  EXPECT_EQ(part("grad.d:cross_entropy_0"), Part::backward);
  EXPECT_EQ(part("grad.matmul_0"), Part::backward);
  EXPECT_EQ(part("optimizer/gradient_norm"), Part::update);
  EXPECT_EQ(part("optimizer/learning_rate"), Part::update);
  EXPECT_EQ(part("update/model.norm.weight"), Part::update);

  Graph h;
  const Value x = h.input("x", {3}), w = h.parameter("w", {3});
  const Gradients gradients = differentiate(h, h.sum(h.mul(x, w)));
  const Value scaled = h.scale(gradients.all[0].gradient, 2.0);
  EXPECT_EQ(detail::parts_of(h)[static_cast<std::size_t>(scaled.node)], Part::backward);
}

TEST(Pictures, GradientsLieInTheBlockOfWhatTheyDifferentiate) {
  const Graph g = decoder(3);
  const std::vector<detail::Block> blocks = detail::blocks_of(g, detail::parts_of(g));
  const auto number = [&](std::string_view name) { return blocks[static_cast<std::size_t>(g.find(name).node)].number; };
  EXPECT_EQ(number("grad.d:model.layers.1.mlp.down_proj.weight"), 1);  // by a forward value
  EXPECT_EQ(number("grad.d:model.layers.1.mlp.swiglu_0"), 1);          // by a parameter, though the gradient comes from layer 2
  EXPECT_EQ(number("grad.d:model.layers.1.add_1"), 2);                 // the sum where the residual stream enters layer 2
  EXPECT_EQ(number("grad.d:model.layers.1.add_0"), 1);                 // the earliest of its gradients
  EXPECT_EQ(number("grad.rms_norm_grad_0"), -1);                       // the last norm is no layer's, though it reads layer 2
  EXPECT_EQ(number("grad.embedding_grad_0"), -1);
}

TEST(Pictures, EqualLayersAreOneBox) {
  const Graph g = decoder(3);
  const std::vector<Diagram> diagrams = detail::diagrams_of(g, {});
  const Diagram& whole = diagrams[0];
  for (const char* title : {"model.layers.0–2", "gradients of model.layers.0–2", "update of model.layers.0–2"}) {
    const Box* folded = box(whole, title);
    ASSERT_NE(folded, nullptr) << title;
    EXPECT_EQ(folded->kind, Box::Kind::group);
    EXPECT_EQ(folded->about, "× 3");
    EXPECT_EQ(diagrams[static_cast<std::size_t>(folded->opens)].title, title);
  }
  EXPECT_EQ(diagrams.size(), 4u);
  const Box* layers = box(whole, "model.layers.0–2");
  EXPECT_EQ(layers->lines[0], "15 nodes each");
  EXPECT_EQ(layers->lines[1], "1,680 parameters");  // 3 · (4·8·8 + 3·8·12 + 2·8)
  EXPECT_EQ(layers->nodes.size(), 45u);
  EXPECT_TRUE(leads(whole, "model.embed_tokens", "model.layers.0–2"));
  EXPECT_TRUE(leads(whole, "model.layers.0–2", "model.norm"));
  EXPECT_TRUE(leads(whole, "model.layers.0–2", "gradients of model.layers.0–2"));
  EXPECT_TRUE(leads(whole, "gradients of model.layers.0–2", "optimizer/gradient_norm"));
  EXPECT_FALSE(leads(whole, "model.layers.0–2", "model.layers.0–2"));
  EXPECT_TRUE(leads(whole, "cross_entropy", "loss"));
  EXPECT_EQ(box(whole, "loss")->kind, Box::Kind::output);
  EXPECT_EQ(box(whole, "ids")->kind, Box::Kind::input);
  EXPECT_EQ(box(whole, "optimizer/step"), nullptr) << "states are lines, not boxes";
  EXPECT_EQ(whole.title, std::to_string(g.nodes().size()) + " nodes");
  EXPECT_EQ(box(whole, "model.embed_tokens.weight")->part, Part::update);
  EXPECT_EQ(box(whole, "∂ model.embed_tokens.weight")->part, Part::backward);
}

TEST(Pictures, AnOpenBlockShowsItsNodesAndWhatComesIn) {
  const std::vector<Diagram> diagrams = detail::diagrams_of(decoder(3), {});
  const Diagram& layer = diagrams[static_cast<std::size_t>(box(diagrams[0], "model.layers.0–2")->opens)];
  EXPECT_EQ(layer.boxes.size(), 15u + 1u);
  const Box* q = box(layer, "self_attn.q_proj");
  ASSERT_NE(q, nullptr);
  EXPECT_EQ(q->about, "matmul");
  EXPECT_EQ(q->lines, (std::vector<std::string>{"f32[6, 8] · 192 B", "← weight [8, 8]"}));
  EXPECT_EQ(q->family, "product");
  EXPECT_NE(q->tip.find("model.layers.0.self_attn.q_proj.matmul_0 = matmul (model.layers.0.input_layernorm.rms_norm_0, "
                        "model.layers.0.self_attn.q_proj.weight) → f32[6, 8]"),
            std::string::npos)
      << q->tip;
  EXPECT_EQ(box(layer, "model.embed_tokens")->kind, Box::Kind::outside);
  EXPECT_TRUE(leads(layer, "model.embed_tokens", "input_layernorm"));
  EXPECT_TRUE(leads(layer, "model.embed_tokens", "add"));
  EXPECT_TRUE(leads(layer, "self_attn.q_proj", "self_attn"));
  EXPECT_EQ(box(layer, "self_attn.o_proj")->family, "product");

  const Diagram& update = diagrams[static_cast<std::size_t>(box(diagrams[0], "update of model.layers.0–2")->opens)];
  EXPECT_NE(box(update, "self_attn.q_proj.weight"), nullptr);
  const Diagram& gradients = diagrams[static_cast<std::size_t>(box(diagrams[0], "gradients of model.layers.0–2")->opens)];
  for (const Box& b : gradients.boxes) EXPECT_EQ(b.part, Part::backward) << b.title << ": what was saved is not drawn";
}

TEST(Pictures, LayersThatDifferAreNotFoldedTogether) {
  Graph g;
  Value x = g.input("x", {4, 4});
  for (int i = 0; i < 5; ++i) {
    const Graph::Scope scope(g, "h." + std::to_string(i));
    x = i == 2 ? g.tanh(x) : g.relu(x);
  }
  g.output("y", x);
  const Diagram whole = detail::diagrams_of(g, {})[0];
  EXPECT_NE(box(whole, "h.0–1"), nullptr);
  EXPECT_NE(box(whole, "h.2"), nullptr);
  EXPECT_EQ(box(whole, "h.2")->about, "");
  EXPECT_EQ(box(whole, "h.2")->lines[0], "1 node");
  EXPECT_NE(box(whole, "h.3–4"), nullptr);
  EXPECT_TRUE(leads(whole, "h.2", "h.3–4"));
  EXPECT_EQ(box(detail::diagrams_of(g, {.fold = false})[0], "h.0–1"), nullptr);
  EXPECT_EQ(detail::diagrams_of(g, {.fold = false}).size(), 1u);
}

TEST(Pictures, BlocksMissingBetweenAreNotBridged) {
  Graph g;
  Value x = g.input("x", {4, 4});
  for (int i : {0, 2, 3}) {
    const Graph::Scope scope(g, "h." + std::to_string(i));
    x = g.relu(x);
  }
  g.output("y", x);
  const Diagram whole = detail::diagrams_of(g, {})[0];
  EXPECT_NE(box(whole, "h.0"), nullptr);
  EXPECT_NE(box(whole, "h.2–3"), nullptr);
}

TEST(Pictures, OneNumberedBlockIsNoSeries) {
  const Diagram whole = detail::diagrams_of(decoder(1, false), {})[0];
  EXPECT_EQ(whole.boxes.size(), 1u + 1u + 15u + 2u + 1u);  // ids, embedding, a layer, norm and head, logits
}

TEST(Pictures, DropoutsStreamsDoNotKeepLayersApart) {
  EXPECT_NE(box(detail::diagrams_of(decoder(3, false, 0.1), {})[0], "model.layers.0–2"), nullptr);
}

TEST(Pictures, ThePlanSaysWhereResultsLie) {
  Graph g;
  const Value x = g.input("x", {4, 8});
  const Value a = g.matmul(x, g.parameter("w", {8, 8}), false, false, "product");
  const Value b = g.unary(UnaryFn::relu, a, 0, "relu");
  g.unary(UnaryFn::tanh, x, 0, "unused");
  g.output("y", g.reshape(b, {32}, "flat"));
  const std::unique_ptr<Backend> backend = reference_backend();
  const Plan plan(g, *backend);
  const Diagram d = detail::diagrams_of(g, {.plan = &plan})[0];
  EXPECT_EQ(box(d, "product")->lines, (std::vector<std::string>{"f32[4, 8] · 128 B", "← w [8, 8]"}));
  EXPECT_EQ(box(d, "relu")->about, "");
  EXPECT_EQ(box(d, "relu")->lines[0], "f32[4, 8] · 128 B in place");
  EXPECT_EQ(box(d, "flat")->lines[0], "f32[32] · a view");
  EXPECT_EQ(box(d, "unused")->lines[0], "f32[4, 8] · no memory");
  EXPECT_TRUE(box(d, "unused")->idle);
  EXPECT_FALSE(box(d, "relu")->idle);
  EXPECT_FALSE(box(d, "flat")->idle);
  EXPECT_FALSE(box(d, "x")->idle);

  Graph other = decoder(1);
  EXPECT_EQ(message_of([&] { graph_svg(other, {.plan = &plan}); }),
            "graph picture: the plan is of another graph, of 6 nodes and not " + std::to_string(other.nodes().size()));
}

TEST(Pictures, TheProfileGivesTimes) {
  Graph g;
  g.output("y",
           g.unary(UnaryFn::tanh, g.matmul(g.input("x", {4, 8}), g.parameter("w", {8, 8}), false, false, "product"), 0, "bend"));
  Profile profile;
  profile.nodes = {{"product", "matmul", 0, 3e-3, {}}, {"bend", "tanh", 3e-3, 1e-3, {}}};
  profile.seconds = 4e-3;
  const Diagram d = detail::diagrams_of(g, {.profile = &profile})[0];
  EXPECT_EQ(box(d, "product")->lines.back(), "3.00 ms · 75.0 %");
  EXPECT_EQ(box(d, "bend")->lines.back(), "1.00 ms · 25.0 %");
  EXPECT_EQ(box(d, "x")->lines.size(), 1u);

  const std::vector<Element> svg = parse_xml(graph_svg(g, {.profile = &profile}));
  std::vector<double> bars;
  for (const Element& e : elements(svg, "rect", "fill", "#e15759"))
    if (e.depth > 1) bars.push_back(e.number("width"));
  std::sort(bars.begin(), bars.end());
  ASSERT_EQ(bars.size(), 2u);
  EXPECT_TRUE(says(svg, "time"));
  EXPECT_LT(bars[0], bars[1] * 0.5);
}

TEST(Pictures, AFoldedBlockAddsUpItsTime) {
  const Graph g = decoder(2, false);
  Profile profile;
  for (const Node& node : g.nodes())
    if (!node.inputs.empty()) profile.nodes.push_back({node.name, "", 0, 1e-3, {}});
  profile.seconds = static_cast<double>(profile.nodes.size()) * 1e-3;
  EXPECT_EQ(box(detail::diagrams_of(g, {.profile = &profile})[0], "model.layers.0–1")->lines.back(),
            "30.0 ms · 90.9 %");  // 30 of 33
}

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

// ---- memory

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

TEST(Pictures, WritingNamesTheFileThatFails) {
  const std::filesystem::path file = std::filesystem::path(::testing::TempDir()) / "picture.svg";
  write_picture(file, "abc");
  std::ifstream in(file);
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(in), {}), "abc");
  EXPECT_EQ(message_of([] { write_picture("/nowhere/at/all.svg", "x"); }),
            "picture \"/nowhere/at/all.svg\": cannot be written: No such file or directory");
}

}  // namespace
}  // namespace graft::report
