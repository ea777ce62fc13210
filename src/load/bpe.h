// Byte-level BPE: merges within one piece of text. Knows bytes and ids, nothing of pieces or special tokens.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"

namespace dspark {

// GPT-2's alphabet (targets.md §7.3): every byte is spelled by one printable character. The bytes that
// `spelling` stands for are appended to `bytes`; false, and nothing appended, where it holds any other
// character.
bool AppendSpelledBytes(std::string_view spelling, std::string* bytes);
// The inverse: how `bytes` are spelled in vocabularies and merges.
std::string SpellBytes(std::string_view bytes);

// Open-addressing tables, filled once. Ids are positions in the vocabulary, all below 2^24.
class Bpe {
 public:
  static constexpr int kMaxVocab = 1 << 24;

  // `tokens[id]` and "left right" merges in the byte-level alphabet, as TokenizerSpec has them. Tokens that
  // are not spelled in the alphabet stand for their own bytes and take no part in merges. With `whole_tokens`
  // (ignore_merges), a piece that is a token is never split. Error: a token twice, a merge of unknown tokens
  // (text without the file's name).
  static Result<Bpe> Make(const std::vector<std::string>& tokens, const std::vector<std::string>& merges,
                          bool whole_tokens);

  int vocab() const { return int(begin_.size()) - 1; }
  std::string_view Bytes(int id) const {
    return std::string_view(bytes_).substr(begin_[id], begin_[id + 1] - begin_[id]);
  }

  // Working memory of Encode, one per thread.
  struct Scratch {
    std::vector<int32_t> ids;
    std::vector<uint64_t> heap;
    std::vector<int32_t> next, previous;
  };

  // Appends the ids of one piece: bytes without a token are dropped, then the pair of least rank is merged,
  // the leftmost first, until none is left. O(n log n), thread-safe.
  void Encode(std::string_view piece, Scratch* scratch, std::vector<int32_t>* ids) const;

 private:
  struct Merge {
    uint64_t pair = kNoPair;  // left id << 32 | right id
    uint32_t rank = 0;
    int32_t id = 0;
  };
  static constexpr uint64_t kNoPair = ~uint64_t{0};
  static constexpr uint32_t kNoRank = ~uint32_t{0};

  Bpe() = default;
  Status AddTokens(const std::vector<std::string>& tokens);
  Status AddMerges(const std::vector<std::string>& merges);
  int32_t FindToken(std::string_view bytes) const;
  const Merge& FindMerge(int32_t left, int32_t right) const;
  void MergeShort(std::vector<int32_t>* ids) const;
  void MergeLong(Scratch* scratch) const;

  struct TokenSlot {
    uint32_t hash = 0;
    int32_t id = -1;
  };

  std::string bytes_;             // all tokens, one after another
  std::vector<uint32_t> begin_;   // [V + 1] offsets into bytes_
  std::vector<TokenSlot> slots_;  // tokens by bytes; a power of two
  std::vector<Merge> merges_;     // by pair; a power of two
  // [V] A piece of these bytes is known to become this token alone. Not every token can be reached by merges,
  // and trying all would double the time to start; whoever meets one first notes it, and all would note the
  // same.
  std::unique_ptr<std::atomic<bool>[]> whole_;
  std::array<int32_t, 256> byte_tokens_{};  // -1: none
};

}  // namespace dspark
