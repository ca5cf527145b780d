#include "grapnel/models/metric_rule.h"

#include <cmath>
#include <ostream>
#include <string>
#include <vector>

#include "grapnel/base/status_matchers.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::HasSubstr;

struct NameCase {
  std::string name;
  std::string metric;
  std::string expected;  // "" if the name doesn't tell.
  bool whole_name = false;
};

void PrintTo(const NameCase& c, std::ostream* os) { *os << c.metric; }

std::string Infer(const std::string& metric, const MetricKeys& keys) {
  const auto inferred = InferMetricRule(metric, keys);
  return inferred ? std::string(MetricRuleName(inferred->rule)) : "";
}

class InferMetricRuleTest : public testing::TestWithParam<NameCase> {};

INSTANTIATE_TEST_SUITE_P(
    , InferMetricRuleTest,
    testing::Values(NameCase{"WholeName", "acc", "greater", true},
                    NameCase{"LetterCase", "ACC", "greater", true},
                    NameCase{"Less", "loss", "less", true},
                    NameCase{"DigitsAtTheEnd", "top5", "greater", true},
                    NameCase{"DigitsBehindASign", "AR@100", "greater", true},
                    NameCase{"OursByDefault", "mse", "less", true},
                    NameCase{"BehindTheSlash", "accuracy/top1", "greater"},
                    NameCase{"BehindTheUnderscore", "val_loss", "less"},
                    NameCase{"BehindBoth", "coco/bbox_mAP", "greater"},
                    NameCase{"LastWinsOverFirst", "topk_loss", "less"},
                    NameCase{"LastWinsOverMiddle", "macro_auc_loss", "less"},
                    NameCase{"PartOfAWordIsNothing", "stop_rate", ""},
                    NameCase{"FirstPartIsNothing", "loss_cls", ""},
                    NameCase{"FolderIsNothing", "loss/kl", ""},
                    NameCase{"OnlyDigitsAtTheEnd", "bbox_mAP_50", ""},
                    NameCase{"DigitsAlone", "50", ""},
                    NameCase{"Unknown", "PSNR", ""}, NameCase{"Empty", "", ""},
                    NameCase{"EmptyBehindSlash", "acc/", ""}),
    [](const auto& info) { return info.param.name; });

TEST_P(InferMetricRuleTest, ByWholeNameOrLastComponent) {
  const NameCase& c = GetParam();
  EXPECT_EQ(Infer(c.metric, MetricKeys()), c.expected);
  const auto inferred = InferMetricRule(c.metric, MetricKeys());
  EXPECT_EQ(inferred && inferred->whole_name, c.whole_name);
}

TEST(MetricKeysTest, ListsReplaceTheDefaults) {
  MetricKeys keys;
  keys.greater = {"PSNR"};
  keys.less = {"image/FID"};
  EXPECT_EQ(Infer("psnr", keys), "greater");
  EXPECT_EQ(Infer("image/FID", keys), "less");
  EXPECT_EQ(Infer("FID", keys), "");
  EXPECT_EQ(Infer("acc", keys), "");
  EXPECT_EQ(Infer("loss", keys), "");
}

TEST(MetricRuleTest, ParsesWhatItPrints) {
  for (const MetricRule rule : {MetricRule::kGreater, MetricRule::kLess}) {
    const auto parsed = ParseMetricRule(MetricRuleName(rule));
    ASSERT_THAT(parsed, IsOk());
    EXPECT_EQ(*parsed, rule);
  }
  EXPECT_THAT(
      ParseMetricRule("Greater"),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("\"Greater\"")));
}

TEST(MetricRuleTest, OnlyStrictlyBetterIsBetterAndNanNever) {
  EXPECT_TRUE(IsBetter(MetricRule::kGreater, 2, 1));
  EXPECT_FALSE(IsBetter(MetricRule::kGreater, 1, 1));
  EXPECT_TRUE(IsBetter(MetricRule::kLess, 1, 2));
  EXPECT_FALSE(IsBetter(MetricRule::kLess, 2, 1));
  for (const MetricRule rule : {MetricRule::kGreater, MetricRule::kLess}) {
    EXPECT_FALSE(IsBetter(rule, NAN, 1));
    EXPECT_FALSE(IsBetter(rule, 1, NAN));
  }
}

}  // namespace
}  // namespace grapnel
