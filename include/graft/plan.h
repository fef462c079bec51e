#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "graft/backend.h"
#include "graft/graph.h"

namespace graft {

struct PlanOptions {
  /// Keep every value readable after a step, at the price of reusing no memory and of running nodes that no output needs.
  /// For debugging and checks.
  bool keep_all = false;
};

/// Order and memory of a graph: which nodes run (those an output or an effect needs, in the order recorded), and where each value
/// lives.
/// Values that die make room for later ones in one arena; elementwise results take their operand's place when it dies there;
/// views and overwritten states share their source's memory; an output slot that nothing reads has none.
class Plan {
 public:
  /// Copies the graph. `backend` is asked for the workspace of each node.
  Plan(const Graph& graph, Backend& backend, const PlanOptions& options = {});

  static constexpr std::int32_t kNone = -1;
  /// Where a value lives: `buffer` indexes buffers(); kNone if it has no memory.
  std::int32_t buffer_of(Value v) const;
  /// Whether v still has its memory after a step: sources, outputs, what shares memory with those; everything with keep_all.
  bool kept(Value v) const;
  struct Buffer {
    std::size_t bytes = 0;
    std::size_t offset = 0;      ///< in the arena, if not persistent
    bool persistent = false;     ///< inputs, parameters, states, constants: outside the arena, kept between steps
    std::int32_t source = kNone; ///< persistent only: its source node
    /// Indices into order() of the first and last node that touch it; kNone if none does. Values kept after the step: last is
    /// order().size().
    std::int32_t first = kNone, last = kNone;
  };

  const Graph& graph() const { return graph_; }
  const std::vector<std::int32_t>& order() const { return order_; }
  const std::vector<Buffer>& buffers() const { return buffers_; }
  /// Bytes of the arena, of the scratch shared by all nodes, of persistent memory, and of the arena had nothing been reused.
  std::size_t arena_bytes() const { return arena_bytes_; }
  std::size_t workspace_bytes() const { return workspace_bytes_; }
  std::size_t persistent_bytes() const;
  std::size_t bytes_without_reuse() const { return bytes_without_reuse_; }

 private:
  Graph graph_;
  std::vector<std::int32_t> order_;
  std::vector<Buffer> buffers_;
  std::vector<std::vector<std::int32_t>> buffer_of_;  // node → slot → buffer
  std::vector<std::vector<bool>> kept_;
  std::size_t arena_bytes_ = 0, workspace_bytes_ = 0, bytes_without_reuse_ = 0;
};

}  // namespace graft
