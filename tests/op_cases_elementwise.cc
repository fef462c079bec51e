// Cases of sources, products and elementwise ops.
#include <string>

#include "tests/op_cases.h"

namespace graft::testing {
namespace {

constexpr Fill kAway = {Fill::Kind::away};
constexpr Fill kPositive = {Fill::Kind::uniform, 0.25, 3.0};

Fill fill_of(UnaryFn fn) {
  switch (fn) {
    case UnaryFn::log:
    case UnaryFn::sqrt: return kPositive;
    case UnaryFn::abs:
    case UnaryFn::relu: return kAway;
    case UnaryFn::neg:
    case UnaryFn::scale:
    case UnaryFn::add_scalar:
    case UnaryFn::exp:
    case UnaryFn::tanh:
    case UnaryFn::sigmoid:
    case UnaryFn::gelu:
    case UnaryFn::gelu_tanh:
    case UnaryFn::silu:
    case UnaryFn::softplus: return {Fill::Kind::normal, 0.0, 2.0};
  }
  return {};
}

double alpha_of(UnaryFn fn) { return fn == UnaryFn::scale ? -1.3 : fn == UnaryFn::add_scalar ? 0.4 : 0.0; }

bool saturates(UnaryFn fn) {
  return fn == UnaryFn::tanh || fn == UnaryFn::sigmoid || fn == UnaryFn::gelu || fn == UnaryFn::gelu_tanh || fn == UnaryFn::silu ||
         fn == UnaryFn::softplus;
}

OpCase matmul(const std::string& name, std::int64_t m, std::int64_t k, std::int64_t n, bool ta, bool tb, bool bias) {
  return {"matmul_" + name, [=](Graph& g) {
            const Value a = g.input("a", ta ? Shape{k, m} : Shape{m, k});
            const Value b = g.input("b", tb ? Shape{n, k} : Shape{k, n});
            g.output("out", bias ? g.matmul_bias(a, b, g.input("bias", {n}), ta, tb) : g.matmul(a, b, ta, tb));
          }};
}

/// bf16 operands, and a result rounded to bf16.
OpCase rounded_matmul(const std::string& name, std::int64_t m, std::int64_t k, std::int64_t n, bool ta, bool tb, bool bias) {
  return {"matmul_rounded_" + name, [=](Graph& g) {
            std::vector<Value> in = {g.input("a", ta ? Shape{k, m} : Shape{m, k}, DType::bf16),
                                     g.input("b", tb ? Shape{n, k} : Shape{k, n}, DType::bf16)};
            if (bias) in.push_back(g.input("bias", {n}));
            g.output("out", g.record(MatMul{ta, tb, true}, in));
          }};
}

}  // namespace

OpCases cases(std::type_identity<Input>) {
  return {{"input_f64",
           [](Graph& g) {
             g.output("out", g.cast(g.input("x", {2, 3}, DType::f64), DType::f32));
           }},
          {"input_read_twice", [](Graph& g) {
             const Value x = g.input("x", {2, 3});
             g.output("out", g.mul(g.exp(x), x));
           }}};
}

OpCases cases(std::type_identity<Parameter>) {
  OpCases all = {{"parameter_read_three_times", [](Graph& g) {
                    const Value w = g.parameter("w", {3, 3}, Init::normal(0.1, 1.0));
                    g.output("out", g.add(g.matmul(w, w, true, false), g.mul(w, g.input("x", {3, 3}))));
                  }}};
  const std::pair<const char*, Init> inits[] = {
      {"ones", Init::ones()}, {"uniform", Init::uniform(-0.5, 2.0)}, {"xavier", Init::xavier()}, {"kaiming", Init::kaiming()}};
  for (const auto& [name, init] : inits)
    all.push_back({std::string("parameter_") + name, [init = init](Graph& g) {
                     g.output("out", g.tanh(g.matmul(g.input("x", {2, 4}), g.parameter("w", {4, 5}, init))));
                   }});
  return all;
}

OpCases cases(std::type_identity<State>) {
  return {{"state_is_not_trained", [](Graph& g) {
             g.output("out", g.mul(g.input("x", {2, 3}), g.state("s", {2, 3}, Init::normal(0.0, 1.0))));
           }}};
}

OpCases cases(std::type_identity<Constant>) {
  return {{"constant_of_one_value",
           [](Graph& g) {
             g.output("out", g.mul(g.input("x", {2, 3}), g.constant({2, 3}, {1.25})));
           }},
          {"constant_of_all_values", [](Graph& g) {
             g.output("out", g.mul(g.input("x", {2, 3}), g.constant({2, 3}, {1.5, -2, 0.25, 4, 0, -0.125})));
           }}};
}

OpCases cases(std::type_identity<MatMul>) {
  OpCases all;
  for (const bool ta : {false, true})
    for (const bool tb : {false, true})
      for (const bool bias : {false, true})
        all.push_back(matmul(std::string(ta ? "t" : "n") + (tb ? "t" : "n") + (bias ? "_bias" : ""), 3, 5, 4, ta, tb, bias));
  for (const bool ta : {false, true})
    for (const bool tb : {false, true})
      all.push_back(matmul(std::string("large_") + (ta ? "t" : "n") + (tb ? "t" : "n"), 130, 67, 33, ta, tb, ta == tb));
  const auto added = [](const std::string& name, std::int64_t m, std::int64_t k, std::int64_t n, bool ta, bool tb) {
    return OpCase{"matmul_addend_" + name, [=](Graph& g) {
                    const Value a = g.input("a", ta ? Shape{k, m} : Shape{m, k}), b = g.input("b", tb ? Shape{n, k} : Shape{k, n});
                    const Value addend = g.input("addend", {m, n});
                    // The first keeps its addend, the second takes its place.
                    const Value sum = g.record(MatMul{ta, tb}, {a, b, g.neg(g.record(MatMul{ta, tb}, {a, b, addend}))});
                    g.output("out", g.sub(sum, addend));
                  }};
  };
  all.push_back(added("one_row", 1, 70, 19, false, false));
  all.push_back(added("one_column", 19, 70, 1, false, true));
  all.push_back(added("tiny", 3, 4, 5, true, true));
  for (const bool ta : {false, true}) all.push_back(added(ta ? "large_tn" : "large_nt", 130, 67, 33, ta, !ta));
  all.push_back(matmul("one_element", 1, 1, 1, false, false, true));
  all.push_back(matmul("one_row", 1, 70, 19, false, false, true));
  all.push_back(matmul("one_column", 19, 70, 1, false, true, true));
  all.push_back(matmul("outer_product", 9, 1, 7, false, false, false));
  for (const bool ta : {false, true})
    for (const bool tb : {false, true}) {
      OpCase narrow{std::string("matmul_bf16_") + (ta ? "t" : "n") + (tb ? "t" : "n"), [=](Graph& g) {
                      const Value a = g.input("a", ta ? Shape{33, 18} : Shape{18, 33}), b = g.input("b", tb ? Shape{7, 33} : Shape{33, 7});
                      const Value narrow_a = g.cast(a, DType::bf16), narrow_b = g.cast(b, DType::bf16);
                      g.output("out", ta == tb ? g.matmul_bias(narrow_a, narrow_b, g.input("bias", {7}), ta, tb) : g.matmul(narrow_a, narrow_b, ta, tb));
                    }};
      all.push_back(narrow);
      all.push_back(rounded_matmul(std::string(ta ? "t" : "n") + (tb ? "t" : "n"), 18, 33, 7, ta, tb, ta == tb));
      all.push_back(rounded_matmul(std::string("large_") + (ta ? "t" : "n") + (tb ? "t" : "n"), 130, 67, 133, ta, tb, ta != tb));
    }
  all.push_back(rounded_matmul("one_row", 1, 70, 19, false, false, true));
  all.push_back(rounded_matmul("one_column", 19, 70, 1, false, true, true));
  all.push_back(in_bf16(added("bf16", 33, 20, 18, false, true), {"addend"}));
  all.push_back({"matmul_with_itself", [](Graph& g) {
                   const Value x = g.input("x", {4, 4});
                   g.output("out", g.matmul(x, x, true, false));
                 }});
  return all;
}

OpCases cases(std::type_identity<Unary>) {
  OpCases all;
  for (const UnaryFn fn : kUnaryFns) {
    const double alpha = alpha_of(fn);
    const std::string name = op_name(Unary{fn, alpha});
    const auto on = [&](const std::string& what, Shape shape) {
      all.push_back({name + "_" + what,
                     [=](Graph& g) { g.output("out", g.unary(fn, g.input("x", shape), alpha)); },
                     {},
                     {{"x", fill_of(fn)}}});
    };
    on("matrix", {3, 5});
    on("vector", {7});
    on("scalar", {});
    all.push_back(in_bf16(all.back()));
    on("large", {37, 67});
    all.push_back(in_bf16(all.back()));
    if (!saturates(fn)) continue;
    OpCase tails = {name + "_tails",
                    [=](Graph& g) { g.output("out", g.unary(fn, g.input("x", {14}), alpha)); },
                    {{"x", {-85, -60, -30, -20, -12, -8, -5, 5, 8, 12, 20, 30, 60, 85}}}};
    if (fn == UnaryFn::tanh) tails.rtol = 1e-4, tails.rtol_reason = "1 − tanh² cancels in f32 where every x is in a tail";
    all.push_back(tails);
  }
  all.push_back({"abs_and_relu_at_zero",
                 [](Graph& g) {
                   const Value x = g.input("x", {2});
                   g.output("abs", g.abs(x));
                   g.output("relu", g.relu(x));
                 },
                 {{"x", {0.0, 0.0}}},
                 {},
                 {},
                 "the derivative at the kink is 0 by definition"});
  return all;
}

OpCases cases(std::type_identity<UnaryGrad>) {
  OpCases all;
  for (const UnaryFn fn : kUnaryFns) {
    const double alpha = alpha_of(fn);
    all.push_back({op_name(UnaryGrad{fn, alpha}) + "_direct",
                   [=](Graph& g) {
                     g.output("dx", g.record(UnaryGrad{fn, alpha}, {g.input("x", {3, 5}), g.input("dout", {3, 5})}));
                   },
                   {},
                   {{"x", fill_of(fn)}}});
    all.push_back(in_bf16(all.back()));
  }
  return all;
}

OpCases cases(std::type_identity<Binary>) {
  OpCases all;
  const std::pair<const char*, std::pair<Shape, Shape>> shapes[] = {{"same", {{3, 5}, {3, 5}}},
                                                                    {"row_vector", {{3, 5}, {5}}},
                                                                    {"row_matrix", {{3, 5}, {1, 5}}},
                                                                    {"column", {{3, 5}, {3, 1}}},
                                                                    {"scalar", {{3, 5}, {}}},
                                                                    {"vectors", {{7}, {7}}},
                                                                    {"vector_scalar", {{7}, {}}},
                                                                    {"scalars", {{}, {}}},
                                                                    {"one_row", {{1, 5}, {5}}},
                                                                    {"one_column", {{4, 1}, {1, 1}}},
                                                                    {"square_column", {{8, 8}, {8, 1}}},
                                                                    {"square_row", {{8, 8}, {1, 8}}},
                                                                    {"large", {{37, 67}, {37, 67}}},
                                                                    {"large_row", {{37, 72}, {72}}},
                                                                    {"large_column", {{37, 72}, {37, 1}}},
                                                                    {"large_scalar", {{37, 72}, {}}}};
  for (const BinaryFn fn : kBinaryFns)
    for (const auto& [what, ab] : shapes) {
      all.push_back(
          {op_name(Binary{fn}) + "_" + what,
           [fn, a = ab.first, b = ab.second](Graph& g) { g.output("out", g.binary(fn, g.input("a", a), g.input("b", b))); },
           {},
           {{"b", fn == BinaryFn::div ? Fill{Fill::Kind::uniform, 0.5, 2.0} : Fill{}}}});
      if (fn == BinaryFn::sub || fn == BinaryFn::div || ab.first == ab.second) all.push_back(in_bf16(all.back()));
    }
  for (const BinaryFn fn : kBinaryFns)
    all.push_back({op_name(Binary{fn}) + "_with_itself",
                   [fn](Graph& g) {
                     const Value x = g.input("x", {2, 3});
                     g.output("out", g.binary(fn, x, x));
                   },
                   {},
                   {{"x", kPositive}}});
  all.push_back({"div_by_negative",
                 [](Graph& g) {
                   g.output("out", g.div(g.input("a", {2, 2}), g.input("b", {2, 2})));
                 },
                 {{"b", {-0.5, -2, 3, -1}}}});
  return all;
}

OpCases cases(std::type_identity<Swiglu>) {
  const auto shaped = [](Shape shape) {
    return [=](Graph& g) { g.output("out", g.swiglu(g.input("gate", shape), g.input("up", shape))); };
  };
  return {{"swiglu_small", shaped({3, 5})},
          {"swiglu_large", shaped({37, 67})},
          in_bf16(OpCase{"swiglu_small", shaped({3, 5})}),
          in_bf16(OpCase{"swiglu_large", shaped({37, 67})}),
          {"swiglu_tails", shaped({6}), {{"gate", {-85, -30, -8, 8, 30, 85}}}},
          {"swiglu_gate_only",
           [](Graph& g) {
             g.output("out", g.swiglu(g.input("gate", {2, 3}), g.constant({2, 3}, {0.5})));
           }},
          {"swiglu_up_only",
           [](Graph& g) {
             g.output("out", g.swiglu(g.constant({2, 3}, {-0.5}), g.input("up", {2, 3})));
           }},
          {"swiglu_of_itself", [](Graph& g) {
             const Value x = g.input("x", {2, 3});
             g.output("out", g.swiglu(x, x));
           }}};
}

OpCases cases(std::type_identity<SwigluGrad>) {
  return {{"swiglu_grad_direct", [](Graph& g) {
             const Value d = g.record(SwigluGrad{}, {g.input("gate", {3, 5}), g.input("up", {3, 5}), g.input("dout", {3, 5})});
             g.output("dgate", d);
             g.output("dup", {d.node, 1});
           }},
          in_bf16(OpCase{"swiglu_grad_dup", [](Graph& g) {
             const Value d = g.record(SwigluGrad{}, {g.input("gate", {3, 5}), g.input("up", {3, 5}), g.input("dout", {3, 5})});
             g.output("dup", {d.node, 1});
           }})};
}

OpCases cases(std::type_identity<Cast>) {
  return {{"cast_f64_and_back",
           [](Graph& g) {
             g.output("out", g.cast(g.cast(g.input("x", {3, 5}), DType::f64), DType::f32));
           }},
          {"cast_to_itself",
           [](Graph& g) {
             g.output("out", g.exp(g.cast(g.input("x", {3, 5}), DType::f32)));
           }},
          // halfway cases round to even; 2^-133 and 1e38 test the ends of the range
          {"cast_bf16_and_back",
           [](Graph& g) {
             g.output("out", g.cast(g.cast(g.input("x", {2, 8}), DType::bf16), DType::f32));
           },
           {{"x",
             {1.0, 1.00390625, 1.01171875, -1.00390625, 1.00390637, 3.1415927, -2.7182817, 65504, 1e38, -1e-38, 0, 0.1, 1e-3, 257,
              255, 0.33333334}}},
           {},
           {},
           "rounding makes steps"}};
}

OpCases cases(std::type_identity<StopGradient>) {
  return {{"stop_gradient_of_one_factor",
           [](Graph& g) {
             g.output("out", g.mul(g.input("x", {2, 3}), g.stop_gradient(g.input("y", {2, 3}))));
           },
           {},
           {},
           {"y"}},
          {"stop_gradient_in_place", [](Graph& g) {
             const Value x = g.input("x", {2, 3});
             g.output("out", g.mul(x, g.stop_gradient(g.constant({2, 3}, {2.0}))));
           }}};
}

OpCases cases(std::type_identity<Dropout>) {
  return {{"dropout_third",
           [](Graph& g) {
             g.output("out", g.dropout(g.input("x", {5, 7}), 0.3));
           }},
          {"dropout_nearly_all",
           [](Graph& g) {
             g.output("out", g.dropout(g.input("x", {10, 30}), 0.95));
           }},
          {"dropout_large",
           [](Graph& g) {
             g.output("out", g.dropout(g.input("x", {37, 67}), 0.5));
           }},
          in_bf16(OpCase{"dropout_large", [](Graph& g) { g.output("out", g.dropout(g.input("x", {37, 67}), 0.4)); }}),
          {"dropout_twice", [](Graph& g) {
             g.output("out", g.dropout(g.tanh(g.dropout(g.input("x", {5, 7}), 0.2)), 0.4));
           }}};
}

}  // namespace graft::testing
