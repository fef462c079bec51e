#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "graft/backend.h"

namespace graft {

/// What a machine can do at most, as measured by `measure_ceilings`; 0: unknown.
struct Ceilings {
  double flops = 0;  ///< floating-point operations a second of a large f32 matrix product
  double bytes = 0;  ///< bytes a second, read and written, of a large elementwise op
};
/// Times a 1024³ product and an elementwise op over 64 MB on the backend: medians of several runs, in about a second.
Ceilings measure_ceilings(Backend& backend);

/// Arithmetic and traffic of one node. flops: 2·m·n·k for a product, 4·pairs·H·D for attention's forward (pairs: a query and a key it sees) and the
/// products that its gradient nodes really do (6, 6 and 4), a handful an element else. bytes: every input and output once.
struct Cost {
  double flops = 0, bytes = 0;
};
Cost cost(const Graph& graph, const Node& node);

struct NodeTime {
  std::string name, op;
  double start = 0, seconds = 0;  ///< within the step; means over the steps profiled
  Cost cost;
};

/// Where the time of a step goes: Session::profile.
struct Profile {
  std::vector<NodeTime> nodes;  ///< in the order run
  int steps = 0;
  double seconds = 0;  ///< of a step, the sum of its nodes

  /// A table by op, the slowest first: calls, milliseconds, share, GFLOP/s, GB/s, and the percentage of the ceiling that binds it (the larger of the two times that the
  /// ceilings allow, over the time taken).
  std::string to_string(const Ceilings& ceilings = {}) const;
  /// One step as Chrome/Perfetto JSON: open it in ui.perfetto.dev. Throws Error naming the file when it cannot be written.
  void write_trace(const std::filesystem::path& file) const;
};

}  // namespace graft
