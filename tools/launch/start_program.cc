#include "grapnel/tools/launch/start_program.h"

#include <fcntl.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "grapnel/tools/launch/sockets.h"

namespace grapnel {
namespace {

// In the new process, where only what is safe in a signal handler may be done.
// `result` gets errno if the program can't be run.
[[noreturn]] void Run(const ProgramOptions& options, pid_t parent, int result,
                      char** argv, char** environment) {
  if (options.own_group) setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  // It may have ended before that.
  if (getppid() != parent) _exit(1);
  int error = 0;
  for (int fd = 0; fd < 3 && error == 0; ++fd) {
    if (dup2(options.fds[fd], fd) < 0) error = errno;
  }
  if (error == 0) {
    if (options.signals != nullptr) {
      for (const auto& [signal, action] : options.signals->actions) {
        sigaction(signal, &action, nullptr);
      }
      sigprocmask(SIG_SETMASK, &options.signals->mask, nullptr);
    }
    execvpe(argv[0], argv, environment);
    error = errno;
  }
  [[maybe_unused]] const ssize_t n = write(result, &error, sizeof(error));
  _exit(127);
}

std::vector<char*> Pointers(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (std::string& string : strings) pointers.push_back(string.data());
  pointers.push_back(nullptr);
  return pointers;
}

}  // namespace

absl::StatusOr<pid_t> StartProgram(ProgramOptions options) {
  std::vector<char*> argv = Pointers(options.command);
  std::vector<char*> envp = Pointers(options.environment);
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return absl::ErrnoToStatus(errno, "pipe");
  const OwnedFd read_end(ends[0]);
  OwnedFd write_end(ends[1]);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid == 0) Run(options, parent, ends[1], argv.data(), envp.data());
  if (pid < 0) return absl::ErrnoToStatus(errno, "fork");
  // The process does so too: whoever comes first.
  if (options.own_group) setpgid(pid, pid);
  write_end = OwnedFd();
  int error = 0;
  ssize_t n;
  do {
    n = read(read_end.get(), &error, sizeof(error));
  } while (n < 0 && errno == EINTR);
  if (n <= 0) return pid;
  while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
  }
  return absl::FailedPreconditionError(
      absl::StrCat(options.command[0], ": ", strerror(error)));
}

}  // namespace grapnel
