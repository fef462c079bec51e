// The check of one backend against another is checked: backends that are wrong on purpose must be caught.
#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "graft/bf16.h"
#include "graft/error.h"
#include "graft/gradient_check.h"
#include "graft/gtest.h"
#include "graft/session.h"
#include "tests/message.h"

namespace graft {
namespace {

using testing::message_of;

const GradientCheckRow& row(const GradientCheckReport& report, const std::string& name) {
  for (const GradientCheckRow& r : report.rows)
    if (r.name == name) return r;
  throw Error("no row for " + name + "\n" + report.to_string());
}

/// The reference backend, but `spoil` sees the first output of each step.
class WrongBackend : public Backend {
 public:
  using SpoilStep = std::function<void(const Step&)>;
  explicit WrongBackend(SpoilStep spoil) : spoil_(std::move(spoil)) {}
  std::string description() const override { return "wrong on purpose"; }
  void* allocate(std::size_t bytes) override { return right_->allocate(bytes); }
  void free(void* memory) noexcept override { right_->free(memory); }
  void upload(void* to, const void* from, std::size_t bytes) override { right_->upload(to, from, bytes); }
  void download(void* to, const void* from, std::size_t bytes) override { right_->download(to, from, bytes); }
  std::size_t workspace(const Graph& graph, const Node& node) override { return right_->workspace(graph, node); }
  void run(std::span<const Step> steps) override {
    for (const Step& step : steps) {
      right_->run({&step, 1});
      spoil_(step);
    }
  }

 private:
  std::unique_ptr<Backend> right_ = reference_backend();
  SpoilStep spoil_;
};

template <class T, class Op>
WrongBackend::SpoilStep at_element(std::int64_t element, std::function<T(T)> change) {
  return [=](const Step& step) {
    if (std::holds_alternative<Op>(step.node->op)) step.out[0].as<T>()[element] = change(step.out[0].as<T>()[element]);
  };
}

struct Decode {
  Graph g{4};
  Value x = g.input("x", {3, 4});
  Value w = g.parameter("w", {4, 4}, Init::normal(0, 1));
  Value cache = g.state("cache", {5, 4}, Init::normal(0, 1));
  Value count = g.state("count", {}, Init::zeros(), DType::u32);
  Decode() {
    const Value y = g.tanh(g.matmul(x, w));
    g.output("y", y);
    g.cache_write(g.slice_rows(y, 0, 1), cache, count);
    g.record(Increment{}, {count});
  }
};

TEST(BackendCheck, AllowsBf16WhatRoundingCosts) {
  Graph g;
  const Value x = g.input("x", {8, 16}, DType::bf16);
  g.output("y", g.scale(g.tanh(x), 3.0));                     // rounded twice
  g.output("sums", g.sum(g.input("z", {8, 16}, DType::bf16), Axis::rows));  // not at all
  WrongBackend right([](const Step&) {});
  const GradientCheckReport report = backend_check(g, right);
  EXPECT_TRUE(report.passed) << report.to_string();
  EXPECT_GT(report.rows[1].error, 1e-3) << "rounding is seen";
  const auto times = [](float factor, DType dtype) {
    return WrongBackend([=](const Step& step) {
      const TensorView& out = step.out[0];
      if (out.type.dtype != dtype) return;
      for (std::int64_t i = 0; i < out.size(); ++i)
        if (dtype == DType::bf16)
          out.as<Bf16>()[i] = to_bf16(factor * to_float(out.as<Bf16>()[i]));
        else
          out.as<float>()[i] *= factor;
    });
  };
  WrongBackend narrow = times(1.02f, DType::bf16), wide = times(1.0001f, DType::f32);
  for (WrongBackend* wrong : {&narrow, &wide}) {
    const GradientCheckReport caught = backend_check(g, *wrong);
    EXPECT_EQ(row(caught, "y").passed, wrong != &narrow) << caught.to_string();
    EXPECT_EQ(row(caught, "sums").passed, wrong != &wide) << caught.to_string();
  }
}

TEST(BackendCheck, PassesARightBackendAndComparesOutputsAndStates) {
  const Decode d;
  WrongBackend right([](const Step&) {});
  const GradientCheckReport report = backend_check(d.g, right);
  EXPECT_TRUE(report.passed) << report.to_string();
  ASSERT_EQ(report.rows.size(), 3u) << report.to_string();
  EXPECT_EQ(report.rows[0].name, "y");
  EXPECT_EQ(report.rows[1].name, "cache");
  EXPECT_EQ(report.rows[2].name, "count");
  EXPECT_GT(report.rows[0].error, 0.0) << "f32 against f64";
  EXPECT_TRUE(backend_matches(d.g, right));
}

TEST(BackendCheck, CatchesOneElementOfAnOutput) {
  const Decode d;
  WrongBackend wrong(at_element<float, Unary>(7, [](float v) { return v + 1e-3f; }));
  const GradientCheckReport report = backend_check(d.g, wrong);
  EXPECT_FALSE(report.passed);
  EXPECT_FALSE(row(report, "y").passed);
  EXPECT_EQ(row(report, "y").worst, 7);
  EXPECT_NEAR(row(report, "y").analytic - row(report, "y").numeric, 1e-3, 1e-6);
  EXPECT_NE(backend_matches(d.g, wrong).message(), std::string());
  EXPECT_FALSE(backend_matches(d.g, wrong));
}

TEST(BackendCheck, CatchesAStateWrittenWronglyOrNotAtAll) {
  const Decode d;
  WrongBackend wrong(at_element<float, CacheWrite>(13, [](float v) { return v + 0.01f; }));
  EXPECT_FALSE(row(backend_check(d.g, wrong), "cache").passed);
  WrongBackend idle([](const Step& step) {
    if (std::holds_alternative<Increment>(step.node->op)) *step.out[0].as<std::uint32_t>() = 0;
  });
  const GradientCheckReport report = backend_check(d.g, idle);
  EXPECT_FALSE(row(report, "count").passed) << "integers must be equal";
  EXPECT_TRUE(row(report, "cache").passed);
}

TEST(BackendCheck, CatchesAParameterOverwrittenByMistake) {
  const Decode d;
  WrongBackend wrong([](const Step& step) {
    if (std::holds_alternative<MatMul>(step.node->op)) step.in[1].as<float>()[3] += 1.0f;
  });
  const GradientCheckReport report = backend_check(d.g, wrong);
  EXPECT_FALSE(row(report, "w").passed);
  EXPECT_TRUE(row(report, "y").passed);
}

TEST(BackendCheck, CatchesAnIntegerThatIsOneOff) {
  Graph g;
  const Value n = g.state("n", {}, Init::fill(4e6), DType::u32);
  g.record(Increment{}, {n});
  WrongBackend wrong([](const Step& step) { *step.out[0].as<std::uint32_t>() += 1; });
  EXPECT_FALSE(backend_check(g, wrong).passed) << "one in four millions is below rtol, and wrong";
}

TEST(BackendCheck, CatchesNaNAndInfinity) {
  const Decode d;
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    WrongBackend wrong(at_element<float, Unary>(2, [=](float) { return bad; }));
    const GradientCheckReport report = backend_check(d.g, wrong);
    EXPECT_FALSE(report.passed);
    EXPECT_EQ(row(report, "y").worst, 2);
  }
}

TEST(BackendCheck, TakesEqualInfinitiesForEqual) {
  Graph g(1);
  const Value q = g.input("q", {4, 2}), k = g.input("k", {2, 2});
  AttentionOptions options;
  options.mask = Mask::Kind::causal;  // the first two rows see nothing
  const Value out = g.multi_head_attn(q, k, k, 1, 1, 2, true, options);
  g.output("lse", {out.node, 1});
  WrongBackend right([](const Step&) {}), wrong([](const Step&step) { *step.out[1].as<float>() = -1e30f; });
  const GradientCheckReport report = backend_check(g, right);
  EXPECT_TRUE(report.passed) << report.to_string();
  EXPECT_FALSE(backend_check(g, wrong).passed);
  WrongBackend wrong_beside_them([](const Step& step) { step.out[1].as<float>()[3] += 0.1f; });
  EXPECT_FALSE(backend_check(g, wrong_beside_them).passed);
}

TEST(BackendCheck, HoldsErrorsToTheNormOfTheOutput) {
  Graph g;
  const Value x = g.input("x", {4});
  g.output("y", g.scale(x, 2.0));
  BackendCheckOptions options;
  options.inputs["x"] = {100.0, 0.0, 0.0, 0.0};
  const auto passes = [&](float error) {
    WrongBackend wrong(at_element<float, Unary>(3, [=](float v) { return v + error; }));
    return backend_check(g, wrong, options).passed;
  };
  EXPECT_TRUE(passes(0.0019f));
  EXPECT_FALSE(passes(0.0021f));
  options.rtol = 1e-6;
  EXPECT_FALSE(passes(0.0019f));
  options = {};
  options.inputs["x"] = {0.0, 0.0, 0.0, 0.0};  // rtol · tiny · √4
  EXPECT_TRUE(passes(1.9e-8f));
  EXPECT_FALSE(passes(2.1e-8f));
}

TEST(BackendCheck, RefusesAGraphWithNothingToCompare) {
  Graph g;
  const Value x = g.input("x", {2});
  g.exp(x);
  const auto backend = reference_backend();
  EXPECT_EQ(message_of([&] { backend_check(g, *backend); }),
            "backend_check: the graph has no output and overwrites no state, so that there is nothing to compare");
  BackendCheckOptions options;
  options.inputs["z"] = {1.0};
  EXPECT_EQ(message_of([&] { backend_check(g, *backend, options); }),
            "backend_check: values are given for \"z\", which is not an input of the graph");
}

}  // namespace
}  // namespace graft
