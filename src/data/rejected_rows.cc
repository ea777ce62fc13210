#include "data/rejected_rows.h"

#include <nlohmann/json.hpp>

namespace dspark {

Status RejectedRows::Add(const std::string& where, const std::string& reason, const std::string& row) {
  if (!file_) {
    DSPARK_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path_));
    file_.emplace(std::move(file));
  }
  if (++count_ <= 5) first_.push_back(fmt::format("{}: {}", where, reason));
  const nlohmann::ordered_json line = {{"where", where}, {"reason", reason}, {"row", row}};
  file_->Write(line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
  return {};
}

Status RejectedRows::Commit() { return file_ ? file_->Commit() : Status(); }

}  // namespace dspark
