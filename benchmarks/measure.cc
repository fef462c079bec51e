#include "benchmarks/measure.h"

#include <chrono>

double timed(const std::function<void()>& run) {
  const auto start = std::chrono::steady_clock::now();
  run();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double timed_in_loop(const std::function<void()>& run) {
  constexpr double kTurn = 0.25;
  double total = 0;
  int count = 0;
  for (; total < kTurn; ++count) total += timed(run);
  return total / count;
}

std::vector<double> alternate(const std::vector<std::function<double()>>& sides, int rounds) {
  std::vector<std::vector<double>> times(sides.size());
  for (const auto& side : sides) side();
  for (int round = 0; round < rounds; ++round)
    for (std::size_t i = 0; i < sides.size(); ++i) times[i].push_back(sides[i]());
  std::vector<double> medians;
  for (const auto& t : times) medians.push_back(median(t));
  return medians;
}

CeilingProbe::CeilingProbe(graft::Backend& backend) {
  using namespace graft;
  Graph product;
  product.output("c", product.matmul(product.parameter("a", {1024, 1024}, Init::uniform(-1, 1)),
                                     product.parameter("b", {1024, 1024}, Init::uniform(-1, 1))));
  product_ = std::make_unique<Session>(product, backend);
  Graph read;
  read.output("sum", read.record(GlobalNorm{}, {read.parameter("x", {8192, 8192}, Init::ones())}));
  read_ = std::make_unique<Session>(read, backend);
}
