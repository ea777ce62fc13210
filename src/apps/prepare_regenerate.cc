// dspark prepare regenerate: what the target says instead of what others said.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <limits>

#include "apps/engine_backend.h"
#include "apps/flags.h"
#include "apps/http_backend.h"
#include "apps/output.h"
#include "apps/prepare.h"
#include "apps/progress_line.h"
#include "apps/session_flags.h"
#include "data/output_settings.h"

namespace dspark {
namespace {

volatile std::sig_atomic_t g_interrupted = 0;

// What is finished stays; asked a second time, the program ends at once.
void OnInterrupt(int) {
  if (g_interrupted) _exit(kExitInterrupted);
  g_interrupted = 1;
}

struct Options {
  RegenerateOptions regenerate;
  SessionOptions session;
  HttpOptions http;
  std::string api_key_env;
  ReplyOptions reply{.sampling = {.temperature = 0.7f, .top_k = 20, .top_p = 0.8f}};
};

Result<std::unique_ptr<ChatBackend>> OpenServers(const Options& options) {
  HttpOptions http = options.http;
  if (!options.api_key_env.empty()) {
    const char* key = std::getenv(options.api_key_env.c_str());
    if (!key || !*key) {
      return MakeError("--api-key-env {}: no such environment variable, or it is empty; set it to the key",
                       options.api_key_env);
    }
    http.api_key = key;
  }
  std::signal(SIGPIPE, SIG_IGN);  // a server that hangs up is no reason to end
  DSPARK_ASSIGN_OR_RETURN(auto backend, HttpBackend::Open(http, options.reply, [](const std::string& line) {
                            PrintMessage("dspark: {}\n", line);
                          }));
  return std::unique_ptr<ChatBackend>(std::move(backend));
}

// A number as it was given: 0.7 is no float.
double AsGiven(float value) { return std::stod(fmt::format("{}", value)); }

// What replies depend on, for RegenerateOptions::settings. Not the context: it decides which replies fit, and
// a larger one is how errors are mended. Nor the instruction set: a run may go on on another machine.
nlohmann::ordered_json SettingsOf(const Options& options) {
  const SamplingParams& sampling = options.reply.sampling;
  return {{"max-tokens", options.reply.max_tokens},
          {"temp", AsGiven(sampling.temperature)},
          {"top-k", sampling.top_k},
          {"top-p", AsGiven(sampling.top_p)},
          {"min-p", AsGiven(sampling.min_p)},
          {"repeat-penalty", AsGiven(sampling.repetition_penalty)},
          {"no-think", options.reply.no_think}};
}

// A model's file by its name and size: it may be moved meanwhile.
nlohmann::ordered_json ModelSettings(const Options& options, const std::string& path) {
  std::error_code ignored;
  const std::filesystem::path file = std::filesystem::absolute(path, ignored).lexically_normal();
  const bool regular = std::filesystem::is_regular_file(file, ignored);
  return {{"model", (file.has_filename() ? file : file.parent_path()).filename().string()},
          {"model bytes", regular ? std::filesystem::file_size(file, ignored) : 0},
          {"weights", options.session.weights},
          {"kv", options.session.kv}};
}

// Adds to the settings what is known of the model.
Result<std::unique_ptr<ChatBackend>> OpenBackend(const Options& options, nlohmann::ordered_json* settings) {
  if (!options.http.servers.empty()) {
    (*settings)["model"] = options.http.model;
    return OpenServers(options);
  }
  DSPARK_ASSIGN_OR_RETURN(EngineBackend backend, EngineBackend::Open(options.session, options.reply));
  settings->update(ModelSettings(options, backend.session().model_path));
  return std::unique_ptr<ChatBackend>(std::make_unique<EngineBackend>(std::move(backend)));
}

// Outputs of versions that kept no settings can be gone on with; nobody can tell whether the same way.
void SayWhereSettingsAreUnknown(const std::string& out) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(out, ignored) || std::filesystem::is_empty(out, ignored)) return;
  if (std::filesystem::exists(SettingsPath(out), ignored)) return;
  PrintMessage("{}: no {} says what it was made with; taking this call's settings for it\n", out,
               SettingsPath(out));
}

double TokensPerSecond(const RegenerateProgress& p) {
  return p.elapsed_ms > 0 ? double(p.tokens) * 1000 / p.elapsed_ms : 0;
}

std::string TimeLeft(const RegenerateProgress& p) {
  if (p.Done() == 0) return "time left unknown";
  const auto minutes = int64_t(p.elapsed_ms / 60000 * double(p.total - p.Done()) / double(p.Done()) + 1);
  return minutes < 60 ? fmt::format("{} min left", minutes)
                      : fmt::format("{} h {:02} min left", minutes / 60, minutes % 60);
}

std::string ProgressText(const RegenerateProgress& p) {
  return fmt::format("{} of {} done, {} errors, {:.0f} tok/s, {}", p.Done(), p.total, p.failed,
                     TokensPerSecond(p), TimeLeft(p));
}

Result<int> Run(Options& options) {
  options.regenerate.settings = SettingsOf(options);
  DSPARK_ASSIGN_OR_RETURN(const std::unique_ptr<ChatBackend> backend,
                          OpenBackend(options, &options.regenerate.settings));
  SayWhereSettingsAreUnknown(options.regenerate.out);
  struct sigaction action {};
  action.sa_handler = OnInterrupt;
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);

  ProgressLine line;
  const auto done = Regenerate(
      options.regenerate, *backend, [] { return g_interrupted != 0; },
      [&](const RegenerateProgress& p) { line.Show([&] { return ProgressText(p); }); });
  line.Clear();
  if (!done) return done.error();
  PrintMessage(
      "{} conversations, {} replies ({} cut at the most tokens), {} tokens in {:.1f} s, {:.0f} tok/s; "
      "{} errors, {} done before{}\n",
      done->succeeded, done->replies, done->cut, done->tokens, done->elapsed_ms / 1000,
      TokensPerSecond(*done), done->failed, done->skipped,
      done->stopped ? "; interrupted: the same command goes on" : "");
  if (done->failed > 0)
    PrintMessage("{}: what failed, and why; --retry-errors does it again\n",
                 ErrorPath(options.regenerate.out));
  return done->stopped ? kExitInterrupted : kExitOk;
}

void AddServerFlags(CLI::App& app, Options* options, CLI::Option* batch) {
  HttpOptions& http = options->http;
  CLI::Option* name =
      app.add_option("--model-name", http.model, "With --server: the model as the servers know it");
  CLI::Option* server =
      AddRepeatedText(app, "--server", &http.servers,
                      "Ask this server (OpenAI's API, such as http://127.0.0.1:8000) instead of running the "
                      "model here; may be repeated")
          ->needs(name)
          ->excludes("--model")
          ->excludes(batch);
  name->needs(server);
  app.add_option("--api-key-env", options->api_key_env,
                 "The environment variable that holds the servers' key")
      ->needs(server);
  app.add_option("--concurrency", http.concurrency, "Calls at once, of each server [64]")
      ->check(CLI::Range(1, 1024))
      ->needs(server);
  app.add_option("--retries", http.retries, "Retries of a call, on other servers where there are any [3]")
      ->check(CLI::Range(0, 100))
      ->needs(server);
  app.add_option_function<double>(
         "--timeout", [&http](double seconds) { http.timeout_ms = seconds * 1000; },
         "Seconds without an answer after which a call has failed [600]")
      ->check(Within(0.1, 1e6))
      ->needs(server);
}

}  // namespace

Command AddPrepareRegenerate(CLI::App& app) {
  auto options = std::make_shared<Options>();
  Options& o = *options;
  o.session.sequences = 32;
  app.add_option("in", o.regenerate.in, "JSON lines of conversations: {from, value} or {role, content}")
      ->required();
  app.add_option("--out", o.regenerate.out,
                 "JSON lines with new replies; goes on where an earlier call on it stopped")
      ->required();
  AddSessionFlags(app, &o.session);
  app.add_flag("--no-spec", o.session.draft.no_spec, "Without prompt lookup");
  CLI::Option* batch =
      app.add_option("--batch", o.session.sequences, "Conversations at once in this process [32]")
          ->check(CLI::Range(1, 256));
  AddServerFlags(app, &o, batch);
  app.add_option("-n,--max-tokens", o.reply.max_tokens, "Longest reply, in tokens [4096]")
      ->check(CLI::Range(1, 1 << 20));
  AddSamplingFlags(app, &o.reply.sampling);
  app.add_option("--seed", o.regenerate.seed, "Seed; a reply depends on it, the id and the turn [0]")
      ->check(SeedNumber());
  app.add_option("--system", o.regenerate.system, "System message of conversations without one");
  app.add_option("--max-samples", o.regenerate.max_samples, "Only the first conversations of the file [all]")
      ->check(CLI::Range(int64_t{1}, std::numeric_limits<int64_t>::max()));
  app.add_flag("--retry-errors", o.regenerate.retry_errors, "Do what is in the error file again");
  app.add_flag("--no-think", o.reply.no_think, "Qwen3: answer at once, without thinking");
  app.footer(
      "\nExamples:\n"
      "  dspark prepare regenerate data/train.jsonl --out data/own.jsonl -m model.gguf\n"
      "  dspark prepare regenerate data/train.jsonl --out data/own.jsonl --server http://127.0.0.1:8000 "
      "--model-name NAME");
  return [options] { return Run(*options); };
}

}  // namespace dspark
