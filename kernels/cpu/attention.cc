#include <algorithm>
#include <cmath>
#include <limits>

#include "graft/graph.h"
#include "kernels/attention_siblings.h"
#include "kernels/cpu/attention_problem.h"
#include "kernels/cpu/map.h"
#include "kernels/cpu/turns.h"
#include "kernels/cpu/vector_math.h"

namespace graft::cpu {
namespace {

using Problem = AttentionProblem;
using Scratch = AttentionScratch;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// Scores [keys, kTileRows], a query a lane, become exp(score − max), 0 where a query does not see a key. s.maxima and s.sums go on
/// from the tiles before; s.factors is what the sums so far are worth now.
void softmax_tile(const TilePair& pair, const Scratch& s) {
  for (std::int64_t i = 0; i < pair.queries.rows; i += kLanes) {
    const LaneKeys seen(pair, i);
    float* scores = s.scores + i;
    Vec top = load(s.maxima + i);
    seen.for_each([&](std::int64_t j, auto partial) { top = max(top, seen.only(partial, j, load(scores + j * kTileRows))); });
    const Vec shift = top == -kInfinity ? Vec{} : top;  // all scores −∞: they weigh nothing, as if not seen
    const Vec factor = exp(load(s.maxima + i) - shift);
    Vec total = load(s.sums + i) * factor;
    seen.for_each([&](std::int64_t j, auto partial) {
      const Vec weight = exp_nonpositive(seen.only(partial, j, load(scores + j * kTileRows)) - shift);
      store(scores + j * kTileRows, weight);
      total += weight;
    });
    for (std::int64_t j = 0; j < seen.any.first; ++j) store(scores + j * kTileRows, Vec{});
    for (std::int64_t j = seen.any.last; j < pair.keys.rows; ++j) store(scores + j * kTileRows, Vec{});
    store(s.maxima + i, top);
    store(s.sums + i, total);
    store(s.factors + i, factor);
  }
}

/// out and lse of one tile of queries of one head.
template <class T>
void attend(const Problem& p, const Step& step, const Tile& queries, std::int64_t head, const Scratch& s) {
  const detail::Segment segment = p.segments[queries.segment];
  const std::int64_t kv_head = head / p.group, queries_ld = padded(queries.rows);
  float *queries_t = s.keys_t, *sums = s.sums_of_rows;
  std::fill_n(s.maxima, kTileRows, -kInfinity);
  std::fill_n(s.sums, kTileRows, 0.0f);
  bool begun = false;  // there is a sum
  transpose_tile(p.query<T>(0, queries.begin, head), p.q_cols, queries.rows, p.head_dim, queries_t, p.scale);
  for_segment_tiles(queries.segment, segment.kv_begin, segment.kv_end, [&](const Tile& keys) {
    const TilePair pair(p, queries, keys);
    if (pair.empty()) return;
    const TileRows k = float_rows(p.key<T>(1, keys.begin, kv_head), p.kv_cols, keys.rows, p.head_dim, s.douts);
    pair.for_key_groups([&](std::int64_t j, std::int64_t rows, detail::KeyRange seeing) {
      const detail::KeyRange at = whole_vectors(seeing);
      multiply(rows, at.last - at.first, p.head_dim, {k.data + j * k.ld, k.ld, 1}, queries_t + at.first, queries_ld,
               s.scores + j * kTileRows + at.first, kTileRows, false);
    });
    softmax_tile(pair, s);
    if (!begun && !pair.all_see()) std::fill_n(sums, queries.rows * p.width, 0.0f);
    for (std::int64_t i = 0; begun && i < queries.rows; ++i) {
      if (s.factors[i] == 1.0f) continue;
      for (std::int64_t j = i * p.width; j < (i + 1) * p.width; j += kLanes) store(sums + j, load(sums + j) * s.factors[i]);
    }
    const TileRows v = whole_rows(p.key<T>(2, keys.begin, kv_head), p.kv_cols, keys.rows, p.head_dim, s.rows);
    sum_key_rows(p, pair, {s.scores, 1, kTileRows}, v, sums, begun);
    begun = true;
  });
  if (!begun) std::fill_n(sums, queries.rows * p.width, 0.0f);
  for (std::int64_t i = 0; i < queries.rows; ++i) {
    const std::int64_t row = queries.begin + i;
    const bool blind = s.sums[i] == 0.0f;
    if (step.out[1]) output(step, 1)[row * p.heads + head] = s.maxima[i] + std::log(s.sums[i]);  // −∞ if blind
    if (!step.out[0]) continue;
    const Vec factor = broadcast(blind ? 0.0f : 1.0f / s.sums[i]);
    write_row(p, sums + i * p.width, output<T>(step) + row * p.q_cols + head * p.head_dim, [&](Vec x, Vec) { return x * factor; });
  }
}

/// out and lse of all queries.
void attend_to_all(const Problem& p, const Step& step, const Context& context) {
  const AttentionTasks tasks(p, step.workspace, context.threads.count(), Side::queries);
  parallel_near(context.threads, tasks.count * p.heads, [&](std::int64_t task, int thread) {
    const Scratch scratch(step.workspace, thread, p.head_dim);
    const Tile& queries = tasks.tiles[task / p.heads];
    with_types([&]<class T>() { attend<T>(p, step, queries, task % p.heads, scratch); }, p.in[0]);
  });
}

/// Scores [queries, kTileRows] become P = exp(score − lse), 0 where a query does not see a key, and s.grads, if wanted, from
/// dout·vᵀ to dS = P ∘ (dout·vᵀ − delta).
void tile_gradients(const Problem& p, const TilePair& pair, std::int64_t head, bool grads, const Scratch& s) {
  for (std::int64_t i = 0; i < pair.queries.rows; ++i) {
    float *scores = s.scores + i * kTileRows, *gradients = s.grads + i * kTileRows;
    const float lse = p.statistic(3, pair.queries.begin + i, head), delta = p.statistic(5, pair.queries.begin + i, head);
    const detail::KeyRange range = pair.range(i);
    const detail::KeyRange at = lse == -kInfinity ? detail::KeyRange{0, 0} : whole_vectors(range);
    for (std::int64_t j = at.first; j < at.last; j += kLanes) {
      const bool partial = j < range.first || j + kLanes > range.last;
      Vec weight = exp_nonpositive(load(scores + j) - lse);
      if (partial) weight = where_visible(weight, j, range, 0.0f);
      store(scores + j, weight);
      if (!grads) continue;
      const Vec gradient = weight * (load(gradients + j) - delta);
      store(gradients + j, partial ? where_visible(gradient, j, range, 0.0f) : gradient);
    }
    for (float* row : {scores, gradients}) {
      std::fill_n(row, at.first, 0.0f);
      std::fill(row + at.last, row + padded(pair.keys.rows), 0.0f);
    }
  }
}

/// How many steps the task has done, and the one before it that adds to the same dq; null for the first.
struct Turn {
  std::int64_t *mine, *before;
};

/// A head's rows of queries and of their dout.
struct QueryRows {
  TileRows q, dout;
};

/// P and dS of a tile of queries and one of keys, to s.scores and, if `grads`, s.grads.
template <class T>
QueryRows pair_gradients(const Problem& p, const TilePair& pair, std::int64_t head, bool grads, const Scratch& s) {
  const Tile& queries = pair.queries;
  const std::int64_t below = std::min(kTileRows, p.segments[queries.segment].q_end - queries.begin - queries.rows);
  const auto rows = [&](std::size_t input, float* copy) {
    const T* first = p.query<T>(input, queries.begin, head);
    prefetch_tile(first + queries.rows * p.q_cols, p.q_cols, below, p.head_dim);
    return whole_rows(first, p.q_cols, queries.rows, p.head_dim, copy);
  };
  const QueryRows all = {rows(0, s.queries), rows(4, s.douts)};
  score_products(p, pair, all.q, s.keys_t, s.scores);
  if (grads) score_products(p, pair, all.dout, s.values_t, s.grads);
  tile_gradients(p, pair, head, grads, s);
  return all;
}

/// Of q, k and v of type T, where they are not null. dq is summed in f32.
template <class T>
struct Gradients {
  float* dq;
  T *dk, *dv;
};

/// dk and dv of one tile of keys, where they are not null, summed over the query heads that read it and over the tiles of
/// queries, in that order; and what dq has of these keys, added to it if it is not null.
template <class T>
void key_gradient(const Problem& p, const Tile& keys, std::int64_t kv_head, const Gradients<T>& out, const Turn& turn,
                  const Scratch& s) {
  const detail::Segment segment = p.segments[keys.segment];
  const bool grads = out.dk != nullptr || out.dq != nullptr;
  const T *k = p.key<T>(1, keys.begin, kv_head), *v = p.key<T>(2, keys.begin, kv_head);
  transpose_tile(k, p.kv_cols, keys.rows, p.head_dim, s.keys_t, p.scale);
  if (grads) transpose_tile(v, p.kv_cols, keys.rows, p.head_dim, s.values_t);
  const TileRows key_rows = whole_rows(k, p.kv_cols, keys.rows, p.head_dim, s.rows);
  const auto clear = [&] {
    for (float* sums : {s.dk, s.dv}) std::fill_n(sums, keys.rows * p.width, 0.0f);
  };
  bool begun = false;  // there are sums
  std::int64_t steps = 0;
  for (std::int64_t head = kv_head * p.group; head < (kv_head + 1) * p.group; ++head) {
    for_segment_tiles(keys.segment, segment.q_begin, segment.q_end, [&](const Tile& queries) {
      const std::int64_t this_step = steps++;
      const TilePair pair(p, queries, keys);
      if (pair.empty()) return;
      const QueryRows rows = pair_gradients<T>(p, pair, head, grads, s);
      if (!begun && !pair.all_seen()) clear();
      if (out.dv != nullptr) add_query_rows(p, pair, s.scores, rows.dout, s.dv, begun);
      if (out.dk != nullptr) add_query_rows(p, pair, s.grads, rows.q, s.dk, begun);
      begun = true;
      if (out.dq == nullptr) return;
      float* dq = out.dq + queries.begin * p.q_cols + head * p.head_dim;
      prefetch_tile(dq, p.q_cols, queries.rows, p.head_dim);
      sum_key_rows(p, pair, {s.grads, kTileRows, 1}, key_rows, s.sums_of_rows, false);
      if (turn.before != nullptr) wait_for_turn(*turn.before, this_step);
      for (std::int64_t i = 0; i < queries.rows; ++i)
        if (pair.sees(i))
          write_row(p, s.sums_of_rows + i * p.width, dq + i * p.q_cols, [&](Vec x, Vec sum) { return fma(x, broadcast(p.scale), sum); });
      end_turn(*turn.mine, this_step + 1);
    });
  }
  end_turn(*turn.mine, steps);
  if (!begun) clear();
  for (std::int64_t j = 0; j < keys.rows; ++j) {
    const std::int64_t at = (keys.begin + j) * p.kv_cols + kv_head * p.head_dim;
    if (out.dk != nullptr) write_row(p, s.dk + j * p.width, out.dk + at, [&](Vec x, Vec) { return x * p.scale; });
    if (out.dv != nullptr) write_row(p, s.dv + j * p.width, out.dv + at, [](Vec x, Vec) { return x; });
  }
}

/// `in` as of MultiHeadAttnGradQ. The same bits together as one by one.
template <class T>
void attention_gradients(const MultiHeadAttn& attn, std::span<const TensorView> in, const detail::AttentionGradients& out,
                         void* workspace, const Context& context) {
  const Problem p(attn, in);
  const Threads threads = context.threads;
  const AttentionTasks tasks(p, workspace, threads.count(), Side::keys);
  const std::int64_t count = tasks.count * p.kv_heads;
  Gradients<T> sums{nullptr, static_cast<T*>(out.dk), static_cast<T*>(out.dv)};
  if (out.dq != nullptr) {
    sums.dq = std::is_same_v<T, float> ? static_cast<float*>(out.dq) : reinterpret_cast<float*>(tasks.progress + count);
    parallel_ranges(threads, in[0].size(), kElementGrain,
                    [&](std::int64_t begin, std::int64_t end) { std::fill(sums.dq + begin, sums.dq + end, 0.0f); });
  }
  std::fill_n(tasks.progress, count, 0);
  const auto gradient = [&](std::int64_t task, int thread) {
    const Tile& keys = tasks.tiles[task / p.kv_heads];
    std::int64_t* progress = tasks.progress + task;
    const bool first = keys.begin == p.segments[keys.segment].kv_begin;
    const Turn turn{progress, first ? nullptr : progress - p.kv_heads};
    key_gradient<T>(p, keys, task % p.kv_heads, sums, turn, Scratch(workspace, thread, p.head_dim));
  };
  // A task that waits for another must be begun after it.
  const bool waits = out.dq != nullptr && std::any_of(tasks.tiles, tasks.tiles + tasks.count, [&](const Tile& keys) {
                       return keys.begin != p.segments[keys.segment].kv_begin;
                     });
  if (!waits)
    parallel_near(threads, count, gradient);
  else
    parallel_tasks(threads, count, gradient);
  if (sums.dq != out.dq)
    map(
        threads, in[0].size(), static_cast<T*>(out.dq), [](Vec x) { return x; }, sums.dq);
}

void run_gradients(const MultiHeadAttn& attn, const Step& step, const detail::AttentionGradients& out, const Context& context) {
  with_types([&]<class T>() { attention_gradients<T>(attn, step.in, out, step.workspace, context); }, step.in[0]);
}

}  // namespace

std::size_t run_attention_gradients(std::span<const Step> steps, Context& context) {
  const detail::AttentionSiblings all = detail::attention_siblings(steps);
  if (all.attn == nullptr || is_f64(steps[0])) return 0;
  run_gradients(*all.attn, steps[0], all.out, context);
  return all.count;
}

void run(const MultiHeadAttn& op, const Step& step, Context& context) {
  if (is_f64(step)) return reference::run(op, step);
  if (step.out[0] || step.out[1]) attend_to_all(Problem(op, step.in), step, context);
}

void attend_to_caches(const CachedAttention& op, const Step& step, const Context& context) {
  const MultiHeadAttn attn{op.heads, detail::cache_mask(op), op.scale, {}};
  const TensorView outputs[] = {step.out[0], {}};  // no lse
  attend_to_all(Problem(attn, step.in, detail::SegmentList(detail::CacheRows(op.sequences, step.in, 1, 3))),
                {step.node, step.in, outputs, step.workspace}, context);
}

void run(const MultiHeadAttnGradQ& op, const Step& step, Context& context) {
  if (is_f64(step)) return reference::run(op, step);
  run_gradients(op.attn, step, {step.out[0].data, nullptr, nullptr}, context);
}

void run(const MultiHeadAttnGradK& op, const Step& step, Context& context) {
  if (is_f64(step)) return reference::run(op, step);
  run_gradients(op.attn, step, {nullptr, step.out[0].data, nullptr}, context);
}

void run(const MultiHeadAttnGradV& op, const Step& step, Context& context) {
  if (is_f64(step)) return reference::run(op, step);
  run_gradients(op.attn, step, {nullptr, nullptr, step.out[0].data}, context);
}

void run(const AttnDelta& op, const Step& step, Context& context) {
  if (is_f64(step)) return reference::run(op, step);
  if (!step.out[0]) return;
  const std::int64_t heads = op.heads.heads, head_dim = op.heads.head_dim;
  const auto of = [&]<class T>() {
    parallel_ranges(context.threads, step.in[0].rows() * heads, row_grain(head_dim), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const T *a = input<T>(step, 0) + i * head_dim, *b = input<T>(step, 1) + i * head_dim;
        Vec total{};
        for_each_vector(0, head_dim, [&](std::int64_t, const auto& get, const auto&) { total = fma(get(a), get(b), total); });
        output(step)[i] = sum(total);
      }
    });
  };
  with_types(of, step.in[0]);
}

std::size_t workspace(const MultiHeadAttn& op, const Graph& graph, const Node& node, int threads) {
  const std::int64_t q_rows = graph.shape(node.inputs[0]).rows(), kv_rows = graph.shape(node.inputs[1]).rows();
  const std::int64_t tiles = max_tiles(op.segments, q_rows, std::max(q_rows, kv_rows), kTileRows, graph.shape(node.inputs.back()));
  return attention_workspace(op.heads, tiles, threads);
}

std::size_t workspace(const MultiHeadAttnGradQ& op, const Graph& graph, const Node& node, int threads) {
  const TensorType& q = graph.type(node.inputs[0]);
  return workspace(op.attn, graph, node, threads) +
         (q.dtype == DType::bf16 ? static_cast<std::size_t>(q.shape.size()) * sizeof(float) : 0);
}

}  // namespace graft::cpu
