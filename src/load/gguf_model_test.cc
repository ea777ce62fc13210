#include "load/gguf_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "load/gguf_tokenizer.h"
#include "tiny_gguf.h"

namespace dspark {
namespace {

using test::Bytes;
using test::GgufBuilder;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Keeps the file alive as long as what points into it.
struct Parsed {
  explicit Parsed(const GgufBuilder& builder)
      : file(builder.Build()),
        gguf(ParseGguf({reinterpret_cast<const uint8_t*>(file.data()), file.size()}, "x.gguf").value()) {}
  std::string file;
  Gguf gguf;
};

TEST(GgufModel, ReadsTheWholeConfiguration) {
  const Parsed parsed(test::BuildTinyLlama(1, {.rope_theta = 5e5f, .tied = false, .rope_freqs = true}));
  const auto c = ConfigFromGguf(parsed.gguf);
  ASSERT_TRUE(c.ok()) << c.error().text;
  EXPECT_EQ(c->architecture, "llama");
  EXPECT_EQ(c->name, "tiny test model");
  EXPECT_EQ(c->layers, 2);
  EXPECT_EQ(c->d_model, 64);
  EXPECT_EQ(c->heads, 4);
  EXPECT_EQ(c->kv_heads, 2);
  EXPECT_EQ(c->head_dim, 16);
  EXPECT_EQ(c->d_ffn, 128);
  EXPECT_EQ(c->vocab, 295);
  EXPECT_EQ(c->max_context, 512);
  EXPECT_FLOAT_EQ(c->rms_eps, 1e-5f);
  EXPECT_EQ(c->rope_theta, 5e5f);
  EXPECT_TRUE(c->rope_interleaved);
  EXPECT_FALSE(c->tied_embeddings);
  EXPECT_THAT(c->rope_freq_divisors, ElementsAre(1, 1, 1, 1, 8, 8, 8, 8));
  EXPECT_THAT(c->eos, ElementsAre(2));
  EXPECT_EQ(c->bos, 1);
}

TEST(GgufModel, FillsInWhatConvertersLeaveOut) {
  GgufBuilder b = test::BuildTinyLlama(1);
  for (const char* key : {"llama.attention.key_length", "llama.rope.dimension_count", "llama.rope.freq_base",
                          "llama.vocab_size", "general.name", "tokenizer.ggml.bos_token_id"}) {
    b.Remove(key);
  }
  const Parsed parsed(b);
  const auto c = ConfigFromGguf(parsed.gguf);
  ASSERT_TRUE(c.ok()) << c.error().text;
  EXPECT_EQ(c->head_dim, 16);
  EXPECT_EQ(c->rope_theta, 10000);
  EXPECT_EQ(c->bos, std::nullopt);
  EXPECT_TRUE(c->tied_embeddings);
  EXPECT_TRUE(c->rope_freq_divisors.empty());
}

TEST(GgufModel, EveryEndTokenEndsAReply) {
  GgufBuilder b = test::BuildTinyLlama(1);
  b.U32("tokenizer.ggml.eos_token_id", 0);
  b.U32("tokenizer.ggml.eot_token_id", 1);
  EXPECT_THAT(ConfigFromGguf(Parsed(b).gguf)->eos, ElementsAre(0, 1, 2));  // 2 is <|im_end|>
  std::vector<int32_t> types = test::MakeTinyVocabulary().types;
  types[2] = 1;  // now <|im_end|> is ordinary text
  b.I32s("tokenizer.ggml.token_type", types);
  b.Remove("tokenizer.ggml.eot_token_id");
  EXPECT_THAT(ConfigFromGguf(Parsed(b).gguf)->eos, ElementsAre(0));
}

struct Broken {
  const char* name;
  std::function<void(GgufBuilder&)> break_it;
  const char* message;
};

const Broken kBrokenModels[] = {
    {"architecture", [](auto& b) { b.String("general.architecture", "mamba"); },
     "architecture mamba is not supported; this build runs llama"},
    {"no architecture", [](auto& b) { b.Remove("general.architecture"); }, "general.architecture is missing"},
    {"no layers", [](auto& b) { b.Remove("llama.block_count"); }, "llama.block_count is missing"},
    {"0 layers", [](auto& b) { b.U32("llama.block_count", 0); }, "llama.block_count is 0, not a size"},
    {"layers kind", [](auto& b) { b.F32("llama.block_count", 2); }, "llama.block_count is of type f32"},
    {"huge context", [](auto& b) { b.U32("llama.context_length", ~0u); },
     "llama.context_length is 4294967295"},
    {"huge width", [](auto& b) { b.U32("llama.feed_forward_length", 1u << 30); },
     "feed-forward size is 1073741824"},
    {"kv heads", [](auto& b) { b.U32("llama.attention.head_count_kv", 3); },
     "4 heads cannot share 3 KV heads"},
    {"odd heads",
     [](auto& b) {
       b.U32("llama.attention.key_length", 15), b.U32("llama.rope.dimension_count", 15);
       b.tensors.pop_back();
     },
     "head size 15 is odd"},
    {"heads per width",
     [](auto& b) { b.Remove("llama.attention.key_length"), b.U32("llama.attention.head_count", 6); },
     "64 values cannot be split into 6 heads"},
    {"many heads", [](auto& b) { b.U32("llama.attention.head_count", 1 << 24); },
     "16777216 heads of size 16"},
    {"rope dims", [](auto& b) { b.U32("llama.rope.dimension_count", 8); },
     "only the head size 16 is supported"},
    {"value length", [](auto& b) { b.U32("llama.attention.value_length", 32); }, "only the head size 16"},
    {"experts", [](auto& b) { b.U32("llama.expert_count", 8); }, "a mixture of 8 experts"},
    {"eps", [](auto& b) { b.F32("llama.attention.layer_norm_rms_epsilon", -1); }, "RMS norm epsilon is -1"},
    {"theta", [](auto& b) { b.F32("llama.rope.freq_base", NAN); }, "rope base frequency is nan"},
    {"scaling", [](auto& b) { b.String("llama.rope.scaling.type", "yarn"); },
     "llama.rope.scaling.type is yarn"},
    {"divisor count", [](auto& b) { b.TensorNamed("rope_freqs.weight").ne = {4}; },
     "rope_freqs.weight is not 8 F32"},
    {"divisor 0", [](auto& b) { b.TensorNamed("rope_freqs.weight").data.assign(32, '\0'); }, "divisor is 0"},
    {"eos", [](auto& b) { b.U32("tokenizer.ggml.eos_token_id", 295); },
     "token 295 is outside the vocabulary of 295"},
    {"bos", [](auto& b) { b.Set("tokenizer.ggml.bos_token_id", test::kGgufI32, Bytes<int32_t>(-1)); },
     "tokenizer.ggml.bos_token_id is -1, not a token id"},
    {"no embedding", [](auto& b) { b.TensorNamed("token_embd.weight").name = "x"; },
     "token_embd.weight is missing"},
};

TEST(GgufModel, BrokenModelsEndInOneLineThatNamesTheKey) {
  for (const Broken& broken : kBrokenModels) {
    GgufBuilder b = test::BuildTinyLlama(1, {.rope_freqs = true});
    broken.break_it(b);
    const Parsed parsed(b);
    const auto config = ConfigFromGguf(parsed.gguf);
    ASSERT_FALSE(config.ok()) << broken.name;
    EXPECT_THAT(config.error().text, HasSubstr(broken.message)) << broken.name;
    EXPECT_THAT(config.error().text, ::testing::StartsWith("x.gguf: ")) << broken.name;
  }
}

TEST(GgufTokenizer, SortsTokensByType) {
  GgufBuilder b = test::BuildTinyLlama(1);
  std::vector<int32_t> types = test::MakeTinyVocabulary().types;
  types[292] = 4;
  types[294] = 5;
  b.I32s("tokenizer.ggml.token_type", types);
  const Parsed parsed(b);
  const auto spec = TokenizerSpecFromGguf(parsed.gguf);
  ASSERT_TRUE(spec.ok()) << spec.error().text;
  ASSERT_TRUE(spec->has_value());
  EXPECT_EQ((*spec)->tokens.size(), 295u);
  EXPECT_EQ((*spec)->tokens[3], "Ā");
  EXPECT_EQ((*spec)->tokens[294], "");
  EXPECT_EQ((*spec)->merges.size(), 36u);
  EXPECT_EQ((*spec)->merges[6], "Ġt he");
  ASSERT_EQ((*spec)->added.size(), 4u);
  EXPECT_EQ((*spec)->added[1].text, "<|im_start|>");
  EXPECT_EQ((*spec)->added[1].id, 1);
  EXPECT_TRUE((*spec)->added[1].special);
  EXPECT_EQ((*spec)->added[3].id, 292);
  EXPECT_FALSE((*spec)->added[3].special);
}

TEST(GgufTokenizer, KnowsThePreTokenizers) {
  const struct {
    const char* name;
    PreTokenizer pre;
    bool ignore_merges, nfc;
  } known[] = {
      {"smollm", PreTokenizer::kSmolLm, false, false},   {"gpt2", PreTokenizer::kGpt2, false, false},
      {"llama-bpe", PreTokenizer::kLlama3, true, false}, {"llama3", PreTokenizer::kLlama3, true, false},
      {"llama-v3", PreTokenizer::kLlama3, true, false},  {"qwen2", PreTokenizer::kQwen2, false, true}};
  for (const auto& expected : known) {
    GgufBuilder b = test::BuildTinyLlama(1);
    b.String("tokenizer.ggml.pre", expected.name);
    const Parsed parsed(b);
    const auto spec = TokenizerSpecFromGguf(parsed.gguf);
    ASSERT_TRUE(spec.ok()) << spec.error().text;
    EXPECT_EQ((*spec)->pre, expected.pre);
    EXPECT_EQ((*spec)->ignore_merges, expected.ignore_merges);
    EXPECT_EQ((*spec)->nfc, expected.nfc);
  }
}

TEST(GgufTokenizer, AFileWithoutATokenizerHasNone) {
  const Parsed parsed(test::BuildTinyLlama(1, {.tokenizer = false}));
  const auto spec = TokenizerSpecFromGguf(parsed.gguf);
  ASSERT_TRUE(spec.ok());
  EXPECT_FALSE(spec->has_value());
}

const Broken kBrokenTokenizers[] = {
    {"model", [](auto& b) { b.String("tokenizer.ggml.model", "llama"); },
     "tokenizer.ggml.model is llama; supported is gpt2"},
    {"pre", [](auto& b) { b.String("tokenizer.ggml.pre", "default"); },
     "tokenizer.ggml.pre is default; supported are smollm, gpt2, llama-bpe and qwen2"},
    {"no pre", [](auto& b) { b.Remove("tokenizer.ggml.pre"); }, "tokenizer.ggml.pre is (missing)"},
    {"no tokens", [](auto& b) { b.Remove("tokenizer.ggml.tokens"); }, "tokenizer.ggml.tokens is missing"},
    {"token kind", [](auto& b) { b.I32s("tokenizer.ggml.tokens", {1}); }, "expected an array of string"},
    {"no merges", [](auto& b) { b.Remove("tokenizer.ggml.merges"); }, "tokenizer.ggml.merges is missing"},
    {"types",
     [](auto& b) {
       b.I32s("tokenizer.ggml.token_type", {1, 1});
     },
     "295 entries but"},
    {"type 9", [](auto& b) { b.I32s("tokenizer.ggml.token_type", std::vector<int32_t>(295, 9)); },
     "token 0 has the unknown type 9"},
};

TEST(GgufTokenizer, BrokenTokenizersEndInOneLineThatNamesTheKey) {
  for (const Broken& broken : kBrokenTokenizers) {
    GgufBuilder b = test::BuildTinyLlama(1);
    broken.break_it(b);
    const Parsed parsed(b);
    const auto spec = TokenizerSpecFromGguf(parsed.gguf);
    ASSERT_FALSE(spec.ok()) << broken.name;
    EXPECT_THAT(spec.error().text, HasSubstr(broken.message)) << broken.name;
  }
}

}  // namespace
}  // namespace dspark
