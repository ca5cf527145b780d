#include "grapnel/optim/loss_scaler.h"

#include <cmath>
#include <limits>
#include <ostream>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "ATen/ops/_amp_update_scale_ops.h"
#include "absl/status/status.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/optim/optim_wrapper.pb.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::grapnel::optim::v1::LossScaleConfig;
using ::grapnel::optim::v1::LossScaleState;
using ::testing::HasSubstr;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

LossScaleConfig Parse(const std::string& text) {
  LossScaleConfig config;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &config))
      << text;
  return config;
}

LossScaler Make(const std::string& text) {
  auto scaler = LossScaler::Create(Parse(text));
  EXPECT_THAT(scaler, IsOk()) << text;
  return *scaler;
}

TEST(LossScalerTest, DefaultsAreThoseOfPython) {
  LossScaler scaler = Make("");
  EXPECT_EQ(scaler.scale(), 65536);
  scaler.Update(false);
  EXPECT_EQ(scaler.scale(), 32768);
  for (int i = 0; i < 1999; ++i) scaler.Update(true);
  EXPECT_EQ(scaler.scale(), 32768);
  scaler.Update(true);
  EXPECT_EQ(scaler.scale(), 65536);
}

// The scale goes where the device's own operator would take it.
TEST(LossScalerTest, MovesAsAtensOperatorDoes) {
  struct Case {
    const char* config;
    double scale, growth, backoff;
    int64_t interval;
  };
  for (const Case& test :
       {Case{"init_scale: 1000 growth_factor: 1.7 backoff_factor: 0.3 "
             "growth_interval: 3",
             1000, 1.7, 0.3, 3},
        Case{"init_scale: 3e38 growth_interval: 1", 3e38, 2, 0.5, 1},
        Case{"init_scale: 0.1 growth_factor: 1.001 growth_interval: 2", 0.1,
             1.001, 0.5, 2}}) {
    SCOPED_TRACE(test.config);
    LossScaler scaler = Make(test.config);
    at::Tensor scale = ops::full({}, test.scale, at::kFloat);
    at::Tensor tracker = ops::zeros({}, at::kInt);
    for (int step = 0; step < 200; ++step) {
      const bool finite = step * 7919 % 11 != 0;
      scaler.Update(finite);
      at::_ops::_amp_update_scale_::call(
          scale, tracker, ops::full({}, finite ? 0.0 : 1.0, at::kFloat),
          test.growth, test.backoff, test.interval);
      ASSERT_EQ(scaler.scale(), scale.item<float>()) << "step " << step;
    }
  }
}

TEST(LossScalerTest, AFixedScaleStays) {
  LossScaler scaler = Make("dynamic: false init_scale: 128");
  scaler.Update(false);
  for (int i = 0; i < 5000; ++i) scaler.Update(true);
  EXPECT_EQ(scaler.scale(), 128);
}

TEST(LossScalerTest, NeverBecomesZero) {
  LossScaler scaler = Make("backoff_factor: 0.001");
  for (int i = 0; i < 100; ++i) scaler.Update(false);
  EXPECT_GT(scaler.scale(), 0);
  EXPECT_TRUE(std::isfinite(1 / scaler.scale()));
}

// 2 * 65536 is infinite in float16.
TEST(LossScalerTest, ScalesALossOf16BitsInFloat32) {
  const LossScaler scaler = Make("");
  for (const at::ScalarType dtype :
       {at::kHalf, at::kBFloat16, at::kFloat, at::kDouble}) {
    const at::Tensor scaled = scaler.Scale(ops::full({}, 2, dtype));
    EXPECT_EQ(scaled.item<double>(), 131072) << c10::toString(dtype);
    EXPECT_EQ(scaled.scalar_type(), dtype == at::kDouble ? dtype : at::kFloat);
  }
}

struct UnscaleCase {
  const char* name;
  float bad;
  bool finite;
};

void PrintTo(const UnscaleCase& test, std::ostream* out) { *out << test.name; }

class LossScalerUnscaleTest : public ::testing::TestWithParam<UnscaleCase> {};

TEST_P(LossScalerUnscaleTest, DividesAndLooksAtEachElement) {
  const LossScaler scaler = Make("init_scale: 8");
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble, at::kBFloat16}) {
    SCOPED_TRACE(c10::toString(dtype));
    const std::vector<at::Tensor> grads = {
        ops::tensor({16.0, -4.0}).to(dtype),
        ops::full({3, 50}, 2, dtype),
    };
    grads[1][2].select(0, 49).fill_(GetParam().bad);
    EXPECT_EQ(LossScaler::AreFinite(scaler.Unscale(grads, 0.5)),
              GetParam().finite);
    EXPECT_EQ(grads[0][0].item<double>(), 1);
    EXPECT_EQ(grads[0][1].item<double>(), -0.25);
    EXPECT_EQ(grads[1][0][0].item<double>(), 0.125);
  }
}

INSTANTIATE_TEST_SUITE_P(
    , LossScalerUnscaleTest,
    ::testing::Values(UnscaleCase{"Finite", 2, true},
                      UnscaleCase{"Infinite", kInf, false},
                      UnscaleCase{"MinusInfinite", -kInf, false},
                      UnscaleCase{"NaN", kNaN, false}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(LossScalerTest, NoGradientsAreFinite) {
  EXPECT_TRUE(LossScaler::AreFinite(Make("").Unscale({}, 1)));
}

TEST(LossScalerTest, StateGoesOn) {
  const char kConfig[] = "init_scale: 1024 growth_interval: 5";
  LossScaler first = Make(kConfig);
  first.Update(false);
  for (int i = 0; i < 3; ++i) first.Update(true);
  LossScaleState state;
  first.SaveState(&state);
  LossScaler second = Make(kConfig);
  ASSERT_THAT(second.LoadState(state), IsOk());
  EXPECT_EQ(second.scale(), 512);
  second.Update(true);
  EXPECT_EQ(second.scale(), 512);
  second.Update(true);
  EXPECT_EQ(second.scale(), 1024);

  LossScaler fixed = Make("init_scale: 4 dynamic: false");
  ASSERT_THAT(fixed.LoadState(state), IsOk());
  EXPECT_EQ(fixed.scale(), 4);
}

TEST(LossScalerTest, RefusesDamagedStates) {
  LossScaler scaler = Make("");
  LossScaleState state;
  EXPECT_THAT(scaler.LoadState(state),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "scale: must be > 0 and a float32, is 0"));
  state.set_scale(2);
  state.set_good_steps(-1);
  EXPECT_THAT(scaler.LoadState(state),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "good_steps: must be >= 0, is -1"));
  EXPECT_EQ(scaler.scale(), 65536);
}

struct ErrorCase {
  const char* name;
  const char* config;
  const char* message;
};

void PrintTo(const ErrorCase& test, std::ostream* out) { *out << test.name; }

class LossScalerErrorTest : public ::testing::TestWithParam<ErrorCase> {};

TEST_P(LossScalerErrorTest, NamesTheField) {
  EXPECT_THAT(LossScaler::Create(Parse(GetParam().config)),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr(GetParam().message)));
}

INSTANTIATE_TEST_SUITE_P(
    Configs, LossScalerErrorTest,
    ::testing::Values(
        ErrorCase{"Zero", "init_scale: 0", "init_scale: must be > 0 and"},
        ErrorCase{"NaN", "init_scale: nan", "init_scale: must be > 0 and"},
        ErrorCase{"TooLarge", "init_scale: 1e39", "a float32, is 1e+39"},
        ErrorCase{"TooSmall", "init_scale: 1e-40", "a float32, is 1e-40"},
        ErrorCase{"Growth", "growth_factor: 1",
                  "growth_factor: must be finite and > 1, is 1"},
        ErrorCase{"InfiniteGrowth", "growth_factor: inf",
                  "growth_factor: must be finite and > 1, is inf"},
        ErrorCase{"Backoff", "backoff_factor: 1",
                  "backoff_factor: must be in (0, 1), is 1"},
        ErrorCase{"NaNBackoff", "backoff_factor: nan",
                  "backoff_factor: must be in (0, 1), is nan"},
        ErrorCase{"Interval", "growth_interval: 0",
                  "growth_interval: must be >= 1, is 0"},
        ErrorCase{"GrowthOfAFixedScale", "dynamic: false growth_interval: 5",
                  "are for a dynamic scale, dynamic is false"}),
    [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace grapnel
