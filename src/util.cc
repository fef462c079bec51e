#include "src/util.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <numeric>

namespace graft {
namespace {

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i + 1;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t substituted = diagonal + (a[i] != b[j]);
      diagonal = row[j + 1];
      row[j + 1] = std::min({substituted, row[j] + 1, diagonal + 1});
    }
  }
  return row.back();
}

}  // namespace

std::string names_near(std::string_view name, const std::vector<std::string>& known) {
  if (known.empty()) return "";
  std::vector<std::pair<std::size_t, std::string>> near;
  for (const std::string& candidate : known) {
    const std::size_t distance = edit_distance(name, candidate);
    if (distance <= std::max<std::size_t>(2, name.size() / 3) || (name.size() > 2 && candidate.find(name) != std::string::npos))
      near.emplace_back(distance, candidate);
  }
  std::sort(near.begin(), near.end());
  std::string text = near.empty() ? ", known: " : ", did you mean ";
  const std::size_t total = near.empty() ? known.size() : near.size(), shown = std::min<std::size_t>(total, near.empty() ? 8 : 3);
  for (std::size_t i = 0; i < shown; ++i) text += (i ? ", \"" : "\"") + (near.empty() ? known[i] : near[i].second) + "\"";
  return near.empty() && total > shown ? text + ", …" : text;
}

std::string byte_text(unsigned char byte) {
  std::array<char, 16> text{};
  std::snprintf(text.data(), text.size(), byte >= 0x20 && byte < 0x7f ? "0x%02x ('%c')" : "0x%02x", byte, byte);
  return text.data();
}

}  // namespace graft
