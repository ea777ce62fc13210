#include "load/pre_tokenizer.h"

#include <limits>
#include <string>
#include <utility>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "core/check.h"

namespace dspark {
namespace {

template <auto Free>
struct Freer {
  template <class T>
  void operator()(T* p) const {
    Free(p);
  }
};
using Code = std::unique_ptr<pcre2_code, Freer<pcre2_code_free>>;
using MatchData = std::unique_ptr<pcre2_match_data, Freer<pcre2_match_data_free>>;
using MatchContext = std::unique_ptr<pcre2_match_context, Freer<pcre2_match_context_free>>;

// PCRE2's \s also holds U+180E, which is no White_Space any more and which the tokenizers do not take for
// one.
#define SPACES R"(\t-\r \x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})"
#define S "[" SPACES "]"

// The published patterns for PCRE2. Quantifiers that nothing follows are possessive: the same matches, and no
// positions to come back to. Every character starts a match, so matches are contiguous.
std::string PcrePattern(PreTokenizer kind) {
  const std::string contractions = "'s|'t|'re|'ve|'m|'ll|'d";
  const std::string spaces = S
      "+(?!"
      "[^" SPACES "])|" S "++";
  const std::string words = R"([^\r\n\p{L}\p{N}]?\p{L}++)";
  const std::string rest = R"( ?[^\p{L}\p{N})" SPACES R"(]++[\r\n]*+|)" S R"(*[\r\n]++)";
  switch (kind) {
    case PreTokenizer::kGpt2:
      return contractions + R"(| ?\p{L}++| ?\p{N}++| ?[^\p{L}\p{N})" SPACES "]++|" + spaces;
    case PreTokenizer::kSmolLm:
      // Digits are cut out first, so a digit ends the text for the lookahead of the spaces.
      return contractions + R"(| ?\p{L}++|\p{N}| ?[^\p{L}\p{N})" SPACES "]++|" S R"(+(?![^\p{N})" SPACES
                            "])|" S "++";
    case PreTokenizer::kLlama3:
      return "(?i:" + contractions + ")|" + words + R"(|\p{N}{1,3}+|)" + rest + "|" + spaces;
    case PreTokenizer::kQwen2:
      return "(?i:" + contractions + ")|" + words + R"(|\p{N}|)" + rest + "|" + spaces;
  }
  DSPARK_CHECK(false);
  return {};
}
#undef S
#undef SPACES

}  // namespace

std::string_view PublishedPattern(PreTokenizer kind) {
  switch (kind) {
    case PreTokenizer::kGpt2:
    case PreTokenizer::kSmolLm:
      return R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
    case PreTokenizer::kLlama3:
      return R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
             R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
    case PreTokenizer::kQwen2:
      return R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
             R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
  }
  DSPARK_CHECK(false);
  return {};
}

struct PieceRegex::Compiled {
  Code code;
};

PieceRegex::PieceRegex(PreTokenizer kind) : compiled_(std::make_unique<Compiled>()) {
  const std::string pattern = PcrePattern(kind);
  int error = 0;
  size_t where = 0;
  compiled_->code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                      PCRE2_UTF | PCRE2_UCP | PCRE2_ANCHORED | PCRE2_NO_AUTO_CAPTURE, &error,
                                      &where, nullptr));
  DSPARK_CHECK(compiled_->code);
  // Where the system forbids code made at run time this fails, and pcre2_match interprets the pattern.
  pcre2_jit_compile(compiled_->code.get(), PCRE2_JIT_COMPLETE);
}
PieceRegex::~PieceRegex() = default;
PieceRegex::PieceRegex(PieceRegex&&) noexcept = default;
PieceRegex& PieceRegex::operator=(PieceRegex&&) noexcept = default;

struct PieceScanner::Match {
  MatchData data;
  MatchContext context;
};

PieceScanner::PieceScanner(const PieceRegex& regex)
    : compiled_(regex.compiled_.get()), match_(std::make_unique<Match>()) {
  match_->data.reset(pcre2_match_data_create_from_pattern(compiled_->code.get(), nullptr));
  match_->context.reset(pcre2_match_context_create(nullptr));
  DSPARK_CHECK(match_->data && match_->context);
  // The patterns take linear time, so a limit could only turn a long run of spaces away.
  constexpr uint32_t kNone = std::numeric_limits<uint32_t>::max();
  pcre2_set_match_limit(match_->context.get(), kNone);
  pcre2_set_depth_limit(match_->context.get(), kNone);
  pcre2_set_heap_limit(match_->context.get(), kNone);
}
PieceScanner::~PieceScanner() = default;

size_t PieceScanner::Next(std::string_view text, size_t begin) {
  const auto match = [&](uint32_t options) {
    return pcre2_match(compiled_->code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), begin,
                       PCRE2_NO_UTF_CHECK | options, match_->data.get(), match_->context.get());
  };
  int matched = match(0);
  if (matched == PCRE2_ERROR_JIT_STACKLIMIT) matched = match(PCRE2_NO_JIT);
  DSPARK_CHECK_EQ(matched, 1);
  const size_t* bounds = pcre2_get_ovector_pointer(match_->data.get());
  DSPARK_CHECK_LT(begin, bounds[1]);
  return bounds[1] - begin;
}

}  // namespace dspark
