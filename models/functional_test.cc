#include "grapnel/models/functional.h"

#include <string>

#include "ATen/Context.h"
#include "ATen/core/Generator.h"
#include "ATen/core/Tensor.h"
#include "c10/core/Device.h"
#include "grapnel/base/tensor_ops.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

struct Dropped {
  at::Tensor output;
  at::Tensor gradient;
};

using Function = at::Tensor (*)(const at::Tensor& input, double p, bool train,
                                const at::Generator& generator);

Dropped Drop(Function function, at::Tensor input, double p,
             const at::Generator& generator) {
  input = input.detach().requires_grad_();
  const at::Tensor output = function(input, p, /*train=*/true, generator);
  output.sum().backward();
  return {output.detach(), input.grad()};
}

class DropoutTest : public testing::TestWithParam<c10::DeviceType> {
 protected:
  void SetUp() override {
    if (GetParam() == at::kCUDA && !at::hasCUDA()) {
      GTEST_SKIP() << "needs a CUDA device, and a LibTorch that finds it";
    }
  }
};

// A run on a generator of its own is the one that LibTorch alone would make.
TEST_P(DropoutTest, DrawsFromAGeneratorWhatComesFromTheDefaultOne) {
  const c10::Device device(GetParam(),
                           static_cast<c10::DeviceIndex>(
                               GetParam() == c10::DeviceType::CPU ? -1 : 0));
  at::Generator fallback = at::globalContext().defaultGenerator(device);
  at::Generator own = fallback.clone();
  fallback.set_current_seed(5);
  own.set_current_seed(5);
  // The second of each sees where the first has left the generator.
  for (const Function function :
       {&functional::dropout, &functional::dropout,
        &functional::feature_dropout, &functional::feature_dropout}) {
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
      const at::Tensor input = ops::ones({16, 8, 5}, type).to(device);
      const Dropped expected = Drop(function, input, 0.3, {});
      const Dropped dropped = Drop(function, input, 0.3, own);
      EXPECT_TRUE(ops::equal(dropped.output, expected.output)) << type;
      EXPECT_TRUE(ops::equal(dropped.gradient, expected.gradient)) << type;
      EXPECT_GT(dropped.output.eq(0).sum().item<int64_t>(), 0);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, DropoutTest,
                         testing::Values(c10::DeviceType::CPU,
                                         c10::DeviceType::CUDA),
                         [](const auto& info) {
                           return std::string(c10::DeviceTypeName(info.param));
                         });

}  // namespace
}  // namespace grapnel
