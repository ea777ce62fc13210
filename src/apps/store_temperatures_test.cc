#include "apps/store_temperatures.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/mapped_file.h"
#include "load/drafter_files.h"
#include "load/gguf.h"
#include "tiny_drafter.h"

namespace dspark {
namespace {

namespace fs = std::filesystem;
using test::DrafterDirectory;
using ::testing::HasSubstr;

const std::vector<float> kFive{1.5f, 0.7f, 1, 1.25f, 2.0625f};

class StoreTemperaturesTest : public testing::Test {
 protected:
  StoreTemperaturesTest() : dir_(testing::TempDir() + "dspark_store_temperatures") { fs::remove_all(dir_); }
  ~StoreTemperaturesTest() override { fs::remove_all(dir_); }
  static std::vector<float> Stored(const std::string& path) {
    auto files = OpenDrafter(path);
    if (!files) CheckFailed(__FILE__, __LINE__, files.error().text);
    return files->config.confidence_temperatures;
  }
  static void Store(const std::string& path, std::span<const float> temperatures) {
    const Status status = StoreTemperatures(path, temperatures);
    ASSERT_TRUE(status.ok()) << status.error().text;
  }
  std::string dir_;
};

TEST_F(StoreTemperaturesTest, DirectoryKeepsItsOtherKeys) {
  DrafterDirectory d = test::DeepSpecDirectory(DrafterKind::kBlock);
  d.config["somebody's note"] = {{"kept", 1.1}};
  d.Write(dir_);
  Store(dir_, kFive);
  EXPECT_EQ(Stored(dir_), kFive);
  nlohmann::json config = nlohmann::json::parse(std::ifstream(dir_ + "/config.json"));
  EXPECT_EQ(config.erase("confidence_temperatures"), 1u);
  EXPECT_EQ(config, d.config);
  Store(dir_, {});
  EXPECT_TRUE(Stored(dir_).empty());
  EXPECT_EQ(nlohmann::json::parse(std::ifstream(dir_ + "/config.json")), d.config);
  EXPECT_EQ(std::distance(fs::directory_iterator(dir_), {}), 2) << "something temporary is left";
}

TEST_F(StoreTemperaturesTest, GgufKeepsItsOtherKeysAndTensors) {
  DrafterConfig c = test::TinyDrafterConfig(DrafterKind::kBlock);
  c.confidence = true;
  test::GgufBuilder b = test::TinyDrafterGguf("dflash", c);
  b.U32("dflash.block_size", 5);
  b.I32s("dflash.target_layers", {2, 5, 7});
  b.U32("tokenizer.ggml.mask_token_id", 290);
  b.Strings("somebody.notes", {"one", "two"});
  const std::string path = test::WriteFile(dir_ + "/x.gguf", b.Build()), before = dir_ + "/before.gguf";
  fs::copy_file(path, before);
  Store(path, std::vector<float>(5, 9.0f));
  Store(path, kFive);
  EXPECT_EQ(Stored(path), kFive);
  const GgufFile one = OpenGgufFile(before).value(), other = OpenGgufFile(path).value();
  EXPECT_EQ(one.gguf.metadata.size() + 1, other.gguf.metadata.size());
  for (const auto& [key, value] : one.gguf.metadata) {
    const GgufValue* kept = other.gguf.FindKey(key);
    ASSERT_TRUE(kept) << key;
    EXPECT_EQ(kept->type, value.type) << key;
    EXPECT_EQ(kept->strings, value.strings) << key;
    EXPECT_TRUE(std::ranges::equal(kept->bytes, value.bytes)) << key;
  }
  ASSERT_EQ(one.gguf.tensors.size(), other.gguf.tensors.size());
  for (size_t i = 0; i < one.gguf.tensors.size(); ++i) {
    const TensorView &x = one.gguf.tensors[i], &y = other.gguf.tensors[i];
    EXPECT_EQ(x.name, y.name);
    EXPECT_EQ(x.shape, y.shape);
    EXPECT_TRUE(std::ranges::equal(x.bytes, y.bytes)) << x.name;
  }
}

TEST_F(StoreTemperaturesTest, WhatCannotBeStored) {
  test::DeepSpecDirectory(DrafterKind::kBlock).Write(dir_);
  test::WriteFile(dir_ + "/bad/config.json", "[1]");
  EXPECT_THAT(StoreTemperatures(dir_ + "/bad", kFive).error().text, HasSubstr("not a JSON object"));
  EXPECT_THAT(StoreTemperatures(dir_ + "/none.gguf", kFive).error().text, HasSubstr("none.gguf"));
}

}  // namespace
}  // namespace dspark
