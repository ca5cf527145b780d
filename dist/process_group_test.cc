// What holds for every process group.

#include "grapnel/dist/process_group.h"

#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/dist/c10d_process_group.h"
#include "grapnel/dist/fake_process_group.h"
#include "grapnel/dist/loopback.h"
#include "grapnel/dist/single_process_group.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;

using Body = std::function<absl::Status(ProcessGroup&)>;

struct Group {
  std::string name;
  int world_size;
  std::function<std::vector<absl::Status>(const Body&)> run;
};

// As RunRanks, over real connections.
std::vector<absl::Status> RunGloo(int world_size, const Body& body) {
  const int port = FreePort();
  std::vector<absl::Status> statuses(world_size);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < world_size; ++rank) {
    threads.emplace_back([&, rank] {
      auto group = JoinProcessGroup(LocalPlace(rank, world_size, port));
      statuses[rank] = group.ok() ? body(**group) : group.status();
    });
  }
  for (std::thread& thread : threads) thread.join();
  return statuses;
}

std::vector<Group> Groups() {
  std::vector<Group> groups = {{"Single", 1, [](const Body& body) {
                                  SingleProcessGroup group;
                                  return std::vector<absl::Status>{body(group)};
                                }}};
  for (const int n : {1, 2, 5}) {
    groups.push_back({"Fake" + std::to_string(n), n,
                      [n](const Body& body) { return RunRanks(n, body); }});
  }
  for (const int n : {2, 5}) {
    groups.push_back({"Gloo" + std::to_string(n), n,
                      [n](const Body& body) { return RunGloo(n, body); }});
  }
  return groups;
}

class ProcessGroupTest : public ::testing::TestWithParam<Group> {
 protected:
  void RunOnAll(const Body& body) {
    const auto statuses = GetParam().run(body);
    EXPECT_EQ(statuses.size(), static_cast<size_t>(n()));
    EXPECT_THAT(statuses, Each(IsOk()));
  }
  int n() const { return GetParam().world_size; }
};

INSTANTIATE_TEST_SUITE_P(, ProcessGroupTest, ::testing::ValuesIn(Groups()),
                         [](const auto& info) { return info.param.name; });

TEST_P(ProcessGroupTest, AllReduceIsOverAllRanks) {
  RunOnAll([this](ProcessGroup& group) -> absl::Status {
    EXPECT_EQ(group.world_size(), n());
    const auto reduce = [&group](ReduceOp op) -> absl::StatusOr<int64_t> {
      const at::Tensor tensor = ops::full({2}, group.rank() + 1, at::kLong);
      GRAPNEL_RETURN_IF_ERROR(group.AllReduce(tensor, op));
      EXPECT_EQ(tensor[0].item<int64_t>(), tensor[1].item<int64_t>());
      return tensor[0].item<int64_t>();
    };
    GRAPNEL_ASSIGN_OR_RETURN(const int64_t sum, reduce(ReduceOp::kSum));
    GRAPNEL_ASSIGN_OR_RETURN(const int64_t min, reduce(ReduceOp::kMin));
    GRAPNEL_ASSIGN_OR_RETURN(const int64_t max, reduce(ReduceOp::kMax));
    EXPECT_EQ(sum, n() * (n() + 1) / 2);
    EXPECT_EQ(min, 1);
    EXPECT_EQ(max, n());
    return absl::OkStatus();
  });
}

TEST_P(ProcessGroupTest, AllReduceOfFloatsHasTheSameBitsEverywhere) {
  std::vector<at::Tensor> results(n());
  RunOnAll([&results](ProcessGroup& group) {
    results[group.rank()] =
        ops::full({1}, 0.1 + group.rank() / 3.0, at::kFloat);
    return group.AllReduce(results[group.rank()], ReduceOp::kSum);
  });
  for (const at::Tensor& result : results) {
    EXPECT_TRUE(ops::equal(result, results[0]));
  }
}

TEST_P(ProcessGroupTest, AllReduceKeepsWhatHasNoElementsOrManyDimensions) {
  RunOnAll([this](ProcessGroup& group) -> absl::Status {
    GRAPNEL_RETURN_IF_ERROR(group.AllReduce(ops::ones({0, 3}), ReduceOp::kSum));
    const at::Tensor scalar = ops::full({}, 2.0, at::kDouble);
    GRAPNEL_RETURN_IF_ERROR(group.AllReduce(scalar, ReduceOp::kSum));
    EXPECT_EQ(scalar.item<double>(), 2.0 * n());
    // Longer than what ranks tell each other of a call.
    const at::Tensor deep = ops::ones(std::vector<int64_t>(60, 1), at::kLong);
    GRAPNEL_RETURN_IF_ERROR(group.AllReduce(deep, ReduceOp::kSum));
    EXPECT_EQ(deep.item<int64_t>(), n());
    return absl::OkStatus();
  });
}

// More than fits into what connections buffer.
TEST_P(ProcessGroupTest, LargeTensorsAndBytesArriveWhole) {
  RunOnAll([this](ProcessGroup& group) -> absl::Status {
    const at::Tensor tensor =
        ops::full({3000017}, group.rank() + 1, at::kFloat);
    GRAPNEL_RETURN_IF_ERROR(group.AllReduce(tensor, ReduceOp::kSum));
    EXPECT_EQ(tensor.min().item<float>(), n() * (n() + 1) / 2);
    EXPECT_EQ(tensor.max().item<float>(), n() * (n() + 1) / 2);
    GRAPNEL_ASSIGN_OR_RETURN(
        const std::vector<std::string> all,
        group.AllGather(std::string(5000011, 'a' + group.rank())));
    for (int rank = 0; rank < n(); ++rank) {
      EXPECT_EQ(all[rank], std::string(5000011, 'a' + rank));
    }
    return absl::OkStatus();
  });
}

TEST_P(ProcessGroupTest, BroadcastIsFromAnyRank) {
  for (int root = 0; root < n(); ++root) {
    RunOnAll([root](ProcessGroup& group) -> absl::Status {
      const at::Tensor tensor = ops::full({3}, group.rank(), at::kInt);
      GRAPNEL_RETURN_IF_ERROR(group.Broadcast(tensor, root));
      EXPECT_TRUE(ops::equal(tensor, ops::full({3}, root, at::kInt)));
      return group.Barrier();
    });
  }
}

TEST_P(ProcessGroupTest, AllGatherGivesEveryRanksBytesByRank) {
  RunOnAll([this](ProcessGroup& group) -> absl::Status {
    // Twice: with lengths that grow and, from an empty one, that shrink.
    for (const bool grow : {true, false}) {
      const auto bytes_of = [&](int rank) {
        std::string bytes(grow ? 3 * rank : n() - 1 - rank, 'a' + rank);
        if (!bytes.empty()) bytes[0] = '\0';
        return bytes;
      };
      GRAPNEL_ASSIGN_OR_RETURN(const std::vector<std::string> all,
                               group.AllGather(bytes_of(group.rank())));
      EXPECT_EQ(all.size(), static_cast<size_t>(n()));
      for (int rank = 0; rank < n(); ++rank) {
        EXPECT_EQ(all[rank], bytes_of(rank)) << "of rank " << rank;
      }
    }
    return absl::OkStatus();
  });
}

TEST_P(ProcessGroupTest, RanksOfOneMachineAreCountedFromZero) {
  std::vector<int> seen(n());
  RunOnAll([&seen, this](ProcessGroup& group) {
    ++seen[group.local_rank()];
    if (n() > 1) {
      EXPECT_THAT(group.description(),
                  HasSubstr(absl::StrCat("rank ", group.rank(), " of ", n())));
    }
    return absl::OkStatus();
  });
  EXPECT_THAT(seen, Each(1));
}

TEST_P(ProcessGroupTest, WithoutAFailureThereIsNoFirst) {
  RunOnAll([](ProcessGroup& group) { return group.FirstFailure(); });
}

TEST_P(ProcessGroupTest, ReportedFailureEndsWhatOthersWaitIn) {
  if (n() == 1) GTEST_SKIP() << "there is nobody to tell";
  const int last = n() - 1;
  const auto statuses = GetParam().run([&](ProcessGroup& group) {
    if (group.rank() == last) {
      group.ReportFailure(absl::DataLossError("file \"a\" is gone"));
      group.ReportFailure(absl::InternalError("not the first"));
    }
    const absl::Status status = group.Barrier();
    EXPECT_THAT(group.FirstFailure(),
                StatusIs(absl::StatusCode::kDataLoss,
                         absl::StrCat("rank ", last, ": file \"a\" is gone")));
    return status;
  });
  EXPECT_THAT(
      statuses,
      Each(StatusIs(absl::StatusCode::kUnavailable,
                    HasSubstr(absl::StrCat("rank ", last, ": file \"a\"")))));
}

TEST_P(ProcessGroupTest, WrongArgumentsAreRefusedBeforeAnyRankWaits) {
  RunOnAll([this](ProcessGroup& group) {
    const at::Tensor tensor = ops::full({2, 3}, 1.0);
    for (const int root : {-1, n()}) {
      EXPECT_THAT(group.Broadcast(tensor, root),
                  StatusIs(absl::StatusCode::kInvalidArgument,
                           HasSubstr("root: must be in 0..")));
    }
    EXPECT_THAT(group.AllReduce(at::Tensor(), ReduceOp::kSum),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("tensor: is undefined")));
    EXPECT_THAT(group.AllReduce(tensor.t(), ReduceOp::kSum),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("tensor: must be contiguous")));
    return absl::OkStatus();
  });
}

TEST_P(ProcessGroupTest, DifferentCallsAreAnErrorOnAllRanks) {
  if (n() == 1) GTEST_SKIP() << "there is nobody to differ from";
  const std::vector<std::function<absl::Status(ProcessGroup&)>> kCalls = {
      [](ProcessGroup& group) { return group.Barrier(); },
      [](ProcessGroup& group) { return group.AllGather("a").status(); },
      [](ProcessGroup& group) {
        return group.AllReduce(ops::full({1}, 1.0, at::kFloat), ReduceOp::kSum);
      },
      [](ProcessGroup& group) {
        return group.AllReduce(ops::full({1}, 1.0, at::kFloat), ReduceOp::kMax);
      },
      [](ProcessGroup& group) {
        return group.AllReduce(ops::full({2}, 1.0, at::kFloat), ReduceOp::kSum);
      },
      [](ProcessGroup& group) {
        return group.AllReduce(ops::full({1}, 1, at::kInt), ReduceOp::kSum);
      },
      [](ProcessGroup& group) {
        return group.Broadcast(ops::full({1}, 1.0, at::kFloat), 0);
      },
      [](ProcessGroup& group) {
        return group.Broadcast(ops::full({1}, 1.0, at::kFloat), 1);
      },
  };
  for (size_t i = 1; i < kCalls.size(); ++i) {
    const auto statuses = GetParam().run([&](ProcessGroup& group) {
      return kCalls[group.rank() == n() - 1 ? i : i - 1](group);
    });
    EXPECT_THAT(statuses, Each(StatusIs(absl::StatusCode::kInvalidArgument,
                                        HasSubstr(" calls "))))
        << i;
  }
}

TEST(FakeProcessGroupTest, RankThatNeverComesIsADeadline) {
  const auto statuses = RunRanks(
      2,
      [](ProcessGroup& group) {
        return group.rank() == 0 ? group.Barrier() : absl::OkStatus();
      },
      absl::Milliseconds(50));
  EXPECT_THAT(statuses[0], StatusIs(absl::StatusCode::kDeadlineExceeded,
                                    HasSubstr("only 1 of 2 ranks came")));
}

}  // namespace
}  // namespace grapnel
