// Replies to several prompts at once from C++: the engine decodes them side by side.
//
//     generate MODEL MAX_TOKENS PROMPT...
#include <dspark/engine.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace {

int Complain(const dspark::Error& error) {
  std::fprintf(stderr, "%s\n", error.text.c_str());
  return 1;
}

struct Reply {
  dspark::RequestId id = 0;
  std::string text = {};
};

dspark::Result<Reply> Ask(dspark::Engine& engine, const std::string& prompt, int max_tokens) {
  auto ids = engine.ChatPrompt({{"user", prompt}});
  if (!ids) return ids.error();
  auto id = engine.Submit({.prompt = *ids, .max_tokens = max_tokens});
  if (!id) return id.error();
  return Reply{.id = *id};
}

// Takes what there is of a reply.
dspark::Result<void> Collect(dspark::Engine& engine, Reply& reply) {
  while (true) {
    auto event = engine.Poll(reply.id);
    if (!event) return event.error();
    if (!*event) return {};
    reply.text += (*event)->text;
    if (!(*event)->error.empty()) return dspark::Error{DSPARK_ERROR_INTERNAL, (*event)->error};
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr, "usage: %s MODEL MAX_TOKENS PROMPT...\n", argv[0]);
    return 2;
  }
  auto engine = dspark::Engine::Load({.model = argv[1], .parallel = argc - 3});
  if (!engine) return Complain(engine.error());

  std::vector<Reply> replies;
  for (int i = 3; i < argc; ++i) {
    auto reply = Ask(*engine, argv[i], std::atoi(argv[2]));
    if (!reply) return Complain(reply.error());
    replies.push_back(*reply);
  }
  for (int live = 1; live > 0;) {
    auto step = engine->Step();
    if (!step) return Complain(step.error());
    live = *step;
    for (Reply& reply : replies) {
      if (auto collected = Collect(*engine, reply); !collected) return Complain(collected.error());
    }
  }
  for (const Reply& reply : replies) std::printf("%s\n", reply.text.c_str());
}
