// Writing and reading the values of a session.
#include <cmath>
#include <cstring>

#include "graft/error.h"
#include "src/convert.h"
#include "src/op_traits.h"
#include "src/session_impl.h"
#include "src/util.h"

namespace graft {
namespace {

bool can_be_written(const Op& op) { return is_source(op) && !std::holds_alternative<Constant>(op); }

/// The values that a caller has or wants, in words.
std::string in_words(DType dtype) { return dtype == DType::u32 ? "u32" : "floating-point"; }

/// The value that v shows: v itself unless it is a view.
Value behind_views(const Graph& graph, Value v) {
  while (is_view(graph.node(v).op)) v = graph.node(v).inputs[0];
  return v;
}

/// The lse of a row that sees no key is −inf; nothing else may be.
bool may_be_minus_infinity(const Node& node, std::int32_t slot) {
  return std::holds_alternative<MultiHeadAttn>(node.op) && slot == 1;
}

}  // namespace

void Session::Impl::write(std::string_view name, const void* values, DType dtype, std::size_t count) {
  const Value v = plan.graph().find(name);
  if (!v && !plan.graph().outputs().contains(name)) {
    std::vector<std::string> known;
    for (const Node& n : plan.graph().nodes()) {
      if (can_be_written(n.op)) known.push_back(n.name);
    }
    throw Error("no input, parameter or state is called \"" + std::string(name) + "\"" + names_near(name, known));
  }
  if (!v) throw Error("output \"" + std::string(name) + "\": is computed, only inputs, parameters and states can be written");
  const Node& target = node(v.node);
  if (std::holds_alternative<Constant>(target.op))
    throw Error(label(target) + ": is fixed, only inputs, parameters and states can be written");
  if (!can_be_written(target.op)) throw Error(label(target) + ": is computed, only inputs, parameters and states can be written");
  const TensorType& type = target.outputs[0];
  if (is_float(type.dtype) != is_float(dtype))
    throw Error(label(target) + ": takes " + to_string(type) + ", got " + in_words(dtype) + " values");
  if (count != static_cast<std::size_t>(type.shape.size())) {
    throw Error(label(target) + ": takes " + std::to_string(type.shape.size()) + " values of " + to_string(type) + ", got " +
                std::to_string(count));
  }
  put(v.node, values, dtype);
  written[static_cast<std::size_t>(v.node)] = true;
  HostCopy* copy = host_copy(v.node);
  if (copy != nullptr && !copy->state) std::memcpy(copy->values.data(), values, count * sizeof(std::uint32_t));
}

void Session::Impl::put(std::int32_t index, const void* values, DType dtype) {
  const TensorType& type = node(index).outputs[0];
  if (dtype != type.dtype) {
    staging.resize(type.bytes());
    convert(values, dtype, staging.data(), type.dtype, static_cast<std::size_t>(type.shape.size()));
    values = staging.data();
  }
  backend.upload(data({index, 0}), values, type.bytes());
}

Session::Impl::Named Session::Impl::readable(std::string_view name) const {
  const Graph& graph = plan.graph();
  const Value v = graph.find(name);
  const auto output = graph.outputs().find(name);
  if (output != graph.outputs().end() && output->second != v) return {output->second, "output \"" + std::string(name) + "\""};
  if (v) return {v, label(graph.node(v))};
  std::vector<std::string> known;
  for (const auto& [output_name, value] : graph.outputs()) known.push_back(output_name);
  for (const Node& n : graph.nodes()) {
    if (!graph.outputs().contains(n.name)) known.push_back(n.name);
  }
  throw Error("no value is called \"" + std::string(name) + "\"" + names_near(name, known));
}

void Session::Impl::check_readable(const Named& named, DType dtype) const {
  const Graph& graph = plan.graph();
  const TensorType& type = graph.type(named.value);
  const Value shown = behind_views(graph, named.value);
  const Node& from = graph.node(shown);
  if (!plan.kept(named.value)) {
    throw Error(named.label + ": is not kept after a step, mark it with Graph::output or use PlanOptions::keep_all");
  }
  if (std::holds_alternative<Input>(from.op) && !written[static_cast<std::size_t>(shown.node)])
    throw Error(named.label + ": was never written");
  if (!is_source(from.op) && !stepped) throw Error(named.label + ": has no value before the first step");
  if (is_float(type.dtype) != is_float(dtype))
    throw Error(named.label + ": is " + to_string(type) + ", got a request for " + in_words(dtype) + " values");
}

void Session::Impl::read(const Named& named, DType dtype, void* to, std::size_t count) {
  check_readable(named, dtype);
  const TensorType& type = plan.graph().type(named.value);
  if (count != static_cast<std::size_t>(type.shape.size())) {
    throw Error(named.label + ": has " + std::to_string(type.shape.size()) + " values of " + to_string(type) + ", got room for " +
                std::to_string(count));
  }
  if (dtype == type.dtype) {
    backend.download(to, data(named.value), type.bytes());
    return;
  }
  staging.resize(type.bytes());
  backend.download(staging.data(), data(named.value), type.bytes());
  convert(staging.data(), type.dtype, to, dtype, count);
}

std::string Session::Impl::first_nonfinite() {
  std::vector<double> values;
  const auto bad = [&](std::int32_t n) {
    const Node& here = node(n);
    if (std::holds_alternative<Input>(here.op) && !written[static_cast<std::size_t>(n)]) return false;
    for (std::int32_t slot = 0; slot < static_cast<std::int32_t>(here.outputs.size()); ++slot) {
      const TensorType& type = here.outputs[static_cast<std::size_t>(slot)];
      if (!is_float(type.dtype) || !plan.kept({n, slot})) continue;
      values.resize(static_cast<std::size_t>(type.shape.size()));
      read({{n, slot}, here.name}, DType::f64, values.data(), values.size());
      for (const double x : values) {
        if (!std::isfinite(x) && !(may_be_minus_infinity(here, slot) && x < 0)) return true;
      }
    }
    return false;
  };
  const std::vector<Node>& nodes = plan.graph().nodes();
  for (std::int32_t n = 0; n < static_cast<std::int32_t>(nodes.size()); ++n) {
    if (is_source(node(n).op) && bad(n)) return node(n).name;
  }
  if (!stepped) return "";
  for (const std::int32_t n : plan.order()) {
    if (bad(n)) return node(n).name;
  }
  return "";
}

void Session::write(std::string_view name, std::span<const float> values) {
  impl_->write(name, values.data(), DType::f32, values.size());
}
void Session::write(std::string_view name, std::span<const double> values) {
  impl_->write(name, values.data(), DType::f64, values.size());
}
void Session::write(std::string_view name, std::span<const std::uint32_t> values) {
  impl_->write(name, values.data(), DType::u32, values.size());
}

void Session::read(std::string_view name, std::span<float> to) {
  impl_->read(impl_->readable(name), DType::f32, to.data(), to.size());
}
void Session::read(std::string_view name, std::span<double> to) {
  impl_->read(impl_->readable(name), DType::f64, to.data(), to.size());
}
void Session::read(std::string_view name, std::span<std::uint32_t> to) {
  impl_->read(impl_->readable(name), DType::u32, to.data(), to.size());
}

std::vector<float> Session::read(std::string_view name) {
  const Impl::Named named = impl_->readable(name);
  std::vector<float> values(static_cast<std::size_t>(graph().shape(named.value).size()));
  impl_->read(named, DType::f32, values.data(), values.size());
  return values;
}

std::vector<double> Session::read_f64(std::string_view name) {
  const Impl::Named named = impl_->readable(name);
  std::vector<double> values(static_cast<std::size_t>(graph().shape(named.value).size()));
  impl_->read(named, DType::f64, values.data(), values.size());
  return values;
}

std::vector<std::uint32_t> Session::read_u32(std::string_view name) {
  const Impl::Named named = impl_->readable(name);
  std::vector<std::uint32_t> values(static_cast<std::size_t>(graph().shape(named.value).size()));
  impl_->read(named, DType::u32, values.data(), values.size());
  return values;
}

double Session::scalar(std::string_view name) {
  const Impl::Named named = impl_->readable(name);
  const TensorType& type = graph().type(named.value);
  if (type.shape.size() != 1) throw Error(named.label + ": is not a scalar, got " + to_string(type));
  if (is_float(type.dtype)) {
    double value = 0.0;
    impl_->read(named, DType::f64, &value, 1);
    return value;
  }
  std::uint32_t value = 0;
  impl_->read(named, DType::u32, &value, 1);
  return value;
}

std::vector<double> Session::read_f64(Value value) {
  std::vector<double> values(static_cast<std::size_t>(graph().shape(value).size()));
  impl_->read({value, label(graph().node(value))}, DType::f64, values.data(), values.size());
  return values;
}

std::string Session::first_nonfinite() { return impl_->first_nonfinite(); }

}  // namespace graft
