#include "kernels/cuda/map.cuh"

// Bytes that move from one place to another: elements are words of 2 or 4 bytes, or 16 where all ends lie so.
namespace graft::cuda {
namespace {

using Words16 = Pack<std::uint32_t, 4>;

/// A block of a row-major matrix, in words: from row to row there are `stride`.
template <class Word>
struct Block {
  Word* at;
  std::int64_t stride;
};

/// to[row, col] = from[row, col].
template <class Word>
__global__ void copy_kernel(Block<const Word> from, Block<Word> to, std::int64_t rows, std::int64_t cols) {
  for (std::int64_t row = blockIdx.y * blockDim.y + threadIdx.y; row < rows; row += gridDim.y * blockDim.y)
    for (std::int64_t col = thread_index(); col < cols; col += thread_count())
      to.at[row * to.stride + col] = from.at[row * from.stride + col];
}

/// All of `to` [rows, cols]: `from` [from_rows, from_cols] at (row, col), zeros around it.
template <class Word>
__global__ void pad_kernel(const Word* from, std::int64_t from_rows, std::int64_t from_cols, std::int64_t row, std::int64_t col,
                           Word* to, std::int64_t rows, std::int64_t cols) {
  for (std::int64_t i = blockIdx.y * blockDim.y + threadIdx.y; i < rows; i += gridDim.y * blockDim.y) {
    const bool inside = i >= row && i < row + from_rows;
    for (std::int64_t j = thread_index(); j < cols; j += thread_count())
      to[i * cols + j] = inside && j >= col && j < col + from_cols ? from[(i - row) * from_cols + (j - col)] : Word{};
  }
}

constexpr int kTileRows = 8;

/// Rows and columns of a tile whose rows a warp moves, N words a lane.
template <int N>
constexpr int kTile = kWarp * N;

/// out [cols, rows] = xᵀ, tile by tile through shared memory, so that both sides are read and written along rows. N divides rows and cols.
template <class Word, int N>
__global__ void transpose_kernel(const Word* x, std::int64_t rows, std::int64_t cols, Word* out) {
  constexpr int kSide = kTile<N>, kPitch = kSide + N;  // longer than a row, so that a column lies in as many banks as it can
  auto* tile = reinterpret_cast<Word*>(shared_array<Pack<Word, N>, kSide * kPitch / N>());
  const int across = static_cast<int>(threadIdx.x) * N;
  const std::int64_t col_tiles = (cols + kSide - 1) / kSide, row_tiles = (rows + kSide - 1) / kSide;
  for (std::int64_t t = blockIdx.x; t < row_tiles * col_tiles; t += gridDim.x) {
    const std::int64_t row = t / col_tiles * kSide, col = t % col_tiles * kSide;
    __syncthreads();
#pragma unroll
    for (int i = static_cast<int>(threadIdx.y); i < kSide; i += kTileRows)
      if (row + i < rows && col + across < cols) store_pack(tile + i * kPitch + across, load_pack<N>(x + (row + i) * cols + col + across));
    __syncthreads();
#pragma unroll
    for (int i = static_cast<int>(threadIdx.y); i < kSide; i += kTileRows) {
      if (col + i >= cols || row + across >= rows) continue;
      Pack<Word, N> pack;
#pragma unroll
      for (int e = 0; e < N; ++e) pack.at[e] = tile[(across + e) * kPitch + i];
      store_pack(out + (col + i) * rows + row + across, pack);
    }
  }
}

/// As map_shape, for words that stand in rows and columns; a block has several rows where they are short.
LaunchShape matrix_shape(std::int64_t rows, std::int64_t cols, const Context& context) {
  unsigned across = kWarp / 4;
  while (across < kMapThreads && across < cols) across *= 2;
  const unsigned down = kMapThreads / across, most = static_cast<unsigned>(context.multiprocessors) * 32;
  const auto blocks = [](std::int64_t count, unsigned threads, unsigned at_most) {
    return static_cast<unsigned>(std::min<std::int64_t>((count + threads - 1) / threads, at_most));
  };
  const unsigned wide = blocks(cols, across, most);
  return {dim3(wide, blocks(rows, down, most / wide)), dim3(across, down)};
}

/// Calls f<Word>(elements in a word): the largest word that divides all the numbers of elements.
template <class F>
void with_words(DType dtype, std::initializer_list<std::int64_t> elements, F&& f) {
  const auto size = static_cast<std::int64_t>(size_of(dtype)), in_pack = 16 / size;
  if (std::all_of(elements.begin(), elements.end(), [&](std::int64_t n) { return n % in_pack == 0; }))
    return f.template operator()<Words16>(in_pack);
  if (size == 2) return f.template operator()<std::uint16_t>(std::int64_t{1});
  f.template operator()<std::uint32_t>(std::int64_t{1});
}

/// Copies a block of [rows, cols] elements, rows of all that one of the two tensors has across; the offsets are in elements too.
void copy_block(const TensorView& from, std::int64_t from_offset, const TensorView& to, std::int64_t to_offset, std::int64_t rows,
                std::int64_t cols, const Context& context) {
  with_words(from.type.dtype, {from.cols(), to.cols(), from_offset, to_offset}, [&]<class Word>(std::int64_t word) {
    launch(copy_kernel<Word>, matrix_shape(rows, cols / word, context), context.stream,
           Block<const Word>{from.as<const Word>() + from_offset / word, from.cols() / word},
           Block<Word>{to.as<Word>() + to_offset / word, to.cols() / word}, rows, cols / word);
  });
}

}  // namespace

void run(const Transpose&, const Step& step, Context& context) {
  if (!step.out[0]) return;
  const TensorView& x = step.in[0];
  const auto transpose = [&]<class Word, int N>() {
    const std::int64_t tiles = (x.rows() + kTile<N> - 1) / kTile<N> * ((x.cols() + kTile<N> - 1) / kTile<N>);
    const LaunchShape shape = {dim3(static_cast<unsigned>(std::min<std::int64_t>(tiles, std::int64_t{context.multiprocessors} * 32))), dim3(kWarp, kTileRows)};
    launch(transpose_kernel<Word, N>, shape, context.stream, x.as<const Word>(), x.rows(), x.cols(), step.out[0].as<Word>());
  };
  if (size_of(x.type.dtype) == 4) return transpose.template operator()<std::uint32_t, 1>();
  if (x.rows() % 2 == 0 && x.cols() % 2 == 0) return transpose.template operator()<std::uint16_t, 2>();
  transpose.template operator()<std::uint16_t, 1>();
}

void run(const Slice& op, const Step& step, Context& context) {
  if (!step.out[0]) return;
  copy_block(step.in[0], op.row * step.in[0].cols() + op.col, step.out[0], 0, op.rows, op.cols, context);
}

void run(const Pad& op, const Step& step, Context& context) {
  if (!step.out[0]) return;
  const TensorView &x = step.in[0], &out = step.out[0];
  with_words(x.type.dtype, {x.cols(), out.cols(), op.col}, [&]<class Word>(std::int64_t word) {
    launch(pad_kernel<Word>, matrix_shape(out.rows(), out.cols() / word, context), context.stream, x.as<const Word>(), x.rows(),
           x.cols() / word, op.row, op.col / word, out.as<Word>(), out.rows(), out.cols() / word);
  });
}

void run(const Concat& op, const Step& step, Context& context) {
  const TensorView& out = step.out[0];
  if (!out) return;
  std::int64_t offset = 0;
  for (const TensorView& part : step.in) {
    // stacked vectors are rows, too
    copy_block(part, 0, out, offset, part.rows(), part.cols(), context);
    offset += op.axis == Axis::rows ? part.size() : part.cols();
  }
}

}  // namespace graft::cuda
