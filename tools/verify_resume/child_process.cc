#include "grapnel/tools/verify_resume/child_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "absl/memory/memory.h"
#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "grapnel/tools/launch/sockets.h"

namespace grapnel {
namespace {

constexpr int kReservedBytes = 64 << 10;

// In the new process, where only what is safe in a signal handler may be done.
[[noreturn]] void RunProgram(pid_t parent, const int fds[3], int result,
                             char** argv, char** environment) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  // It may have ended before that.
  if (getppid() != parent) _exit(1);
  int error = 0;
  for (int fd = 0; fd < 3 && error == 0; ++fd) {
    if (dup2(fds[fd], fd) < 0) error = errno;
  }
  if (error == 0) {
    execve(argv[0], argv, environment);
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

absl::StatusOr<std::unique_ptr<ChildProcess>> ChildProcess::Start(
    std::vector<std::string> command, std::vector<std::string> environment,
    const std::string& output) {
  const OwnedFd input(open("/dev/null", O_RDONLY | O_CLOEXEC));
  const OwnedFd file(
      open(output.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
  // Where the system can do that: a few lines, also of what finds a disk full.
  if (file.get() >= 0 &&
      fallocate(file.get(), FALLOC_FL_KEEP_SIZE, 0, kReservedBytes) != 0 &&
      errno == ENOSPC) {
    return absl::ErrnoToStatus(errno, output);
  }
  int ends[2];
  if (input.get() < 0 || file.get() < 0 || pipe2(ends, O_CLOEXEC) != 0) {
    return absl::ErrnoToStatus(errno, output);
  }
  const OwnedFd read_end(ends[0]);
  OwnedFd write_end(ends[1]);
  for (char** variable = environ; *variable != nullptr; ++variable) {
    environment.push_back(*variable);
  }
  const std::vector<char*> argv = Pointers(command);
  const std::vector<char*> envp = Pointers(environment);
  const int fds[3] = {input.get(), file.get(), file.get()};
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid == 0) {
    RunProgram(parent, fds, ends[1], const_cast<char**>(argv.data()),
               const_cast<char**>(envp.data()));
  }
  if (pid < 0) return absl::ErrnoToStatus(errno, "fork");
  auto child = absl::WrapUnique(new ChildProcess(pid));
  write_end = OwnedFd();
  int error = 0;
  ssize_t n;
  do {
    n = read(read_end.get(), &error, sizeof(error));
  } while (n < 0 && errno == EINTR);
  if (n > 0) return absl::ErrnoToStatus(error, command[0]);
  return child;
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
