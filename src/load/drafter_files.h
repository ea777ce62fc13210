// What a drafter's file is: read from a Hugging Face directory (DeepSpec, z-lab, speculators, SpecForge form)
// or a GGUF (llama.cpp's `dflash` and `eagle3`, ik_llama.cpp's `dflash-draft`, `dspark`), checked there, and
// the same from then on whatever the form was.
//
// Tensors carry llama.cpp's names, in its shapes ([out, in] as rows):
//   all     token_embd.weight [V, d], output.weight [Vd, d] (either may be absent: the target's is used),
//           output_norm.weight [d], fc.weight [d, taps * target width], and per layer blk.i. attn_norm,
//           attn_q, attn_k, attn_v, attn_output, attn_q_norm, attn_k_norm, ffn_norm, ffn_gate, ffn_up,
//           ffn_down
//   block   enc.output_norm.weight [d] (hidden_norm); markov_w1.weight [V, r], markov_w2.weight [Vd, r];
//           markov_gate.weight [r, d + r], markov_gate.bias [r]; markov_joint.weight [3r, 2r + d],
//           markov_joint.bias [3r]; conf_proj.weight [1, d (+ r)], conf_proj.bias [1]
//   eagle3  blk.0.attn_norm (input_layernorm), blk.0.attn_norm_2 (hidden_norm); q, k, v read 2d columns
//   mtp     nextn.eh_proj.weight [d, 2d], nextn.enorm.weight [d], nextn.hnorm.weight [d]; output_norm is
//           shared_head.norm
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/result.h"
#include "load/model_config.h"
#include "load/tensor_source.h"

namespace dspark {

enum class DrafterKind {
  kBlock,   // DSpark and DFlash: one pass drafts a block (drafters.md §2)
  kEagle3,  // one layer, one token a pass, state recycled (§6)
  kMtp,     // DeepSeek-V3's multi-token prediction (§11)
};

enum class MarkovHead { kNone, kVanilla, kGated, kRnn };

struct DrafterConfig {
  DrafterKind kind = DrafterKind::kBlock;
  std::string form;  // what it was read from, for people: "DeepSpec directory", "GGUF dflash", …
  // The backbone: layers, sizes, norms, rope. vocab is Vd, the rows of the drafter's head.
  ModelConfig backbone;

  int target_width = 0;   // d of the target
  int target_vocab = 0;   // V: ids the drafter reads
  std::vector<int> taps;  // target layers, strictly increasing (§1.1); MTP: empty, it reads the final norm
  int target_layers = 0;  // 0: the file does not say
  int block_size = 0;     // γ: slots of a block; Eagle3 and MTP: most drafts of a round
  bool anchor_first = true;  // slot j predicts the token after it; false: its own, and slot 0 nothing (§5.5)
  int mask_token = -1;
  MarkovHead markov = MarkovHead::kNone;
  int markov_rank = 0;
  bool confidence = false, confidence_with_markov = false;
  // T_k of draft k: c_k = σ(z_k / T_k), which `dspark calibrate` finds (drafters.md §10). [max_drafts()]
  std::vector<float> confidence_temperatures;    // empty: all 1
  bool own_embedding = false, own_head = false;  // false: the target's
  bool head_norm = true;                         // Eagle3: the head reads RMS(y; output_norm)
  bool norm_before_residual = false;             // Eagle3: y = RMS(g; attn_norm_2) + Attn(u), not g + Attn(u)
  bool fc_bias = false;
  bool frozen_copies = false;            // embedding and head of its own are the target's (drafters.md §1.4)
  std::vector<int32_t> draft_to_target;  // [Vd] ids of a reduced vocabulary, absolute; empty: the same ids

  // Drafts of one round at most.
  int max_drafts() const { return anchor_first ? block_size : block_size - 1; }
};

struct DrafterFiles {
  std::string path;
  DrafterConfig config;
  std::unique_ptr<TensorSource> weights;
};

// Error: one line with the path, what is wrong in it (key, tensor), and the cure.
Result<DrafterFiles> OpenDrafter(const std::string& path);

// Whether `path` holds a drafter, also a counted table (ngram_file.h), and not a target: by GGUF
// architecture, or `architectures` and the keys of config.json. False for what cannot be read.
bool LooksLikeDrafter(const std::string& path);

// Vocabulary, width, taps and layers against the target it shall draft for. Error: one line, before anything
// is run.
Status CheckDrafterFits(const DrafterFiles& drafter, const ModelConfig& target);

}  // namespace dspark
