#include "grapnel/tools/launch/start_program.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/tools/launch/sockets.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

void WriteFile(const std::string& path, const std::string& content,
               mode_t mode) {
  std::ofstream(path) << content;
  ASSERT_EQ(chmod(path.c_str(), mode), 0);
}

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

TEST(StartProgramTest, PathIsThatOfTheProcessThatStartsIt) {
  const std::string dir = testing::TempDir() + "/path";
  for (const char* const part :
       {"", "/data", "/a_folder", "/a_folder/greet", "/program"}) {
    ASSERT_EQ(mkdir((dir + part).c_str(), 0755), 0);
  }
  WriteFile(dir + "/data/greet", "data", 0644);
  WriteFile(dir + "/program/greet", "#!/bin/sh\necho $0", 0755);
  const std::string path = getenv("PATH");
  const std::string others =
      dir + "/none:" + dir + "/data:" + dir + "/a_folder";
  ProgramOptions options;
  options.command = {"greet"};
  options.environment = {"PATH=/none"};
  setenv("PATH", (others + ":" + dir + "/program").c_str(), 1);
  EXPECT_EQ(Output(options), dir + "/program/greet\n");
  setenv("PATH", others.c_str(), 1);
  options.environment = {"PATH=" + dir + "/program"};
  EXPECT_THAT(StartProgram(options).status(),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       "greet: Permission denied"));
  setenv("PATH", path.c_str(), 1);
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

void ExpectCannotRun(const std::string& program, absl::StatusCode code,
                     const std::string& why) {
  ProgramOptions options;
  options.command = {program};
  EXPECT_THAT(StartProgram(options).status(),
              StatusIs(code, program + ": " + why));
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1);
  EXPECT_EQ(errno, ECHILD);
}

TEST(StartProgramTest, WhatCannotBeRunIsNamedAndLeavesNoProcess) {
  const std::string file = testing::TempDir() + "/no_program";
  WriteFile(file, "data", 0755);
  const auto code = absl::StatusCode::kFailedPrecondition;
  ExpectCannotRun("/no/such/program", code, "No such file or directory");
  ExpectCannotRun("no_such_program", code, "No such file or directory");
  ExpectCannotRun("", code, "No such file or directory");
  ExpectCannotRun("/", code, "Permission denied");
  ExpectCannotRun(file + "/program", code, "Not a directory");
  ExpectCannotRun(file, code, "Exec format error");
}

TEST(StartProgramTest, WhatTheSystemCannotDoIsNotTheProgramsFault) {
  const std::string file = testing::TempDir() + "/program";
  WriteFile(file, "#!/bin/sh\n", 0755);
  const OwnedFd written(open(file.c_str(), O_WRONLY | O_CLOEXEC));
  ExpectCannotRun(file, absl::StatusCode::kUnavailable, "Text file busy");

  rlimit limit;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  rlimit none = limit;
  none.rlim_cur = 0;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  ExpectCannotRun("/bin/true", absl::StatusCode::kResourceExhausted,
                  "pipe: Too many open files");
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

}  // namespace
}  // namespace grapnel
