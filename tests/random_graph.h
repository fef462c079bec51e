#pragma once
// Graphs made of a seed, to prove what must hold of every plan: views, several outputs, states that are overwritten, values that
// nothing reads.
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "graft/backend.h"
#include "graft/graph.h"

namespace graft::testing {

struct RandomGraph {
  Graph graph;
  std::map<std::string, std::vector<double>> inputs;
};

/// About `nodes` nodes over matrices [6, 4] and [4, 6], with gradients of a loss now and then.
RandomGraph random_graph(std::uint64_t seed, int nodes = 40);

/// A backend that fills new memory with NaN, so that reading what nobody wrote shows.
std::unique_ptr<Backend> poisoned(std::unique_ptr<Backend> backend);

}  // namespace graft::testing
