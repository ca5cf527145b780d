// SGD, Adam and AdamW, through the registry: the numbers against LibTorch's own
// optimizers, the slots, and what is refused.

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <limits>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/optim/optimizer.h"
#include "grapnel/optim/optimizer.pb.h"
#include "gtest/gtest.h"
#include "torch/optim.h"
#include "torch/types.h"

namespace {

std::atomic<int64_t> num_allocations{0};

}  // namespace

// Counts what operator new gives out, LibTorch's part included.
void* operator new(size_t size) {
  ++num_allocations;
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace grapnel {
namespace {

using ::google::protobuf::TextFormat;
using ::grapnel::optim::v1::OptimizerConfig;
using ::grapnel::optim::v1::OptimizerState;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

OptimizerConfig Parse(const std::string& text) {
  OptimizerConfig config;
  EXPECT_TRUE(TextFormat::ParseFromString(text, &config)) << text;
  return config;
}

std::unique_ptr<Optimizer> Make(const std::string& text,
                                std::vector<ParamGroup> groups) {
  auto optimizer = OptimizerRegistry::Create(Parse(text), std::move(groups));
  EXPECT_THAT(optimizer, IsOk()) << text;
  return optimizer.ok() ? *std::move(optimizer) : nullptr;
}

at::Tensor Param(std::vector<int64_t> shape, at::ScalarType dtype,
                 uint64_t seed) {
  torch::manual_seed(seed);
  return torch::randn(shape, dtype).requires_grad_();
}

std::vector<NamedTensor> Params(at::ScalarType dtype = at::kDouble) {
  return {{"weight", Param({7, 5}, dtype, 1)}, {"bias", Param({33}, dtype, 2)}};
}

std::vector<at::Tensor> Tensors(const std::vector<NamedTensor>& params) {
  std::vector<at::Tensor> tensors;
  for (const NamedTensor& param : params) tensors.push_back(param.tensor);
  return tensors;
}

// A gradient that depends on the step, the place and the parameter's value.
void SetGrad(const at::Tensor& param, int step) {
  torch::NoGradGuard no_grad;
  torch::manual_seed(100 + step);
  param.mutable_grad() = torch::randn_like(param) + 0.3 * param;
}

void StepOnce(Optimizer& optimizer, const std::vector<NamedTensor>& params,
              int step) {
  for (const NamedTensor& param : params) SetGrad(param.tensor, step);
  ASSERT_THAT(optimizer.Step(), IsOk());
  optimizer.ZeroGrad();
}

// ---- Numbers ----

using MakeTorch = std::function<std::unique_ptr<torch::optim::Optimizer>(
    std::vector<at::Tensor>)>;

struct NumbersCase {
  const char* name;
  const char* config;
  MakeTorch make_torch;
  bool negate_grad = false;  // LibTorch's C++ optimizers have no maximize.
};

void PrintTo(const NumbersCase& test, std::ostream* out) { *out << test.name; }

class FusedOptimizerNumbersTest : public ::testing::TestWithParam<NumbersCase> {
};

void ExpectNumbers(const NumbersCase& test, at::ScalarType dtype,
                   double tolerance) {
  const std::vector<NamedTensor> ours = Params(dtype);
  const std::vector<NamedTensor> theirs = Params(dtype);
  auto optimizer = Make(test.config, {{ours}});
  ASSERT_NE(optimizer, nullptr);
  auto reference = test.make_torch(Tensors(theirs));
  for (int step = 0; step < 25; ++step) {
    for (size_t i = 0; i < ours.size(); ++i) {
      // The bias has no gradient in some steps, at first and in between.
      if (i == 1 && (step < 2 || step % 7 == 0)) continue;
      SetGrad(ours[i].tensor, step);
      SetGrad(theirs[i].tensor, step);
      if (test.negate_grad) theirs[i].tensor.mutable_grad().neg_();
    }
    ASSERT_THAT(optimizer->Step(), IsOk());
    optimizer->ZeroGrad();
    reference->step();
    reference->zero_grad();
    for (size_t i = 0; i < ours.size(); ++i) {
      EXPECT_TRUE(torch::allclose(ours[i].tensor, theirs[i].tensor, tolerance,
                                  tolerance))
          << ours[i].name << ", step " << step << ", off by "
          << (ours[i].tensor - theirs[i].tensor).abs().max().item<double>();
    }
  }
}

// The kernels fuse what LibTorch's loop rounds operation by operation: equal up
// to a few units in the last place, which 25 steps add up.
TEST_P(FusedOptimizerNumbersTest, DoubleEqualsLibTorch) {
  ExpectNumbers(GetParam(), at::kDouble, 1e-13);
}

TEST_P(FusedOptimizerNumbersTest, FloatEqualsLibTorch) {
  ExpectNumbers(GetParam(), at::kFloat, 5e-6);
}

template <typename T, typename Options>
MakeTorch Torch(Options options) {
  return [options](std::vector<at::Tensor> params) {
    return std::make_unique<T>(std::move(params), options);
  };
}

using torch::optim::AdamOptions;
using torch::optim::AdamWOptions;
using torch::optim::SGDOptions;

INSTANTIATE_TEST_SUITE_P(
    Kinds, FusedOptimizerNumbersTest,
    ::testing::Values(
        NumbersCase{"Sgd", "sgd { lr: 0.1 }",
                    Torch<torch::optim::SGD>(SGDOptions(0.1))},
        NumbersCase{"SgdDefaults", "sgd {}",
                    Torch<torch::optim::SGD>(SGDOptions(0.001))},
        NumbersCase{"SgdMomentum", "sgd { lr: 0.1 momentum: 0.9 }",
                    Torch<torch::optim::SGD>(SGDOptions(0.1).momentum(0.9))},
        NumbersCase{
            "SgdDampeningAndDecay",
            "sgd { lr: 0.1 momentum: 0.9 dampening: 0.3 weight_decay: 0.02 }",
            Torch<torch::optim::SGD>(
                SGDOptions(0.1).momentum(0.9).dampening(0.3).weight_decay(
                    0.02))},
        NumbersCase{"SgdNesterov",
                    "sgd { lr: 0.1 momentum: 0.9 nesterov: true }",
                    Torch<torch::optim::SGD>(
                        SGDOptions(0.1).momentum(0.9).nesterov(true))},
        NumbersCase{"SgdMaximize", "sgd { lr: 0.1 maximize: true }",
                    Torch<torch::optim::SGD>(SGDOptions(0.1)), true},
        NumbersCase{"AdamDefaults", "adam {}",
                    Torch<torch::optim::Adam>(AdamOptions())},
        NumbersCase{"AdamAll",
                    "adam { lr: 0.01 beta1: 0.8 beta2: 0.95 eps: 1e-6 "
                    "weight_decay: 0.1 amsgrad: true }",
                    Torch<torch::optim::Adam>(AdamOptions(0.01)
                                                  .betas({0.8, 0.95})
                                                  .eps(1e-6)
                                                  .weight_decay(0.1)
                                                  .amsgrad(true))},
        NumbersCase{"AdamMaximize", "adam { maximize: true }",
                    Torch<torch::optim::Adam>(AdamOptions()), true},
        NumbersCase{"AdamWDefaults", "adamw {}",
                    Torch<torch::optim::AdamW>(AdamWOptions())},
        NumbersCase{"AdamWAll",
                    "adamw { lr: 0.01 beta1: 0.8 beta2: 0.95 eps: 1e-6 "
                    "weight_decay: 0.1 amsgrad: true }",
                    Torch<torch::optim::AdamW>(AdamWOptions(0.01)
                                                   .betas({0.8, 0.95})
                                                   .eps(1e-6)
                                                   .weight_decay(0.1)
                                                   .amsgrad(true))}),
    [](const auto& info) { return std::string(info.param.name); });

// ---- Groups and options ----

TEST(FusedOptimizerTest, MultipliersApplyToTheirGroup) {
  std::vector<NamedTensor> params = Params();
  auto optimizer = Make("adamw { lr: 0.1 weight_decay: 0.5 }",
                        {{{params[0]}, 1, 1}, {{params[1]}, 0.25, 0}});
  ASSERT_EQ(optimizer->num_groups(), 2);
  EXPECT_EQ(*optimizer->option(0, "lr"), 0.1);
  EXPECT_EQ(*optimizer->option(0, "weight_decay"), 0.5);
  EXPECT_EQ(*optimizer->option(1, "lr"), 0.025);
  EXPECT_EQ(*optimizer->option(1, "weight_decay"), 0);
  EXPECT_EQ(optimizer->params(1)[0].name, "bias");
}

TEST(FusedOptimizerTest, OptionsKeepTheirPlaceAndTakeEffect) {
  std::vector<NamedTensor> params = Params();
  auto optimizer = Make("sgd { lr: 0.1 }", {{params}});
  double* const lr = optimizer->option(0, "lr");
  StepOnce(*optimizer, params, 0);
  EXPECT_EQ(optimizer->option(0, "lr"), lr);
  *lr = 0;
  const at::Tensor before = params[0].tensor.detach().clone();
  StepOnce(*optimizer, params, 1);
  EXPECT_TRUE(torch::equal(params[0].tensor, before));
}

TEST(FusedOptimizerTest, MomentumIsBeta1WhereThereAreBetas) {
  auto adam = Make("adam { beta1: 0.7 }", {{Params()}});
  EXPECT_EQ(*adam->option(0, "momentum"), 0.7);
  EXPECT_EQ(adam->option(0, "momentum"), adam->option(0, "beta1"));
  EXPECT_EQ(*adam->option(0, "beta2"), 0.999);
  EXPECT_EQ(*adam->option(0, "eps"), 1e-8);
  EXPECT_EQ(adam->option(0, "dampening"), nullptr);
  auto sgd = Make("sgd { momentum: 0.7 dampening: 0.1 }", {{Params()}});
  EXPECT_EQ(*sgd->option(0, "momentum"), 0.7);
  EXPECT_EQ(*sgd->option(0, "dampening"), 0.1);
  auto plain = Make("sgd {}", {{Params()}});
  EXPECT_EQ(plain->option(0, "momentum"), nullptr);
}

// The buffer starts with the first step that has momentum, and rests in those
// that have none.
TEST(FusedOptimizerTest, MomentumGoesToZeroAndBack) {
  const double schedule[] = {0, 0, 0.9, 0.5, 0, 0, 0.9, 0.9};
  for (const bool nesterov : {false, true}) {
    const std::vector<NamedTensor> ours = Params();
    const std::vector<NamedTensor> theirs = Params();
    auto optimizer = Make(std::string("sgd { lr: 0.1 momentum: 0.9 ") +
                              (nesterov ? "nesterov: true }"
                                        : "dampening: 0.3 weight_decay: 0.1 }"),
                          {{ours}});
    SGDOptions options = SGDOptions(0.1).momentum(0.9).nesterov(nesterov);
    if (!nesterov) options.dampening(0.3).weight_decay(0.1);
    torch::optim::SGD reference(Tensors(theirs), options);
    int step = 0;
    for (const double momentum : schedule) {
      *optimizer->option(0, "momentum") = momentum;
      static_cast<SGDOptions&>(reference.param_groups()[0].options())
          .momentum(momentum);
      for (const NamedTensor& param : theirs) SetGrad(param.tensor, step);
      reference.step();
      StepOnce(*optimizer, ours, step);
      ++step;
      for (size_t i = 0; i < ours.size(); ++i) {
        EXPECT_TRUE(
            torch::allclose(ours[i].tensor, theirs[i].tensor, 1e-13, 1e-13))
            << ours[i].name << ", step " << step << ", nesterov " << nesterov;
      }
      OptimizerState state;
      TensorMap tensors;
      ASSERT_THAT(optimizer->SaveState(&state, &tensors), IsOk());
      EXPECT_EQ(tensors.size(), step < 3 ? 0u : 2u) << "step " << step;
    }
  }
}

TEST(FusedOptimizerTest, DtypesMix) {
  std::vector<NamedTensor> params = {{"a", Param({4}, at::kFloat, 1)},
                                     {"b", Param({4}, at::kDouble, 1)},
                                     {"c", Param({4}, at::kBFloat16, 1)}};
  auto optimizer = Make("adam { lr: 0.1 }", {{params}});
  StepOnce(*optimizer, params, 0);
  // Adam's first step is lr in each direction.
  for (const NamedTensor& param : params) {
    const at::Tensor start = Param({4}, param.tensor.scalar_type(), 1).detach();
    EXPECT_TRUE(
        torch::allclose((param.tensor.detach() - start).abs().to(at::kDouble),
                        torch::full({4}, 0.1, at::kDouble), 0.05, 0.02))
        << param.name;
  }
}

// The kernels walk memory and don't look at strides.
TEST(FusedOptimizerTest, GradientsOfAnotherLayoutAreRead) {
  std::vector<NamedTensor> params = {{"w", torch::zeros({2, 3}, at::kDouble)}};
  params[0].tensor.requires_grad_();
  auto optimizer = Make("sgd { lr: 1 }", {{params}});
  const at::Tensor grad = torch::arange(6, at::kDouble).reshape({3, 2}).t();
  params[0].tensor.mutable_grad() = grad;
  ASSERT_THAT(optimizer->Step(), IsOk());
  EXPECT_TRUE(torch::equal(params[0].tensor, -grad));
}

TEST(FusedOptimizerTest, StepIsUnknownToAutogradAndKeepsNoGradient) {
  std::vector<NamedTensor> params = Params();
  auto optimizer = Make("adamw {}", {{params}});
  StepOnce(*optimizer, params, 0);
  EXPECT_TRUE(params[0].tensor.is_leaf());
  EXPECT_FALSE(params[0].tensor.grad().defined());
  EXPECT_TRUE(torch::GradMode::is_enabled());
  SetGrad(params[0].tensor, 1);
  ASSERT_THAT(optimizer->Step(), IsOk());
  EXPECT_EQ(params[0].tensor.grad().use_count(), 1);
}

template <typename F>
int64_t CountAllocations(F f) {
  const int64_t before = num_allocations;
  f();
  return num_allocations - before;
}

TEST(FusedOptimizerTest, StepAllocatesWhatTheKernelDoes) {
  std::vector<NamedTensor> params;
  for (int i = 0; i < 50; ++i) {
    params.push_back({"p" + std::to_string(i), Param({8}, at::kFloat, i)});
  }
  auto optimizer = Make("adam {}", {{params}});
  for (int step = 0; step < 3; ++step) StepOnce(*optimizer, params, step);

  std::vector<at::Tensor> tensors, grads, averages, squares, steps;
  for (const NamedTensor& param : params) {
    SetGrad(param.tensor, 3);
    tensors.push_back(param.tensor);
    grads.push_back(param.tensor.grad());
    averages.push_back(torch::zeros({8}));
    squares.push_back(torch::zeros({8}));
    steps.push_back(torch::ones({}));
  }
  auto kernel = [&] {
    torch::NoGradGuard no_grad;
    at::_fused_adam_(tensors, grads, averages, squares, {}, steps, 0.001, 0.9,
                     0.999, 0, 1e-8, false, false);
  };
  absl::Status status;
  auto step = [&] { status = optimizer->Step(); };
  const int64_t by_kernel = CountAllocations(kernel);
  EXPECT_GT(by_kernel, 0);  // They are counted.
  EXPECT_EQ(CountAllocations(step), by_kernel);
  EXPECT_THAT(status, IsOk());
}

// ---- State ----

std::vector<std::string> Names(const TensorMap& tensors) {
  std::vector<std::string> names;
  for (const NamedTensor& entry : tensors) names.push_back(entry.name);
  return names;
}

TEST(FusedOptimizerStateTest, SlotsHaveTorchOptimsNames) {
  std::vector<NamedTensor> params = Params();
  auto adam = Make("adam { amsgrad: true }", {{params}});
  params[0].tensor.mutable_grad() = torch::ones_like(params[0].tensor);
  ASSERT_THAT(adam->Step(), IsOk());
  OptimizerState state;
  TensorMap tensors;
  ASSERT_THAT(adam->SaveState(&state, &tensors), IsOk());
  EXPECT_THAT(
      Names(tensors),
      UnorderedElementsAre("weight/step", "weight/exp_avg", "weight/exp_avg_sq",
                           "weight/max_exp_avg_sq"));
  EXPECT_EQ(tensors.Find("weight/step")->item<float>(), 1);
  EXPECT_EQ(state.type(), "Adam");
  ASSERT_EQ(state.groups_size(), 1);
  EXPECT_EQ(state.groups(0).options().at("beta2"), 0.999);
  EXPECT_EQ(state.groups(0).without_slots(0), "bias");

  auto sgd = Make("sgd { momentum: 0.9 }", {{params}});
  ASSERT_THAT(sgd->Step(), IsOk());
  TensorMap sgd_tensors;
  ASSERT_THAT(sgd->SaveState(&state, &sgd_tensors), IsOk());
  EXPECT_THAT(Names(sgd_tensors),
              UnorderedElementsAre("weight/momentum_buffer"));
}

class FusedOptimizerResumeTest : public ::testing::TestWithParam<const char*> {
};

// What a checkpoint does: bytes, and other storage.
TensorMap Copy(const TensorMap& tensors) {
  TensorMap copy;
  for (const NamedTensor& entry : tensors) {
    EXPECT_THAT(copy.Add(entry.name, entry.tensor.detach().clone()), IsOk());
  }
  return copy;
}

void StepWithHoles(Optimizer& optimizer, const std::vector<NamedTensor>& params,
                   int step) {
  SetGrad(params[0].tensor, step);
  if (step > 3) SetGrad(params[1].tensor, step);  // No slots before.
  ASSERT_THAT(optimizer.Step(), IsOk());
  optimizer.ZeroGrad();
}

TEST_P(FusedOptimizerResumeTest, AtEveryCutEqualsUninterrupted) {
  constexpr int kSteps = 8;
  std::vector<NamedTensor> expected = Params();
  auto whole = Make(GetParam(), {{expected}});
  for (int step = 0; step < kSteps; ++step) {
    StepWithHoles(*whole, expected, step);
  }
  for (int cut = 0; cut <= kSteps; ++cut) {
    std::vector<NamedTensor> params = Params();
    auto first = Make(GetParam(), {{params}});
    for (int step = 0; step < cut; ++step) StepWithHoles(*first, params, step);
    OptimizerState state;
    TensorMap tensors;
    ASSERT_THAT(first->SaveState(&state, &tensors), IsOk());
    const TensorMap saved = Copy(tensors);

    auto second = Make(GetParam(), {{params}});
    // Slots that are there are overwritten, or dropped.
    const at::Tensor weight = params[0].tensor.detach().clone();
    const at::Tensor bias = params[1].tensor.detach().clone();
    StepOnce(*second, params, 99);
    *second->option(0, "lr") = 77;
    {
      torch::NoGradGuard no_grad;
      params[0].tensor.copy_(weight);
      params[1].tensor.copy_(bias);
    }
    ASSERT_THAT(second->LoadState(state, saved), IsOk());
    for (int step = cut; step < kSteps; ++step) {
      StepWithHoles(*second, params, step);
    }
    EXPECT_TRUE(torch::equal(params[0].tensor, expected[0].tensor)) << cut;
    EXPECT_TRUE(torch::equal(params[1].tensor, expected[1].tensor)) << cut;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, FusedOptimizerResumeTest,
    ::testing::Values("sgd { lr: 0.1 }",
                      "sgd { lr: 0.1 momentum: 0.9 dampening: 0.5 }",
                      "adam { lr: 0.01 amsgrad: true }", "adamw { lr: 0.01 }"));

struct LoadErrorCase {
  const char* name;
  const char* message;
  std::function<void(OptimizerState*, std::vector<NamedTensor>*)> damage;
};

void PrintTo(const LoadErrorCase& test, std::ostream* out) {
  *out << test.name;
}

class FusedOptimizerLoadErrorTest
    : public ::testing::TestWithParam<LoadErrorCase> {};

TEST_P(FusedOptimizerLoadErrorTest, IsRefusedAndChangesNothing) {
  std::vector<NamedTensor> params = Params();
  auto optimizer = Make("adam { lr: 0.01 }", {{params}});
  StepOnce(*optimizer, params, 0);
  OptimizerState state;
  TensorMap tensors;
  ASSERT_THAT(optimizer->SaveState(&state, &tensors), IsOk());
  const TensorMap before = Copy(tensors);

  std::vector<NamedTensor> entries(before.begin(), before.end());
  for (NamedTensor& entry : entries)
    entry.tensor = entry.tensor.clone().fill_(9);
  GetParam().damage(&state, &entries);
  TensorMap damaged;
  for (const NamedTensor& entry : entries) {
    ASSERT_THAT(damaged.Add(entry.name, entry.tensor), IsOk());
  }
  EXPECT_THAT(optimizer->LoadState(state, damaged),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr(GetParam().message)));

  OptimizerState state_after;
  TensorMap after;
  ASSERT_THAT(optimizer->SaveState(&state_after, &after), IsOk());
  EXPECT_EQ(*optimizer->option(0, "lr"), 0.01);
  for (const NamedTensor& entry : after) {
    EXPECT_TRUE(torch::equal(entry.tensor, *before.Find(entry.name)))
        << entry.name;
  }
}

using Entries = std::vector<NamedTensor>;

at::Tensor& Entry(Entries* entries, const std::string& name) {
  for (NamedTensor& entry : *entries) {
    if (entry.name == name) return entry.tensor;
  }
  ADD_FAILURE() << name;
  return entries->front().tensor;
}

INSTANTIATE_TEST_SUITE_P(
    States, FusedOptimizerLoadErrorTest,
    ::testing::Values(
        LoadErrorCase{
            "OtherType", "the state is of optimizer SGD, this is Adam",
            [](OptimizerState* state, Entries*) { state->set_type("SGD"); }},
        LoadErrorCase{"OtherParameter",
                      "there is a slot \"bias/step\", which the state doesn't "
                      "know",
                      [](OptimizerState* state, Entries*) {
                        state->mutable_groups(0)->set_params(1, "x");
                      }},
        LoadErrorCase{"ParameterTwice", "parameter \"bias\" is there twice",
                      [](OptimizerState* state, Entries*) {
                        state->add_groups()->add_params("bias");
                      }},
        LoadErrorCase{"NaNOption", "groups[0]: lr: must be finite, is nan",
                      [](OptimizerState* state, Entries*) {
                        (*state->mutable_groups(0)->mutable_options())["lr"] =
                            std::numeric_limits<double>::quiet_NaN();
                      }},
        LoadErrorCase{
            "MissingSlot", "slot \"bias/exp_avg_sq\" is missing",
            [](OptimizerState*, Entries* entries) { entries->pop_back(); }},
        LoadErrorCase{"MisshapenSlot",
                      "slot \"bias/exp_avg\" is Double[3], must be Double[33]",
                      [](OptimizerState*, Entries* entries) {
                        Entry(entries, "bias/exp_avg") =
                            torch::ones({3}, at::kDouble);
                      }},
        LoadErrorCase{"OtherDtype",
                      "slot \"bias/exp_avg\" is Float[33], must be Double[33]",
                      [](OptimizerState*, Entries* entries) {
                        Entry(entries, "bias/exp_avg") = torch::ones({33});
                      }},
        LoadErrorCase{"NegativeStep",
                      "slot \"bias/step\" must be one whole number >= 0",
                      [](OptimizerState*, Entries* entries) {
                        Entry(entries, "bias/step") = torch::tensor(-1.0);
                      }},
        LoadErrorCase{
            "UnknownSlot",
            "there is a slot \"bias/max_exp_avg_sq\", which the state "
            "doesn't know",
            [](OptimizerState*, Entries* entries) {
              entries->push_back({"bias/max_exp_avg_sq", torch::ones({33})});
            }}),
    [](const auto& info) { return std::string(info.param.name); });

// ---- States of other settings ----

struct Moved {
  std::vector<NamedTensor> params;
  std::unique_ptr<Optimizer> optimizer;
};

// One step of `before` on both parameters, gone on with by `after`.
Moved GoOn(const std::string& before, const std::string& after) {
  Moved moved = {Params(), nullptr};
  auto first = Make(before, {{moved.params}});
  StepOnce(*first, moved.params, 0);
  OptimizerState state;
  TensorMap tensors;
  EXPECT_THAT(first->SaveState(&state, &tensors), IsOk());
  const TensorMap saved = Copy(tensors);
  moved.optimizer = Make(after, {{moved.params}});
  EXPECT_THAT(moved.optimizer->LoadState(state, saved), IsOk());
  return moved;
}

TensorMap SlotsOf(const Optimizer& optimizer) {
  OptimizerState state;
  TensorMap tensors;
  EXPECT_THAT(optimizer.SaveState(&state, &tensors), IsOk());
  return Copy(tensors);
}

// Its first step with momentum is the buffer's first, as in torch.optim.
TEST(FusedOptimizerOtherSettingsTest, MomentumBeginsWithTheNextGradient) {
  const Moved moved =
      GoOn("sgd { lr: 0.1 }", "sgd { lr: 0.1 momentum: 0.9 dampening: 0.5 }");
  for (const NamedTensor& param : moved.params) SetGrad(param.tensor, 1);
  const at::Tensor grad = moved.params[0].tensor.grad().clone();
  ASSERT_THAT(moved.optimizer->Step(), IsOk());
  const TensorMap slots = SlotsOf(*moved.optimizer);
  EXPECT_TRUE(torch::equal(*slots.Find("weight/momentum_buffer"), grad));
}

TEST(FusedOptimizerOtherSettingsTest, WhatIsNotNeededIsDropped) {
  const Moved moved = GoOn("sgd { lr: 0.1 momentum: 0.9 }", "sgd { lr: 0.1 }");
  EXPECT_TRUE(SlotsOf(*moved.optimizer).empty());
  StepOnce(*moved.optimizer, moved.params, 1);
}

TEST(FusedOptimizerOtherSettingsTest, AmsgradsMaximumBeginsAtZero) {
  const Moved moved =
      GoOn("adam { lr: 0.01 }", "adam { lr: 0.01 amsgrad: true }");
  const TensorMap slots = SlotsOf(*moved.optimizer);
  EXPECT_EQ(slots.Find("weight/step")->item<double>(), 1);
  EXPECT_GT(slots.Find("weight/exp_avg")->abs().sum().item<double>(), 0);
  EXPECT_EQ(slots.Find("weight/max_exp_avg_sq")->abs().sum().item<double>(), 0);
}

TEST(FusedOptimizerOtherSettingsTest, NewBetasKeepTheAverages) {
  const Moved moved =
      GoOn("adamw { lr: 0.01 }", "adamw { lr: 0.01 beta1: 0.5 }");
  EXPECT_GT(SlotsOf(*moved.optimizer)
                .Find("weight/exp_avg")
                ->abs()
                .sum()
                .item<double>(),
            0);
}

// Parameters are found by name, in whichever group; a new one starts from
// scratch.
TEST(FusedOptimizerOtherSettingsTest, ParametersMoveComeAndGo) {
  std::vector<NamedTensor> params = Params();
  auto first = Make("adam { lr: 0.01 }", {{params}});
  StepOnce(*first, params, 0);
  *first->option(0, "lr") = 0.02;
  OptimizerState state;
  TensorMap tensors;
  ASSERT_THAT(first->SaveState(&state, &tensors), IsOk());
  const TensorMap saved = Copy(tensors);
  NamedTensor other = {"other", torch::ones({3}, at::kDouble).requires_grad_()};
  auto second = Make("adam { lr: 0.01 }", {{{other}}, {{params[0]}}});
  ASSERT_THAT(second->LoadState(state, saved), IsOk());
  EXPECT_EQ(*second->option(0, "lr"), 0.01);
  EXPECT_EQ(*second->option(1, "lr"), 0.02);
  const TensorMap slots = SlotsOf(*second);
  EXPECT_TRUE(torch::equal(*slots.Find("weight/exp_avg"),
                           *saved.Find("weight/exp_avg")));
  EXPECT_EQ(slots.Find("other/step"), nullptr);
  EXPECT_EQ(slots.Find("bias/step"), nullptr);
}

// ---- Refusals ----

struct ConfigErrorCase {
  const char* name;
  const char* config;
  const char* message;
};

class FusedOptimizerConfigErrorTest
    : public ::testing::TestWithParam<ConfigErrorCase> {};

TEST_P(FusedOptimizerConfigErrorTest, NamesTheField) {
  EXPECT_THAT(OptimizerRegistry::Create(Parse(GetParam().config), {{Params()}}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr(GetParam().message)));
}

INSTANTIATE_TEST_SUITE_P(
    Configs, FusedOptimizerConfigErrorTest,
    ::testing::Values(
        ConfigErrorCase{"NoKind", "", "must be set, to one of: sgd, adam"},
        ConfigErrorCase{"SgdLr", "sgd { lr: -1 }",
                        "lr: must be finite and >= 0, is -1"},
        ConfigErrorCase{"SgdLrNaN", "sgd { lr: nan }",
                        "lr: must be finite and >= 0, is nan"},
        ConfigErrorCase{"SgdMomentum", "sgd { momentum: -0.1 }",
                        "momentum: must be finite and >= 0, is -0.1"},
        ConfigErrorCase{"SgdDampening", "sgd { dampening: inf }",
                        "dampening: must be finite, is inf"},
        ConfigErrorCase{"SgdDecay", "sgd { weight_decay: -1 }",
                        "weight_decay: must be finite and >= 0, is -1"},
        ConfigErrorCase{"SgdNesterovAlone", "sgd { nesterov: true }",
                        "nesterov: needs momentum > 0 and dampening 0"},
        ConfigErrorCase{"SgdNesterovDampened",
                        "sgd { nesterov: true momentum: 0.9 dampening: 0.1 }",
                        "nesterov: needs momentum > 0 and dampening 0"},
        ConfigErrorCase{"AdamLr", "adam { lr: inf }",
                        "lr: must be finite and >= 0, is inf"},
        ConfigErrorCase{"AdamBeta1", "adam { beta1: 1 }",
                        "beta1: must be in [0, 1), is 1"},
        ConfigErrorCase{"AdamBeta2", "adam { beta2: nan }",
                        "beta2: must be in [0, 1), is nan"},
        ConfigErrorCase{"AdamWEps", "adamw { eps: 0 }",
                        "eps: must be finite and > 0, is 0"},
        ConfigErrorCase{"AdamWDecay", "adamw { weight_decay: -0.01 }",
                        "weight_decay: must be finite and >= 0, is -0.01"}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(FusedOptimizerErrorTest, NamesTheParameter) {
  struct Case {
    at::Tensor tensor;
    const char* message;
  };
  const at::Tensor leaf = torch::ones({4}).requires_grad_();
  const Case cases[] = {
      {at::Tensor(), "parameter \"w\": is undefined"},
      {torch::ones({4}, at::kLong), "parameter \"w\": must be floating"},
      {torch::ones({4}), "parameter \"w\": must be a leaf"},
      {leaf * 2, "parameter \"w\": must be a leaf"},
      {torch::ones({8}).slice(0, 0, 8, 2).requires_grad_(),
       "parameter \"w\": must be dense"},
      {torch::ones({1}).expand({4}).requires_grad_(),
       "parameter \"w\": must be dense"},
  };
  for (const Case& test : cases) {
    EXPECT_THAT(
        OptimizerRegistry::Create(Parse("sgd {}"), {{{{"w", test.tensor}}}}),
        StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(test.message)));
  }
  EXPECT_THAT(OptimizerRegistry::Create(Parse("sgd {}"),
                                        {{{{"w", leaf}, {"w", leaf}}}}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "parameter \"w\" is there twice"));
}

TEST(FusedOptimizerErrorTest, SparseGradientChangesNothing) {
  std::vector<NamedTensor> params = Params();
  auto optimizer = Make("sgd { lr: 1 }", {{params}});
  const at::Tensor before = params[0].tensor.detach().clone();
  SetGrad(params[0].tensor, 0);
  params[1].tensor.mutable_grad() = torch::ones({33}, at::kDouble).to_sparse();
  EXPECT_THAT(optimizer->Step(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "parameter \"bias\": its gradient is sparse, SGD takes "
                       "dense ones"));
  EXPECT_TRUE(torch::equal(params[0].tensor, before));
}

}  // namespace
}  // namespace grapnel
