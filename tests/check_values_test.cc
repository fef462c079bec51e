// What a step refuses before anything runs, and what a session finds that is not finite.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/session_fixture.h"

namespace graft {
namespace {

using testing::Floats;
using testing::message_of;
using testing::U32s;
using testing::write;
using testing::write_u32;

class CheckValues : public testing::SessionTest {};

// ---- u32 values are checked before anything runs

TEST_F(CheckValues, IdsOutsideTheTableAreRefused) {
  Graph g;
  const Value ids = g.input_u32("ids", {2, 2});
  g.output("y", g.embedding(g.parameter("table", {65, 3}), g.reshape(ids, {4}), "embed"));
  Session session(g, *backend);
  write_u32(session, "ids", {0, 64, 1, 70});
  EXPECT_EQ(message_of([&] { session.step(); }), "embedding \"embed\": id 70 at position 3 is outside the table of 65 rows");
  write_u32(session, "ids", {0, 65, 1, 7});
  EXPECT_EQ(message_of([&] { session.step(); }), "embedding \"embed\": id 65 at position 1 is outside the table of 65 rows");
  write_u32(session, "ids", {0, 64, 1, 7});
  session.step();
}

TEST_F(CheckValues, LabelsOutsideTheClassesAreRefusedUnlessIgnored) {
  Graph g;
  const Value logits = g.parameter("logits", {3, 5}, Init::normal(0, 1));
  const Value labels = g.input_u32("labels", {3});
  CrossEntropyOptions options;
  options.ignore_index = 9;
  const CrossEntropyResult r = g.cross_entropy_with(logits, labels, options, "ce");
  g.output("loss", r.loss);
  g.output("counted", r.counted);
  Session session(g, *backend);
  write_u32(session, "labels", {4, 9, 5});
  EXPECT_EQ(message_of([&] { session.step(); }), "cross_entropy \"ce\": label 5 at position 2 is outside the 5 classes");
  write_u32(session, "labels", {4, kIgnoreIndex, 0});
  EXPECT_EQ(message_of([&] { session.step(); }), "cross_entropy \"ce\": label 4294967295 at position 1 is outside the 5 classes");
  write_u32(session, "labels", {4, 9, 0});
  session.step();
  EXPECT_EQ(session.scalar("counted"), 2.0);
}

TEST_F(CheckValues, GradientsCheckTheirIdsAndLabelsThoughTheForwardNodesAreDead) {
  Graph g;
  const Value ids = g.input_u32("ids", {2}), labels = g.input_u32("labels", {2});
  const Value logits = g.parameter("logits", {2, 5}), one = g.constant({}, {1.0});
  g.output("dtable", g.record(EmbeddingGrad{4}, {ids, g.parameter("dout", {2, 3})}, "de"));
  g.output("dlogits", g.record(CrossEntropyGrad{}, {logits, labels, g.constant({2}, {0.0}), one, one}, "dce"));
  Session session(g, *backend);
  write_u32(session, "ids", {0, 4});
  write_u32(session, "labels", {5, 0});
  EXPECT_EQ(message_of([&] { session.step(); }), "embedding_grad \"de\": id 4 at position 1 is outside the table of 4 rows");
  write_u32(session, "ids", {0, 3});
  EXPECT_EQ(message_of([&] { session.step(); }), "cross_entropy_grad \"dce\": label 5 at position 0 is outside the 5 classes");
}

TEST_F(CheckValues, LabelsOfLinearCrossEntropyAreCheckedAlsoByTheGradient) {
  for (const bool transposed : {false, true}) {
    Graph g;
    const Value x = g.parameter("x", {3, 2}), weight = g.parameter("weight", transposed ? Shape{5, 2} : Shape{2, 5});
    const Value labels = g.input_u32("labels", {3}), more = g.input_u32("more", {3}), one = g.constant({}, {1.0});
    g.output("loss", g.linear_cross_entropy(x, weight, labels, {.ignore_index = 9}, transposed, "lce").loss);
    const LinearCrossEntropyGrad grad = {{{Reduction::sum, 0.0, 8}, transposed}};
    g.output("dx", g.record(grad, {x, weight, more, g.constant({3}, {0.0}), one, one}, "dlce"));
    Session session(g, *backend);
    write_u32(session, "labels", {4, 9, 5});
    write_u32(session, "more", {4, 8, 9});
    EXPECT_EQ(message_of([&] { session.step(); }), "linear_cross_entropy \"lce\": label 5 at position 2 is outside the 5 classes");
    write_u32(session, "labels", {4, 9, 0});
    EXPECT_EQ(message_of([&] { session.step(); }),
              "linear_cross_entropy_grad \"dlce\": label 9 at position 2 is outside the 5 classes");
    write_u32(session, "more", {4, 8, 0});
    session.step();
  }
}

TEST_F(CheckValues, APositionOutsideTheCacheIsRefusedAndNothingRuns) {
  Graph g;
  const Value cache = g.state("cache", {4, 2}, Init::fill(-1.0));
  const Value steps = g.state("steps", {}, Init::zeros(), DType::u32);
  g.record(Increment{}, {steps});
  g.output("now", g.cache_write(g.input("row", {1, 2}), cache, g.input_u32("kv_pos", {}), "write"));
  Session session(g, *backend);
  write(session, "row", {1, 2});
  session.write("kv_pos", 3);
  session.step();
  EXPECT_EQ(session.read("cache"), (Floats{-1, -1, -1, -1, -1, -1, 1, 2}));
  session.write("kv_pos", 4);
  write(session, "row", {7, 8});
  EXPECT_EQ(message_of([&] { session.step(); }), "cache_write \"write\": position 4 is outside the cache of 4 rows");
  EXPECT_EQ(session.read("cache"), (Floats{-1, -1, -1, -1, -1, -1, 1, 2}));
  EXPECT_EQ(session.read("now"), (Floats{-1, -1, -1, -1, -1, -1, 1, 2}));
  EXPECT_EQ(session.read_u32("steps"), (U32s{1}));
  session.write("kv_pos", 0);
  session.step();
  EXPECT_EQ(session.read("cache"), (Floats{7, 8, -1, -1, -1, -1, 1, 2}));
}

TEST_F(CheckValues, PositionsLengthsAndSlotsOfSequencesAreRefused) {
  Graph g;
  const Value cache = g.state("cache", {12, 2}, Init::fill(-1.0));  // three sequences of four rows
  const CacheSlots slots = {3, g.input_u32("slots", {2})};
  const Value now = g.cache_write(g.input("rows", {4, 2}), cache, g.input_u32("kv_pos", {2}), slots, "write");
  g.output("y", g.cached_attention(g.constant({2, 2}, {1.0}), now, now, g.input_u32("kv_len", {2}), 1, 1, 2, {.slots = slots},
                                   "attend"));
  Session session(g, *backend);
  const auto fails_with = [&](const U32s& kv_pos, const U32s& kv_len, const U32s& in_slots, const std::string& message) {
    write_u32(session, "kv_pos", kv_pos);
    write_u32(session, "kv_len", kv_len);
    write_u32(session, "slots", in_slots);
    EXPECT_EQ(message_of([&] { session.step(); }), message);
    EXPECT_EQ(session.read("cache"), Floats(24, -1.0f)) << "nothing ran";
  };
  write(session, "rows", {1, 2, 3, 4, 5, 6, 7, 8});
  fails_with({0, 3}, {1, 1}, {0, 1}, "cache_write \"write\": position 3 to 4 of sequence 1 is outside the cache of 4 rows");
  fails_with({0xffffffffu, 2}, {1, 1}, {0, 1},
             "cache_write \"write\": position 4294967295 to 4294967296 of sequence 0 is outside the cache of 4 rows");
  fails_with({0, 2}, {1, 5}, {0, 1},
             "cached_attention \"attend\": kv_len of sequence 1 must be from 1 to 4, the rows of the cache, got 5");
  fails_with({0, 2}, {0, 4}, {0, 1},
             "cached_attention \"attend\": kv_len of sequence 0 must be from 1 to 4, the rows of the cache, got 0");
  fails_with({0, 2}, {1, 4}, {0, 3}, "cache_write \"write\": slot 3 at position 1 is outside the cache of 3 sequences");
  write_u32(session, "slots", {2, 0});
  session.step();
  EXPECT_EQ(session.read("cache"),
            (Floats{-1, -1, -1, -1, 5, 6, 7, 8, -1, -1, -1, -1, -1, -1, -1, -1, 1, 2, 3, 4, -1, -1, -1, -1}));
}

TEST_F(CheckValues, RowsWrittenAtOncePlaceAreCheckedForEachCache) {
  Graph g;  // one kv_pos for a write of one row and one of three
  const Value kv_pos = g.input_u32("kv_pos", {});
  g.cache_write(g.constant({1, 1}, {1.0}), g.state("a", {4, 1}), kv_pos, "one");
  g.cache_write(g.constant({3, 1}, {1.0}), g.state("b", {4, 1}), kv_pos, "three");
  Session session(g, *backend);
  session.write("kv_pos", 1);
  session.step();
  session.write("kv_pos", 2);
  EXPECT_EQ(message_of([&] { session.step(); }), "cache_write \"three\": position 2 to 4 is outside the cache of 4 rows");
}

TEST_F(CheckValues, PositionsKeptInStatesAreCheckedAsTheyStand) {
  Graph g;
  const Value cache = g.state("cache", {2, 1});
  const Value position = g.state("position", {}, Init::zeros(), DType::u32);
  const Value now = g.cache_write(g.constant({1, 1}, {5.0}), cache, position, "write");
  const Value next = g.record(Increment{}, {position});
  g.output("y", g.cached_attention(g.constant({1, 1}, {1.0}), now, now, next, 1, 1, 1, {}, "attend"));
  Session session(g, *backend);
  session.step();  // position 0, length 1
  session.step();  // position 1, length 2
  EXPECT_EQ(session.read("cache"), (Floats{5, 5}));
  EXPECT_EQ(message_of([&] { session.step(); }), "cache_write \"write\": position 2 is outside the cache of 2 rows");
  EXPECT_EQ(session.read_u32("position"), (U32s{2})) << "nothing ran";
  session.write("position", 1);
  session.step();
}

TEST_F(CheckValues, LengthsAreCountedThroughIncrements) {
  Graph g;
  const Value cache = g.state("cache", {2, 1});
  const Value position = g.state("position", {}, Init::zeros(), DType::u32);
  const Value next = g.record(Increment{}, {g.record(Increment{}, {position})});
  g.output("y", g.cached_attention(g.constant({1, 1}, {1.0}), cache, cache, next, 1, 1, 1, {}, "attend"));
  Session session(g, *backend);
  session.step();
  EXPECT_EQ(message_of([&] { session.step(); }),
            "cached_attention \"attend\": kv_len must be from 1 to 2, the rows of the cache, got 4");
}

TEST_F(CheckValues, AStateThatIsAssignedIsCheckedByWhatItIsAssigned) {
  Graph g;
  const Value held = g.state("held", {1}, Init::zeros(), DType::u32);
  const Value ids = g.assign(g.input_u32("ids", {1}), held);
  g.output("y", g.embedding(g.parameter("table", {3, 1}), ids, "embed"));
  Session session(g, *backend);
  write_u32(session, "ids", {3});
  EXPECT_EQ(message_of([&] { session.step(); }), "embedding \"embed\": id 3 at position 0 is outside the table of 3 rows");
  EXPECT_EQ(session.read_u32("held"), (U32s{0}));
}

TEST_F(CheckValues, LengthsOutsideTheCacheAreRefused) {
  Graph g;
  const Value cache = g.state("cache", {4, 2});
  g.output("y", g.cached_attention(g.constant({1, 2}, {1.0}), cache, cache, g.input_u32("kv_len", {}), 1, 1, 2, {}, "attend"));
  Session session(g, *backend);
  for (const std::uint32_t bad : {0u, 5u}) {
    session.write("kv_len", bad);
    EXPECT_EQ(message_of([&] { session.step(); }),
              "cached_attention \"attend\": kv_len must be from 1 to 4, the rows of the cache, got " + std::to_string(bad));
  }
  for (const std::uint32_t good : {1u, 4u}) {
    session.write("kv_len", good);
    session.step();
  }
}

TEST_F(CheckValues, OffsetsOfPackedSegmentsAreChecked) {
  Graph g;
  const Value q = g.parameter("q", {6, 2}), kv = g.parameter("kv", {4, 2});
  const Value q_offsets = g.input_u32("q_offsets", {4}), kv_offsets = g.input_u32("kv_offsets", {4});
  AttentionOptions options;
  options.segments = Segments::packed(q_offsets, kv_offsets);
  g.output("y", g.cross_attention(q, kv, kv, 1, 1, 2, options, "attend"));
  g.output("z", g.rope(g.parameter("x", {5, 2}), 100.0, 2, Segments::packed(g.input_u32("offsets", {2})), {}, "rope"));
  Session session(g, *backend);
  write_u32(session, "q_offsets", {0, 2, 2, 6});
  write_u32(session, "kv_offsets", {0, 1, 4, 4});
  write_u32(session, "offsets", {0, 5});
  session.step();
  const auto message = [&](std::string_view name, const U32s& bad, const U32s& good) {
    write_u32(session, name, bad);
    const std::string text = message_of([&] { session.step(); });
    write_u32(session, name, good);
    return text;
  };
  EXPECT_EQ(message("q_offsets", {1, 2, 2, 6}, {0, 2, 2, 6}), "multi_head_attn \"attend\": q_offsets must begin with 0, got 1");
  EXPECT_EQ(message("q_offsets", {0, 2, 2, 5}, {0, 2, 2, 6}),
            "multi_head_attn \"attend\": q_offsets must end with 6, the number of rows, got 5");
  EXPECT_EQ(message("kv_offsets", {0, 3, 1, 4}, {0, 1, 4, 4}),
            "multi_head_attn \"attend\": kv_offsets must never fall, got 1 after 3 at position 2");
  EXPECT_EQ(message("kv_offsets", {0, 1, 4, 6}, {0, 1, 4, 4}),
            "multi_head_attn \"attend\": kv_offsets must end with 4, the number of rows, got 6");
  EXPECT_EQ(message("offsets", {0, 6}, {0, 5}), "rope \"rope\": offsets must end with 5, the number of rows, got 6");
  session.step();
}

TEST_F(CheckValues, OffsetsOfAttentionGradientsAreChecked) {
  const auto message = [&](const Op& op) {
    Graph g;
    const Value q = g.parameter("q", {4, 2}), lse = g.parameter("lse", {4, 1});
    const Value offsets = g.constant({2}, {0, 3}, DType::u32);
    g.output("d", g.record(op, {q, q, q, lse, q, lse, offsets, offsets}, "grad"));
    return message_of([&] { Session session(g, *backend); });
  };
  const MultiHeadAttn attn{{1, 1, 2}, {}, 1.0, {SegmentLayout::Kind::packed, 0, 0}};
  const std::string what = " \"grad\": q_offsets must end with 4, the number of rows, got 3";
  EXPECT_EQ(message(MultiHeadAttnGradQ{attn}), "multi_head_attn_grad_q" + what);
  EXPECT_EQ(message(MultiHeadAttnGradK{attn}), "multi_head_attn_grad_k" + what);
  EXPECT_EQ(message(MultiHeadAttnGradV{attn}), "multi_head_attn_grad_v" + what);
}

TEST_F(CheckValues, ConstantsAreCheckedWhenTheSessionIsMade) {
  const auto make = [&](double id) {
    Graph g;
    g.output("y", g.embedding(g.parameter("table", {3, 1}), g.constant({2}, {id}, DType::u32), "embed"));
    Session session(g, *backend);
    session.step();
  };
  EXPECT_NO_THROW(make(2));
  EXPECT_EQ(message_of([&] { make(3); }), "embedding \"embed\": id 3 at position 0 is outside the table of 3 rows");
}

TEST_F(CheckValues, PositionsThatAStepComputesAreRefusedWhenTheSessionIsMade) {
  Graph g;
  const Value step = g.state("step", {}, Init::zeros(), DType::u32), skipped = g.state("skipped", {}, Init::zeros(), DType::u32);
  const Value counted = g.record(CountStep{}, {step, skipped, g.constant({}, {1.0})}, "count");
  g.cache_write(g.constant({1, 1}, {1.0}), g.state("cache", {2, 1}), counted, "write");
  EXPECT_EQ(message_of([&] { Session session(g, *backend); }),
            "cache_write \"write\": position must come from an input, a constant or a state as it is before the step, got the "
            "result of count_step \"count\"");
}

// ---- non-finite values

TEST_F(CheckValues, FirstNonfiniteNamesTheFirstNodeThatIsNot) {
  Graph g;
  const Value x = g.input("x", {2});
  g.unary(UnaryFn::exp, g.unary(UnaryFn::log, g.unary(UnaryFn::scale, x, 2.0, "twice"), 0.0, "log"), 0.0, "exp");
  Session session(g, *backend, {.keep_all = true});
  EXPECT_EQ(session.first_nonfinite(), "");
  write(session, "x", {1, 2});
  session.step();
  EXPECT_EQ(session.first_nonfinite(), "");
  write(session, "x", {1, -2});
  session.step();
  EXPECT_EQ(session.first_nonfinite(), "log") << "log of a negative number";
  write(session, "x", {1, 3e38f});
  session.step();
  EXPECT_EQ(session.first_nonfinite(), "twice") << "overflows to infinity";
  write(session, "x", {1, std::numeric_limits<float>::infinity()});
  EXPECT_EQ(session.first_nonfinite(), "x") << "sources come first";
}

TEST_F(CheckValues, FirstNonfiniteLetsTheLogSumOfARowThatSeesNothingBe) {
  Graph g;
  const Value q = g.parameter("q", {2, 2}, Init::ones()), kv = g.parameter("kv", {1, 2}, Init::ones());
  AttentionOptions options;
  options.mask = Mask::Kind::causal;
  const Value y = g.multi_head_attn(q, kv, kv, 1, 1, 2, true, options);
  g.output("lse", {y.node, 1});
  g.output("y", y);
  Session session(g, *backend);
  session.step();
  EXPECT_EQ(session.read("lse")[0], -std::numeric_limits<float>::infinity());
  EXPECT_EQ(session.first_nonfinite(), "");
  write(session, "q", {NAN, 1, 1, NAN});
  EXPECT_EQ(session.first_nonfinite(), "q");
}

}  // namespace
}  // namespace graft
