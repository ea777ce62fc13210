#include "data/split.h"

#include <algorithm>
#include <filesystem>
#include <unordered_map>

#include "core/atomic_file.h"
#include "core/sha256.h"
#include "data/conversation.h"
#include "data/line_reader.h"
#include "data/rejected_rows.h"

namespace dspark {
namespace {

namespace fs = std::filesystem;

std::string TextOf(const Conversation& conversation, const char* key) {
  const auto it = conversation.other.find(key);
  return it != conversation.other.end() && it->is_string() ? it->get<std::string>() : "";
}

bool IsWanted(const SplitOptions& options, const Conversation& conversation) {
  const std::string domain = TextOf(conversation, "domain"), license = TextOf(conversation, "license");
  const auto in_license = [&](const std::string& part) { return license.find(part) != std::string::npos; };
  return (options.domains.empty() || std::ranges::find(options.domains, domain) != options.domains.end()) &&
         std::ranges::none_of(options.without_licenses, in_license);
}

std::string HeldOutLine(const Conversation& conversation) {
  nlohmann::ordered_json json;
  json["turns"] = nlohmann::ordered_json::array();
  for (const ChatMessage& message : conversation.messages) {
    if (message.role == "user") json["turns"].push_back(message.content);
  }
  json["id"] = conversation.id;
  if (const auto it = conversation.other.find("domain"); it != conversation.other.end()) json["domain"] = *it;
  return json.dump() + "\n";
}

std::string RejectedPath(const SplitOptions& options) { return options.out + "/split_rejected.jsonl"; }

Status CheckNotWritten(const std::vector<std::string>& inputs, const std::vector<std::string>& outputs) {
  std::error_code missing;
  for (const std::string& input : inputs) {
    for (const std::string& output : outputs) {
      if (fs::equivalent(input, output, missing))
        return MakeError("{}: would be replaced while it is read; give another --out", input);
    }
  }
  return {};
}

// One pass over the inputs, row by row into the two files.
class Splitter {
 public:
  Splitter(const SplitOptions& options, AtomicFile train, AtomicFile held_out)
      : options_(options),
        train_(std::move(train)),
        held_out_(std::move(held_out)),
        rejected_(RejectedPath(options)) {}

  Status Read(const std::string& path) {
    DSPARK_ASSIGN_OR_RETURN(LineReader reader, LineReader::Open(path));
    std::string row;
    while (!Full()) {
      DSPARK_ASSIGN_OR_RETURN(const bool more, reader.Next(&row));
      if (!more) break;
      auto conversation = ParseConversation(row);
      const Status added = conversation ? Add(*conversation) : conversation.error();
      ++index_;
      if (!clash_.empty()) return MakeError("{}: {}", reader.where(), clash_);
      if (!added) DSPARK_RETURN_IF_ERROR(rejected_.Add(reader.where(), added.error().text, row));
    }
    return {};
  }

  Result<SplitSummary> Finish() {
    DSPARK_RETURN_IF_ERROR(rejected_.Commit());
    DSPARK_RETURN_IF_ERROR(held_out_.Commit());
    DSPARK_RETURN_IF_ERROR(train_.Commit());
    summary_.rejected = rejected_.count();
    summary_.first_rejected = rejected_.first();
    return summary_;
  }

 private:
  bool Full() const {
    return options_.max_samples > 0 && summary_.train + summary_.held_out >= options_.max_samples;
  }

  // Error: the row's id is not new, so the row is rejected.
  Status Add(Conversation& conversation) {
    if (!IsWanted(options_, conversation)) {
      ++summary_.filtered;
      return {};
    }
    const bool numbered = conversation.id.is_null();
    if (numbered) conversation.id = index_;
    const std::string id = conversation.id.dump();
    const auto [at, is_new] = numbered_.try_emplace(id, numbered);
    if (!is_new && (numbered || at->second)) {
      clash_ =
          fmt::format("id {} of a row is also the number of one without an id; give every row an id", id);
      return {};
    }
    if (!is_new) return MakeError("id {} was in a row before", id);
    auto& messages = conversation.messages;
    if (!options_.keep_system && messages[0].role == "system") messages.erase(messages.begin());
    const bool held_out = IsHeldOut(options_.seed, id, options_.held_out);
    ++(held_out ? summary_.held_out : summary_.train);
    if (held_out)
      held_out_.Write(HeldOutLine(conversation));
    else
      train_.Write(ConversationLine(conversation));
    return {};
  }

  const SplitOptions& options_;
  AtomicFile train_, held_out_;
  RejectedRows rejected_;
  std::unordered_map<std::string, bool> numbered_;  // by id: whether the row had none of its own
  std::string clash_;                               // of two ids; ends the run
  SplitSummary summary_;
  int64_t index_ = 0;  // of the row, over all inputs
};

}  // namespace

bool IsHeldOut(uint64_t seed, const std::string& id, double share) {
  const std::string key = fmt::format("{}:{}", seed, id);
  const std::string digest = Sha256Hex({reinterpret_cast<const uint8_t*>(key.data()), key.size()});
  return double(std::stoull(digest.substr(0, 13), nullptr, 16)) * 0x1p-52 < share;
}

Result<SplitSummary> Split(const SplitOptions& options) {
  const std::string train = options.out + "/train.jsonl", held_out = options.out + "/held_out.jsonl";
  DSPARK_RETURN_IF_ERROR(CheckNotWritten(options.inputs, {train, held_out, RejectedPath(options)}));
  std::error_code error;
  for (const std::string& path : {train, held_out}) {
    if (!options.force && fs::exists(path, error))
      return MakeError("{}: exists already; give another --out, or --force to replace it", path);
  }
  fs::create_directories(options.out, error);
  if (error) return MakeError("{}: cannot be made: {}", options.out, error.message());
  DSPARK_ASSIGN_OR_RETURN(AtomicFile train_file, AtomicFile::Create(train));
  DSPARK_ASSIGN_OR_RETURN(AtomicFile held_out_file, AtomicFile::Create(held_out));
  Splitter splitter(options, std::move(train_file), std::move(held_out_file));
  for (const std::string& path : options.inputs) DSPARK_RETURN_IF_ERROR(splitter.Read(path));
  return splitter.Finish();
}

}  // namespace dspark
