// Conversations of JSONL files as what a trainer reads: rendered, masked, and those too short left out.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "data/line_reader.h"
#include "data/loss_mask.h"
#include "data/rejected_rows.h"

namespace dspark {

struct TrainRowOptions {
  TrainTemplate format = {};
  int max_length = 4096;
  int min_loss_tokens = kMinLossTokens;  // at least 1
  std::string rejected = {};             // file of rows that cannot be read (RejectedRows); empty: none
};

class TrainRows {
 public:
  // The tokenizer must outlive this.
  TrainRows(std::vector<std::string> paths, const Tokenizer& tokenizer, TrainRowOptions options)
      : paths_(std::move(paths)),
        tokenizer_(tokenizer),
        options_(std::move(options)),
        rejected_(options_.rejected) {}

  // The next sample with enough supervised tokens; nothing at the end. Error: an input that cannot be read.
  Result<std::optional<TrainTokens>> Next();

  int64_t rows() const { return rows_; }              // read so far
  int64_t short_rows() const { return short_rows_; }  // of them left out
  const RejectedRows& rejected() const { return rejected_; }

 private:
  Result<bool> NextLine(std::string* line);

  std::vector<std::string> paths_;
  const Tokenizer& tokenizer_;
  TrainRowOptions options_;
  RejectedRows rejected_;
  std::optional<LineReader> reader_;
  size_t next_path_ = 0;
  int64_t rows_ = 0, short_rows_ = 0;
};

// All of them, for a source that holds them in memory (5 bytes a token).
Result<std::vector<TrainTokens>> ReadTrainTokens(TrainRows& rows);

// Lines of the files that are not empty. Error: a file that cannot be read.
Result<int64_t> CountRows(const std::vector<std::string>& paths);

}  // namespace dspark
