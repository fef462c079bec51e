// Parameters and states out of a session and back.
#include <cstring>
#include <map>
#include <set>

#include "graft/error.h"
#include "src/convert.h"
#include "src/session_impl.h"

namespace graft {
namespace {

constexpr std::string_view kModel = "model/", kData = "data/", kStep = "optimizer/step";

}  // namespace

std::vector<Session::Impl::Saved> Session::Impl::saved(bool only_parameters) const {
  std::vector<Saved> all;
  const std::vector<Node>& nodes = plan.graph().nodes();
  for (std::int32_t n = 0; n < static_cast<std::int32_t>(nodes.size()); ++n) {
    const Op& op = node(n).op;
    const auto* state = std::get_if<State>(&op);
    if (std::holds_alternative<Parameter>(op)) all.push_back({n, std::string(kModel) + node(n).name});
    if (state != nullptr && state->saved && !only_parameters) all.push_back({n, node(n).name});
  }
  std::set<std::string_view> paths;
  for (const Saved& saved : all) {
    if (!paths.insert(saved.path).second)
      throw Error(label(node(saved.node)) + ": another tensor is saved as \"" + saved.path + "\" too");
  }
  return all;
}

void Session::Impl::restore(const Checkpoint& checkpoint, bool only_parameters, bool may_convert, const std::string& what) {
  const std::vector<Saved> wanted = saved(only_parameters);
  std::map<std::string_view, const SavedTensor*> found;
  for (const SavedTensor& tensor : checkpoint.tensors) found.emplace(tensor.path, &tensor);

  std::string problems;
  const auto problem = [&](const std::string& text) { problems += (problems.empty() ? ": " : "; ") + text; };
  const auto quoted = [](std::string_view path) { return "\"" + std::string(path) + "\""; };
  std::set<std::string_view> expected;
  for (const Saved& s : wanted) {
    expected.insert(s.path);
    if (!found.contains(s.path)) problem("missing " + quoted(s.path) + " " + to_string(node(s.node).outputs[0]));
  }
  for (const SavedTensor& tensor : checkpoint.tensors) {
    const bool ours = only_parameters ? tensor.path.starts_with(kModel) : !tensor.path.starts_with(kData);
    if (ours && !expected.contains(tensor.path)) problem("unexpected " + quoted(tensor.path) + " " + to_string(tensor.type));
    if (found.at(tensor.path) != &tensor) problem(quoted(tensor.path) + " is there twice");
  }
  for (const Saved& s : wanted) {
    const auto it = found.find(s.path);
    if (it == found.end()) continue;
    const TensorType &here = node(s.node).outputs[0], &there = it->second->type;
    const bool convertible = may_convert && is_float(here.dtype) && is_float(there.dtype);
    if (here.shape != there.shape || (here.dtype != there.dtype && !convertible)) {
      problem(quoted(s.path) + " is " + to_string(there) + " in the file, " + to_string(here) + " here");
    } else if (it->second->bytes.size() != there.bytes()) {
      problem(quoted(s.path) + " holds " + std::to_string(it->second->bytes.size()) + " bytes, " + to_string(there) + " takes " +
              std::to_string(there.bytes()));
    }
  }
  if (!problems.empty()) throw Error(what + " does not fit" + problems);
  for (const Saved& s : wanted) {
    const SavedTensor& tensor = *found.at(s.path);
    put(s.node, tensor.bytes.data(), tensor.type.dtype);
  }
}

Checkpoint Session::snapshot() const {
  Checkpoint checkpoint;
  checkpoint.graph_hash = graph().hash();
  for (const Impl::Saved& s : impl_->saved(false)) {
    const TensorType& type = impl_->node(s.node).outputs[0];
    SavedTensor tensor{s.path, type, std::vector<std::byte>(type.bytes())};
    impl_->backend.download(tensor.bytes.data(), impl_->data({s.node, 0}), type.bytes());
    if (s.path == kStep && type == TensorType{DType::u32, {}}) {
      std::uint32_t step = 0;
      std::memcpy(&step, tensor.bytes.data(), sizeof(step));
      checkpoint.step = step;
    }
    checkpoint.tensors.push_back(std::move(tensor));
  }
  return checkpoint;
}

void Session::restore(const Checkpoint& checkpoint, bool convert) { impl_->restore(checkpoint, false, convert, "checkpoint"); }
void Session::restore_parameters(const Checkpoint& checkpoint, bool convert) {
  impl_->restore(checkpoint, true, convert, "checkpoint");
}
void Session::save(const std::filesystem::path& file) const { write_checkpoint(file, snapshot()); }
void Session::load(const std::filesystem::path& file) {
  impl_->restore(read_checkpoint(file), false, false, "checkpoint \"" + file.string() + "\"");
}

}  // namespace graft
