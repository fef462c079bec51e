#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace graft {

/// `, did you mean "a", "b"` for the known names nearest to `name`, or `, known: …` when none is near; "" when none is known.
std::string names_near(std::string_view name, const std::vector<std::string>& known);

}  // namespace graft
