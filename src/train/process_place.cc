#include "train/process_place.h"

#include <charconv>

namespace dspark {
namespace {

constexpr int kPort = 29500;  // torchrun's

Result<int> ParseNumber(const std::string& name, const std::string& text, int low, int high) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < low || value > high)
    return MakeError("{} is \"{}\", expected {} to {}", name, text, low, high);
  return value;
}

// One way of starting processes: the names of its variables.
struct Starter {
  const char *rank, *world, *local;
};
constexpr Starter kStarters[] = {
    {"RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"},
    {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE"},
    {"PMI_RANK", "PMI_SIZE", "MPI_LOCALNRANKS"},
    {"SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_TASKS_PER_NODE"},
};

constexpr int kMostProcesses = 65536;

struct Finder {
  const Environment& environment;

  Result<int> Number(const char* name, int low, int high) const {
    return ParseNumber(name, environment(name).value_or(""), low, high);
  }

  Status Count(const Starter& starter, ProcessPlace* place) const {
    DSPARK_ASSIGN_OR_RETURN(place->world, Number(starter.world, 1, kMostProcesses));
    DSPARK_ASSIGN_OR_RETURN(place->rank, Number(starter.rank, 0, place->world - 1));
    const std::string local = environment(starter.local).value_or("1");  // Slurm's: "2(x3),1"
    const auto count =
        ParseNumber(starter.local, local.substr(0, local.find_first_of("(,")), 1, kMostProcesses);
    place->on_this_machine = count ? *count : 1;
    return {};
  }

  // Where no store was named.
  Status Meet(ProcessPlace* place) const {
    place->port = kPort;
    if (environment("MASTER_PORT")) {
      DSPARK_ASSIGN_OR_RETURN(place->port, Number("MASTER_PORT", 1, 65535));
    }
    const auto nodes = environment("SLURM_STEP_NODELIST");
    if (environment("MASTER_ADDR")) {
      place->host = *environment("MASTER_ADDR");
    } else if (nodes) {
      place->host = FirstOfNodeList(*nodes);
      // Another port for each job, so that jobs on one machine do not meet.
      const auto job = ParseNumber("SLURM_JOB_ID", environment("SLURM_JOB_ID").value_or(""), 0, 1 << 30);
      if (job && !environment("MASTER_PORT")) place->port = 20000 + *job % 10000;
    } else if (place->on_this_machine == place->world) {
      place->host = "127.0.0.1";
    }
    if (!place->host.empty()) return {};
    return MakeError(
        "{} processes on several machines, but nobody says where they meet; give store=tcp://HOST:PORT, the "
        "machine of rank 0 and a port that is free there",
        place->world);
  }
};

Status ParseStore(const std::string& text, ProcessPlace* place) {
  const size_t colon = text.rfind(':');
  constexpr std::string_view kScheme = "tcp://";
  if (!text.starts_with(kScheme) || colon < kScheme.size() + 1 || colon == std::string::npos)
    return MakeError("store is \"{}\", expected tcp://HOST:PORT", text);
  place->host = text.substr(kScheme.size(), colon - kScheme.size());
  DSPARK_ASSIGN_OR_RETURN(place->port, ParseNumber("the port of store", text.substr(colon + 1), 1, 65535));
  return {};
}

std::optional<std::string> Take(nlohmann::json* json, const char* key) {
  const auto it = json->find(key);
  if (it == json->end()) return {};
  const std::string text = it->is_string() ? it->get<std::string>() : it->dump();
  json->erase(it);
  return text;
}

}  // namespace

std::string FirstOfNodeList(const std::string& list) {
  const size_t open = list.find_first_of("[,");
  if (open == std::string::npos || list[open] == ',') return list.substr(0, open);
  const size_t end = list.find_first_of("-,]", open);
  return list.substr(0, open) + list.substr(open + 1, end - open - 1);
}

Result<ProcessPlace> FindProcessPlace(nlohmann::json* json, const Environment& environment) {
  ProcessPlace place;
  const Finder finder{environment};
  const auto rank = Take(json, "rank"), world = Take(json, "world"), store = Take(json, "store");
  if (rank.has_value() != world.has_value()) return MakeError("rank and world go together; give both");
  if (world) {
    DSPARK_ASSIGN_OR_RETURN(place.world, ParseNumber("world", *world, 1, kMostProcesses));
    DSPARK_ASSIGN_OR_RETURN(place.rank, ParseNumber("rank", *rank, 0, place.world - 1));
    if (place.world > 1 && !store)
      return MakeError("{} processes, but no store; give store=tcp://HOST:PORT to all", place.world);
  } else {
    for (const Starter& starter : kStarters) {
      if (!environment(starter.rank) || !environment(starter.world)) continue;
      DSPARK_RETURN_IF_ERROR(finder.Count(starter, &place));
      break;
    }
  }
  if (place.world == 1) return ProcessPlace();
  if (store) {
    DSPARK_RETURN_IF_ERROR(ParseStore(*store, &place));
  } else {
    DSPARK_RETURN_IF_ERROR(finder.Meet(&place));
    place.store_is_there = environment("TORCHELASTIC_USE_AGENT_STORE") == "True";
    place.prefix = environment("TORCHELASTIC_RESTART_COUNT").value_or("");
  }
  place.interface = environment("GLOO_SOCKET_IFNAME").value_or("");
  return place;
}

}  // namespace dspark
