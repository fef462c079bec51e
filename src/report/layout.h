#pragma once
// Where the boxes of a directed graph go: rows by longest path, order in a row by barycentres, x by least squares.
#include <cstddef>
#include <utility>
#include <vector>

namespace graft::report::detail {

struct LayoutBox {
  double width = 0, height = 0;
  double x = 0, y = 0;  ///< the result: its centre
};
struct LayoutEdge {
  std::size_t from = 0, to = 0;
  std::vector<std::pair<double, double>>
      points;  ///< the result: from the lower side of `from` over bends to the upper side of `to`
};
struct LayoutSize {
  double width = 0, height = 0;
};

/// Places boxes in rows so that edges lead down; edges that go up in the numbering (from ≥ to) count for nothing, and have no points.
/// No two boxes overlap; all lie in [0, width] × [0, height].
LayoutSize lay_out(std::vector<LayoutBox>& boxes, std::vector<LayoutEdge>& edges, double column_gap = 24, double row_gap = 34);

/// The x nearest to `wanted` (in least squares with the weights) with x[i + 1] − x[i] ≥ distance[i].
std::vector<double> spread(const std::vector<double>& wanted, const std::vector<double>& weights,
                           const std::vector<double>& distance);

}  // namespace graft::report::detail
