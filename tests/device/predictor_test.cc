// Predictions of a run that trains on a device.

#include "grapnel/runner/predictor.h"

#include <memory>
#include <string>
#include <utility>

#include "ATen/core/Tensor.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/data/tensor_dataset.h"
#include "grapnel/io/mem_env.h"
#include "grapnel/loggers/memory_run_log.h"
#include "grapnel/runner/config_file.h"
#include "grapnel/runner/runner.h"
#include "grapnel/runner/runner_config.pb.h"
#include "grapnel/tests/device/fake_device.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

class DevicePredictorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    FakeDevice();
    const auto config =
        ParseRunnerConfig(R"pb(
                            work_dir: "/run"
                            device: "fake"
                            randomness { seed: 1 }
                            model {
                              sequential {
                                layers { linear { out_features: 16 } }
                                layers { batch_norm1d {} }
                                layers { relu {} }
                                layers { dropout { p: 0.5 } }
                                layers { linear { out_features: 3 } }
                                loss { cross_entropy {} }
                              }
                            }
                            train_dataloader { batch_size: 4 }
                            train_cfg { max_epochs: 2 }
                            optim_wrapper { optimizer { adamw { lr: 0.01 } } }
                            custom_hooks {
                              config {
                                [hooks/EMAHook] { momentum: 0.1 }
                              }
                            }
                          )pb",
                          ConfigFormat::kText, "config");
    ASSERT_THAT(config, IsOk());
    RunnerOptions options;
    options.env = env_.get();
    options.log = &log_;
    auto dataset = TensorDataset::Create(
        ops::arange(64 * 5, at::kFloat).reshape({64, 5}).div_(300),
        ops::arange(64, at::kLong).remainder(3));
    ASSERT_THAT(dataset, IsOk());
    options.train_dataset = *std::move(dataset);
    auto runner = Runner::Create(*config, std::move(options));
    ASSERT_THAT(runner, IsOk());
    runner_ = *std::move(runner);
  }

  // What it says of the test's inputs.
  static at::Tensor Predict(Predictor& predictor) {
    const auto outputs = predictor.Predict(Inputs());
    EXPECT_THAT(outputs, IsOk());
    return outputs.ok() ? *outputs : at::Tensor();
  }
  static at::Tensor Inputs() {
    return ops::arange(30, at::kFloat).reshape({6, 5}).div_(30);
  }

  const std::unique_ptr<io::MemEnv> env_ = std::make_unique<io::MemEnv>();
  MemoryRunLog log_;
  std::unique_ptr<Runner> runner_;
};

TEST_F(DevicePredictorTest, GivesTheSameOnTheRunsDeviceAndOnTheCpu) {
  auto of_run = runner_->MakePredictor({});
  ASSERT_THAT(of_run, IsOk());
  ASSERT_THAT(runner_->Train(), IsOk());
  ASSERT_THAT((*of_run)->Refresh(), IsOk());
  const at::Tensor outputs = Predict(**of_run);
  ASSERT_TRUE(outputs.is_cpu());
  ASSERT_EQ(outputs.sizes(), at::IntArrayRef({6, 3}));
  for (const char* const device : {"", "cpu", "fake", "auto"}) {
    SCOPED_TRACE(device);
    PredictorOptions options;
    options.env = env_.get();
    options.device = device;
    auto opened = Predictor::Open("/run", options);
    ASSERT_THAT(opened, IsOk());
    EXPECT_TRUE(ops::equal(Predict(**opened), outputs));
    if (*device == '\0') continue;
    options.env = nullptr;
    auto made = runner_->MakePredictor(options);
    ASSERT_THAT(made, IsOk());
    EXPECT_TRUE(ops::equal(Predict(**made), outputs));
  }
}

TEST_F(DevicePredictorTest, TakesInputsFromTheDeviceAndLosses) {
  ASSERT_THAT(runner_->Train(), IsOk());
  auto predictor = runner_->MakePredictor({});
  ASSERT_THAT(predictor, IsOk());
  Batch batch;
  batch.inputs = Inputs().to(FakeDevice());
  batch.targets = ops::zeros({6}, at::kLong);
  Predictions predictions;
  ASSERT_THAT((*predictor)->Predict(batch, &predictions), IsOk());
  EXPECT_TRUE(ops::equal(predictions.outputs, Predict(**predictor)));
  ASSERT_EQ(predictions.losses.size(), 1u);
  EXPECT_GT(predictions.losses.begin()->tensor.item<double>(), 0);
}

TEST_F(DevicePredictorTest, NamesADeviceThatIsNotThere) {
  PredictorOptions options;
  options.device = "fake:9";
  EXPECT_THAT(runner_->MakePredictor(options).status(),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       testing::HasSubstr("device: \"fake:9\": the last device "
                                          "of this machine is \"fake:")));
}

TEST_F(DevicePredictorTest, WeightsAreReadAndWrittenFromTheHost) {
  ASSERT_THAT(runner_->Train(), IsOk());
  const auto bias = runner_->GetTensor("4.bias");
  ASSERT_THAT(bias, IsOk());
  ASSERT_THAT(runner_->SetTensor("4.bias", ops::ones({3})), IsOk());
  const auto ones = runner_->GetTensor("4.bias");
  ASSERT_THAT(ones, IsOk());
  EXPECT_TRUE(ops::equal(ones->to(at::kCPU), ops::ones({3})));
}

}  // namespace
}  // namespace grapnel
