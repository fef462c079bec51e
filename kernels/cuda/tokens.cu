#include <bit>

#include "graft/graph.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/row_copy.cuh"

namespace graft::cuda {
namespace {

template <class Unit>
__global__ void embedding_kernel(std::int64_t units, const Unit* table, const std::uint32_t* ids, Unit* out) {
  copy_row(table + ids[blockIdx.x] * units, out + blockIdx.x * units, units);
}

// ---- the gradient: the rows of dout are put in the order of their ids by a stable radix sort of their numbers, kDigitBits of the id at a time, and summed in
// that order, kSumTile rows a block. A row of dtable whose ids fill many tiles is the sum of the tiles' sums, so that a frequent id costs no more than others.
// n ids of a vocabulary v, c columns: dout is read once, the rows of dtable with ids are read and written once on top of the fill, and of a frequent id's
// rows 1/kSumTile are written and read again; the sort reads and writes some n·⌈log₂ v / 9⌉ numbers. 4 + 3·⌈log₂ v / 9⌉ launches.

constexpr int kDigitBits = 9, kDigits = 1 << kDigitBits;
constexpr int kSortThreads = 256, kSortWarps = kSortThreads / kWarp, kRounds = 4, kSortTile = kSortThreads * kRounds;
constexpr int kScanThreads = 1024;
constexpr int kSumTile = 64;

/// Pass of a radix sort: the numbers of rows, sorted by the lower digits of their ids; `from` is null in the first pass, where row i is number i.
struct Pass {
  const std::uint32_t* ids;
  const std::uint32_t* from;
  std::int64_t n;
  int shift;
  __device__ std::uint32_t row(std::int64_t i) const { return from != nullptr ? from[i] : static_cast<std::uint32_t>(i); }
};

/// What a thread has of its block's tile: element `round` is element first() + round·kWarp of the pass. A warp's elements are neighbours.
struct SortShare {
  std::uint32_t row[kRounds], digit[kRounds];
  std::uint32_t rank[kRounds];  ///< among those of the warp with the same digit
  static __device__ std::int64_t first() {
    const unsigned warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
    return static_cast<std::int64_t>(blockIdx.x) * kSortTile + warp * (kRounds * kWarp) + lane;
  }
};

/// counts[warp][digit] = how many of the warp's elements have the digit.
__device__ __forceinline__ SortShare count_digits(const Pass& pass, std::uint32_t* counts) {
  for (int i = static_cast<int>(threadIdx.x); i < kSortWarps * kDigits; i += kSortThreads) counts[i] = 0;
  __syncthreads();
  std::uint32_t* of_warp = counts + threadIdx.x / kWarp * kDigits;
  const unsigned below = (1u << threadIdx.x % kWarp) - 1;
  SortShare share;
#pragma unroll
  for (int round = 0; round < kRounds; ++round) {
    const std::int64_t i = SortShare::first() + round * kWarp;
    const bool valid = i < pass.n;
    share.row[round] = valid ? pass.row(i) : 0;
    const std::uint32_t digit = valid ? pass.ids[share.row[round]] >> pass.shift & (kDigits - 1) : kDigits;
    const unsigned same = __match_any_sync(kFullWarp, digit);
    const std::uint32_t before = valid ? of_warp[digit] : 0;
    __syncwarp();
    if (valid && (same & below) == 0) of_warp[digit] = before + static_cast<std::uint32_t>(__popc(same));
    __syncwarp();
    share.digit[round] = digit;
    share.rank[round] = before + static_cast<std::uint32_t>(__popc(same & below));
  }
  __syncthreads();
  return share;
}

/// table[digit][block] = how many elements of the block's tile have the digit.
__global__ void digits_kernel(Pass pass, std::uint32_t* table) {
  std::uint32_t* counts = shared_array<std::uint32_t, kSortWarps * kDigits>();
  count_digits(pass, counts);
  for (int digit = static_cast<int>(threadIdx.x); digit < kDigits; digit += kSortThreads) {
    std::uint32_t sum = 0;
    for (int warp = 0; warp < kSortWarps; ++warp) sum += counts[warp * kDigits + digit];
    table[static_cast<std::int64_t>(digit) * gridDim.x + blockIdx.x] = sum;
  }
}

/// table[i] = Σ table[j], j < i. One block.
__global__ void scan_kernel(std::uint32_t* table, std::int64_t size) {
  std::uint32_t* of_warps = shared_array<std::uint32_t, kScanThreads / kWarp>();
  const unsigned warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const auto inclusive = [lane](std::uint32_t x) {
    for (unsigned step = 1; step < kWarp; step *= 2) {
      const std::uint32_t lower = __shfl_up_sync(kFullWarp, x, step);
      if (lane >= step) x += lower;
    }
    return x;
  };
  const std::int64_t share = (size + kScanThreads - 1) / kScanThreads, begin = threadIdx.x * share, end = begin + share < size ? begin + share : size;
  std::uint32_t sum = 0;
  for (std::int64_t i = begin; i < end; ++i) sum += table[i];
  const std::uint32_t up_to = inclusive(sum);
  if (lane == kWarp - 1) of_warps[warp] = up_to;
  __syncthreads();
  const std::uint32_t warps_up_to = inclusive(of_warps[lane]);
  const std::uint32_t warps_below = __shfl_sync(kFullWarp, warps_up_to - of_warps[lane], static_cast<int>(warp));
  std::uint32_t next = warps_below + up_to - sum;
  for (std::int64_t i = begin; i < end; ++i) {
    const std::uint32_t count = table[i];
    table[i] = next;
    next += count;
  }
}

/// Puts the rows of the block's tile where table says.
__global__ void scatter_kernel(Pass pass, const std::uint32_t* table, std::uint32_t* to) {
  std::uint32_t* counts = shared_array<std::uint32_t, kSortWarps * kDigits>();
  const SortShare share = count_digits(pass, counts);
  for (int digit = static_cast<int>(threadIdx.x); digit < kDigits; digit += kSortThreads) {
    std::uint32_t next = table[static_cast<std::int64_t>(digit) * gridDim.x + blockIdx.x];
    for (int warp = 0; warp < kSortWarps; ++warp) {
      const std::uint32_t count = counts[warp * kDigits + digit];
      counts[warp * kDigits + digit] = next;
      next += count;
    }
  }
  __syncthreads();
#pragma unroll
  for (int round = 0; round < kRounds; ++round)
    if (SortShare::first() + round * kWarp < pass.n) to[counts[threadIdx.x / kWarp * kDigits + share.digit[round]] + share.rank[round]] = share.row[round];
}

/// The rows of dout in the order of their ids, in tiles. A block has the columns of one of `parts` parts of one tile.
struct Sorted {
  const std::uint32_t* ids;
  const std::uint32_t* order;
  std::int64_t n, cols;
  unsigned parts;
  __device__ std::uint32_t id(std::int64_t i) const { return ids[order[i]]; }
  __device__ std::int64_t tile() const { return blockIdx.x / parts; }
  __device__ std::int64_t column(int width) const { return (static_cast<std::int64_t>(blockIdx.x % parts) * blockDim.x + threadIdx.x) * width; }
  /// Whether the tile that begins with element `first` begins with an id that the tile before ends with.
  __device__ bool continues(std::int64_t first) const { return first > 0 && id(first - 1) == id(first); }
};

template <int N>
__device__ __forceinline__ void add(Pack<float, N>& sum, const Pack<float, N>& x) {
#pragma unroll
  for (int e = 0; e < N; ++e) sum.at[e] += x.at[e];
}

/// Adds the tile's sum for each id to dtable; that of the id that continues from the tile before becomes heads[tile]. A thread has N columns.
template <int N>
__global__ void sum_tiles_kernel(Sorted sorted, const float* dout, float* dtable, float* heads) {
  constexpr int kAhead = 8;  // rows on their way
  std::uint32_t *rows = shared_array<std::uint32_t, kSumTile, struct Rows>(), *ids = shared_array<std::uint32_t, kSumTile, struct Ids>();
  const std::int64_t tile = sorted.tile(), first = tile * kSumTile, column = sorted.column(N);
  const int count = static_cast<int>(sorted.n - first < kSumTile ? sorted.n - first : kSumTile);
  for (int i = static_cast<int>(threadIdx.x); i < count; i += static_cast<int>(blockDim.x)) {
    rows[i] = sorted.order[first + i];
    ids[i] = sorted.ids[rows[i]];
  }
  const bool continues = sorted.continues(first);
  __syncthreads();
  if (column >= sorted.cols) return;
  Pack<float, N> sum = {};
  for (int begin = 0; begin < count; begin += kAhead) {
    Pack<float, N> x[kAhead];
#pragma unroll
    for (int e = 0; e < kAhead; ++e)
      if (begin + e < count) x[e] = load_pack<N>(dout + rows[begin + e] * sorted.cols + column);
#pragma unroll
    for (int e = 0; e < kAhead; ++e) {
      const int i = begin + e;
      if (i >= count) break;
      add(sum, x[e]);
      if (i + 1 < count && ids[i + 1] == ids[i]) continue;
      if (continues && ids[i] == ids[0]) {
        store_pack(heads + tile * sorted.cols + column, sum);
      } else {
        float* to = dtable + ids[i] * sorted.cols + column;
        add(sum, load_pack<N>(to));
        store_pack(to, sum);
      }
      sum = {};
    }
  }
}

/// Adds the heads of the tiles that an id fills to its row, in order; the blocks of the tile where it begins do.
template <int N>
__global__ void add_heads_kernel(Sorted sorted, float* dtable, const float* heads) {
  const std::int64_t tiles = (sorted.n + kSumTile - 1) / kSumTile, tile = sorted.tile(), first = tile * kSumTile, column = sorted.column(N);
  if (tile + 1 == tiles || column >= sorted.cols || !sorted.continues(first + kSumTile)) return;
  const std::uint32_t id = sorted.id(first + kSumTile);
  if (sorted.continues(first) && sorted.id(first) == id) return;
  std::int64_t last = tile + 1, behind = tiles;  // ids rise, so those of tiles that begin with this one are neighbours
  while (behind - last > 1) {
    const std::int64_t middle = (last + behind) / 2;
    (sorted.id(middle * kSumTile) == id ? last : behind) = middle;
  }
  float* to = dtable + id * sorted.cols + column;
  Pack<float, N> sum = load_pack<N>(to);
#pragma unroll 8
  for (std::int64_t t = tile + 1; t <= last; ++t) add(sum, load_pack<N>(heads + t * sorted.cols + column));
  store_pack(to, sum);
}

/// What the sort and the sums hold, in the workspace: parts aligned to 16 bytes.
struct SortSpace {
  std::int64_t n, cols;
  std::int64_t sort_tiles() const { return (n + kSortTile - 1) / kSortTile; }
  std::int64_t sum_tiles() const { return (n + kSumTile - 1) / kSumTile; }
  std::int64_t table() const { return sort_tiles() * kDigits; }
  std::int64_t order() const { return (n + 3) / 4 * 4; }
  std::size_t bytes() const { return static_cast<std::size_t>(table() + 2 * order() + sum_tiles() * cols) * sizeof(std::uint32_t); }
};
static_assert(sizeof(float) == sizeof(std::uint32_t));

}  // namespace

void run(const Embedding&, const Step& step, Context& context) {
  if (!step.out[0]) return;
  const std::int64_t n = step.out[0].rows(), bytes = step.out[0].cols() * static_cast<std::int64_t>(sizeof(float));
  with_copy_unit(bytes, [&]<class Unit>() {
    const std::int64_t units = bytes / static_cast<std::int64_t>(sizeof(Unit));
    launch(embedding_kernel<Unit>, row_copy_shape(n, units), context.stream, units, step.in[0].as<const Unit>(), step.in[1].as<const std::uint32_t>(),
           step.out[0].as<Unit>());
  });
}

void run(const EmbeddingGrad& op, const Step& step, Context& context) {
  if (!step.out[0]) return;
  const TensorView &dout = step.in[1], &dtable = step.out[0];
  if (step.in.size() < 3)
    check(cudaMemsetAsync(dtable.data, 0, dtable.type.bytes(), context.stream), "cannot clear memory");
  else if (step.in[2].data != dtable.data)
    check(cudaMemcpyAsync(dtable.data, step.in[2].data, dtable.type.bytes(), cudaMemcpyDeviceToDevice, context.stream), "cannot copy on the GPU");

  const auto* ids = step.in[0].as<const std::uint32_t>();
  const SortSpace space = {dout.rows(), dout.cols()};
  auto* table = static_cast<std::uint32_t*>(step.workspace);
  std::uint32_t *order = nullptr, *next = table + space.table(), *other = next + space.order();
  auto* heads = reinterpret_cast<float*>(other + space.order());
  const LaunchShape sort = {dim3(static_cast<unsigned>(space.sort_tiles())), dim3(kSortThreads)};
  const int bits = std::max(1, static_cast<int>(std::bit_width(static_cast<std::uint64_t>(op.vocabulary - 1))));
  for (int shift = 0; shift < bits; shift += kDigitBits) {
    const Pass pass = {ids, order, space.n, shift};
    launch(digits_kernel, sort, context.stream, pass, table);
    launch(scan_kernel, LaunchShape{dim3(1), dim3(kScanThreads)}, context.stream, table, space.table());
    launch(scatter_kernel, sort, context.stream, pass, table, next);
    order = std::exchange(next, other);
    other = order;
  }

  const auto sum = [&]<int N>() {
    const std::int64_t threads = std::min<std::int64_t>((space.cols / N + kWarp - 1) / kWarp * kWarp, 256), parts = (space.cols / N + threads - 1) / threads;
    const Sorted sorted = {ids, order, space.n, space.cols, static_cast<unsigned>(parts)};
    const LaunchShape shape = {dim3(static_cast<unsigned>(space.sum_tiles() * parts)), dim3(static_cast<unsigned>(threads))};
    launch(sum_tiles_kernel<N>, shape, context.stream, sorted, dout.as<const float>(), dtable.as<float>(), heads);
    launch(add_heads_kernel<N>, shape, context.stream, sorted, dtable.as<float>(), heads);
  };
  if (space.cols % 4 == 0)
    sum.template operator()<4>();
  else
    sum.template operator()<1>();
}

std::size_t workspace(const EmbeddingGrad&, const Graph& graph, const Node& node) {
  const Shape& dout = graph.shape(node.inputs[1]);
  return SortSpace{dout.rows(), dout.cols()}.bytes();
}

}  // namespace graft::cuda
