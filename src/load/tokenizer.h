// Text to token ids and back: byte-level BPE as GGUF files and tokenizer.json describe it (targets.md §7).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"

namespace dspark {

// How raw text is cut into pieces before merging.
enum class PreTokenizer { kGpt2, kSmolLm, kLlama3, kQwen2 };

// All a tokenizer is made of; filled from GGUF metadata or tokenizer.json, then checked by Tokenizer::Make.
struct TokenizerSpec {
  // A token that is cut out of the text before all else, and is never split.
  struct Added {
    std::string text;
    int32_t id;
    bool special;             // dropped by Decode(skip_special); matched only when special tokens are parsed
    bool strip_left = false;  // takes the white space before it along
    bool strip_right = false;
    bool single_word = false;  // matched only where no letter, digit or underscore touches it
    bool normalized = false;   // matched in the text after NFC, not before
  };
  std::vector<std::string>
      tokens;  // [V] in the byte-level alphabet; "" for ids that are unused or only added
  std::vector<std::string> merges;  // "left right", rank = index
  std::vector<Added> added;
  PreTokenizer pre = PreTokenizer::kGpt2;
  bool ignore_merges = false;  // a whole piece that is a token is taken as is (Llama 3)
  bool nfc = false;            // normalise to NFC first (Qwen)
  std::string where;           // file, for messages
};

// Token ids, and where in the text they stand.
struct EncodedText {
  std::string text;  // what the ids spell: the text as it was, but for repaired UTF-8 and NFC
  std::vector<int32_t> ids;
  std::vector<size_t> begins;  // of each token's first byte in `text`, ascending
};

class Tokenizer {
 public:
  // Error: a token, merge or added token that contradicts the others (with its index and `spec.where`).
  static Result<std::unique_ptr<Tokenizer>> Make(TokenizerSpec spec);
  ~Tokenizer();

  // Invalid UTF-8 is read as U+FFFD; bytes the vocabulary has no token for are dropped. Added tokens in the
  // text become their ids: those not special always, the special ones with `parse_special`; without, the
  // characters of special tokens are plain text. No BOS is added. O(n log n), thread-safe.
  std::vector<int32_t> Encode(std::string_view text, bool parse_special) const;
  // The same ids with their places.
  EncodedText EncodeWithOffsets(std::string_view text, bool parse_special) const;

  // The bytes a token stands for; special tokens give their text. Empty for ids outside the vocabulary.
  std::string_view TokenBytes(int32_t id) const;
  bool IsSpecial(int32_t id) const;
  // The id of an added token's text, or -1.
  int32_t FindSpecial(std::string_view text) const;
  int vocab() const;

  // Whole decode; bytes that are no UTF-8 become U+FFFD.
  std::string Decode(const std::vector<int32_t>& ids, bool skip_special) const;

 private:
  struct Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Incremental detokenisation: text comes out as soon as its characters are whole, never half of one.
class Detokenizer {
 public:
  explicit Detokenizer(const Tokenizer& tokenizer, bool skip_special = true)
      : tokenizer_(&tokenizer), skip_special_(skip_special) {}
  // The text this token completes (may be empty).
  std::string Add(int32_t id);
  // What is left at the end: an unfinished character comes out as U+FFFD.
  std::string Finish();

 private:
  const Tokenizer* tokenizer_;
  bool skip_special_;
  std::string pending_;  // the bytes of an unfinished character, at most 3
};

}  // namespace dspark
