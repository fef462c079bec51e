// The layout of graphs: rows, order, places.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>

#include "graft/philox.h"
#include "src/report/layout.h"

namespace graft::report::detail {
namespace {

std::vector<LayoutBox> boxes(std::size_t count, double width = 100, double height = 40) {
  return std::vector<LayoutBox>(count, {width, height, 0, 0});
}

TEST(Layout, SpreadKeepsWhatFits) { EXPECT_EQ(spread({0, 10, 25}, {1, 1, 1}, {10, 15}), (std::vector<double>{0, 10, 25})); }

TEST(Layout, SpreadPushesApartWhatOverlapsByLeastSquares) {
  EXPECT_EQ(spread({5, 5}, {1, 1}, {10}), (std::vector<double>{0, 10}));  // half of the way each
  EXPECT_EQ(spread({4, 4}, {3, 1}, {8}), (std::vector<double>{2, 10}));   // the heavier moves less
  EXPECT_EQ(spread({0, 0, 100}, {1, 1, 1}, {6, 6}), (std::vector<double>{-3, 3, 100}));
  EXPECT_EQ(spread({9, 0, 0}, {1, 1, 1}, {3, 3}), (std::vector<double>{0, 3, 6}));  // all in one
  EXPECT_EQ(spread({}, {}, {}), std::vector<double>{});
}

TEST(Layout, AChainIsAStraightColumn) {
  std::vector<LayoutBox> b = boxes(3);
  std::vector<LayoutEdge> e = {{0, 1, {}}, {1, 2, {}}};
  const LayoutSize size = lay_out(b, e, 24, 34);
  EXPECT_DOUBLE_EQ(size.width, 100);
  EXPECT_DOUBLE_EQ(size.height, 3 * 40 + 2 * 34);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_NEAR(b[i].x, 50, 1e-9);
    EXPECT_DOUBLE_EQ(b[i].y, 20 + 74.0 * static_cast<double>(i));
  }
  ASSERT_EQ(e[0].points.size(), 2u);
  EXPECT_DOUBLE_EQ(e[0].points[0].second, 40);  // the lower side of the first
  EXPECT_DOUBLE_EQ(e[0].points[1].second, 74);  // the upper side of the second
}

TEST(Layout, ARowIsAsHighAsItsHighestBox) {
  std::vector<LayoutBox> b = boxes(4);
  b[1].height = 80;
  std::vector<LayoutEdge> e = {{0, 1, {}}, {0, 2, {}}, {1, 3, {}}, {2, 3, {}}};
  const LayoutSize size = lay_out(b, e, 10, 20);
  EXPECT_DOUBLE_EQ(size.height, 40 + 20 + 80 + 20 + 40);
  EXPECT_DOUBLE_EQ(b[1].y, 100);
  EXPECT_DOUBLE_EQ(b[2].y, 100);
  EXPECT_DOUBLE_EQ(b[3].y, 180);
  EXPECT_DOUBLE_EQ(size.width, 210);
  EXPECT_LT(b[1].x, b[2].x) << "what is equal stays in order";
  EXPECT_NEAR(b[0].x, 105, 0.5);
  EXPECT_DOUBLE_EQ(e[2].points[0].second, 140);
  EXPECT_DOUBLE_EQ(e[3].points[0].second, 120);  // from its own side, not the row's
}

TEST(Layout, ALongEdgePassesBesideTheBoxes) {
  std::vector<LayoutBox> b = boxes(3);
  std::vector<LayoutEdge> e = {{0, 1, {}}, {1, 2, {}}, {0, 2, {}}};
  lay_out(b, e);
  ASSERT_EQ(e[2].points.size(), 4u);
  for (std::size_t k : {1u, 2u}) EXPECT_GE(std::abs(e[2].points[k].first - b[1].x), 50 + 24);
  EXPECT_DOUBLE_EQ(e[2].points[1].second, b[1].y - 20);
  EXPECT_DOUBLE_EQ(e[2].points[2].second, b[1].y + 20);
}

TEST(Layout, CrossingsAreUndone) {
  // 0 and 1 lead to 3 and 2: drawn in order, they cross.
  std::vector<LayoutBox> b = boxes(4);
  std::vector<LayoutEdge> e = {{0, 3, {}}, {1, 2, {}}};
  lay_out(b, e);
  EXPECT_LT((b[0].x - b[1].x) * (b[2].x - b[3].x), 0);
}

TEST(Layout, ASourceStandsJustAboveItsReader) {
  std::vector<LayoutBox> b = boxes(4);
  std::vector<LayoutEdge> e = {{0, 2, {}}, {2, 3, {}}, {1, 3, {}}};
  lay_out(b, e);
  EXPECT_DOUBLE_EQ(b[1].y, b[2].y);
  EXPECT_EQ(e[2].points.size(), 2u);
}

TEST(Layout, EdgesUpwardsCountForNothing) {
  std::vector<LayoutBox> b = boxes(2);
  std::vector<LayoutEdge> e = {{0, 1, {}}, {1, 0, {}}, {1, 1, {}}};
  lay_out(b, e);
  EXPECT_LT(b[0].y, b[1].y);
  EXPECT_TRUE(e[1].points.empty());
  EXPECT_TRUE(e[2].points.empty());
}

TEST(Layout, NothingIsNothing) {
  std::vector<LayoutBox> b;
  std::vector<LayoutEdge> e;
  EXPECT_EQ(lay_out(b, e).width, 0);
}

TEST(Layout, OnRandomGraphsNothingOverlapsAndAllLeadsDown) {
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    const auto random = [&, i = std::uint64_t{0}](double below) mutable {
      return static_cast<std::size_t>(philox::uniform(philox::bits(seed, 0, 0, i++)) * below);
    };
    auto draw = random;
    std::vector<LayoutBox> b;
    for (std::size_t i = 0; i < 25; ++i)
      b.push_back({40.0 + static_cast<double>(draw(120)), 20.0 + static_cast<double>(draw(50)), 0, 0});
    std::vector<LayoutEdge> e;
    for (std::size_t to = 1; to < b.size(); ++to)
      for (std::size_t k = draw(3); k-- > 0;) e.push_back({draw(static_cast<double>(to)), to, {}});
    const LayoutSize size = lay_out(b, e, 15, 25);
    for (std::size_t i = 0; i < b.size(); ++i) {
      EXPECT_GE(b[i].x - b[i].width / 2, -1e-9);
      EXPECT_LE(b[i].x + b[i].width / 2, size.width + 1e-9);
      EXPECT_GE(b[i].y - b[i].height / 2, -1e-9);
      EXPECT_LE(b[i].y + b[i].height / 2, size.height + 1e-9);
      for (std::size_t j = 0; j < i; ++j) {
        const bool apart = std::abs(b[i].x - b[j].x) >= (b[i].width + b[j].width) / 2 + 15 - 1e-6 ||
                           std::abs(b[i].y - b[j].y) >= (b[i].height + b[j].height) / 2 + 25 - 1e-6;
        EXPECT_TRUE(apart) << seed << ": " << i << " and " << j;
      }
    }
    for (const LayoutEdge& edge : e) {
      ASSERT_GE(edge.points.size(), 2u);
      for (std::size_t k = 1; k < edge.points.size(); ++k) EXPECT_GT(edge.points[k].second, edge.points[k - 1].second);
      EXPECT_DOUBLE_EQ(edge.points.front().first, b[edge.from].x);
      EXPECT_DOUBLE_EQ(edge.points.back().first, b[edge.to].x);
      EXPECT_DOUBLE_EQ(edge.points.front().second, b[edge.from].y + b[edge.from].height / 2);
      EXPECT_DOUBLE_EQ(edge.points.back().second, b[edge.to].y - b[edge.to].height / 2);
    }
  }
}

}  // namespace
}  // namespace graft::report::detail
