// Checkpoints that are damaged or foreign: one clear error.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <hdf5.h>
#include <sys/stat.h>
#include <unistd.h>

#include <span>

#include "src/io/content_hash.h"
#include "src/io/descriptor.h"
#include "src/io/hdf5_handles.h"
#include "src/io/seal.h"
#include "tests/checkpoint_files.h"

namespace graft {
namespace {

using namespace checkpoint_files;
using namespace detail;

// Writes the seal anew, so that what was changed on purpose passes for written.
void reseal(const std::filesystem::path& file, int format_version = 1) {
  std::string bytes = contents(file);
  ContentHash hash;
  hash.update(std::as_bytes(std::span(bytes)).subspan(kSealSize));
  const Seal seal = make_seal(format_version, bytes.size(), hash.value());
  std::memcpy(bytes.data(), seal.data(), seal.size());
  put(file, bytes);
}

// A sealed sample changed through HDF5.
std::string read_error_after(const std::filesystem::path& path, const std::function<void(hid_t)>& change) {
  write_checkpoint(path, sample());
  {
    const FileHandle file(H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT));
    EXPECT_GE(file.get(), 0);
    change(file.get());
  }
  reseal(path);
  return read_error(path);
}

void put_dataset(hid_t file, const char* name, hid_t type, std::vector<hsize_t> dims) {
  const SpaceHandle space(H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr));
  EXPECT_GE(DatasetHandle(H5Dcreate2(file, name, type, space.get(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT)).get(), 0);
}

TEST(CheckpointDamage, MissingFile) {
  const TemporaryFolder folder;
  EXPECT_EQ(read_error(folder / "a.h5"), message(folder / "a.h5", "there is no such file"));
  EXPECT_EQ(read_error(folder / "no" / "a.h5"), message(folder / "no" / "a.h5", "there is no such file"));
}

TEST(CheckpointDamage, NotAFile) {
  const TemporaryFolder folder;
  EXPECT_EQ(read_error(folder.path()), message(folder.path(), "is a folder, not a file"));
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  EXPECT_EQ(read_error(folder / "pipe"), message(folder / "pipe", "is not a regular file"));
  put(folder / "file", "x");
  EXPECT_EQ(read_error(folder / "file" / "a.h5"), message(folder / "file" / "a.h5", "cannot open: Not a directory"));
}

TEST(CheckpointDamage, ForeignFiles) {
  const TemporaryFolder folder;
  const auto file = folder / "a.h5";
  put(file, "");
  EXPECT_EQ(read_error(file), message(file, "is empty"));
  for (const std::string& text : {std::string("x"), std::string("graft chess\n"), std::string(100'000, 'x')}) {
    put(file, text);
    EXPECT_EQ(read_error(file), message(file, "is not a graft checkpoint"));
  }
  FileHandle(H5Fcreate(file.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT));
  EXPECT_EQ(read_error(file), message(file, "is an HDF5 file, but not a graft checkpoint"));
}

TEST(CheckpointDamage, TruncatedAnywhere) {
  const TemporaryFolder folder;
  const auto file = folder / "a.h5";
  write_checkpoint(file, sample());
  const auto size = static_cast<std::int64_t>(std::filesystem::file_size(file));
  ASSERT_GT(size, 10'000);
  for (std::int64_t n = size - 1; n >= 1; n -= n > 2048 + 97 ? 97 : 1) {
    ASSERT_EQ(::truncate(file.c_str(), n), 0);
    const std::string should_have = n < 512 ? "at least 512" : std::to_string(size);
    ASSERT_EQ(read_error(file), message(file, "is truncated: has " + std::to_string(n) + " bytes, should have " + should_have));
  }
}

TEST(CheckpointDamage, TruncatedAtEveryPage) {
  const TemporaryFolder folder;
  const auto file = folder / "a.h5";
  write_checkpoint(file, large());
  const auto size = static_cast<std::int64_t>(std::filesystem::file_size(file));
  int pages = 0;
  for (std::int64_t n = (size - 1) / 4096 * 4096; n >= 0; n -= 4096, ++pages) {
    ASSERT_EQ(::truncate(file.c_str(), n), 0);
    ASSERT_EQ(read_error(file),
              message(file, n == 0 ? "is empty"
                                   : "is truncated: has " + std::to_string(n) + " bytes, should have " + std::to_string(size)));
  }
  EXPECT_GT(pages, 100);
}

TEST(CheckpointDamage, AThousandFlippedBits) {
  constexpr std::uint32_t kSeed = 4;
  const TemporaryFolder folder;
  const auto file = folder / "a.h5";
  write_checkpoint(file, large());
  const std::string whole = contents(file);
  const Descriptor fd(::open(file.c_str(), O_RDWR));
  ASSERT_TRUE(fd);
  // Each alone, then all of them together.
  std::string all = whole;
  for (std::uint32_t i = 0; i < 1000; ++i) {
    const philox::Block random = philox::block({i, 0, 0, 0}, kSeed);
    const std::size_t at = random[0] % whole.size();
    const int bit = 1 << random[1] % 8;
    const char flipped = static_cast<char>(whole[at] ^ bit);
    all[at] = static_cast<char>(all[at] ^ bit);
    ASSERT_EQ(::pwrite(fd.get(), &flipped, 1, static_cast<off_t>(at)), 1);
    ASSERT_NE(read_error(file), "") << "seed " << kSeed << ", flip " << i << ", byte " << at;
    ASSERT_EQ(::pwrite(fd.get(), &whole[at], 1, static_cast<off_t>(at)), 1);
  }
  expect_same(read_checkpoint(file), large());
  put(file, all);
  EXPECT_NE(read_error(file), "");
}

TEST(CheckpointDamage, BytesBehindTheEnd) {
  const TemporaryFolder folder;
  const auto file = folder / "a.h5";
  write_checkpoint(file, sample());
  const std::string whole = contents(file);
  put(file, whole + '\0');
  EXPECT_EQ(read_error(file), message(file, "is damaged: has " + std::to_string(whole.size() + 1) + " bytes, should have " +
                                                std::to_string(whole.size())));
}

TEST(CheckpointDamage, AFlippedBitAnywhere) {
  const TemporaryFolder folder;
  const auto file = folder / "a.h5";
  write_checkpoint(file, sample());
  const std::string whole = contents(file);
  const Descriptor fd(::open(file.c_str(), O_RDWR));
  ASSERT_TRUE(fd);
  const auto set = [&](std::size_t at, char byte) { ASSERT_EQ(::pwrite(fd.get(), &byte, 1, static_cast<off_t>(at)), 1); };
  for (std::size_t i = 0; i < whole.size(); i += i < 2048 ? 1 : 3) {
    // In the seal, where text has a meaning, every bit.
    for (int bit = i < 128 ? 0 : static_cast<int>(i * 5 % 8), last = i < 128 ? 7 : bit; bit <= last; ++bit) {
      set(i, static_cast<char>(whole[i] ^ (1 << bit)));
      const std::string error = read_error(file);
      ASSERT_NE(error, "") << "byte " << i << ", bit " << bit;
      if (i >= 512) {
        ASSERT_EQ(error, message(file, "is damaged: its checksum differs from the one it was written with"));
      }
    }
    set(i, whole[i]);
  }
  expect_same(read_checkpoint(file), sample());
}

TEST(CheckpointDamage, ZeroedAndExchangedBlocks) {
  const TemporaryFolder folder;
  const auto file = folder / "a.h5";
  Checkpoint checkpoint = sample();
  checkpoint.tensors.push_back(tensor("zzz", DType::f32, Shape{64, 64}, 9));
  write_checkpoint(file, checkpoint);
  const std::string whole = contents(file);
  for (std::size_t block = 512; block + 1024 <= whole.size(); block += 512) {
    std::string changed = whole;
    std::swap_ranges(changed.begin() + static_cast<std::ptrdiff_t>(block),
                     changed.begin() + static_cast<std::ptrdiff_t>(block + 512),
                     changed.begin() + static_cast<std::ptrdiff_t>(block + 512));
    if (changed != whole) {
      put(file, changed);
      ASSERT_NE(read_error(file), "") << block;
    }
    changed = whole;
    std::fill_n(changed.begin() + static_cast<std::ptrdiff_t>(block), 512, '\0');
    if (changed != whole) {
      put(file, changed);
      ASSERT_NE(read_error(file), "") << block;
    }
  }
}

TEST(CheckpointDamage, NewerFormatVersion) {
  const TemporaryFolder folder;
  const auto file = folder / "a.h5";
  write_checkpoint(file, sample());
  reseal(file, 2);
  const std::string newer = message(file, "was written by a newer graft: format version 2, this build reads up to 1");
  EXPECT_EQ(read_error(file), newer);
  // Whatever comes after the second line, and however long the file is.
  put(file, "graft checkpoint\nformat_version 2\nanother layout" + std::string(1000, ' '));
  EXPECT_EQ(read_error(file), newer);
  EXPECT_EQ(read_error_after(file,
                             [](hid_t root) {
                               const std::int32_t two = 2;
                               H5Awrite(AttributeHandle(H5Aopen(root, "format_version", H5P_DEFAULT)).get(), H5T_NATIVE_INT32,
                                        &two);
                             }),
            newer);
}

TEST(CheckpointDamage, VersionZeroWasNeverWritten) {
  const TemporaryFolder folder;
  write_checkpoint(folder / "a.h5", sample());
  reseal(folder / "a.h5", 0);
  EXPECT_EQ(read_error(folder / "a.h5"), message(folder / "a.h5", "is damaged: its first 512 bytes are not as written"));
}

TEST(CheckpointDamage, Incomplete) {
  const TemporaryFolder folder;
  const auto file = folder / "a.h5";
  const std::string expected = message(file, "is incomplete: its writing was not finished");
  EXPECT_EQ(read_error_after(file, [](hid_t root) { H5Adelete(root, "complete"); }), expected);
  EXPECT_EQ(read_error_after(file,
                             [](hid_t root) {
                               const std::int32_t zero = 0;
                               H5Awrite(AttributeHandle(H5Aopen(root, "complete", H5P_DEFAULT)).get(), H5T_NATIVE_INT32, &zero);
                             }),
            expected);
}

TEST(CheckpointDamage, MissingOrMistypedAttributes) {
  const TemporaryFolder folder;
  const auto file = folder / "a.h5";
  for (const std::string name : {"format", "format_version", "step", "graph_hash", "config"}) {
    EXPECT_EQ(read_error_after(file, [&](hid_t root) { H5Adelete(root, name.c_str()); }),
              message(file, "has no attribute \"" + name + "\""));
    EXPECT_EQ(
        read_error_after(file,
                         [&](hid_t root) {
                           H5Adelete(root, name.c_str());
                           const SpaceHandle space(H5Screate(H5S_SCALAR));
                           AttributeHandle(H5Acreate2(root, name.c_str(), H5T_IEEE_F32LE, space.get(), H5P_DEFAULT, H5P_DEFAULT));
                         }),
        message(file, "attribute \"" + name + "\" has another type than a checkpoint's"));
  }
  const std::string schedule = read_error_after(file, [](hid_t root) { H5Ldelete(root, "schedule", H5P_DEFAULT); });
  EXPECT_EQ(schedule.find(message(file, "cannot open group \"schedule\": ")), 0u) << schedule;
  const std::string other = read_error_after(file, [](hid_t root) {
    const SpaceHandle space(H5Screate(H5S_SCALAR));
    const TypeHandle type(H5Tcopy(H5T_C_S1));
    H5Tset_size(type.get(), H5T_VARIABLE);
    const char* text = "another format";
    H5Adelete(root, "format");
    H5Awrite(AttributeHandle(H5Acreate2(root, "format", type.get(), space.get(), H5P_DEFAULT, H5P_DEFAULT)).get(), type.get(),
             &text);
  });
  EXPECT_EQ(other, message(file, "is not a graft checkpoint: attribute \"format\" says otherwise"));
}

TEST(CheckpointDamage, DatasetsThatAreNoTensors) {
  const TemporaryFolder folder;
  const auto file = folder / "a.h5";
  const auto error_with = [&](hid_t type, std::vector<hsize_t> dims) {
    return read_error_after(file, [&](hid_t root) { put_dataset(root, "odd", type, dims); });
  };
  const std::string other_type = message(file, "\"odd\" has an element type other than f32, f64, bf16 and u32");
  for (const hid_t type : {H5T_STD_I32LE, H5T_STD_U32BE, H5T_IEEE_F32BE, H5T_STD_U64LE, H5T_STD_U16LE, H5T_C_S1}) {
    EXPECT_EQ(error_with(type, {2}), other_type);
  }
  EXPECT_EQ(error_with(H5T_IEEE_F32LE, {}), message(file, "\"odd\" has neither one nor two dimensions"));
  EXPECT_EQ(error_with(H5T_IEEE_F32LE, {1, 1, 1}), message(file, "\"odd\" has neither one nor two dimensions"));
  EXPECT_EQ(error_with(H5T_IEEE_F32LE, {3, 0}),
            message(file, "\"odd\" has dimensions 3 and 0, which no checkpoint of this size can hold"));
  // Neither is allocated: contiguous storage takes room when it is first written.
  EXPECT_EQ(error_with(H5T_IEEE_F32LE, {hsize_t{1} << 30, 1}),
            message(file, "\"odd\" has dimensions 1073741824 and 1, which no checkpoint of this size can hold"));
  EXPECT_EQ(error_with(H5T_IEEE_F32LE, {2000, 2000}),
            message(file, "\"odd\" has dimensions 2000 and 2000, which no checkpoint of this size can hold"));
  EXPECT_EQ(read_error_after(file,
                             [](hid_t root) {
                               const SpaceHandle space(H5Screate(H5S_SCALAR));
                               AttributeHandle(H5Acreate_by_name(root, "model/bias", "scalar", H5T_STD_I32LE, space.get(),
                                                                 H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
                             }),
            message(file, "\"model/bias\" is marked as a scalar, but has more than one element"));
}

TEST(CheckpointDamage, TensorsThatAreStoredInOtherWays) {
  const TemporaryFolder folder;
  const auto file = folder / "a.h5";
  put(folder / "other", std::string(24, 'x'));
  const auto error_with = [&](const std::function<void(hid_t)>& store) {
    return read_error_after(file, [&](hid_t root) {
      const PropertiesHandle creation(H5Pcreate(H5P_DATASET_CREATE));
      store(creation.get());
      const hsize_t dims[2] = {2, 3};
      const SpaceHandle space(H5Screate_simple(2, dims, nullptr));
      EXPECT_GE(
          DatasetHandle(H5Dcreate2(root, "odd", H5T_IEEE_F32LE, space.get(), H5P_DEFAULT, creation.get(), H5P_DEFAULT)).get(), 0);
    });
  };
  const hsize_t chunk[2] = {2, 3};
  const auto chunked = [&](hid_t creation) { H5Pset_chunk(creation, 2, chunk); };
  const std::string refused = message(file, "\"odd\" is not stored as a checkpoint's tensors are");
  EXPECT_EQ(error_with([](hid_t) {}), refused);
  EXPECT_EQ(error_with([&](hid_t creation) { H5Pset_external(creation, (folder / "other").c_str(), 0, 24); }), refused);
  EXPECT_EQ(error_with(chunked), refused);
  EXPECT_EQ(error_with([&](hid_t creation) { chunked(creation), H5Pset_shuffle(creation); }), refused);
  EXPECT_EQ(error_with([&](hid_t creation) { chunked(creation), H5Pset_fletcher32(creation), H5Pset_shuffle(creation); }), refused);
  EXPECT_EQ(error_with([&](hid_t creation) { chunked(creation), H5Pset_fletcher32(creation); }), "");
}

TEST(CheckpointDamage, OneObjectUnderManyNames) {
  const TemporaryFolder folder;
  const auto file = folder / "a.h5";
  // Sixteen groups, each in the next one twice: the innermost has 65,536 names.
  const std::string many = read_error_after(file, [](hid_t root) {
    GroupHandle inner(H5Gcreate2(root, "0", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    for (int i = 1; i <= 16; ++i) {
      GroupHandle outer(H5Gcreate2(root, std::to_string(i).c_str(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
      H5Lcreate_hard(inner.get(), ".", outer.get(), "a", H5P_DEFAULT, H5P_DEFAULT);
      H5Lcreate_hard(inner.get(), ".", outer.get(), "b", H5P_DEFAULT, H5P_DEFAULT);
      std::swap(inner, outer);
    }
  });
  EXPECT_NE(many.find("\" is more than a checkpoint of this size can hold"), std::string::npos) << many;
  Checkpoint heavy;
  heavy.tensors = {tensor("a", DType::f32, Shape{300, 500}, 9)};
  write_checkpoint(file, heavy);
  {
    const FileHandle root(H5Fopen(file.c_str(), H5F_ACC_RDWR, H5P_DEFAULT));
    H5Lcreate_hard(root.get(), "a", root.get(), "b", H5P_DEFAULT, H5P_DEFAULT);
  }
  reseal(file);
  EXPECT_EQ(read_error(file), message(file, "\"b\" has dimensions 300 and 500, which no checkpoint of this size can hold"));
}

TEST(CheckpointDamage, LinksAndTypesAreNotFollowed) {
  const TemporaryFolder folder;
  const auto file = folder / "a.h5";
  const std::string link = message(file, "\"model/link\" is a soft or external link, which a checkpoint has none of");
  EXPECT_EQ(read_error_after(file, [](hid_t root) { H5Lcreate_soft("/model/bias", root, "model/link", H5P_DEFAULT, H5P_DEFAULT); }),
            link);
  EXPECT_EQ(
      read_error_after(file, [](hid_t root) { H5Lcreate_external("/etc/x", "/", root, "model/link", H5P_DEFAULT, H5P_DEFAULT); }),
      link);
  EXPECT_EQ(read_error_after(file,
                             [](hid_t root) {
                               H5Tcommit2(root, "type", TypeHandle(H5Tcopy(H5T_IEEE_F32LE)).get(), H5P_DEFAULT, H5P_DEFAULT,
                                          H5P_DEFAULT);
                             }),
            message(file, "\"type\" is neither a group nor a dataset"));
  const std::string cycle =
      read_error_after(file, [](hid_t root) { H5Lcreate_hard(root, "model", root, "model/loop", H5P_DEFAULT, H5P_DEFAULT); });
  EXPECT_NE(cycle.find("lies too deep"), std::string::npos) << cycle;
}

// HDF5's own checksum, below the seal's.
TEST(CheckpointDamage, AWrongChunkIsFoundByHdf5Too) {
  const TemporaryFolder folder;
  const auto file = folder / "a.h5";
  write_checkpoint(file, sample());
  std::string bytes = contents(file);
  const SavedTensor data = sample().at("model/model.layers.0.self_attn.q_proj.weight");
  const std::size_t at = bytes.find(std::string(reinterpret_cast<const char*>(data.bytes.data()), data.bytes.size()));
  ASSERT_NE(at, std::string::npos);
  bytes[at + 5] = static_cast<char>(bytes[at + 5] ^ 1);
  put(file, bytes);
  reseal(file);
  const std::string error = read_error(file);
  EXPECT_EQ(error.find(message(file, "cannot read \"" + data.path + "\": ")), 0u) << error;
  EXPECT_NE(error.find("Fletcher32"), std::string::npos) << error;
}

TEST(CheckpointDamage, Hdf5KeepsQuietMeanwhileAndPrintsAgainAfterwards) {
  const TemporaryFolder folder;
  H5E_auto2_t before = nullptr, after = nullptr;
  int reports = 0;
  void *data_before = nullptr, *data_after = nullptr;
  H5Eget_auto2(H5E_DEFAULT, &before, &data_before);
  const H5E_auto2_t count = [](hid_t, void* data) -> herr_t { return ++*static_cast<int*>(data), 0; };
  H5Eset_auto2(H5E_DEFAULT, count, &reports);
  const std::string error = read_error_after(folder / "a.h5", [](hid_t root) { H5Ldelete(root, "schedule", H5P_DEFAULT); });
  EXPECT_NE(error, "");
  EXPECT_EQ(reports, 0);
  H5Eget_auto2(H5E_DEFAULT, &after, &data_after);
  EXPECT_EQ(after, count);
  EXPECT_EQ(data_after, &reports);
  H5Eset_auto2(H5E_DEFAULT, before, data_before);
}

}  // namespace
}  // namespace graft
