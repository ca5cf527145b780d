// Optimizers, loss scales and clipping where parameters are on a device.

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/optim/optim_wrapper.h"
#include "grapnel/optim/optim_wrapper.pb.h"
#include "grapnel/tests/device/fake_device.h"
#include "grapnel/tests/device/optim_steps.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::grapnel::optim::v1::OptimWrapperConfig;
using ::grapnel::optim::v1::OptimWrapperState;

void ExpectSame(const std::vector<at::Tensor>& a,
                const std::vector<at::Tensor>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_TRUE(ops::equal(a[i], b[i])) << "parameter " << i;
  }
}

TEST(DeviceOptimTest, StepsAreTheCpus) {
  for (const char* const optimizer : kFusedOptimizers) {
    SCOPED_TRACE(optimizer);
    for (const char* const more : {"", "clip_grad { max_norm: 0.5 }",
                                   "clip_grad { type: VALUE "
                                   "clip_value: 0.1 }",
                                   "accumulative_counts: 2"}) {
      SCOPED_TRACE(more);
      const std::string config = absl::StrCat(optimizer, more);
      const std::vector<double> slopes = {1, 2, 3, 0.5, 1, 1};
      ExpectSame(TrainedParams(at::kCPU, config, slopes),
                 TrainedParams(FakeDevice(), config, slopes));
    }
  }
}

TEST(DeviceOptimTest, StepsThatOverflowAreLeftOutAsOnTheCpu) {
  for (const char* const optimizer : kFusedOptimizers) {
    SCOPED_TRACE(optimizer);
    for (const char* const scale :
         {"dynamic: true init_scale: 1024 growth_interval: 2",
          "dynamic: false init_scale: 1024"}) {
      SCOPED_TRACE(scale);
      const std::string config = absl::StrCat(
          optimizer, " amp { dtype: FLOAT16 loss_scale { ", scale, " } }");
      // The first, which makes the slots, and one in the middle.
      const std::vector<double> slopes = {kTooSteep, 1, 2, kTooSteep, 3, 0.5};
      ExpectSame(TrainedParams(at::kCPU, config, slopes),
                 TrainedParams(FakeDevice(), config, slopes));
    }
  }
}

TEST(DeviceOptimTest, AnOverflowIsNoNormThatIsAnError) {
  const std::string config =
      "optimizer { sgd { lr: 0.1 } } clip_grad { max_norm: 1 "
      "error_if_nonfinite: true } amp { dtype: FLOAT16 loss_scale { dynamic: "
      "false init_scale: 1024 } }";
  const std::vector<double> slopes = {kTooSteep, 1, 2};
  ExpectSame(TrainedParams(at::kCPU, config, slopes),
             TrainedParams(FakeDevice(), config, slopes));
}

TEST(DeviceOptimTest, AnOverflowIsNoFirstStepWhereDampeningIsScheduled) {
  std::vector<std::vector<at::Tensor>> trained;
  for (const c10::Device device : {c10::Device(at::kCPU), FakeDevice()}) {
    const std::vector<NamedTensor> params = MakeParams(device);
    auto wrapper =
        OptimWrapper::Create(ParseOptimWrapper(R"pb(
                               optimizer { sgd { lr: 0.1 momentum: 0.9 } }
                               amp {
                                 dtype: FLOAT16
                                 loss_scale { dynamic: false init_scale: 1024 }
                               }
                             )pb"),
                             params);
    ASSERT_THAT(wrapper, IsOk());
    (*wrapper)->InitializeCounts(0, 3);
    *(*wrapper)->optimizer()->option(0, "dampening") = 0.5;
    for (const double slope : {kTooSteep, 1.0, 2.0}) {
      ASSERT_THAT((*wrapper)->Update(SquareLoss(params, slope), 1), IsOk());
    }
    trained.push_back(OnCpu(params));
  }
  ExpectSame(trained[0], trained[1]);
}

TEST(DeviceOptimTest, AFixedScaleWaitsForNoDevice) {
  const std::vector<NamedTensor> params = MakeParams(FakeDevice());
  auto wrapper =
      OptimWrapper::Create(ParseOptimWrapper(R"pb(
                             optimizer { adamw {} }
                             amp {
                               dtype: FLOAT16
                               loss_scale { dynamic: false init_scale: 1024 }
                             }
                             clip_grad { max_norm: 1 }
                           )pb"),
                           params);
  ASSERT_THAT(wrapper, IsOk());
  (*wrapper)->InitializeCounts(0, 4);
  const int64_t before = CountFakeCopies().to_host;
  for (const double slope : {1.0, kTooSteep, 2.0, 3.0}) {
    ASSERT_THAT((*wrapper)->Update(SquareLoss(params, slope), 1), IsOk());
  }
  EXPECT_EQ(CountFakeCopies().to_host, before);
}

TEST(DeviceOptimTest, CountsOfStepsAreSavedInOneCopy) {
  const std::vector<NamedTensor> params = MakeParams(FakeDevice());
  const OptimWrapperConfig config = ParseOptimWrapper("optimizer { adamw {} }");
  auto wrapper = OptimWrapper::Create(config, params);
  ASSERT_THAT(wrapper, IsOk());
  (*wrapper)->InitializeCounts(0, 3);
  for (int i = 0; i < 3; ++i) {
    ASSERT_THAT((*wrapper)->Update(SquareLoss(params, 1), 1), IsOk());
  }
  OptimWrapperState state;
  TensorMap tensors, gradients;
  const int64_t before = CountFakeCopies().to_host;
  ASSERT_THAT((*wrapper)->SaveState(&state, &tensors, &gradients), IsOk());
  EXPECT_EQ(CountFakeCopies().to_host, before + 1);
  for (const char* const name : {"p3/step", "p5/step"}) {
    ASSERT_NE(tensors.Find(name), nullptr) << name;
    EXPECT_EQ(tensors.Find(name)->item<float>(), 3) << name;
  }

  // And go on from there, on either device.
  for (const c10::Device device : {FakeDevice(), c10::Device(at::kCPU)}) {
    const std::vector<NamedTensor> others = MakeParams(device);
    for (size_t i = 0; i < others.size(); ++i) {
      others[i].tensor.detach().copy_(params[i].tensor.detach());
    }
    auto other = OptimWrapper::Create(config, others);
    ASSERT_THAT(other, IsOk());
    (*other)->InitializeCounts(3, 4);
    RestoredOptions options;
    std::vector<std::string> notes;
    ASSERT_THAT(
        (*other)->LoadState(state, tensors, gradients, &options, &notes),
        IsOk());
    ASSERT_THAT((*other)->Update(SquareLoss(others, 1), 1), IsOk());
    ExpectSame(OnCpu(others),
               TrainedParams(at::kCPU, "optimizer { adamw {} }", {1, 1, 1, 1}));
  }
}

}  // namespace
}  // namespace grapnel
