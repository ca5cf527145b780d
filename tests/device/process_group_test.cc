// Collectives of tensors on a device that the backend doesn't know.

#include "grapnel/dist/process_group.h"

#include <cstddef>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "c10/core/Device.h"
#include "c10/util/accumulate.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/dist/c10d_process_group.h"
#include "grapnel/dist/loopback.h"
#include "grapnel/models/sync_batch_norm.h"
#include "grapnel/tests/device/fake_device.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;

// Calls `body` for two ranks, of groups that `device` was given to.
std::vector<absl::Status> OnTwoRanks(
    c10::Device device,
    const std::function<absl::Status(int rank, ProcessGroup& group)>& body) {
  JoinOptions options;
  options.device = device;
  const int port = FreePort();
  const auto join = [&](int rank) -> absl::Status {
    GRAPNEL_ASSIGN_OR_RETURN(
        const std::unique_ptr<ProcessGroup> group,
        JoinProcessGroup(LocalPlace(rank, 2, port), options));
    return CatchAsStatus([&] { return body(rank, *group); });
  };
  std::vector<absl::Status> statuses(2);
  std::thread other([&] { statuses[1] = join(1); });
  statuses[0] = join(0);
  other.join();
  return statuses;
}

// Of a group for the device, and of one for the CPU, where a model is on the
// device all the same.
TEST(ProcessGroupOnDeviceTest, TensorsGoThroughTheCpuAndBack) {
  for (const c10::Device joined : {FakeDevice(), c10::Device(c10::kCPU)}) {
    EXPECT_THAT(
        OnTwoRanks(
            joined,
            [](int rank, ProcessGroup& group) -> absl::Status {
              const at::Tensor sum =
                  ops::full({2, 3}, rank + 1, at::kFloat).to(FakeDevice());
              GRAPNEL_RETURN_IF_ERROR(group.AllReduce(sum, ReduceOp::kSum));
              EXPECT_TRUE(sum.device() == FakeDevice());
              EXPECT_TRUE(
                  ops::equal(sum.cpu(), ops::full({2, 3}, 3.0, at::kFloat)));
              const at::Tensor sent =
                  ops::full({4}, rank + 1, at::kLong).to(FakeDevice());
              GRAPNEL_RETURN_IF_ERROR(group.Broadcast(sent, 1));
              EXPECT_TRUE(ops::equal(sent.cpu(), ops::full({4}, 2, at::kLong)));
              const at::Tensor none =
                  ops::empty({0}, at::kFloat).to(FakeDevice());
              return group.AllReduce(none, ReduceOp::kSum);
            }),
        Each(IsOk()));
  }
}

TEST(ProcessGroupOnDeviceTest, ACollectiveThatFailsSaysWhy) {
  const std::vector<absl::Status> statuses = OnTwoRanks(
      FakeDevice(), [](int rank, ProcessGroup& group) -> absl::Status {
        if (rank == 1) {
          const absl::Status failure = absl::DataLossError("it is broken");
          group.ReportFailure(failure);
          return failure;
        }
        const at::Tensor sum = ops::full({3}, 1.0, at::kFloat).to(FakeDevice());
        return group.AllReduce(sum, ReduceOp::kSum);
      });
  EXPECT_THAT(statuses[0].message(), HasSubstr("rank 1: it is broken"));
}

// Forward and backward of batch norm over two ranks, rank 0 on `first`: its
// output, gradients and statistics. Rank 1 is on the CPU: for a device LibTorch
// goes backward on one thread, where two ranks would wait for each other.
std::vector<at::Tensor> BatchNormOn(c10::Device first) {
  const int port = FreePort();
  std::vector<at::Tensor> results;
  const auto body = [&](int rank) -> absl::Status {
    const c10::Device device = rank == 0 ? first : c10::kCPU;
    JoinOptions options;
    options.timeout = absl::Seconds(20);
    options.device = device;
    GRAPNEL_ASSIGN_OR_RETURN(
        const std::unique_ptr<ProcessGroup> group,
        JoinProcessGroup(LocalPlace(rank, 2, port), options));
    const auto filled = [&](at::IntArrayRef shape, double seed) {
      return ops::arange(c10::multiply_integers(shape), at::kFloat)
          .mul(0.7)
          .add(seed)
          .sin()
          .view(shape)
          .to(device);
    };
    return CatchAsStatus([&] {
      const at::Tensor input = filled({3, 2, 4}, rank).requires_grad_();
      const at::Tensor weight = filled({2}, 5).requires_grad_();
      const at::Tensor bias = filled({2}, 6).requires_grad_();
      const at::Tensor mean = ops::zeros({2}, device);
      const at::Tensor var = ops::ones({2}, device);
      const at::Tensor output = BatchNormOverRanks(
          input, weight, bias, mean, var, /*momentum=*/0.1, 1e-5, *group);
      EXPECT_TRUE(output.device() == device);
      output.mul(filled({3, 2, 4}, 9 + rank)).sum().backward();
      if (rank == 0) {
        for (const at::Tensor& tensor :
             {output.detach(), input.grad(), weight.grad(), bias.grad(), mean,
              var}) {
          results.push_back(tensor.cpu());
        }
      }
      return absl::OkStatus();
    });
  };
  std::vector<absl::Status> statuses(2);
  std::thread other([&] { statuses[1] = body(1); });
  statuses[0] = body(0);
  other.join();
  EXPECT_THAT(statuses, ::testing::Each(IsOk()));
  return results;
}

TEST(ProcessGroupOnDeviceTest, BatchNormOverRanksHasTheCpusBits) {
  const std::vector<at::Tensor> on_device = BatchNormOn(FakeDevice());
  const std::vector<at::Tensor> on_cpu = BatchNormOn(c10::kCPU);
  ASSERT_EQ(on_device.size(), 6);
  ASSERT_EQ(on_cpu.size(), 6);
  for (size_t i = 0; i < on_cpu.size(); ++i) {
    EXPECT_TRUE(ops::equal(on_device[i], on_cpu[i])) << i;
  }
}

}  // namespace
}  // namespace grapnel
