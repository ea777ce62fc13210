// The flags that choose a model, its drafter and how both run.
#pragma once

#include "api/session.h"

namespace CLI {
class App;
}

namespace dspark {

// Adds -m, -c, -t and their friends. AddDraftFlags adds -md and its.
void AddSessionFlags(CLI::App& app, SessionOptions* options);

// Adds -md, --policy and their friends.
void AddDraftFlags(CLI::App& app, DraftOptions* options);
// Of these, --draft-weights alone; and --policy, --draft-max and --accept.
void AddDraftWeightsFlag(CLI::App& app, DraftOptions* options);
void AddPolicyFlags(CLI::App& app, DraftOptions* options);

}  // namespace dspark
