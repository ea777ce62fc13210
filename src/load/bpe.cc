#include "load/bpe.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <functional>

#include "core/check.h"
#include "load/printable.h"
#include "load/utf8.h"

namespace dspark {
namespace {

// Pieces of at most this many symbols are merged by scanning all ranks for the least.
constexpr size_t kShort = 48;
constexpr uint64_t kMix = 0x9E3779B97F4A7C15;  // 2^64 / golden ratio

struct Alphabet {
  std::array<char16_t, 256> character;  // of each byte
  std::array<int16_t, 0x144> byte;      // of each character, -1: none
};

constexpr Alphabet MakeAlphabet() {
  Alphabet a{};
  a.byte.fill(-1);
  char16_t next = 0x100;
  for (int b = 0; b < 256; ++b) {
    const bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    a.character[b] = printable ? char16_t(b) : next++;
    a.byte[a.character[b]] = int16_t(b);
  }
  return a;
}
constexpr Alphabet kAlphabet = MakeAlphabet();

template <class T>
T Load(const char* p) {
  T value;
  std::memcpy(&value, p, sizeof(T));
  return value;
}

uint64_t Mix(uint64_t a, uint64_t b) {
  const uint64_t product = (std::rotl(a, 29) ^ b) * kMix;
  return product ^ product >> 32;
}

// Reads any length in overlapping words, as wyhash does: most pieces are a few bytes and cost one
// multiplication.
uint32_t HashBytes(std::string_view s) {
  const char* p = s.data();
  const size_t n = s.size();
  uint64_t hash = n;
  if (n >= 8) {
    for (size_t i = 0; i + 8 < n; i += 8) hash = Mix(hash, Load<uint64_t>(p + i));
    hash = Mix(hash, Load<uint64_t>(p + n - 8));
  } else if (n >= 4) {
    hash = Mix(hash, uint64_t{Load<uint32_t>(p)} << 32 | Load<uint32_t>(p + n - 4));
  } else if (n > 0) {
    hash = Mix(hash, uint8_t(p[0]) | uint8_t(p[n / 2]) << 8 | uint8_t(p[n - 1]) << 16);
  }
  return uint32_t(hash >> 32) ^ uint32_t(hash);
}

size_t TableSize(size_t entries) { return std::bit_ceil(2 * entries + 1); }

uint64_t PairOf(int32_t left, int32_t right) { return uint64_t(uint32_t(left)) << 32 | uint32_t(right); }
size_t HashPair(uint64_t pair) { return size_t((pair * kMix) >> 24 ^ (pair >> 32)); }

}  // namespace

bool AppendSpelledBytes(std::string_view spelling, std::string* bytes) {
  const size_t before = bytes->size();
  for (size_t i = 0; i < spelling.size();) {
    // The alphabet ends at U+0143, so its characters have one or two bytes.
    uint32_t c = uint8_t(spelling[i++]);
    if (c >= 0x80) {
      const uint32_t second = i < spelling.size() ? uint8_t(spelling[i++]) : 0;
      c = c >= 0xC2 && c <= 0xC5 && (second & 0xC0) == 0x80 ? (c & 0x1F) << 6 | (second & 0x3F) : 0;
    }
    const int byte = c < kAlphabet.byte.size() ? kAlphabet.byte[c] : -1;
    if (byte < 0) {
      bytes->resize(before);
      return false;
    }
    bytes->push_back(char(byte));
  }
  return true;
}

std::string SpellBytes(std::string_view bytes) {
  std::string spelling;
  for (const char b : bytes) AppendUtf8(kAlphabet.character[uint8_t(b)], &spelling);
  return spelling;
}

Result<Bpe> Bpe::Make(const std::vector<std::string>& tokens, const std::vector<std::string>& merges,
                      bool whole_tokens) {
  Bpe bpe;
  DSPARK_RETURN_IF_ERROR(bpe.AddTokens(tokens));
  DSPARK_RETURN_IF_ERROR(bpe.AddMerges(merges));
  bpe.whole_ = std::make_unique<std::atomic<bool>[]>(tokens.size());
  for (size_t id = 0; id < tokens.size(); ++id) bpe.whole_[id] = whole_tokens;
  return bpe;
}

Status Bpe::AddTokens(const std::vector<std::string>& tokens) {
  if (tokens.size() >= size_t{kMaxVocab})
    return MakeError("{} tokens; the limit is {}", tokens.size(), kMaxVocab);
  size_t spelled_bytes = 0;
  for (const std::string& token : tokens) spelled_bytes += token.size();
  if (spelled_bytes > UINT32_MAX)
    return MakeError("the tokens' text is {} bytes; the limit is 4 GiB", spelled_bytes);
  bytes_.reserve(spelled_bytes);
  begin_.reserve(tokens.size() + 1);
  begin_.push_back(0);
  slots_.resize(TableSize(tokens.size()));
  byte_tokens_.fill(-1);
  for (size_t id = 0; id < tokens.size(); ++id) {
    const bool spelled = AppendSpelledBytes(tokens[id], &bytes_);
    if (!spelled) bytes_ += tokens[id];
    begin_.push_back(uint32_t(bytes_.size()));
    if (!spelled || tokens[id].empty()) continue;
    const std::string_view bytes = Bytes(int(id));
    const uint32_t hash = HashBytes(bytes);
    size_t slot = hash & (slots_.size() - 1);
    for (; slots_[slot].id >= 0; slot = (slot + 1) & (slots_.size() - 1)) {
      if (slots_[slot].hash == hash && Bytes(slots_[slot].id) == bytes)
        return MakeError("token {} is the same as token {} (\"{}\")", id, slots_[slot].id,
                         Printable(tokens[id]));
    }
    slots_[slot] = {hash, int32_t(id)};
    if (bytes.size() == 1) byte_tokens_[uint8_t(bytes[0])] = int32_t(id);
  }
  return {};
}

Status Bpe::AddMerges(const std::vector<std::string>& merges) {
  if (merges.size() >= size_t{kMaxVocab})
    return MakeError("{} merges; the limit is {}", merges.size(), kMaxVocab);
  merges_.resize(TableSize(merges.size()));
  std::string joined;
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const std::string_view merge = merges[rank];
    const size_t space = std::min(merge.find(' '), merge.size());
    joined.clear();
    bool spelled = AppendSpelledBytes(merge.substr(0, space), &joined);
    const size_t middle = joined.size();
    spelled = spelled && space < merge.size() && AppendSpelledBytes(merge.substr(space + 1), &joined);
    const std::string_view bytes = joined;
    const int32_t left = spelled ? FindToken(bytes.substr(0, middle)) : -1;
    const int32_t right = spelled ? FindToken(bytes.substr(middle)) : -1;
    const int32_t id = spelled ? FindToken(bytes) : -1;
    if (left < 0 || right < 0 || id < 0)
      return MakeError("merge {} (\"{}\") is not two tokens that make a third", rank, Printable(merge));
    const uint64_t pair = PairOf(left, right);
    size_t slot = HashPair(pair) & (merges_.size() - 1);
    while (merges_[slot].pair != kNoPair && merges_[slot].pair != pair)
      slot = (slot + 1) & (merges_.size() - 1);
    merges_[slot] = {pair, uint32_t(rank),
                     id};  // of a pair listed twice the later rank holds, as in tokenizers
  }
  return {};
}

int32_t Bpe::FindToken(std::string_view bytes) const {
  const uint32_t hash = HashBytes(bytes);
  size_t slot = hash & (slots_.size() - 1);
  for (; slots_[slot].id >= 0; slot = (slot + 1) & (slots_.size() - 1)) {
    if (slots_[slot].hash == hash && Bytes(slots_[slot].id) == bytes) return slots_[slot].id;
  }
  return -1;
}

const Bpe::Merge& Bpe::FindMerge(int32_t left, int32_t right) const {
  static constexpr Merge kNone{kNoPair, kNoRank, -1};
  const uint64_t pair = PairOf(left, right);
  size_t slot = HashPair(pair) & (merges_.size() - 1);
  for (; merges_[slot].pair != kNoPair; slot = (slot + 1) & (merges_.size() - 1)) {
    if (merges_[slot].pair == pair) return merges_[slot];
  }
  return kNone;
}

void Bpe::Encode(std::string_view piece, Scratch* scratch, std::vector<int32_t>* ids) const {
  const int32_t token = FindToken(piece);
  if (token >= 0 && whole_[token].load(std::memory_order_relaxed)) {
    ids->push_back(token);
    return;
  }
  std::vector<int32_t>& symbols = scratch->ids;
  symbols.clear();
  for (const char b : piece) {
    if (const int32_t id = byte_tokens_[uint8_t(b)]; id >= 0) symbols.push_back(id);
  }
  if (symbols.size() <= kShort) {
    MergeShort(&symbols);
  } else {
    MergeLong(scratch);
  }
  if (symbols.size() == 1 && symbols[0] == token) whole_[token].store(true, std::memory_order_relaxed);
  ids->insert(ids->end(), symbols.begin(), symbols.end());
}

void Bpe::MergeShort(std::vector<int32_t>* ids) const {
  int32_t* const id = ids->data();
  size_t n = ids->size();
  std::array<const Merge*, kShort> merge;  // of symbols i and i + 1
  for (size_t i = 0; i + 1 < n; ++i) merge[i] = &FindMerge(id[i], id[i + 1]);
  while (n > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < n; ++i) {
      if (merge[i]->rank < merge[best]->rank) best = i;
    }
    if (merge[best]->rank == kNoRank) break;
    id[best] = merge[best]->id;
    --n;
    std::copy(id + best + 2, id + n + 1, id + best + 1);
    if (best + 1 < n) {
      std::copy(merge.begin() + best + 2, merge.begin() + n, merge.begin() + best + 1);
      merge[best] = &FindMerge(id[best], id[best + 1]);
    }
    if (best > 0) merge[best - 1] = &FindMerge(id[best - 1], id[best]);
  }
  ids->resize(n);
}

// Candidates (rank, position) in a heap, symbols in a list linked by position. A candidate is stale when the
// merge of what now stands at its position has another rank.
void Bpe::MergeLong(Scratch* scratch) const {
  std::vector<int32_t>&id = scratch->ids, &next = scratch->next, &previous = scratch->previous;
  std::vector<uint64_t>& heap = scratch->heap;
  const int n = int(id.size());
  next.resize(n);
  previous.resize(n);
  heap.clear();
  const auto merge_at = [&](int i) -> const Merge& {
    return FindMerge(id[i], next[i] < n ? id[next[i]] : -1);
  };
  const auto candidate = [](uint32_t rank, int i) { return uint64_t{rank} << 32 | uint32_t(i); };
  for (int i = 0; i < n; ++i) {
    next[i] = i + 1;
    previous[i] = i - 1;
    if (const Merge& m = merge_at(i); m.rank != kNoRank) heap.push_back(candidate(m.rank, i));
  }
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  const auto push = [&](int i) {
    if (const Merge& m = merge_at(i); m.rank != kNoRank) {
      heap.push_back(candidate(m.rank, i));
      std::push_heap(heap.begin(), heap.end(), std::greater<>());
    }
  };
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    const uint64_t top = heap.back();
    heap.pop_back();
    const int i = int(uint32_t(top));
    if (id[i] < 0) continue;
    const Merge& m = merge_at(i);
    if (m.rank != top >> 32) continue;
    const int right = next[i];
    id[i] = m.id;
    id[right] = -1;
    next[i] = next[right];
    if (next[i] < n) previous[next[i]] = i;
    push(i);
    if (previous[i] >= 0) push(previous[i]);
  }
  std::erase(id, -1);
}

}  // namespace dspark
