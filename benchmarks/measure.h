#pragma once
#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "benchmarks/peer.h"
#include "benchmarks/row.h"
#include "graft/graft.h"

/// A peer's process and how it runs a training step: "step" (eager) or "compiled".
struct PeerSide {
  std::string setup;
  Peer* peer = nullptr;
  /// "torch 2.15.0, eager".
  std::string label() const { return peer->description() + (setup == "step" ? ", eager" : ", " + setup); }
};

struct Settings {
  int threads = 0, rounds = 7;
  std::string only;  ///< part of a case's name; "" for all
  std::vector<PeerSide> peers;
  graft::Backend* backend = nullptr;
  std::function<void(Row)> add;  ///< what is done with each row as soon as it is measured
};

inline double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

/// Seconds of one call.
double timed(const std::function<void()>& run);
/// Seconds of a call in a loop: the mean of as many as fill a quarter of a second. A short one that is measured alone finds the caches
/// as the side before it left them.
double timed_in_loop(const std::function<void()>& run);
/// Runs all sides once, then `rounds` times in turn; the median seconds of each.
std::vector<double> alternate(const std::vector<std::function<double()>>& sides, int rounds);

/// A product of 1024³ and a sum over 256 MB, to be a side of `alternate`: the ceilings in the same run.
class CeilingProbe {
 public:
  explicit CeilingProbe(graft::Backend& backend);
  double product() {
    return timed_in_loop([&] { product_->step(); });
  }
  double read() {
    return timed([&] { read_->step(); });
  }
  static constexpr double kProductFlops = 2.0 * 1024 * 1024 * 1024;
  static constexpr double kReadBytes = 8192.0 * 8192.0 * 4.0;

 private:
  std::unique_ptr<graft::Session> product_, read_;
};

/// Configurations S, M, L and W in f32, and in bf16 beside their own f32.
void bench_step(const Settings& settings);
/// Ten steps of configurations S and M with a checkpoint saved beside them, and before them.
void bench_save(const Settings& settings);
/// Configuration M with one thread and with all.
void bench_scaling(const Settings& settings);
void bench_attention(const Settings& settings);
void bench_gemm(const Settings& settings);
void bench_decode(const Settings& settings);
/// Encoding a text of 8 MB on one thread, beside the tokenizers package of a peer that has it.
void bench_tokenizer(const Settings& settings);
/// Peak resident memory of a process that trains config L for three steps; the peer's has run nothing else.
void bench_memory(const Settings& settings, const std::string& self);
/// From the start of a process to the end of its first training step, config S.
void bench_start(const Settings& settings, const std::string& self);
/// What bench_memory and bench_start run in a process of its own: trains config `name`, prints its peak memory in bytes.
int training_child(const std::string& name, int threads, int steps);
