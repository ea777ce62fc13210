#include "data/ngram_counts.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <numeric>
#include <span>
#include <unordered_map>

#include "core/check.h"
#include "core/function_ref.h"
#include "core/token_hash.h"

namespace dspark {
namespace {

// A context that came once says little: its longer forms are not counted either.
constexpr uint32_t kLeastCount = 2;

// What followed a context.
struct Tally {
  uint32_t count = 0;  // tokens
  int32_t token = -1;  // the most frequent, the lowest id among equals
  uint32_t top = 0;    // of these tokens, it
};

// How often a context's most frequent token came in text that was not counted, by what was counted.
class HitRates {
 public:
  void Add(int order, const Tally& tally, bool hit) {
    const float share = Share(tally);
    Cell& row = rows_[Row(order, tally)];
    Cell& cell = cells_[Index(order, tally)];
    row.hits += hit, row.seen += share;
    cell.hits += hit, cell.seen += 1;
  }
  // A cell of few outcomes is filled up with what those of its order and count came to, in proportion to the
  // shares; and these with a guess.
  float Rate(int order, const Tally& tally) const {
    constexpr float kGuess = 0.7f, kWorth = 4;
    const Cell& row = rows_[Row(order, tally)];
    const Cell& cell = cells_[Index(order, tally)];
    const float usual = (row.hits + kWorth * kGuess) / (row.seen + kWorth) * Share(tally);
    return std::min(1.0f, (cell.hits + kWorth * usual) / (cell.seen + kWorth));
  }

 private:
  static constexpr size_t kCounts = 13, kShares = 16, kRows = kMaxNgramOrder * kCounts;
  struct Cell {
    float hits = 0, seen = 0;
  };
  static float Share(const Tally& tally) { return float(tally.top) / float(tally.count); }
  // Counts up to 6 apart, then by powers of two.
  static size_t Row(int order, const Tally& tally) {
    const size_t log = size_t(std::bit_width(tally.count));
    const size_t count = tally.count <= 6 ? tally.count : std::min(log + 4, kCounts - 1);
    return size_t(order - 1) * kCounts + count;
  }
  static size_t Index(int order, const Tally& tally) {
    const size_t share = std::min<size_t>(kShares * uint64_t(tally.top) / tally.count, kShares - 1);
    return Row(order, tally) * kShares + share;
  }
  std::array<Cell, kRows> rows_{};
  std::array<Cell, kRows * kShares> cells_{};
};

// A counted context, and what the table would say about it without an entry of its own.
struct Context {
  uint64_t hash = 0;
  Tally tally;
  float probability = 0;
  int32_t order = 0;
  int32_t shorter = -1;  // the context of one token less; -1: none
  // [order - 1] how often the most frequent token of the context of so many tokens follows this one.
  std::array<uint32_t, kMaxNgramOrder - 1> also = {};
};

// Of every counted context, the nearest shorter one that is kept, or itself; -1: none.
using Kept = std::vector<int32_t>;

// Tokens gained by the entry, against `backoff` in its place (null: no draft). Where both draft the same, it
// mends a probability: the mean loss of a planner that drafts above some price, all prices being alike.
float Gain(const Context& context, const Context* backoff) {
  // Many contexts are alike. Their hashes put them in an order, so that any number of them can be kept.
  const float apart = 1 + 0.01f * std::ldexp(float(context.hash >> 40), -24);
  const float times = float(context.tally.count) * apart;
  if (!backoff) return times * context.probability;
  if (backoff->tally.token == context.tally.token) {
    const float error = context.probability - backoff->probability;
    return times * error * error / 2;
  }
  const float hits = float(context.also[size_t(backoff->order - 1)]) / float(context.tally.top);
  return times * context.probability * (1 - hits);
}

// Keeps contexts that gain more than `least`, the shorter ones first. Returns how many.
int64_t Keep(std::span<const Context> contexts, float least, Kept* kept) {
  int64_t count = 0;
  for (size_t i = 0; i < contexts.size(); ++i) {
    const Context& context = contexts[i];
    const int32_t backoff = context.shorter < 0 ? -1 : (*kept)[size_t(context.shorter)];
    const bool keep = Gain(context, backoff < 0 ? nullptr : &contexts[size_t(backoff)]) > least;
    (*kept)[i] = keep ? int32_t(i) : backoff;
    count += keep;
  }
  return count;
}

// At most so many, by the lowest price of a place at which no more are worth it; where there is room for all,
// a hundredth of a token in the whole corpus.
Kept KeepBest(std::span<const Context> contexts, int64_t most) {
  constexpr int kHalvings = 20;
  Kept kept(contexts.size());
  float low = 0.01f, high = low;
  while (Keep(contexts, high, &kept) > most) high *= 2;
  for (int i = 0; i < kHalvings && high > low; ++i) {
    const float middle = std::sqrt(low * high);
    Keep(contexts, middle, &kept) > most ? low = middle : high = middle;
  }
  Keep(contexts, high, &kept);
  return kept;
}

}  // namespace

// Contexts as ranges of the answers' places, sorted by the tokens before them, the newest first: what has the
// same last k tokens stands together.
class NgramCounter {
 public:
  NgramCounter(const NgramCorpus& corpus, int order, int vocab)
      : corpus_(corpus), order_(order), places_(corpus.answers_), counts_(size_t(vocab)) {
    std::ranges::sort(places_, [this](uint32_t a, uint32_t b) { return Before(a, b); });
  }

  // Every context that was counted, shorter ones before longer ones of the same tokens; without what is held
  // out, or with it.
  std::vector<Context> Count(const HitRates& rates, bool with_held_out) {
    std::vector<Context> contexts;
    with_held_out_ = with_held_out;
    AddLonger(places_, kEmptyContextHash, rates, &contexts);
    return contexts;
  }

  // Of the held-out tokens, behind the longest context that is kept.
  HitRates Measure(std::span<const Context> contexts, const Kept& kept) const {
    std::unordered_map<uint64_t, const Context*> known;
    for (size_t i = 0; i < contexts.size(); ++i) {
      if (kept[i] == int32_t(i)) known.emplace(contexts[i].hash, &contexts[i]);
    }
    HitRates rates;
    for (const uint32_t place : corpus_.answers_) {
      if (!corpus_.held_out_[place]) continue;
      const Context* longest = nullptr;
      uint64_t hash = kEmptyContextHash;
      for (int back = 1; back <= order_ && Token(place, back) != NgramCorpus::kBegin; ++back) {
        hash = HashTokens(hash, {&corpus_.tokens_[place - size_t(back)], 1});
        if (const auto at = known.find(hash); at != known.end()) longest = at->second;
      }
      if (longest) rates.Add(longest->order, longest->tally, Token(place, 0) == longest->tally.token);
    }
    return rates;
  }

 private:
  using Places = std::span<const uint32_t>;

  int32_t Token(uint32_t place, int back) const { return corpus_.tokens_[place - size_t(back)]; }

  bool Before(uint32_t a, uint32_t b) const {
    for (int back = 1; back <= order_; ++back) {
      const int32_t x = Token(a, back), y = Token(b, back);
      if (x != y) return x < y;
      if (x == NgramCorpus::kBegin) break;
    }
    return a < b;
  }

  // Of the tokens at `places`. Leaves their counts in counts_ until Forget.
  Tally Add(Places places) {
    Tally tally;
    for (const uint32_t place : places) {
      if (!with_held_out_ && corpus_.held_out_[place]) continue;
      const int32_t token = Token(place, 0);
      const uint32_t count = ++counts_[size_t(token)];
      ++tally.count;
      if (count > tally.top || (count == tally.top && token < tally.token)) tally.token = token;
      tally.top = std::max(tally.top, count);
    }
    return tally;
  }
  void Forget(Places places) {
    for (const uint32_t place : places) counts_[size_t(Token(place, 0))] = 0;
  }

  // The ranges of contexts that are one token longer.
  void ForEachLonger(Places places, int order, FunctionRef<void(Places, int32_t token)> visit) const {
    for (size_t begin = 0, end; begin < places.size(); begin = end) {
      const int32_t token = Token(places[begin], order + 1);
      for (end = begin + 1; end < places.size() && Token(places[end], order + 1) == token;) ++end;
      if (token != NgramCorpus::kBegin) visit(places.subspan(begin, end - begin), token);
    }
  }

  void AddLonger(Places places, uint64_t hash, const HitRates& rates, std::vector<Context>* contexts);

  const NgramCorpus& corpus_;
  const int order_;
  std::vector<uint32_t> places_;
  bool with_held_out_ = true;
  std::vector<uint32_t> counts_;  // [V] zeros between two tallies
  std::vector<int32_t> path_;     // the context under way and its shorter ones, the shortest first
};

void NgramCounter::AddLonger(Places places, uint64_t hash, const HitRates& rates,
                             std::vector<Context>* contexts) {
  const int order = int(path_.size());
  if (order == order_) return;
  ForEachLonger(places, order, [&](Places longer, int32_t token) {
    const Tally tally = Add(longer);
    if (tally.count < kLeastCount) return Forget(longer);
    Context context{.hash = HashTokens(hash, {&token, 1}),
                    .tally = tally,
                    .order = order + 1,
                    .shorter = path_.empty() ? -1 : path_.back()};
    for (size_t k = 0; k < path_.size(); ++k)
      context.also[k] = counts_[size_t((*contexts)[size_t(path_[k])].tally.token)];
    Forget(longer);
    context.probability = rates.Rate(context.order, context.tally);
    path_.push_back(int32_t(contexts->size()));
    contexts->push_back(context);
    AddLonger(longer, context.hash, rates, contexts);
    path_.pop_back();
  });
}

void NgramCorpus::Add(const TrainTokens& conversation) {
  const bool held_out = conversations_++ % kHeldOutEvery == kHeldOutEvery - 1;
  tokens_.push_back(kBegin);
  for (size_t i = 0; i < conversation.ids.size(); ++i) {
    if (conversation.loss_mask[i]) answers_.push_back(uint32_t(tokens_.size()));
    tokens_.push_back(conversation.ids[i]);
  }
  DSPARK_CHECK_LE(tokens(), kMostTokens);
  held_out_.resize(tokens_.size(), held_out);
}

NgramCounts CountNgrams(const NgramCorpus& corpus, int order, int vocab, int64_t most) {
  DSPARK_CHECK(order >= 1 && order <= kMaxNgramOrder);
  NgramCounter counter(corpus, order, vocab);
  // What a tenth of the corpus says of a table of the others: first of all contexts, so that the best can be
  // kept, then of these.
  HitRates rates;
  {
    std::vector<Context> contexts = counter.Count(rates, /*with_held_out=*/false);
    Kept kept(contexts.size());
    std::iota(kept.begin(), kept.end(), 0);
    rates = counter.Measure(contexts, kept);
    for (Context& context : contexts) context.probability = rates.Rate(context.order, context.tally);
    rates = counter.Measure(contexts, KeepBest(contexts, most));
  }
  const std::vector<Context> contexts = counter.Count(rates, /*with_held_out=*/true);
  const Kept kept = KeepBest(contexts, most);
  NgramCounts table{.entries = {}, .contexts = int64_t(contexts.size())};
  for (size_t i = 0; i < contexts.size(); ++i) {
    const Context& context = contexts[i];
    if (kept[i] != int32_t(i)) continue;
    table.entries.push_back(
        {context.hash, context.tally.token, uint8_t(std::lround(255 * context.probability))});
  }
  return table;
}

}  // namespace dspark
