// Attention maps from the saved lse, and their pictures.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "graft/graft.h"
#include "src/report/png.h"
#include "tests/message.h"
#include "tests/plain_model.h"
#include "tests/xml.h"

namespace graft::report {
namespace {

using graft::testing::Element;
using graft::testing::elements;
using graft::testing::message_of;
using graft::testing::parse_xml;
using graft::testing::texts;

// ---- maps

struct Attention {
  Mask mask;
  std::vector<std::uint32_t> q_offsets, kv_offsets;  // of the sequences
  std::int64_t heads = 4, kv_heads = 2, dim = 3;
  double scale = 0.7;
};

/// The weight of key j for query i of a sequence, in plain words.
double plain_weight(const Attention& a, const std::vector<double>& q, const std::vector<double>& k, std::size_t s,
                    std::int64_t head, std::int64_t i, std::int64_t j) {
  const std::int64_t q0 = a.q_offsets[s], k0 = a.kv_offsets[s], queries = a.q_offsets[s + 1] - q0, keys = a.kv_offsets[s + 1] - k0;
  const auto visible = [&](std::int64_t key) {
    const std::int64_t stands_at = keys - queries + i;
    if (a.mask.kind == Mask::Kind::full) return true;
    if (key > stands_at) return false;
    return a.mask.kind == Mask::Kind::causal || stands_at - key < a.mask.window;
  };
  const auto score = [&](std::int64_t key) {
    double sum = 0;
    for (std::int64_t d = 0; d < a.dim; ++d)
      sum += q[static_cast<std::size_t>(((q0 + i) * a.heads + head) * a.dim + d)] *
             k[static_cast<std::size_t>(((k0 + key) * a.kv_heads + head * a.kv_heads / a.heads) * a.dim + d)];
    return std::exp(a.scale * sum);
  };
  double total = 0;
  for (std::int64_t key = 0; key < keys; ++key) total += visible(key) ? score(key) : 0;
  return visible(j) ? score(j) / total : 0;
}

void check(const Attention& a, const Segments& segments, Graph& g) {
  const std::int64_t queries = a.q_offsets.back(), keys = a.kv_offsets.back();
  const Value q = g.input("q", {queries, a.heads * a.dim}, DType::f64), k = g.input("k", {keys, a.kv_heads * a.dim}, DType::f64),
              v = g.input("v", {keys, a.kv_heads * a.dim}, DType::f64);
  std::vector<Value> inputs = {q, k, v};
  if (segments.layout.kind == SegmentLayout::Kind::packed) inputs.insert(inputs.end(), {segments.q_offsets, segments.kv_offsets});
  g.output("out", g.record(MultiHeadAttn{{a.heads, a.kv_heads, a.dim}, a.mask, a.scale, segments.layout}, inputs, "attn"));
  EXPECT_EQ(keep_attention(g), std::vector<std::string>{"attn"});
  const std::unique_ptr<Backend> backend = reference_backend();
  Session session(g, *backend);
  const std::vector<double> qs = plain::values_for("q", queries * a.heads * a.dim),
                            ks = plain::values_for("k", keys * a.kv_heads * a.dim);
  session.write("q", qs);
  session.write("k", ks);
  session.write("v", plain::values_for("v", keys * a.kv_heads * a.dim));
  if (g.find("q_offsets")) session.write("q_offsets", a.q_offsets);
  if (g.find("kv_offsets")) session.write("kv_offsets", a.kv_offsets);
  session.step();
  for (std::size_t s = 0; s + 1 < a.q_offsets.size(); ++s)
    for (std::int64_t head = 0; head < a.heads; ++head) {
      const AttentionMap map = attention_map(session, "attn", head, static_cast<std::int64_t>(s));
      ASSERT_EQ(map.rows, static_cast<std::int64_t>(a.q_offsets[s + 1] - a.q_offsets[s]));
      ASSERT_EQ(map.cols, static_cast<std::int64_t>(a.kv_offsets[s + 1] - a.kv_offsets[s]));
      ASSERT_EQ(map.weights.size(), static_cast<std::size_t>(map.rows * map.cols));
      EXPECT_EQ(map.head, head);
      EXPECT_EQ(map.sequence, static_cast<std::int64_t>(s));
      EXPECT_EQ(map.node, "attn");
      for (std::int64_t i = 0; i < map.rows; ++i)
        for (std::int64_t j = 0; j < map.cols; ++j)
          EXPECT_NEAR(map.weights[static_cast<std::size_t>(i * map.cols + j)], plain_weight(a, qs, ks, s, head, i, j), 1e-12)
              << "sequence " << s << " head " << head << " at " << i << ", " << j;
    }
}

TEST(AttentionMap, Causal) {
  Graph g;
  check({.mask = {Mask::Kind::causal}, .q_offsets = {0, 5}, .kv_offsets = {0, 5}}, Segments::single(), g);
}
TEST(AttentionMap, CausalWithMoreKeysThanQueries) {
  Graph g;
  check({.mask = {Mask::Kind::causal}, .q_offsets = {0, 3}, .kv_offsets = {0, 7}}, Segments::single(), g);
}
TEST(AttentionMap, RowsThatSeeNothingAreZero) {
  Graph g;
  check({.mask = {Mask::Kind::causal}, .q_offsets = {0, 5}, .kv_offsets = {0, 3}}, Segments::single(), g);
}
TEST(AttentionMap, Full) {
  Graph g;
  check({.mask = {Mask::Kind::full}, .q_offsets = {0, 4}, .kv_offsets = {0, 6}}, Segments::single(), g);
}
TEST(AttentionMap, Window) {
  Graph g;
  check({.mask = {Mask::Kind::window, 3}, .q_offsets = {0, 8}, .kv_offsets = {0, 8}}, Segments::single(), g);
}
TEST(AttentionMap, UniformSequences) {
  Graph g;
  check({.mask = {Mask::Kind::causal}, .q_offsets = {0, 3, 6}, .kv_offsets = {0, 4, 8}}, Segments::uniform(3, 4), g);
}
TEST(AttentionMap, PackedSequences) {
  Graph g;
  const Value q = g.input_u32("q_offsets", {4}), kv = g.input_u32("kv_offsets", {4});
  check({.mask = {Mask::Kind::causal}, .q_offsets = {0, 2, 2, 7}, .kv_offsets = {0, 3, 4, 9}}, Segments::packed(q, kv), g);
}

TEST(AttentionMap, RefusesWhatIsNoAttention) {
  Graph g;
  const Value x = g.input("x", {4, 6});
  const Value attended = g.causal_attention(x, x, x, 2, 2, 3, {.segments = Segments::uniform(2)}, "attn");
  g.output("y", g.unary(UnaryFn::tanh, attended, 0, "bend"));
  const std::unique_ptr<Backend> backend = reference_backend();
  Session unkept(g, *backend);
  EXPECT_EQ(message_of([&] { attention_map(unkept, "attn", 0); }),
            "attention map: \"attn\" was not kept, call keep_attention on the graph before the session is made");
  keep_attention(g);
  Session session(g, *backend);
  EXPECT_EQ(message_of([&] { attention_map(session, "bend", 0); }), "attention map: \"bend\" is a tanh, not a multi_head_attn");
  EXPECT_EQ(message_of([&] { attention_map(session, "atn", 0); }),
            "attention map: no attention is called \"atn\", did you mean \"attn\"");
  EXPECT_EQ(message_of([&] { attention_map(session, "attn", 2); }), "attention map: \"attn\" has 2 heads, got head 2");
  EXPECT_EQ(message_of([&] { attention_map(session, "attn", -1); }), "attention map: \"attn\" has 2 heads, got head -1");
  EXPECT_EQ(message_of([&] { attention_map(session, "attn", 1, 2); }), "attention map: \"attn\" has 2 sequences, got sequence 2");
  EXPECT_EQ(message_of([&] { attention_map(session, "attn", 1, -1); }), "attention map: \"attn\" has 2 sequences, got sequence -1");
}

// ---- PNG

std::uint32_t big_endian(const std::string& bytes, std::size_t at) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < 4; ++i) value = value << 8 | static_cast<unsigned char>(bytes[at + i]);
  return value;
}

/// RFC 1951, section 3.2.6, one block.
std::string inflate(const std::string& deflated) {
  std::size_t bit = 0;
  const auto take = [&](int count) {
    unsigned value = 0;
    for (int i = 0; i < count; ++i, ++bit) value |= (static_cast<unsigned char>(deflated.at(bit / 8)) >> (bit % 8) & 1u) << i;
    return value;
  };
  const auto code = [&](int count, unsigned value = 0) {
    for (int i = 0; i < count; ++i) value = value << 1 | take(1);
    return value;
  };
  EXPECT_EQ(take(1), 1u) << "the last block";
  EXPECT_EQ(take(2), 1u) << "fixed codes";
  const int kLength[] = {3,  4,  5,  6,  7,  8,  9,  10, 11,  13,  15,  17,  19,  23, 27,
                         31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258};
  const int kLengthBits[] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
  const int kDistance[] = {1,   2,   3,   4,   5,   7,    9,    13,   17,   25,   33,   49,   65,    97,    129,
                           193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577};
  const int kDistanceBits[] = {0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13};
  std::string out;
  for (;;) {
    unsigned symbol = code(7);
    if (symbol <= 0x17) {
      symbol += 256;
    } else if (unsigned eight = code(1, symbol); eight >= 0x30 && eight <= 0xbf) {
      symbol = eight - 0x30;
    } else if (eight >= 0xc0 && eight <= 0xc7) {
      symbol = eight - 0xc0 + 280;
    } else {
      symbol = code(1, eight) - 0x190 + 144;
    }
    if (symbol == 256) break;
    if (symbol < 256) {
      out += static_cast<char>(symbol);
      continue;
    }
    const std::size_t length = static_cast<std::size_t>(kLength[symbol - 257]) + take(kLengthBits[symbol - 257]);
    const unsigned far = code(5);
    const std::size_t distance = static_cast<std::size_t>(kDistance[far]) + take(kDistanceBits[far]);
    if (distance > out.size()) throw std::runtime_error("a copy from before the beginning");
    for (std::size_t i = 0; i < length; ++i) out += out[out.size() - distance];
  }
  EXPECT_EQ((bit + 7) / 8, deflated.size());
  return out;
}

struct Png {
  std::uint32_t width = 0, height = 0;
  std::string palette, pixels;
};

Png read_png(const std::string& bytes) {
  Png png;
  EXPECT_EQ(bytes.substr(0, 8), "\x89PNG\r\n\x1a\n");
  std::string data, order;
  for (std::size_t at = 8; at < bytes.size();) {
    const std::uint32_t length = big_endian(bytes, at);
    const std::string type = bytes.substr(at + 4, 4), content = bytes.substr(at + 8, length);
    std::uint32_t crc = ~0u;
    for (char c : type + content)
      for (int bit = 0; bit < 8; ++bit)
        crc = crc >> 1 ^ (((crc ^ static_cast<unsigned char>(c) >> bit) & 1) != 0 ? 0xedb88320u : 0u);
    EXPECT_EQ(big_endian(bytes, at + 8 + length), ~crc) << type;
    order += type;
    if (type == "IHDR") {
      png.width = big_endian(content, 0), png.height = big_endian(content, 4);
      EXPECT_EQ(content.substr(8), std::string("\x08\x03\0\0\0", 5));
    }
    if (type == "PLTE") png.palette = content;
    if (type == "IDAT") data = content;
    at += 12 + length;
  }
  EXPECT_EQ(order, "IHDRPLTEIDATIEND");
  EXPECT_EQ(data.substr(0, 2), "\x78\x01");
  EXPECT_EQ((0x78 * 256 + 0x01) % 31, 0);
  const std::string rows = inflate(data.substr(2, data.size() - 6));
  std::uint64_t a = 1, b = 0;
  for (char c : rows) a += static_cast<unsigned char>(c), b += a;
  EXPECT_EQ(big_endian(data, data.size() - 4), (b % 65521) << 16 | a % 65521);
  EXPECT_EQ(rows.size(), png.height * (png.width + 1));
  for (std::uint32_t y = 0; y < png.height; ++y) {
    EXPECT_EQ(rows[y * (png.width + 1)], '\0');
    png.pixels += rows.substr(y * (png.width + 1) + 1, png.width);
  }
  return png;
}

TEST(Png, HoldsItsPixels) {
  for (const auto& [width, height, period] : std::vector<std::array<std::int64_t, 3>>{
           {1, 1, 1}, {3, 2, 5}, {17, 9, 255}, {300, 40, 7}, {700, 3, 1}, {64, 64, 11}, {40000, 3, 2}}) {
    std::vector<std::uint8_t> pixels;
    for (std::int64_t i = 0; i < width * height; ++i)
      pixels.push_back(static_cast<std::uint8_t>((i / period * 37 + (i % 23 == 0 ? i : 0)) % 256));
    std::vector<detail::Rgb> palette;
    for (int i = 0; i < 256; ++i)
      palette.push_back({static_cast<std::uint8_t>(i), static_cast<std::uint8_t>(255 - i), static_cast<std::uint8_t>(i / 2)});
    const Png png = read_png(detail::png(width, height, pixels, palette));
    EXPECT_EQ(png.width, static_cast<std::uint32_t>(width));
    EXPECT_EQ(png.height, static_cast<std::uint32_t>(height));
    EXPECT_EQ(png.pixels, std::string(pixels.begin(), pixels.end())) << width;
    EXPECT_EQ(png.palette.substr(0, 6), std::string("\x00\xff\x00\x01\xfe\x00", 6));
    EXPECT_EQ(png.palette.size(), 768u);
  }
}

TEST(Png, EveryLengthOfRunIsPacked) {
  for (std::int64_t run = 1; run < 300; ++run) {
    std::vector<std::uint8_t> pixels(static_cast<std::size_t>(run), 7);
    pixels.push_back(200);
    EXPECT_EQ(read_png(detail::png(run + 1, 1, pixels, {{0, 0, 0}})).pixels, std::string(pixels.begin(), pixels.end())) << run;
  }
}

TEST(Png, EveryDistanceOfARepeatedRowIsPacked) {
  for (std::int64_t width : {2, 3, 4, 6, 7, 12, 24, 48, 96, 190, 380, 766, 1534, 3070, 6142, 12286, 24574, 32766, 32767, 32768}) {
    std::vector<std::uint8_t> row, pixels;
    for (std::int64_t x = 0; x < width; ++x) row.push_back(static_cast<std::uint8_t>(x * 131 + x / 256));
    for (int y = 0; y < 2; ++y) pixels.insert(pixels.end(), row.begin(), row.end());
    EXPECT_EQ(read_png(detail::png(width, 2, pixels, {{0, 0, 0}})).pixels, std::string(pixels.begin(), pixels.end())) << width;
  }
}

TEST(Png, CellsTakeLittle) {
  std::vector<std::uint8_t> pixels;
  for (int y = 0; y < 512; ++y)
    for (int x = 0; x < 512; ++x) pixels.push_back(static_cast<std::uint8_t>((x / 16 * 7 + y / 16 * 13) % 256));
  EXPECT_LT(detail::png(512, 512, pixels, std::vector<detail::Rgb>(256)).size(), 10000u);
}

TEST(Png, TheScaleRunsFromWhiteToDark) {
  EXPECT_EQ(detail::hex(detail::heat(0)), "#ffffff");
  EXPECT_EQ(detail::hex(detail::heat(1)), "#0a1034");
  EXPECT_EQ(detail::hex(detail::heat(0.5)), "#4285c4");
  EXPECT_EQ(detail::hex(detail::heat(0.125)), "#d6e8f6");  // half way to (172, 208, 236)
  EXPECT_EQ(detail::heat(-3), detail::heat(0));
  EXPECT_EQ(detail::heat(7), detail::heat(1));
}

// ---- pictures

AttentionMap small_map() { return {"model.layers.0.self_attn.causal_attention_0", 2, 0, 2, 3, {0.25, 1.0, 0, 0.0625, 0, 0}}; }

TEST(AttentionMap, ThePngColoursByTheRootAndHidesInGrey) {
  const Png png = read_png(attention_png(small_map(), 2));
  EXPECT_EQ(png.width, 6u);
  EXPECT_EQ(png.height, 4u);
  const auto index = [&](std::size_t y, std::size_t x) {
    return static_cast<int>(static_cast<unsigned char>(png.pixels[y * 6 + x]));
  };
  EXPECT_EQ(index(0, 0), 127);
  EXPECT_EQ(index(1, 1), 127);
  EXPECT_EQ(index(0, 2), 254);
  EXPECT_EQ(index(1, 5), 255);
  EXPECT_EQ(index(2, 0), 64);  // √0.0625 = 0.25, of 254
  EXPECT_EQ(png.palette.substr(254 * 3, 6), std::string("\x0a\x10\x34\xe8\xe8\xe8"));
  EXPECT_EQ(read_png(attention_png(small_map())).width, 3u * (512 / 3));
  AttentionMap wide = small_map();
  wide.cols = 600, wide.rows = 1, wide.weights.assign(600, 0.5);
  EXPECT_EQ(read_png(attention_png(wide)).width, 600u);
  wide.rows = 0;
  EXPECT_EQ(message_of([&] { attention_png(wide); }),
            "attention map: \"model.layers.0.self_attn.causal_attention_0\" is empty, there is nothing to draw");
  EXPECT_EQ(message_of([&] {
              attention_svg({small_map(), wide}, "");
            }),
            "attention map: \"model.layers.0.self_attn.causal_attention_0\" is empty, there is nothing to draw");
}

TEST(AttentionMap, TheSvgShowsMapsSideBySide) {
  std::vector<AttentionMap> maps(5, small_map());
  maps[1].head = 3;
  const std::vector<Element> svg = parse_xml(attention_svg(maps, "A & B"));
  const auto images = elements(svg, "image");
  ASSERT_EQ(images.size(), 5u);
  for (std::size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(images[i].attributes.at("href").rfind("data:image/png;base64,iVBORw0KGgo", 0), 0u);
    EXPECT_NEAR(images[i].number("width") / images[i].number("height"), 1.5, 1e-2);
    EXPECT_LE(images[i].number("x") + images[i].number("width"), svg[0].number("width"));
    EXPECT_LE(images[i].number("y") + images[i].number("height"), svg[0].number("height") - 40);
  }
  EXPECT_EQ(images[0].number("y"), images[3].number("y"));
  // Sixty steps from white to dark below the maps, each as far as the frame's end.
  std::vector<Element> scale;
  const auto frames = elements(svg, "rect", "fill", "none");
  for (const Element& e : elements(svg, "rect", "y", frames.back().attributes.at("y")))
    if (e.attributes.at("fill") != "none") scale.push_back(e);
  ASSERT_EQ(scale.size(), 61u);  // and the colour of what is hidden
  scale.pop_back();
  for (const Element& e : scale)
    EXPECT_NEAR(e.number("x") + e.number("width"), frames.back().number("x") + frames.back().number("width"), 0.01);
  EXPECT_EQ(scale.front().attributes.at("fill"), "#ffffff");
  EXPECT_EQ(scale.back().attributes.at("fill"), "#0a1034");
  EXPECT_NEAR(scale.back().number("x") - scale.front().number("x"), 118, 0.01);
  EXPECT_GT(scale.front().number("y"), images[4].number("y") + images[4].number("height") + 14) << "below the name of the axis";
  EXPECT_LT(scale.front().number("y") + 8, svg[0].number("height") - 10);
  EXPECT_GT(images[1].number("x"), images[0].number("x") + images[0].number("width"));
  EXPECT_GT(images[4].number("y"), images[0].number("y") + images[0].number("height"));
  EXPECT_EQ(images[4].number("x"), images[0].number("x"));
  const auto said = texts(svg);
  for (const char* text :
       {"A & B", "layers.0.self_attn · head 2", "layers.0.self_attn · head 3", "query", "key", "hidden by the mask"})
    EXPECT_NE(std::find(said.begin(), said.end(), text), said.end()) << text;
  EXPECT_EQ(elements(parse_xml(attention_svg(maps, "", {}, 2)), "image")[1].number("y"), images[0].number("y"));
  EXPECT_GT(elements(parse_xml(attention_svg(maps, "", {}, 2)), "image")[2].number("y"), images[0].number("y"));
  EXPECT_EQ(message_of([] { attention_svg({}, ""); }), "attention map: there is none to draw");
}

TEST(AttentionMap, TokensStandAtTheirRowsAndColumns) {
  const std::vector<Element> svg = parse_xml(attention_svg({small_map()}, "", {"a", " \n\t", "\x01<"}));
  const auto image = elements(svg, "image")[0];
  const double cell = image.number("width") / 3;
  std::vector<Element> rows, columns;
  for (const Element& e : elements(svg, "text", "font-size", "9.5"))
    (e.attributes.contains("transform") ? columns : rows).push_back(e);
  ASSERT_EQ(rows.size(), 2u);
  ASSERT_EQ(columns.size(), 3u);
  EXPECT_EQ(rows[1].text, "·↵→");
  EXPECT_EQ(columns[2].text, "?<");
  EXPECT_NEAR(image.number("width"), 220, 0.01);
  const AttentionMap forty{"attn", 0, 0, 40, 40, std::vector<double>(1600, 0.1)};
  EXPECT_NEAR(elements(parse_xml(attention_svg({forty}, "", {"a"})), "image")[0].number("width"), 40 * 13, 0.01)
      << "room for each token";
  EXPECT_NEAR(rows[1].number("y"), image.number("y") + 1.5 * cell + 3, 0.02);
  EXPECT_NEAR(columns[2].number("x"), image.number("x") + 2.5 * cell + 3, 0.02);
  const auto said = texts(svg);
  EXPECT_EQ(std::find(said.begin(), said.end(), "query"), said.end());
  AttentionMap large{"attn", 0, 0, 49, 49, std::vector<double>(49 * 49, 0.1)};
  EXPECT_TRUE(elements(parse_xml(attention_svg({large}, "", {"a"})), "text", "font-size", "9.5").empty()) << "too many to be read";
}

TEST(AttentionMap, AMaskShowsWhereWeightsAre) {
  const std::vector<Element> svg = parse_xml(mask_svg(small_map(), "six"));
  EXPECT_EQ(texts(svg)[0], "six");
  std::vector<std::array<double, 2>> seen;
  for (const Element& e : elements(svg, "rect", "fill", "#3b7dbd")) seen.push_back({e.number("x"), e.number("y")});
  EXPECT_EQ(seen, (std::vector<std::array<double, 2>>{{30, 34}, {44, 34}, {30, 48}}));
  EXPECT_EQ(elements(svg, "rect", "fill", "#e4e7eb").size(), 3u);
}

TEST(HeatMap, ColoursGoWithTheLogarithm) {
  const HeatMap map{.title = "T",
                    .value_label = "norm",
                    .rows = {"one", "two"},
                    .x = {0, 10, 20},
                    .columns = {{1, 100}, {10, 0}, {std::nan(""), 1}}};
  const std::vector<Element> svg = parse_xml(heat_map_svg(map));
  const auto colour = [](double f) { return detail::hex(detail::heat(0.06 + 0.9 * f)); };
  std::vector<Element> cells;
  for (const Element& e : elements(svg, "rect"))
    if (e.attributes.contains("height") && e.attributes.at("height") == "25.00") cells.push_back(e);
  ASSERT_EQ(cells.size(), 4u) << "NaN and zero have none";
  EXPECT_EQ(cells[0].attributes.at("fill"), colour(0));
  EXPECT_EQ(cells[1].attributes.at("fill"), colour(0.5));
  EXPECT_EQ(cells[2].attributes.at("fill"), colour(1));
  EXPECT_EQ(cells[3].attributes.at("fill"), colour(0));
  EXPECT_EQ(cells[0].number("y"), cells[1].number("y"));
  const double column = cells[1].number("x") - cells[0].number("x");
  for (const Element& e : elements(svg, "text"))
    if (e.text == "20") {
      EXPECT_NEAR(e.number("x"), cells[3].number("x") + column / 2, 0.02) << "a step stands below its column";
    }
  EXPECT_NEAR(cells[2].number("y"), cells[0].number("y") + 26, 0.02);
  EXPECT_NEAR(cells[3].number("x") - cells[2].number("x"), 2 * (cells[1].number("x") - cells[0].number("x")), 0.03);
  const auto said = texts(svg);
  for (const char* text : {"T", "norm", "one", "two", "step", "0", "10", "20", "1", "100"})
    EXPECT_NE(std::find(said.begin(), said.end(), text), said.end()) << text;

  HeatMap wrong = map;
  wrong.x.pop_back();
  EXPECT_EQ(message_of([&] { heat_map_svg(wrong); }), "heat map: one x a column, got 2 and 3");
  wrong = map;
  wrong.columns[1].pop_back();
  EXPECT_EQ(message_of([&] { heat_map_svg(wrong); }), "heat map: a column has a value a row, got 1 and 2");
  parse_xml(heat_map_svg({.rows = {"one"}}));
  parse_xml(heat_map_svg({.rows = {"one"}, .x = {1}, .columns = {{3}}}));
}

TEST(HeatMap, ManyStepsAreThinnedToWhatCanBeSeen) {
  HeatMap map{.rows = {"one"}};
  for (int i = 0; i < 1000; ++i) map.x.push_back(i), map.columns.push_back({1.0 + i});
  const auto svg = parse_xml(heat_map_svg(map));
  std::vector<Element> cells;
  for (const Element& e : elements(svg, "rect"))
    if (e.attributes.contains("height") && e.attributes.at("height") == "25.00") cells.push_back(e);
  EXPECT_EQ(cells.size(), 334u);
  double end = 0;
  for (const Element& e : cells) {
    EXPECT_TRUE(end == 0 || e.number("x") <= end + 0.01) << "no gaps";
    end = e.number("x") + e.number("width");
    EXPECT_LE(end, 750.02);
  }
  EXPECT_NEAR(end, 750, 0.02);
}

TEST(HeatMap, RoundStepsAreNamedAsFarApartAsTheyFit) {
  const auto named = [](int count, int first, int apart) {
    HeatMap map{.rows = {"one"}};
    for (int i = 0; i < count; ++i) map.x.push_back(first + apart * i), map.columns.push_back({1});
    std::string all;
    for (const Element& e : elements(parse_xml(heat_map_svg(map)), "text", "text-anchor", "middle"))
      if (!e.text.empty() && e.text.find_first_not_of("0123456789") == std::string::npos) all += e.text + " ";
    return all;
  };
  EXPECT_EQ(named(12, 5, 5), "10 20 30 40 50 60 ");
  EXPECT_EQ(named(70, 10, 10), "100 200 300 400 500 600 700 ");
  EXPECT_EQ(named(1000, 0, 1), "0 200 400 600 800 ");
  EXPECT_EQ(named(3, 7, 7), "7 14 21 ");
  EXPECT_EQ(named(1, 9, 0), "9 ");
}

}  // namespace
}  // namespace graft::report
