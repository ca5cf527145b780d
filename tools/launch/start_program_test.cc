#include "grapnel/tools/launch/start_program.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/tools/launch/sockets.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

// What the program writes, until it ends.
std::string Output(ProgramOptions options) {
  int ends[2];
  EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
  const OwnedFd read_end(ends[0]);
  OwnedFd write_end(ends[1]);
  options.fds[1] = write_end.get();
  const absl::StatusOr<pid_t> pid = StartProgram(std::move(options));
  write_end = OwnedFd();
  EXPECT_THAT(pid.status(), IsOk());
  std::string output;
  char buffer[512];
  for (ssize_t n; (n = read(read_end.get(), buffer, sizeof(buffer))) > 0;) {
    output.append(buffer, n);
  }
  EXPECT_EQ(waitpid(pid.value_or(-1), nullptr, 0), pid.value_or(-1));
  return output;
}

TEST(StartProgramTest, ProgramOfPathHasTheArgumentsAndTheEnvironment) {
  ProgramOptions options;
  options.command = {"sh", "-c", "echo $1 $A $HOME", "sh", "one"};
  options.environment = {"A=a"};
  EXPECT_EQ(Output(options), "one a\n");
}

TEST(StartProgramTest, ProcessHasTheSignalsThatItIsGiven) {
  SignalState signals;
  sigemptyset(&signals.mask);
  struct sigaction ignored = {};
  ignored.sa_handler = SIG_IGN;
  signals.actions.emplace_back(SIGUSR1, ignored);
  ProgramOptions options;
  options.command = {"sh", "-c", "kill -USR1 $$; echo ignored"};
  EXPECT_EQ(Output(options), "");
  options.signals = &signals;
  EXPECT_EQ(Output(options), "ignored\n");
}

TEST(StartProgramTest, ProcessMayHaveAGroupOfItsOwn) {
  ProgramOptions options;
  options.command = {"sleep", "60"};
  for (const bool own_group : {false, true}) {
    options.own_group = own_group;
    const absl::StatusOr<pid_t> pid = StartProgram(options);
    ASSERT_THAT(pid.status(), IsOk());
    EXPECT_EQ(getpgid(*pid), own_group ? *pid : getpgrp());
    kill(*pid, SIGKILL);
    EXPECT_EQ(waitpid(*pid, nullptr, 0), *pid);
  }
}

TEST(StartProgramTest, WhatCannotBeRunIsNamedAndLeavesNoProcess) {
  ProgramOptions options;
  options.command = {"/no/such/program"};
  EXPECT_THAT(StartProgram(options).status(),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       "/no/such/program: No such file or directory"));
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1);
  EXPECT_EQ(errno, ECHILD);
}

}  // namespace
}  // namespace grapnel
