// A training that its host steps is the one that Train() does: the same calls
// of hooks, bits, files and records, however the two are mixed. And so is one
// that its host stops, and goes on with.

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "grapnel/base/fake_clock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/data/dataset.h"
#include "grapnel/data/tensor_dataset.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/env.h"
#include "grapnel/io/mem_env.h"
#include "grapnel/loggers/memory_run_log.h"
#include "grapnel/models/model.h"
#include "grapnel/runner/hook.h"
#include "grapnel/runner/hook_registry.h"
#include "grapnel/runner/message_hub.h"
#include "grapnel/runner/parse_config_for_test.h"
#include "grapnel/runner/run_checkpoint.h"
#include "grapnel/runner/run_context.h"
#include "grapnel/runner/run_state.pb.h"
#include "grapnel/runner/runner.h"
#include "grapnel/runner/runner_config.pb.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::_;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// 12 samples in batches of 4; dropout, an average, windows of two iterations,
// validations and saves, so that much can go wrong between two steps.
constexpr char kConfig[] = R"pb(
  work_dir: "/run"
  randomness { seed: 3 }
  model {
    sequential {
      layers { linear { out_features: 8 } }
      layers { dropout { p: 0.5 } }
      layers { linear { out_features: 1 } }
      loss { mse {} }
    }
  }
  train_dataloader {
    batch_size: 4
    sampler { shuffle: true }
  }
  val_dataloader { batch_size: 5 }
  optim_wrapper {
    optimizer { adamw { lr: 0.05 } }
    accumulative_counts: 2
  }
  param_scheduler { linear { by_epoch: false end: 5 } }
  val_evaluator { mse {} }
  custom_hooks {
    config {
      [type.googleapis.com/grapnel.hooks.v1.EMAHookConfig] {}
    }
  }
)pb";
constexpr char kByEpoch[] = R"pb(
  train_cfg { max_epochs: 4 val_interval: 2 }
  default_hooks { checkpoint { interval: 2 save_best: "mse" rule: "less" } }
)pb";
constexpr char kByIter[] = R"pb(
  train_cfg { by_epoch: false max_iters: 11 val_interval: 4 }
  default_hooks {
    checkpoint { by_epoch: false interval: 3 save_best: "mse" rule: "less" }
  }
)pb";

class Tracer : public Hook {
 public:
  explicit Tracer(std::vector<std::string>* trace) : trace_(trace) {}
  absl::string_view name() const override { return "tracer"; }
  Priority priority() const override { return Priority::kLowest; }
  absl::Status BeforeRun(RunContext& run) override {
    return Note(run, "BeforeRun");
  }
  absl::Status AfterRun(RunContext& run) override {
    return Note(run, "AfterRun");
  }
  absl::Status BeforeTrain(RunContext& run) override {
    return Note(run, "BeforeTrain");
  }
  absl::Status AfterTrain(RunContext& run) override {
    return Note(run, "AfterTrain");
  }
  absl::Status BeforeEpoch(RunContext& run, Mode mode) override {
    return Note(run, absl::StrCat("BeforeEpoch ", ModeName(mode)));
  }
  absl::Status AfterEpoch(RunContext& run, Mode mode) override {
    return Note(run, absl::StrCat("AfterEpoch ", ModeName(mode)));
  }
  absl::Status BeforeIter(RunContext& run, Mode mode,
                          const IterInfo& info) override {
    return Note(run,
                absl::StrCat("BeforeIter ", ModeName(mode), " ", info.batch_idx,
                             " training ", run.model().training()));
  }
  absl::Status AfterIter(RunContext& run, Mode mode,
                         const IterInfo& info) override {
    if (fail_at == run.iter() && mode == Mode::kTrain) {
      fail_at = -1;
      return absl::UnknownError("planted");
    }
    if (on_iter) on_iter(run, mode);
    return Note(
        run, absl::StrCat("AfterIter ", ModeName(mode), " ", info.batch_idx));
  }
  absl::Status AfterSaveCheckpoint(RunContext& run,
                                   const SavedCheckpoint& saved) override {
    return Note(run, saved.name);
  }

  int64_t fail_at = -1;  // Iteration.
  std::function<void(RunContext&, Mode)> on_iter;

 private:
  absl::Status Note(RunContext& run, absl::string_view what) {
    trace_->push_back(absl::StrCat(what, " at ", run.epoch(), " ", run.iter()));
    return absl::OkStatus();
  }
  std::vector<std::string>* const trace_;
};

// What a training leaves.
struct Outcome {
  std::vector<std::string> trace;
  std::string weights, state;
};

class StepTest : public ::testing::TestWithParam<const char*> {
 protected:
  struct Process {
    io::MemEnv* env;
    std::vector<std::string>* trace;
    std::function<void(RunnerOptions*)> change = nullptr;
    bool resume = false;
  };

  std::unique_ptr<Runner> New(const Process& process) {
    runner::v1::RunnerConfig config = ParseConfig(kConfig);
    config.MergeFrom(ParseConfig(GetParam()));
    config.set_resume(process.resume);
    RunnerOptions options;
    options.env = process.env;
    options.clock = &clock_;
    options.log = &log_;
    const at::Tensor inputs = ops::arange(24, at::kFloat).view({12, 2}).sin();
    for (auto* dataset : {&options.train_dataset, &options.val_dataset}) {
      auto data = TensorDataset::Create(inputs, inputs.sum(1, true));
      EXPECT_THAT(data, IsOk());
      *dataset = *std::move(data);
    }
    auto tracer = std::make_unique<Tracer>(process.trace);
    tracer_ = tracer.get();
    options.hooks.push_back(Schedule(std::move(tracer)));
    if (process.change) process.change(&options);
    auto runner = Runner::Create(config, std::move(options));
    EXPECT_THAT(runner, IsOk());
    return *std::move(runner);
  }

  // What is in `env` after a training.
  Outcome Read(io::MemEnv& env, std::vector<std::string> trace) {
    Outcome outcome;
    outcome.trace = std::move(trace);
    const auto latest = io::ReadLatestCheckpoint(env, "/run", nullptr);
    EXPECT_THAT(latest, IsOk());
    if (!latest.ok()) return outcome;
    for (const auto& [name, tensors] : latest->contents.sections) {
      for (const NamedTensor& tensor : tensors) {
        absl::StrAppend(&outcome.weights, name, "/", tensor.name, ":",
                        absl::string_view(static_cast<const char*>(
                                              tensor.tensor.const_data_ptr()),
                                          tensor.tensor.nbytes()));
      }
    }
    const auto state = ReadRunState(latest->contents);
    EXPECT_THAT(state, IsOk());
    if (state.ok()) outcome.state = state->DebugString();
    return outcome;
  }

  Outcome Trained() {
    io::MemEnv env;
    std::vector<std::string> trace;
    EXPECT_THAT(New({&env, &trace})->Train(), IsOk());
    return Read(env, std::move(trace));
  }

  static bool More(const absl::StatusOr<bool>& step) {
    EXPECT_THAT(step, IsOk());
    return step.ok() && *step;
  }

  // Steps to the end; how many there were.
  int StepToTheEnd(Runner& runner) {
    for (int steps = 1;; ++steps) {
      if (!More(runner.Step())) return steps;
    }
  }

  int64_t TotalIters() const { return GetParam() == kByEpoch ? 12 : 11; }

  FakeClock clock_;
  MemoryRunLog log_;
  Tracer* tracer_ = nullptr;
};

void ExpectSame(const Outcome& a, const Outcome& b) {
  EXPECT_EQ(a.trace, b.trace);
  EXPECT_TRUE(a.weights == b.weights);
  EXPECT_EQ(a.state, b.state);  // Maps are in the order of their keys.
}

INSTANTIATE_TEST_SUITE_P(, StepTest, testing::Values(kByEpoch, kByIter),
                         [](const auto& info) {
                           return info.param == kByEpoch ? "ByEpoch" : "ByIter";
                         });

TEST_P(StepTest, StepsAreTheTraining) {
  const Outcome expected = Trained();
  io::MemEnv env;
  std::vector<std::string> trace;
  const auto runner = New({&env, &trace});
  EXPECT_EQ(StepToTheEnd(*runner), TotalIters());
  ExpectSame(Read(env, trace), expected);
  // Of one that is done there is nothing left; it begins and ends.
  trace.clear();
  EXPECT_EQ(StepToTheEnd(*runner), 1);
  const std::string at = GetParam() == kByEpoch ? " at 4 12" : " at 0 11";
  EXPECT_THAT(trace, ElementsAre("BeforeRun" + at, "BeforeTrain" + at,
                                 "AfterTrain" + at, "AfterRun" + at));
}

TEST_P(StepTest, AnyMixtureIsTheSameTraining) {
  const Outcome expected = Trained();
  for (const int steps : {1, 2, 3, 5, 8, 10}) {
    SCOPED_TRACE(steps);
    io::MemEnv env;
    std::vector<std::string> trace;
    const auto runner = New({&env, &trace});
    for (int i = 0; i < steps; ++i) ASSERT_THAT(runner->Step(), IsOk());
    ASSERT_THAT(runner->Train(), IsOk());
    ExpectSame(Read(env, trace), expected);
  }
}

TEST_P(StepTest, OneThatIsDroppedMidwayIsResumedToTheSameEnd) {
  const Outcome expected = Trained();
  for (int steps = 0; steps <= TotalIters(); ++steps) {
    SCOPED_TRACE(steps);
    io::MemEnv env;
    std::vector<std::string> trace;
    {
      const auto runner = New({&env, &trace});
      for (int i = 0; i < steps; ++i) ASSERT_THAT(runner->Step(), IsOk());
    }
    const auto resumed = New({&env, &trace, nullptr, /*resume=*/true});
    StepToTheEnd(*resumed);
    EXPECT_TRUE(Read(env, trace).weights == expected.weights);
  }
}

TEST_P(StepTest, OneThatIsSavedMidwayIsResumedToTheSameEnd) {
  const Outcome expected = Trained();
  for (int steps = 1; steps < TotalIters(); ++steps) {
    SCOPED_TRACE(steps);
    io::MemEnv env;
    std::vector<std::string> trace;
    {
      const auto runner = New({&env, &trace});
      EXPECT_THAT(runner->Save("early"),
                  StatusIs(absl::StatusCode::kFailedPrecondition,
                           HasSubstr("no training is going on")));
      for (int i = 0; i < steps; ++i) ASSERT_THAT(runner->Step(), IsOk());
      EXPECT_THAT(
          runner->Save("no/name"),
          StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no/name")));
      ASSERT_THAT(runner->Save("here"), IsOk());
      EXPECT_THAT(trace.back(), HasSubstr("here at "));
    }
    const auto resumed = New({&env, &trace, nullptr, /*resume=*/true});
    ASSERT_THAT(resumed->Step(), IsOk());
    EXPECT_EQ(resumed->context().resumed_from(), "/run/here");
    EXPECT_EQ(resumed->context().iter(), steps + 1);
    StepToTheEnd(*resumed);
    EXPECT_TRUE(Read(env, trace).weights == expected.weights);
  }
}

TEST_P(StepTest, EvaluationsBetweenStepsLeaveNoTrace) {
  const Outcome expected = Trained();
  io::MemEnv env;
  std::vector<std::string> trace, own;
  const auto runner = New({&env, &trace});
  bool more = true;
  while (more) {
    const auto step = runner->Step();
    ASSERT_THAT(step, IsOk());
    more = *step;
    if (!more) break;
    own.swap(trace);
    const auto metrics = runner->Val();
    ASSERT_THAT(metrics, IsOk());
    EXPECT_EQ(metrics->front().first, "mse");
    for (const std::string& line : trace) {
      EXPECT_THAT(line, testing::Not(HasSubstr("Run")));
    }
    trace.clear();
    own.swap(trace);
  }
  ExpectSame(Read(env, trace), expected);
}

TEST_P(StepTest, AnErrorEndsTheTrainingAndTheNextStepGoesOn) {
  const Outcome expected = Trained();
  for (const int64_t iter : {0, 3, 7}) {
    SCOPED_TRACE(iter);
    io::MemEnv env;
    std::vector<std::string> trace;
    const auto runner = New({&env, &trace});
    tracer_->fail_at = iter;
    int64_t steps = 0;
    absl::StatusOr<bool> step = true;
    for (; step.ok() && *step; ++steps) step = runner->Step();
    EXPECT_THAT(step.status(),
                StatusIs(absl::StatusCode::kUnknown, HasSubstr("planted")));
    EXPECT_EQ(steps, iter + 1);
    EXPECT_THAT(trace.back(), HasSubstr("AfterRun"));
    StepToTheEnd(*runner);
    EXPECT_TRUE(Read(env, trace).weights == expected.weights);
  }
}

TEST_P(StepTest, AStopAndAnInterruptEndIt) {
  io::MemEnv env;
  std::vector<std::string> trace;
  std::atomic<int> interrupt{0};
  const auto runner = New({&env, &trace, [&](RunnerOptions* options) {
                             options->interrupt = &interrupt;
                           }});
  ASSERT_THAT(runner->Step(), IsOk());
  interrupt = 1;
  EXPECT_THAT(runner->Step(), StatusIs(absl::StatusCode::kCancelled, _));
  interrupt = 0;
  EXPECT_THAT(trace.back(), HasSubstr("AfterRun"));
  runner->context().RequestStop("enough");
  const int steps = StepToTheEnd(*runner);
  // At the end of the epoch, or at once.
  EXPECT_EQ(steps, 1);
  EXPECT_EQ(runner->context().iter(), GetParam() == kByEpoch ? 3 : 2);
  EXPECT_EQ(runner->stop_reason(), "enough");
}

TEST_P(StepTest, StoppedAtOnceItIsSavedAndTheResumedRunIsTheSame) {
  const Outcome expected = Trained();
  for (int64_t iter = 0; iter < TotalIters(); ++iter) {
    SCOPED_TRACE(iter);
    io::MemEnv env;
    std::vector<std::string> trace;
    {
      const auto runner = New({&env, &trace});
      tracer_->on_iter = [&](RunContext& run, Mode mode) {
        if (mode == Mode::kTrain && run.iter() == iter) {
          run.RequestStop("planned", StopAt::kAfterEpoch);
          run.RequestStop("now", StopAt::kNow);
          run.RequestStop("too late", StopAt::kNow);
        }
      };
      ASSERT_THAT(runner->Train(), IsOk());
      EXPECT_EQ(runner->stop_reason(), "now");
      EXPECT_EQ(runner->context().iter(), iter + 1);
      // What has begun has ended, but for the epoch.
      ASSERT_GE(trace.size(), 2u);
      EXPECT_THAT(trace[trace.size() - 2], HasSubstr("AfterTrain"));
      EXPECT_THAT(trace.back(), HasSubstr("AfterRun"));
      // It is over.
      EXPECT_EQ(StepToTheEnd(*runner), 1);
      EXPECT_EQ(runner->context().iter(), iter + 1);
    }
    const auto resumed = New({&env, &trace, nullptr, /*resume=*/true});
    ASSERT_THAT(resumed->Train(), IsOk());
    EXPECT_TRUE(Read(env, trace).weights == expected.weights);
  }
}

TEST_P(StepTest, AValidationThatAStopCutsShortIsRepeated) {
  const Outcome expected = Trained();
  for (const bool deadline : {false, true}) {
    SCOPED_TRACE(deadline);
    io::MemEnv env;
    std::vector<std::string> trace;
    int64_t validations = 0;
    {
      const auto runner = New({&env, &trace});
      tracer_->on_iter = [&](RunContext& run, Mode mode) {
        if (mode != Mode::kVal || ++validations != 1) return;
        if (deadline) {
          clock_.wall += absl::Hours(1);
        } else {
          run.RequestStop("now", StopAt::kNow);
        }
      };
      if (deadline) {
        EXPECT_TRUE(More(runner->TrainUntil(clock_.wall + absl::Minutes(1))));
      } else {
        ASSERT_THAT(runner->Train(), IsOk());
      }
      EXPECT_EQ(validations, 1);
    }
    const auto resumed = New({&env, &trace, nullptr, /*resume=*/true});
    ASSERT_THAT(resumed->Train(), IsOk());
    const Outcome outcome = Read(env, trace);
    EXPECT_TRUE(outcome.weights == expected.weights);
    EXPECT_EQ(outcome.state, expected.state);
  }
}

TEST_P(StepTest, AnotherThreadStopsIt) {
  io::MemEnv env;
  std::vector<std::string> trace;
  const auto runner = New({&env, &trace});
  std::thread other;
  tracer_->on_iter = [&](RunContext& run, Mode) {
    if (other.joinable()) return;
    other = std::thread([&] { run.RequestStop("bored", StopAt::kNow); });
    while (run.stop_reason().empty()) std::this_thread::yield();
  };
  ASSERT_THAT(runner->Train(), IsOk());
  other.join();
  EXPECT_EQ(runner->context().iter(), 1);
  EXPECT_EQ(runner->stop_reason(), "bored");
}

TEST_P(StepTest, BetweenTwoStepsAStopDoesNoOtherIteration) {
  io::MemEnv env;
  std::vector<std::string> trace;
  const auto runner = New({&env, &trace});
  ASSERT_THAT(runner->Step(), IsOk());
  runner->context().RequestStop("now", StopAt::kNow);
  EXPECT_FALSE(More(runner->Step()));
  EXPECT_EQ(runner->context().iter(), 1);
  const auto latest = io::ReadLatestCheckpoint(env, "/run", nullptr);
  ASSERT_THAT(latest, IsOk());
  EXPECT_EQ(latest->contents.manifest().progress().iter(), 1);
}

TEST_P(StepTest, TrainsUntilADeadlineAndThenOn) {
  const Outcome expected = Trained();
  io::MemEnv env;
  std::vector<std::string> trace;
  const auto runner = New({&env, &trace});
  const absl::Time start = clock_.wall;
  // An iteration takes an hour.
  tracer_->on_iter = [&](RunContext&, Mode mode) {
    if (mode == Mode::kTrain) clock_.wall += absl::Hours(1);
  };
  // None is done before what is past, and nothing is saved.
  EXPECT_TRUE(More(runner->TrainUntil(start)));
  EXPECT_EQ(runner->context().iter(), 0);
  EXPECT_THAT(io::ReadLatestCheckpoint(env, "/run", nullptr),
              StatusIs(absl::StatusCode::kNotFound, _));
  for (const int64_t until : {1, 2, 5, 6, 9}) {
    SCOPED_TRACE(until);
    EXPECT_TRUE(More(
        runner->TrainUntil(start + absl::Hours(until) - absl::Minutes(1))));
    EXPECT_EQ(runner->context().iter(), until);
    EXPECT_EQ(runner->stop_reason(), "");
    const auto latest = io::ReadLatestCheckpoint(env, "/run", nullptr);
    ASSERT_THAT(latest, IsOk());
    EXPECT_EQ(latest->contents.manifest().progress().iter(), until);
    // AfterTrain waits for the end.
    EXPECT_THAT(trace.back(), HasSubstr("AfterRun"));
    EXPECT_THAT(
        trace,
        testing::Not(testing::Contains(testing::StartsWith("AfterTrain "))));
  }
  EXPECT_FALSE(More(runner->TrainUntil(absl::InfiniteFuture())));
  EXPECT_TRUE(Read(env, trace).weights == expected.weights);
}

TEST_P(StepTest, TensorsAreReadAndSetBetweenSteps) {
  io::MemEnv env;
  std::vector<std::string> trace;
  const auto runner = New({&env, &trace});
  ASSERT_THAT(runner->Step(), IsOk());
  const auto bias = runner->GetTensor("0.bias");
  ASSERT_THAT(bias, IsOk());
  // A copy: training changes the model's, the caller its own.
  const at::Tensor before = bias->clone();
  ASSERT_THAT(runner->Step(), IsOk());
  ASSERT_THAT(runner->Step(), IsOk());
  EXPECT_TRUE(bias->equal(before));
  EXPECT_FALSE(runner->GetTensor("0.bias")->equal(before));
  // Whole, and as another floating type.
  ASSERT_THAT(runner->SetTensor("0.bias", before.to(at::kDouble)), IsOk());
  EXPECT_TRUE(runner->GetTensor("0.bias")->equal(before));
  EXPECT_EQ(runner->GetTensor("0.bias")->scalar_type(), at::kFloat);

  EXPECT_THAT(
      runner->SetTensor("0.bias", ops::zeros({3})),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("0.bias")));
  EXPECT_THAT(
      runner->SetTensor("0.bias", at::Tensor()),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("0.bias")));
  EXPECT_TRUE(runner->GetTensor("0.bias")->equal(before));
  EXPECT_THAT(runner->GetTensor("0.bais"),
              StatusIs(absl::StatusCode::kNotFound,
                       HasSubstr("did you mean \"0.bias\"")));
  ASSERT_THAT(runner->Train(), IsOk());

  // What a resume would overwrite is not taken.
  const auto resumed = New({&env, &trace, nullptr, /*resume=*/true});
  EXPECT_THAT(resumed->SetTensor("0.bias", before),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("is loaded from")));
}

// Remembers in bytes what it has seen, and fails where it is told to.
class Counting : public Hook {
 public:
  absl::string_view name() const override { return "counting"; }
  absl::Status SaveState(std::string* bytes) override {
    if (!save_error.ok()) return save_error;
    *bytes = absl::StrCat(count);
    return absl::OkStatus();
  }
  absl::Status LoadState(const std::string& bytes) override {
    ++loads;
    if (!load_error.ok()) return load_error;
    return absl::SimpleAtoi(bytes.empty() ? "0" : bytes, &count)
               ? absl::OkStatus()
               : absl::DataLossError("is no number");
  }
  absl::Status AfterIter(RunContext&, Mode mode, const IterInfo&) override {
    count += mode == Mode::kTrain ? 1 : 1000;
    return absl::OkStatus();
  }

  int64_t count = 0;
  int loads = 0;
  absl::Status save_error, load_error;
};

TEST_P(StepTest, BytesOfAHookGoWithTheRun) {
  Counting* counting = nullptr;
  const auto with_counting = [&](RunnerOptions* options) {
    auto hook = std::make_unique<Counting>();
    counting = hook.get();
    options->hooks.push_back(Schedule(std::move(hook)));
  };
  io::MemEnv whole_env, env;
  std::vector<std::string> trace;
  const auto whole = New({&whole_env, &trace, with_counting});
  ASSERT_THAT(whole->Train(), IsOk());
  const int64_t expected = counting->count;
  ASSERT_GT(expected, 3000);
  {
    // Dropped in the middle of a validation, and with one between two steps.
    const auto runner = New({&env, &trace, with_counting});
    ASSERT_THAT(runner->Step(), IsOk());
    ASSERT_THAT(runner->Val(), IsOk());
    EXPECT_EQ(counting->count, 1);
    tracer_->on_iter = [&](RunContext& run, Mode mode) {
      if (mode == Mode::kVal) run.RequestStop("now", StopAt::kNow);
    };
    ASSERT_THAT(runner->Train(), IsOk());
    EXPECT_LT(counting->count, 1000);
  }
  {
    const auto resumed = New({&env, &trace, with_counting, /*resume=*/true});
    ASSERT_THAT(resumed->Train(), IsOk());
    EXPECT_EQ(counting->count, expected);
    EXPECT_GE(counting->loads, 1);
  }
  // One that can't be loaded is the checkpoint's fault, and named.
  const auto bad = New({&env, &trace,
                        [&](RunnerOptions* options) {
                          with_counting(options);
                          counting->load_error = absl::DataLossError("planted");
                        },
                        /*resume=*/true});
  const absl::Status loaded = bad->Train();
  EXPECT_THAT(loaded, StatusIs(absl::StatusCode::kDataLoss,
                               HasSubstr("hook \"counting\": planted")));
  EXPECT_EQ(OriginOf(loaded), ErrorOrigin::kCheckpoint);
}

TEST_P(StepTest, ASaveThatFailsAtAStopIsAnErrorWhateverItsCode) {
  for (const absl::StatusCode code :
       {absl::StatusCode::kCancelled, absl::StatusCode::kInternal}) {
    io::MemEnv env;
    std::vector<std::string> trace;
    Counting* counting = nullptr;
    const auto runner =
        New({&env, &trace, [&](RunnerOptions* options) {
               auto hook = std::make_unique<Counting>();
               counting = hook.get();
               options->hooks.push_back(Schedule(std::move(hook)));
             }});
    tracer_->on_iter = [&](RunContext& run, Mode) {
      counting->save_error = absl::Status(code, "planted");
      run.RequestStop("now", StopAt::kNow);
    };
    EXPECT_THAT(runner->Train(), StatusIs(code == absl::StatusCode::kCancelled
                                              ? absl::StatusCode::kAborted
                                              : code,
                                          HasSubstr("planted")));
  }
}

TEST_P(StepTest, TimeBetweenStepsIsNobodys) {
  io::MemEnv env;
  std::vector<std::string> trace;
  const auto runner = New({&env, &trace});
  for (int i = 0; i < 8; ++i) {
    ASSERT_THAT(runner->Step(), IsOk());
    clock_.Advance(absl::Hours(1));
  }
  for (const char* name : {"train/time", "train/data_time"}) {
    const HistoryBuffer* history =
        runner->context().message_hub().FindScalar(name);
    ASSERT_NE(history, nullptr) << name;
    EXPECT_EQ(*history->GlobalMax(), 0) << name;
  }
}

}  // namespace
}  // namespace grapnel
