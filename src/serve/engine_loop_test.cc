#include "serve/engine_loop.h"

#include <gtest/gtest.h>

#include <map>

#include "replies.h"

namespace dspark {
namespace {

using test::Plain;
using test::TinyModel;

Request Ask(int seed, int max_tokens) {
  Request request;
  for (int i = 0; i < 3 + seed % 20; ++i) request.prompt.push_back(3 + (seed * 31 + i * i) % 200);
  request.max_tokens = max_tokens;
  request.sampling.temperature = seed % 2 ? 0 : 0.8f;
  request.seed = uint64_t(seed);
  request.ignore_eos = true;
  return request;
}

struct Log : LoadObserver {
  void OnStep(const StepRecord& step) override {
    tokens += step.tokens, prompt_tokens += step.prompt_tokens, rounds += step.counts.rounds;
    running = step.running, waiting = step.waiting, kv_usage = step.kv_usage;
  }
  void OnEnd(const EndRecord& end) override { ++ends[end.finish]; }
  int tokens = 0, prompt_tokens = 0, rounds = 0, running = 0, waiting = 0;
  double kv_usage = 0;
  std::map<FinishReason, int> ends;
};

// Replies of thousands of tokens, which are under way for as long as a test needs them.
const test::TinyModelOptions kLongContext{
    .shape = {.max_context = 8192}, .max_context = 8192, .blocks = 2048};
constexpr int kLong = 8000;

// An engine of at most 4 sequences, and its loop.
struct Rig {
  explicit Rig(int queue = 8)
      : model(kLongContext),
        engine(*model.target, *model.blocks, nullptr, model.files.tokenizer.get(), {},
               {.max_sequences = 4, .observer = &tally}),
        loop(std::make_unique<EngineLoop>(engine, LoopOptions{.queue = queue}, &tally, &log)) {}

  std::shared_ptr<ReplyStream> Submit(std::vector<Request> requests) {
    auto outcome = loop->Submit(std::move(requests));
    EXPECT_TRUE(std::holds_alternative<std::shared_ptr<ReplyStream>>(outcome));
    return std::get<0>(outcome);
  }
  TinyModel model;
  RoundTally tally;
  Engine engine;
  Log log;
  std::unique_ptr<EngineLoop> loop;
};

// All events of a stream, by choice.
std::vector<test::Reply> Read(ReplyStream& stream) {
  std::vector<test::Reply> replies(size_t(stream.choices()));
  std::vector<ReplyEvent> events;
  for (int open = stream.choices(); open > 0;) {
    if (!stream.Take(10'000, &events)) {
      ADD_FAILURE() << "nothing comes";
      return replies;
    }
    for (const ReplyEvent& event : events) {
      test::Reply& reply = replies[size_t(event.choice)];
      EXPECT_EQ(reply.finish, FinishReason::kNone) << "an event after the end";
      if (event.event.token >= 0) reply.tokens.push_back(event.event.token);
      reply.text += event.event.text;
      reply.finish = event.event.finish;
      open -= reply.finish != FinishReason::kNone;
    }
  }
  return replies;
}

TEST(EngineLoop, AnswersAsTheEngineAlone) {
  Rig rig(100);
  TinyModel alone;
  std::vector<std::shared_ptr<ReplyStream>> streams;
  for (int i = 0; i < 12; ++i) streams.push_back(rig.Submit({Ask(2 * i, 20), Ask(2 * i + 1, 7)}));
  for (int i = 0; i < 12; ++i) {
    EXPECT_TRUE(streams[size_t(i)]->Accepted().ok());
    const auto replies = Read(*streams[size_t(i)]);
    EXPECT_EQ(replies[0].tokens, Plain(alone, Ask(2 * i, 20)).tokens);
    EXPECT_EQ(replies[1].tokens, Plain(alone, Ask(2 * i + 1, 7)).tokens);
    EXPECT_EQ(replies[1].finish, FinishReason::kLength);
  }
  rig.loop.reset();
  EXPECT_EQ(rig.log.tokens, 12 * 27);
  EXPECT_EQ(rig.log.rounds, 12 * 25);
  EXPECT_EQ(rig.log.ends[FinishReason::kLength], 24);
  EXPECT_EQ(rig.log.kv_usage, 0);
}

TEST(EngineLoop, RefusesABadRequestAndItsBrothers) {
  Rig rig;
  Request bad = Ask(2, 5);
  bad.prompt = {9999};
  const auto stream = rig.Submit({Ask(1, kLong), bad});
  const Status accepted = stream->Accepted();
  ASSERT_FALSE(accepted.ok());
  EXPECT_NE(accepted.error().text.find("9999"), std::string::npos);
  rig.loop->Drain(0);
  EXPECT_EQ(rig.loop->live(), 0);
}

TEST(EngineLoop, RefusesWhatTheQueueCannotHold) {
  Rig rig(2);
  std::vector<std::shared_ptr<ReplyStream>> streams;
  for (int i = 0; i < 5; ++i) streams.push_back(rig.Submit({Ask(i, kLong)}));
  const auto two = rig.loop->Submit({Ask(6, 5), Ask(7, 5)});
  const auto* refusal = std::get_if<Refusal>(&two);
  ASSERT_TRUE(refusal);
  EXPECT_FALSE(refusal->draining);
  EXPECT_EQ(refusal->limit, 6);
  EXPECT_GE(refusal->retry_after_s, 1);
  streams.push_back(rig.Submit({Ask(8, 5)}));  // one place is left
  EXPECT_TRUE(std::holds_alternative<Refusal>(rig.loop->Submit({Ask(9, 5)})));
  rig.loop->Cancel(streams[0]);
  Read(*streams[0]);
  rig.Submit({Ask(10, 2)});
}

TEST(EngineLoop, CancelFreesThePlaceWithinOneStep) {
  Rig rig(0);
  std::vector<std::shared_ptr<ReplyStream>> streams;
  for (int i = 0; i < 4; ++i) streams.push_back(rig.Submit({Ask(i, i == 2 ? 300 : kLong)}));
  std::vector<ReplyEvent> events;
  ASSERT_TRUE(streams[1]->Take(10'000, &events));
  rig.loop->Cancel(streams[1]);
  const auto replies = Read(*streams[1]);
  EXPECT_EQ(replies[0].finish, FinishReason::kCancelled);
  EXPECT_LT(replies[0].tokens.size(), size_t{kLong});
  Read(*rig.Submit({Ask(9, 3)}));
  rig.loop->Cancel(streams[1]);  // twice does no harm
  EXPECT_EQ(Read(*streams[2])[0].tokens.size(), 300u);
}

TEST(EngineLoop, DrainsInTimeAndTakesNoMore) {
  Rig rig;
  const auto quick = rig.Submit({Ask(1, 3)});
  rig.loop->Drain(60'000);
  EXPECT_EQ(Read(*quick)[0].finish, FinishReason::kLength);
  const auto late = rig.loop->Submit({Ask(2, 3)});
  ASSERT_TRUE(std::holds_alternative<Refusal>(late));
  EXPECT_TRUE(std::get<Refusal>(late).draining);

  Rig impatient(100);
  std::vector<std::shared_ptr<ReplyStream>> streams;
  for (int i = 0; i < 40; ++i) streams.push_back(impatient.Submit({Ask(i, kLong)}));
  impatient.loop->Drain(1);
  for (const auto& stream : streams) EXPECT_EQ(Read(*stream)[0].finish, FinishReason::kCancelled);
  EXPECT_EQ(impatient.model.blocks->free_blocks(), impatient.model.blocks->blocks());
}

// Nobody reads the first stream: the others go on, and nothing of it is lost.
TEST(EngineLoop, DoesNotWaitForAReader) {
  Rig rig;
  const auto unread = rig.Submit({Ask(1, 200)});
  for (int i = 0; i < 6; ++i) EXPECT_EQ(Read(*rig.Submit({Ask(i, 50)}))[0].tokens.size(), 50u);
  rig.loop->Drain(60'000);
  TinyModel alone;
  EXPECT_EQ(Read(*unread)[0].tokens, Plain(alone, Ask(1, 200)).tokens);
}

}  // namespace
}  // namespace dspark
