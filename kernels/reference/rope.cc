#include <cmath>

#include "kernels/reference/kernels.h"
#include "kernels/reference/views.h"
#include "kernels/rope_frequency.h"
#include "kernels/segments.h"

namespace graft::reference {

void run(const Rope& op, const Step& step) {
  if (!step.out[0]) return;
  with_type(step.in[0], [&]<class T>() {
    const auto x = const_matrix<T>(step.in[0]);
    auto out = matrix<T>(step.out[0]);
    const std::int64_t half = op.head_dim / 2;
    const detail::SegmentList segments = detail::rope_segments(op.segments, step.in);
    for (std::int64_t i = 0; i < half; ++i) {
      const double frequency = detail::rope_frequency(op, i);
      for (std::int64_t s = 0; s < segments.count(); ++s) {
        const auto [begin, end, kv_begin, kv_end] = segments[s];
        const std::int64_t offset = detail::rope_offset(op, step.in, s);
        for (std::int64_t row = begin; row < end; ++row) {
          const double angle = static_cast<double>(offset + row - begin) * frequency;
          const T cosine = static_cast<T>(std::cos(angle)), sine = static_cast<T>(op.inverse ? -std::sin(angle) : std::sin(angle));
          for (std::int64_t first = i; first < x.cols(); first += op.head_dim) {
            const T a = x(row, first), b = x(row, first + half);
            out(row, first) = a * cosine - b * sine;
            out(row, first + half) = b * cosine + a * sine;
          }
        }
      }
    }
  });
}

}  // namespace graft::reference
