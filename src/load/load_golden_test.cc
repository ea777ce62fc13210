// The readers against files and values that other implementations wrote.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <cstring>

#include "core/mapped_file.h"
#include "golden_tensors.h"
#include "load/chat_template.h"
#include "load/gguf.h"
#include "load/gguf_model.h"
#include "load/gguf_tokenizer.h"
#include "load/json_file.h"
#include "load/model_files.h"
#include "load/model_listing.h"
#include "test_data.h"

namespace dspark {
namespace {

using test::GoldenTensors;

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

TEST(GoldenBlocks, DequantizeBitForBit) {
  DSPARK_SKIP_WITHOUT_GOLDEN("targets/gguf_blocks.safetensors");
  const GoldenTensors golden(test::GoldenDir() + "/targets/gguf_blocks.safetensors");
  const std::pair<const char*, TensorType> cases[] = {
      {"Q4_0", TensorType::kQ4_0}, {"Q4_0.random", TensorType::kQ4_0},
      {"Q4_1", TensorType::kQ4_1}, {"Q4_1.random", TensorType::kQ4_1},
      {"Q8_0", TensorType::kQ8_0}, {"Q8_0.random", TensorType::kQ8_0},
      {"F16", TensorType::kF16},   {"BF16", TensorType::kBF16}};
  for (const auto& [name, type] : cases) {
    const std::vector<float> expected = golden.Floats(std::string(name) + ".values");
    const SafeTensor& blocks = golden.Find(std::string(name) + ".bytes");
    std::vector<float> values(expected.size());
    ASSERT_EQ(blocks.bytes.size(),
              expected.size() / size_t(InfoOf(type).block_values) * size_t(InfoOf(type).block_bytes));
    Dequantize(type, blocks.bytes.data(), int64_t(values.size()), values.data());
    EXPECT_TRUE(SameBits(values, expected)) << name;
  }
}

// A key against the golden's {type, value} or, for long arrays, {type, count, first, last}.
void ExpectGolden(const Gguf& gguf, const std::string& key, const nlohmann::json& golden) {
  SCOPED_TRACE(key);
  const GgufValue* value = gguf.FindKey(key);
  ASSERT_NE(value, nullptr);
  EXPECT_EQ(value->is_array, golden["type"][0] == "ARRAY");
  const auto expect = [&](uint64_t i, const nlohmann::json& element) {
    const std::string text = GgufElementText(*value, i);
    if (element.is_number_float()) {
      EXPECT_EQ(std::stof(text), element.get<float>());
    } else {
      EXPECT_EQ(text, element.is_string() ? element.get<std::string>() : element.dump());
    }
  };
  if (!value->is_array) return expect(0, golden["value"]);
  const nlohmann::json first = golden.contains("first") ? golden["first"] : golden["value"];
  const nlohmann::json last = golden.value("last", nlohmann::json::array());
  ASSERT_EQ(value->count, golden.value("count", first.size()));
  for (size_t i = 0; i < first.size(); ++i) expect(i, first[i]);
  for (size_t i = 0; i < last.size(); ++i) expect(value->count - last.size() + i, last[i]);
}

// The trained tiny Qwen3's directory: its template, its tokenizer, and both together.
TEST(GoldenChat, TextAndIdsOfADirectory) {
  DSPARK_SKIP_WITHOUT_GOLDEN("drafters/target_qwen3");
  const auto model = OpenModel(test::GoldenDir() + "/drafters/target_qwen3");
  ASSERT_TRUE(model.ok()) << model.error().text;
  EXPECT_THAT(model->config.eos, testing::ElementsAre(510, 508));
  const auto format = DetectChatFormat(model->chat_template);
  ASSERT_TRUE(format.ok()) << format.error().text;
  EXPECT_EQ(*format, ChatFormat::kChatMl);
  const auto json = ReadJsonObject(test::GoldenDir() + "/drafters/chat_parse.json");
  ASSERT_TRUE(json.ok()) << json.error().text;
  for (const auto& golden : (*json)["eval_prompts"]) {
    const std::string text = RenderChat(*format, {{"user", golden["user"]}}, true);
    EXPECT_EQ(text, golden["text"].get<std::string>());
    EXPECT_EQ(model->tokenizer->Encode(text, true), golden["input_ids"].get<std::vector<int32_t>>());
  }
  for (const auto& golden : (*json)["encode"]) {
    const auto ids = golden["ids"].get<std::vector<int32_t>>();
    EXPECT_EQ(model->tokenizer->Encode(golden["text"].get<std::string>(), true), ids);
    EXPECT_EQ(model->tokenizer->Decode(ids, false), golden["decoded"].get<std::string>());
  }
}

// The default model's file, mapped and parsed.
class ModelGguf : public testing::Test {
 protected:
  void SetUp() override {
    DSPARK_SKIP_WITHOUT_MODEL();
    DSPARK_SKIP_WITHOUT_GOLDEN("targets/smollm2");
    const auto start = std::chrono::steady_clock::now();
    file_.emplace(MappedFile::Open(test::DefaultModelPath()).value());
    gguf_ = ParseGguf(file_->bytes(), file_->path()).value();
    parse_ms_ = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  }
  static nlohmann::json Golden(const std::string& name) {
    const std::string path = test::GoldenDir() + "/targets/smollm2/" + name;
    return nlohmann::json::parse(MappedFile::Open(path)->bytes());
  }
  std::vector<float> Values(const TensorView& tensor) const {
    int64_t n = 1;
    for (const int64_t size : tensor.shape) n *= size;
    std::vector<float> values(static_cast<size_t>(n));
    Dequantize(tensor.type, tensor.bytes.data(), n, values.data());
    return values;
  }

  std::optional<MappedFile> file_;
  Gguf gguf_;
  double parse_ms_ = 0;
};

TEST_F(ModelGguf, MetadataIsTheGolden) {
  const nlohmann::json golden = Golden("metadata.json");
  EXPECT_EQ(file_->bytes().size(), golden["size"].get<uint64_t>());
  EXPECT_EQ(gguf_.version, golden["gguf_version"].get<uint32_t>());
  EXPECT_EQ(gguf_.data_start, golden["data_start"].get<uint64_t>());
  EXPECT_EQ(gguf_.tensors.size(), golden["tensor_count"].get<uint64_t>());
  ASSERT_EQ(gguf_.metadata.size(), golden["metadata"].size());
  for (const auto& item : golden["metadata"].items()) ExpectGolden(gguf_, item.key(), item.value());
  std::printf("open and parse: %.2f ms\n", parse_ms_);
}

TEST_F(ModelGguf, TensorsLieAndSumAsInTheGolden) {
  const nlohmann::json golden = Golden("tensors.json");
  ASSERT_EQ(gguf_.tensors.size(), golden.size());
  for (size_t i = 0; i < golden.size(); ++i) {
    const TensorView& tensor = gguf_.tensors[i];
    EXPECT_EQ(tensor.name, golden[i]["name"]);
    EXPECT_EQ(InfoOf(tensor.type).name, golden[i]["type"].get<std::string>());
    auto ne = golden[i]["ne"].get<std::vector<int64_t>>();
    std::reverse(ne.begin(), ne.end());
    EXPECT_EQ(tensor.shape, ne);
    EXPECT_EQ(uint64_t(tensor.bytes.data() - file_->bytes().data()), golden[i]["offset"].get<uint64_t>());
    EXPECT_EQ(tensor.bytes.size(), golden[i]["n_bytes"].get<uint64_t>());
    double sum = 0, abs_sum = 0;
    for (const float value : Values(tensor)) sum += double(value), abs_sum += std::fabs(double(value));
    const double expected_abs = golden[i]["abs_sum"].get<double>();
    EXPECT_NEAR(sum, golden[i]["sum"].get<double>(), 1e-9 * expected_abs) << tensor.name;
    EXPECT_NEAR(abs_sum, expected_abs, 1e-9 * expected_abs) << tensor.name;
  }
}

TEST_F(ModelGguf, DequantizedRowsAreTheGolden) {
  const GoldenTensors golden(test::GoldenDir() + "/targets/smollm2/dequant.safetensors");
  const nlohmann::json metadata = Golden("metadata.json");
  for (const auto& [type, name] : metadata["dequant_samples"].items()) {
    const std::vector<float> values = Values(*gguf_.FindTensor(name.get<std::string>()));
    EXPECT_TRUE(SameBits({values.begin(), values.begin() + 256}, golden.Floats(type + ".first"))) << type;
    EXPECT_TRUE(SameBits({values.end() - 256, values.end()}, golden.Floats(type + ".last"))) << type;
  }
  const std::vector<float> rows = Values(*gguf_.FindTensor("blk.0.attn_q.weight"));
  EXPECT_TRUE(
      SameBits({rows.begin(), rows.begin() + 4 * 576}, golden.Floats("blk.0.attn_q.row0_file_order")));
}

TEST_F(ModelGguf, ConfigurationAndTokenizerAreSmolLm2) {
  const auto c = ConfigFromGguf(gguf_);
  ASSERT_TRUE(c.ok()) << c.error().text;
  EXPECT_EQ(c->layers, 30);
  EXPECT_EQ(c->d_model, 576);
  EXPECT_EQ(c->d_ffn, 1536);
  EXPECT_EQ(c->heads, 9);
  EXPECT_EQ(c->kv_heads, 3);
  EXPECT_EQ(c->head_dim, 64);
  EXPECT_EQ(c->vocab, 49152);
  EXPECT_EQ(c->max_context, 8192);
  EXPECT_EQ(c->rope_theta, 100000);
  EXPECT_TRUE(c->tied_embeddings);
  EXPECT_THAT(c->eos, testing::ElementsAre(2));
  const auto spec = TokenizerSpecFromGguf(gguf_);
  ASSERT_TRUE(spec.ok()) << spec.error().text;
  EXPECT_EQ((*spec)->tokens.size(), 49152u);
  EXPECT_EQ((*spec)->merges.size(), 48900u);
  EXPECT_EQ((*spec)->added.size(), 17u);
  EXPECT_EQ((*spec)->pre, PreTokenizer::kSmolLm);
}

TEST_F(ModelGguf, ListingShowsKeysAndTensors) {
  const auto listing = ListModel(test::DefaultModelPath());
  ASSERT_TRUE(listing.ok()) << listing.error().text;
  EXPECT_EQ(listing->format, "GGUF v3");
  EXPECT_EQ(listing->file_bytes, 98362432u);
  ASSERT_EQ(listing->tensors.size(), 272u);
  EXPECT_EQ(listing->tensors[0].name, "token_embd.weight");
  EXPECT_EQ(listing->tensors[0].type, "Q8_0");
  const auto tokens = std::ranges::find(listing->metadata, "tokenizer.ggml.tokens", &ListedKey::key);
  ASSERT_NE(tokens, listing->metadata.end());
  EXPECT_EQ(tokens->type, "string[49152]");
  EXPECT_THAT(tokens->value, testing::StartsWith("<|endoftext|> <|im_start|>"));
}

}  // namespace
}  // namespace dspark
