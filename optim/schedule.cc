#include "graft/schedule.h"

#include "graft/error.h"
#include "optim/settings.h"

namespace graft::optim {
namespace {

std::string_view kind_name(Schedule::Kind kind) {
  switch (kind) {
    case Schedule::Kind::constant: return "constant";
    case Schedule::Kind::linear: return "linear";
    case Schedule::Kind::cosine: return "cosine";
    case Schedule::Kind::wsd: return "wsd";
  }
  GRAFT_ASSERT(!"a kind of schedule");
}

}  // namespace

double learning_rate(const Schedule& schedule, std::int64_t step) { return learning_rate_at(schedule, step); }

std::string to_string(const Schedule& schedule) {
  std::string text = std::string(kind_name(schedule.kind)) + " base=" + detail::number(schedule.base);
  if (schedule.kind != Schedule::Kind::constant)
    text += " min=" + detail::number(schedule.min) + " total=" + std::to_string(schedule.total);
  if (schedule.warmup > 0) text += " warmup=" + std::to_string(schedule.warmup);
  if (schedule.kind == Schedule::Kind::wsd) text += " decay=" + std::to_string(schedule.decay);
  return text;
}

}  // namespace graft::optim
