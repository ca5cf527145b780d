// Predictors by the C API say what those by C++ do: from a run, during it and
// after it, and from a checkpoint alone.

#include "grapnel/runner/predictor.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/capi/handles.h"
#include "grapnel/grapnel.h"
#include "grapnel/io/env.h"
#include "grapnel/io/pth_writer.h"
#include "grapnel/io/weights.h"
#include "grapnel/tests/capi/runs/took.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr absl::StatusCode kFailedPrecondition =
    absl::StatusCode::kFailedPrecondition;
constexpr absl::StatusCode kInvalidArgument =
    absl::StatusCode::kInvalidArgument;

constexpr int64_t kRows = 12;

// 3 iterations an epoch; layers that train as they don't evaluate.
constexpr char kConfig[] = R"pb(
  model {
    sequential {
      layers { linear { out_features: 8 } }
      layers { batch_norm1d {} }
      layers { relu {} }
      layers { dropout { p: 0.5 } }
      layers { linear { out_features: 1 } }
      loss { mse {} }
    }
  }
  train_dataloader {
    batch_size: 4
    sampler { shuffle: true }
  }
  val_dataloader { batch_size: 6 }
  val_evaluator { mse {} }
  optim_wrapper { optimizer { adamw { lr: 0.05 } } }
  randomness { seed: 3 }
)pb";
constexpr char kEpochs[] = R"pb(
  train_cfg { max_epochs: 4 val_interval: 2 }
  default_hooks { checkpoint { interval: 1 } }
)pb";
// Until somebody stops it, without a word.
constexpr char kForEver[] = R"pb(
  train_cfg { by_epoch: false max_iters: 1000000000 val_interval: 1000000000 }
  default_hooks {
    logger { interval: 1000000 }
    checkpoint { by_epoch: false interval: -1 }
  }
)pb";
constexpr char kEma[] = R"pb(
  custom_hooks {
    config {
      [hooks/EMAHook] { momentum: 0.3 }
    }
  }
)pb";

std::vector<float> Inputs() {
  std::vector<float> inputs(2 * kRows);
  for (size_t i = 0; i < inputs.size(); ++i) {
    inputs[i] = static_cast<float>(7 * i % inputs.size()) / kRows - 1;
  }
  return inputs;
}

std::vector<float> Targets() {
  const std::vector<float> inputs = Inputs();
  std::vector<float> targets(kRows);
  for (size_t i = 0; i < targets.size(); ++i) {
    targets[i] = inputs[2 * i] + inputs[2 * i + 1];
  }
  return targets;
}

Owned<grapnel_tensor> NewTensor(const std::vector<float>& values,
                                const std::vector<int64_t>& shape) {
  grapnel_tensor* tensor = nullptr;
  EXPECT_THAT(
      Took(grapnel_tensor_create(
          GRAPNEL_FLOAT32, shape.data(), static_cast<int32_t>(shape.size()),
          values.data(), values.size() * sizeof(float), &tensor)),
      IsOk());
  return Owned<grapnel_tensor>(tensor);
}

Owned<grapnel_tensors> NewTensors(const std::vector<float>& inputs,
                                  const std::vector<float>& targets) {
  grapnel_tensors* tensors = nullptr;
  EXPECT_THAT(Took(grapnel_tensors_create(&tensors)), IsOk());
  for (const auto& [name, values] :
       {std::pair(std::string("input"), &inputs),
        std::pair(std::string("target"), &targets)}) {
    const auto columns = static_cast<int64_t>(values->size()) / kRows;
    EXPECT_THAT(Took(grapnel_tensors_add(
                    tensors, name.data(), name.size(),
                    NewTensor(*values, {kRows, columns}).release())),
                IsOk());
  }
  return Owned<grapnel_tensors>(tensors);
}

// The outputs for `inputs`, row-major.
absl::StatusOr<std::vector<float>> Predict(grapnel_predictor* predictor,
                                           const grapnel_tensor* inputs) {
  grapnel_tensor* made = nullptr;
  const absl::Status status =
      Took(grapnel_predictor_predict(predictor, inputs, &made));
  const Owned<grapnel_tensor> outputs(made);
  EXPECT_EQ(outputs != nullptr, status.ok());
  GRAPNEL_RETURN_IF_ERROR(status);
  std::vector<float> values(grapnel_tensor_numel(outputs.get()));
  GRAPNEL_RETURN_IF_ERROR(Took(grapnel_tensor_read(
      outputs.get(), values.data(), values.size() * sizeof(float))));
  return values;
}

// Those for Inputs().
std::vector<float> Outputs(const Owned<grapnel_predictor>& predictor) {
  auto outputs =
      Predict(predictor.get(), NewTensor(Inputs(), {kRows, 2}).get());
  EXPECT_THAT(outputs, IsOk());
  if (!outputs.ok()) return {};
  EXPECT_EQ(outputs->size(), static_cast<size_t>(kRows));
  return *std::move(outputs);
}

absl::Status Refresh(const Owned<grapnel_predictor>& predictor) {
  return Took(grapnel_predictor_refresh(predictor.get()));
}

int64_t Iter(const Owned<grapnel_predictor>& predictor) {
  return grapnel_predictor_iter(predictor.get());
}

// Outputs by C++.
std::vector<float> CppOutputs(const std::string& path,
                              PredictorWeights weights) {
  PredictorOptions options;
  options.weights = weights;
  const auto predictor = Predictor::Open(path, std::move(options));
  EXPECT_THAT(predictor, IsOk());
  if (!predictor.ok()) return {};
  const auto outputs =
      (*predictor)->Predict(ops::tensor(Inputs()).view({kRows, 2}));
  EXPECT_THAT(outputs, IsOk());
  if (!outputs.ok()) return {};
  const float* const values = outputs->const_data_ptr<float>();
  return std::vector<float>(values, values + outputs->numel());
}

using OnStage = std::function<grapnel_status*(grapnel_stage, grapnel_run*)>;

grapnel_status* CallOnStage(void* user_data, grapnel_stage stage,
                            grapnel_run* run) {
  return (*static_cast<OnStage*>(user_data))(stage, run);
}

class PredictorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* const test =
        ::testing::UnitTest::GetInstance()->current_test_info();
    work_dir_ =
        io::JoinPath(::testing::TempDir(),
                     absl::StrCat(test->test_suite_name(), ".", test->name()));
  }

  void TearDown() override {
    runner_.reset();
    EXPECT_EQ(grapnel_live_objects(), 0);
  }

  // Of a config, which work_dir is added to.
  Owned<grapnel_runner_options> Options(const std::string& config) {
    const std::string text =
        absl::StrCat("work_dir: \"", work_dir_, "\" ", config);
    grapnel_runner_options* options = nullptr;
    EXPECT_THAT(Took(grapnel_runner_options_create(&options)), IsOk());
    EXPECT_THAT(Took(grapnel_runner_options_set_config(
                    options, text.data(), text.size(), GRAPNEL_TEXT)),
                IsOk());
    return Owned<grapnel_runner_options>(options);
  }

  static void SetTensors(const Owned<grapnel_runner_options>& options,
                         grapnel_mode mode, const std::vector<float>& inputs,
                         const std::vector<float>& targets) {
    EXPECT_THAT(Took(grapnel_runner_options_set_tensors(
                    options.get(), mode, NewTensors(inputs, targets).get())),
                IsOk());
  }

  void Create(const Owned<grapnel_runner_options>& options) {
    grapnel_runner* runner = nullptr;
    ASSERT_THAT(Took(grapnel_runner_create(options.get(), &runner)), IsOk());
    runner_.reset(runner);
  }

  // A run of kConfig and more, with a hook at AFTER_TRAIN_ITER and
  // AFTER_VAL_ITER, which outlives it.
  void Create(const std::string& more, OnStage* on_stage = nullptr) {
    const auto options = Options(absl::StrCat(kConfig, more));
    for (const grapnel_mode mode : {GRAPNEL_TRAIN, GRAPNEL_VAL}) {
      SetTensors(options, mode, Inputs(), Targets());
    }
    if (on_stage != nullptr) {
      grapnel_hook_callbacks hook = {};
      hook.struct_size = sizeof(hook);
      hook.stages = (uint64_t{1} << GRAPNEL_AFTER_TRAIN_ITER) |
                    (uint64_t{1} << GRAPNEL_AFTER_VAL_ITER);
      hook.priority = 50;
      hook.on_stage = CallOnStage;
      ASSERT_THAT(Took(grapnel_runner_options_add_hook(options.get(), "probe",
                                                       5, &hook, on_stage)),
                  IsOk());
    }
    Create(options);
  }

  void Step(int steps) {
    for (int i = 0; i < steps; ++i) {
      ASSERT_THAT(Took(grapnel_runner_step(runner_.get(), nullptr)), IsOk());
    }
  }

  Owned<grapnel_predictor> Make(grapnel_weights weights = GRAPNEL_EVALUATED,
                                int32_t replicas = 1) {
    grapnel_predictor* predictor = nullptr;
    EXPECT_THAT(Took(grapnel_runner_predictor(runner_.get(), weights, replicas,
                                              &predictor)),
                IsOk());
    return Owned<grapnel_predictor>(predictor);
  }

  static Owned<grapnel_predictor> Open(
      const std::string& path, grapnel_weights weights = GRAPNEL_EVALUATED) {
    grapnel_predictor* predictor = nullptr;
    EXPECT_THAT(Took(grapnel_predictor_open(path.data(), path.size(), weights,
                                            1, &predictor)),
                IsOk());
    return Owned<grapnel_predictor>(predictor);
  }

  std::string work_dir_;
  Owned<grapnel_runner> runner_;
};

// ------------------------------------------------------------ what they say

TEST_F(PredictorTest, SaysWhatTheCppPredictorSays) {
  Create(absl::StrCat(kEpochs, kEma));
  Step(6);
  const std::string newest = io::JoinPath(work_dir_, "epoch_2");
  std::vector<std::vector<float>> expected;
  using Weights = std::pair<grapnel_weights, PredictorWeights>;
  for (const auto& [weights, cpp_weights] :
       {Weights(GRAPNEL_EVALUATED, PredictorWeights::kEvaluated),
        Weights(GRAPNEL_AVERAGED, PredictorWeights::kAveraged),
        Weights(GRAPNEL_TRAINED, PredictorWeights::kTrained)}) {
    SCOPED_TRACE(weights);
    expected.push_back(CppOutputs(work_dir_, cpp_weights));
    const auto of_run = Make(weights);
    EXPECT_EQ(Outputs(of_run), expected.back());
    EXPECT_EQ(Iter(of_run), 6);
    for (const std::string& path : {work_dir_, newest}) {
      SCOPED_TRACE(path);
      const auto opened = Open(path, weights);
      EXPECT_EQ(Outputs(opened), expected.back());
      EXPECT_EQ(Iter(opened), 6);
    }
  }
  EXPECT_EQ(expected[0], expected[1]);
  EXPECT_NE(expected[0], expected[2]);
}

TEST_F(PredictorTest, ACheckpointAloneIsEnough) {
  Create(kEpochs);
  Step(3);
  const std::vector<float> expected = Outputs(Make());
  runner_.reset();
  io::Env& env = io::Env::Posix();
  const std::string parent = absl::StrCat(work_dir_, "_moved");
  const std::string alone = io::JoinPath(parent, "epoch_1");
  ASSERT_THAT(env.CreateDir(parent), IsOk());
  ASSERT_THAT(env.Rename(io::JoinPath(work_dir_, "epoch_1"), alone), IsOk());
  ASSERT_THAT(io::DeleteRecursively(env, work_dir_), IsOk());
  const auto opened = Open(alone);
  EXPECT_EQ(Outputs(opened), expected);
  EXPECT_EQ(Iter(opened), 3);
  // It goes on with what it has.
  ASSERT_THAT(io::DeleteRecursively(env, alone), IsOk());
  EXPECT_THAT(Refresh(opened), StatusIs(absl::StatusCode::kNotFound,
                                        HasSubstr("is no checkpoint")));
  EXPECT_EQ(Outputs(opened), expected);
}

void Keep(void* user_data, grapnel_severity severity, const char* message,
          size_t message_size) {
  EXPECT_EQ(severity, GRAPNEL_WARNING);
  static_cast<std::vector<std::string>*>(user_data)->emplace_back(message,
                                                                  message_size);
}

TEST_F(PredictorTest, ARunThatBeginsWithAPthFilePredictsAsItsRunDid) {
  Create(kEpochs);
  Step(6);
  const std::vector<float> expected = Outputs(Make());
  runner_.reset();
  const auto weights =
      io::ReadWeights(io::Env::Posix(), io::JoinPath(work_dir_, "epoch_2"));
  ASSERT_THAT(weights, IsOk());
  const std::string path = io::JoinPath(work_dir_, "weights.pth");
  ASSERT_THAT(io::WritePthWeights(io::Env::Posix(), path, *weights), IsOk());
  Create(absl::StrCat(kForEver, "load_from: \"", path, "\""));
  ASSERT_THAT(Took(grapnel_runner_val(runner_.get(), nullptr)), IsOk());
  EXPECT_EQ(Outputs(Make()), expected);
}

TEST_F(PredictorTest, TheLogNamesACheckpointThatIsPassedOver) {
  Create(kEpochs);
  Step(6);
  runner_.reset();
  const std::string weights =
      io::JoinPath(work_dir_, "epoch_2/model.safetensors");
  ASSERT_EQ(truncate(weights.c_str(), 10), 0);
  std::vector<std::string> lines;
  grapnel_set_log_callback(Keep, &lines);
  const auto opened = Open(work_dir_);
  EXPECT_EQ(Iter(opened), 3);
  EXPECT_THAT(Refresh(opened), IsOk());  // It has been told.
  grapnel_bytes path = {};
  EXPECT_THAT(Took(grapnel_checkpoint_latest(work_dir_.data(), work_dir_.size(),
                                             &path)),
              IsOk());
  grapnel_set_log_callback(nullptr, nullptr);
  EXPECT_THAT(Took(&path), HasSubstr("epoch_1"));
  EXPECT_THAT(
      lines,
      ElementsAre(AllOf(HasSubstr("passed over"), HasSubstr("epoch_2")),
                  AllOf(HasSubstr("passed over"), HasSubstr("epoch_2"))));
}

TEST_F(PredictorTest, TakesNewerWeightsWhenItIsRefreshed) {
  Create(kEpochs);
  Step(3);
  const auto of_run = Make();
  const auto opened = Open(work_dir_);
  const std::vector<float> first = Outputs(of_run);
  Step(3);
  for (const auto* predictor : {&of_run, &opened}) {
    EXPECT_EQ(Outputs(*predictor), first);
    EXPECT_EQ(Iter(*predictor), 3);
    ASSERT_THAT(Refresh(*predictor), IsOk());
    EXPECT_NE(Outputs(*predictor), first);
    EXPECT_EQ(Iter(*predictor), 6);
  }
  EXPECT_EQ(Outputs(of_run), Outputs(opened));
}

TEST_F(PredictorTest, HasNoWeightsBeforeTheRunHasBegunAndKeepsThemAfterIt) {
  Create(kEpochs);
  const auto predictor = Make();
  EXPECT_THAT(Refresh(predictor),
              StatusIs(kFailedPrecondition, HasSubstr("has not begun")));
  EXPECT_THAT(
      Predict(predictor.get(), NewTensor(Inputs(), {kRows, 2}).get()),
      StatusIs(kFailedPrecondition, HasSubstr("there are no weights yet")));
  EXPECT_EQ(Iter(predictor), 0);
  Step(1);
  ASSERT_THAT(Refresh(predictor), IsOk());
  const std::vector<float> outputs = Outputs(predictor);
  runner_.reset();
  EXPECT_THAT(Refresh(predictor),
              StatusIs(kFailedPrecondition, HasSubstr("the runner is gone")));
  EXPECT_EQ(Outputs(predictor), outputs);
  EXPECT_EQ(Iter(predictor), 1);
}

// A model that gives what it got.
TEST_F(PredictorTest, OutputsInReadOnlyMemoryOfInputsAreReadOnly) {
  const auto options = Options(R"pb(
    model { sequential { layers { flatten {} } } }
    test_dataloader { batch_size: 4 }
    test_evaluator { mse {} }
  )pb");
  ASSERT_THAT(Took(grapnel_runner_options_set_for_training(options.get(), 0)),
              IsOk());
  SetTensors(options, GRAPNEL_TEST, Inputs(), Inputs());
  Create(options);
  ASSERT_THAT(Took(grapnel_runner_test(runner_.get(), nullptr)), IsOk());
  const auto predictor = Make();
  for (const bool read_only : {false, true}) {
    SCOPED_TRACE(read_only);
    const auto inputs = NewTensor(Inputs(), {kRows, 2});
    inputs->read_only = read_only;  // As DLPack does.
    grapnel_tensor* made = nullptr;
    ASSERT_THAT(
        Took(grapnel_predictor_predict(predictor.get(), inputs.get(), &made)),
        IsOk());
    const Owned<grapnel_tensor> outputs(made);
    EXPECT_EQ(Took(grapnel_tensor_write(outputs.get(), Inputs().data(),
                                        Inputs().size() * sizeof(float)))
                  .code(),
              read_only ? kFailedPrecondition : absl::StatusCode::kOk);
  }
}

// -------------------------------------------------------- beside a training

TEST_F(PredictorTest, TwoThreadsPredictWhileAThirdTrainsAndRefreshes) {
  constexpr int kSteps = 200;  // At least,
  constexpr int kEach = 100;   // and predictions of each thread.
  Create(absl::StrCat(kForEver, kEma));
  Step(1);
  const auto predictor = Make(GRAPNEL_EVALUATED, /*replicas=*/2);
  const auto witness = Make();  // Of the thread that trains alone.
  // What can be said with weights that are all of one moment.
  std::set<std::vector<float>> whole = {Outputs(witness)};
  std::set<std::vector<float>> seen[2];
  std::atomic<int> predictions[2] = {};
  std::atomic<bool> stop{false};
  std::thread trainer([&] {
    for (int i = 0; i < kSteps || std::min(predictions[0].load(),
                                           predictions[1].load()) < kEach;
         ++i) {
      EXPECT_THAT(Took(grapnel_runner_step(runner_.get(), nullptr)), IsOk());
      EXPECT_THAT(Refresh(predictor), IsOk());
      EXPECT_THAT(Refresh(witness), IsOk());
      whole.insert(Outputs(witness));
    }
    stop = true;
  });
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&, i] {
      while (!stop) {
        seen[i].insert(Outputs(predictor));
        ++predictions[i];
      }
    });
  }
  trainer.join();
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(Iter(predictor), grapnel_runner_iter(runner_.get()));
  for (const auto& outputs_of_thread : seen) {
    EXPECT_GT(outputs_of_thread.size(), 1u);
    for (const std::vector<float>& outputs : outputs_of_thread) {
      EXPECT_EQ(whole.count(outputs), 1u);
    }
  }
}

TEST_F(PredictorTest, CanBeMadeAndRefreshedWhileACallIsGoingOn) {
  Create(kForEver);
  Step(1);
  std::atomic<bool> ended{false};
  std::thread trainer([&] {
    EXPECT_THAT(Took(grapnel_runner_train(runner_.get())), IsOk());
    ended = true;
  });
  const auto predictor = Make();
  int64_t last = Iter(predictor);
  EXPECT_GE(last, 1);
  const int64_t goal = last + 50;
  while (last < goal && !ended) {
    EXPECT_THAT(Refresh(predictor), IsOk());
    EXPECT_GE(Iter(predictor), last);
    last = Iter(predictor);
    Outputs(predictor);
  }
  EXPECT_GE(last, goal);
  EXPECT_THAT(Took(grapnel_runner_request_stop(runner_.get(), GRAPNEL_STOP_NOW,
                                               "enough", 6)),
              IsOk());
  trainer.join();
  EXPECT_THAT(Refresh(predictor), IsOk());
  EXPECT_EQ(Iter(predictor), grapnel_runner_iter(runner_.get()));
}

TEST_F(PredictorTest, ACallbackCanMakeAndRefreshOne) {
  int in_training = 0;
  int in_validation = 0;
  OnStage on_stage = [&](grapnel_stage stage,
                         grapnel_run* run) -> grapnel_status* {
    const auto predictor = Make(GRAPNEL_AVERAGED);
    EXPECT_THAT(Refresh(predictor), IsOk());
    EXPECT_EQ(Iter(predictor), grapnel_run_iter(run));
    if (stage == GRAPNEL_AFTER_TRAIN_ITER) {
      if (++in_training > 1) {  // The average begins with the first.
        EXPECT_NE(Outputs(predictor), Outputs(Make(GRAPNEL_TRAINED)));
      }
      return nullptr;
    }
    ++in_validation;
    grapnel_predictor* none = nullptr;
    EXPECT_THAT(Took(grapnel_runner_predictor(runner_.get(), GRAPNEL_TRAINED, 1,
                                              &none)),
                StatusIs(kFailedPrecondition, HasSubstr("in an evaluation")));
    EXPECT_EQ(none, nullptr);
    return nullptr;
  };
  Create(absl::StrCat(kEpochs, kEma), &on_stage);
  Step(6);
  EXPECT_EQ(in_training, 6);
  EXPECT_EQ(in_validation, 2);
}

// -------------------------------------------------------------------- errors

TEST_F(PredictorTest, SaysWhatIsWrong) {
  Create(kEpochs);
  Step(3);
  grapnel_predictor* none = nullptr;
  EXPECT_THAT(
      Took(grapnel_predictor_open("/nowhere", 8, GRAPNEL_EVALUATED, 1, &none)),
      StatusIs(absl::StatusCode::kNotFound,
               HasSubstr("/nowhere: is no checkpoint")));
  EXPECT_THAT(Took(grapnel_predictor_open(work_dir_.data(), work_dir_.size(),
                                          GRAPNEL_AVERAGED, 1, &none)),
              StatusIs(absl::StatusCode::kNotFound,
                       AllOf(HasSubstr(work_dir_), HasSubstr("no average"))));
  EXPECT_THAT(
      Took(grapnel_runner_predictor(runner_.get(), GRAPNEL_AVERAGED, 1, &none)),
      StatusIs(kFailedPrecondition, HasSubstr("no average")));
  EXPECT_EQ(none, nullptr);
  const auto predictor = Make();
  EXPECT_THAT(Predict(predictor.get(), NewTensor(Inputs(), {8, 3}).get()),
              StatusIs(kInvalidArgument,
                       HasSubstr("inputs: have the shape (8, 3), the run's "
                                 "have (N, 2)")));
  // Not for good.
  EXPECT_EQ(Outputs(predictor), Outputs(Open(work_dir_)));
}

TEST_F(PredictorTest, ThereIsNoneOfAModelThatWasGivenInCode) {
  const auto options = Options(R"pb(
    train_dataloader { batch_size: 4 }
    train_cfg { max_epochs: 1 }
    optim_wrapper { optimizer { sgd { lr: 0.1 } } }
  )pb");
  SetTensors(options, GRAPNEL_TRAIN, Inputs(), Targets());
  grapnel_tensors* parameters = nullptr;
  ASSERT_THAT(Took(grapnel_tensors_create(&parameters)), IsOk());
  const Owned<grapnel_tensors> owned(parameters);
  ASSERT_THAT(Took(grapnel_tensors_add(parameters, "w", 1,
                                       NewTensor({1}, {1}).release())),
              IsOk());
  grapnel_model_callbacks model = {};
  model.struct_size = sizeof(model);
  model.train_step = [](void*, const grapnel_tensors*, grapnel_tensors*,
                        grapnel_scalars*) {
    return grapnel_status_create(GRAPNEL_INTERNAL, "called", 6);
  };
  ASSERT_THAT(Took(grapnel_runner_options_set_model(options.get(), &model,
                                                    parameters, nullptr,
                                                    /*user_data=*/nullptr)),
              IsOk());
  Create(options);
  grapnel_predictor* none = nullptr;
  EXPECT_THAT(
      Took(grapnel_runner_predictor(runner_.get(), GRAPNEL_TRAINED, 1, &none)),
      StatusIs(kInvalidArgument, HasSubstr("was given in code")));
  EXPECT_EQ(none, nullptr);
}

}  // namespace
}  // namespace grapnel
