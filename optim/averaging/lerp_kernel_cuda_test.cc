// LerpKernel with tensors on a CUDA device, against itself on the CPU.

#include <string>
#include <vector>

#include "ATen/Context.h"
#include "ATen/core/Tensor.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/optim/averaging/lerp_kernel.h"
#include "grapnel/optim/averaging/mixture.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

class LerpKernelCudaTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!at::hasCUDA()) {
      GTEST_SKIP() << "needs --config=cuda, a CUDA device, and a LibTorch that "
                      "finds it";
    }
  }
};

TEST_F(LerpKernelCudaTest, AveragesAsOnTheCpu) {
  for (Mixture::Form form : {Mixture::Form::kLerp, Mixture::Form::kAdd}) {
    std::vector<AveragedTensor> host, device;
    for (c10::ScalarType average_type :
         {at::kFloat, at::kDouble, at::kHalf, at::kBFloat16}) {
      for (c10::ScalarType source_type : {at::kFloat, at::kBFloat16}) {
        for (int64_t n : {1, 64, 100001}) {
          host.push_back({absl::StrCat("t", host.size()),
                          ops::randn({n}).to(average_type),
                          ops::randn({n}).to(source_type)});
          device.push_back({host.back().name, host.back().average.to(at::kCUDA),
                            host.back().source.to(at::kCUDA)});
        }
      }
    }
    auto on_host = LerpKernel::Create(host);
    auto on_device = LerpKernel::Create(device);
    ASSERT_THAT(on_host, IsOk());
    ASSERT_THAT(on_device, IsOk());
    for (double weight : {0.0002, 0.3, 0.5, 1.0}) {
      ASSERT_THAT(on_host->Mix({weight, form}), IsOk());
      ASSERT_THAT(on_device->Mix({weight, form}), IsOk());
      for (size_t i = 0; i < host.size(); ++i) {
        EXPECT_TRUE(ops::equal(device[i].average.cpu(), host[i].average))
            << host[i].average.scalar_type() << " from "
            << host[i].source.scalar_type() << ", weight " << weight;
      }
    }
  }
}

// Pairs that the kernel of //cuda leaves to LibTorch, beside one that it takes.
TEST_F(LerpKernelCudaTest, AveragesWhatTheKernelDoesNotTake) {
  const at::Tensor average = ops::full({4, 6}, 1.0).to(at::kCUDA);
  const at::Tensor source = ops::full({6, 4}, 3.0).to(at::kCUDA).t();
  const at::Tensor dense = ops::full({5}, 1.0).to(at::kCUDA);
  const at::Tensor from_host = ops::full({5}, 1.0).to(at::kCUDA);
  auto kernel = LerpKernel::Create({{"strides", average, source},
                                    {"dense", dense, dense.mul(3)},
                                    {"host", from_host, ops::full({5}, 3.0)}});
  ASSERT_THAT(kernel, IsOk());
  ASSERT_THAT(kernel->Mix({0.25, Mixture::Form::kLerp}), IsOk());
  for (const AveragedTensor& pair : kernel->pairs()) {
    EXPECT_TRUE(pair.average.eq(1.5).all().item<bool>()) << pair.name;
  }
}

}  // namespace
}  // namespace grapnel
