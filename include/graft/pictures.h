#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "graft/graph.h"
#include "graft/plan.h"
#include "graft/profile.h"
#include "graft/session.h"

/// Pictures of graphs, plans and attention, each one self-contained text or file: no scripts, fonts or images from elsewhere. They have a
/// white background of their own, so that they look the same on light and dark pages.
namespace graft::report {

/// What a picture of a graph shows beside names, shapes and dtypes.
struct GraphPicture {
  std::string title = {};            ///< default: the number of nodes
  const Plan* plan = nullptr;        ///< of this graph: memory of each node's results, what does not run
  const Profile* profile = nullptr;  ///< of a session of this graph: time of each node
  bool fold = true;                  ///< blocks that repeat, as "model.layers.0", …, are one box "× 12"
};

/// The graph as Graphviz: one box a node, or a folded block.
std::string graph_dot(const Graph& graph, const GraphPicture& options = {});
/// The graph drawn: the forward pass leads down, beside it the backward pass leads up, then the update. Beside it one of the folded blocks of
/// the forward and of the backward pass.
std::string graph_svg(const Graph& graph, const GraphPicture& options = {});
/// The graph as a page: folded blocks open on a click, boxes say all their attributes when pointed at, a table lists every node.
std::string graph_html(const Graph& graph, const GraphPicture& options = {});

/// What a picture of memory shows.
struct MemoryPicture {
  std::string title = {};            ///< default: the size of the arena and what it would be without reuse
  const Profile* profile = nullptr;  ///< of a session of this plan: the horizontal axis is then time instead of nodes
  int named = 8;                     ///< how many of the largest values are named
};

/// The arena of a plan over a step: each value a rectangle from where it is made to where it is read last, at its place in the arena,
/// coloured by kind; the bytes in use as a line, with its peak; the parts of the step above.
std::string memory_svg(const Plan& plan, const MemoryPicture& options = {});

/// What each query of one head attends to, in one sequence.
struct AttentionMap {
  std::string node;  ///< the attention's name
  std::int64_t head = 0, sequence = 0;
  std::int64_t rows = 0, cols = 0;  ///< queries and keys of the sequence
  std::vector<double> weights;      ///< row-major; a row adds up to 1, or to 0 if it sees no key; exactly 0 where the mask hides
};

/// Makes q, k and lse of every attention of the graph outputs ("attention/<node>/q", …), so that `attention_map` can read them after a step.
/// Record it last. Returns the names of the attentions.
std::vector<std::string> keep_attention(Graph& graph);

/// P = exp(scale·q·kᵀ − lse), recomputed on the host from the values of the last step. `node` names a multi_head_attn whose q, k and lse were
/// kept (keep_attention, or PlanOptions::keep_all). Throws Error when it is none, was not kept, or has no such head or sequence.
AttentionMap attention_map(Session& session, std::string_view node, std::int64_t head, std::int64_t sequence = 0);

/// The map as a PNG of `cell` × `cell` pixels a weight (0: about 512 pixels wide). Colours go with the root of the weight over the largest;
/// hidden keys are grey.
std::string attention_png(const AttentionMap& map, int cell = 0);
/// Maps beside one another, with axes and, where they can be read (at most two maps a row, of at most 48 tokens), the tokens. `columns` 0: up to four a row.
std::string attention_svg(const std::vector<AttentionMap>& maps, std::string_view title,
                          const std::vector<std::string>& tokens = {}, int columns = 0);

/// What each query sees, small and without a scale: blue where the weight is not 0.
std::string mask_svg(const AttentionMap& map, std::string_view title);

/// A matrix over steps, as norms by layer, drawn as a map of colours on a logarithmic scale. NaN and values not above 0 are left white.
struct HeatMap {
  std::string title = {}, x_label = "step", value_label = {};
  std::vector<std::string> rows = {};             ///< names, from above
  std::vector<double> x = {};                     ///< one a column, rising
  std::vector<std::vector<double>> columns = {};  ///< one a step, each a value a row
};
/// Throws Error when the sizes do not fit.
std::string heat_map_svg(const HeatMap& map);

/// Writes text or bytes to a file. Throws Error naming the file when it cannot be written.
void write_picture(const std::filesystem::path& file, std::string_view content);

}  // namespace graft::report
