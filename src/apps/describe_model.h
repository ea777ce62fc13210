// A session as a server shows it.
#pragma once

#include <string>

#include "api/session.h"
#include "serve/served_model.h"

namespace dspark {

// `name`: what requests call the model; empty: its file's. The session outlives the result.
ServedModel DescribeModel(const Session& session, const std::string& name);

// What proposes, for people: none, or a list without folders.
std::string ShortDrafterNames(const Session& session);

// Rows with logits that a pass for so many sequences should hold: seven drafts behind each, as far as wide
// passes still pay and their logits stay small beside the weights.
int LogitRowsFor(int sequences);

}  // namespace dspark
