#include "src/report/layout.h"

#include <algorithm>
#include <numeric>

namespace graft::report::detail {
namespace {

/// A box, or a bend of an edge that passes a row.
struct Item {
  std::size_t row = 0;
  double width = 0, x = 0;
  bool bend = false;
  std::vector<std::size_t> up, down;
};

constexpr double kBendWidth = 6;

class Rows {
 public:
  Rows(const std::vector<LayoutBox>& boxes, const std::vector<LayoutEdge>& edges) : items_(boxes.size()), chain_(edges.size()) {
    assign_rows(edges);
    for (std::size_t i = 0; i < boxes.size(); ++i) items_[i].width = boxes[i].width;
    for (std::size_t e = 0; e < edges.size(); ++e)
      if (edges[e].from < edges[e].to) chain_[e] = connect(edges[e].from, edges[e].to);
    for (std::size_t i = 0; i < items_.size(); ++i) {
      if (items_[i].row >= rows_.size()) rows_.resize(items_[i].row + 1);
      rows_[items_[i].row].push_back(i);
    }
  }

  void order() {
    std::vector<std::vector<std::size_t>> best = rows_;
    long least = crossings();
    for (int sweep = 0; sweep < 12; ++sweep) {
      const bool down = sweep % 2 == 0;
      for (std::size_t k = 1; k < rows_.size(); ++k) sort_row(down ? k : rows_.size() - 1 - k, down);
      const long now = crossings();
      if (now < least) least = now, best = rows_;
    }
    rows_ = best;
  }

  void place(double gap) {
    for (auto& row : rows_) {
      double x = 0;
      for (std::size_t i : row) items_[i].x = x += items_[i].width / 2 + gap, x += items_[i].width / 2;
    }
    for (int sweep = 0; sweep < 40; ++sweep) {
      const bool down = sweep % 2 == 0;
      for (std::size_t k = 0; k < rows_.size(); ++k) settle(down ? k : rows_.size() - 1 - k, down, sweep >= 12, gap);
    }
  }

  const Item& item(std::size_t i) const { return items_[i]; }
  std::size_t count() const { return items_.size(); }
  const std::vector<std::size_t>& chain(std::size_t edge) const { return chain_[edge]; }

 private:
  void assign_rows(const std::vector<LayoutEdge>& edges) {
    std::vector<LayoutEdge> sorted;
    for (const LayoutEdge& e : edges)
      if (e.from < e.to) sorted.push_back({e.from, e.to, {}});
    std::sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.from < b.from; });
    for (const LayoutEdge& e : sorted) items_[e.to].row = std::max(items_[e.to].row, items_[e.from].row + 1);
    // What nothing leads to stands just above what it leads to.
    std::vector<bool> entered(items_.size());
    std::vector<std::size_t> least(items_.size(), items_.size());
    for (const LayoutEdge& e : sorted) {
      entered[e.to] = true;
      least[e.from] = std::min(least[e.from], items_[e.to].row);
    }
    for (std::size_t i = 0; i < items_.size(); ++i)
      if (!entered[i] && least[i] < items_.size()) items_[i].row = least[i] - 1;
  }

  /// The items from one box to another, with a bend in each row between.
  std::vector<std::size_t> connect(std::size_t from, std::size_t to) {
    std::vector<std::size_t> chain = {from};
    for (std::size_t row = items_[from].row + 1; row < items_[to].row; ++row) {
      chain.push_back(items_.size());
      items_.push_back({row, kBendWidth, 0, true, {}, {}});
    }
    chain.push_back(to);
    for (std::size_t k = 1; k < chain.size(); ++k) {
      items_[chain[k - 1]].down.push_back(chain[k]);
      items_[chain[k]].up.push_back(chain[k - 1]);
    }
    return chain;
  }

  std::vector<double> places(const std::vector<std::size_t>& row) const {
    std::vector<double> place(items_.size());
    for (std::size_t k = 0; k < row.size(); ++k) place[row[k]] = static_cast<double>(k);
    return place;
  }

  void sort_row(std::size_t row, bool down) {
    if (rows_.size() < 2) return;
    const std::vector<double> place = places(rows_[down ? row - 1 : row + 1]), own = places(rows_[row]);
    std::vector<double> key(items_.size());
    for (std::size_t i : rows_[row]) {
      const std::vector<std::size_t>& near = down ? items_[i].up : items_[i].down;
      double sum = 0;
      for (std::size_t n : near) sum += place[n];
      key[i] = near.empty() ? own[i] : sum / static_cast<double>(near.size());
    }
    std::stable_sort(rows_[row].begin(), rows_[row].end(), [&](std::size_t a, std::size_t b) { return key[a] < key[b]; });
  }

  long crossings() const {
    long count = 0;
    for (std::size_t r = 0; r + 1 < rows_.size(); ++r) {
      const std::vector<double> place = places(rows_[r + 1]);
      std::vector<double> ends;  // of the edges, in the order of where they begin
      for (std::size_t i : rows_[r]) {
        std::vector<double> own;
        for (std::size_t n : items_[i].down) own.push_back(place[n]);
        for (double end : own) count += std::count_if(ends.begin(), ends.end(), [&](double other) { return other > end; });
        ends.insert(ends.end(), own.begin(), own.end());
      }
    }
    return count;
  }

  void settle(std::size_t row, bool down, bool both, double gap) {
    std::vector<double> wanted, weights, distance;
    for (std::size_t k = 0; k < rows_[row].size(); ++k) {
      const Item& item = items_[rows_[row][k]];
      double sum = 0, weight = 0;
      const auto pull = [&](const std::vector<std::size_t>& near) {
        for (std::size_t n : near) {
          const double w = item.bend && items_[n].bend   ? 8
                           : item.bend || items_[n].bend ? 1
                                                         : 4;  // long edges are straight, near ones short
          sum += w * items_[n].x, weight += w;
        }
      };
      if (down || both) pull(item.up);
      if (!down || both) pull(item.down);
      wanted.push_back(weight > 0 ? sum / weight : item.x);
      weights.push_back(weight > 0 ? weight : 0.1);
      if (k > 0) distance.push_back((items_[rows_[row][k - 1]].width + item.width) / 2 + gap);
    }
    const std::vector<double> x = spread(wanted, weights, distance);
    for (std::size_t k = 0; k < rows_[row].size(); ++k) items_[rows_[row][k]].x = x[k];
  }

  std::vector<Item> items_;
  std::vector<std::vector<std::size_t>> chain_, rows_;
};

}  // namespace

std::vector<double> spread(const std::vector<double>& wanted, const std::vector<double>& weights,
                           const std::vector<double>& distance) {
  // With the distances taken off, this is isotonic regression: pool neighbours that are out of order.
  struct Pool {
    double sum, weight;
    std::size_t count;
  };
  std::vector<double> offset(wanted.size());
  for (std::size_t i = 1; i < wanted.size(); ++i) offset[i] = offset[i - 1] + distance[i - 1];
  std::vector<Pool> pools;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    pools.push_back({weights[i] * (wanted[i] - offset[i]), weights[i], 1});
    while (pools.size() > 1) {
      Pool& a = pools[pools.size() - 2];
      const Pool& b = pools.back();
      if (a.sum / a.weight <= b.sum / b.weight) break;
      a = {a.sum + b.sum, a.weight + b.weight, a.count + b.count};
      pools.pop_back();
    }
  }
  std::vector<double> x;
  for (const Pool& pool : pools)
    for (std::size_t k = 0; k < pool.count; ++k) x.push_back(pool.sum / pool.weight + offset[x.size()]);
  return x;
}

LayoutSize lay_out(std::vector<LayoutBox>& boxes, std::vector<LayoutEdge>& edges, double column_gap, double row_gap) {
  if (boxes.empty()) return {};
  Rows rows(boxes, edges);
  rows.order();
  rows.place(column_gap);

  double left = rows.item(0).x, right = left;
  std::vector<double> height;
  for (std::size_t i = 0; i < rows.count(); ++i) {
    const Item& item = rows.item(i);
    left = std::min(left, item.x - item.width / 2);
    right = std::max(right, item.x + item.width / 2);
    height.resize(std::max(height.size(), item.row + 1));
    if (!item.bend) height[item.row] = std::max(height[item.row], boxes[i].height);
  }
  std::vector<double> middle;
  double y = 0;
  for (double h : height) {
    middle.push_back(y + h / 2);
    y += h + row_gap;
  }
  for (std::size_t i = 0; i < boxes.size(); ++i) boxes[i].x = rows.item(i).x - left, boxes[i].y = middle[rows.item(i).row];
  for (std::size_t e = 0; e < edges.size(); ++e) {
    edges[e].points.clear();
    const std::vector<std::size_t>& chain = rows.chain(e);
    for (std::size_t k = 0; k < chain.size(); ++k) {
      const Item& item = rows.item(chain[k]);
      const double x = item.x - left, at = middle[item.row];
      if (item.bend) {
        edges[e].points.emplace_back(x, at - height[item.row] / 2);  // straight past the row's boxes
        edges[e].points.emplace_back(x, at + height[item.row] / 2);
      } else {
        const double half = boxes[chain[k]].height / 2;
        edges[e].points.emplace_back(x, k == 0 ? at + half : at - half);
      }
    }
  }
  return {right - left, y - row_gap};
}

}  // namespace graft::report::detail
