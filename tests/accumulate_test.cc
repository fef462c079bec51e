// Gradient accumulation: k micro-batches weigh every counted token alike, as one large batch does.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "graft/backend.h"
#include "graft/error.h"
#include "graft/optim.h"
#include "graft/philox.h"
#include "graft/session.h"
#include "tests/message.h"

namespace graft {
namespace {

using testing::message_of;

constexpr std::int64_t kMicroRows = 5, kMicros = 3, kWidth = 4, kClasses = 6;

/// A classifier of two layers; returns the loss.
CrossEntropyResult classifier(Graph& g, std::int64_t rows, DType dtype, Reduction reduction, double dropout = 0.0) {
  Value x = g.input("x", {rows, kWidth}, dtype);
  x = g.tanh(g.matmul(x, g.parameter("up.weight", {kWidth, 8}, Init::xavier(), dtype)));
  x = g.dropout(x, dropout);
  const Value logits = g.matmul_bias(x, g.parameter("down.weight", {8, kClasses}, Init::xavier(), dtype),
                                     g.parameter("down.bias", {kClasses}, Init::normal(0.0, 0.1), dtype));
  g.parameter("unused.weight", {2}, Init::ones(), dtype);
  g.state("cache", {2}, Init::zeros(), dtype, /*saved=*/false);
  return g.cross_entropy_with(logits, g.input_u32("labels", {rows}), {.reduction = reduction});
}

void adamw(Graph& g, const Gradients& gradients, Value loss) {
  optim::UpdateOptions options;
  options.schedule = {.kind = Schedule::Kind::cosine, .base = 0.05, .total = 10, .warmup = 2};
  options.clip_norm = 0.2;
  options.loss = loss;
  optim::adamw(g, gradients, {.weight_decay = 0.1}, options);
}

struct Batch {
  std::vector<double> x;
  std::vector<std::uint32_t> labels;
};

/// Micro-batch m of step s: 5, 1 and 3 of its 5 rows count, so that a mean of means would be something else.
Batch batch_at(int step, std::int64_t micro) {
  constexpr std::int64_t counted[] = {5, 1, 3};
  Batch batch;
  const auto number = [&](std::uint64_t i) {
    return philox::uniform(philox::bits(11, static_cast<std::uint32_t>(micro), static_cast<std::uint32_t>(step), i));
  };
  for (std::uint64_t i = 0; i < kMicroRows * kWidth; ++i) batch.x.push_back(2.0 * number(i) - 1.0);
  for (std::uint64_t i = 0; i < kMicroRows; ++i)
    batch.labels.push_back(static_cast<std::int64_t>(i) < counted[micro] ? static_cast<std::uint32_t>(number(100 + i) * kClasses)
                                                                         : kIgnoreIndex);
  return batch;
}

struct Accumulation {
  explicit Accumulation(Backend& backend, DType dtype, double dropout = 0.0) {
    Graph g(5);
    const CrossEntropyResult loss = classifier(g, kMicroRows, dtype, Reduction::sum, dropout);
    optim::accumulate(g, differentiate(g, loss.loss), loss.loss, loss.counted);
    micro = std::make_unique<Session>(g, backend);
    update = std::make_unique<Session>(optim::accumulated_update(g, adamw), *micro);
  }
  void add(const Batch& batch) {
    micro->write("x", batch.x);
    micro->write("labels", batch.labels);
    micro->step();
  }
  std::unique_ptr<Session> micro, update;
};

void expect_equals_large_batch(Backend& backend, DType dtype, double tolerance) {
  Accumulation small(backend, dtype);
  Graph g(5);
  const Value loss = classifier(g, kMicros * kMicroRows, dtype, Reduction::mean).loss;
  adamw(g, differentiate(g, loss), loss);
  g.output("loss", loss);
  Session large(g, backend);

  for (int step = 0; step < 6; ++step) {
    Batch whole;
    for (std::int64_t m = 0; m < kMicros; ++m) {
      const Batch batch = batch_at(step, m);
      whole.x.insert(whole.x.end(), batch.x.begin(), batch.x.end());
      whole.labels.insert(whole.labels.end(), batch.labels.begin(), batch.labels.end());
      small.add(batch);
    }
    small.update->step();
    large.write("x", whole.x);
    large.write("labels", whole.labels);
    large.step();
    EXPECT_NEAR(small.update->scalar("loss"), large.scalar("loss"), tolerance);
    EXPECT_NEAR(small.update->scalar("gradient_norm"), large.scalar("gradient_norm"), tolerance);
  }
  for (const Value p : g.parameters()) {
    const std::string& name = g.node(p).name;
    const std::vector<double> got = small.update->read_f64(name), want = large.read_f64(name);
    for (std::size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(got[i], want[i], tolerance) << name << " [" << i << "]";
  }
  EXPECT_EQ(small.update->read_u32("optimizer/step"), std::vector<std::uint32_t>{6});
}

TEST(Accumulate, MicroBatchesEqualOneLargeBatch) { expect_equals_large_batch(*reference_backend(), DType::f64, 1e-12); }
TEST(Accumulate, MicroBatchesEqualOneLargeBatchOnTheCpuBackend) { expect_equals_large_batch(*cpu_backend(2), DType::f32, 2e-5); }

TEST(Accumulate, SumsAreZeroAfterTheUpdate) {
  const auto backend = reference_backend();
  Accumulation run(*backend, DType::f64);
  run.add(batch_at(0, 0));
  run.add(batch_at(0, 2));
  EXPECT_EQ(run.micro->scalar("accumulate/count"), 8.0);
  EXPECT_NE(run.micro->read_f64("accumulate/up.weight"), std::vector<double>(32, 0.0));
  run.update->step();
  EXPECT_EQ(run.micro->scalar("accumulate/count"), 0.0);
  EXPECT_EQ(run.micro->scalar("accumulate/loss"), 0.0);
  for (const std::string name : {"up.weight", "down.weight", "down.bias"})
    for (const double sum : run.micro->read_f64("accumulate/" + name)) EXPECT_EQ(sum, 0.0) << name;
}

TEST(Accumulate, NothingCountedIsASkippedUpdate) {
  const auto backend = reference_backend();
  Accumulation run(*backend, DType::f64);
  const std::vector<double> before = run.micro->read_f64("down.weight");
  Batch batch = batch_at(0, 0);
  std::fill(batch.labels.begin(), batch.labels.end(), kIgnoreIndex);
  run.add(batch);
  run.update->step();
  EXPECT_EQ(run.micro->read_f64("down.weight"), before);
  EXPECT_EQ(run.update->read_u32("optimizer/skipped"), std::vector<std::uint32_t>{1});
  EXPECT_EQ(run.update->read_u32("optimizer/step"), std::vector<std::uint32_t>{0});
  run.add(batch_at(0, 0));
  run.update->step();
  EXPECT_NE(run.micro->read_f64("down.weight"), before);
  EXPECT_EQ(run.update->read_u32("optimizer/step"), std::vector<std::uint32_t>{1});
}

TEST(Accumulate, EveryMicroBatchHasItsOwnDropout) {
  const auto backend = reference_backend();
  Accumulation run(*backend, DType::f64, 0.5);
  const auto sum_of = [&] {
    run.micro->write("accumulate/down.weight", std::vector<double>(8 * kClasses, 0.0));
    run.add(batch_at(0, 0));
    return run.micro->read_f64("accumulate/down.weight");
  };
  EXPECT_NE(sum_of(), sum_of());
  EXPECT_EQ(run.micro->read_u32("rng/counter"), std::vector<std::uint32_t>{2});
}

TEST(Accumulate, UpdateHoldsWhatACheckpointNeeds) {
  const auto backend = reference_backend();
  Accumulation run(*backend, DType::f64, 0.5);
  const Checkpoint checkpoint = run.update->snapshot();
  std::vector<std::string> paths;
  for (const SavedTensor& tensor : checkpoint.tensors) paths.push_back(tensor.path);
  std::ranges::sort(paths);
  std::vector<std::string> want = {"model/down.bias",   "model/down.weight", "model/unused.weight", "model/up.weight",
                                   "optimizer/skipped", "optimizer/step",    "rng/counter"};
  for (const std::string slot : {"exp_avg", "exp_avg_sq"})
    for (const std::string name : {"down.bias", "down.weight", "up.weight"}) want.push_back("optimizer/" + slot + "/" + name);
  std::ranges::sort(want);
  EXPECT_EQ(paths, want);
}

TEST(Accumulate, UpdateKnowsWhichParametersTheLossDoesNotReach) {
  Graph g;
  const CrossEntropyResult loss = classifier(g, 2, DType::f32, Reduction::sum);
  optim::accumulate(g, differentiate(g, loss.loss), loss.loss, loss.counted);
  Gradients seen;
  Value mean;
  const Graph update = optim::accumulated_update(g, [&](Graph&, const Gradients& gradients, Value l) {
    seen = gradients;
    mean = l;
  });
  EXPECT_EQ(seen.unreached, std::vector<std::string>{"unused.weight"});
  EXPECT_EQ(seen.all.size(), 3u);
  EXPECT_EQ(update.outputs().at("loss"), mean);
}

TEST(Accumulate, UpdateAloneStartsFromTheSameParametersAndHoldsNoCaches) {
  const auto backend = reference_backend();
  Accumulation run(*backend, DType::f64);
  Session alone(run.update->graph(), *backend);
  for (const std::string name : {"up.weight", "down.weight", "down.bias", "unused.weight"})
    EXPECT_EQ(alone.read_f64(name), run.micro->read_f64(name)) << name;
  EXPECT_FALSE(run.update->graph().find("cache"));
}

TEST(AccumulateErrors, SayWhatIsWrong) {
  Graph g;
  const CrossEntropyResult mean = classifier(g, 2, DType::f32, Reduction::mean);
  const Gradients of_mean = differentiate(g, mean.loss);
  EXPECT_EQ(message_of([&] { optim::accumulate(g, of_mean, mean.loss, mean.counted); }),
            "accumulate: the loss \"cross_entropy_0\" is a mean, must be a sum (Reduction::sum), so that micro-batches weigh every "
            "token alike");
  EXPECT_EQ(message_of([&] { optim::accumulate(g, of_mean, mean.lse, mean.counted); }),
            "accumulate: the loss must be a float scalar, got f32[2]");
  EXPECT_EQ(message_of([&] { optim::accumulated_update(g, adamw); }),
            "accumulated_update: the graph does not accumulate, call accumulate on it first");

  Graph linear;
  const Value x = linear.parameter("x", {2, 3}), w = linear.parameter("w", {3, 4});
  for (const Reduction reduction : {Reduction::mean, Reduction::sum}) {
    const CrossEntropyResult loss = linear.linear_cross_entropy(
        x, w, linear.input_u32(reduction == Reduction::mean ? "a" : "b", {2}), {.reduction = reduction});
    const Gradients gradients = differentiate(linear, loss.loss);
    const auto accumulate = [&] { optim::accumulate(linear, gradients, loss.loss, loss.counted); };
    if (reduction == Reduction::sum)
      EXPECT_NO_THROW(accumulate());
    else
      EXPECT_EQ(
          message_of(accumulate),
          "accumulate: the loss \"linear_cross_entropy_0\" is a mean, must be a sum (Reduction::sum), so that micro-batches weigh "
          "every token alike");
  }

  for (const std::string name : {"loss", "count"}) {
    Graph named;
    const Value squares = named.sum(named.exp(named.parameter(name, {2})));
    const Gradients gradients = differentiate(named, squares);
    EXPECT_EQ(message_of([&] { optim::accumulate(named, gradients, squares, named.constant({}, {1.0})); }),
              "accumulate: a parameter cannot be called \"" + name + "\" here");
  }

  Graph twice;
  const CrossEntropyResult loss = classifier(twice, 2, DType::f32, Reduction::sum);
  const Gradients gradients = differentiate(twice, loss.loss);
  EXPECT_EQ(message_of([&] { optim::accumulate(twice, {}, loss.loss, loss.counted); }),
            "accumulate: the loss reaches no parameter, so there is nothing to accumulate");
  EXPECT_EQ(message_of([&] { optim::accumulate(twice, gradients, loss.loss, twice.input_u32("n", {})); }),
            "accumulate: the count must be a float scalar, got u32[]");
  EXPECT_EQ(message_of([&] { optim::accumulate(twice, gradients, loss.loss, twice.constant({}, {1.0}, DType::f64)); }),
            "accumulate: loss and count must have one dtype, got f32[] and f64[]");
  optim::accumulate(twice, gradients, loss.loss, loss.counted);
  EXPECT_EQ(message_of([&] { optim::accumulate(twice, gradients, loss.loss, loss.counted); }),
            "accumulate: the graph accumulates already");

  Graph updated;
  const CrossEntropyResult sum = classifier(updated, 2, DType::f32, Reduction::sum);
  const Gradients of_sum = differentiate(updated, sum.loss);
  optim::sgd(updated, of_sum, {}, {});
  EXPECT_EQ(message_of([&] { optim::accumulate(updated, of_sum, sum.loss, sum.counted); }),
            "accumulate: the graph has an update, which belongs into accumulated_update");
}

}  // namespace
}  // namespace graft
