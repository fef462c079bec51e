// The fuzz targets in the ordinary build: on their corpora, and on mutations of them, the same in every run.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "graft/philox.h"
#include "tests/fuzz/targets.h"

namespace graft::fuzz {
namespace {

struct Target {
  const char* name;
  void (*run)(std::span<const std::byte>);
  std::uint32_t mutations;
};
constexpr Target kTargets[] = {
#define GRAFT_LIST_TARGET(name, mutations) {#name, fuzz_##name, mutations},
    GRAFT_FUZZ_TARGETS(GRAFT_LIST_TARGET)
#undef GRAFT_LIST_TARGET
};
void PrintTo(const Target& target, std::ostream* out) { *out << target.name; }

std::vector<std::string> corpus_of(const Target& target) {
  std::vector<std::filesystem::path> files;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::filesystem::path(GRAFT_SOURCE_DIR) / "tests/fuzz/corpus" / target.name))
    files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  std::vector<std::string> inputs;
  for (const std::filesystem::path& file : files) {
    std::ifstream in(file, std::ios::binary);
    inputs.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
  }
  return inputs;
}

/// Changes an input as damage, hostility and chance would.
class Mutator {
 public:
  Mutator(const std::vector<std::string>& corpus, std::uint32_t seed) : corpus_(corpus), seed_(seed) {}

  std::string operator()() {
    std::string text = corpus_[below(corpus_.size())];
    for (std::size_t left = 1 + below(3); left > 0; --left) change(text);
    return text;
  }

 private:
  std::size_t below(std::size_t bound) { return philox::bits(seed_, 0x66757a7a, 0, drawn_++) % std::max<std::size_t>(bound, 1); }

  void change(std::string& text) {
    static constexpr std::string_view kPieces[] = {"0",
                                                   "-1",
                                                   "1e999",
                                                   "18446744073709551615",
                                                   "9223372036854775808",
                                                   "4294967296",
                                                   "null",
                                                   "true",
                                                   "\"\"",
                                                   "[]",
                                                   "{}",
                                                   "[[",
                                                   "{\"a\":",
                                                   "\xff",
                                                   "\\u0000",
                                                   "\\ud800",
                                                   ","};
    const std::size_t at = below(text.size() + 1),
                      length = std::min(text.size() - at, below(1 + (below(2) != 0 ? 8 : text.size())));
    switch (below(8)) {
      case 0: text.resize(at); break;
      case 1: text.erase(at, length); break;
      case 2: text.insert(at, std::string(text, at, length)); break;
      case 3: text.insert(at, kPieces[below(std::size(kPieces))]); break;
      case 4: text.replace(at, length, kPieces[below(std::size(kPieces))]); break;
      case 5: {
        const std::string& other = corpus_[below(corpus_.size())];
        text.replace(at, std::string::npos, other.substr(below(other.size())));
        break;
      }
      case 6:
        if (at < text.size()) text[at] = static_cast<char>(text[at] ^ (1 << below(8)));
        break;
      default:
        if (at < text.size()) text[at] = static_cast<char>(below(256));
        break;
    }
  }

  const std::vector<std::string>& corpus_;
  std::uint64_t seed_, drawn_ = 0;
};

class Fuzz : public ::testing::TestWithParam<Target> {};

TEST_P(Fuzz, TheCorpusAndMutationsOfItOnlyThrowError) {
  const Target& target = GetParam();
  const std::vector<std::string> corpus = corpus_of(target);
  ASSERT_FALSE(corpus.empty());
  const auto run = [&](const std::string& input) {
    const std::vector<char> exact(input.begin(), input.end());  // so that a sanitizer sees a read past its end
    target.run(std::as_bytes(std::span(exact)));
  };
  for (const std::string& input : corpus) EXPECT_NO_THROW(run(input));
  for (std::uint32_t seed = 0; seed < target.mutations; ++seed) {
    const std::string input = Mutator(corpus, seed)();
    ASSERT_NO_THROW(run(input)) << "mutation " << seed << ":\n" << ::testing::PrintToString(input);
  }
}

INSTANTIATE_TEST_SUITE_P(, Fuzz, ::testing::ValuesIn(kTargets), [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace graft::fuzz
