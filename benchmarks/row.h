#pragma once
#include <string>
#include <utility>
#include <vector>

/// Figures by name, in the order in which they were set.
struct Figures {
  std::vector<std::pair<std::string, double>> all;
  double& operator[](const std::string& name);
};

/// One line of a result table. Times are medians; the sides of a comparison alternate within one run.
struct Row {
  std::string bench, name;
  double seconds = 0;                                 ///< of graft; 0: the figures are others
  std::vector<std::pair<std::string, double>> peers;  ///< "torch 2.15.0, eager": its seconds
  Figures more;  ///< "GFLOP/s", "tokens/s", …

  void print() const;
};

/// "0.53", "12.7", "3023".
std::string figure(double value);
/// "1.41×".
std::string times(double ratio);
