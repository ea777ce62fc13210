// Drafters in every form that is read, and the ways each can be broken.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "golden_tensors.h"
#include "load/drafter_files.h"
#include "load/drafter_tensors.h"
#include "temp_dir.h"
#include "test_data.h"
#include "tiny_drafter.h"

namespace dspark {
namespace {

using test::DrafterDirectory;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::string& Dir() {
  static const test::TempDir dir;
  return dir.path();
}

DrafterFiles Open(const std::string& path) {
  auto files = OpenDrafter(path);
  if (!files) CheckFailed(__FILE__, __LINE__, files.error().text);
  return std::move(files).value();
}

std::string ErrorOf(const std::string& path) {
  const auto files = OpenDrafter(path);
  if (files.ok()) return "";
  EXPECT_EQ(files.error().text.find('\n'), std::string::npos);
  EXPECT_EQ(files.error().text.find(path), 0u) << files.error().text;
  return files.error().text;
}

std::string WriteGguf(const test::GgufBuilder& b) {
  std::filesystem::remove_all(Dir());
  std::filesystem::create_directories(Dir());
  return test::WriteFile(Dir() + "/x.gguf", b.Build());
}

TEST(DrafterForms, ZlabDflash) {
  DrafterDirectory d = test::ZlabDirectory();
  const DrafterFiles files = Open(d.Write(Dir()));
  const DrafterConfig& c = files.config;
  EXPECT_EQ(c.kind, DrafterKind::kBlock);
  EXPECT_FALSE(c.anchor_first);
  EXPECT_EQ(c.block_size, 16);
  EXPECT_EQ(c.max_drafts(), 15);
  EXPECT_EQ(c.mask_token, 290);
  EXPECT_THAT(c.taps, ElementsAre(1, 4, 6));
  EXPECT_FALSE(c.own_embedding || c.own_head || c.frozen_copies);
  EXPECT_TRUE(c.backbone.qk_norm);
  // The same with block_size inside dflash_config, where newer files have it.
  d.config.erase("block_size");
  d.config["dflash_config"]["block_size"] = 8;
  EXPECT_EQ(Open(d.Write(Dir())).config.block_size, 8);
}

// Ids that z-lab's formula gives for drafters of Qwen3 (drafters.md §1.5): 36 and 40 layers, five taps.
TEST(DrafterForms, ZlabDefaultTaps) {
  DrafterDirectory d = test::ZlabDirectory();
  d.config["dflash_config"].erase("target_layer_ids");
  DrafterConfig five = test::TinyDrafterConfig(DrafterKind::kBlock);
  five.backbone.layers = 5;
  five.taps = {1, 2, 3, 4, 5};
  d.AddTensors(five);
  d.config["num_hidden_layers"] = 5;
  d.config["num_target_layers"] = 36;
  EXPECT_THAT(Open(d.Write(Dir())).config.taps, ElementsAre(1, 9, 17, 25, 33));
  d.config["num_target_layers"] = 40;
  EXPECT_THAT(Open(d.Write(Dir())).config.taps, ElementsAre(1, 10, 19, 28, 37));
}

TEST(DrafterForms, SpecForgeEagle3) {
  DrafterDirectory d = test::SpecForgeDirectory();
  const DrafterFiles files = Open(d.Write(Dir()));
  const DrafterConfig& c = files.config;
  EXPECT_EQ(c.kind, DrafterKind::kEagle3);
  EXPECT_FALSE(c.backbone.qk_norm);
  EXPECT_EQ(c.backbone.vocab, 100);
  EXPECT_EQ(c.target_vocab, 295);
  EXPECT_THAT(c.taps, ElementsAre(1, 4, 6));
  EXPECT_EQ(c.block_size, kDefaultDrafts);
  ASSERT_EQ(c.draft_to_target.size(), 100u);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(c.draft_to_target[size_t(i)], 2 * i);
  EXPECT_THAT(files.weights->Find("output.weight")->shape, ElementsAre(100, 64));
  EXPECT_THAT(files.weights->Find("blk.0.attn_k.weight")->shape, ElementsAre(32, 128));
  // EAGLE's own layers, inputs 2, 5 and 7 of 10, where the file names none; that takes the target's depth.
  d.config.erase("eagle_config");
  EXPECT_THAT(ErrorOf(d.Write(Dir())), HasSubstr("key num_target_layers is missing"));
  d.config["num_target_layers"] = 10;
  EXPECT_THAT(Open(d.Write(Dir())).config.taps, ElementsAre(1, 4, 6));
  // The embedding may be left to the target.
  d.shapes.erase("embed_tokens.weight");
  EXPECT_FALSE(Open(d.Write(Dir())).config.own_embedding);
}

TEST(DrafterForms, SpeculatorsEagle3) {
  DrafterDirectory d = test::SpecForgeDirectory();
  nlohmann::json backbone = test::BackboneKeys(test::TinyDrafterConfig(DrafterKind::kEagle3));
  backbone["model_type"] = "llama";
  backbone.erase("rms_norm_eps");  // transformers' default, which speculators leaves out
  d.config = {{"architectures", {"Eagle3DraftModel"}},
              {"speculators_model_type", "eagle3"},
              {"draft_vocab_size", 100},
              {"norm_before_residual", true},
              {"eagle_aux_hidden_state_layer_ids", {2, 5, 7}},
              {"transformer_layer_config", backbone}};
  for (const auto& [name, shape] : std::map(d.shapes)) {
    if (name.starts_with("midlayer.")) d.Rename(name, "layers.0." + name.substr(9));
  }
  const DrafterFiles files = Open(d.Write(Dir()));
  EXPECT_EQ(files.config.form, "speculators directory");
  EXPECT_TRUE(files.config.norm_before_residual);
  EXPECT_EQ(files.config.backbone.rms_eps, 1e-6f);
  EXPECT_THAT(files.config.taps, ElementsAre(1, 4, 6));  // ids are inputs
  EXPECT_EQ(files.config.draft_to_target[99], 198);
  d.config["norm_before_fc"] = true;
  EXPECT_THAT(ErrorOf(d.Write(Dir())), HasSubstr("key norm_before_fc is true, expected false"));
  d.config["speculators_model_type"] = "peagle";
  EXPECT_THAT(ErrorOf(d.Write(Dir())), HasSubstr("\"peagle\", expected dspark, dflash or eagle3"));
}

TEST(DrafterForms, SpeculatorsDspark) {
  DrafterDirectory d = test::DeepSpecDirectory(DrafterKind::kBlock, MarkovHead::kGated);
  nlohmann::json flat = std::exchange(d.config, {});
  d.config = {{"speculators_model_type", "dspark"},
              {"draft_vocab_size", 295},
              {"block_size", 5},
              {"aux_hidden_state_layer_ids", {2, 5, 7}},
              {"mask_token_id", 290},
              {"markov_rank", 8},
              {"markov_head_type", "gated"},
              {"enable_confidence_head", true},
              {"confidence_head_with_markov", true},
              {"transformer_layer_config", flat}};
  const DrafterFiles files = Open(d.Write(Dir()));
  EXPECT_TRUE(files.config.anchor_first);
  EXPECT_EQ(files.config.markov, MarkovHead::kGated);
  EXPECT_THAT(files.config.taps, ElementsAre(1, 4, 6));
  d.config["sample_from_anchor"] = false;
  EXPECT_EQ(Open(d.Write(Dir())).config.max_drafts(), 4);
}

TEST(DrafterForms, Mtp) {
  DrafterDirectory d = test::MtpDirectory();
  const DrafterFiles files = Open(d.Write(Dir()));
  EXPECT_EQ(files.config.kind, DrafterKind::kMtp);
  EXPECT_EQ(files.config.backbone.layers, 1);
  EXPECT_EQ(files.config.target_layers, 10);
  EXPECT_TRUE(files.config.backbone.qk_norm);
  EXPECT_FALSE(files.config.own_embedding || files.config.own_head);
  EXPECT_THAT(files.weights->Find("nextn.eh_proj.weight")->shape, ElementsAre(64, 128));
  EXPECT_NE(files.weights->Find("output_norm.weight"), nullptr);
  d.Rename("model.layers.10.enorm.weight", "model.layers.9.enorm.weight");
  EXPECT_THAT(ErrorOf(d.Write(Dir())),
              HasSubstr("tensor model.layers.9.enorm.weight does not belong to a drafter"));
  d.shapes.erase("model.layers.9.enorm.weight");
  EXPECT_THAT(ErrorOf(d.Write(Dir())), HasSubstr("tensor nextn.enorm.weight is missing"));
}

TEST(DrafterForms, MtpNamesGoBothWays) {
  DrafterConfig c = test::TinyDrafterConfig(DrafterKind::kMtp);
  c.own_embedding = c.own_head = true;
  for (const auto& [name, shape] : DrafterShapes(c)) {
    const std::string theirs = CheckpointTensorName(c, name);
    EXPECT_TRUE(theirs.starts_with("model.layers.10.")) << theirs;
    EXPECT_EQ(MtpTensorName(theirs, 10), name);
    EXPECT_EQ(DrafterTensorName(DeepSpecTensorName(name)), name);
  }
  EXPECT_EQ(CheckpointTensorName(c, "output_norm.weight"), "model.layers.10.shared_head.norm.weight");
  EXPECT_EQ(CheckpointTensorName(c, "d2t"), "d2t");
}

TEST(DrafterForms, MtpWithAReducedVocabulary) {
  DrafterDirectory d = test::MtpDirectory();
  const int64_t width = d.shapes["model.layers.10.enorm.weight"][0];
  d.d2t = {0, 1, 1, 5};  // ids 0, 2, 3, 8 as differences to the row
  EXPECT_THAT(ErrorOf(d.Write(Dir())), HasSubstr("without a head of its own"));
  d.shapes["model.layers.10.shared_head.head.weight"] = {4, width};
  EXPECT_THAT(Open(d.Write(Dir())).config.draft_to_target, ElementsAre(0, 2, 3, 8));
}

TEST(DrafterForms, Gemma4IsRecognisedAndRefused) {
  for (const char* name : {"Gemma4DSparkModel", "Gemma4Eagle3Model"}) {
    const DrafterDirectory d{.config = {{"architectures", {name}}}, .shapes = {}, .d2t = {}};
    const std::string dir = d.Write(Dir());
    EXPECT_TRUE(LooksLikeDrafter(dir));
    EXPECT_THAT(ErrorOf(dir), HasSubstr("Gemma4 targets are not supported yet"));
  }
}

TEST(DrafterForms, GgufEagle3) {
  DrafterConfig c = test::TinyDrafterConfig(DrafterKind::kEagle3);
  c.backbone.qk_norm = false;
  c.backbone.vocab = 3;
  c.own_head = true;
  test::GgufBuilder b = test::TinyDrafterGguf("eagle3", c);
  b.I32s("eagle3.extract_layers", {2, 5, 7});
  b.U32("eagle3.target_hidden_size", 64);
  b.Bool("eagle3.norm_before_residual", true);
  std::string ids;
  for (const int64_t id : {5, 7, 294}) ids += test::Bytes(id);
  b.tensors.push_back({"d2t", uint32_t(TensorType::kI64), {3}, ids, {}});
  const DrafterFiles files = Open(WriteGguf(b));
  EXPECT_EQ(files.config.form, "GGUF eagle3");
  EXPECT_THAT(files.config.taps, ElementsAre(1, 4, 6));
  EXPECT_TRUE(files.config.backbone.rope_interleaved);
  EXPECT_TRUE(files.config.norm_before_residual);
  EXPECT_TRUE(files.config.own_head);
  EXPECT_FALSE(files.config.own_embedding);
  EXPECT_THAT(files.config.draft_to_target, ElementsAre(5, 7, 294));
  EXPECT_TRUE(LooksLikeDrafter(Dir() + "/x.gguf"));
}

TEST(DrafterForms, GgufOfForks) {
  const DrafterConfig c = test::TinyDrafterConfig(DrafterKind::kBlock);
  test::GgufBuilder ik = test::TinyDrafterGguf("dflash-draft", c);
  ik.U32("dflash-draft.dflash.block_size", 16);
  ik.U32("dflash-draft.dflash.mask_token_id", 290);
  ik.U32("dflash-draft.dflash.n_target_features", 3 * 64);
  ik.I32s("dflash-draft.dflash.target_layer_ids", {1, 4, 6});
  ik.TensorNamed("fc.weight").name = "dflash_fc.weight";
  ik.TensorNamed("enc.output_norm.weight").name = "dflash_hidden_norm.weight";
  ik.TensorNamed("blk.1.ffn_norm.weight").name = "blk.1.post_attention_norm.weight";
  const DrafterFiles files = Open(WriteGguf(ik));
  EXPECT_FALSE(files.config.anchor_first);
  EXPECT_THAT(files.config.taps, ElementsAre(1, 4, 6));
  EXPECT_EQ(files.config.target_width, 64);
  EXPECT_EQ(files.config.mask_token, 290);

  DrafterConfig heads = c;
  heads.markov = MarkovHead::kVanilla;
  heads.markov_rank = 8;
  test::GgufBuilder dspark = test::TinyDrafterGguf("dspark", heads);
  dspark.U32("dspark.block_size", 5);
  dspark.U32("dspark.mask_token_id", 290);
  dspark.I32s("dspark.target_layer_ids", {1, 4, 6});
  const DrafterFiles fork = Open(WriteGguf(dspark));
  EXPECT_EQ(fork.config.markov_rank, 8);
  EXPECT_TRUE(fork.config.anchor_first);
  EXPECT_THAT(fork.config.taps, ElementsAre(1, 4, 6));
}

struct Broken {
  const char* what;
  void (*change)(DrafterDirectory* d);
  const char* error;
};

void ExpectErrors(DrafterDirectory (*make)(), std::initializer_list<Broken> corpus) {
  ASSERT_EQ(ErrorOf(make().Write(Dir())), "");
  for (const Broken& broken : corpus) {
    DrafterDirectory d = make();
    broken.change(&d);
    EXPECT_THAT(ErrorOf(d.Write(Dir())), HasSubstr(broken.error)) << broken.what;
  }
}

TEST(DrafterForms, BrokenDspark) {
  ExpectErrors(
      [] { return test::DeepSpecDirectory(DrafterKind::kBlock); },
      {{"a target's architecture", [](auto* d) { d->config["architectures"] = {"Qwen3ForCausalLM"}; },
        "key architectures is [\"Qwen3ForCausalLM\"], expected a drafter's"},
       {"block size 0", [](auto* d) { d->config["block_size"] = 0; }, "key block_size is 0, expected a size"},
       {"a huge block", [](auto* d) { d->config["block_size"] = 1000; },
        "the block size is 1000, expected 1 to 256"},
       {"no mask token", [](auto* d) { d->config.erase("mask_token_id"); }, "key mask_token_id is missing"},
       {"a mask token outside", [](auto* d) { d->config["mask_token_id"] = 295; },
        "the mask token 295 is outside the vocabulary of 295"},
       {"no taps", [](auto* d) { d->config.erase("target_layer_ids"); }, "no target layers to tap"},
       {"taps that fall",
        [](auto* d) {
          d->config["target_layer_ids"] = {4, 1, 6};
        },
        "not increasing ids"},
       {"a tap of -2",
        [](auto* d) {
          d->config["target_layer_ids"] = {-2, 1, 6};
        },
        "not increasing ids"},
       {"a tap that is no number",
        [](auto* d) {
          d->config["target_layer_ids"] = {1, 4, 6.5};
        },
        "expected a list of whole numbers"},
       {"the last layer tapped",
        [](auto* d) {
          d->config["target_layer_ids"] = {1, 4, 9};
        },
        "taps target layer 9, but of 10 layers only 0 to 8 can be tapped"},
       {"one tap too many",
        [](auto* d) {
          d->config["target_layer_ids"] = {1, 4, 6, 7};
        },
        "tensor fc.weight has shape [64, 192], the configuration asks for [64, 256]"},
       {"another rank", [](auto* d) { d->config["markov_rank"] = 16; },
        "has shape [1, 72], the configuration asks for [1, 80]"},
       {"no rank", [](auto* d) { d->config["markov_rank"] = 0; }, "but there is no Markov head"},
       {"an unknown head", [](auto* d) { d->config["markov_head_type"] = "mamba"; },
        "expected vanilla, gated or rnn"},
       {"the wrong head", [](auto* d) { d->config["markov_head_type"] = "gated"; },
        "tensor markov_gate.bias is missing"},
       {"a head too many", [](auto* d) { d->config["enable_confidence_head"] = false; },
        "tensor confidence_head.proj.bias does not belong to a DeepSpec directory drafter"},
       {"a tensor missing", [](auto* d) { d->shapes.erase("layers.1.mlp.up_proj.weight"); },
        "tensor blk.1.ffn_up.weight is missing"},
       {"no head of its own", [](auto* d) { d->shapes.erase("lm_head.weight"); },
        "tensor output.weight is missing"},
       {"a foreign tensor", [](auto* d) { d->shapes["layers.0.mlp.router.weight"] = {1}; },
        "tensor layers.0.mlp.router.weight does not belong to a drafter"},
       {"too many layers", [](auto* d) { d->config["num_hidden_layers"] = 1 << 20; },
        "1048576 layers but only"},
       {"windows", [](auto* d) { d->config["use_sliding_window"] = true; },
        "windowed attention is not supported"},
       {"temperatures of another block",
        [](auto* d) {
          d->config["confidence_temperatures"] = {1, 2};
        },
        "2 confidence_temperatures, expected 5 numbers above 0"},
       {"a temperature of 0",
        [](auto* d) {
          d->config["confidence_temperatures"] = {1, 1, 0, 1, 1};
        },
        "expected 5 numbers above 0"},
       {"temperatures that are no numbers", [](auto* d) { d->config["confidence_temperatures"] = "hot"; },
        "expected a list of numbers"},
       {"a huge rank", [](auto* d) { d->config["markov_rank"] = 1 << 30; }, "the Markov rank is"}});
}

TEST(DrafterForms, BrokenOthers) {
  ExpectErrors(
      [] { return test::ZlabDirectory(); },
      {{"no dflash_config", [](auto* d) { d->config.erase("dflash_config"); },
        "key dflash_config is missing"},
       {"nothing to draft", [](auto* d) { d->config["block_size"] = 1; }, "the block size is 1, expected 2"},
       {"no depth", [](auto* d) { d->config.erase("num_target_layers"); },
        "key num_target_layers is missing"}});
  ExpectErrors(
      [] { return test::SpecForgeDirectory(); },
      {{"a negative id", [](auto* d) { d->d2t[0] = -1; },
        "maps row 0 to id -1, outside the vocabulary of 295"},
       {"an id past the end", [](auto* d) { d->d2t[99] = 196; }, "maps row 99 to id 295, outside"},
       {"a wild id", [](auto* d) { d->d2t[99] = INT64_MAX; }, "maps row 99 to id -1, outside"},
       {"absolute ids for differences", [](auto* d) { d->d2t[50] = d->d2t[49] - 1; },
        "which do not increase"},
       {"too few ids", [](auto* d) { d->d2t.pop_back(); },
        "has shape [100, 64], the configuration asks for [99, 64]"},
       {"no ids", [](auto* d) { d->d2t.clear(); }, "100 of the target's 295 ids have a row in the head"},
       {"no head for them", [](auto* d) { d->shapes.erase("lm_head.weight"); }, "without a head of its own"},
       {"two layers", [](auto* d) { d->config["num_hidden_layers"] = 2; },
        "only drafters of this kind with one layer"},
       {"a wider target without embedding",
        [](auto* d) {
          d->config["target_hidden_size"] = 128;
          d->shapes.erase("embed_tokens.weight");
        },
        "no embedding of its own, but its width 64 is not the target's 128"}});
  ExpectErrors(
      [] { return test::MtpDirectory(); },
      {{"two predictors", [](auto* d) { d->config["num_nextn_predict_layers"] = 2; }, "expected 1"}});
}

TEST(DrafterForms, BrokenGguf) {
  const auto error_with = [](auto&& change) {
    DrafterConfig c = test::TinyDrafterConfig(DrafterKind::kBlock);
    c.markov = MarkovHead::kVanilla;
    c.markov_rank = 8;
    test::GgufBuilder b = test::TinyDrafterGguf("dflash", c);
    b.U32("dflash.block_size", 5);
    b.U32("tokenizer.ggml.mask_token_id", 290);
    b.I32s("dflash.target_layers", {2, 5, 7});
    change(b);
    return ErrorOf(WriteGguf(b));
  };
  EXPECT_EQ(error_with([](auto&) {}), "");
  EXPECT_THAT(error_with([](auto& b) { b.String("general.architecture", "bert"); }),
              HasSubstr("architecture bert is not a drafter's"));
  EXPECT_THAT(error_with([](auto& b) { b.Remove("dflash.target_layers"); }),
              HasSubstr("dflash.target_layers"));
  EXPECT_THAT(error_with([](auto& b) {
                b.I32s("dflash.target_layers", {2, 5, -7});
              }),
              HasSubstr("dflash.target_layers holds -7, not a layer"));
  EXPECT_THAT(error_with([](auto& b) { b.U32("dflash.block_size", 0); }),
              HasSubstr("dflash.block_size is 0"));
  EXPECT_THAT(error_with([](auto& b) { b.Remove("tokenizer.ggml.mask_token_id"); }),
              HasSubstr("tokenizer.ggml.mask_token_id is missing"));
  EXPECT_THAT(error_with([](auto& b) { b.U32("dflash.attention.sliding_window", 512); }),
              HasSubstr("a window of 512 positions"));
  EXPECT_THAT(error_with([](auto& b) {
                std::erase_if(b.tensors, [](const auto& t) { return t.name == "markov_w2.weight"; });
              }),
              HasSubstr("tensor markov_w2.weight is missing"));
  EXPECT_THAT(error_with([](auto& b) {
                b.tensors.push_back({"selector_hidden.weight", 0, {1}, "1234", {}});
              }),
              HasSubstr("tensor selector_hidden.weight does not belong to a GGUF dflash drafter"));
  EXPECT_THAT(error_with([](auto& b) {
                std::erase_if(b.tensors, [](const auto& t) { return t.name.starts_with("markov"); });
                b.Remove("dflash.vocab_size");
              }),
              HasSubstr("nothing says how large the vocabulary is"));
  EXPECT_THAT(ErrorOf(test::WriteFile(Dir() + "/text", "hello")), HasSubstr("neither a GGUF file nor"));
}

// Whatever byte of the metadata is wrong (every eleventh is tried): the file opens or is refused in one line.
TEST(DrafterForms, AnyDamagedByteIsHandled) {
  DrafterConfig c = test::TinyDrafterConfig(DrafterKind::kBlock);
  c.markov = MarkovHead::kRnn;
  c.markov_rank = 8;
  test::GgufBuilder b = test::TinyDrafterGguf("dflash", c);
  b.U32("dflash.block_size", 5);
  b.U32("tokenizer.ggml.mask_token_id", 290);
  b.I32s("dflash.target_layers", {2, 5, 7});
  size_t data_start = 0;
  const std::string whole = b.Build(nullptr, &data_start);
  int tried = 0, refused = 0;
  for (size_t i = 0; i < data_start; i += 11, ++tried) {
    std::string damaged = whole;
    damaged[i] = char(damaged[i] ^ (i % 2 ? 0x80 : 0x01));
    refused += ErrorOf(test::WriteFile(Dir() + "/x.gguf", damaged)).empty() ? 0 : 1;
  }
  EXPECT_GT(refused, tried / 2);
  nlohmann::json config = test::DeepSpecDirectory(DrafterKind::kBlock).config;
  for (const auto& [key, value] : config.items()) {
    for (const nlohmann::json& bad :
         {nlohmann::json(-1), nlohmann::json(INT32_MAX), nlohmann::json(1e300), nlohmann::json("x"),
          nlohmann::json::array({1, "x"}), nlohmann::json()}) {
      DrafterDirectory d = test::DeepSpecDirectory(DrafterKind::kBlock);
      d.config[key] = bad;
      ErrorOf(d.Write(Dir()));
    }
  }
}

// llama.cpp's converter and DeepSpec's directory hold the same drafter.
TEST(GoldenDrafterForms, GgufEqualsTheDirectory) {
  DSPARK_SKIP_WITHOUT_GOLDEN("drafters/gguf/dflash.gguf");
  const std::string golden = test::GoldenDir() + "/drafters/";
  for (const std::string name : {"dspark_vanilla", "dflash", "dspark_vanilla.own_embedding"}) {
    const std::string source = name.substr(0, name.find('.'));
    const DrafterFiles gguf = Open(golden + "gguf/" + name + ".gguf"), directory = Open(golden + source);
    const DrafterConfig &a = gguf.config, &b = directory.config;
    EXPECT_TRUE(LooksLikeDrafter(golden + "gguf/" + name + ".gguf"));
    EXPECT_EQ(a.taps, b.taps);
    EXPECT_EQ(a.block_size, b.block_size);
    EXPECT_EQ(a.anchor_first, b.anchor_first);
    EXPECT_EQ(a.mask_token, b.mask_token);
    EXPECT_EQ(a.markov, b.markov);
    EXPECT_EQ(a.markov_rank, b.markov_rank);
    EXPECT_EQ(a.confidence_with_markov, b.confidence_with_markov);
    EXPECT_EQ(a.target_vocab, b.target_vocab);
    EXPECT_EQ(a.target_width, b.target_width);
    EXPECT_EQ(a.backbone.head_dim, b.backbone.head_dim);
    EXPECT_EQ(a.backbone.rope_theta, b.backbone.rope_theta);
    EXPECT_EQ(a.backbone.rope_interleaved, b.backbone.rope_interleaved);
    EXPECT_FALSE(a.own_head);  // the target's, never the file's token_embd
    EXPECT_EQ(a.own_embedding, name != source);
    for (const auto& [tensor, shape] : DrafterShapes(a)) {
      EXPECT_TRUE(
          std::ranges::equal(gguf.weights->Find(tensor)->bytes, directory.weights->Find(tensor)->bytes))
          << tensor;
    }
  }
  EXPECT_FALSE(LooksLikeDrafter(golden + "gguf/target_qwen3.gguf"));
}

}  // namespace
}  // namespace dspark
