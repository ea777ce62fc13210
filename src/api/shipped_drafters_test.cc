#include "api/shipped_drafters.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "api/draft_source.h"
#include "test_data.h"
#include "tiny_model.h"

namespace dspark {
namespace {

class ShippedDrafters : public testing::Test {
 protected:
  ~ShippedDrafters() override { unsetenv("DSPARK_DRAFTERS"); }
  void WriteTable(const std::string& name, int vocab) {
    const NgramConfig config{.order = 2,
                             .vocab = vocab,
                             .target_width = model_.files.config.d_model,
                             .target_layers = model_.files.config.layers,
                             .vocabulary = VocabularyId(model_.files.tokenizer.get())};
    const std::vector<NgramEntry> entries = {{1234567, 3, 200}};
    EXPECT_TRUE(WriteNgramFile(config, entries, Path(name)).ok());
  }
  std::string Path(const std::string& name) const { return dir_.path() + "/" + name; }

  test::TinyModel model_;
  test::TempDir dir_;
};

TEST_F(ShippedDrafters, TheFirstTableThatFitsIsFound) {
  test::WriteFile(Path("a_damaged.gguf"), "GGUF and nothing behind it");
  WriteTable("b_of_another.gguf", model_.vocab() + 1);
  EXPECT_FALSE(FindShippedTable(model_.files, {dir_.path(), "/no/such/folder"}));
  WriteTable("d.gguf", model_.vocab());
  WriteTable("c.gguf", model_.vocab());
  WriteTable("a.table", model_.vocab());
  const auto table = FindShippedTable(model_.files, {"/no/such/folder", dir_.path()});
  ASSERT_TRUE(table);
  EXPECT_EQ(table->path(), Path("c.gguf"));
}

std::string Names(const ModelFiles& target, const std::string& draft, bool no_lookup = false) {
  DraftOptions options;
  options.draft = draft;
  options.no_lookup = no_lookup;
  return ChooseDraftSource(options, target)->Names();
}

TEST_F(ShippedDrafters, AutoTakesIt) {
  WriteTable("tiny.gguf", model_.vocab());
  setenv("DSPARK_DRAFTERS", dir_.path().c_str(), 1);
  EXPECT_EQ(Names(model_.files, "auto"), "lookup," + Path("tiny.gguf"));
  EXPECT_EQ(Names(model_.files, "auto", /*no_lookup=*/true), Path("tiny.gguf"));
  EXPECT_EQ(Names(model_.files, "lookup"), "lookup");
  EXPECT_EQ(Names(model_.files, "none"), "none");
  setenv("DSPARK_DRAFTERS", Path("none").c_str(), 1);
  EXPECT_EQ(Names(model_.files, "auto"), "lookup");
}

// The table that lies in this very source tree.
TEST(ModelShippedDrafters, TheDefaultModelHasATable) {
  DSPARK_SKIP_WITHOUT_MODEL();
  const auto files = OpenModel(test::DefaultModelPath());
  ASSERT_TRUE(files.ok());
  const auto table = FindShippedTable(*files, {DSPARK_SOURCE_DIR "/drafters"});
  ASSERT_TRUE(table);
  EXPECT_GT(table->entries(), 100000);
  EXPECT_THAT(ShippedDrafterFolders(), testing::Contains(testing::EndsWith("/drafters")));
}

}  // namespace
}  // namespace dspark
