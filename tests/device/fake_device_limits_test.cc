// What LibTorch takes and what it refuses on a device from outside, asserted so
// that an update of LibTorch that changes it is seen. Docs name these limits.

#include <functional>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "grapnel/tests/device/fake_device.h"
#include "gtest/gtest.h"
#include "torch/script.h"
#include "torch/torch.h"

namespace grapnel {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string Refusal(const std::function<void()>& f) {
  try {
    f();
  } catch (const c10::Error& e) {
    return e.what_without_backtrace();
  }
  return "it was taken";
}

constexpr char kIncompatible[] =
    "Attempted to call `variable.set_data(tensor)`, but `variable` and "
    "`tensor` "
    "have incompatible tensor type.";

// A scripted module with a parameter and a buffer, in a file.
std::string SavedModule() {
  torch::jit::Module module("Line");
  module.register_parameter("weight", torch::ones({8, 2}).requires_grad_(),
                            /*is_buffer=*/false);
  module.register_buffer("count", torch::ones({2}));
  module.define(R"(
    def forward(self, x):
      return torch.relu(torch.matmul(x, self.weight)) + self.count
  )");
  std::string path = testing::TempDir() + "/module.pt";
  module.save(path);
  return path;
}

// It runs forward and backward on the device, and is saved as one of the CPU.
void ExpectWorks(torch::jit::Module module) {
  const at::Tensor x = torch::ones({4, 8}).to(FakeDevice());
  module.forward({x}).toTensor().sum().backward();
  for (const at::Tensor& parameter : module.parameters()) {
    EXPECT_EQ(parameter.device(), FakeDevice());
    EXPECT_EQ(parameter.grad().device(), FakeDevice());
  }
  const std::string path = testing::TempDir() + "/saved.pt";
  module.save(path);
  const torch::jit::Module loaded = torch::jit::load(path, at::kCPU);
  EXPECT_TRUE(loaded.attr("weight").toTensor().equal(torch::ones({8, 2})));
}

class FakeDeviceLimitsTest : public ::testing::Test {
 protected:
  const c10::Device device_ = FakeDevice();
};

TEST_F(FakeDeviceLimitsTest, ScriptIsLoadedOntoTheDevice) {
  ExpectWorks(torch::jit::load(SavedModule(), device_));
}

TEST_F(FakeDeviceLimitsTest, ScriptIsNotMoved) {
  torch::jit::Module module = torch::jit::load(SavedModule(), at::kCPU);
  EXPECT_THAT(Refusal([&] { module.to(device_); }), StartsWith(kIncompatible));
}

TEST_F(FakeDeviceLimitsTest, ScriptTakesOtherTensorsInItsSlots) {
  torch::jit::Module module = torch::jit::load(SavedModule(), at::kCPU);
  for (const auto& parameter : module.named_parameters(/*recurse=*/false)) {
    module.setattr(parameter.name,
                   parameter.value.detach().to(device_).requires_grad_());
  }
  for (const auto& buffer : module.named_buffers(/*recurse=*/false)) {
    module.setattr(buffer.name, buffer.value.to(device_));
  }
  ExpectWorks(module);
}

TEST_F(FakeDeviceLimitsTest, NnModuleIsNotMovedAndStaysWhole) {
  torch::nn::Linear linear(3, 2);
  EXPECT_THAT(Refusal([&] { linear->to(device_); }), StartsWith(kIncompatible));
  EXPECT_THAT(Refusal([&] { linear->clone(device_); }),
              StartsWith(kIncompatible));
  for (const at::Tensor& parameter : linear->parameters()) {
    EXPECT_TRUE(parameter.is_cpu());
  }
  EXPECT_TRUE(linear(torch::ones({1, 3})).is_cpu());
}

// Members and the list that parameters() gives are two references to one
// tensor.
TEST_F(FakeDeviceLimitsTest, NnModuleDoesNotSeeThatAMemberIsReplaced) {
  torch::nn::Linear linear(3, 2);
  linear->weight = linear->weight.detach().to(device_);
  EXPECT_TRUE(linear->parameters()[0].is_cpu());
}

// What stands behind these refusals.
TEST_F(FakeDeviceLimitsTest, TensorOfTheCpuNeverBecomesTheDevices) {
  at::Tensor tensor = torch::ones({3}).requires_grad_();
  const at::Tensor there = torch::ones({3}, device_);
  EXPECT_THAT(Refusal([&] { tensor.set_data(there); }),
              StartsWith(kIncompatible));
  EXPECT_THAT(Refusal([&] { there.set_data(torch::ones({3})); }),
              StartsWith(kIncompatible));
}

// It takes hooks that say how many devices there are; the default is none.
TEST_F(FakeDeviceLimitsTest, ManualSeedReachesTheDevicesDefaultGenerator) {
  at::Generator own = at::globalContext().defaultGenerator(device_);
  own.set_current_seed(7);
  torch::manual_seed(42);
  EXPECT_EQ(own.current_seed(), 42u);
}

TEST_F(FakeDeviceLimitsTest, TensorIsPickledWithItsDevice) {
  const std::vector<char> bytes = torch::pickle_save(torch::ones({3}, device_));
  const at::Tensor loaded = torch::pickle_load(bytes).toTensor();
  EXPECT_EQ(loaded.device(), device_);
  EXPECT_EQ(loaded.sum().item<float>(), 3);
}

TEST_F(FakeDeviceLimitsTest, OptimizersOfLibTorchStep) {
  at::Tensor weight = torch::ones({3}, device_).requires_grad_();
  torch::optim::Adam optimizer({weight}, 0.1);
  weight.sum().backward();
  torch::nn::utils::clip_grad_norm_(weight, 1.0);
  optimizer.step();
  EXPECT_LT(weight.sum().item<float>(), 3);
}

// Composed by LibTorch in other ways on the CPU than on a device.
TEST_F(FakeDeviceLimitsTest, DropoutHasTheCpusBits) {
  UseFakeGenerator(FakeGenerator::kCpus);
  for (const double p : {0.1, 0.3, 0.5, 0.7, 0.9}) {
    const auto run = [p](c10::Device device) {
      torch::manual_seed(1);
      const at::Tensor x =
          torch::linspace(-1, 1, 1000).to(device).requires_grad_();
      const at::Tensor y = torch::dropout(x, p, true);
      y.mul(y).sum().backward();
      return torch::stack({y.detach(), x.grad()}).cpu();
    };
    EXPECT_TRUE(run(device_).equal(run(at::kCPU))) << p;
  }
  UseFakeGenerator(FakeGenerator::kOwn);
}

TEST_F(FakeDeviceLimitsTest, DropoutDrawsFromTheDevice) {
  const at::Generator cpu = at::detail::getDefaultCPUGenerator();
  const at::Tensor state = cpu.get_state();
  torch::dropout(torch::ones({64}, device_), 0.5, true);
  EXPECT_TRUE(cpu.get_state().equal(state));
}

TEST_F(FakeDeviceLimitsTest, AttentionRunsForwardAndBackward) {
  const at::Tensor x = torch::randn({2, 2, 5, 4}, device_).requires_grad_();
  at::scaled_dot_product_attention(x, x, x, {}, 0.5).sum().backward();
  EXPECT_EQ(x.grad().device(), device_);
}

TEST_F(FakeDeviceLimitsTest, HasNoSparseTensors) {
  EXPECT_THAT(Refusal([&] { torch::ones({3}, device_).to_sparse(); }),
              HasSubstr("it has strided tensors only"));
}

}  // namespace
}  // namespace grapnel
