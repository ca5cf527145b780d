// Models, layers, losses and metrics on the device without hardware: the CPU's
// numbers, and no copy between host and device that nobody needs.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <ostream>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "ATen/CPUGeneratorImpl.h"
#include "ATen/Context.h"
#include "ATen/core/Generator.h"
#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "c10/core/Device.h"
#include "c10/core/GradMode.h"
#include "gmock/gmock.h"
#include "google/protobuf/message.h"
#include "google/protobuf/text_format.h"
#include "google/protobuf/wrappers.pb.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/data/sample.h"
#include "grapnel/io/env.h"
#include "grapnel/io/mem_env.h"
#include "grapnel/models/callback_model.h"
#include "grapnel/models/find_tensor.h"
#include "grapnel/models/functional.h"
#include "grapnel/models/layer.h"
#include "grapnel/models/layer.pb.h"
#include "grapnel/models/log_vars.h"
#include "grapnel/models/loss.h"
#include "grapnel/models/loss.pb.h"
#include "grapnel/models/metric.h"
#include "grapnel/models/metric.pb.h"
#include "grapnel/models/model.h"
#include "grapnel/models/model.pb.h"
#include "grapnel/models/nn_model.h"
#include "grapnel/models/sequential.h"
#include "grapnel/models/torch_script_model.h"
#include "grapnel/tests/device/fake_device.h"
#include "gtest/gtest.h"
#include "torch/nn/module.h"
#include "torch/script.h"

namespace grapnel {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;
using ::testing::TestWithParam;
using ::testing::ValuesIn;

const c10::Device kCpu = c10::DeviceType::CPU;

// The type, shape and bytes of a tensor on any device, NaN or not.
bool SameBits(const at::Tensor& a, const at::Tensor& b) {
  if (!a.defined() || !b.defined()) return a.defined() == b.defined();
  if (a.scalar_type() != b.scalar_type() || a.sizes() != b.sizes()) {
    return false;
  }
  const at::Tensor x = a.detach().cpu().contiguous();
  const at::Tensor y = b.detach().cpu().contiguous();
  return std::memcmp(x.const_data_ptr(), y.const_data_ptr(), x.nbytes()) == 0;
}

// Copies between host and device that a test's lines have asked for.
class Copies {
 public:
  int64_t to_host() const { return CountFakeCopies().to_host - from_.to_host; }
  int64_t to_device() const {
    return CountFakeCopies().to_device - from_.to_device;
  }

  // For EXPECT_EQ(copies.ToString(), "").
  std::string ToString() const {
    if (to_host() == 0 && to_device() == 0) return "";
    return absl::StrCat(to_host(), " to the host, ", to_device(),
                        " to the device, the last of ",
                        absl::StrJoin(LastFakeCopies(), "; "));
  }

 private:
  const FakeCopies from_ = CountFakeCopies();
};

at::Generator NewCpuGenerator(uint64_t seed) {
  return at::make_generator<at::CPUGeneratorImpl>(seed);
}

template <typename Config>
Config Parse(const std::string& text) {
  Config config;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &config))
      << text;
  return config;
}

// The full name of the config that is set in the oneof `kind`.
std::string ConfigName(const google::protobuf::Message& config) {
  const auto* kind = config.GetDescriptor()->FindOneofByName("kind");
  const auto* field =
      config.GetReflection()->GetOneofFieldDescriptor(config, kind);
  return field == nullptr ? "" : field->message_type()->full_name();
}

// What the registry has and no case of the table is of.
template <typename Registry, typename Config, typename Cases>
std::vector<std::string> Unlisted(const Cases& cases) {
  std::set<std::string> listed;
  for (const auto& test_case : cases) {
    listed.insert(ConfigName(Parse<Config>(test_case.config)));
  }
  std::vector<std::string> unlisted;
  for (const std::string& name : Registry::ConfigNames()) {
    if (listed.count(name) == 0) unlisted.push_back(name);
  }
  return unlisted;
}

// --- Layers ---

// A layer of a user's, with tensors of both kinds and a random number.
class NoisyScaleLayer : public SeededLayer {
 public:
  using Config = google::protobuf::DoubleValue;

  static absl::StatusOr<std::unique_ptr<Layer>> Create(
      const Config& config, const LayerOptions& options) {
    return std::make_unique<NoisyScaleLayer>(config, options);
  }

  NoisyScaleLayer(const Config& config, const LayerOptions& options)
      : generator_(options.forward_generator()),
        factor_(AddParameter(options, "factor",
                             ops::full({1}, config.value(), at::kFloat))),
        offset_(AddBuffer(options, "offset",
                          ops::zeros({1}).uniform_(0, 1, options.generator))) {}

  at::Tensor Forward(const at::Tensor& input) override {
    return functional::dropout(input * factor_ + offset_, 0.5, training(),
                               generator_);
  }

 private:
  const at::Generator generator_;
  const at::Tensor factor_;
  const at::Tensor offset_;
};
GRAPNEL_REGISTER(LayerRegistry, NoisyScaleLayer);

struct LayerCase {
  std::string name;
  std::string config;
  std::vector<int64_t> shape;  // Of a sample.
  at::ScalarType type = at::kFloat;
  // Whether LibTorch computes it by another formula than on its own devices.
  bool other_formula = false;
};

std::ostream& operator<<(std::ostream& out, const LayerCase& test_case) {
  return out << test_case.name;
}

std::vector<LayerCase> LayerCases() {
  return {
      {"Linear", "linear { out_features: 3 }", {5}},
      {"LinearOfSequences", "linear { out_features: 3 }", {4, 5}},
      {"LinearWithoutBias", "linear { out_features: 3 bias: false }", {5}},
      {"Conv1d",
       "conv1d { out_channels: 4 kernel_size: 3 stride: 2 groups: 2 }",
       {2, 9}},
      {"Conv2d",
       "conv2d { out_channels: 4 kernel_size: 3 padding: 1 dilation: 2 }",
       {2, 9, 9}},
      {"ConvTranspose2d",
       "conv_transpose2d { out_channels: 3 kernel_size: 3 stride: 2 "
       "output_padding: 1 }",
       {2, 5, 5}},
      {"Embedding",
       "embedding { num_embeddings: 9 embedding_dim: 3 }",
       {4},
       at::kLong},
      {"EmbeddingOfBytes",
       "embedding { num_embeddings: 9 embedding_dim: 3 }",
       {4},
       at::kByte},
      {"EmbeddingOfFloats",
       "embedding { num_embeddings: 9 embedding_dim: 3 }",
       {4}},
      {"Flatten", "flatten {}", {2, 3, 4}},
      {"Dropout", "dropout { p: 0.3 }", {50}},
      {"Dropout2d", "dropout2d { p: 0.3 }", {20, 2, 3}},
      {"Identity", "identity {}", {5}},
      {"BatchNorm1d", "batch_norm1d {}", {5}},
      {"BatchNorm1dOfSequences", "batch_norm1d { affine: false }", {5, 3}},
      {"BatchNorm2d", "batch_norm2d {}", {3, 4, 4}},
      {"BatchNorm2dWithoutStatistics",
       "batch_norm2d { track_running_stats: false }",
       {3, 4, 4}},
      {"LayerNorm", "layer_norm { num_dims: 2 }", {3, 4}, at::kFloat, true},
      {"GroupNorm",
       "group_norm { num_groups: 2 }",
       {4, 3, 3},
       at::kFloat,
       true},
      {"MaxPool1d", "max_pool1d { kernel_size: 2 }", {2, 9}},
      {"AvgPool1d", "avg_pool1d { kernel_size: 2 }", {2, 9}},
      {"AdaptiveAvgPool1d", "adaptive_avg_pool1d { output_size: 2 }", {2, 9}},
      {"MaxPool2d", "max_pool2d { kernel_size: 2 ceil_mode: true }", {2, 5, 5}},
      {"AvgPool2d", "avg_pool2d { kernel_size: 2 padding: 1 }", {2, 5, 5}},
      {"AdaptiveAvgPool2d",
       "adaptive_avg_pool2d { output_size: 2 }",
       {2, 5, 5}},
      {"Relu", "relu {}", {5}},
      {"LeakyRelu", "leaky_relu {}", {5}},
      {"Elu", "elu {}", {5}},
      {"Gelu", "gelu {}", {5}},
      {"GeluByTanh", "gelu { approximate: APPROXIMATE_TANH }", {5}},
      {"Silu", "silu {}", {5}, at::kFloat, true},
      {"Tanh", "tanh {}", {5}},
      {"Sigmoid", "sigmoid {}", {5}},
      {"Softmax", "softmax {}", {5}},
      {"Sequential",
       "sequential { layers { linear { out_features: 4 } } layers { relu {} } "
       "layers { dropout { p: 0.4 } } layers { linear { out_features: 2 } } }",
       {5}},
      {"Residual",
       "residual { layers { conv2d { out_channels: 4 kernel_size: 3 "
       "padding: 1 } } layers { batch_norm2d {} } layers { relu {} } "
       "shortcut { conv2d { out_channels: 4 kernel_size: 1 } } }",
       {2, 5, 5}},
      {"Custom",
       "custom { [type.googleapis.com/google.protobuf.DoubleValue] "
       "{ value: 3 } }",
       {20}},
      {"CustomInside",
       "residual { layers { custom { "
       "[type.googleapis.com/google.protobuf.DoubleValue] { value: 3 } } } }",
       {20}},
  };
}

TEST(DeviceLayerTest, EveryRegisteredLayerIsInTheTable) {
  std::vector<std::string> unlisted =
      Unlisted<LayerRegistry, models::v1::LayerConfig>(LayerCases());
  // As "custom".
  unlisted.erase(std::remove(unlisted.begin(), unlisted.end(),
                             "google.protobuf.DoubleValue"),
                 unlisted.end());
  EXPECT_THAT(unlisted, IsEmpty());
}

struct LayerRun {
  at::Tensor outputs;
  at::Tensor evaluated;
  at::Tensor input_gradient;
  std::vector<NamedTensor> initial;
  std::vector<NamedTensor> gradients;
  std::vector<NamedTensor> buffers;
  std::string copies;
};

// The same draws on both devices: what forward draws from starts anew.
LayerRun RunLayer(const LayerCase& test_case, c10::Device device) {
  LayerRun run;
  ModelOptions options;
  options.device = device;
  options.input_shape = test_case.shape;
  options.generator = NewCpuGenerator(1);
  options.device_generator = NewCpuGenerator(2);
  const auto model =
      Sequential::Create(Parse<models::v1::SequentialConfig>(
                             absl::StrCat("layers { ", test_case.config, " }")),
                         options);
  EXPECT_THAT(model, IsOk());
  if (!model.ok()) return run;
  for (const auto* list : {&(*model)->parameters(), &(*model)->buffers()}) {
    for (const NamedTensor& tensor : *list) {
      EXPECT_EQ(tensor.tensor.device(), device) << tensor.name;
      EXPECT_TRUE(tensor.tensor.is_leaf()) << tensor.name;
      run.initial.push_back({tensor.name, tensor.tensor.detach().clone()});
    }
  }
  at::Generator forward =
      device.is_cpu() ? options.generator : options.device_generator;
  forward.set_current_seed(3);

  std::vector<int64_t> shape = {6};
  shape.insert(shape.end(), test_case.shape.begin(), test_case.shape.end());
  at::Generator data = NewCpuGenerator(4);
  at::Tensor inputs = ops::empty(shape);
  if (test_case.config.find("embedding") == std::string::npos) {
    inputs = inputs.normal_(0, 1, data).to(device);
    inputs.requires_grad_();
  } else {
    inputs = inputs.random_(0, 9, data).to(test_case.type).to(device);
  }
  std::vector<int64_t> output_shape = {6};
  output_shape.insert(output_shape.end(), (*model)->output_shape().begin(),
                      (*model)->output_shape().end());
  const at::Tensor outer =
      ops::empty(output_shape).normal_(0, 1, data).to(device);
  Batch batch;
  batch.inputs = inputs;

  const Copies copies;
  const auto outputs = (*model)->Forward(batch);
  EXPECT_THAT(outputs, IsOk());
  if (!outputs.ok()) return run;
  if (outputs->requires_grad()) outputs->backward(outer);
  (*model)->SetTraining(false);
  const c10::AutoGradMode no_grad(false);
  const auto evaluated = (*model)->Forward(batch);
  EXPECT_THAT(evaluated, IsOk());
  run.copies = copies.ToString();
  run.outputs = *outputs;
  run.evaluated = *evaluated;
  run.input_gradient = inputs.grad();
  for (const NamedTensor& parameter : (*model)->parameters()) {
    run.gradients.push_back({parameter.name, parameter.tensor.grad()});
  }
  run.buffers = (*model)->buffers();
  return run;
}

using SameFunction = bool (*)(const at::Tensor& a, const at::Tensor& b);

bool IsClose(const at::Tensor& a, const at::Tensor& b) {
  return ops::allclose(a.cpu(), b.cpu(), 1e-5, 1e-6);
}

void ExpectSame(const std::vector<NamedTensor>& a,
                const std::vector<NamedTensor>& b,
                SameFunction same = &SameBits) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].name, b[i].name);
    EXPECT_TRUE(same(a[i].tensor, b[i].tensor)) << a[i].name;
  }
}

class DeviceLayerTest : public TestWithParam<LayerCase> {};

TEST_P(DeviceLayerTest, HasTheCpusBitsAndCopiesNothing) {
  UseFakeGenerator(FakeGenerator::kCpus);
  const LayerRun cpu = RunLayer(GetParam(), kCpu);
  const LayerRun fake = RunLayer(GetParam(), FakeDevice());
  ASSERT_TRUE(fake.outputs.defined());
  EXPECT_EQ(fake.outputs.device(), FakeDevice());
  const SameFunction same = GetParam().other_formula ? &IsClose : &SameBits;
  EXPECT_TRUE(same(fake.outputs, cpu.outputs));
  EXPECT_TRUE(same(fake.evaluated, cpu.evaluated));
  EXPECT_TRUE(same(fake.input_gradient, cpu.input_gradient));
  ExpectSame(fake.initial, cpu.initial);
  ExpectSame(fake.gradients, cpu.gradients, same);
  ExpectSame(fake.buffers, cpu.buffers);
  EXPECT_EQ(fake.copies, "");
}

INSTANTIATE_TEST_SUITE_P(Layers, DeviceLayerTest, ValuesIn(LayerCases()),
                         [](const auto& info) { return info.param.name; });

// --- Losses ---

struct LossCase {
  std::string name;
  std::string config;
  at::Tensor outputs;
  at::Tensor targets;
};

std::ostream& operator<<(std::ostream& out, const LossCase& test_case) {
  return out << test_case.name;
}

std::vector<LossCase> LossCases() {
  at::Generator draws = NewCpuGenerator(5);
  const auto normal = [&](at::IntArrayRef shape) {
    return ops::empty(shape).normal_(0, 1, draws);
  };
  const at::Tensor labels = ops::tensor<int64_t>({0, 3, 1, 2, 3, 1});
  const at::Tensor none = ops::full({6}, -100, at::kLong);
  return {
      {"CrossEntropy", "cross_entropy {}", normal({6, 4}), labels},
      {"CrossEntropySmoothed", "cross_entropy { label_smoothing: 0.1 }",
       normal({6, 4}), labels},
      {"CrossEntropyWeighted",
       "cross_entropy { class_weight: [1, 2, 0.5, 3] ignore_index: 1 }",
       normal({6, 4}), labels},
      {"CrossEntropyWeightedHalf",
       "cross_entropy { class_weight: [1, 2, 0.5, 3] }",
       normal({6, 4}).to(at::kBFloat16), labels},
      {"CrossEntropyOfNothing", "cross_entropy {}", normal({6, 4}), none},
      {"CrossEntropyOfWeightsOfZero", "cross_entropy { class_weight: [0, 0] }",
       normal({2, 2}), ops::tensor<int64_t>({0, 1})},
      {"CrossEntropyOfProbabilities",
       "cross_entropy { class_weight: [1, 2, 0.5, 3] }", normal({6, 4}),
       functional::softmax(normal({6, 4}), 1)},
      {"CrossEntropyOfPixels", "cross_entropy { ignore_index: 2 }",
       normal({2, 4, 3}), labels.view({2, 3})},
      {"Mse", "mse {}", normal({6, 4}), normal({6, 4})},
      {"L1", "l1 {}", normal({6, 4}), normal({6, 4})},
      {"SmoothL1", "smooth_l1 { beta: 0.5 }", normal({6, 4}), normal({6, 4})},
      {"BceWithLogits", "bce_with_logits {}", normal({6, 4}),
       normal({6, 4}).sigmoid()},
  };
}

TEST(DeviceLossTest, EveryRegisteredLossIsInTheTable) {
  EXPECT_THAT((Unlisted<LossRegistry, models::v1::LossConfig>(LossCases())),
              IsEmpty());
}

struct LossRun {
  at::Tensor loss;
  at::Tensor weight;
  at::Tensor gradient;
  std::string copies;
};

// A step after the first: what is kept of a loss is on the device by then.
LossRun RunLoss(const LossCase& test_case, c10::Device device) {
  LossRun run;
  const auto loss =
      LossRegistry::Create(Parse<models::v1::LossConfig>(test_case.config));
  EXPECT_THAT(loss, IsOk());
  if (!loss.ok()) return run;
  Batch batch;
  batch.targets = test_case.targets.to(device);
  batch.indices.resize(6);
  at::Tensor outputs = test_case.outputs.to(device);
  EXPECT_THAT((*loss)->Compute(outputs, batch), IsOk());

  outputs = outputs.detach().clone().requires_grad_();
  const Copies copies;
  const auto value = (*loss)->Compute(outputs, batch);
  EXPECT_THAT(value, IsOk());
  const auto weight = (*loss)->Weight(outputs, batch);
  EXPECT_THAT(weight, IsOk());
  if (!value.ok() || !weight.ok()) return run;
  value->backward();
  run = {*value, *weight, outputs.grad(), copies.ToString()};
  return run;
}

class DeviceLossTest : public TestWithParam<LossCase> {};

TEST_P(DeviceLossTest, HasTheCpusBitsAndCopiesNothing) {
  const LossRun cpu = RunLoss(GetParam(), kCpu);
  const LossRun fake = RunLoss(GetParam(), FakeDevice());
  ASSERT_TRUE(fake.loss.defined());
  EXPECT_EQ(fake.loss.device(), FakeDevice());
  EXPECT_TRUE(SameBits(fake.loss, cpu.loss));
  EXPECT_TRUE(SameBits(fake.weight, cpu.weight));
  EXPECT_TRUE(SameBits(fake.gradient, cpu.gradient));
  EXPECT_EQ(fake.copies, "");
}

INSTANTIATE_TEST_SUITE_P(Losses, DeviceLossTest, ValuesIn(LossCases()),
                         [](const auto& info) { return info.param.name; });

// --- Metrics ---

struct MetricCase {
  std::string name;
  std::string config;
  at::Tensor outputs;  // Of all batches.
  at::Tensor targets;
  std::string loss;  // Of the predictions: its config; "" for none.
};

std::ostream& operator<<(std::ostream& out, const MetricCase& test_case) {
  return out << test_case.name;
}

std::vector<MetricCase> MetricCases() {
  at::Generator draws = NewCpuGenerator(6);
  const auto normal = [&](at::IntArrayRef shape) {
    return ops::empty(shape).normal_(0, 1, draws);
  };
  const at::Tensor labels =
      ops::tensor<int64_t>({0, 3, 1, 2, 3, 1, 0, 0, 2, 1});
  return {
      {"Accuracy", "accuracy { topk: [1, 3] }", normal({10, 4}), labels, ""},
      {"AccuracyOfBytes", "accuracy {}", normal({10, 4}), labels.to(at::kByte),
       ""},
      {"AccuracyAndWhatCounts", "accuracy {}", normal({10, 4}), labels,
       "cross_entropy { ignore_index: 1 class_weight: [1, 2, 3, 4] }"},
      {"MeanSquaredError", "mse {}", normal({10, 4}), normal({10, 4}),
       "mse {}"},
      {"MeanAbsoluteError", "mae {}", normal({10, 4}), normal({10, 4}),
       "l1 {}"},
  };
}

TEST(DeviceMetricTest, EveryRegisteredMetricIsInTheTable) {
  EXPECT_THAT(
      (Unlisted<MetricRegistry, models::v1::MetricConfig>(MetricCases())),
      IsEmpty());
}

struct MetricRun {
  Metrics metrics;
  std::string copies;          // Of the batches.
  int64_t copies_to_host = 0;  // Of the end.
};

MetricRun RunMetric(const MetricCase& test_case, c10::Device device) {
  MetricRun run;
  google::protobuf::RepeatedPtrField<models::v1::MetricConfig> configs;
  *configs.Add() = Parse<models::v1::MetricConfig>(test_case.config);
  const auto evaluator = Evaluator::Create(configs);
  EXPECT_THAT(evaluator, IsOk());
  if (!evaluator.ok()) return run;
  std::unique_ptr<Loss> loss;
  if (!test_case.loss.empty()) {
    auto created =
        LossRegistry::Create(Parse<models::v1::LossConfig>(test_case.loss));
    EXPECT_THAT(created, IsOk());
    if (!created.ok()) return run;
    loss = *std::move(created);
  }
  const at::Tensor outputs = test_case.outputs.to(device);
  const at::Tensor targets = test_case.targets.to(device);
  for (const bool warm : {false, true}) {
    (*evaluator)->Reset();
    const Copies copies;
    for (int64_t begin = 0; begin < 10; begin += 4) {
      const int64_t end = std::min<int64_t>(begin + 4, 10);
      Predictions predictions;
      predictions.outputs = outputs.slice(0, begin, end);
      Batch batch;
      batch.targets = targets.slice(0, begin, end);
      batch.indices.resize(static_cast<size_t>(end - begin));
      if (loss != nullptr) {
        const auto value = loss->Compute(predictions.outputs, batch);
        const auto weight = loss->Weight(predictions.outputs, batch);
        EXPECT_THAT(value, IsOk());
        EXPECT_THAT(weight, IsOk());
        if (!value.ok() || !weight.ok()) return run;
        predictions.losses.Add("loss", *value, *weight);
        predictions.ignore_index = loss->ignore_index();
      }
      EXPECT_THAT((*evaluator)->Process(predictions, batch), IsOk());
    }
    if (warm) run.copies = copies.ToString();
    const int64_t before = copies.to_host();
    const auto metrics = (*evaluator)->Compute("val");
    EXPECT_THAT(metrics, IsOk());
    if (!metrics.ok()) return run;
    run.copies_to_host = copies.to_host() - before;
    run.metrics = *metrics;
  }
  return run;
}

class DeviceMetricTest : public TestWithParam<MetricCase> {};

TEST_P(DeviceMetricTest, HasTheCpusValuesAndWaitsOnlyInTheEnd) {
  const MetricRun cpu = RunMetric(GetParam(), kCpu);
  const MetricRun fake = RunMetric(GetParam(), FakeDevice());
  ASSERT_FALSE(fake.metrics.empty());
  EXPECT_EQ(fake.metrics, cpu.metrics);
  EXPECT_EQ(fake.copies, "");
  // A metric's sums, and those of a loss and its weights.
  EXPECT_GE(fake.copies_to_host, 1);
  EXPECT_LE(fake.copies_to_host, 3);
}

INSTANTIATE_TEST_SUITE_P(Metrics, DeviceMetricTest, ValuesIn(MetricCases()),
                         [](const auto& info) { return info.param.name; });

// --- Models from config ---

constexpr char kDigits[] = R"(
layers { conv2d { out_channels: 4 kernel_size: 3 padding: 1 } }
layers { batch_norm2d {} }
layers { relu {} }
layers { max_pool2d { kernel_size: 2 } }
layers { flatten {} }
layers { dropout { p: 0.3 } }
layers { linear { out_features: 3 } }
loss { cross_entropy { class_weight: [1, 2, 3] } })";

Batch DigitsBatch(c10::Device device) {
  at::Generator draws = NewCpuGenerator(7);
  Batch batch;
  batch.inputs = ops::empty({6, 1, 4, 4}).normal_(0, 1, draws).to(device);
  batch.targets = ops::tensor<int64_t>({0, 2, 1, 1, 0, 2}).to(device);
  batch.indices = {0, 1, 2, 3, 4, 5};
  return batch;
}

std::unique_ptr<Model> NewDigits(const ModelOptions& options) {
  models::v1::ModelConfig config;
  *config.mutable_sequential() = Parse<models::v1::SequentialConfig>(kDigits);
  ModelOptions with_shape = options;
  with_shape.input_shape = {1, 4, 4};
  auto model = ModelRegistry::Create(config, with_shape);
  EXPECT_THAT(model, IsOk());
  return model.ok() ? *std::move(model) : nullptr;
}

// Steps of gradient descent; the last loss.
at::Tensor Train(Model& model, const Batch& batch, int steps) {
  at::Tensor loss;
  for (int step = 0; step < steps; ++step) {
    LogVars losses;
    EXPECT_THAT(model.ComputeLosses(batch, &losses), IsOk());
    if (losses.empty()) return loss;
    loss = losses[0].tensor;
    loss.backward();
    const c10::AutoGradMode no_grad(false);
    for (const NamedTensor& parameter : model.parameters()) {
      parameter.tensor.sub_(parameter.tensor.grad(), 0.1);
      parameter.tensor.mutable_grad().reset();
    }
  }
  return loss.detach();
}

TEST(DeviceModelTest, TrainsToTheCpusBitsWithoutACopy) {
  UseFakeGenerator(FakeGenerator::kCpus);
  std::vector<at::Tensor> losses, outputs;
  std::vector<TensorMap> states;
  for (const c10::Device device : {kCpu, FakeDevice()}) {
    ModelOptions options;
    options.device = device;
    options.generator = NewCpuGenerator(1);
    options.device_generator = NewCpuGenerator(2);
    const auto model = NewDigits(options);
    ASSERT_NE(model, nullptr);
    options.generator.set_current_seed(2);
    const Batch batch = DigitsBatch(device);
    Train(*model, batch, 1);
    const Copies copies;
    losses.push_back(Train(*model, batch, 3));
    model->SetTraining(false);
    Predictions predictions;
    ASSERT_THAT(model->ValStep(batch, &predictions), IsOk());
    EXPECT_EQ(copies.ToString(), "");
    outputs.push_back(predictions.outputs);
    const auto state = ModelState(*model);
    ASSERT_THAT(state, IsOk());
    states.push_back(*state);
  }
  EXPECT_TRUE(SameBits(losses[0], losses[1]));
  EXPECT_TRUE(SameBits(outputs[0], outputs[1]));
  for (const NamedTensor& tensor : states[0]) {
    EXPECT_TRUE(SameBits(tensor.tensor, *states[1].Find(tensor.name)))
        << tensor.name;
  }
}

at::Generator NewFakeGenerator(uint64_t seed) {
  at::Generator generator =
      at::globalContext()
          .getAcceleratorHooksInterface(FakeDevice().type())
          .getNewGenerator(FakeDevice().index());
  generator.set_current_seed(seed);
  return generator;
}

// Dropout draws from the device's generator that the model was given, and the
// weights of one seed are those of the CPU.
TEST(DeviceModelTest, DrawsFromTheGeneratorsThatItWasGiven) {
  UseFakeGenerator(FakeGenerator::kOwn);
  const at::Generator& fallback =
      at::globalContext().defaultGenerator(FakeDevice());
  const at::Tensor untouched = fallback.get_state().clone();
  const at::Tensor cpu_untouched =
      at::globalContext().defaultGenerator(kCpu).get_state().clone();
  std::vector<at::Tensor> losses;
  for (const uint64_t seed : {2, 2, 3}) {
    ModelOptions options;
    options.device = FakeDevice();
    options.generator = NewCpuGenerator(1);
    options.device_generator = NewFakeGenerator(seed);
    const auto model = NewDigits(options);
    ASSERT_NE(model, nullptr);
    EXPECT_TRUE(model->has_own_generator());
    losses.push_back(Train(*model, DigitsBatch(FakeDevice()), 2));
  }
  EXPECT_TRUE(SameBits(losses[0], losses[1]));
  EXPECT_FALSE(SameBits(losses[0], losses[2]));
  EXPECT_TRUE(SameBits(fallback.get_state(), untouched));
  EXPECT_TRUE(SameBits(at::globalContext().defaultGenerator(kCpu).get_state(),
                       cpu_untouched));
}

TEST(DeviceModelTest, DrawsFromTheDevicesGeneratorIfItWasGivenNone) {
  UseFakeGenerator(FakeGenerator::kOwn);
  ModelOptions options;
  options.device = FakeDevice();
  options.input_shape = {1, 4, 4};
  const auto model = Sequential::Create(
      Parse<models::v1::SequentialConfig>("layers { dropout2d {} }"), options);
  ASSERT_THAT(model, IsOk());
  const at::Generator& fallback =
      at::globalContext().defaultGenerator(FakeDevice());
  const at::Tensor before = fallback.get_state().clone();
  EXPECT_THAT((*model)->Forward(DigitsBatch(FakeDevice())), IsOk());
  EXPECT_FALSE(SameBits(fallback.get_state(), before));
}

// A layer that took the CPU's would draw what no checkpoint holds.
TEST(DeviceModelTest, DropoutRefusesAGeneratorOfAnotherDevice) {
  UseFakeGenerator(FakeGenerator::kOwn);
  const at::Tensor input = ops::ones({4, 4}, FakeDevice());
  const at::Generator cpus = NewCpuGenerator(1);
  EXPECT_ANY_THROW(functional::dropout(input, 0.5, true, cpus));
  EXPECT_ANY_THROW(functional::feature_dropout(input, 0.5, true, cpus));
}

TEST(DeviceModelTest, ModelsFromConfigStayWhereTheyWereMade) {
  const auto model = NewDigits(ModelOptions());
  ASSERT_NE(model, nullptr);
  EXPECT_THAT(model->MoveTo(kCpu), IsOk());
  EXPECT_THAT(model->MoveTo(FakeDevice()),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       StartsWith("tensor \"0.weight\" is on cpu, not on "
                                  "fake:0")));
}

TEST(DeviceModelTest, WeightsAreReadFromAndForAnyDevice) {
  ModelOptions options;
  options.generator = NewCpuGenerator(1);
  const auto cpu = NewDigits(options);
  options.device = FakeDevice();  // Other weights: the generator goes on.
  const auto fake = NewDigits(options);
  ASSERT_NE(cpu, nullptr);
  ASSERT_NE(fake, nullptr);
  const auto found = FindTensor(*fake, "0.weight");
  ASSERT_THAT(found, IsOk());
  EXPECT_EQ(found->tensor.device(), FakeDevice());
  EXPECT_FALSE(SameBits(found->tensor, cpu->parameters()[0].tensor));

  TensorMap doubles;
  const auto state = ModelState(*cpu);
  ASSERT_THAT(state, IsOk());
  for (const NamedTensor& tensor : *state) {
    ASSERT_THAT(
        doubles.Add(tensor.name, at::isFloatingType(tensor.tensor.scalar_type())
                                     ? tensor.tensor.to(at::kDouble)
                                     : tensor.tensor),
        IsOk());
  }
  ASSERT_THAT(LoadModelState(doubles, /*strict=*/true, *fake, nullptr), IsOk());
  ExpectSame(fake->parameters(), cpu->parameters());
  EXPECT_EQ(fake->parameters()[0].tensor.device(), FakeDevice());

  Train(*cpu, DigitsBatch(kCpu), 1);
  const auto of_fake = ModelState(*fake);
  ASSERT_THAT(of_fake, IsOk());
  ASSERT_THAT(LoadModelState(*of_fake, /*strict=*/true, *cpu, nullptr), IsOk());
  ExpectSame(fake->parameters(), cpu->parameters());
  ExpectSame(fake->buffers(), cpu->buffers());

  TensorMap floats;
  ASSERT_THAT(floats.Add("1.num_batches_tracked", ops::ones({}, FakeDevice())),
              IsOk());
  EXPECT_THAT(LoadModelState(floats, /*strict=*/false, *cpu, nullptr),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("1.num_batches_tracked")));
}

// --- TorchScript ---

constexpr char kBlock[] = R"(
def forward(self, x):
    return torch.matmul(x, self.weight) + self.bias
)";

constexpr char kNet[] = R"(
def forward(self, x):
    if self.training:
        self.seen.add_(1)
    x = self.first.forward(x) * self.plain
    x = self.second.forward(torch.relu(x)) + self.more[0]
    return torch.dropout(x, 0.25, self.training) + self.pair[0]
)";

torch::jit::Module NewBlock(
    const std::shared_ptr<torch::jit::CompilationUnit>& unit,
    const at::Tensor& weight, const at::Tensor& bias) {
  torch::jit::Module block("Block", unit, /*shouldMangle=*/true);
  block.register_attribute("training", c10::BoolType::get(), true);
  block.register_parameter("weight", weight, /*is_buffer=*/false);
  block.register_parameter("bias", bias, /*is_buffer=*/false);
  block.define(kBlock);
  return block;
}

// Two blocks with one weight, a frozen bias, two attributes that are columns of
// one memory, one of them a buffer; tensors in a list and in a tuple.
void WriteNet(io::Env& env, const std::string& path,
              const char* forward = kNet) {
  const at::Tensor weight =
      ops::linspace(-1, 1, 9).view({3, 3}).requires_grad_();
  const at::Tensor memory = ops::linspace(1, 2, 6).view({3, 2});
  torch::jit::Module net("Net");
  const auto unit = net._ivalue()->compilation_unit();
  net.register_attribute("training", c10::BoolType::get(), true);
  net.register_module("first",
                      NewBlock(unit, weight, ops::ones({3}).requires_grad_()));
  net.register_module("second", NewBlock(unit, weight, ops::zeros({3})));
  net.register_buffer("seen", ops::zeros({}, at::kLong));
  net.register_buffer("column", memory.select(1, 1));
  net.register_attribute("plain", c10::TensorType::get(), memory.select(1, 0));
  net.register_attribute("more", c10::ListType::ofTensors(),
                         c10::List<at::Tensor>({ops::full({3}, 0.5)}));
  net.register_attribute(
      "pair",
      c10::TupleType::create({c10::TensorType::get(), c10::IntType::get()}),
      c10::ivalue::Tuple::create(ops::full({3}, 0.25), 7));
  net.define(forward);
  std::ostringstream out;
  net.save(out);
  ASSERT_THAT(io::WriteFileAtomically(env, path, out.str()), IsOk());
}

absl::StatusOr<std::unique_ptr<TorchScriptModel>> LoadNet(
    io::Env& env, const std::string& path, c10::Device device) {
  ModelOptions options;
  options.device = device;
  options.env = &env;
  return TorchScriptModel::Create(
      Parse<models::v1::TorchScriptConfig>(
          absl::StrCat("path: \"", path, "\" loss { mse {} }")),
      options);
}

Batch NetBatch(c10::Device device) {
  at::Generator draws = NewCpuGenerator(8);
  Batch batch;
  batch.inputs = ops::empty({5, 3}).normal_(0, 1, draws).to(device);
  batch.targets = ops::empty({5, 3}).normal_(0, 1, draws).to(device);
  batch.indices = {0, 1, 2, 3, 4};
  return batch;
}

std::vector<std::string> Names(const std::vector<NamedTensor>& tensors) {
  std::vector<std::string> names;
  for (const NamedTensor& tensor : tensors) names.push_back(tensor.name);
  return names;
}

class DeviceScriptTest : public testing::Test {
 protected:
  DeviceScriptTest() {
    UseFakeGenerator(FakeGenerator::kCpus);
    EXPECT_THAT(env_.CreateDir("/m"), IsOk());
    WriteNet(env_, "/m/net.pt");
  }

  std::unique_ptr<TorchScriptModel> Load(const std::string& path,
                                         c10::Device device) {
    auto model = LoadNet(env_, path, device);
    EXPECT_THAT(model, IsOk());
    return model.ok() ? *std::move(model) : nullptr;
  }

  std::string Exported(TorchScriptModel& model, const std::string& path) {
    EXPECT_THAT(model.Export(path), IsOk());
    const auto bytes = io::ReadFile(env_, path);
    EXPECT_THAT(bytes, IsOk());
    return bytes.ok() ? *bytes : "";
  }

  io::MemEnv env_;
};

TEST_F(DeviceScriptTest, TrainsToTheCpusBitsAndExportsTheCpusFile) {
  const auto cpu = Load("/m/net.pt", kCpu);
  const auto fake = Load("/m/net.pt", FakeDevice());
  ASSERT_NE(cpu, nullptr);
  ASSERT_NE(fake, nullptr);
  // One weight under its first name.
  EXPECT_THAT(Names(fake->parameters()),
              ElementsAre("first.weight", "first.bias", "second.bias"));
  EXPECT_EQ(Names(fake->parameters()), Names(cpu->parameters()));
  EXPECT_EQ(Names(fake->buffers()), Names(cpu->buffers()));
  for (size_t i = 0; i < 3; ++i) {
    const at::Tensor& parameter = fake->parameters()[i].tensor;
    EXPECT_EQ(parameter.device(), FakeDevice());
    EXPECT_TRUE(parameter.is_leaf());
    EXPECT_EQ(parameter.requires_grad(),
              cpu->parameters()[i].tensor.requires_grad());
    parameter.requires_grad_();
    cpu->parameters()[i].tensor.requires_grad_();
  }

  at::manual_seed(9);
  const at::Tensor cpu_loss = Train(*cpu, NetBatch(kCpu), 3);
  at::manual_seed(9);
  const Batch batch = NetBatch(FakeDevice());
  const Copies copies;
  const at::Tensor fake_loss = Train(*fake, batch, 3);
  EXPECT_EQ(copies.ToString(), "");
  EXPECT_TRUE(SameBits(fake_loss, cpu_loss));
  ExpectSame(fake->parameters(), cpu->parameters());
  ExpectSame(fake->buffers(), cpu->buffers());

  // And with the layout that files are written with.
  const at::Tensor given_out = fake->parameters()[0].tensor;
  EXPECT_TRUE(Exported(*fake, "/m/fake.pt") == Exported(*cpu, "/m/cpu.pt"));
  EXPECT_TRUE(fake->parameters()[0].tensor.is_same(given_out));
  EXPECT_EQ(given_out.device(), FakeDevice());
  Train(*fake, batch, 1);
  EXPECT_FALSE(Exported(*fake, "/m/later.pt") == Exported(*cpu, "/m/cpu.pt"));
  const auto again = Load("/m/later.pt", kCpu);
  ASSERT_NE(again, nullptr);
  ExpectSame(again->parameters(), fake->parameters());
}

TEST_F(DeviceScriptTest, MovesThereAndBack) {
  const auto model = Load("/m/net.pt", kCpu);
  ASSERT_NE(model, nullptr);
  model->SetTraining(false);  // Or forward would count.
  const std::string bytes = Exported(*model, "/m/before.pt");
  const at::Tensor before = model->parameters()[0].tensor;
  ASSERT_THAT(model->MoveTo(kCpu), IsOk());
  EXPECT_TRUE(model->parameters()[0].tensor.is_same(before));
  ASSERT_THAT(model->MoveTo(FakeDevice()), IsOk());
  const at::Tensor there = model->parameters()[0].tensor;
  EXPECT_EQ(there.device(), FakeDevice());
  EXPECT_THAT(model->Forward(NetBatch(FakeDevice())), IsOk());
  ASSERT_THAT(model->MoveTo(FakeDevice()), IsOk());
  EXPECT_TRUE(model->parameters()[0].tensor.is_same(there));
  ASSERT_THAT(model->MoveTo(kCpu), IsOk());
  EXPECT_THAT(model->Forward(NetBatch(kCpu)), IsOk());
  EXPECT_TRUE(Exported(*model, "/m/after.pt") == bytes);
}

// What shared memory shares it there.
TEST_F(DeviceScriptTest, ViewsOfOneMemoryStayViewsOfOneMemory) {
  const auto model = Load("/m/net.pt", FakeDevice());
  ASSERT_NE(model, nullptr);
  const auto column = FindTensor(*model, "column");
  ASSERT_THAT(column, IsOk());
  EXPECT_EQ(column->tensor.strides(), at::IntArrayRef({2}));
  EXPECT_EQ(column->tensor.storage_offset(), 1);
  EXPECT_EQ(column->tensor.storage().nbytes(), 6 * sizeof(float));
}

TEST_F(DeviceScriptTest, CodeThatNamesTheCpuSaysSoWhenItFails) {
  WriteNet(env_, "/m/bound.pt", R"(
def forward(self, x):
    return x + torch.ones([3], device=torch.device("cpu"))
)");
  const auto cpu = Load("/m/bound.pt", kCpu);
  ASSERT_NE(cpu, nullptr);
  EXPECT_THAT(cpu->Forward(NetBatch(kCpu)), IsOk());
  const auto fake = Load("/m/bound.pt", FakeDevice());
  ASSERT_NE(fake, nullptr);
  EXPECT_THAT(
      std::string(fake->Forward(NetBatch(FakeDevice())).status().message()),
      StartsWith("the module's code names the CPU, or has constants "
                 "there, which can't be moved to fake:0: "));
  // Other errors are other errors.
  const auto net = Load("/m/net.pt", FakeDevice());
  ASSERT_NE(net, nullptr);
  Batch batch = NetBatch(FakeDevice());
  batch.inputs = ops::ones({5, 4}, FakeDevice());
  const auto outputs = net->Forward(batch);
  ASSERT_FALSE(outputs.ok());
  EXPECT_EQ(outputs.status().message().find("names the CPU"),
            absl::string_view::npos);
}

// --- torch::nn::Module ---

struct NetImpl : torch::nn::Module {
  explicit NetImpl(c10::Device device) {
    weight = register_parameter("weight", ops::ones({3, 2}, device));
    mean = register_buffer("mean", ops::zeros({3}, device));
  }

  void to(torch::Device device, bool non_blocking) override {
    if (fails) {
      weight.set_data(weight.to(device));
      throw std::runtime_error("there is no room");
    }
    Module::to(device, non_blocking);
  }

  at::Tensor Forward(const at::Tensor& x) { return (x - mean).matmul(weight); }

  bool fails = false;
  at::Tensor weight;
  at::Tensor mean;
};

std::unique_ptr<NnModel> NewNn(const std::shared_ptr<NetImpl>& net) {
  auto model = NnModel::Create(
      net, [net](const at::Tensor& inputs) { return net->Forward(inputs); });
  EXPECT_THAT(model, IsOk());
  return model.ok() ? *std::move(model) : nullptr;
}

TEST(DeviceNnModelTest, IsMovedWhereLibTorchCan) {
  const c10::Device other(FakeDevice().type(), 1);
  const auto net = std::make_shared<NetImpl>(FakeDevice());
  const auto model = NewNn(net);
  ASSERT_NE(model, nullptr);
  EXPECT_THAT(model->MoveTo(FakeDevice()), IsOk());
  ASSERT_THAT(model->MoveTo(other), IsOk());
  EXPECT_EQ(model->parameters()[0].tensor.device(), other);
  EXPECT_TRUE(model->parameters()[0].tensor.is_same(net->weight));
  EXPECT_EQ(model->buffers()[0].tensor.device(), other);
  Batch batch;
  batch.inputs = ops::ones({4, 3}, other);
  const auto outputs = model->Forward(batch);
  ASSERT_THAT(outputs, IsOk());
  EXPECT_TRUE(SameBits(*outputs, ops::full({4, 2}, 3.0)));
}

TEST(DeviceNnModelTest, SaysWhyLibTorchCannotMoveIt) {
  const auto net = std::make_shared<NetImpl>(kCpu);
  const auto model = NewNn(net);
  ASSERT_NE(model, nullptr);
  EXPECT_THAT(
      model->MoveTo(FakeDevice()),
      StatusIs(absl::StatusCode::kFailedPrecondition,
               "moving to fake:0: \"weight\" is on cpu: LibTorch can't move a "
               "torch::nn::Module between there and this kind of device: make "
               "it there"));
  EXPECT_EQ(net->weight.device(), kCpu);
  EXPECT_THAT(model->MoveTo(kCpu), IsOk());
}

TEST(DeviceNnModelTest, IsWhereItWasAfterAnError) {
  const auto net = std::make_shared<NetImpl>(FakeDevice());
  const auto model = NewNn(net);
  ASSERT_NE(model, nullptr);
  net->fails = true;
  EXPECT_THAT(
      std::string(model->MoveTo(c10::Device(FakeDevice().type(), 1)).message()),
      HasSubstr("there is no room"));
  EXPECT_EQ(net->weight.device(), FakeDevice());
  EXPECT_EQ(net->mean.device(), FakeDevice());
}

// --- CallbackModel ---

TEST(DeviceCallbackModelTest, StaysWithTheFunctionsThatShareItsTensors) {
  for (const c10::Device device : {kCpu, FakeDevice()}) {
    CallbackModel::Options options;
    options.parameters = {{"w", ops::ones({2}, device)}};
    const auto model = CallbackModel::Create(std::move(options));
    ASSERT_THAT(model, IsOk());
    EXPECT_THAT((*model)->MoveTo(device), IsOk());
    EXPECT_THAT((*model)->MoveTo(device.is_cpu() ? FakeDevice() : kCpu),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         StartsWith(absl::StrCat("tensor \"w\" is on ",
                                                 device.str()))));
  }
}

}  // namespace
}  // namespace grapnel
