#include "grapnel/runner/run_folders.h"

#include "grapnel/hooks/checkpoint/checkpoint_hook.pb.h"
#include "grapnel/io/env.h"
#include "grapnel/runner/out_dir.h"
#include "grapnel/runner/runner_config.pb.h"

namespace grapnel {

RunFolders FoldersOf(const runner::v1::RunnerConfig& config,
                     absl::string_view base_dir,
                     absl::string_view config_name) {
  RunFolders folders;
  folders.work_dir = io::JoinPath(
      base_dir, config.has_work_dir() ? config.work_dir()
                                      : io::JoinPath("work_dirs", config_name));
  std::string out_dir = config.default_hooks().checkpoint().out_dir();
  for (const runner::v1::HookSpec& hook : config.custom_hooks()) {
    hooks::v1::CheckpointHookConfig checkpoint;
    if (out_dir.empty() && hook.config().UnpackTo(&checkpoint)) {
      out_dir = checkpoint.out_dir();
    }
  }
  folders.checkpoint_dir = RunFolderIn(out_dir, base_dir, folders.work_dir);
  return folders;
}

}  // namespace grapnel
