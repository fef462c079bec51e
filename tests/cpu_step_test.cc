// Single steps of the cpu backend, with memory laid out by hand: results over operands, guards, steps that run together.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <functional>
#include <limits>
#include <memory>

#include "graft/backend.h"
#include "graft/bf16.h"
#include "graft/optim.h"
#include "graft/session.h"
#include "src/op_traits.h"
#include "tests/at_the_end.h"

namespace graft {
namespace {

constexpr std::size_t kGuard = 64;
constexpr char kGuardByte = 0x5a;

/// Memory with guard bytes behind it.
class Guarded {
 public:
  explicit Guarded(std::size_t bytes) : size_(bytes), memory_((bytes + kGuard + 63) / 64 + 1) {
    std::memset(data() + size_, kGuardByte, kGuard);
  }
  char* data() { return reinterpret_cast<char*>(memory_.data()); }
  bool intact() {
    return std::all_of(data() + size_, data() + size_ + kGuard, [](char c) { return c == kGuardByte; });
  }

 private:
  struct alignas(64) Line {
    char bytes[64];
  };
  std::size_t size_;
  std::vector<Line> memory_;
};

/// Runs one op on random inputs; output `slot` is written over `input` if that is not −1. Scratch memory holds bytes `scratch` before.
/// The last row of input `poisoned` is NaN, if that is not −1. Returns the outputs' bytes. Inputs and outputs end where memory does.
std::vector<std::vector<char>> run_step(const Op& op, const std::vector<TensorType>& types, std::size_t slot = 0, int input = -1,
                                        char scratch = 0, int poisoned = -1) {
  Graph graph;
  std::vector<Value> values;
  for (const TensorType& type : types) values.push_back(graph.input("x" + std::to_string(values.size()), type.shape, type.dtype));
  const Node& node = graph.node(graph.record(op, values));
  const auto backend = cpu_backend(2);
  std::deque<testing::AtTheEnd> memory;
  std::vector<TensorView> in, out;
  std::uint32_t seed = 1;
  for (const TensorType& type : types) {
    memory.emplace_back(type.bytes());
    in.push_back({memory.back().data(), type});
    for (std::int64_t i = 0; i < type.shape.size(); ++i) {
      seed = seed * 1664525u + 1013904223u;
      if (type.dtype == DType::u32) {
        in.back().as<std::uint32_t>()[i] = (seed >> 16) % 7;
      } else {
        const float value = static_cast<float>(seed >> 8) / 16777216.0f + 0.1f;
        if (type.dtype == DType::bf16)
          in.back().as<Bf16>()[i] = to_bf16(value);
        else
          in.back().as<float>()[i] = value;
      }
    }
  }
  if (poisoned >= 0) {
    const TensorView& x = in[static_cast<std::size_t>(poisoned)];
    std::fill_n(x.as<float>() + x.size() - x.cols(), x.cols(), std::numeric_limits<float>::quiet_NaN());
  }
  for (std::size_t i = 0; i < node.outputs.size(); ++i) {
    if (input >= 0 && i == slot) {
      out.push_back(in[static_cast<std::size_t>(input)]);
      continue;
    }
    memory.emplace_back(node.outputs[i].bytes());
    out.push_back({memory.back().data(), node.outputs[i]});
  }
  const std::size_t bytes_of_scratch = backend->workspace(graph, node);
  Guarded workspace(bytes_of_scratch);
  std::memset(workspace.data(), scratch, bytes_of_scratch);
  const Step step = {&node, in, out, workspace.data()};
  backend->run({&step, 1});
  EXPECT_TRUE(workspace.intact()) << op_name(op) << " wrote behind its workspace";
  std::vector<std::vector<char>> bytes;
  for (const TensorView& x : out) bytes.emplace_back(x.as<char>(), x.as<char>() + x.type.bytes());
  return bytes;
}

struct Reuse {
  Op op;
  std::vector<TensorType> types;
};

Rope rope(std::int64_t head_dim) {
  Rope op;
  op.head_dim = head_dim;
  return op;
}

/// Ops whose output may lie over an input; 37 columns leave a part of a vector, 40000 elements are shared by threads.
std::vector<Reuse> reuses(std::int64_t rows, DType dtype) {
  const TensorType x = {dtype, {rows, 37}}, row = {DType::f32, {rows}}, weight = {DType::f32, {37}}, scalar = {dtype, {}};
  const TensorType labels = {DType::u32, {rows}}, counter = {DType::u32, {}};
  std::vector<Reuse> all = {{Swiglu{}, {x, x}},
                            {SwigluGrad{}, {x, x, x}},
                            {Dropout{0.4, 1, 2}, {x, counter}},
                            {Softmax{}, {x}},
                            {SoftmaxGrad{}, {x, x}},
                            {LogSoftmax{}, {x}},
                            {LogSoftmaxGrad{}, {x, x}},
                            {rope(2), {{dtype, {rows, 38}}}},
                            {rope(38), {{dtype, {rows, 38}}}},
                            {RmsNormGrad{}, {x, weight, row, x, x}},
                            {LayerNormGrad{}, {x, weight, row, row, x, x}}};
  if (dtype == DType::f32) all.push_back({CrossEntropyGrad{}, {x, labels, row, scalar, scalar}});
  for (const UnaryFn fn : kUnaryFns) {
    all.push_back({Unary{fn, 0.3}, {x}});
    all.push_back({UnaryGrad{fn, 0.3}, {x, x}});
  }
  for (const BinaryFn fn : kBinaryFns) {
    all.push_back({Binary{fn}, {x, x}});
    all.push_back({Binary{fn}, {x, {dtype, {37}}}});
    all.push_back({Binary{fn}, {x, {dtype, {rows, 1}}}});
    all.push_back({Binary{fn}, {x, scalar}});
  }
  return all;
}

TEST(CpuStep, ResultsMayLieOverTheOperandsThatThePlanAllows) {
  int tried = 0;
  for (const auto& [rows, dtype] : {std::pair{3, DType::f32}, {1100, DType::f32}, {3, DType::bf16}, {1100, DType::bf16}}) {
    for (const auto& [op, types] : reuses(rows, dtype)) {
      const auto apart = run_step(op, types);
      for (std::size_t slot = 0; slot < apart.size(); ++slot) {
        for (std::size_t input = 0; input < types.size(); ++input) {
          if (!may_reuse(op, static_cast<int>(slot), static_cast<int>(input)) || types[input] != types[0]) continue;
          EXPECT_EQ(run_step(op, types, slot, static_cast<int>(input)), apart)
              << op_name(op) << ": output " << slot << " over input " << input;
          ++tried;
        }
      }
    }
  }
  EXPECT_GT(tried, 300);
}

/// Attention and its gradients, q, k and v of one type.
void run_attention_steps(DType dtype) {
  for (const std::int64_t head_dim : {1, 20, 64}) {
    const TensorType q = {dtype, {140, 2 * head_dim}}, k = {dtype, {70, head_dim}}, statistic = {DType::f32, {140, 2}};
    const MultiHeadAttn attn = {{2, 1, head_dim}, {Mask::Kind::causal}, 0.3, {SegmentLayout::Kind::uniform, 70, 35}};
    run_step(attn, {q, k, k});
    run_step(MultiHeadAttnGradQ{attn}, {q, k, k, statistic, q, statistic});
    run_step(MultiHeadAttnGradK{attn}, {q, k, k, statistic, q, statistic});
    run_step(MultiHeadAttnGradV{attn}, {q, k, k, statistic, q, statistic});
    run_step(AttnDelta{attn.heads}, {q, q});
  }
}

TEST(CpuStep, KernelsKeepToTheirOutputsAndWorkspace) {
  const auto f32 = [](Shape shape) { return TensorType{DType::f32, shape}; };
  const TensorType x = f32({70, 37}), w = f32({37}), r = f32({70}), u32 = {DType::u32, {}};
  const TensorType ids = {DType::u32, {70}};
  run_step(RmsNorm{}, {x, w});
  run_step(RmsNormGrad{}, {x, w, r, x});
  run_step(LayerNorm{}, {x, w, w});
  run_step(LayerNormGrad{}, {x, w, r, r, x});
  run_step(Embedding{}, {x, ids});
  run_step(EmbeddingGrad{90}, {ids, x});
  run_step(CrossEntropy{}, {x, ids});
  for (const std::int64_t classes : {37, 20001}) {  // in one chunk, in several
    for (const bool transposed : {false, true}) {
      const LinearCrossEntropy op = {{}, transposed};
      const TensorType weight = transposed ? f32({classes, 37}) : f32({37, classes});
      run_step(op, {x, weight, ids});
      run_step(LinearCrossEntropyGrad{op}, {x, weight, ids, r, f32({}), f32({})});
    }
  }
  for (const Axis axis : {Axis::all, Axis::rows, Axis::columns}) run_step(Reduce{ReduceFn::sum, axis}, {f32({900, 77})});
  run_step(GlobalNorm{}, {x, f32({300, 400}), w});
  run_step(Transpose{}, {x});
  for (const bool a : {false, true})
    for (const bool b : {false, true})
      run_step(MatMul{a, b}, {a ? f32({50, 131}) : f32({131, 50}), b ? f32({77, 50}) : f32({50, 77}), f32({77})});
  run_step(CachedAttention{{3, 3, 20}, 0.2}, {f32({1, 60}), f32({1000, 60}), f32({1000, 60}), u32});
  const TensorType three = {DType::u32, {3}};
  for (const std::int64_t t : {1, 70})
    run_step(CachedAttention{{3, 1, 20}, 0.2}, {f32({3 * t, 60}), f32({900, 20}), f32({900, 20}), three});
  run_attention_steps(DType::f32);
}

TEST(CpuStep, AttentionDoesNotDependOnWhatScratchMemoryHeld) {
  const Mask window20 = {Mask::Kind::window, 20}, window5 = {Mask::Kind::window, 5}, causal = {Mask::Kind::causal};
  struct Spec {
    Mask mask;
    std::int64_t queries, keys;
    int poisoned = -1;
  };
  const Spec specs[] = {{window20, 300, 300},  // of the second tile of queries some see keys of the first tile, and some do not
                        {causal, 300, 300},
                        {window20, 300, 100},  // before the last 100 queries there are no keys to see
                        {causal, 300, 100},
                        {window20, 300, 428},
                        {causal, 300, 428},    // the first keys take longer than those that wait for them
                        {window5, 13, 133},    // the last query alone sees nothing of the first tile
                        {causal, 129, 13},     // the last key alone is not seen by the first tile of queries
                        {causal, 14, 13, 2},   // row by row: the first query sees nothing
                        {window5, 30, 35, 0}};  // and nobody sees the first key
  for (const auto& [mask, queries, keys, poisoned] : specs) {
    const MultiHeadAttn attn{{4, 2, 20}, mask, 0.2, {}};
    const TensorType q = {DType::f32, {queries, 80}}, k = {DType::f32, {keys, 40}}, row = {DType::f32, {queries, 4}};
    const auto expect_same = [&](const Op& op, const std::vector<TensorType>& types) {
      for (const char scratch : {'\xff', '\x7f'})  // all NaN; counters that are far on
        EXPECT_EQ(run_step(op, types, 0, -1, 0, poisoned), run_step(op, types, 0, -1, scratch, poisoned))
            << op_name(op) << ", " << queries << " queries, " << keys << " keys";
    };
    expect_same(attn, {q, k, k});
    expect_same(MultiHeadAttnGradQ{attn}, {q, k, k, row, q, row});
    expect_same(MultiHeadAttnGradK{attn}, {q, k, k, row, q, row});
    expect_same(MultiHeadAttnGradV{attn}, {q, k, k, row, q, row});
  }
}

/// Both those that take bf16 and those that are given widened values.
TEST(CpuStep, KernelsKeepToTheirOutputsAndWorkspaceInBf16) {
  const auto bf16 = [](Shape shape) { return TensorType{DType::bf16, shape}; };
  const auto f32 = [](Shape shape) { return TensorType{DType::f32, shape}; };
  const TensorType x = bf16({70, 37}), w = f32({37}), r = f32({70}), wide = f32({70, 37}), ids = {DType::u32, {70}},
                   u32 = {DType::u32, {}};
  for (const TensorType& in : {x, wide}) {
    run_step(RmsNorm{1e-5, true}, {in, w});
    run_step(RmsNormGrad{}, {in, w, r, x, in});
    run_step(LayerNorm{1e-5, true}, {in, w, w});
    run_step(LayerNormGrad{}, {in, w, r, r, x, in});
  }
  run_step(CrossEntropyGrad{{}, true}, {wide, ids, r, f32({}), f32({})});
  for (const std::int64_t classes : {37, 20001})
    for (const bool transposed : {false, true}) {
      const LinearCrossEntropy op = {{}, transposed};
      const TensorType weight = transposed ? bf16({classes, 37}) : bf16({37, classes});
      run_step(op, {x, weight, ids});
      run_step(LinearCrossEntropyGrad{op}, {x, weight, ids, r, f32({}), f32({})});
    }
  for (const ReduceFn fn : {ReduceFn::sum, ReduceFn::max})
    for (const Axis axis : {Axis::all, Axis::rows, Axis::columns}) run_step(Reduce{fn, axis}, {bf16({900, 77})});
  run_step(Transpose{}, {x});
  run_step(Slice{3, 60, 5, 31}, {x});
  run_step(Pad{{80, 45}, 4, 5}, {x});
  run_step(Concat{Axis::columns}, {x, bf16({70, 5})});
  for (const bool a : {false, true})
    for (const bool b : {false, true})
      run_step(MatMul{a, b, true}, {a ? bf16({50, 131}) : bf16({131, 50}), b ? bf16({77, 50}) : bf16({50, 77}), f32({77})});
  run_step(CachedAttention{{3, 3, 20}, 0.2}, {bf16({1, 60}), bf16({100, 60}), bf16({100, 60}), u32});
  run_attention_steps(DType::bf16);
}

/// Steps of attention gradients, which the backend may run together, and their inputs.
class AttentionSteps {
 public:
  // Two tiles of keys a segment: both add to the same dq.
  static constexpr std::int64_t kRows = 2 * 200, kHeads = 4, kKvHeads = 2;

  explicit AttentionSteps(std::int64_t head_dim) : backend_(cpu_backend(2)) {
    const Shape q = {kRows, kHeads * head_dim}, k = {kRows, kKvHeads * head_dim}, statistic = {kRows, kHeads};
    memory_.reserve(100);
    for (const Shape& shape : {q, k, k, statistic, q, statistic}) {
      values_.push_back(graph_.input("x" + std::to_string(values_.size()), shape));
      in_.push_back(view(graph_.type(values_.back())));
      fill(in_.back(), values_.size() == 4 ? 4.0f : 0.0f);  // lse
    }
    other_ = in_;
    other_[4] = view(in_[4].type);
    fill(other_[4], 0.0f);
  }

  static MultiHeadAttn attn(std::int64_t head_dim, double scale = 0.2) {
    return {{kHeads, kKvHeads, head_dim}, {Mask::Kind::causal}, scale, {SegmentLayout::Kind::uniform, 200, 200}};
  }
  float& lse(std::int64_t row, std::int64_t head) { return in_[3].as<float>()[row * kHeads + head]; }

  void add(const Op& op, bool other_dout = false) {
    nodes_.push_back(graph_.record(op, values_));
    out_.push_back(view(graph_.type(nodes_.back())));
    from_other_.push_back(other_dout);
  }

  /// The results' bytes, of one call of the backend or of one a step.
  std::vector<std::vector<char>> run(bool together) {
    std::vector<Step> steps;
    std::size_t scratch = 0;
    for (const Value node : nodes_) scratch = std::max(scratch, backend_->workspace(graph_, graph_.node(node)));
    Guarded workspace(scratch);
    for (std::size_t i = 0; i < nodes_.size(); ++i)
      steps.push_back({&graph_.node(nodes_[i]), from_other_[i] ? other_ : in_, std::span(out_).subspan(i, 1), workspace.data()});
    for (const TensorView& x : out_) std::memset(x.data, 0x7f, x.type.bytes());
    if (together) {
      backend_->run(steps);
    } else {
      for (const Step& step : steps) backend_->run({&step, 1});
    }
    EXPECT_TRUE(workspace.intact());
    std::vector<std::vector<char>> all;
    for (const TensorView& x : out_) all.emplace_back(x.as<char>(), x.as<char>() + x.type.bytes());
    return all;
  }

 private:
  TensorView view(const TensorType& type) {
    memory_.emplace_back(type.bytes());
    return {memory_.back().data(), type};
  }
  void fill(const TensorView& x, float mean) {
    for (std::int64_t i = 0; i < x.size(); ++i) {
      seed_ = seed_ * 1664525u + 1013904223u;
      x.as<float>()[i] = static_cast<float>(seed_ >> 8) / 8388608.0f - 1.0f + mean;
    }
  }

  std::unique_ptr<Backend> backend_;
  Graph graph_;
  std::vector<Guarded> memory_;
  std::vector<Value> values_, nodes_;
  std::vector<TensorView> in_, other_, out_;
  std::vector<bool> from_other_;
  std::uint32_t seed_ = 1;
};

TEST(CpuStep, AttentionGradientsTogetherHaveTheBitsOfEachAlone) {
  for (const std::int64_t head_dim : {24, 32}) {
    const MultiHeadAttn attn = AttentionSteps::attn(head_dim), scaled = AttentionSteps::attn(head_dim, 0.3);
    const MultiHeadAttnGradQ q{attn};
    const MultiHeadAttnGradK k{attn}, scaled_k{scaled};
    const MultiHeadAttnGradV v{attn};
    for (const auto& ops : std::vector<std::vector<Op>>{{q, k, v}, {v, q}, {k, v}, {k, k, q}, {q, scaled_k, v}}) {
      AttentionSteps steps(head_dim);
      for (const Op& op : ops) steps.add(op);
      EXPECT_EQ(steps.run(true), steps.run(false)) << op_name(ops[0]) << " first, head_dim " << head_dim;
    }
    AttentionSteps steps(head_dim);
    steps.add(q);
    steps.add(k, true);
    steps.add(v);
    EXPECT_EQ(steps.run(true), steps.run(false)) << "dk of another dout, head_dim " << head_dim;
  }
}

TEST(CpuStep, ARowWhoseLseIsMinusInfinityHasNoGradient) {
  AttentionSteps steps(32), whole(32);
  for (AttentionSteps* x : {&steps, &whole}) x->add(MultiHeadAttnGradQ{AttentionSteps::attn(32)});
  steps.lse(75, 2) = -std::numeric_limits<float>::infinity();
  const std::vector<char> got = steps.run(true)[0], all = whole.run(true)[0];
  const std::size_t head = 32 * sizeof(float), at = (75 * AttentionSteps::kHeads + 2) * head;
  std::vector<char> want = all;
  std::fill_n(want.begin() + static_cast<std::ptrdiff_t>(at), head, '\0');
  EXPECT_NE(want, all);
  EXPECT_EQ(got, want);
}

/// Parameters after two steps of six updates that run as one loop.
using AddUpdate = std::function<void(Graph&, const Gradients&)>;
std::vector<std::vector<float>> after_updates(Backend& backend, const AddUpdate& update) {
  Graph g(3);
  Value loss = g.constant({}, {0.0});
  for (const auto& [name, shape] :
       std::vector<std::pair<std::string, Shape>>{{"large", {300, 250}}, {"tiny", {5}}, {"second", {40000}}}) {
    const Value p = g.parameter(name, shape, Init::normal(0, 1));
    loss = g.add(loss, g.sum(g.mul(g.mul(p, p), g.parameter(name + ".factor", shape, Init::uniform(-1, 1)))));
  }
  update(g, differentiate(g, loss));
  Session session(g, backend);
  session.step();
  session.step();
  std::vector<std::vector<float>> values;
  for (const char* name : {"large", "tiny", "second", "large.factor"}) values.push_back(session.read(name));
  return values;
}

TEST(CpuStep, UpdatesTogetherAreThoseOfTheReferenceWithAnyNumberOfThreads) {
  const auto reference = reference_backend(), one = cpu_backend(1), two = cpu_backend(2), four = cpu_backend(4);
  const optim::UpdateOptions options = {.schedule = {.base = 0.1}, .clip_norm = 20.0};
  for (const AddUpdate& update :
       std::vector<AddUpdate>{[&](Graph&g, const Gradients&grads) { optim::adamw(g, grads, {}, options); },
                              [&](Graph&g, const Gradients&grads) { optim::lion(g, grads, {}, options); },
                              [&](Graph&g, const Gradients&grads) { optim::sgd(g, grads, {.momentum = 0.5}, options); }}) {
    const auto want = after_updates(*reference, update), got = after_updates(*one, update);
    EXPECT_EQ(after_updates(*two, update), got);
    EXPECT_EQ(after_updates(*four, update), got);
    for (std::size_t p = 0; p < want.size(); ++p)
      for (std::size_t i = 0; i < want[p].size(); ++i) ASSERT_NEAR(got[p][i], want[p][i], 2e-6) << p << ", " << i;
  }
}

/// One parameter, as large as one task, is updated many times in a row: each update takes the result of the one before it.
TEST(CpuStep, UpdatesOfOneParameterRunOneAfterTheOther) {
  Graph g(3);
  const Shape shape = {32768};
  Value p = g.parameter("p", shape, Init::normal(0, 1)), m = g.state("m", shape);
  const Value grad = g.state("grad", shape, Init::normal(0, 1)), one = g.constant({}, {1.0}), rate = g.constant({}, {0.1});
  for (int i = 0; i < 12; ++i) {
    p = g.record(SgdUpdate{.momentum = 0.9, .weight_decay = 0.1}, {p, grad, m, rate, one});
    m = {p.node, 1};
  }
  const auto after = [&](Backend& backend) {
    Session session(g, backend);
    for (int step = 0; step < 10; ++step) session.step();
    return session.read("p");
  };
  EXPECT_EQ(after(*cpu_backend(2)), after(*cpu_backend(1)));
}

}  // namespace
}  // namespace graft
