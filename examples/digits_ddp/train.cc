// Trains the digits on as many processes as it is started as.
//
//   train [WORK_DIR [FIELD=VALUE ...]]
//
// Goes on from the newest checkpoint in WORK_DIR, if there is one, as it must
// when a launcher starts it again. Prints the accuracy.

#include <unistd.h>

#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grapnel/base/log.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/examples/digits_ddp/same_weights_hook.h"
#include "grapnel/io/env.h"
#include "grapnel/models/metric.h"
#include "grapnel/runner/config_file.h"
#include "grapnel/runner/hook_registry.h"
#include "grapnel/runner/run_context.h"
#include "grapnel/runner/runner.h"
#include "grapnel/runner/runner_config.pb.h"

namespace examples {
namespace {

constexpr char kConfig[] = "examples/digits_ddp/digits_ddp.textproto";

absl::Status Train(const std::string& work_dir,
                   const std::vector<std::string>& overrides) {
  grapnel::io::Env& env = grapnel::io::Env::Posix();
  GRAPNEL_ASSIGN_OR_RETURN(grapnel::runner::v1::RunnerConfig config,
                           grapnel::LoadRunnerConfig(env, kConfig));
  // Not in the config's folder, where its own paths start.
  GRAPNEL_ASSIGN_OR_RETURN(const std::string here, env.CurrentDir());
  config.set_work_dir(grapnel::io::JoinPath(here, work_dir));
  config.set_resume(true);
  for (const std::string& assignment : overrides) {
    GRAPNEL_RETURN_IF_ERROR(
        grapnel::ApplyOverride(assignment, /*path_base=*/"", &config));
  }

  // The ranks meet in Create, as the config's `launcher` says who started them.
  grapnel::RunnerOptions options;
  options.base_dir = grapnel::io::Dirname(kConfig);
  options.config_name = grapnel::ConfigName(kConfig);
  options.terminal_fd = STDERR_FILENO;
  options.hooks.push_back(
      grapnel::Schedule(std::make_unique<SameWeightsHook>()));
  GRAPNEL_ASSIGN_OR_RETURN(const std::unique_ptr<grapnel::Runner> runner,
                           grapnel::Runner::Create(config, std::move(options)));

  // Every rank calls the same functions. What is printed, one prints.
  GRAPNEL_RETURN_IF_ERROR(runner->Train());
  GRAPNEL_ASSIGN_OR_RETURN(const grapnel::Metrics metrics, runner->Val());
  if (runner->context().is_master()) {
    std::cout << "accuracy "
              << std::get<double>(
                     *grapnel::FindMetric(metrics, "accuracy/top1"))
              << std::endl;
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace examples

int main(int argc, char** argv) {
  grapnel::InitLogging(argv[0]);
  // `bazel run` starts us among the files of this example.
  const char* const user_dir = getenv("BUILD_WORKING_DIRECTORY");
  const std::string work_dir =
      grapnel::io::JoinPath(user_dir == nullptr ? "" : user_dir,
                            argc > 1 ? argv[1] : "work_dirs/digits_ddp");
  const absl::Status status = examples::Train(
      work_dir,
      std::vector<std::string>(argv + (argc > 2 ? 2 : argc), argv + argc));
  if (status.ok()) return 0;
  std::cerr << status.message() << std::endl;
  return 1;
}
