#include "optim/settings.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "graft/error.h"

namespace graft::optim {

std::vector<Group> default_groups() { return {{"*norm*", 0.0}, {"*.ln_*", 0.0}, {"*.bias", 0.0}, {"*embed*", 0.0}, {"*.wte.*", 0.0}, {"*.wpe.*", 0.0}}; }

namespace detail {

std::string number(double value) {
  char text[32];
  const auto result = std::to_chars(text, text + sizeof text, value);
  return {text, result.ptr};
}

void require_setting(bool holds, std::string_view pass, std::string_view setting, double value, std::string_view must) {
  if (holds) return;
  throw Error(std::string(pass) + ": " + std::string(setting) + " is " + number(value) + ", must be " + std::string(must));
}

void require_not_negative(std::string_view pass, std::string_view setting, double value) {
  require_setting(std::isfinite(value) && value >= 0.0, pass, setting, value, "finite and not negative");
}

void require_beta(std::string_view pass, std::string_view setting, double value) {
  require_setting(value >= 0.0 && value < 1.0, pass, setting, value, "in [0, 1)");
}

void require_schedule(std::string_view pass, const Schedule& schedule) {
  const auto steps = [&](std::string_view setting, std::int64_t value) {
    require_setting(value >= 0, pass, setting, static_cast<double>(value), "not negative");
  };
  require_not_negative(pass, "schedule.base", schedule.base);
  require_not_negative(pass, "schedule.min", schedule.min);
  steps("schedule.total", schedule.total);
  steps("schedule.warmup", schedule.warmup);
  steps("schedule.decay", schedule.decay);
  if (schedule.kind == Schedule::Kind::constant) {
    const bool fits = schedule.total == 0 || schedule.warmup <= schedule.total;
    require_setting(fits, pass, "schedule.warmup", static_cast<double>(schedule.warmup),
                    "at most schedule.total = " + std::to_string(schedule.total));
    return;
  }
  require_setting(schedule.min <= schedule.base, pass, "schedule.min", schedule.min,
                  "at most schedule.base = " + number(schedule.base));
  require_setting(schedule.total > 0, pass, "schedule.total", static_cast<double>(schedule.total),
                  "above 0: the schedule needs an end");
  const bool fits = schedule.warmup <= schedule.total && schedule.decay <= schedule.total - schedule.warmup;
  require_setting(fits, pass, "schedule.warmup + schedule.decay",
                  static_cast<double>(schedule.warmup) + static_cast<double>(schedule.decay),
                  "at most schedule.total = " + std::to_string(schedule.total));
}

bool matches(std::string_view pattern, std::string_view name) {
  std::size_t p = 0, n = 0, star = std::string_view::npos, resume = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = n;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == name[n])) {
      ++p;
      ++n;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      n = ++resume;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

const Group* group_of(const std::vector<Group>& groups, std::string_view name) {
  for (const Group& group : groups)
    if (matches(group.pattern, name)) return &group;
  return nullptr;
}

void require_groups(std::string_view pass, const std::vector<Group>& groups, const std::vector<std::string>& names) {
  const std::vector<Group> defaults = default_groups();
  for (const Group& group : groups) {
    const std::string label = "group \"" + group.pattern + "\" ";
    if (group.weight_decay) require_not_negative(pass, label + "weight_decay", *group.weight_decay);
    require_not_negative(pass, label + "lr_scale", group.lr_scale);
    const bool is_default = std::ranges::any_of(defaults, [&](const Group& d) { return d.pattern == group.pattern; });
    const bool used = std::ranges::any_of(names, [&](const std::string& name) { return matches(group.pattern, name); });
    if (is_default || used) continue;
    std::string message = std::string(pass) + ": " + label + "matches no parameter";
    const std::size_t shown = std::min<std::size_t>(names.size(), 5);
    for (std::size_t i = 0; i < shown; ++i) message += (i ? ", \"" : "; the parameters are \"") + names[i] + "\"";
    if (names.size() > shown) message += ", … (" + std::to_string(names.size()) + ")";
    throw Error(message);
  }
}

}  // namespace detail
}  // namespace graft::optim
