// Sequence to sequence: an encoder reads a word, a decoder with cross-attention writes it backwards. Shows a model that is not in
// graft::nn, built from its parts; a batch of sequences stacked as rows; and a second graph that runs on the weights being trained.
//
//     reverse_strings [--steps N]
#include <algorithm>
#include <charconv>
#include <cstdio>
#include <exception>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "graft/graft.h"

namespace nn = graft::nn;
using graft::Graph;
using graft::Value;

constexpr std::int64_t kWords = 64, kLength = 9, kRows = kWords * kLength;  // a batch: words of up to 8 letters, and their end
constexpr std::int64_t kDim = 64, kHeads = 4;
constexpr std::uint32_t kStart = 26, kEnd = 27, kPad = 28, kVocabulary = 29;  // after the letters a to z

/// x attends to `memory`. All words of the batch are rows of one matrix; segments keep them apart.
Value attention(Graph& g, const std::string& name, Value x, Value memory, bool causal) {
  const auto project = [&](const char* part, Value from) { return nn::Linear(g, name + part, kDim, kDim).forward(g, from); };
  const Value q = project(".q", x), k = project(".k", memory), v = project(".v", memory);
  graft::AttentionOptions options;
  options.segments = graft::Segments::uniform(kLength);
  return project(".o", causal ? g.causal_attention(q, k, v, kHeads, kHeads, kDim / kHeads, options)
                              : g.cross_attention(q, k, v, kHeads, kHeads, kDim / kHeads, options));
}

Value norm(Graph& g, const std::string& name, Value x) { return nn::RMSNorm(g, name, kDim).forward(g, x); }
Value mlp(Graph& g, const std::string& name, Value x) { return nn::SwiGLU(g, name, kDim, 2 * kDim).forward(g, x); }

/// source and target u32 [kRows] → logits of the letter after each row of target [kRows, kVocabulary].
/// Parameters are made where they are used: their names say which are the same in another graph, and how they start.
Value model(Graph& g, Value source, Value target) {
  const nn::Embedding letters(g, "letters", kVocabulary, kDim);
  std::vector<double> places;
  for (std::int64_t row = 0; row < kRows; ++row) places.push_back(static_cast<double>(row % kLength));
  const Value position = g.constant({kRows}, places, graft::DType::u32);

  Value x = g.add(letters.forward(g, source), nn::Embedding(g, "encoder.positions", kLength, kDim).forward(g, position));
  const Value read = norm(g, "encoder.norm", x);
  x = g.add(x, attention(g, "encoder.attention", read, read, /*causal=*/false));
  x = g.add(x, mlp(g, "encoder.mlp", norm(g, "encoder.mlp_norm", x)));
  const Value memory = norm(g, "encoder.final_norm", x);

  Value y = g.add(letters.forward(g, target), nn::Embedding(g, "decoder.positions", kLength, kDim).forward(g, position));
  const Value written = norm(g, "decoder.norm", y);
  y = g.add(y, attention(g, "decoder.attention", written, written, /*causal=*/true));
  y = g.add(y, attention(g, "decoder.cross_attention", norm(g, "decoder.cross_norm", y), memory, /*causal=*/false));
  y = g.add(y, mlp(g, "decoder.mlp", norm(g, "decoder.mlp_norm", y)));
  return g.matmul(norm(g, "decoder.final_norm", y), letters.weight, false, /*transpose_b=*/true);
}

/// Words of 3 to 8 letters. One in eight is held out: never trained on, however often it is drawn.
struct Words {
  std::mt19937 random;
  static bool is_held_out(const std::string& word) {
    std::uint32_t hash = 2166136261u;
    for (const char c : word) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
    return (hash >> 8) % 8 == 0;
  }
  std::vector<std::string> draw(bool held_out) {
    std::vector<std::string> words;
    while (static_cast<std::int64_t>(words.size()) < kWords) {
      std::string word(3 + random() % 6, 'a');
      for (char& c : word) c = static_cast<char>('a' + random() % 26);
      if (is_held_out(word) == held_out) words.push_back(word);
    }
    return words;
  }
};

/// A batch as ids. Words stand at the end of their rows: "cat" is ······cat, and the decoder turns <start>tac into tac<end>.
struct Batch {
  std::vector<std::uint32_t> source, target, labels;
  explicit Batch(const std::vector<std::string>& words) {
    for (const std::string& word : words) {
      source.insert(source.end(), kLength - word.size(), kPad);
      for (const char c : word) source.push_back(static_cast<std::uint32_t>(c - 'a'));
      target.push_back(kStart);
      for (auto c = word.rbegin(); c != word.rend(); ++c) {
        target.push_back(static_cast<std::uint32_t>(*c - 'a'));
        labels.push_back(target.back());
      }
      labels.push_back(kEnd);
      target.insert(target.end(), kLength - 1 - word.size(), kPad);
      labels.insert(labels.end(), kLength - 1 - word.size(), graft::kIgnoreIndex);  // nothing to learn behind the end
    }
  }
};

/// Writes letter after letter, always the likeliest, from the source alone.
std::vector<std::string> reverse(graft::Session& session, const std::vector<std::string>& words) {
  const Batch batch(words);
  std::vector<std::uint32_t> target(kRows, kPad);
  std::vector<std::string> reversed(words.size());
  std::vector<bool> ended(words.size());
  session.write("source", batch.source);
  for (std::int64_t w = 0; w < kWords; ++w) target[static_cast<std::size_t>(w * kLength)] = kStart;
  for (std::int64_t i = 0; i < kLength; ++i) {
    session.write("target", target);
    session.step();
    const std::vector<float> logits = session.read("logits");
    for (std::size_t w = 0; w < words.size(); ++w) {
      const std::size_t row = w * kLength + static_cast<std::size_t>(i);
      const auto begin = logits.begin() + static_cast<std::ptrdiff_t>(row * kVocabulary);
      const auto letter = static_cast<std::uint32_t>(std::max_element(begin, begin + kVocabulary) - begin);
      ended[w] = ended[w] || letter >= 26;
      if (!ended[w]) reversed[w] += static_cast<char>('a' + letter);
      if (i + 1 < kLength) target[row + 1] = letter;
    }
  }
  return reversed;
}

int count_exact(const std::vector<std::string>& words, const std::vector<std::string>& reversed) {
  int exact = 0;
  for (std::size_t w = 0; w < words.size(); ++w)
    exact += std::equal(words[w].rbegin(), words[w].rend(), reversed[w].begin(), reversed[w].end());
  return exact;
}

int train(int steps) {
  Graph g(1);
  const Value source = g.input_u32("source", {kRows}), target = g.input_u32("target", {kRows}),
              labels = g.input_u32("labels", {kRows});
  const Value loss = g.cross_entropy(model(g, source, target), labels);
  g.output("loss", loss);
  graft::optim::UpdateOptions options;
  options.schedule = {
      .kind = graft::Schedule::Kind::cosine, .base = 3e-3, .min = 1e-4, .total = steps, .warmup = std::min(50, steps / 10)};
  options.clip_norm = 1.0;
  options.groups = {{"*norm*", 0.0}, {"letters*", 0.0}, {"*positions*", 0.0}};
  graft::optim::adamw(g, graft::differentiate(g, loss), {}, options);
  const auto backend = graft::cpu_backend();
  graft::Session session(g, *backend);

  // The same model without loss and updates, on the same weights.
  Graph writing;
  const Value from = writing.input_u32("source", {kRows}), to = writing.input_u32("target", {kRows});
  writing.output("logits", model(writing, from, to));
  graft::Session writer(writing, session);

  Words words{std::mt19937(1)}, test_words{std::mt19937(2)};
  const std::vector<std::string> probe = test_words.draw(/*held_out=*/true);
  for (int step = 1; step <= steps; ++step) {
    const Batch batch(words.draw(/*held_out=*/false));
    session.write("source", batch.source);
    session.write("target", batch.target);
    session.write("labels", batch.labels);
    session.step();
    if (step % 50 == 0 || step == steps) {
      const int exact = count_exact(probe, reverse(writer, probe));
      std::printf("step %4d  loss %.4f  held-out words reversed exactly: %d of %d\n", step, session.scalar("loss"), exact,
                  static_cast<int>(kWords));
      std::fflush(stdout);
    }
  }

  constexpr int kBatches = 8;
  int exact = 0;
  for (int i = 0; i < kBatches; ++i) {
    const std::vector<std::string> unseen = test_words.draw(/*held_out=*/true), reversed = reverse(writer, unseen);
    exact += count_exact(unseen, reversed);
    if (i == 0)
      for (std::size_t w = 0; w < 5; ++w) std::printf("  %s -> %s\n", unseen[w].c_str(), reversed[w].c_str());
  }
  const double percent = 100.0 * exact / static_cast<double>(kBatches * kWords);
  std::printf("%.1f %% of %d held-out words reversed exactly\n", percent, static_cast<int>(kBatches * kWords));
  return percent >= 95.0 ? 0 : 1;
}

int main(int argc, char** argv) {
  int steps = 300;
  const std::string_view value = argc == 3 && std::string_view(argv[1]) == "--steps" ? argv[2] : "";
  const auto parsed = std::from_chars(value.data(), value.data() + value.size(), steps);
  if (argc != 1 && (parsed.ec != std::errc{} || parsed.ptr != value.data() + value.size() || steps < 1)) {
    std::fprintf(stderr, "usage: reverse_strings [--steps N], N at least 1\n");
    return 2;
  }
  try {
    return train(steps);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "reverse_strings: %s\n", error.what());
    return 1;
  }
}
