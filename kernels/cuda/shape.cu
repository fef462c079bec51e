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

constexpr int kTile = 32, kTileRows = 8;

/// out [cols, rows] = xᵀ, tile by tile through shared memory, so that both sides are read and written along rows.
template <class Word>
__global__ void transpose_kernel(const Word* x, std::int64_t rows, std::int64_t cols, Word* out) {
  Word* tile = shared_array<Word, kTile*(kTile + 1)>();  // a row more than it needs: a column lies in 32 banks
  const std::int64_t col_tiles = (cols + kTile - 1) / kTile, row_tiles = (rows + kTile - 1) / kTile;
  for (std::int64_t t = blockIdx.x; t < row_tiles * col_tiles; t += gridDim.x) {
    const std::int64_t row = t / col_tiles * kTile, col = t % col_tiles * kTile;
    __syncthreads();
    for (std::int64_t i = threadIdx.y; i < kTile; i += kTileRows)
      if (row + i < rows && col + threadIdx.x < cols) tile[i * (kTile + 1) + threadIdx.x] = x[(row + i) * cols + col + threadIdx.x];
    __syncthreads();
    for (std::int64_t i = threadIdx.y; i < kTile; i += kTileRows)
      if (col + i < cols && row + threadIdx.x < rows)
        out[(col + i) * rows + row + threadIdx.x] = tile[threadIdx.x * (kTile + 1) + i];
  }
}

/// A thread for each word, as far as grids go; a block has several rows where they are short.
LaunchShape matrix_shape(std::int64_t rows, std::int64_t cols) {
  unsigned across = kWarp / 4;
  while (across < kMapThreads && across < cols) across *= 2;
  const unsigned down = kMapThreads / across;
  const auto blocks = [](std::int64_t count, unsigned threads, std::int64_t most) {
    return static_cast<unsigned>(std::min((count + threads - 1) / threads, most));
  };
  return {dim3(blocks(cols, across, 1 << 20), blocks(rows, down, 65535)), dim3(across, down)};
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

/// Copies a block of [rows, cols] elements; the offsets and strides are in elements too.
void copy_block(const TensorView& from, std::int64_t from_offset, const TensorView& to, std::int64_t to_offset, std::int64_t rows,
                std::int64_t cols, const Context& context) {
  with_words(from.type.dtype, {cols, from.cols(), to.cols(), from_offset, to_offset}, [&]<class Word>(std::int64_t word) {
    launch(copy_kernel<Word>, matrix_shape(rows, cols / word), context.stream,
           Block<const Word>{from.as<const Word>() + from_offset / word, from.cols() / word},
           Block<Word>{to.as<Word>() + to_offset / word, to.cols() / word}, rows, cols / word);
  });
}

}  // namespace

void run(const Transpose&, const Step& step, Context& context) {
  if (!step.out[0]) return;
  const TensorView& x = step.in[0];
  const std::int64_t tiles = (x.rows() + kTile - 1) / kTile * ((x.cols() + kTile - 1) / kTile);
  const LaunchShape shape = {dim3(static_cast<unsigned>(std::min<std::int64_t>(tiles, std::int64_t{context.multiprocessors} * 32))),
                             dim3(kTile, kTileRows)};
  if (size_of(x.type.dtype) == 2) {
    launch(transpose_kernel<std::uint16_t>, shape, context.stream, x.as<const std::uint16_t>(), x.rows(), x.cols(),
           step.out[0].as<std::uint16_t>());
  } else {
    launch(transpose_kernel<std::uint32_t>, shape, context.stream, x.as<const std::uint32_t>(), x.rows(), x.cols(),
           step.out[0].as<std::uint32_t>());
  }
}

void run(const Slice& op, const Step& step, Context& context) {
  if (!step.out[0]) return;
  copy_block(step.in[0], op.row * step.in[0].cols() + op.col, step.out[0], 0, op.rows, op.cols, context);
}

void run(const Pad& op, const Step& step, Context& context) {
  if (!step.out[0]) return;
  const TensorView &x = step.in[0], &out = step.out[0];
  with_words(x.type.dtype, {x.cols(), out.cols(), op.col}, [&]<class Word>(std::int64_t word) {
    launch(pad_kernel<Word>, matrix_shape(out.rows(), out.cols() / word), context.stream, x.as<const Word>(), x.rows(),
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
