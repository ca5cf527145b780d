// A run by iteration over a stream: cut anywhere it ends as if it had not been,
// however far its loader had read ahead.

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "grapnel/base/fake_clock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/data/iterable_dataset.h"
#include "grapnel/data/sample.h"
#include "grapnel/data/tensor_dataset.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/env.h"
#include "grapnel/io/mem_env.h"
#include "grapnel/loggers/memory_run_log.h"
#include "grapnel/runner/hook.h"
#include "grapnel/runner/hook_registry.h"
#include "grapnel/runner/parse_config_for_test.h"
#include "grapnel/runner/rehearsal.h"
#include "grapnel/runner/run_checkpoint.h"
#include "grapnel/runner/run_context.h"
#include "grapnel/runner/run_state.pb.h"
#include "grapnel/runner/runner.h"
#include "grapnel/runner/runner_config.pb.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::grapnel::runner::v1::RunnerConfig;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr int64_t kRows = 10;
constexpr int64_t kIters = 11;

// A pass of the stream is batches of 4, 4 and 2. Dropout and windows of two
// iterations, so that a wrong batch is not the only thing that would show.
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
  train_dataloader { batch_size: 4 prefetch_factor: 5 }
  val_dataloader { batch_size: 5 }
  train_cfg { by_epoch: false max_iters: 11 val_interval: 4 }
  optim_wrapper {
    optimizer { adamw { lr: 0.05 } }
    accumulative_counts: 2
  }
  param_scheduler { linear { by_epoch: false end: 5 } }
  val_evaluator { mse {} }
  default_hooks { checkpoint { by_epoch: false interval: 1 } }
)pb";

at::Tensor Inputs() {
  return ops::arange(2 * kRows, at::kFloat).view({kRows, 2}).sin();
}
at::Tensor Targets() { return Inputs().sum(1, true); }

// The rows, beginning `step` rows later in each pass.
class RowStream final : public IterableDataset {
 public:
  // Fails where that many rows were read, over all passes, while it is >= 0.
  RowStream(bool has_state, int64_t step, const std::atomic<int64_t>* fail_at)
      : has_state_(has_state),
        step_(step),
        fail_at_(fail_at),
        inputs_(Inputs()),
        targets_(Targets()) {}

  absl::Status BeginPass(int64_t pass) override {
    pass_ = pass;
    next_ = 0;
    return absl::OkStatus();
  }

  absl::StatusOr<bool> Next(Sample* sample) override {
    if (fail_at_ != nullptr && *fail_at_ == pass_ * kRows + next_) {
      return absl::UnavailableError("the wire is cut");
    }
    if (next_ == kRows) return false;
    const int64_t row = (next_++ + step_ * pass_) % kRows;
    sample->input = inputs_[row];
    sample->target = targets_[row];
    return true;
  }

  bool has_state() const override { return has_state_; }
  absl::Status SaveState(std::string* state) override {
    *state = absl::StrCat("row ", next_);
    return absl::OkStatus();
  }
  absl::Status LoadState(absl::string_view state) override {
    return state.substr(0, 4) == "row " &&
                   absl::SimpleAtoi(state.substr(4), &next_)
               ? absl::OkStatus()
               : absl::DataLossError("no row is named");
  }

 private:
  const bool has_state_;
  const int64_t step_;
  const std::atomic<int64_t>* const fail_at_;
  const at::Tensor inputs_, targets_;
  int64_t pass_ = 0;
  int64_t next_ = 0;
};

// Fails once before an iteration, when its batch has been taken.
class FailingHook final : public Hook {
 public:
  explicit FailingHook(int64_t iter) : iter_(iter) {}
  absl::string_view name() const override { return "failing"; }
  absl::Status BeforeTrainIter(RunContext& run, const IterInfo&) override {
    if (run.iter() != iter_) return absl::OkStatus();
    iter_ = -1;
    return absl::UnknownError("planted");
  }

 private:
  int64_t iter_;
};

// With a terminal, so that there is a progress bar.
class TerminalLog final : public MemoryRunLog {
 public:
  int StatusColumns() override { return 80; }
};

struct Setting {
  const char* name;
  bool has_state;
  int workers;
};

void PrintTo(const Setting& setting, std::ostream* out) {
  *out << setting.name;
}

class StreamTest : public ::testing::TestWithParam<Setting> {
 protected:
  using Change = std::function<void(RunnerConfig*, RunnerOptions*)>;

  std::unique_ptr<IterableDataset> Stream(int64_t step = 3) {
    return std::make_unique<RowStream>(GetParam().has_state, step, &fail_at_);
  }

  static void UseDataset(RunnerConfig*, RunnerOptions* options) {
    options->train_stream = nullptr;
    options->train_dataset = *TensorDataset::Create(Inputs(), Targets());
  }

  RunnerOptions Options(io::MemEnv& env) {
    RunnerOptions options;
    options.env = &env;
    options.clock = &clock_;
    options.log = &log_;
    options.train_stream = Stream();
    options.val_dataset = *TensorDataset::Create(Inputs(), Targets());
    return options;
  }

  RunnerConfig Config() {
    RunnerConfig config = ParseConfig(kConfig);
    config.mutable_train_dataloader()->set_num_workers(GetParam().workers);
    return config;
  }

  absl::StatusOr<std::unique_ptr<Runner>> TryNew(
      io::MemEnv& env, bool resume, const Change& change = nullptr) {
    RunnerConfig config = Config();
    config.set_resume(resume);
    RunnerOptions options = Options(env);
    if (change) change(&config, &options);
    return Runner::Create(config, std::move(options));
  }

  std::unique_ptr<Runner> New(io::MemEnv& env, bool resume = false,
                              const Change& change = nullptr) {
    auto runner = TryNew(env, resume, change);
    EXPECT_THAT(runner, IsOk());
    return *std::move(runner);
  }

  // Weights and the optimizer's slots in the newest checkpoint.
  static std::string Weights(io::MemEnv& env) {
    std::string bytes;
    const auto latest = io::ReadLatestCheckpoint(env, "/run", nullptr);
    EXPECT_THAT(latest, IsOk());
    if (!latest.ok()) return bytes;
    for (const auto& [name, tensors] : latest->contents.sections) {
      for (const NamedTensor& tensor : tensors) {
        absl::StrAppend(&bytes, name, "/", tensor.name, ":",
                        absl::string_view(static_cast<const char*>(
                                              tensor.tensor.const_data_ptr()),
                                          tensor.tensor.nbytes()));
      }
    }
    return bytes;
  }

  std::string Trained(const Change& change = nullptr) {
    io::MemEnv env;
    EXPECT_THAT(New(env, /*resume=*/false, change)->Train(), IsOk());
    return Weights(env);
  }

  FakeClock clock_;
  TerminalLog log_;
  std::atomic<int64_t> fail_at_{-1};
};

INSTANTIATE_TEST_SUITE_P(
    , StreamTest,
    testing::Values(Setting{"ReadByTheLoop", true, 0},
                    Setting{"ReadAhead", true, 1},
                    Setting{"ReadByTheLoopWithoutState", false, 0},
                    Setting{"ReadAheadWithoutState", false, 1}),
    [](const auto& info) { return std::string(info.param.name); });

TEST_P(StreamTest, IsTheRunOverADatasetInOrder) {
  const std::string of_stream =
      Trained([this](RunnerConfig*, RunnerOptions* options) {
        options->train_stream = Stream(/*step=*/0);
      });
  EXPECT_TRUE(of_stream == Trained(UseDataset));
  EXPECT_FALSE(of_stream == Trained()) << "passes are all alike";
}

TEST_P(StreamTest, ADroppedRunIsResumedToTheSameEnd) {
  const std::string expected = Trained();
  for (int64_t steps = 0; steps <= kIters; ++steps) {
    SCOPED_TRACE(steps);
    io::MemEnv env;
    {
      const auto runner = New(env);
      for (int64_t i = 0; i < steps; ++i) ASSERT_THAT(runner->Step(), IsOk());
    }
    EXPECT_THAT(New(env, /*resume=*/true)->Train(), IsOk());
    EXPECT_TRUE(Weights(env) == expected);
  }
}

TEST_P(StreamTest, TheSavedPositionIsThatOfTheBatchTrained) {
  io::MemEnv env;
  const auto runner = New(env);
  // Iteration 3 has what the first pass leaves.
  const std::vector<std::pair<int64_t, int64_t>> expected = {
      {0, 4}, {0, 8}, {0, 10}, {1, 4}};
  for (const auto& [pass, samples] : expected) {
    ASSERT_THAT(runner->Step(), IsOk());
    const auto latest = io::ReadLatestCheckpoint(env, "/run", nullptr);
    ASSERT_THAT(latest, IsOk());
    const auto state = ReadRunState(latest->contents);
    ASSERT_THAT(state, IsOk());
    const auto& position = state->data().stream();
    EXPECT_EQ(position.pass(), pass);
    EXPECT_EQ(position.samples(), samples);
    EXPECT_EQ(position.state(),
              GetParam().has_state ? absl::StrCat("row ", samples) : "");
    const auto& progress = latest->contents.manifest().progress();
    EXPECT_EQ(progress.pass(), pass);
    EXPECT_EQ(progress.samples_in_pass(), samples);
  }
}

TEST_P(StreamTest, ABatchThatWasNotTrainedComesAgain) {
  const std::string expected = Trained();
  for (const int64_t iter : {int64_t{0}, int64_t{2}, int64_t{3}, kIters - 1}) {
    SCOPED_TRACE(iter);
    io::MemEnv env;
    const auto runner = New(
        env, /*resume=*/false, [iter](RunnerConfig*, RunnerOptions* options) {
          options->hooks.push_back(
              Schedule(std::make_unique<FailingHook>(iter)));
        });
    EXPECT_THAT(runner->Train(),
                StatusIs(absl::StatusCode::kUnknown, HasSubstr("planted")));
    EXPECT_EQ(runner->context().iter(), iter);
    EXPECT_THAT(runner->Train(), IsOk());
    EXPECT_TRUE(Weights(env) == expected);
  }
}

TEST_P(StreamTest, AnErrorOfTheStreamEndsTheTrainingAndTheNextGoesOn) {
  const std::string expected = Trained();
  io::MemEnv env;
  fail_at_ = kRows + 5;  // Of the second batch of the second pass.
  const auto runner = New(env);
  const absl::Status status = runner->Train();
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kUnavailable,
                               "stream: pass 1: sample 5: the wire is cut"));
  EXPECT_EQ(OriginOf(status), ErrorOrigin::kData);
  EXPECT_EQ(runner->context().iter(), 4);
  fail_at_ = -1;
  EXPECT_THAT(runner->Train(), IsOk());
  EXPECT_TRUE(Weights(env) == expected);
}

TEST_P(StreamTest, AnotherBatchSizeGoesOnFromTheSameSample) {
  io::MemEnv env;
  {
    const auto runner = New(env);
    ASSERT_THAT(runner->Step(), IsOk());
  }
  const auto runner =
      New(env, /*resume=*/true, [](RunnerConfig* config, RunnerOptions*) {
        config->mutable_train_dataloader()->set_batch_size(3);
      });
  ASSERT_THAT(runner->Step(), IsOk());
  const auto latest = io::ReadLatestCheckpoint(env, "/run", nullptr);
  ASSERT_THAT(latest, IsOk());
  EXPECT_EQ(ReadRunState(latest->contents)->data().stream().samples(), 7);
  EXPECT_THAT(log_.messages(),
              Contains(AllOf(HasSubstr("had a stream in batches of 4"),
                             HasSubstr("has a stream in batches of 3"))));
}

TEST_P(StreamTest, IsNotResumedAsADatasetNorOneAsIt) {
  io::MemEnv env;
  ASSERT_THAT(New(env)->Train(), IsOk());
  EXPECT_THAT(TryNew(env, /*resume=*/true, UseDataset),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("/run/iter_11: train_dataloader: the "
                                       "checkpoint's data was a stream"),
                             HasSubstr("this run's is 10 samples"),
                             Not(HasSubstr("the nearest one")))));
  io::MemEnv other;
  ASSERT_THAT(New(other, /*resume=*/false, UseDataset)->Train(), IsOk());
  EXPECT_THAT(TryNew(other, /*resume=*/true),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("data was 10 samples"),
                             HasSubstr("this run's is a stream"),
                             Not(HasSubstr("the nearest one")))));
}

TEST_P(StreamTest, APositionThatItCannotGoToIsAnErrorOfTheResume) {
  io::MemEnv env;
  ASSERT_THAT(New(env)->Train(), IsOk());
  // One with another meaning of its state, or with shorter passes.
  class Other final : public IterableDataset {
   public:
    absl::Status BeginPass(int64_t) override { return absl::OkStatus(); }
    absl::StatusOr<bool> Next(Sample*) override { return false; }
    bool has_state() const override { return true; }
    absl::Status LoadState(absl::string_view state) override {
      return absl::DataLossError("no such shard");
    }
  };
  EXPECT_THAT(
      TryNew(env, /*resume=*/true,
             [](RunnerConfig*, RunnerOptions* options) {
               options->train_stream = std::make_unique<Other>();
             }),
      StatusIs(
          GetParam().has_state ? absl::StatusCode::kDataLoss
                               : absl::StatusCode::kFailedPrecondition,
          AllOf(HasSubstr("resume: /run/iter_11: train_dataloader: stream: "),
                HasSubstr(GetParam().has_state
                              ? "state after 8 samples of pass 3: no such shard"
                              : "pass 3: has 0 samples"))));
}

TEST_P(StreamTest, CanBeRehearsed) {
  io::MemEnv env;
  const auto rehearsal = Rehearsal::Create(Config(), Options(env));
  ASSERT_THAT(rehearsal, IsOk());
  const auto report = (*rehearsal)->Run();
  ASSERT_THAT(report, IsOk());
  ASSERT_EQ(report->parts.size(), 2u);
  EXPECT_EQ(report->parts[0].name, "train_dataloader");
  EXPECT_EQ(report->parts[0].samples, 0);
  EXPECT_GE(report->parts[0].iterations, 1);
  EXPECT_EQ(report->parts[0].inputs.shape, "(4, 2)");
}

struct BadCase {
  const char* name;
  const char* more;  // Of the config.
  const char* message;
};

void PrintTo(const BadCase& c, std::ostream* out) { *out << c.name; }

class StreamBadTest : public ::testing::TestWithParam<BadCase> {};

INSTANTIATE_TEST_SUITE_P(
    , StreamBadTest,
    testing::Values(
        BadCase{"ByEpoch", "train_cfg { max_epochs: 2 }",
                "train_cfg: by_epoch: must be false with a stream"},
        BadCase{"Sampler",
                "train_cfg { by_epoch: false max_iters: 2 } "
                "train_dataloader { sampler { shuffle: true } }",
                "train_dataloader: sampler: must be unset with a stream"},
        BadCase{"Dataset",
                "train_cfg { by_epoch: false max_iters: 2 } "
                "train_dataloader { dataset { idx {} } }",
                "train_dataloader: dataset: must be unset with a stream"},
        BadCase{"Converted",
                "train_cfg { by_epoch: false max_iters: 2 } "
                "param_scheduler { linear { convert_to_iter_based: true "
                "end: 5 } }",
                "convert_to_iter_based: needs a run whose epochs have a known "
                "length"}),
    [](const auto& info) { return std::string(info.param.name); });

TEST_P(StreamBadTest, NamesTheField) {
  RunnerConfig config = ParseConfig(R"pb(
    work_dir: "/run"
    model {
      sequential {
        layers { linear { out_features: 1 } }
        loss { mse {} }
      }
    }
    train_dataloader { batch_size: 4 }
    optim_wrapper { optimizer { adamw {} } }
  )pb");
  config.MergeFrom(ParseConfig(GetParam().more));
  io::MemEnv env;
  RunnerOptions options;
  options.env = &env;
  options.train_stream =
      std::make_unique<RowStream>(true, 0, /*fail_at=*/nullptr);
  EXPECT_THAT(Runner::Create(config, std::move(options)),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr(GetParam().message)));
}

TEST(StreamOptionsTest, AStreamAndADatasetAreTooMuch) {
  io::MemEnv env;
  RunnerOptions options;
  options.env = &env;
  options.train_stream =
      std::make_unique<RowStream>(true, 0, /*fail_at=*/nullptr);
  options.train_dataset = *TensorDataset::Create(Inputs(), Targets());
  EXPECT_THAT(Runner::Create(ParseConfig(kConfig), std::move(options)),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("train_stream: must not be given along with "
                                 "train_dataset")));
}

}  // namespace
}  // namespace grapnel
