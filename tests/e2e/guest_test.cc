// The library as a guest in somebody's process: whatever a run comes to, the
// process goes on as if it had not been there, and so does the run if it is
// called again.

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <new>
#include <ostream>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "ATen/Context.h"
#include "ATen/autocast_mode.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "c10/core/GradMode.h"
#include "gmock/gmock.h"
#include "google/protobuf/wrappers.pb.h"
#include "grapnel/base/fake_clock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/data/sample.h"
#include "grapnel/data/tensor_dataset.h"
#include "grapnel/dist/fake_process_group.h"
#include "grapnel/dist/process_group.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/env.h"
#include "grapnel/io/fault_injection_env.h"
#include "grapnel/io/mem_env.h"
#include "grapnel/loggers/memory_run_log.h"
#include "grapnel/models/functional.h"
#include "grapnel/models/log_vars.h"
#include "grapnel/models/model.h"
#include "grapnel/optim/optim_wrapper.h"
#include "grapnel/runner/parse_config_for_test.h"
#include "grapnel/runner/run_context.h"
#include "grapnel/runner/runner.h"
#include "grapnel/runner/runner_config.pb.h"
#include "grapnel/runner/stage.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::_;
using ::testing::Contains;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ValuesIn;

constexpr absl::StatusCode kCancelled = absl::StatusCode::kCancelled;

// 3 epochs of 3 iterations, with all that is counted: a schedule by iteration,
// one by epoch, one that a metric moves.
constexpr char kConfig[] = R"pb(
  work_dir: "/run"
  randomness { seed: 1 }
  model {
    sequential {
      layers { linear { out_features: 4 } }
      layers { relu {} }
      layers { linear { out_features: 1 } }
      loss { mse {} }
    }
  }
  train_dataloader {
    batch_size: 4
    sampler { shuffle: true }
  }
  val_dataloader { batch_size: 4 }
  train_cfg { max_epochs: 3 }
  optim_wrapper { optimizer { sgd { lr: 0.1 momentum: 0.9 } } }
  param_scheduler { linear { by_epoch: false start_factor: 0.5 end: 6 } }
  param_scheduler { exponential { gamma: 0.9 } }
  param_scheduler {
    reduce_on_plateau { monitor: "mse" patience: 0 threshold: 10 }
  }
  val_evaluator { mse {} }
  default_hooks { checkpoint { interval: 1 } }
  custom_hooks {
    config {
      [type.googleapis.com/grapnel.hooks.v1.EMAHookConfig] { momentum: 0.1 }
    }
  }
)pb";

constexpr char kDropout[] = R"pb(
  model {
    sequential {
      layers { linear { out_features: 8 } }
      layers { dropout { p: 0.5 } }
      layers { linear { out_features: 1 } }
      loss { mse {} }
    }
  }
)pb";

runner::v1::RunnerConfig ByIter() {
  runner::v1::RunnerConfig config = ParseConfig(kConfig);
  config.clear_train_cfg();
  config.MergeFrom(ParseConfig(R"pb(
    train_cfg { by_epoch: false max_iters: 9 val_interval: 2 }
    default_hooks { checkpoint { by_epoch: false interval: 1 } }
  )pb"));
  return config;
}

// One point, done by a function.
class AtPoint : public Hook {
 public:
  using Act = std::function<absl::Status(RunContext&)>;
  AtPoint(Stage stage, Act act) : stage_(stage), act_(std::move(act)) {}

  absl::string_view name() const override { return "at_point"; }
  absl::Status BeforeRun(RunContext& run) override {
    return At(Stage::kBeforeRun, run);
  }
  absl::Status AfterRun(RunContext& run) override {
    return At(Stage::kAfterRun, run);
  }
  absl::Status BeforeTrain(RunContext& run) override {
    return At(Stage::kBeforeTrain, run);
  }
  absl::Status AfterTrain(RunContext& run) override {
    return At(Stage::kAfterTrain, run);
  }
  absl::Status BeforeTrainEpoch(RunContext& run) override {
    return At(Stage::kBeforeTrainEpoch, run);
  }
  absl::Status AfterTrainEpoch(RunContext& run) override {
    return At(Stage::kAfterTrainEpoch, run);
  }
  absl::Status BeforeTrainIter(RunContext& run, const IterInfo&) override {
    return At(Stage::kBeforeTrainIter, run);
  }
  absl::Status AfterTrainIter(RunContext& run, const IterInfo&,
                              const LogVars&) override {
    return At(Stage::kAfterTrainIter, run);
  }
  absl::Status BeforeOptimizerStep(RunContext& run) override {
    return At(Stage::kBeforeOptimizerStep, run);
  }
  absl::Status AfterOptimizerStep(RunContext& run, const StepResult&) override {
    return At(Stage::kAfterOptimizerStep, run);
  }
  absl::Status BeforeVal(RunContext& run) override {
    return At(Stage::kBeforeVal, run);
  }
  absl::Status AfterVal(RunContext& run) override {
    return At(Stage::kAfterVal, run);
  }
  absl::Status BeforeValEpoch(RunContext& run) override {
    return At(Stage::kBeforeValEpoch, run);
  }
  absl::Status AfterValEpoch(RunContext& run, const Metrics&) override {
    return At(Stage::kAfterValEpoch, run);
  }
  absl::Status BeforeValIter(RunContext& run, const IterInfo&) override {
    return At(Stage::kBeforeValIter, run);
  }
  absl::Status AfterValIter(RunContext& run, const IterInfo&,
                            const Predictions&) override {
    return At(Stage::kAfterValIter, run);
  }
  absl::Status BeforeSaveCheckpoint(RunContext& run,
                                    io::CheckpointContents&) override {
    return At(Stage::kBeforeSaveCheckpoint, run);
  }
  absl::Status AfterSaveCheckpoint(RunContext& run,
                                   const SavedCheckpoint&) override {
    return At(Stage::kAfterSaveCheckpoint, run);
  }

 private:
  absl::Status At(Stage stage, RunContext& run) {
    return stage == stage_ ? act_(run) : absl::OkStatus();
  }

  const Stage stage_;
  const Act act_;
};

// Counts what it sees, in a message and in a tensor.
class Counting : public Hook {
 public:
  absl::string_view name() const override { return "counting"; }
  google::protobuf::Message* mutable_state() override { return &count_; }
  absl::Status state_tensors(TensorMap* tensors) override {
    return tensors->Add("seen", seen_);
  }
  absl::Status AfterTrainIter(RunContext& run, const IterInfo&,
                              const LogVars&) override {
    return Count(run, 1);
  }
  absl::Status AfterTrainEpoch(RunContext& run) override {
    return Count(run, 100);
  }
  absl::Status BeforeVal(RunContext& run) override { return Count(run, 10000); }
  absl::Status AfterValIter(RunContext& run, const IterInfo&,
                            const Predictions&) override {
    return Count(run, 1000000);
  }
  absl::Status AfterValEpoch(RunContext& run, const Metrics&) override {
    return Count(run, 100000000);
  }

  int64_t count() const { return count_.value(); }
  int64_t seen() const { return seen_.item<int64_t>(); }

 private:
  absl::Status Count(RunContext& run, int64_t n) {
    if (!run.training()) return absl::OkStatus();
    count_.set_value(count_.value() + n);
    seen_.add_(n);
    return absl::OkStatus();
  }

  google::protobuf::Int64Value count_;
  at::Tensor seen_ = ops::zeros({}, at::kLong);
};

std::unique_ptr<Dataset> Data() {
  const at::Tensor x =
      ops::arange(24, at::kFloat).remainder(7).div(7).reshape({12, 2});
  auto data = TensorDataset::Create(x, x.sum(1, /*keepdim=*/true).square());
  EXPECT_THAT(data, IsOk());
  return *std::move(data);
}

class GuestTest : public testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<Runner>> Create(
      const runner::v1::RunnerConfig& config, RunnerOptions options = {}) {
    if (options.env == nullptr) options.env = &env_;
    if (options.log == nullptr) options.log = &log_;
    options.clock = &clock_;
    options.train_dataset = Data();
    options.val_dataset = Data();
    return Runner::Create(config, std::move(options));
  }

  std::unique_ptr<Runner> New(const runner::v1::RunnerConfig& config,
                              RunnerOptions options = {}) {
    auto runner = Create(config, std::move(options));
    EXPECT_THAT(runner, IsOk());
    return *std::move(runner);
  }

  static RunnerOptions With(Stage stage, AtPoint::Act act) {
    RunnerOptions options;
    options.hooks.push_back(
        Schedule(std::make_unique<AtPoint>(stage, std::move(act))));
    return options;
  }

  static std::vector<at::Tensor> Weights(Runner& runner) {
    std::vector<at::Tensor> weights;
    for (const NamedTensor& p : runner.context().model().parameters()) {
      weights.push_back(p.tensor.detach().clone());
    }
    return weights;
  }

  static bool Same(const std::vector<at::Tensor>& a,
                   const std::vector<at::Tensor>& b) {
    bool same = a.size() == b.size();
    for (size_t i = 0; same && i < a.size(); ++i) same = ops::equal(a[i], b[i]);
    return same;
  }

  static double Lr(Runner& runner) {
    return *runner.context().optim_wrapper()->logged_lrs()[0].second;
  }

  io::MemEnv env_;
  FakeClock clock_;
  MemoryRunLog log_;
};

// --------------------------------------------------------------- exceptions

// Throws what no LibTorch throws, from where nobody looks for it.
class ThrowingLog : public MemoryRunLog {
 public:
  void Write(Level level, absl::string_view message) override {
    if (absl::StrContains(message, at)) throw std::runtime_error("no log");
    MemoryRunLog::Write(level, message);
  }
  std::string at = "nothing says this";
};

TEST_F(GuestTest, NothingThatIsThrownLeavesACall) {
  for (const Stage stage :
       {Stage::kBeforeRun, Stage::kBeforeTrain, Stage::kAfterTrainIter,
        Stage::kBeforeOptimizerStep, Stage::kAfterValIter, Stage::kAfterTrain,
        Stage::kAfterRun, Stage::kBeforeSaveCheckpoint}) {
    io::MemEnv env;
    for (int kind = 0; kind < 3; ++kind) {
      RunnerOptions options = With(stage, [kind](RunContext&) -> absl::Status {
        if (kind == 0) throw std::bad_alloc();
        if (kind == 1) throw std::runtime_error("no luck");
        throw 17;
      });
      options.env = &env;
      const auto runner = New(ParseConfig(kConfig), std::move(options));
      EXPECT_THAT(runner->Train(),
                  StatusIs(kind == 0 ? absl::StatusCode::kResourceExhausted
                                     : absl::StatusCode::kInternal,
                           HasSubstr("at_point")));
    }
  }
  ThrowingLog log;
  RunnerOptions options;
  options.log = &log;
  options.log_in_background = false;
  const auto runner = New(ParseConfig(kConfig), std::move(options));
  log.at = "Epoch(val)";
  EXPECT_THAT(runner->Train(), StatusIs(absl::StatusCode::kInternal, _));
  log.at = "";
  EXPECT_THAT(runner->Val(), StatusIs(absl::StatusCode::kInternal, _));
  EXPECT_THAT(runner->Export("/x"), StatusIs(absl::StatusCode::kInternal, _));
}

// ------------------------------------------------------------------ AfterRun

TEST_F(GuestTest, LogsAreInTheirOutDirHoweverTheRunEnds) {
  runner::v1::RunnerConfig config = ParseConfig(kConfig);
  config.mutable_default_hooks()->mutable_logger()->set_out_dir("/out");
  std::atomic<int> interrupt{0};
  struct Ending {
    const char* name;
    Stage stage;
    AtPoint::Act act;
    const char* logged;
  };
  const std::vector<Ending> endings = {
      {"error", Stage::kAfterTrainIter,
       [](RunContext&) { return absl::InternalError("went wrong"); },
       "went wrong"},
      {"before", Stage::kBeforeRun,
       [](RunContext&) { return absl::InternalError("went wrong"); },
       "went wrong"},
      {"interrupt", Stage::kAfterTrainIter,
       [&](RunContext&) {
         interrupt = 1;
         return absl::OkStatus();
       },
       "interrupted: saving iter_1"},
  };
  for (const Ending& ending : endings) {
    SCOPED_TRACE(ending.name);
    config.set_work_dir(absl::StrCat("/", ending.name));
    RunnerOptions options = With(ending.stage, ending.act);
    options.interrupt = &interrupt;
    options.env = &env_;
    options.clock = &clock_;
    options.train_dataset = Data();
    options.val_dataset = Data();
    auto runner = Runner::Create(config, std::move(options));
    ASSERT_THAT(runner, IsOk());
    EXPECT_FALSE((*runner)->Train().ok());
    const std::string name = (*runner)->context().timestamp() + ".log";
    const auto copied =
        io::ReadFile(env_, absl::StrCat("/out/", ending.name, "/", name));
    ASSERT_THAT(copied, IsOk());
    EXPECT_THAT(*copied, HasSubstr(ending.logged));
    interrupt = 0;
  }
}

TEST_F(GuestTest, EveryHookHasItsAfterRunAndTheFirstErrorCounts) {
  std::vector<std::string> heard;
  class Last : public Hook {
   public:
    explicit Last(std::vector<std::string>* heard) : heard_(heard) {}
    absl::string_view name() const override { return "last"; }
    Priority priority() const override { return Priority::kLowest; }
    absl::Status AfterRun(RunContext&) override {
      heard_->push_back("after_run");
      return absl::InternalError("second");
    }
    void OnError(RunContext&, const absl::Status& error) override {
      heard_->push_back(std::string(error.message()));
    }

   private:
    std::vector<std::string>* const heard_;
  };
  RunnerOptions options = With(Stage::kAfterRun, [](RunContext&) {
    return absl::OutOfRangeError("first");
  });
  options.hooks.push_back(Schedule(std::make_unique<Last>(&heard)));
  const auto runner = New(ParseConfig(kConfig), std::move(options));
  EXPECT_THAT(runner->Val(), StatusIs(absl::StatusCode::kOutOfRange,
                                      HasSubstr("AfterRun: first")));
  EXPECT_THAT(heard, ElementsAre("after_run", HasSubstr("first")));
  EXPECT_THAT(log_.messages(RunLog::Level::kError),
              ElementsAre(HasSubstr("first"), HasSubstr("second")));
}

// ------------------------------------------------------------------ stopping

TEST_F(GuestTest, AStopAskedForInAnEvaluationEndsWithIt) {
  const auto runner = New(ParseConfig(kConfig),
                          With(Stage::kAfterValEpoch, [](RunContext& run) {
                            if (!run.training()) run.RequestStop("good enough");
                            return absl::OkStatus();
                          }));
  EXPECT_THAT(runner->Val(), IsOk());
  EXPECT_EQ(runner->stop_reason(), "");
  EXPECT_THAT(runner->Train(), IsOk());
  EXPECT_EQ(runner->context().epoch(), 3);
}

TEST_F(GuestTest, AnyThreadMayAskForAStop) {
  runner::v1::RunnerConfig config = ParseConfig(kConfig);
  config.mutable_train_cfg()->set_max_epochs(1000000);
  config.mutable_default_hooks()->mutable_checkpoint()->set_interval(-1);
  std::thread other;
  Runner* asked = nullptr;
  RunnerOptions options = With(Stage::kBeforeTrain, [&](RunContext&) {
    other = std::thread([&] {
      while (asked->stop_reason().empty()) {
        asked->context().RequestStop("the host ends");
      }
    });
    return absl::OkStatus();
  });
  const auto runner = New(config, std::move(options));
  asked = runner.get();
  EXPECT_THAT(runner->Train(), IsOk());
  other.join();
  EXPECT_EQ(runner->stop_reason(), "the host ends");
  EXPECT_THAT(log_.messages(), Contains("stopping: the host ends"));
  EXPECT_LT(runner->context().epoch(), 1000000);
}

TEST_F(GuestTest, AStopBeforeTrainingIsForIt) {
  const auto runner = New(ParseConfig(kConfig));
  runner->context().RequestStop("not today");
  EXPECT_THAT(runner->Train(), IsOk());
  EXPECT_EQ(runner->context().iter(), 0);
}

// ------------------------------------------------------------- the generator

TEST_F(GuestTest, RandomNumbersAreTheRunsAndTheProcesssOwn) {
  const runner::v1::RunnerConfig config = [] {
    runner::v1::RunnerConfig config = ParseConfig(kConfig);
    config.clear_model();
    config.MergeFrom(ParseConfig(kDropout));
    return config;
  }();
  const auto in = [&](const char* work_dir, RunnerOptions options = {}) {
    runner::v1::RunnerConfig other = config;
    other.set_work_dir(work_dir);
    return New(other, std::move(options));
  };
  const auto alone = in("/alone");
  ASSERT_THAT(alone->Train(), IsOk());
  const std::vector<at::Tensor> expected = Weights(*alone);

  // Between draws of the host, and other runs, one of them within this one.
  std::unique_ptr<Runner> inner;
  const auto runner = in("/run", With(Stage::kAfterTrainIter, [&](RunContext&) {
                           inner = in("/inner");
                           EXPECT_THAT(inner->Train(), IsOk());
                           inner.reset();
                           return absl::OkStatus();
                         }));
  at::manual_seed(5);
  const at::Tensor process = ops::rand({3});
  at::manual_seed(5);
  EXPECT_TRUE(ops::equal(ops::rand({1}), process.slice(0, 0, 1)));
  const auto second = in("/second");
  at::manual_seed(5);
  ops::rand({1});
  ASSERT_THAT(second->Val(), IsOk());
  ASSERT_THAT(runner->Train(), IsOk());
  EXPECT_TRUE(Same(Weights(*runner), expected));
  EXPECT_TRUE(ops::equal(ops::rand({1}), process.slice(0, 1, 2)));
  ASSERT_THAT(second->Train(), IsOk());
  EXPECT_TRUE(Same(Weights(*second), expected));
  EXPECT_TRUE(ops::equal(ops::rand({1}), process.slice(0, 2, 3)));
}

// LibTorch's own dropout, which draws from the process's generator.
class ForeignModel : public Model {
 public:
  absl::Status ComputeLosses(const Batch& batch, LogVars* losses) override {
    const at::Tensor kept =
        functional::dropout(batch.inputs, 0.5, training_, {});
    losses->Add("loss", kept.mul(weight_).mean().square());
    return absl::OkStatus();
  }
  absl::Status ValStep(const Batch& batch, Predictions* predictions) override {
    predictions->outputs = functional::dropout(batch.inputs, 0.5, true, {})
                               .mul(weight_)
                               .sum(1, true);
    return ComputeLosses(batch, &predictions->losses);
  }
  const std::vector<NamedTensor>& parameters() const override {
    return parameters_;
  }
  const std::vector<NamedTensor>& buffers() const override { return none_; }
  void SetTraining(bool training) override { training_ = training; }
  bool training() const override { return training_; }

 private:
  const at::Tensor weight_ = ops::ones({}).requires_grad_();
  const std::vector<NamedTensor> parameters_ = {{"weight", weight_}};
  const std::vector<NamedTensor> none_;
  bool training_ = true;
};

TEST_F(GuestTest, RunsOfTwoThreadsAndStepByStepHaveTheNumbersOfEachAlone) {
  for (const bool foreign : {false, true}) {
    SCOPED_TRACE(foreign);
    // Each with a seed of its own.
    const auto make = [&](const std::string& name, int64_t seed) {
      runner::v1::RunnerConfig config = ParseConfig(kConfig);
      config.clear_model();
      RunnerOptions options;
      if (foreign) {
        options.model = std::make_unique<ForeignModel>();
      } else {
        config.MergeFrom(ParseConfig(kDropout));
      }
      config.set_work_dir(absl::StrCat("/", name, seed));
      config.mutable_randomness()->set_seed(seed);
      return New(config, std::move(options));
    };
    std::vector<std::vector<at::Tensor>> expected;
    for (const int64_t seed : {1, 2}) {
      const auto alone = make("alone", seed);
      ASSERT_THAT(alone->Train(), IsOk());
      expected.push_back(Weights(*alone));
    }
    ASSERT_FALSE(Same(expected[0], expected[1]));

    at::manual_seed(5);
    const at::Tensor process = ops::rand({1});
    at::manual_seed(5);
    const auto a = make("thread", 1), b = make("thread", 2);
    std::thread first([&] { EXPECT_THAT(a->Train(), IsOk()); });
    std::thread second([&] { EXPECT_THAT(b->Train(), IsOk()); });
    first.join();
    second.join();
    EXPECT_TRUE(Same(Weights(*a), expected[0]));
    EXPECT_TRUE(Same(Weights(*b), expected[1]));

    const auto c = make("step", 1), d = make("step", 2);
    for (bool more = true; more;) {
      const auto one = c->Step();
      ASSERT_THAT(one, IsOk());
      ASSERT_THAT(c->Val(), IsOk());
      const auto other = d->Step();
      ASSERT_THAT(other, IsOk());
      more = *one || *other;
    }
    EXPECT_TRUE(Same(Weights(*c), expected[0]));
    EXPECT_TRUE(Same(Weights(*d), expected[1]));
    // The host's is where it was.
    EXPECT_TRUE(ops::equal(ops::rand({1}), process));
  }
}

TEST_F(GuestTest, DeterministicRunsThatOverlapLeaveTheFlagsAsTheyWere) {
  runner::v1::RunnerConfig config = ParseConfig(kConfig);
  config.mutable_randomness()->set_deterministic(true);
  std::atomic<int> inside{0};
  // Each waits in its first iteration for the other one.
  const auto meet = [&](RunContext& run) {
    if (run.iter() == 0) {
      ++inside;
      while (inside < 2) std::this_thread::yield();
    }
    EXPECT_TRUE(at::globalContext().deterministicAlgorithms());
    return absl::OkStatus();
  };
  std::vector<std::unique_ptr<Runner>> runners;
  for (const char* const work_dir : {"/a", "/b"}) {
    config.set_work_dir(work_dir);
    runners.push_back(New(config, With(Stage::kAfterTrainIter, meet)));
  }
  std::thread first([&] { EXPECT_THAT(runners[0]->Train(), IsOk()); });
  std::thread second([&] { EXPECT_THAT(runners[1]->Train(), IsOk()); });
  first.join();
  second.join();
  EXPECT_FALSE(at::globalContext().deterministicAlgorithms());
}

// -------------------------------------------------------- Train() once more

struct Cut {
  Stage stage;
  bool by_epoch;
  int accumulative_counts = 1;
};

void PrintTo(const Cut& cut, std::ostream* os) {
  *os << StageName(cut.stage) << (cut.by_epoch ? " by epoch" : " by iter")
      << ", accumulating " << cut.accumulative_counts;
}

class TrainAgainTest : public GuestTest,
                       public testing::WithParamInterface<Cut> {
 protected:
  // What a run has come to.
  struct Outcome {
    int calls = 0;
    std::vector<at::Tensor> weights;
    std::map<std::string, at::Tensor> saved;  // In the last checkpoint.
    double lr;
    int64_t iter, updates, count, seen;
  };

  // Calls Train() until it's done, and Val() after each that fails.
  Outcome TrainUntilDone(const AtPoint::Act& act) {
    io::MemEnv env;
    RunnerOptions options;
    auto counting = std::make_unique<Counting>();
    const Counting& counts = *counting;
    options.hooks.push_back(Schedule(std::move(counting)));
    options.hooks.push_back(
        Schedule(std::make_unique<AtPoint>(GetParam().stage, act)));
    options.env = &env;
    const auto runner =
        New(GetParam().by_epoch ? ParseConfig(kConfig) : ByIter(),
            std::move(options));
    Outcome outcome;
    absl::Status status;
    do {
      status = runner->Train();
      ++outcome.calls;
      if (status.ok()) break;
      EXPECT_THAT(runner->Val(), IsOk());
    } while (outcome.calls < 30);
    EXPECT_THAT(status, IsOk());
    const auto latest = io::FindLatestCheckpoint(env, "/run", nullptr);
    EXPECT_THAT(latest, IsOk());
    const auto contents = io::ReadCheckpoint(env, *latest);
    EXPECT_THAT(contents, IsOk());
    for (const auto& [section, tensors] : contents->sections) {
      for (const NamedTensor& tensor : tensors) {
        outcome.saved[absl::StrCat(section, "/", tensor.name)] = tensor.tensor;
      }
    }
    outcome.weights = Weights(*runner);
    outcome.lr = Lr(*runner);
    outcome.iter = runner->context().iter();
    outcome.updates = runner->context().updates();
    outcome.count = counts.count();
    outcome.seen = counts.seen();
    return outcome;
  }
};

TEST_P(TrainAgainTest, NothingIsDoneTwiceOrLeftOut) {
  const Outcome expected =
      TrainUntilDone([](RunContext&) { return absl::OkStatus(); });
  ASSERT_EQ(expected.calls, 1);
  int call = 0, next = 1, gap = 1;
  const Outcome outcome = TrainUntilDone([&](RunContext& run) -> absl::Status {
    if (!run.training()) return absl::OkStatus();
    if (++call != next) return absl::OkStatus();
    next += ++gap;  // So that a whole validation comes through at last.
    return absl::InternalError("not now");
  });
  EXPECT_GT(outcome.calls, 1);
  EXPECT_TRUE(Same(outcome.weights, expected.weights));
  EXPECT_EQ(outcome.lr, expected.lr);
  EXPECT_EQ(outcome.iter, expected.iter);
  EXPECT_EQ(outcome.updates, expected.updates);
  EXPECT_EQ(outcome.count, expected.count);
  EXPECT_EQ(outcome.seen, expected.seen);
  ASSERT_EQ(outcome.saved.size(), expected.saved.size());
  for (const auto& [name, tensor] : expected.saved) {
    ASSERT_EQ(outcome.saved.count(name), 1u) << name;
    EXPECT_TRUE(ops::equal(outcome.saved.at(name), tensor)) << name;
  }
}

std::vector<Cut> AllCuts() {
  std::vector<Cut> cuts;
  for (const Stage stage :
       {Stage::kBeforeTrain, Stage::kBeforeTrainEpoch, Stage::kBeforeTrainIter,
        Stage::kBeforeOptimizerStep, Stage::kAfterOptimizerStep,
        Stage::kAfterTrainIter, Stage::kAfterTrainEpoch, Stage::kBeforeVal,
        Stage::kBeforeValEpoch, Stage::kBeforeValIter, Stage::kAfterValIter,
        Stage::kAfterValEpoch, Stage::kAfterVal, Stage::kAfterTrain,
        Stage::kBeforeSaveCheckpoint, Stage::kAfterSaveCheckpoint}) {
    for (const bool by_epoch : {true, false}) {
      cuts.push_back({stage, by_epoch});
      // Before the step, a window's gradients go with the error.
      if (stage != Stage::kBeforeOptimizerStep) {
        cuts.push_back({stage, by_epoch, /*accumulative_counts=*/2});
      }
    }
  }
  return cuts;
}

INSTANTIATE_TEST_SUITE_P(Stages, TrainAgainTest, ValuesIn(AllCuts()),
                         [](const auto& info) {
                           return absl::StrCat(
                               StageName(info.param.stage),
                               info.param.by_epoch ? "ByEpoch" : "ByIter",
                               info.param.accumulative_counts);
                         });

// The window's gradients are gone, and its iterations count; the one that
// failed is made again, and the last window has its step.
TEST_F(GuestTest, AnErrorBeforeAStepDropsTheWindowAndSaysSo) {
  runner::v1::RunnerConfig config = ByIter();
  config.mutable_optim_wrapper()->set_accumulative_counts(4);
  bool failed = false;
  const auto runner =
      New(config, With(Stage::kBeforeOptimizerStep, [&](RunContext&) {
            return std::exchange(failed, true) ? absl::OkStatus()
                                               : absl::InternalError("not now");
          }));
  EXPECT_FALSE(runner->Train().ok());
  EXPECT_EQ(runner->context().iter(), 3);
  EXPECT_THAT(log_.messages(RunLog::Level::kWarning),
              Contains("the gradients of 3 iterations that waited for a step "
                       "are dropped"));
  EXPECT_THAT(runner->Train(), IsOk());
  EXPECT_EQ(runner->context().iter(), 9);
  EXPECT_EQ(runner->context().optim_wrapper()->accumulated(), 0);
}

TEST_F(GuestTest, AnEpochThatHasBegunIsEndedAlsoAfterAStopAndAnError) {
  const auto runner = New(ParseConfig(kConfig),
                          With(Stage::kAfterTrainIter, [](RunContext& run) {
                            if (run.iter() != 3) return absl::OkStatus();
                            run.RequestStop("enough");
                            return absl::InternalError("not now");
                          }));
  EXPECT_FALSE(runner->Train().ok());
  EXPECT_EQ(runner->context().iter_in_epoch(), 0);
  EXPECT_THAT(runner->Train(), IsOk());
  EXPECT_EQ(runner->context().epoch(), 2);
  EXPECT_EQ(runner->context().iter(), 6);
  EXPECT_EQ(io::FindLatestCheckpoint(env_, "/run", nullptr).value_or("none"),
            "/run/epoch_2");
}

TEST_F(GuestTest, WhatCouldNotBeSavedIsTriedAgain) {
  io::FaultInjectionEnv disk(env_, "/run");
  bool filled = false;
  RunnerOptions options =
      With(Stage::kBeforeSaveCheckpoint, [&](RunContext& run) {
        if (run.epoch() == 1 && !std::exchange(filled, true)) {
          disk.FailOperation(3, absl::ResourceExhaustedError("no space left"),
                             io::FaultInjectionEnv::Times::kFromThenOn);
        }
        return absl::OkStatus();
      });
  options.env = &disk;
  const auto runner = New(ParseConfig(kConfig), std::move(options));
  EXPECT_THAT(runner->Train(), StatusIs(absl::StatusCode::kResourceExhausted,
                                        HasSubstr("epoch_2")));
  disk.StopFailing();
  EXPECT_EQ(io::FindLatestCheckpoint(env_, "/run", nullptr).value_or("none"),
            "/run/epoch_1");
  EXPECT_THAT(runner->Train(), IsOk());
  for (const char* const name : {"/run/epoch_2", "/run/epoch_3"}) {
    EXPECT_THAT(io::ReadCheckpoint(env_, name), IsOk()) << name;
  }
  const auto manifest = io::ReadManifest(env_, "/run/epoch_2");
  ASSERT_THAT(manifest, IsOk());
  EXPECT_EQ(manifest->progress().epoch(), 2);
}

TEST_F(GuestTest, ThePointerToTheLastCheckpointIsTriedAgain) {
  runner::v1::RunnerConfig config = ParseConfig(kConfig);
  config.mutable_default_hooks()->mutable_checkpoint()->set_out_dir("/out");
  config.mutable_default_hooks()->mutable_checkpoint()->set_max_keep_ckpts(1);
  io::FaultInjectionEnv disk(env_, "/run");  // The checkpoints' has room.
  bool filled = false;
  RunnerOptions options =
      With(Stage::kBeforeSaveCheckpoint, [&](RunContext& run) {
        if (run.epoch() == 1 && !std::exchange(filled, true)) {
          disk.FailOperation(0, absl::ResourceExhaustedError("no space left"),
                             io::FaultInjectionEnv::Times::kFromThenOn);
        }
        return absl::OkStatus();
      });
  options.env = &disk;
  const auto runner = New(config, std::move(options));
  EXPECT_FALSE(runner->Train().ok());
  disk.StopFailing();
  EXPECT_THAT(runner->Train(), IsOk());
  EXPECT_EQ(io::ReadFile(env_, "/run/last_checkpoint").value_or("none"),
            "../out/run/epoch_3");
  EXPECT_FALSE(env_.FileExists("/out/run/epoch_2")) << "rotated";
}

TEST_F(GuestTest, ANameThatNoCheckpointCanHaveIsRefusedWhereItIsGiven) {
  for (const char* const name : {"caf\xe9", "a/b", ".x", ""}) {
    io::MemEnv env;
    RunnerOptions options =
        With(Stage::kAfterTrainEpoch, [name](RunContext& run) {
          SaveRequest request;
          request.name = name;
          return run.Save(std::move(request));
        });
    options.env = &env;
    EXPECT_THAT(New(ParseConfig(kConfig), std::move(options))->Train(),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("AfterTrainEpoch: a checkpoint's name")));
  }
}

TEST_F(GuestTest, EachHookHearsOfACheckpointThatIsThere) {
  class Hears : public Hook {
   public:
    explicit Hears(std::vector<std::string>* names) : names_(*names) {}
    absl::string_view name() const override { return "hears"; }
    Priority priority() const override { return Priority::kLowest; }
    absl::Status AfterSaveCheckpoint(RunContext&,
                                     const SavedCheckpoint& saved) override {
      names_.push_back(saved.name);
      return absl::OkStatus();
    }

   private:
    std::vector<std::string>& names_;
  };
  std::vector<std::string> names;
  RunnerOptions options = With(Stage::kAfterSaveCheckpoint, [](RunContext&) {
    return absl::InternalError("not now");
  });
  options.hooks.push_back(Schedule(std::make_unique<Hears>(&names)));
  const auto runner = New(ParseConfig(kConfig), std::move(options));
  EXPECT_FALSE(runner->Train().ok());
  EXPECT_THAT(names, ElementsAre("epoch_1"));
}

TEST_F(GuestTest, WhatLibTorchKeepsForAThreadIsPutBack) {
  const auto runner =
      New(ParseConfig(kConfig), With(Stage::kBeforeVal, [](RunContext&) {
            c10::GradMode::set_enabled(false);
            at::autocast::set_autocast_enabled(at::kCPU, true);
            return absl::InternalError("not now");
          }));
  EXPECT_FALSE(runner->Val().ok());
  EXPECT_TRUE(c10::GradMode::is_enabled());
  EXPECT_FALSE(at::autocast::is_autocast_enabled(at::kCPU));
}

// ------------------------------------------------------- a cut validation

TEST_F(GuestTest, AnInterruptedValidationLeavesNoTraceInHooks) {
  int64_t expected = 0;
  for (const int64_t at : {0, 5, 6}) {  // 0: nowhere.
    const std::string work_dir = absl::StrCat("/run_", at);
    runner::v1::RunnerConfig config = ParseConfig(kConfig);
    config.set_work_dir(work_dir);
    std::atomic<int> interrupt{0};
    int64_t validated = 0;
    RunnerOptions options = With(Stage::kAfterValIter, [&](RunContext&) {
      if (++validated == at) interrupt = 1;
      return absl::OkStatus();
    });
    options.interrupt = &interrupt;
    options.hooks.push_back(Schedule(std::make_unique<Counting>()));
    const absl::Status status = New(config, std::move(options))->Train();
    if (at != 0) {
      ASSERT_THAT(status, StatusIs(kCancelled, _));
      config.set_resume(true);
    }
    RunnerOptions again;
    auto counting = std::make_unique<Counting>();
    const Counting& counts = *counting;
    again.hooks.push_back(Schedule(std::move(counting)));
    config.set_resume(true);
    const auto runner = New(config, std::move(again));
    ASSERT_THAT(runner->Train(), IsOk());
    // 9 iterations, 3 epochs, 3 validations of 3 batches; the last one is not
    // in a checkpoint unless it was the resumed run's.
    if (at == 0) continue;
    expected = 9 + 3 * 100 + 3 * 10000 + 9 * 1000000 + 3 * int64_t{100000000};
    EXPECT_EQ(counts.count(), expected) << at;
    EXPECT_EQ(counts.seen(), expected) << at;
  }
}

// -------------------------------------------------------------- small things

TEST_F(GuestTest, ARelativeFolderOfASaveStartsAtTheCurrentOne) {
  io::Env& env = io::Env::Posix();
  runner::v1::RunnerConfig config = ParseConfig(kConfig);
  config.set_work_dir(absl::StrCat(testing::TempDir(), "/relative/work"));
  RunnerOptions options = With(Stage::kAfterTrain, [](RunContext& run) {
    SaveRequest request;
    request.name = "extra";
    request.dir = "relative/extras";
    return run.Save(std::move(request));
  });
  options.env = &env;
  const auto runner = New(config, std::move(options));
  ASSERT_THAT(runner->Train(), IsOk());
  EXPECT_THAT(io::ReadCheckpoint(env, "relative/extras/extra"), IsOk());
  const auto latest = io::FindLatestCheckpoint(env, config.work_dir(), nullptr);
  ASSERT_THAT(latest, IsOk());
  EXPECT_TRUE(absl::EndsWith(*latest, "relative/extras/extra")) << *latest;
  ASSERT_THAT(io::DeleteRecursively(env, "relative"), IsOk());
  ASSERT_THAT(io::DeleteRecursively(env, testing::TempDir() + "/relative"),
              IsOk());
}

TEST_F(GuestTest, SeveralRanksNeedWhatAveragesTheirGradients) {
  const auto statuses =
      RunRanks(2, [this](ProcessGroup& group) -> absl::Status {
        io::MemEnv env;
        RunnerOptions options;
        options.env = &env;
        options.process_group = &group;
        return Create(ParseConfig(kConfig), std::move(options)).status();
      });
  EXPECT_THAT(statuses,
              Each(StatusIs(absl::StatusCode::kInvalidArgument,
                            HasSubstr("make_gradient_reducer: must be set for "
                                      "several ranks"))));
}

}  // namespace
}  // namespace grapnel
