#include "train/mask_token.h"

#include <algorithm>
#include <cctype>

#include "load/printable.h"

namespace dspark {
namespace {

bool HasAnyOf(std::string text, std::initializer_list<const char*> words) {
  std::ranges::transform(text, text.begin(), [](unsigned char c) { return char(std::tolower(c)); });
  return std::ranges::any_of(words, [&](const char* word) { return text.find(word) != std::string::npos; });
}

// Whether rendered conversations, or their ends, may have this control token.
bool MayOccur(const ModelFiles& target, int32_t id, const std::string& text) {
  return std::ranges::count(target.config.eos, id) > 0 || target.config.bos == id ||
         target.chat_template.find(text) != std::string::npos ||
         HasAnyOf(text,
                  {"endoftext", "end_of_text", "begin_of_text", "<s>", "</s>", "bos", "eos", "pad", "unk"});
}

}  // namespace

MaskToken ChooseMaskToken(const ModelFiles& target) {
  const int vocab = target.config.vocab;
  MaskToken last{vocab - 1, "the vocabulary's last id, which texts may contain; better name one"};
  if (!target.tokenizer) return last;
  int reserved = -1, control = -1;
  for (int id = vocab - 1; id >= 0; --id) {
    const std::string text(target.tokenizer->TokenBytes(id));
    if (text.empty() || !target.tokenizer->IsSpecial(id) || MayOccur(target, id, text)) continue;
    control = id;
    if (HasAnyOf(text, {"mask", "reserved", "unused"})) reserved = id;
  }
  for (int id = 0; id < vocab; ++id) {
    if (target.tokenizer->TokenBytes(id).empty()) return {id, "a row of the vocabulary without a token"};
  }
  const auto named = [&](int id, const char* why) {
    return MaskToken{id, fmt::format("{}, {}", Printable(target.tokenizer->TokenBytes(id)), why)};
  };
  if (reserved >= 0) return named(reserved, "a token in reserve");
  if (control >= 0) return named(control, "a control token that the chat template does not use");
  return last;
}

}  // namespace dspark
