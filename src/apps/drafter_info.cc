#include "apps/drafter_info.h"

#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include "load/printable.h"

namespace dspark {
namespace {

std::string_view MarkovName(MarkovHead head) {
  switch (head) {
    case MarkovHead::kNone:
      return "none";
    case MarkovHead::kVanilla:
      return "vanilla";
    case MarkovHead::kGated:
      return "gated";
    case MarkovHead::kRnn:
      return "rnn";
  }
  return "";
}

std::string_view KindName(const DrafterConfig& c) {
  if (c.kind == DrafterKind::kEagle3) return "Eagle3";
  if (c.kind == DrafterKind::kMtp) return "MTP";
  return c.markov == MarkovHead::kNone ? "DFlash" : "DSpark";
}

std::string Heads(const DrafterConfig& c) {
  std::string heads;
  if (c.markov != MarkovHead::kNone) {
    heads = fmt::format(", {} Markov head of rank {}", MarkovName(c.markov), c.markov_rank);
  }
  if (c.confidence)
    heads += c.confidence_with_markov ? ", confidence head" : ", confidence head (no Markov input)";
  if (!c.confidence_temperatures.empty()) heads += ", calibrated";
  return heads;
}

std::string Ends(const DrafterConfig& c) {
  const auto whose = [](bool own) { return own ? "its own" : "the target's"; };
  std::string text = fmt::format("embedding {}, head {}", whose(c.own_embedding), whose(c.own_head));
  if (c.frozen_copies) text += " (copies of the target's)";
  if (!c.draft_to_target.empty()) text += fmt::format("; drafts {} of the target's ids", c.backbone.vocab);
  return text;
}

}  // namespace

std::string DrafterKindText(const DrafterConfig& c) {
  std::string kind(KindName(c));
  if (c.markov != MarkovHead::kNone) kind += fmt::format(" ({})", MarkovName(c.markov));
  return kind;
}

std::string DescribeDrafter(const DrafterFiles& drafter) {
  const DrafterConfig& c = drafter.config;
  const ModelConfig& b = c.backbone;
  std::string text = fmt::format("drafter: {}{}; from a {}\n", KindName(c), Heads(c), c.form);
  text += fmt::format("  layers {}, width {}, feed-forward {}, query heads {}, KV heads {}, head size {}\n",
                      b.layers, b.d_model, b.d_ffn, b.heads, b.kv_heads, b.head_dim);
  text += fmt::format("  drafts up to {} a round", c.max_drafts());
  if (c.kind == DrafterKind::kBlock) {
    text += fmt::format(" (block of {}, a slot predicts {}, mask token {})", c.block_size,
                        c.anchor_first ? "the token after it" : "its own token", c.mask_token);
  }
  text += fmt::format("\n  {}\n", Ends(c));
  text += fmt::format("  fits targets of width {} and vocabulary {}", c.target_width, c.target_vocab);
  if (c.target_layers > 0) text += fmt::format(" with {} layers", c.target_layers);
  return text + (c.taps.empty() ? "; reads the final norm\n"
                                : fmt::format("; taps layers {}\n", fmt::join(c.taps, ", ")));
}

std::string DescribeTable(const NgramFile& table) {
  const NgramConfig& c = table.config();
  std::string text = fmt::format(
      "drafter: counted table of {} contexts of up to {} tokens, {:.2f} MB\n"
      "  fits targets of width {} and vocabulary {}{} with {} layers\n",
      table.entries(), c.order, double(NgramBytes(table.entries())) / 1e6, c.target_width, c.vocab,
      c.vocabulary.empty() ? "" : fmt::format(" ({})", c.vocabulary), c.target_layers);
  if (!c.data.empty()) text += fmt::format("  counted in {}\n", Printable(c.data, 200));
  return text;
}

nlohmann::json TableToJson(const NgramFile& table) {
  const NgramConfig& c = table.config();
  return {{"kind", "counted table"},
          {"contexts", table.entries()},
          {"order", c.order},
          {"bytes", NgramBytes(table.entries())},
          {"data", c.data},
          {"target",
           {{"d_model", c.target_width},
            {"vocab", c.vocab},
            {"layers", c.target_layers},
            {"vocabulary_id", c.vocabulary}}}};
}

nlohmann::json DrafterToJson(const DrafterFiles& drafter) {
  const DrafterConfig& c = drafter.config;
  const ModelConfig& b = c.backbone;
  return {{"kind", KindName(c)},
          {"form", c.form},
          {"layers", b.layers},
          {"d_model", b.d_model},
          {"heads", b.heads},
          {"kv_heads", b.kv_heads},
          {"head_dim", b.head_dim},
          {"d_ffn", b.d_ffn},
          {"draft_vocab", b.vocab},
          {"block_size", c.block_size},
          {"max_drafts", c.max_drafts()},
          {"anchor_first", c.anchor_first},
          {"mask_token", c.mask_token},
          {"markov", MarkovName(c.markov)},
          {"markov_rank", c.markov_rank},
          {"confidence", c.confidence},
          {"confidence_temperatures", c.confidence_temperatures},
          {"own_embedding", c.own_embedding},
          {"own_head", c.own_head},
          {"target", {{"d_model", c.target_width}, {"vocab", c.target_vocab}, {"layers", c.target_layers}}},
          {"taps", c.taps}};
}

}  // namespace dspark
