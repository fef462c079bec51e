#include <array>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "graft/tokenizer.h"
#include "src/tokenizer/byte_level.h"
#include "src/tokenizer/spec.h"

namespace graft::tokenizer {
namespace {

using nlohmann::ordered_json;

// ordered_json looks keys up one by one, so the large object is written by hand.
std::string vocabulary(const std::vector<std::string>& tokens) {
  std::string text = "{";
  for (std::size_t id = 0; id < tokens.size(); ++id)
    text += (id == 0 ? "\n" : ",\n") + ordered_json(tokens[id]).dump() + ":" + std::to_string(id);
  return text + "}";
}

std::string document(const ordered_json& added, const ordered_json& pre_tokenizer, const ordered_json& decoder,
                     const std::string& model) {
  return "{\"version\":\"1.0\",\n\"truncation\":null,\n\"padding\":null,\n\"added_tokens\":" + added.dump() +
         ",\n\"normalizer\":null,\n\"pre_tokenizer\":" + pre_tokenizer.dump() +
         ",\n\"post_processor\":null,\n\"decoder\":" + decoder.dump() + ",\n\"model\":" + model + "}\n";
}

ordered_json split(std::string_view regex) {
  return {{"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", "Isolated"}, {"invert", false}};
}

ordered_json byte_level(bool use_regex) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", use_regex}};
}

}  // namespace

std::string byte_token(unsigned char byte) {
  std::array<char, 8> text{};
  std::snprintf(text.data(), text.size(), "<0x%02X>", byte);
  return text.data();
}

int byte_of_token(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x")) return -1;
  const auto digit = [&](std::size_t at) { return std::string_view("0123456789ABCDEF").find(token[at]); };
  const std::size_t high = digit(3), low = digit(4);
  return token[5] == '>' && high < 16 && low < 16 ? static_cast<int>(high * 16 + low) : -1;
}

std::string write_bpe(const std::vector<std::string>& tokens, const std::vector<Merge>& merges, std::string_view pattern,
                      const std::vector<std::string>& special) {
  std::vector<std::string> names(special);
  for (std::size_t id = special.size(); id < tokens.size(); ++id) names.push_back(to_byte_characters(tokens[id]));
  ordered_json added = ordered_json::array();
  for (std::size_t id = 0; id < special.size(); ++id) {
    added.push_back({{"id", id},
                     {"content", special[id]},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  ordered_json words = byte_level(pattern == kGpt2Pattern);
  if (!pattern.empty() && pattern != kGpt2Pattern)
    words = {{"type", "Sequence"}, {"pretokenizers", ordered_json::array({split(pattern), words})}};

  std::string model =
      R"({"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":null,"end_of_word_suffix":null,"fuse_unk":false,"byte_fallback":false,"ignore_merges":false,)";
  model += "\n\"vocab\":" + vocabulary(names) + ",\n\"merges\":[";
  for (std::size_t rank = 0; rank < merges.size(); ++rank)
    model += (rank == 0 ? "\n" : ",\n") + ordered_json(names[merges[rank].left] + " " + names[merges[rank].right]).dump();
  return document(added, words, byte_level(true), model + "]}");
}

std::string write_characters(const std::vector<std::string>& tokens) {
  const ordered_json decoder = {{"type", "Sequence"},
                                {"decoders", ordered_json::array({{{"type", "ByteFallback"}}, {{"type", "Fuse"}}})}};
  return document(ordered_json::array(), split(kCharacterPattern), decoder,
                  "{\"type\":\"WordLevel\",\n\"vocab\":" + vocabulary(tokens) + ",\n\"unk_token\":\"<unk>\"}");
}

}  // namespace graft::tokenizer
