// A counted table drafter's file: which token follows the last ones most often, and how likely. GGUF with an
// architecture of its own (docs/formats.md).
//
// A context is known by a hash of its tokens, from the newest back. The hash names a bucket, and within it 16
// bits tell contexts apart: one context in some ten thousand is taken for another, which costs a wrong draft.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/result.h"
#include "load/gguf.h"
#include "load/model_config.h"
#include "load/tokenizer.h"

namespace dspark {

inline constexpr int kMaxNgramOrder = 8;

// Of the empty context; no token's number reaches it. Contexts grow by HashTokens (core/token_hash.h).
inline constexpr uint64_t kEmptyContextHash = uint64_t{1} << 32;

// Whose tokens were counted, and contexts of how many.
struct NgramConfig {
  int order = 0;  // tokens of the longest context, 1 … kMaxNgramOrder
  int vocab = 0;
  int target_width = 0, target_layers = 0;
  std::string vocabulary;  // VocabularyId of its tokenizer; empty: it had none
  std::string data{};      // what was counted, for people; empty: it is not said
};

struct NgramEntry {
  uint64_t context = 0;  // hash
  int32_t token = 0;
  uint8_t level = 0;  // probability · 255
};

// Bytes of a file with so many entries, but for some hundred of its header; and how many a size has room for.
int64_t NgramBytes(int64_t entries);
int64_t NgramEntriesIn(int64_t bytes);

// The same file for the same entries in any order. Contexts differ. Error: the file system's; one line.
Status WriteNgramFile(const NgramConfig& config, std::span<const NgramEntry> entries,
                      const std::string& path);

class NgramFile {
 public:
  // Error: no such file, or one that is damaged or something else: path, place and cure in one line.
  static Result<NgramFile> Open(const std::string& path);
  // The same of a parsed file, of which it keeps nothing.
  static Result<NgramFile> Parse(const Gguf& gguf);

  const std::string& path() const { return path_; }
  const NgramConfig& config() const { return config_; }
  int64_t entries() const { return int64_t(tokens_.size()); }

  struct Next {
    int32_t token;
    float probability;  // that the target goes on with it
  };
  // What follows the context of that hash; nothing for one that the table does not hold.
  std::optional<Next> Find(uint64_t context) const;

 private:
  std::string path_;
  NgramConfig config_;
  std::vector<uint32_t> buckets_;       // [B + 1] where each begins; the last one: where all end
  std::vector<uint16_t> fingerprints_;  // [entries]
  std::vector<uint32_t> tokens_;        // [entries] token · 256 + level
};

// Whether `path` holds such a table. False for what cannot be read.
bool LooksLikeNgramFile(const std::string& path);

// Equal for tokenizers of the same tokens: 16 hexadecimal digits. Empty without one.
std::string VocabularyId(const Tokenizer* tokenizer);

// That the table was counted from the answers of this very model. `tokenizer` may be null. Error: one line.
Status CheckNgramFits(const NgramFile& table, const ModelConfig& target, const Tokenizer* tokenizer);

}  // namespace dspark
