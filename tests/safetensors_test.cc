// The safetensors format: what is read, what is refused and with which words, what is written.
#include "graft/safetensors.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>

#include "src/hf/f16.h"
#include "src/hf/safetensors_format.h"
#include "tests/checkpoint_files.h"
#include "tests/message.h"

namespace graft::hf {
namespace {

using checkpoint_files::TemporaryFolder;
using graft::testing::message_of;
using Shape = std::vector<std::int64_t>;

std::string with_header(const std::string& header, std::size_t data_bytes, std::optional<std::uint64_t> claimed = {}) {
  const std::uint64_t size = claimed.value_or(header.size());
  std::string file(reinterpret_cast<const char*>(&size), sizeof size);
  file += header;
  for (std::size_t i = 0; i < data_bytes; ++i) file += static_cast<char>(i);
  return file;
}

std::string refused(const std::string& file) {
  return message_of([&] { detail::parse_safetensors(std::as_bytes(std::span(file)), "x"); });
}
std::string refused(const std::string& header, std::size_t data_bytes) { return refused(with_header(header, data_bytes)); }

template <class T>
std::vector<std::byte> bytes_of(const std::vector<T>& values) {
  std::vector<std::byte> bytes(values.size() * sizeof(T));
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

void write_file(const std::filesystem::path& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }
std::string read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// ---- reading

TEST(Safetensors, ListsNamesDtypesShapesBytesAndMetadata) {
  const TemporaryFolder folder;
  const std::string header =
      R"({"b":{"dtype":"F32","shape":[2,3],"data_offsets":[2,26]},"__metadata__":{"format":"pt","by":"hand"},)"
      R"("a":{"dtype":"BF16","shape":[],"data_offsets":[0,2]},"none":{"dtype":"I64","shape":[4,0],"data_offsets":[26,26]},)"
      R"("rank4":{"dtype":"U8","shape":[1,2,1,3],"data_offsets":[26,32]}}   )";
  write_file(folder / "x.safetensors", with_header(header, 32));
  const Safetensors file(folder / "x.safetensors");
  ASSERT_EQ(file.tensors().size(), 4u);
  const auto expect = [&](std::size_t i, const std::string& name, const std::string& text, std::int64_t elements, std::size_t first,
                          std::size_t bytes) {
    const StoredTensor& tensor = file.tensors()[i];
    EXPECT_EQ(tensor.name, name);
    EXPECT_EQ(to_string(tensor), text);
    EXPECT_EQ(tensor.elements(), elements);
    ASSERT_EQ(tensor.bytes.size(), bytes);
    EXPECT_TRUE(bytes == 0 || tensor.bytes[0] == static_cast<std::byte>(first)) << name;
  };
  expect(0, "a", "BF16[]", 1, 0, 2);
  expect(1, "b", "F32[2, 3]", 6, 2, 24);
  expect(2, "none", "I64[4, 0]", 0, 26, 0);
  expect(3, "rank4", "U8[1, 2, 1, 3]", 6, 26, 6);
  EXPECT_EQ(file.metadata(), (std::map<std::string, std::string>{{"format", "pt"}, {"by", "hand"}}));
  EXPECT_EQ(&file.at("b"), &file.tensors()[1]);
  EXPECT_TRUE(file.contains("rank4"));
  EXPECT_FALSE(file.contains("rank"));
  EXPECT_EQ(message_of([&] { file.at("rank3"); }),
            "safetensors \"" + (folder / "x.safetensors").string() + "\": no tensor \"rank3\", did you mean \"rank4\"");
  EXPECT_EQ(file.path(), folder / "x.safetensors");
  EXPECT_EQ(file.files(), std::vector<std::filesystem::path>{folder / "x.safetensors"});
}

TEST(Safetensors, AFileWithoutTensorsIsFine) { EXPECT_EQ(refused("{}", 0), "no error"); }

TEST(Safetensors, UnknownMembersOfATensorArePassedOver) {
  EXPECT_EQ(refused(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"more":{"x":[1]}}})", 1), "no error");
}

TEST(Safetensors, DamagedFilesAreNamed) {
  EXPECT_EQ(refused("1234567"), "x: is not a safetensors file, it has only 7 bytes");
  EXPECT_EQ(refused(with_header("{}", 0, 3)), "x: its header would have 3 bytes, the file has 10; it is truncated or damaged");
  EXPECT_EQ(refused(with_header("{}", 0, 100'000'001)),
            "x: is not a safetensors file: its header would have 100000001 bytes, at most 100000000");
  EXPECT_EQ(refused(with_header("{}", 0, 100'000'000)),
            "x: its header would have 100000000 bytes, the file has 10; it is truncated or damaged");
  EXPECT_EQ(refused(with_header("{}", 0, ~std::uint64_t{0})),
            "x: is not a safetensors file: its header would have 18446744073709551615 bytes, at most 100000000");
  EXPECT_EQ(refused(" {}", 0), "x: is not a safetensors file: its header does not begin with {");
  EXPECT_EQ(refused("", 0), "x: is not a safetensors file: its header does not begin with {");
  EXPECT_EQ(refused("{", 0), "x: header: is not valid JSON, at byte 2");
  EXPECT_EQ(refused("{} x", 0), "x: header: is not valid JSON, at byte 4");
  EXPECT_EQ(refused("{\"\xff\":1}", 0), "x: header: is not valid JSON, at byte 3");
  EXPECT_EQ(refused("{\"a\":" + std::string(31, '[') + std::string(31, ']') + "}", 0).substr(0, 30),
            "x: tensor \"a\": must be an obje");
  EXPECT_EQ(refused("{\"a\":" + std::string(32, '[') + std::string(32, ']') + "}", 0), "x: header: nests deeper than 32");
  EXPECT_EQ(refused("{\"a\":" + std::string(100'000, '['), 0), "x: header: nests deeper than 32");
  EXPECT_EQ(
      refused(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1),
      "x: header: key \"a\" is there twice");
  EXPECT_EQ(refused(R"({"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1),
            "x: header: key \"dtype\" is there twice");
  EXPECT_EQ(refused(R"({"__metadata__":[]})", 0), "x: __metadata__ must be an object, got []");
  EXPECT_EQ(refused(R"({"__metadata__":{"k":1}})", 0), "x: __metadata__ \"k\" must be text, got 1");
}

/// One tensor "a" with these members.
std::string one(const std::string& dtype, const std::string& shape, const std::string& offsets, std::size_t data_bytes = 4) {
  return refused(R"({"a":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}", data_bytes);
}

TEST(Safetensors, TensorsThatDoNotFitAreNamed) {
  EXPECT_EQ(one(R"("F32")", "[1]", "[0,4]"), "no error");
  EXPECT_EQ(one(R"("F33")", "[1]", "[0,4]"), R"(x: tensor "a": unknown dtype "F33")");
  EXPECT_EQ(one(R"("f32")", "[1]", "[0,4]"), R"(x: tensor "a": unknown dtype "f32")");
  EXPECT_EQ(one("32", "[1]", "[0,4]"), R"(x: tensor "a": unknown dtype 32)");
  EXPECT_EQ(one(R"("F32")", "1", "[0,4]"), R"(x: tensor "a": its shape must be an array, got 1)");
  for (const char* dim : {"-1", "1.0", "\"1\"", "18446744073709551615", "9223372036854775808"}) {
    EXPECT_EQ(one(R"("F32")", "[" + std::string(dim) + "]", "[0,4]"),
              R"(x: tensor "a": a dimension must be a whole number, got )" + std::string(dim));
  }
  EXPECT_EQ(one(R"("F32")", "[9223372036854775807]", "[0,4]"), R"(x: tensor "a": its shape has more elements than can be counted)");
  EXPECT_EQ(one(R"("F32")", "[4294967296,4294967296]", "[0,4]"),
            R"(x: tensor "a": its shape has more elements than can be counted)");
  EXPECT_EQ(one(R"("F32")", "[4294967296,4294967296,0]", "[0,0]", 0), "no error");
  EXPECT_EQ(one(R"("F4")", "[3]", "[0,1]"), R"(x: tensor "a": does not fill whole bytes)");
  EXPECT_EQ(one(R"("F4")", "[8]", "[0,4]"), "no error");
  EXPECT_EQ(one(R"("F6_E2M3")", "[4]", "[0,3]", 3), "no error");
  for (const char* offsets : {"[0]", "[0,4,4]", "4", "[0,4.0]", "[-4,0]", "[\"0\",4]", "{}"})
    EXPECT_EQ(one(R"("F32")", "[1]", offsets),
              R"(x: tensor "a": data_offsets must be two whole numbers, got )" + std::string(offsets));
  EXPECT_EQ(one(R"("F32")", "[1]", "[4,0]"), R"(x: tensor "a": ends before it begins, data_offsets are [4,0])");
  EXPECT_EQ(one(R"("F32")", "[1]", "[0,4]", 3),
            R"(x: tensor "a": reaches to byte 4 of the data, which has 3; the file is truncated or damaged)");
  EXPECT_EQ(one(R"("F32")", "[1]", "[18446744073709551612,18446744073709551615]"),
            R"(x: tensor "a": reaches to byte 18446744073709551615 of the data, which has 4; the file is truncated or damaged)");
  EXPECT_EQ(one(R"("F32")", "[2]", "[0,4]"), R"(x: tensor "a": F32[2] takes 8 bytes, its data_offsets hold 4)");
  EXPECT_EQ(one(R"("F16")", "[1]", "[0,4]"), R"(x: tensor "a": F16[1] takes 2 bytes, its data_offsets hold 4)");
  EXPECT_EQ(refused(R"({"a":7})", 0), R"(x: tensor "a": must be an object, got 7)");
  EXPECT_EQ(refused(R"({"a":{"shape":[],"data_offsets":[0,1]}})", 1), R"(x: tensor "a": has no "dtype")");
  EXPECT_EQ(refused(R"({"a":{"dtype":"U8","data_offsets":[0,1]}})", 1), R"(x: tensor "a": has no "shape")");
  EXPECT_EQ(refused(R"({"a":{"dtype":"U8","shape":[]}})", 1), R"(x: tensor "a": has no "data_offsets")");
}

/// Tensors "a" and "b" of bytes at these offsets.
std::string two(std::size_t a_begin, std::size_t a_end, std::size_t b_begin, std::size_t b_end, std::size_t data_bytes) {
  const auto entry = [](const std::string& name, std::size_t begin, std::size_t end) {
    return "\"" + name + R"(":{"dtype":"U8","shape":[)" + std::to_string(end - begin) + R"(],"data_offsets":[)" +
           std::to_string(begin) + "," + std::to_string(end) + "]}";
  };
  return refused("{" + entry("a", a_begin, a_end) + "," + entry("b", b_begin, b_end) + "}", data_bytes);
}

TEST(Safetensors, EveryByteBelongsToOneTensor) {
  EXPECT_EQ(two(0, 4, 4, 8, 8), "no error");
  EXPECT_EQ(two(4, 8, 0, 4, 8), "no error");
  EXPECT_EQ(two(0, 4, 4, 4, 4), "no error");
  EXPECT_EQ(two(0, 0, 0, 4, 4), "no error");
  EXPECT_EQ(two(0, 4, 0, 0, 4), "no error");
  EXPECT_EQ(two(0, 4, 3, 8, 8), "x: tensors \"a\" and \"b\" overlap");
  EXPECT_EQ(two(0, 4, 0, 4, 4), "x: tensors \"a\" and \"b\" overlap");
  EXPECT_EQ(two(0, 8, 2, 4, 8), "x: tensors \"a\" and \"b\" overlap");
  EXPECT_EQ(two(0, 4, 2, 2, 4), "x: tensors \"a\" and \"b\" overlap");
  EXPECT_EQ(two(0, 4, 5, 8, 8), "x: bytes 4 to 5 of the data belong to no tensor");
  EXPECT_EQ(two(1, 4, 4, 8, 8), "x: bytes 0 to 1 of the data belong to no tensor");
  EXPECT_EQ(two(0, 4, 4, 8, 9), "x: bytes 8 to 9 of the data belong to no tensor");
  EXPECT_EQ(refused("{}", 1), "x: bytes 0 to 1 of the data belong to no tensor");
}

TEST(Safetensors, AFileCutAnywhereIsRefused) {
  const std::string whole = with_header(
      R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[3],"data_offsets":[8,11]}} )", 11);
  EXPECT_EQ(refused(whole), "no error");
  for (std::size_t length = 0; length < whole.size(); ++length) EXPECT_NE(refused(whole.substr(0, length)), "no error") << length;
}

TEST(Safetensors, AMissingFileOrFolderIsNamed) {
  const TemporaryFolder folder;
  EXPECT_EQ(message_of([&] { Safetensors(folder / "none.safetensors"); }),
            "file \"" + (folder / "none.safetensors").string() + "\": cannot open: No such file or directory");
  EXPECT_EQ(message_of([&] { Safetensors{folder.path()}; }),
            "folder \"" + folder.path().string() + "\": holds neither model.safetensors nor model.safetensors.index.json");
}

// ---- values

TEST(Safetensors, EveryDtypeOfNumbersIsRead) {
  const auto values = [](const std::string& dtype, const auto& stored) {
    const std::vector<std::byte> bytes = bytes_of(stored);
    std::vector<double> got(stored.size());
    read_values({"x", dtype, {static_cast<std::int64_t>(stored.size())}, bytes}, 0, std::span(got));
    return got;
  };
  using Doubles = std::vector<double>;
  EXPECT_EQ(values("F32", std::vector<float>{1.5f, -0x1p-149f, 3e38f}), (Doubles{1.5, -0x1p-149, static_cast<double>(3e38f)}));
  EXPECT_EQ(values("F64", std::vector<double>{1e300, -0.1}), (Doubles{1e300, -0.1}));
  EXPECT_EQ(values("F16", std::vector<std::uint16_t>{0x3c00, 0xc500, 0x0001}), (Doubles{1.0, -5.0, 0x1p-24}));
  EXPECT_EQ(values("BF16", std::vector<std::uint16_t>{0x3f80, 0xc0a0, 0x0001}), (Doubles{1.0, -5.0, 0x1p-133}));
  EXPECT_EQ(values("BOOL", std::vector<std::uint8_t>{0, 1}), (Doubles{0, 1}));
  EXPECT_EQ(values("U8", std::vector<std::uint8_t>{255, 1}), (Doubles{255, 1}));
  EXPECT_EQ(values("I8", std::vector<std::int8_t>{-128, 127}), (Doubles{-128, 127}));
  EXPECT_EQ(values("U16", std::vector<std::uint16_t>{65535}), (Doubles{65535}));
  EXPECT_EQ(values("I16", std::vector<std::int16_t>{-32768}), (Doubles{-32768}));
  EXPECT_EQ(values("U32", std::vector<std::uint32_t>{4294967295u}), (Doubles{4294967295.0}));
  EXPECT_EQ(values("I32", std::vector<std::int32_t>{-2147483647}), (Doubles{-2147483647.0}));
  EXPECT_EQ(values("U64", std::vector<std::uint64_t>{~std::uint64_t{0}}), (Doubles{0x1p64}));
  EXPECT_EQ(values("I64", std::vector<std::int64_t>{-5'000'000'000}), (Doubles{-5e9}));
}

TEST(Safetensors, PartsOfATensorAreReadAtAnyAlignment) {
  std::vector<std::byte> bytes(1);  // so that nothing is aligned
  const std::vector<std::byte> values = bytes_of(std::vector<float>{1, 2, 3, 4, 5});
  bytes.insert(bytes.end(), values.begin(), values.end());
  const StoredTensor tensor{"w", "F32", {5}, std::span(bytes).subspan(1)};
  std::vector<float> two(2);
  read_values(tensor, 3, std::span(two));
  EXPECT_EQ(two, (std::vector<float>{4, 5}));
  EXPECT_EQ(message_of([&] { read_values(tensor, 4, std::span(two)); }), "tensor \"w\": elements 4 to 6 are not in F32[5]");
  EXPECT_EQ(message_of([&] { read_values(tensor, -1, std::span(two)); }), "tensor \"w\": elements -1 to 1 are not in F32[5]");
  EXPECT_EQ(message_of([&] { read_values(tensor, 6, std::span<float>()); }), "tensor \"w\": elements 6 to 6 are not in F32[5]");
  EXPECT_EQ(message_of([&] { read_values(tensor, 5, std::span<float>()); }), "no error");
}

TEST(Safetensors, WhatIsNoFloatIsNotReadAsOne) {
  const std::vector<std::byte> bytes(16);
  std::vector<float> one(1);
  std::vector<double> wide(1);
  EXPECT_EQ(message_of([&] {
              read_values({"ids", "I64", {2}, bytes}, 0, std::span(one));
            }),
            "tensor \"ids\": cannot be read as f32, it is I64[2]");
  EXPECT_EQ(message_of([&] {
              read_values({"q", "F8_E4M3", {2}, bytes}, 0, std::span(wide));
            }),
            "tensor \"q\": cannot be read as f64, it is F8_E4M3[2]");
  std::vector<std::byte> number = bytes_of(std::vector<double>{0.1});
  read_values({"d", "F64", {1}, number}, 0, std::span(one));
  EXPECT_EQ(one[0], 0.1f);
}

/// The value of a binary16, by its definition.
double half_value(std::uint32_t bits) {
  const double sign = (bits & 0x8000u) != 0 ? -1.0 : 1.0, fraction = bits & 0x3ffu;
  const int exponent = static_cast<int>(bits >> 10 & 0x1fu);
  if (exponent == 31) return fraction == 0 ? sign * INFINITY : NAN;
  return sign * (exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25));
}

TEST(F16, EveryNumberIsReadAndWrittenBack) {
  for (std::uint32_t bits = 0; bits < 0x10000u; ++bits) {
    const detail::F16 half{static_cast<std::uint16_t>(bits)};
    const float value = to_float(half);
    if (std::isnan(half_value(bits))) {
      EXPECT_TRUE(std::isnan(value)) << bits;
      EXPECT_TRUE(std::isnan(half_value(detail::to_f16(value).bits))) << bits;
    } else {
      EXPECT_EQ(static_cast<double>(value), half_value(bits)) << bits;
      EXPECT_EQ(detail::to_f16(value).bits, bits);
    }
  }
}

TEST(F16, RoundsToTheNearestTiesToEven) {
  for (std::uint32_t bits = 0; bits < 0x7bffu; ++bits) {  // between this and the next
    const auto low = static_cast<float>(half_value(bits)), high = static_cast<float>(half_value(bits + 1)),
               middle = (low + high) / 2;
    const std::uint32_t even = bits % 2 == 0 ? bits : bits + 1;
    for (const float sign : {1.0f, -1.0f}) {
      const std::uint32_t s = sign < 0 ? 0x8000u : 0u;
      ASSERT_EQ(detail::to_f16(sign * middle).bits, s | even) << bits;
      ASSERT_EQ(detail::to_f16(sign * std::nextafter(middle, 0.0f)).bits, s | bits) << bits;
      ASSERT_EQ(detail::to_f16(sign * std::nextafter(middle, high)).bits, s | (bits + 1)) << bits;
    }
  }
  EXPECT_EQ(detail::to_f16(65519.996f).bits, 0x7bffu);
  EXPECT_EQ(detail::to_f16(65520.0f).bits, 0x7c00u);
  EXPECT_EQ(detail::to_f16(-1e30f).bits, 0xfc00u);
  EXPECT_EQ(detail::to_f16(std::numeric_limits<float>::denorm_min()).bits, 0u);
}

// ---- writing

TEST(Safetensors, WritesTheFormatToTheByte) {
  const TemporaryFolder folder;
  const std::vector<std::byte> two = bytes_of(std::vector<std::uint16_t>{1, 2}), four = bytes_of(std::vector<float>{1.0f}),
                               eight = bytes_of(std::vector<double>{2.0});
  const std::vector<StoredTensor> tensors = {
      {"b", "BF16", {2}, two}, {"z", "F32", {1, 1}, four}, {"a", "F32", {}, four}, {"wide", "F64", {1}, eight}};
  write_safetensors(folder / "x.safetensors", tensors);
  const std::string header =
      R"({"__metadata__":{"format":"pt"},"wide":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},)"
      R"("a":{"dtype":"F32","shape":[],"data_offsets":[8,12]},"z":{"dtype":"F32","shape":[1,1],"data_offsets":[12,16]},)"
      R"("b":{"dtype":"BF16","shape":[2],"data_offsets":[16,20]}})";
  const std::string padded = header + std::string((8 - header.size() % 8) % 8, ' ');
  EXPECT_EQ(padded.size() % 8, 0u);
  std::string want = with_header(padded, 0);
  for (const auto* bytes : {&eight, &four, &four, &two}) want.append(reinterpret_cast<const char*>(bytes->data()), bytes->size());
  EXPECT_EQ(read_file(folder / "x.safetensors"), want);

  const std::vector<StoredTensor> otherwise(tensors.rbegin(), tensors.rend());
  write_safetensors(folder / "y.safetensors", otherwise);
  EXPECT_EQ(read_file(folder / "y.safetensors"), want);
  EXPECT_EQ(folder.names(), (std::vector<std::string>{"x.safetensors", "y.safetensors"}));
}

TEST(Safetensors, HeadersOfAnyLengthArePadded) {
  const TemporaryFolder folder;
  for (std::size_t length = 1; length <= 8; ++length) {
    const StoredTensor tensor{std::string(length, 'n'), "U8", {0}, {}};
    write_safetensors(folder / "x", std::span(&tensor, 1), {});
    EXPECT_EQ(read_file(folder / "x").size() % 8, 0u);
    EXPECT_TRUE(Safetensors(folder / "x").contains(tensor.name));
  }
}

TEST(Safetensors, WhatIsWrittenIsRead) {
  const TemporaryFolder folder;
  const std::vector<std::byte> some = bytes_of(std::vector<std::uint32_t>{0x7fc00001u, 0x80000000u, 1u});
  const std::vector<StoredTensor> tensors = {
      {"with \"quotes\" and ü", "F32", {3}, some}, {"", "U32", {3, 1}, some}, {"none", "F16", {0, 7}, {}}};
  write_safetensors(folder / "x", tensors, {{"key", "värde"}});
  const Safetensors file(folder / "x");
  EXPECT_EQ(file.metadata(), (std::map<std::string, std::string>{{"key", "värde"}}));
  for (const StoredTensor& tensor : tensors) {
    const StoredTensor& got = file.at(tensor.name);
    EXPECT_EQ(to_string(got), to_string(tensor));
    EXPECT_TRUE(std::equal(got.bytes.begin(), got.bytes.end(), tensor.bytes.begin(), tensor.bytes.end()));
  }
}

TEST(Safetensors, WhatDoesNotFitIsNotWritten) {
  const TemporaryFolder folder;
  write_file(folder / "x", "old");
  const std::vector<std::byte> four(4);
  const std::string file = "safetensors \"" + (folder / "x").string() + "\": ";
  const auto refused_tensors = [&](const std::vector<StoredTensor>& tensors) {
    return message_of([&] { write_safetensors(folder / "x", tensors); });
  };
  EXPECT_EQ(refused_tensors({{"a", "F32", {1}, four}, {"a", "F32", {1}, four}}), file + "tensor \"a\": the name is taken");
  EXPECT_EQ(refused_tensors({{"__metadata__", "F32", {1}, four}}), file + "tensor \"__metadata__\": the name is taken");
  EXPECT_EQ(refused_tensors({{"a", "F31", {1}, four}}), file + "tensor \"a\": unknown dtype \"F31\"");
  EXPECT_EQ(refused_tensors({{"a", "F32", {2}, four}}), file + "tensor \"a\": F32[2] takes 8 bytes, got 4");
  EXPECT_EQ(refused_tensors({{"a", "F32", {-1}, four}}), file + "tensor \"a\": a dimension must not be negative, got -1");
  EXPECT_EQ(refused_tensors({{"\xff", "F32", {1}, four}}), file + "a name is not UTF-8");
  EXPECT_EQ(read_file(folder / "x"), "old");
  EXPECT_EQ(message_of([&] { write_safetensors(folder / "no/x", {}); }),
            "safetensors \"" + (folder / "no/x").string() + "\": cannot write: cannot open its folder: No such file or directory");
  EXPECT_EQ(folder.names(), std::vector<std::string>{"x"});
}

// ---- shards

struct Shards {
  explicit Shards(const TemporaryFolder& in) : folder(in) {
    const std::vector<std::byte> four = bytes_of(std::vector<float>{1.0f});
    const std::vector<StoredTensor> first = {{"b", "F32", {1}, four}}, second = {{"a", "F32", {1}, four}, {"c", "F32", {1}, four}};
    write_safetensors(folder / "1.safetensors", first, {{"shard", "1"}});
    write_safetensors(folder / "2.safetensors", second, {{"shard", "2"}, {"format", "pt"}});
  }
  std::string load(const std::string& index) {
    write_file(folder / "model.safetensors.index.json", index);
    return message_of([&] { file = std::make_unique<Safetensors>(folder.path()); });
  }
  const TemporaryFolder& folder;
  std::unique_ptr<Safetensors> file;
};

TEST(Safetensors, ShardsAreReadByTheirIndex) {
  const TemporaryFolder folder;
  Shards shards(folder);
  EXPECT_EQ(
      shards.load(R"({"metadata":{"total_size":12},"weight_map":{"a":"2.safetensors","b":"1.safetensors","c":"2.safetensors"}})"),
      "no error");
  ASSERT_EQ(shards.file->tensors().size(), 3u);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(shards.file->tensors()[i].name, std::string(1, static_cast<char>('a' + i)));
  EXPECT_EQ(shards.file->files(), (std::vector<std::filesystem::path>{folder / "1.safetensors", folder / "2.safetensors"}));
  EXPECT_EQ(shards.file->path(), folder / "model.safetensors.index.json");
  EXPECT_EQ(shards.file->metadata().at("format"), "pt");
  EXPECT_EQ(Safetensors(folder / "model.safetensors.index.json").tensors().size(), 3u);
}

TEST(Safetensors, AnIndexThatDoesNotFitIsNamed) {
  const TemporaryFolder folder;
  Shards shards(folder);
  const std::string index = "safetensors index \"" + (folder / "model.safetensors.index.json").string() + "\": ";
  const std::string second = "safetensors \"" + (folder / "2.safetensors").string() + "\": ";
  EXPECT_EQ(shards.load(R"({"weight_map":{"b":"1.safetensors","c":"2.safetensors"}})"),
            second + "tensor \"a\" is not in the index");
  EXPECT_EQ(shards.load(R"({"weight_map":{"a":"1.safetensors","b":"1.safetensors","c":"2.safetensors"}})"),
            second + "tensor \"a\" is in 1.safetensors by the index");
  EXPECT_EQ(shards.load(R"({"weight_map":{"a":"2.safetensors","b":"1.safetensors","c":"2.safetensors","d":"1.safetensors"}})"),
            index + "tensor \"d\" is not in 1.safetensors");
  EXPECT_EQ(shards.load(R"({"weight_map":{"a":"3.safetensors"}})"),
            "file \"" + (folder / "3.safetensors").string() + "\": cannot open: No such file or directory");
  EXPECT_EQ(shards.load("[]"), index + "has no object \"weight_map\"");
  EXPECT_EQ(shards.load("{}"), index + "has no object \"weight_map\"");
  EXPECT_EQ(shards.load(R"({"weight_map":[]})"), index + "has no object \"weight_map\"");
  EXPECT_EQ(shards.load("{"), index.substr(0, index.size() - 2) + ": is not valid JSON, at byte 2");
  for (const char* name : {"\"../1.safetensors\"", "\"/etc/passwd\"", "\"..\"", "\".\"", "\"\"", "7", "\"a\\u0000b\""})
    EXPECT_EQ(shards.load(R"({"weight_map":{"a":)" + std::string(name) + "}}"),
              index + "tensor \"a\": must name a file of the same folder, got " + name);
}

}  // namespace
}  // namespace graft::hf
