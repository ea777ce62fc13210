#include "apps/report_files.h"

#include <filesystem>

#include "core/atomic_file.h"

namespace dspark {
namespace {

Status CheckWritable(const std::string& path) {
  if (path.empty()) return {};
  const auto file = AtomicFile::Create(path);
  return file ? Status() : file.error();
}

}  // namespace

Status CheckApart(const std::string& json, const std::string& html) {
  const auto plain = [](const std::string& path) {
    std::error_code ignored;
    return std::filesystem::weakly_canonical(std::filesystem::absolute(path, ignored), ignored);
  };
  if (!json.empty() && !html.empty() && plain(json) == plain(html))
    return MakeError("--json and --html {}: one file for both; give two", html);
  return {};
}

Status CheckReportFiles(const std::string& json, const std::string& html) {
  DSPARK_RETURN_IF_ERROR(CheckApart(json, html));
  DSPARK_RETURN_IF_ERROR(CheckWritable(json));
  return CheckWritable(html);
}

Status WriteReport(const std::string& path, const std::string& text) {
  if (path.empty()) return {};
  DSPARK_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  file.Write(text);
  return file.Commit();
}

}  // namespace dspark
