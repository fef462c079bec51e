// Checkpoints: what is written comes back, in a layout that others can read.
#include <gtest/gtest.h>
#include <hdf5.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <span>
#include <thread>

#include "src/io/content_hash.h"
#include "src/io/hdf5_handles.h"
#include "tests/checkpoint_files.h"

namespace graft {
namespace {

using namespace checkpoint_files;
using namespace detail;

TEST(Checkpoint, EverythingComesBackAsWritten) {
  const TemporaryFolder folder;
  write_checkpoint(folder / "a.h5", sample());
  expect_same(read_checkpoint(folder / "a.h5"), sample());
  EXPECT_EQ(folder.names(), std::vector<std::string>{"a.h5"});
}

TEST(Checkpoint, EmptyOneComesBack) {
  const TemporaryFolder folder;
  write_checkpoint(folder / "a.h5", {});
  const Checkpoint read = read_checkpoint(folder / "a.h5");
  EXPECT_EQ(read.step, 0);
  EXPECT_EQ(read.config, "");
  EXPECT_EQ(read.schedule, "");
  EXPECT_TRUE(std::isnan(read.metric));
  EXPECT_TRUE(read.tensors.empty());
  const FileHandle file(H5Fopen((folder / "a.h5").c_str(), H5F_ACC_RDONLY, H5P_DEFAULT));
  EXPECT_EQ(H5Aexists(file.get(), "metric"), 0);
}

TEST(Checkpoint, TensorsComeBackByPath) {
  const TemporaryFolder folder;
  Checkpoint checkpoint;
  for (const char* path : {"b", "a/b/c", "a/b.c", "a.b", "a-b", "a0"})
    checkpoint.tensors.push_back(tensor(path, DType::f32, Shape{2}, 1));
  write_checkpoint(folder / "a.h5", checkpoint);
  std::vector<std::string> paths;
  for (const SavedTensor& read : read_checkpoint(folder / "a.h5").tensors) paths.push_back(read.path);
  EXPECT_EQ(paths, (std::vector<std::string>{"a-b", "a.b", "a/b.c", "a/b/c", "a0", "b"}));
}

TEST(Checkpoint, NegativeStepAndExtremeNumbersComeBack) {
  const TemporaryFolder folder;
  Checkpoint checkpoint;
  checkpoint.step = std::numeric_limits<std::int64_t>::min();
  checkpoint.graph_hash = std::numeric_limits<std::uint64_t>::max();
  checkpoint.metric = -std::numeric_limits<double>::infinity();
  write_checkpoint(folder / "a.h5", checkpoint);
  expect_same(read_checkpoint(folder / "a.h5"), checkpoint);
}

TEST(Checkpoint, EveryTypeAndRankComesBack) {
  const TemporaryFolder folder;
  Checkpoint checkpoint;
  std::uint32_t seed = 100;
  for (const DType dtype : {DType::bf16, DType::f32, DType::f64, DType::u32}) {
    const std::string prefix = "model/" + std::string(to_string(dtype)) + ".";
    for (const auto& [name, shape] : std::vector<std::pair<std::string, Shape>>{{"a", Shape{}},
                                                                                {"b", Shape{1}},
                                                                                {"c", Shape{17}},
                                                                                {"d", Shape{1, 1}},
                                                                                {"e", Shape{1, 9}},
                                                                                {"f", Shape{9, 1}},
                                                                                {"g", Shape{31, 33}}}) {
      checkpoint.tensors.push_back(tensor(prefix + name, dtype, shape, ++seed));
    }
  }
  write_checkpoint(folder / "a.h5", checkpoint);
  expect_same(read_checkpoint(folder / "a.h5"), checkpoint);
}

TEST(Checkpoint, TensorsOfManyChunksComeBack) {
  const TemporaryFolder folder;
  Checkpoint checkpoint;
  checkpoint.tensors = {
      tensor("model/last_chunk_is_ragged", DType::f32, Shape{1031, 1021}, 1),
      tensor("model/long_vector", DType::f64, Shape{400'003}, 2),
      tensor("model/row_above_a_chunk", DType::u32, Shape{3, 262'147}, 3),
      tensor("model/tall", DType::bf16, Shape{700'001, 1}, 4),
  };
  write_checkpoint(folder / "a.h5", checkpoint);
  expect_same(read_checkpoint(folder / "a.h5"), checkpoint);
}

TEST(Checkpoint, HundredsOfTensorsInAGroupComeBack) {
  const TemporaryFolder folder;
  Checkpoint checkpoint;
  for (std::uint32_t i = 0; i < 300; ++i)
    checkpoint.tensors.push_back(tensor("model/" + std::to_string(1000 + i), DType::f32, Shape{i + 1}, i));
  write_checkpoint(folder / "a.h5", checkpoint);
  expect_same(read_checkpoint(folder / "a.h5"), checkpoint);
}

TEST(Checkpoint, ConfigurationAbove64KiBComesBack) {
  const TemporaryFolder folder;
  for (const std::size_t size : {std::size_t{65'535}, std::size_t{65'536}, std::size_t{1'000'000}}) {
    Checkpoint checkpoint = sample();
    checkpoint.config = std::string(size, 'x') + "\"\n";
    write_checkpoint(folder / "a.h5", checkpoint);
    expect_same(read_checkpoint(folder / "a.h5"), checkpoint);
  }
}

TEST(Checkpoint, SameContentGivesSameBytesWhateverTheOrder) {
  const TemporaryFolder folder;
  Checkpoint checkpoint = sample();
  write_checkpoint(folder / "a.h5", checkpoint);
  std::reverse(checkpoint.tensors.begin(), checkpoint.tensors.end());
  // Memory that was in use must leave no trace in the file.
  std::vector<std::string> used(1000, std::string(1000, '\xAB'));
  used.clear();
  write_checkpoint(folder / "a longer name.h5", checkpoint);
  EXPECT_TRUE(contents(folder / "a.h5") == contents(folder / "a longer name.h5"));
}

TEST(Checkpoint, AnyChangeOfContentChangesTheFile) {
  const TemporaryFolder folder;
  write_checkpoint(folder / "a.h5", sample());
  const std::vector<std::function<void(Checkpoint&)>> changes = {
      [](Checkpoint& c) { ++c.step; },
      [](Checkpoint& c) { ++c.graph_hash; },
      [](Checkpoint& c) { c.config += " "; },
      [](Checkpoint& c) { c.schedule += " "; },
      [](Checkpoint& c) { c.metric = 1.5; },
      [](Checkpoint& c) { c.tensors[1].path += "x"; },
      [](Checkpoint& c) { c.tensors[1].bytes[0] ^= std::byte{1}; },
  };
  for (const auto& change : changes) {
    Checkpoint changed = sample();
    change(changed);
    write_checkpoint(folder / "b.h5", changed);
    EXPECT_FALSE(contents(folder / "a.h5") == contents(folder / "b.h5"));
    expect_same(read_checkpoint(folder / "b.h5"), changed);
  }
}

TEST(Checkpoint, ReplacesTheFileThatWasThere) {
  const TemporaryFolder folder;
  put(folder / "a.h5", "something else, longer than nothing");
  write_checkpoint(folder / "a.h5", sample());
  expect_same(read_checkpoint(folder / "a.h5"), sample());
  write_checkpoint(folder / "a.h5", {});
  EXPECT_EQ(read_checkpoint(folder / "a.h5").step, 0);
}

TEST(Checkpoint, BareFileNameIsInTheCurrentFolder) {
  const TemporaryFolder folder;
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(folder.path());
  write_checkpoint("a.h5", sample());
  const Checkpoint read = read_checkpoint("a.h5");
  std::filesystem::current_path(before);
  expect_same(read, sample());
}

TEST(Checkpoint, ThreadsMaySaveAtTheSameTime) {
  const TemporaryFolder folder;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&folder, t] {
      for (int i = 0; i < 10; ++i) write_checkpoint(folder / (std::to_string(t % 2) + ".h5"), sample());
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(folder.names(), (std::vector<std::string>{"0.h5", "1.h5"}));
  expect_same(read_checkpoint(folder / "0.h5"), sample());
  expect_same(read_checkpoint(folder / "1.h5"), sample());
}

TEST(Checkpoint, AtFindsTensorsAndNamesTheNearOnes) {
  const Checkpoint checkpoint = sample();
  EXPECT_EQ(checkpoint.at("model/bias").type, (TensorType{DType::f32, Shape{5}}));
  EXPECT_TRUE(checkpoint.contains("model/bias"));
  EXPECT_FALSE(checkpoint.contains("model/bia"));
  EXPECT_FALSE(checkpoint.contains("model"));
  const std::string error = error_of([&] { checkpoint.at("model/bais"); });
  EXPECT_NE(error.find("no tensor \"model/bais\""), std::string::npos) << error;
  EXPECT_NE(error.find("\"model/bias\""), std::string::npos) << error;
}

TEST(Checkpoint, BadContentIsRefusedBeforeAnythingIsWritten) {
  const TemporaryFolder folder;
  const auto file = folder / "a.h5";
  const auto error_with = [&](const std::function<void(Checkpoint&)>& change) {
    Checkpoint checkpoint = sample();
    change(checkpoint);
    return error_of([&] { write_checkpoint(file, checkpoint); });
  };
  EXPECT_EQ(error_with([](Checkpoint& c) { c.tensors[1].bytes.pop_back(); }),
            message(file, "cannot write: tensor \"model/bias\" of type f32[5] needs 20 bytes, got 19"));
  EXPECT_EQ(error_with([](Checkpoint& c) { c.tensors[1].path = "rng/counter"; }),
            message(file, "cannot write: two tensors are named \"rng/counter\""));
  EXPECT_EQ(error_with([](Checkpoint& c) { c.tensors[1].path = "model"; }),
            message(file, "cannot write: \"model\" names a tensor and a group"));
  EXPECT_EQ(error_with([](Checkpoint& c) { c.tensors[1].path = "schedule"; }),
            message(file, "cannot write: \"schedule\" names a tensor and a group"));
  EXPECT_EQ(error_with([](Checkpoint& c) { c.config = std::string("a\0b", 3); }),
            message(file, "cannot write: the configuration holds a zero byte"));
  EXPECT_EQ(error_with([](Checkpoint& c) { c.schedule = std::string("a\0b", 3); }),
            message(file, "cannot write: the schedule holds a zero byte"));
  for (const std::string& path : std::vector<std::string>{"", "/", "/a", "a/", "a//b", ".", "a/../b", "a/."}) {
    EXPECT_EQ(error_with([&](Checkpoint& c) { c.tensors[1].path = path; }),
              message(file, "cannot write: tensor \"" + path + "\" has a name that is no path"));
  }
  EXPECT_NE(error_with([](Checkpoint& c) { c.tensors[1].path = std::string("a\0b", 3); }), "");
  EXPECT_TRUE(folder.names().empty());
}

TEST(CheckpointLayout, IsTheDocumentedOne) {
  const TemporaryFolder folder;
  write_checkpoint(folder / "a.h5", sample());
  const FileHandle file(H5Fopen((folder / "a.h5").c_str(), H5F_ACC_RDONLY, H5P_DEFAULT));
  ASSERT_GE(file.get(), 0);
  const PropertiesHandle creation(H5Fget_create_plist(file.get()));
  hsize_t user_block = 0;
  H5Pget_userblock(creation.get(), &user_block);
  EXPECT_EQ(user_block, 512u);
  unsigned superblock = 9;
  H5Pget_version(creation.get(), &superblock, nullptr, nullptr, nullptr);
  EXPECT_EQ(superblock, 2u) << "version 3 is HDF5 1.10's";

  const auto text = [&](hid_t object, const char* name) {
    const AttributeHandle attribute(H5Aopen(object, name, H5P_DEFAULT));
    const TypeHandle type(H5Aget_type(attribute.get()));
    EXPECT_GT(H5Tis_variable_str(type.get()), 0) << name;
    EXPECT_EQ(H5Tget_cset(type.get()), H5T_CSET_UTF8) << name;
    char* characters = nullptr;
    EXPECT_GE(H5Aread(attribute.get(), type.get(), &characters), 0) << name;
    const std::string value = characters;
    H5free_memory(characters);
    return value;
  };
  const auto number = [&](const char* name, hid_t file_type, hid_t memory_type, auto value) {
    const AttributeHandle attribute(H5Aopen(file.get(), name, H5P_DEFAULT));
    EXPECT_GT(H5Tequal(TypeHandle(H5Aget_type(attribute.get())).get(), file_type), 0) << name;
    EXPECT_GE(H5Aread(attribute.get(), memory_type, &value), 0) << name;
    return value;
  };
  EXPECT_EQ(text(file.get(), "format"), "graft checkpoint");
  EXPECT_EQ(text(file.get(), "config"), sample().config);
  EXPECT_EQ(text(GroupHandle(H5Gopen2(file.get(), "/schedule", H5P_DEFAULT)).get(), "definition"), sample().schedule);
  EXPECT_EQ(number("format_version", H5T_STD_I32LE, H5T_NATIVE_INT32, 0), 1);
  EXPECT_EQ(number("complete", H5T_STD_I32LE, H5T_NATIVE_INT32, 0), 1);
  EXPECT_EQ(number("step", H5T_STD_I64LE, H5T_NATIVE_INT64, std::int64_t{0}), sample().step);
  EXPECT_EQ(number("graph_hash", H5T_STD_U64LE, H5T_NATIVE_UINT64, std::uint64_t{0}), sample().graph_hash);
  EXPECT_EQ(number("metric", H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, 0.0), 1.75);

  for (const SavedTensor& tensor : sample().tensors) {
    const DatasetHandle dataset(H5Dopen2(file.get(), ("/" + tensor.path).c_str(), H5P_DEFAULT));
    ASSERT_GE(dataset.get(), 0) << tensor.path;
    const PropertiesHandle properties(H5Dget_create_plist(dataset.get()));
    hbool_t times = true;
    H5Pget_obj_track_times(properties.get(), &times);
    EXPECT_FALSE(times) << tensor.path;
    EXPECT_EQ(H5Pget_layout(properties.get()), H5D_CHUNKED) << tensor.path;
    ASSERT_EQ(H5Pget_nfilters(properties.get()), 1) << tensor.path;
    unsigned flags = 0, config = 0;
    std::size_t values = 0;
    EXPECT_EQ(H5Pget_filter2(properties.get(), 0, &flags, &values, nullptr, 0, nullptr, &config), H5Z_FILTER_FLETCHER32)
        << tensor.path;

    const SpaceHandle space(H5Dget_space(dataset.get()));
    hsize_t dims[2] = {0, 0};
    ASSERT_EQ(H5Sget_simple_extent_dims(space.get(), dims, nullptr), std::max(1, tensor.type.shape.rank())) << tensor.path;
    EXPECT_EQ(dims[0], static_cast<hsize_t>(tensor.type.shape.rank() == 0 ? 1 : tensor.type.shape[0])) << tensor.path;
    EXPECT_EQ(H5Aexists(dataset.get(), "scalar") > 0, tensor.type.shape.rank() == 0) << tensor.path;
    const TypeHandle type(H5Dget_type(dataset.get()));
    EXPECT_EQ(H5Tget_class(type.get()), tensor.type.dtype == DType::u32 ? H5T_INTEGER : H5T_FLOAT) << tensor.path;
    EXPECT_EQ(H5Tget_size(type.get()), size_of(tensor.type.dtype)) << tensor.path;
    EXPECT_EQ(H5Tget_order(type.get()), H5T_ORDER_LE) << tensor.path;
  }
  for (const char* group : {"/", "/model", "/optimizer", "/optimizer/exp_avg", "/rng", "/data", "/schedule"}) {
    const GroupHandle handle(H5Gopen2(file.get(), group, H5P_DEFAULT));
    ASSERT_GE(handle.get(), 0) << group;
    const PropertiesHandle properties(H5Gget_create_plist(handle.get()));
    hbool_t times = true;
    H5Pget_obj_track_times(properties.get(), &times);
    EXPECT_FALSE(times) << group;
  }
}

TEST(CheckpointLayout, ChunksAreAtMostOneMiBAndWholeRowsWhereRowsFit) {
  const TemporaryFolder folder;
  Checkpoint checkpoint;
  checkpoint.tensors = {tensor("rows", DType::f32, Shape{3000, 100}, 1), tensor("wide", DType::f64, Shape{2, 200'000}, 2)};
  write_checkpoint(folder / "a.h5", checkpoint);
  const FileHandle file(H5Fopen((folder / "a.h5").c_str(), H5F_ACC_RDONLY, H5P_DEFAULT));
  const auto chunk = [&](const char* name) {
    const DatasetHandle dataset(H5Dopen2(file.get(), name, H5P_DEFAULT));
    std::array<hsize_t, 2> dims{};
    H5Pget_chunk(PropertiesHandle(H5Dget_create_plist(dataset.get())).get(), 2, dims.data());
    return dims;
  };
  EXPECT_EQ(chunk("rows"), (std::array<hsize_t, 2>{2621, 100}));
  EXPECT_EQ(chunk("wide"), (std::array<hsize_t, 2>{1, 131'072}));
}

// What h5py does with a float type that numpy lacks: the library converts to float32.
TEST(CheckpointLayout, Bf16ReadsAsTheRightFloats) {
  const std::vector<std::pair<std::uint16_t, float>> cases = {{0x0000, 0.0f},
                                                              {0x8000, -0.0f},
                                                              {0x3F80, 1.0f},
                                                              {0xC040, -3.0f},
                                                              {0x3EAB, 0.333984375f},
                                                              {0x7F7F, 3.38953139e38f},
                                                              {0x0080, 1.17549435e-38f},
                                                              {0x0001, 9.18354962e-41f},
                                                              {0x7F80, std::numeric_limits<float>::infinity()},
                                                              {0xFF80, -std::numeric_limits<float>::infinity()}};
  const TemporaryFolder folder;
  Checkpoint checkpoint;
  checkpoint.tensors = {{"x", {DType::bf16, Shape{static_cast<std::int64_t>(cases.size())}}, {}}};
  for (const auto& [bits, value] : cases) {
    checkpoint.tensors[0].bytes.push_back(static_cast<std::byte>(bits & 0xFF));
    checkpoint.tensors[0].bytes.push_back(static_cast<std::byte>(bits >> 8));
  }
  write_checkpoint(folder / "a.h5", checkpoint);
  const FileHandle file(H5Fopen((folder / "a.h5").c_str(), H5F_ACC_RDONLY, H5P_DEFAULT));
  const DatasetHandle dataset(H5Dopen2(file.get(), "x", H5P_DEFAULT));
  std::vector<float> read(cases.size());
  ASSERT_GE(H5Dread(dataset.get(), H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, read.data()), 0);
  for (std::size_t i = 0; i < cases.size(); ++i) {
    EXPECT_EQ(std::memcmp(&read[i], &cases[i].second, sizeof(float)), 0) << read[i] << " and " << cases[i].second;
  }
}

TEST(ContentHash, IsFrozen) {
  const auto hash = [](std::string_view text) {
    ContentHash made;
    made.update(std::as_bytes(std::span(text)));
    return made.value();
  };
  EXPECT_EQ(hash(""), 0x90FC0A3BED4AAA40u);
  EXPECT_EQ(hash("graft"), 0x17ED12F46793A418u);
  EXPECT_EQ(hash("a text of more than one block of thirty-two bytes, and a rest"), 0xC3293943EF52ED97u);
}

TEST(ContentHash, DoesNotDependOnThePieces) {
  const SavedTensor data = tensor("x", DType::f32, Shape{50}, 1);
  ContentHash whole;
  whole.update(data.bytes);
  for (std::size_t piece = 1; piece <= 67; ++piece) {
    ContentHash made;
    for (std::size_t at = 0; at < data.bytes.size(); at += piece) {
      made.update(std::span(data.bytes).subspan(at, std::min(piece, data.bytes.size() - at)));
    }
    EXPECT_EQ(made.value(), whole.value()) << piece;
  }
}

TEST(ContentHash, EveryBitAndTheLengthCount) {
  SavedTensor data = tensor("x", DType::f32, Shape{20}, 1);
  const auto hash = [](std::span<const std::byte> bytes) {
    ContentHash made;
    made.update(bytes);
    return made.value();
  };
  std::vector<std::uint64_t> seen = {hash(data.bytes)};
  for (std::size_t bit = 0; bit < 8 * data.bytes.size(); ++bit) {
    data.bytes[bit / 8] ^= std::byte{1} << (bit % 8);
    seen.push_back(hash(data.bytes));
    data.bytes[bit / 8] ^= std::byte{1} << (bit % 8);
  }
  const std::vector<std::byte> zeros(100);
  for (std::size_t n = 0; n <= zeros.size(); ++n) seen.push_back(hash(std::span(zeros).first(n)));
  std::sort(seen.begin(), seen.end());
  EXPECT_EQ(std::adjacent_find(seen.begin(), seen.end()), seen.end());
}

// Files of every format version that was ever written, which are never written again: each must load as long as graft lives. A new version
// adds its file (write_checkpoint of `plain_sample`); the old ones stay as they are.
TEST(CheckpointVersions, EveryOneStillLoads) {
  const std::filesystem::path folder = std::filesystem::path(GRAFT_SOURCE_DIR) / "tests" / "golden" / "checkpoints";
  for (int version = 1; version <= kCheckpointVersion; ++version) {
    const auto file = folder / ("version-" + std::to_string(version) + ".h5");
    ASSERT_TRUE(std::filesystem::exists(file)) << file << " is missing";
    expect_same(read_checkpoint(file), plain_sample());
  }
}

}  // namespace
}  // namespace graft
