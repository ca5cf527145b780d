#include "grapnel/tools/launch/start_program.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/tools/launch/sockets.h"

namespace grapnel {
namespace {

// In the new process, where only what is safe in a signal handler may be done.
// `result` gets errno if the program can't be run.
[[noreturn]] void Run(const ProgramOptions& options, pid_t parent, int result,
                      const char* program, char** argv, char** environment) {
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
    execve(program, argv, environment);
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

absl::Status CannotRun(const std::string& program, int error) {
  switch (error) {
    case EACCES:
    case ENOENT:
    case ENOEXEC:
    case ENOTDIR:
      return absl::FailedPreconditionError(
          absl::StrCat(program, ": ", strerror(error)));
    case ETXTBSY:  // Which is a kFailedPrecondition of Abseil's.
      return absl::UnavailableError(
          absl::StrCat(program, ": ", strerror(error)));
    default:
      return absl::ErrnoToStatus(error, program);
  }
}

// As execvp does it, which the new process may not.
absl::StatusOr<std::string> FindProgram(const std::string& name) {
  if (absl::StrContains(name, '/')) return name;
  const char* const path = getenv("PATH");
  int error = ENOENT;
  for (const absl::string_view dir :
       absl::StrSplit(path == nullptr ? "/bin:/usr/bin" : path, ':')) {
    const std::string file = absl::StrCat(dir.empty() ? "." : dir, "/", name);
    struct stat info;
    if (stat(file.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) continue;
    if (access(file.c_str(), X_OK) == 0) return file;
    error = EACCES;
  }
  return CannotRun(name, error);
}

}  // namespace

absl::StatusOr<pid_t> StartProgram(ProgramOptions options) {
  const std::string& name = options.command[0];
  GRAPNEL_ASSIGN_OR_RETURN(const std::string program, FindProgram(name));
  std::vector<char*> argv = Pointers(options.command);
  std::vector<char*> envp = Pointers(options.environment);
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat(name, ": pipe"));
  }
  const OwnedFd read_end(ends[0]);
  OwnedFd write_end(ends[1]);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid == 0) {
    Run(options, parent, ends[1], program.c_str(), argv.data(), envp.data());
  }
  if (pid < 0) return absl::ErrnoToStatus(errno, absl::StrCat(name, ": fork"));
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
  return CannotRun(name, error);
}

}  // namespace grapnel
