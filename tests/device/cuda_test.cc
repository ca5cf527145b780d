// What CUDA alone can show. Skips where there is no such device.

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ATen/Context.h"
#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "c10/core/CachingDeviceAllocator.h"
#include "c10/core/Device.h"
#include "gmock/gmock.h"
#include "grapnel/base/device_allocator.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/data/tensor_dataset.h"
#include "grapnel/hooks/empty_cache/empty_cache_hook.h"
#include "grapnel/io/env.h"
#include "grapnel/io/mem_env.h"
#include "grapnel/loggers/memory_run_log.h"
#include "grapnel/models/functional.h"
#include "grapnel/optim/autocast.h"
#include "grapnel/optim/optim_wrapper.h"
#include "grapnel/runner/config_file.h"
#include "grapnel/runner/fake_run_context.h"
#include "grapnel/runner/mode.h"
#include "grapnel/runner/runner.h"
#include "grapnel/runner/runner_config.pb.h"
#include "grapnel/tests/device/optim_steps.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace grapnel {
namespace {

using ::testing::HasSubstr;

class CudaTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    // cuBLAS reads it once. Without it it has no deterministic products.
    setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/1);
  }
  void SetUp() override {
    if (!at::hasCUDA()) {
      GTEST_SKIP() << "needs --config=cuda, a CUDA device, and a LibTorch that "
                      "finds it";
    }
  }

  const c10::Device device_ = c10::Device(at::kCUDA, 0);
};

// ------------------------------------------------------------------ optimizers

void ExpectClose(const std::vector<at::Tensor>& a,
                 const std::vector<at::Tensor>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_TRUE(ops::allclose(a[i], b[i], /*rtol=*/3e-5, /*atol=*/1e-6))
        << "parameter " << i << " differs by "
        << a[i].sub(b[i]).abs().max().item<float>();
  }
}

// A kernel takes a large tensor in several chunks.
const std::vector<int64_t>& Sizes() {
  static const auto* const sizes = new std::vector<int64_t>{3, 5, 70001};
  return *sizes;
}

TEST_F(CudaTest, FusedOptimizersStepAsOnTheCpu) {
  const std::vector<double> slopes = {1, 2, 3, 0.5, 1, 1};
  for (const char* const optimizer : kFusedOptimizers) {
    for (const char* const more :
         {"", "clip_grad { max_norm: 0.5 }", "accumulative_counts: 2"}) {
      SCOPED_TRACE(absl::StrCat(optimizer, more));
      const std::string config = absl::StrCat(optimizer, more);
      ExpectClose(TrainedParams(device_, config, slopes, Sizes()),
                  TrainedParams(at::kCPU, config, slopes, Sizes()));
    }
  }
}

TEST_F(CudaTest, FusedOptimizersLeaveOutStepsThatOverflowAsOnTheCpu) {
  // The first, which makes the slots, and one in the middle.
  const std::vector<double> slopes = {kTooSteep, 1, 2, kTooSteep, 3, 0.5};
  for (const char* const optimizer : kFusedOptimizers) {
    for (const char* const scale :
         {"dynamic: true init_scale: 1024 growth_interval: 2",
          "dynamic: false init_scale: 1024"}) {
      SCOPED_TRACE(absl::StrCat(optimizer, scale));
      const std::string config = absl::StrCat(
          optimizer, " amp { dtype: FLOAT16 loss_scale { ", scale, " } }");
      ExpectClose(TrainedParams(device_, config, slopes, Sizes()),
                  TrainedParams(at::kCPU, config, slopes, Sizes()));
    }
  }
}

class KeepsSteps : public StepObserver {
 public:
  absl::Status BeforeOptimizerStep() override { return absl::OkStatus(); }
  absl::Status AfterOptimizerStep(const StepResult& result) override {
    steps.push_back(result);
    return absl::OkStatus();
  }

  std::vector<StepResult> steps;
};

// The scale begins far above what half can hold, and grows where it has got to.
TEST_F(CudaTest, HalfTrainsUnderAScaleThatMoves) {
  const int64_t kFeatures = 16;
  const at::Tensor inputs =
      ops::arange(64 * kFeatures, at::kFloat).sin_().reshape({64, kFeatures});
  const at::Tensor targets = inputs.sum(1, /*keepdim=*/true).to(device_);
  const at::Tensor weight =
      ops::zeros({1, kFeatures}, device_).requires_grad_(true);
  auto optim = OptimWrapper::Create(
      ParseOptimWrapper(R"pb(
        optimizer { adamw { lr: 0.1 weight_decay: 0 } }
        amp {
          dtype: FLOAT16
          loss_scale { init_scale: 1e12 growth_interval: 5 }
        }
      )pb"),
      {{"weight", weight}});
  ASSERT_THAT(optim, IsOk());
  KeepsSteps kept;
  (*optim)->set_step_observer(&kept);
  constexpr int kSteps = 120;
  (*optim)->InitializeCounts(0, kSteps);

  std::vector<double> losses;
  for (int i = 0; i < kSteps; ++i) {
    at::Tensor outputs;
    {
      const AutocastScope scope((*optim)->autocast());
      outputs = functional::linear(inputs.to(device_), weight);
    }
    ASSERT_EQ(outputs.scalar_type(), at::kHalf);
    const at::Tensor loss = outputs.to(at::kFloat).sub(targets).square().mean();
    losses.push_back(loss.item<double>());
    const at::Tensor before = weight.detach().clone();
    ASSERT_THAT((*optim)->Update(loss), IsOk());
    ASSERT_EQ(kept.steps.size(), static_cast<size_t>(i) + 1);
    EXPECT_NE(ops::equal(weight.detach(), before), kept.steps.back().stepped)
        << "step " << i;
  }
  int shrunk = 0;
  int grown = 0;
  for (size_t i = 1; i < kept.steps.size(); ++i) {
    const double ratio = kept.steps[i].scale / kept.steps[i - 1].scale;
    EXPECT_EQ(ratio < 1, !kept.steps[i - 1].stepped) << "step " << i;
    shrunk += ratio == 0.5 ? 1 : 0;
    grown += ratio == 2 ? 1 : 0;
  }
  EXPECT_FALSE(kept.steps.front().stepped);
  EXPECT_GE(shrunk, 10);
  EXPECT_GE(grown, 1);
  EXPECT_LT(losses.back(), losses.front() / 20);
}

// ---------------------------------------------------------------------- memory

int64_t ReservedBytes(c10::Device device) {
  const auto all =
      static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  return FindDeviceAllocator(device.type())
      ->getDeviceStats(device.index())
      .reserved_bytes[all]
      .current;
}

TEST_F(CudaTest, EmptyCacheGivesMemoryBack) {
  const auto hook = EmptyCacheHook::Create(EmptyCacheHook::Config());
  ASSERT_THAT(hook, IsOk());
  constexpr int64_t kBytes = int64_t{256} << 20;
  const at::Tensor used =
      ops::ones({kBytes}, at::TensorOptions(at::kByte).device(device_));
  ops::ones({kBytes}, at::TensorOptions(at::kByte).device(device_));
  const int64_t before = ReservedBytes(device_);
  FakeRunContext run;
  ASSERT_THAT((*hook)->AfterEpoch(run, Mode::kTrain), IsOk());
  EXPECT_LE(ReservedBytes(device_), before - kBytes);
  EXPECT_GE(ReservedBytes(device_), kBytes);
  EXPECT_TRUE(used.eq(1).all().item<bool>());
}

// ------------------------------------------------------------------------ runs

constexpr char kRest[] = R"pb(
  work_dir: "/run"
  device: "cuda:0"
  train_dataloader { batch_size: 16 num_workers: 1 }
)pb";

constexpr int64_t kIterations = 8;

struct CudaRun {
  std::unique_ptr<io::MemEnv> env = std::make_unique<io::MemEnv>();
  MemoryRunLog log;
  std::unique_ptr<Runner> runner;
};

// `config`, with kRest and more of the optimizer's, on samples of that shape,
// of which an epoch has kIterations batches.
std::unique_ptr<CudaRun> NewRun(const std::string& config,
                                std::vector<int64_t> shape,
                                const std::string& optim = "") {
  auto run = std::make_unique<CudaRun>();
  const auto parsed = ParseRunnerConfig(
      absl::StrCat(kRest, config,
                   "optim_wrapper { optimizer { adamw { lr: 0.01 } } ", optim,
                   "}"),
      ConfigFormat::kText, "config");
  EXPECT_THAT(parsed, IsOk());
  constexpr int64_t kSamples = 16 * kIterations;
  shape.insert(shape.begin(), kSamples);
  int64_t numel = 1;
  for (const int64_t size : shape) numel *= size;
  auto dataset = TensorDataset::Create(
      ops::arange(numel, at::kFloat).sin_().reshape(shape),
      ops::arange(kSamples, at::kLong).remainder(3));
  EXPECT_THAT(dataset, IsOk());
  RunnerOptions options;
  options.env = run->env.get();
  options.log = &run->log;
  options.train_dataset = *std::move(dataset);
  auto runner = Runner::Create(*parsed, std::move(options));
  EXPECT_THAT(runner, IsOk());
  if (!runner.ok()) return nullptr;
  run->runner = *std::move(runner);
  return run;
}

// Each iteration keeps the device busy for longer than the host, which is many
// of them ahead when the last one is to be recorded.
TEST_F(CudaTest, ProfilerRecordsTheKernelsOfEveryIteration) {
  const auto run = NewRun(R"pb(
                            train_cfg { max_epochs: 1 }
                            model {
                              sequential {
                                layers { linear { out_features: 8192 } }
                                layers { relu {} }
                                layers { linear { out_features: 8192 } }
                                layers { relu {} }
                                layers { linear { out_features: 3 } }
                                loss { cross_entropy {} }
                              }
                            }
                            custom_hooks {
                              config {
                                [hooks/ProfilerHook] {
                                  activity_with_cuda: true
                                  json_trace_path: "/trace.json"
                                }
                              }
                            }
                          )pb",
                          {8192});
  ASSERT_NE(run, nullptr);
  ASSERT_THAT(run->runner->Train(), IsOk());
  const auto trace = io::ReadFile(*run->env, "/trace.json");
  ASSERT_THAT(trace, IsOk());
  int64_t steps = 0;
  std::vector<std::string> kernels;
  for (const auto& event : nlohmann::json::parse(*trace)["traceEvents"]) {
    if (event.value("cat", "") != "kernel") continue;
    kernels.push_back(event.value("name", ""));
    steps += absl::StrContains(kernels.back(), "FusedAdam") ? 1 : 0;
  }
  EXPECT_EQ(steps, kIterations) << testing::PrintToString(kernels);
}

constexpr char kConvNet[] = R"pb(
  train_cfg { max_epochs: 3 }
  randomness { seed: 1 deterministic: true }
  model {
    sequential {
      layers { conv2d { out_channels: 32 kernel_size: 3 padding: 1 } }
      layers { batch_norm2d {} }
      layers { relu {} }
      layers { max_pool2d { kernel_size: 2 } }
      layers { conv2d { out_channels: 64 kernel_size: 3 padding: 1 } }
      layers { flatten {} }
      layers { dropout { p: 0.3 } }
      layers { linear { out_features: 3 } }
      loss { cross_entropy {} }
    }
  }
)pb";

TEST_F(CudaTest, DeterministicRunsHaveEqualBits) {
  for (const char* const optim :
       {"", "amp { dtype: FLOAT16 } clip_grad { max_norm: 1 }"}) {
    SCOPED_TRACE(optim);
    std::vector<std::vector<at::Tensor>> weights;
    for (int i = 0; i < 2; ++i) {
      // Whatever lies in its memory.
      ops::randn({1 << 20}, device_);
      const auto run = NewRun(kConvNet, {8, 16, 16}, optim);
      ASSERT_NE(run, nullptr);
      weights.emplace_back();
      const std::vector<std::string> names = {"0.weight",      "1.weight",
                                              "1.running_var", "4.weight",
                                              "4.bias",        "7.weight"};
      for (const std::string& name : names) {
        weights.back().push_back(run->runner->GetTensor(name)->cpu());
      }
      ASSERT_THAT(run->runner->Train(), IsOk());
      for (size_t k = 0; k < names.size(); ++k) {
        const at::Tensor trained = run->runner->GetTensor(names[k])->cpu();
        EXPECT_FALSE(ops::equal(trained, weights.back()[k])) << names[k];
        weights.back()[k] = trained;
        EXPECT_TRUE(ops::equal(trained, weights.front()[k])) << names[k];
      }
    }
  }
}

TEST_F(CudaTest, DeterministicRefusesAKernelThatIsNot) {
  const auto run =
      NewRun(R"pb(
               train_cfg { max_epochs: 1 }
               randomness { seed: 1 deterministic: true }
               model {
                 sequential {
                   layers { conv2d { out_channels: 4 kernel_size: 3 } }
                   layers { adaptive_avg_pool2d { output_size: 3 } }
                   layers { flatten {} }
                   layers { linear { out_features: 3 } }
                   loss { cross_entropy {} }
                 }
               }
             )pb",
             {8, 16, 16});
  ASSERT_NE(run, nullptr);
  const absl::Status status = run->runner->Train();
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("does not have a deterministic implementation"));
}

}  // namespace
}  // namespace grapnel
