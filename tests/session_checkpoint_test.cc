#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

#include "tests/session_fixture.h"

namespace graft {
namespace {

using testing::Doubles;
using testing::Floats;
using testing::message_of;
using testing::U32s;
using testing::write;

class SessionCheckpoint : public testing::SessionTest {};

Graph saved_graph(Shape w = {2, 3}, DType dtype = DType::f32) {
  Graph g(11);
  const Value p = g.parameter("w", w, Init::normal(0, 1), dtype);
  g.parameter("b", {3}, Init::ones(), dtype);
  g.state("optimizer/exp_avg/w", w, Init::zeros(), dtype);
  g.record(Increment{}, {g.state("optimizer/step", {}, Init::fill(41), DType::u32)});
  g.state("cache", {8}, Init::ones(), dtype, false);
  g.output("y", g.scale(p, 2.0));
  return g;
}

TEST_F(SessionCheckpoint, ASnapshotHoldsParametersAndSavedStatesByPath) {
  const Graph g = saved_graph();
  Session session(g, *backend);
  session.step();
  const Checkpoint c = session.snapshot();
  std::vector<std::string> paths;
  for (const SavedTensor& t : c.tensors) paths.push_back(t.path);
  EXPECT_EQ(paths, (std::vector<std::string>{"model/w", "model/b", "optimizer/exp_avg/w", "optimizer/step"}));
  EXPECT_EQ(c.step, 42);
  EXPECT_EQ(c.graph_hash, g.hash());
  EXPECT_EQ(c.tensors[0].type, (TensorType{DType::f32, {2, 3}}));
  Floats w(6);
  ASSERT_EQ(c.tensors[0].bytes.size(), 24u);
  std::memcpy(w.data(), c.tensors[0].bytes.data(), 24);
  EXPECT_EQ(w, session.read("w"));
}

TEST_F(SessionCheckpoint, RestoreBringsBackEveryBit) {
  Session a(saved_graph(), *backend), b(saved_graph(), *backend);
  write(a, "w", {1, 2, 3, 4, 5, 6});
  write(a, "optimizer/exp_avg/w", {6, 5, 4, 3, 2, 1});
  a.step();
  write(b, "cache", Floats(8, 3.0f));
  Checkpoint c = a.snapshot();
  c.tensors.push_back({"data/train", {DType::u32, {4}}, std::vector<std::byte>(16)});
  b.restore(c);
  EXPECT_EQ(b.read("w"), (Floats{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(b.read("optimizer/exp_avg/w"), (Floats{6, 5, 4, 3, 2, 1}));
  EXPECT_EQ(b.read_u32("optimizer/step"), (U32s{42}));
  EXPECT_EQ(b.read("cache"), Floats(8, 3.0f)) << "not saved, not touched";
}

TEST_F(SessionCheckpoint, RestoreListsEverythingThatDoesNotFitAndChangesNothing) {
  Session a(saved_graph({3, 4}), *backend), b(saved_graph({4, 3}), *backend);
  write(a, "b", {7, 7, 7});
  Checkpoint c = a.snapshot();
  c.tensors.erase(c.tensors.begin() + 3);  // optimizer/step
  c.tensors.push_back({"model/extra", {DType::f32, {3}}, std::vector<std::byte>(12)});
  const Floats before = b.read("w");
  EXPECT_EQ(
      message_of([&] { b.restore(c); }),
      "checkpoint does not fit: missing \"optimizer/step\" u32[]; unexpected \"model/extra\" f32[3]; "
      "\"model/w\" is f32[3, 4] in the file, f32[4, 3] here; \"optimizer/exp_avg/w\" is f32[3, 4] in the file, f32[4, 3] here");
  EXPECT_EQ(b.read("w"), before);
  EXPECT_EQ(b.read("b"), (Floats{1, 1, 1})) << "though this one would have fitted";
}

TEST_F(SessionCheckpoint, RestoreRefusesTensorsOfTheWrongLengthAndDoubles) {
  Session session(saved_graph(), *backend);
  Checkpoint c = session.snapshot();
  c.tensors[1].bytes.resize(11);
  c.tensors.push_back(c.tensors[3]);
  EXPECT_EQ(message_of([&] { session.restore(c); }),
            "checkpoint does not fit: \"optimizer/step\" is there twice; \"model/b\" holds 11 bytes, f32[3] takes 12");
}

TEST_F(SessionCheckpoint, OtherFloatTypesLoadOnlyIfAsked) {
  Session narrow(saved_graph(), *backend), wide(saved_graph({2, 3}, DType::f64), *backend);
  write(narrow, "w", {0.1f, 0.2f, 3, 4, 5, 6});
  EXPECT_EQ(message_of([&] { wide.restore(narrow.snapshot()); }),
            "checkpoint does not fit: \"model/w\" is f32[2, 3] in the file, f64[2, 3] here; \"model/b\" is f32[3] in the file, "
            "f64[3] here; "
            "\"optimizer/exp_avg/w\" is f32[2, 3] in the file, f64[2, 3] here");
  wide.restore(narrow.snapshot(), true);
  EXPECT_EQ(wide.read_f64("w"), (Doubles{0.1f, 0.2f, 3, 4, 5, 6}));
  wide.write("w", std::span<const double>(Doubles{0.1, 0.2, 1, 1, 1, 1}));
  narrow.restore(wide.snapshot(), true);
  EXPECT_EQ(narrow.read("w"), (Floats{0.1f, 0.2f, 1, 1, 1, 1}));

  Checkpoint c = narrow.snapshot();
  c.tensors[3].type.dtype = DType::f32;
  EXPECT_EQ(message_of([&] { narrow.restore(c, true); }),
            "checkpoint does not fit: \"optimizer/step\" is f32[] in the file, u32[] here")
      << "counters are never converted";
}

TEST_F(SessionCheckpoint, RestoreParametersTakesTheModelAlone) {
  Session trained(saved_graph(), *backend);
  write(trained, "w", {1, 2, 3, 4, 5, 6});
  Graph g;
  g.parameter("w", {2, 3});
  g.parameter("b", {3});
  g.state("kv", {4}, Init::ones());
  Session session(g, *backend);
  session.restore_parameters(trained.snapshot());
  EXPECT_EQ(session.read("w"), (Floats{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(session.read("b"), (Floats{1, 1, 1}));
  EXPECT_EQ(session.read("kv"), (Floats{1, 1, 1, 1}));

  Graph other;
  other.parameter("w", {2, 3});
  other.parameter("c", {3});
  Session misfit(other, *backend);
  EXPECT_EQ(message_of([&] { misfit.restore_parameters(trained.snapshot()); }),
            "checkpoint does not fit: missing \"model/c\" f32[3]; unexpected \"model/b\" f32[3]");
  EXPECT_EQ(misfit.read("w"), Floats(6));
}

TEST_F(SessionCheckpoint, TwoTensorsOfOnePathAreNotSaved) {
  Graph g;
  g.parameter("w", {1});
  g.state("model/w", {1});
  Session session(g, *backend);
  EXPECT_EQ(message_of([&] { session.snapshot(); }), "state \"model/w\": another tensor is saved as \"model/w\" too");
}

TEST_F(SessionCheckpoint, SaveAndLoadGoThroughAFile) {
  const std::filesystem::path file = std::filesystem::path(::testing::TempDir()) / "graft_session_test.h5";
  Session a(saved_graph(), *backend), b(saved_graph(), *backend), misfit(saved_graph({3, 2}), *backend);
  write(a, "w", {1, 2, 3, 4, 5, 6});
  a.step();
  a.save(file);
  b.load(file);
  EXPECT_EQ(b.read("w"), a.read("w"));
  EXPECT_EQ(b.read_u32("optimizer/step"), (U32s{42}));
  EXPECT_EQ(message_of([&] { misfit.load(file); }), "checkpoint \"" + file.string() +
                                                        "\" does not fit: \"model/w\" is f32[2, 3] in the file, f32[3, 2] here; "
                                                        "\"optimizer/exp_avg/w\" is f32[2, 3] in the file, f32[3, 2] here");
  std::filesystem::remove(file);
}

TEST_F(SessionCheckpoint, LoadRefusesOtherFloatTypes) {
  const std::filesystem::path file = std::filesystem::path(::testing::TempDir()) / "graft_session_f64.h5";
  Session narrow(saved_graph(), *backend), wide(saved_graph({2, 3}, DType::f64), *backend);
  wide.save(file);
  EXPECT_EQ(
      message_of([&] { narrow.load(file); }),
      "checkpoint \"" + file.string() +
          "\" does not fit: \"model/w\" is f64[2, 3] in the file, f32[2, 3] here; \"model/b\" is f64[3] in the file, f32[3] here; "
          "\"optimizer/exp_avg/w\" is f64[2, 3] in the file, f32[2, 3] here");
  std::filesystem::remove(file);
}

TEST_F(SessionCheckpoint, ADamagedFileLeavesTheSessionAsItWas) {
  const std::filesystem::path file = std::filesystem::path(::testing::TempDir()) / "graft_session_damaged.h5";
  Session a(saved_graph(), *backend), b(saved_graph(), *backend);
  write(a, "w", {1, 2, 3, 4, 5, 6});
  a.save(file);
  std::filesystem::resize_file(file, std::filesystem::file_size(file) - 1);
  const Checkpoint before = b.snapshot();
  EXPECT_NE(message_of([&] { b.load(file); }).find("is truncated"), std::string::npos);
  const Checkpoint after = b.snapshot();
  for (std::size_t i = 0; i < before.tensors.size(); ++i)
    EXPECT_TRUE(before.tensors[i].bytes == after.tensors[i].bytes) << before.tensors[i].path;
  std::filesystem::remove(file);
}

TEST_F(SessionCheckpoint, OnlyTheCounterOfUpdatesIsTheStep) {
  Graph counted, other;
  counted.state("optimizer/step", {}, Init::fill(41), DType::u32);
  counted.state("rng/counter", {}, Init::fill(7), DType::u32);
  other.state("optimizer/step", {}, Init::fill(41));
  EXPECT_EQ(Session(counted, *backend).snapshot().step, 41);
  EXPECT_EQ(Session(other, *backend).snapshot().step, 0);
}

}  // namespace
}  // namespace graft
