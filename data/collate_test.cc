#include "grapnel/data/collate.h"

#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/data/sample.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::TestWithParam;
using ::testing::ValuesIn;

Sample NewSample(int64_t value) {
  Sample sample;
  sample.input = ops::full({1, 2, 3}, value, at::kFloat);
  sample.target = ops::full({}, value, at::kLong);
  sample.extras = {{"weight", ops::full({2}, value, at::kDouble)}};
  return sample;
}

TEST(CollateTest, StacksEachTensor) {
  Batch batch;
  ASSERT_THAT(Collate({NewSample(4), NewSample(5)}, {14, 15}, &batch), IsOk());
  EXPECT_EQ(batch.size(), 2);
  EXPECT_THAT(batch.indices, ElementsAre(14, 15));
  EXPECT_TRUE(ops::equal(batch.inputs,
                         ops::stack({NewSample(4).input, NewSample(5).input})));
  EXPECT_TRUE(ops::equal(batch.targets, ops::arange(4, 6, at::kLong)));
  ASSERT_EQ(batch.extras.size(), 1u);
  EXPECT_EQ(batch.extras[0].name, "weight");
  EXPECT_EQ(batch.extras[0].tensor.sizes(), at::IntArrayRef({2, 2}));
}

TEST(CollateTest, TakesAnyStrides) {
  Sample transposed = NewSample(1);
  transposed.input =
      ops::arange(6, at::kFloat).reshape({1, 3, 2}).transpose(1, 2);
  Batch batch;
  ASSERT_THAT(Collate({NewSample(0), transposed}, {0, 1}, &batch), IsOk());
  EXPECT_TRUE(ops::equal(batch.inputs.select(0, 1), transposed.input));
}

TEST(CollateTest, TargetsMayBeMissingInAll) {
  Sample a = NewSample(0);
  Sample b = NewSample(1);
  a.target = b.target = at::Tensor();
  Batch batch;
  ASSERT_THAT(Collate({a, b}, {0, 1}, &batch), IsOk());
  EXPECT_FALSE(batch.targets.defined());
}

struct BadCase {
  std::string name;
  std::function<void(Sample&)> change;  // Of the second of two samples.
  std::string message;
};

void PrintTo(const BadCase& c, std::ostream* os) { *os << c.name; }

class CollateBadTest : public TestWithParam<BadCase> {};

INSTANTIATE_TEST_SUITE_P(
    , CollateBadTest,
    ValuesIn(std::vector<BadCase>{
        {"Shape",
         [](Sample& s) {
           s.input = ops::zeros({1, 2, 2});
         },
         "sample 9: input: is float32 (1, 2, 2), but that of sample 4 in the "
         "same batch is float32 (1, 2, 3)"},
        {"Dtype",
         [](Sample& s) {
           s.input = ops::zeros({1, 2, 3}, at::kByte);
         },
         "sample 9: input: is uint8 (1, 2, 3), but that of sample 4"},
        {"NoInput", [](Sample& s) { s.input = at::Tensor(); },
         "sample 9: input: is undefined"},
        {"Device",
         [](Sample& s) {
           s.input = ops::empty({1, 2, 3}, at::device(at::kMeta));
         },
         "sample 9: input: must be on the CPU, is on meta"},
        {"NoTarget", [](Sample& s) { s.target = at::Tensor(); },
         "sample 9: target: is undefined, but that of sample 4"},
        {"MissingExtra", [](Sample& s) { s.extras.clear(); },
         "sample 9: extras: are (), but those of sample 4 in the same batch "
         "are (weight)"},
        {"OtherExtra", [](Sample& s) { s.extras[0].name = "mask"; },
         "sample 9: extras: are (mask)"},
        {"ExtraOfOtherShape",
         [](Sample& s) { s.extras[0].tensor = ops::zeros({3}, at::kDouble); },
         "sample 9: extras: weight: is float64 (3)"},
    }),
    [](const auto& info) { return info.param.name; });

TEST_P(CollateBadTest, NamesBothSamplesAndLeavesTheBatch) {
  Sample second = NewSample(2);
  GetParam().change(second);
  Batch batch;
  batch.indices = {77};
  EXPECT_THAT(Collate({NewSample(1), second}, {4, 9}, &batch),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr(GetParam().message)));
  EXPECT_THAT(batch.indices, ElementsAre(77));
}

TEST(CollateTest, TargetInSomeOnlyIsAnError) {
  Sample without = NewSample(0);
  without.target = at::Tensor();
  Batch batch;
  EXPECT_THAT(Collate({without, NewSample(1)}, {4, 9}, &batch),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("sample 9: target: is int64 ()"),
                             HasSubstr("sample 4"))));
}

TEST(CollateTest, FirstInputMustBeThere) {
  Batch batch;
  EXPECT_THAT(Collate({Sample()}, {4}, &batch),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("sample 4: input: must be defined")));
}

}  // namespace
}  // namespace grapnel
