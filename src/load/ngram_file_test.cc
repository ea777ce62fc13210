#include "load/ngram_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "core/rng.h"
#include "load/model_files.h"
#include "temp_dir.h"
#include "tiny_gguf.h"

namespace dspark {
namespace {

using ::testing::HasSubstr;

std::string ReadFile(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

class NgramFileTest : public testing::Test {
 protected:
  std::string Write(const std::vector<NgramEntry>& entries, const std::string& name = "table.gguf") {
    const std::string path = dir_.path() + "/" + name;
    const Status written = WriteNgramFile(config_, entries, path);
    EXPECT_TRUE(written.ok()) << written.error().text;
    return path;
  }
  // One line that names the file.
  std::string OpenError(const std::string& bytes) {
    const std::string path = test::WriteFile(dir_.path() + "/bad.gguf", bytes);
    const auto table = NgramFile::Open(path);
    if (table.ok()) return "";
    EXPECT_EQ(table.error().text.find(path), 0u) << table.error().text;
    EXPECT_EQ(table.error().text.find('\n'), std::string::npos);
    return table.error().text;
  }

  test::TempDir dir_;
  NgramConfig config_{.order = 3, .vocab = 1000, .target_width = 64, .target_layers = 2, .vocabulary = "ab"};
};

uint64_t ContextNumber(uint64_t i) { return (i + 1) * 0x9E3779B97F4A7C15; }

TEST_F(NgramFileTest, HoldsWhatWasWritten) {
  for (const int count : {1, 7, 8, 9, 5000}) {
    std::vector<NgramEntry> entries;
    for (int i = 0; i < count; ++i)
      entries.push_back({ContextNumber(uint64_t(i)), i % config_.vocab, uint8_t(i % 256)});
    const auto table = NgramFile::Open(Write(entries));
    ASSERT_TRUE(table.ok()) << table.error().text;
    EXPECT_EQ(table->config().order, 3);
    EXPECT_EQ(table->config().vocab, 1000);
    EXPECT_EQ(table->config().target_width, 64);
    EXPECT_EQ(table->config().target_layers, 2);
    EXPECT_EQ(table->config().vocabulary, "ab");
    ASSERT_EQ(table->entries(), count);
    int differ = 0;  // by the chance of 16 bits
    for (const NgramEntry& entry : entries) {
      const auto next = table->Find(entry.context);
      ASSERT_TRUE(next);
      differ += next->token != entry.token || next->probability != float(entry.level) / 255;
    }
    EXPECT_LE(differ, 2);
    int found = 0;
    for (int i = 0; i < 20000; ++i) found += table->Find(ContextNumber(uint64_t(count + i))).has_value();
    EXPECT_LE(found, 12) << "some ten thousandths of unknown contexts";
  }
}

TEST_F(NgramFileTest, IsTheSameForEveryOrderAndAsLargeAsSaid) {
  std::vector<NgramEntry> entries;
  for (int i = 0; i < 3000; ++i) entries.push_back({ContextNumber(uint64_t(i)), i % 900, uint8_t(i % 256)});
  const std::string bytes = ReadFile(Write(entries));
  std::ranges::reverse(entries);
  EXPECT_EQ(ReadFile(Write(entries, "other.gguf")), bytes);
  EXPECT_NEAR(double(bytes.size()), double(NgramBytes(3000)), 1000);
  for (const int64_t size : {100, 5000, 4000000}) {
    const int64_t most = NgramEntriesIn(size);
    EXPECT_LE(NgramBytes(most), size);
    EXPECT_GT(NgramBytes(most + 9), size);
  }
}

TEST_F(NgramFileTest, ADamagedFileIsOneLine) {
  const std::string good = ReadFile(Write({{ContextNumber(1), 5, 200}, {ContextNumber(2), 999, 3}}));
  EXPECT_EQ(OpenError(good), "");
  EXPECT_THAT(OpenError(good.substr(0, good.size() - 40)), HasSubstr("bad.gguf"));
  EXPECT_THAT(OpenError("no GGUF at all"), HasSubstr("bad.gguf"));
  EXPECT_THAT(OpenError(test::BuildTinyLlama(1).Build()),
              HasSubstr("architecture llama is not a counted table's, dspark-ngram"));

  test::GgufBuilder b;
  b.String("general.architecture", "dspark-ngram");
  for (const char* key : {"order", "vocab_size", "target_hidden_size", "target_block_count"})
    b.U32(std::string("dspark-ngram.") + key, 4);
  b.String("dspark-ngram.vocabulary_id", "");
  const auto list = [](const char* name, TensorType type, uint64_t n, const std::string& data) {
    return test::GgufBuilder::Tensor{name, uint32_t(type), {n}, data, {}};
  };
  const auto words = [](std::initializer_list<uint32_t> values) {
    std::string bytes;
    for (const uint32_t value : values) bytes += test::Bytes(value);
    return bytes;
  };
  b.tensors = {list("buckets", TensorType::kI32, 2, words({0, 2})),
               list("fingerprints", TensorType::kI16, 2, words({0})),
               list("tokens", TensorType::kI32, 2, words({3 << 8, 0}))};
  EXPECT_EQ(OpenError(b.Build()), "");
  auto bad = b;
  bad.U32("dspark-ngram.order", 9);
  EXPECT_THAT(OpenError(bad.Build()), HasSubstr("contexts of 9 tokens, expected 1 to 8"));
  bad = b;
  bad.Remove("dspark-ngram.vocab_size");
  EXPECT_THAT(OpenError(bad.Build()), HasSubstr("dspark-ngram.vocab_size"));
  for (const auto& buckets : {words({0, 1}), words({1, 2}), words({0, 3})}) {
    bad = b;
    bad.TensorNamed("buckets").data = buckets;
    EXPECT_THAT(OpenError(bad.Build()), HasSubstr("the buckets do not hold the table's 2 entries"));
  }
  bad = b;
  bad.tensors[0] = list("buckets", TensorType::kI32, 4, words({0, 2, 1, 2}));
  EXPECT_THAT(OpenError(bad.Build()), HasSubstr("the buckets do not hold"));
  bad = b;
  bad.TensorNamed("tokens").data = words({0, 4 << 8});
  EXPECT_THAT(OpenError(bad.Build()), HasSubstr("entry 1 is token 4, outside the vocabulary of 4"));
  bad = b;
  bad.tensors.pop_back();
  EXPECT_THAT(OpenError(bad.Build()), HasSubstr("tensor tokens is not there as a list of I32"));
}

TEST_F(NgramFileTest, FitsItsOwnModelAlone) {
  const auto tiny = OpenModel(test::WriteTinyLlamaGguf(dir_.path(), 1));
  ASSERT_TRUE(tiny.ok());
  const ModelConfig& target = tiny->config;
  config_ = {.order = 2,
             .vocab = target.vocab,
             .target_width = target.d_model,
             .target_layers = target.layers,
             .vocabulary = VocabularyId(tiny->tokenizer.get())};
  EXPECT_EQ(config_.vocabulary.size(), 16u);
  const std::vector<NgramEntry> entries = {{ContextNumber(1), 5, 200}};
  const auto error = [&](const ModelConfig& model, const Tokenizer* tokenizer) {
    const auto table = NgramFile::Open(Write(entries));
    const Status fits = CheckNgramFits(*table, model, tokenizer);
    return fits.ok() ? "" : fits.error().text;
  };
  EXPECT_EQ(error(target, tiny->tokenizer.get()), "");
  EXPECT_EQ(error(target, nullptr), "");
  ModelConfig other = target;
  other.layers = 30;
  EXPECT_THAT(error(other, nullptr), HasSubstr("counted for a target with layers 2, but this target has 30"));
  other = target;
  other.vocab = 300;
  EXPECT_THAT(error(other, nullptr), HasSubstr("with a vocabulary of 295"));
  config_.vocabulary = "0123456789abcdef";
  EXPECT_THAT(error(target, tiny->tokenizer.get()), HasSubstr("of the same size with other tokens"));
}

}  // namespace
}  // namespace dspark
