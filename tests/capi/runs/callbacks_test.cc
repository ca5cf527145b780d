// What callbacks do besides their work: they fail, call the runner they are
// called by, are called by several threads, and are stopped by others.

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <ostream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/grapnel.h"
#include "grapnel/io/env.h"
#include "grapnel/tests/capi/runs/took.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::_;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Key;
using ::testing::Not;

// What all callbacks of a test have as user data.
struct Host {
  // Of the callback of that name, when it has been called `after` times.
  std::string failing;
  int after = 0;
  grapnel_code code = GRAPNEL_UNAVAILABLE;

  std::function<void(absl::string_view callback)> on_call;
  std::function<grapnel_status*(grapnel_stage, grapnel_run*)> on_stage;
  std::function<void()> on_line;
  grapnel_runner* runner = nullptr;

  std::mutex mutex;
  std::map<std::string, int> calls;
  std::vector<std::string> errors;  // What ON_ERROR has said.
  std::string loaded = "nothing";   // By load_state.
  int taken = 0;                    // How often this is user data,
  int destroyed = 0;                // and how often it was destroyed as such.

  // How often it was called before. Loaders' workers call too.
  int Count(const std::string& callback) {
    const std::lock_guard<std::mutex> lock(mutex);
    return calls[callback]++;
  }

  grapnel_status* Call(const std::string& callback) {
    const int number = Count(callback);
    if (on_call) on_call(callback);
    if (callback != failing || number < after) return nullptr;
    const std::string message = absl::StrCat("planted in ", callback);
    return grapnel_status_create(code, message.data(), message.size());
  }
};

Host& Of(void* user_data) { return *static_cast<Host*>(user_data); }

void Destroy(void* user_data) { ++Of(user_data).destroyed; }

void OnLine(void* user_data, grapnel_severity, const char*, size_t) {
  Of(user_data).on_line();
}

constexpr int64_t kSamples = 8;

// y = x0 + 2 x1.
void WriteSample(int64_t index, float* input, float* target) {
  input[0] = static_cast<float>(index) / 8;
  input[1] = static_cast<float>(index % 3);
  *target = input[0] + 2 * input[1];
}

grapnel_status* Get(void* user_data, int64_t index, grapnel_tensors* sample) {
  grapnel_status* status = Of(user_data).Call("get");
  if (status != nullptr) return status;
  float input[2], target;
  WriteSample(index, input, &target);
  const int64_t shape[] = {2};
  status = grapnel_tensors_add_copy(sample, "input", 5, GRAPNEL_FLOAT32, shape,
                                    1, input, sizeof(input));
  if (status != nullptr) return status;
  const int64_t one[] = {1};
  return grapnel_tensors_add_copy(sample, "target", 6, GRAPNEL_FLOAT32, one, 1,
                                  &target, sizeof(target));
}

grapnel_status* GetBatch(void* user_data, const int64_t* indices, size_t count,
                         grapnel_tensors* batch) {
  grapnel_status* status = Of(user_data).Call("get_batch");
  if (status != nullptr) return status;
  std::vector<float> inputs(2 * count), targets(count);
  for (size_t i = 0; i < count; ++i) {
    WriteSample(indices[i], &inputs[2 * i], &targets[i]);
  }
  const int64_t shape[] = {static_cast<int64_t>(count), 2};
  status = grapnel_tensors_add_copy(batch, "input", 5, GRAPNEL_FLOAT32, shape,
                                    2, inputs.data(), 8 * count);
  if (status != nullptr) return status;
  const int64_t column[] = {static_cast<int64_t>(count), 1};
  return grapnel_tensors_add_copy(batch, "target", 6, GRAPNEL_FLOAT32, column,
                                  2, targets.data(), 4 * count);
}

// The mean of (output - target)^2, and its slope.
grapnel_status* ComputeLoss(void* user_data, const grapnel_tensor* output,
                            const grapnel_tensors* batch, double* loss,
                            grapnel_tensor** grad) {
  Host& host = Of(user_data);
  grapnel_status* const status =
      host.Call(grad == nullptr ? "compute_loss_alone" : "compute_loss");
  if (status != nullptr) return status;
  const auto* const y = static_cast<float*>(grapnel_tensor_data(output));
  const auto* const target = static_cast<float*>(
      grapnel_tensor_data(grapnel_tensors_find(batch, "target", 6)));
  const int64_t n = grapnel_tensor_numel(output);
  std::vector<float> slope(n);
  *loss = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double residual = y[i] - target[i];
    *loss += residual * residual / static_cast<double>(n);
    slope[i] = static_cast<float>(2 * residual / static_cast<double>(n));
  }
  if (grad == nullptr) return nullptr;
  if (host.failing == "no gradient") return nullptr;
  const int64_t flat[] = {n};
  const bool misshapen = host.failing == "misshapen gradient";
  return grapnel_tensor_create(
      GRAPNEL_FLOAT32, misshapen ? flat : grapnel_tensor_shape(output),
      misshapen ? 1 : 2, slope.data(), slope.size() * sizeof(float), grad);
}

// A model of one weight, w, that nothing depends on.
grapnel_status* TrainStep(void* user_data, const grapnel_tensors*,
                          grapnel_tensors* gradients, grapnel_scalars* losses) {
  Host& host = Of(user_data);
  grapnel_status* status = host.Call("train_step");
  if (status != nullptr) return status;
  const float one[2] = {1, 1};
  const int64_t shape[] = {host.failing == "misshapen weight" ? 2 : 1};
  status = grapnel_tensors_add_copy(gradients, "w", 1, GRAPNEL_FLOAT32, shape,
                                    1, one, 4 * static_cast<size_t>(shape[0]));
  if (status != nullptr || host.failing == "no losses") return status;
  return grapnel_scalars_add(losses, "loss", 4, 0.5);
}

grapnel_status* ValStep(void* user_data, const grapnel_tensors* batch,
                        grapnel_tensors* predictions,
                        grapnel_scalars* /*losses*/) {
  Host& host = Of(user_data);
  grapnel_status* const status = host.Call("val_step");
  if (status != nullptr || host.failing == "no output") return status;
  const bool named = host.failing != "misnamed output";
  const int64_t n =
      grapnel_tensor_shape(grapnel_tensors_find(batch, "input", 5))[0] -
      (host.failing == "short output" ? 1 : 0);
  const std::vector<float> zeros(n);
  return grapnel_tensors_add_copy(predictions, named ? "output" : "outputs",
                                  named ? 6 : 7, GRAPNEL_FLOAT32, &n, 1,
                                  zeros.data(), zeros.size() * sizeof(float));
}

grapnel_status* TensorsWritten(void* user_data) {
  return Of(user_data).Call("tensors_written");
}

void SetTraining(void* user_data, int32_t training) {
  Of(user_data).Count(training != 0 ? "to_training" : "to_evaluation");
}

grapnel_status* ExportModel(void* user_data, const char* path,
                            size_t path_size) {
  EXPECT_EQ(std::string(path, path_size), "/model");
  return Of(user_data).Call("export_model");
}

grapnel_status* ResetMetric(void* user_data) {
  return Of(user_data).Call("reset");
}

grapnel_status* ProcessMetric(void* user_data,
                              const grapnel_tensors* predictions,
                              const grapnel_tensors* batch) {
  EXPECT_NE(grapnel_tensors_find(predictions, "output", 6), nullptr);
  EXPECT_NE(grapnel_tensors_find(batch, "target", 6), nullptr);
  return Of(user_data).Call("process");
}

grapnel_status* ComputeMetric(void* user_data, grapnel_scalars* metrics) {
  grapnel_status* const status = Of(user_data).Call("compute");
  return status != nullptr ? status
                           : grapnel_scalars_add(metrics, "probe", 5, 42);
}

grapnel_status* OnStage(void* user_data, grapnel_stage stage,
                        grapnel_run* run) {
  Host& host = Of(user_data);
  if (stage == GRAPNEL_ON_ERROR) {
    const grapnel_status* error = nullptr;
    EXPECT_THAT(Took(grapnel_run_error(run, &error)), IsOk());
    host.errors.emplace_back(grapnel_status_message(error));
  }
  if (host.on_stage) {
    grapnel_status* const status = host.on_stage(stage, run);
    if (status != nullptr) return status;
  }
  return host.Call(absl::StrCat("stage ", stage));
}

grapnel_status* SaveState(void* user_data, grapnel_bytes* state) {
  grapnel_status* const status = Of(user_data).Call("save_state");
  return status != nullptr ? status : grapnel_bytes_assign(state, "kept", 4);
}

grapnel_status* LoadState(void* user_data, const void* state,
                          size_t state_size) {
  Of(user_data).loaded =
      std::string(static_cast<const char*>(state), state_size);
  return Of(user_data).Call("load_state");
}

grapnel_hook_callbacks HookCallbacks() {
  grapnel_hook_callbacks callbacks = {};
  callbacks.struct_size = sizeof(callbacks);
  callbacks.stages = (uint64_t{1} << 30) - 1;
  callbacks.priority = 50;
  callbacks.on_stage = OnStage;
  callbacks.save_state = SaveState;
  callbacks.load_state = LoadState;
  callbacks.destroy = Destroy;
  return callbacks;
}

grapnel_dataset_callbacks DatasetCallbacks() {
  grapnel_dataset_callbacks callbacks = {};
  callbacks.struct_size = sizeof(callbacks);
  callbacks.size = kSamples;
  callbacks.get = Get;
  callbacks.destroy = Destroy;
  return callbacks;
}

// How a run is made.
struct Plan {
  bool own_model = false;  // Of callbacks; else from config, with a callback
                           // for its loss.
  bool by_batches = false;
  bool resume = false;
  int num_workers = 0;
  bool thread_safe = false;  // The dataset.
  // Called by the run's log, on a thread of the library's, if set.
  std::function<void()> on_line = nullptr;
};

class CallbacksTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* const test =
        ::testing::UnitTest::GetInstance()->current_test_info();
    NewWorkDir(absl::StrCat(test->test_suite_name(), ".", test->name()));
  }

  // Whatever a test has done, nothing of it is left.
  void TearDown() override {
    Destroy();
    EXPECT_EQ(host_.destroyed, host_.taken);
    EXPECT_EQ(grapnel_live_objects(), 0);
  }

  // A folder of this name's own.
  void NewWorkDir(std::string name) {
    for (char& c : name) {
      if (c == '/' || c == ' ') c = '_';
    }
    work_dir_ = io::JoinPath(::testing::TempDir(), name);
  }

  void Destroy() {
    grapnel_runner_destroy(host_.runner);
    host_.runner = nullptr;
  }

  absl::Status Create(const Plan& plan) {
    grapnel_runner_options* options = nullptr;
    EXPECT_THAT(Took(grapnel_runner_options_create(&options)), IsOk());
    const std::string config = absl::StrCat(
        "work_dir: \"", work_dir_, "\" ", R"pb(
          val_dataloader { batch_size: 4 }
          train_cfg { max_epochs: 2 }
          optim_wrapper { optimizer { sgd { lr: 0.1 } } }
          default_hooks { checkpoint { interval: 1 } }
          randomness { seed: 1 }
        )pb",
        "train_dataloader { batch_size: 4 num_workers: ", plan.num_workers,
        " } ",
        plan.own_model ? ""
                       : "model { sequential { layers { linear { "
                         "out_features: 1 } } } }",
        plan.resume ? " resume: true" : "");
    EXPECT_THAT(Took(grapnel_runner_options_set_config(
                    options, config.data(), config.size(), GRAPNEL_TEXT)),
                IsOk());
    grapnel_dataset_callbacks dataset = DatasetCallbacks();
    dataset.thread_safe = plan.thread_safe ? 1 : 0;
    if (plan.by_batches) {
      dataset.get = nullptr;
      dataset.get_batch = GetBatch;
    }
    for (const grapnel_mode mode : {GRAPNEL_TRAIN, GRAPNEL_VAL}) {
      Expect(
          grapnel_runner_options_set_dataset(options, mode, &dataset, &host_));
    }
    grapnel_metric_callbacks metric = {};
    metric.struct_size = sizeof(metric);
    metric.reset = ResetMetric;
    metric.process = ProcessMetric;
    metric.compute = ComputeMetric;
    metric.destroy = &grapnel::Destroy;
    Expect(grapnel_runner_options_add_metric(options, GRAPNEL_VAL, &metric,
                                             &host_));
    const grapnel_hook_callbacks hook = HookCallbacks();
    Expect(grapnel_runner_options_add_hook(options, "probe", 5, &hook, &host_));
    if (plan.own_model) {
      AddModel(options);
    } else {
      grapnel_loss_callbacks loss = {};
      loss.struct_size = sizeof(loss);
      loss.compute = ComputeLoss;
      loss.destroy = &grapnel::Destroy;
      Expect(grapnel_runner_options_set_loss(options, &loss, &host_));
    }
    if (plan.on_line) {
      host_.on_line = plan.on_line;
      EXPECT_THAT(Took(grapnel_runner_options_set_log_callback(options, OnLine,
                                                               &host_)),
                  IsOk());
    }
    const absl::Status status =
        Took(grapnel_runner_create(options, &host_.runner));
    EXPECT_EQ(status.ok(), host_.runner != nullptr);
    grapnel_runner_options_destroy(options);
    return status;
  }

  absl::Status Train() { return Took(grapnel_runner_train(host_.runner)); }

  Host host_;
  std::string work_dir_;

 private:
  // A call that takes the host as user data.
  void Expect(grapnel_status* status) {
    EXPECT_THAT(Took(status), IsOk());
    ++host_.taken;
  }

  void AddModel(grapnel_runner_options* options) {
    grapnel_tensors* parameters = nullptr;
    EXPECT_THAT(Took(grapnel_tensors_create(&parameters)), IsOk());
    const float zero = 0;
    const int64_t one[] = {1};
    EXPECT_THAT(
        Took(grapnel_tensors_add_copy(parameters, "w", 1, GRAPNEL_FLOAT32, one,
                                      1, &zero, sizeof(zero))),
        IsOk());
    grapnel_model_callbacks model = {};
    model.struct_size = sizeof(model);
    model.train_step = TrainStep;
    model.val_step = ValStep;
    model.tensors_written = TensorsWritten;
    model.set_training = SetTraining;
    model.export_model = ExportModel;
    model.destroy = &grapnel::Destroy;
    Expect(grapnel_runner_options_set_model(options, &model, parameters,
                                            /*buffers=*/nullptr, &host_));
    grapnel_tensors_destroy(parameters);
  }
};

// -------------------------------------------------------------------- errors

struct ErrorCase {
  std::string failing;
  int after;
  std::string message;
  Plan plan = Plan();
};

void PrintTo(const ErrorCase& c, std::ostream* os) { *os << c.failing; }

class CallbackErrorsTest : public CallbacksTest,
                           public ::testing::WithParamInterface<ErrorCase> {};

TEST_P(CallbackErrorsTest, AnErrorEndsTheRunWithItsCodeAndMessage) {
  host_.failing = GetParam().failing;
  host_.after = GetParam().after;
  ASSERT_THAT(Create(GetParam().plan), IsOk());
  const absl::Status status = Train();
  EXPECT_THAT(
      status,
      StatusIs(absl::StatusCode::kUnavailable,
               AllOf(HasSubstr(GetParam().message),
                     HasSubstr(absl::StrCat("planted in ", host_.failing)))));
  EXPECT_THAT(host_.errors, Contains(std::string(status.message())));
  EXPECT_GT(host_.calls[absl::StrCat("stage ", GRAPNEL_AFTER_RUN)], 0);
  // And the next call goes on.
  host_.failing = "";
  EXPECT_THAT(Train(), IsOk());
  EXPECT_EQ(grapnel_runner_iter(host_.runner), 4);
}

INSTANTIATE_TEST_SUITE_P(
    , CallbackErrorsTest,
    ::testing::Values(
        ErrorCase{"get", 6, "dataset: sample 5: get: "},
        ErrorCase{"get_batch", 2, "dataset: sample 4: get_batch: ",
                  Plan{false, /*by_batches=*/true}},
        ErrorCase{"compute_loss", 1,
                  "training iteration 2: loss callback: compute: "},
        ErrorCase{"compute_loss_alone", 1,
                  "val batch 2: loss callback: compute: "},
        ErrorCase{
            "train_step", 1,
            "training iteration 2: model callback: train_step: ", Plan{true}},
        ErrorCase{"val_step", 1,
                  "val batch 2: model callback: val_step: ", Plan{true}},
        ErrorCase{"tensors_written", 0,
                  "training iteration 1: model callback: tensors_written: ",
                  Plan{true}},
        ErrorCase{"reset", 0, "val batch 1: metric callback: reset: "},
        ErrorCase{"process", 1, "val batch 2: metric callback: process: "},
        ErrorCase{"compute", 0, "metric callback: compute: "},
        ErrorCase{"save_state", 1, "hook \"probe\": save_state: "},
        ErrorCase{absl::StrCat("stage ", GRAPNEL_BEFORE_TRAIN), 0,
                  "hook \"probe\": BeforeTrain: "},
        ErrorCase{absl::StrCat("stage ", GRAPNEL_AFTER_TRAIN_ITER), 2,
                  "hook \"probe\": AfterTrainIter: "},
        ErrorCase{absl::StrCat("stage ", GRAPNEL_AFTER_OPTIMIZER_STEP), 1,
                  "hook \"probe\": AfterOptimizerStep: "},
        ErrorCase{absl::StrCat("stage ", GRAPNEL_AFTER_VAL_EPOCH), 0,
                  "hook \"probe\": AfterValEpoch: "},
        ErrorCase{absl::StrCat("stage ", GRAPNEL_BEFORE_SAVE_CHECKPOINT), 0,
                  "hook \"probe\": BeforeSaveCheckpoint: "},
        ErrorCase{absl::StrCat("stage ", GRAPNEL_AFTER_TRAIN), 0,
                  "hook \"probe\": AfterTrain: "}),
    [](const auto& info) {
      std::string name = info.param.failing;
      for (char& c : name) {
        if (c == ' ') c = '_';
      }
      return name;
    });

TEST_F(CallbacksTest, AnErrorOfLoadStateIsTheResumes) {
  ASSERT_THAT(Create({}), IsOk());
  ASSERT_THAT(Train(), IsOk());
  Destroy();
  EXPECT_EQ(host_.loaded, "nothing");

  host_.failing = "load_state";
  Plan plan;
  plan.resume = true;
  ASSERT_THAT(Create(plan), IsOk());
  EXPECT_THAT(Train(),
              StatusIs(absl::StatusCode::kUnavailable,
                       HasSubstr("hook \"probe\": load_state: planted")));
  EXPECT_EQ(host_.loaded, "kept");
}

TEST_F(CallbacksTest, AnErrorOfExportIsTheCalls) {
  Plan plan;
  plan.own_model = true;
  ASSERT_THAT(Create(plan), IsOk());
  EXPECT_THAT(Took(grapnel_runner_export(host_.runner, "/model", 6)), IsOk());
  host_.failing = "export_model";
  host_.after = 1;
  EXPECT_THAT(Took(grapnel_runner_export(host_.runner, "/model", 6)),
              StatusIs(absl::StatusCode::kUnavailable,
                       HasSubstr("model callback: export_model: planted")));
}

TEST_F(CallbacksTest, AnErrorOfASetupIsTheRunnersEnd) {
  host_.failing = absl::StrCat("stage ", GRAPNEL_SETUP);
  ASSERT_THAT(Create({}), IsOk());
  for (int call = 0; call < 2; ++call) {
    EXPECT_THAT(Train(), StatusIs(absl::StatusCode::kUnavailable,
                                  HasSubstr("hook \"probe\": Setup: ")));
  }
}

TEST_F(CallbacksTest, AnErrorOfTheFirstSampleIsCreates) {
  host_.failing = "get";
  EXPECT_THAT(Create({}), StatusIs(absl::StatusCode::kUnavailable,
                                   HasSubstr("sample 0: get: planted")));
}

TEST_F(CallbacksTest, AnErrorOfOnErrorIsOnlyLogged) {
  host_.failing = absl::StrCat("stage ", GRAPNEL_ON_ERROR);
  host_.on_stage = [](grapnel_stage stage, grapnel_run*) {
    return stage == GRAPNEL_AFTER_TRAIN_ITER
               ? grapnel_status_create(GRAPNEL_ABORTED, "no more", 7)
               : nullptr;
  };
  ASSERT_THAT(Create({}), IsOk());
  EXPECT_THAT(Train(),
              StatusIs(absl::StatusCode::kAborted,
                       AllOf(HasSubstr("no more"), Not(HasSubstr("planted")))));
}

// It would be taken for the end of an epoch.
TEST_F(CallbacksTest, OutOfRangeOfADatasetIsInternal) {
  host_.failing = "get";
  host_.after = 3;
  host_.code = GRAPNEL_OUT_OF_RANGE;
  ASSERT_THAT(Create({}), IsOk());
  EXPECT_THAT(Train(),
              StatusIs(absl::StatusCode::kInternal, HasSubstr("planted")));
}

TEST_F(CallbacksTest, ACodeThatThereIsNotIsUnknown) {
  host_.failing = "compute_loss";
  host_.code = 77;
  ASSERT_THAT(Create({}), IsOk());
  EXPECT_THAT(Train(),
              StatusIs(absl::StatusCode::kUnknown, HasSubstr("planted")));
}

struct WrongCase {
  std::string failing;
  bool own_model;
  std::string message;
};

class WrongResultsTest : public CallbacksTest,
                         public ::testing::WithParamInterface<WrongCase> {};

TEST_P(WrongResultsTest, AreSaid) {
  host_.failing = GetParam().failing;
  Plan plan;
  plan.own_model = GetParam().own_model;
  ASSERT_THAT(Create(plan), IsOk());
  EXPECT_THAT(Train(), StatusIs(absl::StatusCode::kInvalidArgument,
                                HasSubstr(GetParam().message)));
}

INSTANTIATE_TEST_SUITE_P(
    , WrongResultsTest,
    ::testing::Values(
        WrongCase{"no gradient", false,
                  "loss callback: compute: gave no gradient"},
        WrongCase{"misshapen gradient", false,
                  "the gradient must be as the output"},
        WrongCase{"misshapen weight", true,
                  "gradient of \"w\": has the shape [2]"},
        WrongCase{"no losses", true, "gave no losses"},
        WrongCase{"no output", true, "gave no \"output\""},
        WrongCase{"misnamed output", true, "\"outputs\": there is only"},
        WrongCase{"short output", true, "\"output\": must be (4, ...)"}),
    [](const auto& info) {
      std::string name = info.param.failing;
      for (char& c : name) {
        if (c == ' ') c = '_';
      }
      return name;
    });

// ------------------------------------------------------------------- datasets

// Batches that are no batches are noticed, and got sample by sample.
TEST_F(CallbacksTest, WhatIsWrongWithABatchIsSaidOrGotRoundBySamples) {
  grapnel_dataset_callbacks callbacks = DatasetCallbacks();
  const auto wrong_n = [](void* user_data, const int64_t* indices, size_t count,
                          grapnel_tensors* batch) {
    const int64_t twice[] = {indices[0], indices[0]};
    return count == 1 ? GetBatch(user_data, twice, 2, batch)
                      : GetBatch(user_data, indices, count - 1, batch);
  };
  std::vector<std::string> log;
  grapnel_set_log_callback(
      [](void* user_data, grapnel_severity, const char* message,
         size_t message_size) {
        static_cast<std::vector<std::string>*>(user_data)->emplace_back(
            message, message_size);
      },
      &log);
  for (const bool with_samples : {true, false}) {
    SCOPED_TRACE(with_samples);
    callbacks.get = with_samples ? Get : nullptr;
    callbacks.get_batch = wrong_n;
    callbacks.destroy = nullptr;
    NewWorkDir(absl::StrCat("wrong_n_", with_samples));
    grapnel_runner_options* options = nullptr;
    ASSERT_THAT(Took(grapnel_runner_options_create(&options)), IsOk());
    const std::string config =
        absl::StrCat("work_dir: \"", work_dir_, "\" ", R"pb(
          model {
            sequential {
              layers { linear { out_features: 1 } }
              loss { mse {} }
            }
          }
          train_dataloader { batch_size: 4 }
          train_cfg { max_epochs: 1 }
          optim_wrapper { optimizer { sgd { lr: 0.1 } } }
        )pb");
    ASSERT_THAT(Took(grapnel_runner_options_set_config(
                    options, config.data(), config.size(), GRAPNEL_TEXT)),
                IsOk());
    ASSERT_THAT(Took(grapnel_runner_options_set_dataset(options, GRAPNEL_TRAIN,
                                                        &callbacks, &host_)),
                IsOk());
    const absl::Status created =
        Took(grapnel_runner_create(options, &host_.runner));
    grapnel_runner_options_destroy(options);
    if (with_samples) {
      ASSERT_THAT(created, IsOk());
      EXPECT_THAT(Train(), IsOk());
      EXPECT_THAT(log, Contains(HasSubstr("get_batch: input: must be (4, ...), "
                                          "is float32 (3, 2)")));
    } else {
      EXPECT_THAT(created,
                  StatusIs(absl::StatusCode::kInvalidArgument,
                           HasSubstr("sample 0: get_batch: input: must be (1, "
                                     "...), is float32 (2, 2)")));
    }
    Destroy();
  }
  grapnel_set_log_callback(nullptr, nullptr);
}

struct Records {
  std::vector<std::string> seen;
  bool fail = false;
};

TEST_F(CallbacksTest, RecordsReachTheirCallbackWhoseErrorEndsNoRun) {
  grapnel_dataset_callbacks dataset = DatasetCallbacks();
  dataset.destroy = nullptr;
  for (const bool fail : {false, true}) {
    SCOPED_TRACE(fail);
    NewWorkDir(absl::StrCat("records_", fail));
    grapnel_runner_options* options = nullptr;
    ASSERT_THAT(Took(grapnel_runner_options_create(&options)), IsOk());
    const std::string config =
        absl::StrCat("work_dir: \"", work_dir_, "\" ", R"pb(
          model {
            sequential {
              layers { linear { out_features: 1 } }
              loss { mse {} }
            }
          }
          train_dataloader { batch_size: 4 }
          val_dataloader { batch_size: 4 }
          val_evaluator { mse {} }
          train_cfg { max_epochs: 1 }
          optim_wrapper { optimizer { sgd { lr: 0.125 } } }
          default_hooks { logger { interval: 1 } }
        )pb");
    ASSERT_THAT(Took(grapnel_runner_options_set_config(
                    options, config.data(), config.size(), GRAPNEL_TEXT)),
                IsOk());
    for (const grapnel_mode mode : {GRAPNEL_TRAIN, GRAPNEL_VAL}) {
      ASSERT_THAT(Took(grapnel_runner_options_set_dataset(options, mode,
                                                          &dataset, &host_)),
                  IsOk());
    }
    Records records;
    records.fail = fail;
    const auto on_record = [](void* user_data, grapnel_mode mode, int64_t step,
                              const grapnel_scalars* record) {
      auto* const to = static_cast<Records*>(user_data);
      double lr = 0, mse = 0;
      const char* const name = mode == GRAPNEL_TRAIN ? "lr" : "mse";
      EXPECT_THAT(
          Took(grapnel_scalars_find(record, name, strlen(name),
                                    mode == GRAPNEL_TRAIN ? &lr : &mse)),
          IsOk());
      EXPECT_EQ(lr, mode == GRAPNEL_TRAIN ? 0.125 : 0);
      to->seen.push_back(absl::StrCat(mode, "@", step));
      return to->fail ? grapnel_status_create(GRAPNEL_ABORTED, "full", 4)
                      : nullptr;
    };
    ASSERT_THAT(Took(grapnel_runner_options_set_record_callback(
                    options, on_record, &records)),
                IsOk());
    ASSERT_THAT(Took(grapnel_runner_create(options, &host_.runner)), IsOk());
    grapnel_runner_options_destroy(options);
    EXPECT_THAT(Train(), IsOk());
    const int64_t iters = grapnel_runner_iter(host_.runner);
    std::vector<std::string> expected;
    for (int64_t iter = 1; iter <= iters; ++iter) {
      expected.push_back(absl::StrCat(GRAPNEL_TRAIN, "@", iter));
    }
    expected.push_back(absl::StrCat(GRAPNEL_VAL, "@1"));
    if (fail) expected.resize(1);
    EXPECT_EQ(records.seen, expected);
    Destroy();
  }
}

TEST_F(CallbacksTest, WorkersCallOneAfterTheOtherUnlessTheDatasetIsThreadSafe) {
  for (const bool thread_safe : {false, true}) {
    SCOPED_TRACE(thread_safe);
    std::atomic<int> running{0};
    std::atomic<int> most{0};
    const std::thread::id main = std::this_thread::get_id();
    host_.on_call = [&](absl::string_view callback) {
      // The validation's dataset is another one, which this thread reads.
      if (callback != "get" || std::this_thread::get_id() == main) return;
      const int now = ++running;
      for (int seen = most; now > seen;) {
        if (most.compare_exchange_weak(seen, now)) break;
      }
      // Time for another one; where it may come until it has.
      const auto end = std::chrono::steady_clock::now() +
                       std::chrono::seconds(thread_safe ? 30 : 0);
      do {
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
      } while (most == 1 && std::chrono::steady_clock::now() < end);
      --running;
    };
    Plan plan;
    plan.num_workers = 3;
    plan.thread_safe = thread_safe;
    NewWorkDir(absl::StrCat("workers_", thread_safe));
    ASSERT_THAT(Create(plan), IsOk());
    ASSERT_THAT(Train(), IsOk());
    Destroy();  // The workers, which read ahead.
    if (thread_safe) {
      EXPECT_GT(most, 1);
    } else {
      EXPECT_EQ(most, 1);
    }
  }
  EXPECT_GE(host_.calls["get"], 32);
}

// ------------------------------------------------------- calls from callbacks

TEST_F(CallbacksTest, ACallbackCannotCallItsRunner) {
  int asked = 0;
  const float one = 1;
  grapnel_tensor* weight = nullptr;
  ASSERT_THAT(Took(grapnel_tensor_create(GRAPNEL_FLOAT32, nullptr, 0, &one,
                                         sizeof(one), &weight)),
              IsOk());
  host_.on_call = [&](absl::string_view) {
    grapnel_runner* const runner = host_.runner;
    if (runner == nullptr) return;  // It is being created.
    ++asked;
    const auto refused = StatusIs(absl::StatusCode::kFailedPrecondition,
                                  HasSubstr("another call on it is going on"));
    int32_t more = 7;
    double value = 7;
    grapnel_bytes bytes = {nullptr, 0};
    grapnel_tensor* tensor = nullptr;
    EXPECT_THAT(Took(grapnel_runner_train(runner)), refused);
    EXPECT_THAT(Took(grapnel_runner_step(runner, &more)), refused);
    EXPECT_THAT(Took(grapnel_runner_train_until(runner, 1e12, &more)), refused);
    EXPECT_THAT(Took(grapnel_runner_val(runner, nullptr)), refused);
    EXPECT_THAT(Took(grapnel_runner_test(runner, nullptr)), refused);
    EXPECT_THAT(Took(grapnel_runner_export(runner, "/model", 6)), refused);
    EXPECT_THAT(Took(grapnel_runner_save(runner, "now", 3)), refused);
    EXPECT_THAT(Took(grapnel_runner_config(runner, GRAPNEL_TEXT, &bytes)),
                refused);
    EXPECT_THAT(Took(grapnel_runner_stop_reason(runner, &bytes)), refused);
    EXPECT_THAT(Took(grapnel_runner_tensor_names(runner, &bytes)), refused);
    EXPECT_THAT(Took(grapnel_runner_stage_table(runner, &bytes)), refused);
    EXPECT_THAT(Took(grapnel_runner_work_dir(runner, &bytes)), refused);
    EXPECT_THAT(Took(grapnel_runner_scalar(runner, "train/loss", 10, &value)),
                refused);
    EXPECT_THAT(Took(grapnel_runner_get_tensor(runner, "w", 1, &tensor)),
                refused);
    EXPECT_THAT(Took(grapnel_runner_set_tensor(runner, "w", 1, weight)),
                refused);
    EXPECT_EQ(grapnel_runner_epoch(runner), 0);
    EXPECT_EQ(grapnel_runner_iter(runner), 0);
    // Outputs are as they were.
    EXPECT_EQ(more, 7);
    EXPECT_EQ(value, 7);
    EXPECT_EQ(bytes.data, nullptr);
    EXPECT_EQ(tensor, nullptr);
  };
  ASSERT_THAT(Create({}), IsOk());
  ASSERT_THAT(Train(), IsOk());
  grapnel_tensor_destroy(weight);
  EXPECT_GT(asked, 20);
  EXPECT_EQ(grapnel_runner_iter(host_.runner), 4);
  EXPECT_EQ(grapnel_runner_epoch(host_.runner), 2);
}

TEST_F(CallbacksTest, ACallbackOnAThreadOfTheRunsOwnCanDestroyIt) {
  // Between two steps, when no call is going on. The thread can't wait for
  // itself to end.
  std::atomic<bool> armed{false}, stepped{false};
  Plan plan;
  plan.on_line = [&] {
    if (!armed.exchange(false)) return;
    while (!stepped) std::this_thread::yield();
    grapnel_runner_destroy(host_.runner);
  };
  ASSERT_THAT(Create(plan), IsOk());
  host_.on_stage = [&](grapnel_stage stage, grapnel_run* run) {
    if (stage != GRAPNEL_AFTER_TRAIN_ITER) {
      return static_cast<grapnel_status*>(nullptr);
    }
    armed = true;
    return grapnel_run_log(run, GRAPNEL_INFO, "destroy", 7);
  };
  ASSERT_THAT(Took(grapnel_runner_step(host_.runner, nullptr)), IsOk());
  stepped = true;
  while (grapnel_live_objects() > 0) std::this_thread::yield();
  host_.runner = nullptr;
}

TEST_F(CallbacksTest, ACallbackCanStopItsRunner) {
  host_.on_call = [&](absl::string_view callback) {
    if (callback != "compute_loss") return;
    EXPECT_THAT(Took(grapnel_runner_request_stop(host_.runner, GRAPNEL_STOP_NOW,
                                                 "enough", 6)),
                IsOk());
  };
  ASSERT_THAT(Create({}), IsOk());
  ASSERT_THAT(Train(), IsOk());
  EXPECT_EQ(grapnel_runner_iter(host_.runner), 1);
  grapnel_bytes reason = {nullptr, 0};
  ASSERT_THAT(Took(grapnel_runner_stop_reason(host_.runner, &reason)), IsOk());
  EXPECT_EQ(Took(&reason), "enough");
}

TEST_F(CallbacksTest, AnotherThreadCanStopIt) {
  // The run waits in its callback until the other thread has asked, and that
  // one until there is a callback to wait.
  std::atomic<bool> in_callback{false};
  std::atomic<bool> asked{false};
  host_.on_stage = [&](grapnel_stage stage, grapnel_run*) -> grapnel_status* {
    if (stage == GRAPNEL_AFTER_TRAIN_ITER) {
      in_callback = true;
      while (!asked) std::this_thread::yield();
    }
    return nullptr;
  };
  ASSERT_THAT(Create({}), IsOk());
  std::thread other([&] {
    while (!in_callback) std::this_thread::yield();
    EXPECT_THAT(Took(grapnel_runner_request_stop(
                    host_.runner, GRAPNEL_STOP_AFTER_EPOCH, "bored", 5)),
                IsOk());
    // What is for one thread at a time isn't for this one.
    EXPECT_THAT(Took(grapnel_runner_train(host_.runner)),
                StatusIs(absl::StatusCode::kFailedPrecondition, _));
    asked = true;
  });
  EXPECT_THAT(Train(), IsOk());
  other.join();
  EXPECT_EQ(grapnel_runner_epoch(host_.runner), 1);
  EXPECT_EQ(grapnel_runner_iter(host_.runner), 2);
}

// ------------------------------------------------------------- points of a run

TEST_F(CallbacksTest, WhatIsNotAtHandIsAFailedPrecondition) {
  int points = 0;
  host_.on_stage = [&](grapnel_stage stage,
                       grapnel_run* run) -> grapnel_status* {
    ++points;
    const auto code = [](bool there) {
      return there ? absl::StatusCode::kOk
                   : absl::StatusCode::kFailedPrecondition;
    };
    const grapnel_tensors* tensors = nullptr;
    const grapnel_scalars* scalars = nullptr;
    const grapnel_status* error = nullptr;
    const char* path = nullptr;
    const bool in_iter = stage == GRAPNEL_BEFORE_TRAIN_ITER ||
                         stage == GRAPNEL_AFTER_TRAIN_ITER ||
                         stage == GRAPNEL_BEFORE_VAL_ITER ||
                         stage == GRAPNEL_AFTER_VAL_ITER;
    SCOPED_TRACE(stage);
    EXPECT_EQ(Took(grapnel_run_batch(run, &tensors)).code(), code(in_iter));
    EXPECT_EQ(grapnel_run_batch_idx(run) >= 0, in_iter);
    EXPECT_EQ(grapnel_run_num_batches(run), in_iter ? 2 : -1);
    EXPECT_EQ(Took(grapnel_run_log_vars(run, &scalars)).code(),
              code(stage == GRAPNEL_AFTER_TRAIN_ITER));
    EXPECT_EQ(Took(grapnel_run_predictions(run, &tensors)).code(),
              code(stage == GRAPNEL_AFTER_VAL_ITER));
    EXPECT_EQ(Took(grapnel_run_metrics(run, &scalars)).code(),
              code(stage == GRAPNEL_AFTER_VAL_EPOCH));
    EXPECT_EQ(Took(grapnel_run_saved_path(run, &path)).code(),
              code(stage == GRAPNEL_AFTER_SAVE_CHECKPOINT));
    EXPECT_EQ(Took(grapnel_run_error(run, &error)).code(),
              code(stage == GRAPNEL_ON_ERROR));
    return nullptr;
  };
  ASSERT_THAT(Create({}), IsOk());
  ASSERT_THAT(Train(), IsOk());
  EXPECT_GT(points, 30);
}

TEST_F(CallbacksTest, HandlesAreTheSameWithinACallAndOfTheCall) {
  host_.on_stage = [&](grapnel_stage stage,
                       grapnel_run* run) -> grapnel_status* {
    if (stage != GRAPNEL_AFTER_VAL_ITER) return nullptr;
    const grapnel_tensors *first = nullptr, *again = nullptr;
    EXPECT_THAT(Took(grapnel_run_predictions(run, &first)), IsOk());
    EXPECT_THAT(Took(grapnel_run_predictions(run, &again)), IsOk());
    EXPECT_EQ(first, again);
    // The output, and the loss of the callback.
    EXPECT_EQ(grapnel_tensors_size(first), 2);
    EXPECT_STREQ(grapnel_tensors_name(first, 0), "output");
    EXPECT_STREQ(grapnel_tensors_name(first, 1), "loss");
    return nullptr;
  };
  ASSERT_THAT(Create({}), IsOk());
  ASSERT_THAT(Train(), IsOk());
}

TEST_F(CallbacksTest, AHookIsCalledOnlyAtItsStages) {
  grapnel_hook_callbacks callbacks = HookCallbacks();
  callbacks.stages = uint64_t{1} << GRAPNEL_AFTER_VAL;
  callbacks.save_state = nullptr;
  callbacks.load_state = nullptr;
  callbacks.destroy = nullptr;
  grapnel_runner_options* options = nullptr;
  ASSERT_THAT(Took(grapnel_runner_options_create(&options)), IsOk());
  Host own;
  ASSERT_THAT(Took(grapnel_runner_options_add_hook(options, "alone", 5,
                                                   &callbacks, &own)),
              IsOk());
  const std::string config =
      absl::StrCat("work_dir: \"", work_dir_, "\" ", R"pb(
        model {
          sequential {
            layers { linear { out_features: 1 } }
            loss { mse {} }
          }
        }
        train_dataloader { batch_size: 4 }
        val_dataloader { batch_size: 4 }
        val_evaluator { mse {} }
        train_cfg { max_epochs: 2 }
        optim_wrapper { optimizer { sgd { lr: 0.1 } } }
      )pb");
  ASSERT_THAT(Took(grapnel_runner_options_set_config(
                  options, config.data(), config.size(), GRAPNEL_TEXT)),
              IsOk());
  // The same data as by callbacks, from tensors.
  grapnel_tensors* tensors = nullptr;
  ASSERT_THAT(Took(grapnel_tensors_create(&tensors)), IsOk());
  std::vector<int64_t> indices(kSamples);
  for (int64_t i = 0; i < kSamples; ++i) indices[i] = i;
  ASSERT_THAT(Took(GetBatch(&own, indices.data(), indices.size(), tensors)),
              IsOk());
  for (const grapnel_mode mode : {GRAPNEL_TRAIN, GRAPNEL_VAL}) {
    ASSERT_THAT(
        Took(grapnel_runner_options_set_tensors(options, mode, tensors)),
        IsOk());
  }
  grapnel_tensors_destroy(tensors);
  ASSERT_THAT(Took(grapnel_runner_create(options, &host_.runner)), IsOk());
  grapnel_runner_options_destroy(options);
  ASSERT_THAT(Train(), IsOk());
  own.calls.erase("get_batch");
  EXPECT_THAT(own.calls, ElementsAre(std::pair<const std::string, int>(
                             absl::StrCat("stage ", GRAPNEL_AFTER_VAL), 2)));
  grapnel_bytes table = {nullptr, 0};
  ASSERT_THAT(Took(grapnel_runner_stage_table(host_.runner, &table)), IsOk());
  EXPECT_THAT(Took(&table), HasSubstr("alone (50)"));
  Destroy();  // While its user data is there.
}

// ------------------------------------------------------------------ the runner

TEST_F(CallbacksTest, SavesAtOnceBetweenSteps) {
  ASSERT_THAT(Create({}), IsOk());
  EXPECT_THAT(Took(grapnel_runner_save(host_.runner, "early", 5)),
              StatusIs(absl::StatusCode::kFailedPrecondition, _));
  int32_t more = 0;
  ASSERT_THAT(Took(grapnel_runner_step(host_.runner, &more)), IsOk());
  EXPECT_EQ(more, 1);
  ASSERT_THAT(Took(grapnel_runner_save(host_.runner, "iter_1", 6)), IsOk());
  grapnel_bytes path = {nullptr, 0};
  ASSERT_THAT(Took(grapnel_checkpoint_latest(work_dir_.data(), work_dir_.size(),
                                             &path)),
              IsOk());
  EXPECT_EQ(Took(&path), io::JoinPath(work_dir_, "iter_1"));
  EXPECT_THAT(Took(grapnel_runner_save(host_.runner, "no/name", 7)),
              StatusIs(absl::StatusCode::kInvalidArgument, _));
  // The training is still going on.
  ASSERT_THAT(Train(), IsOk());
  EXPECT_EQ(grapnel_runner_iter(host_.runner), 4);
  EXPECT_EQ(host_.calls[absl::StrCat("stage ", GRAPNEL_BEFORE_TRAIN)], 1);
  // iter_1, epoch_1 and epoch_2.
  EXPECT_EQ(host_.calls[absl::StrCat("stage ", GRAPNEL_AFTER_SAVE_CHECKPOINT)],
            3);
}

TEST_F(CallbacksTest, ReadsAndSetsBetweenCalls) {
  Plan plan;
  plan.own_model = true;
  ASSERT_THAT(Create(plan), IsOk());
  int32_t more = 0;
  ASSERT_THAT(Took(grapnel_runner_step(host_.runner, &more)), IsOk());
  grapnel_bytes names = {nullptr, 0};
  ASSERT_THAT(Took(grapnel_runner_tensor_names(host_.runner, &names)), IsOk());
  EXPECT_EQ(Took(&names), "w\n");
  grapnel_tensor* w = nullptr;
  ASSERT_THAT(Took(grapnel_runner_get_tensor(host_.runner, "w", 1, &w)),
              IsOk());
  float value = 7;
  ASSERT_THAT(Took(grapnel_tensor_read(w, &value, sizeof(value))), IsOk());
  EXPECT_FLOAT_EQ(value, -0.1F);
  // A copy: what is done to it isn't done to the model.
  const float five = 5;
  ASSERT_THAT(Took(grapnel_tensor_write(w, &five, sizeof(five))), IsOk());
  const int told = host_.calls["tensors_written"];
  ASSERT_THAT(Took(grapnel_runner_set_tensor(host_.runner, "w", 1, w)), IsOk());
  grapnel_tensor_destroy(w);
  ASSERT_THAT(Took(grapnel_runner_step(host_.runner, &more)), IsOk());
  EXPECT_GT(host_.calls["tensors_written"], told);
  ASSERT_THAT(Took(grapnel_runner_get_tensor(host_.runner, "w", 1, &w)),
              IsOk());
  ASSERT_THAT(Took(grapnel_tensor_read(w, &value, sizeof(value))), IsOk());
  EXPECT_FLOAT_EQ(value, 4.9F);
  grapnel_tensor_destroy(w);

  double loss = 0;
  ASSERT_THAT(
      Took(grapnel_runner_scalar(host_.runner, "train/loss", 10, &loss)),
      IsOk());
  EXPECT_EQ(loss, 0.5);
  EXPECT_THAT(
      Took(grapnel_runner_scalar(host_.runner, "train/nothing", 13, &loss)),
      StatusIs(absl::StatusCode::kNotFound, HasSubstr("train/nothing")));
  grapnel_bytes text = {nullptr, 0};
  ASSERT_THAT(Took(grapnel_runner_scalar_names(host_.runner, &text)), IsOk());
  EXPECT_THAT(text.data,
              AllOf(HasSubstr("train/loss\n"), HasSubstr("train/lr\n")));
  ASSERT_THAT(Took(grapnel_runner_info(host_.runner, "iter", 4, &text)),
              IsOk());
  EXPECT_STREQ(text.data, "1");  // That of the last step, from 0.
  EXPECT_THAT(Took(grapnel_runner_info(host_.runner, "fact", 4, &text)),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("fact")));
  grapnel_bytes_clear(&text);
  EXPECT_THAT(Took(grapnel_runner_get_tensor(host_.runner, "v", 1, &w)),
              StatusIs(absl::StatusCode::kNotFound, _));

  grapnel_scalars* metrics = nullptr;
  ASSERT_THAT(Took(grapnel_scalars_create(&metrics)), IsOk());
  ASSERT_THAT(Took(grapnel_scalars_add(metrics, "of before", 9, 1)), IsOk());
  ASSERT_THAT(Took(grapnel_runner_val(host_.runner, metrics)), IsOk());
  ASSERT_EQ(grapnel_scalars_size(metrics), 1);
  EXPECT_STREQ(grapnel_scalars_name(metrics, 0), "probe");
  EXPECT_EQ(grapnel_scalars_value(metrics, 0), 42);
  // What fails leaves it as it is.
  EXPECT_THAT(Took(grapnel_runner_test(host_.runner, metrics)),
              StatusIs(absl::StatusCode::kFailedPrecondition, _));
  EXPECT_EQ(grapnel_scalars_size(metrics), 1);
  grapnel_scalars_destroy(metrics);
  EXPECT_THAT(host_.calls, Contains(Key("to_training")));
  EXPECT_THAT(host_.calls, Contains(Key("to_evaluation")));
}

TEST_F(CallbacksTest, ItsConfigIsOneThatItCanBeMadeOf) {
  ASSERT_THAT(Create({}), IsOk());
  for (const grapnel_encoding encoding :
       {GRAPNEL_BINARY, GRAPNEL_TEXT, GRAPNEL_JSON}) {
    SCOPED_TRACE(encoding);
    grapnel_bytes config = {nullptr, 0};
    ASSERT_THAT(Took(grapnel_runner_config(host_.runner, encoding, &config)),
                IsOk());
    EXPECT_THAT(std::string(config.data, config.size), HasSubstr(work_dir_));
    grapnel_runner_options* options = nullptr;
    ASSERT_THAT(Took(grapnel_runner_options_create(&options)), IsOk());
    EXPECT_THAT(Took(grapnel_runner_options_set_config(options, config.data,
                                                       config.size, encoding)),
                IsOk());
    grapnel_runner_options_destroy(options);
    grapnel_bytes_clear(&config);
  }
  grapnel_bytes dir = {nullptr, 0};
  ASSERT_THAT(Took(grapnel_runner_work_dir(host_.runner, &dir)), IsOk());
  EXPECT_EQ(Took(&dir), work_dir_);
}

TEST_F(CallbacksTest, TrainsUntilATime) {
  ASSERT_THAT(Create({}), IsOk());
  int32_t more = 0;
  ASSERT_THAT(Took(grapnel_runner_train_until(host_.runner, 0, &more)), IsOk());
  EXPECT_EQ(more, 1);
  EXPECT_EQ(grapnel_runner_iter(host_.runner), 0);
  ASSERT_THAT(Took(grapnel_runner_train_until(host_.runner, 1e12, &more)),
              IsOk());
  EXPECT_EQ(more, 0);
  EXPECT_EQ(grapnel_runner_iter(host_.runner), 4);
  EXPECT_THAT(Took(grapnel_runner_train_until(host_.runner, 1e12, nullptr)),
              IsOk());
}

}  // namespace
}  // namespace grapnel
