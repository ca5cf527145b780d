// train JOB WORK_DIR

#include <unistd.h>

#include <iostream>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "base/status_macros.h"
#include "grapnel/runner/runner.h"
#include "train_job.h"

namespace {

absl::Status Train(const char* job_file, const char* work_dir) {
  acme::RunnerConfig job;
  RETURN_IF_ERROR(acme::ReadJob(job_file, &job));
  grapnel::RunnerOptions options;
  options.terminal_fd = STDERR_FILENO;
  std::unique_ptr<grapnel::Runner> runner;
  RETURN_IF_ERROR(acme::MakeRunner(job, work_dir, std::move(options), &runner));
  return runner->Train();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: train JOB WORK_DIR" << std::endl;
    return 2;
  }
  const absl::Status status = Train(argv[1], argv[2]);
  if (status.ok()) return 0;
  std::cerr << status.message() << std::endl;
  return 1;
}
