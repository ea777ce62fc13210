#include "data/regenerate_log.h"

#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "core/atomic_file.h"
#include "core/clock.h"
#include "data/conversation.h"
#include "data/regenerate.h"

namespace dspark {
namespace {

// What tells the lines of one of the files: the status they have.
struct LineKind {
  const std::string& path;
  const char* status;

  // The id of a line that an earlier call wrote.
  Result<std::string> IdOf(const std::string& line, int64_t number) const {
    const auto object = nlohmann::json::parse(line, nullptr, false);
    if (IsOurs(object)) return object["id"].dump();
    return MakeError(
        "{}:{}: not an object with an id and \"status\": \"{}\", as this command writes them; give a file of "
        "its own, or a new one",
        path, number, status);
  }
  // Whether a line without its end is one of these. Where JSON is cut the status is missing, and what every
  // row has must do.
  bool OwnsTorn(const std::string& line) const {
    const auto object = nlohmann::json::parse(line, nullptr, false);
    if (!object.is_discarded()) return IsOurs(object);
    return line.find("\"id\":") != std::string::npos || line.find("\"conversations\":") != std::string::npos;
  }
  bool IsOurs(const nlohmann::json& object) const {
    return object.is_object() && IsRowId(object.value("id", nlohmann::json())) &&
           object.value("status", nlohmann::json()) == status;
  }
};

LineKind SuccessesOf(const std::string& path) { return {path, "success"}; }
LineKind ErrorsOf(const std::string& path) { return {path, "error"}; }

}  // namespace

Result<RegenerateLog> RegenerateLog::Open(const std::string& out) {
  std::unordered_set<std::string> succeeded;
  const LineKind kind = SuccessesOf(out);
  const auto visit = [&](const std::string& line, int64_t number) -> Status {
    DSPARK_ASSIGN_OR_RETURN(std::string id, kind.IdOf(line, number));
    succeeded.insert(std::move(id));
    return {};
  };
  DSPARK_ASSIGN_OR_RETURN(Journal journal, Journal::Open(out, visit, [&](const std::string& torn) {
                            return kind.OwnsTorn(torn);
                          }));
  RegenerateLog log(ErrorPath(out), std::move(journal));
  log.succeeded_ = std::move(succeeded);
  if (access(log.error_path_.c_str(), F_OK) == 0) DSPARK_RETURN_IF_ERROR(log.OpenErrors());
  if (log.stale_) DSPARK_RETURN_IF_ERROR(log.RewriteErrors());
  return log;
}

Status RegenerateLog::OpenErrors() {
  failed_.clear();
  const LineKind kind = ErrorsOf(error_path_);
  const auto visit = [&](const std::string& line, int64_t number) -> Status {
    DSPARK_ASSIGN_OR_RETURN(std::string id, kind.IdOf(line, number));
    const bool counts = !succeeded_.contains(id) && failed_.insert(std::move(id)).second;
    stale_ = stale_ || !counts;
    return {};
  };
  auto opened =
      Journal::Open(error_path_, visit, [&](const std::string& torn) { return kind.OwnsTorn(torn); });
  if (!opened) return opened.error();
  errors_ = std::move(opened).value();
  return {};
}

Status RegenerateLog::AddSuccess(const std::string& id, std::string line) {
  DSPARK_RETURN_IF_ERROR(out_.Append(std::move(line)));
  succeeded_.insert(id);
  stale_ = failed_.erase(id) > 0 || stale_;
  return RewriteNowAndThen();
}

Status RegenerateLog::AddFailure(const std::string& id, std::string line) {
  if (!errors_) DSPARK_RETURN_IF_ERROR(OpenErrors());
  DSPARK_RETURN_IF_ERROR(errors_->Append(std::move(line)));
  stale_ = !failed_.insert(id).second || stale_;
  return RewriteNowAndThen();
}

Status RegenerateLog::Finish() {
  DSPARK_RETURN_IF_ERROR(out_.Sync());
  if (stale_) return RewriteErrors();
  return errors_ ? errors_->Sync() : Status();
}

// A rewrite costs the length of the error file.
Status RegenerateLog::RewriteNowAndThen() {
  if (!stale_ || NowMs() - rewritten_ms_ < Journal::kSyncMs) return {};
  return RewriteErrors();
}

// Only once the successes that make lines go are on disk.
Status RegenerateLog::RewriteErrors() {
  DSPARK_RETURN_IF_ERROR(out_.Sync());
  std::unordered_map<std::string, int64_t> latest;  // line of each id that failed
  std::string line;
  int64_t number = 0;
  for (std::ifstream in(error_path_, std::ios::binary); std::getline(in, line);) {
    DSPARK_ASSIGN_OR_RETURN(const std::string id, ErrorsOf(error_path_).IdOf(line, ++number));
    if (failed_.contains(id)) latest[id] = number;
  }
  DSPARK_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(error_path_));
  number = 0;
  for (std::ifstream in(error_path_, std::ios::binary); std::getline(in, line);) {
    DSPARK_ASSIGN_OR_RETURN(const std::string id, ErrorsOf(error_path_).IdOf(line, ++number));
    if (const auto at = latest.find(id); at != latest.end() && at->second == number) file.Write(line + "\n");
  }
  errors_.reset();
  DSPARK_RETURN_IF_ERROR(file.Commit());
  stale_ = false;
  rewritten_ms_ = NowMs();
  if (!latest.empty()) return OpenErrors();
  unlink(error_path_.c_str());
  return {};
}

}  // namespace dspark
