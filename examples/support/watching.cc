#include "examples/support/watching.h"

#include <cmath>

#include "graft/graft.h"

using namespace graft;

namespace {

std::vector<std::string> layer_columns(const std::vector<std::string>& layers) {
  std::vector<std::string> columns = {"step"};
  for (const char* what : {"gradient_norm/", "update_ratio/"})
    for (const std::string& layer : layers) columns.push_back(what + layer);
  return columns;
}

}  // namespace

Watching::Watching(const LoopOptions& options, Session& trained, Session& forward, std::int64_t first)
    : options_(options), trained_(trained), forward_(forward) {
  if (options.log_layers > 0) {
    watch_.emplace(trained);
    layers_.emplace(options.out / "layers.csv", layer_columns(watch_->layers()), first);
  }
  if (options.tensorboard) board_ = std::make_unique<report::TensorBoardLog>(options.out / "tensorboard", first);
}

void Watching::before_step(std::int64_t step) {
  watched_ = watch_ && (step + 1) % options_.log_layers == 0;
  if (watched_) watch_->before_step();
}

void Watching::after_step(std::int64_t step, const std::vector<std::string>& names, const std::vector<double>& metrics) {
  if (board_)
    for (std::size_t i = 0; i < names.size(); ++i)
      if (!std::isnan(metrics[i]) && names[i] != "step") board_->scalar(names[i], step, metrics[i]);
  if (!watched_) return;
  const std::vector<report::LayerWatch::Layer> layers = watch_->after_step();
  std::vector<double> row = {static_cast<double>(step)};
  for (const auto& layer : layers) row.push_back(layer.gradient_norm);
  for (const auto& layer : layers) row.push_back(layer.ratio());
  layers_->append(row);
  if (!board_) return;
  for (std::size_t i = 1; i < row.size(); ++i) board_->scalar(layers_->columns()[i], step, row[i]);
  for (Value p : trained_.graph().parameters()) {
    const std::string& name = trained_.graph().node(p).name;
    board_->histogram(name, step, std::span<const float>(trained_.read(name)));
  }
}

void Watching::draw(const Profile* profile) const {
  if (!options_.pictures) return;
  const Plan& plan = forward_.plan();
  report::write_picture(options_.out / "graph.html",
                        report::graph_html(plan.graph(), {.title = "A training step", .plan = &plan, .profile = profile}));
  report::write_picture(options_.out / "graph.svg",
                        report::graph_svg(plan.graph(), {.title = "A training step", .plan = &plan, .profile = profile}));
  report::write_picture(options_.out / "memory.svg", report::memory_svg(plan));
}

void Watching::finish() const {
  if (!layers_) return;
  const std::size_t count = watch_->layers().size();
  report::HeatMap gradients{.title = "Gradient norm by layer", .value_label = "norm"},
      updates{.title = "Update / weight by layer", .value_label = "ratio"};
  for (const std::string& layer : watch_->layers()) gradients.rows.push_back(layer.starts_with("model.") ? layer.substr(6) : layer);
  updates.rows = gradients.rows;
  for (const auto& row : layers_->rows()) {
    const auto middle = row.begin() + 1 + static_cast<std::ptrdiff_t>(count);
    gradients.x.push_back(row[0]);
    gradients.columns.emplace_back(row.begin() + 1, middle);
    updates.columns.emplace_back(middle, row.end());
  }
  updates.x = gradients.x;
  report::write_picture(options_.out / "gradients.svg", report::heat_map_svg(gradients));
  report::write_picture(options_.out / "updates.svg", report::heat_map_svg(updates));
}

void draw_attention(const std::filesystem::path& folder, const Trainee& trainee, Session& trained,
                    const std::vector<std::uint32_t>& ids, const Tokenizer& tokenizer) {
  Graph graph(0);
  const auto count = static_cast<std::int64_t>(ids.size());
  graph.output("logits", trainee.logits(graph, graph.input_u32("ids", {count}), count, false));
  if (trainee.pass) graph = trainee.pass(graph, false);
  const std::vector<std::string> nodes = report::keep_attention(graph);
  Session session(graph, trained);
  session.write("ids", ids);
  session.step();
  std::vector<report::AttentionMap> maps;
  const std::int64_t heads =
      std::min<std::int64_t>(4, std::get<MultiHeadAttn>(graph.node(graph.find(nodes.front())).op).heads.heads);
  for (const std::string& node : {nodes.front(), nodes.back()})
    for (std::int64_t head = 0; head < heads; ++head) maps.push_back(report::attention_map(session, node, head));
  std::vector<std::string> tokens;
  for (const std::uint32_t& token : ids) tokens.push_back(tokenizer.decode(std::span(&token, 1)));
  report::write_picture(folder / "attention.svg",
                        report::attention_svg(maps, "Attention in the first and the last layer", tokens, static_cast<int>(heads)));
  report::write_picture(folder / "attention.png", report::attention_png(maps[maps.size() - static_cast<std::size_t>(heads)]));
}
