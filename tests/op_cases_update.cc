// Cases of the ops that overwrite states, and of what they read.
#include <cmath>
#include <limits>
#include <string>

#include "tests/op_cases.h"

namespace graft::testing {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

struct Scale {
  const char* name;
  double value;
};
constexpr Scale kScales[] = {{"", 1.0}, {"_clipped", 0.25}, {"_nan_scale", kNaN}, {"_infinite_scale", kInf}};

/// op's update of a parameter [shape] with moments m (and v).   inputs: grad, lr, scale, if `step`: step
OpCases updates(const std::string& name, const Op& op, int moments, bool with_step, Shape shape = {3, 5}) {
  OpCases all;
  for (const Scale& scale : kScales) {
    Inputs inputs = {{"lr", {0.0625}}, {"scale", {scale.value}}};
    if (with_step) inputs["step"] = {4};
    if (!std::isfinite(scale.value)) inputs["grad"].assign(static_cast<std::size_t>(shape.size()), scale.value);
    all.push_back({name + scale.name,
                   [=](Graph& g) {
                     std::vector<Value> in = {g.parameter("p", shape, Init::normal(0.0, 1.0)), g.input("grad", shape)};
                     in.push_back(g.state("m", shape, Init::normal(0.0, 0.5)));
                     if (moments == 2) in.push_back(g.state("v", shape, Init::uniform(0.05, 0.6)));
                     if (with_step) in.push_back(g.input_u32("step", {}));
                     in.push_back(g.input("lr", {}));
                     in.push_back(g.input("scale", {}));
                     g.output("p_after", g.record(op, in));
                   },
                   inputs});
  }
  return all;
}

/// Updates in a row that read what others of them write: q's gradient is p before its updates, the second update of p takes the result of the first, and r's
/// gradient is p after both.
OpCase updates_in_a_row(const std::string& name, const Op& op, bool adam) {
  const Shape shape = {67, 133};
  return {name,
          [=](Graph& g) {
            const Value grad = g.input("grad", shape), lr = g.input("lr", {}), scale = g.input("scale", {});
            const Value step = adam ? g.input_u32("step", {}) : Value{};
            const auto parameter = [&](const std::string& of) { return g.parameter(of, shape, Init::normal(0.0, 1.0)); };
            const auto moments = [&](const std::string& of) {
              std::vector<Value> all = {g.state(of + "/m", shape, Init::normal(0.0, 0.5))};
              if (adam) all.push_back(g.state(of + "/v", shape, Init::uniform(0.05, 0.6)));
              return all;
            };
            const auto update = [&](Value p, Value gradient, const std::vector<Value>& states) {
              std::vector<Value> in = {p, gradient};
              in.insert(in.end(), states.begin(), states.end());
              if (adam) in.push_back(step);
              in.insert(in.end(), {lr, scale});
              return g.record(op, in);
            };
            const Value p = parameter("p"), q = parameter("q"), r = parameter("r");
            const std::vector<Value> of_p = moments("p"), of_q = moments("q"), of_r = moments("r");
            g.output("q_after", update(q, p, of_q));
            const Value once = update(p, grad, of_p);
            std::vector<Value> after_once = {{once.node, 1}};
            if (adam) after_once.push_back({once.node, 2});
            const Value twice = update(once, grad, after_once);
            g.output("p_after", twice);
            g.output("r_after", update(r, twice, of_r));
          },
          adam ? Inputs{{"lr", {0.0625}}, {"scale", {1.0}}, {"step", {4}}} : Inputs{{"lr", {0.0625}}, {"scale", {1.0}}}};
}

void append(OpCases& to, OpCases from) { to.insert(to.end(), from.begin(), from.end()); }

OpCase update_scale(const std::string& name, double max_norm, double norm, std::optional<double> loss = {}) {
  Inputs inputs = {{"norm", {norm}}};
  if (loss) inputs["loss"] = {*loss};
  return {"update_scale_" + name,
          [=](Graph& g) {
            std::vector<Value> in = {g.input("norm", {})};
            if (loss) in.push_back(g.input("loss", {}));
            g.output("scale", g.record(UpdateScale{max_norm}, in));
          },
          inputs};
}

}  // namespace

OpCases cases(std::type_identity<Assign>) {
  return {{"assign_matrix",
           [](Graph& g) {
             g.output("out", g.assign(g.exp(g.input("x", {3, 4})), g.state("s", {3, 4}, Init::ones())));
           }},
          {"assign_twice",
           [](Graph& g) {
             const Value s = g.state("s", {2}, Init::fill(3.0));
             const Value first = g.assign(g.add(s, g.input("x", {2})), s);
             g.output("out", g.assign(g.mul(first, first), first));
           }},
          {"assign_u32",
           [](Graph& g) { g.assign(g.input_u32("x", {3}), g.state("s", {3}, Init::zeros(), DType::u32)); },
           {{"x", {7, 0, 4294967295.0}}}}};
}

OpCases cases(std::type_identity<GlobalNorm>) {
  const auto of = [](std::vector<Shape> shapes) {
    return [=](Graph& g) {
      std::vector<Value> in;
      for (const Shape& shape : shapes) in.push_back(g.input("g" + std::to_string(in.size()), shape));
      g.output("norm", g.record(GlobalNorm{}, in));
    };
  };
  return {{"global_norm_of_one", of({{3, 5}})},
          {"global_norm_of_three", of({{3, 5}, {7}, {}})},
          {"global_norm_large", of({{130, 67}, {133}})},
          {"global_norm_of_large_numbers", of({{2, 3}}), {{"g0", {1e25, -2e25, 1e24, 0, 3e25, 1}}}},
          {"global_norm_of_small_numbers", of({{5}}), {{"g0", {1e-25, -2e-25, 1e-26, 0, 3e-25}}}},
          {"global_norm_of_many", of(std::vector<Shape>(200, Shape{3}))},
          {"global_norm_of_zeros", of({{2, 2}}), {{"g0", {0, 0, 0, 0}}}}};
}

OpCases cases(std::type_identity<UpdateScale>) {
  return {update_scale("no_limit", 0.0, 50.0),          update_scale("below_limit", 1.0, 0.5, 3.0),
          update_scale("at_limit", 1.0, 1.0),           update_scale("above_limit", 1.5, 6.0, 3.0),
          update_scale("nan_norm", 1.0, kNaN),          update_scale("infinite_norm", 1.0, kInf),
          update_scale("nan_norm_no_limit", 0.0, kNaN), update_scale("infinite_norm_no_limit", 0.0, kInf),
          update_scale("nan_loss", 1.0, 0.5, kNaN),     update_scale("infinite_loss", 0.0, 0.5, -kInf)};
}

OpCases cases(std::type_identity<CountStep>) {
  OpCases all;
  for (const Scale& scale : kScales)
    all.push_back({std::string("count_step") + scale.name,
                   [](Graph& g) {
                     g.record(CountStep{}, {g.state("step", {}, Init::fill(7), DType::u32),
                                            g.state("skipped", {}, Init::fill(2), DType::u32), g.input("scale", {})});
                   },
                   {{"scale", {scale.value}}}});
  return all;
}

OpCases cases(std::type_identity<Increment>) {
  return {{"increment", [](Graph& g) { g.record(Increment{}, {g.state("counter", {}, Init::fill(41), DType::u32)}); }},
          {"increment_by_advance_rng",
           [](Graph& g) {
             g.output("out", g.dropout(g.input("x", {3, 4}), 0.5));
             g.advance_rng();
           },
           {},
           {},
           {},
           "gradients are recorded before the counter advances"}};
}

OpCases cases(std::type_identity<LearningRate>) {
  using Kind = Schedule::Kind;
  const std::pair<const char*, Schedule> schedules[] = {
      {"constant", {Kind::constant, 0.5, 0.0, 0, 0, 0}}, {"constant_warmup", {Kind::constant, 0.5, 0.1, 20, 5, 0}},
      {"linear", {Kind::linear, 0.5, 0.1, 20, 0, 0}},    {"linear_warmup", {Kind::linear, 0.5, 0.1, 20, 5, 0}},
      {"cosine", {Kind::cosine, 0.5, 0.1, 20, 0, 0}},    {"cosine_warmup", {Kind::cosine, 0.5, 0.1, 20, 5, 0}},
      {"wsd", {Kind::wsd, 0.5, 0.1, 20, 5, 6}},          {"wsd_no_warmup", {Kind::wsd, 0.5, 0.0, 20, 0, 20}}};
  OpCases all;
  for (const auto& [name, schedule] : schedules)
    for (const int step : {0, 3, 4, 5, 6, 13, 14, 15, 19, 20, 1000})
      all.push_back(
          {std::string("learning_rate_") + name + "_step_" + std::to_string(step),
           [schedule = schedule](Graph& g) { g.output("lr", g.record(LearningRate{schedule}, {g.input_u32("step", {})})); },
           {{"step", {static_cast<double>(step)}}}});
  return all;
}

OpCases cases(std::type_identity<SgdUpdate>) {
  OpCases all = updates("sgd_update", SgdUpdate{}, 1, false);
  append(all, updates("sgd_update_momentum", SgdUpdate{.momentum = 0.9, .weight_decay = 0.1, .lr_scale = 0.5}, 1, false));
  append(all, updates("sgd_update_nesterov", SgdUpdate{.momentum = 0.8, .weight_decay = 0.1, .nesterov = true}, 1, false));
  append(all, updates("sgd_update_large", SgdUpdate{.momentum = 0.8}, 1, false, {67, 133}));
  all.push_back(updates_in_a_row("sgd_updates_in_a_row", SgdUpdate{.momentum = 0.8}, false));
  return all;
}

OpCases cases(std::type_identity<AdamUpdate>) {
  OpCases all = updates("adam_update", AdamUpdate{.decoupled = false}, 2, true);
  append(all, updates("adam_update_decayed", AdamUpdate{.weight_decay = 0.1, .lr_scale = 0.5, .decoupled = false}, 2, true));
  append(all, updates("adam_update_decoupled",
                      AdamUpdate{.beta1 = 0.8, .beta2 = 0.95, .eps = 1e-3, .weight_decay = 0.1, .lr_scale = 0.5}, 2, true));
  append(all, updates("adam_update_large", AdamUpdate{.weight_decay = 0.1}, 2, true, {67, 133}));
  all.push_back(updates_in_a_row("adam_updates_in_a_row", AdamUpdate{.weight_decay = 0.1}, true));
  return all;
}

OpCases cases(std::type_identity<LionUpdate>) {
  OpCases all = updates("lion_update", LionUpdate{}, 1, false);
  append(all,
         updates("lion_update_decayed", LionUpdate{.beta1 = 0.8, .beta2 = 0.7, .weight_decay = 0.1, .lr_scale = 0.5}, 1, false));
  append(all, updates("lion_update_large", LionUpdate{.weight_decay = 0.1}, 1, false, {67, 133}));
  return all;
}

}  // namespace graft::testing
