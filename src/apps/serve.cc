// dspark serve: many requests at once, behind OpenAI's API.
#include <pthread.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <fstream>

#include "api/memory_plan.h"
#include "api/session.h"
#include "apps/commands.h"
#include "apps/describe_model.h"
#include "apps/output.h"
#include "apps/session_flags.h"
#include "serve/http_server.h"

namespace dspark {
namespace {

struct ServeOptions {
  SessionOptions session;
  ServerOptions http;
  LoopOptions loop;
  std::string name;      // of the model; empty: its file's
  std::string key_file;  // one key a line
  double drain_s = 30;   // for replies under way, at the end
  double max_body_mb = 8;
};

Status ReadKeys(const std::string& path, std::vector<std::string>* keys) {
  std::ifstream file(path);
  if (!file) return MakeError("--api-key-file {}: cannot be read", path);
  for (std::string line; std::getline(file, line);) {
    while (!line.empty() && std::isspace(uint8_t(line.back()))) line.pop_back();
    if (!line.empty()) keys->push_back(line);
  }
  if (keys->empty()) return MakeError("--api-key-file {}: there is no key in it; write one a line", path);
  return {};
}

void LogPlan(const Session& session, const ServeOptions& options, const ServedModel& model,
             spdlog::logger& log) {
  const double mb = 1e6;
  const BlockPool& blocks = *session.blocks;
  log.info("model={} file={} threads={} isa={} load_ms={:.0f} weights_mb={:.0f} workspace_mb={:.0f}",
           model.name, session.model_path, session.pool->threads(), IsaName(session.pool->isa()),
           session.load_ms, double(session.target->memory().weight_bytes) / mb,
           double(session.target->memory().workspace_bytes) / mb);
  log.info("context={} kv_tokens={} kv_mb={:.0f} parallel={} queue={}", model.context,
           blocks.blocks() * blocks.layout().block_tokens, double(blocks.Bytes()) / mb,
           options.session.sequences, options.loop.queue);
  const DraftOptions& draft = options.session.draft;
  log.info("drafter={} policy={} drafter_mb={:.0f}", session.drafter_names,
           draft.draft_max >= 0 ? fmt::format("fixed:{}", draft.draft_max) : draft.policy,
           session.drafter ? double(session.drafter->weight_bytes() + session.drafter->workspace_bytes()) / mb
                           : 0);
  log.info("chat={} keys={} cors={} max_body={} connections={} timeout_s={:.0f} drain_s={:.0f}",
           model.chat_format ? "yes" : "no", options.http.api_keys.size(),
           options.http.cors_origin.empty() ? "off" : options.http.cors_origin, options.http.max_body,
           options.http.connections, options.http.request_timeout_s, options.drain_s);
}

// Keeps SIGINT and SIGTERM for sigwait: threads that are made later inherit the mask.
sigset_t HoldSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  return signals;
}

Result<int> Serve(ServeOptions options) {
  options.session.logit_rows = LogitRowsFor(options.session.sequences);
  const sigset_t signals = HoldSignals();
  if (!options.key_file.empty()) DSPARK_RETURN_IF_ERROR(ReadKeys(options.key_file, &options.http.api_keys));
  options.http.max_body = size_t(options.max_body_mb * 1e6);
  auto log = std::make_shared<spdlog::logger>("serve", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  log->set_pattern("%Y-%m-%dT%H:%M:%S.%e %l %v");

  RoundTally tally;
  options.session.observer = &tally;
  DSPARK_ASSIGN_OR_RETURN(auto session, Session::Open(options.session));
  ServedModel model = DescribeModel(*session, options.name);
  model.alias = options.session.model;
  LogPlan(*session, options, model, *log);
  ServeMetrics metrics(model.name);
  LoadHistory history;
  LoadObservers observers({&metrics, &history});
  EngineLoop loop(*session->engine, options.loop, &tally, &observers);
  HttpServer server(options.http, model, loop, metrics, history, log);
  DSPARK_ASSIGN_OR_RETURN(const int port, server.Start());
  PrintOutput("http://{}:{}\n", options.http.host, port);
  DSPARK_RETURN_IF_ERROR(FlushOutput());

  int signal = 0;
  sigwait(&signals, &signal);
  log->info("draining={} limit_s={:.0f} hint=\"a second signal ends it at once\"", loop.live(),
            options.drain_s);
  // Also where a script's shell had them ignored.
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
  loop.Drain(options.drain_s * 1000);
  server.Stop();
  log->info("stopped");
  return kExitOk;
}

void AddHttpFlags(CLI::App& app, ServeOptions* options) {
  ServerOptions& http = options->http;
  app.add_option("--host", http.host, "Address to listen on [127.0.0.1]");
  app.add_option("--port", http.port, "Port; 0: any free one [8080]")->check(CLI::Range(0, 65535));
  app.add_option("--api-key", http.api_keys, "Ask for this key; may be repeated")->allow_extra_args(false);
  app.add_option("--api-key-file", options->key_file, "Ask for one of the keys in this file, one a line");
  app.add_option("--cors", http.cors_origin,
                 "Let pages of this origin ask, such as * or https://example.org");
  app.add_option("--max-body-mb", options->max_body_mb, "Longest body of a request, in MB [8]")
      ->check(CLI::Range(0.001, 1024.0));
  app.add_option("--connections", http.connections, "Connections at once; further ones wait [512]")
      ->check(CLI::Range(1, 16384));
  app.add_option("--timeout", http.request_timeout_s, "Longest time for one request, in seconds; 0: any [0]")
      ->check(CLI::Range(0.0, 1e6));
  app.add_option("--write-timeout", http.write_timeout_s,
                 "Give a client up that takes nothing for so many seconds [30]")
      ->check(CLI::Range(1, 86400));
  app.add_option("--drain", options->drain_s, "At the end, wait so many seconds for replies under way [30]")
      ->check(CLI::Range(0.0, 1e6));
}

}  // namespace

Command AddServe(CLI::App& app) {
  auto options = std::make_shared<ServeOptions>();
  options->session.sequences = 16;
  AddSessionFlags(app, &options->session);
  AddDraftFlags(app, &options->session.draft);
  app.add_option("--model-name", options->name,
                 "What requests call the model [its file's name; what -m says is taken too]");
  app.add_option("--parallel", options->session.sequences, "Sequences decoding at once [16]")
      ->check(CLI::Range(1, 1024));
  app.add_option("--queue", options->loop.queue, "Sequences that may wait; further ones get 429 [256]")
      ->check(CLI::Range(0, 1 << 20));
  app.add_option("--kv-tokens", options->session.kv_tokens,
                 "Tokens of K/V for all sequences together [the context of each]")
      ->check(CLI::Range(16, 1 << 30));
  AddHttpFlags(app, options.get());
  app.footer(
      "\nExamples:\n"
      "  dspark serve\n"
      "  dspark serve -m model.gguf -md drafter.gguf --host 0.0.0.0 --api-key-file keys --parallel 32");
  return [options] { return Serve(*options); };
}

}  // namespace dspark
