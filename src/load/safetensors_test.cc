#include "load/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/rng.h"
#include "gguf_builder.h"

namespace dspark {
namespace {

using test::Bytes;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string File(const std::string& header, size_t data_bytes) {
  return Bytes<uint64_t>(header.size()) + header + std::string(data_bytes, '\x01');
}

// Parses a copy of exactly that size, so that a sanitizer sees any read past it.
std::string ErrorOf(const std::string& bytes) {
  const std::vector<uint8_t> file(bytes.begin(), bytes.end());
  const auto parsed = ParseSafetensors(file, "x.safetensors");
  if (parsed.ok()) return "";
  EXPECT_THAT(parsed.error().text, testing::StartsWith("x.safetensors: "));
  EXPECT_EQ(parsed.error().text.find('\n'), std::string::npos);
  return parsed.error().text;
}

TEST(Safetensors, ReadsTensorsInTheOrderOfTheirData) {
  const std::string file = File(R"({"__metadata__":{"format":"pt"},
      "b":{"dtype":"F32","shape":[2,3],"data_offsets":[6,30]},
      "a":{"dtype":"BF16","shape":[3],"data_offsets":[0,6]},
      "scalar":{"dtype":"U8","shape":[],"data_offsets":[30,31]},
      "none":{"dtype":"F32","shape":[0,4],"data_offsets":[6,6]}}   )",
                                31);
  const std::vector<uint8_t> bytes(file.begin(), file.end());
  const auto parsed = ParseSafetensors(bytes, "x.safetensors");
  ASSERT_TRUE(parsed.ok()) << parsed.error().text;
  ASSERT_EQ(parsed->tensors.size(), 4u);
  EXPECT_EQ(parsed->tensors[0].name, "a");
  EXPECT_EQ(parsed->tensors[3].name, "scalar");
  const SafeTensor* b = parsed->Find("b");
  ASSERT_NE(b, nullptr);
  EXPECT_EQ(b->dtype, "F32");
  EXPECT_EQ(b->type, TensorType::kF32);
  EXPECT_THAT(b->shape, ElementsAre(2, 3));
  EXPECT_EQ(b->bytes.data(), bytes.data() + bytes.size() - 25);
  EXPECT_EQ(parsed->Find("scalar")->type, std::nullopt);
  EXPECT_EQ(parsed->Find("c"), nullptr);
}

TEST(Safetensors, HostileFilesEndInOneLineThatNamesTheTensor) {
  const struct {
    const char* header;
    size_t data_bytes;
    const char* message;
  } cases[] = {
      {"", 0, "not a JSON object"},
      {"[]", 0, "not a JSON object"},
      {"{\"a\":", 0, "not a JSON object"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
       1, "a occurs twice"},
      {R"({"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}})", 1, "dtype occurs twice"},
      {R"({"a":7})", 0, "tensor a: no dtype, shape and data_offsets"},
      {R"({"a":{"dtype":3,"shape":[1],"data_offsets":[0,1]}})", 1, "tensor a: no dtype"},
      {R"({"a":{"dtype":"U8","data_offsets":[0,1]}})", 1, "tensor a: no dtype, shape"},
      {R"({"a":{"dtype":"Q9","shape":[1],"data_offsets":[0,1]}})", 1, "tensor a: dtype Q9 is not supported"},
      {R"({"a":{"dtype":"U8","shape":1,"data_offsets":[0,1]}})", 1, "shape is not a list"},
      {R"({"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}})", 1, "shape is not a list"},
      {R"({"a":{"dtype":"U8","shape":[1.5],"data_offsets":[0,1]}})", 1, "shape is not a list"},
      {R"({"a":{"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,1]}})", 1,
       "shape is not a list"},
      {R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}})", 0,
       "larger than any file"},
      {R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,1]}})", 1,
       "takes 2 bytes but data_offsets give 1"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}})", 1, "not a [begin, end] pair"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0]}})", 1, "not a [begin, end] pair"},
      {R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})", 1,
       "its end 2 is past the end of the data (1 bytes)"},
      {R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
       3, "tensor b overlaps the one before it"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})",
       3, "tensor b leaves a hole before it"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 3, "2 bytes after the last tensor"},
      {R"({"a\n":{"dtype":"Q9","shape":[1],"data_offsets":[0,1]}})", 1, "tensor a\\x0a: dtype"},
  };
  for (const auto& c : cases)
    EXPECT_THAT(ErrorOf(File(c.header, c.data_bytes)), HasSubstr(c.message)) << c.header;
  EXPECT_THAT(ErrorOf("short"), HasSubstr("shorter than a safetensors header"));
  EXPECT_THAT(ErrorOf(Bytes<uint64_t>(200'000'000)), HasSubstr("a header of 200000000 bytes"));
  EXPECT_THAT(ErrorOf(Bytes<uint64_t>(100) + "{}"), HasSubstr("ends inside its header (2 of 100 bytes)"));
  EXPECT_THAT(ErrorOf(File(std::string(100000, '['), 0)), HasSubstr("not a JSON object"));
}

TEST(Safetensors, TruncationAndRandomDamageAreHandled) {
  const std::string intact = File(R"({"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},)"
                                  R"("b":{"dtype":"F16","shape":[3],"data_offsets":[16,22]}})",
                                  22);
  ASSERT_EQ(ErrorOf(intact), "");
  for (size_t size = 0; size < intact.size(); ++size) EXPECT_NE(ErrorOf(intact.substr(0, size)), "") << size;
  for (uint64_t round = 0; round < 20000; ++round) {
    std::string broken = intact;
    for (uint32_t i = 0; i <= round % 4; ++i) {
      const size_t place = size_t(double(broken.size()) * UniformDouble(1, round, Purpose::kTest, i));
      broken[place] = char(256 * UniformDouble(2, round, Purpose::kTest, i));
    }
    ErrorOf(broken);
  }
}

}  // namespace
}  // namespace dspark
