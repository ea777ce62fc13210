// Every assistant turn of a conversation rewritten by the target (data_pipeline.md §3), so that a drafter
// learns from what the target says and not from what others said.
//
// The walk knows neither an engine nor HTTP: a ChatBackend answers. Turns of a conversation follow each
// other, conversations run at once. A reply is a function of (seed, conversation's id, turn) and of what was
// said before, so neither order nor an interruption changes the set of lines that comes out.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/function_ref.h"
#include "core/result.h"
#include "load/chat_template.h"

namespace dspark {

struct ChatCall {
  int64_t ticket = 0;                 // the caller's; comes back with the reply
  std::vector<ChatMessage> messages;  // ends with the user's
  uint64_t seed = 0;
};

struct ChatReply {
  int64_t ticket = 0;
  std::string content{};
  std::string thinking{};       // where a server gives it apart from the content
  std::string finish_reason{};  // "stop", "length" (cut at the most tokens), or what a server says
  std::string error{};          // one line; the call has failed for good and has no content
};

class ChatBackend {
 public:
  virtual ~ChatBackend() = default;
  // Whether another conversation would be worked on at once. Submit takes calls without it, too.
  virtual bool HasRoom() const = 0;
  virtual void Submit(ChatCall call) = 0;
  // Works or waits, for a fraction of a second at most, and gives the replies that are there, in any order.
  // Error: no call will be answered any more.
  virtual Result<std::vector<ChatReply>> Poll() = 0;
  // Generated so far, where known those of unfinished replies too.
  virtual int64_t tokens() const = 0;
};

struct RegenerateOptions {
  std::string in;      // JSON lines: id, conversations or messages
  std::string out;     // the same with new replies; failed conversations go to ErrorPath(out)
  std::string system;  // system message of conversations that have none; empty: they keep none
  uint64_t seed = 0;
  int64_t max_samples = 0;    // > 0: only that many first conversations of `in`
  bool retry_errors = false;  // what is in the error file is done again
  // What answers depend on beside the above: model, sampling. Kept with seed and system in SettingsPath(out);
  // an output that was begun with others is not gone on with.
  nlohmann::ordered_json settings = nlohmann::ordered_json::object();
};

// In conversations, where nothing else is said.
struct RegenerateProgress {
  int64_t total = 0;      // to be done by this call
  int64_t skipped = 0;    // were in one of the files already
  int64_t succeeded = 0;  // by this call, as all below
  int64_t failed = 0;     // now in the error file
  int64_t replies = 0;    // of those that succeeded
  int64_t cut = 0;        // replies that ended at the most tokens
  int64_t tokens = 0;     // backend.tokens()
  bool stopped = false;   // before the end, as `stop` asked
  double elapsed_ms = 0;

  int64_t Done() const { return succeeded + failed; }
};

// out with _error before .jsonl, or behind a name that does not end so.
std::string ErrorPath(const std::string& out);

// The seed of a reply. `id` as JSON text.
uint64_t ReplySeed(uint64_t seed, const std::string& id, int turn);

// Reads `in` once for its ids (those of the row, else the row's number from 0), skips what a former call has
// finished, and does the rest. A line of `out` is the original object with `conversations` ({role, content}),
// "status": "success" and the "finish_reasons" of its replies; one of the error file the original with
// "status": "error" and "error". Lines are written as conversations end. Calls `progress` after every Poll;
// `stop` is asked as often, and what is unfinished then is dropped and done by the next call. Error: a file
// that cannot be read or written, is no JSON, or has an id twice or one that is none (IsRowId); an output
// that another program wrote, or that was begun with other settings; the backend's.
Result<RegenerateProgress> Regenerate(const RegenerateOptions& options, ChatBackend& backend,
                                      FunctionRef<bool()> stop,
                                      FunctionRef<void(const RegenerateProgress&)> progress);

}  // namespace dspark
