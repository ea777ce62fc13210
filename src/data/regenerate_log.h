// What `dspark prepare regenerate` has finished: the file of successes, and the error file beside it.
#pragma once

#include <optional>
#include <string>
#include <unordered_set>

#include "data/journal.h"

namespace dspark {

// Conversations go by their id as JSON text. The success file has an id at most once; one that is in both
// files has succeeded, and leaves the error file at the next chance.
class RegenerateLog {
 public:
  // Reads both files, and creates the success file. Error: as Journal::Open, or a line that is
  // not this command's: its status is another, or it has no id.
  static Result<RegenerateLog> Open(const std::string& out);

  // Whether there are successes.
  bool Begun() const { return !succeeded_.empty(); }
  bool Succeeded(const std::string& id) const { return succeeded_.contains(id); }
  bool Failed(const std::string& id) const { return failed_.contains(id); }

  // Lines without their newline. Error: as Journal::Append.
  Status AddSuccess(const std::string& id, std::string line);
  // Replaces an older line of that id.
  Status AddFailure(const std::string& id, std::string line);
  // What was added is on disk, and the error file holds just what failed, or is gone.
  Status Finish();

 private:
  RegenerateLog(std::string error_path, Journal out)
      : error_path_(std::move(error_path)), out_(std::move(out)) {}
  Status OpenErrors();
  Status RewriteErrors();
  Status RewriteNowAndThen();

  std::string error_path_;
  Journal out_;
  std::optional<Journal> errors_;  // none while there is no file
  std::unordered_set<std::string> succeeded_, failed_;
  bool stale_ = false;  // the error file has lines that no longer hold
  double rewritten_ms_ = 0;
};

}  // namespace dspark
