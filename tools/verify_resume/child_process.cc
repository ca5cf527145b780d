#include "grapnel/tools/verify_resume/child_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/tools/launch/sockets.h"
#include "grapnel/tools/launch/start_program.h"

namespace grapnel {
namespace {

constexpr int kReservedBytes = 64 << 10;

}  // namespace

absl::StatusOr<std::unique_ptr<ChildProcess>> ChildProcess::Start(
    std::vector<std::string> command, std::vector<std::string> environment,
    const std::string& output) {
  const OwnedFd input(open("/dev/null", O_RDONLY | O_CLOEXEC));
  const OwnedFd file(
      open(output.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
  if (input.get() < 0 || file.get() < 0) {
    return absl::ErrnoToStatus(errno, output);
  }
  // Where the system can do that: a few lines, also of what finds a disk full.
  if (fallocate(file.get(), FALLOC_FL_KEEP_SIZE, 0, kReservedBytes) != 0 &&
      errno == ENOSPC) {
    return absl::ErrnoToStatus(errno, output);
  }
  for (char** variable = environ; *variable != nullptr; ++variable) {
    environment.push_back(*variable);
  }
  ProgramOptions program;
  program.command = std::move(command);
  program.environment = std::move(environment);
  program.fds[0] = input.get();
  program.fds[1] = program.fds[2] = file.get();
  GRAPNEL_ASSIGN_OR_RETURN(const pid_t pid, StartProgram(std::move(program)));
  return absl::WrapUnique(new ChildProcess(pid));
}

ChildProcess::~ChildProcess() {
  if (pid_ < 0) return;
  kill(pid_, SIGKILL);
  while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

std::optional<int> ChildProcess::Wait(absl::Duration timeout,
                                      const std::atomic<int>* interrupt) {
  const absl::Time deadline = absl::Now() + timeout;
  while (true) {
    int status = 0;
    if (waitpid(pid_, &status, WNOHANG) == pid_) {
      pid_ = -1;
      return status;
    }
    if (absl::Now() >= deadline ||
        (interrupt != nullptr && interrupt->load() != 0)) {
      return std::nullopt;
    }
    absl::SleepFor(absl::Milliseconds(2));
  }
}

}  // namespace grapnel
