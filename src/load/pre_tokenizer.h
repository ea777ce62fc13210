// Cuts text into the pieces within which BPE merges, with the regular expressions of the tokenizers
// themselves.
#pragma once

#include <cstddef>
#include <memory>
#include <string_view>

#include "load/tokenizer.h"

namespace dspark {

// The published regular expression of a tokenizer.json for one of our kinds (targets.md §7.4 to 7.6); for
// kSmolLm it is applied between single digits.
std::string_view PublishedPattern(PreTokenizer kind);

// A compiled pattern; immutable, shared by threads.
class PieceRegex {
 public:
  explicit PieceRegex(PreTokenizer kind);
  ~PieceRegex();
  PieceRegex(PieceRegex&&) noexcept;
  PieceRegex& operator=(PieceRegex&&) noexcept;

 private:
  friend class PieceScanner;
  struct Compiled;
  std::unique_ptr<Compiled> compiled_;
};

// One thread's walk over one text after another. The pieces of a text, concatenated, are the text.
class PieceScanner {
 public:
  explicit PieceScanner(const PieceRegex& regex);
  ~PieceScanner();
  PieceScanner(const PieceScanner&) = delete;
  PieceScanner& operator=(const PieceScanner&) = delete;

  // Length of the piece that starts at `begin`, at least 1. `text` is valid UTF-8, begin < text.size().
  size_t Next(std::string_view text, size_t begin);

 private:
  struct Match;
  const PieceRegex::Compiled* compiled_;
  std::unique_ptr<Match> match_;
};

}  // namespace dspark
