#include "grapnel/runner/rank_buffers.h"

#include <cstddef>
#include <limits>
#include <string>

#include "ATen/core/Tensor.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/dist/fake_process_group.h"
#include "grapnel/dist/single_process_group.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;

at::Tensor Full(double value) { return ops::full({3}, value); }

// "mean" is of ranks 1 and 2 alone another one, "count" a rank's own, "mask"
// all ranks'.
std::vector<NamedTensor> BuffersOf(int rank) {
  return {{"mean", Full(rank == 1 || rank == 2 ? rank : 0)},
          {"count", ops::full({}, rank, at::kLong)},
          {"mask", Full(std::numeric_limits<double>::quiet_NaN())}};
}

// What each of `world_size` ranks adds to a checkpoint.
std::vector<io::CheckpointContents> Added(int world_size) {
  std::vector<io::CheckpointContents> added(world_size);
  EXPECT_THAT(RunRanks(world_size,
                       [&](ProcessGroup& group) {
                         io::CheckpointContents& mine = added[group.rank()];
                         mine.manifest().set_world_size(world_size);
                         return AddRankBuffers(group, BuffersOf(group.rank()),
                                               &mine);
                       }),
              Each(IsOk()));
  return added;
}

TEST(RankBuffersTest, AreThoseThatDifferFromTheFirstOnes) {
  const std::vector<io::CheckpointContents> added = Added(4);
  const TensorMap* section = added[0].FindSection("rank_buffers");
  ASSERT_NE(section, nullptr);
  std::vector<std::string> names;
  for (const NamedTensor& tensor : *section) names.push_back(tensor.name);
  EXPECT_THAT(names, testing::ElementsAre("1/mean", "1/count", "2/mean",
                                          "2/count", "3/count"));
  EXPECT_TRUE(ops::equal(*section->Find("2/mean"), Full(2)));
  EXPECT_TRUE(
      ops::equal(*section->Find("3/count"), ops::full({}, 3, at::kLong)));
  // The others don't write it.
  for (const size_t rank : {1, 2, 3}) {
    EXPECT_THAT(added[rank].sections, testing::IsEmpty());
  }
}

TEST(RankBuffersTest, ComeBackToTheirRank) {
  const io::CheckpointContents contents = Added(4)[0];
  EXPECT_THAT(
      RunRanks(4,
               [&](ProcessGroup& group) -> absl::Status {
                 const auto buffers = BuffersOf(0);
                 GRAPNEL_RETURN_IF_ERROR(
                     LoadRankBuffers(contents, group, buffers));
                 const auto mine = BuffersOf(group.rank());
                 for (const size_t i : {0, 1}) {
                   EXPECT_TRUE(ops::equal(buffers[i].tensor, mine[i].tensor))
                       << group.rank() << " " << mine[i].name;
                 }
                 return absl::OkStatus();
               }),
      Each(IsOk()));
}

TEST(RankBuffersTest, StayTheFirstOnesOnAnotherNumberOfRanks) {
  const io::CheckpointContents contents = Added(4)[0];
  EXPECT_THAT(RunRanks(2,
                       [&](ProcessGroup& group) -> absl::Status {
                         const auto buffers = BuffersOf(0);
                         GRAPNEL_RETURN_IF_ERROR(
                             LoadRankBuffers(contents, group, buffers));
                         EXPECT_TRUE(ops::equal(buffers[0].tensor, Full(0)));
                         return absl::OkStatus();
                       }),
              Each(IsOk()));
}

TEST(RankBuffersTest, AreNoneWhereRanksDoNotDiffer) {
  EXPECT_THAT(RunRanks(2,
                       [](ProcessGroup& group) -> absl::Status {
                         io::CheckpointContents contents;
                         GRAPNEL_RETURN_IF_ERROR(
                             AddRankBuffers(group, BuffersOf(0), &contents));
                         EXPECT_THAT(contents.sections, testing::IsEmpty());
                         return absl::OkStatus();
                       }),
              Each(IsOk()));
  SingleProcessGroup alone;
  io::CheckpointContents contents;
  EXPECT_THAT(AddRankBuffers(alone, BuffersOf(0), &contents), IsOk());
  EXPECT_THAT(contents.sections, testing::IsEmpty());
}

TEST(RankBuffersTest, ThatDoNotFitAreNamed) {
  const io::CheckpointContents contents = Added(2)[0];
  const std::vector<absl::Status> loaded =
      RunRanks(2, [&](ProcessGroup& group) {
        return LoadRankBuffers(contents, group, {{"mean", ops::zeros({4})}});
      });
  EXPECT_THAT(loaded[0], IsOk());
  EXPECT_THAT(loaded[1],
              StatusIs(absl::StatusCode::kInvalidArgument,
                       testing::AllOf(HasSubstr("rank_buffers: "),
                                      HasSubstr("mean"), HasSubstr("count"))));
}

}  // namespace
}  // namespace grapnel
