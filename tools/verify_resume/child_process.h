// A program that runs beside this one.

#ifndef GRAPNEL_TOOLS_VERIFY_RESUME_CHILD_PROCESS_H_
#define GRAPNEL_TOOLS_VERIFY_RESUME_CHILD_PROCESS_H_

#include <sys/types.h>

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace grapnel {

// Killed with this object, and by the system if this process goes first.
// Thread-compatible.
class ChildProcess {
 public:
  // `command`: a path and its arguments. `environment` is added to this
  // process's, as "NAME=VALUE". Standard input is empty, standard output and
  // error are appended to the file `output`; where the file system can reserve
  // it, there is room for 64 KiB however full the disk gets. Errors name what
  // can't be run or opened.
  static absl::StatusOr<std::unique_ptr<ChildProcess>> Start(
      std::vector<std::string> command, std::vector<std::string> environment,
      const std::string& output);

  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;
  ~ChildProcess();

  // What waitpid reports; none if it hasn't ended after `timeout`, or when
  // `*interrupt` is no longer 0. Once.
  std::optional<int> Wait(absl::Duration timeout,
                          const std::atomic<int>* interrupt = nullptr);

 private:
  explicit ChildProcess(pid_t pid) : pid_(pid) {}

  pid_t pid_;  // -1 once it has been waited for.
};

}  // namespace grapnel

#endif  // GRAPNEL_TOOLS_VERIFY_RESUME_CHILD_PROCESS_H_
