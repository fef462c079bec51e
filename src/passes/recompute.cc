#include <algorithm>
#include <functional>
#include <limits>
#include <optional>
#include <queue>

#include "graft/error.h"
#include "graft/passes.h"
#include "graft/plan.h"
#include "graft/profile.h"
#include "src/op_traits.h"

namespace graft::passes {
namespace {

/// For plans that nobody runs: no workspace, no memory.
class NoBackend final : public Backend {
 public:
  std::string description() const override { return "none"; }
  void* allocate(std::size_t) override { return nullptr; }
  void free(void*) noexcept override {}
  void upload(void*, const void*, std::size_t) override {}
  void download(void*, const void*, std::size_t) override {}
  std::size_t workspace(const Graph&, const Node&) override { return 0; }
  void run(std::span<const Step>) override {}
};

std::size_t arena_of(const Graph& graph) {
  NoBackend none;
  return Plan(graph, none).arena_bytes();
}

/// One thing per value of a graph.
template <class T>
class PerValue {
 public:
  PerValue(const Graph& graph, T start) {
    for (const Node& node : graph.nodes()) things_.emplace_back(node.outputs.size(), start);
  }
  T& operator[](Value v) { return things_[static_cast<std::size_t>(v.node)][static_cast<std::size_t>(v.slot)]; }
  const T& operator[](Value v) const { return things_[static_cast<std::size_t>(v.node)][static_cast<std::size_t>(v.slot)]; }

 private:
  std::vector<std::vector<T>> things_;
};

constexpr std::int32_t kNever = -1, kAlways = std::numeric_limits<std::int32_t>::max();

/// A node of the graph as it was, run in its place or once more; inputs are numbers of runs.
struct Run {
  std::int32_t node;
  bool again;
  std::vector<Value> inputs;
};
struct Schedule {
  std::vector<Run> runs;
  double work = 0;  ///< of the runs that are there once more
  double area = 0;  ///< bytes · runs that they are kept for, over all values
};

/// What the graph says of its values.
class Lives {
 public:
  explicit Lives(const Graph& graph)
      : graph_(graph), last_(graph, kNever), split_(graph, kAlways), overwritten_(graph.nodes().size(), kAlways), dropped_(graph, 0) {
    PerValue<std::vector<std::int32_t>> uses(graph, {});
    for (std::int32_t n = 0; n < count(); ++n) {
      for (const Value v : node(n).inputs) use(uses, v, n);
      for (std::int32_t slot = 0; overwrites(node(n).op) && slot < slots(n); ++slot) {
        Value owner{n, slot};
        while (!is_source(graph.node(owner).op)) owner = graph.node(owner).inputs[static_cast<std::size_t>(alias_of(graph.node(owner).op, owner.slot))];
        std::int32_t& first = overwritten_[static_cast<std::size_t>(owner.node)];
        first = std::min(first, n);
      }
    }
    for (const auto& [name, value] : graph.outputs()) use(uses, value, kAlways);
    for (std::int32_t n = 0; n < count(); ++n) {
      if (is_source(node(n).op) || is_view(node(n).op) || overwrites(node(n).op)) continue;
      for (std::int32_t slot = 0; slot < slots(n); ++slot) find_gap({n, slot}, uses[{n, slot}]);
    }
  }

  const std::vector<Value>& candidates() const { return candidates_; }
  void drop(Value v, bool dropped) { dropped_[v] = dropped ? 1 : 0; }

  /// The order in which nodes run when the dropped values are made anew for their late uses. None when one cannot be: a state that it was made
  /// from has been overwritten.
  std::optional<Schedule> schedule() const {
    Schedule made;
    std::vector<std::int32_t> first(graph_.nodes().size(), kNever), again(graph_.nodes().size(), kNever);  // node → run
    bool possible = true;
    const std::function<Value(Value, std::int32_t)> at = [&](Value v, std::int32_t now) -> Value {
      if (is_there(v, now)) return {first[static_cast<std::size_t>(v.node)], v.slot};
      std::int32_t& run = again[static_cast<std::size_t>(v.node)];
      if (run == kNever) {
        std::vector<Value> inputs;
        for (const Value input : node(v.node).inputs) {
          possible = possible && overwritten_[static_cast<std::size_t>(input.node)] > now;
          inputs.push_back(at(input, now));
        }
        possible = possible && !overwrites(node(v.node).op);
        run = static_cast<std::int32_t>(made.runs.size());
        made.runs.push_back({v.node, true, std::move(inputs)});
        const Cost cost = graft::cost(graph_, node(v.node));
        made.work += cost.flops + kFlopsPerByte * cost.bytes;
      }
      return {run, v.slot};
    };
    for (std::int32_t n = 0; n < count(); ++n) {
      std::vector<Value> inputs;
      for (const Value v : node(n).inputs) inputs.push_back(at(v, n));
      first[static_cast<std::size_t>(n)] = static_cast<std::int32_t>(made.runs.size());
      made.runs.push_back({n, false, std::move(inputs)});
    }
    if (!possible) return {};
    made.area = area(made.runs);
    return made;
  }

 private:
  /// A processor does about this many operations in the time that a byte takes from memory and back.
  static constexpr double kFlopsPerByte = 4;

  std::int32_t count() const { return static_cast<std::int32_t>(graph_.nodes().size()); }
  const Node& node(std::int32_t n) const { return graph_.nodes()[static_cast<std::size_t>(n)]; }
  std::int32_t slots(std::int32_t n) const { return static_cast<std::int32_t>(node(n).outputs.size()); }
  /// The value whose memory v is.
  Value memory_of(Value v) const {
    while (is_view(graph_.node(v).op)) v = graph_.node(v).inputs[0];
    return v;
  }

  void use(PerValue<std::vector<std::int32_t>>& uses, Value v, std::int32_t now) {
    if (is_view(node(v.node).op)) last_[v] = std::max(last_[v], now);
    v = memory_of(v);
    last_[v] = std::max(last_[v], now);
    uses[v].push_back(now);
  }

  /// A value can be dropped between the two uses that lie furthest apart.
  void find_gap(Value v, const std::vector<std::int32_t>& uses) {
    if (uses.empty() || uses.back() == kAlways) return;
    std::int32_t widest = 1;
    for (std::size_t i = 1; i < uses.size(); ++i) {
      if (uses[i] - uses[i - 1] <= widest) continue;
      widest = uses[i] - uses[i - 1];
      split_[v] = uses[i - 1];
    }
    if (split_[v] != kAlways) candidates_.push_back(v);
  }

  /// Whether v, as first made, is in memory when node `now` runs.
  bool is_there(Value v, std::int32_t now) const {
    if (is_source(node(v.node).op)) return true;
    const Value memory = memory_of(v);
    if (is_source(node(memory.node).op)) return last_[v] >= now;
    return last_[memory] >= now && (dropped_[memory] == 0 || now <= split_[memory]);
  }

  double area(const std::vector<Run>& runs) const {
    std::vector<std::size_t> offset;  // run → its first slot
    std::size_t all = 0;
    for (const Run& run : runs) {
      offset.push_back(all);
      all += node(run.node).outputs.size();
    }
    std::vector<std::int32_t> last(all, kNever);  // the last run that reads the slot
    double sum = 0;
    for (std::int32_t r = static_cast<std::int32_t>(runs.size()) - 1; r >= 0; --r) {
      const Run& run = runs[static_cast<std::size_t>(r)];
      const std::int32_t* own = last.data() + offset[static_cast<std::size_t>(r)];
      const bool view = is_view(node(run.node).op);
      for (const Value v : run.inputs) {
        std::int32_t& end = last[offset[static_cast<std::size_t>(v.node)] + static_cast<std::size_t>(v.slot)];
        end = std::max({end, r, view ? own[0] : r});  // a view's uses are its source's
      }
      if (view || is_source(node(run.node).op) || overwrites(node(run.node).op)) continue;
      for (std::int32_t slot = 0; slot < slots(run.node); ++slot)
        if (own[slot] != kNever) sum += static_cast<double>(graph_.type({run.node, slot}).bytes()) * (own[slot] - r);
    }
    return sum;
  }

  const Graph& graph_;
  PerValue<std::int32_t> last_;   // the last use, also by way of views
  PerValue<std::int32_t> split_;  // the use before the widest gap; later uses are late
  std::vector<std::int32_t> overwritten_;  // source → the node that first overwrites it
  PerValue<char> dropped_;
  std::vector<Value> candidates_;
};

Graph made_of(const Graph& graph, const Schedule& schedule) {
  Graph made(graph.seed());
  std::vector<std::int32_t> node_of;  // run → node
  std::vector<std::int32_t> first(graph.nodes().size());
  for (const Run& run : schedule.runs) {
    const Node& node = graph.nodes()[static_cast<std::size_t>(run.node)];
    std::vector<Value> inputs;
    for (const Value v : run.inputs) inputs.push_back({node_of[static_cast<std::size_t>(v.node)], v.slot});
    const std::string again = "again:" + node.name;
    node_of.push_back(made.record(node.op, std::move(inputs), !run.again ? node.name : graph.find(again) ? std::string() : again).node);
    if (!run.again) first[static_cast<std::size_t>(run.node)] = node_of.back();
  }
  for (const auto& [name, value] : graph.outputs()) made.output(name, {first[static_cast<std::size_t>(value.node)], value.slot});
  made.verify();
  return made;
}

/// The candidates in the order in which to drop them: what saves most bytes, and for longest, for its work comes first. (A gain changes as others
/// are dropped: it is worked out again before a candidate is taken.)
std::vector<Value> best_first(Lives& lives, Schedule now) {
  struct Gain {
    double value;
    Value candidate;
    bool operator<(const Gain& other) const { return value != other.value ? value < other.value : candidate > other.candidate; }
  };
  std::vector<Value> order;
  const auto gain_of = [&](Value v) {
    lives.drop(v, true);
    const std::optional<Schedule> next = lives.schedule();
    lives.drop(v, false);
    return next && next->area < now.area ? (now.area - next->area) / std::max(1.0, next->work - now.work) : 0.0;
  };
  std::priority_queue<Gain> queue;
  for (const Value v : lives.candidates()) queue.push({gain_of(v), v});
  while (!queue.empty()) {
    const Value v = queue.top().candidate;
    queue.pop();
    const double gain = gain_of(v);
    if (gain <= 0.0) continue;
    if (!queue.empty() && gain < queue.top().value) {
      queue.push({gain, v});
      continue;
    }
    lives.drop(v, true);
    now = *lives.schedule();
    order.push_back(v);
  }
  return order;
}

}  // namespace

Graph recompute(const Graph& graph, const RecomputeOptions& options) {
  const std::size_t before = arena_of(graph);
  if (before <= options.budget_bytes) return graph;
  Lives lives(graph);
  const std::vector<Value> order = best_first(lives, *lives.schedule());
  const auto with_dropped = [&](std::size_t count) {
    for (std::size_t i = 0; i < order.size(); ++i) lives.drop(order[i], i < count);
    return made_of(graph, *lives.schedule());
  };
  std::size_t too_few = 0, enough = order.size(), least = before;
  const auto fits = [&](std::size_t count) {
    const std::size_t arena = arena_of(with_dropped(count));
    least = std::min(least, arena);
    return arena <= options.budget_bytes;
  };
  // Dropping more is not always better: near the end values are made anew too early. So the end is sought first, in steps.
  const std::size_t step = std::max<std::size_t>(1, order.size() / 16);
  while (enough > 0 && !fits(enough)) enough -= std::min(enough, step);
  if (enough == 0)
    throw Error("recompute: the budget of " + std::to_string(options.budget_bytes) + " bytes cannot be met, the least is " + std::to_string(least) +
                " bytes, and " + std::to_string(before) + " without recomputing");
  while (enough - too_few > 1) {
    const std::size_t middle = (too_few + enough) / 2;
    (fits(middle) ? enough : too_few) = middle;
  }
  return with_dropped(enough);
}

}  // namespace graft::passes
