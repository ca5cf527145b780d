// A run of the digits example that is killed and resumed is the run that was
// never interrupted: weights, buffers, optimizer, generator, history, and every
// record from there on.

#include <sys/wait.h>

#include <csignal>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/env.h"
#include "grapnel/tests/e2e/compare_runs.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::TestWithParam;
using ::testing::ValuesIn;

constexpr char kGrapnel[] = "tests/e2e/killable_grapnel";
constexpr char kConfig[] = "examples/digits/digits.textproto";

struct KillCase {
  std::string name;
  std::vector<std::string> options;  // For --cfg-options, of all three runs.
  std::string kill;                  // Where, as text.
  std::string resumes_from;          // Expected.
};

struct Param {
  KillCase kill_case;
  int threads;
};

void PrintTo(const Param& p, std::ostream* os) {
  *os << p.kill_case.name << " with " << p.threads << " threads";
}

std::vector<Param> Params() {
  // 23 iterations make an epoch, 6 batches a validation.
  const std::vector<std::string> by_iter = {
      "default_hooks.checkpoint.by_epoch=false",
      "default_hooks.checkpoint.interval=7"};
  std::vector<std::string> accumulating = by_iter;
  accumulating.push_back("optim_wrapper.accumulative_counts=3");
  std::vector<std::string> all_of_the_step = by_iter;
  all_of_the_step.insert(all_of_the_step.end(),
                         {"optim_wrapper.amp.dtype=BFLOAT16",
                          "optim_wrapper.accumulative_counts=5",
                          "optim_wrapper.accumulate_by=SAMPLES",
                          "optim_wrapper.clip_grad.max_norm=1",
                          "default_hooks.checkpoint.keep_best=2"});
  std::vector<std::string> by_iteration = by_iter;
  by_iteration.insert(
      by_iteration.end(),
      {"train_cfg={by_epoch: false max_iters: 60 val_interval: 30}",
       "log_processor.custom_cfg.0.window_size=global",
       "param_scheduler.0.linear.end=20",
       "param_scheduler.1={cosine_annealing {by_epoch: false begin: 20}}"});
  std::vector<std::string> for_ever = by_iteration;
  for_ever.push_back("train_dataloader.sampler.type=INFINITE");
  std::vector<std::string> validating = by_iteration;
  validating.push_back("default_hooks.checkpoint.interval=10");
  const std::vector<KillCase> cases = {
      {"AtAnEpochsEdge", {}, "point: AFTER_TRAIN_ITER count: 24", "epoch_1"},
      {"InsideAnEpoch", by_iter, "point: AFTER_TRAIN_ITER count: 33",
       "iter_28"},
      // 28 is one past the window of 25, 26, 27.
      {"InsideAnAccumulationWindow", accumulating,
       "point: AFTER_TRAIN_ITER count: 33", "iter_28"},
      // 28 is in the window of 26 to 30, in 16 bits, and after a best one.
      {"AccumulatingSamplesInFewerBits", all_of_the_step,
       "point: AFTER_TRAIN_ITER count: 33", "iter_28"},
      {"DuringValidation", {}, "point: AFTER_VAL_ITER count: 9", "epoch_2"},
      // Validation after iterations 30 and 60, which is the end.
      {"IterationBased", by_iteration, "point: AFTER_TRAIN_ITER count: 33",
       "iter_28"},
      {"IterationBasedForEver", for_ever, "point: AFTER_TRAIN_ITER count: 33",
       "iter_28"},
      {"IterationBasedDuringValidation", validating,
       "point: AFTER_VAL_ITER count: 3", "iter_30"},
  };
  std::vector<Param> params;
  for (const KillCase& c : cases) {
    for (const int threads : {1, 2}) params.push_back({c, threads});
  }
  return params;
}

class KilledRunTest : public TestWithParam<Param> {
 protected:
  // Runs `grapnel train`; returns what waitpid() says.
  int Train(const std::string& work_dir, std::vector<std::string> extra) {
    std::vector<std::string> args = {
        kGrapnel, "train", kConfig, absl::StrCat("--work-dir=", work_dir),
        "--threads", absl::StrCat(GetParam().threads), "--cfg-options",
        "train_cfg={max_epochs: 3}", "train_dataloader.num_workers=2",
        "default_hooks.logger.interval=4",
        // A statistic that depends on the whole epoch so far.
        "log_processor.custom_cfg.0={data_src: \"loss\" log_name: "
        "\"epoch_loss\" window_size: \"epoch\"}",
        // Keep every checkpoint, to look at.
        "default_hooks.checkpoint.max_keep_ckpts=-1"};
    for (const std::string& option : GetParam().kill_case.options) {
      args.push_back(option);
    }
    for (std::string& argument : extra) args.push_back(std::move(argument));
    return RunProgram(std::move(args));
  }

  // Each test has folders of its own.
  std::string Dir(const std::string& name) {
    const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
    std::string test = info->name();
    for (char& c : test) c = c == '/' ? '_' : c;
    return absl::StrCat(::testing::TempDir(), "/", test, "/", name);
  }
};

TEST_P(KilledRunTest, ResumesAsIfNothingHadHappened) {
  const KillCase& c = GetParam().kill_case;
  io::Env& env = io::Env::Posix();
  const std::string whole = Dir("whole");
  const std::string killed = Dir("killed");

  const int whole_status = Train(whole, {});
  ASSERT_TRUE(WIFEXITED(whole_status) && WEXITSTATUS(whole_status) == 0);

  const int killed_status =
      Train(killed, {absl::StrCat("custom_hooks.0.config={[type.googleapis.com/"
                                  "grapnel.testing.KillHookConfig] { ",
                                  c.kill, " }}")});
  ASSERT_TRUE(WIFSIGNALED(killed_status)) << killed_status;
  ASSERT_EQ(WTERMSIG(killed_status), SIGKILL);
  const auto from = io::FindLatestCheckpoint(env, killed, nullptr);
  ASSERT_THAT(from, IsOk());
  ASSERT_EQ(io::Basename(*from), c.resumes_from);

  const int resumed_status = Train(killed, {"--resume"});
  ASSERT_TRUE(WIFEXITED(resumed_status) && WEXITSTATUS(resumed_status) == 0);

  // Everything at the end.
  const auto last = io::FindLatestCheckpoint(env, whole, nullptr);
  ASSERT_THAT(last, IsOk());
  const auto expected = io::ReadCheckpoint(env, *last);
  ASSERT_THAT(expected, IsOk());
  const auto actual =
      io::ReadCheckpoint(env, io::JoinPath(killed, io::Basename(*last)));
  ASSERT_THAT(actual, IsOk());
  ExpectSameCheckpoints(*expected, *actual);

  // Every record on the way.
  const std::vector<std::string> all = RecordsOf(whole);
  const std::vector<std::string> resumed = RecordsOf(killed);
  ASSERT_FALSE(resumed.empty());
  ASSERT_LT(resumed.size(), all.size());
  EXPECT_EQ(resumed,
            std::vector<std::string>(all.end() - resumed.size(), all.end()));
}

// The program's own lines, of the newest run there.
std::string LogOf(const std::string& work_dir) {
  io::Env& env = io::Env::Posix();
  std::string newest;
  const auto names = env.ListDir(work_dir);
  EXPECT_THAT(names, IsOk());
  for (const std::string& name : *names) {
    const std::string file =
        absl::StrCat(work_dir, "/", name, "/", name, ".log");
    if (env.FileExists(file)) newest = file;
  }
  const auto text = io::ReadFile(env, newest);
  EXPECT_THAT(text, IsOk());
  return text.value_or("");
}

TEST(DamagedRunTest, GoesOnFromTheOneBeforeAndSetsTheDamagedOneAside) {
  io::Env& env = io::Env::Posix();
  const std::string dir = absl::StrCat(::testing::TempDir(), "/damaged_run");
  const std::string whole = absl::StrCat(dir, "/whole");
  const std::string killed = absl::StrCat(dir, "/killed");
  const auto run = [](const char* command, const std::string& work_dir,
                      std::vector<std::string> more) {
    std::vector<std::string> args = {
        kGrapnel,        command,
        kConfig,         absl::StrCat("--work-dir=", work_dir),
        "--cfg-options", "default_hooks.checkpoint.max_keep_ckpts=-1"};
    for (std::string& argument : more) args.push_back(std::move(argument));
    return RunProgram(std::move(args));
  };
  constexpr char kThree[] = "train_cfg={max_epochs: 3}";
  ASSERT_EQ(run("train", whole, {kThree}), 0);
  ASSERT_TRUE(WIFSIGNALED(
      run("train", killed,
          {kThree,
           "custom_hooks.0.config={[type.googleapis.com/"
           "grapnel.testing.KillHookConfig] { point: AFTER_TRAIN_ITER "
           "count: 50 }}"})));
  const std::string file = io::JoinPath(killed, "epoch_2/model.safetensors");
  std::string bytes = *io::ReadFile(env, file);
  bytes.back() ^= 1;
  ASSERT_THAT(io::WriteFileAndSync(env, file, bytes), IsOk());

  ASSERT_EQ(run("test", killed, {}), 0);
  EXPECT_TRUE(env.FileExists(io::JoinPath(killed, "epoch_2")));
  const auto contents = [&](const std::string& work_dir) {
    auto read = io::ReadCheckpoint(env, io::JoinPath(work_dir, "epoch_3"));
    EXPECT_THAT(read, IsOk());
    return *std::move(read);
  };
  ASSERT_EQ(run("train", killed, {kThree, "--resume"}), 0);
  EXPECT_THAT(
      LogOf(killed),
      AllOf(HasSubstr(absl::StrCat("passed over ", file, ": tensor \"")),
            HasSubstr("; it is set aside as epoch_2.damaged\n"),
            HasSubstr("resumed epoch: 1, iter: 23\n")));
  EXPECT_EQ(*io::ReadFile(env, io::JoinPath(killed,
                                            "epoch_2.damaged/"
                                            "model.safetensors")),
            bytes);
  ExpectSameCheckpoints(contents(whole), contents(killed));
}

INSTANTIATE_TEST_SUITE_P(, KilledRunTest, ValuesIn(Params()),
                         [](const auto& info) {
                           return absl::StrCat(info.param.kill_case.name,
                                               info.param.threads, "Threads");
                         });

}  // namespace
}  // namespace grapnel
