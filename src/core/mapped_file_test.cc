#include "core/mapped_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>
#include <string>
#include <utility>

#include "temp_dir.h"

namespace dspark {
namespace {

using testing::HasSubstr;

class MappedFileTest : public testing::Test {
 protected:
  std::string Write(const std::string& name, const std::string& content) {
    const std::string path = dir_.path() + "/" + name;
    std::ofstream(path, std::ios::binary) << content;
    return path;
  }

  const test::TempDir dir_;
};

std::string Text(const MappedFile& file) { return {file.bytes().begin(), file.bytes().end()}; }

TEST_F(MappedFileTest, ReadsWhatIsThere) {
  const std::string path = Write("a", "some bytes");
  const auto file = MappedFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.error().text;
  EXPECT_EQ(file->path(), path);
  EXPECT_EQ(Text(*file), "some bytes");
}

TEST_F(MappedFileTest, SaysWhyItCannot) {
  const auto error = [](const std::string& path) { return MappedFile::Open(path).error().text; };
  const std::string missing = dir_.path() + "/missing";
  EXPECT_THAT(error(missing), HasSubstr(missing));
  EXPECT_THAT(error(missing), HasSubstr("No such file"));
  EXPECT_THAT(error(dir_.path()), HasSubstr("directory"));
  EXPECT_THAT(error(Write("empty", "")), HasSubstr("empty"));
  const std::string pipe = dir_.path() + "/pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_THAT(error(pipe), HasSubstr("not a regular file"));
}

TEST_F(MappedFileTest, MovesKeepTheMap) {
  MappedFile a = MappedFile::Open(Write("a", "first")).value();
  MappedFile b = MappedFile::Open(Write("b", "second")).value();
  a = std::move(b);
  EXPECT_EQ(Text(a), "second");
  EXPECT_TRUE(b.bytes().empty());
  const MappedFile c(std::move(a));
  EXPECT_EQ(Text(c), "second");
  EXPECT_TRUE(a.bytes().empty());
}

TEST_F(MappedFileTest, ReleasedPagesReadAgain) {
  const std::string content(100000, 'x');
  const MappedFile file = MappedFile::Open(Write("large", content)).value();
  file.Release(0, content.size());
  file.Release(5000, 10);  // less than a page: nothing to give back
  EXPECT_EQ(Text(file), content);
}

}  // namespace
}  // namespace dspark
