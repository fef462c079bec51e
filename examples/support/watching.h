#pragma once
// What a training run shows beside its metrics: norms by layer, pictures, TensorBoard events.
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "examples/support/training.h"
#include "graft/report.h"
#include "graft/tensorboard.h"
#include "graft/tokenizer.h"
#include "graft/watch.h"

class Watching {
 public:
  /// `trained` holds the weights and the results of a step, `forward` the plan of the pass; both outlive this.
  Watching(const LoopOptions& options, graft::Session& trained, graft::Session& forward, std::int64_t first);
  /// Whether the step after `step` steps is logged by layer; then call before_step.
  void before_step(std::int64_t step);
  /// After `step` steps: logs by layer if it was watched, and the named metrics; NaN is none.
  void after_step(std::int64_t step, const std::vector<std::string>& names, const std::vector<double>& metrics);
  /// Pictures of the graph, with the times of a step if they were measured, and of its memory.
  void draw(const graft::Profile* profile) const;
  /// Heat maps by layer.
  void finish() const;

 private:
  const LoopOptions& options_;
  graft::Session& trained_;
  graft::Session& forward_;
  std::optional<graft::report::LayerWatch> watch_;
  std::optional<graft::MetricsLog> layers_;
  std::unique_ptr<graft::report::TensorBoardLog> board_;
  bool watched_ = false;
};

/// Attention maps of the first and last layer over a text of tokens: attention.svg, and the last layer's first head as attention.png, in `folder`.
void draw_attention(const std::filesystem::path& folder, const Trainee& trainee, graft::Session& trained,
                    const std::vector<std::uint32_t>& ids, const graft::Tokenizer& tokenizer);
