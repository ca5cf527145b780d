#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/io/env.h"
#include "grapnel/io/env_conformance.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace io {
namespace {

using Code = absl::StatusCode;
using testing::HasSubstr;

EnvUnderTest MakePosix() {
  static std::atomic<int> count{0};
  Env& env = Env::Posix();
  const std::string dir =
      JoinPath(testing::TempDir(), absl::StrCat("posix_env_", count++));
  if (env.FileExists(dir)) DeleteRecursively(env, dir).IgnoreError();
  EXPECT_THAT(env.CreateDir(dir), IsOk());
  return {&env, dir, nullptr};
}

INSTANTIATE_TEST_SUITE_P(Posix, EnvTest, testing::Values(&MakePosix));

class PosixEnvTest : public testing::Test {
 protected:
  std::string Path(const char* name) const { return JoinPath(dir_, name); }

  Env& env_ = Env::Posix();
  const std::string dir_ = MakePosix().dir;
};

TEST_F(PosixEnvTest, NeverBlocksOnAPipeOrADevice) {
  ASSERT_EQ(::mkfifo(Path("pipe").c_str(), 0600), 0);
  for (const std::string& path : {Path("pipe"), std::string("/dev/zero")}) {
    EXPECT_THAT(env_.NewRandomAccessFile(path),
                StatusIs(Code::kInvalidArgument, HasSubstr(path)));
    EXPECT_THAT(env_.NewWritableFile(path),
                StatusIs(Code::kInvalidArgument, HasSubstr(path)));
    EXPECT_THAT(env_.NewAppendableFile(path),
                StatusIs(Code::kInvalidArgument, HasSubstr(path)));
  }
}

TEST_F(PosixEnvTest, LinksAreFollowedButNeverDeletedThrough) {
  ASSERT_THAT(env_.CreateDir(Path("kept")), IsOk());
  ASSERT_THAT(WriteFileAtomically(env_, Path("kept/f"), "x"), IsOk());
  ASSERT_THAT(env_.CreateDir(Path("gone")), IsOk());
  ASSERT_EQ(::symlink(Path("kept").c_str(), Path("gone/link").c_str()), 0);
  ASSERT_EQ(::symlink("nowhere", Path("gone/dangling").c_str()), 0);
  EXPECT_EQ(*ReadFile(env_, Path("gone/link/f")), "x");
  EXPECT_TRUE(env_.IsDirectory(Path("gone/link")));
  EXPECT_TRUE(env_.IsSymlink(Path("gone/link")));
  EXPECT_TRUE(env_.IsSymlink(Path("gone/dangling")));
  EXPECT_FALSE(env_.FileExists(Path("gone/dangling")));
  EXPECT_THAT(DeleteRecursively(env_, Path("gone")), IsOk());
  EXPECT_FALSE(env_.FileExists(Path("gone")));
  EXPECT_EQ(*ReadFile(env_, Path("kept/f")), "x");
}

TEST_F(PosixEnvTest, ModesComeFromTheUmask) {
  const mode_t old = ::umask(0027);
  EXPECT_THAT(WriteFileAtomically(env_, Path("f"), "x"), IsOk());
  EXPECT_THAT(env_.CreateNewDir(Path("d")), IsOk());
  ::umask(old);
  struct stat info;
  ASSERT_EQ(::stat(Path("f").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0640u);
  ASSERT_EQ(::stat(Path("d").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0750u);
}

TEST_F(PosixEnvTest, DescriptorsDoNotReachChildProcessesAndAreClosed) {
  const auto open_files = [] {
    return Env::Posix().ListDir("/proc/self/fd")->size();
  };
  const size_t before = open_files();
  {
    auto written = env_.NewWritableFile(Path("f"));
    ASSERT_THAT(written, IsOk());
    auto read = env_.NewRandomAccessFile(Path("f"));
    ASSERT_THAT(read, IsOk());
    EXPECT_EQ(open_files(), before + 2);
    for (int fd = 3; fd < 64; ++fd) {
      const int flags = ::fcntl(fd, F_GETFD);
      char target[4096];
      const ssize_t n = ::readlink(absl::StrCat("/proc/self/fd/", fd).c_str(),
                                   target, sizeof(target));
      if (n <= 0 || std::string(target, n) != Path("f")) continue;
      EXPECT_TRUE(flags & FD_CLOEXEC);
    }
  }
  EXPECT_EQ(open_files(), before);
}

// What a process of its own finds: 0 for a lock, else the status's code.
int LockInAProcess(const std::string& path) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::_exit(static_cast<int>(Env::Posix().LockFile(path).status().code()));
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST_F(PosixEnvTest, ALockHoldsAgainstOtherProcessesAndThroughLinks) {
  ASSERT_EQ(::symlink(dir_.c_str(), Path("link").c_str()), 0);
  auto lock = env_.LockFile(Path("lock"));
  ASSERT_THAT(lock, IsOk());
  EXPECT_EQ(LockInAProcess(Path("lock")), static_cast<int>(Code::kAborted));
  EXPECT_EQ(LockInAProcess(Path("link/lock")),
            static_cast<int>(Code::kAborted));
  EXPECT_THAT(env_.LockFile(Path("link/lock")),
              StatusIs(Code::kAborted, HasSubstr("lock")));
  lock->reset();
  EXPECT_EQ(LockInAProcess(Path("lock")), 0);
  // It ended with its process.
  EXPECT_THAT(env_.LockFile(Path("lock")), IsOk());
}

TEST_F(PosixEnvTest, AKilledProcessLeavesNoLock) {
  int pipe_fds[2];
  ASSERT_EQ(::pipe(pipe_fds), 0);
  const pid_t pid = ::fork();
  if (pid == 0) {
    const auto lock = Env::Posix().LockFile(Path("lock"));
    const char ok = lock.ok() ? 1 : 0;
    if (::write(pipe_fds[1], &ok, 1) == 1) ::pause();
    ::_exit(1);
  }
  char ok = 0;
  ASSERT_EQ(::read(pipe_fds[0], &ok, 1), 1);
  EXPECT_EQ(ok, 1);
  EXPECT_THAT(env_.LockFile(Path("lock")),
              StatusIs(Code::kAborted, HasSubstr("lock")));
  ASSERT_EQ(::kill(pid, SIGKILL), 0);
  ASSERT_EQ(::waitpid(pid, nullptr, 0), pid);
  EXPECT_THAT(env_.LockFile(Path("lock")), IsOk());
  ::close(pipe_fds[0]);
  ::close(pipe_fds[1]);
}

TEST_F(PosixEnvTest, ALockedFileCanBeReadByOtherProcesses) {
  const auto lock = env_.LockFile(Path("lock"));
  ASSERT_THAT(lock, IsOk());
  ASSERT_THAT((*lock)->Write("me"), IsOk());
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::_exit(ReadFile(Env::Posix(), Path("lock")).value_or("") == "me" ? 0 : 1);
  }
  int status = -1;
  ::waitpid(pid, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(LockInAProcess(Path("lock")), static_cast<int>(Code::kAborted));
}

TEST_F(PosixEnvTest, DestructionDropsWhatWasNotFlushed) {
  {
    auto file = env_.NewWritableFile(Path("f"));
    ASSERT_THAT(file, IsOk());
    ASSERT_THAT((*file)->Append("lost"), IsOk());
  }
  EXPECT_EQ(*ReadFile(env_, Path("f")), "");
}

// Root may write anywhere; this takes that from it, or gives it back.
void SetMayOverridePermissions(bool on) {
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2];
  ASSERT_EQ(::syscall(SYS_capget, &header, data), 0);
  constexpr uint32_t kBit = 1u << CAP_DAC_OVERRIDE;
  const uint32_t may = on ? data[0].permitted & kBit : 0;
  data[0].effective = (data[0].effective & ~kBit) | may;
  ASSERT_EQ(::syscall(SYS_capset, &header, data), 0);
}

TEST_F(PosixEnvTest, AReadOnlyDirectoryIsPermissionDenied) {
  ASSERT_EQ(::chmod(dir_.c_str(), 0500), 0);
  SetMayOverridePermissions(false);
  const absl::Status status = env_.NewWritableFile(Path("f")).status();
  SetMayOverridePermissions(true);
  ASSERT_EQ(::chmod(dir_.c_str(), 0700), 0);
  EXPECT_THAT(status, StatusIs(Code::kPermissionDenied, HasSubstr(Path("f"))));
}

struct PathCase {
  const char* a;
  const char* b;
  const char* joined;
};

TEST(PathTest, JoinPath) {
  const PathCase cases[] = {
      {"a", "b", "a/b"},       {"a/", "b", "a/b"},  {"", "b", "b"},
      {"a", "/b", "/b"},       {"/", "b", "/b"},    {"a", "", "a"},
      {"a/b", "c/", "a/b/c/"}, {"a", ".", "a"},     {"a", "./", "a"},
      {"a", ".//./b", "a/b"},  {"a", ".b", "a/.b"}, {"a", "../b", "a/../b"},
      {"", "./b", "./b"}};
  for (const PathCase& c : cases) {
    EXPECT_EQ(JoinPath(c.a, c.b), c.joined) << c.a << " + " << c.b;
  }
}

TEST(PathTest, DirnameAndBasename) {
  const PathCase cases[] = {{"", "x", "x"},   {"a", "x", "a/x"},
                            {"/", "x", "/x"}, {"/a/b", "x", "/a/b/x"},
                            {"a", "", "a/"},  {"", "", ""}};
  for (const PathCase& c : cases) {
    EXPECT_EQ(Dirname(c.joined), c.a) << c.joined;
    EXPECT_EQ(Basename(c.joined), c.b) << c.joined;
  }
}

TEST_F(PosixEnvTest, CurrentDirIsWhereRelativePathsStart) {
  const auto dir = Env::Posix().CurrentDir();
  ASSERT_THAT(dir, IsOk());
  EXPECT_EQ((*dir)[0], '/');
  ASSERT_THAT(WriteFileAtomically(Env::Posix(), "here", "x"), IsOk());
  EXPECT_EQ(ReadFile(Env::Posix(), *dir + "/here").value_or(""), "x");
  ASSERT_THAT(Env::Posix().DeleteFile("here"), IsOk());
}

}  // namespace
}  // namespace io
}  // namespace grapnel
