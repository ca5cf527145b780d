#include "grapnel/dist/place.h"

#include <cstdint>
#include <cstdlib>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "grapnel/base/status_macros.h"

namespace grapnel {
namespace {

constexpr struct {
  Launcher launcher;
  const char* name;
} kLaunchers[] = {
    {Launcher::kNone, "none"},   {Launcher::kTorchrun, "torchrun"},
    {Launcher::kSlurm, "slurm"}, {Launcher::kMpi, "mpi"},
    {Launcher::kAuto, "auto"},
};

constexpr char kLoopback[] = "127.0.0.1";
constexpr int kDefaultPort = 29500;
constexpr int kMaxRanks = 1 << 20;

std::optional<std::string> Get(const GetVariable& get, const char* name) {
  std::optional<std::string> value = get(name);
  if (value.has_value() && value->empty()) value.reset();
  return value;
}

absl::Status Missing(const char* name, Launcher launcher) {
  return absl::FailedPreconditionError(
      absl::StrCat(name, ": is missing, launcher \"", LauncherName(launcher),
                   "\" needs it"));
}

// An integer from `min` to `max`, or nothing.
absl::StatusOr<std::optional<int>> FindInt(const GetVariable& get,
                                           const char* name, int min, int max) {
  const std::optional<std::string> text = Get(get, name);
  if (!text.has_value()) return std::optional<int>();
  int value;
  if (!absl::SimpleAtoi(*text, &value) || value < min || value > max) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": must be an integer in ", min, "..", max,
                     ", is \"", *text, "\""));
  }
  return std::optional<int>(value);
}

// The names of the variables that say the same for each launcher; nullptr where
// it has none.
struct Names {
  Launcher launcher;
  const char* rank;
  const char* world_size;
  const char* local_rank;
  const char* local_world_size;
};

constexpr Names kTorchrunNames = {Launcher::kTorchrun, "RANK", "WORLD_SIZE",
                                  "LOCAL_RANK", "LOCAL_WORLD_SIZE"};
// Not SLURM_NTASKS: a batch script has it too, and is none of the tasks.
constexpr Names kSlurmNames = {Launcher::kSlurm, "SLURM_PROCID",
                               "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID",
                               nullptr};
constexpr Names kOpenMpiNames = {
    Launcher::kMpi, "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE",
    "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"};
constexpr Names kPmiNames = {Launcher::kMpi, "PMI_RANK", "PMI_SIZE",
                             "MPI_LOCALRANKID", "MPI_LOCALNRANKS"};

bool Has(const GetVariable& get, const Names& names) {
  return Get(get, names.rank).has_value() &&
         Get(get, names.world_size).has_value();
}

const Names& MpiNames(const GetVariable& get) {
  return !Has(get, kOpenMpiNames) && Has(get, kPmiNames) ? kPmiNames
                                                         : kOpenMpiNames;
}

// Ranks and sizes.
absl::StatusOr<Place> ReadNumbers(const GetVariable& get, const Names& names) {
  Place place;
  place.launcher = names.launcher;
  GRAPNEL_ASSIGN_OR_RETURN(const std::optional<int> world_size,
                           FindInt(get, names.world_size, 1, kMaxRanks));
  if (!world_size.has_value()) return Missing(names.world_size, names.launcher);
  GRAPNEL_ASSIGN_OR_RETURN(const std::optional<int> rank,
                           FindInt(get, names.rank, 0, kMaxRanks));
  if (!rank.has_value()) return Missing(names.rank, names.launcher);
  if (*rank >= *world_size) {
    return absl::InvalidArgumentError(
        absl::StrCat(names.rank, ": must be less than ", names.world_size,
                     ", which is ", *world_size, ", is ", *rank));
  }
  place.rank = *rank;
  place.world_size = *world_size;

  std::optional<int> local_world_size;
  if (names.local_world_size != nullptr) {
    GRAPNEL_ASSIGN_OR_RETURN(
        local_world_size, FindInt(get, names.local_world_size, 1, *world_size));
  }
  place.local_world_size = local_world_size.value_or(*world_size);
  GRAPNEL_ASSIGN_OR_RETURN(
      const std::optional<int> local_rank,
      FindInt(get, names.local_rank, 0, place.local_world_size - 1));
  if (!local_rank.has_value() && place.local_world_size < *world_size) {
    return Missing(names.local_rank, names.launcher);
  }
  place.local_rank = local_rank.value_or(*rank);
  return place;
}

// MASTER_ADDR and MASTER_PORT, or what the launcher says instead.
absl::Status ReadMaster(const GetVariable& get, const std::string& address,
                        int port, Place& place) {
  GRAPNEL_ASSIGN_OR_RETURN(const std::optional<int> given,
                           FindInt(get, "MASTER_PORT", 1, 65535));
  place.master_port = given.value_or(port);
  place.master_address = Get(get, "MASTER_ADDR").value_or(address);
  if (place.master_address.empty()) {
    return Missing("MASTER_ADDR", place.launcher);
  }
  return absl::OkStatus();
}

// A port for a job, below those that the system gives out by itself: two jobs
// on one machine rarely get the same.
int PortOf(uint64_t job) { return 10000 + static_cast<int>(job % 20000); }

absl::StatusOr<bool> LauncherListens(const GetVariable& get) {
  const char* const name = "TORCHELASTIC_USE_AGENT_STORE";
  const std::string value =
      absl::AsciiStrToLower(Get(get, name).value_or("false"));
  if (value == "true") return true;
  if (value == "false") return false;
  return absl::InvalidArgumentError(absl::StrCat(
      name, ": must be \"True\" or \"False\", is \"", value, "\""));
}

absl::StatusOr<Place> FindTorchrun(const GetVariable& get) {
  GRAPNEL_ASSIGN_OR_RETURN(Place place, ReadNumbers(get, kTorchrunNames));
  GRAPNEL_ASSIGN_OR_RETURN(place.launcher_listens, LauncherListens(get));
  GRAPNEL_ASSIGN_OR_RETURN(
      const std::optional<int> attempt,
      FindInt(get, "TORCHELASTIC_RESTART_COUNT", 0, INT32_MAX));
  place.attempt = attempt.value_or(0);
  place.job = Get(get, "TORCHELASTIC_RUN_ID").value_or("");
  GRAPNEL_RETURN_IF_ERROR(ReadMaster(get, "", kDefaultPort, place));
  return place;
}

// The first of SLURM's list of hosts: "n03" of "n[03-07,11],gpu1".
absl::StatusOr<std::string> FirstHost(const char* name,
                                      absl::string_view list) {
  const auto wrong = [&] {
    return absl::InvalidArgumentError(absl::StrCat(
        name, ": must be a list of hosts, as \"n[03-07,11],gpu1\", is \"", list,
        "\""));
  };
  std::string host;
  bool first = true;      // Is this the first host?
  bool inside = false;    // Between brackets?
  bool skipping = false;  // After the first number between brackets?
  bool empty = true;      // Has this host, or this number, no letter yet?
  for (const char c : list) {
    if (c == '[') {
      if (inside) return wrong();
      inside = true;
      skipping = false;
      empty = true;
    } else if (c == ']') {
      if (!inside || empty) return wrong();
      inside = false;
    } else if (c == ',' || (inside && c == '-')) {
      if (empty) return wrong();
      empty = true;
      if (inside) {
        skipping = true;
      } else {
        first = false;
      }
    } else if (inside ? absl::ascii_isdigit(c)
                      : absl::ascii_isalnum(c) || c == '-' || c == '.' ||
                            c == '_') {
      empty = false;
      if (first && !(inside && skipping)) host += c;
    } else {
      return wrong();
    }
  }
  if (inside || empty) return wrong();
  return host;
}

// How many tasks SLURM_STEP_TASKS_PER_NODE, as "2(x3),1", gives to a node.
absl::StatusOr<int> TasksOf(int node, absl::string_view list) {
  const auto wrong = [list] {
    return absl::InvalidArgumentError(
        absl::StrCat("SLURM_STEP_TASKS_PER_NODE: must be as \"2(x3),1\", is \"",
                     list, "\""));
  };
  for (absl::string_view part : absl::StrSplit(list, ',')) {
    int nodes = 1;
    const size_t paren = part.find("(x");
    if (paren != part.npos) {
      absl::string_view times = part.substr(paren + 2);
      if (!absl::ConsumeSuffix(&times, ")") ||
          !absl::SimpleAtoi(times, &nodes) || nodes < 1) {
        return wrong();
      }
    }
    int tasks;
    if (!absl::SimpleAtoi(part.substr(0, paren), &tasks) || tasks < 1) {
      return wrong();
    }
    if (node < nodes) return tasks;
    node -= nodes;
  }
  return wrong();
}

absl::StatusOr<Place> FindSlurm(const GetVariable& get) {
  GRAPNEL_ASSIGN_OR_RETURN(Place place, ReadNumbers(get, kSlurmNames));
  GRAPNEL_ASSIGN_OR_RETURN(const std::optional<int> attempt,
                           FindInt(get, "SLURM_RESTART_COUNT", 0, INT32_MAX));
  place.attempt = attempt.value_or(0);

  if (const std::optional<std::string> tasks =
          Get(get, "SLURM_STEP_TASKS_PER_NODE")) {
    GRAPNEL_ASSIGN_OR_RETURN(const std::optional<int> node,
                             FindInt(get, "SLURM_NODEID", 0, kMaxRanks));
    GRAPNEL_ASSIGN_OR_RETURN(place.local_world_size,
                             TasksOf(node.value_or(0), *tasks));
  }
  GRAPNEL_ASSIGN_OR_RETURN(const std::optional<int> nodes,
                           FindInt(get, "SLURM_STEP_NUM_NODES", 1, kMaxRanks));
  std::string address;
  if (nodes == 1) {
    address = kLoopback;
  } else {
    if (!Get(get, "SLURM_LOCALID").has_value()) {
      return Missing("SLURM_LOCALID", Launcher::kSlurm);
    }
    for (const char* const name :
         {"SLURM_STEP_NODELIST", "SLURM_NODELIST", "SLURM_JOB_NODELIST"}) {
      const std::optional<std::string> list = Get(get, name);
      if (!list.has_value()) continue;
      GRAPNEL_ASSIGN_OR_RETURN(address, FirstHost(name, *list));
      break;
    }
    if (address.empty() && !Get(get, "MASTER_ADDR").has_value()) {
      return Missing("SLURM_STEP_NODELIST", Launcher::kSlurm);
    }
  }

  int port = kDefaultPort;
  GRAPNEL_ASSIGN_OR_RETURN(const std::optional<int> job,
                           FindInt(get, "SLURM_JOB_ID", 0, INT32_MAX));
  if (job.has_value()) {
    // Steps of one job can run at the same time.
    GRAPNEL_ASSIGN_OR_RETURN(const std::optional<int> step,
                             FindInt(get, "SLURM_STEP_ID", 0, INT32_MAX));
    place.job = absl::StrCat(*job, ".", step.value_or(0));
    port = PortOf(uint64_t{37} * *job + step.value_or(0));
  }
  GRAPNEL_RETURN_IF_ERROR(ReadMaster(get, address, port, place));
  return place;
}

// The first address of IPv4 of "1093337088.0;tcp://192.0.2.2,10.0.0.2:52975".
std::string MpirunAddress(absl::string_view uri) {
  for (absl::string_view part : absl::StrSplit(uri, ';')) {
    if (!absl::StartsWith(part, "tcp://")) continue;
    part.remove_prefix(6);
    return std::string(part.substr(0, part.find_first_of(",:")));
  }
  return "";
}

absl::StatusOr<Place> FindMpi(const GetVariable& get) {
  const Names& names = MpiNames(get);
  GRAPNEL_ASSIGN_OR_RETURN(Place place, ReadNumbers(get, names));
  std::string address;
  if (place.world_size == 1 || (Get(get, names.local_world_size).has_value() &&
                                place.local_world_size == place.world_size)) {
    address = kLoopback;
  } else {
    address = MpirunAddress(Get(get, "OMPI_MCA_orte_hnp_uri").value_or(""));
  }
  int port = kDefaultPort;
  if (const std::optional<std::string> id =
          Get(get, "OMPI_MCA_ess_base_jobid")) {
    place.job = *id;
    uint64_t job;
    if (absl::SimpleAtoi(*id, &job)) port = PortOf(job ^ (job >> 16));
  }
  GRAPNEL_RETURN_IF_ERROR(ReadMaster(get, address, port, place));
  return place;
}

absl::StatusOr<Place> Find(Launcher launcher, const GetVariable& get) {
  switch (launcher) {
    case Launcher::kTorchrun:
      return FindTorchrun(get);
    case Launcher::kSlurm:
      return FindSlurm(get);
    case Launcher::kMpi:
      return FindMpi(get);
    case Launcher::kNone:
    case Launcher::kAuto:
      break;
  }
  return Place();
}

// That what RANK and WORLD_SIZE say is what those that `other` names say.
absl::Status CheckAgreement(const GetVariable& get, const Names& other) {
  GRAPNEL_ASSIGN_OR_RETURN(const Place place, ReadNumbers(get, kTorchrunNames));
  GRAPNEL_ASSIGN_OR_RETURN(const Place place_of_other, ReadNumbers(get, other));
  const auto contradict = [](const char* a, int of_a, const char* b, int of_b) {
    return absl::InvalidArgumentError(absl::StrCat(
        a, " is ", of_a, ", and ", b, " is ", of_b,
        ": set the launcher to that which counts, or unset the other's"));
  };
  if (place.world_size != place_of_other.world_size) {
    return contradict(kTorchrunNames.world_size, place.world_size,
                      other.world_size, place_of_other.world_size);
  }
  if (place.rank != place_of_other.rank) {
    return contradict(kTorchrunNames.rank, place.rank, other.rank,
                      place_of_other.rank);
  }
  return absl::OkStatus();
}

absl::StatusOr<Launcher> Detect(const GetVariable& get) {
  // One that is there half is refused later, not passed over.
  const bool torchrun = Get(get, kTorchrunNames.rank).has_value() ||
                        Get(get, kTorchrunNames.world_size).has_value();
  const bool mpi = Has(get, kOpenMpiNames) || Has(get, kPmiNames);
  const bool slurm = Has(get, kSlurmNames);
  if (torchrun) {
    // What starts on each machine a torchrun is no contradiction.
    if (!Get(get, "TORCHELASTIC_RUN_ID").has_value()) {
      if (mpi) GRAPNEL_RETURN_IF_ERROR(CheckAgreement(get, MpiNames(get)));
      if (slurm) GRAPNEL_RETURN_IF_ERROR(CheckAgreement(get, kSlurmNames));
    }
    return Launcher::kTorchrun;
  }
  // mpirun starts its own helpers on other machines by srun.
  if (mpi) return Launcher::kMpi;
  return slurm ? Launcher::kSlurm : Launcher::kNone;
}

}  // namespace

absl::StatusOr<Launcher> ParseLauncher(absl::string_view name) {
  for (const auto& known : kLaunchers) {
    if (name == known.name) return known.launcher;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("launcher: must be \"none\", \"torchrun\", \"slurm\", "
                   "\"mpi\" or \"auto\", is \"",
                   name, "\""));
}

absl::string_view LauncherName(Launcher launcher) {
  for (const auto& known : kLaunchers) {
    if (launcher == known.launcher) return known.name;
  }
  return "unknown";
}

GetVariable EnvironmentVariables() {
  return [](const char* name) -> std::optional<std::string> {
    const char* const value = std::getenv(name);
    if (value == nullptr) return std::nullopt;
    return std::string(value);
  };
}

absl::StatusOr<Place> FindPlace(Launcher launcher, const GetVariable& get) {
  if (launcher == Launcher::kAuto) {
    GRAPNEL_ASSIGN_OR_RETURN(launcher, Detect(get));
  }
  return Find(launcher, get);
}

}  // namespace grapnel
