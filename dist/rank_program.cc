// One rank of a group of processes, for tests: joins where its environment
// says, does what its first argument says, and prints what came of it. The
// timeouts of joining and of collectives are the next two, in seconds.

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/dist/c10d_process_group.h"
#include "grapnel/dist/place.h"
#include "grapnel/dist/process_group.h"

namespace grapnel {
namespace {

void Say(absl::string_view line) {
  std::fputs(absl::StrCat(line, "\n").c_str(), stdout);
  std::fflush(stdout);
}

// A few of each, with what every rank gets.
absl::Status Collect(ProcessGroup& group) {
  const at::Tensor sum = ops::full({1000}, group.rank() + 1, at::kFloat);
  GRAPNEL_RETURN_IF_ERROR(group.AllReduce(sum, ReduceOp::kSum));
  GRAPNEL_ASSIGN_OR_RETURN(
      const std::vector<std::string> all,
      group.AllGather(std::string(group.rank() + 1, 'a' + group.rank())));
  GRAPNEL_RETURN_IF_ERROR(group.Barrier());
  Say(absl::StrCat("sum ", sum[999].item<float>(), " gathered ",
                   absl::StrJoin(all, ",")));
  return absl::OkStatus();
}

// Collectives without end; rank 1 does what `mode` says after half a second.
absl::Status Loop(ProcessGroup& group, const std::string& mode) {
  const absl::Time end = absl::Now() + absl::Milliseconds(500);
  const at::Tensor tensor = ops::ones({1000});
  while (true) {
    if (group.rank() == 1 && absl::Now() > end) {
      if (mode == "kill") _exit(9);
      if (mode == "sleep") absl::SleepFor(absl::Seconds(60));
      if (mode == "report") return absl::DataLossError("digits is cut short");
    }
    GRAPNEL_RETURN_IF_ERROR(group.AllReduce(tensor, ReduceOp::kMax));
  }
}

absl::Status Run(const std::string& mode, double join_timeout, double timeout) {
  absl::Time start = absl::Now();
  GRAPNEL_ASSIGN_OR_RETURN(const Place place, FindPlace(Launcher::kAuto));
  JoinOptions options;
  options.join_timeout = absl::Seconds(join_timeout);
  options.timeout = absl::Seconds(timeout);
  GRAPNEL_ASSIGN_OR_RETURN(std::unique_ptr<ProcessGroup> group,
                           JoinProcessGroup(place, options));
  Say(absl::StrCat(group->description(), ", ", LauncherName(place.launcher),
                   ", local rank ", group->local_rank()));
  Say(absl::StrCat("joined in ", absl::FormatDuration(absl::Now() - start)));
  start = absl::Now();
  const absl::Status status =
      mode == "collect" ? Collect(*group) : Loop(*group, mode);
  if (!status.ok()) group->ReportFailure(status);
  Say(absl::StrCat("first failure: ", group->FirstFailure().ToString()));
  start = absl::Now();
  group.reset();
  Say(absl::StrCat("left in ", absl::FormatDuration(absl::Now() - start)));
  return status;
}

}  // namespace
}  // namespace grapnel

int main(int argc, char** argv) {
  const absl::Status status = grapnel::Run(argc > 1 ? argv[1] : "collect",
                                           argc > 2 ? std::atof(argv[2]) : 30,
                                           argc > 3 ? std::atof(argv[3]) : 30);
  grapnel::Say(status.ToString());
  return status.ok() ? 0 : 1;
}
