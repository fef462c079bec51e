#pragma once
// Reads the SVG and HTML that graft writes: enough of XML to find elements, and strict about nesting, quotes and escapes.
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace graft::testing {

struct Element {
  std::string tag, text;  ///< text: all of it inside, with what children say
  std::map<std::string, std::string> attributes;
  int depth = 0;
  double number(const std::string& name) const { return std::stod(attributes.at(name)); }
};

inline std::string unescaped(std::string text) {
  for (const auto& [from, to] : std::map<std::string, std::string>{{"&lt;", "<"}, {"&gt;", ">"}, {"&quot;", "\""}})
    for (std::size_t at = text.find(from); at != std::string::npos; at = text.find(from, at)) text.replace(at, from.size(), to);
  for (std::size_t at = text.find('&'); at != std::string::npos; at = text.find('&', at + 1)) {
    if (text.compare(at, 5, "&amp;") != 0) throw std::runtime_error("a bare & in: " + text);
    text.replace(at, 5, "&");
  }
  return text;
}

/// All elements in the order in which they open. Throws when the text is not well-formed.
inline std::vector<Element> parse_xml(std::string_view xml) {
  std::vector<Element> all;
  std::vector<std::size_t> open;
  const auto fail = [&](const std::string& what) { throw std::runtime_error("not well-formed: " + what); };
  std::size_t at = 0;
  while (at < xml.size()) {
    const std::size_t tag = xml.find('<', at);
    const std::string text = unescaped(std::string(xml.substr(at, tag - at)));
    for (std::size_t e : open) all[e].text += text;
    if (open.empty() && text.find_first_not_of(" \n") != std::string::npos) fail("text outside of the root: " + text);
    if (tag == std::string_view::npos) break;
    std::size_t end = tag + 1;
    for (bool quoted = false; end < xml.size() && (quoted || xml[end] != '>'); ++end) quoted ^= xml[end] == '"';
    if (end >= xml.size()) fail("an element without an end");
    std::string inside(xml.substr(tag + 1, end - tag - 1));
    at = end + 1;
    if (inside[0] == '/') {
      if (open.empty() || all[open.back()].tag != inside.substr(1)) fail("</" + inside.substr(1) + "> closes nothing");
      open.pop_back();
      continue;
    }
    const bool closed = inside.back() == '/';
    if (closed) inside.pop_back();
    Element element;
    element.depth = static_cast<int>(open.size());
    std::size_t p = inside.find(' ');
    element.tag = inside.substr(0, p);
    while (p != std::string::npos && (p = inside.find_first_not_of(' ', p)) != std::string::npos) {
      const std::size_t equals = inside.find("=\"", p), quote = equals == std::string::npos ? equals : inside.find('"', equals + 2);
      if (quote == std::string::npos) fail("an attribute without a value in <" + inside + ">");
      const std::string name = inside.substr(p, equals - p);
      if (!element.attributes.emplace(name, unescaped(inside.substr(equals + 2, quote - equals - 2))).second) fail("twice " + name);
      p = quote + 1;
      if (p < inside.size() && inside[p] != ' ') fail("<" + inside + ">");
    }
    if (!closed) open.push_back(all.size());
    all.push_back(element);
  }
  if (!open.empty()) fail("<" + all[open.back()].tag + "> is not closed");
  return all;
}

/// Those with a tag and, unless empty, an attribute of a value.
inline std::vector<Element> elements(const std::vector<Element>& all, std::string_view tag, const std::string& attribute = {},
                                     const std::string& value = {}) {
  std::vector<Element> found;
  for (const Element& e : all) {
    if (e.tag != tag) continue;
    const auto at = e.attributes.find(attribute);
    if (attribute.empty() || (at != e.attributes.end() && at->second == value)) found.push_back(e);
  }
  return found;
}

/// What the <text> elements say.
inline std::vector<std::string> texts(const std::vector<Element>& all) {
  std::vector<std::string> said;
  for (const Element& e : all)
    if (e.tag == "text") said.push_back(e.text);
  return said;
}

}  // namespace graft::testing
