// Where a run's files are.

#ifndef GRAPNEL_RUNNER_RUN_FOLDERS_H_
#define GRAPNEL_RUNNER_RUN_FOLDERS_H_

#include <string>

#include "absl/strings/string_view.h"

namespace grapnel::runner::v1 {
class RunnerConfig;
}  // namespace grapnel::runner::v1

namespace grapnel {

struct RunFolders {
  std::string work_dir;

  // The run's checkpoints, all of them: work_dir, or what the out_dir of its
  // checkpoint hook, be it the default one or a custom one, means.
  std::string checkpoint_dir;
};

// Of a run of that configuration whose relative paths start at `base_dir`, and
// which is called `config_name`.
RunFolders FoldersOf(const runner::v1::RunnerConfig& config,
                     absl::string_view base_dir, absl::string_view config_name);

}  // namespace grapnel

#endif  // GRAPNEL_RUNNER_RUN_FOLDERS_H_
