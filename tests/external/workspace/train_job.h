#ifndef TRAIN_JOB_H_
#define TRAIN_JOB_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "grapnel/runner/runner.h"
#include "runner/runner_config.pb.h"

namespace acme {

absl::Status ReadJob(const std::string& path, RunnerConfig* job);

// Adds to `options`; `*runner` is the run, made but not yet started.
absl::Status MakeRunner(const RunnerConfig& job, const std::string& work_dir,
                        grapnel::RunnerOptions options,
                        std::unique_ptr<grapnel::Runner>* runner);

}  // namespace acme

#endif  // TRAIN_JOB_H_
