#include "grapnel/hooks/checkpoint/checkpoint_hook.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <ostream>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "google/protobuf/message.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/dist/fake_process_group.h"
#include "grapnel/dist/process_group.h"
#include "grapnel/hooks/checkpoint/best_checkpoints.h"
#include "grapnel/hooks/checkpoint/checkpoint_hook.pb.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/env.h"
#include "grapnel/io/env_wrapper.h"
#include "grapnel/io/fault_injection_env.h"
#include "grapnel/io/mem_env.h"
#include "grapnel/io/pth.h"
#include "grapnel/io/run_checkpoints.h"
#include "grapnel/io/safetensors.h"
#include "grapnel/loggers/run_log.h"
#include "grapnel/models/log_vars.h"
#include "grapnel/models/metric_value.h"
#include "grapnel/runner/fake_run_context.h"
#include "grapnel/runner/run_state.pb.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::TestWithParam;
using ::testing::ValuesIn;

std::unique_ptr<CheckpointHook> NewHook(const std::string& text) {
  CheckpointHook::Config config;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &config));
  auto hook = CheckpointHook::Create(config);
  EXPECT_THAT(hook, IsOk());
  return *std::move(hook);
}

constexpr char kUuid[] = "0123456789abcdef";

io::CheckpointContents Contents(const FakeRunContext& run,
                                const std::string& uuid) {
  io::CheckpointContents contents;
  TensorMap model;
  EXPECT_THAT(model.Add("w", ops::full({2}, static_cast<double>(run.iters))),
              IsOk());
  contents.sections.emplace_back("model", std::move(model));
  runner::v1::RunState state;
  state.set_seed(5);
  contents.blobs.emplace_back("state", state.SerializeAsString());
  contents.manifest().set_run_uuid(uuid);
  contents.manifest().set_config("config");
  return contents;
}

// A small checkpoint under /work_dir.
void Write(FakeRunContext& run, const std::string& name,
           const std::string& uuid = "") {
  ASSERT_THAT(
      io::WriteCheckpoint(*run.mem_env, run.work, name, Contents(run, uuid)),
      IsOk());
}

// What the runner says once it has written what was asked for.
SavedCheckpoint SavedAs(const FakeRunContext::Asked& request) {
  SavedCheckpoint saved;
  saved.id = request.id;
  saved.name = request.name;
  saved.path = io::JoinPath(request.dir, request.name);
  saved.is_last = request.update_last_checkpoint;
  return saved;
}

// Does what a runner does with the requests: writes them, and says so.
void WriteSaves(CheckpointHook& hook, FakeRunContext& run,
                std::vector<std::string>* written,
                const Metrics& metrics = {}) {
  for (const FakeRunContext::Asked& request : run.saves) {
    io::CheckpointContents contents = Contents(run, kUuid);
    for (const auto& [name, value] : metrics) {
      if (const double* number = std::get_if<double>(&value)) {
        (*contents.manifest().mutable_metrics())[name] = *number;
      }
    }
    ASSERT_THAT(hook.BeforeSaveCheckpoint(run, contents), IsOk());
    ASSERT_THAT(
        io::WriteCheckpoint(*run.mem_env, request.dir, request.name, contents),
        IsOk());
    written->push_back(request.name);
    ASSERT_THAT(hook.AfterSaveCheckpoint(run, SavedAs(request)), IsOk());
  }
  run.saves.clear();
}

// The checkpoints in `dir`, sorted.
std::vector<std::string> Checkpoints(const FakeRunContext& run,
                                     const std::string& dir = "/work_dir") {
  std::vector<std::string> names;
  const auto all = run.mem_env->ListDir(dir);
  EXPECT_THAT(all, IsOk());
  for (const std::string& name : *all) {
    if (run.mem_env->FileExists(absl::StrCat(dir, "/", name, "/manifest.pb"))) {
      names.push_back(name);
    }
  }
  return names;
}

std::string Logged(const FakeRunContext& run, RunLog::Level level) {
  return absl::StrJoin(run.run_log.messages(level), "\n");
}

struct RunCase {
  std::string name;
  std::string config;
  int64_t epochs;
  int64_t iters_per_epoch;
  std::vector<std::string> written;
  std::vector<std::string> left;  // Sorted, as in the folder.
};

void PrintTo(const RunCase& c, std::ostream* os) { *os << c.config; }

class CheckpointRunTest : public TestWithParam<RunCase> {};

// As MMEngine's, but that an old one goes after the new one is written
// (docs/from_mmengine.md, c2).
INSTANTIATE_TEST_SUITE_P(
    , CheckpointRunTest,
    ValuesIn(std::vector<RunCase>{
        {"EveryEpoch",
         "interval: 1",
         3,
         4,
         {"epoch_1", "epoch_2", "epoch_3"},
         {"epoch_1", "epoch_2", "epoch_3"}},
        {"EverySecondAndTheLast",
         "interval: 2",
         5,
         4,
         {"epoch_2", "epoch_4", "epoch_5"},
         {"epoch_2", "epoch_4", "epoch_5"}},
        {"WithoutTheLast",
         "interval: 2 save_last: false",
         5,
         4,
         {"epoch_2", "epoch_4"},
         {"epoch_2", "epoch_4"}},
        {"OnlyTheLastByDefault", "", 4, 4, {"epoch_4"}, {"epoch_4"}},
        {"Never", "save_last: false", 4, 4, {}, {}},
        {"IntervalZeroIsNever", "interval: 0", 3, 4, {"epoch_3"}, {"epoch_3"}},
        {"BeginIsTheFirst",
         "interval: 2 save_begin: 5",
         11,
         1,
         {"epoch_5", "epoch_7", "epoch_9", "epoch_11"},
         {"epoch_11", "epoch_5", "epoch_7", "epoch_9"}},
        {"LastIgnoresBegin",
         "interval: 1 save_begin: 10",
         4,
         1,
         {"epoch_4"},
         {"epoch_4"}},
        {"KeepOne",
         "interval: 1 max_keep_ckpts: 1",
         3,
         4,
         {"epoch_1", "epoch_2", "epoch_3"},
         {"epoch_3"}},
        {"KeepThreeOfFive",
         "interval: 1 max_keep_ckpts: 3",
         5,
         4,
         {"epoch_1", "epoch_2", "epoch_3", "epoch_4", "epoch_5"},
         {"epoch_3", "epoch_4", "epoch_5"}},
        {"LastTakesASlot",
         "interval: 2 max_keep_ckpts: 2",
         7,
         4,
         {"epoch_2", "epoch_4", "epoch_6", "epoch_7"},
         {"epoch_6", "epoch_7"}},
        {"KeepZeroIsUnlimited",
         "interval: 1 max_keep_ckpts: 0",
         2,
         4,
         {"epoch_1", "epoch_2"},
         {"epoch_1", "epoch_2"}},
        {"ByIteration",
         "by_epoch: false interval: 3",
         2,
         5,
         {"iter_3", "iter_6", "iter_9", "iter_10"},
         {"iter_10", "iter_3", "iter_6", "iter_9"}},
        {"ByIterationKeepTwo",
         "by_epoch: false interval: 2 max_keep_ckpts: 2",
         2,
         5,
         {"iter_2", "iter_4", "iter_6", "iter_8", "iter_10"},
         {"iter_10", "iter_8"}},
        {"ByIterationFromBegin",
         "by_epoch: false interval: 3 save_begin: 4",
         3,
         4,
         {"iter_4", "iter_7", "iter_10", "iter_12"},
         {"iter_10", "iter_12", "iter_4", "iter_7"}},
    }),
    [](const auto& info) { return info.param.name; });

TEST_P(CheckpointRunTest, WritesAndKeeps) {
  const RunCase& c = GetParam();
  const auto hook = NewHook(c.config);
  FakeRunContext run;
  run.total_epochs = c.epochs;
  run.total_iters = c.epochs * c.iters_per_epoch;
  std::vector<std::string> written;
  ASSERT_THAT(hook->BeforeTrain(run), IsOk());
  for (run.epochs = 0; run.epochs < c.epochs; ++run.epochs) {
    for (int64_t i = 0; i < c.iters_per_epoch; ++i) {
      ASSERT_THAT(hook->AfterTrainIter(run, IterInfo(), LogVars()), IsOk());
      WriteSaves(*hook, run, &written);
      ++run.iters;
    }
    ASSERT_THAT(hook->AfterTrainEpoch(run), IsOk());
    WriteSaves(*hook, run, &written);
  }
  ASSERT_THAT(hook->AfterTrain(run), IsOk());
  WriteSaves(*hook, run, &written);
  EXPECT_EQ(written, c.written);
  EXPECT_EQ(Checkpoints(run), c.left);
}

TEST(CheckpointHookTest, StopIsSavedThoughTheEndIsFar) {
  const auto hook = NewHook("interval: 4");
  FakeRunContext run;
  run.total_epochs = 10;
  run.epochs = 3;
  run.stopped = "test";
  ASSERT_THAT(hook->AfterTrain(run), IsOk());
  ASSERT_EQ(run.saves.size(), 1u);
  EXPECT_EQ(run.saves[0].name, "epoch_3");
}

TEST(CheckpointHookTest, StopAtASavedEpochIsNotSavedAgain) {
  const auto hook = NewHook("interval: 1");
  FakeRunContext run;
  run.total_epochs = 10;
  run.epochs = 2;
  ASSERT_THAT(hook->AfterTrainEpoch(run), IsOk());
  run.epochs = 3;
  run.stopped = "test";
  ASSERT_THAT(hook->AfterTrain(run), IsOk());
  EXPECT_EQ(run.saves.size(), 1u);
}

TEST(CheckpointHookTest, CheckpointOfAnInterruptCountsWhenTheRunGoesOn) {
  FakeRunContext run;
  Write(run, "epoch_1");
  Write(run, "iter_7");
  const auto hook = NewHook("interval: 1 max_keep_ckpts: 1");
  hooks::v1::CheckpointHookState state;
  state.add_kept("epoch_1");
  ASSERT_TRUE(
      hook->mutable_state()->ParseFromString(state.SerializeAsString()));
  run.resumed = "/work_dir/iter_7";
  ASSERT_THAT(hook->AfterRestore(run, Contents(run, "")), IsOk());
  ASSERT_THAT(hook->BeforeTrain(run), IsOk());
  EXPECT_FALSE(run.mem_env->FileExists("/work_dir/epoch_1"));
  EXPECT_TRUE(run.mem_env->FileExists("/work_dir/iter_7"));
}

TEST(CheckpointHookTest, SmallerLimitOnResumeDeletesTheOldest) {
  FakeRunContext run;
  hooks::v1::CheckpointHookState state;
  for (const char* name : {"epoch_2", "epoch_3", "epoch_4"}) {
    Write(run, name);
    state.add_kept(name);
  }
  const auto hook = NewHook("interval: 1 max_keep_ckpts: 2");
  ASSERT_TRUE(
      hook->mutable_state()->ParseFromString(state.SerializeAsString()));
  ASSERT_THAT(hook->BeforeTrain(run), IsOk());
  EXPECT_FALSE(run.mem_env->FileExists("/work_dir/epoch_2"));
  EXPECT_TRUE(run.mem_env->FileExists("/work_dir/epoch_3"));
}

TEST(CheckpointHookTest, CheckpointsOfOthersAreLeftAlone) {
  FakeRunContext run;
  Write(run, "epoch_99");
  const auto hook = NewHook("interval: 1 max_keep_ckpts: 1");
  run.total_epochs = 2;
  std::vector<std::string> written;
  ASSERT_THAT(hook->BeforeTrain(run), IsOk());
  ASSERT_THAT(hook->AfterTrainEpoch(run), IsOk());
  WriteSaves(*hook, run, &written);
  EXPECT_TRUE(run.mem_env->FileExists("/work_dir/epoch_99"));
}

TEST(CheckpointHookTest, NameTakenOverByAnotherRunIsLeftAlone) {
  FakeRunContext run;
  run.total_epochs = 3;
  const auto hook = NewHook("interval: 1 max_keep_ckpts: 1");
  std::vector<std::string> written;
  ASSERT_THAT(hook->BeforeTrain(run), IsOk());
  ASSERT_THAT(hook->AfterTrainEpoch(run), IsOk());
  WriteSaves(*hook, run, &written);
  Write(run, "epoch_1", "another");
  run.epochs = 1;
  ASSERT_THAT(hook->AfterTrainEpoch(run), IsOk());
  WriteSaves(*hook, run, &written);
  EXPECT_THAT(Checkpoints(run), ElementsAre("epoch_1", "epoch_2"));
  EXPECT_THAT(Logged(run, RunLog::Level::kWarning),
              HasSubstr("/work_dir/epoch_1 isn't deleted: another run"));
}

TEST(CheckpointHookTest, StopRightAfterAResumeIsNotSavedAgain) {
  FakeRunContext run;
  Write(run, "epoch_3");
  const auto hook = NewHook("interval: 4");
  hooks::v1::CheckpointHookState state;
  state.set_last("epoch_3");
  ASSERT_TRUE(
      hook->mutable_state()->ParseFromString(state.SerializeAsString()));
  run.resumed = "/work_dir/epoch_3/";
  run.total_epochs = 10;
  run.epochs = 3;
  ASSERT_THAT(hook->AfterRestore(run, Contents(run, "")), IsOk());
  ASSERT_THAT(hook->BeforeTrain(run), IsOk());
  run.stopped = "test";
  ASSERT_THAT(hook->AfterTrain(run), IsOk());
  EXPECT_TRUE(run.saves.empty());
}

TEST(CheckpointHookTest, OneOfAnInterruptIsFoundThoughTheOthersAreElsewhere) {
  FakeRunContext run;
  Write(run, "iter_7");
  const auto hook = NewHook("interval: 1 max_keep_ckpts: 1 out_dir: '/out'");
  run.checkpoints = "/out/work_dir";
  run.resumed = "/work_dir/iter_7";
  run.total_epochs = 5;
  ASSERT_THAT(hook->AfterRestore(run, Contents(run, "")), IsOk());
  ASSERT_THAT(hook->BeforeTrain(run), IsOk());
  EXPECT_THAT(Checkpoints(run), ElementsAre("iter_7"));
  ASSERT_THAT(hook->AfterTrainEpoch(run), IsOk());
  ASSERT_EQ(run.saves.size(), 1u);
  EXPECT_EQ(run.saves[0].dir, "/out/work_dir");
  io::CheckpointContents contents = Contents(run, "");
  ASSERT_THAT(hook->BeforeSaveCheckpoint(run, contents), IsOk());
  ASSERT_THAT(
      io::WriteCheckpoint(*run.mem_env, "/out/work_dir", "epoch_1", contents),
      IsOk());
  SavedCheckpoint saved;
  saved.name = "epoch_1";
  saved.path = "/out/work_dir/epoch_1";
  saved.is_last = true;
  ASSERT_THAT(hook->AfterSaveCheckpoint(run, saved), IsOk());
  EXPECT_THAT(Checkpoints(run), IsEmpty());
}

TEST(CheckpointHookTest, WithoutALimitNothingIsRemembered) {
  FakeRunContext run;
  run.total_epochs = 100;
  const auto hook = NewHook("interval: 1");
  std::vector<std::string> written;
  ASSERT_THAT(hook->BeforeTrain(run), IsOk());
  for (; run.epochs < 50; ++run.epochs) {
    ASSERT_THAT(hook->AfterTrainEpoch(run), IsOk());
    WriteSaves(*hook, run, &written);
  }
  EXPECT_LT(hook->mutable_state()->ByteSizeLong(), 20u);
}

TEST(CheckpointHookTest, EpochsOfARunByIterationAreWarnedOf) {
  for (const bool by_epoch : {true, false}) {
    FakeRunContext run;
    run.counts_epochs = by_epoch;
    const auto hook = NewHook("interval: 1");
    ASSERT_THAT(hook->BeforeTrain(run), IsOk());
    EXPECT_EQ(absl::StrContains(Logged(run, RunLog::Level::kWarning),
                                "by_epoch: is true"),
              !by_epoch);
  }
}

TEST(CheckpointHookTest, ChoosesWhatIsInACheckpoint) {
  const auto hook = NewHook(
      "interval: 1 save_optimizer: false save_best: 'acc' "
      "save_best_optimizer: false");
  FakeRunContext run;
  run.total_epochs = 2;
  ASSERT_THAT(hook->BeforeTrain(run), IsOk());
  ASSERT_THAT(hook->AfterTrainEpoch(run), IsOk());
  ASSERT_THAT(hook->AfterValEpoch(run, {{"acc", 0.5}}), IsOk());
  ASSERT_EQ(run.saves.size(), 2u);
  EXPECT_FALSE(run.saves[0].optimizer);
  EXPECT_TRUE(run.saves[0].param_schedulers);
  EXPECT_TRUE(run.saves[0].update_last_checkpoint);
  EXPECT_FALSE(run.saves[1].optimizer);
  EXPECT_FALSE(run.saves[1].param_schedulers);
  EXPECT_FALSE(run.saves[1].update_last_checkpoint);
}

TEST(CheckpointHookTest, SavesWhereTheRunsCheckpointsAre) {
  const auto hook = NewHook("interval: 1 save_best: 'acc' out_dir: '/out/'");
  FakeRunContext run;
  run.work = "/runs/exp/.";
  run.checkpoints = "/out/exp";
  run.total_epochs = 5;
  for (int i = 0; i < 2; ++i) {  // Training goes on with a second call.
    ASSERT_THAT(hook->BeforeTrain(run), IsOk());
    ASSERT_THAT(hook->AfterTrainEpoch(run), IsOk());
    ASSERT_THAT(hook->AfterValEpoch(run, {{"acc", 0.5 + i}}), IsOk());
    ASSERT_EQ(run.saves.size(), 2u);
    EXPECT_EQ(run.saves[0].dir, "/out/exp");
    EXPECT_EQ(run.saves[1].dir, "/out/exp");
    run.saves.clear();
    ++run.epochs;
  }
}

TEST(CheckpointHookTest, AFolderThatTheRunDoesNotKnowIsRefused) {
  FakeRunContext run;
  EXPECT_THAT(NewHook("out_dir: '/out'")->BeforeTrain(run),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("out_dir: must be set in the config")));
  EXPECT_THAT(NewHook("out_dir: '/'")->BeforeTrain(run), IsOk());
}

// Epochs 1 to 5 of this run, one of another, a copy to pass on and one of a
// hook of the user's; all but the last two are called as periodic ones are.
void WriteFive(FakeRunContext& run) {
  for (int epoch = 1; epoch <= 5; ++epoch) {
    io::CheckpointContents contents = Contents(run, epoch == 2 ? "other" : "");
    contents.manifest().mutable_progress()->set_epoch(epoch);
    contents.manifest().mutable_progress()->set_iter(10 * epoch);
    for (const char* name : {"epoch_", "mine_"}) {
      ASSERT_THAT(io::WriteCheckpoint(*run.mem_env, run.checkpoint_dir(),
                                      absl::StrCat(name, epoch), contents),
                  IsOk());
    }
    contents.manifest().set_partial(true);
    ASSERT_THAT(io::WriteCheckpoint(*run.mem_env, run.checkpoint_dir(),
                                    absl::StrCat("epoch_", epoch, "-0123abcd"),
                                    contents),
                IsOk());
  }
}

std::vector<std::string> Periodic(const FakeRunContext& run) {
  std::vector<std::string> names;
  for (const std::string& name : Checkpoints(run, run.checkpoint_dir())) {
    if (absl::StartsWith(name, "epoch_") && name.size() == 7) {
      names.push_back(name);
    }
  }
  return names;
}

TEST(CheckpointHookTest, ALimitThatIsNewAtAResumeCountsWhatIsThere) {
  FakeRunContext run;
  for (const char* checkpoints : {"", "/out/work_dir"}) {
    run.checkpoints = checkpoints;
    WriteFive(run);
    run.resumed = io::JoinPath(run.checkpoint_dir(), "epoch_5");
    const auto hook =
        NewHook(absl::StrCat("interval: 1 max_keep_ckpts: 2 ",
                             run.checkpoints.empty() ? "" : "out_dir: '/out'"));
    ASSERT_THAT(hook->AfterRestore(run, Contents(run, "")), IsOk());
    ASSERT_THAT(hook->BeforeTrain(run), IsOk());
    // epoch_2 is another run's.
    EXPECT_THAT(Periodic(run), ElementsAre("epoch_2", "epoch_4", "epoch_5"));
    EXPECT_EQ(Checkpoints(run, run.checkpoint_dir()).size(), 3u + 5u + 5u);
  }
}

TEST(CheckpointHookTest, WhatARunGaveUpWhenItWentBackDoesNotCount) {
  FakeRunContext run;
  WriteFive(run);
  run.resumed = "/work_dir/epoch_3";
  const auto hook = NewHook("interval: 1 max_keep_ckpts: 2");
  ASSERT_THAT(hook->AfterRestore(run, Contents(run, "")), IsOk());
  ASSERT_THAT(hook->BeforeTrain(run), IsOk());
  EXPECT_THAT(Periodic(run), ElementsAre("epoch_1", "epoch_2", "epoch_3",
                                         "epoch_4", "epoch_5"));
  const auto stricter = NewHook("interval: 1 max_keep_ckpts: 1");
  ASSERT_THAT(stricter->AfterRestore(run, Contents(run, "")), IsOk());
  ASSERT_THAT(stricter->BeforeTrain(run), IsOk());
  EXPECT_THAT(Periodic(run),
              ElementsAre("epoch_2", "epoch_3", "epoch_4", "epoch_5"));
}

TEST(CheckpointHookTest, ARunThatBeginsLeavesWhatIsThere) {
  FakeRunContext run;
  WriteFive(run);
  const auto hook = NewHook("interval: 1 max_keep_ckpts: 1");
  ASSERT_THAT(hook->BeforeTrain(run), IsOk());
  EXPECT_EQ(Periodic(run).size(), 5u);
}

// ------------------------------------------------------------- what is kept

// A run whose every epoch has 10 iterations and takes 10 minutes.
class RetentionTest : public testing::Test {
 protected:
  void Start(const std::string& config) {
    hook_ = NewHook(config);
    run_.total_epochs = 100;
    ASSERT_THAT(hook_->BeforeTrain(run_), IsOk());
  }

  void Resume(const std::string& config, const std::string& name) {
    const std::string state = hook_->mutable_state()->SerializeAsString();
    hook_ = NewHook(config);
    ASSERT_TRUE(hook_->mutable_state()->ParseFromString(state));
    run_.resumed = absl::StrCat("/work_dir/", name);
    ASSERT_THAT(hook_->AfterRestore(run_, Contents(run_, kUuid)), IsOk());
    ASSERT_THAT(hook_->BeforeTrain(run_), IsOk());
  }

  void Epochs(int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      run_.iters += 10;
      ASSERT_THAT(hook_->AfterTrainEpoch(run_), IsOk());
      WriteAsked();
      ++run_.epochs;
    }
  }

  // What the runner saves when it is interrupted inside an epoch.
  void Interrupt() {
    SaveRequest request;
    request.name = absl::StrCat("iter_", ++run_.iters);
    run_.saves.push_back({request, ++run_.num_saves});
    run_.iters_in_epoch = 1;
    --run_.epochs;  // Of what WriteAsked counts as done.
    WriteAsked();
    ++run_.epochs;
    run_.iters_in_epoch = 0;
  }

  void WriteAsked() {
    for (const FakeRunContext::Asked& request : run_.saves) {
      io::CheckpointContents contents = Contents(run_, kUuid);
      auto& progress = *contents.manifest().mutable_progress();
      progress.set_epoch(run_.epochs + 1);
      progress.set_iter(run_.iters);
      progress.set_iter_in_epoch(run_.iters_in_epoch);
      contents.manifest().set_created_unix_nanos(
          absl::ToUnixNanos(run_.fake_clock.wall += absl::Minutes(10)));
      ASSERT_THAT(hook_->BeforeSaveCheckpoint(run_, contents), IsOk());
      ASSERT_THAT(
          io::WriteCheckpoint(*run_.mem_env, run_.work, request.name, contents),
          IsOk());
      SavedCheckpoint saved = SavedAs(request);
      saved.path = io::JoinPath(run_.work, request.name);
      ASSERT_THAT(hook_->AfterSaveCheckpoint(run_, saved), IsOk());
    }
    run_.saves.clear();
  }

  FakeRunContext run_;
  std::unique_ptr<CheckpointHook> hook_;
};

TEST_F(RetentionTest, EveryNthStaysBesideTheNewest) {
  Start("interval: 1 max_keep_ckpts: 2 keep_every: 3");
  Epochs(8);
  EXPECT_THAT(Checkpoints(run_),
              ElementsAre("epoch_3", "epoch_6", "epoch_7", "epoch_8"));
  // Also those of before a resume.
  Resume("interval: 1 max_keep_ckpts: 1 keep_every: 6", "epoch_8");
  EXPECT_THAT(Checkpoints(run_), ElementsAre("epoch_6", "epoch_8"));
}

TEST_F(RetentionTest, OneInsideAnEpochIsNotOfItsNumber) {
  Start("interval: 1 max_keep_ckpts: 1 keep_every: 3");
  Epochs(3);
  Interrupt();
  EXPECT_THAT(Checkpoints(run_), ElementsAre("epoch_3", "iter_31"));
  Epochs(1);
  EXPECT_THAT(Checkpoints(run_), ElementsAre("epoch_3", "epoch_4"));
}

TEST_F(RetentionTest, OnePerTimeStaysBesideTheNewest) {
  Start("interval: 1 max_keep_ckpts: 1 keep_minutes: 30");
  Epochs(8);
  EXPECT_THAT(Checkpoints(run_),
              ElementsAre("epoch_1", "epoch_4", "epoch_7", "epoch_8"));
  Resume("interval: 1 max_keep_ckpts: 1 keep_minutes: 30", "epoch_8");
  Epochs(2);
  EXPECT_THAT(Checkpoints(run_),
              ElementsAre("epoch_1", "epoch_10", "epoch_4", "epoch_7"));
}

TEST_F(RetentionTest, PinnedOnesStayUntilTheyAreNot) {
  Start("interval: 1 max_keep_ckpts: 1");
  Epochs(1);
  ASSERT_THAT(io::PinCheckpoint(*run_.mem_env, "/work_dir/epoch_1", true),
              IsOk());
  Epochs(2);
  EXPECT_THAT(Checkpoints(run_), ElementsAre("epoch_1", "epoch_3"));
  EXPECT_EQ(Logged(run_, RunLog::Level::kWarning), "");
  Resume("interval: 1 max_keep_ckpts: 1", "epoch_3");
  EXPECT_THAT(Checkpoints(run_), ElementsAre("epoch_1", "epoch_3"));
  ASSERT_THAT(io::PinCheckpoint(*run_.mem_env, "/work_dir/epoch_1", false),
              IsOk());
  Epochs(1);
  EXPECT_THAT(Checkpoints(run_), ElementsAre("epoch_4"));
}

// Pins a checkpoint at the last moment before it is renamed, once.
class PinningEnv : public io::EnvWrapper {
 public:
  PinningEnv(std::unique_ptr<io::Env> target, std::string path)
      : EnvWrapper(*target),
        owned_(std::move(target)),
        path_(std::move(path)) {}

  absl::Status Rename(const std::string& from, const std::string& to) override {
    if (from == path_ && !std::exchange(pinned_, true)) {
      EXPECT_THAT(io::PinCheckpoint(target(), from, true), IsOk());
    }
    return EnvWrapper::Rename(from, to);
  }

 private:
  const std::unique_ptr<io::Env> owned_;
  const std::string path_;
  bool pinned_ = false;
};

TEST_F(RetentionTest, OneThatIsPinnedWhileItIsDeletedStaysUntilItIsNot) {
  run_.mem_env = std::make_unique<PinningEnv>(std::move(run_.mem_env),
                                              "/work_dir/epoch_1");
  Start("interval: 1 max_keep_ckpts: 1");
  Epochs(3);
  EXPECT_THAT(Checkpoints(run_), ElementsAre("epoch_1", "epoch_3"));
  EXPECT_EQ(Logged(run_, RunLog::Level::kWarning), "");
  ASSERT_THAT(io::PinCheckpoint(*run_.mem_env, "/work_dir/epoch_1", false),
              IsOk());
  Epochs(1);
  EXPECT_THAT(Checkpoints(run_), ElementsAre("epoch_4"));
}

TEST_F(RetentionTest, OneThatWasDeletedByHandIsForgotten) {
  Start("interval: 1 max_keep_ckpts: 2");
  Epochs(2);
  ASSERT_THAT(io::DeleteCheckpoint(*run_.mem_env, "/work_dir/epoch_2"), IsOk());
  Epochs(1);
  // There are no more than two.
  EXPECT_THAT(Checkpoints(run_), ElementsAre("epoch_1", "epoch_3"));
  Epochs(1);
  EXPECT_THAT(Checkpoints(run_), ElementsAre("epoch_3", "epoch_4"));
}

// ------------------------------------------------------------ saves by time

// One training iteration, after which so many minutes are over.
void Iterate(CheckpointHook& hook, FakeRunContext& run, double minutes,
             std::vector<std::string>* written, int64_t per_epoch = 10) {
  run.fake_clock.Advance(absl::Minutes(minutes));
  IterInfo info;
  info.batch_idx = run.iters % per_epoch;
  info.num_batches = per_epoch;
  ASSERT_THAT(hook.AfterTrainIter(run, info, LogVars()), IsOk());
  WriteSaves(hook, run, written);
  ++run.iters;
  if (run.iters % per_epoch != 0) return;
  ASSERT_THAT(hook.AfterTrainEpoch(run), IsOk());
  WriteSaves(hook, run, written);
  ++run.epochs;
}

TEST(CheckpointTimeTest, SavesWhenTheMinutesSinceTheLastOneAreOver) {
  const auto hook = NewHook("interval: 2 interval_minutes: 5 save_last: false");
  FakeRunContext run;
  run.total_epochs = 100;
  std::vector<std::string> written;
  ASSERT_THAT(hook->BeforeTrain(run), IsOk());
  for (int i = 0; i < 34; ++i) Iterate(*hook, run, 1, &written);
  // Iteration 10 is an epoch's end, and 20 would be saved without the time.
  EXPECT_THAT(written, ElementsAre("iter_5", "epoch_1", "iter_15", "epoch_2",
                                   "iter_25", "epoch_3"));
}

TEST(CheckpointTimeTest, CountsAnewFromEverySaveThatARunGoesOnFrom) {
  const auto hook = NewHook(
      "by_epoch: false interval: 4 interval_minutes: 5 save_last: false "
      "filename_tmpl: 'at_{}'");
  FakeRunContext run;
  run.total_iters = 1000;
  std::vector<std::string> written;
  ASSERT_THAT(hook->BeforeTrain(run), IsOk());
  for (int i = 0; i < 8; ++i) Iterate(*hook, run, 1, &written);
  EXPECT_THAT(written, ElementsAre("at_4", "at_8"));
  Iterate(*hook, run, 7, &written);
  EXPECT_THAT(written, ElementsAre("at_4", "at_8", "at_9"));
  // What another call does in between is not training: a new one counts anew.
  run.fake_clock.Advance(absl::Hours(1));
  ASSERT_THAT(hook->BeforeTrain(run), IsOk());
  Iterate(*hook, run, 1, &written);
  EXPECT_EQ(written.size(), 3u);
}

// What was due at an epoch's end that a call before did not come to.
TEST(CheckpointTimeTest, NothingIsDueFromACallBefore) {
  const auto hook = NewHook("interval: 5 interval_minutes: 5 save_last: false");
  FakeRunContext run;
  run.total_epochs = 100;
  ASSERT_THAT(hook->BeforeTrain(run), IsOk());
  run.fake_clock.Advance(absl::Minutes(6));
  IterInfo info;
  info.batch_idx = 9;
  info.num_batches = 10;
  ASSERT_THAT(hook->AfterTrainIter(run, info, LogVars()), IsOk());
  ASSERT_THAT(hook->BeforeTrain(run), IsOk());
  ASSERT_THAT(hook->AfterTrainEpoch(run), IsOk());
  EXPECT_TRUE(run.saves.empty());
}

TEST(CheckpointTimeTest, TheyCountAmongThoseToKeep) {
  const auto hook =
      NewHook("interval: 1 interval_minutes: 3 max_keep_ckpts: 2");
  FakeRunContext run;
  run.total_epochs = 100;
  std::vector<std::string> written;
  ASSERT_THAT(hook->BeforeTrain(run), IsOk());
  for (int i = 0; i < 16; ++i) Iterate(*hook, run, 1, &written);
  EXPECT_THAT(written, ElementsAre("iter_3", "iter_6", "iter_9", "epoch_1",
                                   "iter_13", "iter_16"));
  EXPECT_THAT(Checkpoints(run), ElementsAre("iter_13", "iter_16"));
}

TEST(CheckpointTimeTest, RanksSaveAtTheSameIterationByTheFirstOnesClock) {
  constexpr int kRanks = 3;
  std::vector<std::vector<std::string>> written(kRanks);
  std::vector<size_t> exchanges(kRanks);
  const std::vector<absl::Status> statuses =
      RunRanks(kRanks, [&](ProcessGroup& group) -> absl::Status {
        class Counted : public ProcessGroup {
         public:
          explicit Counted(ProcessGroup& group) : group_(group) {}
          int rank() const override { return group_.rank(); }
          int world_size() const override { return group_.world_size(); }
          int local_rank() const override { return group_.local_rank(); }
          std::string description() const override {
            return group_.description();
          }
          absl::Status AllReduce(const at::Tensor& tensor,
                                 ReduceOp op) override {
            return group_.AllReduce(tensor, op);
          }
          absl::Status Broadcast(const at::Tensor& tensor, int root) override {
            return group_.Broadcast(tensor, root);
          }
          absl::StatusOr<std::vector<std::string>> AllGather(
              absl::string_view bytes) override {
            ++count;
            return group_.AllGather(bytes);
          }
          absl::Status Barrier() override { return group_.Barrier(); }
          void ReportFailure(const absl::Status& failure) override {
            group_.ReportFailure(failure);
          }
          absl::Status FirstFailure() override { return group_.FirstFailure(); }
          size_t count = 0;

         private:
          ProcessGroup& group_;
        };
        Counted counted(group);
        const auto hook = NewHook("interval_minutes: 10 save_last: false");
        FakeRunContext run;
        run.group = &counted;
        run.total_epochs = 100;
        EXPECT_THAT(hook->BeforeTrain(run), IsOk());
        // A tenth of a second each; the others' clocks are much slower.
        const double minutes = group.rank() == 0 ? 0.1 / 60 : 1e-6;
        for (int i = 0; i < 15'000; ++i) {
          Iterate(*hook, run, minutes, &written[group.rank()], 1'000'000);
        }
        exchanges[group.rank()] = counted.count;
        return absl::OkStatus();
      });
  EXPECT_THAT(statuses, testing::Each(IsOk()));
  // 600 s, and what the fake clock adds for each look at it; twice.
  ASSERT_EQ(written[0].size(), 2u);
  int64_t at = 0;
  ASSERT_TRUE(absl::SimpleAtoi(absl::StripPrefix(written[0][0], "iter_"), &at));
  EXPECT_GT(at, 5800);
  EXPECT_LT(at, 6100);
  for (int rank = 1; rank < kRanks; ++rank) {
    EXPECT_EQ(written[rank], written[0]);
    EXPECT_EQ(exchanges[rank], exchanges[0]);
  }
  EXPECT_LT(exchanges[0], 100u);
}

// A folder in which some operation fails.
class UndeletableTest : public testing::Test {
 protected:
  UndeletableTest() {
    auto env = std::make_unique<io::FaultInjectionEnv>(mem_, "/");
    env_ = env.get();
    run_.mem_env = std::move(env);
    EXPECT_THAT(run_.mem_env->CreateDir(run_.logs), IsOk());
    run_.total_epochs = 100;
  }

  // The checkpoint hook's part after the save of the next epoch, in which the
  // operation number `fail` fails; < 0: none.
  void Epoch(int64_t fail = -1) {
    ASSERT_THAT(hook_->AfterTrainEpoch(run_), IsOk());
    ASSERT_EQ(run_.saves.size(), 1u);
    const FakeRunContext::Asked request = run_.saves[0];
    run_.saves.clear();
    io::CheckpointContents contents = Contents(run_, kUuid);
    ASSERT_THAT(hook_->BeforeSaveCheckpoint(run_, contents), IsOk());
    ASSERT_THAT(
        io::WriteCheckpoint(*run_.mem_env, request.dir, request.name, contents),
        IsOk());
    const SavedCheckpoint saved = SavedAs(request);
    if (fail >= 0) {
      env_->FailOperation(fail, absl::PermissionDeniedError("not yours"));
    }
    ASSERT_THAT(hook_->AfterSaveCheckpoint(run_, saved), IsOk());
    env_->StopFailing();
    ++run_.epochs;
  }

  std::vector<std::string> Hidden() {
    std::vector<std::string> names;
    const auto all = run_.mem_env->ListDir(run_.work);
    for (const std::string& name : *all) {
      if (name[0] == '.') names.push_back(name);
    }
    return names;
  }

  io::MemEnv mem_;
  io::FaultInjectionEnv* env_ = nullptr;
  FakeRunContext run_;
  const std::unique_ptr<CheckpointHook> hook_ =
      NewHook("interval: 1 max_keep_ckpts: 2");
};

TEST_F(UndeletableTest, IsWarnedOfAndDeletedAtTheNextSave) {
  // What deleting does: rename, sync of the folder, three files, the directory.
  for (int64_t fail = 0; fail < 6; ++fail) {
    SCOPED_TRACE(fail);
    run_.epochs = 10 * fail;
    ASSERT_THAT(hook_->BeforeTrain(run_), IsOk());
    const auto before = run_.run_log.messages(RunLog::Level::kWarning).size();
    Epoch();
    Epoch();
    Epoch(fail);
    const std::string first = absl::StrCat("epoch_", 10 * fail + 1);
    const auto warnings = run_.run_log.messages(RunLog::Level::kWarning);
    ASSERT_EQ(warnings.size(), before + 1);
    EXPECT_THAT(warnings.back(), HasSubstr("can't be deleted now"));
    EXPECT_THAT(warnings.back(), HasSubstr("not yours"));
    Epoch();
    EXPECT_THAT(Checkpoints(run_),
                ElementsAre(absl::StrCat("epoch_", 10 * fail + 3),
                            absl::StrCat("epoch_", 10 * fail + 4)));
    EXPECT_THAT(Hidden(), IsEmpty());
    EXPECT_EQ(run_.run_log.messages(RunLog::Level::kWarning).size(),
              before + 1);
  }
}

TEST_F(UndeletableTest, IsWarnedOfOnceThoughItStays) {
  ASSERT_THAT(hook_->BeforeTrain(run_), IsOk());
  Epoch();
  Epoch();
  for (int i = 0; i < 5; ++i) Epoch(0);
  const auto warnings = run_.run_log.messages(RunLog::Level::kWarning);
  EXPECT_EQ(std::count_if(warnings.begin(), warnings.end(),
                          [](const std::string& warning) {
                            return absl::StrContains(warning, "/epoch_1 can");
                          }),
            1);
  Epoch();
  EXPECT_THAT(Checkpoints(run_), ElementsAre("epoch_7", "epoch_8"));
}

// A run of one epoch and one validation after the other.
class BestCheckpointTest : public testing::Test {
 protected:
  void Start(const std::string& config) {
    hook_ = NewHook(config);
    written_.clear();
    run_.total_epochs = 100;
    ASSERT_THAT(hook_->BeforeTrain(run_), IsOk());
  }

  // Another process goes on from a checkpoint that has as the hook's state
  // `state`.
  void Resume(const std::string& config, const std::string& from,
              const std::string& state) {
    hook_ = NewHook(config);
    written_.clear();
    run_.resumed = from;
    io::CheckpointContents contents = Contents(run_, kUuid);
    ASSERT_TRUE(hook_->mutable_state()->ParseFromString(state));
    ASSERT_THAT(hook_->AfterRestore(run_, contents), IsOk());
    ASSERT_THAT(hook_->BeforeTrain(run_), IsOk());
  }

  void Epoch(const Metrics& metrics) {
    ASSERT_THAT(hook_->AfterTrainEpoch(run_), IsOk());
    WriteSaves(*hook_, run_, &written_);
    ++run_.epochs;
    ASSERT_THAT(hook_->AfterValEpoch(run_, metrics), IsOk());
    WriteSaves(*hook_, run_, &written_, metrics);
  }

  void Epochs(const std::vector<double>& scores) {
    for (const double score : scores) Epoch({{"acc", score}});
  }

  void Finish() {
    run_.total_epochs = run_.epochs;
    ASSERT_THAT(hook_->AfterTrain(run_), IsOk());
    WriteSaves(*hook_, run_, &written_);
    ASSERT_THAT(hook_->AfterRun(run_), IsOk());
  }

  std::string State() { return hook_->mutable_state()->SerializeAsString(); }

  FakeRunContext run_;
  std::unique_ptr<CheckpointHook> hook_;
  std::vector<std::string> written_;
};

constexpr double kInf = std::numeric_limits<double>::infinity();

struct BestCase {
  std::string name;
  std::string config;  // Of the metric acc; no periodic checkpoints.
  std::vector<double> scores;
  std::vector<std::string> written;
  std::vector<std::string> left;
};

void PrintTo(const BestCase& c, std::ostream* os) { *os << c.config; }

class BestScoresTest : public BestCheckpointTest,
                       public testing::WithParamInterface<BestCase> {};

INSTANTIATE_TEST_SUITE_P(, BestScoresTest,
                         ValuesIn(std::vector<BestCase>{
                             {"OnlyWhatIsBetter",
                              "save_best: 'acc'",
                              {0.1, 0.9, 0.3},
                              {"best_acc_epoch_1", "best_acc_epoch_2"},
                              {"best_acc_epoch_2"}},
                             {"ATieKeepsTheOlder",
                              "save_best: 'acc'",
                              {0.5, 0.5},
                              {"best_acc_epoch_1"},
                              {"best_acc_epoch_1"}},
                             {"NanIsNeverBest",
                              "save_best: 'acc' keep_best: 3",
                              {NAN, 0.2, NAN},
                              {"best_acc_epoch_2"},
                              {"best_acc_epoch_2"}},
                             {"AnInfinityIsNeverBest",
                              "save_best: 'acc' keep_best: 3",
                              {-kInf, 0.2, kInf},
                              {"best_acc_epoch_2"},
                              {"best_acc_epoch_2"}},
                             {"AnInfinityIsNeverLeast",
                              "save_best: 'acc' rule: 'less' keep_best: 3",
                              {kInf, 0.2, -kInf},
                              {"best_acc_epoch_2"},
                              {"best_acc_epoch_2"}},
                             {"RuleWinsOverTheName",
                              "save_best: 'acc' rule: 'less'",
                              {0.5, 0.7, 0.3},
                              {"best_acc_epoch_1", "best_acc_epoch_3"},
                              {"best_acc_epoch_3"}},
                             {"TwoBest",
                              "save_best: 'acc' keep_best: 2",
                              {0.3, 0.1, 0.2, 0.1, 0.4},
                              {"best_acc_epoch_1", "best_acc_epoch_2",
                               "best_acc_epoch_3", "best_acc_epoch_5"},
                              {"best_acc_epoch_1", "best_acc_epoch_5"}},
                             {"ATieForTheLastPlaceKeepsTheOlder",
                              "save_best: 'acc' keep_best: 2",
                              {0.3, 0.2, 0.2},
                              {"best_acc_epoch_1", "best_acc_epoch_2"},
                              {"best_acc_epoch_1", "best_acc_epoch_2"}},
                             {"PeriodicOnesDontCount",
                              "save_best: 'acc' interval: 1 max_keep_ckpts: 1",
                              {0.3, 0.2},
                              {"epoch_1", "best_acc_epoch_1", "epoch_2"},
                              {"best_acc_epoch_1", "epoch_2"}},
                             {"NamedByTheTemplate",
                              "save_best: 'acc' filename_tmpl: 'after_{}'",
                              {0.3},
                              {"best_acc_after_1"},
                              {"best_acc_after_1"}},
                         }),
                         [](const auto& info) { return info.param.name; });

TEST_P(BestScoresTest, AreSavedAndKept) {
  Start(GetParam().config);
  Epochs(GetParam().scores);
  EXPECT_EQ(written_, GetParam().written);
  EXPECT_EQ(Checkpoints(run_), GetParam().left);
}

TEST_F(BestCheckpointTest, OldOneIsDeletedOnlyAfterTheNewOneIsWritten) {
  Start("save_best: 'acc'");
  Epochs({0.1});
  ++run_.epochs;
  ASSERT_THAT(hook_->AfterValEpoch(run_, {{"acc", 0.2}}), IsOk());
  io::CheckpointContents contents = Contents(run_, kUuid);
  ASSERT_THAT(hook_->BeforeSaveCheckpoint(run_, contents), IsOk());
  EXPECT_THAT(Checkpoints(run_), ElementsAre("best_acc_epoch_1"));
}

TEST_F(BestCheckpointTest, TellsWhatIsOnTheDisk) {
  const std::string config = "save_best: ['acc', 'loss'] interval: 2";
  Start(config);
  EXPECT_EQ(hook_->last_checkpoint(), "");
  EXPECT_THAT(hook_->best_metrics(), ElementsAre("acc", "loss"));
  EXPECT_FALSE(hook_->best_checkpoint("acc").has_value());
  const auto expect_best = [&](const std::string& metric,
                               const std::string& path, double value) {
    const auto best = hook_->best_checkpoint(metric);
    ASSERT_TRUE(best.has_value()) << metric;
    EXPECT_EQ(best->path, path);
    EXPECT_EQ(best->value, value);
  };

  Epoch({{"acc", 0.1}, {"loss", 3.0}});
  EXPECT_EQ(hook_->last_checkpoint(), "");
  expect_best("acc", "/work_dir/best_acc_epoch_1", 0.1);
  expect_best("loss", "/work_dir/best_loss_epoch_1", 3);

  ASSERT_THAT(hook_->AfterTrainEpoch(run_), IsOk());
  EXPECT_EQ(hook_->last_checkpoint(), "") << "it is only asked for";
  WriteSaves(*hook_, run_, &written_);
  ++run_.epochs;
  EXPECT_EQ(hook_->last_checkpoint(), "/work_dir/epoch_2");
  const Metrics metrics = {{"acc", 0.2}, {"loss", 4.0}};
  ASSERT_THAT(hook_->AfterValEpoch(run_, metrics), IsOk());
  expect_best("acc", "/work_dir/best_acc_epoch_1", 0.1);  // Likewise.
  WriteSaves(*hook_, run_, &written_, metrics);
  expect_best("acc", "/work_dir/best_acc_epoch_2", 0.2);
  expect_best("loss", "/work_dir/best_loss_epoch_1", 3);
  EXPECT_EQ(hook_->last_checkpoint(), "/work_dir/epoch_2");
  EXPECT_FALSE(hook_->best_checkpoint("top1").has_value());

  Resume(config, "/work_dir/epoch_2", State());
  EXPECT_EQ(hook_->last_checkpoint(), "/work_dir/epoch_2");
  expect_best("acc", "/work_dir/best_acc_epoch_2", 0.2);

  run_.work = "/elsewhere";
  Resume(config, "/work_dir/epoch_2", State());
  expect_best("acc", "", 0.2);
}

TEST_F(BestCheckpointTest, AutoIsToldByTheNameThatItHasBecome) {
  Start("save_best: 'auto'");
  EXPECT_THAT(hook_->best_metrics(), IsEmpty());
  Epochs({0.5});
  EXPECT_THAT(hook_->best_metrics(), ElementsAre("acc"));
  EXPECT_EQ(hook_->best_checkpoint("acc")->path, "/work_dir/best_acc_epoch_1");
  EXPECT_FALSE(hook_->best_checkpoint("auto").has_value());
}

TEST_F(BestCheckpointTest, SaysWhatIsBestAndWhatIsRemoved) {
  Start("save_best: 'acc' keep_best: 2");
  Epochs({0.1, 0.2, 0.12345});
  EXPECT_THAT(
      Logged(run_, RunLog::Level::kInfo),
      AllOf(HasSubstr("The best checkpoint with 0.2000 acc at 2 epoch is saved "
                      "to best_acc_epoch_2."),
            HasSubstr("The number 2 best checkpoint with 0.1235 acc at 3 epoch "
                      "is saved to best_acc_epoch_3."),
            HasSubstr("The previous best checkpoint best_acc_epoch_1 is "
                      "removed")));
}

TEST_F(BestCheckpointTest, EachMetricHasItsOwn) {
  Start("save_best: ['accuracy/top1', 'val_loss']");
  Epoch({{"accuracy/top1", 10.0}, {"val_loss", 2.0}});
  Epoch({{"accuracy/top1", 20.0}, {"val_loss", 3.0}});
  Epoch({{"accuracy/top1", 15.0}, {"val_loss", 1.0}});
  EXPECT_THAT(Checkpoints(run_), ElementsAre("best_accuracy_top1_epoch_2",
                                             "best_val_loss_epoch_3"));
}

TEST_F(BestCheckpointTest, OneRuleIsForAllAndSeveralForEach) {
  Start("save_best: ['a', 'b'] rule: 'less'");
  Epoch({{"a", 2.0}, {"b", 2.0}});
  Epoch({{"a", 1.0}, {"b", 3.0}});
  EXPECT_THAT(Checkpoints(run_),
              ElementsAre("best_a_epoch_2", "best_b_epoch_1"));
  run_.epochs = 10;
  Start("save_best: ['c', 'd'] rule: ['less', 'greater']");
  Epoch({{"c", 2.0}, {"d", 2.0}});
  Epoch({{"c", 1.0}, {"d", 3.0}});
  EXPECT_THAT(written_, ElementsAre("best_c_epoch_11", "best_d_epoch_11",
                                    "best_c_epoch_12", "best_d_epoch_12"));
}

TEST_F(BestCheckpointTest, AutoIsTheFirstMetric) {
  Start("save_best: 'auto'");
  Epoch({{"mse", int64_t{2}}, {"acc", 0.1}});
  Epoch({{"mse", int64_t{1}}, {"acc", 0.1}});
  EXPECT_THAT(Checkpoints(run_), ElementsAre("best_mse_epoch_2"));
  EXPECT_THAT(Logged(run_, RunLog::Level::kWarning),
              HasSubstr("by its name, less values of \"mse\" are better"));
}

TEST_F(BestCheckpointTest, WhatIsTakenFromTheNameIsSaid) {
  Start("save_best: 'accuracy/top1'");
  EXPECT_THAT(
      Logged(run_, RunLog::Level::kWarning),
      HasSubstr("by its name, greater values of \"accuracy/top1\" are better; "
                "set rule to be sure"));
}

TEST_F(BestCheckpointTest, WhatTheUserSaysIsNotWarnedOf) {
  for (const char* config :
       {"save_best: 'a' rule: 'less'", "save_best: 'a' greater_keys: 'a'"}) {
    Start(config);
    EXPECT_THAT(Logged(run_, RunLog::Level::kWarning),
                Not(HasSubstr("by its name")));
  }
}

struct BadMetricsCase {
  std::string name;
  std::string config;
  Metrics metrics;
  absl::StatusCode code;
  std::string error;
};

void PrintTo(const BadMetricsCase& c, std::ostream* os) { *os << c.config; }

class BadMetricsTest : public BestCheckpointTest,
                       public testing::WithParamInterface<BadMetricsCase> {};

INSTANTIATE_TEST_SUITE_P(
    , BadMetricsTest,
    ValuesIn(std::vector<BadMetricsCase>{
        {"Missing",
         "save_best: 'acc'",
         {{"mIoU", 0.1}, {"aAcc", 0.2}},
         absl::StatusCode::kNotFound,
         "save_best: there is no metric \"acc\", there are mIoU, aAcc"},
        {"Misspelled",
         "save_best: 'accuracy/top1'",
         {{"accuracy/top_1", 0.1}},
         absl::StatusCode::kNotFound,
         "did you mean \"accuracy/top_1\"?"},
        {"Text",
         "save_best: 'acc'",
         {{"acc", "much"}},
         absl::StatusCode::kInvalidArgument,
         "save_best: \"acc\" is a text and no number"},
        {"AutoThatNobodyKnows",
         "save_best: 'auto'",
         {{"FID", 0.1}},
         absl::StatusCode::kInvalidArgument,
         "rule: must be set, \"greater\" or \"less\": the name \"FID\""},
    }),
    [](const auto& info) { return info.param.name; });

TEST_P(BadMetricsTest, EndTheRun) {
  Start(GetParam().config);
  EXPECT_THAT(hook_->AfterValEpoch(run_, GetParam().metrics),
              StatusIs(GetParam().code, HasSubstr(GetParam().error)));
}

TEST_F(BestCheckpointTest, MissingMetricLeavesTheOthersUnrecorded) {
  Start("save_best: ['acc', 'mIoU']");
  EXPECT_THAT(hook_->AfterValEpoch(run_, {{"acc", 0.5}}),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("mIoU")));
  EXPECT_TRUE(run_.saves.empty());
  EXPECT_EQ(State(), "");
}

TEST_F(BestCheckpointTest, NoMetricsAreNoError) {
  Start("save_best: 'acc'");
  Epoch({});
  EXPECT_THAT(written_, IsEmpty());
  EXPECT_THAT(Logged(run_, RunLog::Level::kWarning),
              HasSubstr("the validation gave no metrics"));
}

TEST_F(BestCheckpointTest, ValidationOutsideTrainingIsNotLookedAt) {
  hook_ = NewHook("save_best: 'acc'");
  run_.in_training = false;
  ASSERT_THAT(hook_->AfterValEpoch(run_, {{"other", 0.5}}), IsOk());
  EXPECT_TRUE(run_.saves.empty());
}

// By epoch in an iteration-based run: all have one name.
TEST_F(BestCheckpointTest, OfOneNameTheBetterStays) {
  Start("save_best: 'acc' keep_best: 2");
  std::vector<std::string> written;
  for (const double score : {0.2, 0.1, 0.3}) {
    ASSERT_THAT(hook_->AfterValEpoch(run_, {{"acc", score}}), IsOk());
    WriteSaves(*hook_, run_, &written, {{"acc", score}});
  }
  EXPECT_THAT(written, ElementsAre("best_acc_epoch_0", "best_acc_epoch_0"));
  EXPECT_THAT(Checkpoints(run_), ElementsAre("best_acc_epoch_0"));
}

// Older versions took an infinity for the best, which nothing is better than.
TEST_F(BestCheckpointTest, AnyNumberIsBetterThanARecordOfInfinity) {
  Start("save_best: 'acc'");
  Epochs({0.5});
  static_cast<hooks::v1::CheckpointHookState*>(hook_->mutable_state())
      ->mutable_best(0)
      ->set_score(kInf);
  Epochs({0.1});
  EXPECT_THAT(Checkpoints(run_), ElementsAre("best_acc_epoch_2"));
  Epochs({0.05});
  EXPECT_THAT(Checkpoints(run_), ElementsAre("best_acc_epoch_2"));
}

TEST_F(BestCheckpointTest, OlderCheckpointKnowsTheNewestBest) {
  Start("save_best: 'acc'");
  Epochs({0.1});
  const std::string state = State();
  Epochs({0.5});
  // Knows of 0.1 alone.
  Write(run_, "epoch_1", kUuid);
  Resume("save_best: 'acc'", "/work_dir/epoch_1", state);
  run_.epochs = 2;
  Epochs({0.4});
  EXPECT_THAT(written_, IsEmpty());
  Epochs({0.6});
  EXPECT_THAT(Checkpoints(run_), ElementsAre("best_acc_epoch_4", "epoch_1"));
}

TEST_F(BestCheckpointTest, KilledBeforeTheNewBestIsWrittenKeepsTheOld) {
  Start("save_best: 'acc'");
  Epochs({0.1});
  const std::string state = State();
  ++run_.epochs;
  ASSERT_THAT(hook_->AfterValEpoch(run_, {{"acc", 0.5}}), IsOk());
  io::CheckpointContents contents = Contents(run_, kUuid);
  ASSERT_THAT(hook_->BeforeSaveCheckpoint(run_, contents), IsOk());
  run_.saves.clear();
  Resume("save_best: 'acc'", "/work_dir/best_acc_epoch_1", state);
  Epochs({0.2});
  EXPECT_THAT(Checkpoints(run_), ElementsAre("best_acc_epoch_3"));
}

TEST_F(BestCheckpointTest, KilledBeforeTheOldBestIsDeletedDeletesItLater) {
  Start("save_best: 'acc'");
  Epochs({0.1});
  ++run_.epochs;
  ASSERT_THAT(hook_->AfterValEpoch(run_, {{"acc", 0.5}}), IsOk());
  io::CheckpointContents contents = Contents(run_, kUuid);
  ASSERT_THAT(hook_->BeforeSaveCheckpoint(run_, contents), IsOk());
  const std::string state = State();
  run_.saves.clear();
  Write(run_, "best_acc_epoch_2", kUuid);
  Resume("save_best: 'acc'", "/work_dir/best_acc_epoch_2", state);
  EXPECT_THAT(Checkpoints(run_), ElementsAre("best_acc_epoch_2"));
}

TEST_F(BestCheckpointTest, AutoIsTheSameMetricAfterAResume) {
  const std::string config = "save_best: 'auto'";
  Start(config);
  Epochs({0.1});
  ++run_.epochs;
  ASSERT_THAT(hook_->AfterValEpoch(run_, {{"acc", 0.5}}), IsOk());
  io::CheckpointContents contents = Contents(run_, kUuid);
  ASSERT_THAT(hook_->BeforeSaveCheckpoint(run_, contents), IsOk());
  const std::string state = State();
  run_.saves.clear();
  Write(run_, "best_acc_epoch_2", kUuid);
  Resume(config, "/work_dir/best_acc_epoch_2", state);
  EXPECT_THAT(Checkpoints(run_), ElementsAre("best_acc_epoch_2"));
  Epoch({{"loss", 3.0}, {"acc", 0.6}});
  EXPECT_THAT(Checkpoints(run_), ElementsAre("best_acc_epoch_3"));
}

TEST_F(BestCheckpointTest, ThatCouldNotBeWrittenIsWaitedFor) {
  Start("save_best: 'acc'");
  Epochs({0.1});
  ++run_.epochs;
  ASSERT_THAT(hook_->AfterValEpoch(run_, {{"acc", 0.5}}), IsOk());
  // The disk was full. Train() is called again, and the runner tries again.
  ASSERT_THAT(hook_->BeforeTrain(run_), IsOk());
  EXPECT_THAT(Checkpoints(run_), ElementsAre("best_acc_epoch_1"));
  std::vector<std::string> written;
  WriteSaves(*hook_, run_, &written, {{"acc", 0.5}});
  EXPECT_THAT(written, ElementsAre("best_acc_epoch_2"));
  Epochs({0.3});
  EXPECT_THAT(Checkpoints(run_), ElementsAre("best_acc_epoch_2"));
}

TEST(CheckpointHookTest, OneThatCouldNotBeWrittenReplacesNone) {
  FakeRunContext run;
  const auto hook = NewHook("interval: 1 max_keep_ckpts: 1");
  run.total_epochs = 5;
  std::vector<std::string> written;
  ASSERT_THAT(hook->BeforeTrain(run), IsOk());
  ASSERT_THAT(hook->AfterTrainEpoch(run), IsOk());
  WriteSaves(*hook, run, &written);
  ++run.epochs;
  ASSERT_THAT(hook->AfterTrainEpoch(run), IsOk());
  // The disk was full. Train() is called again.
  ASSERT_THAT(hook->BeforeTrain(run), IsOk());
  EXPECT_THAT(Checkpoints(run), ElementsAre("epoch_1"));
  WriteSaves(*hook, run, &written);
  EXPECT_THAT(Checkpoints(run), ElementsAre("epoch_2"));
}

TEST_F(BestCheckpointTest, DamagedOneIsPassedOver) {
  Start("save_best: 'acc'");
  Epochs({0.5});
  ASSERT_THAT(
      io::WriteFileAtomically(
          *run_.mem_env, "/work_dir/best_acc_epoch_1/manifest.pb", "damaged"),
      IsOk());
  Resume("save_best: 'acc'", "/work_dir/best_acc_epoch_1", State());
  EXPECT_THAT(Logged(run_, RunLog::Level::kWarning),
              HasSubstr("save_best: passed over /work_dir/best_acc_epoch_1"));
  Epochs({0.4});
  EXPECT_THAT(written_, ElementsAre("best_acc_epoch_2"));
}

TEST_F(BestCheckpointTest, FewerToKeepOnResumeDeletesTheWorst) {
  Start("save_best: 'acc' keep_best: 3");
  Epochs({0.2, 0.1, 0.3});
  Resume("save_best: 'acc' keep_best: 1", "/work_dir/best_acc_epoch_3",
         State());
  EXPECT_THAT(Checkpoints(run_), ElementsAre("best_acc_epoch_3"));
}

TEST_F(BestCheckpointTest, PinnedOnesStayUntilTheyAreNot) {
  Start("save_best: 'acc'");
  Epochs({0.1});
  ASSERT_THAT(
      io::PinCheckpoint(*run_.mem_env, "/work_dir/best_acc_epoch_1", true),
      IsOk());
  Epochs({0.2, 0.3});
  EXPECT_THAT(Checkpoints(run_),
              ElementsAre("best_acc_epoch_1", "best_acc_epoch_3"));
  EXPECT_EQ(hook_->best_checkpoint("acc")->value, 0.3);
  ASSERT_THAT(
      io::PinCheckpoint(*run_.mem_env, "/work_dir/best_acc_epoch_1", false),
      IsOk());
  Resume("save_best: 'acc'", "/work_dir/best_acc_epoch_3", State());
  EXPECT_THAT(Checkpoints(run_), ElementsAre("best_acc_epoch_3"));
}

TEST_F(BestCheckpointTest, OneThatIsPinnedWhileItIsDeletedStaysUntilItIsNot) {
  run_.mem_env = std::make_unique<PinningEnv>(std::move(run_.mem_env),
                                              "/work_dir/best_acc_epoch_1");
  Start("save_best: 'acc'");
  Epochs({0.1, 0.2});
  EXPECT_THAT(Checkpoints(run_),
              ElementsAre("best_acc_epoch_1", "best_acc_epoch_2"));
  EXPECT_THAT(Logged(run_, RunLog::Level::kWarning),
              Not(HasSubstr("best_acc_epoch_1")));
  ASSERT_THAT(
      io::PinCheckpoint(*run_.mem_env, "/work_dir/best_acc_epoch_1", false),
      IsOk());
  Epochs({0.3});
  EXPECT_THAT(Checkpoints(run_), ElementsAre("best_acc_epoch_3"));
}

TEST_F(BestCheckpointTest, MetricsThatAreNoLongerNamedAreRemembered) {
  Start("save_best: ['acc', 'loss']");
  Epoch({{"acc", 0.9}, {"loss", 1.0}});
  Resume("save_best: 'loss'", "/work_dir/best_acc_epoch_1", State());
  Epoch({{"loss", 0.5}});
  Resume("save_best: ['acc', 'loss']", "/work_dir/best_loss_epoch_2", State());
  Epoch({{"acc", 0.8}, {"loss", 0.7}});
  EXPECT_THAT(written_, IsEmpty());
  EXPECT_THAT(Checkpoints(run_),
              ElementsAre("best_acc_epoch_1", "best_loss_epoch_2"));
}

TEST_F(BestCheckpointTest, RunOfAnotherFolderLeavesItsScoreToBeat) {
  Start("save_best: 'acc' interval: 1 max_keep_ckpts: 1");
  Epochs({0.5});
  const std::string state = State();
  run_.work = "/elsewhere";
  Resume("save_best: 'acc' interval: 1 max_keep_ckpts: 1", "/work_dir/epoch_1",
         state);
  Epochs({0.4, 0.6});
  EXPECT_THAT(Checkpoints(run_, "/elsewhere"),
              ElementsAre("best_acc_epoch_3", "epoch_3"));
  EXPECT_THAT(Checkpoints(run_), ElementsAre("best_acc_epoch_1", "epoch_1"));
}

TEST_F(BestCheckpointTest, RunResumedFromItsBestKeepsIt) {
  const std::string config =
      "save_best: 'acc' interval: 1 max_keep_ckpts: 1 save_last: false";
  Start(config);
  Epochs({0.5});
  Resume(config, "/work_dir/best_acc_epoch_1", State());
  Epochs({0.1, 0.1});
  EXPECT_THAT(Checkpoints(run_), ElementsAre("best_acc_epoch_1", "epoch_3"));
}

TEST_F(BestCheckpointTest, OneThatCannotBeDeletedIsDeletedWithTheNext) {
  io::MemEnv mem;
  auto owned = std::make_unique<io::FaultInjectionEnv>(mem, "/");
  io::FaultInjectionEnv& env = *owned;
  run_.mem_env = std::move(owned);
  ASSERT_THAT(run_.mem_env->CreateDir(run_.logs), IsOk());
  Start("save_best: 'acc'");
  Epochs({0.1});
  ++run_.epochs;
  ASSERT_THAT(hook_->AfterValEpoch(run_, {{"acc", 0.2}}), IsOk());
  ASSERT_EQ(run_.saves.size(), 1u);
  io::CheckpointContents contents = Contents(run_, kUuid);
  (*contents.manifest().mutable_metrics())["acc"] = 0.2;
  ASSERT_THAT(hook_->BeforeSaveCheckpoint(run_, contents), IsOk());
  ASSERT_THAT(
      io::WriteCheckpoint(env, run_.saves[0].dir, run_.saves[0].name, contents),
      IsOk());
  const SavedCheckpoint saved = SavedAs(run_.saves[0]);
  run_.saves.clear();
  env.FailOperation(0, absl::PermissionDeniedError("not yours"));
  ASSERT_THAT(hook_->AfterSaveCheckpoint(run_, saved), IsOk());
  env.StopFailing();
  EXPECT_THAT(Logged(run_, RunLog::Level::kWarning),
              HasSubstr("/work_dir/best_acc_epoch_1 can't be deleted now"));
  EXPECT_THAT(Checkpoints(run_),
              ElementsAre("best_acc_epoch_1", "best_acc_epoch_2"));
  Epochs({0.3});
  EXPECT_THAT(Checkpoints(run_), ElementsAre("best_acc_epoch_3"));
  EXPECT_THAT(Logged(run_, RunLog::Level::kInfo),
              AllOf(HasSubstr("best_acc_epoch_1 is removed"),
                    HasSubstr("best_acc_epoch_2 is removed")));
}

TEST_F(BestCheckpointTest, TheirListIsBesideThem) {
  run_.checkpoints = "/out/work_dir";
  const std::string config = "save_best: 'acc' out_dir: '/out'";
  Start(config);
  Epochs({0.5});
  EXPECT_TRUE(run_.mem_env->FileExists("/out/work_dir/best_checkpoints"));
  EXPECT_FALSE(run_.mem_env->FileExists("/work_dir/best_checkpoints"));
  // Where it was before.
  ASSERT_THAT(run_.mem_env->Rename("/out/work_dir/best_checkpoints",
                                   "/work_dir/best_checkpoints"),
              IsOk());
  Resume(config, "/out/work_dir/best_acc_epoch_1", "");
  Epochs({0.4});
  EXPECT_THAT(written_, IsEmpty());
}

TEST_F(BestCheckpointTest, DamagedRecordIsWarnedOf) {
  Start("save_best: 'acc'");
  Epochs({0.5});
  ASSERT_THAT(io::WriteFileAtomically(*run_.mem_env,
                                      "/work_dir/best_checkpoints", "best {"),
              IsOk());
  Resume("save_best: 'acc'", "/work_dir/best_acc_epoch_1", State());
  EXPECT_THAT(Logged(run_, RunLog::Level::kWarning),
              HasSubstr("/work_dir/best_checkpoints"));
  Epochs({0.4});
  EXPECT_THAT(written_, IsEmpty());
}

// ------------------------------------------------------- files beside them

std::vector<std::string> Files(const FakeRunContext& run,
                               const std::string& ending) {
  std::vector<std::string> files;
  const auto all = run.mem_env->ListDir(run.work);
  EXPECT_THAT(all, IsOk());
  for (const std::string& name : *all) {
    if (absl::EndsWith(name, ending)) files.push_back(name);
  }
  return files;
}

TEST_F(BestCheckpointTest, FilesForOthersComeAndGoWithTheirCheckpoints) {
  Start(
      "save_best: 'acc' interval: 1 max_keep_ckpts: 1 also_write: "
      "'safetensors'");
  run_.iters = 7;
  Epochs({0.1});
  EXPECT_THAT(
      Files(run_, ".safetensors"),
      ElementsAre("best_acc_epoch_1.safetensors", "epoch_1.safetensors"));
  const auto weights =
      io::ReadSafetensors(*run_.mem_env, "/work_dir/epoch_1.safetensors");
  ASSERT_THAT(weights, IsOk());
  ASSERT_EQ(weights->size(), 1u);
  EXPECT_TRUE(ops::equal(*weights->Find("w"), ops::full({2}, 7.0)));
  Epochs({0.2});
  EXPECT_THAT(
      Files(run_, ".safetensors"),
      ElementsAre("best_acc_epoch_2.safetensors", "epoch_2.safetensors"));
  EXPECT_THAT(Checkpoints(run_), ElementsAre("best_acc_epoch_2", "epoch_2"));
  // A run that no longer writes them deletes them as before.
  Resume("save_best: 'acc' interval: 1 max_keep_ckpts: 1", "/work_dir/epoch_2",
         State());
  Epochs({0.3});
  EXPECT_THAT(Files(run_, ".safetensors"), IsEmpty());
}

TEST_F(BestCheckpointTest, FilesForPythonComeAndGoWithTheirCheckpoints) {
  Start("interval: 1 max_keep_ckpts: 1 also_write: ['pth', 'safetensors']");
  run_.iters = 7;
  Epochs({0.1, 0.2});
  EXPECT_THAT(Files(run_, ".safetensors"), ElementsAre("epoch_2.safetensors"));
  EXPECT_THAT(Files(run_, ".pth"), ElementsAre("epoch_2.pth"));
  const auto file = io::PthFile::Read(*run_.mem_env, "/work_dir/epoch_2.pth");
  ASSERT_THAT(file, IsOk());
  const auto weights = file->root().Find("state_dict");
  ASSERT_TRUE(weights.has_value());
  EXPECT_EQ(weights->type_name(), "collections.OrderedDict");
  EXPECT_TRUE(ops::equal(weights->Find("w")->tensor(), ops::full({2}, 7.0)));
  EXPECT_TRUE(file->root().Find("meta")->Find("epoch").has_value());
  EXPECT_TRUE(file->root().Find("message_hub").has_value());
  // Said once, though two were written.
  EXPECT_THAT(Logged(run_, RunLog::Level::kWarning),
              AllOf(HasSubstr("also_write: /work_dir/epoch_1.pth: "),
                    Not(HasSubstr("epoch_2.pth"))));
}

TEST_F(BestCheckpointTest, OptimizersThatPythonHasNotAreLeftOutOfItsFile) {
  Start("also_write: 'pth'");
  run_.total_epochs = 1;
  ASSERT_THAT(hook_->AfterTrainEpoch(run_), IsOk());
  ASSERT_EQ(run_.saves.size(), 1u);
  io::CheckpointContents contents = Contents(run_, kUuid);
  runner::v1::RunState state;
  state.mutable_optim_wrapper()->mutable_optimizer()->set_type(
      "my.OwnOptimizerConfig");
  state.mutable_optim_wrapper()->mutable_optimizer()->add_groups()->add_params(
      "w");
  contents.blobs = {{"state", state.SerializeAsString()}};
  ASSERT_THAT(hook_->BeforeSaveCheckpoint(run_, contents), IsOk());
  ASSERT_THAT(
      io::WriteCheckpoint(*run_.mem_env, run_.work, "epoch_1", contents),
      IsOk());
  ASSERT_THAT(hook_->AfterSaveCheckpoint(run_, SavedAs(run_.saves[0])), IsOk());
  const auto file = io::PthFile::Read(*run_.mem_env, "/work_dir/epoch_1.pth");
  ASSERT_THAT(file, IsOk());
  EXPECT_TRUE(file->root().Find("state_dict").has_value());
  EXPECT_FALSE(file->root().Find("optimizer").has_value());
  EXPECT_THAT(Logged(run_, RunLog::Level::kWarning),
              AllOf(HasSubstr("the optimizer is left out: "),
                    HasSubstr("OwnOptimizer"), Not(HasSubstr("itself"))));
}

TEST_F(BestCheckpointTest, FilesOfTheUsersAreLeft) {
  ASSERT_THAT(io::WriteFileAtomically(*run_.mem_env,
                                      "/work_dir/epoch_1.safetensors", "mine"),
              IsOk());
  Start("interval: 1 max_keep_ckpts: 1");
  Epochs({0.1, 0.2});
  EXPECT_THAT(Checkpoints(run_), ElementsAre("epoch_2"));
  EXPECT_THAT(Files(run_, ".safetensors"), ElementsAre("epoch_1.safetensors"));
}

TEST_F(BestCheckpointTest, FilesOfTheUsersAreNotWrittenOver) {
  for (const char* name : {"epoch_1.pth", "epoch_1.safetensors"}) {
    ASSERT_THAT(io::WriteFileAtomically(
                    *run_.mem_env, io::JoinPath("/work_dir", name), "mine"),
                IsOk());
  }
  Start("interval: 1 max_keep_ckpts: 1 also_write: ['pth', 'safetensors']");
  Epochs({0.1, 0.2});
  EXPECT_THAT(Checkpoints(run_), ElementsAre("epoch_2"));
  EXPECT_THAT(Files(run_, ".pth"), ElementsAre("epoch_1.pth", "epoch_2.pth"));
  EXPECT_THAT(Files(run_, ".safetensors"),
              ElementsAre("epoch_1.safetensors", "epoch_2.safetensors"));
  for (const char* name : {"epoch_1.pth", "epoch_1.safetensors"}) {
    const std::string path = io::JoinPath("/work_dir", name);
    EXPECT_EQ(*io::ReadFile(*run_.mem_env, path), "mine");
    EXPECT_THAT(Logged(run_, RunLog::Level::kWarning),
                HasSubstr(absl::StrCat("also_write: ", path,
                                       ": there is a file of that name")));
  }
}

TEST_F(BestCheckpointTest, FilesForOthersHaveTheAverage) {
  Start("also_write: 'safetensors'");
  run_.total_epochs = 1;
  ASSERT_THAT(hook_->AfterTrainEpoch(run_), IsOk());
  ASSERT_EQ(run_.saves.size(), 1u);
  io::CheckpointContents contents = Contents(run_, kUuid);
  TensorMap average;
  ASSERT_THAT(average.Add("w", ops::full({2}, 0.5)), IsOk());
  contents.sections.emplace_back("ema", average);
  contents.manifest().set_evaluated_section("ema");
  ASSERT_THAT(hook_->BeforeSaveCheckpoint(run_, contents), IsOk());
  ASSERT_THAT(
      io::WriteCheckpoint(*run_.mem_env, run_.work, "epoch_1", contents),
      IsOk());
  ASSERT_THAT(hook_->AfterSaveCheckpoint(run_, SavedAs(run_.saves[0])), IsOk());
  const auto weights =
      io::ReadSafetensors(*run_.mem_env, "/work_dir/epoch_1.safetensors");
  ASSERT_THAT(weights, IsOk());
  EXPECT_TRUE(ops::equal(*weights->Find("w"), ops::full({2}, 0.5)));
}

// At each of its operations: it is warned of, the checkpoint stands, and what
// is there under the file's name is whole.
class CheckpointCopyTest : public TestWithParam<std::string> {};

INSTANTIATE_TEST_SUITE_P(, CheckpointCopyTest,
                         testing::Values("pth", "safetensors"),
                         [](const auto& info) { return info.param; });

TEST_P(CheckpointCopyTest, OneThatCannotBeWrittenIsWarnedOf) {
  const std::string file = absl::StrCat("/work_dir/epoch_1.", GetParam());
  int failures = 0;
  for (int64_t fail = 0;; ++fail) {
    SCOPED_TRACE(fail);
    FakeRunContext run;
    io::MemEnv mem;
    auto owned = std::make_unique<io::FaultInjectionEnv>(mem, "/");
    io::FaultInjectionEnv& env = *owned;
    run.mem_env = std::move(owned);
    run.total_epochs = 1;
    const auto hook = NewHook(absl::StrCat("also_write: '", GetParam(), "'"));
    ASSERT_THAT(hook->BeforeTrain(run), IsOk());
    ASSERT_THAT(hook->AfterTrainEpoch(run), IsOk());
    io::CheckpointContents contents = Contents(run, kUuid);
    ASSERT_THAT(hook->BeforeSaveCheckpoint(run, contents), IsOk());
    ASSERT_THAT(io::WriteCheckpoint(env, run.work, "epoch_1", contents),
                IsOk());
    const size_t before = env.operations().size();
    env.FailOperation(fail, absl::ResourceExhaustedError("disk is full"));
    ASSERT_THAT(hook->AfterSaveCheckpoint(run, SavedAs(run.saves[0])), IsOk());
    const bool failed =
        env.operations().size() > before + static_cast<size_t>(fail);
    env.StopFailing();
    EXPECT_THAT(io::ReadCheckpoint(env, "/work_dir/epoch_1"), IsOk());
    if (env.FileExists(file)) {
      EXPECT_THAT(GetParam() == "pth" ? io::PthFile::Read(env, file).status()
                                      : io::ReadSafetensors(env, file).status(),
                  IsOk());
    }
    if (!failed) {
      EXPECT_TRUE(env.FileExists(file));
      EXPECT_THAT(Logged(run, RunLog::Level::kWarning),
                  Not(HasSubstr("itself is written")));
      break;
    }
    ++failures;
    EXPECT_THAT(Logged(run, RunLog::Level::kWarning),
                AllOf(HasSubstr(absl::StrCat("also_write: ", file, ": ")),
                      HasSubstr("disk is full"),
                      HasSubstr("/work_dir/epoch_1 itself is written")));
  }
  EXPECT_GT(failures, 6);
}

// ------------------------------------------------------------------ publish

// "epoch_2-<8 digits>" without its digits.
std::vector<std::string> Published(const FakeRunContext& run) {
  std::vector<std::string> names;
  for (const std::string& name : Checkpoints(run)) {
    const size_t dash = name.rfind('-');
    if (dash == std::string::npos) continue;
    EXPECT_EQ(name.size(), dash + 9) << name;
    EXPECT_EQ(name.find_first_not_of("0123456789abcdef", dash + 1),
              std::string::npos)
        << name;
    names.push_back(name.substr(0, dash));
  }
  return names;
}

std::string FirstPublished(const FakeRunContext& run) {
  for (const std::string& name : Checkpoints(run)) {
    if (name.rfind('-') != std::string::npos) return name;
  }
  return "";
}

TEST_F(BestCheckpointTest, PublishesTheLastAndTheBestWithWhatIsAskedFor) {
  Start("save_best: 'acc' published_keys: ['model', 'metrics']");
  Epochs({0.5, 0.2});
  run_.stopped = "test";
  Finish();
  EXPECT_THAT(Published(run_), ElementsAre("best_acc_epoch_1", "epoch_2"));
  const auto read = io::ReadCheckpoint(
      *run_.mem_env, absl::StrCat("/work_dir/", FirstPublished(run_)));
  ASSERT_THAT(read, IsOk());
  ASSERT_EQ(read->sections.size(), 1u);
  EXPECT_EQ(read->sections[0].first, "model");
  EXPECT_TRUE(read->blobs.empty());
  EXPECT_EQ(read->manifest().metrics().at("acc"), 0.5);
  EXPECT_EQ(read->manifest().config(), "");
  EXPECT_EQ(read->manifest().run_uuid(), kUuid);
  EXPECT_TRUE(read->manifest().partial());
}

TEST_F(BestCheckpointTest, PublishedNamesAreOfTheContent) {
  std::vector<std::string> names;
  for (const int64_t iters : {1, 1, 2}) {
    FakeRunContext run;
    run.iters = iters;
    run.total_epochs = 1;
    const auto hook = NewHook("published_keys: 'model'");
    std::vector<std::string> written;
    ASSERT_THAT(hook->BeforeTrain(run), IsOk());
    ASSERT_THAT(hook->AfterTrainEpoch(run), IsOk());
    WriteSaves(*hook, run, &written);
    ASSERT_THAT(hook->AfterTrain(run), IsOk());
    ASSERT_THAT(hook->AfterRun(run), IsOk());
    names.push_back(FirstPublished(run));
  }
  EXPECT_EQ(names[0], names[1]);
  EXPECT_NE(names[0], names[2]);
}

TEST_F(BestCheckpointTest, MetricThatNeverImprovedIsNotPublished) {
  Start("save_best: ['acc', 'loss'] published_keys: 'model' save_last: false");
  Epoch({{"acc", 0.1}, {"loss", NAN}});
  Finish();
  EXPECT_THAT(Published(run_), ElementsAre("best_acc_epoch_1"));
  EXPECT_THAT(Logged(run_, RunLog::Level::kWarning),
              HasSubstr("there is no best \"loss\" to publish"));
}

TEST_F(BestCheckpointTest, KeysThatNameNothingAreWarnedOf) {
  Start("save_best: 'acc' published_keys: ['ema', 'model'] save_last: false");
  Epochs({0.5});
  Finish();
  EXPECT_THAT(Published(run_), ElementsAre("best_acc_epoch_1"));
  EXPECT_THAT(Logged(run_, RunLog::Level::kWarning),
              HasSubstr("published_keys: best_acc_epoch_1 has no ema"));
  Start("save_best: 'acc' published_keys: 'nothing' save_last: false");
  Epochs({0.6});
  Finish();
  EXPECT_THAT(Published(run_), ElementsAre("best_acc_epoch_1"));
  EXPECT_THAT(Logged(run_, RunLog::Level::kWarning),
              HasSubstr("nothing of best_acc_epoch_2 would be left"));
}

TEST_F(BestCheckpointTest, PublishesOnlyWhenTrainingHasEnded) {
  Start("save_best: 'acc' published_keys: 'model'");
  Epochs({0.5});
  ASSERT_THAT(hook_->AfterRun(run_), IsOk());
  EXPECT_THAT(Published(run_), IsEmpty());
}

}  // namespace
}  // namespace grapnel
