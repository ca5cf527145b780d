// Where this process stands among those that train with it, by what the program
// that started them left in its environment.

#ifndef GRAPNEL_DIST_PLACE_H_
#define GRAPNEL_DIST_PLACE_H_

#include <functional>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace grapnel {

// Who starts the processes.
enum class Launcher {
  kNone,      // Nobody: this one is alone.
  kTorchrun,  // torchrun, `grapnel launch`, or whoever sets RANK and
              // WORLD_SIZE.
  kSlurm,     // srun
  kMpi,       // mpirun or mpiexec of OpenMPI, MPICH and those derived from it
  kAuto,      // Whichever of them is there.
};

// Of "none", "torchrun", "slurm", "mpi" or "auto"; else kInvalidArgument.
absl::StatusOr<Launcher> ParseLauncher(absl::string_view name);
absl::string_view LauncherName(Launcher launcher);

struct Place {
  Launcher launcher = Launcher::kNone;  // Never kAuto.
  int rank = 0;                         // 0..world_size - 1
  int world_size = 1;
  int local_rank = 0;  // 0..local_world_size - 1, among those of the machine
  int local_world_size = 1;

  // Where the processes meet: empty and 0 if there is only this one.
  std::string master_address;
  int master_port = 0;  // 1..65535
  // The launcher listens there; else rank 0 does.
  bool launcher_listens = false;

  // What tells one start of the processes from another that meets in the same
  // place: the job, and how often the launcher has started it again.
  std::string job;
  int attempt = 0;
};

// The value of a variable; nothing if there is none.
using GetVariable = std::function<std::optional<std::string>(const char* name)>;

// Of this process. An empty value is as none.
GetVariable EnvironmentVariables();

// What `launcher` says of this process in the variables that `get` gives:
//
//   kTorchrun  RANK, WORLD_SIZE, MASTER_ADDR; if they are there also
//   MASTER_PORT
//              (29500 otherwise), LOCAL_RANK (RANK otherwise, as on one
//              machine), LOCAL_WORLD_SIZE and TORCHELASTIC_*
//   kSlurm     what srun sets: SLURM_PROCID, SLURM_STEP_NUM_TASKS,
//   SLURM_LOCALID,
//              SLURM_JOB_ID, SLURM_RESTART_COUNT. The master is the first host
//              of SLURM_STEP_NODELIST, at a port that the job's number gives
//   kMpi       OMPI_COMM_WORLD_RANK, _SIZE, _LOCAL_RANK, or PMI_RANK, PMI_SIZE,
//              MPI_LOCALRANKID. The master is this machine, if it has all
//              ranks, or the one of mpirun, if OpenMPI tells it
//
// MASTER_ADDR and MASTER_PORT, if they are set, go before what SLURM and MPI
// say. Processes that run on one machine meet at 127.0.0.1.
//
// kAuto takes the innermost that it finds: torchrun, MPI, SLURM, none. SLURM
// counts where srun started the process, not in a batch script. RANK and
// WORLD_SIZE that aren't torchrun's (no TORCHELASTIC_RUN_ID) have to agree with
// what MPI or SLURM say.
//
// kFailedPrecondition names a variable that is missing, kInvalidArgument one
// whose value can't be, or two that contradict each other, with the values.
absl::StatusOr<Place> FindPlace(
    Launcher launcher, const GetVariable& get = EnvironmentVariables());

}  // namespace grapnel

#endif  // GRAPNEL_DIST_PLACE_H_
