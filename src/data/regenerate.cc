#include "data/regenerate.h"

#include <sys/stat.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <unordered_map>

#include "core/clock.h"
#include "core/rng.h"
#include "data/conversation.h"
#include "data/line_reader.h"
#include "data/output_settings.h"
#include "data/regenerate_log.h"

namespace dspark {
namespace {

using Json = nlohmann::ordered_json;  // keeps the fields of a row in their order

struct Row {
  std::string id;         // as JSON text
  bool numbered = false;  // it has no id of its own
  std::string line;
  Json object;
};

// The rows of a file, one after the other.
class Rows {
 public:
  static Result<Rows> Open(const RegenerateOptions& options) {
    DSPARK_ASSIGN_OR_RETURN(LineReader reader, LineReader::Open(options.in));
    return Rows(std::move(reader), options.max_samples);
  }

  // Nothing at the end. Error: a line that cannot be read or is no object.
  Result<std::optional<Row>> Next() {
    Row row;
    do {
      if (max_ > 0 && number_ >= max_) return std::optional<Row>();
      DSPARK_ASSIGN_OR_RETURN(const bool more, reader_.Next(&row.line));
      if (!more) return std::optional<Row>();
    } while (row.line.find_first_not_of(" \t\r") == std::string::npos);
    row.object = Json::parse(row.line, nullptr, false);
    if (!row.object.is_object())
      return MakeError("{}: not a JSON object; mend or remove the line", reader_.where());
    Json& id = row.object["id"];
    row.numbered = id.is_null();
    if (row.numbered) id = number_;
    if (!IsRowId(id)) {
      return MakeError("{}: id {} is neither a text nor a whole number of 64 bits; mend or remove it",
                       reader_.where(), id.dump());
    }
    row.id = id.dump();
    ++number_;
    return std::optional<Row>(std::move(row));
  }
  std::string where() const { return reader_.where(); }

 private:
  Rows(LineReader reader, int64_t max) : reader_(std::move(reader)), max_(max) {}
  LineReader reader_;
  int64_t max_, number_ = 0;
};

bool IsSameFile(const std::string& a, const std::string& b) {
  struct stat first {
  }, second{};
  return stat(a.c_str(), &first) == 0 && stat(b.c_str(), &second) == 0 && first.st_dev == second.st_dev &&
         first.st_ino == second.st_ino;
}

// Nothing to do would leave an empty output.
Status CheckNotEmpty(const std::string& path) {
  DSPARK_ASSIGN_OR_RETURN(LineReader reader, LineReader::Open(path));
  std::string line;
  DSPARK_ASSIGN_OR_RETURN(const bool any, reader.Next(&line));
  if (any) return {};
  return MakeError("{}: holds no conversations; give JSON lines, one for each", path);
}

// One conversation under way.
struct Walk {
  Row row;
  std::vector<ChatMessage> before;   // of the row
  size_t next = 0;                   // in `before`: the first message that is not in `history`
  std::vector<ChatMessage> history;  // with the new replies
  Json conversations = Json::array(), finish_reasons = Json::array();
  int replies = 0, cut = 0;
};

void Add(Walk& walk, ChatMessage message, const std::string& thinking = "") {
  Json json{{"role", message.role}, {"content", message.content}};
  if (!thinking.empty()) json["thinking"] = thinking;
  walk.conversations.push_back(std::move(json));
  walk.history.push_back(std::move(message));
}

// Goes on to the next user's message, which wants a reply. False: there is none left.
bool Advance(Walk& walk) {
  while (walk.next < walk.before.size()) {
    ChatMessage& message = walk.before[walk.next++];
    if (message.role == "assistant") continue;
    const bool asks = message.role == "user";
    Add(walk, std::move(message));
    if (asks) return true;
  }
  return false;
}

// Whatever bytes a backend gave, a line is UTF-8.
std::string Line(const Json& object) { return object.dump(-1, ' ', false, Json::error_handler_t::replace); }

class Regenerator {
 public:
  Regenerator(const RegenerateOptions& options, ChatBackend& backend, RegenerateLog log, Rows rows)
      : options_(options), backend_(backend), log_(std::move(log)), rows_(std::move(rows)) {}

  // What there is to do. Error: a row that is no object, or an id that was there before.
  Status Count() {
    std::unordered_map<std::string, bool> numbered;  // by id
    DSPARK_ASSIGN_OR_RETURN(Rows rows, Rows::Open(options_));
    while (true) {
      DSPARK_ASSIGN_OR_RETURN(const auto row, rows.Next());
      if (!row) return {};
      const auto [at, is_new] = numbered.try_emplace(row->id, row->numbered);
      if (!is_new && (row->numbered || at->second)) {
        return MakeError("{}: id {} of a row is also the number of one without an id; give every row an id",
                         rows.where(), row->id);
      }
      if (!is_new)
        return MakeError("{}: id {} was on an earlier line; make ids unique", rows.where(), row->id);
      ++(Skips(row->id) ? progress_.skipped : progress_.total);
    }
  }

  Result<RegenerateProgress> Run(FunctionRef<bool()> stop,
                                 FunctionRef<void(const RegenerateProgress&)> report) {
    const double start = NowMs();
    while (!(progress_.stopped = stop())) {
      while (!at_end_ && backend_.HasRoom()) DSPARK_RETURN_IF_ERROR(Begin());
      if (walks_.empty()) break;
      const auto replies = backend_.Poll();
      if (!replies) {
        DSPARK_RETURN_IF_ERROR(log_.Finish());
        return replies.error();
      }
      for (const ChatReply& reply : *replies) DSPARK_RETURN_IF_ERROR(Take(reply));
      progress_.tokens = backend_.tokens();
      progress_.elapsed_ms = NowMs() - start;
      report(progress_);
    }
    DSPARK_RETURN_IF_ERROR(log_.Finish());
    return progress_;
  }

 private:
  bool Skips(const std::string& id) const {
    return log_.Succeeded(id) || (!options_.retry_errors && log_.Failed(id));
  }

  // Begins the next conversation that is not done yet.
  Status Begin() {
    DSPARK_ASSIGN_OR_RETURN(auto row, rows_.Next());
    at_end_ = !row;
    if (at_end_ || Skips(row->id)) return {};
    Walk walk{.row = std::move(*row), .before = {}, .history = {}};
    auto conversation = ParseConversation(walk.row.line);
    if (!conversation) return Fail(walk, conversation.error().text);
    walk.before = std::move(conversation->messages);
    if (!options_.system.empty() && walk.before.front().role != "system")
      Add(walk, {"system", options_.system});
    Advance(walk);  // there is a user's message
    const int64_t ticket = next_ticket_++;
    Ask(ticket, walk);
    walks_.emplace(ticket, std::move(walk));
    return {};
  }

  void Ask(int64_t ticket, const Walk& walk) {
    backend_.Submit({.ticket = ticket,
                     .messages = walk.history,
                     .seed = ReplySeed(options_.seed, walk.row.id, walk.replies)});
  }

  Status Take(const ChatReply& reply) {
    const auto at = walks_.find(reply.ticket);
    DSPARK_CHECK(at != walks_.end());
    Walk& walk = at->second;
    std::string error = reply.error;
    if (error.empty() && reply.content.empty()) error = fmt::format("reply {} is empty", walk.replies);
    if (error.empty()) {
      Add(walk, {"assistant", reply.content}, reply.thinking);
      walk.finish_reasons.push_back(reply.finish_reason);
      ++walk.replies;
      walk.cut += reply.finish_reason == "length";
      if (Advance(walk)) {
        Ask(reply.ticket, walk);
        return {};
      }
    }
    const Walk done = std::move(walk);
    walks_.erase(at);
    return error.empty() ? Succeed(done) : Fail(done, error);
  }

  Status Succeed(const Walk& walk) {
    Json object = walk.row.object;
    object.erase("messages");
    object.erase("error");
    object["conversations"] = walk.conversations;
    object["status"] = "success";
    object["finish_reasons"] = walk.finish_reasons;
    ++progress_.succeeded;
    progress_.replies += walk.replies;
    progress_.cut += walk.cut;
    return log_.AddSuccess(walk.row.id, Line(object));
  }

  Status Fail(const Walk& walk, const std::string& error) {
    Json object = walk.row.object;
    object["status"] = "error";
    object["error"] = error;
    ++progress_.failed;
    return log_.AddFailure(walk.row.id, Line(object));
  }

  const RegenerateOptions& options_;
  ChatBackend& backend_;
  RegenerateLog log_;
  Rows rows_;
  bool at_end_ = false;  // of rows_
  int64_t next_ticket_ = 0;
  std::map<int64_t, Walk> walks_;  // by ticket
  RegenerateProgress progress_;
};

}  // namespace

std::string ErrorPath(const std::string& out) {
  const std::string suffix = ".jsonl";
  return out.substr(0, out.size() - (out.ends_with(suffix) ? suffix.size() : 0)) + "_error.jsonl";
}

uint64_t ReplySeed(uint64_t seed, const std::string& id, int turn) {
  uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
  for (const char c : id) hash = (hash ^ uint8_t(c)) * 0x100000001b3;
  const auto mixed = Philox4x32({uint32_t(hash), uint32_t(hash >> 32), uint32_t(turn), 0},
                                {uint32_t(seed), uint32_t(seed >> 32)});
  return uint64_t(mixed[0]) << 32 | mixed[1];
}

Result<RegenerateProgress> Regenerate(const RegenerateOptions& options, ChatBackend& backend,
                                      FunctionRef<bool()> stop,
                                      FunctionRef<void(const RegenerateProgress&)> progress) {
  DSPARK_ASSIGN_OR_RETURN(Rows rows, Rows::Open(options));
  for (const std::string& path : {options.out, ErrorPath(options.out), SettingsPath(options.out)}) {
    if (IsSameFile(options.in, path)) {
      return MakeError("{}: is read and written at once; give --out another name", options.in);
    }
  }
  DSPARK_RETURN_IF_ERROR(CheckNotEmpty(options.in));
  DSPARK_RETURN_IF_ERROR(CheckSettingsFile(options.out));  // before `out` is made
  DSPARK_ASSIGN_OR_RETURN(RegenerateLog log, RegenerateLog::Open(options.out));
  std::error_code ignored;
  if (std::filesystem::is_regular_file(options.out, ignored)) {  // not beside a pipe
    Json settings = options.settings;
    settings["seed"] = options.seed;
    settings["system"] = options.system;
    DSPARK_RETURN_IF_ERROR(KeepSettings(options.out, settings, log.Begun()));
  }
  Regenerator regenerator(options, backend, std::move(log), std::move(rows));
  DSPARK_RETURN_IF_ERROR(regenerator.Count());
  return regenerator.Run(stop, progress);
}

}  // namespace dspark
