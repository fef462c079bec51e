#pragma once
// A graph made ready to be drawn: parameters and states are lines in the boxes that read them, repeated layers are one box.
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "graft/pictures.h"

namespace graft::report::detail {

/// Where a node belongs in a training step.
enum class Part : std::uint8_t { forward, backward, update };
/// Of each node of a graph: what reads gradients is backward, what reads states of an optimizer or gradients to apply them is update.
std::vector<Part> parts_of(const Graph& graph);

/// The numbered block that a name lies in: "model.layers.3.mlp.x" gives {"model.layers", 3}; number −1 if there is none.
struct Block {
  std::string series;
  std::int64_t number = -1;
  auto operator<=>(const Block&) const = default;
};
Block block_of(std::string_view name);
/// Of each node; a backward node's is that of what it differentiates.
std::vector<Block> blocks_of(const Graph& graph, const std::vector<Part>& parts);

struct Box {
  enum class Kind : std::uint8_t { input, output, op, group, outside };
  Kind kind = Kind::op;
  Part part = Part::forward;
  std::string title, about;        ///< bold, and beside it
  std::vector<std::string> lines;  ///< below
  std::string tip;                 ///< all there is to say, for a tooltip
  std::string family;              ///< what decides its colour: see family_of
  double seconds = 0;              ///< of all its nodes
  std::int32_t opens = -1;         ///< group: the index of the diagram of its first block
  bool idle = false;               ///< the plan does not run it
  std::vector<std::int32_t> nodes;
};
struct Diagram {
  std::string title;
  std::vector<Box> boxes;
  std::vector<std::pair<std::size_t, std::size_t>> edges;  ///< of boxes; each once
};

/// The whole graph first, then one diagram for each kind of folded block.
std::vector<Diagram> diagrams_of(const Graph& graph, const GraphPicture& options);

/// product, attention, norm, loss, token, update, shape or element.
std::string family_of(const Op& op);
/// The fill of a family, "#rrggbb".
std::string family_colour(std::string_view family);

/// "q_proj" of "model.layers.0.self_attn.q_proj.matmul_0" inside "model.layers.0.": what is left without the scope and the number.
std::string short_name(std::string_view name, std::string_view scope, std::string_view op);

}  // namespace graft::report::detail
