#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <ostream>
#include <string>
#include <utility>

#include "ATen/core/Tensor.h"
#include "ATen/ops/full.h"
#include "ATen/ops/tensor.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/data/sample.h"
#include "grapnel/examples/regression/coverage_metric.h"
#include "grapnel/examples/regression/csv.h"
#include "grapnel/examples/regression/pinball_loss.pb.h"
#include "grapnel/models/loss.h"
#include "grapnel/models/metric_value.h"
#include "grapnel/models/model.h"
#include "gtest/gtest.h"

namespace examples {
namespace {

using ::grapnel::IsOk;
using ::grapnel::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Values;

// ----------------------------------------------------------------- the loss

grapnel::LossRegistry::Result NewLoss(double quantile) {
  PinballLossConfig config;
  config.set_quantile(quantile);
  return grapnel::LossRegistry::Create(config);
}

TEST(PinballLossTest, CostsMoreOnOneSide) {
  const auto loss = NewLoss(0.9);
  ASSERT_THAT(loss, IsOk());
  grapnel::Batch batch;
  batch.targets = at::tensor({5.f, 1.f}).view({2, 1});
  const at::Tensor outputs =
      at::full({2, 1}, 3.0, at::kFloat).requires_grad_(true);
  const auto value = (*loss)->Compute(outputs, batch);
  ASSERT_THAT(value, IsOk());
  EXPECT_FLOAT_EQ(value->item().toFloat(), (0.9f * 2 + 0.1f * 2) / 2);
  value->backward();
  EXPECT_FLOAT_EQ(outputs.grad()[0][0].item().toFloat(), -0.9f / 2);
  EXPECT_FLOAT_EQ(outputs.grad()[1][0].item().toFloat(), 0.1f / 2);
}

TEST(PinballLossTest, BadOnesAreRefused) {
  for (const double quantile : {0.0, 1.0, -0.5, 2.0}) {
    EXPECT_THAT(NewLoss(quantile),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("quantile: must be in (0, 1)")));
  }
  grapnel::Batch batch;
  batch.targets = at::full({2}, 3.0);
  EXPECT_THAT((*NewLoss(0.5))->Compute(at::full({2, 1}, 3.0), batch),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("shape")));
}

// --------------------------------------------------------------- the metric

TEST(CoverageMetricTest, CountsOverBatches) {
  CoverageMetric metric;
  grapnel::Metrics metrics;
  EXPECT_THAT(metric.Compute(&metrics),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("")));
  grapnel::Predictions predictions;
  grapnel::Batch batch;
  for (const float output : {2.f, 9.f}) {
    predictions.outputs = at::full({2, 1}, output);
    batch.targets = at::tensor({2.f, 4.f}).view({2, 1});
    ASSERT_THAT(metric.Process(predictions, batch), IsOk());
  }
  ASSERT_THAT(metric.Compute(&metrics), IsOk());
  EXPECT_THAT(metrics, ElementsAre(std::make_pair("coverage",
                                                  grapnel::MetricValue(0.75))));
}

// ------------------------------------------------------------------ the CSV

TEST(ParseCsvTest, NamesAndNumbers) {
  for (const char* text : {"a,b\n1,2.5\n-3,4e1\n", "a,b\r\n1,2.5\r\n-3,40"}) {
    const auto table = ParseCsv(text, "x.csv");
    ASSERT_THAT(table, IsOk());
    EXPECT_THAT(table->columns, ElementsAre("a", "b"));
    EXPECT_TRUE(
        table->values.equal(at::tensor({1.f, 2.5f, -3.f, 40.f}).view({2, 2})));
  }
}

struct BadCsv {
  const char* name;
  const char* text;
  const char* error;
};
void PrintTo(const BadCsv& bad, std::ostream* out) { *out << bad.name; }

class ParseBadCsvTest : public ::testing::TestWithParam<BadCsv> {};

TEST_P(ParseBadCsvTest, NamesTheLine) {
  EXPECT_THAT(ParseCsv(GetParam().text, "x.csv"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr(GetParam().error)));
}

INSTANTIATE_TEST_SUITE_P(
    , ParseBadCsvTest,
    Values(BadCsv{"Empty", "", "x.csv: has no rows"},
           BadCsv{"NamesAlone", "a,b\n", "x.csv: has no rows"},
           BadCsv{"TooFew", "a,b\n1,2\n3\n", "x.csv:3: must have 2 fields"},
           BadCsv{"TooMany", "a,b\n1,2,3\n", "2: must have 2 fields, has 3"},
           BadCsv{"EmptyLine", "a,b\n\n1,2\n", "x.csv:2: must have 2 fields"},
           BadCsv{"Text", "a,b\n1,two\n", "2: b: must be a number, is \"two\""},
           BadCsv{"Missing", "a,b\n,2\n", "x.csv:2: a: must be a number"},
           BadCsv{"NaN", "a,b\nnan,2\n", "x.csv:2: a: must be a number"}),
    [](const auto& info) { return info.param.name; });

// -------------------------------------------------------------- the program

struct QuantileCase {
  const char* name;
  const char* overrides;
  double quantile;
};
void PrintTo(const QuantileCase& c, std::ostream* out) { *out << c.name; }

class TrainTest : public ::testing::TestWithParam<QuantileCase> {};

TEST_P(TrainTest, LearnsTheQuantileThatTheConfigNames) {
  FILE* const output =
      popen(absl::StrCat("examples/regression/train '", testing::TempDir(), "/",
                         GetParam().name, "' ", GetParam().overrides)
                .c_str(),
            "r");
  ASSERT_NE(output, nullptr);
  std::map<std::string, double> printed;
  char name[64];
  double value;
  while (fscanf(output, "%63s %lf", name, &value) == 2) printed[name] = value;
  ASSERT_EQ(pclose(output), 0);
  ASSERT_EQ(printed.size(), 3);

  // What make_deliveries.py drew from. With 2,500 rows a quantile's standard
  // error is about 0.07 of the delay's mean here.
  const double q = GetParam().quantile;
  for (const double x : {1.0, 4.0, 7.0}) {
    const double mean_delay = 1 + x / 2;
    const double expected = 10 + 3 * x - mean_delay * std::log(1 - q);
    EXPECT_NEAR(printed["0.weight"] * x + printed["0.bias"], expected,
                0.25 * mean_delay)
        << x;
  }
  EXPECT_NEAR(printed["coverage"], q, 0.05);
}

INSTANTIATE_TEST_SUITE_P(
    , TrainTest,
    Values(QuantileCase{"NineOfTen", "", 0.9},
           QuantileCase{"Median", "model.sequential.loss.custom.quantile=0.5",
                        0.5}),
    [](const auto& info) { return info.param.name; });

TEST(TrainProgramTest, BadOptionIsAnError) {
  EXPECT_NE(std::system(absl::StrCat("examples/regression/train '",
                                     testing::TempDir(),
                                     "/bad' model.sequential.loss.custom."
                                     "quantile=1.5")
                            .c_str()),
            0);
}

}  // namespace
}  // namespace examples
