// Schedules by hand-computed values, patterns of groups, and what nonsense settings are told.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numbers>

#include "graft/error.h"
#include "graft/optim.h"
#include "graft/session.h"
#include "optim/settings.h"
#include "tests/message.h"

namespace graft {
namespace {

using testing::message_of;

using Kind = Schedule::Kind;
using optim::learning_rate;

TEST(Schedule, ConstantWarmsUpAndStays) {
  const Schedule s{.kind = Kind::constant, .base = 2.0, .warmup = 4};
  EXPECT_DOUBLE_EQ(learning_rate(s, 0), 0.5);
  EXPECT_DOUBLE_EQ(learning_rate(s, 2), 1.5);
  EXPECT_DOUBLE_EQ(learning_rate(s, 3), 2.0);
  EXPECT_DOUBLE_EQ(learning_rate(s, 4), 2.0);
  EXPECT_DOUBLE_EQ(learning_rate(s, 1'000'000), 2.0);
}

TEST(Schedule, LinearFallsFromBaseToMin) {
  const Schedule s{.kind = Kind::linear, .base = 1.0, .min = 0.2, .total = 10, .warmup = 2};
  EXPECT_DOUBLE_EQ(learning_rate(s, 0), 0.5);
  EXPECT_DOUBLE_EQ(learning_rate(s, 1), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate(s, 2), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate(s, 4), 0.8);
  EXPECT_DOUBLE_EQ(learning_rate(s, 6), 0.6);
  EXPECT_DOUBLE_EQ(learning_rate(s, 10), 0.2);
  EXPECT_DOUBLE_EQ(learning_rate(s, 11), 0.2);
}

TEST(Schedule, CosineFallsFromBaseToMin) {
  const Schedule s{.kind = Kind::cosine, .base = 1.0, .min = 0.2, .total = 10, .warmup = 2};
  EXPECT_DOUBLE_EQ(learning_rate(s, 1), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate(s, 2), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate(s, 4), 0.2 + 0.4 * (1.0 + std::numbers::sqrt2 / 2.0));
  EXPECT_DOUBLE_EQ(learning_rate(s, 6), 0.6);
  EXPECT_DOUBLE_EQ(learning_rate(s, 8), 0.2 + 0.4 * (1.0 - std::numbers::sqrt2 / 2.0));
  EXPECT_DOUBLE_EQ(learning_rate(s, 10), 0.2);
  EXPECT_DOUBLE_EQ(learning_rate(s, 99), 0.2);
}

TEST(Schedule, WarmUpStableDecayIsStableUntilTheLastSteps) {
  const Schedule s{.kind = Kind::wsd, .base = 1.0, .min = 0.2, .total = 10, .warmup = 2, .decay = 4};
  EXPECT_DOUBLE_EQ(learning_rate(s, 0), 0.5);
  EXPECT_DOUBLE_EQ(learning_rate(s, 5), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate(s, 6), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate(s, 7), 0.8);
  EXPECT_DOUBLE_EQ(learning_rate(s, 9), 0.4);
  EXPECT_DOUBLE_EQ(learning_rate(s, 10), 0.2);
}

TEST(Schedule, WithoutWarmUpStartsAtBase) {
  for (const Kind kind : {Kind::constant, Kind::linear, Kind::cosine, Kind::wsd})
    EXPECT_DOUBLE_EQ(learning_rate({.kind = kind, .base = 3.0, .total = 5}, 0), 3.0);
}

TEST(Schedule, AllWarmUpNeverDividesByZero) {
  for (const Kind kind : {Kind::linear, Kind::cosine, Kind::wsd}) {
    const Schedule s{.kind = kind, .base = 3.0, .min = 1.0, .total = 3, .warmup = 3};
    EXPECT_DOUBLE_EQ(learning_rate(s, 2), 3.0);
    EXPECT_DOUBLE_EQ(learning_rate(s, 3), 1.0);
  }
}

TEST(Schedule, PrintsItsSettings) {
  EXPECT_EQ(optim::to_string({.kind = Kind::constant, .base = 0.001}), "constant base=0.001");
  EXPECT_EQ(optim::to_string({.kind = Kind::linear, .base = 0.5, .total = 7}), "linear base=0.5 min=0 total=7");
  EXPECT_EQ(optim::to_string({.kind = Kind::cosine, .base = 1e-3, .min = 1e-4, .total = 2000, .warmup = 100}),
            "cosine base=0.001 min=1e-04 total=2000 warmup=100");
  EXPECT_EQ(optim::to_string({.kind = Kind::wsd, .base = 1.0, .min = 0.25, .total = 9, .warmup = 1, .decay = 2}),
            "wsd base=1 min=0.25 total=9 warmup=1 decay=2");
}

TEST(Group, PatternsMatchWholeNames) {
  using optim::detail::matches;
  EXPECT_TRUE(matches("", ""));
  EXPECT_FALSE(matches("", "a"));
  EXPECT_TRUE(matches("a.b", "a.b"));
  EXPECT_FALSE(matches("a.b", "aXb"));
  EXPECT_FALSE(matches("a.b", "a.bc"));
  EXPECT_FALSE(matches("a.b", "za.b"));
  EXPECT_TRUE(matches("*", ""));
  EXPECT_TRUE(matches("*", "anything"));
  EXPECT_TRUE(matches("*b", "ab"));
  EXPECT_TRUE(matches("*.bias", "fc.bias"));
  EXPECT_FALSE(matches("*.bias", "bias"));
  EXPECT_FALSE(matches("*.bias", "fc.bias2"));
  EXPECT_TRUE(matches("*norm*", "model.norm.weight"));
  EXPECT_TRUE(matches("*norm*", "model.layers.0.input_layernorm.weight"));
  EXPECT_TRUE(matches("layers.?.q", "layers.3.q"));
  EXPECT_FALSE(matches("layers.?.q", "layers.13.q"));
  EXPECT_FALSE(matches("?", ""));
  EXPECT_TRUE(matches("*ab*ab", "aabxabab"));
  EXPECT_FALSE(matches("*ab*abc", "aabxabab"));
  EXPECT_TRUE(matches("a*b*", "ab"));
}

TEST(Group, DefaultsTakeTheDecayFromNormsBiasesAndEmbeddings) {
  const std::vector<optim::Group> groups = optim::default_groups();
  for (const char* name : {"model.embed_tokens.weight", "model.layers.0.input_layernorm.weight", "model.norm.weight", "fc.bias",
                           "transformer.wte.weight", "transformer.wpe.weight", "transformer.h.0.ln_1.weight", "transformer.ln_f.weight"}) {
    const optim::Group* group = optim::detail::group_of(groups, name);
    ASSERT_NE(group, nullptr) << name;
    EXPECT_EQ(group->weight_decay, 0.0) << name;
    EXPECT_EQ(group->lr_scale, 1.0) << name;
  }
  for (const char* name : {"lm_head.weight", "model.layers.0.mlp.up_proj.weight", "model.layers.0.self_attn.q_proj.weight", "transformer.h.0.attn.c_attn.weight"})
    EXPECT_EQ(optim::detail::group_of(groups, name), nullptr) << name;
}

TEST(Group, FirstMatchWins) {
  const std::vector<optim::Group> groups = {{"*.bias", 0.0}, {"fc*", 0.5}, {"*", 1.0}};
  EXPECT_EQ(optim::detail::group_of(groups, "fc.bias"), &groups[0]);
  EXPECT_EQ(optim::detail::group_of(groups, "fc.weight"), &groups[1]);
  EXPECT_EQ(optim::detail::group_of(groups, "x"), &groups[2]);
  EXPECT_EQ(optim::detail::group_of({}, "x"), nullptr);
}

struct Ready {
  Graph graph;
  Gradients gradients;
  Ready() {
    const Value w = graph.parameter("w", {2}, Init::ones());
    gradients = differentiate(graph, graph.sum(w));
  }
};

std::string with_options(const std::function<void(optim::UpdateOptions&)>& change) {
  return message_of([&] {
    Ready ready;
    optim::UpdateOptions options;
    change(options);
    optim::adamw(ready.graph, ready.gradients, {}, options);
  });
}

template <class Settings, class Pass>
std::string with_settings(Pass pass, const Settings& settings) {
  return message_of([&] {
    Ready ready;
    pass(ready.graph, ready.gradients, settings, optim::UpdateOptions{});
  });
}

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

TEST(OptimErrors, SettingsAreNamed) {
  using namespace optim;
  EXPECT_EQ(with_settings(optim::adamw, AdamW{.beta2 = 1.5}), "adamw: beta2 is 1.5, must be in [0, 1)");
  EXPECT_EQ(with_settings(optim::adamw, AdamW{.beta1 = 1.0}), "adamw: beta1 is 1, must be in [0, 1)");
  EXPECT_EQ(with_settings(optim::adam, Adam{.beta1 = -0.1}), "adam: beta1 is -0.1, must be in [0, 1)");
  EXPECT_EQ(with_settings(optim::adam, Adam{.beta2 = kNan}), "adam: beta2 is nan, must be in [0, 1)");
  EXPECT_EQ(with_settings(optim::adam, Adam{.eps = 0.0}), "adam: eps is 0, must be above 0");
  EXPECT_EQ(with_settings(optim::adamw, AdamW{.eps = -1.0}), "adamw: eps is -1, must be finite and not negative");
  EXPECT_EQ(with_settings(optim::adamw, AdamW{.weight_decay = -0.5}),
            "adamw: weight_decay is -0.5, must be finite and not negative");
  EXPECT_EQ(with_settings(optim::adam, Adam{.weight_decay = kNan}), "adam: weight_decay is nan, must be finite and not negative");
  EXPECT_EQ(with_settings(optim::sgd, Sgd{.momentum = 1.0}), "sgd: momentum is 1, must be in [0, 1)");
  EXPECT_EQ(with_settings(optim::sgd, Sgd{.weight_decay = -1.0}), "sgd: weight_decay is -1, must be finite and not negative");
  EXPECT_EQ(with_settings(optim::sgd, Sgd{.nesterov = true}), "sgd: momentum is 0, must be above 0 for nesterov");
  EXPECT_EQ(with_settings(optim::lion, Lion{.beta1 = 2.0}), "lion: beta1 is 2, must be in [0, 1)");
  EXPECT_EQ(with_settings(optim::lion, Lion{.beta2 = 2.0}), "lion: beta2 is 2, must be in [0, 1)");
  EXPECT_EQ(with_settings(optim::lion, Lion{.weight_decay = -2.0}), "lion: weight_decay is -2, must be finite and not negative");
  EXPECT_EQ(with_settings(optim::lion, Lion{}), "no error");
  EXPECT_EQ(with_settings(optim::sgd, Sgd{.momentum = 0.5, .nesterov = true}), "no error");
}

TEST(OptimErrors, ScheduleAndClippingAreNamed) {
  const auto schedule = [](const Schedule& s) { return with_options([&](optim::UpdateOptions& o) { o.schedule = s; }); };
  EXPECT_EQ(schedule({.base = -1e-3}), "adamw: schedule.base is -0.001, must be finite and not negative");
  EXPECT_EQ(schedule({.base = 1.0, .min = -1.0}), "adamw: schedule.min is -1, must be finite and not negative");
  EXPECT_EQ(schedule({.total = -5}), "adamw: schedule.total is -5, must be not negative");
  EXPECT_EQ(schedule({.warmup = -5}), "adamw: schedule.warmup is -5, must be not negative");
  EXPECT_EQ(schedule({.decay = -5}), "adamw: schedule.decay is -5, must be not negative");
  EXPECT_EQ(schedule({.kind = Kind::constant, .total = 10, .warmup = 11}),
            "adamw: schedule.warmup is 11, must be at most schedule.total = 10");
  EXPECT_EQ(schedule({.kind = Kind::constant, .warmup = 11}), "no error");
  EXPECT_EQ(schedule({.kind = Kind::cosine, .base = 0.1, .min = 0.2, .total = 10}),
            "adamw: schedule.min is 0.2, must be at most schedule.base = 0.1");
  EXPECT_EQ(schedule({.kind = Kind::linear}), "adamw: schedule.total is 0, must be above 0: the schedule needs an end");
  EXPECT_EQ(schedule({.kind = Kind::linear, .total = 10, .warmup = 11}),
            "adamw: schedule.warmup + schedule.decay is 11, must be at most schedule.total = 10");
  EXPECT_EQ(schedule({.kind = Kind::wsd, .total = 10, .warmup = 6, .decay = 5}),
            "adamw: schedule.warmup + schedule.decay is 11, must be at most schedule.total = 10");
  EXPECT_EQ(schedule({.kind = Kind::wsd, .total = 11, .warmup = 6, .decay = 5}), "no error");
  const auto clip = [](double norm) { return with_options([&](optim::UpdateOptions& o) { o.clip_norm = norm; }); };
  EXPECT_EQ(clip(-1.0), "adamw: clip_norm is -1, must be finite and not negative");
  EXPECT_EQ(clip(std::numeric_limits<double>::infinity()), "adamw: clip_norm is inf, must be finite and not negative");
  EXPECT_EQ(clip(kNan), "adamw: clip_norm is nan, must be finite and not negative");
}

TEST(OptimErrors, GroupsAreNamed) {
  const auto group = [](const optim::Group& g) { return with_options([&](optim::UpdateOptions& o) { o.groups = {g}; }); };
  EXPECT_EQ(group({"v*"}), "adamw: group \"v*\" matches no parameter; the parameters are \"w\"");
  EXPECT_EQ(group({"w", -1.0}), "adamw: group \"w\" weight_decay is -1, must be finite and not negative");
  EXPECT_EQ(group({"w", 0.0, -2.0}), "adamw: group \"w\" lr_scale is -2, must be finite and not negative");
  EXPECT_EQ(group({"*norm*", 0.0}), "no error");  // one of default_groups()
}

TEST(OptimErrors, OneUpdateAGraphAndSomethingToUpdate) {
  Ready ready;
  optim::sgd(ready.graph, ready.gradients, {}, {});
  EXPECT_EQ(message_of([&] { optim::adam(ready.graph, ready.gradients, {}, {}); }), "adam: the graph has an update already");
  Graph empty;
  EXPECT_EQ(message_of([&] { optim::lion(empty, {}, {}, {}); }),
            "lion: the loss reaches no parameter, so there is nothing to update");
}

TEST(OptimErrors, LeaveTheGraphAsItWas) {
  Ready ready;
  const std::string before = ready.graph.to_text();
  EXPECT_NE(message_of([&] { optim::adamw(ready.graph, ready.gradients, {.beta2 = 1.5}, {}); }), "no error");
  EXPECT_NE(message_of([&] { optim::adamw(ready.graph, ready.gradients, {}, {.clip_norm = -1.0}); }), "no error");
  EXPECT_NE(message_of([&] { optim::adamw(ready.graph, ready.gradients, {}, {.groups = {{"nothing"}}}); }), "no error");
  EXPECT_EQ(ready.graph.to_text(), before);
}

}  // namespace
}  // namespace graft
