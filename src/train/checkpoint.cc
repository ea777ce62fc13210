#include "train/checkpoint.h"

#include <filesystem>

#include "core/atomic_file.h"
#include "core/mapped_file.h"
#include "load/drafter_json.h"
#include "load/drafter_tensors.h"
#include "load/json_file.h"
#include "load/safetensors.h"
#include "load/tensor_file_header.h"
#include "train/checkpoint_dir.h"

namespace dspark {
namespace {

namespace fs = std::filesystem;
using torch::Tensor;

struct NamedTensor {
  std::string name;
  Tensor values;  // on the CPU
};

TensorType TypeOf(const Tensor& t) {
  if (t.scalar_type() == torch::kInt64) return TensorType::kI64;
  return t.scalar_type() == torch::kBFloat16 ? TensorType::kBF16 : TensorType::kF32;
}

Status WriteTensors(std::vector<NamedTensor> tensors, const std::string& path) {
  std::vector<TensorHeader> headers;
  for (NamedTensor& t : tensors) {
    t.values = t.values.contiguous();
    headers.push_back({t.name, TypeOf(t.values), t.values.sizes().vec()});
  }
  DSPARK_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  file.Write(SafetensorsHeader(headers));
  for (const NamedTensor& t : tensors)
    file.Write({static_cast<const uint8_t*>(t.values.data_ptr()), t.values.nbytes()});
  return file.Commit();
}

Status WriteText(const std::string& text, const std::string& path) {
  DSPARK_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  file.Write(text);
  return file.Commit();
}

// model.safetensors: with the embedding and head that the form wants, too.
Result<std::vector<NamedTensor>> ModelTensors(const Checkpoint& c) {
  DSPARK_ASSIGN_OR_RETURN(const FrozenWeights frozen, LoadFrozen(c.target, c.config, c.stored));
  std::vector<NamedTensor> tensors;
  const auto add = [&](const std::string& name, const Tensor& values) {
    tensors.push_back({CheckpointTensorName(c.config, name), values});
  };
  if (c.config.own_embedding) add("token_embd.weight", frozen.embedding);
  if (c.config.own_head) add("output.weight", frozen.head.narrow(0, 0, c.config.backbone.vocab));
  for (const Parameter& p : c.parameters.all()) add(DrafterTensorName(p.name), p.master.cpu().to(c.stored));
  if (!c.config.draft_to_target.empty()) {  // as differences to the row, SpecForge's way
    std::vector<int64_t> offsets;
    for (size_t i = 0; i < c.config.draft_to_target.size(); ++i)
      offsets.push_back(c.config.draft_to_target[i] - int64_t(i));
    add("d2t", torch::tensor(offsets));
  }
  return tensors;
}

// Every tensor that a run goes on from, with its name there.
std::vector<NamedTensor> StateTensors(const Checkpoint& c) {
  std::vector<NamedTensor> tensors;
  for (size_t i = 0; i < c.parameters.all().size(); ++i) {
    const Parameter& p = c.parameters.all()[i];
    tensors.push_back({"master." + p.name, p.master});
    tensors.push_back({"first." + p.name, c.adam.first[i]});
    tensors.push_back({"second." + p.name, c.adam.second[i]});
  }
  return tensors;
}

Status WriteFiles(const Checkpoint& c, const nlohmann::ordered_json& training, const std::string& dir) {
  DSPARK_ASSIGN_OR_RETURN(std::vector<NamedTensor> model, ModelTensors(c));
  nlohmann::ordered_json config =
      DeepSpecConfig(c.config, c.stored == torch::kFloat32 ? TensorType::kF32 : TensorType::kBF16);
  config.update(c.training_keys);
  DSPARK_RETURN_IF_ERROR(WriteText(config.dump(2) + "\n", dir + "/config.json"));
  DSPARK_RETURN_IF_ERROR(WriteTensors(std::move(model), dir + "/model.safetensors"));
  std::vector<NamedTensor> state = StateTensors(c);
  for (NamedTensor& t : state) t.values = t.values.cpu();
  DSPARK_RETURN_IF_ERROR(WriteTensors(std::move(state), dir + "/training.safetensors"));
  return WriteText(training.dump(2) + "\n", dir + "/training.json");
}

}  // namespace

Status SaveCheckpoint(const Checkpoint& checkpoint, const nlohmann::ordered_json& training, int64_t step,
                      int kept, const std::string& dir) {
  const std::string name = fmt::format("step_{}", step), staging = dir + "/" + name + ".tmp";
  std::error_code error;
  fs::remove_all(staging, error);  // of a process that died
  fs::create_directories(staging, error);
  if (error) return MakeError("{}: cannot be made: {}", staging, error.message());
  DSPARK_RETURN_IF_ERROR(WriteFiles(checkpoint, training, staging));
  fs::remove_all(dir + "/" + name, error);
  fs::rename(staging, dir + "/" + name, error);
  if (error) return MakeError("{}/{}: cannot be written: {}", dir, name, error.message());
  const std::string link = dir + "/step_latest";
  fs::remove(link + ".tmp", error);
  fs::create_directory_symlink(name, link + ".tmp", error);
  if (!error) fs::rename(link + ".tmp", link, error);
  if (error) return MakeError("{}: cannot be written: {}", link, error.message());
  RemoveOldCheckpoints(dir, step, kept);
  return {};
}

Result<nlohmann::json> ReadTrainingJson(const std::string& dir) {
  DSPARK_ASSIGN_OR_RETURN(const std::string step, FindCheckpoint(dir));
  if (step.empty()) return nlohmann::json();
  return ReadJsonObject(step + "/training.json");
}

std::vector<torch::Tensor> RunningState(const Checkpoint& checkpoint) {
  std::vector<Tensor> state;
  for (const NamedTensor& t : StateTensors(checkpoint)) state.push_back(t.values);
  return state;
}

Status LoadCheckpoint(const Checkpoint& checkpoint, const std::string& dir) {
  const at::NoGradGuard no_grad;
  DSPARK_ASSIGN_OR_RETURN(const std::string step, FindCheckpoint(dir));
  const std::string path = step + "/training.safetensors";
  DSPARK_ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(path));
  DSPARK_ASSIGN_OR_RETURN(const Safetensors stored, ParseSafetensors(file.bytes(), path));
  for (NamedTensor& t : StateTensors(checkpoint)) {
    const SafeTensor* found = stored.Find(t.name);
    if (!found || found->type != TensorType::kF32 || t.values.sizes() != at::IntArrayRef(found->shape)) {
      return MakeError("{}: tensor {} is missing or has another shape; start anew in another directory", path,
                       t.name);
    }
    Tensor values = torch::empty(found->shape);
    std::memcpy(values.data_ptr(), found->bytes.data(), found->bytes.size());
    t.values.copy_(values);
  }
  checkpoint.parameters.RefreshLow();
  return {};
}

}  // namespace dspark
