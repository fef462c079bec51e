// Cases of reductions, broadcast and shape ops.
#include <array>
#include <cmath>
#include <string>
#include <tuple>

#include "tests/op_cases.h"

namespace graft::testing {
namespace {

constexpr std::array kAxes = {Axis::all, Axis::rows, Axis::columns};
constexpr std::array kReduceFns = {ReduceFn::sum, ReduceFn::mean, ReduceFn::max};

std::string to_string(Axis axis) { return axis == Axis::all ? "all" : axis == Axis::rows ? "rows" : "columns"; }

OpCase one_input(const std::string& name, Shape shape, const std::function<Value(Graph&, Value)>& op) {
  return {name, [=](Graph& g) { g.output("out", op(g, g.input("x", shape))); }};
}

}  // namespace

OpCases cases(std::type_identity<Reduce>) {
  OpCases all;
  const std::pair<const char*, Shape> shapes[] = {
      {"matrix", {3, 5}}, {"one_row", {1, 6}}, {"one_column", {6, 1}}, {"large", {67, 133}}};
  for (const ReduceFn fn : kReduceFns)
    for (const Axis axis : kAxes) {
      const std::string name = op_name(Reduce{fn, axis}) + "_" + to_string(axis);
      for (const auto& [what, shape] : shapes) {
        OpCase c = one_input(name + "_" + what, shape, [=](Graph& g, Value x) { return g.reduce(fn, x, axis); });
        if (fn == ReduceFn::max) c.fills["x"] = {Fill::Kind::apart};
        all.push_back(c);
        if (shape.rows() > 1 && shape.cols() > 1) all.push_back(in_bf16(c));
      }
      const Shape packs = axis == Axis::rows ? Shape{200, 8} : Shape{2, 2052};
      OpCase c = one_input(name + "_of_whole_packs", packs, [=](Graph& g, Value x) { return g.reduce(fn, x, axis); });
      if (fn == ReduceFn::max) c.fills["x"] = {Fill::Kind::apart};
      if (axis != Axis::all) all.push_back(c);
      OpCase middle =
          one_input(name + "_then_broadcast", {4, 4}, [=](Graph& g, Value x) { return g.mul(x, g.reduce(fn, g.tanh(x), axis)); });
      if (fn == ReduceFn::max) middle.fills["x"] = {Fill::Kind::apart};
      all.push_back(middle);
    }
  for (const ReduceFn fn : kReduceFns) {
    OpCase c = one_input(op_name(Reduce{fn, Axis::all}) + "_all_vector", {7},
                         [=](Graph& g, Value x) { return g.reduce(fn, x, Axis::all); });
    if (fn == ReduceFn::max) c.fills["x"] = {Fill::Kind::apart};
    all.push_back(c);
  }
  for (const Axis axis : kAxes) {
    OpCase nan = one_input("reduce_max_of_nan_" + to_string(axis), {3, 2}, [=](Graph& g, Value x) { return g.reduce(ReduceFn::max, x, axis); });
    nan.inputs["x"] = {1, NAN, NAN, 5, 7, NAN};
    nan.no_differences = "they are not numbers";
    all.push_back(nan);
  }
  all.push_back({"mse", [](Graph& g) { g.output("loss", g.mse(g.input("prediction", {3, 4}), g.input("target", {3, 4}))); }});
  all.push_back({"bce_with_logits",
                 [](Graph& g) {
                   g.output("loss", g.bce_with_logits(g.input("x", {3, 4}), g.input("t", {3, 4})));
                 },
                 {},
                 {{"x", {Fill::Kind::normal, 0.0, 3.0}}, {"t", {Fill::Kind::uniform, 0.0, 1.0}}}});
  all.push_back({"bce_with_logits_tails",
                 [](Graph& g) { g.output("loss", g.bce_with_logits(g.input("x", {4}), g.input("t", {4}))); },
                 {{"x", {-60, 60, -60, 60}}, {"t", {0, 1, 1, 0}}}});
  return all;
}

OpCases cases(std::type_identity<ReduceMaxGrad>) {
  OpCases all;
  for (const Axis axis : kAxes) {
    const Shape dout = axis == Axis::all ? Shape{} : axis == Axis::rows ? Shape{4} : Shape{3, 1};
    all.push_back({"reduce_max_grad_ties_" + to_string(axis),
                   [=](Graph& g) {
                     g.output("dx", g.record(ReduceMaxGrad{axis}, {g.input("x", {3, 4}), g.input("dout", dout)}));
                   },
                   {{"x", {1, 2, 2, -1, 1, 2, 0, 3, 0, -5, 2, 3}}}});
    all.push_back({"reduce_max_grad_of_nan_" + to_string(axis),
                   [=](Graph& g) {
                     g.output("dx", g.record(ReduceMaxGrad{axis}, {g.input("x", {3, 4}), g.input("dout", dout)}));
                   },
                   {{"x", {1, NAN, 2, -1, NAN, 2, 0, 3, 0, NAN, NAN, 3}}}});
    all.push_back(in_bf16(all.back(), {"dout"}));
  }
  std::vector<double> many(3 * 5500);  // three of the cuda backend's pieces
  for (std::size_t i = 0; i < many.size(); ++i) many[i] = -1.0 - static_cast<double>(i % 7);
  many[9001] = many[9004] = many[16400] = 3.0;
  all.push_back({"reduce_max_grad_ties_of_many",
                 [](Graph& g) {
                   g.output("dx", g.record(ReduceMaxGrad{Axis::all}, {g.input("x", {3, 5500}), g.input("dout", {})}));
                 },
                 {{"x", many}}});
  all.push_back(in_bf16(all.back(), {"dout"}));
  return all;
}

OpCases cases(std::type_identity<Broadcast>) {
  const std::pair<const char*, std::pair<Shape, Shape>> shapes[] = {
      {"vector_to_rows", {{5}, {3, 5}}},    {"row_to_rows", {{1, 5}, {3, 5}}},   {"column_to_columns", {{3, 1}, {3, 5}}},
      {"scalar_to_matrix", {{}, {3, 5}}},   {"scalar_to_vector", {{}, {5}}},     {"one_to_matrix", {{1, 1}, {1, 5}}},
      {"to_itself", {{3, 5}, {3, 5}}},      {"square_column", {{4, 1}, {4, 4}}}, {"large_vector", {{67}, {37, 67}}},
      {"large_column", {{67, 1}, {67, 37}}}};
  OpCases all;
  for (const auto& [what, s] : shapes)
    all.push_back(
        one_input(std::string("broadcast_") + what, s.first, [to = s.second](Graph& g, Value x) { return g.broadcast(x, to); }));
  for (std::size_t i : {0u, 2u, 3u, 9u}) all.push_back(in_bf16(all[i]));
  return all;
}

OpCases cases(std::type_identity<Reshape>) {
  const std::pair<const char*, std::pair<Shape, Shape>> shapes[] = {
      {"wider", {{4, 3}, {2, 6}}}, {"to_vector", {{4, 3}, {12}}}, {"from_vector", {{12}, {3, 4}}}, {"scalar", {{1, 1}, {}}}};
  OpCases all;
  for (const auto& [what, s] : shapes)
    all.push_back(one_input(std::string("reshape_") + what, s.first,
                            [to = s.second](Graph& g, Value x) { return g.exp(g.reshape(g.tanh(x), to)); }));
  all.push_back({"reshape_of_a_value_read_again", [](Graph& g) {
                   const Value x = g.tanh(g.input("x", {2, 6}));
                   const Value flat = g.exp(g.reshape(x, {12}));
                   g.output("out", g.mul(g.reshape(flat, {2, 6}), x));
                 }});
  all.push_back(in_bf16(all.back()));
  return all;
}

OpCases cases(std::type_identity<Transpose>) {
  OpCases all;
  const std::pair<const char*, Shape> shapes[] = {
      {"matrix", {3, 5}}, {"one_row", {1, 5}}, {"one_column", {5, 1}}, {"square", {4, 4}}, {"large", {67, 133}}, {"large_even", {70, 132}}, {"odd_rows", {3, 6}}, {"odd_columns", {6, 3}},
      // more tiles than the cuda backend has blocks for, where it has three multiprocessors
      {"many_tiles", {3106, 1}}, {"many_tiles_even", {6210, 2}}};
  for (const auto& [what, shape] : shapes)
    all.push_back(one_input(std::string("transpose_") + what, shape, [](Graph& g, Value x) { return g.transpose(x); }));
  for (std::size_t i : {0u, 4u, 5u, 6u, 7u, 9u}) all.push_back(in_bf16(all[i]));
  return all;
}

OpCases cases(std::type_identity<Slice>) {
  OpCases all = {one_input("slice_middle", {5, 6}, [](Graph& g, Value x) { return g.slice(x, 1, 3, 2, 3); }),
                 one_input("slice_first_row", {5, 6}, [](Graph& g, Value x) { return g.slice_rows(x, 0, 1); }),
                 one_input("slice_last_rows", {5, 6}, [](Graph& g, Value x) { return g.slice_rows(x, 3, 2); }),
                 one_input("slice_first_column", {5, 6}, [](Graph& g, Value x) { return g.slice_cols(x, 0, 1); }),
                 one_input("slice_last_columns", {5, 6}, [](Graph& g, Value x) { return g.slice_cols(x, 4, 2); }),
                 one_input("slice_whole", {5, 6}, [](Graph& g, Value x) { return g.slice(x, 0, 5, 0, 6); }),
                 one_input("slice_vector", {7}, [](Graph& g, Value x) { return g.slice(x, 0, 1, 2, 3); }),
                 one_input("slice_of_whole_packs", {67, 48}, [](Graph& g, Value x) { return g.slice(x, 3, 60, 8, 16); }),
                 one_input("slice_large", {67, 133}, [](Graph& g, Value x) { return g.slice(x, 3, 60, 7, 100); }),
                 one_input("slice_of_whole_packs_from_between_them", {7, 48}, [](Graph& g, Value x) { return g.slice(x, 1, 5, 6, 16); })};
  all.push_back({"slice_overlapping", [](Graph& g) {
                   const Value x = g.input("x", {5, 3});
                   g.output("out", g.mul(g.slice_rows(x, 0, 4), g.slice_rows(x, 1, 4)));
                 }});
  for (std::size_t i : {0u, 6u, 7u, 9u}) all.push_back(in_bf16(all[i]));
  return all;
}

OpCases cases(std::type_identity<Pad>) {
  OpCases all = {one_input("pad_middle", {2, 3},
                    [](Graph& g, Value x) {
                      return g.record(Pad{{5, 6}, 1, 2}, {x});
                    }),
          one_input("pad_first", {2, 3},
                    [](Graph& g, Value x) {
                      return g.record(Pad{{5, 6}, 0, 0}, {x});
                    }),
          one_input("pad_last", {2, 3},
                    [](Graph& g, Value x) {
                      return g.record(Pad{{5, 6}, 3, 3}, {x});
                    }),
          one_input("pad_nothing", {2, 3},
                    [](Graph& g, Value x) {
                      return g.record(Pad{{2, 3}, 0, 0}, {x});
                    }),
          one_input("pad_vector", {3},
                    [](Graph& g, Value x) {
                      return g.record(Pad{{7}, 0, 2}, {x});
                    }),
          one_input("pad_of_whole_packs", {60, 16},
                    [](Graph& g, Value x) {
                      return g.record(Pad{{67, 48}, 3, 8}, {x});
                    }),
          one_input("pad_large", {60, 100}, [](Graph& g, Value x) {
            return g.record(Pad{{67, 133}, 3, 7}, {x});
          })};
  // whole packs but for one of: the columns of x, all columns, the column where x begins
  for (const auto& [what, cols, all_cols, col] : {std::tuple("x", 13, 48, 8), std::tuple("out", 16, 27, 8), std::tuple("place", 16, 48, 6)})
    all.push_back(one_input(std::string("pad_without_whole_packs_in_") + what, {3, cols}, [=](Graph& g, Value x) {
      return g.record(Pad{{5, all_cols}, 1, col}, {x});
    }));
  for (std::size_t i : {0u, 5u, 7u, 8u, 9u}) all.push_back(in_bf16(all[i]));
  return all;
}

OpCases cases(std::type_identity<Concat>) {
  const auto parts = [](Axis axis, std::vector<Shape> shapes) {
    return [=](Graph& g) {
      std::vector<Value> values;
      for (const Shape& shape : shapes) values.push_back(g.input("x" + std::to_string(values.size()), shape));
      g.output("out", g.concat(values, axis));
    };
  };
  OpCases all = {{"concat_rows", parts(Axis::rows, {{2, 3}, {1, 3}, {4, 3}})},
                 {"concat_columns", parts(Axis::columns, {{3, 2}, {3, 1}, {3, 4}})},
                 {"concat_one", parts(Axis::rows, {{2, 3}})},
                 {"concat_vectors", parts(Axis::columns, {{2}, {5}})},
                 {"concat_whole_packs", parts(Axis::columns, {{35, 8}, {35, 16}, {35, 8}})},
                 {"concat_whole_packs_between_others", parts(Axis::columns, {{5, 2}, {5, 8}, {5, 6}})},
                 {"concat_large_rows", parts(Axis::rows, {{60, 67}, {7, 67}})},
                 {"concat_large_columns", parts(Axis::columns, {{67, 60}, {67, 7}})}};
  all.push_back({"concat_of_one_value_twice", [](Graph& g) {
                   const Value x = g.tanh(g.input("x", {2, 3}));
                   const std::array both = {x, x};
                   g.output("rows", g.concat(both, Axis::rows));
                   g.output("columns", g.concat(both, Axis::columns));
                 }});
  for (std::size_t i : {0u, 1u, 5u, 6u}) all.push_back(in_bf16(all[i]));
  for (const Axis axis : {Axis::rows, Axis::columns})
    all.push_back({"split_" + to_string(axis), [=](Graph& g) {
                     const std::array<std::int64_t, 3> sizes = {1, 3, 2};
                     const std::vector<Value> split = g.split(g.input("x", {6, 6}), sizes, axis);
                     const std::array turned = {split[2], g.tanh(split[0]), split[1]};
                     g.output("out", g.concat(turned, axis));
                     g.output("middle", split[1]);
                   }});
  return all;
}

}  // namespace graft::testing
