#include "graft/generate.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "graft/error.h"
#include "graft/philox.h"

namespace graft {

std::uint32_t sample(std::span<const float> logits, const SampleOptions& options, std::uint32_t index) {
  if (!(options.temperature >= 0.0)) throw Error("sample: temperature is " + std::to_string(options.temperature) + ", must be at least 0");
  if (options.top_k < 0) throw Error("sample: top_k is " + std::to_string(options.top_k) + ", must be at least 0");
  for (std::size_t i = 0; i < logits.size(); ++i)
    if (!std::isfinite(logits[i])) throw Error("sample: logit " + std::to_string(i) + " is not finite");
  const auto best = static_cast<std::uint32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  if (options.temperature == 0.0) return best;

  std::vector<std::uint32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0u);
  const auto likelier = [&](std::uint32_t a, std::uint32_t b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; };
  if (options.top_k > 0 && options.top_k < static_cast<std::int64_t>(order.size())) {
    std::partial_sort(order.begin(), order.begin() + options.top_k, order.end(), likelier);
    order.resize(static_cast<std::size_t>(options.top_k));
  }
  std::vector<double> weight(order.size());
  double total = 0.0;
  for (std::size_t i = 0; i < order.size(); ++i)
    total += weight[i] = std::exp((static_cast<double>(logits[order[i]]) - static_cast<double>(logits[best])) / options.temperature);
  constexpr std::uint32_t kStream = 0x73616d70;  // apart from dropout's streams
  double left = philox::uniform(philox::bits(options.seed, kStream, index, 0)) * total;
  for (std::size_t i = 0; i < order.size(); ++i)
    if ((left -= weight[i]) < 0.0) return order[i];
  return order.back();
}

Generator::Generator(const nn::LlamaConfig& config, Backend& backend, std::int64_t max_seq) : Generator(config, &backend, nullptr, max_seq) {}
Generator::Generator(const nn::LlamaConfig& config, Session& owner, std::int64_t max_seq) : Generator(config, nullptr, &owner, max_seq) {}
Generator::~Generator() = default;

Generator::Generator(const nn::LlamaConfig& config, Backend* backend, Session* owner, std::int64_t max_seq) : max_seq_(max_seq) {
  if (max_seq < 2) throw Error("generator: max_seq is " + std::to_string(max_seq) + ", must be at least 2");
  Graph graph;
  const nn::Llama model(graph, config);
  std::vector<nn::KvCache> caches = model.make_caches(graph, max_seq);
  const Value id = graph.input_u32("id", {1}), kv_pos = graph.input_u32("kv_pos", {}), kv_len = graph.input_u32("kv_len", {});
  graph.output("logits", model.decode(graph, id, caches, kv_pos, kv_len));
  session_ = backend ? std::make_unique<Session>(graph, *backend) : std::make_unique<Session>(graph, *owner);
}

void Generator::restore(const Checkpoint& checkpoint) { session_->restore_parameters(checkpoint); }

void Generator::feed(std::uint32_t token) {
  if (static_cast<std::int64_t>(seen_.size()) == max_seq_) {
    const std::vector<std::uint32_t> newest(seen_.end() - max_seq_ / 2, seen_.end());
    seen_.clear();
    for (std::uint32_t again : newest) feed(again);
  }
  const auto position = static_cast<std::uint32_t>(seen_.size());
  session_->write("id", token);
  session_->write("kv_pos", position);
  session_->write("kv_len", position + 1);
  session_->step();
  seen_.push_back(token);
}

std::vector<std::uint32_t> Generator::generate(std::span<const std::uint32_t> prompt, std::int64_t count, const SampleOptions& options,
                                               const std::function<bool(std::uint32_t)>& each) {
  if (prompt.empty()) throw Error("generator: the prompt is empty");
  seen_.clear();
  for (std::uint32_t token : prompt) feed(token);
  std::vector<std::uint32_t> made;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::uint32_t token = sample(session_->read("logits"), options, static_cast<std::uint32_t>(i));
    made.push_back(token);
    if ((each && !each(token)) || i + 1 == count) break;
    feed(token);
  }
  return made;
}

}  // namespace graft
