#pragma once
// What the optimizer passes share: checks of settings, and groups.
#include <string>
#include <string_view>
#include <vector>

#include "graft/optim.h"

namespace graft::optim::detail {

/// Throws `adamw: beta2 is 1.5, must be in [0, 1)` unless `holds`.
void require_setting(bool holds, std::string_view pass, std::string_view setting, double value, std::string_view must);

void require_not_negative(std::string_view pass, std::string_view setting, double value);
/// In [0, 1): betas and momentum.
void require_beta(std::string_view pass, std::string_view setting, double value);
void require_schedule(std::string_view pass, const Schedule& schedule);
/// Settings of the groups, and that each pattern matches one of the names unless it is one of default_groups().
void require_groups(std::string_view pass, const std::vector<Group>& groups, const std::vector<std::string>& names);

/// The first group whose pattern matches, or none.
const Group* group_of(const std::vector<Group>& groups, std::string_view name);
/// * stands for any characters, also none; ? for one; everything else for itself.
bool matches(std::string_view pattern, std::string_view name);

/// The shortest text that reads back as the same number.
std::string number(double value);

}  // namespace graft::optim::detail
