// A model whose gradients C computes is trained to the same bits by the C API
// and by C++: with an average, checkpoints, and resumed.

#include "grapnel/tests/capi/runs/mlp.h"

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/data/sample.h"
#include "grapnel/data/tensor_dataset.h"
#include "grapnel/grapnel.h"
#include "grapnel/io/env.h"
#include "grapnel/loggers/memory_run_log.h"
#include "grapnel/models/callback_model.h"
#include "grapnel/models/log_vars.h"
#include "grapnel/models/metric.h"
#include "grapnel/models/metric_value.h"
#include "grapnel/models/model.h"
#include "grapnel/runner/config_file.h"
#include "grapnel/runner/run_context.h"
#include "grapnel/runner/runner.h"
#include "grapnel/runner/runner_config.pb.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::IsEmpty;

double* Elements(const mlp_part& part, mlp_weights* weights) {
  return reinterpret_cast<double*>(weights) + part.offset;
}

std::vector<int64_t> ShapeOf(const mlp_part& part) {
  if (part.cols == 0) return {part.rows};
  return {part.rows, part.cols};
}

// A copy of `weights` as tensors, and back.
std::vector<NamedTensor> ToTensors(mlp_weights weights) {
  std::vector<NamedTensor> tensors;
  for (const mlp_part& part : mlp_parts) {
    at::Tensor tensor = ops::empty(ShapeOf(part), at::kDouble);
    std::memcpy(tensor.mutable_data_ptr(), Elements(part, &weights),
                tensor.nbytes());
    tensors.push_back({part.name, std::move(tensor)});
  }
  return tensors;
}

mlp_weights ToWeights(const std::vector<NamedTensor>& tensors) {
  mlp_weights weights;
  for (int i = 0; i < mlp_num_parts; ++i) {
    std::memcpy(Elements(mlp_parts[i], &weights),
                tensors[i].tensor.const_data_ptr(), tensors[i].tensor.nbytes());
  }
  return weights;
}

// All samples.
struct Data {
  Data()
      : inputs(ops::empty({mlp_samples, mlp_inputs}, at::kDouble)),
        targets(ops::empty({mlp_samples, mlp_outputs}, at::kDouble)) {
    for (int64_t i = 0; i < mlp_samples; ++i) {
      mlp_sample(i, inputs.mutable_data_ptr<double>() + i * mlp_inputs,
                 targets.mutable_data_ptr<double>() + i * mlp_outputs);
    }
  }
  at::Tensor inputs, targets;
};

mlp_weights FirstWeights() {
  mlp_weights weights;
  mlp_initialize(&weights);
  return weights;
}

CallbackModel::Options ModelOptionsOf(mlp_weights first) {
  CallbackModel::Options options;
  options.parameters = ToTensors(first);
  options.train_step = [parameters = options.parameters](
                           const Batch& batch, TensorMap* gradients,
                           LogVars* losses) -> absl::Status {
    const mlp_weights weights = ToWeights(parameters);
    mlp_weights slopes;
    const double loss = mlp_gradients(
        &weights, batch.inputs.const_data_ptr<double>(),
        batch.targets.const_data_ptr<double>(), batch.size(), &slopes);
    losses->Add("loss", ops::scalar_tensor(loss, at::kDouble));
    for (NamedTensor& slope : ToTensors(slopes)) {
      GRAPNEL_RETURN_IF_ERROR(
          gradients->Add(std::move(slope.name), std::move(slope.tensor)));
    }
    return absl::OkStatus();
  };
  options.val_step = [parameters = options.parameters](
                         const Batch& batch, Predictions* predictions) {
    const mlp_weights weights = ToWeights(parameters);
    mlp_weights slopes;
    const double* const inputs = batch.inputs.const_data_ptr<double>();
    predictions->outputs = ops::empty({batch.size(), mlp_outputs}, at::kDouble);
    mlp_forward(&weights, inputs, batch.size(),
                predictions->outputs.mutable_data_ptr<double>());
    const double loss =
        mlp_gradients(&weights, inputs, batch.targets.const_data_ptr<double>(),
                      batch.size(), &slopes);
    predictions->losses.Add("loss", ops::scalar_tensor(loss, at::kDouble));
    return absl::OkStatus();
  };
  return options;
}

// By C++: the trained weights, and the loss of a validation.
absl::Status TrainByCpp(const std::string& work_dir, mlp_weights* weights,
                        double* val_loss) {
  GRAPNEL_ASSIGN_OR_RETURN(
      runner::v1::RunnerConfig config,
      ParseRunnerConfig(mlp_config, ConfigFormat::kText, "config"));
  config.set_work_dir(work_dir);
  RunnerOptions options;
  MemoryRunLog log;
  options.log = &log;
  const Data data;
  GRAPNEL_ASSIGN_OR_RETURN(options.train_dataset,
                           TensorDataset::Create(data.inputs, data.targets));
  GRAPNEL_ASSIGN_OR_RETURN(options.val_dataset,
                           TensorDataset::Create(data.inputs, data.targets));
  GRAPNEL_ASSIGN_OR_RETURN(
      options.model, CallbackModel::Create(ModelOptionsOf(FirstWeights())));
  GRAPNEL_ASSIGN_OR_RETURN(const std::unique_ptr<Runner> runner,
                           Runner::Create(config, std::move(options)));
  GRAPNEL_RETURN_IF_ERROR(runner->Train());
  *weights = ToWeights(runner->context().model().parameters());
  GRAPNEL_ASSIGN_OR_RETURN(const Metrics metrics, runner->Val());
  const MetricValue* const loss = FindMetric(metrics, "loss");
  GRAPNEL_RET_CHECK(loss != nullptr && AsNumber(*loss).has_value());
  *val_loss = *AsNumber(*loss);
  return absl::OkStatus();
}

bool SameBits(const mlp_weights& a, const mlp_weights& b) {
  return std::memcmp(&a, &b, sizeof(a)) == 0;
}

TEST(MlpTest, GradientsAreThoseOfAutograd) {
  const mlp_weights weights = FirstWeights();
  const Data data;
  mlp_weights slopes;
  const double loss = mlp_gradients(
      &weights, data.inputs.const_data_ptr<double>(),
      data.targets.const_data_ptr<double>(), mlp_samples, &slopes);

  const std::vector<NamedTensor> parameters = ToTensors(weights);
  for (const NamedTensor& parameter : parameters) {
    parameter.tensor.set_requires_grad(true);
  }
  const at::Tensor expected = data.inputs.mm(parameters[0].tensor.t())
                                  .add(parameters[1].tensor)
                                  .tanh()
                                  .mm(parameters[2].tensor.t())
                                  .add(parameters[3].tensor)
                                  .sub(data.targets)
                                  .square()
                                  .mean();
  expected.backward();
  EXPECT_NEAR(loss, expected.item<double>(), 1e-12);
  const std::vector<NamedTensor> ours = ToTensors(slopes);
  for (int i = 0; i < mlp_num_parts; ++i) {
    EXPECT_TRUE(ops::allclose(ours[i].tensor, parameters[i].tensor.grad(),
                              1e-10, 1e-12))
        << mlp_parts[i].name;
  }
}

TEST(MlpTest, TheCTrainingIsTheCppTraining) {
  mlp_weights expected;
  double expected_loss = 0;
  ASSERT_THAT(TrainByCpp(io::JoinPath(::testing::TempDir(), "cpp"), &expected,
                         &expected_loss),
              IsOk());
  const mlp_weights first = FirstWeights();
  ASSERT_FALSE(SameBits(expected, first));
  const Data data;
  mlp_weights slopes;
  EXPECT_LT(expected_loss,
            mlp_gradients(&first, data.inputs.const_data_ptr<double>(),
                          data.targets.const_data_ptr<double>(), mlp_samples,
                          &slopes));
  for (const int64_t steps : {-1, 0, 10, 21}) {
    SCOPED_TRACE(steps);
    const std::string work_dir =
        io::JoinPath(::testing::TempDir(), absl::StrCat("c_", steps));
    mlp_outcome outcome = {};
    mlp_train(work_dir.c_str(), steps, &outcome);
    EXPECT_THAT(
        std::string(outcome.error.data == nullptr ? "" : outcome.error.data),
        IsEmpty());
    EXPECT_TRUE(SameBits(outcome.weights, expected));
    EXPECT_EQ(outcome.val_loss, expected_loss);
    EXPECT_TRUE(outcome.exported);
    // Of 28 steps, those of two epochs at least are this process's; and the
    // average comes and goes.
    EXPECT_GT(outcome.copies, 7);
    EXPECT_EQ(outcome.destroyed, steps < 0 ? 1 : 2);
    EXPECT_EQ(grapnel_live_objects(), 0);
    text_clear(&outcome.error);
  }
}

}  // namespace
}  // namespace grapnel
