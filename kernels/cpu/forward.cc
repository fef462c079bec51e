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

void run(const ReduceMaxGrad& op, const Step& step, Context&) { reference::run(op, step); }
void run(const CacheWrite& op, const Step& step, Context&) { reference::run(op, step); }
void run(const Assign& op, const Step& step, Context&) { reference::run(op, step); }
void run(const UpdateScale& op, const Step& step, Context&) { reference::run(op, step); }
void run(const CountStep& op, const Step& step, Context&) { reference::run(op, step); }
void run(const Increment& op, const Step& step, Context&) { reference::run(op, step); }
void run(const LearningRate& op, const Step& step, Context&) { reference::run(op, step); }

}  // namespace graft::cpu
