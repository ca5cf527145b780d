// Batch norm over ranks that talk by gloo, beside a real reducer of gradients:
// both send within one backward pass.

#include "grapnel/models/sync_batch_norm.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/dist/ddp/ddp_reducer.h"
#include "grapnel/dist/gradient_reducer.h"
#include "grapnel/dist/process_group.h"
#include "grapnel/models/functional.h"
#include "grapnel/tests/dist/gloo_ranks.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::HasSubstr;

constexpr double kMomentum = 0.1;
constexpr double kEps = 1e-5;

// Values that every run has again, of about 1.
at::Tensor Filled(std::vector<int64_t> shape, double seed) {
  int64_t numel = 1;
  for (const int64_t size : shape) numel *= size;
  return ops::arange(numel, at::kFloat).mul(0.7).add(seed).sin().view(shape);
}

double Distance(const at::Tensor& a, const at::Tensor& b) {
  return a.sub(b).abs().max().item().toDouble();
}

// linear, batch norm, relu, linear, and in front of all a part that a batch may
// leave out.
struct Net {
  Net() {
    Add("first.weight", Filled({8, 4}, 1));
    Add("norm.weight", ops::ones({8}));
    Add("norm.bias", ops::zeros({8}));
    Add("second.weight", Filled({2, 8}, 2));
    Add("part.weight", Filled({4, 4}, 9));
    running_mean = ops::zeros({8});
    running_var = ops::ones({8});
  }

  void Add(const char* name, at::Tensor tensor) {
    params.push_back({name, tensor.requires_grad_()});
  }

  const at::Tensor& operator[](int i) const { return params[i].tensor; }

  // `group`: null for this process's batch alone.
  at::Tensor Loss(const at::Tensor& x, bool with_part, ProcessGroup* group) {
    const at::Tensor in = with_part ? functional::linear(x, (*this)[4]) : x;
    const at::Tensor hidden = functional::linear(in, (*this)[0]);
    const at::Tensor normed =
        group == nullptr
            ? functional::batch_norm(hidden, (*this)[1], (*this)[2],
                                     running_mean, running_var,
                                     /*training=*/true, kMomentum, kEps, true)
            : BatchNormOverRanks(hidden, (*this)[1], (*this)[2], running_mean,
                                 running_var, kMomentum, kEps, *group);
    return functional::linear(functional::relu(normed), (*this)[3])
        .square()
        .mean();
  }

  // Plain descent.
  void Step() {
    for (NamedTensor& param : params) {
      if (!param.tensor.grad().defined()) continue;
      param.tensor.detach().sub_(param.tensor.grad(), 0.1);
      param.tensor.grad().zero_();
    }
  }

  void ExpectNear(const Net& other) const {
    for (size_t i = 0; i < params.size(); ++i) {
      EXPECT_LE(Distance((*this)[i], other[i]), 1e-6) << params[i].name;
    }
    EXPECT_LE(Distance(running_mean, other.running_mean), 1e-6);
    EXPECT_LE(Distance(running_var, other.running_var), 1e-6);
  }

  std::vector<NamedTensor> params;
  at::Tensor running_mean, running_var;
};

// One forward and backward pass.
absl::Status Iterate(GradientReducer& reducer, Net& net, const at::Tensor& x,
                     bool with_part, bool sync, ProcessGroup* group) {
  GRAPNEL_RETURN_IF_ERROR(reducer.BeginForward(sync));
  at::Tensor loss;
  GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&] {
    loss = net.Loss(x, with_part, group);
    return absl::OkStatus();
  }));
  GRAPNEL_RETURN_IF_ERROR(reducer.BeginBackward(loss));
  const absl::Status status = CatchAsStatus([&] {
    loss.backward();
    return absl::OkStatus();
  });
  return status.ok() ? reducer.EndBackward()
                     : reducer.EndFailedBackward(status);
}

absl::StatusOr<std::unique_ptr<GradientReducer>> Reduce(
    const GlooRank& rank, const Net& net, const DdpOptions& options) {
  return CreateDdpReducer(rank.group, net.params, {}, options);
}

// Each parameter in a bucket of its own: as many collectives as there can be.
DdpOptions SmallBuckets() {
  DdpOptions options;
  options.bucket_cap_mb = 1e-6;
  return options;
}

class GlooSyncBatchNormTest : public ::testing::TestWithParam<bool> {};

TEST_P(GlooSyncBatchNormTest, TrainsWhatOneProcessTrainsOfTheWholeBatch) {
  constexpr int kRanks = 3;
  constexpr int kSteps = 5;
  const auto batch = [](int step) {
    return Filled({4 * kRanks, 4}, step).mul(2).add(1);
  };
  Net whole;
  for (int step = 0; step < kSteps; ++step) {
    whole.Loss(batch(step), true, nullptr).backward();
    whole.Step();
  }
  const std::vector<absl::Status> ends = RunGlooRanks(
      kRanks,
      [&](const GlooRank& r) -> absl::Status {
        Net net;
        GRAPNEL_ASSIGN_OR_RETURN(const auto reducer,
                                 Reduce(r, net, SmallBuckets()));
        for (int step = 0; step < kSteps; ++step) {
          GRAPNEL_RETURN_IF_ERROR(
              Iterate(*reducer, net, batch(step).narrow(0, 4 * r.rank, 4),
                      /*with_part=*/true, /*sync=*/true, &r.group));
          net.Step();
        }
        net.ExpectNear(whole);
        return absl::OkStatus();
      },
      absl::Seconds(60), /*own_connections=*/GetParam());
  EXPECT_THAT(ends, Each(IsOk()));
}

INSTANTIATE_TEST_SUITE_P(, GlooSyncBatchNormTest, ::testing::Bool(),
                         [](const auto& test) {
                           return test.param ? "OwnConnections" : "Shared";
                         });

// In a window BN goes forward and backward where no gradients are averaged.
TEST(GlooSyncBatchNormOrderTest, WindowsSyncInEachIteration) {
  const auto batch = [](int i) { return Filled({8, 4}, 10 * i); };
  Net whole;
  for (int i = 0; i < 6; ++i) {
    whole.Loss(batch(i), true, nullptr).backward();
    if (i % 3 == 2) whole.Step();
  }
  const std::vector<absl::Status> ends = RunGlooRanks(
      2,
      [&](const GlooRank& r) -> absl::Status {
        Net net;
        GRAPNEL_ASSIGN_OR_RETURN(const auto reducer,
                                 Reduce(r, net, SmallBuckets()));
        for (int i = 0; i < 6; ++i) {
          const bool last = i % 3 == 2;
          GRAPNEL_RETURN_IF_ERROR(Iterate(*reducer, net,
                                          batch(i).narrow(0, 4 * r.rank, 4),
                                          true, last, &r.group));
          if (last) net.Step();
        }
        net.ExpectNear(whole);
        const at::Tensor sum = net.running_var.clone();
        GRAPNEL_RETURN_IF_ERROR(r.group.AllReduce(sum, ReduceOp::kMax));
        EXPECT_TRUE(ops::equal(sum, net.running_var));
        return absl::OkStatus();
      },
      absl::Seconds(20), /*own_connections=*/true);
  EXPECT_THAT(ends, Each(IsOk()));
}

// Rank 0 leaves a part out: its gradient, the first that is sent, is sent
// before backward begins, and rank 1's after batch norm's. Over the same
// connections each would wait for what the other one sends next.
TEST(GlooSyncBatchNormOrderTest, RanksNeedNotMixItWithGradientsInOneOrder) {
  const std::vector<absl::Status> ends = RunGlooRanks(
      2,
      [](const GlooRank& r) -> absl::Status {
        Net net;
        DdpOptions options = SmallBuckets();
        options.find_unused_parameters = true;
        GRAPNEL_ASSIGN_OR_RETURN(const auto reducer, Reduce(r, net, options));
        for (int i = 0; i < 3; ++i) {
          GRAPNEL_RETURN_IF_ERROR(
              Iterate(*reducer, net, Filled({4, 4}, 10 * i + r.rank),
                      /*with_part=*/r.rank == 1, true, &r.group));
          EXPECT_GT(net[4].grad().abs().max().item().toDouble(), 0);
          net.Step();
        }
        return absl::OkStatus();
      },
      absl::Seconds(10), /*own_connections=*/true);
  EXPECT_THAT(ends, Each(IsOk()));
}

// It fails between forward and backward.
TEST_P(GlooSyncBatchNormTest, ErrorOfOneEndsTheOthersBackwardWithItsMessage) {
  const absl::Time start = absl::Now();
  const std::vector<absl::Status> ends = RunGlooRanks(
      3,
      [](const GlooRank& r) -> absl::Status {
        Net net;
        GRAPNEL_ASSIGN_OR_RETURN(const auto reducer,
                                 Reduce(r, net, SmallBuckets()));
        GRAPNEL_RETURN_IF_ERROR(Iterate(*reducer, net, Filled({4, 4}, r.rank),
                                        true, true, &r.group));
        if (r.rank != 2) {
          return Iterate(*reducer, net, Filled({4, 4}, r.rank), true, true,
                         &r.group);
        }
        GRAPNEL_RETURN_IF_ERROR(reducer->BeginForward(true));
        net.Loss(Filled({4, 4}, r.rank), true, &r.group);
        const absl::Status failure = absl::DataLossError("it is broken");
        r.group.ReportFailure(failure);
        return failure;
      },
      absl::Seconds(20), /*own_connections=*/GetParam());
  for (int rank = 0; rank < 2; ++rank) {
    EXPECT_THAT(ends[rank], StatusIs(absl::StatusCode::kUnavailable,
                                     HasSubstr("rank 2: it is broken")));
  }
  // For gradients that were on their way nobody waits for the timeout; of
  // shared connections they may have to.
  if (GetParam()) {
    EXPECT_LT(absl::Now() - start, absl::Seconds(15));
  }
}

TEST(GlooSyncBatchNormOrderTest, SilentRankIsADeadline) {
  const absl::Time start = absl::Now();
  absl::Notification told;
  const std::vector<absl::Status> ends = RunGlooRanks(
      2,
      [&](const GlooRank& r) -> absl::Status {
        Net net;
        if (r.rank == 1) {
          told.WaitForNotification();
          return absl::OkStatus();
        }
        const absl::Status status = CatchAsStatus([&] {
          net.Loss(Filled({4, 4}, 0), true, &r.group);
          return absl::OkStatus();
        });
        told.Notify();
        return status;
      },
      absl::Seconds(1), /*own_connections=*/true);
  EXPECT_THAT(ends[0],
              StatusIs(absl::StatusCode::kDeadlineExceeded,
                       AllOf(HasSubstr("synchronizing batch norm: "),
                             HasSubstr("rank 1 gave no answer within 1s"))));
  EXPECT_LT(absl::Now() - start, absl::Seconds(12));
}

}  // namespace
}  // namespace grapnel
