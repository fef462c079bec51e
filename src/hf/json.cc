#include "src/hf/json.h"

#include <set>
#include <vector>

#include "graft/error.h"

namespace graft::hf::detail {
namespace {

constexpr std::size_t kDeepest = 32, kMostKeys = 2'000;

template <class J>
J parse(std::string_view text, const std::string& what, std::size_t most_keys) {
  std::vector<std::set<std::string>> open;  // the keys of each object and array that is open
  const auto watch = [&](int, typename J::parse_event_t event, J& parsed) {
    using Event = typename J::parse_event_t;
    switch (event) {
      case Event::object_start:
      case Event::array_start:
        if (open.size() == kDeepest) throw Error(what + ": nests deeper than " + std::to_string(kDeepest));
        open.emplace_back();
        break;
      case Event::object_end:
      case Event::array_end: open.pop_back(); break;
      case Event::key:
        if (open.back().size() == most_keys) throw Error(what + ": an object has more than " + std::to_string(most_keys) + " keys");
        if (!open.back().insert(parsed.template get<std::string>()).second)
          throw Error(what + ": key " + shown(parsed) + " is there twice");
        break;
      case Event::value: break;
    }
    return true;
  };
  try {
    return J::parse(text, watch);
  } catch (const nlohmann::json::parse_error& error) {
    throw Error(what + ": is not valid JSON, at byte " + std::to_string(error.byte));
  } catch (const nlohmann::json::exception& error) {
    throw Error(what + ": is not valid JSON: " + error.what());
  }
}

}  // namespace

Json parse_json(std::string_view text, const std::string& what) { return parse<Json>(text, what, kMostKeys); }
SortedJson parse_sorted_json(std::string_view text, const std::string& what) {
  return parse<SortedJson>(text, what, static_cast<std::size_t>(-1));
}

}  // namespace graft::hf::detail
