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
constexpr std::int64_t kDepth = 256, kRows = 144 / kTileRows * kTileRows;  // of a slice; of A packed at once, for the second cache

inline float to_float(float x) { return x; }
using graft::to_float;

constexpr std::int64_t round_up(std::int64_t n, std::int64_t to) { return (n + to - 1) / to * to; }

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
  for (std::int64_t i = 0; i < rows; i += kTileRows, to += kTileRows * k) {
    std::int64_t p = 0;
    if (transposed && i + kLanes <= there) {
      for (; p < k; ++p) store(to + p * kTileRows, load(a + p * lda + i));
    } else if (!transposed && i + kTileRows <= rows) {
      for (; p + kLanes <= k; p += kLanes)
        pack_columns(a + i * lda + p, lda, to + p * kTileRows, std::make_integer_sequence<int, kLanes>());
    }
    for (; p < k; ++p)
      for (std::int64_t r = 0; r < kTileRows; ++r)
        to[p * kTileRows + r] = i + r < rows ? to_float(transposed ? a[p * lda + i + r] : a[(i + r) * lda + p]) : 0.0f;
  }
}

/// Panels of kTileCols columns, [k, kTileCols] each, of `cols` columns of B; missing columns are 0.
template <class T>
void pack_b(const T* b, std::int64_t ldb, bool transposed, std::int64_t k, std::int64_t cols, float* to) {
  for (std::int64_t j = 0; j < cols; j += kTileCols, to += kTileCols * k) {
    const bool whole = j + kTileCols <= cols;
    if (transposed && whole) {
      transpose_block(b + j * ldb, ldb, kTileCols, k, to, kTileCols);
      continue;
    }
    for (std::int64_t p = 0; p < k; ++p) {
      float* row = to + p * kTileCols;
      if (whole) {
        for (int v = 0; v < kTileVecs; ++v) store(row + v * kLanes, load(b + p * ldb + j + v * kLanes));
      } else {
        for (std::int64_t c = 0; c < kTileCols; ++c)
          row[c] = j + c < cols ? to_float(transposed ? b[(j + c) * ldb + p] : b[p * ldb + j + c]) : 0.0f;
      }
    }
  }
}

/// C [kTileRows, kVecs vectors] = A·B of two packed panels, or C += A·B, and the bias where there is one.
template <int kVecs>
void multiply_tile(std::int64_t k, const float* a, const float* b, float* c, std::int64_t ldc, bool add, const float* bias) {
  Vec acc[kTileRows][kVecs] = {};
  for (std::int64_t p = 0; p < k; ++p, a += kTileRows, b += kTileCols) {
    Vec row[kVecs];
    for (int v = 0; v < kVecs; ++v) row[v] = load(b + v * kLanes);
    for (int i = 0; i < kTileRows; ++i) {
      const Vec x = broadcast(a[i]);
      for (int v = 0; v < kVecs; ++v) acc[i][v] = fma(x, row[v], acc[i][v]);
    }
  }
  for (int i = 0; i < kTileRows; ++i) {
    for (int v = 0; v < kVecs; ++v) {
      float* at = c + i * ldc + v * kLanes;
      if (add) acc[i][v] += load(at);
      if (bias != nullptr) acc[i][v] += load(bias + v * kLanes);
      store(at, acc[i][v]);
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

/// What a thread's scratch memory begins with: whose columns of B it holds. The blocks of a call that have them need not pack them again.
struct Packed {
  std::uint64_t number;
  std::int64_t j;
  bool operator==(const Packed&) const = default;
};

class PackedProduct final : public GemmProduct {
 public:
  PackedProduct(const GemmCall& call, const GemmBlocks& blocks) {
    const std::int64_t slices = (call.k + kDepth - 1) / kDepth;
    depth_ = round_up((call.k + slices - 1) / slices, kLanes);
    a_floats_ = depth_ * kRows + kLanes;
    b_floats_ = call.k * round_up(blocks.cols, kTileCols);
    c_floats_ = call.bf16_out ? blocks.rows * blocks.cols : 0;
  }

  std::size_t scratch_bytes() const override {
    return kHeader + static_cast<std::size_t>(a_floats_ + b_floats_ + c_floats_) * sizeof(float);
  }

  void run(const GemmCall& call, std::uint64_t number, std::int64_t i, std::int64_t rows, std::int64_t j, std::int64_t cols, int,
           void* scratch) override {
    const Packed wanted = {number, j};
    Packed& there = *static_cast<Packed*>(scratch);
    const bool pack = there != wanted;
    there = wanted;
    float *packed_b = reinterpret_cast<float*>(static_cast<std::byte*>(scratch) + kHeader), *packed_a = packed_b + b_floats_;
    if (!call.bf16)
      add_slices(call, static_cast<const float*>(call.a), static_cast<const float*>(call.b), pack, i, rows, j, cols, packed_a, packed_b);
    else
      add_slices(call, static_cast<const Bf16*>(call.a), static_cast<const Bf16*>(call.b), pack, i, rows, j, cols, packed_a, packed_b);
  }

 private:
  static constexpr std::size_t kHeader = 64;

  template <class T>
  void add_slices(const GemmCall& call, const T* a, const T* b, bool pack, std::int64_t i, std::int64_t rows, std::int64_t j, std::int64_t cols,
                  float* packed_a, float* packed_b) const {
    float *c = call.bf16_out ? packed_a + a_floats_ : static_cast<float*>(call.c) + i * call.ldc + j;
    const std::int64_t ldc = call.bf16_out ? cols : call.ldc;
    for (std::int64_t p = 0; p < call.k; p += depth_) {
      const std::int64_t k = std::min(depth_, call.k - p);
      const bool add = p > 0 || call.addend != nullptr;
      const float* bias = p == 0 && call.bias != nullptr ? call.bias + j : nullptr;
      float* slice_b = packed_b + p * round_up(cols, kTileCols);
      if (pack) pack_b(call.transpose_b ? b + j * call.ldb + p : b + p * call.ldb + j, call.ldb, call.transpose_b, k, cols, slice_b);
      for (std::int64_t r = 0; r < rows; r += kRows) {
        const std::int64_t count = std::min(kRows, rows - r), row = i + r;
        pack_a(call.transpose_a ? a + p * call.lda + row : a + row * call.lda + p, call.lda, call.transpose_a, count, call.m - row, k, packed_a);
        for (std::int64_t x = 0; x < cols; x += kTileCols) {
          for (std::int64_t y = 0; y < count; y += kTileRows) {
            const float *panel_a = packed_a + y * k, *panel_b = slice_b + x * k, *bias_here = bias == nullptr ? nullptr : bias + x;
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
