// A C program's runs leave its process as it was, say nothing but to it, don't
// disturb each other, and leave nothing behind, however they end.

#include "grapnel/tests/capi/runs/guest.h"

#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <fenv.h>
#include <signal.h>
#include <unistd.h>
#include <xmmintrin.h>

#include <algorithm>
#include <atomic>
#include <clocale>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "ATen/CPUGeneratorImpl.h"
#include "ATen/Parallel.h"
#include "ATen/core/Tensor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/grapnel.h"
#include "grapnel/io/env.h"
#include "grapnel/tests/capi/runs/text.h"
#include "grapnel/tests/capi/runs/took.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kDefaultSteps = 2000;

int64_t FromEnvironment(const char* name, int64_t value) {
  const char* const text = std::getenv(name);
  if (text != nullptr && !absl::SimpleAtoi(text, &value)) {
    ADD_FAILURE() << name << ": is no number: " << text;
  }
  return value;
}

std::string String(const text& from) {
  return from.data == nullptr ? "" : std::string(from.data, from.size);
}

// ------------------------------------------------------- a process's state

std::vector<std::string> OpenFiles() {
  std::vector<std::string> files;
  DIR* const stream = opendir("/proc/self/fd");
  if (stream == nullptr) return files;
  while (const dirent* entry = readdir(stream)) {
    const std::string path = absl::StrCat("/proc/self/fd/", entry->d_name);
    char target[1024];
    const ssize_t size = readlink(path.c_str(), target, sizeof(target));
    // But for the one of this listing.
    if (size < 0 || entry->d_name == std::to_string(dirfd(stream))) continue;
    files.push_back(
        absl::StrCat(entry->d_name, " ",
                     absl::string_view(target, static_cast<size_t>(size))));
  }
  closedir(stream);
  std::sort(files.begin(), files.end());
  return files;
}

int MaxOmpThreads() {
  // LibTorch's own OpenMP, which brings no header.
  const auto get =
      reinterpret_cast<int (*)()>(dlsym(RTLD_DEFAULT, "omp_get_max_threads"));
  return get == nullptr ? -1 : get();
}

// A line for each thing that a guest might leave otherwise.
std::vector<std::string> ProcessState() {
  std::vector<std::string> state;
  const auto add = [&state](const std::string& name, const auto& value) {
    state.push_back(absl::StrCat(name, ": ", value));
  };
  sigset_t mask;
  pthread_sigmask(SIG_SETMASK, nullptr, &mask);
  for (int signal = 1; signal < NSIG; ++signal) {
    struct sigaction action;
    if (sigaction(signal, nullptr, &action) != 0) continue;
    add(absl::StrCat("signal ", signal),
        absl::StrCat(reinterpret_cast<uintptr_t>(action.sa_handler), " ",
                     action.sa_flags, " ", sigismember(&mask, signal)));
  }
  fenv_t environment;
  fegetenv(&environment);
  // Not the flags of what has happened: of how numbers are made.
  add("floating point",
      absl::StrCat(fegetround(), " ", fegetexcept(), " ",
                   environment.__control_word & 0x0f3f, " ",
                   environment.__mxcsr & ~0x3fu, " ", _mm_getcsr() & ~0x3fu));
  add("OpenMP threads", MaxOmpThreads());
  add("torch threads", at::get_num_threads());
  add("locale", std::string(std::setlocale(LC_ALL, nullptr)));
  add("locale of numbers", std::string(std::setlocale(LC_NUMERIC, nullptr)));
  const at::Tensor generator = at::detail::getDefaultCPUGenerator().get_state();
  add("generator", std::hash<std::string>()(std::string(
                       static_cast<const char*>(generator.const_data_ptr()),
                       generator.nbytes())));
  char* const dir = getcwd(nullptr, 0);
  add("current directory", std::string(dir));
  free(dir);
  for (const std::string& file : OpenFiles()) add("file", file);
  return state;
}

// What comes to stdout and stderr while it lives.
class CapturedOutput {
 public:
  CapturedOutput() : path_(testing::TempDir() + "/guest_output") {
    std::fflush(stdout);
    const int file = open(path_.c_str(), O_CREAT | O_TRUNC | O_WRONLY, 0600);
    EXPECT_GE(file, 0);
    for (const int fd : {1, 2}) {
      before_[fd - 1] = dup(fd);
      dup2(file, fd);
    }
    close(file);
  }
  ~CapturedOutput() { Restore(); }

  std::string Restore() {
    if (before_[0] < 0) return "";
    std::fflush(stdout);
    for (const int fd : {1, 2}) {
      dup2(before_[fd - 1], fd);
      close(std::exchange(before_[fd - 1], -1));
    }
    return io::ReadFile(io::Env::Posix(), path_).value_or("can't be read");
  }

 private:
  const std::string path_;
  int before_[2];
};

// ------------------------------------------------------------------ the runs

// A folder that isn't there yet.
std::string NewDir(const std::string& name) {
  const std::string dir = absl::StrCat(testing::TempDir(), "/guest_", name);
  if (io::Env::Posix().FileExists(dir)) {
    EXPECT_THAT(io::DeleteRecursively(io::Env::Posix(), dir), IsOk());
  }
  return dir;
}

// A run, and what it is made by.
struct Guest : guest {
  Guest() : guest() {}
  Guest(const Guest&) = delete;
  Guest& operator=(const Guest&) = delete;
  ~Guest() { Destroy(); }

  void Destroy() {
    guest_destroy(this);
    EXPECT_EQ(destroyed, taken);
  }
  std::string Error() const { return String(error); }
};

guest_plan PlanOf(const std::string& dir) {
  guest_plan plan = {};
  plan.work_dir = dir.c_str();
  plan.max_iters = 30;
  plan.seed = 5;
  plan.interval = 10;
  return plan;
}

// A run that can't be made, or goes wrong in that callback.
struct Failure {
  const char* callback;
  int64_t from;
  const char* extra;
  const char* message;  // Of the error. "" if there is to be none.
};

constexpr Failure kFailures[] = {
    {"", 0, "no_such_field: 1", "no_such_field"},
    {"", 0, "param_scheduler { linear { start_factor: -1 } }", "start_factor"},
    {"", 0, "model { sequential {", "config"},
    {"", 0, "load_from: \"/nowhere\"", "/nowhere"},
    {"", 0, "custom_hooks { config { [hooks/NoHook] {} } }", "NoHook"},
    {"", 0, "custom_hooks { config { [hooks/EMAHook] { momentum: 7 } } }",
     "momentum"},
    {"on_stage", 0, nullptr, "as planned"},
    {"on_stage", 17, nullptr, "as planned"},
    {"save_state", 0, nullptr, "as planned"},
    {"load_state", 0, nullptr, "as planned"},
    {"get", 0, nullptr, "as planned"},
    {"get", 21, nullptr, "as planned"},
    {"get_batch", 0, nullptr, ""},
    {"get_batch", 9, nullptr, ""},
};

// Whether it has failed; it has as it should.
bool MeetFailure(const Failure& failure, int64_t num_workers) {
  SCOPED_TRACE(
      absl::StrCat(*failure.callback == '\0' ? failure.extra : failure.callback,
                   " from ", failure.from, ", ", num_workers, " workers"));
  const std::string dir = NewDir("failure");
  guest_plan plan = PlanOf(dir);
  plan.num_workers = num_workers;
  if (failure.callback == std::string("load_state")) {
    Guest first;
    EXPECT_TRUE(guest_create(&plan, &first) && guest_train(&first))
        << first.Error();
    plan.resume = 1;
    plan.max_iters *= 2;
  }
  plan.failing = failure.callback;
  plan.failing_from = failure.from;
  plan.extra = failure.extra;
  Guest it;
  const bool good = guest_create(&plan, &it) && guest_train(&it);
  EXPECT_EQ(good, *failure.message == '\0') << it.Error();
  EXPECT_THAT(it.Error(), HasSubstr(failure.message));
  return !good;
}

// Everything that a program does with runs.
void LiveThrough(const std::string& name) {
  const std::string dir = NewDir(name);
  guest_plan plan = PlanOf(dir);
  plan.num_workers = 2;
  {
    Guest it;
    ASSERT_TRUE(guest_create(&plan, &it)) << it.Error();
  }
  {
    Guest it;
    int32_t more = 1;
    ASSERT_TRUE(guest_create(&plan, &it)) << it.Error();
    for (int i = 0; i < 15; ++i) {
      ASSERT_TRUE(guest_step(&it, &more)) << it.Error();
    }
    ASSERT_TRUE(guest_validate(&it)) << it.Error();
    ASSERT_TRUE(guest_step(&it, &more)) << it.Error();
  }
  plan.resume = 1;
  {
    Guest it;
    ASSERT_TRUE(guest_create(&plan, &it) && guest_train(&it)) << it.Error();
    EXPECT_EQ(it.state.iters, plan.max_iters);
  }
  for (const Failure& failure : kFailures) {
    for (const int64_t num_workers : {0, 2}) MeetFailure(failure, num_workers);
  }
}

// Severity and text of what the library says.
struct Heard {
  std::atomic<int> warnings{0};
};

void Hear(void* user_data, grapnel_severity severity, const char* /*message*/,
          size_t /*message_size*/) {
  if (severity >= GRAPNEL_WARNING) {
    ++static_cast<Heard*>(user_data)->warnings;
  }
}

TEST(GuestTest, TheProcessIsAsItWasAndNothingIsWrittenToIt) {
  // A host with settings of its own.
  signal(SIGUSR1, [](int) {});
  signal(SIGPIPE, SIG_IGN);
  signal(SIGFPE, [](int) {});
  std::setlocale(LC_ALL, "C.utf8");
  std::setlocale(LC_NUMERIC, "C");
  at::set_num_threads(3);
  at::Generator generator = at::detail::getDefaultCPUGenerator();
  generator.set_current_seed(17);
  const unsigned int modes = _mm_getcsr();
  fesetround(FE_TOWARDZERO);
  _MM_SET_FLUSH_ZERO_MODE(_MM_FLUSH_ZERO_ON);
  Heard heard;
  grapnel_set_log_callback(Hear, &heard);

  CapturedOutput captured;
  const std::vector<std::string> before = ProcessState();
  LiveThrough("process");
  const std::vector<std::string> after = ProcessState();
  const std::string said = captured.Restore();

  grapnel_set_log_callback(nullptr, nullptr);
  _mm_setcsr(modes);
  fesetround(FE_TONEAREST);
  EXPECT_GT(MaxOmpThreads(), 0);
  EXPECT_EQ(after, before);
  EXPECT_EQ(said, "");
  EXPECT_GT(heard.warnings, 0);
  EXPECT_EQ(grapnel_live_objects(), 0);
}

// What other libraries have to say of bytes that are no text.
TEST(GuestTest, NothingIsWrittenOfBytesThatAreNoText) {
  const std::string dir = NewDir("no_text");
  Heard heard;
  grapnel_set_log_callback(Hear, &heard);
  CapturedOutput captured;
  for (const grapnel_encoding encoding :
       {GRAPNEL_BINARY, GRAPNEL_TEXT, GRAPNEL_JSON}) {
    // Of every length of a name: a string of field 1 to 15 in binary.
    for (int field = 1; field < 16; ++field) {
      const std::string config = {static_cast<char>(field << 3 | 2), 2, '\xff',
                                  '\xfe'};
      grapnel_runner_options* made = nullptr;
      EXPECT_THAT(Took(grapnel_runner_options_create(&made)), IsOk());
      const Owned<grapnel_runner_options> options(made);
      Took(grapnel_runner_options_set_config(made, config.data(), config.size(),
                                             encoding))
          .IgnoreError();
    }
    const std::string text = encoding == GRAPNEL_JSON
                                 ? "{\"work_dir\": \"\xff\xfe\"}"
                                 : "work_dir: \"\xff\\376\"";
    grapnel_runner_options* made = nullptr;
    EXPECT_THAT(Took(grapnel_runner_options_create(&made)), IsOk());
    const Owned<grapnel_runner_options> options(made);
    Took(grapnel_runner_options_set_config(made, text.data(), text.size(),
                                           encoding))
        .IgnoreError();
    Took(grapnel_runner_options_override(made, text.data(), text.size()))
        .IgnoreError();
    Took(grapnel_runner_options_override(made, "work_dir=\"\xff\"", 12))
        .IgnoreError();
    grapnel_runner* runner = nullptr;
    Took(grapnel_runner_create(made, &runner)).IgnoreError();
    grapnel_runner_destroy(runner);
  }
  {
    // Between two steps.
    guest_plan plan = PlanOf(dir);
    plan.extra =
        "visualizer { vis_backends { json_lines {} } "
        "vis_backends { tensorboard {} } }";
    Guest it;
    EXPECT_TRUE(guest_create(&plan, &it)) << it.Error();
    int32_t more = 1;
    EXPECT_TRUE(guest_step(&it, &more)) << it.Error();
    Took(grapnel_runner_save(it.runner, "\xff\xfe", 2)).IgnoreError();
    Took(grapnel_runner_request_stop(it.runner, GRAPNEL_STOP_NOW, "\xff", 1))
        .IgnoreError();
    EXPECT_TRUE(guest_train(&it)) << it.Error();
    Took(grapnel_runner_export(it.runner, "/nowhere/\xff", 10)).IgnoreError();
  }
  const std::string said = captured.Restore();
  grapnel_set_log_callback(nullptr, nullptr);
  EXPECT_EQ(said, "");
  EXPECT_EQ(grapnel_live_objects(), 0);
}

// --------------------------------------------------------------- two of them

std::string Outcome(Guest& it) {
  text outcome = {};
  EXPECT_TRUE(guest_read(&it, &outcome)) << it.Error();
  const std::string read = String(outcome);
  text_clear(&outcome);
  return read;
}

class TwoGuestsTest : public testing::Test {
 protected:
  TwoGuestsTest() {
    at::set_num_threads(1);
    for (int i = 0; i < 2; ++i) {
      plans_[i] = PlanOf(dirs_[i]);
      plans_[i].seed = 10 + i;
      plans_[i].max_iters = 200 + 50 * i;
      plans_[i].num_workers = i;
      Guest it;
      EXPECT_TRUE(guest_create(&plans_[i], &it) && guest_train(&it))
          << it.Error();
      alone_[i] = Outcome(it);
    }
  }
  ~TwoGuestsTest() override { EXPECT_EQ(grapnel_live_objects(), 0); }

  void Create(Guest* both) {
    for (int i = 0; i < 2; ++i) {
      EXPECT_TRUE(guest_create(&plans_[i], &both[i])) << both[i].Error();
    }
  }

  const std::string dirs_[2] = {NewDir("first"), NewDir("second")};
  guest_plan plans_[2];
  std::string alone_[2];
};

TEST_F(TwoGuestsTest, StepByStepEachHasTheBitsOfItsOwn) {
  ASSERT_NE(alone_[0], alone_[1]);
  Guest both[2];
  Create(both);
  int32_t more[2] = {1, 1};
  while (more[0] != 0 || more[1] != 0) {
    for (int i = 0; i < 2; ++i) {
      if (more[i] == 0) continue;
      ASSERT_TRUE(guest_step(&both[i], &more[i])) << both[i].Error();
    }
  }
  EXPECT_EQ(Outcome(both[0]), alone_[0]);
  EXPECT_EQ(Outcome(both[1]), alone_[1]);
}

TEST_F(TwoGuestsTest, OnTwoThreadsEachHasTheBitsOfItsOwn) {
  for (int round = 0; round < 5; ++round) {
    SCOPED_TRACE(absl::StrCat("round ", round));
    Guest both[2];
    std::atomic<int> ready{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 2; ++i) {
      threads.emplace_back([&, i] {
        at::set_num_threads(1);
        Guest& it = both[i];
        int32_t more = 1;
        ++ready;
        while (ready < 2) std::this_thread::yield();
        // Created at once too, and trained by steps and by one call.
        ASSERT_TRUE(guest_create(&plans_[i], &it)) << it.Error();
        for (int n = 0; n < 90; ++n) {
          ASSERT_TRUE(guest_step(&it, &more)) << it.Error();
        }
        ASSERT_TRUE(guest_train(&it)) << it.Error();
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(Outcome(both[0]), alone_[0]);
    EXPECT_EQ(Outcome(both[1]), alone_[1]);
  }
}

// --------------------------------------------------------------------- leaks

// With --config=asan LeakSanitizer looks at the memory too.
TEST(GuestLeakTest, NothingIsLeftOfManySteps) {
  at::set_num_threads(1);  // LibTorch's own pool is none of ours.
  const std::string dir = NewDir("steps");
  guest_plan plan = PlanOf(dir);
  plan.max_iters = FromEnvironment("GRAPNEL_STEPS", kDefaultSteps);
  plan.interval = std::max<int64_t>(1, plan.max_iters / 10);
  int64_t living = 0;
  {
    Guest it;
    ASSERT_TRUE(guest_create(&plan, &it)) << it.Error();
    int32_t more = 1;
    for (int64_t i = 1; more != 0; ++i) {
      ASSERT_TRUE(guest_step(&it, &more)) << it.Error();
      // After a validation all slots are there that are kept for later use.
      if (i <= plan.interval) continue;
      if (living == 0) living = grapnel_live_objects();
      ASSERT_EQ(grapnel_live_objects(), living) << "step " << i;
    }
    EXPECT_EQ(it.state.iters, plan.max_iters);
    EXPECT_GT(it.lines, 0);
  }
  EXPECT_EQ(grapnel_live_objects(), 0);
}

TEST(GuestLeakTest, NothingIsLeftOfWhatFails) {
  for (const Failure& failure : kFailures) {
    for (const int64_t num_workers : {0, 1, 3}) {
      MeetFailure(failure, num_workers);
      EXPECT_EQ(grapnel_live_objects(), 0);
    }
  }
}

}  // namespace
}  // namespace grapnel
