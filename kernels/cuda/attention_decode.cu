// Attention against a cache: few queries, many keys, all of whose bytes are read once a kv head. Flash-decoding (Dao et al. 2023): the keys are split over blocks, and a second
// kernel joins the parts, in their order. A chunk of many queries goes to attention_mma.cu where that serves it.
#include <algorithm>
#include <cmath>

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/map.cuh"

namespace graft::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kEach = 8;     // elements of a head that a thread holds of each row

/// Blocks that keep any GPU busy; keys that make a part of their own worth while.
constexpr std::int64_t kEnoughBlocks = 512, kLeastKeys = 128, kMostParts = 64;

struct DecodeProblem {
  std::int64_t max_seq, window;  ///< rows of a sequence in the cache; 0: no window
  int rows, heads, kv_heads, head_dim;
  int lanes;   ///< neighbours in a warp that hold a row together, a power of two
  int queries;  ///< that a block answers, rows and query heads of one kv head: 1, 4 or 8
  int chunks;   ///< of so many queries
  int parts;
  float scale;

  __host__ __device__ int group() const { return heads / kv_heads; }
};

/// `in`, q and the first cache, are what the op's inputs are.
DecodeProblem problem_of(const CachedAttention& op, const Shape& q, const Shape& cache, std::int64_t count) {
  const AttentionShape& heads = op.heads;
  DecodeProblem p = {};
  p.max_seq = cache.rows() / (op.sequences > 0 ? op.sequences : count);
  p.window = op.window;
  p.rows = static_cast<int>(q.rows() / count);
  p.heads = static_cast<int>(heads.heads);
  p.kv_heads = static_cast<int>(heads.kv_heads);
  p.head_dim = static_cast<int>(heads.head_dim);
  for (p.lanes = 1; p.lanes * kEach < p.head_dim; p.lanes *= 2) {
  }
  const int all = p.rows * p.group();
  p.queries = all == 1 ? 1 : all <= 4 ? 4 : 8;
  p.chunks = (all + p.queries - 1) / p.queries;
  p.scale = static_cast<float>(op.scale);
  const std::int64_t blocks = count * p.kv_heads * p.chunks;
  p.parts = static_cast<int>(std::clamp<std::int64_t>(std::min(kEnoughBlocks / blocks, p.max_seq / kLeastKeys), 1, kMostParts));
  return p;
}

/// What a part found of one query: its weights' sum and weighted values relative to its largest score. In the workspace: `parts` times the maxima of all queries, then sums, then values.
struct Partial {
  float *maxima, *sums, *values;
};
__host__ __device__ Partial partial_of(float* workspace, std::int64_t queries, int parts) { return {workspace, workspace + parts * queries, workspace + 2 * parts * queries}; }

__device__ __forceinline__ float weight_of(float x) { return exp2f(x * kLog2E); }

/// Elements begin … begin + 7 of a head; 0 behind its end.
template <class T>
__device__ __forceinline__ void load_each(float (&to)[kEach], const T* head, int begin, int head_dim, bool there) {
  if (there && head_dim % kEach == 0 && begin < head_dim) {
#pragma unroll
    for (int part = 0; part < kEach / kPack<T>; ++part) {
      const auto pack = load_pack<kPack<T>>(head + begin + part * kPack<T>);
#pragma unroll
      for (int e = 0; e < kPack<T>; ++e) to[part * kPack<T> + e] = to_float(pack.at[e]);
    }
    return;
  }
#pragma unroll
  for (int e = 0; e < kEach; ++e) to[e] = there && begin + e < head_dim ? to_float(head[begin + e]) : 0.0f;
}

/// Block ((sequence·kv_heads + kv head)·chunks + chunk)·parts + part: the chunk's queries against the part's keys. `lanes` threads hold a row of the cache, so that a block reads
/// kThreads / lanes of them at once; each such group of threads has maxima, sums and values of its own, joined at the end.
template <class T, int kQueries>
__global__ void __launch_bounds__(kThreads) decode_kernel(DecodeProblem p, const T* q, const T* k, const T* v, const std::uint32_t* kv_len, const std::uint32_t* slots, T* out,
                                                          float* workspace) {
  const int part = static_cast<int>(blockIdx.x) % p.parts, chunk = static_cast<int>(blockIdx.x) / p.parts % p.chunks;
  const int kv_head = static_cast<int>(blockIdx.x) / p.parts / p.chunks % p.kv_heads;
  const std::int64_t sequence = static_cast<int>(blockIdx.x) / p.parts / p.chunks / p.kv_heads;
  const std::int64_t queries = gridDim.x / p.parts / p.chunks / p.kv_heads * p.rows * p.heads;  // of all sequences
  const int member = static_cast<int>(threadIdx.x) % p.lanes, own = static_cast<int>(threadIdx.x) / p.lanes, groups = kThreads / p.lanes;
  const std::int64_t length = kv_len[sequence], cache = (slots != nullptr ? slots[sequence] : sequence) * p.max_seq;
  const std::int64_t kv_cols = std::int64_t{p.kv_heads} * p.head_dim;

  // Query n of a kv head is head n % group of row n / group; it stands at `place`, and is query `index` of all.
  const int first_query = chunk * kQueries, count = std::min(kQueries, p.rows * p.group() - first_query);
  const auto place = [&](int m) { return length - p.rows + (first_query + m) / p.group(); };
  const auto index = [&](int m) {
    const int n = first_query + m;
    return (sequence * p.rows + n / p.group()) * p.heads + kv_head * p.group() + n % p.group();
  };
  // The keys that any of them sees, and this part's share.
  const std::int64_t last = place(count - 1) + 1, first = p.window > 0 ? std::max(place(0) - p.window + 1, std::int64_t{0}) : 0;
  const std::int64_t share = (last - first + p.parts - 1) / p.parts, begin = first + part * share, end = std::min(begin + share, last);

  float query[kQueries][kEach], values[kQueries][kEach], maxima[kQueries], sums[kQueries];
#pragma unroll
  for (int m = 0; m < kQueries; ++m) {
    load_each(query[m], q + (m < count ? index(m) : 0) * p.head_dim, member * kEach, p.head_dim, m < count);  // index(m) alone takes 50 registers more
    maxima[m] = -INFINITY;
    sums[m] = 0.0f;
#pragma unroll
    for (int e = 0; e < kEach; ++e) values[m][e] = 0.0f;
  }
#pragma unroll 2
  for (std::int64_t at = begin; at < end; at += groups) {
    const std::int64_t key = at + own, row = (cache + key) * kv_cols + std::int64_t{kv_head} * p.head_dim;
    float key_row[kEach], value_row[kEach];
    load_each(key_row, k + row, member * kEach, p.head_dim, key < end);
    load_each(value_row, v + row, member * kEach, p.head_dim, key < end);
#pragma unroll
    for (int m = 0; m < kQueries; ++m) {
      if (m >= count) break;  // the same for all threads
      float score = 0.0f;
#pragma unroll
      for (int e = 0; e < kEach; ++e) score += query[m][e] * key_row[e];
      for (int step = p.lanes / 2; step > 0; step /= 2) score += __shfl_xor_sync(kFullWarp, score, step);
      if (key >= end || key > place(m) || (p.window > 0 && key <= place(m) - p.window)) continue;  // its values may be infinite or NaN
      score *= p.scale;
      const float top = fmaxf(maxima[m], score), shift = top == -INFINITY ? 0.0f : top;
      const float factor = weight_of(maxima[m] - shift), weight = weight_of(score - shift);
      maxima[m] = top;
      sums[m] = sums[m] * factor + weight;
#pragma unroll
      for (int e = 0; e < kEach; ++e) values[m][e] = values[m][e] * factor + weight * value_row[e];
    }
  }

  // Join the groups, in their order.
  float* all_values = shared_array<float, kThreads * kEach, struct Values>();  // of one query at a time
  const Partial partial = partial_of(workspace, queries, p.parts);
#pragma unroll
  for (int m = 0; m < kQueries; ++m) {
    if (m >= count) break;
    const float top = block_max<struct Maxima>(maxima[m]), shift = top == -INFINITY ? 0.0f : top, factor = weight_of(maxima[m] - shift);
    const float sum = block_sum<struct Sums>(member == 0 ? sums[m] * factor : 0.0f);  // its barriers let nobody overtake the query before
#pragma unroll
    for (int e = 0; e < kEach; ++e) all_values[static_cast<int>(threadIdx.x) * kEach + e] = values[m][e] * factor;
    __syncthreads();
    for (int d = static_cast<int>(threadIdx.x); d < p.head_dim; d += kThreads) {
      float value = 0.0f;
      for (int g = 0; g < groups; ++g) value += all_values[g * p.lanes * kEach + d];
      if (p.parts == 1) {
        out[index(m) * p.head_dim + d] = from_float<T>(sum == 0.0f ? 0.0f : value / sum);
      } else {
        partial.values[(part * queries + index(m)) * p.head_dim + d] = value;
      }
    }
    if (p.parts > 1 && threadIdx.x == 0) {
      partial.maxima[part * queries + index(m)] = top;
      partial.sums[part * queries + index(m)] = sum;
    }
  }
}

/// out of the parts: a block a query and head.
template <class T>
__global__ void join_kernel(std::int64_t queries, int parts, int head_dim, float* workspace, T* out) {
  const Partial partial = partial_of(workspace, queries, parts);
  const std::int64_t index = blockIdx.x;
  float top = -INFINITY, sum = 0.0f;
  for (int part = 0; part < parts; ++part) top = fmaxf(top, partial.maxima[part * queries + index]);
  const float shift = top == -INFINITY ? 0.0f : top;
  for (int part = 0; part < parts; ++part) sum += partial.sums[part * queries + index] * weight_of(partial.maxima[part * queries + index] - shift);
  for (int d = static_cast<int>(threadIdx.x); d < head_dim; d += static_cast<int>(blockDim.x)) {
    float value = 0.0f;
    for (int part = 0; part < parts; ++part)
      value += partial.values[(part * queries + index) * head_dim + d] * weight_of(partial.maxima[part * queries + index] - shift);
    out[index * head_dim + d] = from_float<T>(sum == 0.0f ? 0.0f : value / sum);
  }
}

/// Rows of a sequence from which on it goes to tensor cores, whose blocks have room for 128 queries and do not share the keys of a sequence. By reckoning, not measured.
constexpr std::int64_t kManyRows = 32;

/// A chunk as attention of sequences whose keys' lengths are known to the device alone.
AttentionProblem chunk_problem(const CachedAttention& op, std::span<const TensorView> in) {
  const std::int64_t count = in[3].size(), rows = in[0].rows() / count, max_seq = in[1].rows() / (op.sequences > 0 ? op.sequences : count);
  const Mask mask = op.window > 0 ? Mask{Mask::Kind::window, op.window} : Mask{Mask::Kind::causal, 0};
  AttentionProblem p = attention_problem(MultiHeadAttn{op.heads, mask, op.scale, {SegmentLayout::Kind::uniform, rows, max_seq}}, in);
  p.kv_lengths = in[3].as<const std::uint32_t>();
  if (op.sequences > 0) p.slots = in[4].as<const std::uint32_t>();
  return p;
}

bool is_chunk(const CachedAttention& op, const TensorType& q, std::int64_t count) {
  return q.shape.rows() / count >= kManyRows && takes_mma(op.heads.head_dim, static_cast<float>(op.scale), q.dtype);
}

}  // namespace

void run(const CachedAttention& op, const Step& step, Context& context) {
  if (!step.out[0]) return;
  const std::int64_t count = step.in[3].size(), queries = step.in[0].rows() * op.heads.heads;
  if (is_chunk(op, step.in[0].type, count)) {
    return forward_mma(chunk_problem(op, step.in), step.in[0].as<const bf16>(), step.in[1].as<const bf16>(), step.in[2].as<const bf16>(), step.out[0].as<bf16>(), nullptr, context);
  }
  const DecodeProblem p = problem_of(op, step.in[0].type.shape, step.in[1].type.shape, count);
  auto* workspace = static_cast<float*>(step.workspace);
  with_float_type(step.in[0].type.dtype, [&]<class T>() {
    auto* const kernel = p.queries == 1 ? decode_kernel<T, 1> : p.queries == 4 ? decode_kernel<T, 4> : decode_kernel<T, 8>;
    launch(kernel, LaunchShape{dim3(static_cast<unsigned>(count * p.kv_heads * p.chunks * p.parts)), dim3(kThreads)}, context.stream, p, step.in[0].as<const T>(),
           step.in[1].as<const T>(), step.in[2].as<const T>(), step.in[3].as<const std::uint32_t>(),
           op.sequences > 0 ? step.in[4].as<const std::uint32_t>() : nullptr, step.out[0].as<T>(), workspace);
    if (p.parts > 1)
      launch(join_kernel<T>, LaunchShape{dim3(static_cast<unsigned>(queries)), dim3(kThreads)}, context.stream, queries, p.parts, p.head_dim, workspace, step.out[0].as<T>());
  });
}

std::size_t workspace(const CachedAttention& op, const Graph& graph, const Node& node) {
  const Shape &q = graph.shape(node.inputs[0]), &cache = graph.shape(node.inputs[1]);
  const std::int64_t count = graph.shape(node.inputs[3]).size();
  const DecodeProblem p = problem_of(op, q, cache, count);
  if (p.parts == 1 || is_chunk(op, graph.type(node.inputs[0]), count)) return 0;
  return sizeof(float) * static_cast<std::size_t>(p.parts * q.rows() * op.heads.heads * (2 + op.heads.head_dim));
}

}  // namespace graft::cuda
