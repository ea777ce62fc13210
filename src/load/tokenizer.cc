#include "load/tokenizer.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "core/check.h"
#include "load/added_tokens.h"
#include "load/bpe.h"
#include "load/nfc.h"
#include "load/pre_tokenizer.h"
#include "load/printable.h"
#include "load/utf8.h"

namespace dspark {
namespace {

using Added = TokenizerSpec::Added;
using AddedPointers = std::vector<const Added*>;

Status CheckAdded(const TokenizerSpec& spec) {
  const auto damaged = [&](const Added& added, std::string_view what) {
    return MakeError("{}: added token \"{}\" (id {}) {}; download the file again", spec.where,
                     Printable(added.text), added.id, what);
  };
  for (const Added& added : spec.added) {
    if (added.id < 0 || size_t(added.id) >= spec.tokens.size())
      return damaged(added, "is outside the vocabulary");
    if (added.text.empty()) return damaged(added, "has no text");
    if (!IsValidUtf8(added.text)) return damaged(added, "is not UTF-8");
    const std::string& token = spec.tokens[added.id];
    if (!token.empty() && token != added.text) return damaged(added, "has the id of another token");
  }
  return {};
}

// Which added tokens are looked for: before or after normalising, with or without the special ones.
AddedTokenMatcher MatcherOf(const std::vector<Added>& added, bool normalized, bool with_special) {
  AddedPointers chosen;
  for (const Added& a : added) {
    if (a.normalized == normalized && (with_special || !a.special)) chosen.push_back(&a);
  }
  return AddedTokenMatcher(chosen);
}

// Calls on_text(view) and on_id(id, view) for what stands between the matches and for the matches, in order.
template <class OnText, class OnId>
void SplitOnAdded(const AddedTokenMatcher& matcher, std::string_view text, OnText on_text, OnId on_id) {
  size_t from = 0;
  while (const auto match = matcher.Find(text, from)) {
    if (match->begin > from) on_text(text.substr(from, match->begin - from));
    on_id(match->id, text.substr(match->begin, match->end - match->begin));
    from = match->end;
  }
  if (from < text.size()) on_text(text.substr(from));
}

struct Matchers {
  AddedTokenMatcher raw, normalized;
};

// Text without added tokens to ids: cut into pieces, and these merged.
class PlainEncoder {
 public:
  PlainEncoder(const Bpe& bpe, const PieceRegex& regex) : bpe_(bpe), scanner_(regex) {}

  void Append(std::string_view plain, std::vector<int32_t>* ids) {
    for (size_t begin = 0; begin < plain.size();) {
      const size_t length = scanner_.Next(plain, begin);
      bpe_.Encode(plain.substr(begin, length), &scratch_, ids);
      begin += length;
    }
  }

 private:
  const Bpe& bpe_;
  PieceScanner scanner_;
  Bpe::Scratch scratch_;
};

}  // namespace

struct Tokenizer::Impl {
  Impl(TokenizerSpec s, Bpe b) : added(std::move(s.added)), nfc(s.nfc), bpe(std::move(b)), regex(s.pre) {
    for (const Added& a : added) {
      by_id.emplace(a.id, &a);
      by_text.emplace(a.text, a.id);
    }
  }

  Matchers MatchersFor(bool parse_special) const {
    return {MatcherOf(added, false, parse_special), MatcherOf(added, true, parse_special)};
  }

  // Calls on_plain(view) for each piece of text between added tokens, and on_id(id, view) for those.
  template <class OnPlain, class OnId>
  void Walk(std::string_view text, bool parse_special, OnPlain on_plain, OnId on_id) const {
    std::string repaired;
    if (!IsValidUtf8(text)) text = repaired = ReplaceInvalidUtf8(text);
    const Matchers& matchers = parse_special ? with_special : without_special;
    const auto on_raw = [&](std::string_view raw) {
      std::string normal;
      if (nfc && !IsPlainNfc(raw)) raw = normal = Nfc(raw);
      SplitOnAdded(matchers.normalized, raw, on_plain, on_id);
    };
    SplitOnAdded(matchers.raw, text, on_raw, on_id);
  }

  const std::vector<Added> added;
  const bool nfc;
  const Bpe bpe;
  const PieceRegex regex;
  const Matchers with_special = MatchersFor(true), without_special = MatchersFor(false);
  std::unordered_map<int32_t, const Added*> by_id;
  std::unordered_map<std::string_view, int32_t> by_text;
};

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::~Tokenizer() = default;

Result<std::unique_ptr<Tokenizer>> Tokenizer::Make(TokenizerSpec spec) {
  DSPARK_RETURN_IF_ERROR(CheckAdded(spec));
  auto bpe = Bpe::Make(spec.tokens, spec.merges, spec.ignore_merges);
  if (!bpe) return MakeError("{}: {}; download the file again", spec.where, bpe.error().text);
  return std::unique_ptr<Tokenizer>(
      new Tokenizer(std::make_unique<Impl>(std::move(spec), std::move(bpe).value())));
}

std::vector<int32_t> Tokenizer::Encode(std::string_view text, bool parse_special) const {
  std::vector<int32_t> ids;
  ids.reserve(text.size() / 3);
  PlainEncoder encoder(impl_->bpe, impl_->regex);
  impl_->Walk(
      text, parse_special, [&](std::string_view plain) { encoder.Append(plain, &ids); },
      [&](int32_t id, std::string_view) { ids.push_back(id); });
  return ids;
}

EncodedText Tokenizer::EncodeWithOffsets(std::string_view text, bool parse_special) const {
  EncodedText encoded;
  PlainEncoder encoder(impl_->bpe, impl_->regex);
  const auto on_plain = [&](std::string_view plain) {
    size_t at = encoded.text.size();
    encoded.text += plain;
    encoder.Append(plain, &encoded.ids);
    // The tokens spell the text but for bytes that no token has: each byte is the next of its kind.
    for (size_t i = encoded.begins.size(); i < encoded.ids.size(); ++i) {
      const std::string_view bytes = impl_->bpe.Bytes(encoded.ids[i]);
      for (size_t j = 0; j < bytes.size(); ++j) {
        at = encoded.text.find(bytes[j], at);
        DSPARK_CHECK(at != std::string::npos);
        if (j == 0) encoded.begins.push_back(at);
        ++at;
      }
    }
  };
  const auto on_id = [&](int32_t id, std::string_view matched) {
    encoded.ids.push_back(id);
    encoded.begins.push_back(encoded.text.size());
    encoded.text += matched;
  };
  impl_->Walk(text, parse_special, on_plain, on_id);
  return encoded;
}

std::string_view Tokenizer::TokenBytes(int32_t id) const {
  if (const auto it = impl_->by_id.find(id); it != impl_->by_id.end()) return it->second->text;
  return id >= 0 && id < vocab() ? impl_->bpe.Bytes(id) : std::string_view();
}

bool Tokenizer::IsSpecial(int32_t id) const {
  const auto it = impl_->by_id.find(id);
  return it != impl_->by_id.end() && it->second->special;
}

int32_t Tokenizer::FindSpecial(std::string_view text) const {
  const auto it = impl_->by_text.find(text);
  return it == impl_->by_text.end() ? -1 : it->second;
}

int Tokenizer::vocab() const { return impl_->bpe.vocab(); }

std::string Tokenizer::Decode(const std::vector<int32_t>& ids, bool skip_special) const {
  std::string bytes;
  for (const int32_t id : ids) {
    if (!skip_special || !IsSpecial(id)) bytes += TokenBytes(id);
  }
  return ReplaceInvalidUtf8(bytes);
}

std::string Detokenizer::Add(int32_t id) {
  if (skip_special_ && tokenizer_->IsSpecial(id)) return {};
  pending_ += tokenizer_->TokenBytes(id);
  const size_t whole = pending_.size() - UnfinishedUtf8Suffix(pending_);
  std::string text = ReplaceInvalidUtf8(std::string_view(pending_).substr(0, whole));
  pending_.erase(0, whole);
  return text;
}

std::string Detokenizer::Finish() { return ReplaceInvalidUtf8(std::exchange(pending_, {})); }

}  // namespace dspark
