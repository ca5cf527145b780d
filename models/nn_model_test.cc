#include "grapnel/models/nn_model.h"

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/models/loss.h"
#include "grapnel/models/loss.pb.h"
#include "gtest/gtest.h"
#include "torch/nn.h"

namespace grapnel {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

struct NetImpl : torch::nn::Module {
  NetImpl() {
    body = register_module("body",
                           torch::nn::Sequential(torch::nn::Linear(3, 4),
                                                 torch::nn::BatchNorm1d(4)));
    head = register_module("head", torch::nn::Linear(4, 2));
  }
  at::Tensor forward(const at::Tensor& x) {
    return head->forward(body->forward(x));
  }

  torch::nn::Sequential body{nullptr};
  torch::nn::Linear head{nullptr};
};

std::unique_ptr<Loss> NewCrossEntropy() {
  auto loss = LossRegistry::Create(models::v1::CrossEntropyLossConfig());
  EXPECT_THAT(loss, IsOk());
  return *std::move(loss);
}

std::vector<std::string> Names(const std::vector<NamedTensor>& tensors) {
  std::vector<std::string> names;
  for (const NamedTensor& tensor : tensors) names.push_back(tensor.name);
  return names;
}

Batch NewBatch() {
  Batch batch;
  batch.inputs = at::randn({5, 3});
  batch.targets = at::zeros({5}, at::kLong);
  batch.indices = {0, 1, 2, 3, 4};
  return batch;
}

std::unique_ptr<NnModel> NewModel(const std::shared_ptr<NetImpl>& net) {
  auto model = NnModel::Create(
      net, [net](const at::Tensor& inputs) { return net->forward(inputs); },
      NewCrossEntropy());
  EXPECT_THAT(model, IsOk());
  return *std::move(model);
}

TEST(NnModelTest, HasTheModulesTensorsUnderItsNames) {
  const auto net = std::make_shared<NetImpl>();
  const auto model = NewModel(net);
  EXPECT_THAT(Names(model->parameters()),
              ElementsAre("body.0.weight", "body.0.bias", "body.1.weight",
                          "body.1.bias", "head.weight", "head.bias"));
  EXPECT_THAT(Names(model->buffers()),
              ElementsAre("body.1.running_mean", "body.1.running_var",
                          "body.1.num_batches_tracked"));
  EXPECT_TRUE(model->parameters()[4].tensor.is_same(net->head->weight));
}

TEST(NnModelTest, LossIsThatOfTheOutputsAndReachesTheParameters) {
  const auto net = std::make_shared<NetImpl>();
  const auto model = NewModel(net);
  const Batch batch = NewBatch();
  LogVars losses;
  ASSERT_THAT(model->ComputeLosses(batch, &losses), IsOk());
  ASSERT_EQ(losses.size(), 1);
  EXPECT_EQ(losses[0].name, "loss");
  EXPECT_TRUE(at::equal(
      losses[0].tensor,
      at::cross_entropy_loss(net->forward(batch.inputs), batch.targets)));
  losses[0].tensor.backward();
  EXPECT_TRUE(net->head->weight.grad().defined());
}

TEST(NnModelTest, ModeIsTheModules) {
  const auto net = std::make_shared<NetImpl>();
  net->eval();
  const auto model = NewModel(net);
  EXPECT_TRUE(net->is_training()) << "a new model trains";
  model->SetTraining(false);
  EXPECT_FALSE(net->body->is_training());
  EXPECT_FALSE(model->training());

  const Batch batch = NewBatch();
  Predictions predictions;
  ASSERT_THAT(model->ValStep(batch, &predictions), IsOk());
  EXPECT_FALSE(predictions.outputs.requires_grad());
  EXPECT_TRUE(at::equal(predictions.outputs, net->forward(batch.inputs)));
  EXPECT_EQ(predictions.losses.size(), 1);
}

TEST(NnModelTest, ForwardMayTakeTheWholeBatch) {
  const auto net = std::make_shared<NetImpl>();
  auto model = NnModel::Create(
      net,
      [net](const Batch& batch) {
        return net->forward(batch.inputs * batch.extras[0].tensor);
      },
      NewCrossEntropy());
  ASSERT_THAT(model, IsOk());
  (*model)->SetTraining(false);
  Batch batch = NewBatch();
  batch.extras = {{"mask", at::zeros({5, 3})}};
  const auto outputs = (*model)->Forward(batch);
  ASSERT_THAT(outputs, IsOk());
  EXPECT_TRUE(at::equal(*outputs, net->forward(at::zeros({5, 3}))));
}

TEST(NnModelTest, WithoutALossItOnlyPredicts) {
  const auto net = std::make_shared<NetImpl>();
  const Batch batch = NewBatch();
  auto of_inputs = NnModel::Create(
      net, [net](const at::Tensor& inputs) { return net->forward(inputs); });
  auto of_batch = NnModel::Create(
      net, [net](const Batch& batch) { return net->forward(batch.inputs); });
  for (auto* model : {&of_inputs, &of_batch}) {
    ASSERT_THAT(*model, IsOk());
    (**model)->SetTraining(false);
    Predictions predictions;
    ASSERT_THAT((**model)->ValStep(batch, &predictions), IsOk());
    EXPECT_TRUE(at::equal(predictions.outputs, net->forward(batch.inputs)));
    EXPECT_TRUE(predictions.losses.empty());
    LogVars losses;
    EXPECT_THAT((**model)->ComputeLosses(batch, &losses),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         HasSubstr("loss: must be set")));
  }
}

// A loss that notes how often it is asked for its weight.
class CountedLoss : public Loss {
 public:
  explicit CountedLoss(int* asked) : asked_(asked) {}
  absl::StatusOr<at::Tensor> Compute(const at::Tensor& outputs,
                                     const Batch&) const override {
    return outputs.square().mean();
  }
  absl::StatusOr<at::Tensor> Weight(const at::Tensor& outputs,
                                    const Batch&) const override {
    ++*asked_;
    return at::full({}, outputs.numel(), at::kDouble);
  }
  std::optional<int64_t> ignore_index() const override { return 7; }

 private:
  int* const asked_;
};

TEST(NnModelTest, TheLosssWeightIsForThoseWhoWantIt) {
  const auto net = std::make_shared<NetImpl>();
  int asked = 0;
  auto model = NnModel::Create(
      net, [net](const at::Tensor& inputs) { return net->forward(inputs); },
      std::make_unique<CountedLoss>(&asked));
  ASSERT_THAT(model, IsOk());
  Batch batch = NewBatch();
  for (const bool wants : {false, true}) {
    LogVars losses;
    losses.set_wants_weights(wants);
    ASSERT_THAT((*model)->ComputeLosses(batch, &losses), IsOk());
    Predictions predictions;
    predictions.losses.set_wants_weights(wants);
    ASSERT_THAT((*model)->ValStep(batch, &predictions), IsOk());
    EXPECT_EQ(asked, wants ? 2 : 0);
    ASSERT_EQ(losses.weight(0).defined(), wants);
    ASSERT_EQ(predictions.losses.weight(0).defined(), wants);
    if (wants) {
      const auto numel = static_cast<double>(predictions.outputs.numel());
      EXPECT_EQ(losses.weight(0).item<double>(), numel);
      EXPECT_EQ(predictions.losses.weight(0).item<double>(), numel);
    }
    EXPECT_EQ(predictions.ignore_index, 7);
  }
  // Nothing is left of what the last batch had.
  Predictions predictions;
  predictions.ignore_index = 3;
  batch.targets.reset();
  ASSERT_THAT((*model)->ValStep(batch, &predictions), IsOk());
  EXPECT_EQ(predictions.ignore_index, std::nullopt);
}

TEST(NnModelTest, LossesOfTheUser) {
  const auto net = std::make_shared<NetImpl>();
  auto model = NnModel::Create(
      net, [net](const at::Tensor& inputs) { return net->forward(inputs); },
      [net](const Batch& batch, LogVars* losses) {
        const at::Tensor logits = net->forward(batch.inputs);
        losses->Add("loss_ce", at::cross_entropy_loss(logits, batch.targets));
        losses->Add("loss_l2", logits.square().mean());
        return absl::OkStatus();
      });
  ASSERT_THAT(model, IsOk());
  Batch batch = NewBatch();
  LogVars losses;
  ASSERT_THAT((*model)->ComputeLosses(batch, &losses), IsOk());
  ASSERT_EQ(losses.size(), 2);
  EXPECT_EQ(losses[1].name, "loss_l2");

  Predictions predictions;
  (*model)->SetTraining(false);
  ASSERT_THAT((*model)->ValStep(batch, &predictions), IsOk());
  EXPECT_TRUE(predictions.outputs.defined());
  ASSERT_EQ(predictions.losses.size(), 2);
  EXPECT_FALSE(predictions.losses[0].tensor.requires_grad());

  batch.targets = at::Tensor();
  ASSERT_THAT((*model)->ValStep(batch, &predictions), IsOk());
  EXPECT_TRUE(predictions.losses.empty());
}

TEST(NnModelTest, LossesWithoutForward) {
  const auto net = std::make_shared<NetImpl>();
  auto model =
      NnModel::Create(net, nullptr, [net](const Batch& batch, LogVars* losses) {
        losses->Add("loss", net->forward(batch.inputs).square().mean());
        return absl::OkStatus();
      });
  ASSERT_THAT(model, IsOk());
  Predictions predictions;
  ASSERT_THAT((*model)->ValStep(NewBatch(), &predictions), IsOk());
  EXPECT_FALSE(predictions.outputs.defined());
  EXPECT_EQ(predictions.losses.size(), 1);
}

TEST(NnModelTest, SharedParameterIsListedOnce) {
  struct TiedImpl : torch::nn::Module {
    TiedImpl() {
      const auto linear = std::make_shared<torch::nn::LinearImpl>(3, 3);
      register_module("encoder", linear);
      register_module("decoder", linear);
    }
  };
  auto model = NnModel::Create(
      std::make_shared<TiedImpl>(), [](const at::Tensor& x) { return x; },
      std::unique_ptr<Loss>());
  ASSERT_THAT(model, IsOk());
  EXPECT_THAT(Names((*model)->parameters()),
              ElementsAre("encoder.weight", "encoder.bias"));
  EXPECT_THAT((*model)->buffers(), IsEmpty());
}

TEST(NnModelTest, ExceptionsOfTheUsersCodeAreStatuses) {
  const auto net = std::make_shared<NetImpl>();
  auto model = NnModel::Create(
      net,
      [](const at::Tensor&) -> at::Tensor {
        throw std::runtime_error("not today");
      },
      NewCrossEntropy());
  ASSERT_THAT(model, IsOk());
  LogVars losses;
  EXPECT_THAT((*model)->ComputeLosses(NewBatch(), &losses),
              StatusIs(absl::StatusCode::kInternal, "not today"));
}

TEST(NnModelTest, NullsAreErrors) {
  const auto forward = [](const at::Tensor& x) { return x; };
  EXPECT_THAT(
      NnModel::Create(nullptr, forward, NewCrossEntropy()),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("module:")));
  EXPECT_THAT(
      NnModel::Create(std::make_shared<NetImpl>(), NnModel::ForwardFunction(),
                      NewCrossEntropy()),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("forward:")));
  EXPECT_THAT(
      NnModel::Create(std::make_shared<NetImpl>(), forward,
                      NnModel::LossesFunction()),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("losses:")));
}

}  // namespace
}  // namespace grapnel
