#include "src/report/diagram.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <set>

#include "graft/error.h"
#include "src/op_traits.h"
#include "src/report/svg.h"

namespace graft::report::detail {
namespace {

template <class... Ops>
bool is_any(const Op& op) {
  return (std::holds_alternative<Ops>(op) || ...);
}

bool belongs_to_update(const Op& op) {
  return is_any<Assign, GlobalNorm, UpdateScale, CountStep, Increment, LearningRate, SgdUpdate, AdamUpdate, LionUpdate>(op);
}

const Node& at(const Graph& graph, std::int32_t n) { return graph.nodes()[static_cast<std::size_t>(n)]; }

/// Sources that are a line in the boxes that read them.
bool is_kept(const Op& op) { return is_any<Parameter, State>(op); }

}  // namespace

std::vector<Part> parts_of(const Graph& graph) {
  std::vector<Part> parts;
  for (const Node& node : graph.nodes()) {
    Part part = node.name.starts_with("grad.") ? Part::backward : Part::forward;
    for (Value v : node.inputs) part = std::max(part, parts[static_cast<std::size_t>(v.node)]);
    // Decoding assigns and counts too, but reads no gradient then; its caches belong to the forward pass.
    if (belongs_to_update(node.op)) part = Part::update;
    if (is_source(node.op) && !node.name.starts_with("grad.")) part = Part::forward;
    parts.push_back(part);
  }
  return parts;
}

Block block_of(std::string_view name) {
  for (std::size_t dot = name.find('.'); dot != std::string_view::npos; dot = name.find('.', dot + 1)) {
    const std::string_view rest = name.substr(dot + 1, name.find('.', dot + 1) - dot - 1);
    std::int64_t number = -1;
    const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), number);
    if (error == std::errc() && !rest.empty() && end == rest.data() + rest.size())
      return {std::string(name.substr(0, dot)), number};
  }
  return {};
}

std::vector<Block> blocks_of(const Graph& graph, const std::vector<Part>& parts) {
  std::vector<Block> blocks;
  for (std::size_t n = 0; n < graph.nodes().size(); ++n) {
    const Node& node = graph.nodes()[n];
    if (parts[n] != Part::backward) {
      blocks.push_back(block_of(node.name));
      continue;
    }
    // A gradient's name says little, but its operands do: a parameter, else the latest forward value, else the earliest gradient.
    Block parameter, forward, backward;
    bool reads_parameter = false, reads_forward = false;
    for (Value v : node.inputs) {
      const Block& block = blocks[static_cast<std::size_t>(v.node)];
      if (std::holds_alternative<Parameter>(graph.node(v).op)) {
        if (!reads_parameter) parameter = block;
        reads_parameter = true;
      } else if (parts[static_cast<std::size_t>(v.node)] == Part::forward) {
        reads_forward = true;
        if (block.number > forward.number) forward = block;
      } else if (block.number >= 0 && (backward.number < 0 || block.number < backward.number)) {
        backward = block;
      }
    }
    blocks.push_back(reads_parameter ? parameter : reads_forward ? forward : backward);
  }
  return blocks;
}

std::string family_of(const Op& op) {
  if (is_any<MatMul>(op)) return "product";
  if (is_any<MultiHeadAttn, AttnDelta, MultiHeadAttnGradQ, MultiHeadAttnGradK, MultiHeadAttnGradV, CachedAttention, Rope,
             CacheWrite>(op))
    return "attention";
  if (is_any<RmsNorm, RmsNormGrad, LayerNorm, LayerNormGrad, Softmax, SoftmaxGrad, LogSoftmax, LogSoftmaxGrad>(op)) return "norm";
  if (is_any<CrossEntropy, CrossEntropyGrad, LinearCrossEntropy, LinearCrossEntropyGrad>(op)) return "loss";
  if (is_any<Embedding, EmbeddingGrad>(op)) return "token";
  if (belongs_to_update(op)) return "update";
  if (is_any<Reshape, Transpose, Slice, Pad, Concat, Cast, StopGradient, Broadcast>(op)) return "shape";
  return "element";
}

std::string family_colour(std::string_view family) {
  constexpr std::array<std::pair<std::string_view, const char*>, 8> kColours = {{{"product", "#4e79a7"},
                                                                                 {"attention", "#b07aa1"},
                                                                                 {"norm", "#59a14f"},
                                                                                 {"loss", "#e15759"},
                                                                                 {"token", "#9c755f"},
                                                                                 {"update", "#f28e2b"},
                                                                                 {"shape", "#bab0ac"},
                                                                                 {"element", "#76b7b2"}}};
  for (const auto& [name, colour] : kColours)
    if (name == family) return colour;
  return "#8d99ae";
}

std::string short_name(std::string_view name, std::string_view scope, std::string_view op) {
  if (name.starts_with("grad.")) name.remove_prefix(5);
  const bool gradient = name.starts_with("d:");
  if (gradient) name.remove_prefix(2);
  if (name.starts_with("update/")) name.remove_prefix(7);
  if (name.starts_with(scope)) name.remove_prefix(scope.size());
  std::string text(name);
  const std::size_t last = text.rfind('.') + 1, number = text.rfind('_');
  const bool numbered =
      number != std::string::npos && number > last && number + 1 < text.size() &&
      std::all_of(text.begin() + static_cast<std::ptrdiff_t>(number) + 1, text.end(), [](char c) { return c >= '0' && c <= '9'; });
  if (numbered && text.substr(last, number - last) == op && !gradient) text.erase(last == 0 ? 0 : last - 1);
  return text.empty() ? std::string(op) : (gradient ? "∂ " : "") + text;
}

namespace {

/// Makes the diagrams of one graph.
class Builder {
 public:
  Builder(const Graph& graph, const GraphPicture& options)
      : graph_(graph), options_(options), parts_(parts_of(graph)), blocks_(blocks_of(graph, parts_)), runs_(graph.nodes().size()) {
    if (options.plan != nullptr && options.plan->graph().nodes().size() != graph.nodes().size())
      throw Error("graph picture: the plan is of another graph, of " + std::to_string(options.plan->graph().nodes().size()) +
                  " nodes and not " + std::to_string(graph.nodes().size()));
    if (options.profile != nullptr)
      for (const NodeTime& node : options.profile->nodes) seconds_[node.name] += node.seconds;
    if (options.plan != nullptr) {
      runs_.assign(graph.nodes().size(), false);
      for (std::int32_t n : options.plan->order()) runs_[static_cast<std::size_t>(n)] = true;
    } else {
      runs_.assign(graph.nodes().size(), true);
    }
  }

  std::vector<Diagram> build() {
    if (options_.fold) find_runs();
    diagrams_.resize(1 + groups_.size());
    diagrams_[0] = diagram(-1);
    diagrams_[0].title = options_.title.empty() ? std::to_string(graph_.nodes().size()) + " nodes" : options_.title;
    for (std::size_t g = 0; g < groups_.size(); ++g) {
      diagrams_[g + 1] = diagram(static_cast<std::int32_t>(g));
      diagrams_[g + 1].title = groups_[g].title;
    }
    return std::move(diagrams_);
  }

 private:
  /// Equal blocks, one after another.
  struct Group {
    Part part;
    std::string series, title;
    std::int64_t first = 0, last = 0;
    std::vector<std::vector<std::int32_t>> blocks;  // the nodes of each
  };
  using Key = std::pair<Part, std::string>;  // a series in a part

  /// Equal for blocks that would be drawn alike.
  std::string signature(const std::vector<std::int32_t>& nodes) const {
    std::string text;
    for (std::int32_t n : nodes) {
      const Node& node = at(graph_, n);
      text += op_name(node.op);
      if (!std::holds_alternative<Dropout>(node.op)) text += op_attributes(node.op);  // each dropout has a stream of its own
      for (const TensorType& type : node.outputs) text += to_string(type);
      text += ';';
    }
    return text;
  }

  void find_runs() {
    std::map<Key, std::map<std::int64_t, std::vector<std::int32_t>>> series;
    for (std::size_t n = 0; n < graph_.nodes().size(); ++n)
      if (blocks_[n].number >= 0 && !is_source(graph_.nodes()[n].op))
        series[{parts_[n], blocks_[n].series}][blocks_[n].number].push_back(static_cast<std::int32_t>(n));
    for (auto& [key, blocks] : series) {
      if (blocks.size() < 2) continue;
      std::string before;
      for (auto& [number, nodes] : blocks) {
        const std::string now = signature(nodes);
        if (before == now && groups_.back().last == number - 1) {
          groups_.back().last = number;
          groups_.back().blocks.push_back(nodes);
        } else {
          groups_.push_back({key.first, key.second, {}, number, number, {nodes}});
        }
        for (std::int32_t n : nodes) group_of_[n] = static_cast<std::int32_t>(groups_.size()) - 1;
        before = now;
      }
    }
    for (Group& g : groups_) {
      std::string name = g.series;
      if (name.starts_with("update/")) name.erase(0, 7);
      const char* what = g.part == Part::backward ? "gradients of " : g.part == Part::update ? "update of " : "";
      g.title = what + name + "." + std::to_string(g.first) + (g.last > g.first ? "–" + std::to_string(g.last) : "");
    }
  }

  double seconds(std::int32_t n) const {
    const auto found = seconds_.find(at(graph_, n).name);
    return found == seconds_.end() ? 0.0 : found->second;
  }

  std::string time_line(double seconds) const {
    return time_text(seconds) + " · " + number(100 * seconds / std::max(options_.profile->seconds, 1e-12), 1) + " %";
  }

  /// "786 KB", and how it lies in memory if the plan is known.
  std::string memory_text(std::int32_t n) const {
    const Node& node = at(graph_, n);
    std::string text = byte_text(static_cast<double>(node.outputs[0].bytes()));
    if (options_.plan == nullptr) return text;
    if (is_view(node.op)) return "a view";
    const std::int32_t buffer = options_.plan->buffer_of({n, 0});
    if (buffer == Plan::kNone) return "no memory";
    for (Value v : node.inputs)
      if (options_.plan->buffer_of(v) == buffer) return text + " in place";
    return text;
  }

  Box box_of(std::int32_t n, std::string_view scope) const {
    const Node& node = at(graph_, n);
    Box box;
    box.kind = std::holds_alternative<Input>(node.op) ? Box::Kind::input : Box::Kind::op;
    box.part = parts_[static_cast<std::size_t>(n)];
    box.nodes = {n};
    box.family = family_of(node.op);
    box.seconds = seconds(n);
    box.idle = !is_source(node.op) && !is_view(node.op) && !runs_[static_cast<std::size_t>(n)];
    const std::string op =
        std::holds_alternative<MultiHeadAttn>(node.op) ? attention_name(std::get<MultiHeadAttn>(node.op)) : op_name(node.op);
    box.title = short_name(node.name, scope, op);
    box.about = box.title == op || is_source(node.op) ? "" : op;
    if (box.part == Part::update && !node.inputs.empty() && overwrites(node.op)) {
      box.lines.push_back(to_string(graph_.type(node.inputs[0])));
    } else {
      box.lines.push_back(to_string(node.outputs[0]) + " · " +
                          (is_source(node.op) ? byte_text(static_cast<double>(node.outputs[0].bytes())) : memory_text(n)));
      for (Value v : node.inputs) {
        const Node& source = graph_.node(v);
        if (!is_kept(source.op) || source.outputs[0].shape.size() == 1) continue;
        std::string read = short_name(source.name, scope, "");
        if (read.starts_with(box.title + ".")) read.erase(0, box.title.size() + 1);  // the q_proj reads its weight
        box.lines.push_back("← " + shortened(read, 24) + " " + to_string(source.outputs[0].shape));
      }
    }
    if (options_.profile != nullptr && !is_source(node.op) && !is_view(node.op))
      box.lines.push_back(box.idle ? "does not run" : time_line(box.seconds));
    box.tip = node.name + " = " + op_name(node.op) + (op_attributes(node.op).empty() ? "" : "[" + op_attributes(node.op) + "]");
    for (std::size_t i = 0; i < node.inputs.size(); ++i) box.tip += (i ? ", " : " (") + graph_.node(node.inputs[i]).name;
    if (!node.inputs.empty()) box.tip += ")";
    for (std::size_t i = 0; i < node.outputs.size(); ++i) box.tip += (i ? ", " : " → ") + to_string(node.outputs[i]);
    return box;
  }

  static std::string attention_name(const MultiHeadAttn& op) {
    return op.mask.kind == Mask::Kind::full ? "full_attention" : "causal_attention";
  }

  Box box_of_group(std::int32_t g) const {
    const Group& group = groups_[static_cast<std::size_t>(g)];
    Box box;
    box.kind = Box::Kind::group;
    box.part = group.part;
    box.opens = g + 1;
    box.title = group.title;
    box.about = group.blocks.size() > 1 ? "× " + std::to_string(group.blocks.size()) : "";
    std::set<std::int32_t> parameters;
    std::int64_t weights = 0;
    double bytes = 0;
    for (const auto& block : group.blocks)
      for (std::int32_t n : block) {
        box.nodes.push_back(n);
        box.seconds += seconds(n);
        for (Value v : at(graph_, n).inputs)
          if (std::holds_alternative<Parameter>(graph_.node(v).op) && parameters.insert(v.node).second)
            weights += graph_.shape(v).size();
        for (std::int32_t slot = 0; slot < static_cast<std::int32_t>(at(graph_, n).outputs.size()); ++slot)
          if (alias_of(at(graph_, n).op, slot) < 0)
            bytes += static_cast<double>(at(graph_, n).outputs[static_cast<std::size_t>(slot)].bytes());
      }
    const std::size_t each = group.blocks.front().size();
    box.lines.push_back(std::to_string(each) + (each == 1 ? " node" : " nodes") + (group.blocks.size() > 1 ? " each" : ""));
    if (group.part != Part::backward && weights > 0) box.lines.push_back(grouped(weights) + " parameters");
    if (group.part != Part::update) box.lines.push_back(byte_text(bytes) + " of results");
    if (options_.profile != nullptr) box.lines.push_back(time_line(box.seconds));
    box.tip = group.title + ": " + std::to_string(group.blocks.size()) + " equal blocks of " + std::to_string(each) + " nodes";
    return box;
  }

  /// Group −1: the whole graph with its groups as boxes.
  Diagram diagram(std::int32_t group) const {
    Diagram d;
    std::map<std::int32_t, std::size_t> box_at, group_box;  // node or group → box
    const bool whole = group < 0;
    const std::set<std::int32_t> inside =
        whole ? std::set<std::int32_t>() : std::set<std::int32_t>(first(group).begin(), first(group).end());
    const std::string scope = whole ? ""
                                    : groups_[static_cast<std::size_t>(group)].series + "." +
                                          std::to_string(groups_[static_cast<std::size_t>(group)].first) + ".";
    std::string plain_scope = scope;
    if (plain_scope.starts_with("update/")) plain_scope.erase(0, 7);
    const auto drawn = [&](std::int32_t n) {  // constants of one value and what is a line elsewhere are not
      const Op& op = at(graph_, n).op;
      const auto* constant = std::get_if<Constant>(&op);
      return !is_kept(op) && (constant == nullptr || constant->values.size() > 1);
    };
    // What comes in from outside stands before the nodes that read it.
    const auto outside = [&](std::int32_t n) {
      const auto found = box_at.find(n);
      if (found != box_at.end()) return found->second;
      const std::int32_t its_group = group_of(n);
      const bool by_group = its_group >= 0 && its_group != group;
      if (by_group && group_box.contains(its_group)) return box_at[n] = group_box[its_group];
      Box box;
      box.kind = Box::Kind::outside;
      box.part = parts_[static_cast<std::size_t>(n)];
      box.title = by_group ? groups_[static_cast<std::size_t>(its_group)].title
                           : shortened(short_name(at(graph_, n).name, plain_scope, op_name(at(graph_, n).op)), 34);
      if (!by_group) box.lines.push_back(to_string(at(graph_, n).outputs[0]));
      box.tip = at(graph_, n).name;
      box.nodes = {n};
      d.boxes.push_back(box);
      if (by_group) group_box[its_group] = d.boxes.size() - 1;
      return box_at[n] = d.boxes.size() - 1;
    };
    std::set<std::pair<std::size_t, std::size_t>> edges;
    for (std::int32_t n = 0; n < static_cast<std::int32_t>(graph_.nodes().size()); ++n) {
      if (!drawn(n) || (!whole && !inside.contains(n))) continue;
      std::vector<std::size_t> from;
      for (Value v : at(graph_, n).inputs) {
        if (!drawn(v.node)) continue;
        if (whole)
          from.push_back(box_at.at(v.node));
        else if (inside.contains(v.node) ||
                 parts_[static_cast<std::size_t>(v.node)] == groups_[static_cast<std::size_t>(group)].part)
          from.push_back(outside(v.node));
      }
      const std::int32_t its_group = whole ? group_of(n) : -1;
      if (its_group >= 0 && group_box.contains(its_group)) {
        box_at[n] = group_box[its_group];
      } else {
        d.boxes.push_back(its_group >= 0 ? box_of_group(its_group) : box_of(n, plain_scope));
        box_at[n] = d.boxes.size() - 1;
        if (its_group >= 0) group_box[its_group] = box_at[n];
      }
      for (std::size_t f : from)
        if (f != box_at[n]) edges.emplace(f, box_at[n]);
    }
    if (whole) {
      for (const auto& [name, value] : graph_.outputs()) {
        if (!drawn(value.node)) continue;
        Box box;
        box.kind = Box::Kind::output;
        box.part = parts_[static_cast<std::size_t>(value.node)];
        box.title = shortened(name, 30);
        box.tip = "output " + name;
        edges.emplace(box_at.at(value.node), d.boxes.size());
        d.boxes.push_back(box);
      }
    }
    d.edges.assign(edges.begin(), edges.end());
    return d;
  }

  const std::vector<std::int32_t>& first(std::int32_t group) const {
    return groups_[static_cast<std::size_t>(group)].blocks.front();
  }
  std::int32_t group_of(std::int32_t n) const {
    const auto found = group_of_.find(n);
    return found == group_of_.end() ? -1 : found->second;
  }

  const Graph& graph_;
  const GraphPicture& options_;
  std::vector<Part> parts_;
  std::vector<Block> blocks_;
  std::vector<bool> runs_;
  std::map<std::string, double> seconds_;
  std::vector<Group> groups_;
  std::map<std::int32_t, std::int32_t> group_of_;
  std::vector<Diagram> diagrams_;
};

}  // namespace

std::vector<Diagram> diagrams_of(const Graph& graph, const GraphPicture& options) { return Builder(graph, options).build(); }

}  // namespace graft::report::detail
