// Hugging Face folders as they are written: which file holds what, how numbers are rounded, and nothing left where it fails.
#include <gtest/gtest.h>

#include <cmath>

#include "src/hf/json.h"
#include "tests/hf_folders.h"
#include "tests/message.h"

namespace graft::hf {
namespace {

using graft::testing::message_of;

TEST(HfSave, SplitsByBytesInTheOrderOfTheModel) {
  const TemporaryFolder folder;
  Tiny tiny;
  // embed 416 bytes; a layer: 32 + 256 + 128 + 128 + 256 + 32 + 384 + 384 + 384; norm 32; lm_head 416
  save(folder / "m", tiny.session(), tiny.config, {.max_shard_bytes = 1000});
  const Safetensors whole(folder / "m");
  EXPECT_EQ(whole.files().size(), 6u);
  EXPECT_EQ(Safetensors(folder / "m/model-00001-of-00006.safetensors").tensors().size(),
            5u);  // 416 + 32 + 256 + 128 + 128 = 960, the next has 256
  const detail::Json index = detail::parse_json(text_of(folder / "m/model.safetensors.index.json"), "index");
  EXPECT_EQ(index["metadata"]["total_size"], 2 * 416 + 2 * 1984 + 32);
  EXPECT_EQ(index["metadata"]["total_parameters"], (2 * 416 + 2 * 1984 + 32) / 4);
  EXPECT_EQ(index["weight_map"].size(), whole.tensors().size());
  EXPECT_EQ(index["weight_map"]["model.embed_tokens.weight"], "model-00001-of-00006.safetensors");
  EXPECT_EQ(index["weight_map"]["lm_head.weight"], "model-00006-of-00006.safetensors");

  save(folder / "each", tiny.session(), tiny.config, {.max_shard_bytes = 1});
  EXPECT_EQ(Safetensors(folder / "each").files().size(), 21u);
  save(folder / "exact", tiny.session(), tiny.config, {.max_shard_bytes = 2 * 416 + 2 * 1984 + 32});
  EXPECT_TRUE(fs::exists(folder / "exact/model.safetensors"));
}

TEST(HfSave, MatricesAreStoredTransposed) {
  const TemporaryFolder folder;
  Tiny tiny;
  save(folder / "m", tiny.session(), tiny.config);
  const Safetensors stored(folder / "m");
  const auto expect = [&](const std::string& name, std::size_t in, std::size_t out, bool transposed) {
    const plain::Matrix here(in, out, tiny.session().read_f64(name));
    EXPECT_EQ(values_of(stored.at(name)), transposed ? plain::transposed(here).data : here.data) << name;
    const auto a = static_cast<std::int64_t>(in), b = static_cast<std::int64_t>(out);
    EXPECT_EQ(stored.at(name).shape, (transposed ? std::vector<std::int64_t>{b, a} : std::vector<std::int64_t>{a, b})) << name;
  };
  expect("model.embed_tokens.weight", 13, 8, false);
  expect("model.layers.1.self_attn.k_proj.weight", 8, 4, true);
  expect("model.layers.0.mlp.down_proj.weight", 12, 8, true);
  expect("lm_head.weight", 8, 13, true);

  std::vector<float> read(96);
  load(folder / "m").read("model.layers.0.mlp.down_proj.weight", read);
  EXPECT_EQ(std::vector<double>(read.begin(), read.end()), tiny.session().read_f64("model.layers.0.mlp.down_proj.weight"));
}

TEST(HfSave, RoundsToTheNearestOrRefuses) {
  const TemporaryFolder folder;
  Tiny tiny;
  std::vector<float> norm = {1.0f + 0x1p-8f, 1.0f + 3 * 0x1p-8f, 1.0f + 0x1p-11f, 1.0f + 3 * 0x1p-11f,
                             -65519.0f,      0x1p-24f,           0x1p-26f,        3.0f};
  tiny.session().write("model.norm.weight", std::span<const float>(norm));
  const auto stored = [&](SaveAs dtype, const std::string& name) {
    save(folder / name, tiny.session(), tiny.config, {.dtype = dtype});
    return values_of(Safetensors(folder / name).at("model.norm.weight"));
  };
  EXPECT_EQ(stored(SaveAs::f32, "f32"), std::vector<double>(norm.begin(), norm.end()));
  EXPECT_EQ(stored(SaveAs::bf16, "bf16"), (std::vector<double>{1.0, 1.0 + 0x1p-6, 1.0, 1.0, -65536.0, 0x1p-24, 0x1p-26, 3.0}));
  EXPECT_EQ(stored(SaveAs::f16, "f16"),
            (std::vector<double>{1.0 + 0x1p-8, 1.0 + 3 * 0x1p-8, 1.0, 1.0 + 0x1p-9, -65504.0, 0x1p-24, 0.0, 3.0}));
  for (const char* name : {"f32", "bf16", "f16"}) {
    const detail::Json config = detail::parse_json(text_of(folder / name / "config.json"), "config");
    const char* word = name == std::string("f32") ? "float32" : name == std::string("bf16") ? "bfloat16" : "float16";
    EXPECT_EQ(config["dtype"], word);
    EXPECT_EQ(config["torch_dtype"], word);
  }
  norm[4] = -65520.0f;
  tiny.session().write("model.norm.weight", std::span<const float>(norm));
  EXPECT_EQ(message_of([&] { stored(SaveAs::f16, "large"); }),
            "parameter \"model.norm.weight\": -65520.000000 is too large for f16");
  EXPECT_FALSE(fs::exists(folder / "large"));
  norm[4] = -INFINITY;
  tiny.session().write("model.norm.weight", std::span<const float>(norm));
  EXPECT_EQ(stored(SaveAs::f16, "infinite")[4], -INFINITY);
}

TEST(HfSave, RefusesAFolderThatHoldsAModelAndLeavesItAlone) {
  const TemporaryFolder folder;
  Tiny tiny;
  for (const char* name : {"config.json", "model.safetensors", "model-00001-of-00002.safetensors", "model.safetensors.index.json",
                           "pytorch_model.bin"}) {
    fs::create_directory(folder / "m");
    write_text(folder / "m" / name, "old");
    EXPECT_EQ(message_of([&] { save(folder / "m", tiny.session(), tiny.config); }),
              "model \"" + (folder / "m").string() + "\": the folder holds a model already, \"" + name + "\"");
    EXPECT_EQ(text_of(folder / "m" / name), "old");
    EXPECT_EQ(std::distance(fs::directory_iterator(folder / "m"), fs::directory_iterator()), 1);
    fs::remove_all(folder / "m");
  }
  fs::create_directory(folder / "m");
  write_text(folder / "m/tokenizer.json", "{}");
  save(folder / "m", tiny.session(), tiny.config);
  EXPECT_EQ(text_of(folder / "m/tokenizer.json"), "{}");
  EXPECT_NO_THROW(load(folder / "m"));
}

TEST(HfSave, LeavesNothingWhenItFails) {
  const TemporaryFolder folder;
  Tiny tiny;
  std::vector<float> norm(8, 1e30f);
  tiny.session().write("model.norm.weight", std::span<const float>(norm));
  fs::create_directory(folder / "m");
  write_text(folder / "m/tokenizer.json", "{}");
  const SaveOptions options = {.dtype = SaveAs::f16, .max_shard_bytes = 500};  // the norm comes last but one
  EXPECT_NE(message_of([&] { save(folder / "m", tiny.session(), tiny.config, options); }), "no error");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder / "m"), fs::directory_iterator()), 1);
  EXPECT_EQ(message_of([&] { save(folder / "m/tokenizer.json", tiny.session(), tiny.config); }).substr(0, 8), "model \"/");
  EXPECT_EQ(message_of([&] { save(folder / "no/such", tiny.session(), tiny.config); }),
            "model \"" + (folder / "no/such").string() + "\": cannot make the folder: No such file or directory");
  EXPECT_EQ(message_of([&] { save(folder / "n", tiny.session(), tiny.config, {.max_shard_bytes = 0}); }),
            "hf::save: max_shard_bytes is 0, must be at least 1");
  EXPECT_FALSE(fs::exists(folder / "n"));
}

}  // namespace
}  // namespace graft::hf
