// Replies of an engine, put together from its events.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "tiny_model.h"

namespace dspark::test {

struct Reply {
  std::vector<int32_t> tokens;
  std::string text;
  FinishReason finish = FinishReason::kNone;
  SequenceStats stats;
  std::vector<TokenEvent> events;
};

// Takes an engine's events apart by sequence.
inline void Collect(std::span<const TokenEvent> events, std::map<SequenceId, Reply>* replies) {
  for (const TokenEvent& event : events) {
    Reply& reply = (*replies)[event.sequence];
    EXPECT_EQ(reply.finish, FinishReason::kNone) << "an event after the end";
    if (event.token >= 0) reply.tokens.push_back(event.token);
    reply.text += event.text;
    reply.finish = event.finish;
    if (event.stats) reply.stats = *event.stats;
    reply.events.push_back(event);
  }
}

inline std::map<SequenceId, Reply> RunAll(Engine& engine) {
  std::map<SequenceId, Reply> replies;
  while (!engine.Idle()) Collect(engine.Step(), &replies);
  return replies;
}

inline Reply RunOne(Engine& engine, Request request) {
  const auto id = engine.Submit(std::move(request));
  EXPECT_TRUE(id.ok()) << id.error().text;
  return RunAll(engine)[id.value()];
}

// Without speculation.
inline Reply Plain(TinyModel& model, const Request& request) {
  Engine engine(*model.target, *model.blocks, nullptr, model.files.tokenizer.get(), {}, {});
  return RunOne(engine, request);
}

// The served distribution behind `text`. `history` where the settings need it.
inline Distribution ServedAfter(TinyModel& model, const std::vector<int32_t>& text,
                                const SamplingParams& sampling, const TokenHistory* history = nullptr) {
  KvTable kv(*model.blocks);
  EXPECT_TRUE(kv.Reserve(int(text.size())));
  const Segment segment{.tokens = text, .kv = &kv, .logits_from = int(text.size()) - 1};
  float* logits = model.target->Forward({&segment, 1}, {}).logits;
  Distribution served;
  ServedDistribution(model.target->isa(), {logits, size_t(model.vocab())}, sampling, history, &served);
  return served;
}

}  // namespace dspark::test
