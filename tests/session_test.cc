#include "graft/session.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/session_fixture.h"

namespace graft {
namespace {

using testing::Doubles;
using testing::Floats;
using testing::message_of;
using testing::U32s;
using testing::write;
using testing::write_u32;

class SessionTest : public testing::SessionTest {};

// ---- write, step, read

TEST_F(SessionTest, StepsComputeWhatWasWritten) {
  Graph g;
  g.output("y", g.add(g.input("x", {2, 2}), g.constant({2, 2}, {1, 2, 3, 4})));
  Session session(g, *backend);
  write(session, "x", {10, 20, 30, 40});
  session.step();
  EXPECT_EQ(session.read("y"), (Floats{11, 22, 33, 44}));
  write(session, "x", {0, 0, 0, 1});
  EXPECT_EQ(session.read("y"), (Floats{11, 22, 33, 44})) << "until the next step";
  session.step();
  EXPECT_EQ(session.read_f64("y"), (Doubles{1, 2, 3, 5}));
  EXPECT_EQ(session.read_f64(g.outputs().at("y")), (Doubles{1, 2, 3, 5}));
  EXPECT_EQ(session.read("x"), (Floats{0, 0, 0, 1}));
}

TEST_F(SessionTest, AConstantOfOneValueFillsItsShape) {
  Graph g;
  g.output("y", g.add(g.constant({3}, {2.5}), g.constant({3}, {1, 2, 3})));
  Session session(g, *backend);
  session.step();
  EXPECT_EQ(session.read("y"), (Floats{3.5, 4.5, 5.5}));
}

TEST_F(SessionTest, FloatsAndDoublesAreConvertedToTheTensorsType) {
  Graph g;
  g.output("y", g.scale(g.input("x", {2}), 1.0));
  g.output("z", g.scale(g.input("wide", {2}, DType::f64), 1.0));
  Session session(g, *backend);
  session.write("x", std::span<const double>(Doubles{0.1, 1.0 / 3.0}));
  session.write("wide", std::span<const float>(Floats{0.1f, 0.5f}));
  session.step();
  EXPECT_EQ(session.read("y"), (Floats{0.1f, 1.0f / 3.0f}));
  EXPECT_EQ(session.read_f64("y"), (Doubles{0.1f, 1.0f / 3.0f}));
  EXPECT_EQ(session.read_f64("z"), (Doubles{0.1f, 0.5}));
  session.write("wide", std::span<const double>(Doubles{0.1, 1.0 / 3.0}));
  session.step();
  EXPECT_EQ(session.read_f64("z"), (Doubles{0.1, 1.0 / 3.0}));
  EXPECT_EQ(session.read("z"), (Floats{0.1f, 1.0f / 3.0f}));
}

TEST_F(SessionTest, Bf16IsRoundedToTheNearestEven) {
  Graph g;
  g.input("x", {6}, DType::bf16);
  Session session(g, *backend);
  // A step of bf16 at 1 is 1/128: ties go to the even neighbour, what lies a hair beyond a tie does not.
  const double tie = 1.0 / 256.0, hair = 1e-12;
  session.write("x", std::span<const double>(
                         Doubles{1.0 + tie, 1.0 + 3 * tie, 1.0 + tie + hair, 1.0 + 3 * tie - hair, -1.0 - tie - hair, NAN}));
  Doubles read = session.read_f64("x");
  EXPECT_TRUE(std::isnan(read.back()));
  read.pop_back();
  EXPECT_EQ(read, (Doubles{1.0, 1.0 + 4 * tie, 1.0 + 2 * tie, 1.0 + 2 * tie, -1.0 - 2 * tie}));
}

TEST_F(SessionTest, ReadsIntoTheCallersMemory) {
  Graph g;
  g.output("y", g.scale(g.input("x", {2}), 2.0));
  g.output("n", g.state("count", {2}, Init::fill(7), DType::u32));
  Session session(g, *backend);
  write(session, "x", {1, 2});
  session.step();
  Floats f(2);
  Doubles d(2);
  U32s u(2);
  session.read("y", std::span(f));
  session.read("y", std::span(d));
  session.read("n", std::span(u));
  EXPECT_EQ(f, (Floats{2, 4}));
  EXPECT_EQ(d, (Doubles{2, 4}));
  EXPECT_EQ(u, (U32s{7, 7}));
}

TEST_F(SessionTest, ScalarsReadAsDouble) {
  Graph g;
  g.output("mean", g.mean(g.input("x", {2})));
  g.output("count", g.record(Increment{}, {g.state("n", {}, Init::fill(4), DType::u32)}));
  Session session(g, *backend);
  write(session, "x", {1, 2});
  session.step();
  EXPECT_EQ(session.scalar("mean"), 1.5);
  EXPECT_EQ(session.scalar("count"), 5.0);
  EXPECT_EQ(session.scalar("n"), 5.0);
  EXPECT_EQ(message_of([&] { session.scalar("x"); }), "input \"x\": is not a scalar, got f32[2]");
}

TEST_F(SessionTest, ParametersAndStatesAreReadAndWrittenByName) {
  Graph g;
  const Value w = g.parameter("w", {2}, Init::fill(3.0));
  const Value s = g.state("s", {2}, Init::ones());
  g.assign(g.add(s, w), s);
  Session session(g, *backend);
  EXPECT_EQ(session.read("w"), (Floats{3, 3}));
  session.step();
  EXPECT_EQ(session.read("s"), (Floats{4, 4}));
  write(session, "w", {1, 2});
  write(session, "s", {0, 10});
  session.step();
  EXPECT_EQ(session.read("s"), (Floats{1, 12}));
}

TEST_F(SessionTest, EffectsRunThoughNothingReadsThemAndDeadNodesDoNot) {
  Graph g;
  const Value n = g.state("n", {}, Init::zeros(), DType::u32);
  g.record(Increment{}, {n});
  g.unary(UnaryFn::tanh, g.input("never_written", {4}), 0.0, "dead");
  Session session(g, *backend);
  session.step();
  session.step();
  EXPECT_EQ(session.read_u32("n"), (U32s{2}));
}

TEST_F(SessionTest, KeepAllReadsEveryNode) {
  Graph g;
  const Value x = g.input("x", {2});
  const Value h = g.unary(UnaryFn::scale, x, 2.0, "h");
  const Value view = g.reshape(h, {2, 1}, "view");
  g.output("y", g.unary(UnaryFn::scale, view, 2.0));
  g.unary(UnaryFn::scale, h, 5.0, "unread");
  Session session(g, *backend, {.keep_all = true});
  write(session, "x", {1, 2});
  session.step();
  EXPECT_EQ(session.read("h"), (Floats{2, 4}));
  EXPECT_EQ(session.read("view"), (Floats{2, 4}));
  EXPECT_EQ(session.read("y"), (Floats{4, 8}));
  EXPECT_EQ(session.read("unread"), (Floats{10, 20}));
}

// ---- messages of write and read

TEST_F(SessionTest, WritingTheWrongThingSaysWhatWasExpected) {
  Graph g;
  const Value x = g.input("x", {3, 4});
  const Value labels = g.input_u32("labels", {3});
  g.constant({2}, {1.0}, DType::f32, "two");
  g.output("loss", g.cross_entropy(x, labels, {}, "ce"));
  g.output("alias", g.scale(x, 2.0));
  Session session(g, *backend);
  EXPECT_EQ(message_of([&] { write(session, "x", Floats(10)); }), "input \"x\": takes 12 values of f32[3, 4], got 10");
  EXPECT_EQ(message_of([&] { write_u32(session, "x", U32s(12)); }), "input \"x\": takes f32[3, 4], got u32 values");
  EXPECT_EQ(message_of([&] { write(session, "labels", Floats(3)); }), "input \"labels\": takes u32[3], got floating-point values");
  EXPECT_EQ(message_of([&] { session.write("labels", std::span<const double>(Doubles(3))); }),
            "input \"labels\": takes u32[3], got floating-point values");
  EXPECT_EQ(message_of([&] { write(session, "labls", Floats(3)); }),
            "no input, parameter or state is called \"labls\", did you mean \"labels\"");
  EXPECT_EQ(message_of([&] { write(session, "two", Floats(2)); }),
            "constant \"two\": is fixed, only inputs, parameters and states can be written");
  EXPECT_EQ(message_of([&] { write(session, "ce", Floats(1)); }),
            "cross_entropy \"ce\": is computed, only inputs, parameters and states can be written");
  EXPECT_EQ(message_of([&] { write(session, "alias", Floats(12)); }),
            "output \"alias\": is computed, only inputs, parameters and states can be written");
}

TEST_F(SessionTest, AStepNeedsEveryInputThatItReads) {
  Graph g;
  const Value x = g.input("x", {2}), view = g.reshape(g.input("through_view", {1, 2}), {2});
  g.output("y", g.add(x, view));
  Session session(g, *backend);
  EXPECT_EQ(message_of([&] { session.step(); }), "input \"x\": was never written");
  write(session, "x", {1, 2});
  EXPECT_EQ(message_of([&] { session.step(); }), "input \"through_view\": was never written");
  EXPECT_EQ(message_of([&] { session.read("through_view"); }), "input \"through_view\": was never written");
  write(session, "through_view", {1, 2});
  session.step();
  EXPECT_EQ(session.read("y"), (Floats{2, 4}));
}

TEST_F(SessionTest, ReadingTheWrongThingSaysWhy) {
  Graph g;
  const Value x = g.input("x", {3, 4});
  const Value h = g.unary(UnaryFn::tanh, x, 0.0, "hidden");
  const Value w = g.parameter("w", {2}, Init::ones());
  g.output("w_row", g.reshape(w, {1, 2}));
  g.output("y", g.unary(UnaryFn::exp, g.transpose(h), 0.0, "exp"));
  g.output("n", g.state("count", {}, Init::zeros(), DType::u32));
  g.unary(UnaryFn::exp, x, 0.0, "dead");
  Session session(g, *backend);
  EXPECT_EQ(message_of([&] { session.read("y"); }), "output \"y\": has no value before the first step");
  EXPECT_EQ(session.read("w_row"), (Floats{1, 1})) << "a view of a parameter has one";
  write(session, "x", Floats(12));
  session.step();
  const std::string not_kept = ": is not kept after a step, mark it with Graph::output or use PlanOptions::keep_all";
  EXPECT_EQ(message_of([&] { session.read("hidden"); }), "tanh \"hidden\"" + not_kept);
  EXPECT_EQ(message_of([&] { session.read("dead"); }), "exp \"dead\"" + not_kept);
  EXPECT_EQ(message_of([&] { session.read_f64(h); }), "tanh \"hidden\"" + not_kept);
  EXPECT_EQ(message_of([&] { session.read("hiden"); }), "no value is called \"hiden\", did you mean \"hidden\"");
  EXPECT_EQ(message_of([&] { session.read("n"); }), "output \"n\": is u32[], got a request for floating-point values");
  EXPECT_EQ(message_of([&] { session.read("count"); }), "state \"count\": is u32[], got a request for floating-point values");
  EXPECT_EQ(message_of([&] { session.read_u32("y"); }), "output \"y\": is f32[4, 3], got a request for u32 values");
  Floats room(5);
  EXPECT_EQ(message_of([&] { session.read("y", std::span(room)); }), "output \"y\": has 12 values of f32[4, 3], got room for 5");
  EXPECT_EQ(session.read("exp"), session.read("y")) << "the node of an output by its own name";
}

TEST_F(SessionTest, TheNewValueOfAStateIsNotReadableBeforeTheFirstStep) {
  Graph g;
  const Value s = g.state("s", {2}, Init::ones());
  g.assign(g.scale(s, 2.0), s, "doubled");
  Session session(g, *backend);
  EXPECT_EQ(message_of([&] { session.read("doubled"); }), "assign \"doubled\": has no value before the first step");
  session.step();
  EXPECT_EQ(session.read("doubled"), (Floats{2, 2}));
}

// ---- two sessions, one memory

TEST_F(SessionTest, ASecondSessionSharesParametersAndStatesByName) {
  Graph train(1), evaluate(2);
  const Value w = train.parameter("w", {2}, Init::normal(0, 1));
  train.assign(train.scale(w, 2.0), w);
  train.parameter("only_train", {2});
  const Value count = train.state("count", {}, Init::fill(5), DType::u32);
  train.record(Increment{}, {count});

  const Value x = evaluate.input("x", {2});
  evaluate.output("y", evaluate.mul(x, evaluate.parameter("w", {2}, Init::zeros())));
  evaluate.record(Increment{}, {evaluate.state("count", {}, Init::zeros(), DType::u32)});
  evaluate.parameter("own", {2}, Init::fill(4.0));

  Session owner(train, *backend);
  const Floats start = owner.read("w");
  Session guest(evaluate, owner);
  EXPECT_EQ(&guest.backend(), backend.get());
  EXPECT_EQ(owner.read("w"), start) << "sharing does not initialise again";
  EXPECT_EQ(guest.read("w"), start);
  EXPECT_EQ(guest.read("own"), (Floats{4, 4}));
  owner.step();
  write(guest, "x", {1, 10});
  guest.step();
  EXPECT_EQ(guest.read("y"), (Floats{2 * start[0], 20 * start[1]}));
  EXPECT_EQ(owner.read_u32("count"), (U32s{7}));
  write(guest, "w", {3, 4});
  EXPECT_EQ(owner.read("w"), (Floats{3, 4}));

  Session third(evaluate, guest);
  EXPECT_EQ(third.read("w"), (Floats{3, 4})) << "from a guest too";
  EXPECT_EQ(guest.memory_report().shared, 12u);
  EXPECT_EQ(guest.memory_report().parameters, 8u);
  EXPECT_EQ(guest.memory_report().states, 0u);
}

TEST_F(SessionTest, AGuestsInputsAndConstantsAreItsOwn) {
  Graph a, b;
  a.parameter("x", {2}, Init::ones());
  a.parameter("c", {2}, Init::ones());
  b.output("y", b.add(b.input("x", {2}), b.constant({2}, {5.0}, DType::f32, "c")));
  Session owner(a, *backend), guest(b, owner);
  EXPECT_EQ(message_of([&] { guest.step(); }), "input \"x\": was never written");
  write(guest, "x", {1, 2});
  guest.step();
  EXPECT_EQ(guest.read("y"), (Floats{6, 7}));
  EXPECT_EQ(owner.read("x"), (Floats{1, 1}));
}

TEST_F(SessionTest, SharingRefusesADifferentType) {
  Graph a, b, c;
  a.parameter("w", {3, 4});
  b.parameter("w", {4, 3});
  c.parameter("w", {3, 4}, Init::zeros(), DType::f64);
  Session owner(a, *backend);
  EXPECT_EQ(message_of([&] { Session guest(b, owner); }),
            "parameter \"w\": is f32[4, 3] here, f32[3, 4] in the session that shares its memory");
  EXPECT_EQ(message_of([&] { Session guest(c, owner); }),
            "parameter \"w\": is f64[3, 4] here, f32[3, 4] in the session that shares its memory");
}

// ---- memory

TEST_F(SessionTest, TheMemoryReportAddsUp) {
  Graph g;
  const Value x = g.input("x", {32, 32});
  Value h = g.matmul(x, g.parameter("w", {32, 32}));
  for (int i = 0; i < 3; ++i) h = g.transpose(h);
  g.output("y", g.add(h, g.constant({32}, {1.0})));
  g.state("s", {3}, Init::zeros());
  Session session(g, *backend);
  const MemoryReport r = session.memory_report();
  EXPECT_EQ(r.inputs, 4096u);
  EXPECT_EQ(r.parameters, 4096u);
  EXPECT_EQ(r.constants, 128u);
  EXPECT_EQ(r.states, 12u);
  EXPECT_EQ(r.arena, 2 * 4096u) << "a transpose reads one and writes another; add runs in place";
  EXPECT_EQ(r.arena_without_reuse, 5 * 4096u);
  EXPECT_EQ(r.workspace, session.plan().workspace_bytes());
  EXPECT_EQ(r.total, 4096 + 4096 + 128 + 12 + 8192 + r.workspace);
}

TEST(Memory, SizesReadWell) {
  MemoryReport r;
  r.parameters = 1023;
  r.states = 1536;
  r.arena = std::size_t{5} << 30;
  r.arena_without_reuse = (std::size_t{1} << 20) - 1;
  EXPECT_EQ(r.to_string(),
            "parameters      1023 B\n"
            "states           1.5 KiB\n"
            "inputs             0 B\n"
            "constants          0 B\n"
            "arena            5.0 GiB (without reuse 1.0 MiB)\n"
            "workspace          0 B\n"
            "total              0 B\n");
  r.shared = 20;
  EXPECT_NE(r.to_string().find("shared            20 B (parameters and states in another session's memory)\n"), std::string::npos);
}

}  // namespace
}  // namespace graft
