// The CSV of a run and its charts.
#include "graft/report.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>

#include "tests/message.h"
#include "tests/xml.h"

namespace graft {
namespace {

using graft::testing::Element;
using graft::testing::elements;
using graft::testing::message_of;
using graft::testing::parse_xml;
using graft::testing::texts;
namespace fs = std::filesystem;

class Report : public ::testing::Test {
 protected:
  void SetUp() override {
    folder = fs::path(::testing::TempDir()) / ("report-" + std::to_string(::getpid()));
    fs::remove_all(folder);
    fs::create_directories(folder);
  }
  void TearDown() override { fs::remove_all(folder); }
  static std::string text_of(const fs::path& file) {
    std::ifstream in(file, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(in), {});
  }
  fs::path folder;
};

TEST_F(Report, RowsAreWrittenAsTheyCome) {
  MetricsLog log(folder / "m.csv", {"step", "loss", "other"});
  log.append({1, 2.5, std::nan("")});
  log.append({2, 0.1, 3});
  EXPECT_EQ(text_of(folder / "m.csv"), "step,loss,other\n1,2.5,\n2,0.1,3\n");
  EXPECT_EQ(log.rows().size(), 2u);
  EXPECT_EQ(log.columns()[1], "loss");
  MetricsLog again(folder / "m.csv", {"step"});
  EXPECT_EQ(text_of(folder / "m.csv"), "step\n") << "0 starts anew";
}

TEST_F(Report, AResumedRunKeepsTheRowsBeforeItAndWholeOnesOnly) {
  std::ofstream(folder / "m.csv") << "step,loss\n1,5\n2,\n,7\n3,x\n3,4,5\n3,4\n4,1\n5,2";
  const MetricsLog log(folder / "m.csv", {"step", "loss"}, 3);
  EXPECT_EQ(text_of(folder / "m.csv"), "step,loss\n1,5\n2,\n3,4\n");
  ASSERT_EQ(log.rows().size(), 3u);
  EXPECT_TRUE(std::isnan(log.rows()[1][1]));
  EXPECT_EQ(log.rows()[2], (std::vector<double>{3, 4}));
  std::ofstream(folder / "cut.csv") << "step,loss\n1,5\n2,6";
  EXPECT_EQ(MetricsLog(folder / "cut.csv", {"step", "loss"}, 9).rows().size(), 1u) << "a row without its end may be half of one";
  EXPECT_EQ(MetricsLog(folder / "new.csv", {"step", "loss"}, 9).rows().size(), 0u);
}

TEST_F(Report, WhatDoesNotFitIsRefused) {
  std::ofstream(folder / "m.csv") << "step,loss\n";
  EXPECT_EQ(message_of([&] {
              MetricsLog log(folder / "m.csv", {"step", "other"}, 1);
            }),
            "metrics file \"" + (folder / "m.csv").string() + "\": has other columns, got \"step,loss\" and \"step,other\"");
  EXPECT_EQ(message_of([&] { MetricsLog log(folder / "no" / "m.csv", {"step"}); }),
            "metrics file \"" + (folder / "no" / "m.csv").string() + "\": cannot be written: No such file or directory");
  MetricsLog log(folder / "m.csv", {"step"});
  EXPECT_THROW(log.append({1, 2}), InternalError);
  fs::remove_all(folder);
  EXPECT_EQ(message_of([&] { log.append({1}); }),
            "metrics file \"" + (folder / "m.csv").string() + "\": cannot be written: No such file or directory");
  EXPECT_EQ(message_of([&] { write_chart_svg(folder / "c.svg", "", "", "", {}); }),
            "chart \"" + (folder / "c.svg").string() + "\": cannot be written: No such file or directory");
}

TEST_F(Report, SmoothingIsAnUnbiasedMovingAverage) {
  const auto smooth = smoothed({{1, 4}, {2, std::nan("")}, {3, 8}, {4, 0}}, 0.5);
  ASSERT_EQ(smooth.size(), 3u);
  EXPECT_EQ(smooth[0], (std::pair<double, double>{1, 4}));
  EXPECT_EQ(smooth[1].first, 3);
  EXPECT_DOUBLE_EQ(smooth[1].second, (4 * 0.25 + 8 * 0.5) / 0.75);
  EXPECT_DOUBLE_EQ(smooth[2].second, (4 * 0.125 + 8 * 0.25) / 0.875);
}

TEST_F(Report, AChartDrawsItsSeriesToScale) {
  write_chart_svg(folder / "c.svg", "T <1>", "step", "loss",
                  {{"a", {{0, 1}, {5, std::nan("")}, {10, 3}}, "#111111"},
                   {"marks", {{5, 2}}, "#222222", true},
                   {"", {{0, 0.5}}, "#333333", false, true}});
  const std::vector<Element> svg = parse_xml(text_of(folder / "c.svg"));
  const auto said = texts(svg);
  for (const char* text : {"T <1>", "step", "loss", "a", "marks", "0", "10", "0.5", "3.0"})
    EXPECT_NE(std::find(said.begin(), said.end(), text), said.end()) << text;
  // x from 0 to 10 over 64 … 740, y from 0.5 to 3.0 over 388 … 44.
  EXPECT_EQ(elements(svg, "path", "stroke", "#111111")[0].attributes.at("d"), "M64.00 319.20L740.00 44.00");
  EXPECT_EQ(elements(svg, "path", "stroke", "#333333")[0].attributes.at("stroke-opacity"), "0.6");
  const auto marks = elements(svg, "circle");
  ASSERT_EQ(marks.size(), 1u);
  EXPECT_EQ(marks[0].number("cx"), 402);
  EXPECT_NEAR(marks[0].number("cy"), 388 - 344 * 1.5 / 2.5, 0.01);
  EXPECT_EQ(marks[0].attributes.at("fill"), "#222222");
  std::map<std::string, double> ends;
  for (const Element& e : elements(svg, "text", "text-anchor", "end")) ends[e.text] = e.number("x");
  EXPECT_EQ(ends.at("marks"), 728);
  EXPECT_LT(ends.at("a"), 728 - 40) << "names in the legend do not touch";
}

TEST_F(Report, ChartsOfNothingAndOfOnePointHaveAxes) {
  write_chart_svg(folder / "none.svg", "T", "x", "y", {});
  write_chart_svg(folder / "one.svg", "T", "x", "y", {{"a", {{3, 7}}, "#111111"}});
  parse_xml(text_of(folder / "none.svg"));
  EXPECT_EQ(elements(parse_xml(text_of(folder / "one.svg")), "path", "stroke", "#111111")[0].attributes.at("d"), "M402.00 216.00");
}

}  // namespace
}  // namespace graft
