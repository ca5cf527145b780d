#include "grapnel/runner/rank_agreement.h"

#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/dist/fake_process_group.h"
#include "grapnel/dist/process_group.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using Code = absl::StatusCode;

TEST(RankAgreementTest, WhoHasNoErrorHasThatOfTheFirstThatHasOne) {
  const std::vector<absl::Status> said =
      RunRanks(3, [](ProcessGroup& group) -> absl::Status {
        GRAPNEL_RETURN_IF_ERROR(AgreeOnStatus(group, absl::OkStatus()));
        return AgreeOnStatus(group, group.rank() == 0
                                        ? absl::OkStatus()
                                        : absl::NotFoundError(absl::StrCat(
                                              "the error of ", group.rank())));
      });
  EXPECT_THAT(said[0], StatusIs(Code::kNotFound, "rank 1: the error of 1"));
  EXPECT_THAT(said[1], StatusIs(Code::kNotFound, "the error of 1"));
  EXPECT_THAT(said[2], StatusIs(Code::kNotFound, "the error of 2"));
}

// Another collective's bytes say nothing of this rank's error.
TEST(RankAgreementTest, AnErrorIsNotLostAmongOtherBytes) {
  const std::vector<absl::Status> said =
      RunRanks(2, [](ProcessGroup& group) -> absl::Status {
        if (group.rank() == 0) return group.AllGather("\xff\xff").status();
        return AgreeOnStatus(group, absl::NotFoundError("the cat"));
      });
  EXPECT_THAT(said[1], StatusIs(Code::kNotFound, "the cat"));
}

// Rank r has r tensors, of different shapes and types, the last one strided.
TensorMap TensorsOf(int rank) {
  TensorMap tensors;
  for (int i = 0; i < rank; ++i) {
    at::Tensor tensor = ops::full({rank, i}, 10 * rank + i, at::kLong);
    if (i == rank - 1)
      tensor = ops::arange(6 * rank, at::kFloat)
                   .reshape({3, 2 * rank})
                   .transpose(0, 1);
    EXPECT_THAT(tensors.Add(absl::StrCat("of_", rank, "/", i), tensor), IsOk());
  }
  return tensors;
}

TEST(RankAgreementTest, TensorsOfAllRanksComeToTheFirst) {
  for (const int world_size : {1, 4}) {
    SCOPED_TRACE(world_size);
    EXPECT_THAT(
        RunRanks(
            world_size,
            [&](ProcessGroup& group) -> absl::Status {
              GRAPNEL_ASSIGN_OR_RETURN(
                  const std::vector<TensorMap> gathered,
                  GatherTensors(group, TensorsOf(group.rank())));
              if (group.rank() > 0) {
                EXPECT_THAT(gathered, IsEmpty());
                return absl::OkStatus();
              }
              EXPECT_THAT(gathered, SizeIs(world_size));
              for (int rank = 0; rank < world_size; ++rank) {
                const TensorMap expected = TensorsOf(rank);
                EXPECT_THAT(gathered[rank], SizeIs(expected.size()));
                for (const NamedTensor& tensor : expected) {
                  const auto* found = gathered[rank].Find(tensor.name);
                  if (found == nullptr) {
                    ADD_FAILURE() << tensor.name;
                    continue;
                  }
                  EXPECT_EQ(found->scalar_type(), tensor.tensor.scalar_type());
                  EXPECT_TRUE(ops::equal(*found, tensor.tensor)) << tensor.name;
                }
              }
              return absl::OkStatus();
            }),
        Each(IsOk()));
  }
}

TEST(RankAgreementTest, ATensorThatIsNotToBeHadIsToldToAll) {
  const std::vector<absl::Status> said =
      RunRanks(3, [](ProcessGroup& group) -> absl::Status {
        TensorMap own;
        const at::Tensor tensor = ops::ones({2});
        GRAPNEL_RETURN_IF_ERROR(
            own.Add("w", group.rank() == 1 ? tensor.to(at::kMeta) : tensor));
        return AgreeOnStatus(group, GatherTensors(group, own).status());
      });
  EXPECT_THAT(said[1].message(), HasSubstr("meta tensor"));
  for (const int rank : {0, 2}) {
    EXPECT_EQ(said[rank].message(),
              absl::StrCat("rank 1: ", said[1].message()));
  }
}

}  // namespace
}  // namespace grapnel
