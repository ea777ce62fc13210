#include "grammar/number_range.h"

#include <algorithm>
#include <cstdlib>
#include <vector>

namespace dspark {
namespace {

using Node = GrammarBuilder::Node;

// A bound on a number without sign, digit by digit.
struct Limit {
  std::string whole{};     // digits before the point, without leading zeros
  std::string fraction{};  // [decimals]
  bool exclusive = false;
};

// What a bound means for numbers of at most `decimals` digits behind the point. A bound between two of them
// excludes the one below it where it is the least, and includes it where it is the largest.
Limit LimitOf(const NumberBound& bound, int decimals, bool is_max) {
  const int point = int(bound.digits.size()) + bound.exponent;  // digits before it
  Limit limit{.exclusive = bound.exclusive};
  std::string fraction;
  if (point <= 0) {
    fraction = std::string(size_t(std::min(-point, kMaxDigits + 1)), '0') + bound.digits;
  } else {
    limit.whole = bound.digits.substr(0, size_t(point));
    const auto size = size_t(std::min(point, kMaxDigits + 1));
    limit.whole += std::string(size - std::min(size, limit.whole.size()), '0');
    if (size_t(point) < bound.digits.size()) fraction = bound.digits.substr(size_t(point));
  }
  if (fraction.find_first_not_of('0', size_t(decimals)) != std::string::npos) limit.exclusive = !is_max;
  fraction.resize(size_t(decimals), '0');
  limit.fraction = fraction;
  return limit;
}

// Numbers with `whole` digits before the point, between two limits of as many; null: none.
class Digits {
 public:
  Digits(GrammarBuilder& builder, int whole, int decimals, const Limit* min, const Limit* max)
      : builder_(builder), whole_(size_t(whole)), length_(size_t(whole + decimals)), min_(min), max_(max) {}

  Node All() { return Rest(0, min_ != nullptr, max_ != nullptr); }

 private:
  static char At(const Limit& limit, size_t i) {
    return i < limit.whole.size() ? limit.whole[i] : limit.fraction[i - limit.whole.size()];
  }
  bool OnlyZeros(const Limit& limit, size_t from) const {
    for (size_t i = from; i < length_; ++i) {
      if (At(limit, i) != '0') return false;
    }
    return true;
  }

  // What may follow the first `at` digits; on_min, on_max: they are those of the limit.
  Node Rest(size_t at, bool on_min, bool on_max) {
    std::vector<Node> parts;
    const bool too_small = on_min && (min_->exclusive || !OnlyZeros(*min_, at));
    const bool too_large = on_max && max_->exclusive && OnlyZeros(*max_, at);
    if (at >= whole_ && !too_small && !too_large) parts.push_back(builder_.Empty());
    if (at < length_) {
      const char lowest = on_min ? At(*min_, at) : at == 0 && whole_ > 1 ? '1' : '0';
      const char highest = on_max ? At(*max_, at) : '9';
      const auto add = [&](char first, char last) {
        if (first > last) return;
        const Node rest = Rest(at + 1, on_min && first == lowest, on_max && last == highest);
        parts.push_back(builder_.Sequence({at == whole_ ? builder_.Text(".") : builder_.Empty(),
                                           builder_.Range(uint8_t(first), uint8_t(last)), rest}));
      };
      const bool low = on_min, high = on_max && !(low && lowest == highest);
      if (low) add(lowest, lowest);
      add(char(lowest + low), char(highest - high));
      if (high) add(highest, highest);
    }
    return builder_.Choice(std::move(parts));
  }

  GrammarBuilder& builder_;
  const size_t whole_, length_;
  const Limit *min_, *max_;
};

// Numbers without sign; those with `whole` digits reach a limit of as many only.
Node Unsigned(GrammarBuilder& builder, int decimals, const std::optional<NumberBound>& min_bound,
              const std::optional<NumberBound>& max_bound) {
  std::optional<Limit> min, max;
  if (min_bound) min = LimitOf(*min_bound, decimals, false);
  if (max_bound) max = LimitOf(*max_bound, decimals, true);
  for (std::optional<Limit>* limit : {&min, &max}) {
    if (*limit && (*limit)->whole.empty()) (*limit)->whole.assign(1, '0');
  }
  std::vector<Node> parts;
  for (int whole = 1; whole <= kMaxDigits; ++whole) {
    const int min_size = min ? int(min->whole.size()) : 0,
              max_size = max ? int(max->whole.size()) : kMaxDigits + 1;
    if (whole < min_size || whole > max_size) continue;
    parts.push_back(Digits(builder, whole, decimals, whole == min_size ? &*min : nullptr,
                           whole == max_size ? &*max : nullptr)
                        .All());
  }
  return builder.Choice(std::move(parts));
}

Node Unbounded(GrammarBuilder& b, bool integer) {
  const Node digit = b.Range('0', '9');
  const Node whole =
      b.Choice({b.Text("0"), b.Sequence({b.Range('1', '9'), b.Repeat(digit, 0, kMaxDigits - 1)})});
  const Node sign = b.Optional(b.Text("-"));
  if (integer) return b.Sequence({sign, whole});
  const Node fraction = b.Sequence({b.Text("."), b.Repeat(digit, 1, kMaxDigits)});
  const Node exponent = b.Sequence({b.Choice({b.Text("e"), b.Text("E")}),
                                    b.Optional(b.Choice({b.Text("+"), b.Text("-")})), b.Repeat(digit, 1, 2)});
  return b.Sequence({sign, whole, b.Optional(fraction), b.Optional(exponent)});
}

}  // namespace

NumberBound ParseBound(std::string_view number, bool exclusive) {
  NumberBound bound{.exclusive = exclusive};
  bound.negative = number.starts_with('-');
  const size_t e = number.find_first_of("eE");
  if (e != std::string_view::npos) bound.exponent = std::atoi(std::string(number.substr(e + 1)).c_str());
  bool behind_point = false;
  for (const char c : number.substr(0, e)) {
    if (c == '.') behind_point = true;
    if (c < '0' || c > '9') continue;
    bound.exponent -= behind_point;
    if (c != '0' || !bound.digits.empty()) bound.digits += c;
  }
  if (bound.digits.empty()) bound.negative = false, bound.exponent = 0;
  return bound;
}

Node NumberInRange(GrammarBuilder& builder, const NumberRange& range) {
  if (!range.min && !range.max) return Unbounded(builder, range.integer);
  const int decimals = range.integer ? 0 : kMaxDigits;
  std::vector<Node> parts;
  if (!range.max || !range.max->negative) {
    const bool from_zero = !range.min || range.min->negative;
    parts.push_back(Unsigned(builder, decimals, from_zero ? std::nullopt : range.min, range.max));
  }
  if (!range.min || range.min->negative) {
    const NumberBound zero{.exclusive = true};
    const bool below_zero = range.max && range.max->negative;
    const Node magnitude = Unsigned(builder, decimals, below_zero ? *range.max : zero, range.min);
    parts.push_back(builder.Sequence({builder.Text("-"), magnitude}));
  }
  return builder.Choice(std::move(parts));
}

}  // namespace dspark
