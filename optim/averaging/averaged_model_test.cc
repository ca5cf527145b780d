// Run at three CPU capabilities: see BUILD.

#include "grapnel/optim/averaging/averaged_model.h"

#include <cmath>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ATen/Version.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "google/protobuf/duration.pb.h"
#include "google/protobuf/text_format.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/optim/averaging/averaging.pb.h"
#include "grapnel/optim/averaging/averaging_strategies.h"
#include "grapnel/optim/averaging/averaging_strategy.h"
#include "grapnel/optim/averaging/mixture.h"
#include "grapnel/tests/golden/golden_report.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace grapnel {

// A user's own strategy, with a borrowed message for its config: every new
// value counts for half.
class HalfAndHalf final : public AveragingStrategy {
 public:
  using Config = google::protobuf::Duration;
  static absl::StatusOr<std::unique_ptr<HalfAndHalf>> Create(const Config&) {
    return std::make_unique<HalfAndHalf>();
  }
  Mixture MixtureAt(int64_t, int64_t) const override { return {0.5}; }
};
GRAPNEL_REGISTER(AveragingStrategyRegistry, HalfAndHalf);

namespace {

using ::google::protobuf::TextFormat;
using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::Eq;
using ::testing::HasSubstr;
using ::testing::Pointwise;
using Json = nlohmann::ordered_json;

optim::v1::AveragedModelConfig Config(const std::string& text) {
  optim::v1::AveragedModelConfig config;
  EXPECT_TRUE(TextFormat::ParseFromString(text, &config)) << text;
  return config;
}

std::unique_ptr<AveragedModel> NewAverage(
    const std::string& config, const std::vector<NamedTensor>& parameters,
    const std::vector<NamedTensor>& buffers = {}) {
  auto options = AveragingOptions::FromConfig(Config(config));
  EXPECT_THAT(options, IsOk());
  if (!options.ok()) return nullptr;
  auto average =
      AveragedModel::Create(*std::move(options), parameters, buffers);
  EXPECT_THAT(average, IsOk());
  return average.ok() ? *std::move(average) : nullptr;
}

// ------------------------------------------------------------ golden tables

const char* const kGoldenFiles[] = {"averaged_ExponentialMovingAverage",
                                    "averaged_MomentumAnnealingEMA",
                                    "averaged_StochasticWeightAverage"};

Json ReadGolden(const std::string& name) {
  std::ifstream file("tests/golden/" + name + ".json");
  return Json::parse(file);
}

// Our config, in text, for MMEngine's arguments.
std::string ConfigFor(const std::string& file, const Json& args) {
  std::string strategy, rest;
  for (const auto& [name, value] : args.items()) {
    const std::string field = name + ": " + value.dump() + " ";
    (name == "momentum" || name == "gamma" ? strategy : rest) += field;
  }
  const std::string kind =
      file == kGoldenFiles[0]   ? "exponential_moving_average"
      : file == kGoldenFiles[1] ? "momentum_annealing_ema"
                                : "stochastic_weight_average";
  return "strategy { " + kind + " { " + strategy + "} } " + rest;
}

at::Tensor FromJson(const Json& json, c10::ScalarType dtype) {
  if (json.is_number_integer())
    return ops::full({}, json.get<int64_t>(), at::kLong);
  std::vector<double> values;
  std::vector<int64_t> shape = {static_cast<int64_t>(json.size())};
  for (const Json& row : json) {
    if (row.is_array()) {
      for (const Json& value : row) values.push_back(value.get<double>());
    } else {
      values.push_back(row.get<double>());
    }
  }
  if (json[0].is_array()) shape.push_back(static_cast<int64_t>(json[0].size()));
  return ops::tensor(values, at::kDouble).to(dtype).view(shape);
}

void AppendNumbers(const at::Tensor& tensor, std::vector<double>* numbers) {
  const at::Tensor flat = tensor.to(at::kDouble).contiguous();
  const double* const data = flat.const_data_ptr<double>();
  numbers->insert(numbers->end(), data, data + flat.numel());
}

TEST(AveragedModelTest, EqualsTheGoldenTables) {
  // MMEngine ran where LibTorch has fused multiply-add. Elsewhere its operators
  // round twice, and so do we.
  const bool fused = at::get_cpu_capability() != "DEFAULT";
  int cases = 0;
  for (const std::string file : kGoldenFiles) {
    const Json golden = ReadGolden(file);
    for (const Json& c : golden["cases"]) {
      const std::string name = c["name"];
      SCOPED_TRACE(file + " " + name);
      const c10::ScalarType dtype =
          c["dtype"] == "float32" ? at::kFloat : at::kDouble;
      std::vector<NamedTensor> parameters, buffers;
      for (const char* key : {"w", "b"}) {
        parameters.push_back({key, FromJson(c["initial"][key], dtype)});
      }
      for (const char* key : {"run", "count"}) {
        buffers.push_back({key, FromJson(c["initial"][key], dtype)});
      }
      const auto average =
          NewAverage(ConfigFor(file, c["args"]), parameters, buffers);
      ASSERT_NE(average, nullptr);
      ASSERT_FALSE(c["rows"].empty());
      std::vector<double> ours, expected;
      for (const Json& row : c["rows"]) {
        for (const auto* tensors : {&parameters, &buffers}) {
          for (const NamedTensor& tensor : *tensors) {
            tensor.tensor.copy_(FromJson(row["src"][tensor.name], dtype));
          }
        }
        ASSERT_THAT(average->Update(), IsOk());
        ASSERT_EQ(average->steps(), row["steps"].get<int64_t>());
        for (const NamedTensor& tensor : average->tensors()) {
          AppendNumbers(tensor.tensor, &ours);
          AppendNumbers(FromJson(row["avg"][tensor.name], dtype), &expected);
        }
      }
      ++cases;
      if (fused) {
        EXPECT_GOLDEN(GoldenCase(file + ".json", "cases/" + name), ours,
                      Pointwise(Eq(), expected));
      } else {
        const double tolerance = dtype == at::kFloat ? 3e-7 : 5e-16;
        EXPECT_THAT(ours, Pointwise(DoubleNear(tolerance), expected));
      }
    }
  }
  EXPECT_EQ(cases, 26);
}

TEST(AveragedModelTest, RefusesWhatTheGoldenErrorsRefuse) {
  for (const std::string file : kGoldenFiles) {
    const Json golden = ReadGolden(file);
    int index = 0;
    for (const Json& c : golden["errors"]) {
      const std::string text = ConfigFor(file, c["args"]);
      SCOPED_TRACE(file + " " + text);
      const std::string field = c["args"].begin().key();
      GoldenCase golden_case(file + ".json",
                             "errors/" + std::to_string(index++));
      optim::v1::AveragedModelConfig config;
      if (c["error"] == "TypeError") {
        // An argument that the class doesn't have is a field that the message
        // doesn't have.
        EXPECT_GOLDEN(golden_case, TextFormat::ParseFromString(text, &config),
                      Eq(false));
      } else {
        ASSERT_TRUE(TextFormat::ParseFromString(text, &config));
        if (field == "interval") {
          golden_case.difference =
              "refused at construction, not at the second update";
        }
        EXPECT_GOLDEN(golden_case, AveragingOptions::FromConfig(config),
                      StatusIs(absl::StatusCode::kInvalidArgument,
                               HasSubstr(field + ": must be ")));
      }
    }
  }
}

// ------------------------------------------------------------------ options

struct BadConfig {
  std::string name, config, error;
};

class AveragingOptionsTest : public testing::TestWithParam<BadConfig> {};

TEST_P(AveragingOptionsTest, NamesTheFieldThatIsWrong) {
  EXPECT_THAT(AveragingOptions::FromConfig(Config(GetParam().config)),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr(GetParam().error)));
}

INSTANTIATE_TEST_SUITE_P(
    Bad, AveragingOptionsTest,
    testing::Values(
        BadConfig{"MomentumNan",
                  "strategy { exponential_moving_average { momentum: nan } }",
                  "strategy: momentum: must be > 0 and < 1, is nan"},
        BadConfig{"DecayOne",
                  "strategy { exponential_moving_average { decay: 1 } }",
                  "strategy: decay: must be > 0 and < 1, is 1"},
        BadConfig{"Both",
                  "strategy { momentum_annealing_ema { momentum: 0.1 "
                  "decay: 0.9 } }",
                  "at most one may be set"},
        BadConfig{"GammaInfinite",
                  "strategy { momentum_annealing_ema { gamma: inf } }",
                  "strategy: gamma: must be finite and > 0, is inf"},
        BadConfig{"NoKind", "strategy {}", "strategy: "},
        BadConfig{"Interval", "interval: -2", "interval: must be >= 1, is -2"},
        BadConfig{"Device", "device: 'gpu0'",
                  "device: must be \"auto\", \"cpu\", \"cuda\" or "
                  "\"cuda:<number>\", is \"gpu0\""},
        BadConfig{"MetaDevice", "device: 'meta'", "device: must be"},
        BadConfig{"Dtype", "dtype: 'int8'",
                  "dtype: must be float32, float64, float16 or bfloat16, is "
                  "\"int8\""}),
    [](const auto& info) { return info.param.name; });

TEST(AveragingOptionsTest, DefaultsAreMMEngines) {
  const auto options = AveragingOptions::FromConfig({});
  ASSERT_THAT(options, IsOk());
  EXPECT_EQ(options->interval, 1);
  EXPECT_FALSE(options->update_buffers);
  EXPECT_FALSE(options->device.has_value());
  EXPECT_FALSE(options->dtype.has_value());
  EXPECT_EQ(options->strategy->MixtureAt(1, 1).weight, 0.0002);
}

TEST(AveragingOptionsTest, StrategiesCanBeMadeWithoutAConfig) {
  const auto ema = EMAStrategy(0.25);
  ASSERT_THAT(ema, IsOk());
  EXPECT_EQ((*ema)->MixtureAt(7, 7).weight, 0.25);
  const auto annealing = MomentumAnnealingEMAStrategy(0.25, 3);
  ASSERT_THAT(annealing, IsOk());
  EXPECT_EQ((*annealing)->MixtureAt(1, 1).weight, 0.75);
  EXPECT_EQ((*annealing)->MixtureAt(100, 100).weight, 0.25);
  const auto swa = SWAStrategy();
  ASSERT_THAT(swa, IsOk());
  EXPECT_EQ((*swa)->MixtureAt(3, 1).weight, 0.25);
  EXPECT_THAT(EMAStrategy(1.5).status(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("momentum: must be > 0 and < 1, is 1.5")));
}

TEST(AveragingOptionsTest, DecayIsTheComplementOfMomentum) {
  const auto options = AveragingOptions::FromConfig(
      Config("strategy { exponential_moving_average { decay: 0.75 } }"));
  ASSERT_THAT(options, IsOk());
  EXPECT_EQ(options->strategy->MixtureAt(7, 1).weight, 0.25);
}

TEST(AveragingOptionsTest, AMomentumThatIsADecayIsWarnedOf) {
  const auto warnings = [](const std::string& strategy) {
    const auto options =
        AveragingOptions::FromConfig(Config("strategy { " + strategy + " }"));
    EXPECT_THAT(options, IsOk());
    return options->strategy->warnings();
  };
  const char kSays[] =
      "momentum: is 0.9, the weight of the new value, and so hardly an "
      "average; for a decay of 0.9 set decay";
  EXPECT_THAT(warnings("exponential_moving_average { momentum: 0.9 }"),
              ElementsAre(kSays));
  EXPECT_THAT(warnings("momentum_annealing_ema { momentum: 0.9 }"),
              ElementsAre(kSays));
  EXPECT_THAT(warnings("exponential_moving_average { momentum: 0.5 }"),
              ElementsAre());
  EXPECT_THAT(warnings("stochastic_weight_average {}"), ElementsAre());
}

TEST(AveragingOptionsTest, AUsersOwnStrategyIsTaken) {
  optim::v1::AveragedModelConfig config;
  config.mutable_strategy()->mutable_custom()->PackFrom(HalfAndHalf::Config());
  auto options = AveragingOptions::FromConfig(config);
  ASSERT_THAT(options, IsOk());
  const at::Tensor w = ops::zeros({2});
  const auto average = AveragedModel::Create(*std::move(options), {{"w", w}});
  ASSERT_THAT(average, IsOk());
  ASSERT_THAT((*average)->Update(), IsOk());
  w.fill_(4);
  ASSERT_THAT((*average)->Update(), IsOk());
  EXPECT_TRUE((*average)->tensors()[0].tensor.equal(ops::full({2}, 2.0F)));
}

// -------------------------------------------------------------------- model

TEST(AveragedModelTest, MomentumAnnealingFallsToTheMomentum) {
  const auto options = AveragingOptions::FromConfig(
      Config("strategy { momentum_annealing_ema { momentum: 0.1 gamma: 4 } }"));
  ASSERT_THAT(options, IsOk());
  EXPECT_EQ(options->strategy->MixtureAt(1, 1).weight, 0.8);
  EXPECT_EQ(options->strategy->MixtureAt(4, 2).weight, 0.5);
  EXPECT_EQ(options->strategy->MixtureAt(36, 1).weight, 0.1);
  EXPECT_EQ(options->strategy->MixtureAt(1000, 1).weight, 0.1);
}

TEST(AveragedModelTest, TheAverageMayHaveAnotherType) {
  const at::Tensor w = ops::full({3}, 1, at::kBFloat16).set_requires_grad(true);
  const auto average = NewAverage(
      "strategy { exponential_moving_average { momentum: 0.001 } } "
      "dtype: 'float32' device: 'cpu'",
      {{"w", w}});
  ASSERT_NE(average, nullptr);
  EXPECT_EQ(average->tensors()[0].tensor.scalar_type(), at::kFloat);
  EXPECT_FALSE(average->tensors()[0].tensor.requires_grad());
  ASSERT_THAT(average->Update(), IsOk());
  w.detach().fill_(2);
  ASSERT_THAT(average->Update(), IsOk());
  // A bfloat16 would still say 1.
  EXPECT_FLOAT_EQ(average->tensors()[0].tensor[0].item<float>(), 1.001F);

  auto scope = AverageScope::Enter(average.get());
  ASSERT_THAT(scope, IsOk());
  EXPECT_EQ(w[0].item<float>(), 1);
  ASSERT_THAT(scope->Leave(), IsOk());
  EXPECT_EQ(w[0].item<float>(), 2);
  EXPECT_FLOAT_EQ(average->tensors()[0].tensor[0].item<float>(), 1.001F);
}

TEST(AveragedModelTest, WithoutUpdateBuffersThoseOfTheModelAreUsed) {
  const at::Tensor w = ops::zeros({2}), run = ops::zeros({2});
  const auto average = NewAverage("", {{"w", w}}, {{"run", run}});
  ASSERT_NE(average, nullptr);
  run.fill_(3);
  const auto state = average->State();
  ASSERT_THAT(state, IsOk());
  EXPECT_TRUE(state->Find("run")->equal(ops::full({2}, 3.0F)));
  EXPECT_EQ(state->Find("run")->const_data_ptr(), run.const_data_ptr());
}

TEST(AveragedModelTest, SourceStateIsTheModelInTheAveragesType) {
  const at::Tensor w = ops::zeros({2}).set_requires_grad(true);
  const at::Tensor run = ops::zeros({2});
  for (const bool converted : {false, true}) {
    const auto average = NewAverage(converted ? "dtype: 'float64'" : "",
                                    {{"w", w}}, {{"run", run}});
    ASSERT_NE(average, nullptr);
    w.detach().fill_(5);
    const auto state = average->SourceState();
    ASSERT_THAT(state, IsOk());
    const at::Tensor& found = *state->Find("w");
    EXPECT_EQ(found.scalar_type(), converted ? at::kDouble : at::kFloat);
    EXPECT_FALSE(found.requires_grad());
    EXPECT_EQ(found[1].item<double>(), 5);
    EXPECT_EQ(found.const_data_ptr() == w.const_data_ptr(), !converted);
    EXPECT_EQ(state->Find("run")->const_data_ptr(), run.const_data_ptr());
    EXPECT_EQ(average->tensors()[0].tensor[0].item<double>(), 0)
        << "it only looks";
    w.detach().fill_(0);
  }
}

TEST(AveragedModelTest, LoadTakesAveragesByName) {
  const at::Tensor a = ops::zeros({2}), b = ops::zeros({3}),
                   run = ops::zeros({1});
  const auto average = NewAverage("", {{"a", a}, {"b", b}}, {{"run", run}});
  ASSERT_NE(average, nullptr);
  TensorMap saved;
  ASSERT_THAT(saved.Add("b", ops::ones({3}, at::kDouble)), IsOk());
  ASSERT_THAT(saved.Add("run", ops::ones({1})), IsOk());
  ASSERT_THAT(saved.Add("old", ops::ones({1})), IsOk());
  std::vector<std::string> report;
  ASSERT_THAT(average->Load(saved, /*strict=*/false, &report), IsOk());
  EXPECT_THAT(report, ElementsAre("missing: a", "unexpected: old"));
  EXPECT_TRUE(average->tensors()[0].tensor.equal(ops::zeros({2})));
  EXPECT_TRUE(average->tensors()[1].tensor.equal(ops::ones({3})));
  EXPECT_TRUE(run.equal(ops::zeros({1}))) << "the model's own buffer";

  EXPECT_THAT(
      average->Load(saved, /*strict=*/true, nullptr),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("missing: a")));
}

TEST(AveragedModelTest, ALoadThatFailsChangesNothing) {
  const auto average =
      NewAverage("", {{"a", ops::zeros({2})}, {"b", ops::zeros({3})}});
  ASSERT_NE(average, nullptr);
  TensorMap saved;
  ASSERT_THAT(saved.Add("a", ops::ones({2})), IsOk());
  ASSERT_THAT(saved.Add("b", ops::ones({4})), IsOk());
  EXPECT_THAT(average->Load(saved, false, nullptr),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("\"b\"")));
  EXPECT_TRUE(average->tensors()[0].tensor.equal(ops::zeros({2})));
}

TEST(AveragedModelTest, RefusesNamesThatAreThereTwiceAndIntegers) {
  auto create = [](const std::vector<NamedTensor>& parameters) {
    auto options = AveragingOptions::FromConfig({});
    EXPECT_THAT(options, IsOk());
    return AveragedModel::Create(*std::move(options), parameters).status();
  };
  EXPECT_THAT(create({{"w", ops::zeros({1})}, {"w", ops::zeros({1})}}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("\"w\" is there twice")));
  EXPECT_THAT(create({{"w", ops::zeros({1}, at::kLong)}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("\"w\"")));
}

// -------------------------------------------------------------------- scope

TEST(AverageScopeTest, ExchangesValuesInPlaceAndBack) {
  const at::Tensor w = ops::zeros({5}).set_requires_grad(true);
  const at::Tensor run = ops::full({2}, 1.0F);
  const at::Tensor count = ops::full({}, 1, at::kLong);
  const auto average = NewAverage(
      "strategy { stochastic_weight_average {} } "
      "update_buffers: true",
      {{"w", w}}, {{"run", run}, {"count", count}});
  ASSERT_NE(average, nullptr);
  const void* const data = w.const_data_ptr();
  ASSERT_THAT(average->Update(), IsOk());
  w.detach().fill_(4);
  run.fill_(3);
  count.fill_(2);
  ASSERT_THAT(average->Update(), IsOk());
  {
    const auto version = w._version();
    auto scope = AverageScope::Enter(average.get());
    ASSERT_THAT(scope, IsOk());
    EXPECT_EQ(w.const_data_ptr(), data);
    EXPECT_TRUE(w.equal(ops::full({5}, 2.0F)));
    EXPECT_TRUE(run.equal(ops::full({2}, 2.0F)));
    EXPECT_EQ(count.item<int64_t>(), 1) << "integers are those of the first";
    EXPECT_GT(w._version(), version) << "autograd must notice";

    const auto state = average->State();
    ASSERT_THAT(state, IsOk());
    EXPECT_TRUE(state->Find("w")->equal(ops::full({5}, 2.0F)));
    EXPECT_FALSE(state->Find("w")->requires_grad());

    // Neither does anything else meanwhile.
    EXPECT_THAT(AverageScope::Enter(average.get()),
                StatusIs(absl::StatusCode::kFailedPrecondition, testing::_));
    EXPECT_THAT(average->Update(),
                StatusIs(absl::StatusCode::kFailedPrecondition, testing::_));
    EXPECT_THAT(average->CopySource(),
                StatusIs(absl::StatusCode::kFailedPrecondition, testing::_));
    EXPECT_THAT(average->Load({}, false, nullptr),
                StatusIs(absl::StatusCode::kFailedPrecondition, testing::_));
  }
  EXPECT_TRUE(w.equal(ops::full({5}, 4.0F)));
  EXPECT_TRUE(run.equal(ops::full({2}, 3.0F)));
  EXPECT_EQ(count.item<int64_t>(), 2);
  EXPECT_TRUE(average->tensors()[0].tensor.equal(ops::full({5}, 2.0F)));
}

TEST(AverageScopeTest, WeightsUnderTwoNamesComeBackToo) {
  const at::Tensor w = ops::zeros({4});
  const auto average = NewAverage("strategy { stochastic_weight_average {} }",
                                  {{"encoder", w}, {"decoder", w}});
  ASSERT_NE(average, nullptr);
  ASSERT_THAT(average->Update(), IsOk());
  w.fill_(4);
  ASSERT_THAT(average->Update(), IsOk());
  auto scope = AverageScope::Enter(average.get());
  ASSERT_THAT(scope, IsOk());
  EXPECT_TRUE(w.equal(ops::full({4}, 2.0F)));
  ASSERT_THAT(scope->Leave(), IsOk());
  EXPECT_TRUE(w.equal(ops::full({4}, 4.0F)));
  for (const NamedTensor& tensor : average->tensors()) {
    EXPECT_TRUE(tensor.tensor.equal(ops::full({4}, 2.0F))) << tensor.name;
  }
}

TEST(AverageScopeTest, TensorsWithGapsAreSwappedByCopies) {
  const at::Tensor whole = ops::zeros({4, 4});
  const at::Tensor w = whole.slice(1, 0, 2);
  const auto average =
      NewAverage("strategy { stochastic_weight_average {} }", {{"w", w}});
  ASSERT_NE(average, nullptr);
  ASSERT_THAT(average->Update(), IsOk());
  w.fill_(2);
  ASSERT_THAT(average->Update(), IsOk());
  {
    const auto scope = AverageScope::Enter(average.get());
    ASSERT_THAT(scope, IsOk());
    EXPECT_EQ(whole.sum().item<float>(), 8);
  }
  EXPECT_EQ(whole.sum().item<float>(), 16);
}

// As torch::nn::Module::to() moves a model.
TEST(AverageScopeTest, WeightsThatChangeTheirTypeInAScopeComeBack) {
  const at::Tensor w = ops::zeros({5}).set_requires_grad(true);
  const auto average =
      NewAverage("strategy { stochastic_weight_average {} }", {{"w", w}});
  ASSERT_NE(average, nullptr);
  ASSERT_THAT(average->Update(), IsOk());
  w.detach().fill_(4);
  ASSERT_THAT(average->Update(), IsOk());
  for (const c10::ScalarType type : {at::kHalf, at::kDouble, at::kFloat}) {
    {
      const auto scope = AverageScope::Enter(average.get());
      ASSERT_THAT(scope, IsOk());
      w.set_data(w.detach().to(type));
      EXPECT_TRUE(w.equal(ops::full({5}, 2, type)));
    }
    EXPECT_TRUE(w.equal(ops::full({5}, 4, type)));
    EXPECT_TRUE(average->tensors()[0].tensor.equal(ops::full({5}, 2.0F)));
  }
}

TEST(AverageScopeTest, WeightsThatCannotComeBackAreNotForgotten) {
  const at::Tensor w = ops::full({5}, 1.0F), v = ops::full({2}, 1.0F);
  const auto average = NewAverage("", {{"w", w}, {"v", v}});
  ASSERT_NE(average, nullptr);
  w.fill_(4);
  v.fill_(4);
  auto scope = AverageScope::Enter(average.get());
  ASSERT_THAT(scope, IsOk());
  w.set_data(ops::zeros({9}));
  EXPECT_THAT(scope->Leave(),
              StatusIs(absl::StatusCode::kInternal, testing::_));
  EXPECT_TRUE(v.equal(ops::full({2}, 4.0F)));
  EXPECT_THAT(average->Update(),
              StatusIs(absl::StatusCode::kFailedPrecondition, testing::_));
  EXPECT_THAT(AverageScope::Enter(average.get()),
              StatusIs(absl::StatusCode::kFailedPrecondition, testing::_));
}

}  // namespace
}  // namespace grapnel
