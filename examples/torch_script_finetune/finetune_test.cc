// The model that was exported from Python learns, and is written back with its
// averaged weights.

#include <memory>
#include <string>
#include <utility>
#include <variant>

#include "ATen/Parallel.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/env.h"
#include "grapnel/models/metric.h"
#include "grapnel/runner/config_file.h"
#include "grapnel/runner/runner.h"
#include "grapnel/runner/runner_config.pb.h"
#include "gtest/gtest.h"
#include "torch/script.h"

namespace grapnel {
namespace {

constexpr char kDir[] = "examples/torch_script_finetune";

std::unique_ptr<Runner> NewRunner(const std::string& work_dir,
                                  bool for_training, bool resume) {
  const std::string path = absl::StrCat(kDir, "/finetune.textproto");
  auto config = LoadRunnerConfig(io::Env::Posix(), path);
  EXPECT_THAT(config, IsOk());
  config->set_work_dir(io::JoinPath(testing::TempDir(), work_dir));
  config->set_resume(resume);
  RunnerOptions options;
  options.base_dir = kDir;
  options.for_training = for_training;
  auto runner = Runner::Create(*config, std::move(options));
  EXPECT_THAT(runner, IsOk());
  return runner.ok() ? *std::move(runner) : nullptr;
}

double TestAccuracy(Runner& runner) {
  const auto metrics = runner.Test();
  EXPECT_THAT(metrics, IsOk());
  if (!metrics.ok()) return -1;
  const MetricValue* accuracy = FindMetric(*metrics, "accuracy/top1");
  return accuracy == nullptr ? -1 : std::get<double>(*accuracy);
}

torch::jit::Module Load(const std::string& path) {
  torch::jit::Module module = torch::jit::load(path);
  module.eval();
  return module;
}

// Overwrites what `module` has under the names in `tensors`.
void CopyInto(const TensorMap& tensors, torch::jit::Module module) {
  const torch::NoGradGuard no_grad;
  for (auto parameter : module.named_parameters()) {
    const at::Tensor* found = tensors.Find(parameter.name);
    if (found != nullptr) parameter.value.copy_(*found);
  }
  for (auto buffer : module.named_buffers()) {
    const at::Tensor* found = tensors.Find(buffer.name);
    if (found != nullptr) buffer.value.copy_(*found);
  }
}

at::Tensor Outputs(torch::jit::Module module) {
  const torch::NoGradGuard no_grad;
  torch::manual_seed(3);
  return module.forward({torch::rand({50, 1, 8, 8})}).toTensor();
}

TEST(FinetuneTest, LearnsAndIsExportedWithItsAverage) {
  at::set_num_threads(1);  // Tensors are small, and machines busy.
  const double before = TestAccuracy(*NewRunner("none", false, false));
  auto runner = NewRunner("tuned", true, false);
  ASSERT_NE(runner, nullptr);
  ASSERT_THAT(runner->Train(), IsOk());
  const double after = TestAccuracy(*runner);
  EXPECT_GT(before, 80);
  EXPECT_LT(before, 90);
  EXPECT_GT(after, 93);

  // By the run itself, and by one that has only its checkpoint.
  const std::string path = io::JoinPath(testing::TempDir(), "tuned.pt");
  const std::string later = io::JoinPath(testing::TempDir(), "later.pt");
  ASSERT_THAT(runner->Export(path), IsOk());
  auto exporter = NewRunner("tuned", false, true);
  ASSERT_NE(exporter, nullptr);
  EXPECT_EQ(TestAccuracy(*exporter), after);
  ASSERT_THAT(exporter->Export(later), IsOk());

  // The module that came from Python, with what the checkpoint holds.
  const auto checkpoint = io::ReadCheckpoint(
      io::Env::Posix(), io::JoinPath(testing::TempDir(), "tuned/epoch_12"));
  ASSERT_THAT(checkpoint, IsOk());
  const TensorMap* const weights = checkpoint->FindSection("model");
  const TensorMap* const average = checkpoint->FindSection("ema");
  ASSERT_NE(weights, nullptr);
  ASSERT_NE(average, nullptr);
  torch::jit::Module expected = Load(absl::StrCat(kDir, "/net.pt"));
  const at::Tensor at_first = Outputs(expected);
  CopyInto(*weights, expected);
  const at::Tensor unaveraged = Outputs(expected);
  CopyInto(*average, expected);
  const at::Tensor averaged = Outputs(expected);
  EXPECT_FALSE(torch::allclose(unaveraged, at_first, 0, 1e-3));
  EXPECT_FALSE(torch::allclose(averaged, unaveraged, 0, 1e-3));

  EXPECT_TRUE(torch::equal(Outputs(Load(path)), averaged));
  EXPECT_TRUE(torch::equal(Outputs(Load(later)), averaged));
}

}  // namespace
}  // namespace grapnel
