// Pictures of graphs: which boxes there are, what they say, what leads where.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>

#include "graft/graft.h"
#include "src/report/diagram.h"
#include "src/report/svg.h"
#include "tests/message.h"
#include "tests/small_pictures.h"
#include "tests/xml.h"

namespace graft::report {
namespace {

using detail::Box;
using detail::Diagram;
using detail::Part;
using graft::testing::box;
using graft::testing::decoder;
using graft::testing::Element;
using graft::testing::message_of;
using graft::testing::parse_xml;
using graft::testing::says;

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
