#include <algorithm>
#include <cmath>

#include "graft/error.h"
#include "graft/pictures.h"
#include "src/report/png.h"
#include "src/report/svg.h"
#include "src/util.h"

namespace graft::report {
namespace {

using namespace detail;

struct Span {
  std::int64_t first = 0, count = 0;
};

/// The rows of q (or of k and v) that belong to a sequence.
Span rows_of(Session& session, const MultiHeadAttn& op, const Node& node, std::int64_t sequence, bool of_keys) {
  const Graph& graph = session.graph();
  const std::int64_t all = graph.shape(node.inputs[of_keys ? 1 : 0]).rows();
  const auto check = [&](std::int64_t sequences) {
    if (sequence < 0 || sequence >= sequences)
      throw Error("attention map: \"" + node.name + "\" has " + std::to_string(sequences) + " sequences, got sequence " +
                  std::to_string(sequence));
  };
  switch (op.segments.kind) {
    case SegmentLayout::Kind::single: check(1); return {0, all};
    case SegmentLayout::Kind::uniform: {
      const std::int64_t length = of_keys ? op.segments.kv_length : op.segments.q_length;
      check(all / length);
      return {sequence * length, length};
    }
    case SegmentLayout::Kind::packed: {
      const Value offsets = node.inputs[of_keys ? 4 : 3];
      check(graph.shape(offsets).size() - 1);
      const std::vector<std::uint32_t> at = session.read_u32(graph.node(offsets).name);
      const auto s = static_cast<std::size_t>(sequence);
      return {at[s], static_cast<std::int64_t>(at[s + 1]) - at[s]};
    }
  }
  return {};
}

bool sees(const Mask& mask, std::int64_t i, std::int64_t j, Span q, Span k) {
  const std::int64_t p = i + k.count - q.count;
  return mask.kind == Mask::Kind::full || (j <= p && (mask.kind == Mask::Kind::causal || j > p - mask.window));
}

constexpr Rgb kHidden = {232, 232, 232};
constexpr int kHiddenIndex = 255;

/// Of the root of the weight over the largest: 0 … 254, or the index of hidden keys.
std::vector<std::uint8_t> indices(const AttentionMap& map, int cell) {
  const double largest = std::max(1e-300, *std::max_element(map.weights.begin(), map.weights.end()));
  std::vector<std::uint8_t> pixels;
  for (std::int64_t y = 0; y < map.rows * cell; ++y)
    for (std::int64_t x = 0; x < map.cols * cell; ++x) {
      const double w = map.weights[static_cast<std::size_t>(y / cell * map.cols + x / cell)];
      pixels.push_back(
          static_cast<std::uint8_t>(w == 0.0 ? kHiddenIndex : std::lround(std::sqrt(w / largest) * (kHiddenIndex - 1))));
    }
  return pixels;
}

std::string png_of(const AttentionMap& map, int cell) {
  std::vector<Rgb> palette;
  for (int i = 0; i < kHiddenIndex; ++i) palette.push_back(heat(static_cast<double>(i) / (kHiddenIndex - 1)));
  palette.push_back(kHidden);
  return png(map.cols * cell, map.rows * cell, indices(map, cell), palette);
}

/// A token as it can be read: blanks and line ends made visible.
std::string visible(const std::string& token) {
  std::string out;
  for (char c : token)
    out += c == ' ' ? "·" : c == '\n' ? "↵" : c == '\t' ? "→" : static_cast<unsigned char>(c) < 0x20 ? "?" : std::string(1, c);
  return out;
}

}  // namespace

std::vector<std::string> keep_attention(Graph& graph) {
  std::vector<std::string> names;
  for (std::size_t n = 0; n < graph.nodes().size(); ++n) {
    const Node& node = graph.nodes()[n];
    if (!std::holds_alternative<MultiHeadAttn>(node.op)) continue;
    names.push_back(node.name);
    graph.output("attention/" + node.name + "/q", node.inputs[0]);
    graph.output("attention/" + node.name + "/k", node.inputs[1]);
    graph.output("attention/" + node.name + "/lse", {static_cast<std::int32_t>(n), 1});
  }
  return names;
}

AttentionMap attention_map(Session& session, std::string_view name, std::int64_t head, std::int64_t sequence) {
  const Graph& graph = session.graph();
  const Value value = graph.find(name);
  if (!value || !std::holds_alternative<MultiHeadAttn>(graph.node(value).op)) {
    std::vector<std::string> known;
    for (const Node& node : graph.nodes())
      if (std::holds_alternative<MultiHeadAttn>(node.op)) known.push_back(node.name);
    if (value)
      throw Error("attention map: \"" + std::string(name) + "\" is a " + op_name(graph.node(value).op) + ", not a multi_head_attn");
    throw Error("attention map: no attention is called \"" + std::string(name) + "\"" + names_near(name, known));
  }
  const Node& node = graph.node(value);
  const auto& op = std::get<MultiHeadAttn>(node.op);
  const AttentionShape& heads = op.heads;
  if (head < 0 || head >= heads.heads)
    throw Error("attention map: \"" + node.name + "\" has " + std::to_string(heads.heads) + " heads, got head " +
                std::to_string(head));
  if (!session.plan().kept({value.node, 1}))
    throw Error("attention map: \"" + node.name + "\" was not kept, call keep_attention on the graph before the session is made");
  const Span q = rows_of(session, op, node, sequence, false), k = rows_of(session, op, node, sequence, true);

  const std::vector<double> queries = session.read_f64(node.inputs[0]), keys = session.read_f64(node.inputs[1]),
                            lse = session.read_f64(Value{value.node, 1});
  const std::int64_t d = heads.head_dim, kv_head = head / (heads.heads / heads.kv_heads);
  AttentionMap map{node.name, head, sequence, q.count, k.count, std::vector<double>(static_cast<std::size_t>(q.count * k.count))};
  for (std::int64_t i = 0; i < q.count; ++i) {
    const double row_lse = lse[static_cast<std::size_t>((q.first + i) * heads.heads + head)];
    for (std::int64_t j = 0; j < k.count; ++j) {
      if (!sees(op.mask, i, j, q, k)) continue;
      double score = 0;
      for (std::int64_t c = 0; c < d; ++c)
        score += queries[static_cast<std::size_t>((q.first + i) * heads.heads * d + head * d + c)] *
                 keys[static_cast<std::size_t>((k.first + j) * heads.kv_heads * d + kv_head * d + c)];
      map.weights[static_cast<std::size_t>(i * k.count + j)] = std::exp(op.scale * score - row_lse);
    }
  }
  return map;
}

std::string attention_png(const AttentionMap& map, int cell) {
  if (map.rows < 1 || map.cols < 1) throw Error("attention map: \"" + map.node + "\" is empty, there is nothing to draw");
  return png_of(map, cell > 0 ? cell : static_cast<int>(std::max<std::int64_t>(1, 512 / map.cols)));
}

std::string attention_svg(const std::vector<AttentionMap>& maps, std::string_view title, const std::vector<std::string>& tokens,
                          int columns) {
  if (maps.empty()) throw Error("attention map: there is none to draw");
  const std::size_t across = columns > 0 ? static_cast<std::size_t>(columns) : std::min<std::size_t>(4, maps.size());
  std::int64_t longest = 1;
  for (const AttentionMap& map : maps) {
    if (map.rows < 1 || map.cols < 1) throw Error("attention map: \"" + map.node + "\" is empty, there is nothing to draw");
    longest = std::max({longest, map.rows, map.cols});
  }
  const bool read = !tokens.empty() && longest <= 48 && across <= 2;  // tokens are legible
  const double side = read ? std::max(220.0, static_cast<double>(longest) * 13)
                           : std::max(196.0, (820.0 - 40.0 * static_cast<double>(across)) / static_cast<double>(across));
  double widest = 14;
  if (read)
    for (const std::string& token : tokens) widest = std::max(widest, text_width(visible(token), 9.5) + 8);
  const double cell_width = side + widest + 20, cell_height = side + widest + 40, cell = side / static_cast<double>(longest);

  Svg svg;
  svg.text(20, 28, title, "font-size=\"15\" font-weight=\"bold\"");
  for (std::size_t m = 0; m < maps.size(); ++m) {
    const AttentionMap& map = maps[m];
    const double x = 20 + widest + static_cast<double>(m % across) * cell_width,
                 y = 66 + static_cast<double>(m / across) * cell_height;
    const double w = cell * static_cast<double>(map.cols), h = cell * static_cast<double>(map.rows);
    std::string name = map.node;
    if (const std::size_t dot = name.rfind('.'); dot != std::string::npos && name.find("attention", dot) != std::string::npos)
      name.erase(dot);
    if (name.starts_with("model.")) name.erase(0, 6);
    svg.text(x, y - 8, shortened(name, static_cast<std::size_t>(side / 8.5)) + " · head " + std::to_string(map.head),
             "font-size=\"11\" fill=\"#555\"");
    svg.raw("<image x=\"" + number(x) + "\" y=\"" + number(y) + "\" width=\"" + number(w) + "\" height=\"" + number(h) +
            "\" preserveAspectRatio=\"none\" style=\"image-rendering:pixelated\" href=\"data:image/png;base64," +
            base64(png_of(map, static_cast<int>(std::max<std::int64_t>(1, 256 / longest)))) + "\"/>\n");
    svg.rect(x, y, w, h, "fill=\"none\" stroke=\"#999\"");
    if (read) {
      for (std::int64_t i = 0; i < map.rows; ++i)
        if (static_cast<std::size_t>(i) < tokens.size())
          svg.text(x - 4, y + (static_cast<double>(i) + 0.5) * cell + 3, visible(tokens[static_cast<std::size_t>(i)]),
                   "font-size=\"9.5\" text-anchor=\"end\" fill=\"#555\"");
      for (std::int64_t j = 0; j < map.cols; ++j) {
        if (static_cast<std::size_t>(j) >= tokens.size()) continue;
        const double at = x + (static_cast<double>(j) + 0.5) * cell + 3, below = y + h + 5;
        svg.text(at, below, visible(tokens[static_cast<std::size_t>(j)]),
                 "font-size=\"9.5\" text-anchor=\"end\" fill=\"#555\" transform=\"rotate(-90 " + number(at) + " " + number(below) +
                     ")\"");
      }
    } else {
      svg.text(x + w / 2, y + h + 14, "key", "font-size=\"10\" text-anchor=\"middle\" fill=\"#777\"");
      svg.text(x - 5, y + h / 2, "query",
               "font-size=\"10\" text-anchor=\"middle\" fill=\"#777\" transform=\"rotate(-90 " + number(x - 5) + " " +
                   number(y + h / 2) + ")\"");
    }
  }
  const double width = 20 + widest + static_cast<double>(std::min(across, maps.size())) * cell_width;
  const double height = 66 + static_cast<double>((maps.size() + across - 1) / across) * cell_height - 14;
  double x = 20 + widest;
  svg.text(x, height, "weight, on a root scale:  0", "font-size=\"10\" fill=\"#777\"");
  x += text_width("weight, on a root scale:  0", 10) + 6;
  // Each reaches to the end: no seams.
  for (int i = 0; i < 60; ++i) svg.rect(x + 2 * i, height - 8, 120 - 2 * i, 8, "fill=\"" + hex(heat(i / 59.0)) + "\"");
  svg.rect(x, height - 8, 120, 8, "fill=\"none\" stroke=\"#999\" stroke-width=\"0.5\"");
  svg.text(x + 126, height, "largest of the map", "font-size=\"10\" fill=\"#777\"");
  x += 126 + text_width("largest of the map", 10) + 18;
  svg.rect(x, height - 8, 8, 8, "fill=\"" + hex(kHidden) + "\"");
  svg.text(x + 12, height, "hidden by the mask", "font-size=\"10\" fill=\"#777\"");
  return svg.str(std::max(width, x + 120), height + 14, title);
}

std::string mask_svg(const AttentionMap& map, std::string_view title) {
  constexpr double kCell = 14, kLeft = 30, kTop = 34;
  Svg svg;
  svg.text(kLeft, 20, title, "font-weight=\"bold\"");
  for (std::int64_t i = 0; i < map.rows; ++i)
    for (std::int64_t j = 0; j < map.cols; ++j)
      svg.rect(kLeft + kCell * static_cast<double>(j), kTop + kCell * static_cast<double>(i), kCell - 1.5, kCell - 1.5,
               std::string("rx=\"2\" fill=\"") + (map.weights[static_cast<std::size_t>(i * map.cols + j)] == 0 ? "#e4e7eb" : "#3b7dbd") + "\"");
  const double width = kCell * static_cast<double>(map.cols), height = kCell * static_cast<double>(map.rows), middle = kTop + height / 2;
  svg.text(kLeft + width / 2, kTop + height + 14, "key →", "font-size=\"10\" text-anchor=\"middle\" fill=\"#777\"");
  svg.text(18, middle, height < 40 ? "q" : "← query", "font-size=\"10\" text-anchor=\"middle\" fill=\"#777\" transform=\"rotate(-90 18 " + number(middle) + ")\"");
  return svg.str(std::max(kLeft + width, kLeft + text_width(title, 13)) + 14, kTop + height + 24, title);
}

std::string heat_map_svg(const HeatMap& map) {
  if (map.columns.size() != map.x.size())
    throw Error("heat map: one x a column, got " + std::to_string(map.x.size()) + " and " + std::to_string(map.columns.size()));
  double low = HUGE_VAL, high = 0;
  for (const auto& column : map.columns) {
    if (column.size() != map.rows.size())
      throw Error("heat map: a column has a value a row, got " + std::to_string(column.size()) + " and " +
                  std::to_string(map.rows.size()));
    for (double v : column)
      if (std::isfinite(v) && v > 0) low = std::min(low, v), high = std::max(high, v);
  }
  if (!(low < high)) low = high > 0 ? high / 2 : 0.5, high = high > 0 ? high * 2 : 2;

  double left = 30;
  for (const std::string& row : map.rows) left = std::max(left, text_width(row, 11) + 28);
  const double kWidth = 860, kTop = 48,
               row_height = std::clamp(360.0 / static_cast<double>(std::max<std::size_t>(1, map.rows.size())), 12.0, 26.0);
  const double right = kWidth - 110, bottom = kTop + row_height * static_cast<double>(map.rows.size());
  const auto place = [&](double v) { return std::log(v / low) / std::log(high / low); };
  Svg svg;
  svg.text(20, 28, map.title, "font-size=\"15\" font-weight=\"bold\"");
  const std::size_t every = map.columns.size() / 400 + 1;  // more columns than pixels are of no use
  const double column = (right - left) / static_cast<double>(std::max<std::size_t>(1, map.columns.size()));
  for (std::size_t r = 0; r < map.rows.size(); ++r) {
    const double y = kTop + row_height * static_cast<double>(r);
    svg.text(left - 6, y + row_height / 2 + 4, map.rows[r], "text-anchor=\"end\" font-size=\"11\"");
    for (std::size_t c = 0; c < map.columns.size(); c += every) {
      const double v = map.columns[c][r];
      if (std::isfinite(v) && v > 0)
        svg.rect(left + column * static_cast<double>(c), y,
                 std::min(column * static_cast<double>(every) + 0.6, right - left - column * static_cast<double>(c)),
                 row_height - 1, "fill=\"" + hex(heat(0.06 + 0.9 * place(v))) + "\"");
    }
  }
  svg.rect(left, kTop, right - left, bottom - kTop, "fill=\"none\" stroke=\"#999\"");
  if (!map.x.empty()) {
    const auto count = static_cast<double>(map.x.size());
    const double apart = map.x.size() > 1 ? (map.x.back() - map.x.front()) / (count - 1) : 1,
                 tick = apart * std::max(1.0, tick_step(count, 8));
    for (std::size_t c = 0; c < map.x.size(); ++c)
      if (map.x.size() == 1 || std::abs(std::remainder(map.x[c], tick)) < apart / 2)
        svg.text(left + column * (static_cast<double>(c) + 0.5), bottom + 16, number(map.x[c], 0),
                 "text-anchor=\"middle\" font-size=\"11\"");
  }
  svg.text((left + right) / 2, bottom + 34, map.x_label, "text-anchor=\"middle\"");
  const double bar = right + 22, span = bottom - kTop;
  for (int i = 79; i >= 0; --i)
    svg.rect(bar, bottom - span * (i + 1) / 80, 12, span * (i + 1) / 80, "fill=\"" + hex(heat(0.06 + 0.9 * i / 79)) + "\"");
  for (double power = std::ceil(std::log10(low)); std::pow(10, power) <= high; ++power)
    svg.text(bar + 17, bottom - span * place(std::pow(10, power)) + 4, short_number(std::pow(10, power)), "font-size=\"10\"");
  svg.text(bar + 6, kTop - 8, map.value_label, "font-size=\"10\" text-anchor=\"middle\" fill=\"#777\"");
  return svg.str(kWidth, bottom + 48, map.title);
}

}  // namespace graft::report
