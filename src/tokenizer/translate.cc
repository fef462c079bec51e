#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "graft/error.h"
#include "src/tokenizer/pattern.h"
#include "src/tokenizer/unicode16.h"

namespace graft::tokenizer {
namespace {

// Unicode's White_Space, and the rest, as members of a class. PCRE2's own \s lacks U+0085.
constexpr std::string_view kSpace =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view kNotSpace =
    R"(\x{0}-\x{8}\x{e}-\x{1f}\x{21}-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff}\x{200b}-\x{2027}\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{10ffff})";

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_hex(char c) { return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }
char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

class Translator {
 public:
  explicit Translator(std::string_view pattern) : pattern_(pattern) {}

  std::string run() {
    while (at_ < pattern_.size()) item();
    if (!groups_.empty()) refuse("(", "is not closed");
    return out_;
  }

 private:
  [[noreturn]] void refuse(std::string_view what, const std::string& why = "is not understood") const {
    throw Error("pattern \"" + std::string(pattern_) + "\": \"" + std::string(what) + "\" at byte " + std::to_string(at_) + " " +
                why);
  }
  std::string_view rest() const { return pattern_.substr(at_); }
  bool starts(std::string_view what) const { return rest().starts_with(what); }
  bool caseless() const { return std::find(groups_.begin(), groups_.end(), true) != groups_.end(); }

  void item() {
    const char before = std::exchange(literal_, '\0');
    const bool repeatable = std::exchange(repeatable_, true);
    switch (const char c = pattern_[at_]) {
      case '[': return character_class();
      case '(': return open();
      case ')': return close();
      case '*':
      case '+':
      case '?':
      case '{': return quantifier(repeatable);
      case '\\': return escape(false);
      case '.': out_ += "[^\\n]"; break;
      case '|':
        repeatable_ = false;
        out_ += c;
        break;
      case '^':
      case '$':
      case ']':
      case '}': refuse(rest().substr(0, 1));
      default: return literal(before, c);
    }
    ++at_;
  }

  // Case folding that changes the number of characters (ß and "ss") is Oniguruma's alone.
  void literal(char before, char c) {
    refuse_caseless(c);
    if (caseless()) {
      const char pair[] = {lower(before), lower(c), '\0'};
      for (const std::string_view folded : {"ss", "ff", "fi", "fl", "st"})
        if (folded == pair) refuse(pair, "under (?i:) is not understood");
    }
    literal_ = c;
    out_ += c;
    ++at_;
  }

  void refuse_caseless(char c) const {
    if (static_cast<unsigned char>(c) >= 0x80 && caseless()) refuse(rest().substr(0, 1), "under (?i:) is not understood");
  }

  void open() {
    repeatable_ = false;
    for (const std::string_view kind : {"(?:", "(?=", "(?!", "(?>", "(?i:"}) {
      if (!starts(kind)) continue;
      groups_.push_back(kind == "(?i:");
      out_ += kind;
      at_ += kind.size();
      return;
    }
    if (starts("(?") || starts("(*")) refuse(rest().substr(0, 3));
    groups_.push_back(false);
    out_ += "(?:";  // nobody asks what a group has matched
    ++at_;
  }

  void close() {
    if (groups_.empty()) refuse(")", "closes nothing");
    groups_.pop_back();
    out_ += pattern_[at_++];
  }

  void quantifier(bool repeatable) {
    if (!repeatable) refuse(rest().substr(0, 1), "has nothing to repeat");
    repeatable_ = false;
    if (pattern_[at_] != '{') {
      out_ += pattern_[at_++];
      if (starts("?") || starts("+")) out_ += pattern_[at_++];  // lazy, possessive
      return;
    }
    const std::size_t end = pattern_.find('}', at_);
    const std::string_view inside = end == std::string_view::npos ? "" : pattern_.substr(at_ + 1, end - at_ - 1);
    const std::size_t comma = inside.find(',');
    const std::string_view low = inside.substr(0, comma), high = comma == std::string_view::npos ? "" : inside.substr(comma + 1);
    const auto number = [](std::string_view text) { return text.size() <= 4 && std::all_of(text.begin(), text.end(), is_digit); };
    if ((low.empty() && high.empty()) || !number(low) || !number(high))
      refuse("{", "is no quantifier; write \\{ for the character");
    out_ += "{" + (low.empty() ? "0" : std::string(low)) + (comma == std::string_view::npos ? "" : "," + std::string(high)) + "}";
    at_ = end + 1;
    if (starts("?") || starts("+")) refuse(rest().substr(0, 1), "after {} is not understood");
  }

  void character_class() {
    const std::size_t open = at_;
    out_ += pattern_[at_++];
    if (starts("^")) out_ += pattern_[at_++];
    if (starts("]")) refuse("]", "in an empty class");
    for (const std::size_t first = at_; !starts("]");) {
      if (at_ == pattern_.size()) {
        at_ = open;
        refuse("[", "is not closed");
      }
      if (starts("[")) refuse("[", "inside a class is not understood");
      if (starts("&&")) refuse("&&");
      refuse_caseless(pattern_[at_]);
      if (!starts("\\")) {
        out_ += pattern_[at_++];
        continue;
      }
      // A set is no end of a range.
      const bool set = rest().size() > 1 && std::string_view("sSdpP").find(rest()[1]) != std::string_view::npos;
      if (set && at_ > first + 1 && pattern_[at_ - 1] == '-' && pattern_[at_ - 2] != '\\')
        refuse(rest().substr(0, 2), "after - is not understood");
      escape(true);
      if (set && starts("-") && !starts("-]")) refuse("-", "after a set is not understood");
    }
    out_ += pattern_[at_++];
  }

  // `members` of a class, inside of one or as one of its own.
  void put_class(std::string_view members, bool inside, bool negated = false) {
    out_ += inside ? std::string(members) : std::string(negated ? "[^" : "[") + std::string(members) + "]";
  }

  void escape(bool inside) {
    if (at_ + 1 == pattern_.size()) refuse("\\", "ends the pattern");
    const char c = pattern_[at_ + 1];
    const std::string_view two = pattern_.substr(at_, 2);
    if (c == 'p' || c == 'P') return property(inside);
    if ((c == 'x' || c == 'u') && caseless()) refuse(two, "under (?i:) is not understood");
    if (c == 's' || c == 'S') {
      put_class(c == 's' ? kSpace : kNotSpace, inside);
    } else if (c == 'd') {
      put_class(category("Nd"), inside);
    } else if (c == 'r' || c == 'n' || c == 't' || c == 'f') {
      out_ += two;
    } else if (c == 'v') {
      out_ += "\\x{b}";
    } else if (c == 'x' || c == 'u') {
      return code_point();
    } else if (c > ' ' && c < 0x7F && !is_letter(c) && !is_digit(c)) {
      out_ += two;
    } else {
      refuse(two);
    }
    at_ += 2;
  }

  // \x{…}, \uHHHH
  void code_point() {
    const bool braces = starts("\\x{");
    const std::size_t end = braces ? pattern_.find('}', at_) : at_ + 6;
    const std::size_t first = at_ + (braces ? 3 : 2);
    if (!(braces || starts("\\u")) || end == std::string_view::npos || end > pattern_.size() || end == first || end - first > 6)
      refuse(rest().substr(0, 2));
    const std::string_view digits = pattern_.substr(first, end - first);
    if (!std::all_of(digits.begin(), digits.end(), is_hex)) refuse(rest().substr(0, 2));
    out_ += "\\x{" + std::string(digits) + "}";
    at_ = end + (braces ? 1 : 0);
  }

  std::string category(std::string_view name) const {
    const auto* known =
        std::find_if(kSinceUnicode14.begin(), kSinceUnicode14.end(), [&](const auto& entry) { return entry.first == name; });
    if (known == kSinceUnicode14.end()) refuse("\\p{" + std::string(name) + "}");
    return "\\p{" + std::string(name) + "}" + std::string(known->second);
  }

  void property(bool inside) {
    const std::size_t end = pattern_.find('}', at_);
    if (at_ + 2 >= pattern_.size() || pattern_[at_ + 2] != '{' || end == std::string_view::npos) refuse(rest().substr(0, 2));
    const bool negated = pattern_[at_ + 1] == 'P';
    if (caseless()) refuse(pattern_.substr(at_, end + 1 - at_), "under (?i:) is not understood");
    if (negated && inside) refuse(pattern_.substr(at_, end + 1 - at_), "inside a class is not understood");
    put_class(category(pattern_.substr(at_ + 3, end - at_ - 3)), inside, negated);
    at_ = end + 1;
  }

  std::string_view pattern_;
  std::size_t at_ = 0;
  std::string out_;
  std::vector<bool> groups_;  // the open ones: whether (?i:)
  bool repeatable_ = false;
  char literal_ = '\0';  // the literal just before, if any
};

}  // namespace

std::string translate(std::string_view oniguruma) { return Translator(oniguruma).run(); }

}  // namespace graft::tokenizer
