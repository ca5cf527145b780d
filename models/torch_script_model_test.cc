#include "grapnel/models/torch_script_model.h"

#include <sys/resource.h>

#include <csignal>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/io/env.h"
#include "grapnel/io/mem_env.h"
#include "grapnel/models/model.h"
#include "grapnel/models/model.pb.h"
#include "gtest/gtest.h"
#include "torch/script.h"

namespace grapnel {
namespace {

using ::testing::HasSubstr;

constexpr char kForward[] = R"(
def forward(self, x):
    if self.training:
        self.seen.add_(1)
        x = x * 2
    return torch.matmul(x, self.weight) + self.bias
)";

// Writes a scripted module into the test's directory and returns its name
// there.
std::string WriteScript(const std::string& name, const char* forward = kForward,
                        bool training = true, int64_t rows = 3) {
  torch::jit::Module module("Net");
  module.register_attribute("training", c10::BoolType::get(), training);
  module.register_parameter("weight", at::ones({rows, 2}), /*is_buffer=*/false);
  module.register_parameter("bias", at::zeros({2}), /*is_buffer=*/false);
  module.register_buffer("seen", at::zeros({}, at::kLong));
  for (const auto& parameter : module.parameters()) {
    at::Tensor(parameter).requires_grad_(true);
  }
  module.define(forward);
  module.save(io::JoinPath(testing::TempDir(), name));
  return name;
}

absl::StatusOr<std::unique_ptr<TorchScriptModel>> Load(
    const std::string& name) {
  models::v1::TorchScriptConfig config;
  config.set_path(name);
  config.mutable_loss()->mutable_mse();
  ModelOptions options;
  options.base_dir = testing::TempDir();
  return TorchScriptModel::Create(config, options);
}

Batch NewBatch() {
  Batch batch;
  batch.inputs = at::randn({4, 3});
  batch.targets = at::randn({4, 2});
  return batch;
}

at::Tensor Forward(TorchScriptModel& model, const Batch& batch) {
  const auto outputs = model.Forward(batch);
  EXPECT_THAT(outputs, IsOk());
  return outputs.ok() ? *outputs : at::Tensor();
}

TEST(TorchScriptModelTest, TrainsIsSavedAndComesBack) {
  auto model = Load(WriteScript("net.pt"));
  ASSERT_THAT(model, IsOk());
  ASSERT_EQ((*model)->parameters().size(), 2);
  EXPECT_EQ((*model)->parameters()[0].name, "weight");
  EXPECT_EQ((*model)->parameters()[1].name, "bias");
  EXPECT_EQ((*model)->buffers()[0].name, "seen");

  const Batch batch = NewBatch();
  std::vector<double> losses;
  for (int step = 0; step < 20; ++step) {
    LogVars log_vars;
    ASSERT_THAT((*model)->ComputeLosses(batch, &log_vars), IsOk());
    losses.push_back(log_vars[0].tensor.item<double>());
    log_vars[0].tensor.backward();
    const at::NoGradGuard no_grad;
    for (const NamedTensor& parameter : (*model)->parameters()) {
      parameter.tensor.sub_(parameter.tensor.grad(), 0.02);
      parameter.tensor.mutable_grad().reset();
    }
  }
  EXPECT_LT(losses.back(), losses.front());
  EXPECT_EQ((*model)->buffers()[0].tensor.item<int64_t>(), 20);

  const std::string saved = io::JoinPath(testing::TempDir(), "trained.pt");
  Model& exported = **model;
  ASSERT_THAT(exported.Export(saved), IsOk());
  auto again = Load("trained.pt");
  ASSERT_THAT(again, IsOk());
  EXPECT_TRUE(at::equal(Forward(**again, batch), Forward(**model, batch)));
  EXPECT_EQ((*again)->buffers()[0].tensor.item<int64_t>(), 21);

  // And by LibTorch alone.
  torch::jit::Module plain = torch::jit::load(saved);
  EXPECT_TRUE(at::equal(plain.attr("weight").toTensor(),
                        (*model)->parameters()[0].tensor));
}

TEST(TorchScriptModelTest, ModeSwitchesWhateverTheFileSays) {
  for (const bool training : {false, true}) {
    auto model = Load(WriteScript("mode.pt", kForward, training));
    ASSERT_THAT(model, IsOk());
    EXPECT_TRUE((*model)->training());
    Batch batch;
    batch.inputs = at::ones({1, 3});
    EXPECT_EQ(Forward(**model, batch)[0][0].item<float>(), 6);
    (*model)->SetTraining(false);
    EXPECT_FALSE((*model)->training());
    EXPECT_EQ(Forward(**model, batch)[0][0].item<float>(), 3);
    (*model)->SetTraining(true);
    EXPECT_EQ(Forward(**model, batch)[0][0].item<float>(), 6);
  }
}

TEST(TorchScriptModelTest, IsReadAndExportedByTheEnvThatItWasGiven) {
  const std::string disk =
      io::JoinPath(testing::TempDir(), WriteScript("env.pt"));
  const auto bytes = io::ReadFile(io::Env::Posix(), disk);
  ASSERT_THAT(bytes, IsOk());
  io::MemEnv env;
  ASSERT_THAT(env.CreateDir("/models"), IsOk());
  ASSERT_THAT(io::WriteFileAtomically(env, "/models/whole.pt", *bytes), IsOk());
  ASSERT_THAT(io::WriteFileAtomically(env, "/models/cut.pt",
                                      bytes->substr(0, bytes->size() / 2)),
              IsOk());
  models::v1::TorchScriptConfig config;
  config.set_path("whole.pt");
  config.mutable_loss()->mutable_mse();
  ModelOptions options;
  options.base_dir = "/models";
  options.env = &env;
  const auto model = TorchScriptModel::Create(config, options);
  ASSERT_THAT(model, IsOk());
  ASSERT_THAT((*model)->Export("/models/exported.pt"), IsOk());

  config.set_path("exported.pt");
  const auto again = TorchScriptModel::Create(config, options);
  ASSERT_THAT(again, IsOk());
  const Batch batch = NewBatch();
  EXPECT_TRUE(at::equal(Forward(**again, batch), Forward(**model, batch)));
  config.set_path("cut.pt");
  EXPECT_THAT(TorchScriptModel::Create(config, options),
              StatusIs(absl::StatusCode::kDataLoss,
                       HasSubstr("/models/cut.pt: not a readable")));
}

// Resuming gives the same bits only if the first calls are as the later ones.
TEST(TorchScriptModelTest, EveryCallGivesTheSameBits) {
  auto model = Load(WriteScript("bits.pt"));
  ASSERT_THAT(model, IsOk());
  const Batch batch = NewBatch();
  std::vector<at::Tensor> grads;
  for (int call = 0; call < 5; ++call) {
    LogVars losses;
    ASSERT_THAT((*model)->ComputeLosses(batch, &losses), IsOk());
    losses[0].tensor.backward();
    const at::Tensor& weight = (*model)->parameters()[0].tensor;
    grads.push_back(weight.grad());
    weight.mutable_grad() = at::Tensor();
    EXPECT_TRUE(at::equal(grads[0], grads[call])) << call;
  }
}

TEST(TorchScriptModelTest, IsRegistered) {
  models::v1::ModelConfig config;
  config.mutable_torch_script()->set_path(WriteScript("registered.pt"));
  ModelOptions options;
  options.base_dir = testing::TempDir();
  EXPECT_THAT(ModelRegistry::Create(config, options), IsOk());
}

TEST(TorchScriptModelTest, BadFilesAreErrors) {
  EXPECT_THAT(Load(""), StatusIs(absl::StatusCode::kInvalidArgument,
                                 HasSubstr("path: must be set")));
  EXPECT_THAT(Load("nowhere.pt"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("nowhere.pt")));

  const std::string path = io::JoinPath(testing::TempDir(), "cut.pt");
  const auto whole =
      io::ReadFile(io::Env::Posix(),
                   io::JoinPath(testing::TempDir(), WriteScript("whole.pt")));
  ASSERT_THAT(whole, IsOk());
  for (const size_t size : {size_t{0}, size_t{100}, whole->size() - 1}) {
    std::ofstream(path, std::ios::binary) << whole->substr(0, size);
    EXPECT_THAT(Load("cut.pt"),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr("cut.pt")))
        << size;
  }
}

// It would stay in the mode that it was frozen in, whatever SetTraining says.
TEST(TorchScriptModelTest, FrozenModulesAreRefused) {
  torch::jit::Module module =
      torch::jit::load(io::JoinPath(testing::TempDir(), WriteScript("hot.pt")));
  module.eval();
  torch::jit::freeze(module).save(
      io::JoinPath(testing::TempDir(), "frozen.pt"));
  EXPECT_THAT(Load("frozen.pt"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("frozen.pt: is frozen: export it before "
                                 "torch.jit.freeze")));
}

TEST(TorchScriptModelTest, ForwardMustGiveATensor) {
  auto model = Load(WriteScript("tuple.pt", R"(
def forward(self, x):
    return (x, x)
)"));
  ASSERT_THAT(model, IsOk());
  EXPECT_THAT((*model)->Forward(NewBatch()),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("must return a tensor, returns Tuple")));
}

TEST(TorchScriptModelTest, ErrorsInTheScriptAreStatuses) {
  auto model = Load(WriteScript("shapes.pt"));
  ASSERT_THAT(model, IsOk());
  Batch batch;
  batch.inputs = at::ones({1, 5});
  EXPECT_THAT((*model)->Forward(batch),
              StatusIs(absl::StatusCode::kInternal, HasSubstr("(1x5")));
}

// LibTorch's own writer aborts the process here.
TEST(TorchScriptModelTest, FullDiskIsAnErrorAndLeavesTheOldFile) {
  auto model = Load(WriteScript("big.pt", kForward, true, /*rows=*/100000));
  ASSERT_THAT(model, IsOk());
  const std::string path = io::JoinPath(testing::TempDir(), "kept.pt");
  std::ofstream(path) << "old";

  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit small = before;
  small.rlim_cur = 64 * 1024;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const absl::Status status = (*model)->Export(path);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);

  EXPECT_FALSE(status.ok());
  EXPECT_THAT(status.message(), HasSubstr("kept.pt"));
  EXPECT_EQ(*io::ReadFile(io::Env::Posix(), path), "old");
  EXPECT_THAT((*model)->Export(path), IsOk()) << "there is room again";
}

}  // namespace
}  // namespace grapnel
