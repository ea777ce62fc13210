#include "data/train_rows.h"

#include "data/conversation.h"

namespace dspark {

// The next line of any of the files.
Result<bool> TrainRows::NextLine(std::string* line) {
  for (;;) {
    if (!reader_) {
      if (next_path_ == paths_.size()) return false;
      DSPARK_ASSIGN_OR_RETURN(LineReader reader, LineReader::Open(paths_[next_path_++]));
      reader_.emplace(std::move(reader));
    }
    DSPARK_ASSIGN_OR_RETURN(const bool more, reader_->Next(line));
    if (more) return true;
    reader_.reset();
  }
}

Result<std::optional<TrainTokens>> TrainRows::Next() {
  for (std::string line;;) {
    DSPARK_ASSIGN_OR_RETURN(const bool more, NextLine(&line));
    if (!more) {
      DSPARK_RETURN_IF_ERROR(rejected_.Commit());
      return std::optional<TrainTokens>();
    }
    ++rows_;
    const auto conversation = ParseConversation(line);
    if (!conversation) {
      DSPARK_RETURN_IF_ERROR(rejected_.Add(reader_->where(), conversation.error().text, line));
      continue;
    }
    TrainTokens tokens =
        TokenizeForTraining(tokenizer_, options_.format, conversation->messages, options_.max_length);
    if (tokens.LossTokens() >= options_.min_loss_tokens) return std::optional(std::move(tokens));
    ++short_rows_;
  }
}

Result<std::vector<TrainTokens>> ReadTrainTokens(TrainRows& rows) {
  std::vector<TrainTokens> all;
  for (;;) {
    DSPARK_ASSIGN_OR_RETURN(auto tokens, rows.Next());
    if (!tokens) return all;
    all.push_back(std::move(*tokens));
  }
}

Result<int64_t> CountRows(const std::vector<std::string>& paths) {
  int64_t rows = 0;
  for (const std::string& path : paths) {
    DSPARK_ASSIGN_OR_RETURN(LineReader reader, LineReader::Open(path));
    for (std::string line;;) {
      DSPARK_ASSIGN_OR_RETURN(const bool more, reader.Next(&line));
      if (!more) break;
      ++rows;
    }
  }
  return rows;
}

}  // namespace dspark
