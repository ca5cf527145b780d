// Collectives of tensors on a device that the backend doesn't know.

#include "grapnel/dist/process_group.h"

#include <memory>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/dist/c10d_process_group.h"
#include "grapnel/dist/loopback.h"
#include "grapnel/tests/device/fake_device.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

TEST(ProcessGroupOnDeviceTest, TensorsGoThroughTheCpuAndBack) {
  JoinOptions options;
  options.device = FakeDevice();
  const int port = FreePort();
  const auto body = [&](int rank) -> absl::Status {
    GRAPNEL_ASSIGN_OR_RETURN(
        const std::unique_ptr<ProcessGroup> group,
        JoinProcessGroup(LocalPlace(rank, 2, port), options));
    const at::Tensor sum =
        ops::full({2, 3}, rank + 1, at::kFloat).to(FakeDevice());
    GRAPNEL_RETURN_IF_ERROR(group->AllReduce(sum, ReduceOp::kSum));
    EXPECT_TRUE(sum.device() == FakeDevice());
    EXPECT_TRUE(ops::equal(sum.cpu(), ops::full({2, 3}, 3.0, at::kFloat)));
    const at::Tensor sent =
        ops::full({4}, rank + 1, at::kLong).to(FakeDevice());
    GRAPNEL_RETURN_IF_ERROR(group->Broadcast(sent, 1));
    EXPECT_TRUE(ops::equal(sent.cpu(), ops::full({4}, 2, at::kLong)));
    return absl::OkStatus();
  };
  std::vector<absl::Status> statuses(2);
  std::thread other([&] { statuses[1] = body(1); });
  statuses[0] = body(0);
  other.join();
  EXPECT_THAT(statuses, ::testing::Each(IsOk()));
}

}  // namespace
}  // namespace grapnel
