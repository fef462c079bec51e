#pragma once
#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "benchmarks/peer.h"
#include "graft/graft.h"

/// One line of a result table. Times are medians; the sides of a comparison alternate within one run.
struct Row {
  std::string bench, name;
  double seconds = 0, peer_seconds = 0;  ///< peer_seconds 0: there was no peer
  nlohmann::ordered_json more;           ///< further figures by name: "GFLOP/s", "tokens/s", …
};

struct Settings {
  int threads = 0, rounds = 7;
  std::string only;  ///< part of a case's name; "" for all
  std::vector<std::pair<std::string, Peer*>> peers;  ///< command that sets a step up ("step", "compiled") and who does it
  graft::Backend* backend = nullptr;
};

inline double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

/// Seconds of one call.
double timed(const std::function<void()>& run);
/// Runs all sides once, then `rounds` times in turn; the median seconds of each.
std::vector<double> alternate(const std::vector<std::function<double()>>& sides, int rounds);

/// A product of 1024³ and a sum over 256 MB, to be a side of `alternate`: the ceilings in the same run.
class CeilingProbe {
 public:
  explicit CeilingProbe(graft::Backend& backend);
  double product() { return timed([&] { product_->step(); }); }
  double read() { return timed([&] { read_->step(); }); }
  static constexpr double kProductFlops = 2.0 * 1024 * 1024 * 1024;
  static constexpr double kReadBytes = 8192.0 * 8192.0 * 4.0;

 private:
  std::unique_ptr<graft::Session> product_, read_;
};

std::vector<Row> bench_step(const Settings& settings);
std::vector<Row> bench_attention(const Settings& settings);
std::vector<Row> bench_gemm(const Settings& settings);
std::vector<Row> bench_decode(const Settings& settings);
/// Peak resident memory of a process that trains config L for three steps; the peer's has run nothing else.
std::vector<Row> bench_memory(const Settings& settings, const std::string& self);
/// What `bench_memory` runs in a process of its own; prints its peak in bytes.
int memory_child(int threads);
