// Where a run's files are, and that nobody else writes there.

#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "grapnel/base/fake_clock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/data/tensor_dataset.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/env.h"
#include "grapnel/io/env_wrapper.h"
#include "grapnel/io/fault_injection_env.h"
#include "grapnel/io/mem_env.h"
#include "grapnel/io/run_checkpoints.h"
#include "grapnel/loggers/memory_run_log.h"
#include "grapnel/runner/parse_config_for_test.h"
#include "grapnel/runner/run_context.h"
#include "grapnel/runner/runner.h"
#include "grapnel/runner/runner_config.pb.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::_;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

// A linear regression on constant data: 12 samples in batches of 4.
const char kConfig[] = R"pb(
  randomness { seed: 1 }
  model {
    sequential {
      layers { linear { out_features: 1 } }
      loss { mse {} }
    }
  }
  train_dataloader { batch_size: 4 }
  test_dataloader { batch_size: 4 }
  train_cfg { max_epochs: 3 }
  optim_wrapper { optimizer { sgd { lr: 0.1 } } }
  test_evaluator { mse {} }
  default_hooks { checkpoint { interval: 1 } }
)pb";

class FoldersTest : public ::testing::Test {
 protected:
  // A runner of kConfig and `more`, in env_.
  absl::StatusOr<std::unique_ptr<Runner>> Create(const std::string& more,
                                                 RunnerOptions options = {}) {
    runner::v1::RunnerConfig config = ParseConfig(kConfig);
    config.MergeFrom(ParseConfig(more));
    options.env = env_;
    options.clock = &clock_;
    options.log = &log_;
    for (auto* dataset : {&options.train_dataset, &options.test_dataset}) {
      auto tensors =
          TensorDataset::Create(ops::full({12, 2}, 0.5), ops::ones({12, 1}));
      EXPECT_THAT(tensors, IsOk());
      *dataset = *std::move(tensors);
    }
    return Runner::Create(config, std::move(options));
  }

  absl::Status Train(const std::string& more, RunnerOptions options = {}) {
    const auto runner = Create(more, std::move(options));
    return runner.ok() ? (*runner)->Train() : runner.status();
  }

  // Names of checkpoints, sorted.
  std::vector<std::string> Checkpoints(const std::string& dir) {
    std::vector<std::string> found;
    const auto names = env_->ListDir(dir);
    EXPECT_THAT(names, IsOk());
    for (const std::string& name : *names) {
      if (env_->FileExists(absl::StrCat(dir, "/", name, "/manifest.pb"))) {
        found.push_back(name);
      }
    }
    return found;
  }

  // Use the disk, in a folder of this test's own, which it returns.
  std::string UseDisk() {
    env_ = &io::Env::Posix();
    const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
    const std::string dir =
        absl::StrCat(::testing::TempDir(), "/", info->name());
    if (env_->FileExists(dir)) {
      EXPECT_THAT(io::DeleteRecursively(*env_, dir), IsOk());
    }
    EXPECT_THAT(env_->CreateDir(dir), IsOk());
    return dir;
  }

  io::MemEnv mem_;
  io::Env* env_ = &mem_;
  FakeClock clock_;
  MemoryRunLog log_;
};

// ------------------------------------------------------------------ one writer

TEST_F(FoldersTest, ASecondTrainingIsRefusedBeforeItTouchesAnything) {
  ASSERT_THAT(Train("work_dir: '/w'"), IsOk());
  const auto first = Create("work_dir: '/w'");
  ASSERT_THAT(first, IsOk());
  // What the first one is writing, and what was there before it.
  ASSERT_THAT(env_->CreateDir("/w/.tmp-epoch_4-0123abcd"), IsOk());
  io::FaultInjectionEnv watched(mem_, "/");
  env_ = &watched;
  for (const char* resume : {"resume: false", "resume: true"}) {
    EXPECT_THAT(
        Create(absl::StrCat("work_dir: '/w' ", resume)),
        StatusIs(absl::StatusCode::kAborted,
                 AllOf(HasSubstr("work_dir: /w is in use by another run: host"),
                       HasSubstr(absl::StrCat("process ", getpid())),
                       HasSubstr("started 2026-01-02 03:04:05"))));
  }
  EXPECT_THAT(watched.operations(),
              ElementsAre("lock /w/.lock", "lock /w/.lock"));
  EXPECT_TRUE(env_->FileExists("/w/.tmp-epoch_4-0123abcd"));
}

TEST_F(FoldersTest, TheFolderIsFreeWhenTheRunnerIsGone) {
  ASSERT_THAT(Train("work_dir: '/w'"), IsOk());
  EXPECT_THAT(Train("work_dir: '/w' resume: true"), IsOk());
}

TEST_F(FoldersTest, TheFolderIsFreeWhenTrainingHasEnded) {
  const auto first = Create("work_dir: '/w'");
  ASSERT_THAT(first, IsOk());
  ASSERT_THAT((*first)->Train(), IsOk());
  const auto second = Create("work_dir: '/w' resume: true");
  ASSERT_THAT(second, IsOk());
  // And is the second one's until that has ended.
  EXPECT_THAT((*first)->Train(),
              StatusIs(absl::StatusCode::kAborted, HasSubstr("/w is in use")));
  ASSERT_THAT((*second)->Train(), IsOk());
  EXPECT_THAT((*first)->Train(), IsOk());
}

TEST_F(FoldersTest, EvaluationsReadBesideATraining) {
  const auto first = Create("work_dir: '/w'");
  ASSERT_THAT(first, IsOk());
  ASSERT_THAT((*first)->Train(), IsOk());
  for (int i = 0; i < 2; ++i) {
    RunnerOptions options;
    options.for_training = false;
    const auto test = Create("work_dir: '/w' resume: true", std::move(options));
    ASSERT_THAT(test, IsOk());
    EXPECT_THAT((*test)->Test(), IsOk());
  }
  // And a training begins beside an evaluation.
  RunnerOptions options;
  options.for_training = false;
  const auto test = Create("work_dir: '/v'", std::move(options));
  ASSERT_THAT(test, IsOk());
  EXPECT_FALSE(env_->FileExists("/v/.lock"));
  EXPECT_THAT(Create("work_dir: '/v'"), IsOk());
}

TEST_F(FoldersTest, TwoWorkDirsOfOneCheckpointFolderAreKeptApart) {
  const std::string hook = "default_hooks { checkpoint { out_dir: '/ck' } }";
  const auto first = Create("work_dir: '/a/exp'" + hook);
  ASSERT_THAT(first, IsOk());
  EXPECT_THAT(Create("work_dir: '/b/exp'" + hook),
              StatusIs(absl::StatusCode::kAborted,
                       HasSubstr("out_dir: /ck/exp is in use")));
  EXPECT_FALSE(env_->FileExists("/b"));
  EXPECT_THAT(Create("work_dir: '/b/other'" + hook), IsOk());
}

TEST_F(FoldersTest, BadConfigsLeaveNoFolder) {
  EXPECT_FALSE(Create("work_dir: '/a/w' load_from: '/none'").ok());
  EXPECT_FALSE(
      Create("work_dir: '/a/w' param_scheduler { linear { begin: 5 end: 2 } }")
          .ok());
  EXPECT_THAT(*env_->ListDir("/"), testing::IsEmpty());
}

// The log of the second one is told that it waits, and ends the first one.
TEST_F(FoldersTest, WaitsForTheOneBeforeAndGoesOnFromWhatItSaved) {
  auto first = Create("work_dir: '/w' train_cfg { max_epochs: 2 }");
  ASSERT_THAT(first, IsOk());
  struct EndsTheOther : public MemoryRunLog {
    void Warning(absl::string_view message) override {
      MemoryRunLog::Warning(message);
      if (runner != nullptr) {
        EXPECT_THAT(runner->Train(), IsOk());
        runner.reset();
      }
    }
    std::unique_ptr<Runner> runner;
  };
  EndsTheOther log;
  log.runner = *std::move(first);
  runner::v1::RunnerConfig config =
      ParseConfig(absl::StrCat(kConfig, " work_dir: '/w' resume: true"));
  config.clear_test_dataloader();
  config.clear_test_evaluator();
  RunnerOptions options;
  options.env = env_;
  options.clock = &clock_;
  options.log = &log;
  options.wait_for_lock = absl::Minutes(10);
  auto tensors =
      TensorDataset::Create(ops::full({12, 2}, 0.5), ops::ones({12, 1}));
  ASSERT_THAT(tensors, IsOk());
  options.train_dataset = *std::move(tensors);
  const auto second = Runner::Create(config, std::move(options));
  ASSERT_THAT(second, IsOk());
  ASSERT_THAT((*second)->Train(), IsOk());
  EXPECT_THAT(log.messages(),
              AllOf(Contains(HasSubstr("waiting for its end, for up to 10m")),
                    Contains("resumed epoch: 2, iter: 6")));
}

TEST_F(FoldersTest, AnInterruptEndsTheWaiting) {
  const auto first = Create("work_dir: '/w'");
  ASSERT_THAT(first, IsOk());
  const std::atomic<int> interrupt{15};
  RunnerOptions options;
  options.wait_for_lock = absl::InfiniteDuration();
  options.interrupt = &interrupt;
  EXPECT_THAT(
      Create("work_dir: '/w'", std::move(options)),
      StatusIs(absl::StatusCode::kCancelled, HasSubstr("/w is in use")));
}

// ------------------------------------------------------- where checkpoints are

constexpr char kElsewhere[] =
    "work_dir: '/p/w' default_hooks { checkpoint { out_dir: '/p/ck' "
    "max_keep_ckpts: 2 } } ";

TEST_F(FoldersTest, CheckpointsElsewhereAreFoundWithoutTheirPointer) {
  ASSERT_THAT(Train(kElsewhere), IsOk());
  EXPECT_EQ(*io::ReadFile(*env_, "/p/w/last_checkpoint"), "../ck/w/epoch_3");
  ASSERT_THAT(env_->DeleteFile("/p/w/last_checkpoint"), IsOk());
  ASSERT_THAT(Train(absl::StrCat(kElsewhere,
                                 "resume: true train_cfg { max_epochs: 5 }")),
              IsOk());
  EXPECT_THAT(log_.messages(), Contains("resumed epoch: 3, iter: 9"));
  EXPECT_THAT(Checkpoints("/p/ck/w"), ElementsAre("epoch_4", "epoch_5"));
  EXPECT_TRUE(Checkpoints("/p/w").empty());
}

TEST_F(FoldersTest, FoldersThatMovedTogetherGoOn) {
  ASSERT_THAT(Train(kElsewhere), IsOk());
  ASSERT_THAT(env_->Rename("/p", "/q"), IsOk());
  ASSERT_THAT(
      Train("work_dir: '/q/w' resume: true train_cfg { max_epochs: 4 } "
            "default_hooks { checkpoint { out_dir: '/q/ck' max_keep_ckpts: 2 } "
            "}"),
      IsOk());
  EXPECT_THAT(log_.messages(), Contains("resumed epoch: 3, iter: 9"));
  EXPECT_THAT(log_.messages(RunLog::Level::kWarning),
              Not(Contains(HasSubstr("passed over"))));
  EXPECT_THAT(Checkpoints("/q/ck/w"), ElementsAre("epoch_3", "epoch_4"));
}

TEST_F(FoldersTest, AnInterruptedReplacementIsPutBackThere) {
  ASSERT_THAT(Train(kElsewhere), IsOk());
  ASSERT_THAT(env_->Rename("/p/ck/w/epoch_3", "/p/ck/w/.old-epoch_3-0123abcd"),
              IsOk());
  ASSERT_THAT(env_->CreateDir("/p/ck/w/.tmp-epoch_3-0123abce"), IsOk());
  ASSERT_THAT(Train(absl::StrCat(kElsewhere, "resume: true")), IsOk());
  EXPECT_THAT(log_.messages(), Contains("resumed epoch: 3, iter: 9"));
  EXPECT_THAT(Checkpoints("/p/ck/w"), ElementsAre("epoch_2", "epoch_3"));
  EXPECT_FALSE(env_->FileExists("/p/ck/w/.tmp-epoch_3-0123abce"));
}

TEST_F(FoldersTest, ThoseOfAnInterruptGoThereToo) {
  const std::atomic<int> interrupt{1};
  RunnerOptions options;
  options.interrupt = &interrupt;
  ASSERT_THAT(Train(kElsewhere, std::move(options)),
              StatusIs(absl::StatusCode::kCancelled, _));
  EXPECT_THAT(Checkpoints("/p/ck/w"), ElementsAre("iter_1"));
  EXPECT_TRUE(Checkpoints("/p/w").empty());
  ASSERT_THAT(Train(absl::StrCat(kElsewhere, "resume: true")), IsOk());
  EXPECT_THAT(log_.messages(), Contains("resumed epoch: 0, iter: 1"));
  EXPECT_THAT(Checkpoints("/p/ck/w"), ElementsAre("epoch_2", "epoch_3"));
}

// Asks for a checkpoint of its own, wherever they go.
class SavesMine : public Hook {
 public:
  absl::string_view name() const override { return "saves_mine"; }
  absl::Status AfterTrainEpoch(RunContext& run) override {
    SaveRequest request;
    request.name = "mine";
    request.update_last_checkpoint = false;
    return run.Save(std::move(request));
  }
};

TEST_F(FoldersTest, ThoseOfOtherHooksGoThereUnlessTheySayOtherwise) {
  RunnerOptions options;
  options.hooks.push_back(Schedule(std::make_unique<SavesMine>()));
  ASSERT_THAT(Train(kElsewhere, std::move(options)), IsOk());
  EXPECT_THAT(Checkpoints("/p/ck/w"),
              ElementsAre("epoch_2", "epoch_3", "mine"));
}

TEST_F(FoldersTest, ATestFindsThoseElsewhere) {
  ASSERT_THAT(Train(kElsewhere), IsOk());
  ASSERT_THAT(env_->DeleteFile("/p/w/last_checkpoint"), IsOk());
  RunnerOptions options;
  options.for_training = false;
  const auto test =
      Create(absl::StrCat(kElsewhere, "resume: true"), std::move(options));
  ASSERT_THAT(test, IsOk());
  EXPECT_THAT((*test)->Test(), IsOk());
  EXPECT_THAT(log_.messages(),
              Contains("Load checkpoint from /p/ck/w/epoch_3"));
}

TEST_F(FoldersTest, AWorkDirBehindALinkIsTheSameFolder) {
  const std::string dir = UseDisk();
  ASSERT_THAT(env_->CreateDir(dir + "/real/deep"), IsOk());
  ASSERT_EQ(symlink("real/deep", (dir + "/link").c_str()), 0);
  const std::string hook =
      " default_hooks { checkpoint { max_keep_ckpts: 2 save_last: false } } ";
  ASSERT_THAT(Train(absl::StrCat("work_dir: '", dir, "/real/deep'", hook)),
              IsOk());
  EXPECT_THAT(Checkpoints(dir + "/link"), ElementsAre("epoch_2", "epoch_3"));
  // Named by the other path, and through the other one.
  ASSERT_THAT(Train(absl::StrCat("work_dir: '", dir, "/link' load_from: '", dir,
                                 "/real/deep/epoch_3' resume: true ",
                                 "train_cfg { max_epochs: 5 }", hook)),
              IsOk());
  EXPECT_THAT(Checkpoints(dir + "/link"), ElementsAre("epoch_4", "epoch_5"));
  const auto first =
      Create(absl::StrCat("work_dir: '", dir, "/link' resume: true", hook));
  ASSERT_THAT(first, IsOk());
  EXPECT_THAT(Create(absl::StrCat("work_dir: '", dir,
                                  "/real/deep' resume: true", hook)),
              StatusIs(absl::StatusCode::kAborted, HasSubstr("is in use")));
}

TEST_F(FoldersTest, AnOutDirBehindALinkMayBeTheWorkDir) {
  const std::string dir = UseDisk();
  ASSERT_THAT(env_->CreateDir(dir + "/w"), IsOk());
  ASSERT_THAT(env_->CreateDir(dir + "/out"), IsOk());
  ASSERT_EQ(symlink("../w", (dir + "/out/w").c_str()), 0);
  EXPECT_THAT(Train(absl::StrCat("work_dir: '", dir, "/w' default_hooks { ",
                                 "checkpoint { out_dir: '", dir, "/out' } }")),
              IsOk());
  EXPECT_THAT(Checkpoints(dir + "/w"),
              ElementsAre("epoch_1", "epoch_2", "epoch_3"));
}

// -------------------------------------------------------------------- rotation

TEST_F(FoldersTest, ALimitThatIsNewAtAResumeDeletesTheOlderOnes) {
  ASSERT_THAT(Train("work_dir: '/w'"), IsOk());
  ASSERT_THAT(Train("work_dir: '/w' resume: true train_cfg { max_epochs: 4 } "
                    "default_hooks { checkpoint { max_keep_ckpts: 2 } }"),
              IsOk());
  EXPECT_THAT(Checkpoints("/w"), ElementsAre("epoch_3", "epoch_4"));
}

// As a disk that was mounted read-only for a while.
TEST_F(FoldersTest, LeftoversThatCannotBeDeletedAreNoReasonToStop) {
  ASSERT_THAT(env_->CreateDir("/w/.trash-epoch_1-0123abcd"), IsOk());
  io::FaultInjectionEnv faulty(mem_, "/");
  env_ = &faulty;
  // After the lock and what it says.
  faulty.FailOperation(2, absl::PermissionDeniedError("not yours"));
  ASSERT_THAT(Train("work_dir: '/w'"), IsOk());
  EXPECT_THAT(log_.messages(RunLog::Level::kWarning),
              Contains(AllOf(HasSubstr("/w/.trash-epoch_1-0123abcd"),
                             HasSubstr("not yours"))));
  EXPECT_TRUE(env_->FileExists("/w/.trash-epoch_1-0123abcd"));
  ASSERT_THAT(Train("work_dir: '/w' resume: true"), IsOk());
  EXPECT_FALSE(env_->FileExists("/w/.trash-epoch_1-0123abcd"));
}

// ------------------------------------------------------- what is damaged

// The tensor lies at the file's end.
void Damage(io::Env& env, const std::string& checkpoint) {
  const std::string path = absl::StrCat(checkpoint, "/model.safetensors");
  std::string bytes = *io::ReadFile(env, path);
  bytes.back() ^= 1;
  ASSERT_THAT(io::WriteFileAtomically(env, path, bytes), IsOk());
}

constexpr char kDamaged[] =
    "resume: passed over /w/epoch_3/model.safetensors: tensor \"0.weight\": "
    "bytes differ from those that were written";

TEST_F(FoldersTest, ADamagedNewestIsSetAsideAndTheOneBeforeGoesOn) {
  ASSERT_THAT(Train("work_dir: '/w'"), IsOk());
  const std::string whole = *io::ReadFile(*env_, "/w/epoch_3/manifest.pb");
  Damage(*env_, "/w/epoch_3");
  ASSERT_THAT(Train("work_dir: '/w' resume: true"), IsOk());
  EXPECT_THAT(
      log_.messages(RunLog::Level::kWarning),
      Contains(absl::StrCat(kDamaged, "; it is set aside as epoch_3.damaged")));
  EXPECT_THAT(log_.messages(), Contains("resumed epoch: 2, iter: 6"));
  EXPECT_THAT(Checkpoints("/w"),
              ElementsAre("epoch_1", "epoch_2", "epoch_3", "epoch_3.damaged"));
  EXPECT_EQ(*io::ReadFile(*env_, "/w/epoch_3.damaged/manifest.pb"), whole);

  // It is not looked at again.
  const size_t warnings = log_.messages(RunLog::Level::kWarning).size();
  ASSERT_THAT(Train("work_dir: '/w' resume: true train_cfg { max_epochs: 4 }"),
              IsOk());
  EXPECT_THAT(log_.messages(), Contains("resumed epoch: 3, iter: 9"));
  EXPECT_EQ(log_.messages(RunLog::Level::kWarning).size(), warnings);
}

// Its copy may be whole, and isn't in the new one's way.
TEST_F(FoldersTest, ACopyOfADamagedOneIsSetAsideWithIt) {
  const std::string config =
      "work_dir: '/w' default_hooks { checkpoint { also_write: 'pth' } } ";
  ASSERT_THAT(Train(config), IsOk());
  const std::string whole = *io::ReadFile(*env_, "/w/epoch_3.pth");
  Damage(*env_, "/w/epoch_3");
  ASSERT_THAT(Train(config + "resume: true"), IsOk());
  EXPECT_THAT(log_.messages(RunLog::Level::kWarning),
              Contains(absl::StrCat(kDamaged,
                                    "; it is set aside as epoch_3.damaged, its "
                                    "whole copy as epoch_3.damaged.pth")));
  EXPECT_THAT(log_.messages(), Not(Contains(HasSubstr("file of that name"))));
  EXPECT_EQ(*io::ReadFile(*env_, "/w/epoch_3.damaged.pth"), whole);
  for (const char* name : {"epoch_3", "epoch_3.damaged"}) {
    EXPECT_THAT(io::ListCopies(*env_, absl::StrCat("/w/", name)),
                ElementsAre(absl::StrCat("/w/", name, ".pth")));
  }
}

TEST_F(FoldersTest, WhoReadsLeavesADamagedOneWhereItIs) {
  ASSERT_THAT(Train("work_dir: '/w'"), IsOk());
  Damage(*env_, "/w/epoch_3");
  io::FaultInjectionEnv watched(mem_, "/");
  env_ = &watched;
  RunnerOptions options;
  options.for_training = false;
  const auto test = Create("work_dir: '/w' resume: true", std::move(options));
  ASSERT_THAT(test, IsOk());
  EXPECT_THAT((*test)->Test(), IsOk());
  EXPECT_THAT(log_.messages(RunLog::Level::kWarning), Contains(kDamaged));
  EXPECT_THAT(log_.messages(), Contains("Load checkpoint from /w/epoch_2"));
  EXPECT_THAT(Checkpoints("/w"), ElementsAre("epoch_1", "epoch_2", "epoch_3"));
  EXPECT_EQ(*io::ReadFile(*env_, "/w/last_checkpoint"), "epoch_3");
}

// Another run may be writing it.
TEST_F(FoldersTest, WithoutLocksADamagedOneStaysWhereItIs) {
  ASSERT_THAT(Train("work_dir: '/w'"), IsOk());
  Damage(*env_, "/w/epoch_3");
  class Lockless : public io::EnvWrapper {
   public:
    using EnvWrapper::EnvWrapper;
    absl::StatusOr<std::unique_ptr<io::FileLock>> LockFile(
        const std::string& path) override {
      return absl::UnimplementedError(absl::StrCat(path, ": cannot lock"));
    }
  };
  Lockless env(mem_);
  env_ = &env;
  ASSERT_THAT(Create("work_dir: '/w' resume: true"), IsOk());
  EXPECT_THAT(log_.messages(), Not(Contains(HasSubstr("set aside"))));
  EXPECT_THAT(Checkpoints("/w"), ElementsAre("epoch_1", "epoch_2", "epoch_3"));
  EXPECT_EQ(*io::ReadFile(*env_, "/w/last_checkpoint"), "epoch_3");
}

// A path that is named is the user's.
TEST_F(FoldersTest, ADamagedOneThatIsNamedIsAnErrorAndStays) {
  ASSERT_THAT(Train("work_dir: '/w'"), IsOk());
  Damage(*env_, "/w/epoch_3");
  for (const char* work_dir : {"/w", "/v"}) {
    EXPECT_THAT(
        Train(absl::StrCat("work_dir: '", work_dir,
                           "' resume: true load_from: '/w/epoch_3'")),
        StatusIs(absl::StatusCode::kDataLoss, HasSubstr("\"0.weight\"")));
  }
  EXPECT_THAT(Checkpoints("/w"), ElementsAre("epoch_1", "epoch_2", "epoch_3"));
}

TEST_F(FoldersTest, ADamagedOneInAnotherFolderStaysThere) {
  ASSERT_THAT(Train("work_dir: '/w'"), IsOk());
  Damage(*env_, "/w/epoch_3");
  ASSERT_THAT(env_->CreateDir("/v"), IsOk());
  ASSERT_THAT(
      io::WriteFileAtomically(*env_, "/v/last_checkpoint", "../w/epoch_3"),
      IsOk());
  ASSERT_THAT(Train("work_dir: '/v' resume: true"), IsOk());
  EXPECT_THAT(
      log_.messages(RunLog::Level::kWarning),
      Contains(HasSubstr("/w/epoch_3/model.safetensors: tensor \"0.w")));
  EXPECT_THAT(log_.messages(), Not(Contains(HasSubstr("set aside"))));
  EXPECT_THAT(Checkpoints("/w"), ElementsAre("epoch_1", "epoch_2", "epoch_3"));
}

// Another run's, later by its counters, is in the folder: a run that was killed
// before its first save still goes on from its own.
TEST_F(FoldersTest, TheRunIsKnownAfterItsNewestWasSetAside) {
  ASSERT_THAT(Train("work_dir: '/w' train_cfg { max_epochs: 5 }"), IsOk());
  ASSERT_THAT(Train("work_dir: '/w'"), IsOk());
  Damage(*env_, "/w/epoch_3");
  for (int i = 0; i < 2; ++i) {
    const auto runner = Create("work_dir: '/w' resume: true");
    ASSERT_THAT(runner, IsOk());
    EXPECT_EQ(*io::ReadFile(*env_, "/w/last_checkpoint"), "epoch_2");
  }
  ASSERT_THAT(Train("work_dir: '/w' resume: true"), IsOk());
  EXPECT_THAT(log_.messages(), Contains("resumed epoch: 2, iter: 6"));
}

TEST_F(FoldersTest, AllOfThemDamagedAreSetAsideForARunFromScratch) {
  ASSERT_THAT(Train("work_dir: '/w' train_cfg { max_epochs: 1 }"), IsOk());
  Damage(*env_, "/w/epoch_1");
  ASSERT_THAT(Train("work_dir: '/w' resume: true train_cfg { max_epochs: 1 }"),
              IsOk());
  EXPECT_THAT(log_.messages(RunLog::Level::kWarning),
              Contains(HasSubstr("starting from scratch")));
  EXPECT_THAT(Checkpoints("/w"), ElementsAre("epoch_1", "epoch_1.damaged"));
}

TEST_F(FoldersTest, OneThatCannotBeSetAsideIsWarnedOf) {
  ASSERT_THAT(Train("work_dir: '/w'"), IsOk());
  Damage(*env_, "/w/epoch_3");
  class NoRename : public io::EnvWrapper {
   public:
    using EnvWrapper::EnvWrapper;
    absl::Status Rename(const std::string& from,
                        const std::string& to) override {
      return absl::EndsWith(to, ".damaged")
                 ? absl::PermissionDeniedError("not yours")
                 : EnvWrapper::Rename(from, to);
    }
  };
  NoRename env(mem_);
  env_ = &env;
  ASSERT_THAT(Train("work_dir: '/w' resume: true"), IsOk());
  EXPECT_THAT(
      log_.messages(RunLog::Level::kWarning),
      Contains(absl::StrCat(kDamaged, "; it can't be set aside: not yours")));
  EXPECT_THAT(log_.messages(), Contains("resumed epoch: 2, iter: 6"));
}

// A disk that fails says nothing of what is on it.
TEST_F(FoldersTest, WhatCannotBeReadIsNotSetAside) {
  ASSERT_THAT(Train("work_dir: '/w'"), IsOk());
  class Unreadable : public io::EnvWrapper {
   public:
    using EnvWrapper::EnvWrapper;
    absl::StatusOr<std::unique_ptr<io::RandomAccessFile>> NewRandomAccessFile(
        const std::string& path) override {
      if (path == "/w/epoch_3/model.safetensors" && left-- <= 0) {
        return absl::UnavailableError("i/o error");
      }
      return EnvWrapper::NewRandomAccessFile(path);
    }
    int left = 0;
  };
  // When it is looked for, and when it is read.
  for (const int left : {0, 1}) {
    Unreadable env(mem_);
    env.left = left;
    env_ = &env;
    const auto runner = Create("work_dir: '/w' resume: true");
    EXPECT_EQ(runner.ok(), left == 0) << runner.status();
    EXPECT_THAT(Checkpoints("/w"),
                ElementsAre("epoch_1", "epoch_2", "epoch_3"));
  }
}

}  // namespace
}  // namespace grapnel
