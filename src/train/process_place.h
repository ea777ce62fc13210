// Which of several training processes this one is, and where they meet: given by hand, or found in what the
// program that started them left in the environment.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "core/result.h"

namespace dspark {

struct ProcessPlace {
  int rank = 0, world = 1;  // this process, of how many
  int on_this_machine = 1;  // of the `world`; 1 where nobody says
  std::string host;         // of the store that all of them meet at: rank 0's machine
  int port = 0;
  bool store_is_there = false;  // torchrun keeps the store itself; otherwise rank 0 does
  std::string prefix;           // of the keys in the store: torchrun keeps it through restarts
  std::string interface;        // network interface to talk through (GLOO_SOCKET_IFNAME); empty: the host's
};

using Environment = std::function<std::optional<std::string>(const std::string& name)>;

// Takes the keys rank, world and store (tcp://HOST:PORT) out of `json`; without them, torchrun's variables
// (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT, LOCAL_WORLD_SIZE), MPI's (OMPI_COMM_WORLD_*, PMI_*) and
// Slurm's (of a step: SLURM_PROCID, SLURM_STEP_NUM_TASKS, SLURM_STEP_NODELIST) count, in this order. A store
// or MASTER_ADDR that is given goes before what Slurm says. Error: what contradicts itself, or no meeting
// place.
Result<ProcessPlace> FindProcessPlace(nlohmann::json* json, const Environment& environment);

// The first host of Slurm's list: "node[03-05,9],gpu1" is node03.
std::string FirstOfNodeList(const std::string& list);

}  // namespace dspark
