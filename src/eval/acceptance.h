// What proposals came to, pooled over rounds, in the terms of drafters.md §9.
#pragma once

#include <cstdint>
#include <vector>

namespace dspark {

struct AcceptanceStats {
  int64_t rounds = 0;
  int64_t committed = 0;             // tokens, the extra one of each round included
  int64_t drafted = 0;               // drafts verified
  std::vector<int64_t> verified_at;  // [k]: rounds in which draft k + 1 was verified
  std::vector<int64_t> reached_at;   // [k]: of these, rounds that kept all drafts before it
  std::vector<int64_t> accepted_at;  // [k]: rounds that kept drafts 1 … k + 1

  void Add(int round_drafted, int round_accepted, int round_committed);
  void Add(const AcceptanceStats& other);
  // What is left without `part`, some of these rounds; positions that are left without any go.
  AcceptanceStats Without(const AcceptanceStats& part) const;

  // Tokens per round. These three are 0 without rounds.
  double Tau() const;
  double DraftsPerRound() const;
  // Committed tokens per row that was run for them.
  double VerifyRate() const;
  // [k]: P(drafts 1 … k + 1 kept), and P(draft k + 1 kept | those before it were); NaN where none was
  // verified.
  std::vector<double> Unconditional() const;
  std::vector<double> Conditional() const;
};

}  // namespace dspark
