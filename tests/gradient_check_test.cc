// The checkers are checked: rules that are wrong on purpose must be caught, right ones must pass.
#include "graft/gradient_check.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "graft/error.h"
#include "graft/gtest.h"
#include "graft/session.h"
#include "tests/message.h"

namespace graft {
namespace {

using testing::message_of;

using Values = std::vector<double>;
/// Spoils the gradient of one value.
using Spoil = std::function<Value(Graph&, Value gradient)>;

/// loss = 3 · mean(tanh(x·w + b)²), w read twice: square, so that a transposed gradient has the right shape.
struct Model {
  Graph g{21};
  Value x = g.input("x", {5, 4});
  Value w = g.parameter("w", {4, 4}, Init::normal(0, 0.5));
  Value b = g.parameter("b", {4}, Init::normal(0, 0.5));
  Value y = g.tanh(g.matmul_bias(g.matmul(x, w), w, b));
  Value inner = g.mean(g.mul(y, y));
  Value loss = g.scale(inner, 3.0);
};

GradientCheckOptions spoiled(const std::string& name, const Spoil& spoil) {
  GradientCheckOptions options;
  options.differentiate = [=](Graph& g, Value loss, const std::vector<Value>& wrt) {
    Gradients gradients = differentiate(g, loss, wrt);
    for (Gradient& gradient : gradients.all)
      if (g.node(gradient.of).name == name) gradient.gradient = spoil(g, gradient.gradient);
    return gradients;
  };
  return options;
}

const GradientCheckRow& row(const GradientCheckReport& report, const std::string& name) {
  for (const GradientCheckRow& r : report.rows)
    if (r.name == name) return r;
  throw Error("no row for " + name + "\n" + report.to_string());
}

/// A constant that is `value` at one element and 0 elsewhere.
Value one_hot(Graph& g, Value like, std::size_t index, double value) {
  Values values(static_cast<std::size_t>(g.shape(like).size()), 0.0);
  values[index] = value;
  return g.constant(g.shape(like), values, g.type(like).dtype);
}

void expect_caught(const GradientCheckReport& report, const std::string& name) {
  EXPECT_FALSE(report.passed) << report.to_string();
  for (const GradientCheckRow& r : report.rows) EXPECT_EQ(r.passed, r.name != name) << report.to_string();
}

TEST(GradientCheck, PassesRightRules) {
  const Model m;
  const GradientCheckReport report = gradient_check(m.g, m.loss);
  EXPECT_TRUE(report.passed) << report.to_string();
  ASSERT_EQ(report.rows.size(), 3u) << "inputs and parameters";
  EXPECT_EQ(report.rows[0].name, "x");
  EXPECT_EQ(report.rows[1].checked, 16);
  EXPECT_FALSE(report.rows[1].directions);
  for (const GradientCheckRow& r : report.rows) EXPECT_NE(r.analytic, 0.0);
  EXPECT_TRUE(gradients_match(m.g, m.loss));
}

TEST(GradientCheck, CatchesAGradientScaledByATouch) {
  const Model m;
  for (const double factor : {1.001, 0.999, 1.000003}) {
    expect_caught(gradient_check(m.g, m.loss, spoiled("w", [=](Graph& g, Value d) { return g.scale(d, factor); })), "w");
    expect_caught(gradient_check(m.g, m.loss, spoiled("x", [=](Graph& g, Value d) { return g.scale(d, factor); })), "x");
  }
  EXPECT_TRUE(gradient_check(m.g, m.loss, spoiled("w", [](Graph& g, Value d) { return g.scale(d, 1.0000001); })).passed)
      << "below rtol";
}

TEST(GradientCheck, CatchesOneElementThatIsOffAndNamesIt) {
  const Model m;
  for (const std::size_t element : {0u, 6u, 15u}) {
    const GradientCheckReport report =
        gradient_check(m.g, m.loss, spoiled("w", [=](Graph& g, Value d) { return g.add(d, one_hot(g, d, element, 1e-4)); }));
    expect_caught(report, "w");
    EXPECT_EQ(row(report, "w").worst, static_cast<std::int64_t>(element));
    EXPECT_NEAR(row(report, "w").analytic - row(report, "w").numeric, 1e-4, 1e-8);
  }
}

TEST(GradientCheck, CatchesAFlippedSign) {
  const Model m;
  const GradientCheckReport report = gradient_check(m.g, m.loss, spoiled("b", [](Graph& g, Value d) { return g.neg(d); }));
  expect_caught(report, "b");
  EXPECT_NEAR(row(report, "b").error, 2.0, 1e-3);
}

TEST(GradientCheck, CatchesATransposedGradient) {
  const Model m;
  expect_caught(gradient_check(m.g, m.loss, spoiled("w", [](Graph& g, Value d) { return g.transpose(d); })), "w");
}

TEST(GradientCheck, CatchesZeros) {
  const Model m;
  expect_caught(gradient_check(m.g, m.loss, spoiled("w", [](Graph& g, Value d) { return g.scale(d, 0.0); })), "w");
}

TEST(GradientCheck, CatchesNaNAndInfinity) {
  const Model m;
  for (const double bad : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    const GradientCheckReport report =
        gradient_check(m.g, m.loss, spoiled("w", [=](Graph& g, Value d) { return g.add(d, one_hot(g, d, 5, bad)); }));
    expect_caught(report, "w");
    EXPECT_EQ(row(report, "w").worst, 5);
  }
}

TEST(GradientCheck, CatchesADroppedCoefficient) {
  const Model m;
  GradientCheckOptions options;
  options.differentiate = [](Graph& g, Value loss, const std::vector<Value>& wrt) {
    return differentiate(g, g.node(loss).inputs[0], wrt);
  };
  const GradientCheckReport report = gradient_check(m.g, m.loss, options);
  for (const GradientCheckRow& r : report.rows) EXPECT_FALSE(r.passed) << r.name;
}

TEST(GradientCheck, CatchesAContributionThatIsNotAddedUp) {
  Graph g;
  const Value w = g.parameter("w", {3}, Init::normal(0, 1));
  const Value loss = g.add(g.sum(g.exp(w)), g.sum(g.mul(w, w)));
  EXPECT_TRUE(gradients_match(g, loss));
  for (const std::size_t side : {0u, 1u}) {
    GradientCheckOptions options;
    options.differentiate = [=](Graph& copy, Value l, const std::vector<Value>& wrt) {
      return differentiate(copy, copy.node(l).inputs[side], wrt);
    };
    expect_caught(gradient_check(g, loss, options), "w");
  }
}

TEST(GradientCheck, CatchesATensorWronglySaidToBeUnreached) {
  const Model m;
  for (const bool silent : {false, true}) {
    GradientCheckOptions options;
    options.differentiate = [=](Graph& g, Value loss, const std::vector<Value>& wrt) {
      Gradients gradients = differentiate(g, loss, wrt);
      std::erase_if(gradients.all, [&](const Gradient& gradient) { return g.node(gradient.of).name == "b"; });
      if (!silent) gradients.unreached.push_back("b");
      return gradients;
    };
    const GradientCheckReport report = gradient_check(m.g, m.loss, options);
    expect_caught(report, "b");
    EXPECT_EQ(row(report, "b").analytic, 0.0);
    EXPECT_EQ(report.unreached, std::vector<std::string>{"b"});
  }
}

TEST(GradientCheck, ListsWhatTheLossDoesNotReachAndPasses) {
  Graph g;
  const Value w = g.parameter("w", {2}, Init::ones()), unused = g.parameter("unused", {2});
  g.parameter("held", {2}, Init::ones());
  const Value loss = g.sum(g.mul(w, g.stop_gradient(g.find("held"))));
  const GradientCheckReport report = gradient_check(g, loss);
  EXPECT_TRUE(report.passed);
  EXPECT_EQ(report.unreached, (std::vector<std::string>{"unused", "held"}));
  EXPECT_EQ(report.rows.size(), 1u);
  EXPECT_NE(report.to_string().find("not reached by the loss: unused, held\n"), std::string::npos);
  GradientCheckOptions options;
  options.wrt = {unused};
  EXPECT_TRUE(gradient_check(g, loss, options).passed);
}

TEST(GradientCheck, HoldsWhatStopGradientGives) {
  Graph g(2);
  const Value w = g.parameter("w", {3}, Init::normal(0, 1));
  const Value held = g.stop_gradient(g.mul(w, w));
  const Value straight_through = g.add(w, g.stop_gradient(g.sub(g.relu(w), w)));
  const Value loss = g.sum(g.add(g.mul(w, held), g.exp(straight_through)));
  EXPECT_TRUE(gradients_match(g, loss));
  const auto leak = [&](Graph& copy, Value l, const std::vector<Value>& wrt) {
    Gradients gradients = differentiate(copy, l, wrt);
    gradients.all[0].gradient = copy.add(gradients.all[0].gradient, copy.mul(wrt[0], wrt[0]));
    return gradients;
  };
  GradientCheckOptions options;
  options.differentiate = leak;
  expect_caught(gradient_check(g, loss, options), "w");
}

TEST(GradientCheck, CatchesALeakThroughStopGradientWhenThatIsTheOnlyWay) {
  Graph g;
  const Value w = g.parameter("w", {2}, Init::ones());
  const Value loss = g.sum(g.stop_gradient(w));
  GradientCheckOptions options;
  options.differentiate = [](Graph& copy, Value, const std::vector<Value>& wrt) {
    return Gradients{{{wrt[0], copy.constant(copy.shape(wrt[0]), {1.0}, DType::f64)}}, {}};
  };
  const GradientCheckReport report = gradient_check(g, loss, options);
  expect_caught(report, "w");
  EXPECT_EQ(row(report, "w").numeric, 0.0);
  EXPECT_TRUE(gradient_check(g, loss).passed);
}

TEST(GradientCheck, ChecksValuesInTheMiddleAlsoOfALaterSlot) {
  Graph g(4);
  const Value x = g.parameter("x", {2, 4}, Init::normal(0, 1)), c = g.constant({2, 4}, {0.5});
  const Value h = g.tanh(g.mul(x, c));
  const Value out = g.full_attention(h, h, h, 2, 2, 2);
  const Value lse{out.node, 1};
  const Value loss = g.add(g.sum(g.exp(out)), g.sum(g.mul(lse, lse)));
  GradientCheckOptions options;
  options.wrt = {x, c, h, lse, loss};
  const GradientCheckReport report = gradient_check(g, loss, options);
  EXPECT_TRUE(report.passed) << report.to_string();
  ASSERT_EQ(report.rows.size(), 5u);
  EXPECT_EQ(report.rows[3].name, g.node(out).name + ":1");
  EXPECT_NEAR(report.rows[4].numeric, 1.0, 1e-9);
  options.differentiate = spoiled(g.node(h).name, [](Graph& copy, Value d) { return copy.scale(d, 1.001); }).differentiate;
  expect_caught(gradient_check(g, loss, options), g.node(h).name);
}

// |analytic − numeric| ≤ rtol · max(|analytic|, |numeric|, floor): the loss is linear, so that numeric is exact but for rounding.
TEST(GradientCheck, JudgesByTheFormulaInTheHeader) {
  Graph g;
  const Value w = g.parameter("w", {4}, Init::ones());
  const Values slopes = {1000.0, 0.0, -2000.0, 0.0};
  const Value loss = g.sum(g.mul(w, g.constant({4}, slopes)));
  const double rms = std::sqrt(5e6 / 4.0);
  const auto with_error = [&](std::size_t element, double error, double rtol) {
    GradientCheckOptions options =
        spoiled("w", [=](Graph& copy, Value d) { return copy.add(d, one_hot(copy, d, element, error)); });
    options.rtol = rtol;
    return gradient_check(g, loss, options).passed;
  };
  EXPECT_TRUE(with_error(1, 0.9e-4 * rms, 1e-4)) << "an element of 0 is held to the root mean square";
  EXPECT_FALSE(with_error(1, 1.1e-4 * rms, 1e-4));
  EXPECT_TRUE(with_error(2, 0.19, 1e-4)) << "an element above it to its own size";
  EXPECT_FALSE(with_error(2, 0.21, 1e-4));
  EXPECT_TRUE(with_error(0, 0.9e-4 * rms, 1e-4)) << "an element below it to the root mean square";
  EXPECT_FALSE(with_error(0, 1.2e-4 * rms, 1e-4));
  EXPECT_TRUE(with_error(2, -1000.0, 0.4)) << "relative to the larger of the two: here |analytic|, 3000";
  EXPECT_FALSE(with_error(2, -1000.0, 0.3));
  EXPECT_TRUE(with_error(2, 900.0, 0.5)) << "here |numeric|, 2000";
  EXPECT_FALSE(with_error(2, 900.0, 0.4));
}

TEST(GradientCheck, HoldsTinyGradientsToWhatDifferencesCanResolve) {
  Graph g;
  const Value w = g.parameter("w", {2}, Init::ones());
  const Value loss = g.add_scalar(g.sum(g.scale(w, 1e-12)), 50.0);
  const auto with_error = [&](double error) {
    GradientCheckOptions options = spoiled("w", [=](Graph& copy, Value d) { return copy.add_scalar(d, error); });
    options.rtol = 1e-3;
    return gradient_check(g, loss, options).passed;
  };
  // floor = 1e-8 · |f| / step = 0.05
  EXPECT_TRUE(with_error(0.4e-4));
  EXPECT_FALSE(with_error(0.6e-4));
}

TEST(GradientCheck, StepsInProportionToLargeElements) {
  for (const std::int64_t size : {3, 500}) {  // elements, directions
    Graph g;
    const Value w = g.parameter("w", {size}, Init::fill(1e6));
    const Value loss = g.sum(g.add_scalar(w, -1e6));  // 1e6 + 1e-5 is rounded by more than rtol of the step
    EXPECT_TRUE(gradients_match(g, loss)) << size;
    GradientCheckOptions in_the_middle;
    in_the_middle.wrt = {g.scale(w, 3.0)};
    EXPECT_TRUE(gradients_match(g, g.sum(g.add_scalar(in_the_middle.wrt[0], -3e6)), in_the_middle)) << size;
  }
}

TEST(GradientCheck, MovesAlongDirectionsOfLengthOne) {
  Graph g;
  const Value w = g.parameter("w", {500});
  EXPECT_TRUE(gradients_match(g, g.sum(g.exp(g.scale(w, 1000.0))))) << "a longer move meets the curvature";
}

TEST(GradientCheck, ChecksLargeTensorsAlongDirections) {
  Graph g(8);
  const Value w = g.parameter("w", {40, 30}, Init::normal(0, 1));
  const Value loss = g.mean(g.exp(g.tanh(w)));
  GradientCheckReport report = gradient_check(g, loss);
  EXPECT_TRUE(report.passed) << report.to_string();
  EXPECT_TRUE(report.rows[0].directions);
  EXPECT_EQ(report.rows[0].checked, 8);
  EXPECT_NE(report.to_string().find("8 directions"), std::string::npos);
  const std::vector<Spoil> spoils = {[](Graph& c, Value d) { return c.scale(d, 1.00001); },
                                     [](Graph& c, Value d) { return c.mul(d, c.add_scalar(one_hot(c, d, 777, 0.1), 1.0)); },
                                     [](Graph& c, Value d) { return c.neg(d); }, [](Graph& c, Value d) { return c.scale(d, 0.0); },
                                     [](Graph& c, Value d) {
                                       return c.reshape(c.transpose(d), {40, 30});
                                     }};
  for (std::size_t i = 0; i < spoils.size(); ++i) {
    report = gradient_check(g, loss, spoiled("w", spoils[i]));
    EXPECT_FALSE(report.passed) << i << "\n" << report.to_string();
  }
}

TEST(GradientCheck, TakesTheNumberOfElementsAndDirectionsFromItsOptions) {
  const Model m;
  GradientCheckOptions options;
  options.max_elements = 15;
  options.directions = 3;
  const GradientCheckReport report = gradient_check(m.g, m.loss, options);
  EXPECT_TRUE(report.passed) << report.to_string();
  EXPECT_TRUE(row(report, "w").directions);
  EXPECT_EQ(row(report, "w").checked, 3);
  EXPECT_FALSE(row(report, "b").directions);
  options.max_elements = 16;
  EXPECT_FALSE(row(gradient_check(m.g, m.loss, options), "w").directions);
  options.seed = 2;
  EXPECT_NE(row(gradient_check(m.g, m.loss, options), "b").numeric, row(report, "b").numeric) << "the seed chooses the inputs";
}

TEST(GradientCheck, ReportsATableThatNamesTensorAndElement) {
  const Model m;
  const GradientCheckReport report =
      gradient_check(m.g, m.loss, spoiled("w", [](Graph& g, Value d) { return g.add(d, one_hot(g, d, 6, 1.0)); }));
  const std::string text = report.to_string();
  std::vector<std::string> lines;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = text.find('\n', at);
    lines.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  ASSERT_EQ(lines.size(), 4u) << text;
  for (const char* title : {"tensor", "shape", "checked", "worst", "analytic", "numeric", "relative error"})
    EXPECT_NE(lines[0].find(title), std::string::npos) << title;
  EXPECT_EQ(lines[2].substr(0, 2), "w ");
  EXPECT_NE(lines[2].find("[1, 2]"), std::string::npos) << text;
  EXPECT_NE(lines[2].find("FAILED"), std::string::npos) << text;
  EXPECT_EQ(lines[1].substr(lines[1].size() - 2), "ok");
  EXPECT_EQ(lines[0].find("shape"), lines[3].find("[4]")) << "columns line up\n" << text;
  const std::string failure = gradients_match(m.g, m.loss, spoiled("w", [](Graph& g, Value d) { return g.neg(d); })).message();
  EXPECT_NE(failure.find("FAILED"), std::string::npos) << "the matcher prints the table";
}

TEST(GradientCheck, RunsOnlyWhatTheLossNeeds) {
  Graph g(1);
  const Value w = g.parameter("w", {2}, Init::normal(0, 1));
  const Value loss = g.sum(g.exp(w));
  const Gradients gradients = differentiate(g, loss, {}, true);
  g.output("updated", g.assign(g.sub(w, gradients.of(g, w)), w));  // an update, as an optimizer records it
  EXPECT_TRUE(gradients_match(g, loss));
}

TEST(GradientCheck, StartsEveryEvaluationFromTheSameStates) {
  Graph g(1);
  const Value w = g.parameter("w", {2}, Init::normal(0, 1)), s = g.state("s", {2}, Init::ones());
  const Value grown = g.assign(g.scale(s, 2.0), s);
  const Value loss = g.sum(g.mul(w, g.mul(w, grown)));
  const GradientCheckReport report = gradient_check(g, loss);
  EXPECT_TRUE(report.passed) << report.to_string();
  EXPECT_TRUE(row(report, "w").passed);
}

TEST(GradientCheck, ChecksStatesThatAreAskedFor) {
  Graph g(1);
  const Value w = g.parameter("w", {2}, Init::normal(0, 1)), s = g.state("s", {2}, Init::fill(0.7));
  GradientCheckOptions options;
  options.wrt = {s};
  EXPECT_TRUE(gradients_match(g, g.sum(g.mul(w, g.exp(s))), options));
  options.differentiate = spoiled("s", [](Graph& c, Value d) { return c.scale(d, 1.001); }).differentiate;
  EXPECT_FALSE(gradients_match(g, g.find("sum_0"), options));
}

TEST(GradientCheck, GivesInputsTheValuesAskedFor) {
  Graph g;
  const Value x = g.input("x", {2});
  GradientCheckOptions options;
  options.inputs["x"] = {3.0, -4.0};
  const GradientCheckReport report = gradient_check(g, g.scale(g.sum(g.mul(x, x)), 0.5), options);
  EXPECT_TRUE(report.passed);
  EXPECT_TRUE(row(report, "x").analytic == 3.0 || row(report, "x").analytic == -4.0);
}

TEST(GradientCheck, SaysWhatIsWrongWithItsArguments) {
  Graph g;
  const Value x = g.input("x", {2}), ids = g.input_u32("ids", {2}), table = g.parameter("table", {3, 2}, Init::ones());
  const Value loss = g.sum(g.mul(g.embedding(table, ids), x));
  GradientCheckOptions options;
  EXPECT_EQ(message_of([&] { gradient_check(g, x); }), "gradient_check \"x\": the loss must be a float scalar [], got f32[2]");
  EXPECT_EQ(message_of([&] { gradient_check(g, loss); }),
            "gradient_check \"sum_0\": u32 input \"ids\" needs values, put them in options.inputs");
  options.inputs = {{"ids", {0.0, 1.5}}};
  EXPECT_EQ(message_of([&] { gradient_check(g, loss, options); }),
            "gradient_check \"sum_0\": u32 input \"ids\" takes whole numbers, got 1.500000");
  options.inputs = {{"ids", {0.0}}};
  EXPECT_EQ(message_of([&] { gradient_check(g, loss, options); }),
            "gradient_check \"sum_0\": input \"ids\" is u32[2], got 1 values");
  options.inputs = {{"idz", {0.0}}};
  EXPECT_EQ(message_of([&] { gradient_check(g, loss, options); }),
            "gradient_check \"sum_0\": values are given for \"idz\", which is not an input of the graph");
  options.inputs = {{"ids", {0.0, 2.0}}};
  EXPECT_TRUE(gradient_check(g, loss, options).passed);
  options.wrt = {ids};
  EXPECT_EQ(message_of([&] { gradient_check(g, loss, options); }),
            "gradient_check \"sum_0\": only float values have gradients, got \"ids\", u32[2]");
  options = {};
  options.step = 0.0;
  EXPECT_EQ(message_of([&] { gradient_check(g, loss, options); }), "gradient_check \"sum_0\": step must be positive, got 0.000000");
  options = {};
  options.directions = 0;
  EXPECT_EQ(message_of([&] { gradient_check(g, loss, options); }),
            "gradient_check \"sum_0\": directions must be at least 1, got 0");
  Graph empty;
  const Value c = empty.constant({}, {1.0}, DType::f32, "c");
  EXPECT_EQ(message_of([&] { gradient_check(empty, c); }),
            "gradient_check \"c\": the graph has no parameter and no float input to check");
}

TEST(GradientCheck, SaysWhenTheLossIsNotFinite) {
  Graph g;
  const Value x = g.input("x", {2});
  const Value loss = g.sum(g.log(x));
  GradientCheckOptions options;
  options.inputs["x"] = {1.0, 0.0};
  EXPECT_EQ(
      message_of([&] { gradient_check(g, loss, options); }),
      "gradient_check \"sum_0\": the loss is -inf where the check starts, choose inputs and initial values that keep it finite");
  options.inputs["x"] = {1.0, 1e-6};
  const std::string message = message_of([&] { gradient_check(g, loss, options); });
  EXPECT_NE(message.find("when element [1] of \"x\" moves by -0.000010, choose inputs that keep it finite"), std::string::npos)
      << message;
}

TEST(GradientCheck, RefusesAGradientOfAnotherType) {
  Graph g;
  const Value w = g.parameter("w", {2, 3}, Init::ones());
  EXPECT_EQ(message_of([&] { gradient_check(g, g.sum(w), spoiled("w", [](Graph& c, Value d) { return c.transpose(d); })); }),
            "gradient_check \"sum_0\": the gradient of \"w\" has another type, got f64[3, 2] and f64[2, 3]");
}

}  // namespace
}  // namespace graft
