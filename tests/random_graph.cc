#include "tests/random_graph.h"

#include <array>
#include <cstring>
#include <random>

#include "graft/autodiff.h"

namespace graft::testing {
namespace {

constexpr std::int64_t kRows = 6, kCols = 4;

class Maker {
 public:
  Maker(std::uint64_t seed, int nodes) : random_(seed), nodes_(nodes), trains_(seed % 2 == 0), graph_(seed) {}

  RandomGraph make() {
    for (int i = 0; i < 2; ++i) {
      const std::string n = std::to_string(i);
      values_.push_back(graph_.input("x" + n, {kRows, kCols}));
      inputs_["x" + n] = numbers(kRows * kCols);
      values_.push_back(graph_.parameter("p" + n, {kRows, kCols}, Init::normal(0.0, 1.0)));
      weights_.push_back(graph_.parameter("w" + n, {kCols, kCols}, Init::xavier()));
      states_.push_back(graph_.state("s" + n, {kRows, kCols}, Init::uniform(-1.0, 1.0)));
    }
    gain_ = graph_.parameter("gain", {kCols}, Init::ones());
    ids_ = graph_.input_u32("ids", {kRows});
    inputs_["ids"] = {0, 3, 1, 3, 2, 0};
    for (int i = 0; i < nodes_; ++i) {
      const Value v = next();
      if (v && graph_.shape(v) == Shape{kRows, kCols}) values_.push_back(v);
    }
    if (trains_) {
      const Value loss = graph_.mean(graph_.tanh(pick(values_)));
      for (const Gradient& g : differentiate(graph_, loss).all) {
        if (!one_in(3)) graph_.output("d:" + graph_.node(g.of).name, g.gradient);
      }
      graph_.output("loss", loss);
    }
    for (int i = 0; i < 3; ++i) graph_.output("out" + std::to_string(i), newest());
    for (Value& state : states_) {
      if (one_in(2)) overwrite(state, newest());
    }
    return {std::move(graph_), std::move(inputs_)};
  }

 private:
  std::uint64_t below(std::uint64_t n) { return random_() % n; }
  bool one_in(std::uint64_t n) { return below(n) == 0; }
  Value pick(const std::vector<Value>& from) { return from[below(from.size())]; }
  /// One of the last few, so that chains get long and values die.
  Value newest() { return values_[values_.size() - 1 - below(std::min<std::size_t>(4, values_.size()))]; }
  Value operand() { return one_in(3) ? pick(values_) : newest(); }
  std::vector<double> numbers(std::int64_t count) {
    std::vector<double> made;
    for (std::int64_t i = 0; i < count; ++i) made.push_back(static_cast<double>(below(2001)) / 1000.0 - 1.0);
    return made;
  }

  Value next() {
    const Value x = operand();
    switch (below(trains_ ? 17 : 18)) {  // gradients would read states that were overwritten
      case 0: return graph_.tanh(x);
      case 1: return graph_.silu(x);
      case 2: return graph_.add(x, operand());
      case 3: return graph_.mul(x, graph_.tanh(operand()));
      case 4: return graph_.sub(x, graph_.sum(operand(), one_in(2) ? Axis::rows : Axis::columns));
      case 5: return graph_.matmul(x, pick(weights_), false, one_in(2));
      case 6: return graph_.softmax(x);
      case 7: return graph_.rms_norm(x, gain_);
      case 8: return graph_.layer_norm(x, gain_, gain_);
      case 9: return graph_.swiglu(x, operand());
      case 10: return graph_.reshape(graph_.tanh(graph_.reshape(x, {kCols, kRows})), {kRows, kCols});
      case 11: return graph_.stop_gradient(x);
      case 12: return graph_.transpose(graph_.scale(graph_.transpose(x), 0.5));
      case 13: return graph_.concat(std::array{graph_.slice_rows(x, 2, 4), graph_.slice_rows(operand(), 0, 2)}, Axis::rows);
      case 14: return graph_.causal_attention(x, operand(), operand(), 2, 2, 2);
      case 15: return graph_.rope(x, 100.0, 2);
      case 16: return graph_.embedding(graph_.slice_rows(x, 0, 4), ids_);
      case 17: return overwrite(states_[below(states_.size())], graph_.tanh(x));
    }
    return {};
  }

  /// A view of the new value, which takes the place of everything that shows the old one: that may no longer be read.
  Value overwrite(Value& state, Value value) {
    state = graph_.assign(value, state);
    const Value now = graph_.stop_gradient(state);
    for (Value& v : values_) {
      if (behind(v) == behind(state)) v = now;
    }
    return now;
  }

  /// The source whose memory v has, or v.
  Value behind(Value v) const {
    for (;;) {
      const Node& node = graph_.node(v);
      if (std::holds_alternative<Assign>(node.op)) {
        v = node.inputs[1];
      } else if (std::holds_alternative<Reshape>(node.op) || std::holds_alternative<StopGradient>(node.op)) {
        v = node.inputs[0];
      } else {
        return v;
      }
    }
  }

  std::mt19937_64 random_;
  int nodes_;
  bool trains_;
  Graph graph_;
  std::map<std::string, std::vector<double>> inputs_;
  std::vector<Value> values_, weights_, states_;
  Value gain_, ids_;
};

class Poisoned final : public Backend {
 public:
  explicit Poisoned(std::unique_ptr<Backend> backend) : backend_(std::move(backend)) {}
  std::string description() const override { return backend_->description(); }
  void* allocate(std::size_t bytes) override { return std::memset(backend_->allocate(bytes), 0xff, bytes); }
  void free(void* memory) noexcept override { backend_->free(memory); }
  void upload(void* to, const void* from, std::size_t bytes) override { backend_->upload(to, from, bytes); }
  void download(void* to, const void* from, std::size_t bytes) override { backend_->download(to, from, bytes); }
  std::size_t workspace(const Graph& graph, const Node& node) override { return backend_->workspace(graph, node); }
  void run(std::span<const Step> steps) override { backend_->run(steps); }

 private:
  std::unique_ptr<Backend> backend_;
};

}  // namespace

RandomGraph random_graph(std::uint64_t seed, int nodes) { return Maker(seed, nodes).make(); }

std::unique_ptr<Backend> poisoned(std::unique_ptr<Backend> backend) { return std::make_unique<Poisoned>(std::move(backend)); }

}  // namespace graft::testing
