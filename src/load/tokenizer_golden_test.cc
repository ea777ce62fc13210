// Exact ids and texts of reference tokenizers: SmolLM2 from its GGUF, and small ones from tokenizer.json.
#include <fstream>
#include <nlohmann/json.hpp>

#include "load/chat_template.h"
#include "load/model_files.h"
#include "load/tokenizer.h"
#include "load/tokenizer_json.h"
#include "test_data.h"

namespace dspark {
namespace {

using Json = nlohmann::json;
using Ids = std::vector<int32_t>;

Json ReadGolden(const std::string& name) {
  std::ifstream file(test::GoldenDir() + "/targets/" + name);
  return Json::parse(file);
}

std::string FromHex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i < hex.size(); i += 2) bytes.push_back(char(std::stoi(hex.substr(i, 2), nullptr, 16)));
  return bytes;
}

// Streaming must give what decoding at once gives.
std::string Stream(const Tokenizer& tokenizer, const Ids& ids, bool skip_special) {
  Detokenizer detokenizer(tokenizer, skip_special);
  std::string text;
  for (const int32_t id : ids) text += detokenizer.Add(id);
  return text + detokenizer.Finish();
}

void ExpectText(const Tokenizer& tokenizer, const Ids& ids, bool skip_special, const std::string& text) {
  EXPECT_EQ(tokenizer.Decode(ids, skip_special), text);
  EXPECT_EQ(Stream(tokenizer, ids, skip_special), text);
}

class ModelSmolLm2Test : public testing::Test {
 protected:
  void SetUp() override {
    DSPARK_SKIP_WITHOUT_MODEL();
    DSPARK_SKIP_WITHOUT_GOLDEN("targets/smollm2");
    auto model = OpenModel(test::DefaultModelPath());
    ASSERT_TRUE(model.ok()) << model.error().text;
    tokenizer_ = std::move(model->tokenizer);
  }
  std::unique_ptr<Tokenizer> tokenizer_;
};

TEST_F(ModelSmolLm2Test, Encodes) {
  const Json golden = ReadGolden("smollm2/tokenizer_goldens.json");
  for (const Json& entry : golden["encode"]) {
    SCOPED_TRACE(entry["text"]);
    const std::string text = entry["text"];
    const Ids ids = entry["ids"];
    EXPECT_EQ(tokenizer_->Encode(text, true), ids);
    EXPECT_EQ(tokenizer_->Encode(text, false), entry.value("ids_special_not_parsed", ids));
    if (!entry.contains("bytes_of_ids_hex")) {
      ExpectText(*tokenizer_, ids, false, text);
      continue;
    }
    std::string bytes;
    for (const int32_t id : ids) bytes += tokenizer_->TokenBytes(id);
    EXPECT_EQ(bytes, FromHex(entry["bytes_of_ids_hex"]));
  }
  for (const Json& entry : golden["invalid_utf8"]) {
    SCOPED_TRACE(entry["bytes_hex"]);
    EXPECT_EQ(tokenizer_->Encode(FromHex(entry["bytes_hex"]), true),
              entry["ids_after_replacement"].get<Ids>());
  }
}

TEST_F(ModelSmolLm2Test, Decodes) {
  const Json golden = ReadGolden("smollm2/tokenizer_goldens.json");
  for (const Json& entry : golden["decode"]) {
    const Ids ids = entry["ids"];
    SCOPED_TRACE(entry["text"]);
    ExpectText(*tokenizer_, ids, false, entry["text"]);
    ExpectText(*tokenizer_, ids, true, entry["text_skip_special"]);
    for (size_t i = 0; i < ids.size(); ++i)
      EXPECT_EQ(tokenizer_->TokenBytes(ids[i]), FromHex(entry["token_bytes_hex"][i]));
  }
  for (const auto& [hex, id] : golden["byte_tokens"].items())
    EXPECT_EQ(tokenizer_->TokenBytes(id), FromHex(hex));
}

TEST_F(ModelSmolLm2Test, KnowsItsSpecialTokens) {
  EXPECT_EQ(tokenizer_->vocab(), 49152);
  EXPECT_EQ(tokenizer_->FindSpecial("<|im_end|>"), 2);
  EXPECT_EQ(tokenizer_->FindSpecial("im_end"), -1);
  EXPECT_TRUE(tokenizer_->IsSpecial(16));
  EXPECT_FALSE(tokenizer_->IsSpecial(17));
  for (const int32_t id : {-1, 49152, 1 << 30}) {
    EXPECT_EQ(tokenizer_->TokenBytes(id), "");
    EXPECT_FALSE(tokenizer_->IsSpecial(id));
  }
}

TEST_F(ModelSmolLm2Test, LongRunsTakeLittleTime) {
  for (const char c : {'a', ' ', '\'', '\n', '=', 'x'}) {
    const std::string text(1 << 20, c);
    const Ids ids = tokenizer_->Encode(text, true);
    EXPECT_EQ(tokenizer_->Decode(ids, false), text);
    EXPECT_LT(ids.size(), text.size()) << c;
  }
}

TEST_F(ModelSmolLm2Test, RendersChats) {
  const Json golden = ReadGolden("smollm2/chat_goldens.json");
  const auto format = DetectChatFormat(golden["template"]);
  ASSERT_TRUE(format.ok());
  EXPECT_EQ(format.value(), ChatFormat::kSmolLm2);
  for (const Json& entry : golden["cases"]) {
    std::vector<ChatMessage> messages;
    for (const Json& m : entry["messages"]) messages.push_back({m["role"], m["content"]});
    const std::string text = RenderChat(format.value(), messages, entry["add_generation_prompt"]);
    EXPECT_EQ(text, entry["text"]);
    EXPECT_EQ(tokenizer_->Encode(text, true), entry["ids"].get<Ids>());
  }
}

class GoldenTokenizerJsonTest : public testing::TestWithParam<const char*> {};

TEST_P(GoldenTokenizerJsonTest, EncodesAndDecodes) {
  DSPARK_SKIP_WITHOUT_GOLDEN("targets/tokenizers");
  const std::string name = std::string("tokenizers/") + GetParam();
  auto spec = TokenizerSpecFromJson(test::GoldenDir() + "/targets/" + name + ".tokenizer.json");
  ASSERT_TRUE(spec.ok()) << spec.error().text;
  auto made = Tokenizer::Make(std::move(spec).value());
  ASSERT_TRUE(made.ok()) << made.error().text;
  const Tokenizer& tokenizer = **made;
  const Json golden = ReadGolden(name + ".goldens.json");
  EXPECT_EQ(tokenizer.vocab(), golden["vocab_size"]);
  for (const char* list : {"encode", "encode_added_token_flags"}) {
    for (const Json& entry : golden.value(list, Json::array())) {
      const std::string text = entry["text"];
      SCOPED_TRACE(text);
      const Ids ids = entry["ids"];
      EXPECT_EQ(tokenizer.Encode(text, true), ids);
      if (list != std::string("encode")) continue;
      const std::string decoded = entry.value("decoded", text);
      ExpectText(tokenizer, ids, false, decoded);
      ExpectText(tokenizer, ids, true, entry.value("decoded_skip_special", decoded));
    }
  }
  for (const Json& entry : golden["decode"]) {
    ExpectText(tokenizer, entry["ids"], false, entry["text"]);
    ExpectText(tokenizer, entry["ids"], true, entry["text_skip_special"]);
  }
}

INSTANTIATE_TEST_SUITE_P(All, GoldenTokenizerJsonTest, testing::Values("qwen", "llama3"),
                         [](const auto& instance) { return std::string(instance.param); });

TEST(GoldenTokenizerJsonErrors, NameWhatIsNotSupported) {
  DSPARK_SKIP_WITHOUT_GOLDEN("targets/tokenizers");
  const std::string directory = test::GoldenDir() + "/targets/tokenizers/";
  const auto deepseek = TokenizerSpecFromJson(directory + "deepseek.tokenizer.json");
  ASSERT_FALSE(deepseek.ok());
  EXPECT_NE(deepseek.error().text.find("pre_tokenizer"), std::string::npos) << deepseek.error().text;
  const auto gemma = TokenizerSpecFromJson(directory + "gemma.tokenizer.json");
  ASSERT_FALSE(gemma.ok());
  EXPECT_NE(gemma.error().text.find("byte_fallback"), std::string::npos) << gemma.error().text;
}

}  // namespace
}  // namespace dspark
