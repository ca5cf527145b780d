// A run by iteration over a stream of the C API is the one over the same stream
// by C++, cut and resumed too.

#include <cstdint>
#include <map>
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
#include "grapnel/base/status_macros.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/data/iterable_dataset.h"
#include "grapnel/data/sample.h"
#include "grapnel/grapnel.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/env.h"
#include "grapnel/loggers/memory_run_log.h"
#include "grapnel/runner/config_file.h"
#include "grapnel/runner/runner.h"
#include "grapnel/runner/runner_config.pb.h"
#include "grapnel/tests/capi/runs/took.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kRows = 10;
constexpr int64_t kIters = 11;

// A pass of the stream is batches of 4, 4 and 2. Dropout and windows of two
// iterations, so that a wrong batch is not the only thing that would show.
constexpr char kConfig[] = R"pb(
  randomness { seed: 3 }
  model {
    sequential {
      layers { linear { out_features: 8 } }
      layers { dropout { p: 0.5 } }
      layers { linear { out_features: 1 } }
      loss { mse {} }
    }
  }
  train_cfg { by_epoch: false max_iters: 11 }
  optim_wrapper {
    optimizer { adamw { lr: 0.05 } }
    accumulative_counts: 2
  }
  default_hooks { checkpoint { by_epoch: false interval: 1 } }
)pb";

std::string ConfigText(const std::string& work_dir, int num_workers,
                       bool resume) {
  return absl::StrCat(
      "work_dir: \"", work_dir, "\" ", resume ? "resume: true " : "",
      "train_dataloader { batch_size: 4 prefetch_factor: 5 num_workers: ",
      num_workers, " } ", kConfig);
}

// The rows, beginning 3 rows later in each pass.
struct Place {
  int64_t row() const { return (next + 3 * pass) % kRows; }

  int64_t pass = 0;
  int64_t next = 0;
};

// y = x0 + x1.
void WriteRow(int64_t row, float* input, float* target) {
  input[0] = static_cast<float>(row) / 8;
  input[1] = static_cast<float>(row % 3) - 1;
  *target = input[0] + input[1];
}

// Weights and the optimizer's slots in the newest checkpoint.
absl::StatusOr<std::string> Weights(const std::string& work_dir) {
  std::string bytes;
  GRAPNEL_ASSIGN_OR_RETURN(const io::LatestCheckpoint latest,
                           io::ReadLatestCheckpoint(io::Env::Posix(), work_dir,
                                                    /*rejected=*/nullptr));
  for (const auto& [name, tensors] : latest.contents.sections) {
    for (const NamedTensor& tensor : tensors) {
      absl::StrAppend(&bytes, name, "/", tensor.name, ":",
                      absl::string_view(static_cast<const char*>(
                                            tensor.tensor.const_data_ptr()),
                                        tensor.tensor.nbytes()));
    }
  }
  return bytes;
}

// -------------------------------------------------------------------- by C++

class RowStream final : public IterableDataset {
 public:
  explicit RowStream(bool has_state) : has_state_(has_state) {}

  absl::Status BeginPass(int64_t pass) override {
    place_ = {pass, 0};
    return absl::OkStatus();
  }
  absl::StatusOr<bool> Next(Sample* sample) override {
    if (place_.next == kRows) return false;
    float input[2], target;
    WriteRow(place_.row(), input, &target);
    ++place_.next;
    sample->input = ops::tensor({input[0], input[1]});
    sample->target = ops::tensor({target});
    return true;
  }
  bool has_state() const override { return has_state_; }
  absl::Status SaveState(std::string* state) override {
    *state = absl::StrCat(place_.next);
    return absl::OkStatus();
  }
  absl::Status LoadState(absl::string_view state) override {
    GRAPNEL_RET_CHECK(absl::SimpleAtoi(state, &place_.next));
    return absl::OkStatus();
  }

 private:
  const bool has_state_;
  Place place_;
};

absl::StatusOr<std::string> TrainedByCpp(const std::string& work_dir,
                                         int num_workers, bool has_state) {
  GRAPNEL_ASSIGN_OR_RETURN(
      const runner::v1::RunnerConfig config,
      ParseRunnerConfig(ConfigText(work_dir, num_workers, /*resume=*/false),
                        ConfigFormat::kText, "config"));
  RunnerOptions options;
  MemoryRunLog log;
  options.log = &log;
  options.train_stream = std::make_unique<RowStream>(has_state);
  GRAPNEL_ASSIGN_OR_RETURN(const std::unique_ptr<Runner> runner,
                           Runner::Create(config, std::move(options)));
  GRAPNEL_RETURN_IF_ERROR(runner->Train());
  return Weights(work_dir);
}

// -------------------------------------------------------------- by the C API

// The user data of a stream.
struct Wire {
  // The callback that fails: when it has been called `after` times or, next,
  // has given so many rows, over all passes. Or "no input".
  std::string failing;
  int64_t after = 0;
  int64_t rows = kRows;  // Of a pass.

  Place place;
  std::map<std::string, int64_t> calls;
  int destroyed = 0;

  grapnel_status* Call(const std::string& callback) {
    const int64_t number = calls[callback]++;
    const int64_t given = place.pass * kRows + place.next;
    if (callback != failing || (callback == "next" ? given : number) < after) {
      return nullptr;
    }
    const std::string message = absl::StrCat("planted in ", callback);
    return grapnel_status_create(GRAPNEL_UNAVAILABLE, message.data(),
                                 message.size());
  }
};

Wire& Of(void* user_data) { return *static_cast<Wire*>(user_data); }

grapnel_status* BeginPass(void* user_data, int64_t pass) {
  Of(user_data).place = {pass, 0};
  return Of(user_data).Call("begin_pass");
}

grapnel_status* Next(void* user_data, grapnel_tensors* sample) {
  Wire& wire = Of(user_data);
  grapnel_status* status = wire.Call("next");
  if (status != nullptr || wire.place.next == wire.rows) return status;
  float input[2], target;
  WriteRow(wire.place.row(), input, &target);
  ++wire.place.next;
  const int64_t two = 2;
  const int64_t one = 1;
  if (wire.failing != "no input") {
    status = grapnel_tensors_add_copy(sample, "input", 5, GRAPNEL_FLOAT32, &two,
                                      1, input, sizeof(input));
    if (status != nullptr) return status;
  }
  return grapnel_tensors_add_copy(sample, "target", 6, GRAPNEL_FLOAT32, &one, 1,
                                  &target, sizeof(target));
}

grapnel_status* SaveState(void* user_data, grapnel_bytes* state) {
  Wire& wire = Of(user_data);
  grapnel_status* const status = wire.Call("save_state");
  if (status != nullptr) return status;
  const std::string text = absl::StrCat(wire.place.next);
  return grapnel_bytes_assign(state, text.data(), text.size());
}

grapnel_status* LoadState(void* user_data, const void* state,
                          size_t state_size) {
  Wire& wire = Of(user_data);
  EXPECT_TRUE(absl::SimpleAtoi(
      absl::string_view(static_cast<const char*>(state), state_size),
      &wire.place.next));
  return wire.Call("load_state");
}

struct Setting {
  const char* name;
  bool has_state;
  int num_workers;
};

void PrintTo(const Setting& setting, std::ostream* os) { *os << setting.name; }

class StreamTest : public ::testing::TestWithParam<Setting> {
 protected:
  void TearDown() override {
    runner_.reset();
    EXPECT_EQ(grapnel_live_objects(), 0);
  }

  // A folder of this test's own.
  static std::string WorkDir(const std::string& what) {
    std::string name =
        ::testing::UnitTest::GetInstance()->current_test_info()->name();
    for (char& c : name) {
      if (c == '/') c = '_';
    }
    return io::JoinPath(::testing::TempDir(), absl::StrCat(name, "_", what));
  }

  static Owned<grapnel_runner_options> Options(const std::string& work_dir,
                                               bool resume = false) {
    grapnel_runner_options* options = nullptr;
    EXPECT_THAT(Took(grapnel_runner_options_create(&options)), IsOk());
    const std::string config =
        ConfigText(work_dir, GetParam().num_workers, resume);
    EXPECT_THAT(Took(grapnel_runner_options_set_config(
                    options, config.data(), config.size(), GRAPNEL_TEXT)),
                IsOk());
    return Owned<grapnel_runner_options>(options);
  }

  static void SetStream(const Owned<grapnel_runner_options>& options,
                        Wire* wire) {
    grapnel_stream_callbacks callbacks = {};
    callbacks.struct_size = sizeof(callbacks);
    callbacks.begin_pass = BeginPass;
    callbacks.next = Next;
    if (GetParam().has_state) {
      callbacks.save_state = SaveState;
      callbacks.load_state = LoadState;
    }
    callbacks.destroy = [](void* user_data) { ++Of(user_data).destroyed; };
    EXPECT_THAT(Took(grapnel_runner_options_set_stream(options.get(),
                                                       &callbacks, wire)),
                IsOk());
  }

  absl::Status Create(const Owned<grapnel_runner_options>& options) {
    grapnel_runner* runner = nullptr;
    const absl::Status status =
        Took(grapnel_runner_create(options.get(), &runner));
    EXPECT_EQ(runner != nullptr, status.ok());
    runner_.reset(runner);
    return status;
  }

  absl::Status Create(const std::string& work_dir, Wire* wire,
                      bool resume = false) {
    const auto options = Options(work_dir, resume);
    SetStream(options, wire);
    return Create(options);
  }

  absl::Status Train() { return Took(grapnel_runner_train(runner_.get())); }

  std::string Trained(const std::string& what) {
    const std::string work_dir = WorkDir(what);
    Wire wire;
    EXPECT_THAT(Create(work_dir, &wire), IsOk());
    EXPECT_THAT(Train(), IsOk());
    runner_.reset();
    EXPECT_EQ(wire.destroyed, 1);
    return Trace(work_dir);
  }

  static std::string Trace(const std::string& work_dir) {
    const auto weights = Weights(work_dir);
    EXPECT_THAT(weights, IsOk());
    return weights.ok() ? *weights : "";
  }

  Owned<grapnel_runner> runner_;
};

INSTANTIATE_TEST_SUITE_P(
    , StreamTest,
    testing::Values(Setting{"ReadByTheLoop", true, 0},
                    Setting{"ReadAhead", true, 1},
                    Setting{"ReadByTheLoopWithoutState", false, 0},
                    Setting{"ReadAheadWithoutState", false, 1}),
    [](const auto& info) { return std::string(info.param.name); });

TEST_P(StreamTest, TheCRunIsTheCppRun) {
  const auto expected = TrainedByCpp(WorkDir("cpp"), GetParam().num_workers,
                                     GetParam().has_state);
  ASSERT_THAT(expected, IsOk());
  EXPECT_TRUE(Trained("c") == *expected);
}

TEST_P(StreamTest, ADroppedRunIsResumedToTheSameEnd) {
  const std::string expected = Trained("whole");
  for (const int64_t steps :
       {int64_t{0}, int64_t{1}, int64_t{3}, int64_t{4}, kIters}) {
    SCOPED_TRACE(steps);
    const std::string work_dir = WorkDir(absl::StrCat(steps));
    Wire first;
    ASSERT_THAT(Create(work_dir, &first), IsOk());
    for (int64_t i = 0; i < steps; ++i) {
      ASSERT_THAT(Took(grapnel_runner_step(runner_.get(), nullptr)), IsOk());
    }
    runner_.reset();
    EXPECT_EQ(first.destroyed, 1);

    Wire second;
    ASSERT_THAT(Create(work_dir, &second, /*resume=*/true), IsOk());
    ASSERT_THAT(Train(), IsOk());
    EXPECT_EQ(grapnel_runner_iter(runner_.get()), kIters);
    runner_.reset();
    EXPECT_EQ(second.destroyed, 1);
    EXPECT_EQ(second.calls["load_state"] > 0,
              GetParam().has_state && steps > 0);
    EXPECT_TRUE(Trace(work_dir) == expected);
  }
}

TEST_P(StreamTest, AnErrorEndsTheRunWithItsMessageAndTheNextCallGoesOn) {
  struct Case {
    std::string failing;
    int64_t after;
    std::string message;
    int64_t iter;  // Where the run ends.
  };
  const std::vector<Case> cases = {
      {"begin_pass", 1, "stream: pass 1: begin_pass: planted in begin_pass", 3},
      {"next", kRows + 5, "stream: pass 1: sample 5: next: planted in next", 4},
      {"save_state", 1,
       "stream: state after 8 samples of pass 0: save_state: planted in "
       "save_state",
       1},
  };
  const std::string expected = Trained("whole");
  for (const Case& c : cases) {
    if (c.failing == "save_state" && !GetParam().has_state) continue;
    SCOPED_TRACE(c.failing);
    const std::string work_dir = WorkDir(c.failing);
    Wire wire;
    wire.failing = c.failing;
    wire.after = c.after;
    ASSERT_THAT(Create(work_dir, &wire), IsOk());
    EXPECT_THAT(Train(), StatusIs(absl::StatusCode::kUnavailable, c.message));
    EXPECT_EQ(grapnel_runner_iter(runner_.get()), c.iter);
    wire.failing = "";
    EXPECT_THAT(Train(), IsOk());
    runner_.reset();
    EXPECT_EQ(wire.destroyed, 1);
    EXPECT_TRUE(Trace(work_dir) == expected);
  }
}

// Without a state the stream is read again up to there, and nothing is loaded.
TEST_P(StreamTest, AnErrorOfLoadStateIsTheResumes) {
  const std::string work_dir = WorkDir("run");
  Wire first;
  ASSERT_THAT(Create(work_dir, &first), IsOk());
  ASSERT_THAT(Took(grapnel_runner_step(runner_.get(), nullptr)), IsOk());
  runner_.reset();
  Wire second;
  second.failing = "load_state";
  const absl::Status resumed = Create(work_dir, &second, /*resume=*/true);
  if (GetParam().has_state) {
    EXPECT_THAT(resumed,
                StatusIs(absl::StatusCode::kUnavailable,
                         HasSubstr("stream: state after 4 samples of pass 0: "
                                   "load_state: planted in load_state")));
    EXPECT_EQ(second.destroyed, 1);
  } else {
    EXPECT_THAT(resumed, IsOk());
    runner_.reset();
    EXPECT_EQ(second.destroyed, 1);
  }
}

TEST_P(StreamTest, WhatIsNoSampleIsSaid) {
  Wire wire;
  wire.failing = "no input";
  EXPECT_THAT(
      Create(WorkDir("run"), &wire),
      StatusIs(absl::StatusCode::kInvalidArgument,
               HasSubstr("stream: pass 0: sample 0: next: gave no tensor "
                         "\"input\"")));
}

TEST_P(StreamTest, APassWithoutSamplesIsAnError) {
  Wire wire;
  wire.rows = 0;
  EXPECT_THAT(
      Create(WorkDir("run"), &wire),
      StatusIs(absl::StatusCode::kInvalidArgument,
               HasSubstr("stream: pass 0: gives no batch: has 0 samples")));
}

TEST_P(StreamTest, AStreamAndADatasetAreTooMuch) {
  grapnel_tensors* tensors = nullptr;
  ASSERT_THAT(Took(grapnel_tensors_create(&tensors)), IsOk());
  const Owned<grapnel_tensors> owned(tensors);
  const float inputs[] = {1, 2, 3, 4};
  const int64_t shape[] = {2, 2};
  ASSERT_THAT(
      Took(grapnel_tensors_add_copy(tensors, "input", 5, GRAPNEL_FLOAT32, shape,
                                    2, inputs, sizeof(inputs))),
      IsOk());
  const auto options = Options(WorkDir("run"));
  ASSERT_THAT(Took(grapnel_runner_options_set_tensors(options.get(),
                                                      GRAPNEL_TRAIN, tensors)),
              IsOk());
  Wire wire;
  SetStream(options, &wire);
  EXPECT_THAT(Create(options),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("train_stream: must not be given along with "
                                 "train_dataset")));
}

}  // namespace
}  // namespace grapnel
