#include "grapnel/tools/launch/processes.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"

namespace grapnel {
namespace {

// 0 if there is no such process any more.
pid_t ParentOf(pid_t pid) {
  const int fd =
      open(absl::StrCat("/proc/", pid, "/stat").c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  char buffer[512];
  const ssize_t size = read(fd, buffer, sizeof(buffer));
  close(fd);
  if (size <= 0) return 0;
  // "<pid> (<name>) <state> <parent> ...": the name may hold anything.
  const absl::string_view stat(buffer, size);
  const size_t name_end = stat.rfind(')');
  if (name_end == absl::string_view::npos) return 0;
  const std::vector<absl::string_view> fields =
      absl::StrSplit(stat.substr(name_end + 1), ' ', absl::SkipEmpty());
  pid_t parent = 0;
  if (fields.size() < 2 || !absl::SimpleAtoi(fields[1], &parent)) return 0;
  return parent;
}

}  // namespace

std::vector<pid_t> Children() {
  std::vector<pid_t> children;
  DIR* const proc = opendir("/proc");
  if (proc == nullptr) return children;
  while (const dirent* const entry = readdir(proc)) {
    pid_t pid;
    if (absl::SimpleAtoi(entry->d_name, &pid) && ParentOf(pid) == getpid()) {
      children.push_back(pid);
    }
  }
  closedir(proc);
  return children;
}

std::vector<pid_t> KillDescendants(const std::vector<pid_t>& spared,
                                   absl::Duration timeout) {
  const auto deadline =
      std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(timeout);
  while (true) {
    bool any = false;
    std::vector<pid_t> left;
    for (const pid_t child : Children()) {
      if (std::count(spared.begin(), spared.end(), child) > 0) continue;
      any = true;
      kill(child, SIGKILL);
      if (waitpid(child, nullptr, WNOHANG) != child) left.push_back(child);
    }
    // The end of each makes its children ours: not before a look finds none.
    if (!any || std::chrono::steady_clock::now() >= deadline) return left;
    absl::SleepFor(absl::Milliseconds(2));
  }
}

int ExitCodeOfStatus(int wait_status) {
  return WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status)
                                  : WEXITSTATUS(wait_status);
}

std::string HowItEnded(int wait_status) {
  if (WIFSIGNALED(wait_status)) {
    const int signal = WTERMSIG(wait_status);
    return absl::StrCat("was killed by signal ", signal, " (",
                        strsignal(signal), ")");
  }
  return absl::StrCat("failed with exit code ", WEXITSTATUS(wait_status));
}

}  // namespace grapnel
