// From conversations to a target cache: render, run through the target, write.
#pragma once

#include <string>
#include <vector>

#include "core/function_ref.h"
#include "data/cache_writer.h"
#include "data/live_source.h"
#include "data/train_rows.h"

namespace dspark {

struct CacheJob {
  std::vector<std::string> inputs;
  std::string out;  // directory
  TrainRowOptions rows;
  CacheSettings settings;
};

struct CacheProgress {
  int64_t rows = 0, samples = 0, tokens = 0;  // so far; tokens only of this call
};

struct CacheSummary {
  bool was_there = false;  // whole already; nothing was done and nothing else is known
  int64_t samples = 0, short_rows = 0, rejected = 0;
  std::vector<std::string> first_rejected = {};
  // Of what this call wrote: rows with a list of likeliest tokens, and how much of the probability at
  // temperature 1 the lists hold, as a mean over them. 0 without lists.
  int64_t top_rows = 0;
  double top_mass = 0;
};

// Error: the file of rows that cannot be used would replace an input or another's file.
Status CheckOutputs(const CacheJob& job);

// Makes the cache or goes on with it: samples that are in it are only rendered again, to find the place.
// `progress` is called when that is done and after every batch. Error: as CheckOutputs, CacheWriter,
// CheckSameSettings, TrainRows and Teacher; no row gives a sample, and then nothing is left behind.
Result<CacheSummary> WriteCache(const CacheJob& job, Teacher& teacher, const Tokenizer& tokenizer,
                                FunctionRef<void(const CacheProgress&)> progress);

}  // namespace dspark
