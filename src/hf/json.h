#pragma once
#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace graft::hf::detail {

using Json =
    nlohmann::ordered_json;         // keeps the order of keys, so that what is read can be written again; looks keys up one by one
using SortedJson = nlohmann::json;  // for objects of many keys

/// Parses untrusted JSON. Throws Error `{what}: …` for what is no JSON or no UTF-8, a key that is twice in an object, nesting deeper
/// than 32, and in a Json objects of more than 2,000 keys.
Json parse_json(std::string_view text, const std::string& what);
SortedJson parse_sorted_json(std::string_view text, const std::string& what);

/// A value as text for a message, cut when it is long.
template <class J>
std::string shown(const J& value) {
  const std::string text = value.dump(-1, ' ', false, J::error_handler_t::replace);
  return text.size() <= 80 ? text : text.substr(0, 77) + "...";
}

}  // namespace graft::hf::detail
