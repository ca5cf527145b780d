// Runs that go on as .pth files: what of a training in Python becomes what.

#include "grapnel/runner/training_pth.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "grapnel/base/fake_clock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/data/tensor_dataset.h"
#include "grapnel/hooks/ema/ema_hook.pb.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/mem_env.h"
#include "grapnel/io/pth.h"
#include "grapnel/io/pth_writer.h"
#include "grapnel/loggers/memory_run_log.h"
#include "grapnel/optim/optim_wrapper.pb.h"
#include "grapnel/optim/optimizer.pb.h"
#include "grapnel/optim/param_scheduler.pb.h"
#include "grapnel/runner/parse_config_for_test.h"
#include "grapnel/runner/run_checkpoint.h"
#include "grapnel/runner/run_start.h"
#include "grapnel/runner/run_state.pb.h"
#include "grapnel/runner/runner.h"
#include "grapnel/runner/runner_config.pb.h"
#include "grapnel/runner/training_pth_writer.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::grapnel::runner::v1::RunnerConfig;
using ::grapnel::runner::v1::RunState;
using ::testing::Contains;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kFile[] = "/training.pth";

// An epoch of 3 iterations.
RunnerConfig Config(absl::string_view more = "") {
  return ParseConfig(absl::StrCat(
      R"pb(
        work_dir: "/run"
        randomness { seed: 1 }
        model {
          sequential {
            layers {
              linear { out_features: 3 }
              name: "body"
            }
            layers {
              linear { out_features: 1 }
              name: "head"
            }
            loss { mse {} }
          }
        }
        train_dataloader {
          batch_size: 4
          sampler { shuffle: true }
        }
        train_cfg { max_epochs: 4 }
        optim_wrapper { optimizer { sgd { lr: 0.1 momentum: 0.9 } } }
        param_scheduler { step { step_size: 2 gamma: 0.5 } }
        default_hooks { checkpoint { interval: 1 } }
      )pb",
      more));
}

constexpr char kAverage[] =
    "custom_hooks { config {"
    "  [type.googleapis.com/grapnel.hooks.v1.EMAHookConfig] { momentum: 0.25 }"
    "} }";

class TrainingPthTest : public ::testing::Test {
 protected:
  RunnerOptions Options() {
    RunnerOptions options;
    options.env = &env_;
    options.clock = &clock_;
    auto tensors = TensorDataset::Create(
        ops::linspace(0, 1, 24).reshape({12, 2}), ops::ones({12, 1}));
    EXPECT_THAT(tensors, IsOk());
    options.train_dataset = *std::move(tensors);
    return options;
  }

  // Its log.
  std::vector<std::string> Train(const RunnerConfig& config) {
    MemoryRunLog log;
    RunnerOptions options = Options();
    options.log = &log;
    auto runner = Runner::Create(config, std::move(options));
    EXPECT_THAT(runner, IsOk());
    if (!runner.ok()) return {};
    EXPECT_THAT((*runner)->Train(), IsOk());
    return log.messages();
  }

  RunStart Start(const RunnerConfig& config) {
    auto start = CaptureRunStart(config, Options());
    EXPECT_THAT(start, IsOk());
    return *std::move(start);
  }

  io::CheckpointContents Read(const std::string& path) {
    auto contents = io::ReadCheckpoint(env_, path);
    EXPECT_THAT(contents, IsOk());
    return *std::move(contents);
  }

  void WriteFile(const std::function<void(io::PthWriter*)>& write) {
    auto writer = io::PthWriter::Create(env_, kFile);
    ASSERT_THAT(writer, IsOk());
    write(writer->get());
    ASSERT_THAT((*writer)->Finish(), IsOk());
  }

  absl::StatusOr<io::CheckpointContents> Import(
      const RunStart& start, const TrainingImportOptions& options = {}) {
    auto file = io::PthFile::Read(env_, kFile);
    EXPECT_THAT(file, IsOk());
    warnings_.clear();
    return ImportTraining(file->root(), start, options, &warnings_);
  }

  // Of an import that comes out well.
  RunState State(const io::CheckpointContents& contents) {
    auto state = ReadRunState(contents);
    EXPECT_THAT(state, IsOk());
    return *std::move(state);
  }

  void ExpectSame(const io::CheckpointContents& a,
                  const io::CheckpointContents& b) {
    ASSERT_EQ(a.sections.size(), b.sections.size());
    for (const auto& [name, tensors] : a.sections) {
      const TensorMap* const others = b.FindSection(name);
      ASSERT_NE(others, nullptr) << name;
      for (const NamedTensor& tensor : tensors) {
        const at::Tensor* const other = others->Find(tensor.name);
        ASSERT_NE(other, nullptr) << tensor.name;
        EXPECT_TRUE(ops::equal(tensor.tensor, *other))
            << name << " " << tensor.name;
      }
    }
  }

  io::MemEnv env_;
  FakeClock clock_;
  std::vector<std::string> warnings_;
};

TEST_F(TrainingPthTest, RunGoesOnAsIfItHadNotBeenMoved) {
  Train(Config(kAverage));
  const io::CheckpointContents last = Read("/run/epoch_4");
  ASSERT_THAT(WriteTrainingPth(env_, kFile, Read("/run/epoch_2"),
                               TrainingPthOptions(), &warnings_),
              IsOk());
  const RunStart start = Start(Config(kAverage));
  auto imported = Import(start);
  ASSERT_THAT(imported, IsOk());
  EXPECT_THAT(warnings_, ElementsAre(HasSubstr("generators")));
  ASSERT_THAT(io::WriteCheckpoint(env_, "/imported", "epoch_2", *imported),
              IsOk());

  RunnerConfig again = Config(kAverage);
  again.set_load_from("/imported/epoch_2");
  again.set_resume(true);
  again.set_work_dir("/again");
  EXPECT_THAT(Train(again), Each(Not(HasSubstr("resume: "))));
  ExpectSame(last, Read("/again/epoch_4"));
}

TEST_F(TrainingPthTest, StartIsThrownAway) {
  const RunStart start = Start(Config(kAverage));
  EXPECT_FALSE(env_.IsDirectory("/run"));
  EXPECT_THAT(start.parameters, ElementsAre("body.weight", "body.bias",
                                            "head.weight", "head.bias"));
  EXPECT_THAT(start.averages, ElementsAre("ema"));
  RunnerConfig evaluation = Config();
  evaluation.clear_train_cfg();
  EXPECT_THAT(CaptureRunStart(evaluation, Options()),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("train_cfg: must be set")));
}

// ---- Files of loops that somebody has written by hand ----

constexpr const char* kParams[] = {"body.weight", "body.bias", "head.weight",
                                   "head.bias"};

at::Tensor Param(absl::string_view name, double value) {
  if (name == "body.weight") return ops::full({3, 2}, value);
  if (name == "head.weight") return ops::full({1, 3}, value);
  return ops::full({name == "body.bias" ? 3 : 1}, value);
}

void StateDict(double value, const std::string& prefix, io::PthWriter* writer,
               int64_t averaged = 0) {
  writer->BeginOrderedDict();
  if (averaged > 0) {
    writer->String("n_averaged");
    writer->Tensor(ops::scalar_tensor(averaged, at::kLong));
  }
  for (const char* const name : kParams) {
    writer->String(absl::StrCat(prefix, name));
    writer->Tensor(Param(name, value));
  }
  writer->End();
}

// torch.optim.SGD's of the parameters from `first` on, with buffers of 1, 2, 3
// and 4.
void Sgd(double lr, io::PthWriter* writer, int first = 0, int count = 4) {
  writer->BeginDict();
  writer->String("state");
  writer->BeginDict();
  for (int i = 0; i < count; ++i) {
    writer->Int(i);
    writer->BeginDict();
    writer->String("momentum_buffer");
    writer->Tensor(Param(kParams[first + i], first + i + 1));
    writer->End();
  }
  writer->End();
  writer->String("param_groups");
  writer->BeginList();
  writer->BeginDict();
  for (const auto& [name, value] :
       {std::pair("lr", lr), std::pair("momentum", 0.9),
        std::pair("dampening", 0.0), std::pair("weight_decay", 0.0),
        std::pair("initial_lr", 0.1)}) {
    writer->String(name);
    writer->Float(value);
  }
  writer->String("params");
  writer->BeginList();
  for (int i = 0; i < count; ++i) writer->Int(i);
  writer->End();
  writer->End();
  writer->End();
  writer->End();
}

// torch.optim.lr_scheduler.StepLR's.
void StepLr(int64_t epoch, io::PthWriter* writer, double gamma = 0.5) {
  writer->BeginDict();
  writer->String("step_size");
  writer->Int(2);
  writer->String("gamma");
  writer->Float(gamma);
  writer->String("last_epoch");
  writer->Int(epoch);
  writer->End();
}

// {"model": ..., "optimizer": ..., ...}.
void Plain(std::vector<std::pair<std::string, int64_t>> counters,
           io::PthWriter* writer) {
  writer->BeginDict();
  writer->String("model");
  StateDict(5, "", writer);
  writer->String("optimizer");
  Sgd(0.05, writer);
  for (const auto& [name, value] : counters) {
    writer->String(name);
    writer->Int(value);
  }
  writer->End();
}

TEST_F(TrainingPthTest, PlainFileIsAllThatARunGoesOnFrom) {
  WriteFile([](io::PthWriter* writer) {
    writer->BeginDict();
    writer->String("epoch");
    writer->Int(2);
    writer->String("model_state_dict");
    StateDict(5, "", writer);
    writer->String("optimizer_state_dict");
    Sgd(0.05, writer);
    writer->String("scheduler");
    StepLr(2, writer);
    writer->String("swa");
    StateDict(7, "module.", writer, /*averaged=*/4);
    writer->End();
  });
  const RunStart start = Start(Config(kAverage));
  auto contents = Import(start);
  ASSERT_THAT(contents, IsOk());
  EXPECT_THAT(warnings_,
              ElementsAre(HasSubstr("epoch: 2 are taken to be done, which are "
                                    "6 iterations"),
                          HasSubstr("generators")));
  const io::v1::Progress& progress = contents->manifest().progress();
  EXPECT_EQ(progress.epoch(), 2);
  EXPECT_EQ(progress.iter(), 6);
  EXPECT_TRUE(ops::equal(*contents->FindSection("model")->Find("head.weight"),
                         ops::full({1, 3}, 5.0)));
  EXPECT_TRUE(ops::equal(*contents->FindSection("ema")->Find("head.weight"),
                         ops::full({1, 3}, 7.0)));
  EXPECT_TRUE(ops::equal(
      *contents->FindSection("optimizer")->Find("head.weight/momentum_buffer"),
      ops::full({1, 3}, 3.0)));
  const RunState state = State(*contents);
  ASSERT_EQ(state.param_schedulers_size(), 1);
  EXPECT_EQ(state.param_schedulers(0).global_step(), 2);
  EXPECT_EQ(state.param_schedulers(0).last_step(), 2);
  const auto& group = state.optim_wrapper().optimizer().groups(0);
  EXPECT_EQ(group.options().at("lr"), 0.05);
  EXPECT_EQ(group.configured().at("lr"), 0.1);
  std::optional<int64_t> steps;
  for (const auto& hook : state.hooks()) {
    hooks::v1::EMAHookState ema;
    if (hook.state().UnpackTo(&ema)) steps = ema.steps();
  }
  EXPECT_EQ(steps, 4);

  ASSERT_THAT(io::WriteCheckpoint(env_, "/imported", "epoch_2", *contents),
              IsOk());
  const std::vector<std::string> log = Train(Config(absl::StrCat(
      kAverage, " load_from: \"/imported/epoch_2\" resume: true")));
  EXPECT_THAT(log, Each(Not(HasSubstr("resume: "))));
  EXPECT_THAT(log, Contains(HasSubstr("resumed epoch: 2, iter: 6")));
  // The schedule has no step left.
  const RunState after = State(Read("/run/epoch_4"));
  EXPECT_EQ(after.optim_wrapper().optimizer().groups(0).options().at("lr"),
            0.05);
}

TEST_F(TrainingPthTest, LightningsFileIsByItsSteps) {
  WriteFile([](io::PthWriter* writer) {
    writer->BeginDict();
    writer->String("pytorch-lightning_version");
    writer->String("2.5.0");
    writer->String("epoch");  // The one that has ended, counted from 0.
    writer->Int(1);
    writer->String("global_step");
    writer->Int(6);
    writer->String("state_dict");
    StateDict(5, "model.", writer);
    writer->String("optimizer_states");
    writer->BeginList();
    Sgd(0.05, writer);
    writer->End();
    writer->String("lr_schedulers");
    writer->BeginList();
    StepLr(2, writer);
    writer->End();
    writer->End();
  });
  const RunStart start =
      Start(Config("load_options { rename { pattern: \"^model\\\\.\" } }"));
  auto contents = Import(start);
  ASSERT_THAT(contents, IsOk());
  EXPECT_THAT(warnings_, ElementsAre(HasSubstr("generators")));
  EXPECT_EQ(contents->manifest().progress().epoch(), 2);
  EXPECT_EQ(contents->manifest().progress().iter(), 6);
  EXPECT_EQ(State(*contents).param_schedulers_size(), 1);
  EXPECT_NE(
      contents->FindSection("optimizer")->Find("body.bias/momentum_buffer"),
      nullptr);
}

TEST_F(TrainingPthTest, OptimizersOfAListHaveTheirSchedulesInOrder) {
  WriteFile([](io::PthWriter* writer) {
    writer->BeginDict();
    writer->String("pytorch-lightning_version");
    writer->String("2.5.0");
    writer->String("epoch");
    writer->Int(1);
    writer->String("global_step");
    writer->Int(6);
    writer->String("state_dict");
    StateDict(5, "", writer);
    writer->String("optimizer_states");
    writer->BeginList();
    Sgd(0.05, writer, 0, 2);
    Sgd(0.05, writer, 2, 2);
    writer->End();
    writer->String("lr_schedulers");
    writer->BeginList();
    StepLr(2, writer);
    StepLr(2, writer, 0.25);
    writer->End();
    writer->End();
  });
  RunnerConfig config = Config();
  config.clear_optim_wrapper();
  config.clear_param_scheduler();
  config.MergeFrom(ParseConfig(R"pb(
    optim_wrapper {
      optimizers {
        name: "body"
        pattern: "^body"
        optimizer { sgd { lr: 0.1 momentum: 0.9 } }
        param_scheduler { step { step_size: 2 gamma: 0.5 } }
      }
      optimizers {
        name: "head"
        pattern: "^head"
        optimizer { sgd { lr: 0.1 momentum: 0.9 } }
        param_scheduler { step { step_size: 2 gamma: 0.5 } }
      }
    }
  )pb"));
  auto contents = Import(Start(config));
  ASSERT_THAT(contents, IsOk());
  EXPECT_THAT(warnings_, ElementsAre(HasSubstr("generators")));
  const RunState state = State(*contents);
  ASSERT_EQ(state.param_schedulers_size(), 2);
  EXPECT_THAT(state.param_schedulers(0).settings(), HasSubstr("gamma: 0.5"));
  EXPECT_THAT(state.param_schedulers(1).settings(), HasSubstr("gamma: 0.25"));
}

TEST_F(TrainingPthTest, ScheduleOfAnotherKindIsReplayed) {
  WriteFile([](io::PthWriter* writer) { Plain({{"epoch", 2}}, writer); });
  const RunStart start = Start(Config());
  auto contents = Import(start);
  ASSERT_THAT(contents, IsOk());
  EXPECT_THAT(warnings_, Contains(HasSubstr("param_scheduler[0]: the file has "
                                            "none of the kind")));
  EXPECT_EQ(State(*contents).param_schedulers_size(), 0);
}

TEST_F(TrainingPthTest, ScheduleThatTheRunDoesNotHaveIsSaid) {
  WriteFile([](io::PthWriter* writer) {
    writer->BeginDict();
    writer->String("model");
    StateDict(5, "", writer);
    writer->String("optimizer");
    Sgd(0.05, writer);
    writer->String("lr_schedulers");
    writer->BeginList();
    StepLr(2, writer);
    StepLr(2, writer);
    writer->End();
    writer->String("epoch");
    writer->Int(2);
    writer->End();
  });
  auto contents = Import(Start(Config()));
  ASSERT_THAT(contents, IsOk());
  EXPECT_THAT(warnings_, Contains("the file has 2 schedules, the run 1: what "
                                  "the others moved stays where it is"));
  EXPECT_EQ(State(*contents).param_schedulers_size(), 1);
}

TEST_F(TrainingPthTest, OptimizerCanBeLeft) {
  WriteFile([](io::PthWriter* writer) { Plain({{"epoch", 2}}, writer); });
  const RunStart start = Start(Config());
  TrainingImportOptions options;
  options.optimizer = false;
  auto contents = Import(start, options);
  ASSERT_THAT(contents, IsOk());
  EXPECT_FALSE(State(*contents).has_optim_wrapper());
  ASSERT_THAT(io::WriteCheckpoint(env_, "/imported", "epoch_2", *contents),
              IsOk());
  Train(Config("load_from: \"/imported/epoch_2\" resume: true"));
}

struct PlaceCase {
  std::string name;
  std::vector<std::pair<std::string, int64_t>> counters;
  int64_t epoch, iter, iter_in_epoch;
};

class TrainingPlaceTest : public TrainingPthTest,
                          public ::testing::WithParamInterface<PlaceCase> {};

TEST_P(TrainingPlaceTest, IsWhereTheFileSays) {
  WriteFile([](io::PthWriter* writer) { Plain(GetParam().counters, writer); });
  const RunStart start = Start(Config());
  auto contents = Import(start);
  ASSERT_THAT(contents, IsOk());
  const io::v1::Progress& progress = contents->manifest().progress();
  EXPECT_EQ(progress.epoch(), GetParam().epoch);
  EXPECT_EQ(progress.iter(), GetParam().iter);
  EXPECT_EQ(progress.iter_in_epoch(), GetParam().iter_in_epoch);
  // And a run goes on from there.
  ASSERT_THAT(io::WriteCheckpoint(env_, "/imported", "here", *contents),
              IsOk());
  Train(Config("load_from: \"/imported/here\" resume: true"));
}

INSTANTIATE_TEST_SUITE_P(
    Files, TrainingPlaceTest,
    ::testing::ValuesIn(std::vector<PlaceCase>{
        {"Epochs", {{"epoch", 2}}, 2, 6, 0},
        {"EpochThatHasEnded", {{"epoch", 1}, {"iter", 6}}, 2, 6, 0},
        {"EpochsDone", {{"epoch", 2}, {"iter", 6}}, 2, 6, 0},
        {"Iterations", {{"iteration", 6}}, 2, 6, 0},
        {"InsideAnEpoch", {{"epoch", 2}, {"iter", 7}}, 2, 7, 1},
        {"OtherLength", {{"epoch", 2}, {"iter", 20}}, 2, 20, 0}}),
    [](const auto& info) { return info.param.name; });

TEST_F(TrainingPthTest, PlaceThatIsGivenCounts) {
  WriteFile([](io::PthWriter* writer) {
    Plain({{"epoch", 2}, {"iter", 6}}, writer);
  });
  const RunStart start = Start(Config());
  const struct {
    std::optional<int64_t> given_epoch, given_iter;
    int64_t epoch, iter, iter_in_epoch;
  } kCases[] = {{1, std::nullopt, 1, 3, 0},
                {std::nullopt, 4, 1, 4, 1},
                {1, 5, 1, 5, 2},
                {4, std::nullopt, 4, 12, 0}};
  for (const auto& c : kCases) {
    TrainingImportOptions options;
    options.epoch = c.given_epoch;
    options.iter = c.given_iter;
    const auto contents = Import(start, options);
    ASSERT_THAT(contents, IsOk());
    const io::v1::Progress& progress = contents->manifest().progress();
    EXPECT_EQ(progress.epoch(), c.epoch);
    EXPECT_EQ(progress.iter(), c.iter);
    EXPECT_EQ(progress.iter_in_epoch(), c.iter_in_epoch);
  }
}

TEST_F(TrainingPthTest, PlaceThatIsGivenMustBeOneOfTheRun) {
  WriteFile([](io::PthWriter* writer) {
    Plain({{"epoch", 2}, {"iter", 6}}, writer);
  });
  const RunStart start = Start(Config());
  RunnerConfig iters = Config();
  iters.clear_param_scheduler();
  iters.clear_default_hooks();
  iters.mutable_train_cfg()->clear_max_epochs();
  iters.mutable_train_cfg()->set_by_epoch(false);
  iters.mutable_train_cfg()->set_max_iters(12);
  const RunStart by_iter = Start(iters);
  const struct {
    const RunStart& start;
    std::optional<int64_t> epoch, iter;
    const char* message;
  } kCases[] = {
      {start, 4, 6, "epoch, iter: 6 iterations are 2 epochs of 3, not 4"},
      {start, 1, 6, "epoch, iter: 6 iterations are 2 epochs of 3, not 1"},
      {start, 5, std::nullopt,
       "epoch: 5 with 15 iterations is beyond "
       "max_epochs, 4"},
      {start, std::nullopt, 13, "epoch: 4 with 13 iterations is beyond"},
      {by_iter, std::nullopt, 13, "iter: 13 is beyond max_iters, 12"}};
  for (const auto& c : kCases) {
    TrainingImportOptions options;
    options.epoch = c.epoch;
    options.iter = c.iter;
    EXPECT_THAT(
        Import(c.start, options),
        StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(c.message)));
  }
}

TEST_F(TrainingPthTest, FileFromBeyondTheEndIsTakenWithAWarning) {
  WriteFile([](io::PthWriter* writer) { Plain({{"epoch", 99}}, writer); });
  ASSERT_THAT(Import(Start(Config())), IsOk());
  EXPECT_THAT(
      warnings_,
      Contains("epoch: 99 with 297 iterations is beyond max_epochs, 4"));
}

struct BadCase {
  std::string name;
  std::function<void(io::PthWriter*)> write;
  std::string message;
};

class BadTrainingTest : public TrainingPthTest,
                        public ::testing::WithParamInterface<BadCase> {};

TEST_P(BadTrainingTest, IsRefused) {
  WriteFile(GetParam().write);
  const RunStart start = Start(Config());
  EXPECT_THAT(Import(start), StatusIs(absl::StatusCode::kInvalidArgument,
                                      HasSubstr(GetParam().message)));
}

INSTANTIATE_TEST_SUITE_P(
    Files, BadTrainingTest,
    ::testing::ValuesIn(std::vector<BadCase>{
        {"WeightsAlone",
         [](io::PthWriter* writer) { StateDict(1, "", writer); },
         "it holds weights alone"},
        {"NoWeights",
         [](io::PthWriter* writer) {
           writer->BeginDict();
           writer->String("epoch");
           writer->Int(1);
           writer->End();
         },
         "there are no weights"},
        {"OtherNames",
         [](io::PthWriter* writer) {
           writer->BeginDict();
           writer->String("model");
           StateDict(1, "net.", writer);
           writer->End();
         },
         "lacks 4 of the model's 4 tensors, the first is \"body.weight\"; "
         "its own first one is \"net.body.weight\""},
        {"SeveralOptimizers",
         [](io::PthWriter* writer) {
           writer->BeginDict();
           writer->String("model");
           StateDict(1, "", writer);
           writer->String("optimizer");
           writer->BeginDict();
           for (const char* const name : {"critic", "generator"}) {
             writer->String(name);
             Sgd(0.05, writer);
           }
           writer->End();
           writer->End();
         },
         "optimizer: the file has several, \"critic\", \"generator\", and the "
         "run has one"},
        {"SeveralOptimizersInAList",
         [](io::PthWriter* writer) {
           writer->BeginDict();
           writer->String("state_dict");
           StateDict(1, "", writer);
           writer->String("optimizer_states");
           writer->BeginList();
           Sgd(0.05, writer);
           Sgd(0.05, writer);
           writer->End();
           writer->End();
         },
         "optimizer: the file has several, 2 in a list, and the run has one"},
        {"NoCounters", [](io::PthWriter* writer) { Plain({}, writer); },
         "epoch, iter: the file says neither"},
        {"NoEpochIsDone",
         [](io::PthWriter* writer) {
           Plain({{"epoch", 0}, {"iter", 7}}, writer);
         },
         "epoch: is 0 after 7 iterations, and an epoch has 3"},
        {"MoreEpochsThanIterations",
         [](io::PthWriter* writer) {
           Plain({{"epoch", 9}, {"iter", 7}}, writer);
         },
         "epoch: is 9 after 7 iterations"}}),
    [](const auto& info) { return info.param.name; });

TEST_F(TrainingPthTest, FileSaysWhatMMEngineHasNoPlaceFor) {
  Train(Config());
  ASSERT_THAT(WriteTrainingPth(env_, kFile, Read("/run/epoch_2"),
                               TrainingPthOptions(), &warnings_),
              IsOk());
  EXPECT_THAT(warnings_, ElementsAre(HasSubstr("generators")));
  // Not of a run.
  io::CheckpointContents weights;
  weights.sections.emplace_back("model", TensorMap());
  EXPECT_THAT(
      WriteTrainingPth(env_, kFile, weights, TrainingPthOptions(), &warnings_),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("of no run")));
}

}  // namespace
}  // namespace grapnel
