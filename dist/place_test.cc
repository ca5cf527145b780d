#include "grapnel/dist/place.h"

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

using Variables = std::map<std::string, std::string>;

GetVariable Of(Variables variables) {
  return [variables](const char* name) -> std::optional<std::string> {
    const auto found = variables.find(name);
    if (found == variables.end()) return std::nullopt;
    return found->second;
  };
}

Variables With(Variables variables, const Variables& others) {
  for (const auto& [name, value] : others) {
    if (value == "unset") {
      variables.erase(name);
    } else {
      variables[name] = value;
    }
  }
  return variables;
}

// As torchrun sets them for the second of two machines.
Variables Torchrun() {
  return {{"RANK", "3"},
          {"WORLD_SIZE", "4"},
          {"LOCAL_RANK", "1"},
          {"LOCAL_WORLD_SIZE", "2"},
          {"MASTER_ADDR", "node1"},
          {"MASTER_PORT", "29400"},
          {"TORCHELASTIC_USE_AGENT_STORE", "True"},
          {"TORCHELASTIC_RESTART_COUNT", "2"},
          {"TORCHELASTIC_RUN_ID", "job7"}};
}

Variables ByHand() {
  return {{"RANK", "1"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "10.0.0.1"}};
}

// As srun 22.05 sets them.
Variables Slurm() {
  return {{"SLURM_PROCID", "4"},
          {"SLURM_STEP_NUM_TASKS", "6"},
          {"SLURM_NTASKS", "6"},
          {"SLURM_LOCALID", "0"},
          {"SLURM_NODEID", "2"},
          {"SLURM_STEP_NUM_NODES", "3"},
          {"SLURM_STEP_TASKS_PER_NODE", "2(x3)"},
          {"SLURM_STEP_NODELIST", "gpu[03-04,11]"},
          {"SLURM_JOB_ID", "1234"},
          {"SLURM_STEP_ID", "1"}};
}

// As mpirun of OpenMPI 4.1 sets them.
Variables OpenMpi() {
  return {{"OMPI_COMM_WORLD_RANK", "1"},
          {"OMPI_COMM_WORLD_SIZE", "2"},
          {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
          {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"},
          {"OMPI_MCA_ess_base_jobid", "1093337089"},
          {"OMPI_MCA_orte_hnp_uri",
           "1093337088.0;tcp://192.0.2.2,10.1.0.2:52975;"
           "tcp6://[fd00::2]:54095"}};
}

// As mpiexec of MPICH 4.0 sets them.
Variables Mpich() {
  return {{"PMI_RANK", "1"},
          {"PMI_SIZE", "2"},
          {"MPI_LOCALRANKID", "1"},
          {"MPI_LOCALNRANKS", "2"}};
}

std::string Text(const Place& place) {
  return absl::StrCat(LauncherName(place.launcher), " ", place.rank, "/",
                      place.world_size, " ", place.local_rank, "/",
                      place.local_world_size, " at ", place.master_address, ":",
                      place.master_port,
                      place.launcher_listens ? " (launcher's)" : "", " job \"",
                      place.job, "\" attempt ", place.attempt);
}

struct GoodCase {
  std::string name;
  Launcher launcher;
  Variables variables;
  std::string place;
};

class FindPlaceTest : public ::testing::TestWithParam<GoodCase> {};

TEST_P(FindPlaceTest, Finds) {
  const auto place = FindPlace(GetParam().launcher, Of(GetParam().variables));
  ASSERT_THAT(place, IsOk());
  EXPECT_EQ(Text(*place), GetParam().place);
}

std::vector<GoodCase> GoodCases() {
  const std::string alone = "none 0/1 0/1 at :0 job \"\" attempt 0";
  const std::string torchrun =
      "torchrun 3/4 1/2 at node1:29400 (launcher's) job \"job7\" attempt 2";
  const std::string mpi =
      "mpi 1/2 1/2 at 127.0.0.1:23770 job \"1093337089\" attempt 0";
  return {
      {"NothingSet", Launcher::kAuto, {}, alone},
      {"NoneWhateverIsSet", Launcher::kNone, Torchrun(), alone},
      {"Torchrun", Launcher::kTorchrun, Torchrun(), torchrun},
      {"TorchrunFoundByItself", Launcher::kAuto, Torchrun(), torchrun},
      {"SetByHand", Launcher::kAuto, ByHand(),
       "torchrun 1/2 1/2 at 10.0.0.1:29500 job \"\" attempt 0"},
      {"EmptyIsAsUnset",
       Launcher::kAuto,
       {{"RANK", ""}, {"WORLD_SIZE", ""}, {"SLURM_PROCID", ""}},
       alone},
      {"RankZeroListensWithoutAgentStore", Launcher::kTorchrun,
       With(Torchrun(), {{"TORCHELASTIC_USE_AGENT_STORE", "False"}}),
       "torchrun 3/4 1/2 at node1:29400 job \"job7\" attempt 2"},
      {"Slurm", Launcher::kAuto, Slurm(),
       "slurm 4/6 0/2 at gpu03:15659 job \"1234.1\" attempt 0"},
      {"SlurmRequeued", Launcher::kSlurm,
       With(Slurm(), {{"SLURM_RESTART_COUNT", "3"}}),
       "slurm 4/6 0/2 at gpu03:15659 job \"1234.1\" attempt 3"},
      {"SlurmNodesOfDifferentSizes", Launcher::kSlurm,
       With(Slurm(), {{"SLURM_STEP_TASKS_PER_NODE", "2(x2),3"}}),
       "slurm 4/6 0/3 at gpu03:15659 job \"1234.1\" attempt 0"},
      {"SlurmWithAMasterOfOurs", Launcher::kSlurm,
       With(Slurm(), {{"MASTER_ADDR", "gpu9"}, {"MASTER_PORT", "7"}}),
       "slurm 4/6 0/2 at gpu9:7 job \"1234.1\" attempt 0"},
      {"SlurmOnOneNode", Launcher::kSlurm,
       With(Slurm(), {{"SLURM_STEP_NUM_NODES", "1"},
                      {"SLURM_STEP_TASKS_PER_NODE", "6"},
                      {"SLURM_NODEID", "0"}}),
       "slurm 4/6 0/6 at 127.0.0.1:15659 job \"1234.1\" attempt 0"},
      // It has the job's number of tasks, and is none of them.
      {"BatchScriptOfSlurmIsAlone", Launcher::kAuto,
       With(Slurm(), {{"SLURM_STEP_NUM_TASKS", "unset"}}), alone},
      {"OpenMpi", Launcher::kAuto, OpenMpi(), mpi},
      {"OpenMpiOfManyMachinesMeetsAtMpirun", Launcher::kMpi,
       With(OpenMpi(), {{"OMPI_COMM_WORLD_SIZE", "4"}}),
       "mpi 1/4 1/2 at 192.0.2.2:23770 job \"1093337089\" attempt 0"},
      {"Mpich", Launcher::kAuto, Mpich(),
       "mpi 1/2 1/2 at 127.0.0.1:29500 job \"\" attempt 0"},
      {"TorchrunOnEachMachineOfSlurm", Launcher::kAuto,
       With(Torchrun(), Slurm()), torchrun},
      {"MpirunInAJobOfSlurm", Launcher::kAuto, With(OpenMpi(), Slurm()), mpi},
      {"ByHandAsMpiSays", Launcher::kAuto, With(ByHand(), OpenMpi()),
       "torchrun 1/2 1/2 at 10.0.0.1:29500 job \"\" attempt 0"},
  };
}

INSTANTIATE_TEST_SUITE_P(, FindPlaceTest, ::testing::ValuesIn(GoodCases()),
                         [](const auto& info) { return info.param.name; });

struct BadCase {
  std::string name;
  Launcher launcher;
  Variables variables;
  absl::StatusCode code;
  std::vector<std::string> messages;
};

class FindPlaceErrorTest : public ::testing::TestWithParam<BadCase> {};

TEST_P(FindPlaceErrorTest, NamesTheVariableAndItsValue) {
  const auto place = FindPlace(GetParam().launcher, Of(GetParam().variables));
  for (const std::string& message : GetParam().messages) {
    EXPECT_THAT(place, StatusIs(GetParam().code, HasSubstr(message)));
  }
}

BadCase Missing(const std::string& name, Launcher launcher,
                const Variables& variables, const std::string& variable) {
  return {name,
          launcher,
          With(variables, {{variable, "unset"}}),
          absl::StatusCode::kFailedPrecondition,
          {absl::StrCat(variable, ": is missing, launcher \"",
                        LauncherName(launcher), "\" needs it")}};
}

BadCase Wrong(const std::string& name, const Variables& variables,
              const std::string& variable, const std::string& value,
              const std::string& message) {
  return {name,
          Launcher::kAuto,
          With(variables, {{variable, value}}),
          absl::StatusCode::kInvalidArgument,
          {absl::StrCat(variable, ": ", message), value}};
}

std::vector<BadCase> BadCases() {
  const absl::StatusCode invalid = absl::StatusCode::kInvalidArgument;
  return {
      Missing("NoRank", Launcher::kTorchrun, Torchrun(), "RANK"),
      Missing("NoWorldSize", Launcher::kTorchrun, Torchrun(), "WORLD_SIZE"),
      Missing("NoMaster", Launcher::kTorchrun, Torchrun(), "MASTER_ADDR"),
      // LOCAL_WORLD_SIZE says that there are other machines.
      Missing("NoLocalRank", Launcher::kTorchrun, Torchrun(), "LOCAL_RANK"),
      Missing("NotByMpirun", Launcher::kMpi, Variables(),
              "OMPI_COMM_WORLD_SIZE"),
      Missing("NotBySrun", Launcher::kSlurm, Slurm(), "SLURM_STEP_NUM_TASKS"),
      Missing("NoProcid", Launcher::kSlurm, Slurm(), "SLURM_PROCID"),
      Missing("NoHosts", Launcher::kSlurm, Slurm(), "SLURM_STEP_NODELIST"),
      {"HalfOfTorchrunIsNotPassedOver",
       Launcher::kAuto,
       {{"RANK", "1"}},
       absl::StatusCode::kFailedPrecondition,
       {"WORLD_SIZE: is missing"}},
      {"MpichOfManyMachinesNeedsAMaster",
       Launcher::kAuto,
       With(Mpich(), {{"PMI_SIZE", "4"}}),
       absl::StatusCode::kFailedPrecondition,
       {"MASTER_ADDR: is missing, launcher \"mpi\" needs it"}},
      Wrong("WorldSizeNoNumber", Torchrun(), "WORLD_SIZE", "x",
            "must be an integer in 1..1048576, is \"x\""),
      Wrong("WorldSizeZero", Torchrun(), "WORLD_SIZE", "0",
            "must be an integer in 1..1048576, is \"0\""),
      Wrong("RankNegative", Torchrun(), "RANK", "-1", "must be an integer in"),
      Wrong("RankWithMore", Torchrun(), "RANK", "1.5", "must be an integer in"),
      Wrong("RankTooLarge", Torchrun(), "RANK", "4",
            "must be less than WORLD_SIZE, which is 4, is 4"),
      Wrong("LocalRankTooLarge", Torchrun(), "LOCAL_RANK", "2",
            "must be an integer in 0..1, is \"2\""),
      Wrong("LocalWorldSizeTooLarge", Torchrun(), "LOCAL_WORLD_SIZE", "5",
            "must be an integer in 1..4, is \"5\""),
      Wrong("PortTooLarge", Torchrun(), "MASTER_PORT", "65536",
            "must be an integer in 1..65535, is \"65536\""),
      Wrong("RestartCount", Torchrun(), "TORCHELASTIC_RESTART_COUNT", "-2",
            "must be an integer in 0.."),
      Wrong("AgentStore", Torchrun(), "TORCHELASTIC_USE_AGENT_STORE", "maybe",
            "must be \"True\" or \"False\", is \"maybe\""),
      Wrong("HostsUnclosed", Slurm(), "SLURM_STEP_NODELIST", "n[1-2",
            "must be a list of hosts"),
      Wrong("HostsUnopened", Slurm(), "SLURM_STEP_NODELIST", "n1],n2",
            "must be a list of hosts"),
      Wrong("HostsEmptyBrackets", Slurm(), "SLURM_STEP_NODELIST", "n[]",
            "must be a list of hosts"),
      Wrong("HostsEmptyName", Slurm(), "SLURM_STEP_NODELIST", "n1,,n2",
            "must be a list of hosts"),
      Wrong("HostsLetters", Slurm(), "SLURM_STEP_NODELIST", "n[a-b]",
            "must be a list of hosts"),
      Wrong("HostsNull", Slurm(), "SLURM_STEP_NODELIST", "(null)",
            "must be a list of hosts"),
      Wrong("TasksNoNumber", Slurm(), "SLURM_STEP_TASKS_PER_NODE", "2(x",
            "must be as \"2(x3),1\", is \"2(x\""),
      Wrong("TasksOfFewerNodes", Slurm(), "SLURM_STEP_TASKS_PER_NODE", "2(x2)",
            "must be as \"2(x3),1\", is \"2(x2)\""),
      {"RankContradictsMpi",
       Launcher::kAuto,
       With(With(ByHand(), OpenMpi()), {{"RANK", "0"}}),
       invalid,
       {"RANK is 0, and OMPI_COMM_WORLD_RANK is 1"}},
      {"WorldSizeContradictsSlurm",
       Launcher::kAuto,
       With(ByHand(), Slurm()),
       invalid,
       {"WORLD_SIZE is 2, and SLURM_STEP_NUM_TASKS is 6"}},
  };
}

INSTANTIATE_TEST_SUITE_P(, FindPlaceErrorTest, ::testing::ValuesIn(BadCases()),
                         [](const auto& info) { return info.param.name; });

TEST(PlaceTest, FirstHostOfEachKindOfList) {
  const struct {
    const char* list;
    const char* host;
  } kCases[] = {
      {"node1", "node1"},
      {"node1,node2", "node1"},
      {"node[01-03,7]", "node01"},
      {"node[7,01-03]", "node7"},
      {"gpu-a.cluster,gpu-b", "gpu-a.cluster"},
      {"rack[1-2]-node[003-004,9],other", "rack1-node003"},
      {"a[5]", "a5"},
  };
  for (const auto& c : kCases) {
    const auto place = FindPlace(
        Launcher::kSlurm, Of(With(Slurm(), {{"SLURM_STEP_NODELIST", c.list}})));
    ASSERT_THAT(place, IsOk()) << c.list;
    EXPECT_EQ(place->master_address, c.host) << c.list;
  }
}

TEST(PlaceTest, StepsOfOneJobMeetAtDifferentPorts) {
  const auto first = FindPlace(Launcher::kSlurm, Of(Slurm()));
  const auto second =
      FindPlace(Launcher::kSlurm, Of(With(Slurm(), {{"SLURM_STEP_ID", "2"}})));
  ASSERT_THAT(first, IsOk());
  ASSERT_THAT(second, IsOk());
  EXPECT_NE(first->master_port, second->master_port);
}

TEST(ParseLauncherTest, TakesTheNamesThatItGives) {
  for (const Launcher launcher :
       {Launcher::kNone, Launcher::kTorchrun, Launcher::kSlurm, Launcher::kMpi,
        Launcher::kAuto}) {
    const auto parsed = ParseLauncher(LauncherName(launcher));
    ASSERT_THAT(parsed, IsOk());
    EXPECT_EQ(*parsed, launcher);
  }
  EXPECT_THAT(ParseLauncher("pytorch"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("launcher: must be "),
                             HasSubstr("is \"pytorch\""))));
}

}  // namespace
}  // namespace grapnel
