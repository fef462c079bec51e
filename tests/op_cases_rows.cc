// Cases of softmax, norms, embedding and cross entropy.
#include <limits>
#include <string>

#include "tests/op_cases.h"

namespace graft::testing {
namespace {

constexpr const char* kFar = "the steps of differences grow with the values";
constexpr const char* kRoundedLogits = "dlogits may be rounded to bf16, as operands of the products that they are for";
constexpr Fill kLarge = {Fill::Kind::uniform, -60.0, 60.0};

std::vector<double> some_ids(std::int64_t count, std::int64_t vocabulary) {
  std::vector<double> ids;
  for (std::int64_t i = 0; i < count; ++i) ids.push_back(static_cast<double>((i * i * 7 + i * 3 + 1) % vocabulary));
  return ids;
}

template <class Record>
OpCases row_cases(const std::string& name, Record record) {
  const auto on = [&](Shape shape) { return [=](Graph& g) { g.output("out", record(g, g.input("x", shape))); }; };
  return {{name + "_matrix", on({3, 5})},
          {name + "_one_column", on({4, 1})},
          {name + "_one_row", on({1, 6})},
          {name + "_vector", on({6})},
          {name + "_wide", on({5, 133})},
          {name + "_large_values", on({3, 7}), {}, {{"x", kLarge}}},
          {name + "_far_from_zero", on({2, 3}), {{"x", {1000, 1001, 999.5, -1000, -1000.25, -1001}}}, {}, {}, kFar},
          {name + "_equal_values", on({2, 3}), {{"x", {2, 2, 2, -3, -3, -3}}}},
          {name + "_one_warp", on({5, 512})},
          {name + "_two_warps", on({2, 520})},
          {name + "_more_than_registers", on({2, 8200})},
          {name + "_more_than_registers_odd", on({1, 8195})},
          {name + "_tall", on({400, 3})},
          in_bf16(OpCase{name + "_matrix", on({3, 5})}),
          in_bf16(OpCase{name + "_wide", on({5, 133})}),
          in_bf16(OpCase{name + "_more_than_registers", on({2, 8200})})};
}

OpCase cross_entropy(const std::string& name, Shape logits, std::vector<double> labels, CrossEntropyOptions options = {}) {
  return {"cross_entropy_" + name,
          [=](Graph& g) {
            g.output("loss", g.cross_entropy(g.input("logits", logits), g.input_u32("labels", {logits.rows()}), options));
          },
          {{"labels", std::move(labels)}}};
}

/// x [n, hidden] and a weight [hidden, classes], or the other way round.
OpCase linear_cross_entropy(const std::string& name, std::int64_t hidden, std::int64_t classes, bool transposed,
                            std::vector<double> labels, CrossEntropyOptions options = {}) {
  const auto n = static_cast<std::int64_t>(labels.size());
  return {"linear_cross_entropy_" + name + (transposed ? "_transposed" : ""),
          [=](Graph& g) {
            const Value weight = g.input("weight", transposed ? Shape{classes, hidden} : Shape{hidden, classes});
            g.output(
                "loss",
                g.linear_cross_entropy(g.input("x", {n, hidden}), weight, g.input_u32("labels", {n}), options, transposed).loss);
          },
          {{"labels", std::move(labels)}}};
}

}  // namespace

OpCases cases(std::type_identity<Softmax>) {
  OpCases all = row_cases("softmax", [](Graph& g, Value x) { return g.softmax(x); });
  constexpr double kNothing = -std::numeric_limits<double>::infinity();
  all.push_back({"softmax_minus_infinity", [](Graph& g) { g.output("out", g.softmax(g.input("x", {2, 3}))); },
                 {{"x", {kNothing, 1, 0.5, 2, kNothing, kNothing}}}, {}, {}, kFar});
  return all;
}
OpCases cases(std::type_identity<LogSoftmax>) {
  return row_cases("log_softmax", [](Graph& g, Value x) { return g.log_softmax(x); });
}

OpCases cases(std::type_identity<SoftmaxGrad>) {
  OpCases all = {{"softmax_grad_direct", [](Graph& g) {
             g.output("dx", g.record(SoftmaxGrad{}, {g.softmax(g.input("x", {3, 37})), g.input("dout", {3, 37})}));
           }}};
  all.push_back(in_bf16(all.back()));
  return all;
}
OpCases cases(std::type_identity<LogSoftmaxGrad>) {
  OpCases all = {{"log_softmax_grad_direct", [](Graph& g) {
             g.output("dx", g.record(LogSoftmaxGrad{}, {g.log_softmax(g.input("x", {3, 37})), g.input("dout", {3, 37})}));
           }}};
  all.push_back(in_bf16(all.back()));
  return all;
}

OpCases cases(std::type_identity<RmsNorm>) {
  const auto on = [](Shape shape, double eps) {
    return [=](Graph& g) { g.output("out", g.rms_norm(g.input("x", shape), g.input("weight", {shape.cols()}), eps)); };
  };
  OpCases all = {{"rms_norm_matrix", on({3, 5}, 1e-5)},
          {"rms_norm_large_eps", on({3, 5}, 0.5)},
          {"rms_norm_one_row", on({1, 6}, 1e-5)},
          {"rms_norm_vector", on({6}, 1e-5)},
          {"rms_norm_one_column", on({5, 1}, 0.3)},
          {"rms_norm_many_rows", on({133, 37}, 1e-6)},
          {"rms_norm_one_warp", on({5, 512}, 1e-5)},
          {"rms_norm_two_warps", on({2, 520}, 1e-5)},
          {"rms_norm_two_warps_odd", on({2, 301}, 1e-5)},
          {"rms_norm_tall", on({400, 3}, 1e-5)},
          {"rms_norm_more_than_registers", on({3, 8200}, 1e-5)},
          {"rms_norm_more_than_registers_odd", on({2, 4099}, 1e-5)},
          {"rms_norm_row_of_zeros", on({2, 3}, 0.25), {{"x", {0, 0, 0, 1, -2, 0.5}}}},
          {"rms_norm_far_from_zero", on({2, 4}, 1e-5), {{"x", {100, 101, 99, 102, -300, -301, -299, -302}}}},
          {"rms_norm_of_weight_alone",
           [](Graph& g) { g.output("out", g.rms_norm(g.stop_gradient(g.input("x", {3, 5})), g.input("weight", {5}))); }, {}, {}, {"x"}},
          {"rms_norm_then_residual", [](Graph& g) {
             const Value x = g.input("x", {3, 4});
             g.output("out", g.add(x, g.rms_norm(x, g.parameter("weight", {4}, Init::normal(1.0, 0.2)))));
           }}};
  for (const std::string name : {"matrix", "one_row", "many_rows", "two_warps"})
    for (const OpCase& c : OpCases(all))
      if (c.name == "rms_norm_" + name) all.push_back(in_bf16(c, {"weight"}));
  // x in f32, the result rounded
  all.push_back({"rms_norm_rounded", [](Graph& g) {
                   const Value x = g.input("x", {35, 37}), weight = g.input("weight", {37});
                   g.output("out", g.record(RmsNorm{1e-5, true}, {x, weight}));
                 }});
  return all;
}

OpCases cases(std::type_identity<RmsNormGrad>) {
  OpCases all = {{"rms_norm_grad_direct", [](Graph& g) {
             const Value x = g.input("x", {4, 37}), weight = g.input("weight", {37});
             const Value out = g.rms_norm(x, weight);
             const Value d = g.record(RmsNormGrad{}, {x, weight, {out.node, 1}, g.input("dout", {4, 37})});
             g.output("dx", d);
             g.output("dweight", {d.node, 1});
             g.output("rstd", {out.node, 1});
           }},
          {"rms_norm_grad_addend", [](Graph& g) {
             const Value x = g.input("x", {5, 37}), weight = g.input("weight", {37}), dout = g.input("dout", {5, 37});
             const Value rstd{g.rms_norm(x, weight).node, 1};
             // dx takes the place of the addend, of dout, of x
             for (const auto& [name, in] : {std::pair<const char*, std::vector<Value>>{"a", {x, weight, rstd, dout, g.neg(dout)}},
                                            {"b", {x, weight, rstd, g.neg(dout), dout}},
                                            {"c", {g.neg(x), weight, rstd, dout, dout}}}) {
               const Value d = g.record(RmsNormGrad{}, in);
               g.output(std::string("dx_") + name, g.scale(d, 1.5));
               g.output(std::string("dweight_") + name, {d.node, 1});
             }
           }}};
  const OpCases wide = all;
  for (const OpCase& c : wide) all.push_back(in_bf16(c, {"weight"}));
  all.push_back({"rms_norm_grad_of_rounded", [](Graph& g) {  // dout alone is bf16
                   const Value x = g.input("x", {45, 37}), weight = g.input("weight", {37});
                   const Value dout = g.input("dout", {45, 37}, DType::bf16), addend = g.neg(g.input("addend", {45, 37}));
                   const Value out = g.rms_norm(x, weight);
                   const Value d = g.record(RmsNormGrad{}, {x, weight, {out.node, 1}, dout}), sum = g.record(RmsNormGrad{}, {x, weight, {out.node, 1}, dout, addend});
                   g.output("dx", d);
                   g.output("dweight", {d.node, 1});
                   g.output("sum", sum);
                 }});
  return all;
}

OpCases cases(std::type_identity<LayerNorm>) {
  const auto on = [](Shape shape, double eps) {
    return [=](Graph& g) {
      g.output("out", g.layer_norm(g.input("x", shape), g.input("weight", {shape.cols()}), g.input("bias", {shape.cols()}), eps));
    };
  };
  OpCases all = {{"layer_norm_matrix", on({3, 5}, 1e-5)},
          {"layer_norm_large_eps", on({3, 5}, 0.5)},
          {"layer_norm_one_row", on({1, 6}, 1e-5)},
          {"layer_norm_vector", on({6}, 1e-5)},
          {"layer_norm_many_rows", on({133, 37}, 1e-6)},
          {"layer_norm_one_warp", on({5, 512}, 1e-5)},
          {"layer_norm_two_warps", on({2, 520}, 1e-5)},
          {"layer_norm_two_warps_odd", on({2, 301}, 1e-5)},
          {"layer_norm_tall", on({400, 3}, 1e-5)},
          {"layer_norm_more_than_registers", on({3, 8200}, 1e-5)},
          {"layer_norm_more_than_registers_odd", on({2, 4099}, 1e-5)},
          {"layer_norm_equal_values", on({2, 3}, 0.25), {{"x", {2, 2, 2, 1, -2, 0.5}}}},
          {"layer_norm_far_from_zero", on({2, 4}, 1e-5), {{"x", {1000, 1001, 999, 1002, -300, -301, -299, -302}}}, {}, {}, kFar}};
  for (const std::string name : {"matrix", "one_row", "many_rows", "two_warps"})
    for (const OpCase& c : OpCases(all))
      if (c.name == "layer_norm_" + name) all.push_back(in_bf16(c, {"weight", "bias"}));
  // x in f32, the result rounded
  all.push_back({"layer_norm_rounded", [](Graph& g) {
                   const Value x = g.input("x", {35, 37}), weight = g.input("weight", {37});
                   g.output("out", g.record(LayerNorm{1e-5, true}, {x, weight, g.input("bias", {37})}));
                 }});
  return all;
}

OpCases cases(std::type_identity<LayerNormGrad>) {
  OpCases all = {{"layer_norm_grad_direct", [](Graph& g) {
             const Value x = g.input("x", {4, 37}), weight = g.input("weight", {37});
             const Value out = g.layer_norm(x, weight, g.input("bias", {37}));
             const Value d = g.record(LayerNormGrad{}, {x, weight, {out.node, 1}, {out.node, 2}, g.input("dout", {4, 37})});
             g.output("dx", d);
             g.output("dweight", {d.node, 1});
             g.output("dbias", {d.node, 2});
             g.output("mean", {out.node, 1});
             g.output("rstd", {out.node, 2});
           }},
          {"layer_norm_grad_addend", [](Graph& g) {
             const Value x = g.input("x", {5, 37}), weight = g.input("weight", {37}), dout = g.input("dout", {5, 37});
             const Value out = g.layer_norm(x, weight, g.input("bias", {37})), mean{out.node, 1}, rstd{out.node, 2};
             for (const auto& [name, in] : {std::pair<const char*, std::vector<Value>>{"a", {x, weight, mean, rstd, dout, g.neg(dout)}},
                                            {"b", {x, weight, mean, rstd, g.neg(dout), dout}},
                                            {"c", {g.neg(x), weight, mean, rstd, dout, dout}}}) {
               const Value d = g.record(LayerNormGrad{}, in);
               g.output(std::string("dx_") + name, g.scale(d, 1.5));
               g.output(std::string("dweight_") + name, {d.node, 1});
               g.output(std::string("dbias_") + name, {d.node, 2});
             }
           }}};
  const OpCases wide = all;
  for (const OpCase& c : wide) all.push_back(in_bf16(c, {"weight", "bias"}));
  all.push_back({"layer_norm_grad_of_rounded", [](Graph& g) {  // dout alone is bf16
                   const Value x = g.input("x", {45, 37}), weight = g.input("weight", {37});
                   const Value dout = g.input("dout", {45, 37}, DType::bf16), addend = g.neg(g.input("addend", {45, 37}));
                   const Value out = g.layer_norm(x, weight, g.input("bias", {37}));
                   const Value d = g.record(LayerNormGrad{}, {x, weight, {out.node, 1}, {out.node, 2}, dout}), sum = g.record(LayerNormGrad{}, {x, weight, {out.node, 1}, {out.node, 2}, dout, addend});
                   g.output("dx", d);
                   g.output("dweight", {d.node, 1});
                   g.output("sum", sum);
                 }});
  return all;
}

OpCases cases(std::type_identity<Embedding>) {
  const auto on = [](std::int64_t vocabulary, std::int64_t dim, std::vector<double> ids) {
    const auto count = static_cast<std::int64_t>(ids.size());
    return OpCase{"",
                  [=](Graph& g) {
                    g.output("out", g.embedding(g.input("table", {vocabulary, dim}), g.input_u32("ids", {count})));
                  },
                  {{"ids", std::move(ids)}}};
  };
  std::vector<double> frequent = some_ids(1100, 600);
  for (std::size_t i = 0; i < frequent.size(); i += 3) frequent[i] = 517;
  OpCases all = {on(7, 4, {3, 0, 3, 6, 3}), on(5, 3, {4, 4, 4, 4}), on(1, 2, {0}), on(16, 9, some_ids(300, 16)),
                 on(50, 67, some_ids(133, 50)), on(600, 2, frequent), on(2, 8, std::vector<double>(193, 1.0)), on(3, 1032, {2, 0, 2})};
  const char* names[] = {"repeated_ids", "one_id", "one_row", "many_ids", "large", "frequent_id", "one_id_of_two", "wide"};
  for (std::size_t i = 0; i < all.size(); ++i) all[i].name = std::string("embedding_") + names[i];
  return all;
}

OpCases cases(std::type_identity<EmbeddingGrad>) {
  return {{"embedding_grad_direct",
           [](Graph& g) {
             g.output("dtable", g.record(EmbeddingGrad{6}, {g.input_u32("ids", {5}), g.input("dout", {5, 3})}));
           },
           {{"ids", {2, 0, 2, 5, 2}}}},
          {"embedding_grad_addend",
           [](Graph& g) {
             const Value ids = g.input_u32("ids", {5}), dout = g.input("dout", {5, 3}), addend = g.input("addend", {6, 3});
             const Value kept = g.record(EmbeddingGrad{6}, {ids, dout, addend});
             g.output("dtable", g.sub(g.record(EmbeddingGrad{6}, {ids, dout, g.neg(kept)}), addend));
           },
           {{"ids", {2, 0, 2, 5, 2}}}}};
}

OpCases cases(std::type_identity<CrossEntropy>) {
  constexpr double kIgnored = kIgnoreIndex;
  OpCases all;
  for (const Reduction reduction : {Reduction::mean, Reduction::sum})
    for (const double smoothing : {0.0, 0.1}) {
      const std::string name = std::string(reduction == Reduction::mean ? "mean" : "sum") + (smoothing > 0.0 ? "_smoothed" : "");
      const CrossEntropyOptions options = {reduction, smoothing, kIgnoreIndex};
      all.push_back(cross_entropy(name, {4, 5}, {1, 0, 4, 1}, options));
      all.push_back(cross_entropy(name + "_ignoring_some", {5, 4}, {kIgnored, 3, kIgnored, 0, 2}, options));
      all.push_back(cross_entropy(name + "_ignoring_all", {3, 4}, {kIgnored, kIgnored, kIgnored}, options));
      all.push_back(cross_entropy(name + "_ignoring_label_2", {5, 4}, {2, 3, 2, 0, 1}, {reduction, smoothing, 2}));
      all.push_back(cross_entropy(name + "_wide", {7, 300}, some_ids(7, 300), options));
      OpCase large = cross_entropy(name + "_large_logits", {4, 6}, {1, 0, 4, 1}, options);
      large.fills["logits"] = kLarge;
      all.push_back(large);
    }
  all.push_back(cross_entropy("one_row", {1, 3}, {2}));
  all.push_back(cross_entropy("one_class", {3, 1}, {0, 0, 0}));
  all.push_back(cross_entropy("many_rows", {300, 17}, some_ids(300, 17), {Reduction::mean, 0.05, 3}));
  for (const bool with_loss : {false, true})
    all.push_back({with_loss ? "cross_entropy_loss_and_lse" : "cross_entropy_lse_alone",
                   [=](Graph& g) {
                     const CrossEntropyResult result =
                         g.cross_entropy_with(g.input("logits", {4, 3}), g.input_u32("labels", {4}), {Reduction::mean, 0.1, 2});
                     if (with_loss) g.output("loss", result.loss);
                     g.output("lse", result.lse);
                   },
                   {{"labels", {1, 2, 0, 1}}}});
  all.push_back({"cross_entropy_in_the_middle",
                 [](Graph& g) {
                   const Value x = g.input("logits", {3, 4});
                   const Value loss = g.cross_entropy(g.mul(x, x), g.input_u32("labels", {3}));
                   g.output("out", g.mul(x, g.exp(loss)));
                 },
                 {{"labels", {3, 0, 1}}}});
  return all;
}

OpCases cases(std::type_identity<CrossEntropyGrad>) {
  OpCases all;
  for (const Reduction reduction : {Reduction::mean, Reduction::sum}) {
    const CrossEntropy op = {reduction, 0.2, 4};
    all.push_back({std::string("cross_entropy_grad_direct_") + (reduction == Reduction::mean ? "mean" : "sum"),
                   [=](Graph& g) {
                     const Value logits = g.input("logits", {4, 6}), labels = g.input_u32("labels", {4});
                     const Value loss = g.record(op, {logits, labels});
                     g.output("dlogits", g.record(CrossEntropyGrad{op},
                                                  {logits, labels, {loss.node, 1}, {loss.node, 2}, g.input("dloss", {})}));
                     g.output("lse", {loss.node, 1});
                     g.output("counted", {loss.node, 2});
                   },
                   {{"labels", {3, 4, 0, 5}}}});
    all.push_back({std::string("cross_entropy_grad_rounded_") + (reduction == Reduction::mean ? "mean" : "sum"),
                   [=](Graph& g) {
                     const Value logits = g.input("logits", {5, 37}), labels = g.input_u32("labels", {5});
                     const Value loss = g.record(op, {logits, labels});
                     g.output("dlogits", g.record(CrossEntropyGrad{op, true},
                                                  {logits, labels, {loss.node, 1}, {loss.node, 2}, g.input("dloss", {})}));
                   },
                   {{"labels", {3, 4, 0, 36, 20}}}});
  }
  return all;
}

OpCases cases(std::type_identity<LinearCrossEntropy>) {
  constexpr double kIgnored = kIgnoreIndex;
  constexpr std::int64_t kRows = 300, kClasses = 4096;  // more than one chunk, the last one smaller
  OpCases all;
  const auto narrow = [&](const OpCase& wide) {
    all.push_back(in_bf16(wide));
    all.back().rtol = 4e-3;
    all.back().rtol_reason = kRoundedLogits;
  };
  for (const bool transposed : {false, true}) {
    for (const Reduction reduction : {Reduction::mean, Reduction::sum}) {
      for (const double smoothing : {0.0, 0.1}) {
        const std::string name = std::string(reduction == Reduction::mean ? "mean" : "sum") + (smoothing > 0.0 ? "_smoothed" : "");
        const CrossEntropyOptions options = {reduction, smoothing, kIgnoreIndex};
        all.push_back(linear_cross_entropy(name + "_ignoring_some", 3, 5, transposed, {1, kIgnored, 4, 1, kIgnored, 0}, options));
        all.push_back(
            linear_cross_entropy(name + "_ignoring_label_2", 7, 4, transposed, {2, 3, 2, 0, 1}, {reduction, smoothing, 2}));
      }
    }
    all.push_back(linear_cross_entropy("ignoring_all", 3, 4, transposed, {kIgnored, kIgnored, kIgnored}));
    all.push_back(linear_cross_entropy("one_row", 4, 3, transposed, {2}));
    all.push_back(linear_cross_entropy("one_hidden", 1, 3, transposed, {2, 0}));
    all.push_back(linear_cross_entropy("one_class", 3, 1, transposed, {0, 0, 0}));
    OpCase large = linear_cross_entropy("large_logits", 3, 6, transposed, {1, 0, 4, 1});
    large.fills["x"] = {Fill::Kind::normal, 0.0, 20.0};
    all.push_back(large);
    std::vector<double> labels = some_ids(kRows, kClasses);
    labels[7] = labels[kRows - 2] = 3;
    all.push_back(linear_cross_entropy("chunks", 2, kClasses, transposed, labels, {Reduction::mean, 0.05, 3}));
    narrow(all.back());
    all.push_back(linear_cross_entropy("pieces", 3, 9, transposed, some_ids(19, 9), {Reduction::mean, 0.05, 3}));
    narrow(all.back());
    narrow(linear_cross_entropy("sum_smoothed", 7, 4, transposed, {2, 3, kIgnored, 0, 1}, {Reduction::sum, 0.1, kIgnoreIndex}));
  }
  for (const bool of_weight : {false, true}) {  // the other one's gradient is not computed
    const std::string other = of_weight ? "x" : "weight";
    all.push_back({std::string("linear_cross_entropy_of_") + (of_weight ? "weight" : "x") + "_alone",
                   [=](Graph& g) {
                     const Value x = g.input("x", {5, 3}), weight = g.input("weight", {3, 4});
                     g.output("loss",
                              g.linear_cross_entropy(of_weight ? g.stop_gradient(x) : x,
                                                     of_weight ? weight : g.stop_gradient(weight), g.input_u32("labels", {5}))
                                  .loss);
                   },
                   {{"labels", {3, 0, 1, 1, 2}}},
                   {},
                   {other}});
  }
  return all;
}

OpCases cases(std::type_identity<LinearCrossEntropyGrad>) {
  OpCases all;
  for (const bool transposed : {false, true}) {
    const LinearCrossEntropy op = {{transposed ? Reduction::sum : Reduction::mean, 0.2, 4}, transposed};
    all.push_back({std::string("linear_cross_entropy_grad_direct") + (transposed ? "_transposed" : ""),
                   [=](Graph& g) {
                     const Value x = g.input("x", {5, 3}), weight = g.input("weight", transposed ? Shape{6, 3} : Shape{3, 6});
                     const Value labels = g.input_u32("labels", {5}), loss = g.record(op, {x, weight, labels});
                     const Value d = g.record(LinearCrossEntropyGrad{op},
                                              {x, weight, labels, {loss.node, 1}, {loss.node, 2}, g.input("dloss", {})});
                     g.output("dx", d);
                     g.output("dweight", {d.node, 1});
                     g.output("lse", {loss.node, 1});
                     g.output("counted", {loss.node, 2});
                   },
                   {{"labels", {3, 4, 0, 5, 2}}}});
    all.push_back(in_bf16(all.back(), {"dloss"}));
    all.back().rtol = 4e-3;
    all.back().rtol_reason = kRoundedLogits;
  }
  return all;
}

}  // namespace graft::testing
