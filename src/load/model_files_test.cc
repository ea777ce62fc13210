#include "load/model_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "golden_tensors.h"
#include "load/hf_weights.h"
#include "load/model_listing.h"
#include "temp_dir.h"
#include "test_data.h"
#include "tiny_gguf.h"

namespace dspark {
namespace {

namespace fs = std::filesystem;
using test::WriteFile;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string EmptyDir(const std::string& name) {
  static const test::TempDir root;
  const std::string dir = root.path() + "/" + name;
  fs::remove_all(dir);
  fs::create_directories(dir);
  return dir;
}

std::string ErrorOf(const std::string& path) {
  const auto model = OpenModel(path);
  return model.ok() ? "" : model.error().text;
}

TEST(OpenModel, ATinyGgufOfEveryType) {
  const std::string dir = EmptyDir("tiny");
  for (const TensorType type : {TensorType::kF32, TensorType::kF16, TensorType::kBF16, TensorType::kQ4_0,
                                TensorType::kQ4_1, TensorType::kQ8_0}) {
    const std::string path =
        test::WriteTinyLlamaGguf(dir, 1, {.matrices = type, .embedding = type, .tied = false});
    const auto model = OpenModel(path);
    ASSERT_TRUE(model.ok()) << model.error().text;
    const TensorView* down = model->weights->Find("blk.1.ffn_down.weight");
    ASSERT_NE(down, nullptr);
    EXPECT_EQ(down->type, type);
    EXPECT_THAT(down->shape, ElementsAre(64, 128));
    EXPECT_EQ(model->weights->Find("blk.2.ffn_down.weight"), nullptr);
    EXPECT_EQ(model->weights->path(), path);
    EXPECT_EQ(model->chat_template, test::kTinyChatTemplate);
    // What Release gave back is read again from the file.
    const std::vector<uint8_t> before(down->bytes.begin(), down->bytes.end());
    model->weights->Release(*down);
    EXPECT_TRUE(std::ranges::equal(before, down->bytes));
  }
}

TEST(OpenModel, ATinyGgufHasAWorkingTokenizer) {
  const auto model = OpenModel(test::WriteTinyLlamaGguf(EmptyDir("tokenizer"), 1));
  ASSERT_TRUE(model.ok()) << model.error().text;
  ASSERT_NE(model->tokenizer, nullptr);
  EXPECT_EQ(model->tokenizer->vocab(), model->config.vocab);
  const std::string text = "<|im_start|>user\nthe hen and \xc3\xa9\x80";
  const auto ids = model->tokenizer->Encode(text, true);
  EXPECT_EQ(ids[0], 1);
  EXPECT_LT(ids.size(), 20u);
  EXPECT_EQ(model->tokenizer->Decode(ids, false), "<|im_start|>user\nthe hen and \xc3\xa9\xef\xbf\xbd");
}

TEST(OpenModel, AGgufWithoutATokenizerOpens) {
  const auto model = OpenModel(test::WriteTinyLlamaGguf(EmptyDir("no_tokenizer"), 1, {.tokenizer = false}));
  ASSERT_TRUE(model.ok()) << model.error().text;
  EXPECT_EQ(model->tokenizer, nullptr);
  EXPECT_EQ(model->chat_template, "");
}

TEST(OpenModel, TensorsMustBeThoseOfALlama) {
  const std::string dir = EmptyDir("tensors");
  const auto error_with = [&](auto&& break_it) {
    test::GgufBuilder b = test::BuildTinyLlama(1);
    break_it(b);
    return ErrorOf(WriteFile(dir + "/x.gguf", b.Build()));
  };
  EXPECT_EQ(error_with([](auto&) {}), "");
  EXPECT_THAT(error_with([](auto& b) { b.tensors.pop_back(); }),
              HasSubstr("x.gguf: tensor output_norm.weight is missing; the file is not a complete model"));
  EXPECT_THAT(
      error_with([](auto& b) {
        b.TensorNamed("blk.1.attn_k.weight").ne = {32, 64};
      }),
      HasSubstr("tensor blk.1.attn_k.weight has shape [64, 32], the configuration asks for [32, 64]"));
  EXPECT_THAT(error_with([](auto& b) {
                b.tensors.push_back({"blk.0.attn_q.bias", 0, {1}, "1234", {}});
              }),
              HasSubstr("tensor blk.0.attn_q.bias does not belong to a dense llama model"));
  EXPECT_THAT(error_with([](auto& b) { b.U32("llama.block_count", 1 << 20); }),
              HasSubstr("1048576 layers but only 20 tensors"));
  EXPECT_THAT(error_with([](auto& b) {
                auto& norm = b.TensorNamed("output_norm.weight");
                norm.type = uint32_t(TensorType::kI64), norm.data.assign(64 * 8, 0);
              }),
              HasSubstr("tensor output_norm.weight holds I64 values"));
  EXPECT_THAT(error_with([](auto& b) {
                auto& embedding = b.TensorNamed("token_embd.weight");
                embedding.ne[1] = 290;
              }),
              HasSubstr("295 tokens but only 290 rows in the embedding"));
}

TEST(OpenModel, OtherPathsEndInOneLine) {
  const std::string dir = EmptyDir("other");
  EXPECT_THAT(ErrorOf(dir), HasSubstr("no config.json in this directory"));
  EXPECT_THAT(ErrorOf(dir + "/absent.gguf"), HasSubstr("absent.gguf: cannot open"));
  EXPECT_THAT(ErrorOf(WriteFile(dir + "/text", "hello")), HasSubstr("neither a GGUF file nor"));
  EXPECT_THAT(ErrorOf(WriteFile(dir + "/empty", "")), HasSubstr("the file is empty"));
}

// Divisors of the pairs' frequencies, worked out by hand for theta 1e4, head size 24, factor 8, low 1, high
// 4, 64 positions: wavelengths below 16 are kept, above 64 divided by 8.
TEST(RopeFreqDivisors, KeepShortWavesAndStretchLongOnes) {
  const auto divisors =
      RopeFreqDivisors({.factor = 8, .low = 1, .high = 4, .original_context = 64}, 1e4f, 24);
  ASSERT_EQ(divisors.size(), 12u);
  EXPECT_EQ(divisors[0], 1);                // 2 pi = 6.28
  EXPECT_EQ(divisors[1], 1);                // 13.5
  EXPECT_NEAR(divisors[2], 2.1123f, 1e-3);  // 29.16: kept (64 / 29.16 - 1) / 3 = 0.3983
  EXPECT_NEAR(divisors[3], 7.6674f, 1e-3);  // 62.83: kept 0.0062
  for (size_t i = 4; i < 12; ++i) EXPECT_EQ(divisors[i], 8);
}

class GoldenDirectory : public testing::Test {
 protected:
  void SetUp() override { DSPARK_SKIP_WITHOUT_GOLDEN("targets/llama"); }
  static std::string Path(const std::string& name) { return test::GoldenDir() + "/targets/" + name; }

  // A copy of a golden directory with config.json's text changed.
  static std::string Changed(const std::string& name, const std::string& from, const std::string& to) {
    const std::string dir = EmptyDir("changed");
    fs::create_symlink(Path(name) + "/model.safetensors", dir + "/model.safetensors");
    std::ifstream in(Path(name) + "/config.json");
    std::string config(std::istreambuf_iterator<char>(in), {});
    const size_t place = config.find(from);
    DSPARK_CHECK(place != std::string::npos);
    WriteFile(dir + "/config.json", config.replace(place, from.size(), to));
    return dir;
  }
};

TEST_F(GoldenDirectory, LlamaOpens) {
  const auto model = OpenModel(Path("llama"));
  ASSERT_TRUE(model.ok()) << model.error().text;
  const ModelConfig& c = model->config;
  EXPECT_EQ(c.layers, 4);
  EXPECT_EQ(c.d_model, 48);
  EXPECT_EQ(c.heads, 3);
  EXPECT_EQ(c.kv_heads, 1);
  EXPECT_EQ(c.head_dim, 16);
  EXPECT_EQ(c.vocab, 512);
  EXPECT_EQ(c.rope_theta, 1e5f);
  EXPECT_EQ(c.rms_eps, 1e-5f);
  EXPECT_TRUE(c.tied_embeddings);
  EXPECT_FALSE(c.rope_interleaved);
  EXPECT_TRUE(c.rope_freq_divisors.empty());
  EXPECT_THAT(c.eos, ElementsAre(2));
  EXPECT_EQ(c.bos, 1);
  EXPECT_EQ(model->tokenizer, nullptr);
  EXPECT_EQ(model->weights->Find("output.weight"), nullptr);
  // Row t of the golden embedding is row input_ids[t] of the embedding matrix.
  const test::GoldenTensors io(Path("llama") + "/io.safetensors");
  const std::vector<int32_t> ids = io.Ints("input_ids");
  const std::vector<float> expected = io.Floats("embedding");
  const TensorView* embedding = model->weights->Find("token_embd.weight");
  std::vector<float> row(48);
  for (size_t t = 0; t < ids.size(); ++t) {
    Dequantize(embedding->type, &embedding->bytes[size_t(ids[t]) * 48 * 4], 48, row.data());
    EXPECT_TRUE(std::equal(row.begin(), row.end(), expected.begin() + std::ptrdiff_t(t * 48))) << t;
  }
}

TEST_F(GoldenDirectory, LlamaWithScaledRopeOpens) {
  const auto model = OpenModel(Path("llama_rope_scaled"));
  ASSERT_TRUE(model.ok()) << model.error().text;
  EXPECT_EQ(model->config.head_dim, 24);
  EXPECT_FALSE(model->config.tied_embeddings);
  EXPECT_NE(model->weights->Find("output.weight"), nullptr);
  EXPECT_THAT(model->config.eos, ElementsAre(501, 508, 509));
  ASSERT_EQ(model->config.rope_freq_divisors.size(), 12u);
  EXPECT_EQ(model->config.rope_freq_divisors[0], 1);
  EXPECT_EQ(model->config.rope_freq_divisors[11], 8);
}

TEST_F(GoldenDirectory, TheNewerSpellingMeansTheSame) {
  const auto older = OpenModel(Path("llama_rope_scaled"));
  const auto newer = OpenModel(
      Changed("llama_rope_scaled", "\"rope_scaling\": {", "\"rope_parameters\": {\"rope_theta\": 20000.0,"));
  ASSERT_TRUE(older.ok() && newer.ok());
  EXPECT_EQ(newer->config.rope_theta, 20000);
  EXPECT_EQ(newer->config.rope_freq_divisors[11], 8);
  EXPECT_NE(newer->config.rope_freq_divisors, older->config.rope_freq_divisors);
}

TEST_F(GoldenDirectory, GenerationConfigNamesTheEndTokens) {
  const std::string dir = Changed("llama", "\"eos_token_id\": 2", "\"eos_token_id\": 3");
  EXPECT_THAT(OpenModel(dir)->config.eos, ElementsAre(3));
  WriteFile(dir + "/generation_config.json", R"({"eos_token_id": [7, 9]})");
  EXPECT_THAT(OpenModel(dir)->config.eos, ElementsAre(7, 9));
  WriteFile(dir + "/generation_config.json", R"({"eos_token_id": 5})");
  EXPECT_THAT(OpenModel(dir)->config.eos, ElementsAre(5));
  WriteFile(dir + "/generation_config.json", R"({"eos_token_id": "x"})");
  EXPECT_THAT(ErrorOf(dir),
              HasSubstr("generation_config.json: key eos_token_id is \"x\", expected a token id"));
}

TEST_F(GoldenDirectory, ChatTemplateOfADirectory) {
  const std::string dir = Changed("llama", "silu", "silu");
  WriteFile(dir + "/tokenizer_config.json", R"({"chat_template": "one"})");
  EXPECT_EQ(OpenModel(dir)->chat_template, "one");
  WriteFile(dir + "/chat_template.jinja", "two\n");
  EXPECT_EQ(OpenModel(dir)->chat_template, "two\n");
}

TEST_F(GoldenDirectory, BrokenConfigsEndInOneLineThatNamesTheKey) {
  const struct {
    const char *from, *to, *message;
  } cases[] = {
      {"LlamaForCausalLM", "MistralForCausalLM",
       "key architectures is [\"MistralForCausalLM\"], expected one of LlamaFor"},
      {"\"hidden_size\": 48", "\"hidden_size\": -48", "key hidden_size is -48, expected a size"},
      {"\"hidden_size\": 48", "\"hidden\": 48", "key hidden_size is missing, expected a size"},
      {"\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3", "4 heads cannot share 3 KV heads"},
      {"\"head_dim\": 24", "\"head_dim\": \"24\"", "key head_dim is \"24\""},
      {"\"head_dim\": 24", "\"head_dim\": 20",
       "tensor model.layers.0.self_attn.k_proj.weight has shape [48, 48]"},
      {"\"silu\"", "\"gelu\"", "key hidden_act is \"gelu\", expected silu"},
      {"\"attention_bias\": false", "\"attention_bias\": true", "key attention_bias is true"},
      {"\"rope_type\": \"llama3\"", "\"rope_type\": \"yarn\"", "rope_scaling: key rope_type is \"yarn\""},
      {"\"high_freq_factor\": 4.0", "\"high_freq_factor\": 1.0",
       "key high_freq_factor is 1.0, expected more than"},
      {"\"rope_theta\": 10000.0", "\"rope_theta\": 1e300", "key rope_theta is 1e+300"},
      {"\"rope_theta\": 10000.0", "\"rope_theta\": -1", "rope base frequency is -1"},
      {"\"rms_norm_eps\": 1e-05", "\"rms_norm_eps\": 0", "RMS norm epsilon is 0"},
      {"\"num_hidden_layers\": 3", "\"num_hidden_layers\": 4", "tensor blk.3.attn_k.weight is missing"},
      {"\"num_hidden_layers\": 3", "\"num_hidden_layers\": 2",
       "tensor model.layers.2.self_attn.k_proj.weight does not"},
      {"\"tie_word_embeddings\": false", "\"tie_word_embeddings\": 0",
       "key tie_word_embeddings is 0, expected true or"},
      {"501,", "512,", "token 512 is outside the vocabulary of 512"},
      {"{", "", "not a JSON object"},
  };
  for (const auto& c : cases) {
    const std::string error = ErrorOf(Changed("llama_rope_scaled", c.from, c.to));
    EXPECT_THAT(error, HasSubstr(c.message)) << c.to;
    EXPECT_EQ(error.find('\n'), std::string::npos);
  }
}

TEST_F(GoldenDirectory, ATiedModelsHeadIsLeftOut) {
  const auto model = OpenModel(
      Changed("llama_rope_scaled", "\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true"));
  ASSERT_TRUE(model.ok()) << model.error().text;
  EXPECT_EQ(model->weights->Find("output.weight"), nullptr);
}

TEST_F(GoldenDirectory, ShardsAreReadThroughTheIndex) {
  const std::string dir = Changed("llama", "silu", "silu");
  fs::rename(dir + "/model.safetensors", dir + "/part-1.safetensors");
  EXPECT_THAT(ErrorOf(dir), HasSubstr("neither model.safetensors nor model.safetensors.index.json"));
  WriteFile(dir + "/model.safetensors.index.json", R"({"weight_map": {"a": "part-1.safetensors"}})");
  EXPECT_EQ(ErrorOf(dir), "");
  fs::create_symlink(Path("llama") + "/model.safetensors", dir + "/part-2.safetensors");
  WriteFile(dir + "/model.safetensors.index.json",
            R"({"weight_map": {"a": "part-1.safetensors", "b": "part-2.safetensors"}})");
  EXPECT_THAT(ErrorOf(dir), HasSubstr("is also in another file"));
  WriteFile(dir + "/model.safetensors.index.json", R"({"weight_map": {"a": "../model.safetensors"}})");
  EXPECT_THAT(ErrorOf(dir), HasSubstr("tensor a is not in a file of this directory"));
}

// A Qwen3 directory of two shards, as published ones are.
class GoldenShards : public testing::Test {
 protected:
  void SetUp() override { DSPARK_SKIP_WITHOUT_GOLDEN("targets/qwen3_tied"); }
  static constexpr const char* kIndex = "/model.safetensors.index.json";
  static constexpr const char* kLast = "/model-00002-of-00002.safetensors";

  // A copy that may be broken.
  static std::string Copy() {
    const std::string dir = EmptyDir("shards");
    fs::copy(test::GoldenDir() + "/targets/qwen3_tied", dir, fs::copy_options::recursive);
    for (const auto& file : fs::directory_iterator(dir)) {
      fs::permissions(file, fs::perms::owner_write, fs::perm_options::add);
    }
    return dir;
  }
  static std::string Text(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  // The error after `from` became `to` (of equal length in a shard) in a file.
  static std::string ErrorWith(const char* file, const std::string& from, const std::string& to) {
    const std::string dir = Copy();
    std::string text = Text(dir + file);
    const size_t place = text.find(from);
    DSPARK_CHECK(place != std::string::npos);
    WriteFile(dir + file, text.replace(place, from.size(), to));
    const std::string error = ErrorOf(dir);
    EXPECT_EQ(error.find('\n'), std::string::npos);
    return error;
  }
};

TEST_F(GoldenShards, Qwen3Opens) {
  const std::string dir = test::GoldenDir() + "/targets/qwen3_tied";
  const auto model = OpenModel(dir);
  ASSERT_TRUE(model.ok()) << model.error().text;
  const ModelConfig& c = model->config;
  EXPECT_EQ(c.architecture, "qwen3");
  EXPECT_EQ(c.heads, 6);
  EXPECT_EQ(c.head_dim, 16);
  EXPECT_EQ(c.d_model, 64);
  EXPECT_EQ(c.rope_theta, 1e6f);
  EXPECT_TRUE(c.qk_norm);
  EXPECT_TRUE(c.tied_embeddings);
  EXPECT_FALSE(c.rope_interleaved);
  EXPECT_THAT(c.eos, ElementsAre(511));
  EXPECT_EQ(model->weights->Find("blk.2.attn_k_norm.weight")->shape, std::vector<int64_t>{16});
  const auto listing = ListModel(dir);
  ASSERT_TRUE(listing.ok());
  EXPECT_EQ(listing->tensors.size(), 3 * 11 + 2u);
  EXPECT_EQ(listing->file_bytes,
            fs::file_size(dir + "/model-00001-of-00002.safetensors") + fs::file_size(dir + kLast));
}

TEST_F(GoldenShards, ErrorsAreOneLine) {
  EXPECT_THAT(
      ErrorWith(kIndex, "00002-of-00002", "00003-of-00003"),
      HasSubstr("model.safetensors.index.json: the file model-00003-of-00003.safetensors is not there"));
  EXPECT_THAT(ErrorWith(kIndex, "{", "("), HasSubstr("model.safetensors.index.json: "));
  EXPECT_THAT(ErrorWith(kLast, "model.norm.weight", "model.normal.size"),
              HasSubstr("00002.safetensors: tensor model.normal.size does not belong to a dense decoder"));
  EXPECT_THAT(ErrorWith("/config.json", "\"head_dim\": 16", "\"head_dim\": 32"),
              HasSubstr("k_proj.weight has shape [48, 64], the configuration asks for [96, 64]"));
  EXPECT_THAT(ErrorWith("/config.json", "\"num_hidden_layers\": 3", "\"num_hidden_layers\": 4"),
              HasSubstr("tensor blk.3.attn_k.weight is missing"));
  EXPECT_THAT(ErrorWith("/config.json", "\"use_sliding_window\": false", "\"use_sliding_window\": true"),
              HasSubstr("key use_sliding_window is true, expected false"));
  EXPECT_THAT(ErrorWith("/config.json", "\"full_attention\"", "\"sliding_attention\""),
              HasSubstr("key layer_types is [\"sliding_attention\""));
  EXPECT_THAT(ErrorWith("/config.json", "Qwen3ForCausalLM", "LlamaForCausalLM"),
              HasSubstr("k_norm.weight does not belong to a dense llama model"));
  const std::string dir = Copy();
  fs::resize_file(dir + kLast, fs::file_size(dir + kLast) - 1);
  EXPECT_THAT(ErrorOf(dir), HasSubstr("00002-of-00002.safetensors: "));
}

TEST(OpenModel, Qwen3Gguf) {
  const test::TinyLlama shape{.architecture = "qwen3", .head_dim = 32};
  test::GgufBuilder b = test::BuildTinyLlama(1, shape);
  const std::string path = EmptyDir("qwen3") + "/x.gguf";
  const auto model = OpenModel(WriteFile(path, b.Build()));
  ASSERT_TRUE(model.ok()) << model.error().text;
  EXPECT_TRUE(model->config.qk_norm);
  EXPECT_FALSE(model->config.rope_interleaved);
  EXPECT_EQ(model->config.head_dim, 32);
  // <|endoftext|> ends a Qwen3 reply too, as its generation_config.json says.
  EXPECT_THAT(model->config.eos, ElementsAre(0, 2));
  std::erase_if(b.tensors, [](const auto& tensor) { return tensor.name == "blk.1.attn_q_norm.weight"; });
  EXPECT_THAT(ErrorOf(WriteFile(path, b.Build())), HasSubstr("tensor blk.1.attn_q_norm.weight is missing"));
  b.Remove("qwen3.attention.head_count");
  EXPECT_THAT(ErrorOf(WriteFile(path, b.Build())), HasSubstr("qwen3.attention.head_count"));
}

TEST(LlamaCppName, TranslatesOnlyLlamaNames) {
  EXPECT_EQ(LlamaCppName("model.embed_tokens.weight"), "token_embd.weight");
  EXPECT_EQ(LlamaCppName("model.layers.12.self_attn.o_proj.weight"), "blk.12.attn_output.weight");
  EXPECT_EQ(LlamaCppName("model.layers.0.post_attention_layernorm.weight"), "blk.0.ffn_norm.weight");
  EXPECT_EQ(LlamaCppName("model.layers.5.self_attn.q_norm.weight"), "blk.5.attn_q_norm.weight");
  for (const char* name :
       {"", "model.layers", "model.layers.", "model.layers.x.mlp.up_proj.weight", "model.layers.1",
        "model.layers.1.self_attn.q_proj.bias", "model.layers..mlp.up_proj.weight"}) {
    EXPECT_EQ(LlamaCppName(name), "") << name;
  }
}

}  // namespace
}  // namespace dspark
