#include <algorithm>
#include <cmath>
#include <type_traits>
#include <variant>

#include "graft/schedule.h"
#include "kernels/cuda/map.cuh"
#include "kernels/updates.h"

// Outputs are the states among the inputs: they are written there, also when nothing reads the output.
namespace graft::cuda {
namespace {

constexpr std::size_t kTableBytes = 4096;  // of a kernel's parameters, on every GPU and toolkit

/// Tensors cut into pieces, a block each: piece `blockIdx.x` is of the last entry whose first_block is not above it.
template <class Entry, int kMost>
struct Table {
  int count = 0;
  Entry at[kMost];
  __device__ const Entry& of_block() const {
    int low = 0, high = count;
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      (at[middle].first_block <= blockIdx.x ? low : high) = middle;
    }
    return at[low];
  }
};

/// The elements of this block's piece of a tensor: begin ≤ i < end.
struct Piece {
  std::int64_t begin, end;
};
template <class Entry>
__device__ __forceinline__ Piece piece_of_block(const Entry& entry, std::int64_t grain) {
  const std::int64_t begin = static_cast<std::int64_t>(blockIdx.x - entry.first_block) * grain;
  return {begin, begin + grain < entry.size ? begin + grain : entry.size};
}
unsigned pieces_of(std::int64_t size, std::int64_t grain) { return static_cast<unsigned>((size + grain - 1) / grain); }

// ---- the norm of all gradients

constexpr std::int64_t kNormGrain = 16384;

template <class T>
struct NormEntry {
  const T* x;
  std::int64_t size;
  unsigned first_block;
};
template <class T>
using NormTable = Table<NormEntry<T>, (kTableBytes - 64) / sizeof(NormEntry<T>)>;

/// partial[first + block] = Σ x² of the block's piece.
template <class T>
__global__ void squares_kernel(NormTable<T> table, double* partial) {
  constexpr int kStep = kPack<T>;
  const NormEntry<T>& entry = table.of_block();
  const Piece piece = piece_of_block(entry, kNormGrain);
  const std::int64_t whole = piece.begin + (piece.end - piece.begin) / kStep * kStep;
  double sum = 0.0;  // squares of floats may be too large for a float, or too small
  const auto add = [&](T x) { sum += static_cast<double>(to_float(x)) * static_cast<double>(to_float(x)); };
  for (std::int64_t i = piece.begin + static_cast<std::int64_t>(threadIdx.x) * kStep; i < whole;
       i += static_cast<std::int64_t>(blockDim.x) * kStep) {
    const auto x = load_pack<kStep>(entry.x + i);
#pragma unroll
    for (int e = 0; e < kStep; ++e) add(x.at[e]);
  }
  if (const std::int64_t rest = whole + threadIdx.x; rest < piece.end) add(entry.x[rest]);
  sum = block_sum(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

/// *norm = √Σ partial: each thread sums some, in order, and one sums theirs.
__global__ void norm_kernel(const double* partial, std::int64_t count, float* norm) {
  double* sums = shared_array<double, kMapThreads>();
  double sum = 0.0;
  for (std::int64_t i = threadIdx.x; i < count; i += blockDim.x) sum += partial[i];
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x != 0) return;
  sum = 0.0;
  for (int i = 0; i < kMapThreads; ++i) sum += sums[i];
  *norm = static_cast<float>(sqrt(sum));
}

// ---- scalars: one thread

__global__ void update_scale_kernel(const float* norm, const float* loss, float max_norm, float* scale) {
  const bool finite = std::isfinite(*norm) && (loss == nullptr || std::isfinite(*loss));
  const bool clip = max_norm > 0.0f && *norm > max_norm;
  *scale = !finite ? NAN : clip ? max_norm / *norm : 1.0f;
}
__global__ void count_step_kernel(std::uint32_t* step, std::uint32_t* skipped, const float* scale) {
  ++*(std::isfinite(*scale) ? step : skipped);
}
__global__ void increment_kernel(std::uint32_t* counter) { ++*counter; }
__global__ void learning_rate_kernel(Schedule schedule, const std::uint32_t* step, float* rate) {
  *rate = static_cast<float>(learning_rate_at(schedule, static_cast<std::int64_t>(*step)));
}

template <class... Params, class... Args>
void launch_one(void (*kernel)(Params...), const Context& context, Args&&... args) {
  launch(kernel, LaunchShape{dim3(1), dim3(1)}, context.stream, std::forward<Args>(args)...);
}

// ---- updates of parameters

constexpr std::int64_t kUpdateGrain = 8192;

struct UpdateEntry {
  float* p;
  const float* grad;
  float *m, *v;
  std::int64_t size;
  unsigned first_block;
  float decay, lr_scale;
};
using UpdateTable = Table<UpdateEntry, (kTableBytes - 256) / sizeof(UpdateEntry)>;

/// What the updates of one launch have in common.
struct Common {
  const float* lr;
  const float* scale;
  const std::uint32_t* step;  ///< of Adam
  bool operator==(const Common&) const = default;
};

/// How an element moves: apply(entry, rate, scale, i, p, m, v) changes p, m and v. Formulas in ops.h.
struct Sgd {
  float momentum;
  bool nesterov;
  bool operator==(const Sgd&) const = default;
  static constexpr bool kHasV = false;
  __device__ void prepare(const Common&) {}
  __device__ void move(float rate, float decay, float grad, float& p, float& m, float&) const {
    const float g = grad + decay * p;
    m = momentum * m + g;
    p -= rate * (nesterov ? g + momentum * m : m);
  }
};
struct Adam {
  double beta1, beta2;
  float eps;
  bool decoupled;
  float correction1 = 0.0f, correction2 = 0.0f;  ///< set by prepare
  bool operator==(const Adam&) const = default;
  static constexpr bool kHasV = true;
  /// Called by all threads of a block.
  __device__ void prepare(const Common& common) {
    float* corrections = shared_array<float, 2>();
    if (threadIdx.x < 2) {
      const double t = static_cast<double>(*common.step) + 1.0;
      corrections[threadIdx.x] = static_cast<float>(1.0 / (1.0 - pow(threadIdx.x == 0 ? beta1 : beta2, t)));
    }
    __syncthreads();
    correction1 = corrections[0];
    correction2 = corrections[1];
  }
  __device__ void move(float rate, float decay, float grad, float& p, float& m, float& v) const {
    const float g = decoupled ? grad : grad + decay * p;
    m = static_cast<float>(beta1) * m + static_cast<float>(1.0 - beta1) * g;
    v = static_cast<float>(beta2) * v + static_cast<float>(1.0 - beta2) * g * g;
    p -= rate * ((decoupled ? decay * p : 0.0f) + m * correction1 / (sqrtf(v * correction2) + eps));
  }
};
struct Lion {
  double beta1, beta2;
  bool operator==(const Lion&) const = default;
  static constexpr bool kHasV = false;
  __device__ void prepare(const Common&) {}
  __device__ void move(float rate, float decay, float grad, float& p, float& m, float&) const {
    const float mix = static_cast<float>(beta1) * m + static_cast<float>(1.0 - beta1) * grad;
    p -= rate * (decay * p + (static_cast<float>(mix > 0.0f) - static_cast<float>(mix < 0.0f)));
    m = static_cast<float>(beta2) * m + static_cast<float>(1.0 - beta2) * grad;
  }
};

template <class Rule>
__global__ void update_kernel(UpdateTable table, Common common, Rule rule) {
  const float scale = *common.scale;
  if (!std::isfinite(scale)) return;
  rule.prepare(common);
  const UpdateEntry& entry = table.of_block();
  const float rate = *common.lr * entry.lr_scale;
  const Piece piece = piece_of_block(entry, kUpdateGrain);
  const std::int64_t whole = piece.begin + (piece.end - piece.begin) / 4 * 4;
  for (std::int64_t i = piece.begin + static_cast<std::int64_t>(threadIdx.x) * 4; i < whole;
       i += static_cast<std::int64_t>(blockDim.x) * 4) {
    auto p = load_pack<4>(entry.p + i), m = load_pack<4>(entry.m + i);
    const auto grad = load_pack<4>(entry.grad + i);
    Pack<float, 4> v = {};
    if constexpr (Rule::kHasV) v = load_pack<4>(entry.v + i);
#pragma unroll
    for (int e = 0; e < 4; ++e) rule.move(rate, entry.decay, scale * grad.at[e], p.at[e], m.at[e], v.at[e]);
    store_pack(entry.p + i, p);
    store_pack(entry.m + i, m);
    if constexpr (Rule::kHasV) store_pack(entry.v + i, v);
  }
  if (const std::int64_t rest = whole + threadIdx.x; rest < piece.end) {
    float v = 0.0f;
    if constexpr (Rule::kHasV) v = entry.v[rest];
    rule.move(rate, entry.decay, scale * entry.grad[rest], entry.p[rest], entry.m[rest], v);
    if constexpr (Rule::kHasV) entry.v[rest] = v;
  }
}

/// An update as a kernel sees it.
struct Update {
  std::variant<std::monostate, Sgd, Adam, Lion> rule;  ///< monostate: the step is no update
  Common common;
  UpdateEntry entry;
};

struct AsUpdate {
  const Step& step;

  UpdateEntry entry(double decay, double lr_scale, float* v = nullptr) const {
    return {step.in[0].as<float>(),    step.in[1].as<const float>(), step.in[2].as<float>(), v, step.in[0].size(), 0,
            static_cast<float>(decay), static_cast<float>(lr_scale)};
  }
  Common common(std::size_t lr, const std::uint32_t* count = nullptr) const {
    return {step.in[lr].as<const float>(), step.in[lr + 1].as<const float>(), count};
  }

  Update operator()(const SgdUpdate& op) const {
    return {Sgd{static_cast<float>(op.momentum), op.nesterov}, common(3), entry(op.weight_decay, op.lr_scale)};
  }
  Update operator()(const AdamUpdate& op) const {
    return {Adam{op.beta1, op.beta2, static_cast<float>(op.eps), op.decoupled}, common(5, step.in[4].as<const std::uint32_t>()),
            entry(op.weight_decay, op.lr_scale, step.in[3].as<float>())};
  }
  Update operator()(const LionUpdate& op) const {
    return {Lion{op.beta1, op.beta2}, common(3), entry(op.weight_decay, op.lr_scale)};
  }
  Update operator()(const auto&) const { return {}; }
};

Update as_update(const Step& step) { return std::visit(AsUpdate{step}, step.node->op); }

}  // namespace

std::size_t run_updates(std::span<const Step> steps, Context& context) {
  const Update first = as_update(steps[0]);
  if (first.rule.index() == 0) return 0;
  const auto no_update = std::find_if(steps.begin(), steps.end(), [](const Step& step) { return as_update(step).rule.index() == 0; });
  steps = steps.first(detail::independent_updates(steps.first(static_cast<std::size_t>(no_update - steps.begin()))));
  UpdateTable table;
  unsigned blocks = 0;
  std::size_t taken = 0;
  for (; taken < steps.size() && table.count < static_cast<int>(std::size(table.at)); ++taken) {
    Update update = as_update(steps[taken]);
    if (update.rule != first.rule || update.common != first.common) break;
    update.entry.first_block = blocks;
    blocks += pieces_of(update.entry.size, kUpdateGrain);
    table.at[table.count++] = update.entry;
  }
  std::visit(
      [&]<class Rule>(const Rule& rule) {
        if constexpr (!std::is_same_v<Rule, std::monostate>)
          launch(update_kernel<Rule>, LaunchShape{dim3(blocks), dim3(kMapThreads)}, context.stream, table, first.common, rule);
      },
      first.rule);
  return taken;
}

void run(const SgdUpdate&, const Step& step, Context& context) { run_updates({&step, 1}, context); }
void run(const AdamUpdate&, const Step& step, Context& context) { run_updates({&step, 1}, context); }
void run(const LionUpdate&, const Step& step, Context& context) { run_updates({&step, 1}, context); }

void run(const Assign&, const Step& step, Context& context) {
  const TensorView &value = step.in[0], &state = step.in[1];
  if (value.data == state.data) return;
  check(cudaMemcpyAsync(state.data, value.data, value.type.bytes(), cudaMemcpyDeviceToDevice, context.stream),
        "cannot copy on the GPU");
}

void run(const GlobalNorm&, const Step& step, Context& context) {
  if (!step.out[0]) return;
  auto* partial = static_cast<double*>(step.workspace);
  std::int64_t done = 0;
  with_float_type(step.in[0].type.dtype, [&]<class T>() {
    for (std::size_t next = 0; next < step.in.size();) {
      NormTable<T> table;
      unsigned blocks = 0;
      for (; next < step.in.size() && table.count < static_cast<int>(std::size(table.at)); ++next) {
        table.at[table.count++] = {step.in[next].as<const T>(), step.in[next].size(), blocks};
        blocks += pieces_of(step.in[next].size(), kNormGrain);
      }
      launch(squares_kernel<T>, LaunchShape{dim3(blocks), dim3(kMapThreads)}, context.stream, table, partial + done);
      done += blocks;
    }
  });
  launch(norm_kernel, LaunchShape{dim3(1), dim3(kMapThreads)}, context.stream, partial, done, step.out[0].as<float>());
}

std::size_t workspace(const GlobalNorm&, const Graph& graph, const Node& node) {
  std::size_t pieces = 0;
  for (const Value x : node.inputs) pieces += pieces_of(graph.shape(x).size(), kNormGrain);
  return pieces * sizeof(double);
}

void run(const UpdateScale& op, const Step& step, Context& context) {
  if (!step.out[0]) return;
  launch_one(update_scale_kernel, context, step.in[0].as<const float>(),
             step.in.size() > 1 ? step.in[1].as<const float>() : nullptr, static_cast<float>(op.max_norm), step.out[0].as<float>());
}

void run(const CountStep&, const Step& step, Context& context) {
  launch_one(count_step_kernel, context, step.in[0].as<std::uint32_t>(), step.in[1].as<std::uint32_t>(),
             step.in[2].as<const float>());
}

void run(const Increment&, const Step& step, Context& context) {
  launch_one(increment_kernel, context, step.in[0].as<std::uint32_t>());
}

void run(const LearningRate& op, const Step& step, Context& context) {
  if (!step.out[0]) return;
  launch_one(learning_rate_kernel, context, op.schedule, step.in[0].as<const std::uint32_t>(), step.out[0].as<float>());
}

}  // namespace graft::cuda
