#include "grapnel/dist/ddp/agreement.h"

#include <ostream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/dist/fake_process_group.h"
#include "grapnel/dist/process_group.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::Each;

using Items = std::vector<AgreedItem>;

struct AgreementCase {
  std::string name;
  std::vector<Items> ranks;
  std::string error;  // Of every rank; "" if they agree.
};

std::ostream& operator<<(std::ostream& out, const AgreementCase& one) {
  return out << one.name;
}

class AgreementTest : public ::testing::TestWithParam<AgreementCase> {};

TEST_P(AgreementTest, EveryRankGetsTheSameAnswer) {
  const std::vector<absl::Status> ends = RunRanks(
      static_cast<int>(GetParam().ranks.size()), [](ProcessGroup& group) {
        return CheckAgreement(GetParam().ranks[group.rank()], group);
      });
  if (GetParam().error.empty()) {
    EXPECT_THAT(ends, Each(IsOk()));
  } else {
    EXPECT_THAT(ends, Each(StatusIs(absl::StatusCode::kFailedPrecondition,
                                    GetParam().error)));
  }
}

const Items kAb = {{"a", "1"}, {"b", "2"}};

INSTANTIATE_TEST_SUITE_P(
    All, AgreementTest,
    ::testing::Values(
        AgreementCase{"Alone", {kAb}, ""},
        AgreementCase{"Equal", {kAb, kAb, kAb}, ""},
        AgreementCase{"Nothing", {{}, {}}, ""},
        AgreementCase{"Value",
                      {kAb, {{"a", "1"}, {"b", "3"}}},
                      "b: 2 on rank 0, 3 on rank 1"},
        // Each of them may be meant: the earliest item is told of.
        AgreementCase{"FirstOfSeveral",
                      {kAb, {{"a", "1"}, {"b", "3"}}, {{"a", "5"}, {"b", "2"}}},
                      "a: 1 on rank 0, 5 on rank 2 (1 more of 3 ranks don't "
                      "have what rank 0 has)"},
        AgreementCase{"RankZeroIsTheOther",
                      {{{"a", "0"}}, {{"a", "1"}}, {{"a", "1"}}},
                      "a: 0 on rank 0, 1 on rank 1 (1 more of 3 ranks don't "
                      "have what rank 0 has)"},
        AgreementCase{"Missing",
                      {kAb, {{"a", "1"}}},
                      "b: 2 on rank 0, and rank 1 has none"},
        AgreementCase{"MissingBefore",
                      {kAb, {{"b", "2"}}},
                      "a: 1 on rank 0, and rank 1 has none"},
        AgreementCase{
            "More", {{{"a", "1"}}, kAb}, "b: 2 on rank 1, and rank 0 has none"},
        AgreementCase{"MoreBefore",
                      {{{"b", "2"}}, kAb},
                      "a: 1 on rank 1, and rank 0 has none"},
        AgreementCase{
            "Nothing0", {{}, kAb}, "a: 1 on rank 1, and rank 0 has none"},
        AgreementCase{"Order",
                      {kAb, {{"b", "2"}, {"a", "1"}}},
                      "a: where rank 0 has it rank 1 has b: the order must be "
                      "the same"},
        // The same letters, cut elsewhere.
        AgreementCase{"Cut",
                      {{{"a", "12"}}, {{"a1", "2"}}},
                      "a: 12 on rank 0, and rank 1 has none"},
        AgreementCase{"NotText",
                      {{{"\xff", ":"}}, {{"\xff", ""}}},
                      "\\xff: : on rank 0,  on rank 1"}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace grapnel
