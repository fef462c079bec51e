// Draws what each query sees in every kind of attention, as the kernels compute it: one SVG each, in the folder given (default: here).
#include <cstdio>

#include "graft/graft.h"

namespace {

using namespace graft;
using report::AttentionMap;

constexpr std::int64_t kHeadDim = 2;

/// The attention of `queries` to `keys` with scores that are all equal, so that each row spreads evenly over what it sees. Sequences are put along the
/// diagonal of one map.
AttentionMap map_of(std::int64_t queries, std::int64_t keys, const Mask& mask, const SegmentLayout& layout = {},
                    const std::vector<std::uint32_t>& offsets = {}) {
  Graph g;
  const Value q = g.constant({queries, kHeadDim}, {0.0}), k = g.constant({keys, kHeadDim}, {0.0}),
              v = g.constant({keys, kHeadDim}, {1.0});
  std::vector<Value> inputs = {q, k, v};
  if (!offsets.empty()) inputs.insert(inputs.end(), 2, g.input_u32("offsets", {static_cast<std::int64_t>(offsets.size())}));
  g.output("out", g.record(MultiHeadAttn{{1, 1, kHeadDim}, mask, 1.0, layout}, inputs, "attention"));
  report::keep_attention(g);
  const auto backend = cpu_backend();
  Session session(g, *backend);
  if (!offsets.empty()) session.write("offsets", offsets);
  session.step();
  const std::int64_t sequences = !offsets.empty()      ? static_cast<std::int64_t>(offsets.size()) - 1
                                 : layout.q_length > 0 ? queries / layout.q_length
                                                       : 1;
  AttentionMap all{"attention", 0, 0, queries, keys, std::vector<double>(static_cast<std::size_t>(queries * keys))};
  std::int64_t row = 0, column = 0;
  for (std::int64_t s = 0; s < sequences; ++s) {
    const AttentionMap one = report::attention_map(session, "attention", 0, s);
    for (std::int64_t i = 0; i < one.rows; ++i)
      for (std::int64_t j = 0; j < one.cols; ++j)
        all.weights[static_cast<std::size_t>((row + i) * keys + column + j)] =
            one.weights[static_cast<std::size_t>(i * one.cols + j)];
    row += one.rows, column += one.cols;
  }
  return all;
}

/// Decoding: `queries` new tokens attend to the first kv_len rows of a cache.
AttentionMap cache(std::int64_t queries, std::int64_t max_seq, std::int64_t kv_len) {
  AttentionMap map = map_of(queries, kv_len, {Mask::Kind::causal});
  AttentionMap wide{map.node, 0, 0, queries, max_seq, std::vector<double>(static_cast<std::size_t>(queries * max_seq))};
  for (std::int64_t i = 0; i < queries; ++i)
    for (std::int64_t j = 0; j < kv_len; ++j)
      wide.weights[static_cast<std::size_t>(i * max_seq + j)] = map.weights[static_cast<std::size_t>(i * kv_len + j)];
  return wide;
}

}  // namespace

int main(int argc, char** argv) {
  const std::filesystem::path folder = argc > 1 ? argv[1] : ".";
  const Mask full{Mask::Kind::full}, causal{Mask::Kind::causal};
  struct Picture {
    const char *file, *title;
    AttentionMap map;
  };
  const std::vector<Picture> pictures = {
      {"mask_full", "full", map_of(10, 10, full)},
      {"mask_causal", "causal", map_of(10, 10, causal)},
      {"mask_causal_longer", "causal, 4 queries, 10 keys", map_of(4, 10, causal)},
      {"mask_window", "window 4", map_of(10, 10, {Mask::Kind::window, 4})},
      {"mask_cross", "cross, 6 queries, 10 keys", map_of(6, 10, full)},
      {"mask_uniform", "causal, uniform(5)", map_of(10, 10, causal, {SegmentLayout::Kind::uniform, 5, 5})},
      {"mask_packed", "causal, packed 0, 3, 4, 10", map_of(10, 10, causal, {SegmentLayout::Kind::packed}, {0, 3, 4, 10})},
      {"mask_cache", "cache of 10, kv_len 7", cache(1, 10, 7)},
      {"mask_cache_prefill", "3 new tokens, kv_len 7", cache(3, 10, 7)},
  };
  for (const Picture& picture : pictures) {
    report::write_picture(folder / (std::string(picture.file) + ".svg"), report::mask_svg(picture.map, picture.title));
    std::printf("%s.svg: %s\n", picture.file, picture.title);
  }
}
