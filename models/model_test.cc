#include "grapnel/models/model.h"

#include <ostream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/data/sample.h"
#include "grapnel/dist/single_process_group.h"
#include "grapnel/models/log_vars.h"
#include "grapnel/optim/optim_wrapper.h"
#include "grapnel/optim/optim_wrapper.pb.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::TestWithParam;
using ::testing::ValuesIn;

// Gives the losses that the test says, each multiplied by its only parameter.
class FakeModel : public Model {
 public:
  absl::Status ComputeLosses(const Batch& /*batch*/, LogVars* out) override {
    if (throws) throw std::runtime_error("no more data");
    wanted_weights = out->wants_weights();
    for (size_t i = 0; i < losses.size(); ++i) {
      const NamedTensor& loss = losses[i];
      const bool differentiable =
          loss.tensor.defined() && loss.tensor.is_floating_point();
      out->Add(
          loss.name,
          differentiable ? loss.tensor.mul(parameters_[0].tensor) : loss.tensor,
          i < weights.size() ? weights[i] : at::Tensor());
    }
    return status;
  }
  absl::Status ValStep(const Batch& /*batch*/,
                       Predictions* /*predictions*/) override {
    return absl::OkStatus();
  }
  const std::vector<NamedTensor>& parameters() const override {
    return parameters_;
  }
  const std::vector<NamedTensor>& buffers() const override { return buffers_; }
  void SetTraining(bool /*training*/) override {}
  bool training() const override { return true; }

  std::vector<NamedTensor> losses;
  std::vector<at::Tensor> weights;  // Of the first losses.
  bool wanted_weights = false;
  absl::Status status;
  bool throws = false;

 protected:
  std::vector<NamedTensor> parameters_ = {
      {"fc.weight", ops::ones({}).requires_grad_(true)},
      {"fc.bias", ops::zeros({2}).requires_grad_(true)}};
  std::vector<NamedTensor> buffers_ = {{"bn.count", ops::zeros({}, at::kLong)}};
};

// Keeps the loss that it was given, and does the backward.
class FakeOptim : public OptimWrapper {
 public:
  absl::Status Update(const at::Tensor& loss, double weight) override {
    ++num_updates;
    last_loss = loss.item<double>();
    last_weight = weight;
    if (status.ok()) loss.backward();
    return status;
  }
  absl::Status UpdateFromGradients(const TensorMap&, double) override {
    return absl::UnimplementedError("not used");
  }
  bool wants_weight() const override { return by_weight; }
  const Autocast& autocast() const override { return autocast_; }
  absl::StatusOr<OptimWrapper*> Get(absl::string_view) override {
    return absl::NotFoundError("not used");
  }
  void BeginStep() override {}
  void SkipStep() override {}
  void InitializeCounts(int64_t, int64_t) override {}
  void set_step_observer(StepObserver*) override {}
  Optimizer* optimizer() override { return nullptr; }
  ParamGroups& scheduled_groups() override {
    throw std::logic_error("not used");
  }
  const std::vector<std::pair<std::string, const double*>>& logged_lrs()
      const override {
    return lrs_;
  }
  int64_t accumulated() const override { return 0; }
  int64_t accumulative_counts() const override { return 1; }
  absl::Status ScaleLr(double) override { return absl::OkStatus(); }
  absl::Status SaveState(optim::v1::OptimWrapperState*, TensorMap*,
                         TensorMap*) const override {
    return absl::OkStatus();
  }
  absl::Status LoadState(const optim::v1::OptimWrapperState&, const TensorMap&,
                         const TensorMap&, RestoredOptions*,
                         std::vector<std::string>*) override {
    return absl::OkStatus();
  }

  int num_updates = 0;
  double last_loss = 0;
  double last_weight = 0;
  bool by_weight = false;
  absl::Status status;

 private:
  const Autocast autocast_;
  std::vector<std::pair<std::string, const double*>> lrs_;
};

std::vector<std::pair<std::string, double>> Values(const LogVars& log_vars) {
  std::vector<std::pair<std::string, double>> values;
  for (const NamedTensor& entry : log_vars) {
    EXPECT_EQ(entry.tensor.dim(), 0) << entry.name;
    EXPECT_FALSE(entry.tensor.requires_grad()) << entry.name;
    values.emplace_back(entry.name, entry.tensor.item<double>());
  }
  return values;
}

struct StepCase {
  std::string name;
  std::vector<NamedTensor> losses;
  double total;
  std::vector<std::pair<std::string, double>> logged;
};

void PrintTo(const StepCase& c, std::ostream* os) { *os << c.name; }

class TrainStepTest : public TestWithParam<StepCase> {};

std::vector<StepCase> StepCases() {
  const at::Tensor one = ops::full({}, 1.0);
  const at::Tensor two = ops::full({}, 2.0);
  const at::Tensor four = ops::full({}, 4.0);
  return {
      {"OneLossIsTheTotal", {{"loss", two}}, 2, {{"loss", 2}}},
      {"TotalComesFirst",
       {{"loss_cls", one}, {"loss_box", two}},
       3,
       {{"loss", 3}, {"loss_cls", 1}, {"loss_box", 2}}},
      {"AnyNameWithLossInItCounts",
       {{"aux.loss.ce", one}, {"giou_losses", two}},
       3,
       {{"loss", 3}, {"aux.loss.ce", 1}, {"giou_losses", 2}}},
      {"OthersAreLoggedOnly",
       {{"acc", four}, {"loss_cls", one}, {"Loss", two}},
       1,
       {{"loss", 1}, {"acc", 4}, {"loss_cls", 1}, {"Loss", 2}}},
      {"OneCalledLossIsPartOfTheTotalAndNotListedAgain",
       {{"loss_aux", one}, {"loss", two}},
       3,
       {{"loss", 3}, {"loss_aux", 1}}},
      {"VectorsAreAveraged",
       {{"loss", ops::tensor({1.0, 5.0})}, {"acc", ops::tensor({2.0, 4.0})}},
       3,
       {{"loss", 3}, {"acc", 3}}},
      {"IntegersAreAveragedAsNumbers",
       {{"loss", two},
        {"hits", ops::tensor({1, 2}, at::kLong)},
        {"right", ops::tensor({1, 0}, at::kLong).to(at::kBool)}},
       2,
       {{"loss", 2}, {"hits", 1.5}, {"right", 0.5}}},
      {"OneElementIsAScalar", {{"loss", two.reshape({1})}}, 2, {{"loss", 2}}},
  };
}

INSTANTIATE_TEST_SUITE_P(, TrainStepTest, ValuesIn(StepCases()),
                         [](const auto& info) { return info.param.name; });

TEST_P(TrainStepTest, UpdatesWithTheTotalAndLogsAll) {
  FakeModel model;
  model.losses = GetParam().losses;
  FakeOptim optim;
  LogVars log_vars;
  log_vars.Add("left over", ops::ones({}));
  // Twice, because slots are used again.
  for (int step = 1; step <= 2; ++step) {
    ASSERT_THAT(model.TrainStep(Batch(), optim, &log_vars), IsOk());
    EXPECT_EQ(optim.num_updates, step);
    EXPECT_EQ(optim.last_loss, GetParam().total);
    EXPECT_EQ(Values(log_vars), GetParam().logged);
  }
  EXPECT_EQ(model.parameters()[0].tensor.grad().item<double>(),
            2 * GetParam().total);
}

TEST(ModelTest, TellsTheOptimizerTheNumberOfSamples) {
  FakeModel model;
  model.losses = {{"loss", ops::ones({})}};
  FakeOptim optim;
  LogVars log_vars;
  Batch batch;
  batch.indices = {4, 0, 7};
  ASSERT_THAT(model.TrainStep(batch, optim, &log_vars), IsOk());
  EXPECT_EQ(optim.last_weight, 3);
}

struct TotalWeightCase {
  std::string name;
  std::vector<NamedTensor> losses;
  std::vector<at::Tensor> weights;
  double weight;     // Of a batch of three samples,
  std::string says;  // or why there is none.
};

void PrintTo(const TotalWeightCase& c, std::ostream* os) { *os << c.name; }

class TotalWeightTest : public TestWithParam<TotalWeightCase> {};

std::vector<TotalWeightCase> TotalWeightCases() {
  const at::Tensor one = ops::ones({});
  const auto weight = [](double value) {
    return ops::full({}, value, at::kDouble);
  };
  return {
      {"TheLosss", {{"loss", one}}, {weight(2.5)}, 2.5, ""},
      {"Zero", {{"loss", one}}, {weight(0)}, 0, ""},
      {"SamplesIfNoneIsGiven", {{"loss", one}}, {}, 3, ""},
      {"OneForAll",
       {{"loss_a", one}, {"loss_b", one}, {"loss_c", one}},
       {weight(3), at::Tensor(), weight(3)},
       3,
       ""},
      {"OthersDontMatter",
       {{"acc", one}, {"loss", one}, {"hits", one}},
       {weight(7), weight(2), weight(8)},
       2,
       ""},
      {"TwoThatDiffer",
       {{"loss_a", one}, {"acc", one}, {"loss_b", one}},
       {weight(32), weight(1), weight(30)},
       0,
       "loss \"loss_a\" has the weight 32 and \"loss_b\" 30: "},
      {"SamplesAndAnother",
       {{"loss_a", one}, {"loss_b", one}},
       {at::Tensor(), weight(0.5)},
       0,
       "loss \"loss_a\" has the weight 3 and \"loss_b\" 0.5: "},
  };
}

INSTANTIATE_TEST_SUITE_P(, TotalWeightTest, ValuesIn(TotalWeightCases()),
                         [](const auto& info) { return info.param.name; });

TEST_P(TotalWeightTest, IsWhatTheLossesOfTheTotalHave) {
  FakeModel model;
  model.losses = GetParam().losses;
  model.weights = GetParam().weights;
  FakeOptim optim;
  optim.by_weight = true;
  LogVars log_vars;
  Batch batch;
  batch.indices = {4, 0, 7};
  const absl::Status status = model.TrainStep(batch, optim, &log_vars);
  EXPECT_TRUE(model.wanted_weights);
  if (!GetParam().says.empty()) {
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument,
                                 HasSubstr(GetParam().says)));
    EXPECT_EQ(optim.num_updates, 0);
    return;
  }
  ASSERT_THAT(status, IsOk());
  EXPECT_EQ(optim.last_weight, GetParam().weight);
}

// Nobody asks for weights, or compares those that come all the same.
TEST(ModelTest, WeightsAreOnlyForThoseWhoWantThem) {
  FakeModel model;
  model.losses = {{"loss_a", ops::ones({})}, {"loss_b", ops::ones({})}};
  model.weights = {ops::full({}, 5), ops::full({}, 7)};
  FakeOptim optim;
  LogVars log_vars;
  Batch batch;
  batch.indices = {4, 0, 7};
  optim.by_weight = true;
  EXPECT_FALSE(model.TrainStep(batch, optim, &log_vars).ok());
  optim.by_weight = false;
  ASSERT_THAT(model.TrainStep(batch, optim, &log_vars), IsOk());
  EXPECT_FALSE(model.wanted_weights);
  EXPECT_EQ(optim.last_weight, 3);
}

struct BadStepCase {
  std::string name;
  std::vector<NamedTensor> losses;
  std::string says;
};

void PrintTo(const BadStepCase& c, std::ostream* os) { *os << c.name; }

class TrainStepErrorTest : public TestWithParam<BadStepCase> {};

INSTANTIATE_TEST_SUITE_P(
    , TrainStepErrorTest,
    ValuesIn(std::vector<BadStepCase>{
        {"NoLosses", {}, "the model gave no losses"},
        {"NothingToSum", {{"acc", ops::ones({})}}, "\"loss\" in its name"},
        {"Undefined", {{"loss_box", at::Tensor()}}, "loss \"loss_box\""},
        // Also one that is logged only: an Update can't be taken back.
        {"UndefinedOther",
         {{"loss", ops::ones({})}, {"acc", at::Tensor()}},
         "loss \"acc\""},
    }),
    [](const auto& info) { return info.param.name; });

TEST_P(TrainStepErrorTest, DoesntUpdate) {
  FakeModel model;
  model.losses = GetParam().losses;
  FakeOptim optim;
  LogVars log_vars;
  EXPECT_THAT(
      model.TrainStep(Batch(), optim, &log_vars),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(GetParam().says)));
  EXPECT_EQ(optim.num_updates, 0);
}

TEST(ModelTest, ErrorsOfModelAndOptimizerComeOut) {
  FakeModel model;
  model.losses = {{"loss", ops::ones({})}};
  FakeOptim optim;
  LogVars log_vars;

  model.status = absl::DataLossError("bad batch");
  EXPECT_THAT(model.TrainStep(Batch(), optim, &log_vars),
              StatusIs(absl::StatusCode::kDataLoss, "bad batch"));
  EXPECT_EQ(optim.num_updates, 0);

  model.status = absl::OkStatus();
  optim.status = absl::CancelledError("stop");
  EXPECT_THAT(model.TrainStep(Batch(), optim, &log_vars),
              StatusIs(absl::StatusCode::kCancelled, "stop"));
  EXPECT_TRUE(log_vars.empty());
}

TEST(ModelTest, ExceptionsBecomeStatuses) {
  FakeModel model;
  FakeOptim optim;
  LogVars log_vars;
  model.throws = true;
  EXPECT_THAT(model.TrainStep(Batch(), optim, &log_vars),
              StatusIs(absl::StatusCode::kInternal, "no more data"));
}

TEST(ModelTest, BatchNormIsSyncedByModelsThatKnowHow) {
  FakeModel model;
  SingleProcessGroup group;
  EXPECT_THAT(model.SyncBatchNorm(group),
              StatusIs(absl::StatusCode::kUnimplemented,
                       HasSubstr("this kind of model has batch norm of its own "
                                 "making")));
}

TEST(ModelTest, ExportIsForModelsThatHaveIt) {
  FakeModel model;
  EXPECT_THAT(model.Export("net.pt"),
              StatusIs(absl::StatusCode::kUnimplemented,
                       HasSubstr("has no file format of its own")));
}

TEST(LogVarsTest, ClearLetsGoOfTensorsAndKeepsSlots) {
  LogVars log_vars;
  at::Tensor value = ops::ones({});
  log_vars.Add("loss", value);
  const NamedTensor* slot = log_vars.begin();
  log_vars.Clear();
  EXPECT_TRUE(log_vars.empty());
  EXPECT_EQ(value.use_count(), 1);
  log_vars.Add("loss", value);
  EXPECT_EQ(log_vars.begin(), slot);
  EXPECT_EQ(log_vars.size(), 1);
}

// --- LoadModelState and ModelState ---

TensorMap MapOf(const std::vector<NamedTensor>& tensors) {
  TensorMap map;
  for (const NamedTensor& tensor : tensors) {
    EXPECT_THAT(map.Add(tensor.name, tensor.tensor), IsOk());
  }
  return map;
}

const at::Tensor Weight() { return ops::full({}, 7.0, at::kDouble); }
const at::Tensor Bias() { return ops::tensor({8.f, 9.f}); }
const at::Tensor Count() { return ops::full({}, 5, at::kLong); }

std::vector<double> State(const Model& model) {
  std::vector<double> values;
  for (const auto* list : {&model.parameters(), &model.buffers()}) {
    for (const NamedTensor& tensor : *list) {
      const at::Tensor flat = tensor.tensor.detach().reshape({-1});
      for (int64_t i = 0; i < flat.numel(); ++i) {
        values.push_back(flat[i].item<double>());
      }
    }
  }
  return values;
}

TEST(LoadModelStateTest, CopiesByNameInAnyOrderAndFloatingType) {
  FakeModel model;
  const at::Tensor before = model.parameters()[0].tensor;
  EXPECT_THAT(LoadModelState(MapOf({{"bn.count", Count()},
                                    {"fc.bias", Bias()},
                                    {"fc.weight", Weight()}}),
                             /*strict=*/true, model, nullptr),
              IsOk());
  EXPECT_THAT(State(model), ElementsAre(7, 8, 9, 5));
  EXPECT_TRUE(before.is_same(model.parameters()[0].tensor));
  EXPECT_TRUE(before.requires_grad());
  EXPECT_TRUE(before.is_leaf());
}

struct LoadCase {
  std::string name;
  std::vector<NamedTensor> tensors;
  bool strict;
  std::vector<std::string> says;
};

void PrintTo(const LoadCase& c, std::ostream* os) { *os << c.name; }

class LoadModelStateErrorTest : public TestWithParam<LoadCase> {};

// A FakeModel with more kinds of numbers.
class FakeModelOfDtypes : public FakeModel {
 public:
  FakeModelOfDtypes() {
    buffers_.push_back({"small", ops::zeros({}, at::kInt)});
    buffers_.push_back({"byte", ops::zeros({}, at::kByte)});
    buffers_.push_back({"flag", ops::zeros({}, at::kBool)});
  }
};

INSTANTIATE_TEST_SUITE_P(
    , LoadModelStateErrorTest,
    ValuesIn(std::vector<LoadCase>{
        {"MissingAndUnexpected",
         {{"fc.weight", Weight()},
          {"fc.bias", Bias()},
          {"head.w", Bias()},
          {"small", Count().to(at::kInt)},
          {"byte", Count().to(at::kByte)},
          {"flag", Count().to(at::kBool)}},
         true,
         {"missing: 1 (bn.count)", "unexpected: 1 (head.w)"}},
        {"LongListsAreCut",
         {{"fc.weight", Weight()},
          {"fc.bias", Bias()},
          {"bn.count", Count()},
          {"a", Bias()},
          {"b", Bias()},
          {"c", Bias()},
          {"d", Bias()},
          {"e", Bias()},
          {"f", Bias()}},
         true,
         {"unexpected: 6 (a, b, c, d, e, ...)"}},
        {"Shape",
         {{"fc.weight", Weight()}, {"fc.bias", ops::zeros({3})}},
         true,
         {"missing: 4 (bn.count, small, byte, flag)",
          "mismatched: 1 (fc.bias: has the shape (3,), the model's is (2,))"}},
        {"ShapeBroadcastIsNoMatch",
         {{"fc.weight", Weight()}, {"fc.bias", ops::zeros({1})}},
         true,
         {"mismatched: 1 (fc.bias", "(1,)", "(2,)"}},
        {"RoundingToIntegers",
         {{"fc.weight", Weight()}, {"bn.count", ops::full({}, 1.5)}},
         true,
         {"mismatched: 1 (bn.count: is Float, the model's is Long)"}},
        {"ComplexToReal",
         {{"fc.weight", ops::zeros({}, at::kComplexFloat)}},
         true,
         {"(fc.weight: is ComplexFloat, the model's is Float)"}},
        {"FloatToBool",
         {{"flag", ops::ones({})}},
         true,
         {"(flag: is Float, the model's is Bool)"}},
        {"IntegersToBool",
         {{"flag", Count()}},
         true,
         {"(flag: is Long, the model's is Bool)"}},
        {"NarrowerIntegers",
         {{"fc.bias", Bias()}, {"small", Count()}},
         true,
         {"(small: is Long, the model's is Int)"}},
        {"IntegersOfAnotherSign",
         {{"byte", ops::zeros({}, at::kChar)}},
         true,
         {"(byte: is Char, the model's is Byte)"}},
        {"NothingInCommonEvenIfNotStrict",
         {{"classifier.weight", Weight()}},
         false,
         {"there is nothing for the model: missing: 6 (fc.weight, fc.bias, "
          "bn.count, small, byte, ...); unexpected: 1 (classifier.weight)"}},
        {"NothingThatFitsEvenIfNotStrict",
         {{"fc.bias", ops::zeros({3})}},
         false,
         {"there is nothing for the model", "mismatched: 1 (fc.bias"}},
        {"Undefined",
         {{"fc.weight", Weight()}, {"fc.bias", at::Tensor()}},
         false,
         {"tensor \"fc.bias\": has no value"}},
    }),
    [](const auto& info) { return info.param.name; });

TEST_P(LoadModelStateErrorTest, LeavesTheModelAsItWas) {
  FakeModelOfDtypes model;
  const std::vector<double> before = State(model);
  const absl::Status status = LoadModelState(MapOf(GetParam().tensors),
                                             GetParam().strict, model, nullptr);
  for (const std::string& part : GetParam().says) {
    EXPECT_THAT(status,
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(part)));
  }
  EXPECT_EQ(State(model), before);
}

TEST(LoadModelStateTest, WiderIntegersTakeTheNarrower) {
  FakeModelOfDtypes model;
  for (const at::ScalarType dtype :
       {at::kByte, at::kChar, at::kShort, at::kBool}) {
    EXPECT_THAT(LoadModelState(MapOf({{"bn.count", ops::ones({}, dtype)},
                                      {"small", ops::ones({}, dtype)}}),
                               /*strict=*/false, model, nullptr),
                IsOk())
        << dtype;
  }
  EXPECT_THAT(State(model), ElementsAre(1, 0, 0, 1, 1, 0, 0));
}

TEST(LoadModelStateTest, NotStrictLoadsWhatIsThereAndReportsTheRest) {
  FakeModel model;
  std::vector<std::string> report = {"left over"};
  EXPECT_THAT(LoadModelState(MapOf({{"fc.bias", Bias()}, {"head.w", Bias()}}),
                             /*strict=*/false, model, &report),
              IsOk());
  EXPECT_THAT(State(model), ElementsAre(1, 8, 9, 0));
  EXPECT_THAT(report, ElementsAre("missing: fc.weight", "missing: bn.count",
                                  "unexpected: head.w"));
}

TEST(LoadModelStateTest, NotStrictLeavesOutAndNamesWhatDoesNotFit) {
  FakeModelOfDtypes model;
  std::vector<std::string> report;
  EXPECT_THAT(LoadModelState(MapOf({{"fc.weight", Weight()},
                                    {"fc.bias", ops::zeros({3})},
                                    {"bn.count", Count()},
                                    {"small", ops::full({}, 1.5)},
                                    {"byte", Count().to(at::kByte)},
                                    {"flag", Count().to(at::kBool)}}),
                             /*strict=*/false, model, &report),
              IsOk());
  EXPECT_THAT(State(model), ElementsAre(7, 0, 0, 5, 0, 5, 1));
  EXPECT_THAT(
      report,
      ElementsAre(
          "mismatched: fc.bias: has the shape (3,), the model's is (2,)",
          "mismatched: small: is Float, the model's is Int"));
}

TEST(ModelStateTest, SharesTheStorageAndRoundTrips) {
  FakeModel model;
  const auto state = ModelState(model);
  ASSERT_THAT(state, IsOk());
  std::vector<std::string> names;
  for (const NamedTensor& tensor : *state) names.push_back(tensor.name);
  EXPECT_THAT(names, ElementsAre("fc.weight", "fc.bias", "bn.count"));
  EXPECT_EQ(state->Find("fc.bias")->data_ptr(),
            model.parameters()[1].tensor.data_ptr());
  EXPECT_FALSE(state->Find("fc.bias")->requires_grad());

  FakeModel other;
  std::vector<std::string> report;
  EXPECT_THAT(LoadModelState(*state, /*strict=*/true, other, &report), IsOk());
  EXPECT_THAT(report, IsEmpty());
}

}  // namespace
}  // namespace grapnel
