#include "grapnel/tests/device/fake_device.h"

#include <string>

#include "ATen/core/Tensor.h"
#include "absl/strings/str_join.h"
#include "grapnel/base/tensor_ops.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

TEST(FakeDeviceTest, ComputesWhatTheCpuDoes) {
  const at::Tensor a = ops::randn({4, 5});
  const at::Tensor b = ops::randn({5, 3});
  const at::Tensor there = a.to(FakeDevice()).matmul(b.to(FakeDevice()));
  EXPECT_EQ(there.device(), FakeDevice());
  EXPECT_TRUE(ops::equal(there.cpu(), a.matmul(b)));
}

TEST(FakeDeviceDeathTest, IsClosedToTheHost) {
  const at::Tensor there = ops::ones({3}, FakeDevice());
  EXPECT_EXIT(
      {
        volatile float read = *there.const_data_ptr<float>();
        static_cast<void>(read);
      },
      testing::KilledBySignal(SIGSEGV), "");
}

TEST(FakeDeviceTest, CountsWhatTheProgramCopies) {
  const FakeCopies before = CountFakeCopies();
  at::Tensor there = ops::ones({3}).to(FakeDevice());
  for (int i = 0; i < 5; ++i) there = there.mul(2).add(there);
  EXPECT_EQ(CountFakeCopies().to_device, before.to_device + 1);
  EXPECT_EQ(CountFakeCopies().to_host, before.to_host);
  there.sum().item<float>();
  EXPECT_EQ(CountFakeCopies().to_host, before.to_host + 1)
      << absl::StrJoin(LastFakeCopies(), "\n");
}

TEST(FakeDeviceTest, TrainsALine) {
  const at::Tensor x = ops::randn({8, 2}).to(FakeDevice());
  at::Tensor w = ops::ones({2, 1}).to(FakeDevice()).requires_grad_();
  x.matmul(w).pow(2).mean().backward();
  EXPECT_EQ(w.grad().device(), FakeDevice());
}

}  // namespace
}  // namespace grapnel
