#include "load/tokenizer_json.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "temp_dir.h"

namespace dspark {
namespace {

using Json = nlohmann::json;

Json Minimal() {
  return Json::parse(R"({
    "added_tokens": [{"id": 3, "content": "<s>", "special": true, "lstrip": true}],
    "normalizer": null,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true},
    "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}})");
}

class TokenizerJsonTest : public testing::Test {
 protected:
  Result<TokenizerSpec> ReadText(const std::string& text) {
    std::ofstream(path_) << text;
    return TokenizerSpecFromJson(path_);
  }
  Result<TokenizerSpec> Read(const Json& json) { return ReadText(json.dump()); }
  std::string ErrorOf(const Json& json) {
    const auto spec = Read(json);
    return spec.ok() ? "none" : spec.error().text;
  }
  PreTokenizer PreOf(const char* pre_tokenizer) {
    Json json = Minimal();
    json["pre_tokenizer"] = Json::parse(pre_tokenizer);
    const auto spec = Read(json);
    EXPECT_TRUE(spec.ok()) << spec.error().text;
    return spec->pre;
  }
  const test::TempDir dir_;
  const std::string path_ = dir_.path() + "/tokenizer.json";
};

TEST_F(TokenizerJsonTest, ReadsAllParts) {
  Json json = Minimal();
  json["normalizer"] = {{"type", "Sequence"}, {"normalizers", {{{"type", "NFC"}}}}};
  json["model"]["merges"] = Json::parse(R"([["a", "b"]])");
  json["model"]["ignore_merges"] = true;
  const auto spec = Read(json);
  ASSERT_TRUE(spec.ok()) << spec.error().text;
  EXPECT_EQ(spec->tokens, (std::vector<std::string>{"a", "b", "ab", ""}));
  EXPECT_EQ(spec->merges, std::vector<std::string>{"a b"});
  ASSERT_EQ(spec->added.size(), 1u);
  EXPECT_EQ(spec->added[0].text, "<s>");
  EXPECT_EQ(spec->added[0].id, 3);
  EXPECT_TRUE(spec->added[0].special && spec->added[0].strip_left);
  EXPECT_FALSE(spec->added[0].strip_right || spec->added[0].single_word || spec->added[0].normalized);
  EXPECT_TRUE(spec->nfc);
  EXPECT_TRUE(spec->ignore_merges);
  EXPECT_EQ(spec->where, path_);
}

TEST_F(TokenizerJsonTest, RecognisesPreTokenizers) {
  EXPECT_EQ(PreOf(R"({"type": "ByteLevel", "add_prefix_space": false, "use_regex": true})"),
            PreTokenizer::kGpt2);
  EXPECT_EQ(PreOf(R"({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": true},
                      {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true}]})"),
            PreTokenizer::kSmolLm);
  EXPECT_EQ(
      PreOf(R"({"type": "Sequence", "pretokenizers": [{"type": "Split", "behavior": "Removed", "invert": true,
                      "pattern": {"Regex": "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"}},
                      {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]})"),
      PreTokenizer::kGpt2);
}

TEST_F(TokenizerJsonTest, NamesWhatItWouldNotDoExactly) {
  const auto set = [](std::initializer_list<std::string> keys, const char* value) {
    Json json = Minimal();
    Json* at = &json;
    for (const std::string& key : keys) at = &(*at)[key];
    *at = Json::parse(value);
    return json;
  };
  const struct {
    Json json;
    const char* names;
  } cases[] = {
      {set({"model", "type"}, R"("Unigram")"), "model.type Unigram"},
      {set({"model", "byte_fallback"}, "true"), "model.byte_fallback"},
      {set({"model", "dropout"}, "0.1"), "model.dropout"},
      {set({"model", "end_of_word_suffix"}, R"("</w>")"), "model.end_of_word_suffix"},
      {set({"model", "unk_token"}, R"("a")"), "model.unk_token"},
      {set({"model", "vocab"}, "{}"), "model.vocab"},
      {set({"model", "vocab", "b"}, "0"), "both have the id 0"},
      {set({"model", "vocab", "b"}, "-1"), "id -1"},
      {set({"model", "vocab", "b"}, "1e99"), "id 1e+99"},
      {set({"model", "vocab", "b"}, "1000000000"), "id 1000000000"},
      {set({"model", "merges"}, "null"), "model.merges"},
      {set({"model", "merges"}, R"([["a"]])"), "merge 0"},
      {set({"model"}, "[]"), "model.vocab"},
      {set({"normalizer"}, R"({"type": "Lowercase"})"), "Lowercase"},
      {set({"pre_tokenizer"}, "null"), "pre_tokenizer"},
      {set({"pre_tokenizer", "add_prefix_space"}, "true"), "pre_tokenizer"},
      {set({"pre_tokenizer", "use_regex"}, "false"), "pre_tokenizer"},
      {set({"decoder"}, R"({"type": "Metaspace"})"), "Metaspace"},
      {set({"added_tokens"}, "{}"), "added_tokens"},
      {set({"added_tokens"}, R"([{"content": "x"}])"), "\"x\""},
  };
  EXPECT_EQ(ErrorOf(Minimal()), "none");
  for (const auto& c : cases) {
    const std::string error = ErrorOf(c.json);
    EXPECT_NE(error.find(c.names), std::string::npos) << c.names << ": " << error;
    EXPECT_EQ(error.find(path_), 0u) << error;
    EXPECT_EQ(error.find('\n'), std::string::npos) << error;
  }
}

TEST_F(TokenizerJsonTest, BrokenFilesAreErrors) {
  for (const char* text : {"{", "[]", "\xFF", "null", "{\"model\": 3}"})
    EXPECT_FALSE(ReadText(text).ok()) << text;
  EXPECT_FALSE(TokenizerSpecFromJson(path_ + ".missing").ok());
  const std::string whole = Minimal().dump();
  for (size_t n = 1; n < whole.size(); n += 3) EXPECT_FALSE(ReadText(whole.substr(0, n)).ok()) << n;
}

}  // namespace
}  // namespace dspark
