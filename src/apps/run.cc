// dspark run: one reply to a prompt, or a chat in the terminal.
#include <unistd.h>

#include <charconv>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <random>

#include "api/session.h"
#include "apps/commands.h"
#include "apps/describe_model.h"
#include "apps/flags.h"
#include "apps/output.h"
#include "apps/session_flags.h"
#include "load/raw_prompt.h"

namespace dspark {
namespace {

volatile std::sig_atomic_t g_replying = 0;     // a reply is under way
volatile std::sig_atomic_t g_interrupted = 0;  // Ctrl-C came meanwhile; read between steps

// Ends a reply in order, and the program at once when there is none, or when asked a second time.
void OnInterrupt(int) {
  if (!g_replying || g_interrupted) _exit(kExitInterrupted);
  g_interrupted = 1;
}

struct RunOptions {
  SessionOptions session;
  std::optional<std::string> prompt, prompt_ids;
  std::string system;
  bool raw = false, no_think = false, json = false, stats = false, ignore_eos = false;
  int max_tokens = 512;
  SamplingParams sampling{.temperature = 0};
  int64_t seed = -1;
  std::vector<std::string> stop;
  std::vector<std::string> logit_bias;
  int logprobs = -1;
};

struct Reply {
  std::string text;
  std::vector<int32_t> tokens;
  std::vector<TokenEvent> events;  // kept where log-probabilities are asked for
  FinishReason finish = FinishReason::kNone;
  SequenceStats stats;
  std::optional<uint64_t> seed;  // of a sampled reply: --seed with it gives the reply again
};

Result<std::vector<int32_t>> ParseIds(const std::string& list) {
  std::vector<int32_t> ids;
  const char* const end = list.data() + list.size();
  for (const char* p = list.data();; ++p) {
    int32_t id = 0;
    const auto parsed = std::from_chars(p, end, id);
    if (parsed.ec != std::errc() || (parsed.ptr < end && *parsed.ptr != ',')) {
      return MakeError("{} is not a comma-separated list of token ids such as 1,2,3", list);
    }
    ids.push_back(id);
    p = parsed.ptr;
    if (p == end) return ids;
  }
}

Result<std::pair<int32_t, float>> ParseBias(const std::string& pair) {
  int32_t id = 0;
  float value = 0;
  const char* end = pair.data() + pair.size();
  const auto first = std::from_chars(pair.data(), end, id);
  const bool colon = first.ec == std::errc() && first.ptr < end && *first.ptr == ':';
  const auto second = colon ? std::from_chars(first.ptr + 1, end, value) : first;
  const bool whole = colon && second.ec == std::errc() && second.ptr == end;
  if (!whole || id < 0 || !(std::fabs(value) <= 100))
    return MakeError("{} is not TOKEN:VALUE such as 42:-5, with a value from -100 to 100", pair);
  return std::pair(id, value);
}

std::string ReadAll(std::istream& in) { return {std::istreambuf_iterator<char>(in), {}}; }

// Prompt tokens of a conversation through the model's own template.
Result<std::vector<int32_t>> ChatTokens(const Session& session, const RunOptions& options,
                                        const std::vector<ChatMessage>& messages) {
  if (!session.files.tokenizer) {
    return MakeError("{}: the model has no tokenizer; give token ids with --prompt-ids", session.model_path);
  }
  DSPARK_ASSIGN_OR_RETURN(const ChatFormat format, DetectChatFormat(session.files.chat_template));
  return session.files.tokenizer->Encode(RenderChat(format, messages, true, !options.no_think), true);
}

Result<std::vector<int32_t>> PromptTokens(const Session& session, const RunOptions& options) {
  if (options.prompt_ids) return ParseIds(*options.prompt_ids);
  if (options.raw) {
    if (!session.files.tokenizer) {
      return MakeError("{}: the model has no tokenizer; give token ids with --prompt-ids",
                       session.model_path);
    }
    return EncodeRawPrompt(*session.files.tokenizer, PromptBos(session.files.config), *options.prompt, true);
  }
  std::vector<ChatMessage> messages;
  if (!options.system.empty()) messages.push_back({"system", options.system});
  messages.push_back({"user", *options.prompt});
  return ChatTokens(session, options, messages);
}

Result<Request> MakeRequest(const RunOptions& options, std::vector<int32_t> prompt) {
  Request request;
  request.prompt = std::move(prompt);
  request.sampling = options.sampling;
  for (const std::string& pair : options.logit_bias) {
    DSPARK_ASSIGN_OR_RETURN(const auto bias, ParseBias(pair));
    request.sampling.logit_bias.push_back(bias);
  }
  request.seed = options.seed >= 0 ? uint64_t(options.seed) : std::random_device{}();
  request.max_tokens = options.max_tokens;
  request.ignore_eos = options.ignore_eos;
  request.stop = options.stop;
  request.top_logprobs = options.logprobs;
  return request;
}

// Runs a sequence to its end, or until Ctrl-C. Text goes to stdout as it comes, but for --json. Error: stdout
// is lost.
Result<Reply> Generate(Session& session, SequenceId id, const RunOptions& options) {
  Reply reply;
  g_interrupted = 0;
  g_replying = 1;
  while (!session.engine->Idle()) {
    if (g_interrupted) session.engine->Cancel(id);
    for (const TokenEvent& event : session.engine->Step()) {
      reply.text += event.text;
      if (event.token >= 0) reply.tokens.push_back(event.token);
      if (event.finish != FinishReason::kNone) {
        reply.finish = event.finish;
        reply.stats = *event.stats;
      }
      if (event.finish == FinishReason::kError) return MakeError("{}: {}", session.model_path, event.error);
      if (!options.json) WriteOutput(event.text);
      if (options.logprobs >= 0) reply.events.push_back(event);
    }
    if (!options.json) DSPARK_RETURN_IF_ERROR(FlushOutput());
  }
  g_replying = 0;
  return reply;
}

// The first token belongs to the prompt's time.
double DecodeRate(const SequenceStats& stats) {
  return stats.decode_ms > 0 ? (stats.completion_tokens - 1) * 1000.0 / stats.decode_ms : 0;
}

double Share(int part, int whole) { return whole ? double(part) / whole : 0; }

// `first`: of the session, whose time to load is part of it.
void PrintStats(const Session& session, const Reply& reply, bool per_position, bool first = true) {
  const SequenceStats& s = reply.stats;
  PrintMessage(
      "\n[{} tokens, {:.1f} tok/s, {:.2f} tokens a pass (drafts: {}), prompt {} tokens in {:.0f} ms, "
      "{}{}{}]\n",
      s.completion_tokens, DecodeRate(s), s.Tau(), ShortDrafterNames(session), s.prompt_tokens, s.prompt_ms,
      first ? fmt::format("load {:.0f} ms, ", session.load_ms) : "",
      reply.seed ? fmt::format("seed {}, ", *reply.seed) : "", FinishReasonName(reply.finish));
  if (!per_position) return;
  const double percent = s.decode_ms > 0 ? 100 / s.decode_ms : 0;
  PrintMessage("rounds {}, drafted {}, accepted {}, verify rate {:.2f}\n", s.rounds, s.drafted, s.accepted,
               s.VerifyRate());
  PrintMessage("time {:.1f} ms: draft {:.0f} %, verify {:.0f} %, rest {:.0f} %\n", s.decode_ms,
               s.draft_ms * percent, s.verify_ms * percent,
               (s.decode_ms - s.draft_ms - s.verify_ms) * percent);
  for (size_t k = 0; k < s.verified_at.size(); ++k) {
    PrintMessage("  draft {:2}: verified {:5}, accepted {:5} ({:.2f}), conditional {:.2f}\n", k + 1,
                 s.verified_at[k], s.accepted_at[k], Share(s.accepted_at[k], s.verified_at[k]),
                 Share(s.accepted_at[k], s.reached_at[k]));
  }
}

nlohmann::json ReplyJson(const Session& session, const Reply& reply) {
  const SequenceStats& s = reply.stats;
  nlohmann::json json{
      {"text", reply.text},
      {"tokens", reply.tokens},
      {"finish_reason", FinishReasonName(reply.finish)},
      {"usage", {{"prompt_tokens", s.prompt_tokens}, {"completion_tokens", s.completion_tokens}}},
      {"timings",
       {{"drafters", session.drafter_names},
        {"load_ms", session.load_ms},
        {"prompt_ms", s.prompt_ms},
        {"decode_ms", s.decode_ms},
        {"decode_tok_per_s", DecodeRate(s)},
        {"rounds", s.rounds},
        {"drafted", s.drafted},
        {"accepted", s.accepted},
        {"tau", s.Tau()},
        {"verify_rate", s.VerifyRate()},
        {"accepted_at", s.accepted_at},
        {"verified_at", s.verified_at},
        {"reached_at", s.reached_at},
        {"draft_ms", s.draft_ms},
        {"verify_ms", s.verify_ms}}}};
  if (reply.seed) json["seed"] = *reply.seed;
  for (const TokenEvent& event : reply.events) {
    if (event.token < 0) continue;
    nlohmann::json top = nlohmann::json::array();
    for (const TokenLogprob& best : event.top)
      top.push_back({{"token", best.token}, {"logprob", best.logprob}});
    json["logprobs"].push_back({{"token", event.token}, {"logprob", event.logprob.logprob}, {"top", top}});
  }
  return json;
}

Result<int> RunOnce(Session& session, const RunOptions& options) {
  DSPARK_ASSIGN_OR_RETURN(std::vector<int32_t> prompt, PromptTokens(session, options));
  DSPARK_ASSIGN_OR_RETURN(Request request, MakeRequest(options, std::move(prompt)));
  const uint64_t seed = request.seed;
  DSPARK_ASSIGN_OR_RETURN(const SequenceId id, session.engine->Submit(std::move(request)));
  DSPARK_ASSIGN_OR_RETURN(Reply reply, Generate(session, id, options));
  if (options.sampling.temperature > 0) reply.seed = seed;
  if (options.json) {
    // Token text may end inside a character when max_tokens cuts it; JSON must not.
    PrintOutput("{}\n",
                ReplyJson(session, reply).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  } else {
    WriteOutput("\n");
    DSPARK_RETURN_IF_ERROR(FlushOutput());
    PrintStats(session, reply, options.stats);
  }
  return reply.finish == FinishReason::kCancelled ? kExitInterrupted : kExitOk;
}

// The conversation's tokens. Its oldest turns are taken off once less than a quarter of the context would be
// left for the reply, `*forgotten` of them; what the system says stays, and so does the last question,
// however long it is.
Result<std::vector<int32_t>> ChatTokensThatFit(const Session& session, const RunOptions& options,
                                               std::vector<ChatMessage>* messages, int* forgotten) {
  const int context = session.target->limits().max_context;
  const int room = context - std::min(options.max_tokens, context / 4);
  const size_t first = options.system.empty() ? 0 : 1;
  for (*forgotten = 0;; ++*forgotten) {
    DSPARK_ASSIGN_OR_RETURN(std::vector<int32_t> tokens, ChatTokens(session, options, *messages));
    if (int(tokens.size()) <= room || messages->size() < first + 3) return tokens;
    messages->erase(messages->begin() + std::ptrdiff_t(first), messages->begin() + std::ptrdiff_t(first) + 2);
  }
}

void SayForgotten(int turns, int context) {
  if (turns == 0) return;
  PrintMessage("[the context of {} tokens is full: the oldest {} forgotten; --ctx sets its size]\n", context,
               turns == 1 ? "turn is" : fmt::format("{} turns are", turns));
}

// The next line that says something. False: there is none.
bool ReadTurn(std::string* line) {
  do {
    WriteMessage("\n> ");
    if (!std::getline(std::cin, *line)) return false;
  } while (line->find_first_not_of(" \t\r") == std::string::npos);
  return true;
}

// Reads lines until end of input. Ctrl-C ends the reply, at the prompt it ends the chat. A turn that cannot
// be answered is an error of that turn: the history stays as it was.
Result<int> Chat(Session& session, const RunOptions& options) {
  std::vector<ChatMessage> messages;
  if (!options.system.empty()) messages.push_back({"system", options.system});
  PrintMessage("Chat with {}. Ctrl-C stops a reply, Ctrl-D ends the chat.\n",
               std::filesystem::path(session.model_path).stem().string());
  bool first = true;
  for (std::string line; ReadTurn(&line);) {
    std::vector<ChatMessage> asked = messages;
    asked.push_back({"user", line});
    int forgotten = 0;
    DSPARK_ASSIGN_OR_RETURN(std::vector<int32_t> prompt,
                            ChatTokensThatFit(session, options, &asked, &forgotten));
    DSPARK_ASSIGN_OR_RETURN(Request request, MakeRequest(options, std::move(prompt)));
    const uint64_t seed = request.seed;
    const auto id = session.engine->Submit(std::move(request));
    if (!id) {
      PrintMessage("dspark: {}\n", id.error().text);
      continue;
    }
    SayForgotten(forgotten, session.target->limits().max_context);
    messages = std::move(asked);
    DSPARK_ASSIGN_OR_RETURN(Reply reply, Generate(session, *id, options));
    if (options.sampling.temperature > 0) reply.seed = seed;
    WriteOutput("\n");
    DSPARK_RETURN_IF_ERROR(FlushOutput());
    PrintStats(session, reply, options.stats, first);
    first = false;
    messages.push_back({"assistant", reply.text});
  }
  return kExitOk;
}

bool IsChat(const RunOptions& options) {
  return !options.prompt && !options.prompt_ids && isatty(STDIN_FILENO);
}

// Flags that are right one by one and not together.
void CheckTogether(const RunOptions& options) {
  RequireOk(CheckDraftFlags(options.session.draft));
  if (IsChat(options) && (options.raw || options.json))
    throw CLI::ValidationError(options.raw ? "--raw" : "--json", "needs a prompt: give one, or pipe it in");
}

Result<int> Run(RunOptions options) {
  struct sigaction action {};
  action.sa_handler = OnInterrupt;
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, nullptr);

  const bool interactive = IsChat(options);
  const bool given = options.prompt || options.prompt_ids;
  if (!given && !interactive) options.prompt = ReadAll(std::cin);
  if (options.prompt && options.prompt->empty()) {
    return MakeError("the prompt{} is empty; give some text", given ? "" : " on standard input");
  }
  DSPARK_ASSIGN_OR_RETURN(auto session, Session::Open(options.session));
  return interactive ? Chat(*session, options) : RunOnce(*session, options);
}

void AddReplyFlags(CLI::App& app, RunOptions* options) {
  SamplingParams& sampling = options->sampling;
  AddSamplingFlags(app, &sampling);
  app.add_option("--presence-penalty", sampling.presence_penalty,
                 "Subtract from tokens already generated [0]")
      ->check(Within(-2, 2));
  app.add_option("--frequency-penalty", sampling.frequency_penalty, "Subtract per time already generated [0]")
      ->check(Within(-2, 2));
  AddRepeatedText(app, "--logit-bias", &options->logit_bias,
                  "TOKEN:VALUE, added to that token's logit; may be repeated")
      ->check(Parses(ParseBias));
  app.add_option("--seed", options->seed, "Seed of the sampler [random]")->check(SeedNumber());
}

}  // namespace

Command AddRun(CLI::App& app) {
  auto options = std::make_shared<RunOptions>();
  RunOptions& o = *options;
  CLI::Option* prompt = AddText(app, "prompt,-p,--prompt", &o.prompt,
                                "The prompt; without one: standard input, or a chat in the terminal");
  AddText(app, "--prompt-ids", &o.prompt_ids, "The prompt as token ids 1,2,3: no tokenizer at all")
      ->excludes(prompt)
      ->check(Parses(ParseIds));
  AddSessionFlags(app, &o.session);
  AddDraftFlags(app, &o.session.draft);
  app.add_option("-n,--max-tokens", o.max_tokens, "Longest reply, in tokens [512]")
      ->check(CLI::Range(1, 1 << 20));
  app.add_option("--system", o.system, "System message");
  AddReplyFlags(app, &o);
  AddRepeatedText(app, "--stop", &o.stop, "Stop before this text; may be repeated");
  CLI::Option* logprobs = app.add_option("--logprobs", o.logprobs,
                                         "With --json: log-probabilities of the tokens and of N alternatives")
                              ->check(CLI::Range(0, 64));
  app.add_flag("--ignore-eos", o.ignore_eos, "Do not stop at the model's end token");
  app.add_flag("--no-think", o.no_think, "Qwen3: answer at once, without thinking");
  app.add_flag("--raw", o.raw, "The prompt as it is, no chat template");
  app.add_flag("--stats", o.stats, "Statistics per draft position");
  logprobs->needs(app.add_flag("--json", o.json, "One JSON object instead of streaming"));
  app.final_callback([options] { CheckTogether(*options); });
  app.footer(
      "\nExamples:\n"
      "  dspark run \"Why is the sky blue?\"\n"
      "  dspark run -m model.gguf -md lookup,table.gguf --temp 0.7 --stats < prompt.txt\n"
      "  dspark run --system \"Answer in one line.\"    a chat in the terminal");
  return [options] { return Run(*options); };
}

}  // namespace dspark
