#include "apps/describe_model.h"

#include <algorithm>
#include <ctime>
#include <filesystem>

#include "load/raw_prompt.h"

namespace dspark {

std::string ShortDrafterNames(const Session& session) {
  std::string names;
  for (const std::string& part : DraftParts(session.drafter_names))
    names += (names.empty() ? "" : ", ") + std::filesystem::path(part).filename().string();
  return names;
}

ServedModel DescribeModel(const Session& session, const std::string& name) {
  const ModelConfig& config = session.files.config;
  ServedModel model{.name = name,
                    .tokenizer = session.files.tokenizer.get(),
                    .chat_format = {},
                    .bos = PromptBos(config),
                    .vocab = config.vocab,
                    .context = session.target->limits().max_context,
                    .created = std::time(nullptr)};
  if (model.tokenizer) model.tokens = std::make_shared<TokenTrie>(*model.tokenizer, config.eos);
  if (name.empty()) {  // as one would call the file, not what may stand in it
    const std::filesystem::path path = std::filesystem::canonical(session.model_path);
    model.name = std::filesystem::is_directory(path) ? path.filename() : path.stem();
  }
  const int pool_tokens = session.blocks->blocks() * session.blocks->layout().block_tokens;
  model.context = std::min(model.context, pool_tokens);
  if (const auto format = DetectChatFormat(session.files.chat_template); format.ok() && model.tokenizer)
    model.chat_format = *format;
  return model;
}

int LogitRowsFor(int sequences) {
  constexpr int kEach = 8, kLeast = 64, kMost = 512;
  return std::clamp(sequences * kEach, kLeast, kMost);
}

}  // namespace dspark
