#include "graft/plan.h"

#include <algorithm>

#include "graft/error.h"
#include "src/arena.h"
#include "src/op_traits.h"

namespace graft {
namespace {

using Slots = std::vector<std::vector<std::int32_t>>;  // node → slot → index, or kNone

/// One memory: a source or a result, with the views of it and the versions that overwrite it.
struct Storage {
  TensorType type;
  std::int32_t source = Plan::kNone;  // its node, if that is a source
  std::int32_t first = Plan::kNone, last = Plan::kNone;
  bool kept = false;
};

std::vector<bool> needed_nodes(const Graph& graph, bool all) {
  const std::vector<Node>& nodes = graph.nodes();
  std::vector<bool> needed(nodes.size(), all);
  for (const auto& [name, value] : graph.outputs()) needed[static_cast<std::size_t>(value.node)] = true;
  for (std::size_t n = nodes.size(); n-- > 0;) {
    if (overwrites(nodes[n].op)) needed[n] = true;
    if (!needed[n]) continue;
    for (const Value input : nodes[n].inputs) needed[static_cast<std::size_t>(input.node)] = true;
  }
  return needed;
}

/// node → slot → whether a needed node reads it or it is an output.
std::vector<std::vector<bool>> read_slots(const Graph& graph, const std::vector<bool>& needed, bool all) {
  const std::vector<Node>& nodes = graph.nodes();
  std::vector<std::vector<bool>> read(nodes.size());
  for (std::size_t n = 0; n < nodes.size(); ++n) read[n].assign(nodes[n].outputs.size(), all);
  const auto mark = [&](Value v) { read[static_cast<std::size_t>(v.node)][static_cast<std::size_t>(v.slot)] = true; };
  for (std::size_t n = 0; n < nodes.size(); ++n) {
    if (needed[n]) std::for_each(nodes[n].inputs.begin(), nodes[n].inputs.end(), mark);
  }
  for (const auto& [name, value] : graph.outputs()) mark(value);
  return read;
}

std::int32_t at(const Slots& slots, Value v) { return slots[static_cast<std::size_t>(v.node)][static_cast<std::size_t>(v.slot)]; }

/// The input of the node, which runs at `now`, whose buffer the output may take over: it dies here, and nothing else at this node
/// uses it, save in the same element-by-element way. kNone if there is none.
std::int32_t reusable_input(const Graph& graph, const Node& node, std::int32_t slot, std::int32_t now, const Slots& storage_of,
                            const std::vector<Storage>& storages, const std::vector<std::int32_t>& buffer_of_storage,
                            const std::vector<std::int32_t>& taken) {
  const TensorType& type = node.outputs[static_cast<std::size_t>(slot)];
  const auto fits = [&](std::size_t i) {
    return may_reuse(node.op, slot, static_cast<int>(i)) && graph.type(node.inputs[i]) == type;
  };
  for (std::size_t i = 0; i < node.inputs.size(); ++i) {
    const std::int32_t candidate = at(storage_of, node.inputs[i]);
    const Storage& storage = storages[static_cast<std::size_t>(candidate)];
    if (!fits(i) || storage.source != Plan::kNone || storage.last != now) continue;
    if (std::count(taken.begin(), taken.end(), buffer_of_storage[static_cast<std::size_t>(candidate)]) > 0) continue;
    bool alone = true;
    for (std::size_t j = 0; j < node.inputs.size(); ++j) alone = alone && (at(storage_of, node.inputs[j]) != candidate || fits(j));
    if (alone) return static_cast<std::int32_t>(i);
  }
  return Plan::kNone;
}

}  // namespace

Plan::Plan(const Graph& graph, Backend& backend, const PlanOptions& options) : graph_(graph) {
  const std::vector<Node>& nodes = graph_.nodes();
  const std::vector<bool> needed = needed_nodes(graph_, options.keep_all);
  const std::vector<std::vector<bool>> read = read_slots(graph_, needed, options.keep_all);

  std::vector<Storage> storages;
  Slots storage_of(nodes.size());
  for (std::size_t n = 0; n < nodes.size(); ++n) {
    const Node& node = nodes[n];
    storage_of[n].assign(node.outputs.size(), kNone);
    const bool source = is_source(node.op);
    if (!needed[n] && (!source || std::holds_alternative<Constant>(node.op))) continue;
    for (std::size_t slot = 0; slot < node.outputs.size(); ++slot) {
      const int alias = alias_of(node.op, static_cast<int>(slot));
      if (alias >= 0) {
        storage_of[n][slot] = at(storage_of, node.inputs[static_cast<std::size_t>(alias)]);
      } else if (source || read[n][slot]) {
        storage_of[n][slot] = static_cast<std::int32_t>(storages.size());
        storages.push_back(
            {node.outputs[slot], source ? static_cast<std::int32_t>(n) : kNone, kNone, kNone, source || options.keep_all});
      }
    }
    if (!source && !is_view(node.op)) {
      order_.push_back(static_cast<std::int32_t>(n));
      workspace_bytes_ = std::max(workspace_bytes_, backend.workspace(graph_, node));
    }
  }

  const auto end = static_cast<std::int32_t>(order_.size());
  for (std::int32_t now = 0; now < end; ++now) {
    const auto touch = [&](std::int32_t storage) {
      if (storage == kNone) return;
      Storage& s = storages[static_cast<std::size_t>(storage)];
      if (s.first == kNone) s.first = now;
      s.last = now;
    };
    const auto n = static_cast<std::size_t>(order_[static_cast<std::size_t>(now)]);
    for (const Value input : nodes[n].inputs) touch(at(storage_of, input));
    for (const std::int32_t storage : storage_of[n]) touch(storage);
  }
  for (const auto& [name, value] : graph_.outputs()) storages[static_cast<std::size_t>(at(storage_of, value))].kept = true;
  for (Storage& s : storages) {
    if (s.kept && s.source == kNone) s.last = end;
  }

  std::vector<std::int32_t> buffer_of_storage(storages.size(), kNone);
  for (std::size_t s = 0; s < storages.size(); ++s) {
    if (storages[s].source == kNone) continue;
    buffer_of_storage[s] = static_cast<std::int32_t>(buffers_.size());
    buffers_.push_back({storages[s].type.bytes(), 0, true, storages[s].source, storages[s].first, storages[s].last});
  }
  for (std::int32_t now = 0; now < end; ++now) {
    const auto n = static_cast<std::size_t>(order_[static_cast<std::size_t>(now)]);
    std::vector<std::int32_t> taken;
    for (std::size_t slot = 0; slot < storage_of[n].size(); ++slot) {
      const std::int32_t s = storage_of[n][slot];
      if (s == kNone || buffer_of_storage[static_cast<std::size_t>(s)] != kNone) continue;  // unread, or an alias
      const Storage& storage = storages[static_cast<std::size_t>(s)];
      bytes_without_reuse_ += aligned(storage.type.bytes());
      std::int32_t& buffer = buffer_of_storage[static_cast<std::size_t>(s)];
      const std::int32_t input =
          reusable_input(graph_, nodes[n], static_cast<std::int32_t>(slot), now, storage_of, storages, buffer_of_storage, taken);
      if (input != kNone) {
        buffer = buffer_of_storage[static_cast<std::size_t>(at(storage_of, nodes[n].inputs[static_cast<std::size_t>(input)]))];
        buffers_[static_cast<std::size_t>(buffer)].last = storage.last;
        taken.push_back(buffer);
      } else {
        buffer = static_cast<std::int32_t>(buffers_.size());
        buffers_.push_back({storage.type.bytes(), 0, false, kNone, storage.first, storage.last});
      }
    }
  }

  buffer_of_.resize(nodes.size());
  kept_.resize(nodes.size());
  for (std::size_t n = 0; n < nodes.size(); ++n) {
    for (const std::int32_t s : storage_of[n]) {
      buffer_of_[n].push_back(s == kNone ? kNone : buffer_of_storage[static_cast<std::size_t>(s)]);
      kept_[n].push_back(s != kNone && storages[static_cast<std::size_t>(s)].kept);
    }
  }

  std::vector<ArenaBlock> blocks;
  for (const Buffer& b : buffers_) {
    if (!b.persistent) blocks.push_back({b.bytes, b.first, b.last, 0});
  }
  arena_bytes_ = arrange(blocks);
  auto block = blocks.cbegin();
  for (Buffer& b : buffers_) {
    if (!b.persistent) b.offset = (block++)->offset;
  }
}

std::int32_t Plan::buffer_of(Value v) const {
  GRAFT_ASSERT(v.node >= 0 && static_cast<std::size_t>(v.node) < buffer_of_.size());
  GRAFT_ASSERT(v.slot >= 0 && static_cast<std::size_t>(v.slot) < buffer_of_[static_cast<std::size_t>(v.node)].size());
  return at(buffer_of_, v);
}

bool Plan::kept(Value v) const {
  return buffer_of(v) != kNone && kept_[static_cast<std::size_t>(v.node)][static_cast<std::size_t>(v.slot)];
}

std::size_t Plan::persistent_bytes() const {
  std::size_t bytes = 0;
  for (const Buffer& b : buffers_) bytes += b.persistent ? b.bytes : 0;
  return bytes;
}

}  // namespace graft
