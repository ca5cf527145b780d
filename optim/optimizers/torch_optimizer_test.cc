#include "grapnel/optim/optimizers/torch_optimizer.h"

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/optim/optimizer.h"
#include "grapnel/optim/optimizer.pb.h"
#include "grapnel/optim/param_scheduler.h"
#include "grapnel/optim/param_scheduler.pb.h"
#include "gtest/gtest.h"
#include "torch/nn/modules/linear.h"
#include "torch/optim.h"
#include "torch/types.h"

namespace grapnel {
namespace {

using ::grapnel::optim::v1::OptimizerState;
using ::testing::HasSubstr;
using ::testing::IsSupersetOf;

std::vector<NamedTensor> Params() {
  torch::manual_seed(7);
  return {{"weight", torch::randn({3, 4}, at::kDouble).requires_grad_()},
          {"bias", torch::randn({4}, at::kDouble).requires_grad_()}};
}

std::vector<at::Tensor> Tensors(const std::vector<NamedTensor>& params) {
  std::vector<at::Tensor> tensors;
  for (const NamedTensor& param : params) tensors.push_back(param.tensor);
  return tensors;
}

std::unique_ptr<Optimizer> Wrap(
    std::shared_ptr<torch::optim::Optimizer> optimizer,
    const std::vector<NamedTensor>& params) {
  auto wrapped = WrapTorchOptimizer(std::move(optimizer), params);
  EXPECT_THAT(wrapped, IsOk());
  return wrapped.ok() ? *std::move(wrapped) : nullptr;
}

// The bias gets gradients from step 3 on.
void StepOnce(Optimizer& optimizer, const std::vector<NamedTensor>& params,
              int step) {
  torch::manual_seed(100 + step);
  for (size_t i = 0; i < (step < 3 ? 1u : 2u); ++i) {
    torch::NoGradGuard no_grad;
    params[i].tensor.mutable_grad() =
        torch::randn_like(params[i].tensor) + 0.3 * params[i].tensor;
  }
  ASSERT_THAT(optimizer.Step(), IsOk());
  optimizer.ZeroGrad();
}

using MakeTorch = std::function<std::shared_ptr<torch::optim::Optimizer>(
    std::vector<at::Tensor>)>;

template <typename T, typename Options>
MakeTorch Torch(Options options) {
  return [options](std::vector<at::Tensor> params) {
    return std::make_shared<T>(std::move(params), options);
  };
}

struct KindCase {
  const char* type;
  MakeTorch make;
  std::vector<std::string> slots;    // Of "weight", after a step.
  std::vector<std::string> options;  // Besides lr and weight_decay.
};

void PrintTo(const KindCase& test, std::ostream* out) { *out << test.type; }

class TorchOptimizerKindTest : public ::testing::TestWithParam<KindCase> {};

TEST_P(TorchOptimizerKindTest, OptionsAreTheOptimizersOwn) {
  const std::vector<NamedTensor> params = Params();
  auto torch_optimizer = GetParam().make(Tensors(params));
  auto optimizer = Wrap(torch_optimizer, params);
  EXPECT_EQ(optimizer->type(), GetParam().type);
  ASSERT_EQ(optimizer->num_groups(), 1);
  EXPECT_EQ(optimizer->params(0)[1].name, "bias");
  *optimizer->option(0, "lr") = 0.125;
  EXPECT_EQ(torch_optimizer->param_groups()[0].options().get_lr(), 0.125);
  EXPECT_NE(optimizer->option(0, "weight_decay"), nullptr);
  for (const std::string& name : GetParam().options) {
    EXPECT_NE(optimizer->option(0, name), nullptr) << name;
  }
  EXPECT_EQ(optimizer->option(0, "warmth"), nullptr);
}

TEST_P(TorchOptimizerKindTest, SlotsHaveTorchOptimsNames) {
  const std::vector<NamedTensor> params = Params();
  auto optimizer = Wrap(GetParam().make(Tensors(params)), params);
  StepOnce(*optimizer, params, 0);
  OptimizerState state;
  TensorMap tensors;
  ASSERT_THAT(optimizer->SaveState(&state, &tensors), IsOk());
  std::vector<std::string> names;
  for (const NamedTensor& entry : tensors) names.push_back(entry.name);
  std::vector<std::string> expected;
  for (const std::string& slot : GetParam().slots) {
    expected.push_back("weight/" + slot);
  }
  EXPECT_THAT(names, IsSupersetOf(expected));
}

TEST_P(TorchOptimizerKindTest, ResumedAtEveryCutEqualsUninterrupted) {
  constexpr int kSteps = 7;
  const std::vector<NamedTensor> expected = Params();
  auto whole = Wrap(GetParam().make(Tensors(expected)), expected);
  for (int step = 0; step < kSteps; ++step) StepOnce(*whole, expected, step);
  for (int cut = 0; cut <= kSteps; ++cut) {
    const std::vector<NamedTensor> params = Params();
    auto first = Wrap(GetParam().make(Tensors(params)), params);
    for (int step = 0; step < cut; ++step) StepOnce(*first, params, step);
    OptimizerState state;
    TensorMap tensors;
    ASSERT_THAT(first->SaveState(&state, &tensors), IsOk());
    auto second = Wrap(GetParam().make(Tensors(params)), params);
    *second->option(0, "lr") = 77;
    ASSERT_THAT(second->LoadState(state, tensors), IsOk());
    for (int step = cut; step < kSteps; ++step) {
      StepOnce(*second, params, step);
    }
    for (size_t i = 0; i < params.size(); ++i) {
      EXPECT_TRUE(torch::equal(params[i].tensor, expected[i].tensor))
          << cut << " " << params[i].name;
    }
  }
}

TEST_P(TorchOptimizerKindTest, DamagedStateIsRefused) {
  const std::vector<NamedTensor> params = Params();
  auto optimizer = Wrap(GetParam().make(Tensors(params)), params);
  StepOnce(*optimizer, params, 3);
  OptimizerState state;
  TensorMap tensors;
  ASSERT_THAT(optimizer->SaveState(&state, &tensors), IsOk());
  EXPECT_THAT(optimizer->LoadState(state, TensorMap()),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("is missing in the state")));
  TensorMap more = tensors;
  ASSERT_THAT(more.Add("weight/x", torch::ones({1})), IsOk());
  EXPECT_THAT(optimizer->LoadState(state, more),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("there is a slot \"weight/x\"")));
  EXPECT_THAT(optimizer->LoadState(state, tensors), IsOk());
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, TorchOptimizerKindTest,
    ::testing::Values(
        KindCase{"SGD",
                 Torch<torch::optim::SGD>(
                     torch::optim::SGDOptions(0.1).momentum(0.9)),
                 {"momentum_buffer"},
                 {"momentum", "dampening"}},
        KindCase{"Adam",
                 Torch<torch::optim::Adam>(
                     torch::optim::AdamOptions(0.1).amsgrad(true)),
                 {"step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"},
                 {"momentum", "beta1", "beta2", "eps"}},
        KindCase{"AdamW",
                 Torch<torch::optim::AdamW>(torch::optim::AdamWOptions(0.1)),
                 {"step", "exp_avg", "exp_avg_sq"},
                 {"momentum", "beta1", "beta2", "eps"}},
        KindCase{
            "RMSprop",
            Torch<torch::optim::RMSprop>(
                torch::optim::RMSpropOptions(0.1).momentum(0.9).centered(true)),
            {"step", "square_avg", "momentum_buffer", "grad_avg"},
            {"momentum", "alpha", "eps"}},
        KindCase{"Adagrad",
                 Torch<torch::optim::Adagrad>(
                     torch::optim::AdagradOptions(0.1).lr_decay(0.01)),
                 {"step", "sum"},
                 {"lr_decay", "eps"}}),
    [](const auto& info) { return std::string(info.param.type); });

// Momentum that was off for a while starts from scratch.
TEST(TorchOptimizerTest, MomentumThatWasOffBeginsWithTheNextGradient) {
  const std::vector<NamedTensor> params = Params();
  const auto make = [&](double momentum) {
    return Wrap(
        std::make_shared<torch::optim::SGD>(
            Tensors(params), torch::optim::SGDOptions(0.1).momentum(momentum)),
        params);
  };
  auto with = make(0.9);
  StepOnce(*with, params, 3);
  OptimizerState state;
  TensorMap tensors;
  ASSERT_THAT(with->SaveState(&state, &tensors), IsOk());
  EXPECT_NE(tensors.Find("weight/momentum_buffer"), nullptr);
  auto without = make(0);
  ASSERT_THAT(without->LoadState(state, tensors), IsOk());
  OptimizerState second_state;
  TensorMap second_tensors;
  ASSERT_THAT(without->SaveState(&second_state, &second_tensors), IsOk());
  EXPECT_TRUE(second_tensors.empty());
  auto again = make(0.9);
  ASSERT_THAT(again->LoadState(second_state, second_tensors), IsOk());
  OptimizerState third_state;
  TensorMap third_tensors;
  ASSERT_THAT(again->SaveState(&third_state, &third_tensors), IsOk());
  EXPECT_TRUE(third_tensors.empty());
}

// Somebody's own.
class SignDescent : public torch::optim::Optimizer {
 public:
  explicit SignDescent(std::vector<at::Tensor> params)
      : Optimizer(std::move(params),
                  std::make_unique<torch::optim::SGDOptions>(0.5)) {}
  at::Tensor step(LossClosure closure) override {
    torch::NoGradGuard no_grad;
    for (const at::Tensor& param : param_groups()[0].params()) {
      if (param.grad().defined()) param.sub_(param.grad().sign(), 0.5);
    }
    return {};
  }
};

TEST(TorchOptimizerTest, UnknownTypesStepButHaveNoState) {
  const std::vector<NamedTensor> params = Params();
  auto optimizer = Wrap(std::make_shared<SignDescent>(Tensors(params)), params);
  const at::Tensor before = params[0].tensor.detach().clone();
  params[0].tensor.mutable_grad() = torch::ones_like(before);
  ASSERT_THAT(optimizer->Step(), IsOk());
  EXPECT_TRUE(torch::equal(params[0].tensor, before - 0.5));
  EXPECT_EQ(optimizer->option(0, "lr"), nullptr);
  OptimizerState state;
  TensorMap tensors;
  EXPECT_THAT(
      optimizer->SaveState(&state, &tensors),
      StatusIs(absl::StatusCode::kUnimplemented, HasSubstr("SignDescent")));
  EXPECT_THAT(
      optimizer->LoadState(state, tensors),
      StatusIs(absl::StatusCode::kUnimplemented, HasSubstr("SignDescent")));
}

TEST(TorchOptimizerTest, RefusesWhatItCannotStep) {
  const std::vector<NamedTensor> params = Params();
  EXPECT_THAT(WrapTorchOptimizer(nullptr, params),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("must not be null")));
  EXPECT_THAT(
      WrapTorchOptimizer(std::make_shared<torch::optim::LBFGS>(Tensors(params)),
                         params),
      StatusIs(absl::StatusCode::kInvalidArgument,
               HasSubstr("needs a closure")));
  EXPECT_THAT(
      WrapTorchOptimizer(std::make_shared<torch::optim::SGD>(
                             Tensors(params), torch::optim::SGDOptions(1)),
                         {params[0]}),
      StatusIs(absl::StatusCode::kInvalidArgument,
               HasSubstr("parameter 1 of group 0")));
}

TEST(TorchOptimizerTest, ErrorsOfTheStepAreStatuses) {
  const std::vector<NamedTensor> params = Params();
  auto optimizer =
      Wrap(std::make_shared<torch::optim::SGD>(
               Tensors(params), torch::optim::SGDOptions(1).weight_decay(0.1)),
           params);
  params[1].tensor.mutable_grad() = torch::ones({4}, at::kDouble).to_sparse();
  EXPECT_FALSE(optimizer->Step().ok());
}

// A loop written by hand, with LibTorch's own model and optimizer: schedulers
// need neither a runner nor an OptimWrapper.
TEST(TorchOptimizerTest, SchedulersMoveALoopWrittenByHand) {
  torch::manual_seed(0);
  torch::nn::Linear model(2, 1);
  auto adam = std::make_shared<torch::optim::Adam>(
      model->parameters(), torch::optim::AdamOptions(0.1));
  std::vector<NamedTensor> params;
  for (const auto& entry : model->named_parameters()) {
    params.push_back({entry.key(), entry.value()});
  }
  auto groups = Wrap(adam, params);

  optim::v1::LinearSchedulerConfig warm_up;
  warm_up.set_start_factor(0.5);
  warm_up.set_end(3);
  warm_up.set_by_epoch(false);
  optim::v1::CosineAnnealingSchedulerConfig momentum;
  momentum.set_param_name("momentum");
  momentum.set_t_max(2);
  momentum.set_eta_min(0.5);
  momentum.set_by_epoch(false);
  std::vector<std::unique_ptr<ParamScheduler>> schedulers;
  auto first = ParamSchedulerRegistry::Create(warm_up, *groups, RunLength());
  ASSERT_THAT(first, IsOk());
  schedulers.push_back(*std::move(first));
  auto second = ParamSchedulerRegistry::Create(momentum, *groups, RunLength());
  ASSERT_THAT(second, IsOk());
  schedulers.push_back(*std::move(second));

  for (auto& scheduler : schedulers) scheduler->Apply();
  const auto& options = static_cast<const torch::optim::AdamOptions&>(
      adam->param_groups()[0].options());
  std::vector<double> lrs, betas;
  const at::Tensor x = torch::randn({8, 2});
  const at::Tensor y = x.sum(1, true);
  double last_loss = 0;
  for (int i = 0; i < 3; ++i) {
    lrs.push_back(options.lr());
    betas.push_back(std::get<0>(options.betas()));
    adam->zero_grad();
    const at::Tensor loss = (model(x) - y).square().mean();
    loss.backward();
    adam->step();
    if (i > 0) {
      EXPECT_LT(loss.item<double>(), last_loss);
    }
    last_loss = loss.item<double>();
    for (auto& scheduler : schedulers) scheduler->Step();
  }
  EXPECT_THAT(lrs, ::testing::ElementsAre(0.05, ::testing::DoubleEq(0.075),
                                          ::testing::DoubleEq(0.1)));
  EXPECT_THAT(betas, ::testing::ElementsAre(0.9, ::testing::DoubleEq(0.7),
                                            ::testing::DoubleEq(0.5)));
}

}  // namespace
}  // namespace grapnel
