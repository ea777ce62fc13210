#include "data/rejected_rows.h"

#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>

namespace dspark {

Status RejectedRows::CheckPath(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  if (!std::getline(file, line)) return {};  // nothing is lost
  const auto row = nlohmann::json::parse(line, nullptr, false);
  if (row.is_object() && row.contains("where") && row.contains("reason") && row.contains("row")) return {};
  return MakeError(
      "{}: stands where rows that cannot be used are written, but holds something else; move it, or give "
      "another --out",
      path);
}

Status RejectedRows::Add(const std::string& where, const std::string& reason, const std::string& row) {
  if (++count_ <= 5) first_.push_back(fmt::format("{}: {}", where, reason));
  if (path_.empty()) return {};
  if (!file_) {
    DSPARK_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path_));
    file_.emplace(std::move(file));
  }
  const nlohmann::ordered_json line = {{"where", where}, {"reason", reason}, {"row", row}};
  file_->Write(line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
  return {};
}

Status RejectedRows::Commit() {
  if (count_ == 0 && !path_.empty()) unlink(path_.c_str());
  Status written = file_ ? file_->Commit() : Status();
  file_.reset();
  return written;
}

}  // namespace dspark
