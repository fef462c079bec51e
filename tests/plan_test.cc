#include "graft/plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>

#include "graft/error.h"
#include "graft/session.h"
#include "src/arena.h"
#include "src/op_traits.h"
#include "tests/random_graph.h"

namespace graft {
namespace {

using testing::random_graph;
using testing::RandomGraph;

std::string names(const Plan& plan) {
  std::string text;
  for (const std::int32_t n : plan.order()) text += plan.graph().nodes()[static_cast<std::size_t>(n)].name + " ";
  return text;
}

bool live_together(const ArenaBlock& a, const ArenaBlock& b) { return a.first <= b.last && b.first <= a.last; }

void expect_apart(const std::vector<ArenaBlock>& blocks, std::size_t size) {
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    EXPECT_EQ(blocks[i].offset % 64, 0u);
    EXPECT_LE(blocks[i].offset + blocks[i].bytes, size);
    for (std::size_t j = 0; j < i; ++j) {
      const ArenaBlock &a = blocks[i], &b = blocks[j];
      EXPECT_TRUE(!live_together(a, b) || a.offset + a.bytes <= b.offset || b.offset + b.bytes <= a.offset) << i << " and " << j;
    }
  }
}

TEST(Arena, BlocksInUseTogetherNeverOverlapAndTheArenaStaysNearTheLeastPossible) {
  std::mt19937_64 random(1);
  double worst = 1.0, sum = 0.0;
  constexpr int kTrials = 300;
  for (int trial = 0; trial < kTrials; ++trial) {
    std::vector<ArenaBlock> blocks(random() % 60 + 1);
    for (ArenaBlock& block : blocks) {
      block.bytes = random() % 2000 + 1;
      block.first = static_cast<std::int32_t>(random() % 40);
      block.last = block.first + static_cast<std::int32_t>(random() % 8);
    }
    const std::size_t size = arrange(blocks), least = most_in_use(blocks);
    expect_apart(blocks, size);
    const double ratio = static_cast<double>(size) / static_cast<double>(least);
    EXPECT_GE(ratio, 1.0);
    worst = std::max(worst, ratio);
    sum += ratio;
  }
  EXPECT_LT(worst, 1.25);
  EXPECT_LT(sum / kTrials, 1.05);
}

TEST(Arena, ABlockGoesIntoTheGapThatFreedMemoryLeaves) {
  // The last two fit where the first one was, beside the second, which still lives.
  std::vector<ArenaBlock> blocks = {{256, 0, 1, 0}, {128, 0, 4, 0}, {128, 2, 3, 0}, {100, 2, 3, 0}};
  EXPECT_EQ(most_in_use(blocks), 384u);
  EXPECT_EQ(arrange(blocks), 384u);
  expect_apart(blocks, 384);
}

TEST(Arena, NoBlocksTakeNoMemory) {
  std::vector<ArenaBlock> none;
  EXPECT_EQ(arrange(none), 0u);
}

TEST(Plan, RunsWhatOutputsAndEffectsNeedInRecordedOrder) {
  Graph g;
  const Value x = g.input("x", {4});
  const Value s = g.state("s", {4});
  const Value b = g.unary(UnaryFn::exp, x, 0.0, "b");
  const Value a = g.unary(UnaryFn::tanh, x, 0.0, "a");
  g.unary(UnaryFn::tanh, a, 0.0, "dead");
  const Value view = g.reshape(b, {2, 2}, "view");
  const Value c = g.unary(UnaryFn::neg, view, 0.0, "c");
  g.assign(a, s, "effect");
  g.output("c", c);
  const auto backend = reference_backend();
  EXPECT_EQ(names(Plan(g, *backend)), "b a c effect ");
  EXPECT_EQ(names(Plan(g, *backend, {.keep_all = true})), "b a dead c effect ");
}

TEST(Plan, AGraphWithoutOutputsAndEffectsRunsNothingButKeepsItsSources) {
  Graph g;
  const Value x = g.input("x", {4});
  const Value w = g.parameter("w", {4});
  const Value unused = g.constant({4}, {1.0});
  g.add(x, w);
  const auto backend = reference_backend();
  const Plan plan(g, *backend);
  EXPECT_TRUE(plan.order().empty());
  EXPECT_EQ(plan.arena_bytes(), 0u);
  EXPECT_EQ(plan.persistent_bytes(), 32u);
  EXPECT_NE(plan.buffer_of(x), Plan::kNone);
  EXPECT_NE(plan.buffer_of(w), Plan::kNone);
  EXPECT_EQ(plan.buffer_of(unused), Plan::kNone);
}

TEST(Plan, AnElementwiseChainRunsInOneBuffer) {
  Graph g;
  Value v = g.matmul(g.input("x", {8, 8}), g.parameter("w", {8, 8}));
  const Value first = v;
  for (int i = 0; i < 10; ++i) v = i % 2 ? g.tanh(v) : g.mul(v, v);
  g.output("y", v);
  const auto backend = reference_backend();
  const Plan plan(g, *backend);
  EXPECT_EQ(plan.buffer_of(first), plan.buffer_of(v));
  EXPECT_EQ(plan.arena_bytes(), 256u);
  EXPECT_EQ(plan.bytes_without_reuse(), 11u * 256u);
  EXPECT_EQ(Plan(g, *backend, {.keep_all = true}).arena_bytes(), 11u * 256u);
}

TEST(Plan, NoOutputTakesTheBufferOfAValueThatIsStillNeeded) {
  Graph g;
  const Value x = g.input("x", {8});
  const Value from_source = g.tanh(x);
  const Value read_later = g.exp(from_source);
  const Value kept = g.tanh(read_later);
  const Value y = g.neg(g.add(kept, from_source));
  g.output("kept", kept);
  g.output("y", y);
  const auto backend = reference_backend();
  const Plan plan(g, *backend);
  EXPECT_NE(plan.buffer_of(from_source), plan.buffer_of(x)) << "x is persistent";
  EXPECT_NE(plan.buffer_of(read_later), plan.buffer_of(from_source)) << "from_source is read again";
  EXPECT_EQ(plan.buffer_of(kept), plan.buffer_of(read_later)) << "read_later dies at kept";
  EXPECT_NE(plan.buffer_of(y), plan.buffer_of(kept)) << "kept is an output";
  EXPECT_EQ(plan.buffer_of(y), plan.buffer_of(from_source)) << "add's left operand is kept, its right one dies";
}

TEST(Plan, AnOutputTakesNoBufferThatAnotherInputReadsOutOfOrder) {
  // swiglu_grad writes dgate over gate and dup over up; with gate == up neither may go.
  Graph g;
  const Value x = g.tanh(g.input("x", {4, 4}));
  const Value dout = g.exp(g.input("y", {4, 4}));
  const Value dgate = g.record(SwigluGrad{}, {x, x, dout});
  g.output("dgate", dgate);
  g.output("dup", {dgate.node, 1});
  const Value row = g.tanh(g.input("row", {1, 4}));
  const Value sum = g.add(row, g.reshape(row, {4}));  // b is row itself, read as a broadcast
  g.output("sum", sum);
  const auto backend = reference_backend();
  const Plan plan(g, *backend);
  EXPECT_NE(plan.buffer_of(dgate), plan.buffer_of(x));
  EXPECT_NE(plan.buffer_of({dgate.node, 1}), plan.buffer_of(x));
  EXPECT_NE(plan.buffer_of(sum), plan.buffer_of(row));
}

TEST(Plan, TwoOutputsDoNotTakeTheSameBuffer) {
  Graph g;
  const Value gate = g.tanh(g.input("gate", {4, 4})), up = g.tanh(g.input("up", {4, 4}));
  const Value dgate = g.record(SwigluGrad{}, {gate, up, g.exp(g.input("dout", {4, 4}))});
  g.output("sum", g.add(dgate, {dgate.node, 1}));
  const auto backend = reference_backend();
  const Plan plan(g, *backend);
  EXPECT_EQ(plan.buffer_of(dgate), plan.buffer_of(gate));
  EXPECT_EQ(plan.buffer_of({dgate.node, 1}), plan.buffer_of(up));
}

TEST(Plan, ViewsAndOverwrittenStatesShareTheirSourcesMemory) {
  Graph g;
  const Value x = g.exp(g.input("x", {2, 6}));
  const Value view = g.stop_gradient(g.reshape(x, {12}));
  const Value cache = g.state("cache", {4, 12});
  const Value position = g.input_u32("position", {});
  const Value written = g.cache_write(g.reshape(view, {1, 12}), cache, position);
  g.output("written", written);
  const auto backend = reference_backend();
  for (const bool keep_all : {false, true}) {
    const Plan plan(g, *backend, {keep_all});
    EXPECT_EQ(plan.buffer_of(view), plan.buffer_of(x));
    EXPECT_EQ(plan.buffer_of(written), plan.buffer_of(cache));
    EXPECT_TRUE(plan.kept(written));
    EXPECT_EQ(plan.kept(view), keep_all);
    EXPECT_EQ(plan.arena_bytes(), 64u);
  }
}

TEST(Plan, AValueReadThroughAViewLivesUntilTheViewsLastReader) {
  Graph g;
  const Value x = g.exp(g.input("x", {2, 6}));
  const Value view = g.reshape(x, {12});
  const Value other = g.exp(g.input("y", {2, 6}));
  const Value z = g.mul(g.reshape(other, {12}), view);
  g.output("z", z);
  const auto backend = reference_backend();
  const Plan plan(g, *backend);
  const Plan::Buffer& b = plan.buffers()[static_cast<std::size_t>(plan.buffer_of(x))];
  EXPECT_EQ(b.first, 0);
  EXPECT_EQ(b.last, 2);
  EXPECT_NE(plan.buffer_of(other), plan.buffer_of(x));
  EXPECT_EQ(plan.buffers()[static_cast<std::size_t>(plan.buffer_of(z))].last, 3) << "an output lives past the last node";
}

TEST(Plan, SlotsThatNothingReadsHaveNoMemory) {
  Graph g;
  const Value x = g.input("x", {6, 4});
  const Value attention = g.causal_attention(x, x, x, 1, 1, 4);
  g.output("y", attention);
  const Value lse{attention.node, 1};
  const auto backend = reference_backend();
  const Plan plan(g, *backend);
  EXPECT_EQ(plan.buffer_of(lse), Plan::kNone);
  EXPECT_FALSE(plan.kept(lse));
  EXPECT_EQ(plan.arena_bytes(), 128u);
  EXPECT_NE(Plan(g, *backend, {.keep_all = true}).buffer_of(lse), Plan::kNone);
  g.output("lse", lse);
  EXPECT_NE(Plan(g, *backend).buffer_of(lse), Plan::kNone);
}

TEST(Plan, KnowsNothingOfValuesThatAreNotItsGraphs) {
  Graph g;
  const Value x = g.input("x", {4});
  const auto backend = reference_backend();
  const Plan plan(g, *backend);
  for (const Value v : {Value{}, Value{1, 0}, Value{x.node, 1}, Value{x.node, -1}}) {
    EXPECT_THROW(plan.buffer_of(v), InternalError);
    EXPECT_THROW(plan.kept(v), InternalError);
  }
}

TEST(Plan, AsksTheBackendForTheWorkspaceOfEachNodeAndTakesTheLargest) {
  struct Asked final : Backend {
    std::string description() const override { return "asked"; }
    void* allocate(std::size_t) override { return nullptr; }
    void free(void*) noexcept override {}
    void upload(void*, const void*, std::size_t) override {}
    void download(void*, const void*, std::size_t) override {}
    std::size_t workspace(const Graph&, const Node& node) override { return node.name == "b" ? 700 : 30; }
    void run(std::span<const Step>) override {}
  } backend;
  Graph g;
  const Value a = g.unary(UnaryFn::exp, g.input("x", {4}), 0.0, "a");
  const Value b = g.unary(UnaryFn::exp, a, 0.0, "b");
  g.output("y", g.unary(UnaryFn::exp, b, 0.0, "c"));
  EXPECT_EQ(Plan(g, backend).workspace_bytes(), 700u);
}

/// The bytes of the arena a value takes and when, worked out from the graph alone.
struct Life {
  Value value;
  std::size_t begin, end;
  std::int32_t first, last;
};

std::vector<Life> lives(const Plan& plan) {
  const Graph& g = plan.graph();
  const auto owner = [&](Value v) {
    for (int input = alias_of(g.node(v).op, v.slot); input >= 0; input = alias_of(g.node(v).op, v.slot)) {
      v = g.node(v).inputs[static_cast<std::size_t>(input)];
    }
    return v;
  };
  std::vector<Life> all;
  for (std::int32_t now = 0; now < static_cast<std::int32_t>(plan.order().size()); ++now) {
    const std::int32_t n = plan.order()[static_cast<std::size_t>(now)];
    for (std::int32_t slot = 0; slot < static_cast<std::int32_t>(g.nodes()[static_cast<std::size_t>(n)].outputs.size()); ++slot) {
      const Value v{n, slot};
      if (owner(v) != v || plan.buffer_of(v) == Plan::kNone) continue;
      Life life{v, plan.buffers()[static_cast<std::size_t>(plan.buffer_of(v))].offset, 0, now, now};
      life.end = life.begin + g.type(v).bytes();
      for (std::int32_t reader = 0; reader < static_cast<std::int32_t>(plan.order().size()); ++reader) {
        for (const Value in : g.nodes()[static_cast<std::size_t>(plan.order()[static_cast<std::size_t>(reader)])].inputs) {
          if (owner(in) == v) life.last = reader;
        }
      }
      for (const auto& [name, out] : g.outputs()) {
        if (owner(out) == v) life.last = static_cast<std::int32_t>(plan.order().size());
      }
      all.push_back(life);
    }
  }
  return all;
}

TEST(Plan, NoTwoLiveValuesOverlapUnlessOneTakesTheOthersPlaceElementByElement) {
  const auto backend = reference_backend();
  int in_place = 0;
  std::size_t peak = 0, alone = 0;
  for (std::uint64_t seed = 0; seed < 150; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const RandomGraph random = random_graph(seed);
    const Plan plan(random.graph, *backend);
    const std::vector<Life> all = lives(plan);
    for (const Life& a : all) {
      EXPECT_LE(a.end, plan.arena_bytes());
      for (const Life& b : all) {
        if (a.value == b.value || b.first < a.first || a.end <= b.begin || b.end <= a.begin || a.last < b.first) continue;
        // b appears while a still lives, on a's bytes: a must die there as an operand that b may take over whole.
        const Node& node = plan.graph().node(b.value);
        EXPECT_EQ(a.last, b.first) << node.name;
        EXPECT_EQ(a.begin, b.begin) << node.name;
        EXPECT_EQ(a.end, b.end) << node.name;
        bool allowed = false;
        for (std::size_t i = 0; i < node.inputs.size(); ++i) {
          if (plan.buffer_of(node.inputs[i]) != plan.buffer_of(b.value)) continue;
          allowed = may_reuse(node.op, b.value.slot, static_cast<int>(i)) &&
                    plan.graph().type(node.inputs[i]) == plan.graph().type(b.value);
          if (!allowed) break;
        }
        EXPECT_TRUE(allowed) << node.name;
        ++in_place;
      }
    }
    peak += plan.arena_bytes();
    alone += plan.bytes_without_reuse();
  }
  EXPECT_GT(in_place, 500);
  EXPECT_LT(peak * 2, alone) << "reuse should save more than half";
}

TEST(Plan, EqualGraphsGetEqualPlans) {
  const auto backend = reference_backend();
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const Plan a(random_graph(seed).graph, *backend), b(random_graph(seed).graph, *backend);
    EXPECT_EQ(a.order(), b.order());
    ASSERT_EQ(a.buffers().size(), b.buffers().size());
    for (std::size_t i = 0; i < a.buffers().size(); ++i) EXPECT_EQ(a.buffers()[i].offset, b.buffers()[i].offset);
  }
}

void expect_same_bits(const std::vector<double>& a, const std::vector<double>& b, const std::string& name) {
  ASSERT_EQ(a.size(), b.size());
  EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size() * sizeof(double)), 0) << name;
}

TEST(Plan, ReusingMemoryChangesNoBitOfAnyResult) {
  for (const char* name : {"reference", "cpu"}) {
    const auto backend = testing::poisoned(make_backend(name, 2));
    for (std::uint64_t seed = 0; seed < 60; ++seed) {
      SCOPED_TRACE(std::string(name) + ", seed " + std::to_string(seed));
      const RandomGraph random = random_graph(seed);
      Session tight(random.graph, *backend), roomy(random.graph, *backend, {.keep_all = true});
      for (Session* session : {&tight, &roomy}) {
        for (const auto& [input, values] : random.inputs) {
          if (input == "ids") {
            session->write(input, std::span<const std::uint32_t>(std::vector<std::uint32_t>(values.begin(), values.end())));
          } else {
            session->write(input, std::span<const double>(values));
          }
        }
        session->step();
        session->step();
      }
      for (const auto& [output, value] : random.graph.outputs()) {
        const std::vector<double> values = tight.read_f64(output);
        expect_same_bits(values, roomy.read_f64(output), output);
        for (const double v : values) EXPECT_TRUE(std::isfinite(v)) << output;
      }
      for (const char* state : {"s0", "s1", "p0"}) expect_same_bits(tight.read_f64(state), roomy.read_f64(state), state);
    }
  }
}

}  // namespace
}  // namespace graft
