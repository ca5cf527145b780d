// Which device a name stands for, where there is one.

#include "grapnel/base/device.h"

#include <optional>
#include <string>

#include "ATen/Context.h"
#include "ATen/core/Generator.h"
#include "ATen/core/Tensor.h"
#include "gmock/gmock.h"
#include "grapnel/base/device_allocator.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/hooks/empty_cache/empty_cache_hook.h"
#include "grapnel/runner/default_generator.h"
#include "grapnel/runner/fake_run_context.h"
#include "grapnel/runner/mode.h"
#include "grapnel/runner/run_generators.h"
#include "grapnel/runner/run_state.pb.h"
#include "grapnel/runner/torch_loan.h"
#include "grapnel/tests/device/fake_device.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::HasSubstr;

class DeviceTest : public ::testing::Test {
 protected:
  void SetUp() override { UseFakeGenerator(FakeGenerator::kOwn); }

  const c10::Device device_ = FakeDevice();
};

TEST_F(DeviceTest, ANameWithoutANumberIsOfThePlaceOnTheMachine) {
  for (const char* const name : {"fake", "auto"}) {
    EXPECT_EQ(FindDevice(name).value().str(), "fake:0") << name;
    EXPECT_EQ(FindDevice(name, 1).value().str(), "fake:1") << name;
    EXPECT_EQ(FindDevice(name, 2).value().str(), "fake:0") << name;
  }
  EXPECT_EQ(FindDevice("fake:1", 0).value().str(), "fake:1");
  EXPECT_TRUE(FindDevice("cpu", 1).value().is_cpu());
}

TEST_F(DeviceTest, OthersAreNamed) {
  EXPECT_THAT(FindDevice("fake:2").status(),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("the last device of this machine is "
                                 "\"fake:1\"")));
  EXPECT_THAT(FindDevice("xpu").status(),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("no such device on this machine")));
  for (const char* const name :
       {"", "gpu", "gpu:1", "cuda:", "cuda:x", "meta", "fake:-1", "fake:130",
        "fake:255", "fake:256"}) {
    EXPECT_THAT(FindDevice(name).status(),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("must be \"auto\"")))
        << name;
  }
}

TEST_F(DeviceTest, PeaksOfMemoryAreTakenOnce) {
  EXPECT_EQ(TakePeakBytes(c10::Device(at::kCPU)), std::nullopt);
  const at::TensorOptions options = at::TensorOptions().device(device_);
  TakePeakBytes(device_);
  const int64_t before = TakePeakBytes(device_).value();
  ops::zeros({1 << 20}, options);  // 4 MiB, and gone.
  EXPECT_GE(TakePeakBytes(device_).value(), before + (4 << 20));
  EXPECT_EQ(TakePeakBytes(device_).value(), before);
  UsePlainFakeAllocator(true);
  EXPECT_EQ(TakePeakBytes(device_), std::nullopt);
  UsePlainFakeAllocator(false);
}

TEST_F(DeviceTest, EmptyCacheEmptiesItAndLeavesOtherAllocatorsAlone) {
  const auto hook = EmptyCacheHook::Create(EmptyCacheHook::Config());
  ASSERT_THAT(hook, IsOk());
  ops::zeros({1}, at::TensorOptions().device(device_));
  FakeRunContext run;
  const int64_t before = NumEmptiedFakeCaches();
  EXPECT_THAT((*hook)->AfterEpoch(run, Mode::kTrain), IsOk());
  EXPECT_EQ(NumEmptiedFakeCaches(), before + 1);
  UsePlainFakeAllocator(true);
  EXPECT_THAT((*hook)->AfterEpoch(run, Mode::kTrain), IsOk());
  EXPECT_EQ(NumEmptiedFakeCaches(), before + 1);
  UsePlainFakeAllocator(false);
}

at::Tensor Draw(const std::optional<at::Generator>& generator,
                c10::Device device) {
  return ops::empty({8}, at::TensorOptions().device(device))
      .uniform_(0, 1, generator)
      .to(at::kCPU);
}

TEST_F(DeviceTest, ARunsGeneratorsAreItsOwnAndGoOnWhereTheyWereSaved) {
  auto one = RunGenerators::Create(device_, 7);
  auto other = RunGenerators::Create(device_, 7);
  ASSERT_THAT(one, IsOk());
  ASSERT_THAT(other, IsOk());
  ASSERT_TRUE(one->device().defined());
  EXPECT_EQ(one->device().device(), device_);
  EXPECT_TRUE(
      ops::equal(Draw(one->device(), device_), Draw(other->device(), device_)));
  runner::v1::RngState state;
  ASSERT_THAT(one->Save(&state), IsOk());
  const at::Tensor next = Draw(one->device(), device_);
  ASSERT_EQ(state.devices_size(), 1);
  EXPECT_EQ(state.devices(0).device(), "fake");
  auto fresh = RunGenerators::Create(FindDevice("fake:1").value(), 1);
  ASSERT_THAT(fresh, IsOk());
  ASSERT_THAT(fresh->Load(state), IsOk());
  EXPECT_TRUE(
      ops::equal(Draw(fresh->device(), FindDevice("fake:1").value()), next));

  // What is no state of it is named, and a state of the CPU alone is taken.
  state.mutable_devices(0)->set_state("short");
  EXPECT_THAT(fresh->Load(state), StatusIs(absl::StatusCode::kDataLoss,
                                           HasSubstr("rng: devices: fake: ")));
  state.clear_devices();
  EXPECT_THAT(fresh->Load(state), IsOk());
}

TEST_F(DeviceTest, ALoanLendsTheDevicesGeneratorToo) {
  const auto run = RunGenerators::Create(device_, 3);
  const auto same = RunGenerators::Create(device_, 3);
  ASSERT_THAT(run, IsOk());
  const at::Generator shared = at::globalContext().defaultGenerator(device_);
  const auto before = GeneratorState(shared);
  ASSERT_THAT(before, IsOk());
  at::Tensor lent;
  {
    const GeneratorLoan loan(*run);
    lent = Draw(std::nullopt, device_);
  }
  EXPECT_TRUE(ops::equal(lent, Draw(same->device(), device_)));
  // The default one goes on as if nothing had been, the run's from there.
  EXPECT_TRUE(ops::equal(GeneratorState(shared).value(), *before));
  EXPECT_TRUE(
      ops::equal(Draw(run->device(), device_), Draw(same->device(), device_)));
}

TEST_F(DeviceTest, ADeviceThatDrawsTheCpusNumbersHasNoGenerator) {
  UseFakeGenerator(FakeGenerator::kCpus);
  const auto run = RunGenerators::Create(device_, 3);
  ASSERT_THAT(run, IsOk());
  EXPECT_FALSE(run->device().defined());
  runner::v1::RngState state;
  ASSERT_THAT(run->Save(&state), IsOk());
  EXPECT_EQ(state.devices_size(), 0);
}

}  // namespace
}  // namespace grapnel
