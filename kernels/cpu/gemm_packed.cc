// Products for processors that oneDNN has no fast kernels for, and for builds without it: Goto and van de Geijn, "Anatomy of
// High-Performance Matrix Multiplication" (2008). A block of C is summed up over slices of the depth k. Of each slice, B is packed into
// panels of as many columns as a tile has, and A, some rows at a time, into panels of as many rows; so a tile of C, held in registers,
// reads both from memory that lies together and stays in the cache. bf16 becomes float when it is packed.
#include "kernels/cpu/attention_tiles.h"
#include "kernels/cpu/gemm_engine.h"
#include "kernels/cpu/map.h"

namespace graft::cpu {
namespace {

// What fits the registers beside a vector or two of B and a number of A: 32 with AVX-512, 16 before.
constexpr int kTileRows = kLanes == 16 ? 14 : kLanes == 8 ? 6 : 4, kTileVecs = 2, kTileCols = kTileVecs * kLanes;
constexpr std::int64_t kDepth = 384, kRows = 144 / kTileRows * kTileRows;  // of a slice; of A packed at once, for the second cache

inline float to_float(float x) { return x; }
using graft::to_float;

constexpr std::int64_t round_up(std::int64_t n, std::int64_t to) { return (n + to - 1) / to * to; }

/// f(begin, end) on [0, k) in pieces: of so many rows the first cache has room for a line of each, also where they lie a power of two apart.
template <class F>
void for_each_chunk(std::int64_t k, const F& f) {
  constexpr std::int64_t kWays = 8;
  for (std::int64_t p = 0; p < k; p += kWays) f(p, std::min(p + kWays, k));
}

/// to [k, kTileRows] from kLanes columns of kTileRows rows of A. Writes whole vectors: what is too much, the next column overwrites.
template <class T, int... kLane>
GRAFT_INLINE void pack_columns(const T* a, std::int64_t lda, float* to, std::integer_sequence<int, kLane...> lanes) {
  Vec rows[kLanes] = {(kLane < kTileRows ? load(a + kLane * lda) : Vec{})...};
  exchange_all<kLanes / 2>(rows, lanes);
  (store(to + kLane * kTileRows, rows[kLane]), ...);
}

/// Panels of kTileRows rows, [k, kTileRows] each, of `rows` rows of A; missing rows are 0. `there`: rows that A has from here on.
template <class T>
void pack_a(const T* a, std::int64_t lda, bool transposed, std::int64_t rows, std::int64_t there, std::int64_t k, float* to) {
  std::int64_t whole = 0;  // rows of the panels that are packed a vector at a time
  if (transposed) {
    while (whole < rows && whole + kLanes <= there) whole += kTileRows;
    for_each_chunk(k, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = 0; i < whole; i += kTileRows) {
        float* panel = to + i * k;
        for (std::int64_t p = begin; p + 1 < end; ++p) store(panel + p * kTileRows, load(a + p * lda + i));
        const Vec last = load(a + (end - 1) * lda + i);  // a whole vector could reach into the next panel
        for (int r = 0; r < kTileRows; ++r) panel[(end - 1) * kTileRows + r] = last[r];
      }
    });
  }
  for (std::int64_t i = whole; i < rows; i += kTileRows) {
    float* panel = to + i * k;
    std::int64_t p = 0;
    if (!transposed && i + kTileRows <= rows) {
      for (; p + kLanes <= k; p += kLanes)
        pack_columns(a + i * lda + p, lda, panel + p * kTileRows, std::make_integer_sequence<int, kLanes>());
    }
    for (; p < k; ++p)
      for (std::int64_t r = 0; r < kTileRows; ++r)
        panel[p * kTileRows + r] = i + r < rows ? to_float(transposed ? a[p * lda + i + r] : a[(i + r) * lda + p]) : 0.0f;
  }
}

/// Panels of kTileCols columns, [k, kTileCols] each, of `cols` columns of B; missing columns are 0.
template <class T>
void pack_b(const T* b, std::int64_t ldb, bool transposed, std::int64_t k, std::int64_t cols, float* to) {
  const std::int64_t whole = cols / kTileCols * kTileCols;
  if (transposed) {
    for (std::int64_t j = 0; j < whole; j += kTileCols) transpose_block(b + j * ldb, ldb, kTileCols, k, to + j * k, kTileCols);
  } else {
    for_each_chunk(k, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t j = 0; j < whole; j += kTileCols)
        for (std::int64_t p = begin; p < end; ++p)
          for (int v = 0; v < kTileVecs; ++v) store(to + j * k + p * kTileCols + v * kLanes, load(b + p * ldb + j + v * kLanes));
    });
  }
  if (whole == cols) return;
  for (std::int64_t p = 0; p < k; ++p)
    for (std::int64_t c = 0; c < kTileCols; ++c)
      to[whole * k + p * kTileCols + c] = whole + c < cols ? to_float(transposed ? b[(whole + c) * ldb + p] : b[p * ldb + whole + c]) : 0.0f;
}

/// C [kTileRows, kVecs vectors] = A·B of two packed panels, or C += A·B, and the bias where there is one.
template <int kVecs>
void multiply_tile(std::int64_t k, const float* a, const float* b, float* c, std::int64_t ldc, bool add, const float* bias) {
  for (int i = 0; i < kTileRows; ++i) __builtin_prefetch(c + i * ldc + kTileCols - 1, 1);
  Vec sums[kTileRows][kVecs];
  GRAFT_UNROLL
  for (auto& row : sums) {
    GRAFT_UNROLL
    for (Vec& sum : row) sum = Vec{};
  }
  add_products(sums, {a, 1, kTileRows}, b, kTileCols, k);
  GRAFT_UNROLL
  for (int i = 0; i < kTileRows; ++i) {
    GRAFT_UNROLL
    for (int v = 0; v < kVecs; ++v) {
      float* at = c + i * ldc + v * kLanes;
      Vec sum = sums[i][v];
      if (add) sum += load(at);
      if (bias != nullptr) sum += load(bias + v * kLanes);
      store(at, sum);
    }
  }
}

/// The same where C ends inside of the tile: by way of a whole one.
void multiply_last_tile(std::int64_t rows, std::int64_t cols, std::int64_t k, const float* a, const float* b, float* c, std::int64_t ldc,
                        bool add, const float* bias) {
  float tile[kTileRows * kTileCols];
  if (cols > kLanes)
    multiply_tile<kTileVecs>(k, a, b, tile, kTileCols, false, nullptr);
  else
    multiply_tile<1>(k, a, b, tile, kTileCols, false, nullptr);
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < cols; ++j) {
      float x = tile[i * kTileCols + j];
      if (add) x += c[i * ldc + j];
      if (bias != nullptr) x += bias[j];
      c[i * ldc + j] = x;
    }
  }
}

/// What a thread's scratch memory begins with: whose packed operand it holds, A where C is one row of blocks, else the columns of B from j on. Blocks of
/// the same call that need it do not pack it again.
struct Packed {
  std::uint64_t number;
  std::int64_t j;
  bool operator==(const Packed&) const = default;
};

class PackedProduct final : public GemmProduct {
 public:
  PackedProduct(const GemmCall& call, const GemmBlocks& blocks) : keep_a_(blocks.row_parts == 1 && blocks.col_parts > 1) {
    const std::int64_t slices = (call.k + kDepth - 1) / kDepth;
    depth_ = round_up((call.k + slices - 1) / slices, kLanes);
    a_floats_ = (keep_a_ ? call.k * round_up(blocks.rows, kTileRows) : depth_ * kRows) + kLanes;
    b_floats_ = (keep_a_ ? depth_ : call.k) * round_up(blocks.cols, kTileCols);
    c_floats_ = call.bf16_out ? blocks.rows * blocks.cols : 0;
  }

  std::size_t scratch_bytes() const override {
    return kHeader + static_cast<std::size_t>(a_floats_ + b_floats_ + c_floats_) * sizeof(float);
  }

  void run(const GemmCall& call, std::uint64_t number, std::int64_t i, std::int64_t rows, std::int64_t j, std::int64_t cols, int,
           void* scratch) override {
    const Packed wanted = {number, keep_a_ ? 0 : j};
    Packed& there = *static_cast<Packed*>(scratch);
    const bool stale = there != wanted;
    there = wanted;
    float *packed_b = reinterpret_cast<float*>(static_cast<std::byte*>(scratch) + kHeader), *packed_a = packed_b + b_floats_;
    if (!call.bf16)
      add_slices(call, static_cast<const float*>(call.a), static_cast<const float*>(call.b), stale, i, rows, j, cols, packed_a, packed_b);
    else
      add_slices(call, static_cast<const Bf16*>(call.a), static_cast<const Bf16*>(call.b), stale, i, rows, j, cols, packed_a, packed_b);
  }

 private:
  static constexpr std::size_t kHeader = 64;

  template <class T>
  void add_slices(const GemmCall& call, const T* a, const T* b, bool stale, std::int64_t i, std::int64_t rows, std::int64_t j, std::int64_t cols,
                  float* packed_a, float* packed_b) const {
    float *c = call.bf16_out ? packed_a + a_floats_ : static_cast<float*>(call.c) + i * call.ldc + j;
    const std::int64_t ldc = call.bf16_out ? cols : call.ldc;
    for (std::int64_t p = 0; p < call.k; p += depth_) {
      const std::int64_t k = std::min(depth_, call.k - p);
      const bool add = p > 0 || call.addend != nullptr;
      const float* bias = p == 0 && call.bias != nullptr ? call.bias + j : nullptr;
      float* slice_b = packed_b + (keep_a_ ? 0 : p * round_up(cols, kTileCols));
      if (stale || keep_a_)
        pack_b(call.transpose_b ? b + j * call.ldb + p : b + p * call.ldb + j, call.ldb, call.transpose_b, k, cols, slice_b);
      const std::int64_t parts = (rows + kRows - 1) / kRows, step = round_up((rows + parts - 1) / parts, kTileRows);
      for (std::int64_t r = 0; r < rows; r += step) {
        const std::int64_t count = std::min(step, rows - r), row = i + r;
        float* block_a = packed_a + (keep_a_ ? p * round_up(rows, kTileRows) + r * k : 0);
        if (stale || !keep_a_)
          pack_a(call.transpose_a ? a + p * call.lda + row : a + row * call.lda + p, call.lda, call.transpose_a, count, call.m - row, k, block_a);
        for (std::int64_t x = 0; x < cols; x += kTileCols) {
          for (std::int64_t y = 0; y < count; y += kTileRows) {
            const float *panel_a = block_a + y * k, *panel_b = slice_b + x * k, *bias_here = bias == nullptr ? nullptr : bias + x;
            float* at = c + (r + y) * ldc + x;
            if (y + kTileRows <= count && x + kTileCols <= cols)
              multiply_tile<kTileVecs>(k, panel_a, panel_b, at, ldc, add, bias_here);
            else
              multiply_last_tile(std::min<std::int64_t>(kTileRows, count - y), std::min<std::int64_t>(kTileCols, cols - x), k, panel_a, panel_b, at,
                                 ldc, add, bias_here);
          }
        }
      }
    }
    if (!call.bf16_out) return;
    for (std::int64_t r = 0; r < rows; ++r)
      for_each_vector(0, cols, [&](std::int64_t, const auto& get, const auto& put) {
        put(static_cast<Bf16*>(call.c) + (i + r) * call.ldc + j, get(c + r * ldc));
      });
  }

  bool keep_a_;
  std::int64_t depth_, a_floats_, b_floats_, c_floats_;
};

class PackedGemm final : public GemmEngine {
 public:
  std::string description() const override { return "own products"; }
  bool takes_bf16() override { return true; }
  std::unique_ptr<GemmProduct> prepare(const GemmCall& call, const GemmBlocks& blocks) override {
    return std::make_unique<PackedProduct>(call, blocks);
  }
};

}  // namespace

std::unique_ptr<GemmEngine> packed_gemm() { return std::make_unique<PackedGemm>(); }

}  // namespace graft::cpu
