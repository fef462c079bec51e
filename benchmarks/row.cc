#include "benchmarks/row.h"

#include <algorithm>
#include <cstdio>

std::string figure(double value) {
  char text[32];
  std::snprintf(text, sizeof text, value >= 1000 ? "%.0f" : value >= 10 ? "%.1f" : "%.2f", value);
  return text;
}

std::string times(double ratio) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f×", ratio);
  return text;
}

double& Figures::operator[](const std::string& name) {
  const auto found = std::find_if(all.begin(), all.end(), [&](const auto& figure) { return figure.first == name; });
  return found != all.end() ? found->second : all.emplace_back(name, 0.0).second;
}

void Row::print() const {
  std::printf("%-10s %-24s", bench.c_str(), name.c_str());
  if (seconds > 0) std::printf(" %10s ms", figure(seconds * 1e3).c_str());
  for (const auto& [label, value] : more.all) std::printf("  %s %s", figure(value).c_str(), label.c_str());
  for (const auto& [label, theirs] : peers)
    std::printf("\n%36s%10s ms  %s (graft has %s its speed)", "", figure(theirs * 1e3).c_str(), label.c_str(),
                times(theirs / seconds).c_str());
  std::printf("\n");
  std::fflush(stdout);
}
