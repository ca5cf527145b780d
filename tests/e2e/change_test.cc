// A run that goes on with something changed: epochs of another length, other
// rates, other groups, other windows. The expected numbers are worked out by
// hand from what the settings mean; rates are rounded to 4 digits.

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "grapnel/base/fake_clock.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/data/tensor_dataset.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/env.h"
#include "grapnel/io/mem_env.h"
#include "grapnel/loggers/memory_run_log.h"
#include "grapnel/models/log_vars.h"
#include "grapnel/models/model.h"
#include "grapnel/optim/optim_wrapper.h"
#include "grapnel/runner/hook.h"
#include "grapnel/runner/message_hub.h"
#include "grapnel/runner/parse_config_for_test.h"
#include "grapnel/runner/run_context.h"
#include "grapnel/runner/run_state.pb.h"
#include "grapnel/runner/runner.h"
#include "grapnel/runner/runner_config.pb.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::IsSupersetOf;
using ::testing::Not;
using ::testing::SizeIs;

// Called before and after each training iteration.
class Watch : public Hook {
 public:
  explicit Watch(std::function<void(RunContext&)> before)
      : before_(std::move(before)) {}
  absl::string_view name() const override { return "watch"; }
  Priority priority() const override { return Priority::kLowest; }
  absl::Status BeforeTrainIter(RunContext& run, const IterInfo&) override {
    before_(run);
    return absl::OkStatus();
  }

 private:
  const std::function<void(RunContext&)> before_;
};

// The iterations after which a step was made.
class Steps : public Hook {
 public:
  explicit Steps(std::vector<int64_t>* steps) : steps_(steps) {}
  absl::string_view name() const override { return "steps"; }
  absl::Status AfterOptimizerStep(RunContext& run, const StepResult&) override {
    steps_->push_back(run.iter() + 1);
    return absl::OkStatus();
  }

 private:
  std::vector<int64_t>* const steps_;
};

// body.weight and head.weight; either can be frozen.
class BodyAndHead : public Model {
 public:
  explicit BodyAndHead(bool body = true, bool head = true) {
    parameters_ = {{"body.weight", ops::ones({2, 2}).requires_grad_(body)},
                   {"head.weight", ops::ones({2, 1}).requires_grad_(head)}};
  }
  absl::Status ComputeLosses(const Batch& batch, LogVars* losses) override {
    losses->Add("loss", Outputs(batch).sub(batch.targets).square().mean());
    return absl::OkStatus();
  }
  absl::Status ValStep(const Batch& batch, Predictions* predictions) override {
    predictions->outputs = Outputs(batch);
    return absl::OkStatus();
  }
  const std::vector<NamedTensor>& parameters() const override {
    return parameters_;
  }
  const std::vector<NamedTensor>& buffers() const override { return buffers_; }
  void SetTraining(bool training) override { training_ = training; }
  bool training() const override { return training_; }

 private:
  at::Tensor Outputs(const Batch& batch) const {
    return batch.inputs.matmul(parameters_[0].tensor)
        .matmul(parameters_[1].tensor);
  }

  std::vector<NamedTensor> parameters_, buffers_;
  bool training_ = true;
};

std::vector<double> Rounded(std::vector<double> values) {
  for (double& value : values) value = std::round(value * 1e4) / 1e4;
  return values;
}

class ChangeTest : public ::testing::Test {
 protected:
  // Trains to the end, in /run if the config doesn't say, and notes what comes.
  // Parts of the config behind "&&" overrule what stands before.
  absl::StatusOr<std::unique_ptr<Runner>> Run(
      const std::string& config, int64_t samples,
      std::unique_ptr<Model> model = nullptr) {
    rates_.clear();
    base_rates_.clear();
    steps_.clear();
    log_ = std::make_unique<MemoryRunLog>();
    runner::v1::RunnerConfig parsed =
        ParseConfig("work_dir: '/run' randomness { seed: 1 }");
    for (const absl::string_view part : absl::StrSplit(config, "&&")) {
      parsed.MergeFrom(ParseConfig(std::string(part)));
    }
    RunnerOptions options;
    options.env = &env_;
    options.clock = &clock_;
    options.log = log_.get();
    if (model == nullptr && !parsed.has_model()) {
      model = std::make_unique<BodyAndHead>();
    }
    options.model = std::move(model);
    const at::Tensor inputs =
        ops::linspace(-1, 1, samples * 2).reshape({samples, 2});
    const auto data = [&](bool wanted, std::unique_ptr<Dataset>* dataset) {
      if (!wanted) return;
      auto tensors = TensorDataset::Create(inputs, inputs.sum(1, true));
      EXPECT_THAT(tensors, IsOk());
      *dataset = *std::move(tensors);
    };
    data(true, &options.train_dataset);
    data(parsed.has_val_dataloader(), &options.val_dataset);
    options.hooks.push_back(
        Schedule(std::make_unique<Watch>([this](RunContext& run) {
          const auto& lrs = run.optim_wrapper()->logged_lrs();
          rates_.push_back(*lrs.back().second);
          base_rates_.push_back(*lrs.front().second);
        })));
    options.hooks.push_back(Schedule(std::make_unique<Steps>(&steps_)));
    GRAPNEL_ASSIGN_OR_RETURN(std::unique_ptr<Runner> runner,
                             Runner::Create(parsed, std::move(options)));
    GRAPNEL_RETURN_IF_ERROR(runner->Train());
    return runner;
  }

  std::unique_ptr<Runner> MustRun(const std::string& config, int64_t samples,
                                  std::unique_ptr<Model> model = nullptr) {
    auto runner = Run(config, samples, std::move(model));
    EXPECT_THAT(runner, IsOk());
    return runner.ok() ? *std::move(runner) : nullptr;
  }

  static std::string From(const std::string& checkpoint) {
    return absl::StrCat(" resume: true load_from: '/run/", checkpoint,
                        "' work_dir: '/resumed' ");
  }

  std::vector<std::string> Checkpoints(const std::string& dir) {
    std::vector<std::string> names;
    const auto all = env_.ListDir(dir);
    EXPECT_THAT(all, IsOk());
    for (const std::string& name : *all) {
      if (io::ReadManifest(env_, io::JoinPath(dir, name)).ok()) {
        names.push_back(name);
      }
    }
    return names;
  }

  // Of the run's log, those that begin with "resume: ".
  std::vector<std::string> Warnings() {
    std::vector<std::string> warnings;
    for (const std::string& line : log_->messages()) {
      if (absl::StrContains(line, "resume: ")) warnings.push_back(line);
    }
    return warnings;
  }

  io::MemEnv env_;
  FakeClock clock_;
  std::unique_ptr<MemoryRunLog> log_;  // Of the last run.
  std::vector<double> rates_, base_rates_;
  std::vector<int64_t> steps_;
};

std::string Batches(int64_t batch_size) {
  return absl::StrCat(" train_dataloader { batch_size: ", batch_size, " } ");
}

const char kLine[] = R"pb(
  train_cfg { max_epochs: 4 }
  optim_wrapper { optimizer { sgd { lr: 0.5 } } }
  default_hooks { checkpoint { interval: 1 } }
)pb";
const char kConverted[] =
    " param_scheduler { linear { start_factor: 1 end_factor: 0 "
    "convert_to_iter_based: true } } ";
const char kByIter[] =
    " param_scheduler { linear { start_factor: 1 end_factor: 0 "
    "by_epoch: false } } ";

// ---- R1 to R3: epochs of another length ----

// 24 samples: 6 batches of 4, 3 of 8, 12 of 2.
TEST_F(ChangeTest, AConvertedScheduleStandsAtTheSameEpoch) {
  MustRun(absl::StrCat(kLine, kConverted, Batches(4)), 24);
  EXPECT_EQ(rates_.size(), 24u);
  MustRun(absl::StrCat(kLine, kConverted, Batches(8), From("epoch_2")), 24);
  EXPECT_THAT(Rounded(rates_),
              ElementsAre(0.2273, 0.1818, 0.1364, 0.0909, 0.0455, 0));
  MustRun(absl::StrCat(kLine, kConverted, Batches(2), From("epoch_2")), 24);
  ASSERT_EQ(rates_.size(), 24u);
  EXPECT_NEAR(rates_[0], 0.2447, 5e-5);
  EXPECT_NEAR(rates_[1], 0.2340, 5e-5);
  EXPECT_NEAR(rates_[22], 0.0106, 5e-5);
  EXPECT_NEAR(rates_[23], 0, 1e-12);
}

TEST_F(ChangeTest, MoreSamplesAreLongerEpochs) {
  MustRun(absl::StrCat(kLine, kConverted, Batches(4)), 40);
  const auto runner =
      MustRun(absl::StrCat(kLine, kConverted, Batches(4), From("epoch_2")), 52);
  EXPECT_EQ(runner->context().max_iters(), 46);
  ASSERT_EQ(rates_.size(), 26u);
  EXPECT_NEAR(rates_[0], 0.2451, 5e-5);
  EXPECT_NEAR(rates_[1], 0.2353, 5e-5);
  EXPECT_NEAR(rates_[25], 0, 1e-12);
}

TEST_F(ChangeTest, AScheduleByIterationWithoutAnEndEndsWithTheRun) {
  MustRun(absl::StrCat(kLine, kByIter, Batches(4)), 24);
  MustRun(absl::StrCat(kLine, kByIter, Batches(8), From("epoch_2")), 24);
  EXPECT_THAT(Rounded(rates_),
              ElementsAre(0.1471, 0.1176, 0.0882, 0.0588, 0.0294, 0));
  EXPECT_THAT(Warnings(), Contains(HasSubstr("linear: end: 24 -> 18: replayed "
                                             "lr with the new settings")));
}

TEST_F(ChangeTest, AScheduleOfLiteralIterationsGoesOn) {
  const std::string literal =
      " param_scheduler { linear { start_factor: 1 end_factor: 0 end: 24 "
      "by_epoch: false } } ";
  MustRun(absl::StrCat(kLine, literal, Batches(4)), 24);
  const std::vector<double> whole = rates_;
  MustRun(absl::StrCat(kLine, literal, Batches(8), From("epoch_2")), 24);
  EXPECT_THAT(Rounded(rates_),
              ElementsAre(0.2391, 0.2174, 0.1957, 0.1739, 0.1522, 0.1304));
  EXPECT_EQ(rates_[0], whole[12]);  // Its bits.
  EXPECT_THAT(Warnings(),
              Contains(HasSubstr("param_scheduler[0]: its end, 24, lies "
                                 "beyond 18, the end of the run")));
}

TEST_F(ChangeTest, LengthsMayChangeMoreThanOnce) {
  MustRun(absl::StrCat(kLine, kConverted, Batches(4)), 24);
  MustRun(absl::StrCat(kLine, kConverted, Batches(8), From("epoch_2")), 24);
  const auto runner =
      MustRun(absl::StrCat(kLine, kConverted, Batches(4),
                           " resume: true load_from: '/resumed/epoch_3' "
                           "work_dir: '/third'"),
              24);
  EXPECT_EQ(runner->context().max_iters(), 21);
  EXPECT_EQ(rates_.size(), 6u);
  EXPECT_NEAR(rates_[0], 0.5 * (1 - 18.0 / 23), 1e-12);
}

// The epoch's last iteration is saved, its end isn't.
TEST_F(ChangeTest, TheLastIterationOfAnEpochIsABorderToo) {
  const std::string by_iter =
      "&& default_hooks { checkpoint { by_epoch: false interval: 4 } } "
      "val_dataloader { batch_size: 8 } val_evaluator { mse {} } ";
  MustRun(absl::StrCat(kLine, kConverted, Batches(4), by_iter), 24);
  const std::string resumed =
      absl::StrCat(kLine, kConverted, Batches(8), by_iter);
  const auto runner = MustRun(absl::StrCat(resumed, From("iter_12")), 24);
  EXPECT_EQ(runner->context().max_iters(), 18);
  EXPECT_EQ(runner->context().epoch(), 4);
  EXPECT_THAT(Rounded(rates_),
              ElementsAre(0.2273, 0.1818, 0.1364, 0.0909, 0.0455, 0));
  // Three epochs ended here: the second, the third and the fourth.
  int validations = 0;
  for (const std::string& line : log_->messages()) {
    validations += absl::StrContains(line, "Epoch(val)") &&
                   absl::StrContains(line, "mse:");
  }
  EXPECT_EQ(validations, 3);
}

// Killed in the second of 4 epochs of 6: 16 samples are left, 2 batches of 8;
// the schedule stands where those are left of it.
TEST_F(ChangeTest, ABatchSizeMayChangeInsideAnEpoch) {
  const std::string by_iter =
      "&& default_hooks { checkpoint { by_epoch: false interval: 1 } } ";
  MustRun(absl::StrCat(kLine, kConverted, Batches(4), by_iter), 24);
  const auto runner = MustRun(
      absl::StrCat(kLine, kConverted, Batches(8), by_iter, From("iter_8")), 24);
  EXPECT_EQ(runner->context().max_iters(), 8 + 2 + 2 * 3);
  // Steps 4 to 11 of 12.
  EXPECT_THAT(Rounded(rates_), ElementsAre(0.3182, 0.2727, 0.2273, 0.1818,
                                           0.1364, 0.0909, 0.0455, 0));
  EXPECT_THAT(Warnings(),
              Contains(HasSubstr("had 24 samples in 6 batches of 4, in order; "
                                 "this one has 24 samples in 3 batches of 8")));
  // A schedule whose epochs are counted keeps to their number.
  const std::string stepped = " param_scheduler { step { step_size: 1 } } ";
  MustRun(absl::StrCat(kLine, stepped, Batches(4), by_iter), 24);
  MustRun(absl::StrCat(kLine, stepped, Batches(8), by_iter, From("iter_8")),
          24);
  EXPECT_THAT(Rounded(rates_),
              ElementsAre(0.05, 0.05, 0.005, 0.005, 0.005, 5e-4, 5e-4, 5e-4));
}

TEST_F(ChangeTest, OfOtherDataItIsRefusedAndTheNearestBorderIsNamed) {
  const std::string by_iter =
      "&& default_hooks { checkpoint { by_epoch: false interval: 1 } } ";
  MustRun(absl::StrCat(kLine, Batches(4), by_iter), 24);
  for (const auto& [from, border] :
       {std::pair("iter_8", "/run/iter_6"), {"iter_10", "/run/iter_12"}}) {
    EXPECT_THAT(
        Run(absl::StrCat(kLine, Batches(8), From(from)), 32),
        StatusIs(absl::StatusCode::kFailedPrecondition,
                 HasSubstr(absl::StrCat(
                     "; the nearest one where it may change is ", border))));
  }
}

// 10 samples are passes of 5 batches of 2; 4 passes are iteration 20.
TEST_F(ChangeTest, ByIterationAPassIsABorder) {
  const std::string config =
      "train_cfg { by_epoch: false max_iters: 30 } "
      "optim_wrapper { optimizer { sgd { lr: 0.5 } } } "
      "default_hooks { checkpoint { by_epoch: false interval: 1 } } ";
  for (const char* sampler : {"",
                              "&& train_dataloader { sampler { type: "
                              "INFINITE } } "}) {
    MustRun(absl::StrCat(config, kByIter, Batches(2), sampler), 10);
    const auto runner = MustRun(
        absl::StrCat(config, kByIter, Batches(5), sampler, From("iter_20")),
        10);
    EXPECT_EQ(runner->context().iter(), 30);
    EXPECT_NEAR(rates_[0], 0.5 * (1 - 20.0 / 29), 1e-12);
    EXPECT_THAT(
        Run(absl::StrCat(config, Batches(5), sampler, From("iter_22")), 12),
        StatusIs(absl::StatusCode::kFailedPrecondition,
                 HasSubstr("/run/iter_20")));
  }
}

TEST_F(ChangeTest, MoreEpochsAreLeftInTheNewLength) {
  MustRun(absl::StrCat(kLine, Batches(4)), 24);
  const auto runner = MustRun(absl::StrCat(kLine, Batches(8), From("epoch_4"),
                                           "&& train_cfg { max_epochs: 6 }"),
                              24);
  EXPECT_EQ(runner->context().iter(), 30);
  EXPECT_EQ(runner->context().max_iters(), 30);
}

// ---- R4 and R5 ----

const char kAccumulating[] = R"pb(
  train_cfg { max_epochs: 4 }
  optim_wrapper {
    optimizer { sgd { lr: 0.1 } }
    accumulative_counts: 4
  }
  default_hooks { checkpoint { interval: 1 } }
)pb";

TEST_F(ChangeTest, TheLastAccumulationWindowEndsWithTheRun) {
  MustRun(absl::StrCat(kAccumulating, Batches(4)), 24);
  EXPECT_THAT(steps_, ElementsAre(4, 8, 12, 16, 20, 24));
  MustRun(absl::StrCat(kAccumulating, Batches(24), From("epoch_2")), 24);
  EXPECT_THAT(steps_, ElementsAre(14));
}

TEST_F(ChangeTest, AHalfFilledWindowGoesOn) {
  MustRun(absl::StrCat(kAccumulating, Batches(3)), 15);
  MustRun(absl::StrCat(kAccumulating, Batches(5), From("epoch_2"),
                       "&& default_hooks { checkpoint { by_epoch: "
                       "false interval: 5 } }"),
          15);
  EXPECT_THAT(steps_, ElementsAre(12, 16));
  // The interval counts iterations, and save_last the end.
  EXPECT_THAT(Checkpoints("/resumed"), ElementsAre("iter_15", "iter_16"));
}

// Gradients of 2 of 8 that wait are of 2 of 3 then.
TEST_F(ChangeTest, AHalfFilledWindowOfAnotherSizeGoesOn) {
  const auto config = [](int counts, const std::string& more) {
    return absl::StrCat(
        "train_cfg { by_epoch: false max_iters: 16 } ", Batches(3),
        "optim_wrapper { optimizer { sgd { lr: 0.1 } } accumulative_counts: ",
        counts,
        " } default_hooks { checkpoint { by_epoch: false interval: 1 } } ",
        more);
  };
  MustRun(config(8, ""), 15);
  MustRun(config(3, From("iter_2")), 15);
  EXPECT_THAT(steps_, ElementsAre(3, 6, 9, 12, 15, 16));
  MustRun(config(3, From("iter_6")), 15);
  // It held 6 already.
  EXPECT_THAT(steps_, ElementsAre(7, 10, 13, 16));
}

TEST_F(ChangeTest, AFinishedRunWritesNothing) {
  for (const std::string& count :
       {std::string("train_cfg { max_epochs: 2 } "),
        std::string("train_cfg { by_epoch: false max_iters: 12 } ")}) {
    const std::string config = absl::StrCat(
        count, Batches(4),
        "optim_wrapper { optimizer { sgd { lr: 0.1 } } } "
        "default_hooks { checkpoint { published_keys: 'model' } } ");
    MustRun(config, 24);
    const std::vector<std::string> names = Checkpoints("/run");
    std::vector<std::string> uuids, again;
    for (const std::string& name : names) {
      uuids.push_back(io::ReadManifest(env_, io::JoinPath("/run", name))
                          ->checkpoint_uuid());
    }
    MustRun(absl::StrCat(config, "resume: true"), 24);
    EXPECT_THAT(rates_, IsEmpty());
    EXPECT_EQ(Checkpoints("/run"), names);
    for (const std::string& name : names) {
      again.push_back(io::ReadManifest(env_, io::JoinPath("/run", name))
                          ->checkpoint_uuid());
    }
    EXPECT_EQ(again, uuids);
    ASSERT_THAT(io::DeleteRecursively(env_, "/run"), IsOk());
  }
}

// Early stopping stops the resumed run at once, too.
TEST_F(ChangeTest, AStoppedRunWritesNothingEither) {
  for (const std::string& count :
       {std::string("train_cfg { max_epochs: 9 } "),
        std::string("train_cfg { by_epoch: false max_iters: 90 val_interval: "
                    "6 } ")}) {
    const std::string config = absl::StrCat(
        count, Batches(4),
        "optim_wrapper { optimizer { sgd { lr: 0 } } } val_dataloader { "
        "batch_size: 8 } val_evaluator { mse {} } custom_hooks { config { "
        "[type.googleapis.com/grapnel.hooks.v1.EarlyStoppingHookConfig] { "
        "monitor: 'mse' rule: 'less' patience: 1 } } } ");
    MustRun(config, 24);
    ASSERT_EQ(rates_.size(), 12u);
    const std::vector<std::string> names = Checkpoints("/run");
    ASSERT_THAT(names, SizeIs(1));
    const std::string path = io::JoinPath("/run", names[0]);
    const std::string uuid = io::ReadManifest(env_, path)->checkpoint_uuid();
    MustRun(absl::StrCat(config, "resume: true"), 24);
    EXPECT_THAT(rates_, IsEmpty());
    EXPECT_EQ(Checkpoints("/run"), names);
    EXPECT_EQ(io::ReadManifest(env_, path)->checkpoint_uuid(), uuid);
    ASSERT_THAT(io::DeleteRecursively(env_, "/run"), IsOk());
  }
}

TEST_F(ChangeTest, ABeginBehindAShortenedEndIsAWarning) {
  const std::string average =
      " custom_hooks { config { [type.googleapis.com/grapnel.hooks.v1."
      "EMAHookConfig] { begin_iter: 20 } } } ";
  MustRun(absl::StrCat(kLine, average, Batches(4)), 24);
  MustRun(absl::StrCat(kLine, average, Batches(8), From("epoch_2")), 24);
  EXPECT_THAT(log_->messages(),
              Contains(HasSubstr("begin_iter: must be at most the run's 18 "
                                 "iterations, is 20")));
  EXPECT_THAT(
      Run(absl::StrCat(kLine, average, Batches(8)), 24),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("begin_iter")));
}

// ---- Settings of the optimizer ----

std::string Sgd(const std::string& settings, const std::string& more = "") {
  return absl::StrCat("train_cfg { max_epochs: 4 } ", Batches(4),
                      "optim_wrapper { optimizer { sgd { ", settings, " } } ",
                      more, " } default_hooks { checkpoint { interval: 1 } } ");
}

TEST_F(ChangeTest, ARateThatNothingSchedulesIsTheNewOne) {
  MustRun(Sgd("lr: 0.1"), 4);
  MustRun(Sgd("lr: 0.01") + From("epoch_2"), 4);
  EXPECT_THAT(rates_, ElementsAre(0.01, 0.01));
  EXPECT_THAT(Warnings(),
              ElementsAre(HasSubstr("optim_wrapper: lr: 0.1 -> 0.01")));
}

TEST_F(ChangeTest, NothingChangedSaysNothing) {
  MustRun(Sgd("lr: 0.1"), 4);
  MustRun(Sgd("lr: 0.1") + From("epoch_2"), 4);
  EXPECT_THAT(rates_, ElementsAre(0.1, 0.1));
  EXPECT_THAT(Warnings(), IsEmpty());
}

TEST_F(ChangeTest, AScheduledRateIsReplayedFromTheNewOne) {
  const std::string cosine =
      " param_scheduler { cosine_annealing { t_max: 4 eta_min: 0.02 } } ";
  MustRun(Sgd("lr: 0.1") + cosine, 4);
  EXPECT_NEAR(rates_[2], 0.06, 1e-12);
  MustRun(Sgd("lr: 0.05") + cosine + From("epoch_2"), 4);
  EXPECT_THAT(Rounded(rates_), ElementsAre(0.035, 0.0244));

  const std::string step =
      " param_scheduler { step { step_size: 2 gamma: 0.1 } } ";
  MustRun(Sgd("lr: 0.1") + step, 4);
  MustRun(Sgd("lr: 0.05") + step + From("epoch_2"), 4);
  EXPECT_NEAR(rates_[0], 0.005, 1e-15);
}

TEST_F(ChangeTest, TheBatchSizeScalesTheRate) {
  const std::string scaled =
      " auto_scale_lr { enable: true base_batch_size: 4 } ";
  MustRun(absl::StrCat(kLine, kConverted, Batches(4), scaled), 24);
  MustRun(absl::StrCat(kLine, kConverted, Batches(8), scaled, From("epoch_2")),
          24);
  EXPECT_THAT(Rounded(rates_),
              ElementsAre(0.4545, 0.3636, 0.2727, 0.1818, 0.0909, 0));
}

// A checkpoint of before it said what was configured: its config says it.
TEST_F(ChangeTest, OldCheckpointsAreUnderstoodByTheirConfig) {
  MustRun(Sgd("lr: 0.1"), 4);
  auto contents = io::ReadCheckpoint(env_, "/run/epoch_2");
  ASSERT_THAT(contents, IsOk());
  for (auto& [name, blob] : contents->blobs) {
    if (name != "state") continue;
    runner::v1::RunState state;
    ASSERT_TRUE(state.ParseFromString(blob));
    auto& optimizer = *state.mutable_optim_wrapper()->mutable_optimizer();
    optimizer.mutable_groups(0)->clear_configured();
    optimizer.mutable_groups(0)->clear_slots();
    blob = state.SerializeAsString();
  }
  contents->manifest().mutable_progress()->clear_epoch_lengths();
  ASSERT_THAT(io::WriteCheckpoint(env_, "/run", "old", *contents), IsOk());
  MustRun(Sgd("lr: 0.01") + From("old"), 4);
  EXPECT_THAT(rates_, ElementsAre(0.01, 0.01));
  MustRun(Sgd("lr: 0.1") + From("old"), 4);
  EXPECT_THAT(Warnings(), IsEmpty());

  contents->manifest().set_config("of another world");
  ASSERT_THAT(io::WriteCheckpoint(env_, "/run", "strange", *contents), IsOk());
  MustRun(Sgd("lr: 0.01") + From("strange"), 4);
  EXPECT_THAT(rates_, ElementsAre(0.1, 0.1));
  EXPECT_THAT(Warnings(), ElementsAre(HasSubstr("isn't known")));
}

TEST_F(ChangeTest, APeakRateIsNotScaledAndSaysSo) {
  MustRun(Sgd("lr: 0.1") +
              "auto_scale_lr { enable: true base_batch_size: 2 } "
              "param_scheduler { one_cycle { eta_max: 1 pct_start: 0.5 } } ",
          4);
  EXPECT_THAT(log_->messages(), Contains(HasSubstr("auto_scale_lr doesn't")));
  EXPECT_DOUBLE_EQ(*std::max_element(rates_.begin(), rates_.end()), 1);
}

// The validation after iteration 4 halves the rate between steps of a schedule
// towards a floor: 0.2 is 0.05 + 0.15 * 4 / 7 by then.
TEST_F(ChangeTest, WhatAMetricMovedIsMovedAgainWhereItWas) {
  const auto config = [](const char* lr, const std::string& more) {
    return absl::StrCat(
        "train_cfg { by_epoch: false max_iters: 8 val_interval: 4 } ",
        Batches(4), "optim_wrapper { optimizer { sgd { lr: ", lr,
        " } } } val_dataloader { batch_size: 8 } val_evaluator { mse {} } "
        "param_scheduler { poly { eta_min: 0.05 by_epoch: false } } "
        "param_scheduler { reduce_on_plateau { monitor: 'mse' rule: 'greater' "
        "threshold_rule: 'abs' threshold: 1e9 patience: 0 factor: 0.5 } } "
        "default_hooks { checkpoint { by_epoch: false interval: 1 } } ",
        more);
  };
  // The first value is the best so far, whatever the threshold: let there be
  // one before.
  MustRun(config("0.1", "&& train_cfg { val_interval: 2 }"), 24);
  const double moved = rates_[5];
  MustRun(config("0.1", "&& train_cfg { val_interval: 2 }" + From("iter_5")),
          24);
  EXPECT_EQ(rates_[0], moved);  // Nothing changed.
  MustRun(config("0.2", "&& train_cfg { val_interval: 2 }" + From("iter_5")),
          24);
  // 0.2 at 0, 0.05 + 0.15 * 3 / 7 at 4, halved there, one step of poly.
  const double at_4 = 0.05 + 0.15 * 3 / 7;
  EXPECT_NEAR(rates_[0], (at_4 / 2 - 0.05) * (1 - 1.0 / 3) + 0.05, 1e-12);
}

constexpr char kBodyMult[] =
    "paramwise_cfg { rules { pattern: 'body' lr_mult: %s } "
    "rules { pattern: 'head' lr_mult: 0.5 } }";

TEST_F(ChangeTest, AMultiplierConcernsItsGroupAlone) {
  const std::string cosine =
      " param_scheduler { cosine_annealing { t_max: 4 } } ";
  const auto paramwise = [](const char* mult) {
    return absl::StrFormat(kBodyMult, mult);
  };
  MustRun(Sgd("lr: 0.1", paramwise("0")) + cosine, 4);
  const auto runner =
      MustRun(Sgd("lr: 0.1", paramwise("1")) + cosine + From("epoch_2"), 4);
  // The first group is the body, at half of a cosine.
  EXPECT_NEAR(rates_[0], 0.05, 1e-12);
  EXPECT_NEAR(base_rates_[0], 0.05, 1e-12);
  EXPECT_THAT(
      Warnings(),
      ElementsAre(HasSubstr("lr of group 0 (\"body.weight\"): 0 -> 0.1")));
  // What the head had come to is untouched: the run that was not changed.
  const auto same =
      MustRun(Sgd("lr: 0.1", paramwise("0")) + cosine + From("epoch_2"), 4);
  EXPECT_EQ(
      *runner->context().optim_wrapper()->scheduled_groups().option(1, "lr"),
      *same->context().optim_wrapper()->scheduled_groups().option(1, "lr"));
}

TEST_F(ChangeTest, FrozenParametersAreDroppedAndNewOnesStartOver) {
  const auto config = [](const std::string& more) {
    return absl::StrCat(
        "train_cfg { max_epochs: 4 } ", Batches(4),
        "optim_wrapper { optimizer { adamw { lr: 0.1 } } accumulative_counts: "
        "3 } default_hooks { checkpoint { interval: 1 } } ",
        more);
  };
  MustRun(config(""), 16, std::make_unique<BodyAndHead>());
  const auto frozen = MustRun(config(From("epoch_2")), 16,
                              std::make_unique<BodyAndHead>(false, true));
  ASSERT_NE(frozen, nullptr);
  EXPECT_THAT(Warnings(), ElementsAre(HasSubstr("1 parameters went")));
  const auto thawed =
      MustRun(config(" resume: true load_from: '/resumed/epoch_3' "
                     "work_dir: '/third' "),
              16, std::make_unique<BodyAndHead>());
  ASSERT_NE(thawed, nullptr);
  EXPECT_THAT(Warnings(), ElementsAre(HasSubstr("1 parameters came")));
  EXPECT_EQ(thawed->context().iter(), 16);
}

TEST_F(ChangeTest, SlotsComeAndGoWithTheirSetting) {
  MustRun(Sgd("lr: 0.1"), 4);
  ASSERT_NE(MustRun(Sgd("lr: 0.1 momentum: 0.9") + From("epoch_2"), 4),
            nullptr);
  EXPECT_THAT(Warnings(), ElementsAre(HasSubstr("momentum: none -> 0.9")));
  ASSERT_NE(MustRun(Sgd("lr: 0.1") + " resume: true load_from: "
                                     "'/resumed/epoch_3' work_dir: '/third' ",
                    4),
            nullptr);
  EXPECT_THAT(Warnings(), ElementsAre(HasSubstr("momentum: 0.9 -> none")));
  const auto adam = [](const std::string& settings) {
    return absl::StrCat("train_cfg { max_epochs: 4 } ", Batches(4),
                        "optim_wrapper { optimizer { adam { ", settings,
                        " } } } default_hooks { checkpoint { interval: 1 } } ");
  };
  EXPECT_THAT(Run(adam("") + From("epoch_2"), 4),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("the state is of optimizer SGD, this is Adam: "
                                 "start from it with load_from, or keep the "
                                 "old optimizer")));
  MustRun(adam("lr: 0.1"), 4);
  ASSERT_NE(
      MustRun(adam("lr: 0.1 amsgrad: true beta1: 0.8") + From("epoch_2"), 4),
      nullptr);
  EXPECT_THAT(Warnings(), ElementsAre(HasSubstr("beta1: 0.9 -> 0.8")));
}

TEST_F(ChangeTest, WithoutItsLastScheduleAnOptionStaysOrTakesItsNewValue) {
  const std::string step =
      " param_scheduler { step { step_size: 1 gamma: 0.5 } } ";
  MustRun(Sgd("lr: 0.4") + step, 4);
  MustRun(Sgd("lr: 0.4") + From("epoch_2"), 4);
  EXPECT_EQ(rates_[0], 0.1);
  MustRun(Sgd("lr: 0.3") + From("epoch_2"), 4);
  EXPECT_EQ(rates_[0], 0.3);
}

// ---- Metrics in manifests ----

TEST_F(ChangeTest, ACheckpointHasTheMetricsOfItsOwnWeightsOrNone) {
  MustRun(absl::StrCat(
              "train_cfg { by_epoch: false max_iters: 8 val_interval: 2 } ",
              Batches(4),
              "optim_wrapper { optimizer { sgd { lr: 0.1 } } } "
              "val_dataloader { batch_size: 8 } val_evaluator { mse {} } "
              "default_hooks { checkpoint { by_epoch: false interval: 2 "
              "save_best: 'mse' published_keys: ['model', 'metrics'] } }"),
          24);
  int published = 0;
  double last = 0;
  for (const std::string& name : Checkpoints("/run")) {
    const auto manifest = io::ReadManifest(env_, io::JoinPath("/run", name));
    ASSERT_THAT(manifest, IsOk());
    if (manifest->partial()) {
      ++published;
      EXPECT_EQ(manifest->metrics().count("mse"), 1u) << name;
    } else if (absl::StartsWith(name, "best_")) {
      EXPECT_EQ(manifest->metrics().count("mse"), 1u) << name;
      last = manifest->metrics().begin()->second;
    } else {
      EXPECT_THAT(manifest->metrics(), IsEmpty()) << name;
    }
  }
  EXPECT_EQ(published, 2);  // The last one, and the best.
  EXPECT_GT(last, 0);
}

// ---- Windows ----

TEST_F(ChangeTest, ALargerLogWindowIsOverWhatThereIs) {
  MustRun(Sgd("lr: 0.1"), 4);
  MustRun(Sgd("lr: 0.1") +
              "&& log_processor { window_size: 50 } default_hooks { logger { "
              "interval: 1 } } train_cfg { max_epochs: 40 } " +
              From("epoch_4"),
          4);
  // It had kept all there was.
  EXPECT_THAT(Warnings(), IsEmpty());
  MustRun(Sgd("lr: 0.1") + "&& train_cfg { max_epochs: 40 }", 4);
  MustRun(Sgd("lr: 0.1") +
              "&& log_processor { window_size: 50 } default_hooks { logger { "
              "interval: 1 } } train_cfg { max_epochs: 60 } " +
              From("epoch_40"),
          4);
  EXPECT_THAT(Warnings(),
              ElementsAre(HasSubstr("log_processor: window_size: the "
                                    "checkpoint kept 10 values")));
}

// In records it would stay at its last value.
TEST_F(ChangeTest, WhatTheOptimizerNoLongerGivesIsNotLogged) {
  const std::string base = absl::StrCat(kLine, Batches(4));
  const auto names = [](Runner& runner) {
    std::vector<std::string> names;
    for (const HistoryBuffer* h : runner.context().message_hub().scalars()) {
      names.push_back(h->name());
    }
    return names;
  };
  const auto before = MustRun(
      absl::StrCat(
          base,
          "&& optim_wrapper { clip_grad { max_norm: 1 } paramwise_cfg { "
          "rules { pattern: 'head' lr_mult: 0.1 } } }"),
      12);
  EXPECT_THAT(names(*before),
              IsSupersetOf({"train/lr", "train/base_lr", "train/grad_norm"}));
  const auto after = MustRun(absl::StrCat(base, From("epoch_2")), 12);
  EXPECT_THAT(names(*after),
              AllOf(Contains("train/lr"), Not(Contains("train/base_lr")),
                    Not(Contains("train/grad_norm"))));
}

TEST_F(ChangeTest, WhatBeginsBehindTheRunIsAWarning) {
  for (const char* kind :
       {"linear { begin: 5 }", "cosine_annealing { begin: 5 }",
        "poly { begin: 5 }", "constant { begin: 5 }",
        "exponential { begin: 5 gamma: 0.9 }", "step { begin: 5 step_size: 2 }",
        "one_cycle { begin: 5 eta_max: 1 }",
        "warmup_stable_decay { begin: 5 warmup_steps: 3 decay_steps: 3 }",
        "inverse_sqrt { begin: 5 warmup_steps: 3 }",
        "linear { begin: 5 convert_to_iter_based: true }",
        "linear { begin: 1 }", "linear { begin: 7 end: 9 }",
        "linear { begin: 4 by_epoch: false }"}) {
    SCOPED_TRACE(kind);
    MustRun(absl::StrCat(Sgd("lr: 0.1"), "&& train_cfg { max_epochs: 1 } ",
                         "param_scheduler { ", kind, " }"),
            16);
    EXPECT_THAT(rates_, ElementsAre(0.1, 0.1, 0.1, 0.1));
    EXPECT_THAT(log_->messages(),
                Contains(HasSubstr("param_scheduler[0]: begin: lies behind "
                                   "the run")));
  }
  MustRun(absl::StrCat(Sgd("lr: 0.1"),
                       "&& train_cfg { val_begin: 9 } val_dataloader { "
                       "batch_size: 8 } val_evaluator { mse {} } "),
          16);
  EXPECT_THAT(log_->messages(),
              Contains(HasSubstr("val_begin: lies beyond the run's end, 4 "
                                 "epochs: there will be no validation")));
}

}  // namespace
}  // namespace grapnel
