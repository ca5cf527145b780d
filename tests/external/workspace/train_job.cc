#include "train_job.h"

#include <utility>

#include "base/status_macros.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/io/env.h"
#include "grapnel/runner/config_file.h"
#include "grapnel/runner/runner_config.pb.h"

namespace acme {

absl::Status ReadJob(const std::string& path, RunnerConfig* job) {
  GRAPNEL_ASSIGN_OR_RETURN(
      const std::string text,
      grapnel::io::ReadFile(grapnel::io::Env::Posix(), path));
  if (!google::protobuf::TextFormat::ParseFromString(text, job)) {
    return absl::InvalidArgumentError(path + ": is no acme.RunnerConfig");
  }
  return absl::OkStatus();
}

absl::Status MakeRunner(const RunnerConfig& job, const std::string& work_dir,
                        grapnel::RunnerOptions options,
                        std::unique_ptr<grapnel::Runner>* runner) {
  GRAPNEL_ASSIGN_OR_RETURN(
      grapnel::runner::v1::RunnerConfig config,
      grapnel::LoadRunnerConfig(grapnel::io::Env::Posix(), job.training()));
  config.set_work_dir(work_dir);
  for (const std::string& assignment : job.overrides()) {
    RETURN_IF_ERROR(
        grapnel::ApplyOverride(assignment, /*path_base=*/"", &config));
  }
  GRAPNEL_ASSIGN_OR_RETURN(*runner,
                           grapnel::Runner::Create(config, std::move(options)));
  return absl::OkStatus();
}

}  // namespace acme
