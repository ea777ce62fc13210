// Names and ranges of the keys of a training configuration, for reading and writing alike.
#pragma once

#include "train/train_config.h"

namespace dspark {

template <class Config, class Keys>
void ForEachKey(Config& c, Keys& keys) {
  constexpr double kMany = 1e9;
  keys.Key("target", c.target);
  keys.Key("data", c.data);
  keys.Key("cache_target", c.cache_target);
  keys.Key("out", c.out);
  keys.Choice("kind", c.kind, {"dspark", "dflash", "eagle3", "mtp"});
  keys.Key("layers", c.layers, 1, 64);
  keys.Key("block_size", c.block_size, 1, 256);
  keys.Key("taps", c.taps);
  keys.Key("mask_token", c.mask_token, -1, kMany);
  keys.Choice("markov", c.markov, {"none", "vanilla", "gated", "rnn"});
  keys.Key("markov_rank", c.markov_rank, 1, 65536);
  keys.Key("confidence", c.confidence);
  keys.Key("draft_vocab", c.draft_vocab, 0, kMany);
  keys.Key("init_layers", c.init_layers);
  keys.Key("anchors", c.anchors, 1, 65536);
  keys.Key("decay", c.decay, 1e-3, kMany);
  keys.Choice("loss", c.loss, {"l1", "lk"});
  keys.Choice("slot_weights", c.slot_weights, {"fixed", "dpace"});
  keys.Key("ttt_steps", c.ttt_steps, 1, 64);
  keys.Key("ttt_decay", c.ttt_decay, 1e-3, 1);
  keys.Key("ce_share", c.ce_share, 0, 1000);
  keys.Key("l1_share", c.l1_share, 0, 1000);
  keys.Key("confidence_share", c.confidence_share, 0, 1000);
  keys.Key("batch", c.batch, 1, kMany);
  keys.Key("group", c.group, 1, kMany);
  keys.Key("epochs", c.epochs, 1, kMany);
  keys.Key("steps", c.steps, 0, kMany);
  keys.Key("learning_rate", c.learning_rate, 0, 1);
  keys.Key("warmup_share", c.warmup_share, 0, 0.999);
  keys.Key("clip", c.clip, 1e-6, kMany);
  keys.Key("weight_decay", c.weight_decay, 0, 1);
  keys.Key("seed", c.seed, 0, kMany);
  keys.Key("data_seed", c.data_seed, 0, kMany);
  keys.Key("max_length", c.max_length, 8, kMany);
  keys.Choice("precision", c.precision, {"bf16", "f32"});
  keys.Key("threads", c.threads, 0, 1024);
  keys.Key("checkpoint_every", c.checkpoint_every, 1, kMany);
  keys.Key("checkpoints_kept", c.checkpoints_kept, 1, 1000);
}

}  // namespace dspark
