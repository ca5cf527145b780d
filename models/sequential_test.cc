#include "grapnel/models/sequential.h"

#include <functional>
#include <map>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/text_format.h"
#include "google/protobuf/wrappers.pb.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/models/layer.h"
#include "grapnel/models/layer.pb.h"
#include "grapnel/models/model.h"
#include "grapnel/models/model.pb.h"
#include "gtest/gtest.h"
#include "torch/autograd.h"
#include "torch/nn.h"
#include "torch/utils.h"

namespace grapnel {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::TestWithParam;
using ::testing::ValuesIn;

namespace nn = ::torch::nn;

models::v1::SequentialConfig Parse(const std::string& text) {
  models::v1::SequentialConfig config;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &config))
      << text;
  return config;
}

absl::StatusOr<std::unique_ptr<Sequential>> TryNew(
    const std::string& text, const std::vector<int64_t>& input_shape) {
  ModelOptions options;
  options.input_shape = input_shape;
  return Sequential::Create(Parse(text), options);
}

std::unique_ptr<Sequential> New(const std::string& text,
                                const std::vector<int64_t>& input_shape) {
  auto model = TryNew(text, input_shape);
  EXPECT_THAT(model, IsOk()) << text;
  return *std::move(model);
}

at::Tensor Forward(Sequential& model, const at::Tensor& inputs) {
  Batch batch;
  batch.inputs = inputs;
  auto outputs = model.Forward(batch);
  EXPECT_THAT(outputs, IsOk());
  return *std::move(outputs);
}

std::vector<std::string> Names(const std::vector<NamedTensor>& tensors) {
  std::vector<std::string> names;
  for (const NamedTensor& tensor : tensors) names.push_back(tensor.name);
  return names;
}

// --- The same as torch::nn, by bits ---

struct ParityCase {
  std::string name;
  std::string config;
  std::vector<int64_t> input_shape;
  std::function<nn::Sequential()> torch;
};

void PrintTo(const ParityCase& c, std::ostream* os) { *os << c.config; }

class SequentialParityTest : public TestWithParam<ParityCase> {};

// In braces where several layers draw parameters: arguments in parentheses are
// made in any order.
std::vector<ParityCase> ParityCases() {
  return {
      {"Mlp",
       "layers { linear { out_features: 5 } } layers { tanh {} } "
       "layers { linear { out_features: 2 bias: false } } layers { sigmoid {} "
       "}",
       {7},
       [] {
         return nn::Sequential{nn::Linear(7, 5), nn::Tanh(),
                               nn::Linear(nn::LinearOptions(5, 2).bias(false)),
                               nn::Sigmoid()};
       }},
      {"DigitsNet",
       "layers { conv2d { out_channels: 8 kernel_size: 3 padding: 1 } } "
       "layers { batch_norm2d {} } layers { relu {} } "
       "layers { max_pool2d { kernel_size: 2 } } layers { flatten {} } "
       "layers { dropout { p: 0.3 } } layers { linear { out_features: 10 } }",
       {1, 8, 8},
       [] {
         return nn::Sequential{
             nn::Conv2d(nn::Conv2dOptions(1, 8, 3).padding(1)),
             nn::BatchNorm2d(8),
             nn::ReLU(),
             nn::MaxPool2d(2),
             nn::Flatten(),
             nn::Dropout(0.3),
             nn::Linear(128, 10)};
       }},
      {"ConvOptions",
       "layers { conv2d { out_channels: 6 kernel_size: [3, 2] stride: [2, 1] "
       "padding: [1, 0] dilation: [1, 2] groups: 2 bias: false } } "
       "layers { leaky_relu { negative_slope: 0.2 } }",
       {4, 9, 8},
       [] {
         return nn::Sequential(
             nn::Conv2d(nn::Conv2dOptions(4, 6, {3, 2})
                            .stride({2, 1})
                            .padding({1, 0})
                            .dilation({1, 2})
                            .groups(2)
                            .bias(false)),
             nn::LeakyReLU(nn::LeakyReLUOptions().negative_slope(0.2)));
       }},
      {"TransposedConv",
       "layers { conv_transpose2d { out_channels: 6 kernel_size: 3 stride: 2 "
       "padding: 1 output_padding: 1 groups: 2 } } layers { relu {} }",
       {4, 5, 5},
       [] {
         return nn::Sequential(
             nn::ConvTranspose2d(nn::ConvTranspose2dOptions(4, 6, 3)
                                     .stride(2)
                                     .padding(1)
                                     .output_padding(1)
                                     .groups(2)),
             nn::ReLU());
       }},
      {"Conv1d",
       "layers { conv1d { out_channels: 4 kernel_size: 3 stride: 2 padding: 1 "
       "dilation: 2 } } layers { batch_norm1d { eps: 0.001 momentum: 0.3 } } "
       "layers { relu {} } layers { flatten {} } "
       "layers { batch_norm1d { affine: false } }",
       {3, 12},
       [] {
         return nn::Sequential(
             nn::Conv1d(
                 nn::Conv1dOptions(3, 4, 3).stride(2).padding(1).dilation(2)),
             nn::BatchNorm1d(
                 nn::BatchNorm1dOptions(4).eps(0.001).momentum(0.3)),
             nn::ReLU(), nn::Flatten(),
             nn::BatchNorm1d(nn::BatchNorm1dOptions(20).affine(false)));
       }},
      {"Norms",
       "layers { group_norm { num_groups: 2 } } layers { relu {} } "
       "layers { layer_norm { num_dims: 2 } } layers { relu {} } "
       "layers { layer_norm { affine: false eps: 0.01 } } "
       "layers { batch_norm2d { track_running_stats: false } }",
       {4, 3, 5},
       [] {
         return nn::Sequential(
             nn::GroupNorm(2, 4), nn::ReLU(),
             nn::LayerNorm(nn::LayerNormOptions({3, 5})), nn::ReLU(),
             nn::LayerNorm(
                 nn::LayerNormOptions({5}).elementwise_affine(false).eps(0.01)),
             nn::BatchNorm2d(
                 nn::BatchNorm2dOptions(4).track_running_stats(false)));
       }},
      {"Pools",
       "layers { avg_pool2d { kernel_size: 3 stride: 2 padding: 1 "
       "ceil_mode: true count_include_pad: false } } layers { relu {} } "
       "layers { max_pool2d { kernel_size: [3, 2] stride: 1 padding: [1, 0] "
       "dilation: [1, 2] ceil_mode: true } } layers { relu {} } "
       "layers { adaptive_avg_pool2d { output_size: [2, 1] } } "
       "layers { adaptive_avg_pool2d {} } layers { flatten {} }",
       {2, 9, 10},
       [] {
         return nn::Sequential(
             nn::AvgPool2d(nn::AvgPool2dOptions(3)
                               .stride(2)
                               .padding(1)
                               .ceil_mode(true)
                               .count_include_pad(false)),
             nn::ReLU(),
             nn::MaxPool2d(nn::MaxPool2dOptions({3, 2})
                               .stride(1)
                               .padding({1, 0})
                               .dilation({1, 2})
                               .ceil_mode(true)),
             nn::ReLU(),
             nn::AdaptiveAvgPool2d(nn::AdaptiveAvgPool2dOptions({2, 1})),
             nn::AdaptiveAvgPool2d(1), nn::Flatten());
       }},
      {"Pools1d",
       "layers { avg_pool1d { kernel_size: 3 stride: 2 padding: 1 "
       "ceil_mode: true count_include_pad: false } } layers { relu {} } "
       "layers { max_pool1d { kernel_size: 3 stride: 1 padding: 1 "
       "dilation: 2 ceil_mode: true } } layers { relu {} } "
       "layers { max_pool1d { kernel_size: 2 } } layers { relu {} } "
       "layers { adaptive_avg_pool1d { output_size: 3 } } "
       "layers { adaptive_avg_pool1d {} } layers { flatten {} }",
       {2, 20},
       [] {
         return nn::Sequential(nn::AvgPool1d(nn::AvgPool1dOptions(3)
                                                 .stride(2)
                                                 .padding(1)
                                                 .ceil_mode(true)
                                                 .count_include_pad(false)),
                               nn::ReLU(),
                               nn::MaxPool1d(nn::MaxPool1dOptions(3)
                                                 .stride(1)
                                                 .padding(1)
                                                 .dilation(2)
                                                 .ceil_mode(true)),
                               nn::ReLU(), nn::MaxPool1d(2), nn::ReLU(),
                               nn::AdaptiveAvgPool1d(3),
                               nn::AdaptiveAvgPool1d(1), nn::Flatten());
       }},
      {"TrainedThroughPools1d",
       "layers { conv1d { out_channels: 4 kernel_size: 3 } } "
       "layers { max_pool1d { kernel_size: 2 } } layers { relu {} } "
       "layers { avg_pool1d { kernel_size: 2 } } layers { relu {} } "
       "layers { adaptive_avg_pool1d {} }",
       {2, 20},
       [] {
         return nn::Sequential(nn::Conv1d(2, 4, 3), nn::MaxPool1d(2),
                               nn::ReLU(), nn::AvgPool1d(2), nn::ReLU(),
                               nn::AdaptiveAvgPool1d(1));
       }},
      {"Elus",
       "layers { linear { out_features: 4 } } layers { elu {} } "
       "layers { identity {} } layers { relu {} } "
       "layers { linear { out_features: 4 } } layers { elu { alpha: 0.5 } }",
       {3},
       [] {
         return nn::Sequential{
             nn::Linear(3, 4), nn::ELU(),
             nn::Identity(),   nn::ReLU(),
             nn::Linear(4, 4), nn::ELU(nn::ELUOptions().alpha(0.5))};
       }},
      {"IdentityKeepsTheInputs",
       "layers { identity {} } layers { relu {} }",
       {3},
       [] { return nn::Sequential(nn::Identity(), nn::ReLU()); }},
      {"Softmaxes",
       "layers { conv2d { out_channels: 4 kernel_size: 3 } } "
       "layers { softmax {} } layers { softmax { dim: -1 } } "
       "layers { relu {} } layers { softmax { dim: 2 } }",
       {2, 6, 6},
       [] {
         return nn::Sequential(nn::Conv2d(2, 4, 3), nn::Softmax(1),
                               nn::Softmax(3), nn::ReLU(), nn::Softmax(2));
       }},
      {"Dropout2d",
       "layers { conv2d { out_channels: 8 kernel_size: 3 } } "
       "layers { dropout2d { p: 0.3 } } layers { relu {} } "
       "layers { dropout2d {} }",
       {2, 6, 6},
       [] {
         return nn::Sequential(nn::Conv2d(2, 8, 3), nn::Dropout2d(0.3),
                               nn::ReLU(), nn::Dropout2d());
       }},
      {"Gelus",
       "layers { linear { out_features: 4 } } layers { gelu {} } "
       "layers { gelu { approximate: APPROXIMATE_TANH } } layers { silu {} }",
       {3},
       [] {
         return nn::Sequential(nn::Linear(3, 4), nn::GELU(),
                               nn::GELU(nn::GELUOptions().approximate("tanh")),
                               nn::SiLU());
       }},
      {"Sequences",
       "layers { linear { out_features: 4 } } layers { relu {} } "
       "layers { flatten { start_dim: 1 end_dim: 2 } }",
       {5, 3},
       [] {
         return nn::Sequential(
             nn::Linear(3, 4), nn::ReLU(),
             nn::Flatten(nn::FlattenOptions().start_dim(1).end_dim(2)));
       }},
  };
}

INSTANTIATE_TEST_SUITE_P(, SequentialParityTest, ValuesIn(ParityCases()),
                         [](const auto& info) { return info.param.name; });

TEST_P(SequentialParityTest, StartsWithPyTorchsParametersUnderItsNames) {
  torch::manual_seed(1);
  const auto model = New(GetParam().config, GetParam().input_shape);
  torch::manual_seed(1);
  nn::Sequential torch = GetParam().torch();

  const auto parameters = torch->named_parameters();
  ASSERT_EQ(Names(model->parameters()), parameters.keys());
  for (const NamedTensor& mine : model->parameters()) {
    EXPECT_TRUE(at::equal(mine.tensor, parameters[mine.name])) << mine.name;
    EXPECT_TRUE(mine.tensor.requires_grad()) << mine.name;
  }
  const auto buffers = torch->named_buffers();
  ASSERT_EQ(Names(model->buffers()), buffers.keys());
  for (const NamedTensor& mine : model->buffers()) {
    EXPECT_TRUE(at::equal(mine.tensor, buffers[mine.name])) << mine.name;
    EXPECT_EQ(mine.tensor.dtype(), buffers[mine.name].dtype()) << mine.name;
  }
}

TEST_P(SequentialParityTest, TrainsAndEvaluatesAsPyTorch) {
  torch::manual_seed(1);
  const auto model = New(GetParam().config, GetParam().input_shape);
  torch::manual_seed(1);
  nn::Sequential torch = GetParam().torch();

  std::vector<int64_t> shape = {4};
  shape.insert(shape.end(), GetParam().input_shape.begin(),
               GetParam().input_shape.end());
  const at::Tensor inputs = at::randn(shape);
  const at::Tensor original = inputs.clone();
  for (int step = 0; step < 2; ++step) {
    torch::manual_seed(2);  // Dropout draws.
    const at::Tensor mine = Forward(*model, inputs);
    torch::manual_seed(2);
    const at::Tensor theirs = torch->forward(inputs);
    ASSERT_TRUE(at::equal(mine, theirs));
    ASSERT_EQ(mine.sizes().slice(1), model->output_shape());
    if (mine.requires_grad()) {
      mine.square().sum().backward();
      theirs.square().sum().backward();
    }
  }
  EXPECT_TRUE(at::equal(inputs, original)) << "a layer wrote the inputs";
  const auto parameters = torch->named_parameters();
  for (const NamedTensor& mine : model->parameters()) {
    EXPECT_TRUE(at::equal(mine.tensor.grad(), parameters[mine.name].grad()))
        << mine.name;
  }
  const auto buffers = torch->named_buffers();
  for (const NamedTensor& mine : model->buffers()) {
    EXPECT_TRUE(at::equal(mine.tensor, buffers[mine.name])) << mine.name;
  }

  torch->eval();
  Batch batch;
  batch.inputs = inputs;
  Predictions predictions;
  model->SetTraining(false);
  EXPECT_FALSE(model->training());
  ASSERT_THAT(model->ValStep(batch, &predictions), IsOk());
  EXPECT_TRUE(at::equal(predictions.outputs, torch->forward(inputs)));
  EXPECT_FALSE(predictions.outputs.requires_grad());
  EXPECT_TRUE(predictions.losses.empty());
}

// --- Layers made of layers ---

constexpr char kResNet[] =
    "layers { conv2d { out_channels: 4 kernel_size: 3 padding: 1 } } "
    "layers { residual { "
    "  layers { relu {} } "
    "  layers { conv2d { out_channels: 4 kernel_size: 3 padding: 1 bias: false "
    "} } layers { batch_norm2d {} } } } "
    "layers { relu {} } "
    "layers { name: 'down' residual { "
    "  layers { sequential { "
    "    layers { conv2d { out_channels: 6 kernel_size: 1 stride: 2 } } "
    "    layers { relu {} } } } "
    "  shortcut { avg_pool2d { kernel_size: 2 } } "
    "  shortcut { name: 'proj' conv2d { out_channels: 6 kernel_size: 1 } } } "
    "} ";

TEST(SequentialTest, NestedNames) {
  const auto model = New(kResNet, {2, 6, 6});
  EXPECT_THAT(
      Names(model->parameters()),
      ElementsAre("0.weight", "0.bias", "1.body.1.weight", "1.body.2.weight",
                  "1.body.2.bias", "down.body.0.0.weight", "down.body.0.0.bias",
                  "down.shortcut.proj.weight", "down.shortcut.proj.bias"));
  EXPECT_THAT(Names(model->buffers()),
              ElementsAre("1.body.2.running_mean", "1.body.2.running_var",
                          "1.body.2.num_batches_tracked"));
  EXPECT_THAT(model->output_shape(), ElementsAre(6, 3, 3));
}

// Against the same sum, out of place.
TEST(SequentialTest, ResidualAddsBodyAndShortcut) {
  const auto model = New(kResNet, {2, 6, 6});
  std::map<std::string, at::Tensor> p;
  std::vector<at::Tensor> parameters;
  for (const NamedTensor& parameter : model->parameters()) {
    p[parameter.name] = parameter.tensor;
    parameters.push_back(parameter.tensor);
  }
  const at::Tensor inputs = at::randn({3, 2, 6, 6});

  const at::Tensor stem = at::conv2d(inputs, p["0.weight"], p["0.bias"], 1, 1);
  const at::Tensor body =
      at::batch_norm(at::conv2d(at::relu(stem), p["1.body.1.weight"], {}, 1, 1),
                     p["1.body.2.weight"], p["1.body.2.bias"], at::zeros({4}),
                     at::ones({4}), true, 0.1, 1e-5, false);
  const at::Tensor x = at::relu(body + stem);
  const at::Tensor expected =
      at::relu(at::conv2d(x, p["down.body.0.0.weight"], p["down.body.0.0.bias"],
                          2)) +
      at::conv2d(at::avg_pool2d(x, 2), p["down.shortcut.proj.weight"],
                 p["down.shortcut.proj.bias"]);
  const auto expected_grads =
      torch::autograd::grad({expected.square().sum()}, parameters);

  const at::Tensor outputs = Forward(*model, inputs);
  EXPECT_TRUE(at::allclose(outputs, expected));
  outputs.square().sum().backward();
  for (size_t i = 0; i < parameters.size(); ++i) {
    EXPECT_TRUE(
        at::allclose(parameters[i].grad(), expected_grads[i], 1e-4, 1e-5))
        << model->parameters()[i].name;
  }
}

TEST(SequentialTest, EmbeddingStartsAsPyTorchs) {
  torch::manual_seed(1);
  const auto model =
      New("layers { embedding { num_embeddings: 9 embedding_dim: 3 } } "
          "layers { flatten {} } layers { linear { out_features: 2 } }",
          {4});
  torch::manual_seed(1);
  const nn::Embedding torch(9, 3);
  EXPECT_EQ(model->parameters()[0].name, "0.weight");
  EXPECT_TRUE(at::equal(model->parameters()[0].tensor, torch->weight));
  EXPECT_EQ(Forward(*model, at::ones({5, 4}, at::kLong)).sizes(),
            at::IntArrayRef({5, 2}));
}

// --- Layers of others ---

// Multiplies by the number in its config.
class ScaleLayer : public Layer {
 public:
  using Config = google::protobuf::DoubleValue;
  static absl::StatusOr<std::unique_ptr<Layer>> Create(
      const Config& config, const LayerOptions& /*options*/) {
    if (config.value() == 0) return absl::InvalidArgumentError("value: is 0");
    return std::make_unique<ScaleLayer>(config.value());
  }
  explicit ScaleLayer(double factor) : factor_(factor) {}
  at::Tensor Forward(const at::Tensor& input) override {
    return input * factor_;
  }

 private:
  const double factor_;
};
GRAPNEL_REGISTER(LayerRegistry, ScaleLayer);

TEST(SequentialTest, CustomLayersAreLayers) {
  const auto model = New(
      "layers { custom { [type.googleapis.com/google.protobuf.DoubleValue] { "
      "value: 3 } } }",
      {2});
  EXPECT_TRUE(
      at::equal(Forward(*model, at::ones({1, 2})), at::full({1, 2}, 3.0f)));
  EXPECT_THAT(TryNew("layers { custom { "
                     "[type.googleapis.com/google.protobuf.DoubleValue] {} } }",
                     {2}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "layers[0] custom: value: is 0"));
}

TEST(SequentialTest, EveryKindOfLayerIsLinkedIn) {
  const std::vector<std::string> names = LayerRegistry::ConfigNames();
  const auto* kind =
      models::v1::LayerConfig::descriptor()->FindOneofByName("kind");
  ASSERT_GT(kind->field_count(), 1);
  for (int i = 0; i < kind->field_count(); ++i) {
    if (kind->field(i)->name() == "custom") continue;
    EXPECT_THAT(names, Contains(kind->field(i)->message_type()->full_name()));
  }
}

// --- As a model ---

TEST(SequentialTest, IsRegisteredAndTakesTheShapeOfItsConfigFirst) {
  models::v1::ModelConfig config;
  *config.mutable_sequential() = Parse(
      "layers { linear { out_features: 2 } } input_shape: 5 "
      "loss { cross_entropy {} }");
  ModelOptions options;
  options.input_shape = {3};
  const auto model = ModelRegistry::Create(config, options);
  ASSERT_THAT(model, IsOk());
  EXPECT_TRUE((*model)->training());
  EXPECT_EQ((*model)->parameters()[0].tensor.sizes(), at::IntArrayRef({2, 5}));
}

TEST(SequentialTest, ValStepGivesOutputsAndTheirLoss) {
  const auto model = New(
      "layers { linear { out_features: 3 } } loss { cross_entropy {} }", {2});
  Batch batch;
  batch.inputs = at::randn({4, 2});
  batch.targets = at::zeros({4}, at::kLong);
  Predictions predictions;
  model->SetTraining(false);
  ASSERT_THAT(model->ValStep(batch, &predictions), IsOk());
  ASSERT_EQ(predictions.losses.size(), 1);
  EXPECT_EQ(predictions.losses[0].name, "loss");
  EXPECT_TRUE(
      at::equal(predictions.losses[0].tensor,
                at::cross_entropy_loss(predictions.outputs, batch.targets)));

  batch.targets = at::Tensor();
  ASSERT_THAT(model->ValStep(batch, &predictions), IsOk());
  EXPECT_TRUE(predictions.losses.empty());
}

TEST(SequentialTest, ErrorsOfTheLoopAreStatuses) {
  const auto model =
      New("layers { relu {} } layers { linear { out_features: 3 } } "
          "loss { cross_entropy {} }",
          {2});
  Batch batch;
  LogVars losses;
  batch.inputs = at::randn({4, 7});
  batch.targets = at::zeros({4}, at::kLong);
  EXPECT_THAT(model->ComputeLosses(batch, &losses).message(),
              HasSubstr("in layers[1] linear"));
  batch.inputs = at::randn({4, 2});
  batch.targets = at::Tensor();
  EXPECT_THAT(
      model->ComputeLosses(batch, &losses),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no targets")));
  const auto without = New("layers { relu {} }", {2});
  EXPECT_THAT(without->ComputeLosses(batch, &losses),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("loss: must be set")));
  const auto norm = New("layers { batch_norm1d {} }", {2});
  batch.inputs = at::randn({1, 2});
  EXPECT_THAT(norm->Forward(batch),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("more than one value per channel")));
}

// What it says is what LibTorch does.
TEST(SequentialTest, NeedsTwoSamplesWhereOneCannotTrain) {
  struct Case {
    std::string says;
    std::string config;
    std::vector<int64_t> input_shape;
  };
  const std::string norm1d = "layers { batch_norm1d {} } ";
  const std::string norm2d = "layers { batch_norm2d {} } ";
  const std::string conv3 =
      "layers { conv2d { out_channels: 2 kernel_size: 3 } } ";
  for (const Case& c : std::vector<Case>{
           {"layers[0] batch_norm1d: has one value per channel in a sample",
            norm1d,
            {4}},
           {"layers[0] batch_norm1d: has one value per channel in a sample",
            norm1d,
            {4, 1}},
           {"", norm1d, {4, 2}},
           {"", norm2d, {4, 1, 2}},
           {"", conv3 + norm2d, {1, 4, 3}},
           {"layers[1] batch_norm2d: has one value per channel in a sample",
            conv3 + norm2d,
            {1, 3, 3}},
           {"layers[1] batch_norm1d: has one value per channel in a sample",
            "layers { flatten {} } "
            "layers { batch_norm1d { track_running_stats: false } }",
            {4, 2, 2}},
           {"layers[0] residual: layers[0] batch_norm1d: has one value per "
            "channel in a sample",
            "layers { residual { " + norm1d + " } }",
            {4}},
           {"layers[0] residual: shortcut[0] batch_norm1d: has one value per "
            "channel in a sample",
            "layers { residual { layers { linear { out_features: 4 } } "
            "shortcut { batch_norm1d {} } } }",
            {4}},
           {"",
            "layers { layer_norm {} } layers { group_norm { num_groups: 4 "
            "} }",
            {4}},
       }) {
    const auto model = New(c.config, c.input_shape);
    EXPECT_EQ(model->NeedsTwoSamples(), c.says) << c.config;
    std::vector<int64_t> shape = c.input_shape;
    shape.insert(shape.begin(), 1);
    Batch batch;
    batch.inputs = at::randn(shape);
    EXPECT_EQ(model->Forward(batch).ok(), c.says.empty()) << c.config;
  }
}

TEST(SequentialTest, NeedsTwoSamplesIsNotGuessedForAnotherShape) {
  EXPECT_EQ(New("layers { batch_norm2d {} } input_shape: [4, 1, 1]", {4, 2, 2})
                ->NeedsTwoSamples(),
            "");
  EXPECT_THAT(New("layers { batch_norm2d {} } input_shape: [4, 1, 1]", {})
                  ->NeedsTwoSamples(),
              HasSubstr("batch_norm2d"));
}

// --- Bad configs ---

struct BadCase {
  std::string says;
  std::string config;
  std::vector<int64_t> input_shape = {4, 8, 8};
};

void PrintTo(const BadCase& c, std::ostream* os) { *os << c.config; }

class SequentialBadConfigTest : public TestWithParam<BadCase> {};

INSTANTIATE_TEST_SUITE_P(
    , SequentialBadConfigTest,
    ValuesIn(std::vector<BadCase>{
        {"layers: must have at least one layer", ""},
        {"input_shape: must be set", "layers { relu {} }", {}},
        {"input_shape: sizes must be >= 1, is (3, 0)",
         "layers { relu {} } input_shape: [3, 0]"},
        {"layers[1]: must be set, to one of: linear",
         "layers { relu {} } "
         "layers {}"},
        {"layers[1] relu: name: \"0\" is the name of a layer before",
         "layers { relu {} } layers { name: '0' relu {} }"},
        {"layers[0] relu: name: must not be empty nor contain \".\", is "
         "\"a.b\"",
         "layers { name: 'a.b' relu {} }"},
        {"loss: must be set, to one of: cross_entropy",
         "layers { relu {} } loss {}"},
        {"loss: label_smoothing:",
         "layers { relu {} } loss { cross_entropy { label_smoothing: 2 } }"},
        {"layers[1] linear: takes (F) or (L, F): input is (4, 4, 4); put a "
         "flatten before it",
         "layers { max_pool2d { kernel_size: 2 } } "
         "layers { linear { out_features: 10 } }"},
        {"layers[0] linear: out_features: must be set",
         "layers { linear {} }",
         {4}},
        {"layers[0] linear: out_features: must be >= 1, is 0",
         "layers { linear { out_features: 0 } }",
         {4}},
        {"layers[1] conv2d: takes (C, H, W): input is (256,)",
         "layers { flatten {} } "
         "layers { conv2d { out_channels: 1 kernel_size: 1 } }"},
        {"conv2d: out_channels: must be set",
         "layers { conv2d { kernel_size: 1 } }"},
        {"conv2d: kernel_size: must be set",
         "layers { conv2d { out_channels: 1 } }"},
        {"conv2d: kernel_size: must be one number or two, are 3",
         "layers { conv2d { out_channels: 1 kernel_size: [1, 1, 1] } }"},
        {"conv2d: stride: must be >= 1, is 0",
         "layers { conv2d { out_channels: 1 kernel_size: 1 stride: [1, 0] } }"},
        {"conv2d: padding: must be >= 0, is -1",
         "layers { conv2d { out_channels: 1 kernel_size: 1 padding: -1 } }"},
        {"conv2d: dilation: must be >= 1, is 0",
         "layers { conv2d { out_channels: 1 kernel_size: 1 dilation: 0 } }"},
        {"conv2d: groups: must be >= 1, is 0",
         "layers { conv2d { out_channels: 1 kernel_size: 1 groups: 0 } }"},
        {"conv2d: groups: must divide the input's 4 channels and the output's "
         "6, is 3",
         "layers { conv2d { out_channels: 6 kernel_size: 1 groups: 3 } }"},
        {"layers[0] conv2d: doesn't fit the input (4, 8, 8): ",
         "layers { conv2d { out_channels: 1 kernel_size: 9 } }"},
        {"conv1d: takes (C, L): input is (4, 8, 8)",
         "layers { conv1d { out_channels: 1 kernel_size: 1 } }"},
        {"conv1d: kernel_size: must be set",
         "layers { conv1d { out_channels: 1 } }",
         {4, 8}},
        {"conv1d: stride: must be >= 1, is -1",
         "layers { conv1d { out_channels: 1 kernel_size: 1 stride: -1 } }",
         {4, 8}},
        {"conv_transpose2d: output_padding: must be less than stride or "
         "dilation, 2, is 2",
         "layers { conv_transpose2d { out_channels: 1 kernel_size: 3 stride: 2 "
         "output_padding: 2 } }"},
        {"embedding: num_embeddings: must be >= 1, is -1",
         "layers { embedding { num_embeddings: -1 } }"},
        {"embedding: embedding_dim: must be set",
         "layers { embedding { num_embeddings: 1 } }"},
        {"flatten: start_dim: must be >= 1, is 0",
         "layers { flatten { start_dim: 0 } }"},
        {"flatten: end_dim: must be >= 2, is 1",
         "layers { flatten { start_dim: 2 end_dim: 1 } }"},
        {"flatten: end_dim: must be at most 3, is 4",
         "layers { flatten { end_dim: 4 } }"},
        {"dropout: p: must be in [0, 1], is 1.1",
         "layers { dropout { p: 1.1 } }"},
        {"dropout: p: must be in [0, 1], is nan",
         "layers { dropout { p: nan } }"},
        {"batch_norm1d: takes (C) or (C, L): input is (4, 8, 8)",
         "layers { batch_norm1d {} }"},
        {"batch_norm2d: takes (C, H, W): input is (4,)",
         "layers { batch_norm2d {} }",
         {4}},
        {"batch_norm2d: eps: must be finite and > 0, is 0",
         "layers { batch_norm2d { eps: 0 } }"},
        {"batch_norm2d: momentum: must be in [0, 1], is 2",
         "layers { batch_norm2d { momentum: 2 } }"},
        {"layer_norm: num_dims: must be at most 3, is 4",
         "layers { layer_norm { num_dims: 4 } }"},
        {"layer_norm: eps: must be finite and > 0, is inf",
         "layers { layer_norm { eps: inf } }"},
        {"group_norm: num_groups: must be set", "layers { group_norm {} }"},
        {"group_norm: num_groups: must divide the input's 4 channels, is 3",
         "layers { group_norm { num_groups: 3 } }"},
        {"max_pool2d: kernel_size: must be set", "layers { max_pool2d {} }"},
        {"max_pool2d: padding: must be at most half of kernel_size, 2, is 2",
         "layers { max_pool2d { kernel_size: 2 padding: 2 } }"},
        {"layers[3] max_pool2d: doesn't fit the input (4, 1, 1)",
         "layers { max_pool2d { kernel_size: 2 } } "
         "layers { max_pool2d { kernel_size: 2 } } "
         "layers { max_pool2d { kernel_size: 2 } } "
         "layers { max_pool2d { kernel_size: 2 } }"},
        {"avg_pool2d: stride: must be >= 1, is 0",
         "layers { avg_pool2d { kernel_size: 2 stride: 0 } }"},
        {"adaptive_avg_pool2d: output_size: must be >= 1, is 0",
         "layers { adaptive_avg_pool2d { output_size: 0 } }"},
        {"max_pool1d: takes (C, L): input is (4, 8, 8)",
         "layers { max_pool1d { kernel_size: 2 } }"},
        {"max_pool1d: kernel_size: must be set",
         "layers { max_pool1d {} }",
         {4, 8}},
        {"max_pool1d: dilation: must be >= 1, is 0",
         "layers { max_pool1d { kernel_size: 2 dilation: 0 } }",
         {4, 8}},
        {"max_pool1d: padding: must be at most half of kernel_size, 2, is 2",
         "layers { max_pool1d { kernel_size: 2 padding: 2 } }",
         {4, 8}},
        {"avg_pool1d: kernel_size: must be >= 1, is 0",
         "layers { avg_pool1d { kernel_size: 0 } }",
         {4, 8}},
        {"avg_pool1d: stride: must be >= 1, is 0",
         "layers { avg_pool1d { kernel_size: 2 stride: 0 } }",
         {4, 8}},
        {"avg_pool1d: padding: must be >= 0, is -1",
         "layers { avg_pool1d { kernel_size: 2 padding: -1 } }",
         {4, 8}},
        {"adaptive_avg_pool1d: output_size: must be >= 1, is 0",
         "layers { adaptive_avg_pool1d { output_size: 0 } }",
         {4, 8}},
        {"adaptive_avg_pool1d: takes (C, L): input is (4,)",
         "layers { adaptive_avg_pool1d {} }",
         {4}},
        {"elu: alpha: must be finite, is inf", "layers { elu { alpha: inf } }"},
        {"dropout2d: p: must be in [0, 1], is -0.5",
         "layers { dropout2d { p: -0.5 } }"},
        {"dropout2d: takes (C, H, W): input is (4,)",
         "layers { dropout2d {} }",
         {4}},
        {"softmax: dim: must be >= 1, is 0", "layers { softmax { dim: 0 } }"},
        {"softmax: dim: must be >= 1, is -2", "layers { softmax { dim: -2 } }"},
        {"softmax: dim: must be at most 3, is 4",
         "layers { softmax { dim: 4 } }"},
        {"leaky_relu: negative_slope: must be finite, is nan",
         "layers { leaky_relu { negative_slope: nan } }"},
        {"gelu: approximate: must be APPROXIMATE_NONE or APPROXIMATE_TANH",
         "layers { gelu { approximate: APPROXIMATE_UNSPECIFIED } }"},
        {"layers[0] sequential: layers: must have at least one layer",
         "layers { sequential {} }"},
        {"layers[0] residual: layers[1] sequential: layers[0] linear: takes",
         "layers { residual { layers { relu {} } layers { sequential { "
         "layers { linear { out_features: 1 } } } } } }"},
        {"layers[0] residual: shortcut[0] linear: takes",
         "layers { residual { layers { relu {} } "
         "shortcut { linear { out_features: 1 } } } }"},
        {"layers[0] residual: layers give (5, 8, 8), the input is (4, 8, 8)",
         "layers { residual { layers { "
         "conv2d { out_channels: 5 kernel_size: 1 } } } }"},
        {"layers[0] residual: layers give (4, 8, 8), shortcut gives (256,)",
         "layers { residual { layers { relu {} } shortcut { flatten {} } } }"},
    }));

TEST_P(SequentialBadConfigTest, NamesLayerAndField) {
  EXPECT_THAT(
      TryNew(GetParam().config, GetParam().input_shape),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(GetParam().says)));
}

}  // namespace
}  // namespace grapnel
