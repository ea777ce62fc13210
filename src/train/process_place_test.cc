#include "train/process_place.h"

#include <gtest/gtest.h>

#include <map>

namespace dspark::test {
namespace {

using Variables = std::map<std::string, std::string>;

Result<ProcessPlace> Find(const Variables& variables, nlohmann::json keys = nlohmann::json::object()) {
  return FindProcessPlace(&keys, [&](const std::string& name) -> std::optional<std::string> {
    const auto it = variables.find(name);
    if (it == variables.end()) return {};
    return it->second;
  });
}

std::string Told(const Result<ProcessPlace>& place) {
  if (!place.ok()) return place.error().text;
  return fmt::format("{} of {} ({} here) at {}:{}", place->rank, place->world, place->on_this_machine,
                     place->host, place->port);
}

TEST(ProcessPlace, AloneUnlessSomebodySaysOtherwise) {
  EXPECT_EQ(Told(Find({})), "0 of 1 (1 here) at :0");
  EXPECT_EQ(Told(Find({{"RANK", "0"}, {"WORLD_SIZE", "1"}})), "0 of 1 (1 here) at :0");
  // A batch script's own variables, outside of a step that srun starts.
  EXPECT_EQ(Told(Find({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "8"}, {"SLURM_NODELIST", "n[1-2]"}})),
            "0 of 1 (1 here) at :0");
}

TEST(ProcessPlace, ByHand) {
  nlohmann::json keys = {{"rank", 1}, {"world", 2}, {"store", "tcp://node7:1234"}, {"steps", 3}};
  const auto place = FindProcessPlace(&keys, [](const std::string&) { return std::nullopt; });
  EXPECT_EQ(Told(place), "1 of 2 (1 here) at node7:1234");
  EXPECT_EQ(keys, (nlohmann::json{{"steps", 3}}));  // the others are the trainer's
  EXPECT_EQ(Told(Find({{"RANK", "3"}, {"WORLD_SIZE", "4"}}, {{"rank", 0}, {"world", 1}})),
            "0 of 1 (1 here) at :0");
}

TEST(ProcessPlace, FromTorchrun) {
  Variables v = {{"RANK", "3"},
                 {"WORLD_SIZE", "4"},
                 {"LOCAL_WORLD_SIZE", "2"},
                 {"MASTER_ADDR", "head"},
                 {"MASTER_PORT", "4711"},
                 {"TORCHELASTIC_USE_AGENT_STORE", "True"},
                 {"TORCHELASTIC_RESTART_COUNT", "1"}};
  const auto place = Find(v);
  EXPECT_EQ(Told(place), "3 of 4 (2 here) at head:4711");
  EXPECT_TRUE(place->store_is_there);
  EXPECT_EQ(place->prefix, "1");
}

TEST(ProcessPlace, FromMpi) {
  Variables v = {
      {"OMPI_COMM_WORLD_RANK", "1"}, {"OMPI_COMM_WORLD_SIZE", "2"}, {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}};
  EXPECT_EQ(Told(Find(v)), "1 of 2 (2 here) at 127.0.0.1:29500");
  v["OMPI_COMM_WORLD_LOCAL_SIZE"] = "1";
  EXPECT_NE(Told(Find(v)).find("give store=tcp://HOST:PORT"), std::string::npos);
  EXPECT_EQ(Told(Find(v, {{"store", "tcp://10.0.0.1:99"}})), "1 of 2 (1 here) at 10.0.0.1:99");
  EXPECT_EQ(Told(Find({{"PMI_RANK", "0"}, {"PMI_SIZE", "3"}, {"MASTER_ADDR", "h"}})),
            "0 of 3 (1 here) at h:29500");
}

TEST(ProcessPlace, FromSlurm) {
  const Variables v = {{"SLURM_PROCID", "5"},
                       {"SLURM_STEP_NUM_TASKS", "6"},
                       {"SLURM_STEP_TASKS_PER_NODE", "2(x3)"},
                       {"SLURM_STEP_NODELIST", "gpu[07-09]"},
                       {"SLURM_JOB_ID", "123456"}};
  EXPECT_EQ(Told(Find(v)), "5 of 6 (2 here) at gpu07:23456");
}

TEST(ProcessPlace, FirstOfNodeList) {
  for (const char* list : {"node03", "node03,node04", "node[03-05,9],gpu1", "node[03]"})
    EXPECT_EQ(FirstOfNodeList(list), "node03") << list;
}

TEST(ProcessPlace, RefusesWhatMakesNoSense) {
  EXPECT_EQ(Told(Find({}, {{"rank", 2}, {"world", 2}, {"store", "tcp://h:1"}})),
            "rank is \"2\", expected 0 to 1");
  EXPECT_EQ(Told(Find({}, {{"rank", 1}})), "rank and world go together; give both");
  EXPECT_NE(Told(Find({}, {{"rank", 1}, {"world", 2}})).find("no store"), std::string::npos);
  for (const char* store : {"h:1", "tcp://h", "tcp://:1", "tcp://h:x", "tcp://h:70000"})
    EXPECT_NE(Told(Find({}, {{"rank", 1}, {"world", 2}, {"store", store}})).find("expected"),
              std::string::npos);
  EXPECT_EQ(Told(Find({{"RANK", "x"}, {"WORLD_SIZE", "4"}})), "RANK is \"x\", expected 0 to 3");
}

}  // namespace
}  // namespace dspark::test
