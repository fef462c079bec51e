#include "graft/generate.h"

#include <algorithm>

#include "graft/error.h"

namespace graft {
namespace {

GeneratorOptions checked(GeneratorOptions options) {
  const auto require = [](std::int64_t value, std::int64_t least, const char* option) {
    if (value < least)
      throw Error("generator: " + std::string(option) + " is " + std::to_string(value) + ", must be at least " +
                  std::to_string(least));
  };
  require(options.max_seq, 2, "max_seq");
  require(options.batch, 1, "batch");
  require(options.prefill, 1, "prefill");
  options.prefill = std::min(options.prefill, options.max_seq);
  return options;
}

}  // namespace

Decoder::Decoder(const nn::LlamaConfig& config)
    : record([config](Graph& graph, std::int64_t sequences, std::int64_t max_seq, const nn::DecodeStep& step) {
        const nn::Llama model(graph, config);
        std::vector<nn::KvCache> caches = model.make_caches(graph, sequences * max_seq);
        return model.decode(graph, caches, step);
      }),
      vocab_size(config.vocab_size) {}

Decoder::Decoder(const nn::Gpt2Config& config)
    : record([config](Graph& graph, std::int64_t sequences, std::int64_t max_seq, const nn::DecodeStep& step) {
        if (max_seq > config.max_positions) {
          throw Error("generator: max_seq is " + std::to_string(max_seq) + ", the model has " + std::to_string(config.max_positions) +
                      " positions");
        }
        const nn::Gpt2 model(graph, config);
        std::vector<nn::KvCache> caches = model.make_caches(graph, sequences * max_seq);
        return model.decode(graph, caches, step);
      }),
      vocab_size(config.vocab_size) {}

struct Generator::Impl {
  using Tokens = std::vector<std::uint32_t>;
  using Each = std::function<bool(std::size_t, std::uint32_t)>;
  /// A text that has a place in the batch.
  struct Text {
    std::size_t prompt = 0;   // its number
    Tokens tokens;            // prompt and new ones
    std::uint32_t made = 0;   // new ones
    std::int64_t cached = 0;  // the last so many before the newest are in the caches
    bool live = false;
  };

  GeneratorOptions options;
  std::unique_ptr<Session> decode, prefill;
  std::int64_t vocab_size;
  std::vector<float> logits;

  Impl(const Decoder& decoder, Backend* backend, Session* owner, const GeneratorOptions& given)
      : options(checked(given)), vocab_size(decoder.vocab_size), logits(static_cast<std::size_t>(options.batch * vocab_size)) {
    const Graph steps = decode_graph(decoder);
    decode = backend ? std::make_unique<Session>(steps, *backend) : std::make_unique<Session>(steps, *owner);
    prefill = std::make_unique<Session>(prefill_graph(decoder), *decode);
  }

  Graph finished(Graph graph, Value result) const {
    graph.output("logits", result);
    return options.pass ? options.pass(graph) : graph;
  }
  /// One token of each text.
  Graph decode_graph(const Decoder& decoder) const {
    Graph graph;
    const std::int64_t n = options.batch;
    nn::DecodeStep step;
    step.ids = graph.input_u32("ids", {n});
    step.kv_pos = graph.input_u32("kv_pos", {n});
    step.kv_len = graph.input_u32("kv_len", {n});
    return finished(std::move(graph), decoder.record(graph, n, options.max_seq, step));
  }
  /// A chunk of one text's tokens; logits of row `last`.
  Graph prefill_graph(const Decoder& decoder) const {
    Graph graph;
    nn::DecodeStep step;
    step.ids = graph.input_u32("ids", {options.prefill});
    step.kv_pos = graph.input_u32("kv_pos", {1});
    step.kv_len = graph.input_u32("kv_len", {1});
    step.slots = {options.batch, graph.input_u32("slot", {1})};
    step.rows = graph.input_u32("last", {1});
    step.positions = graph.input_u32("positions", {options.prefill});
    return finished(std::move(graph), decoder.record(graph, options.batch, options.max_seq, step));
  }

  /// Fills the caches of a place with tokens; the logits after the last are the prefill session's then.
  void fill(std::int64_t place, std::span<const std::uint32_t> tokens) {
    const auto chunk = static_cast<std::size_t>(options.prefill);
    Tokens ids(chunk), positions(chunk);
    for (std::size_t done = 0; done < tokens.size();) {
      // The last chunk is as full as the others and overlaps the one before, so that it stays within the caches.
      const std::size_t begin = tokens.size() < chunk ? 0 : std::min(done, tokens.size() - chunk),
                        end = std::min(begin + chunk, tokens.size());
      std::fill(ids.begin(), ids.end(), 0u);
      std::copy(tokens.begin() + static_cast<std::ptrdiff_t>(begin), tokens.begin() + static_cast<std::ptrdiff_t>(end),
                ids.begin());
      for (std::size_t i = 0; i < chunk; ++i) positions[i] = static_cast<std::uint32_t>(begin + i);
      prefill->write("ids", ids);
      prefill->write("kv_pos", static_cast<std::uint32_t>(begin));
      prefill->write("kv_len", static_cast<std::uint32_t>(begin + chunk));
      prefill->write("slot", static_cast<std::uint32_t>(place));
      prefill->write("last", static_cast<std::uint32_t>(end - begin - 1));
      prefill->write("positions", positions);
      prefill->step();
      done = end;
    }
  }

  void draw(Text& text, std::span<const float> row, const GenerateOptions& how, const Each& each, std::vector<Tokens>& results) {
    SampleOptions sampling = how.sampling;
    sampling.seed += text.prompt;
    const std::uint32_t token = sample(row, sampling, text.made++, text.tokens);
    text.tokens.push_back(token);
    results[text.prompt].push_back(token);
    const bool stopped = std::find(how.stop.begin(), how.stop.end(), token) != how.stop.end();
    text.live = (!each || each(text.prompt, token)) && !stopped && text.made < how.max_tokens;
  }

  /// The next prompt takes a free place and gets its first token.
  void begin(std::int64_t place, Text& text, std::size_t number, std::span<const std::uint32_t> prompt) {
    const std::size_t kept = std::min(prompt.size(), static_cast<std::size_t>(options.max_seq));
    text = {number, {prompt.begin(), prompt.end()}, 0, static_cast<std::int64_t>(kept), true};
    fill(place, prompt.last(kept));
    prefill->read("logits", row(0));
  }

  /// One token of every live text.
  void step(std::vector<Text>& texts) {
    Tokens ids(texts.size()), kv_pos(texts.size()), kv_len(texts.size(), 1u);  // of a free place: anything
    for (std::size_t i = 0; i < texts.size(); ++i) {
      Text& text = texts[i];
      if (!text.live) continue;
      if (text.cached == options.max_seq) {
        text.cached = options.max_seq / 2;
        fill(static_cast<std::int64_t>(i),
             std::span(text.tokens).last(static_cast<std::size_t>(text.cached) + 1).first(static_cast<std::size_t>(text.cached)));
      }
      ids[i] = text.tokens.back();
      kv_pos[i] = static_cast<std::uint32_t>(text.cached);
      kv_len[i] = static_cast<std::uint32_t>(++text.cached);
    }
    decode->write("ids", ids);
    decode->write("kv_pos", kv_pos);
    decode->write("kv_len", kv_len);
    decode->step();
    decode->read("logits", logits);
  }

  std::span<float> row(std::size_t i) {
    return std::span(logits).subspan(i * static_cast<std::size_t>(vocab_size), static_cast<std::size_t>(vocab_size));
  }
};

Generator::Generator(const Decoder& decoder, Backend& backend, const GeneratorOptions& options)
    : impl_(std::make_unique<Impl>(decoder, &backend, nullptr, options)) {}
Generator::Generator(const Decoder& decoder, Session& owner, const GeneratorOptions& options)
    : impl_(std::make_unique<Impl>(decoder, nullptr, &owner, options)) {}
Generator::~Generator() = default;

void Generator::restore(const Checkpoint& checkpoint) { impl_->decode->restore_parameters(checkpoint); }
Session& Generator::session() { return *impl_->decode; }

std::vector<std::vector<std::uint32_t>> Generator::generate(std::span<const std::vector<std::uint32_t>> prompts,
                                                            const GenerateOptions& options,
                                                            const std::function<bool(std::size_t, std::uint32_t)>& each) {
  check(options.sampling);
  if (options.max_tokens < 0)
    throw Error("generator: max_tokens is " + std::to_string(options.max_tokens) + ", must be at least 0");
  for (std::size_t i = 0; i < prompts.size(); ++i)
    if (prompts[i].empty()) throw Error("generator: prompt " + std::to_string(i) + " is empty");
  std::vector<std::vector<std::uint32_t>> results(prompts.size());
  if (options.max_tokens == 0) return results;
  std::vector<Impl::Text> texts(static_cast<std::size_t>(impl_->options.batch));
  for (std::size_t next = 0;;) {
    for (std::size_t place = 0; place < texts.size(); ++place) {
      while (!texts[place].live && next < prompts.size()) {
        impl_->begin(static_cast<std::int64_t>(place), texts[place], next, prompts[next]);
        impl_->draw(texts[place], impl_->row(0), options, each, results);
        ++next;
      }
    }
    if (std::none_of(texts.begin(), texts.end(), [](const Impl::Text& text) { return text.live; })) return results;
    impl_->step(texts);
    for (std::size_t place = 0; place < texts.size(); ++place)
      if (texts[place].live) impl_->draw(texts[place], impl_->row(place), options, each, results);
  }
}

std::vector<std::uint32_t> Generator::generate(std::span<const std::uint32_t> prompt, std::int64_t count, const SampleOptions& options,
                                               const std::function<bool(std::uint32_t)>& each) {
  const std::vector<std::uint32_t> prompts[] = {{prompt.begin(), prompt.end()}};
  std::function<bool(std::size_t, std::uint32_t)> one;
  if (each) one = [&](std::size_t, std::uint32_t token) { return each(token); };
  return generate(prompts, {.max_tokens = count, .sampling = options}, one)[0];
}

}  // namespace graft
