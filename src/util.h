#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace graft {

/// `, did you mean "a", "b"` for the known names nearest to `name`, or `, known: …` when none is near; "" when none is known.
std::string names_near(std::string_view name, const std::vector<std::string>& known);

/// A byte for messages: "0x7a ('z')", "0xc3".
std::string byte_text(unsigned char byte);

}  // namespace graft
