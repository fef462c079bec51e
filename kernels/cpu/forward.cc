// Ops that speed does not matter for: the reference kernel, by name.
#include "graft/error.h"
#include "kernels/cpu/kernels.h"
#include "kernels/reference/kernels.h"

namespace graft::cpu {

void run(const Input&, const Step&, Context&) { GRAFT_ASSERT(!"the plan leaves sources and views out"); }
void run(const Parameter&, const Step&, Context&) { GRAFT_ASSERT(!"the plan leaves sources and views out"); }
void run(const State&, const Step&, Context&) { GRAFT_ASSERT(!"the plan leaves sources and views out"); }
void run(const Constant&, const Step&, Context&) { GRAFT_ASSERT(!"the plan leaves sources and views out"); }
void run(const Reshape&, const Step&, Context&) { GRAFT_ASSERT(!"the plan leaves sources and views out"); }
void run(const StopGradient&, const Step&, Context&) { GRAFT_ASSERT(!"the plan leaves sources and views out"); }

void run(const Unary& op, const Step& step, Context&) { reference::run(op, step); }
void run(const UnaryGrad& op, const Step& step, Context&) { reference::run(op, step); }
void run(const Binary& op, const Step& step, Context&) { reference::run(op, step); }
void run(const Swiglu& op, const Step& step, Context&) { reference::run(op, step); }
void run(const SwigluGrad& op, const Step& step, Context&) { reference::run(op, step); }
void run(const Cast& op, const Step& step, Context&) { reference::run(op, step); }
void run(const Dropout& op, const Step& step, Context&) { reference::run(op, step); }
void run(const Reduce& op, const Step& step, Context&) { reference::run(op, step); }
void run(const ReduceMaxGrad& op, const Step& step, Context&) { reference::run(op, step); }
void run(const Broadcast& op, const Step& step, Context&) { reference::run(op, step); }
void run(const Transpose& op, const Step& step, Context&) { reference::run(op, step); }
void run(const Slice& op, const Step& step, Context&) { reference::run(op, step); }
void run(const Pad& op, const Step& step, Context&) { reference::run(op, step); }
void run(const Concat& op, const Step& step, Context&) { reference::run(op, step); }
void run(const Softmax& op, const Step& step, Context&) { reference::run(op, step); }
void run(const SoftmaxGrad& op, const Step& step, Context&) { reference::run(op, step); }
void run(const LogSoftmax& op, const Step& step, Context&) { reference::run(op, step); }
void run(const LogSoftmaxGrad& op, const Step& step, Context&) { reference::run(op, step); }
void run(const RmsNorm& op, const Step& step, Context&) { reference::run(op, step); }
void run(const RmsNormGrad& op, const Step& step, Context&) { reference::run(op, step); }
void run(const LayerNorm& op, const Step& step, Context&) { reference::run(op, step); }
void run(const LayerNormGrad& op, const Step& step, Context&) { reference::run(op, step); }
void run(const Embedding& op, const Step& step, Context&) { reference::run(op, step); }
void run(const EmbeddingGrad& op, const Step& step, Context&) { reference::run(op, step); }
void run(const CrossEntropy& op, const Step& step, Context&) { reference::run(op, step); }
void run(const CrossEntropyGrad& op, const Step& step, Context&) { reference::run(op, step); }
void run(const CachedAttention& op, const Step& step, Context&) { reference::run(op, step); }
void run(const Rope& op, const Step& step, Context&) { reference::run(op, step); }
void run(const CacheWrite& op, const Step& step, Context&) { reference::run(op, step); }
void run(const Assign& op, const Step& step, Context&) { reference::run(op, step); }
void run(const GlobalNorm& op, const Step& step, Context&) { reference::run(op, step); }
void run(const UpdateScale& op, const Step& step, Context&) { reference::run(op, step); }
void run(const CountStep& op, const Step& step, Context&) { reference::run(op, step); }
void run(const Increment& op, const Step& step, Context&) { reference::run(op, step); }
void run(const LearningRate& op, const Step& step, Context&) { reference::run(op, step); }
void run(const SgdUpdate& op, const Step& step, Context&) { reference::run(op, step); }
void run(const AdamUpdate& op, const Step& step, Context&) { reference::run(op, step); }
void run(const LionUpdate& op, const Step& step, Context&) { reference::run(op, step); }

}  // namespace graft::cpu
