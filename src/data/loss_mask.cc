#include "data/loss_mask.h"

#include <algorithm>
#include <string_view>

namespace dspark {
namespace {

// Every format that RenderChat knows marks its turns in ChatML.
constexpr std::string_view kAssistantHeader = "<|im_start|>assistant\n", kTurnEnd = "<|im_end|>\n";
constexpr const char* kQwenSystem = "You are a helpful assistant.";

struct Region {
  size_t begin, end;  // bytes of the text
};

// As the regular expression "header(anything, lazily, up to and with the turn's end, or the text's)" matches.
std::vector<Region> AnswerRegions(std::string_view text) {
  std::vector<Region> regions;
  size_t at = 0;
  while ((at = text.find(kAssistantHeader, at)) != std::string_view::npos) {
    const size_t begin = at + kAssistantHeader.size(), turn_end = text.find(kTurnEnd, begin);
    at = turn_end == std::string_view::npos ? text.size() : turn_end + kTurnEnd.size();
    regions.push_back({begin, at});
  }
  return regions;
}

}  // namespace

Result<TrainTemplate> ChooseTrainTemplate(const std::string& name, const std::string& system,
                                          const std::string& jinja_template) {
  if (name != "model" && name != "qwen") return MakeError("--template {}: unknown; use model or qwen", name);
  auto format = DetectChatFormat(jinja_template);
  if (!format) {
    return MakeError(
        "the model's chat template is missing or none of those dspark renders (ChatML, SmolLM2, Qwen3); "
        "training data needs a model with one of these");
  }
  return TrainTemplate{*format, !system.empty() ? system : name == "qwen" ? kQwenSystem : ""};
}

int TrainTokens::LossTokens() const { return int(std::ranges::count(loss_mask, 1)); }

TrainTokens TokenizeForTraining(const Tokenizer& tokenizer, const TrainTemplate& format,
                                const std::vector<ChatMessage>& messages, int max_length) {
  std::vector<ChatMessage> shown = messages;
  if (!format.system.empty() && (shown.empty() || shown[0].role != "system"))
    shown.insert(shown.begin(), {"system", format.system});
  EncodedText encoded =
      tokenizer.EncodeWithOffsets(RenderChat(format.format, shown, /*add_generation_prompt=*/false), true);
  if (encoded.ids.size() > size_t(max_length)) encoded.ids.resize(size_t(max_length));

  TrainTokens tokens{std::move(encoded.ids), {}};
  tokens.loss_mask.assign(tokens.ids.size(), 0);
  size_t t = 0;
  for (const Region& region : AnswerRegions(encoded.text)) {
    while (t < tokens.ids.size() && encoded.begins[t] < region.begin) ++t;
    for (; t < tokens.ids.size() && encoded.begins[t] < region.end; ++t) tokens.loss_mask[t] = 1;
  }
  return tokens;
}

}  // namespace dspark
