// The families of dense decoders this build runs, and all in which their files differ.
#pragma once

#include <string>
#include <string_view>

namespace dspark {

struct Family {
  std::string_view gguf;      // general.architecture, and the first part of its other keys
  std::string_view hf;        // config.json's architectures[0]
  bool gguf_interleaved;      // llama.cpp's converter orders the rows of q and k for pairs (2i, 2i + 1)
  bool qk_norm;               // RMSNorm of every head of q and k before rope
  std::string_view gguf_eos;  // control token that also ends a reply, as the family's generation_config.json
                              // says and GGUF does not; empty for none
};

inline constexpr Family kFamilies[] = {
    {"llama", "LlamaForCausalLM", true, false, ""},               // Llama, SmolLM2: targets.md §3
    {"qwen3", "Qwen3ForCausalLM", false, true, "<|endoftext|>"},  // targets.md §2
};

// The family whose `field` is `name`; null for one this build does not run.
inline const Family* FindFamily(std::string_view Family::*field, std::string_view name) {
  for (const Family& family : kFamilies) {
    if (family.*field == name) return &family;
  }
  return nullptr;
}

// The `field` of all families, for messages: "llama, qwen3".
inline std::string FamilyNames(std::string_view Family::*field) {
  std::string names;
  for (const Family& family : kFamilies) names.append(names.empty() ? "" : ", ").append(family.*field);
  return names;
}

}  // namespace dspark
