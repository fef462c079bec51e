#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graft/backend.h"
#include "graft/checkpoint.h"
#include "graft/plan.h"
#include "graft/profile.h"

namespace graft {

/// Memory of a session, in bytes.
struct MemoryReport {
  std::size_t parameters = 0, states = 0, inputs = 0, constants = 0;  ///< persistent
  std::size_t arena = 0;                ///< intermediate values; the peak of a step
  std::size_t arena_without_reuse = 0;  ///< what they would take if each had memory of its own
  std::size_t workspace = 0;            ///< scratch of kernels
  std::size_t total = 0;                ///< of the above, without arena_without_reuse
  std::size_t shared = 0;               ///< parameters and states in the memory of another session, counted there
  /// A table for people.
  std::string to_string() const;
};

/// Owns the buffers of a plan and runs it: write inputs, step, read results. After the first step, steps allocate nothing.
/// Parameters and states start as their Init says. The backend and the sharing session must outlive it.
class Session {
 public:
  Session(const Graph& graph, Backend& backend, const PlanOptions& options = {});
  /// Uses `owner`'s memory for every parameter and state that both graphs have by name: evaluate, generate or apply
  /// accumulated gradients on the weights being trained. Throws Error when a type differs, naming it.
  Session(const Graph& graph, Session& owner, const PlanOptions& options = {});
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  /// Sets an input, parameter or state. The number of elements must fit; doubles and floats are converted to the tensor's
  /// float type, u32 goes to u32 only. Throws Error naming the tensor; unknown names list the near ones.
  void write(std::string_view name, std::span<const float> values);
  void write(std::string_view name, std::span<const double> values);
  void write(std::string_view name, std::span<const std::uint32_t> values);
  void write(std::string_view name, std::uint32_t value) { write(name, std::span(&value, 1)); }

  /// Runs the plan once. Throws Error, with nothing run and nothing changed, when an input was never written or a u32 value is out
  /// of range (ids, labels, positions, offsets); the message names the node, the value and the bound.
  void step();

  /// Copies a value: an output, a source, or any named node that has memory after the step (all of them with
  /// PlanOptions::keep_all). Element counts must fit. Float tensors read as float or double, u32 as u32.
  void read(std::string_view name, std::span<float> to);
  void read(std::string_view name, std::span<double> to);
  void read(std::string_view name, std::span<std::uint32_t> to);
  std::vector<float> read(std::string_view name);
  std::vector<double> read_f64(std::string_view name);
  std::vector<std::uint32_t> read_u32(std::string_view name);
  /// A single element, of a scalar.
  double scalar(std::string_view name);
  /// The value itself, when it has no name of its own: a gradient, say.
  std::vector<double> read_f64(Value value);

  /// After a step, kept values (all with keep_all) are searched in order, sources first, for NaN or infinity: the first node that has
  /// one, "" if none. The −inf that is the lse of a row that sees no key does not count.
  std::string first_nonfinite();

  /// Parameters and saved states, by checkpoint path: parameter p is "model/p", state s is "s".
  Checkpoint snapshot() const;
  /// Strict: one Error lists every missing, unexpected and mismatched name, with both types, and nothing is changed then. Paths
  /// under "data/" are not the session's and are passed over.
  /// Dtypes: an f32 file loads into f64 and back only if `convert`.
  void restore(const Checkpoint& checkpoint, bool convert = false);
  /// Only the parameters ("model/…"): for evaluation and generation. As strict, on those.
  void restore_parameters(const Checkpoint& checkpoint, bool convert = false);
  /// write_checkpoint(snapshot()) and restore(read_checkpoint()).
  void save(const std::filesystem::path& file) const;
  void load(const std::filesystem::path& file);
  /// Sets every parameter and state (or only the states, caches included) back to its Init.
  void reset();
  void reset_states();

  /// Runs `steps` whole steps (states change as in step) and times each node.
  Profile profile(int steps = 1);

  const Plan& plan() const;
  const Graph& graph() const;
  Backend& backend();
  MemoryReport memory_report() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace graft
