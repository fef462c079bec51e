#include <cmath>

#include "graft/graph.h"
#include "kernels/cpu/map.h"
#include "kernels/cpu/tiles.h"
#include "kernels/cpu/views.h"
#include "kernels/rope_frequency.h"

namespace graft::cpu {
namespace {

/// Rows that one thread turns in one go.
constexpr std::int64_t kRopeRows = 64;

/// Scratch memory: of all threads the frequencies and the rotation from row to row, of each the rotation of its row; numbers for
/// half a head each.
struct Tables {
  double *frequency, *step_cosine, *step_sine, *cosine, *sine;
  float *row_cosine, *row_sine;
  std::int64_t half;

  Tables(void* memory, std::int64_t n, int thread) : half(n) {
    frequency = static_cast<double*>(memory);
    step_cosine = frequency + n;
    step_sine = step_cosine + n;
    cosine = step_sine + n + 3 * n * thread;
    sine = cosine + n;
    row_cosine = reinterpret_cast<float*>(sine + n);
    row_sine = row_cosine + n;
  }
  static std::size_t bytes(std::int64_t n, int threads) { return static_cast<std::size_t>((3 + 3 * threads) * n) * sizeof(double); }

  void prepare(const Rope& op, double sign) {
    for (std::int64_t i = 0; i < half; ++i) {
      frequency[i] = detail::rope_frequency(op, i);
      step_cosine[i] = std::cos(frequency[i]);
      step_sine[i] = sign * std::sin(frequency[i]);
    }
  }
  void start(double position, double sign) {
    for (std::int64_t i = 0; i < half; ++i) {
      cosine[i] = std::cos(position * frequency[i]);
      sine[i] = sign * std::sin(position * frequency[i]);
    }
  }
  /// This row's floats; then on to the next row: the error grows by about 1e-16 a row, and a tile has few.
  void advance() {
    for (std::int64_t i = 0; i < half; ++i) {
      const double c = cosine[i], s = sine[i];
      row_cosine[i] = static_cast<float>(c);
      row_sine[i] = static_cast<float>(s);
      cosine[i] = c * step_cosine[i] - s * step_sine[i];
      sine[i] = s * step_cosine[i] + c * step_sine[i];
    }
  }
};

}  // namespace

void run(const Rope& op, const Step& step, Context& context) {
  if (is_f64(step)) return reference::run(op, step);
  if (!step.out[0]) return;
  const std::int64_t cols = step.in[0].cols(), half = op.head_dim / 2;
  const double sign = op.inverse ? -1.0 : 1.0;
  const detail::SegmentList segments = detail::rope_segments(op.segments, step.in);
  Tables(step.workspace, half, 0).prepare(op, sign);
  Tile* tiles = reinterpret_cast<Tile*>(static_cast<char*>(step.workspace) + Tables::bytes(half, context.threads.count()));
  const std::int64_t count = list_tiles(segments, Side::queries, kRopeRows, tiles);
  parallel_near(step.in[0].size() < kElementGrain ? Threads() : context.threads, count, [&](std::int64_t task, int thread) {
    const Tile& tile = tiles[task];
    Tables tables(step.workspace, half, thread);
    const std::int64_t position = detail::rope_offset(op, step.in, tile.segment) + tile.begin - segments[tile.segment].q_begin;
    tables.start(static_cast<double>(position), sign);
    for (std::int64_t row = tile.begin; row < tile.begin + tile.rows; ++row) {
      tables.advance();
      with_types(
          [&]<class T>() {
            for (std::int64_t head = row * cols; head < (row + 1) * cols; head += op.head_dim) {
              const T* x = input<T>(step, 0) + head;
              T* out = output<T>(step) + head;
              for_each_vector(0, half, [&](std::int64_t, const auto& get, const auto& put) {
                const Vec a = get(x), b = get(x + half), c = get(tables.row_cosine), s = get(tables.row_sine);
                put(out, a * c - b * s);
                put(out + half, b * c + a * s);
              });
            }
          },
          step.in[0]);
    }
  });
}

std::size_t workspace(const Rope& op, const Graph& graph, const Node& node, int threads) {
  const std::int64_t rows = graph.shape(node.inputs[0]).rows();
  const std::int64_t tiles = max_tiles(op.segments, rows, rows, kRopeRows, graph.shape(node.inputs.back()));
  return Tables::bytes(op.head_dim / 2, threads) + static_cast<std::size_t>(tiles) * sizeof(Tile);
}

}  // namespace graft::cpu
