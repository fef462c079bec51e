#include <algorithm>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "graft/error.h"
#include "graft/tokenizer.h"
#include "src/tokenizer/byte_level.h"
#include "src/tokenizer/spec.h"
#include "src/tokenizer/utf8.h"

namespace graft::tokenizer {
namespace {

using nlohmann::json;

std::string shown(const json& value) {
  std::string text = value.dump();
  if (text.size() > 60) text = text.substr(0, valid_prefix(std::string_view(text).substr(0, 60))) + "…";
  return text;
}

// A value of the document with its path, for messages.
class Node {
 public:
  Node(const json& value, std::string path, const std::string& file) : value_(&value), path_(std::move(path)), file_(&file) {}

  [[noreturn]] void refuse(const std::string& why) const { throw Error("tokenizer \"" + *file_ + "\": " + path_ + " " + why); }
  [[noreturn]] void refuse_value(const std::string& understood) const { refuse("is " + shown(*value_) + ", " + understood); }

  const std::string& file() const { return *file_; }
  bool is_null() const { return value_->is_null(); }
  const json& value() const { return *value_; }
  bool has(const char* key) const { return value_->contains(key); }
  /// A member; a missing one reads as null.
  Node operator[](const char* key) const {
    static const json missing;
    const auto found = value_->find(key);
    return {found == value_->end() ? missing : *found, path_.empty() ? key : path_ + "." + key, *file_};
  }
  std::vector<Node> elements() const {
    if (!value_->is_array()) refuse_value("must be an array");
    std::vector<Node> all;
    for (std::size_t i = 0; i < value_->size(); ++i) all.emplace_back((*value_)[i], path_ + "[" + std::to_string(i) + "]", *file_);
    return all;
  }
  /// That it is an object with these keys only.
  void object(std::initializer_list<std::string_view> known) const {
    if (!value_->is_object()) refuse_value("must be an object");
    for (const auto& [key, value] : value_->items())
      if (std::find(known.begin(), known.end(), key) == known.end())
        (*this)[key.c_str()].refuse_value("a key that is not understood");
  }
  std::string text() const {
    if (!value_->is_string()) refuse_value("must be a string");
    return value_->get<std::string>();
  }
  bool flag() const {
    if (!value_->is_boolean()) refuse_value("must be true or false");
    return value_->get<bool>();
  }
  bool flag_or(bool missing) const { return is_null() ? missing : flag(); }
  std::uint32_t id(std::size_t below) const {
    if (!value_->is_number_unsigned() || value_->get<std::uint64_t>() >= below)
      refuse_value("must be an id below " + std::to_string(below));
    return value_->get<std::uint32_t>();
  }
  void must_be(const json& wanted) const {
    if (*value_ != wanted) refuse_value("only " + wanted.dump() + " is understood");
  }
  void must_be_empty() const {
    if (!is_null() && *value_ != "") refuse_value("only null is understood");
  }

 private:
  const json* value_;
  std::string path_;
  const std::string* file_;
};

class SpecReader {
 public:
  explicit SpecReader(const Node& root) : root_(root) {}

  Spec read() {
    root_.object(
        {"version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder", "model"});
    root_["version"].must_be("1.0");
    for (const char* key : {"truncation", "padding"})
      if (!root_[key].is_null()) root_[key].refuse_value("only null is understood: it would change the ids");
    const Node model = root_["model"];
    if (!model.value().is_object()) model.refuse_value("must be an object");
    const bool untyped = !model.has("type") && model.has("merges");  // in old files
    const std::string type = untyped ? "BPE" : model["type"].text();
    if (type == "WordLevel") {
      characters(model);
    } else if (type == "BPE") {
      bpe(model);
    } else {
      model["type"].refuse_value("only \"BPE\" (byte-level) and \"WordLevel\" (of characters) are understood");
    }
    if (!root_["normalizer"].is_null()) root_["normalizer"].refuse_value("only null is understood");
    added_tokens();
    if (!root_["post_processor"].is_null()) post_processor(root_["post_processor"]);
    return std::move(spec_);
  }

 private:
  void vocabulary(const Node& vocab) {
    if (!vocab.value().is_object() || vocab.value().empty()) vocab.refuse_value("must be an object with at least one token");
    spec_.model_size = vocab.value().size();
    spec_.tokens.resize(spec_.model_size);
    std::vector<bool> taken(spec_.model_size);
    for (const auto& [token, id] : vocab.value().items()) {
      const Node node(id, "model.vocab[" + json(token).dump() + "]", root_.file());
      const std::uint32_t i = node.id(spec_.model_size);
      if (taken[i]) node.refuse("is " + std::to_string(i) + ", the id of " + json(spec_.tokens[i]).dump() + " too");
      taken[i] = true;
      spec_.tokens[i] = token;
      id_of_.emplace(token, i);
    }
  }

  void bpe(const Node& model) {
    model.object({"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", "byte_fallback",
                  "ignore_merges", "vocab", "merges"});
    if (!model["dropout"].is_null() && model["dropout"].value() != 0.0) model["dropout"].refuse_value("only null is understood");
    model["continuing_subword_prefix"].must_be_empty();
    model["end_of_word_suffix"].must_be_empty();
    if (model["byte_fallback"].flag_or(false)) model["byte_fallback"].refuse_value("only false is understood");
    static_cast<void>(model["fuse_unk"].flag_or(false));
    spec_.ignore_merges = model["ignore_merges"].flag_or(false);
    vocabulary(model["vocab"]);
    if (!model["unk_token"].is_null()) {  // it never occurs if every byte is a token
      for (const unsigned char byte : bytes_by_character())
        if (!id_of_.contains(to_byte_characters(std::string(1, static_cast<char>(byte)))))
          model["unk_token"].refuse_value("only null is understood where a byte is missing from the vocabulary");
    }
    merges(model["merges"]);
    byte_level_words(root_["pre_tokenizer"]);
    byte_level(root_["decoder"]);
  }

  void merges(const Node& list) {
    if (!list.value().is_array()) list.refuse_value("must be an array");
    std::unordered_map<std::uint64_t, std::size_t> ranks;
    for (std::size_t rank = 0; rank < list.value().size(); ++rank) {
      const json& merge = list.value()[rank];
      const Node node(merge, "model.merges[" + std::to_string(rank) + "]", root_.file());
      std::string left, right;
      if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
        left = merge[0].get<std::string>();
        right = merge[1].get<std::string>();
      } else {
        const std::string both = merge.is_string() ? merge.get<std::string>() : "";
        const std::size_t space = both.find(' ');
        if (space == std::string::npos || both.find(' ', space + 1) != std::string::npos) node.refuse_value("must be two tokens");
        left = both.substr(0, space);
        right = both.substr(space + 1);
      }
      const auto id = [&](const std::string& token) {
        const auto found = id_of_.find(token);
        if (found == id_of_.end()) node.refuse_value(json(token).dump() + " is not in the vocabulary");
        return found->second;
      };
      const Merge made{id(left), id(right), id(left + right)};
      const auto [first, is_new] = ranks.emplace(std::uint64_t{made.left} << 32 | made.right, rank);
      if (!is_new) node.refuse_value("the same as model.merges[" + std::to_string(first->second) + "]");
      spec_.merges.push_back(made);
    }
  }

  /// The options of ByteLevel; whether it has a regular expression of its own.
  static bool byte_level(const Node& node) {
    if (!node.value().is_object()) node.refuse_value("only ByteLevel is understood");
    node["type"].must_be("ByteLevel");
    node.object({"type", "add_prefix_space", "trim_offsets", "use_regex"});
    for (const char* key : {"add_prefix_space", "trim_offsets"}) static_cast<void>(node[key].flag_or(true));
    return node["use_regex"].flag_or(true);
  }

  void byte_level_words(const Node& node) {
    if (!node.value().is_object()) node.refuse_value("only ByteLevel, and Sequence of Split and ByteLevel, are understood");
    std::vector<Node> steps{node};
    if (node["type"].value() == "Sequence") {
      node.object({"type", "pretokenizers"});
      steps = node["pretokenizers"].elements();
      if (steps.empty()) node.refuse_value("must end with ByteLevel");
    }
    for (std::size_t i = 0; i + 1 < steps.size(); ++i) spec_.patterns.push_back(split(steps[i]));
    const Node& last = steps.back();
    if (byte_level(last)) spec_.patterns.emplace_back(kGpt2Pattern);
    spec_.prefix_space = last["add_prefix_space"].flag_or(true);
    if (spec_.prefix_space && steps.size() > 1) last["add_prefix_space"].refuse_value("only false is understood after Split");
  }

  static std::string split(const Node& node) {
    if (!node.value().is_object()) node.refuse_value("must be an object");
    node["type"].must_be("Split");
    node.object({"type", "pattern", "behavior", "invert"});
    node["behavior"].must_be("Isolated");
    node["invert"].must_be(false);
    node["pattern"].object({"Regex"});
    return node["pattern"]["Regex"].text();
  }

  void characters(const Node& model) {
    model.object({"type", "vocab", "unk_token"});
    vocabulary(model["vocab"]);
    for (const std::string& token : spec_.tokens) {
      const bool character = !token.empty() && sequence_length(token) == token.size();
      if (!character && byte_of_token(token) < 0)
        model["vocab"].refuse("holds " + json(token).dump() + ", and only characters and bytes like \"<0x80>\" are understood");
    }
    if (const Node unknown = model["unk_token"]; !unknown.is_null() && id_of_.contains(unknown.text()))
      unknown.refuse_value("only a token that is not in the vocabulary is understood");
    spec_.characters = true;
    if (const Node words = root_["pre_tokenizer"]; split(words) != kCharacterPattern)
      words["pattern"].refuse_value("only [\\s\\S] is understood with WordLevel");
    root_["decoder"].must_be({{"type", "Sequence"}, {"decoders", {{{"type", "ByteFallback"}}, {{"type", "Fuse"}}}}});
  }

  void added_tokens() {
    if (root_["added_tokens"].is_null()) return;
    for (const Node& node : root_["added_tokens"].elements()) {
      node.object({"id", "content", "special", "single_word", "lstrip", "rstrip", "normalized"});
      AddedToken token;
      token.content = node["content"].text();
      token.special = node["special"].flag();
      token.single_word = node["single_word"].flag();
      token.lstrip = node["lstrip"].flag();
      token.rstrip = node["rstrip"].flag();
      token.normalized = node["normalized"].flag();
      token.id = node["id"].id(spec_.tokens.size() + 1);
      if (token.content.empty()) node["content"].refuse_value("must not be empty");
      const auto is_same = [&](const AddedToken& other) { return other.content == token.content; };
      if (std::any_of(spec_.added.begin(), spec_.added.end(), is_same)) node["content"].refuse_value("which was added before");
      // The id of the model's token of that name, or the next one: what the tokenizers package would make of it.
      const auto known = id_of_.find(token.content);
      const std::size_t id = known == id_of_.end() ? spec_.tokens.size() : known->second;
      if (token.id != id) node["id"].refuse_value("must be " + std::to_string(id) + " for " + json(token.content).dump());
      if (known == id_of_.end()) {
        id_of_.emplace(token.content, token.id);
        spec_.tokens.push_back(token.content);
      }
      spec_.added.push_back(std::move(token));
    }
  }

  void post_processor(const Node& node) {
    if (!node.value().is_object()) node.refuse_value("must be an object");
    const json& type = node["type"].value();
    if (type == "ByteLevel") {
      byte_level(node);  // changes offsets only
    } else if (type == "Sequence") {
      node.object({"type", "processors"});
      for (const Node& step : node["processors"].elements()) post_processor(step);
    } else if (type == "TemplateProcessing") {
      node.object({"type", "single", "pair", "special_tokens"});
      text_template(node);
    } else {
      node["type"].refuse_value("only ByteLevel, TemplateProcessing and Sequence are understood");
    }
  }

  void text_template(const Node& node) {
    std::vector<std::uint32_t> before, after;
    bool text_seen = false;
    for (const Node& piece : node["single"].elements()) {
      piece.object({"Sequence", "SpecialToken"});
      if (piece.value().size() != 1) piece.refuse_value("must be a Sequence or a SpecialToken");
      if (piece.has("Sequence")) {
        piece["Sequence"].object({"id", "type_id"});
        piece["Sequence"]["id"].must_be("A");
        if (text_seen) piece.refuse_value("the text occurs twice");
        text_seen = true;
        continue;
      }
      piece["SpecialToken"].object({"id", "type_id"});
      const std::string name = piece["SpecialToken"]["id"].text();
      const Node token = node["special_tokens"][name.c_str()];
      token.object({"id", "ids", "tokens"});
      for (const Node& id : token["ids"].elements()) (text_seen ? after : before).push_back(id.id(spec_.tokens.size()));
    }
    if (!text_seen) node["single"].refuse_value("the text must occur in it");
    spec_.before.insert(spec_.before.begin(), before.begin(), before.end());
    spec_.after.insert(spec_.after.end(), after.begin(), after.end());
  }

  Node root_;
  Spec spec_;
  std::unordered_map<std::string, std::uint32_t> id_of_;
};

/// What reads or shows a document goes as deep as it is.
void check_depth(std::string_view text, const std::string& name) {
  constexpr std::size_t kDeepest = 32;
  std::size_t depth = 0;
  bool quoted = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '"') quoted = !quoted;
    if (quoted && c == '\\') ++i;
    if (quoted) continue;
    if ((c == '[' || c == '{') && ++depth > kDeepest)
      throw Error("tokenizer \"" + name + "\": nests deeper than " + std::to_string(kDeepest));
    if ((c == ']' || c == '}') && depth > 0) --depth;
  }
}

}  // namespace

Spec read_spec(std::string_view text, const std::string& name) {
  check_depth(text, name);
  json document;
  try {
    document = json::parse(text);
  } catch (const json::exception& error) {
    const std::string_view what = error.what();
    const std::size_t bracket = what.find("] ");
    throw Error("tokenizer \"" + name +
                "\": is not JSON: " + std::string(bracket == std::string_view::npos ? what : what.substr(bracket + 2)));
  }
  if (!document.is_object()) throw Error("tokenizer \"" + name + "\": must be a JSON object, got " + shown(document));
  return SpecReader(Node(document, "", name)).read();
}

}  // namespace graft::tokenizer
