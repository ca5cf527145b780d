#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <ostream>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/data/sample.h"
#include "grapnel/data/sample_rng.h"
#include "grapnel/data/transform.h"
#include "grapnel/data/transform.pb.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::ElementsAreArray;
using ::testing::FloatNear;
using ::testing::HasSubstr;
using ::testing::Pointwise;
using ::testing::TestWithParam;
using ::testing::ValuesIn;

data::v1::TransformConfig Parse(const std::string& text) {
  data::v1::TransformConfig config;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &config))
      << text;
  return config;
}

std::unique_ptr<Transform> NewTransform(const std::string& config) {
  auto transform = TransformRegistry::Create(Parse(config));
  EXPECT_THAT(transform, IsOk()) << config;
  return *std::move(transform);
}

// 1 to n in row-major order.
at::Tensor Counting(at::IntArrayRef shape) {
  int64_t n = 1;
  for (const int64_t side : shape) n *= side;
  return ops::arange(1, n + 1, at::kFloat).reshape(shape);
}

std::vector<float> Values(const at::Tensor& tensor) {
  const float* data = tensor.const_data_ptr<float>();
  return std::vector<float>(data, data + tensor.numel());
}

at::Tensor Applied(const Transform& transform, const at::Tensor& input,
                   uint64_t position = 0) {
  Sample sample;
  sample.input = input;
  SampleRng rng(1, 2, position);
  EXPECT_THAT(transform.Apply(rng, &sample), IsOk());
  return sample.input;
}

// --- What is not random ---

struct ExactCase {
  std::string name;
  std::string config;
  at::Tensor input;
  std::vector<int64_t> shape;
  std::vector<float> output;
};

void PrintTo(const ExactCase& c, std::ostream* os) { *os << c.config; }

class ExactTransformTest : public TestWithParam<ExactCase> {};

INSTANTIATE_TEST_SUITE_P(
    , ExactTransformTest,
    ValuesIn(std::vector<ExactCase>{
        {"Scale",
         "scale { factor: 2 offset: -1 }",
         Counting({1, 1, 3}),
         {1, 1, 3},
         {1, 3, 5}},
        {"ScaleOfBytes",
         "scale { factor: 0.5 }",
         Counting({2, 2}).to(at::kByte),
         {2, 2},
         {0.5, 1, 1.5, 2}},
        {"ScaleOfScalar",
         "scale { factor: 3 }",
         Counting({1}).select(0, 0),
         {},
         {3}},
        {"NormalizeByOne",
         "normalize { mean: 1 std: 2 }",
         Counting({2, 1, 2}),
         {2, 1, 2},
         {0, 0.5, 1, 1.5}},
        {"NormalizeByChannel",
         "normalize { mean: 1 mean: 3 std: 1 std: 0.5 }",
         Counting({2, 1, 2}),
         {2, 1, 2},
         {0, 1, 0, 2}},
        {"FlipHorizontal",
         "random_flip { p: 1 }",
         Counting({1, 3, 3}),
         {1, 3, 3},
         {3, 2, 1, 6, 5, 4, 9, 8, 7}},
        {"FlipVertical",
         "random_flip { p: 1 direction: VERTICAL }",
         Counting({1, 3, 3}),
         {1, 3, 3},
         {7, 8, 9, 4, 5, 6, 1, 2, 3}},
        {"FlipOfEachChannel",
         "random_flip { p: 1 }",
         Counting({2, 1, 2}),
         {2, 1, 2},
         {2, 1, 4, 3}},
        {"FlipNever",
         "random_flip { p: 0 }",
         Counting({1, 1, 3}),
         {1, 1, 3},
         {1, 2, 3}},
        {"FlipOfTransposed",
         "random_flip { p: 1 }",
         Counting({1, 2, 3}).transpose(1, 2),
         {1, 3, 2},
         {4, 1, 5, 2, 6, 3}},
        {"CropOfAll",
         "random_crop { height: 3 width: 3 }",
         Counting({1, 3, 3}),
         {1, 3, 3},
         {1, 2, 3, 4, 5, 6, 7, 8, 9}},
        {"CropOfAllAndItsPadding",
         "random_crop { height: 3 width: 4 padding: 1 }",
         Counting({1, 1, 2}),
         {1, 3, 4},
         {0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0}},
        {"AffineByDefaultChangesNothing",
         "random_affine {}",
         Counting({2, 3, 3}),
         {2, 3, 3},
         {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18}},
        // Pixels of the output lie half as far from the centre in the input.
        {"AffineDoubles",
         "random_affine { scale_min: 2 scale_max: 2 }",
         Counting({1, 3, 3}),
         {1, 3, 3},
         {3, 3.5, 4, 4.5, 5, 5.5, 6, 6.5, 7}},
        // Twice as far: corners are outside, where all is 0.
        {"AffineHalves",
         "random_affine { scale_min: 0.5 scale_max: 0.5 }",
         Counting({1, 3, 3}),
         {1, 3, 3},
         {0, 0, 0, 0, 5, 0, 0, 0, 0}},
        // At 1.5 times the distance a border pixel lies half outside.
        {"AffineFadesOut",
         "random_affine { scale_min: 0.6666666666666666 "
         "scale_max: 0.6666666666666666 }",
         ops::full({1, 3, 3}, 4.0f),
         {1, 3, 3},
         {1, 2, 1, 2, 4, 2, 1, 2, 1}},
    }),
    [](const auto& info) { return info.param.name; });

TEST_P(ExactTransformTest, GivesTheseValues) {
  const ExactCase& c = GetParam();
  const auto transform = NewTransform(c.config);
  const at::Tensor output = Applied(*transform, c.input);
  ASSERT_EQ(output.sizes(), at::IntArrayRef(c.shape));
  EXPECT_THAT(Values(output.contiguous()),
              Pointwise(FloatNear(1e-5f), c.output));
}

// --- All of them ---

class AnyTransformTest : public TestWithParam<const char*> {};

const char kAffine[] =
    "random_affine { degrees: 30 translate: 0.2 scale_min: 0.8 scale_max: 1.2 "
    "shear: 10 }";

INSTANTIATE_TEST_SUITE_P(
    , AnyTransformTest,
    testing::Values("scale { factor: 2 }", "normalize { mean: 1 std: 2 }",
                    "random_flip {}", "random_flip { direction: VERTICAL }",
                    "random_crop { height: 6 width: 5 padding: 2 }", kAffine));

TEST_P(AnyTransformTest, DoesNotWriteIntoItsInput) {
  const auto transform = NewTransform(GetParam());
  const at::Tensor input = Counting({3, 8, 8});
  for (uint64_t position = 0; position < 10; ++position) {
    Applied(*transform, input, position);
  }
  EXPECT_TRUE(ops::equal(input, Counting({3, 8, 8})));
}

TEST_P(AnyTransformTest, DependsOnTheRandomStreamAlone) {
  const auto transform = NewTransform(GetParam());
  const auto other = NewTransform(GetParam());
  const at::Tensor input = Counting({3, 8, 8});
  std::vector<at::Tensor> outputs;
  for (uint64_t position = 0; position < 20; ++position) {
    outputs.push_back(Applied(*transform, input, position));
  }
  for (uint64_t position = 20; position-- > 0;) {
    EXPECT_TRUE(
        ops::equal(Applied(*other, input, position), outputs[position]));
  }
}

TEST_P(AnyTransformTest, KeepsTargetAndExtras) {
  const auto transform = NewTransform(GetParam());
  Sample sample;
  sample.input = Counting({1, 8, 8});
  sample.target = ops::full({}, 3, at::kLong);
  sample.extras = {{"weight", ops::full({}, 0.5)}};
  const at::Tensor target = sample.target;
  SampleRng rng(0, 0, 0);
  ASSERT_THAT(transform->Apply(rng, &sample), IsOk());
  EXPECT_TRUE(sample.target.is_same(target));
  EXPECT_EQ(sample.extras.size(), 1u);
}

TEST_P(AnyTransformTest, NamesDtypeAndShapeOfWhatItRefuses) {
  const auto transform = NewTransform(GetParam());
  Sample sample;
  sample.input = ops::zeros({3, 8, 8}, at::kLong);
  SampleRng rng(0, 0, 0);
  EXPECT_THAT(transform->Apply(rng, &sample),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("is int64 (3, 8, 8)")));
  sample.input = at::Tensor();
  EXPECT_THAT(transform->Apply(rng, &sample),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("input: must be defined")));
}

// --- What is random ---

TEST(RandomFlipTest, FlipsAsOftenAsAsked) {
  const auto transform = NewTransform("random_flip { p: 0.3 }");
  const at::Tensor input = Counting({1, 1, 2});
  int flipped = 0;
  constexpr int kSamples = 10000;
  for (int i = 0; i < kSamples; ++i) {
    flipped += Values(Applied(*transform, input, i))[0] == 2;
  }
  // Five standard deviations.
  EXPECT_NEAR(flipped, 0.3 * kSamples, 5 * std::sqrt(kSamples * 0.21));
}

TEST(RandomCropTest, EveryWindowComesUpWithTheRightContent) {
  const auto transform =
      NewTransform("random_crop { height: 2 width: 2 padding: 1 }");
  // A 2 x 2 image, padded: nine windows.
  const float padded[4][4] = {
      {0, 0, 0, 0}, {0, 1, 2, 0}, {0, 3, 4, 0}, {0, 0, 0, 0}};
  std::set<std::vector<float>> windows;
  for (int y = 0; y < 3; ++y) {
    for (int x = 0; x < 3; ++x) {
      windows.insert({padded[y][x], padded[y][x + 1], padded[y + 1][x],
                      padded[y + 1][x + 1]});
    }
  }
  std::set<std::vector<float>> seen;
  for (int i = 0; i < 200; ++i) {
    seen.insert(Values(Applied(*transform, Counting({1, 2, 2}), i)));
  }
  EXPECT_EQ(seen, windows);
}

TEST(RandomCropTest, WindowMustFit) {
  const auto transform =
      NewTransform("random_crop { height: 4 width: 2 padding: 1 }");
  Sample sample;
  sample.input = Counting({1, 1, 9});
  SampleRng rng(0, 0, 0);
  EXPECT_THAT(transform->Apply(rng, &sample),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("at least 4 x 2 after padding 1 on each "
                                 "side, is float32 (1, 1, 9)")));
}

// A transform draws its angle first, so the test knows it.
TEST(RandomAffineTest, TurnsClockwiseByTheAngleDrawn) {
  const auto transform = NewTransform("random_affine { degrees: 180 }");
  // One bright pixel straight up from the centre.
  at::Tensor input = ops::zeros({1, 41, 41});
  input[0][5][20] = 1;
  for (uint64_t position = 0; position < 20; ++position) {
    const double angle =
        SampleRng(1, 2, position).Uniform(-180, 180) * M_PI / 180;
    const std::vector<float> values =
        Values(Applied(*transform, input, position));
    double sum = 0, x = 0, y = 0;
    for (int i = 0; i < 41 * 41; ++i) {
      sum += values[i];
      x += values[i] * (i % 41);
      y += values[i] * (i / 41);
    }
    EXPECT_NEAR(x / sum, 20 + 15 * std::sin(angle), 0.5) << position;
    EXPECT_NEAR(y / sum, 20 - 15 * std::cos(angle), 0.5) << position;
  }
}

TEST(RandomAffineTest, ShiftsWithinThePartAsked) {
  const auto transform = NewTransform("random_affine { translate: 0.25 }");
  at::Tensor input = ops::zeros({1, 21, 41});
  input[0][10][20] = 1;
  double min_x = 41, max_x = 0, min_y = 21, max_y = 0;
  for (uint64_t position = 0; position < 300; ++position) {
    const std::vector<float> values =
        Values(Applied(*transform, input, position));
    double sum = 0, x = 0, y = 0;
    for (int i = 0; i < 21 * 41; ++i) {
      sum += values[i];
      x += values[i] * (i % 41);
      y += values[i] * (i / 41);
    }
    EXPECT_NEAR(sum, 1, 1e-4);
    min_x = std::min(min_x, x / sum);
    max_x = std::max(max_x, x / sum);
    min_y = std::min(min_y, y / sum);
    max_y = std::max(max_y, y / sum);
  }
  EXPECT_NEAR(min_x, 20 - 41 * 0.25, 0.5);
  EXPECT_NEAR(max_x, 20 + 41 * 0.25, 0.5);
  EXPECT_NEAR(min_y, 10 - 21 * 0.25, 0.5);
  EXPECT_NEAR(max_y, 10 + 21 * 0.25, 0.5);
}

TEST(RandomAffineTest, ShearMovesRowsSideways) {
  const auto transform = NewTransform("random_affine { shear: 45 }");
  at::Tensor input = ops::zeros({1, 5, 41});
  for (int y = 0; y < 5; ++y) input[0][y][20] = 1;
  for (uint64_t position = 0; position < 10; ++position) {
    SampleRng rng(1, 2, position);
    for (int i = 0; i < 4; ++i) rng.Next();
    const double shear = std::tan(rng.Uniform(-45, 45) * M_PI / 180);
    const at::Tensor output = Applied(*transform, input, position);
    for (int y = 0; y < 5; ++y) {
      const std::vector<float> row = Values(output[0][y]);
      double sum = 0, x = 0;
      for (int i = 0; i < 41; ++i) {
        sum += row[i];
        x += row[i] * i;
      }
      EXPECT_NEAR(x / sum, 20 + shear * (y - 2), 1e-3) << position;
    }
  }
}

// --- Configs ---

struct BadConfig {
  std::string field;
  std::string config;
};

TEST(TransformsTest, BadConfigNamesTheField) {
  for (const auto& [field, config] : std::vector<BadConfig>{
           {"factor", "scale {}"},
           {"factor", "scale { factor: nan }"},
           {"factor", "scale { factor: -1e39 }"},
           {"factor", "scale { factor: 1e-60 }"},
           {"offset", "scale { factor: 1 offset: inf }"},
           {"offset", "scale { factor: 1 offset: 1e39 }"},
           {"offset", "scale { factor: 1 offset: -1e-60 }"},
           {"mean", "normalize { std: 1 }"},
           {"mean[1]", "normalize { mean: 1 mean: inf std: 1 std: 1 }"},
           {"mean[0]", "normalize { mean: 1e39 std: 1 }"},
           {"mean[0]", "normalize { mean: 1e-60 std: 1 }"},
           {"std", "normalize { mean: 1 mean: 1 std: 1 }"},
           {"std[0]", "normalize { mean: 1 std: 0 }"},
           {"std[0]", "normalize { mean: 1 std: -1 }"},
           {"std[0]", "normalize { mean: 1 std: nan }"},
           {"std[0]", "normalize { mean: 1 std: 1e39 }"},
           {"std[0]", "normalize { mean: 1 std: 1e-60 }"},
           {"p", "random_flip { p: 1.1 }"},
           {"p", "random_flip { p: nan }"},
           {"direction", "random_flip { direction: 5 }"},
           {"height", "random_crop { width: 2 }"},
           {"width", "random_crop { height: 2 }"},
           {"padding", "random_crop { height: 2 width: 2 padding: -1 }"},
           {"degrees", "random_affine { degrees: 181 }"},
           {"degrees", "random_affine { degrees: nan }"},
           {"translate", "random_affine { translate: 1.5 }"},
           {"scale_min", "random_affine { scale_min: 0 }"},
           {"scale_max", "random_affine { scale_max: inf }"},
           {"scale_min", "random_affine { scale_min: 2 scale_max: 1 }"},
           {"scale_min", "random_affine { scale_min: 1.5 }"},
           {"shear", "random_affine { shear: 90 }"},
       }) {
    EXPECT_THAT(TransformRegistry::Create(Parse(config)),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr(absl::StrCat(field, ": must"))))
        << config;
  }
}

TEST(NormalizeTest, ChannelsMustMatch) {
  const auto transform =
      NewTransform("normalize { mean: 1 mean: 2 std: 1 std: 1 }");
  Sample sample;
  sample.input = Counting({3, 2, 2});
  SampleRng rng(0, 0, 0);
  EXPECT_THAT(transform->Apply(rng, &sample),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("must have 2 channels, one for each mean, is "
                                 "float32 (3, 2, 2)")));
}

}  // namespace
}  // namespace grapnel
