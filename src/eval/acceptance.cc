#include "eval/acceptance.h"

#include <algorithm>
#include <limits>

namespace dspark {
namespace {

std::vector<double> Shares(const std::vector<int64_t>& part, const std::vector<int64_t>& whole) {
  std::vector<double> shares;
  shares.reserve(part.size());
  for (size_t k = 0; k < part.size(); ++k) {
    shares.push_back(whole[k] ? double(part[k]) / double(whole[k])
                              : std::numeric_limits<double>::quiet_NaN());
  }
  return shares;
}

void AddTo(std::vector<int64_t>* sums, const std::vector<int64_t>& counts) {
  sums->resize(std::max(sums->size(), counts.size()));
  for (size_t k = 0; k < counts.size(); ++k) (*sums)[k] += counts[k];
}

}  // namespace

void AcceptanceStats::Add(int round_drafted, int round_accepted, int round_committed) {
  rounds += 1;
  committed += round_committed;
  drafted += round_drafted;
  const size_t positions = std::max(verified_at.size(), size_t(round_drafted));
  for (auto* counts : {&verified_at, &reached_at, &accepted_at}) counts->resize(positions);
  for (int k = 0; k < round_drafted; ++k) {
    verified_at[size_t(k)] += 1;
    reached_at[size_t(k)] += round_accepted >= k;
    accepted_at[size_t(k)] += round_accepted > k;
  }
}

void AcceptanceStats::Add(const AcceptanceStats& other) {
  rounds += other.rounds;
  committed += other.committed;
  drafted += other.drafted;
  AddTo(&verified_at, other.verified_at);
  AddTo(&reached_at, other.reached_at);
  AddTo(&accepted_at, other.accepted_at);
}

AcceptanceStats AcceptanceStats::Without(const AcceptanceStats& part) const {
  AcceptanceStats rest = *this;
  rest.rounds -= part.rounds;
  rest.committed -= part.committed;
  rest.drafted -= part.drafted;
  for (size_t k = 0; k < part.verified_at.size(); ++k) {
    rest.verified_at[k] -= part.verified_at[k];
    rest.reached_at[k] -= part.reached_at[k];
    rest.accepted_at[k] -= part.accepted_at[k];
  }
  while (!rest.verified_at.empty() && rest.verified_at.back() == 0) {
    for (auto* counts : {&rest.verified_at, &rest.reached_at, &rest.accepted_at}) counts->pop_back();
  }
  return rest;
}

double AcceptanceStats::Tau() const { return rounds ? double(committed) / double(rounds) : 0; }
double AcceptanceStats::DraftsPerRound() const { return rounds ? double(drafted) / double(rounds) : 0; }
double AcceptanceStats::VerifyRate() const {
  return rounds ? double(committed) / double(drafted + rounds) : 0;
}

std::vector<double> AcceptanceStats::Unconditional() const { return Shares(accepted_at, verified_at); }
std::vector<double> AcceptanceStats::Conditional() const { return Shares(accepted_at, reached_at); }

}  // namespace dspark
