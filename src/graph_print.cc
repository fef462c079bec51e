#include "graft/graph.h"

namespace graft {
namespace {

/// "name", or "name:1" for another slot than the first.
std::string reference(const Graph& graph, Value v) { return graph.node(v).name + (v.slot ? ":" + std::to_string(v.slot) : ""); }

std::string types(const Node& node) {
  std::string text;
  for (const TensorType& type : node.outputs) text += (text.empty() ? "" : ", ") + to_string(type);
  return text;
}

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

}  // namespace

std::string Graph::to_text() const {
  std::string text;
  for (const Node& node : nodes_) {
    const std::string attributes = op_attributes(node.op);
    text += node.name + " = " + op_name(node.op) + (attributes.empty() ? "" : "[" + attributes + "]") + "(";
    for (std::size_t i = 0; i < node.inputs.size(); ++i) text += (i ? ", " : "") + reference(*this, node.inputs[i]);
    text += ") -> " + types(node) + "\n";
  }
  for (const auto& [name, value] : outputs_) text += "output " + name + " = " + reference(*this, value) + "\n";
  return text;
}

std::string Graph::to_dot() const {
  std::string dot = "digraph graft {\n  node [shape=box, fontname=\"Helvetica\", fontsize=10];\n";
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    const Node& node = nodes_[i];
    const std::string attributes = op_attributes(node.op);
    const bool source = node.inputs.empty();
    std::string label = quoted(node.name + "\n" + op_name(node.op) + (attributes.empty() ? "" : "\n" + attributes) + "\n" + types(node));
    for (std::size_t at = label.find('\n'); at != std::string::npos; at = label.find('\n', at)) label.replace(at, 1, "\\n");
    dot += "  n" + std::to_string(i) + " [label=" + label + (source ? ", style=filled, fillcolor=\"#e8eef7\"" : "") + "];\n";
    for (Value v : node.inputs)
      dot += "  n" + std::to_string(v.node) + " -> n" + std::to_string(i) + (v.slot ? " [label=\"" + std::to_string(v.slot) + "\"]" : "") + ";\n";
  }
  std::size_t number = 0;
  for (const auto& [name, value] : outputs_) {
    const std::string id = "o" + std::to_string(number++);
    dot += "  " + id + " [label=" + quoted(name) + ", shape=ellipse];\n  n" + std::to_string(value.node) + " -> " + id + ";\n";
  }
  return dot + "}\n";
}

std::uint64_t Graph::hash() const {
  std::uint64_t h = 0xcbf29ce484222325u;  // FNV-1a
  for (char c : to_text()) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return h;
}

}  // namespace graft
