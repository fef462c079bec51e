#include "graft/ops.h"

#include <charconv>

#include "graft/error.h"

namespace graft {
namespace {

/// The shortest text that reads back as the same double.
std::string text(double value) {
  char buffer[32];
  return {buffer, std::to_chars(buffer, buffer + sizeof buffer, value).ptr};
}

std::string text(Axis axis) {
  switch (axis) {
    case Axis::all: return "all";
    case Axis::rows: return "rows";
    case Axis::columns: return "columns";
  }
  GRAFT_ASSERT(!"an axis");
}

std::string text(const Init& init) {
  switch (init.kind) {
    case Init::Kind::constant: return text(init.a);
    case Init::Kind::normal: return "normal(" + text(init.a) + ", " + text(init.b) + ")";
    case Init::Kind::uniform: return "uniform(" + text(init.a) + ", " + text(init.b) + ")";
    case Init::Kind::xavier: return "xavier";
    case Init::Kind::kaiming: return "kaiming";
  }
  GRAFT_ASSERT(!"an initialiser");
}

std::string text(const AttentionShape& s) {
  return "heads=" + std::to_string(s.heads) + "/" + std::to_string(s.kv_heads) + "x" + std::to_string(s.head_dim);
}

std::string text(const Mask& mask) {
  switch (mask.kind) {
    case Mask::Kind::full: return "full";
    case Mask::Kind::causal: return "causal";
    case Mask::Kind::window: return "window(" + std::to_string(mask.window) + ")";
  }
  GRAFT_ASSERT(!"a mask");
}

/// " segments=…", or "" for a single one.
std::string segments(const SegmentLayout& layout) {
  switch (layout.kind) {
    case SegmentLayout::Kind::single: return "";
    case SegmentLayout::Kind::uniform: return " segments=" + std::to_string(layout.q_length) + "/" + std::to_string(layout.kv_length);
    case SegmentLayout::Kind::packed: return " segments=packed";
  }
  GRAFT_ASSERT(!"a segment layout");
}

/// " scaling=…", or "" for none.
std::string scaling(const RopeScaling& s) {
  switch (s.kind) {
    case RopeScaling::Kind::none: return "";
    case RopeScaling::Kind::linear: return " scaling=linear(" + text(s.factor) + ")";
    case RopeScaling::Kind::llama3:
      return " scaling=llama3(" + text(s.factor) + ", " + text(s.low_freq_factor) + ", " + text(s.high_freq_factor) + ", " +
             std::to_string(s.original_context) + ")";
  }
  GRAFT_ASSERT(!"a scaling");
}

std::string rounding(bool bf16) { return bf16 ? " bf16" : ""; }

std::string text(const MultiHeadAttn& a) { return text(a.heads) + " mask=" + text(a.mask) + " scale=" + text(a.scale) + segments(a.segments); }

std::string text(const CrossEntropy& c) {
  std::string s = c.reduction == Reduction::mean ? "reduction=mean" : "reduction=sum";
  if (c.label_smoothing != 0.0) s += " label_smoothing=" + text(c.label_smoothing);
  if (c.ignore_index != kIgnoreIndex) s += " ignore_index=" + std::to_string(c.ignore_index);
  return s;
}

std::string text(const LinearCrossEntropy& c) { return text(c.loss) + (c.transpose_weight ? " transpose_weight" : ""); }

std::string text(const Schedule& s) {
  std::string out;
  switch (s.kind) {
    case Schedule::Kind::constant: out = "constant"; break;
    case Schedule::Kind::linear: out = "linear"; break;
    case Schedule::Kind::cosine: out = "cosine"; break;
    case Schedule::Kind::wsd: out = "wsd"; break;
  }
  return out + " base=" + text(s.base) + " min=" + text(s.min) + " total=" + std::to_string(s.total) + " warmup=" + std::to_string(s.warmup) +
         " decay=" + std::to_string(s.decay);
}

std::string name_of(UnaryFn fn) {
  switch (fn) {
    case UnaryFn::neg: return "neg";
    case UnaryFn::scale: return "scale";
    case UnaryFn::add_scalar: return "add_scalar";
    case UnaryFn::exp: return "exp";
    case UnaryFn::log: return "log";
    case UnaryFn::sqrt: return "sqrt";
    case UnaryFn::abs: return "abs";
    case UnaryFn::tanh: return "tanh";
    case UnaryFn::sigmoid: return "sigmoid";
    case UnaryFn::relu: return "relu";
    case UnaryFn::gelu: return "gelu";
    case UnaryFn::gelu_tanh: return "gelu_tanh";
    case UnaryFn::silu: return "silu";
    case UnaryFn::softplus: return "softplus";
  }
  GRAFT_ASSERT(!"a unary function");
}

struct NameOf {
  std::string operator()(const Input&) const { return "input"; }
  std::string operator()(const Parameter&) const { return "parameter"; }
  std::string operator()(const State&) const { return "state"; }
  std::string operator()(const Constant&) const { return "constant"; }
  std::string operator()(const MatMul&) const { return "matmul"; }
  std::string operator()(const Unary& op) const { return name_of(op.fn); }
  std::string operator()(const UnaryGrad& op) const { return name_of(op.fn) + "_grad"; }
  std::string operator()(const Binary& op) const {
    switch (op.fn) {
      case BinaryFn::add: return "add";
      case BinaryFn::sub: return "sub";
      case BinaryFn::mul: return "mul";
      case BinaryFn::div: return "div";
    }
    GRAFT_ASSERT(!"a binary function");
  }
  std::string operator()(const Swiglu&) const { return "swiglu"; }
  std::string operator()(const SwigluGrad&) const { return "swiglu_grad"; }
  std::string operator()(const Cast&) const { return "cast"; }
  std::string operator()(const StopGradient&) const { return "stop_gradient"; }
  std::string operator()(const Dropout&) const { return "dropout"; }
  std::string operator()(const Reduce& op) const {
    switch (op.fn) {
      case ReduceFn::sum: return "sum";
      case ReduceFn::mean: return "mean";
      case ReduceFn::max: return "max";
    }
    GRAFT_ASSERT(!"a reduction");
  }
  std::string operator()(const ReduceMaxGrad&) const { return "max_grad"; }
  std::string operator()(const Broadcast&) const { return "broadcast"; }
  std::string operator()(const Reshape&) const { return "reshape"; }
  std::string operator()(const Transpose&) const { return "transpose"; }
  std::string operator()(const Slice&) const { return "slice"; }
  std::string operator()(const Pad&) const { return "pad"; }
  std::string operator()(const Concat&) const { return "concat"; }
  std::string operator()(const Softmax&) const { return "softmax"; }
  std::string operator()(const SoftmaxGrad&) const { return "softmax_grad"; }
  std::string operator()(const LogSoftmax&) const { return "log_softmax"; }
  std::string operator()(const LogSoftmaxGrad&) const { return "log_softmax_grad"; }
  std::string operator()(const RmsNorm&) const { return "rms_norm"; }
  std::string operator()(const RmsNormGrad&) const { return "rms_norm_grad"; }
  std::string operator()(const LayerNorm&) const { return "layer_norm"; }
  std::string operator()(const LayerNormGrad&) const { return "layer_norm_grad"; }
  std::string operator()(const Embedding&) const { return "embedding"; }
  std::string operator()(const EmbeddingGrad&) const { return "embedding_grad"; }
  std::string operator()(const CrossEntropy&) const { return "cross_entropy"; }
  std::string operator()(const CrossEntropyGrad&) const { return "cross_entropy_grad"; }
  std::string operator()(const LinearCrossEntropy&) const { return "linear_cross_entropy"; }
  std::string operator()(const LinearCrossEntropyGrad&) const { return "linear_cross_entropy_grad"; }
  std::string operator()(const MultiHeadAttn&) const { return "multi_head_attn"; }
  std::string operator()(const AttnDelta&) const { return "attn_delta"; }
  std::string operator()(const MultiHeadAttnGradQ&) const { return "multi_head_attn_grad_q"; }
  std::string operator()(const MultiHeadAttnGradK&) const { return "multi_head_attn_grad_k"; }
  std::string operator()(const MultiHeadAttnGradV&) const { return "multi_head_attn_grad_v"; }
  std::string operator()(const Rope&) const { return "rope"; }
  std::string operator()(const CachedAttention&) const { return "cached_attention"; }
  std::string operator()(const CacheWrite&) const { return "cache_write"; }
  std::string operator()(const Assign&) const { return "assign"; }
  std::string operator()(const GlobalNorm&) const { return "global_norm"; }
  std::string operator()(const UpdateScale&) const { return "update_scale"; }
  std::string operator()(const CountStep&) const { return "count_step"; }
  std::string operator()(const Increment&) const { return "increment"; }
  std::string operator()(const LearningRate&) const { return "learning_rate"; }
  std::string operator()(const SgdUpdate&) const { return "sgd_update"; }
  std::string operator()(const AdamUpdate&) const { return "adam_update"; }
  std::string operator()(const LionUpdate&) const { return "lion_update"; }
};

struct AttributesOf {
  std::string operator()(const Parameter& op) const { return "init=" + text(op.init); }
  std::string operator()(const State& op) const { return "init=" + text(op.init) + (op.saved ? "" : " not_saved"); }
  std::string operator()(const Constant& op) const {
    std::string s = "values=";
    for (std::size_t i = 0; i < op.values.size(); ++i) {
      if (i == 8) return s + ",…#" + std::to_string(digest(op.values));
      s += (i ? "," : "") + text(op.values[i]);
    }
    return s;
  }
  std::string operator()(const MatMul& op) const {
    std::string s = op.transpose_a ? " transpose_a" : "";
    if (op.transpose_b) s += " transpose_b";
    s += rounding(op.bf16);
    return s.empty() ? s : s.substr(1);
  }
  std::string operator()(const Unary& op) const { return op.fn == UnaryFn::scale || op.fn == UnaryFn::add_scalar ? text(op.alpha) : ""; }
  std::string operator()(const UnaryGrad& op) const { return (*this)(Unary{op.fn, op.alpha}); }
  std::string operator()(const Cast& op) const { return std::string(to_string(op.dtype)); }
  std::string operator()(const Dropout& op) const {
    return "p=" + text(op.p) + " seed=" + std::to_string(op.seed) + " stream=" + std::to_string(op.stream);
  }
  std::string operator()(const Reduce& op) const { return "axis=" + text(op.axis); }
  std::string operator()(const ReduceMaxGrad& op) const { return "axis=" + text(op.axis); }
  std::string operator()(const Broadcast& op) const { return to_string(op.shape); }
  std::string operator()(const Reshape& op) const { return to_string(op.shape); }
  std::string operator()(const Slice& op) const {
    return "rows=" + std::to_string(op.row) + "+" + std::to_string(op.rows) + " columns=" + std::to_string(op.col) + "+" + std::to_string(op.cols);
  }
  std::string operator()(const Pad& op) const { return to_string(op.shape) + " row=" + std::to_string(op.row) + " column=" + std::to_string(op.col); }
  std::string operator()(const Concat& op) const { return "axis=" + text(op.axis); }
  std::string operator()(const RmsNorm& op) const { return "eps=" + text(op.eps) + rounding(op.bf16); }
  std::string operator()(const LayerNorm& op) const { return "eps=" + text(op.eps) + rounding(op.bf16); }
  std::string operator()(const EmbeddingGrad& op) const { return "vocabulary=" + std::to_string(op.vocabulary); }
  std::string operator()(const CrossEntropy& op) const { return text(op); }
  std::string operator()(const CrossEntropyGrad& op) const { return text(op.loss) + rounding(op.bf16); }
  std::string operator()(const LinearCrossEntropy& op) const { return text(op); }
  std::string operator()(const LinearCrossEntropyGrad& op) const { return text(op.linear); }
  std::string operator()(const MultiHeadAttn& op) const { return text(op); }
  std::string operator()(const AttnDelta& op) const { return text(op.heads); }
  std::string operator()(const MultiHeadAttnGradQ& op) const { return text(op.attn); }
  std::string operator()(const MultiHeadAttnGradK& op) const { return text(op.attn); }
  std::string operator()(const MultiHeadAttnGradV& op) const { return text(op.attn); }
  std::string operator()(const Rope& op) const {
    return "theta=" + text(op.theta) + " head_dim=" + std::to_string(op.head_dim) + (op.offset ? " offset=" + std::to_string(op.offset) : "") +
           (op.dynamic ? " dynamic" : "") + (op.inverse ? " inverse" : "") + segments(op.segments) + scaling(op.scaling);
  }
  std::string operator()(const CachedAttention& op) const {
    return text(op.heads) + " scale=" + text(op.scale) + (op.window ? " window=" + std::to_string(op.window) : "") +
           sequences(op.sequences);
  }
  std::string operator()(const CacheWrite& op) const { return op.sequences ? sequences(op.sequences).substr(1) : ""; }
  std::string operator()(const UpdateScale& op) const { return "max_norm=" + text(op.max_norm); }
  std::string operator()(const LearningRate& op) const { return text(op.schedule); }
  std::string operator()(const SgdUpdate& op) const {
    return "momentum=" + text(op.momentum) + " weight_decay=" + text(op.weight_decay) + " lr_scale=" + text(op.lr_scale) + (op.nesterov ? " nesterov" : "");
  }
  std::string operator()(const AdamUpdate& op) const {
    return "beta1=" + text(op.beta1) + " beta2=" + text(op.beta2) + " eps=" + text(op.eps) + " weight_decay=" + text(op.weight_decay) +
           " lr_scale=" + text(op.lr_scale) + (op.decoupled ? " decoupled" : "");
  }
  std::string operator()(const LionUpdate& op) const {
    return "beta1=" + text(op.beta1) + " beta2=" + text(op.beta2) + " weight_decay=" + text(op.weight_decay) + " lr_scale=" + text(op.lr_scale);
  }
  template <class T>
    requires std::is_empty_v<T> || std::is_same_v<T, Input> || std::is_same_v<T, Binary>
  std::string operator()(const T&) const { return ""; }

 private:
  static std::string sequences(std::int64_t count) { return count ? " sequences=" + std::to_string(count) : ""; }
  static std::uint64_t digest(const std::vector<double>& values) {
    std::uint64_t h = 0xcbf29ce484222325u;
    for (double v : values)
      for (char c : text(v) + ",") h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
    return h;
  }
};

}  // namespace

std::string op_name(const Op& op) { return std::visit(NameOf{}, op); }
std::string op_attributes(const Op& op) { return std::visit(AttributesOf{}, op); }

}  // namespace graft
