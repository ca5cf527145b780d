#include "grapnel/models/callback_model.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "c10/core/GradMode.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/data/sample.h"
#include "grapnel/models/log_vars.h"
#include "grapnel/models/model.h"
#include "grapnel/optim/averaging/averaged_model.h"
#include "grapnel/optim/averaging/averaging_strategies.h"
#include "grapnel/optim/optim_wrapper.h"
#include "grapnel/optim/optim_wrapper.pb.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kAdamW[] = "optimizer { adamw { lr: 0.05 weight_decay: 0.1 } }";

std::unique_ptr<OptimWrapper> Optim(const std::string& text,
                                    const Model& model) {
  optim::v1::OptimWrapperConfig config;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &config))
      << text;
  auto wrapper = OptimWrapper::Create(config, model.parameters());
  EXPECT_THAT(wrapper, IsOk()) << text;
  return wrapper.ok() ? *std::move(wrapper) : nullptr;
}

// 8 samples of 3 features, others for each number.
Batch BatchOf(int number) {
  Batch batch;
  batch.inputs =
      ops::arange(number, number + 24, at::kFloat).view({8, 3}).sin();
  batch.targets = batch.inputs.sum(1, /*keepdim=*/true).add(0.5);
  batch.indices.resize(8);
  std::iota(batch.indices.begin(), batch.indices.end(), 8 * number);
  return batch;
}

// A linear regression.
std::vector<NamedTensor> Weights() {
  return {{"w", ops::tensor({0.3F, -0.2F, 0.1F}).view({3, 1})},
          {"b", ops::zeros({1})}};
}
at::Tensor Residuals(const std::vector<NamedTensor>& weights,
                     const Batch& batch) {
  return batch.inputs.mm(weights[0].tensor)
      .add(weights[1].tensor)
      .sub(batch.targets);
}

// By autograd.
class LossModel final : public Model {
 public:
  LossModel() {
    for (const NamedTensor& tensor : weights_) {
      tensor.tensor.set_requires_grad(true);
    }
  }
  absl::Status ComputeLosses(const Batch& batch, LogVars* losses) override {
    losses->Add("loss", Residuals(weights_, batch).square().mean());
    return absl::OkStatus();
  }
  absl::Status ValStep(const Batch&, Predictions*) override {
    return absl::UnimplementedError("not used");
  }
  const std::vector<NamedTensor>& parameters() const override {
    return weights_;
  }
  const std::vector<NamedTensor>& buffers() const override { return none_; }
  void SetTraining(bool) override {}
  bool training() const override { return true; }

 private:
  const std::vector<NamedTensor> weights_ = Weights();
  const std::vector<NamedTensor> none_;
};

// By hand: the gradient of the mean of r * r, r = x w + b - t, is 2 / n x^T r
// for w. n is a power of two, so that its place in the product is of no
// consequence.
CallbackModel::Options ByHand() {
  CallbackModel::Options options;
  options.parameters = Weights();
  options.train_step = [weights = options.parameters](const Batch& batch,
                                                      TensorMap* gradients,
                                                      LogVars* losses) {
    const c10::NoGradGuard no_grad;
    const at::Tensor residuals = Residuals(weights, batch);
    const at::Tensor slope =
        residuals.mul(2.0 / static_cast<double>(batch.size()));
    losses->Add("loss", residuals.square().mean());
    const absl::Status status = gradients->Add("w", batch.inputs.t().mm(slope));
    return status.ok() ? gradients->Add("b", slope.sum(0)) : status;
  };
  options.val_step = [weights = options.parameters](const Batch& batch,
                                                    Predictions* predictions) {
    EXPECT_FALSE(c10::GradMode::is_enabled());
    predictions->outputs =
        batch.inputs.mm(weights[0].tensor).add(weights[1].tensor);
    return absl::OkStatus();
  };
  return options;
}

std::unique_ptr<CallbackModel> Make(CallbackModel::Options options) {
  auto model = CallbackModel::Create(std::move(options));
  EXPECT_THAT(model, IsOk());
  return model.ok() ? *std::move(model) : nullptr;
}

TEST(CallbackModelTest, TrainsToTheSameBitsAsWithALoss) {
  for (const char* more :
       {"", " clip_grad { max_norm: 0.1 }", " accumulate_by: SAMPLES"}) {
    SCOPED_TRACE(more);
    const std::string config = absl::StrCat(kAdamW, more);
    LossModel by_loss;
    const auto by_hand = Make(ByHand());
    const auto loss_optim = Optim(config, by_loss);
    const auto hand_optim = Optim(config, *by_hand);
    for (int i = 0; i < 20; ++i) {
      LogVars loss, hand;
      ASSERT_THAT(by_loss.TrainStep(BatchOf(i), *loss_optim, &loss), IsOk());
      ASSERT_THAT(by_hand->TrainStep(BatchOf(i), *hand_optim, &hand), IsOk());
      ASSERT_EQ(hand.size(), 1u);
      EXPECT_EQ(hand[0].name, "loss");
      EXPECT_TRUE(ops::equal(hand[0].tensor, loss[0].tensor));
      for (int k = 0; k < 2; ++k) {
        ASSERT_TRUE(ops::equal(by_hand->parameters()[k].tensor,
                               by_loss.parameters()[k].tensor))
            << "iteration " << i;
      }
    }
    EXPECT_FALSE(
        ops::equal(by_hand->parameters()[0].tensor, Weights()[0].tensor));
  }
}

TEST(CallbackModelTest, EvaluatesWithoutAutogradAndWithoutLeftovers) {
  const auto model = Make(ByHand());
  Predictions predictions;
  predictions.losses.Add("of before", ops::ones({}));
  predictions.ignore_index = 3;
  ASSERT_THAT(model->ValStep(BatchOf(0), &predictions), IsOk());
  EXPECT_TRUE(ops::equal(predictions.outputs.detach(),
                         BatchOf(0).inputs.mm(Weights()[0].tensor)));
  EXPECT_TRUE(predictions.losses.empty());
  EXPECT_FALSE(predictions.ignore_index.has_value());
  EXPECT_TRUE(c10::GradMode::is_enabled());
}

struct LossesCase {
  std::string name;
  std::vector<NamedTensor> losses;
  std::vector<std::pair<std::string, double>> logged;
  std::string error = "";
};

class CallbackModelLossesTest : public ::testing::TestWithParam<LossesCase> {};

TEST_P(CallbackModelLossesTest, LogsTheTotalFirst) {
  CallbackModel::Options options;
  options.parameters = Weights();
  options.train_step = [](const Batch&, TensorMap*, LogVars* losses) {
    for (const NamedTensor& loss : GetParam().losses) {
      losses->Add(loss.name, loss.tensor);
    }
    return absl::OkStatus();
  };
  const auto model = Make(std::move(options));
  const auto optim = Optim(kAdamW, *model);
  LogVars log_vars;
  log_vars.Add("of before", ops::ones({}));
  const absl::Status status = model->TrainStep(BatchOf(0), *optim, &log_vars);
  if (!GetParam().error.empty()) {
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument,
                                 HasSubstr(GetParam().error)));
    EXPECT_TRUE(log_vars.empty());
    return;
  }
  ASSERT_THAT(status, IsOk());
  std::vector<std::pair<std::string, double>> logged;
  for (const NamedTensor& value : log_vars) {
    EXPECT_EQ(value.tensor.dim(), 0) << value.name;
    EXPECT_FALSE(value.tensor.requires_grad()) << value.name;
    logged.emplace_back(value.name, value.tensor.item<double>());
  }
  EXPECT_EQ(logged, GetParam().logged);
}

INSTANTIATE_TEST_SUITE_P(
    All, CallbackModelLossesTest,
    ::testing::Values(
        LossesCase{"OneLoss", {{"loss", ops::full({}, 2.0)}}, {{"loss", 2}}},
        LossesCase{"OneOfAnotherName",
                   {{"mse", ops::full({1}, 2.0).set_requires_grad(true)}},
                   {{"loss", 2}, {"mse", 2}}},
        LossesCase{"Several",
                   {{"loss", ops::full({}, 3.0)},
                    {"loss_a", ops::full({}, 1.0)},
                    {"accuracy", ops::full({}, 0.5)}},
                   {{"loss", 3}, {"loss_a", 1}, {"accuracy", 0.5}}},
        LossesCase{"None", {}, {}, "train_step gave no losses"},
        LossesCase{"SeveralWithoutTotal",
                   {{"a", ops::ones({})}, {"loss", ops::ones({})}},
                   {},
                   "the first must be the total, \"loss\", is \"a\""},
        LossesCase{"NoNumber",
                   {{"loss", ops::ones({2})}},
                   {},
                   "loss \"loss\": must be one number, has 2"},
        LossesCase{"Undefined",
                   {{"loss", at::Tensor()}},
                   {},
                   "loss \"loss\": must be one number, is undefined"}),
    [](const auto& info) { return info.param.name; });

class TensorsWrittenTest : public ::testing::Test {
 protected:
  void SetUp() override {
    CallbackModel::Options options = ByHand();
    options.buffers = {{"count", ops::zeros({}, at::kLong)}};
    options.tensors_written = [this] {
      ++calls_;
      return status_;
    };
    model_ = Make(std::move(options));
  }

  // How often it was called in a step of training, and of evaluation.
  int CallsOf(const std::function<absl::Status()>& step) {
    const int before = calls_;
    EXPECT_THAT(step(), IsOk());
    return calls_ - before;
  }
  int InTraining(OptimWrapper& optim) {
    return CallsOf([&] {
      LogVars log_vars;
      return model_->TrainStep(BatchOf(0), optim, &log_vars);
    });
  }
  int InEvaluation() {
    return CallsOf([&] {
      Predictions predictions;
      return model_->ValStep(BatchOf(0), &predictions);
    });
  }

  std::unique_ptr<CallbackModel> model_;
  absl::Status status_;
  int calls_ = 0;
};

TEST_F(TensorsWrittenTest, ComesFirstOfAllAndAfterEachStep) {
  for (const char* optimizer :
       {"sgd { lr: 0.1 }", "sgd { lr: 0.1 momentum: 0.9 }", "adam { lr: 0.1 }",
        "adamw { lr: 0.1 }"}) {
    SCOPED_TRACE(optimizer);
    SetUp();
    const auto optim =
        Optim(absl::StrCat("optimizer { ", optimizer, " }"), *model_);
    EXPECT_EQ(InEvaluation(), 1);
    EXPECT_EQ(InEvaluation(), 0);
    EXPECT_EQ(InTraining(*optim), 0);
    EXPECT_EQ(InTraining(*optim), 1);
    EXPECT_EQ(InEvaluation(), 1);
    EXPECT_EQ(InEvaluation(), 0);
    EXPECT_EQ(InTraining(*optim), 0);
  }
}

TEST_F(TensorsWrittenTest, ComesAfterTheLastOfAWindow) {
  const auto optim =
      Optim(absl::StrCat(kAdamW, " accumulative_counts: 3"), *model_);
  optim->InitializeCounts(0, 6);
  EXPECT_EQ(InTraining(*optim), 1);
  EXPECT_EQ(InTraining(*optim), 0);
  EXPECT_EQ(InTraining(*optim), 0);  // The step is made in it.
  EXPECT_EQ(InTraining(*optim), 1);
  EXPECT_EQ(InTraining(*optim), 0);
}

TEST_F(TensorsWrittenTest, ComesAfterALoad) {
  ASSERT_EQ(InEvaluation(), 1);
  TensorMap weights;
  ASSERT_THAT(weights.Add("b", ops::ones({1})), IsOk());
  ASSERT_THAT(LoadModelState(weights, /*strict=*/false, *model_, nullptr),
              IsOk());
  EXPECT_EQ(InEvaluation(), 1);
  EXPECT_EQ(InEvaluation(), 0);
}

TEST_F(TensorsWrittenTest, ComesAfterAnAverageCameAndAfterItHasGone) {
  ASSERT_EQ(InEvaluation(), 1);
  AveragingOptions options;
  auto strategy = EMAStrategy(0.5);
  ASSERT_THAT(strategy, IsOk());
  options.strategy = *std::move(strategy);
  const auto average =
      AveragedModel::Create(std::move(options), model_->parameters());
  ASSERT_THAT(average, IsOk());
  ASSERT_THAT((*average)->Update(), IsOk());
  EXPECT_EQ(InEvaluation(), 0);  // Only the average was written.
  {
    auto scope = AverageScope::Enter(average->get());
    ASSERT_THAT(scope, IsOk());
    EXPECT_EQ(InEvaluation(), 1);
    EXPECT_EQ(InEvaluation(), 0);
    ASSERT_THAT(scope->Leave(), IsOk());
  }
  EXPECT_EQ(InEvaluation(), 1);
  EXPECT_EQ(InEvaluation(), 0);
}

TEST_F(TensorsWrittenTest, ComesAfterAHookHasWritten) {
  ASSERT_EQ(InEvaluation(), 1);
  {
    const c10::NoGradGuard no_grad;
    model_->parameters()[0].tensor.mul_(0.5);
  }
  EXPECT_EQ(InEvaluation(), 1);
  model_->buffers()[0].tensor.detach().add_(1);
  EXPECT_EQ(InEvaluation(), 1);
  EXPECT_EQ(InEvaluation(), 0);
}

TEST_F(TensorsWrittenTest, ComesAgainAfterAnError) {
  status_ = absl::UnavailableError("the engine is busy");
  Predictions predictions;
  EXPECT_THAT(model_->ValStep(BatchOf(0), &predictions),
              StatusIs(absl::StatusCode::kUnavailable, "the engine is busy"));
  status_ = absl::OkStatus();
  EXPECT_EQ(InEvaluation(), 1);
  EXPECT_EQ(InEvaluation(), 0);
}

TEST(CallbackModelTest, WhatItWritesItselfIsNoNews) {
  CallbackModel::Options options = ByHand();
  const at::Tensor count = ops::zeros({}, at::kLong);
  options.buffers = {{"count", count}};
  options.val_step = [count](const Batch&, Predictions* predictions) {
    predictions->outputs = count.add_(1).view({1});
    return absl::OkStatus();
  };
  int calls = 0;
  options.tensors_written = [&] {
    ++calls;
    return absl::OkStatus();
  };
  const auto model = Make(std::move(options));
  Predictions predictions;
  for (int i = 0; i < 3; ++i) {
    ASSERT_THAT(model->ValStep(BatchOf(0), &predictions), IsOk());
  }
  EXPECT_EQ(count.item<int64_t>(), 3);
  EXPECT_EQ(calls, 1);
}

TEST(CallbackModelTest, TellsTheModeBeforeTheFirstStepAndWhenItChanges) {
  CallbackModel::Options options = ByHand();
  std::vector<bool> modes;
  options.set_training = [&](bool training) { modes.push_back(training); };
  const auto model = Make(std::move(options));
  const auto optim = Optim(kAdamW, *model);
  EXPECT_TRUE(model->training());
  EXPECT_TRUE(modes.empty());
  LogVars log_vars;
  ASSERT_THAT(model->TrainStep(BatchOf(0), *optim, &log_vars), IsOk());
  EXPECT_THAT(modes, ElementsAre(true));
  model->SetTraining(true);
  model->SetTraining(false);
  model->SetTraining(false);
  EXPECT_FALSE(model->training());
  Predictions predictions;
  ASSERT_THAT(model->ValStep(BatchOf(0), &predictions), IsOk());
  EXPECT_THAT(modes, ElementsAre(true, false));
}

TEST(CallbackModelTest, ParametersComeToRequireAGradient) {
  CallbackModel::Options options = ByHand();
  const at::Tensor w = options.parameters[0].tensor;
  const auto model = Make(std::move(options));
  EXPECT_TRUE(w.requires_grad());
  EXPECT_TRUE(model->parameters()[0].tensor.is_same(w));
  EXPECT_TRUE(model->has_own_generator());
}

TEST(CallbackModelTest, RefusesTensorsThatCannotBeTrained) {
  const auto refused = [](std::vector<NamedTensor> parameters,
                          std::vector<NamedTensor> buffers,
                          const std::string& message) {
    CallbackModel::Options options;
    const at::Tensor first = ops::zeros({2});
    options.parameters = {{"first", first}};
    options.parameters.insert(options.parameters.end(), parameters.begin(),
                              parameters.end());
    options.buffers = std::move(buffers);
    EXPECT_THAT(
        CallbackModel::Create(std::move(options)),
        StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(message)));
    EXPECT_FALSE(first.requires_grad()) << message;
  };
  refused({{"w", at::Tensor()}}, {}, "parameter \"w\": is undefined");
  refused({{"w", ops::zeros({2}, at::kLong)}}, {},
          "parameter \"w\": must be floating, is Long");
  refused({{"w", ops::zeros({2, 1}).expand({2, 2})}}, {},
          "parameter \"w\": must be dense");
  refused({{"w", ops::zeros({4}).slice(0, 0, 4, 2)}}, {},
          "parameter \"w\": must be dense");
  refused({{"w", ops::zeros({2}).set_requires_grad(true).mul(2)}}, {},
          "parameter \"w\": must be a leaf");
  refused({{"first", ops::zeros({2})}}, {},
          "parameter \"first\": is there twice");
  refused({}, {{"first", ops::zeros({2})}}, "buffer \"first\": is there twice");
  refused({}, {{"b", at::Tensor()}}, "buffer \"b\": is undefined");
}

TEST(CallbackModelTest, WhatAFunctionThrowsIsAStatus) {
  CallbackModel::Options options;
  options.parameters = Weights();
  options.train_step = [](const Batch&, TensorMap*, LogVars*) -> absl::Status {
    throw std::runtime_error("no gradients today");
  };
  options.val_step = [](const Batch&, Predictions*) -> absl::Status {
    throw std::runtime_error("no predictions either");
  };
  options.export_model = [](const std::string& path) {
    return absl::UnavailableError(path);
  };
  const auto model = Make(std::move(options));
  const auto optim = Optim(kAdamW, *model);
  LogVars log_vars;
  EXPECT_THAT(model->TrainStep(BatchOf(0), *optim, &log_vars),
              StatusIs(absl::StatusCode::kInternal, "no gradients today"));
  Predictions predictions;
  EXPECT_THAT(model->ValStep(BatchOf(0), &predictions),
              StatusIs(absl::StatusCode::kInternal, "no predictions either"));
  EXPECT_THAT(model->Export("/net.bin"),
              StatusIs(absl::StatusCode::kUnavailable, "/net.bin"));
}

TEST(CallbackModelTest, WhatIsMissingIsSaid) {
  CallbackModel::Options options;
  options.parameters = Weights();
  const auto model = Make(std::move(options));
  const auto optim = Optim(kAdamW, *model);
  LogVars log_vars;
  EXPECT_THAT(model->TrainStep(BatchOf(0), *optim, &log_vars),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("train_step: must be set")));
  EXPECT_THAT(model->ComputeLosses(BatchOf(0), &log_vars),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("come from train_step")));
  Predictions predictions;
  EXPECT_THAT(model->ValStep(BatchOf(0), &predictions),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("val_step: must be set")));
  EXPECT_THAT(model->Export("/net.bin"),
              StatusIs(absl::StatusCode::kUnimplemented,
                       HasSubstr("no file format of its own")));
}

TEST(CallbackModelTest, GradientsThatDoNotFitDoNothing) {
  CallbackModel::Options options;
  options.parameters = Weights();
  options.train_step = [](const Batch&, TensorMap* gradients, LogVars* losses) {
    losses->Add("loss", ops::ones({}));
    return gradients->Add("w", ops::ones({3}));
  };
  const auto model = Make(std::move(options));
  const auto optim = Optim(kAdamW, *model);
  LogVars log_vars;
  EXPECT_THAT(model->TrainStep(BatchOf(0), *optim, &log_vars),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("gradient of \"w\": has the shape [3]")));
  EXPECT_TRUE(log_vars.empty());
  EXPECT_TRUE(ops::equal(model->parameters()[0].tensor, Weights()[0].tensor));
}

TEST(CallbackModelTest, SeveralOptimizersAreRefused) {
  const auto model = Make(ByHand());
  const auto optim = Optim(
      R"pb(
        optimizers {
          name: "one"
          pattern: "^w"
          optimizer { sgd { lr: 1 } }
        }
        optimizers {
          name: "two"
          pattern: "^b"
          optimizer { sgd { lr: 1 } }
        }
      )pb",
      *model);
  LogVars log_vars;
  EXPECT_THAT(model->TrainStep(BatchOf(0), *optim, &log_vars),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("there are several optimizers (one, two)")));
}

}  // namespace
}  // namespace grapnel
