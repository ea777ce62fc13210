#include "load/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "load/gguf_model.h"
#include "load/gguf_tokenizer.h"
#include "tiny_gguf.h"

namespace dspark {
namespace {

using test::Bytes;
using test::GgufBuilder;
using ::testing::HasSubstr;

std::span<const uint8_t> AsSpan(const std::string& bytes) {
  return {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()};
}

// Small enough to break it at every byte.
GgufBuilder Small() {
  GgufBuilder b;
  b.String("general.architecture", "llama");
  b.U32("u32", 7);
  b.Set("u64", test::kGgufU64, Bytes<uint64_t>(uint64_t{1} << 63));
  b.Set("i8", 1, Bytes<int8_t>(-3));
  b.F32("f32", 0.5f);
  b.Set("f64", 12, Bytes(0.25));
  b.Bool("bool", true);
  b.Strings("strings", {"a", "", "bcd"});
  b.I32s("numbers", {1, -2, 3});
  b.tensors.push_back({"a.weight", 0, {2, 3}, std::string(24, '\x01'), {}});
  b.tensors.push_back({"b.weight", 2, {32, 2}, std::string(36, '\x02'), {}});
  return b;
}

Result<Gguf> Parse(const std::string& bytes) { return ParseGguf(AsSpan(bytes), "x.gguf"); }

// All that reads a parsed file, so that a broken one is followed to the end.
void ReadEverything(const std::string& bytes) {
  // A copy of exactly that size, so that a sanitizer sees any read past it.
  const std::vector<uint8_t> file(bytes.begin(), bytes.end());
  const auto gguf = ParseGguf(file, "x.gguf");
  if (!gguf) {
    EXPECT_THAT(gguf.error().text, ::testing::StartsWith("x.gguf: "));
    EXPECT_EQ(gguf.error().text.find('\n'), std::string::npos);
    return;
  }
  for (const TensorView& tensor : gguf->tensors) {
    const TensorTypeInfo& info = InfoOf(tensor.type);
    std::vector<float> values(size_t(info.block_values));
    if (info.dequantize) {
      info.dequantize(tensor.bytes.data() + tensor.bytes.size() - size_t(info.block_bytes), values.data());
    }
  }
  (void)ConfigFromGguf(*gguf).ok();
  (void)TokenizerSpecFromGguf(*gguf).ok();
}

TEST(Gguf, ReadsWhatWasWritten) {
  const std::string file = Small().Build();
  const auto gguf = Parse(file);
  ASSERT_TRUE(gguf.ok()) << gguf.error().text;
  EXPECT_EQ(*gguf->Get<std::string_view>("general.architecture"), "llama");
  EXPECT_EQ(*gguf->Get<int64_t>("u32"), 7);
  EXPECT_EQ(*gguf->Get<int64_t>("i8"), -3);
  EXPECT_EQ(*gguf->Get<double>("f32"), 0.5);
  EXPECT_EQ(*gguf->Get<double>("f64"), 0.25);
  EXPECT_EQ(*gguf->Get<bool>("bool"), true);
  EXPECT_THAT(*gguf->Get<std::vector<std::string_view>>("strings"), ::testing::ElementsAre("a", "", "bcd"));
  EXPECT_THAT(*gguf->Get<std::vector<int64_t>>("numbers"), ::testing::ElementsAre(1, -2, 3));
  EXPECT_EQ(*gguf->GetOr<int64_t>("absent", 5), 5);
  ASSERT_EQ(gguf->tensors.size(), 2u);
  const TensorView* b = gguf->FindTensor("b.weight");
  ASSERT_NE(b, nullptr);
  EXPECT_EQ(b->type, TensorType::kQ4_0);
  EXPECT_THAT(b->shape, ::testing::ElementsAre(2, 32));
  EXPECT_EQ(b->bytes.size(), 36u);
  EXPECT_EQ(b->bytes[35], 2);
  EXPECT_EQ(gguf->FindTensor("c.weight"), nullptr);
}

TEST(Gguf, GettersNameTheKeyAndBothKinds) {
  const std::string file = Small().Build();
  const auto gguf = Parse(file);
  ASSERT_TRUE(gguf.ok());
  EXPECT_THAT(gguf->Get<int64_t>("absent").error().text, HasSubstr("metadata key absent is missing"));
  EXPECT_THAT(gguf->Get<int64_t>("f32").error().text,
              HasSubstr("key f32 is of type f32, expected whole number"));
  EXPECT_THAT(gguf->Get<int64_t>("u64").error().text, HasSubstr("whole number (below 2^63)"));
  EXPECT_THAT(gguf->Get<std::string_view>("strings").error().text,
              HasSubstr("an array of string, expected string"));
  EXPECT_THAT(gguf->Get<std::vector<std::string_view>>("numbers").error().text,
              HasSubstr("an array of i32, expected an array of string"));
  EXPECT_THAT(gguf->GetOr<bool>("u32", true).error().text, HasSubstr("expected bool"));
}

TEST(Gguf, ReadsVersion2) {
  GgufBuilder b = Small();
  b.version = 2;
  EXPECT_TRUE(Parse(b.Build()).ok());
}

TEST(Gguf, TensorsMayLieInAnyOrderWithGaps) {
  GgufBuilder b = Small();
  b.tensors[0].offset = 256;
  b.tensors[1].offset = 64;
  std::string file = b.Build();
  file.resize(file.size() + 512);
  EXPECT_TRUE(Parse(file).ok());
}

struct Hostile {
  const char* name;
  std::function<void(GgufBuilder&)> break_it;
  const char* message;
};

const Hostile kHostile[] = {
    {"magic", [](auto& b) { b.magic = "GGML"; }, "not a GGUF file"},
    {"version 1", [](auto& b) { b.version = 1; }, "GGUF version 1 cannot be read"},
    {"version 99", [](auto& b) { b.version = 99; }, "GGUF version 99"},
    {"big-endian", [](auto& b) { b.version = 0x03000000; }, "big-endian"},
    {"tensor count", [](auto& b) { b.claimed_tensors = ~uint64_t{0}; },
     "claims 18446744073709551615 tensors"},
    {"key count", [](auto& b) { b.claimed_entries = uint64_t{1} << 40; },
     "claims 1099511627776 metadata keys"},
    {"key twice", [](auto& b) { b.entries.push_back(b.entries[1]); }, "metadata key u32 occurs twice"},
    {"empty key", [](auto& b) { b.entries[1].key.clear(); }, "metadata key 1 has an empty name"},
    {"value type", [](auto& b) { b.entries[1].type = 13; }, "key u32 has the unknown value type 13"},
    {"element type", [](auto& b) { b.Set("u32", 9, Bytes<uint32_t>(77) + Bytes<uint64_t>(0)); },
     "key u32 has the unknown value type 77"},
    {"nested array", [](auto& b) { b.Set("u32", 9, Bytes<uint32_t>(9) + Bytes<uint64_t>(1)); },
     "array of arrays"},
    {"array count", [](auto& b) { b.Set("u32", 9, Bytes<uint32_t>(4) + Bytes(~uint64_t{0})); },
     "ends inside the value of metadata key u32"},
    {"string count", [](auto& b) { b.Set("u32", 9, Bytes<uint32_t>(8) + Bytes(uint64_t{1} << 61)); },
     "ends inside the value of metadata key u32"},
    {"string length", [](auto& b) { b.Set("strings", 8, Bytes(~uint64_t{0})); },
     "ends inside string 0 of metadata key strings"},
    {"bool 2", [](auto& b) { b.Set("bool", 7, Bytes<uint8_t>(2)); }, "bool that is neither 0 nor 1"},
    {"bool array", [](auto& b) { b.Set("bool", 9, Bytes<uint32_t>(7) + Bytes<uint64_t>(2) + "\x01\x03"); },
     "bool that is neither 0 nor 1"},
    {"alignment 0", [](auto& b) { b.U32("general.alignment", 0); },
     "general.alignment is 0, not a power of two"},
    {"alignment 24", [](auto& b) { b.U32("general.alignment", 24); }, "general.alignment is 24"},
    {"alignment huge", [](auto& b) { b.U32("general.alignment", 1u << 31); },
     "not a power of two below 2^31"},
    {"alignment kind", [](auto& b) { b.String("general.alignment", "32"); },
     "general.alignment is of type string"},
    {"tensor twice", [](auto& b) { b.tensors[1].name = "a.weight"; }, "tensor a.weight occurs twice"},
    {"tensor without name", [](auto& b) { b.tensors[1].name = ""; }, "tensor 1 has a name of 0 bytes"},
    {"long tensor name", [](auto& b) { b.tensors[1].name.assign(64, 'n'); }, "a name of 64 bytes (1 to 63"},
    {"newline in a name", [](auto& b) { b.tensors[1].name = "a\nb", b.tensors[1].type = 99; },
     "tensor a\\x0ab:"},
    {"no dimensions", [](auto& b) { b.tensors[0].ne = {}; }, "tensor a.weight: 0 dimensions"},
    {"five dimensions",
     [](auto& b) {
       b.tensors[0].ne = {2, 1, 1, 1, 1};
     },
     "tensor a.weight: 5 dimensions"},
    {"dimension 0",
     [](auto& b) {
       b.tensors[0].ne = {2, 0};
     },
     "tensor a.weight: dimension 1 is 0"},
    {"row of 0",
     [](auto& b) {
       b.tensors[1].ne = {0, 2};
     },
     "tensor b.weight: dimension 0 is 0"},
    {"partial block",
     [](auto& b) {
       b.tensors[1].ne = {33, 2};
     },
     "rows of 33 values are not a multiple of Q4_0's block of 32"},
    {"overflowing shape",
     [](auto& b) {
       b.tensors[0].ne = {uint64_t{1} << 62, 8};
     },
     "larger than any file"},
    {"negative size",
     [](auto& b) {
       b.tensors[0].ne = {uint64_t{1} << 61, 1};
     },
     "larger than any file"},
    {"unsupported type", [](auto& b) { b.tensors[1].type = 12; },
     "tensor b.weight: type 12 (Q4_K) is not supported; requantise the model to one of F32, F16, Q4_0, Q4_1, "
     "Q8_0"},
    {"unknown type", [](auto& b) { b.tensors[1].type = 0xffffffff; },
     "type 4294967295 (unknown) is not supported"},
    {"crooked offset", [](auto& b) { b.tensors[1].offset = 33; },
     "offset 33 is not a multiple of the alignment 32"},
    {"offset past the end", [](auto& b) { b.tensors[1].offset = 1 << 20; },
     "tensor b.weight: offset 1048576 is past the end of the file"},
    {"overflowing offset", [](auto& b) { b.tensors[1].offset = ~uint64_t{31}; },
     "is past the end of the file"},
    {"tensor past the end",
     [](auto& b) {
       b.tensors[1].ne = {32, 3};
     },
     "tensor b.weight: its 54 bytes at offset 32 reach past the end of the file"},
    {"overlap",
     [](auto& b) {
       b.tensors.push_back({"c.weight", 0, {4}, {}, 0});
     },
     "tensors a.weight and c.weight overlap; the file is damaged"},
};

TEST(Gguf, HostileFilesEndInOneLineThatNamesThePlace) {
  for (const Hostile& hostile : kHostile) {
    GgufBuilder b = Small();
    hostile.break_it(b);
    const auto gguf = Parse(b.Build());
    ASSERT_FALSE(gguf.ok()) << hostile.name;
    EXPECT_THAT(gguf.error().text, HasSubstr(hostile.message)) << hostile.name;
    EXPECT_THAT(gguf.error().text, ::testing::StartsWith("x.gguf: ")) << hostile.name;
    EXPECT_EQ(gguf.error().text.find('\n'), std::string::npos) << hostile.name;
  }
}

TEST(Gguf, EveryTruncationIsAnError) {
  const std::string file = Small().Build();
  for (size_t size = 0; size < file.size(); ++size) {
    const std::vector<uint8_t> cut(file.begin(), file.begin() + std::ptrdiff_t(size));
    EXPECT_FALSE(ParseGguf(cut, "x.gguf").ok()) << size;
  }
}

TEST(Gguf, EveryTruncationOfAModelsHeaderIsHandled) {
  size_t data_start = 0;
  const std::string file = test::BuildTinyLlama(1).Build(nullptr, &data_start);
  for (size_t size = 0; size <= data_start; ++size) ReadEverything(file.substr(0, size));
}

TEST(Gguf, EveryFieldSetToExtremesIsHandled) {
  std::vector<GgufBuilder::Field> fields;
  const std::string file = test::BuildTinyLlama(1).Build(&fields);
  for (const auto& field : fields) {
    for (const int fill : {0x00, 0x01, 0x7f, 0x80, 0xff}) {
      std::string broken = file;
      std::fill_n(broken.begin() + std::ptrdiff_t(field.offset), field.size, char(fill));
      ReadEverything(broken);
    }
    for (size_t i = 0; i < std::min<size_t>(field.size, 64); ++i) {
      std::string broken = file;
      broken[field.offset + i] = char(broken[field.offset + i] + 1);
      ReadEverything(broken);
    }
  }
}

TEST(Gguf, RandomDamageIsHandled) {
  size_t header = 0;
  std::string file = test::BuildTinyLlama(1).Build(nullptr, &header);
  const std::string intact = file;
  for (uint64_t round = 0; round < 20000; ++round) {
    const uint32_t flips = 1 + uint32_t(8 * UniformFloat(1, round, Purpose::kTest));
    std::vector<size_t> places;
    for (uint32_t i = 0; i < flips; ++i) {
      const size_t place = size_t(double(header) * UniformDouble(2, round, Purpose::kTest, i));
      file[place] = char(256 * UniformDouble(3, round, Purpose::kTest, i));
      places.push_back(place);
    }
    ReadEverything(file);
    for (const size_t place : places) file[place] = intact[place];
  }
}

}  // namespace
}  // namespace dspark
