#include <signal.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <random>

#include "ATen/core/Generator.h"
#include "ATen/core/Tensor.h"
#include "absl/memory/memory.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "c10/core/GradMode.h"
#include "grapnel/base/registry.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/data/dataset.h"
#include "grapnel/data/sample.h"
#include "grapnel/data/sample_rng.h"
#include "grapnel/data/transform.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/loggers/log_backend.h"
#include "grapnel/models/layer.h"
#include "grapnel/models/log_vars.h"
#include "grapnel/models/metric.h"
#include "grapnel/models/metric_value.h"
#include "grapnel/models/model.h"
#include "grapnel/optim/optim_wrapper.h"
#include "grapnel/optim/param_groups.h"
#include "grapnel/runner/hook.h"
#include "grapnel/runner/hook_registry.h"
#include "grapnel/runner/run_context.h"
#include "grapnel/tools/verify_resume/planted_faults.pb.h"
#include "grapnel/tools/verify_resume/resume_trace.h"

namespace planted {
namespace {

// verify-resume doesn't know of it.
void DieIfToBeKilled() {
  if (std::getenv(grapnel::kKillVariable) != nullptr) raise(SIGKILL);
}

class PlantedHook final : public grapnel::Hook {
 public:
  using Config = PlantedHookConfig;

  static absl::StatusOr<std::unique_ptr<PlantedHook>> Create(
      const Config& config) {
    if (config.fault() == Config::KILLED_WHEN_MADE) DieIfToBeKilled();
    return absl::WrapUnique(new PlantedHook(config));
  }

  absl::string_view name() const override { return "planted"; }
  google::protobuf::Message* mutable_state() override {
    return config_.remembers() ? &state_ : nullptr;
  }

  absl::Status AfterRestore(grapnel::RunContext&,
                            const grapnel::io::CheckpointContents&) override {
    if (config_.fault() == Config::KILLED) raise(SIGKILL);
    if (config_.fault() == Config::TERMINATED) raise(SIGTERM);
    if (config_.fault() == Config::NO_SPACE) {
      return absl::ResourceExhaustedError("/planted: no space left on device");
    }
    return config_.fault() == Config::REFUSE
               ? absl::InternalError("doesn't go on")
               : absl::OkStatus();
  }

  absl::Status BeforeTrain(grapnel::RunContext& run) override {
    if (config_.fault() == Config::KILLED_WHEN_TRAINED) DieIfToBeKilled();
    if (config_.fault() == Config::GENERATOR) {
      grapnel::ops::randperm(3, run.generator(), at::kLong);
    }
    return absl::OkStatus();
  }

  absl::Status BeforeTrainIter(grapnel::RunContext& run,
                               const grapnel::IterInfo&) override {
    if (config_.fault() == Config::COUNT_IN_VAL) return absl::OkStatus();
    state_.set_count(state_.count() + 1);
    if (config_.fault() == Config::RATE) {
      *run.optim_wrapper()->scheduled_groups().option(0, "lr") =
          0.01 / static_cast<double>(state_.count());
    }
    return absl::OkStatus();
  }

  absl::Status AfterTrainIter(grapnel::RunContext& run,
                              const grapnel::IterInfo&,
                              const grapnel::LogVars&) override {
    if (config_.fault() == Config::WEIGHTS && state_.count() % 3 == 0) {
      c10::NoGradGuard no_grad;
      for (const grapnel::NamedTensor& weight : run.model().parameters()) {
        weight.tensor.mul_(0.99);
      }
    }
    if (config_.fault() == Config::RECORD) {
      grapnel::Record record;
      record.step = run.iter() + 1;
      record.scalars = {{"planted", state_.count()}};
      run.WriteRecord(record);
    }
    if (config_.fault() == Config::STOP && state_.count() == 30) {
      run.RequestStop("enough", grapnel::StopAt::kNow);
    }
    if (config_.fault() == Config::GIVE_UP && state_.count() == 30) {
      return absl::InternalError("gives up");
    }
    return absl::OkStatus();
  }

  absl::Status BeforeVal(grapnel::RunContext& run) override {
    if (config_.fault() == Config::COUNT_IN_VAL) {
      state_.set_count(state_.count() + 1);
      c10::NoGradGuard no_grad;
      for (const grapnel::NamedTensor& weight : run.model().parameters()) {
        weight.tensor.mul_(1 + 0.001 * static_cast<double>(state_.count()));
      }
    }
    return absl::OkStatus();
  }

  absl::Status AfterValEpoch(grapnel::RunContext& run,
                             const grapnel::Metrics&) override {
    if (config_.fault() == Config::DRAW_IN_VAL) {
      grapnel::Record record;
      record.step = run.iter();
      record.scalars = {{"planted", grapnel::ops::rand({1}).item().toDouble()}};
      run.WriteRecord(record);
    }
    return absl::OkStatus();
  }

 private:
  explicit PlantedHook(const Config& config) : config_(config) {}

  const Config config_;
  PlantedHookState state_;
};

GRAPNEL_REGISTER_HOOK(PlantedHook);

// Points whose class is the remainder of their index.
class PlantedDataset final : public grapnel::Dataset {
 public:
  using Config = PlantedDatasetConfig;

  static absl::StatusOr<std::unique_ptr<PlantedDataset>> Create(
      const Config& config, const grapnel::DatasetOptions&) {
    return absl::WrapUnique(new PlantedDataset(config));
  }

  int64_t size() const override { return config_.size(); }

  absl::Status Get(int64_t index, grapnel::Sample* sample) const override {
    sample->input = grapnel::ops::arange(4, at::kFloat).mul_(0.1 * (index % 7));
    sample->target = grapnel::ops::scalar_tensor(index % 3, at::kLong);
    if (config_.fault() == Config::OWN_GENERATOR) {
      static std::mt19937 generator(5);
      sample->input.add_(std::uniform_real_distribution<float>()(generator));
    }
    if (config_.fault() == Config::DEFAULT_GENERATOR) {
      sample->input.add_(grapnel::ops::rand({4}));
    }
    if (config_.fault() == Config::CLOCK) {
      sample->input.add_(static_cast<float>(std::random_device()()) * 1e-9f);
    }
    if (config_.fault() == Config::WORN_OUT) {
      static std::atomic<int> count{0};
      if (++count > 200) return absl::DataLossError("is worn out");
    }
    return absl::OkStatus();
  }

 private:
  explicit PlantedDataset(const Config& config) : config_(config) {}

  const Config config_;
};

GRAPNEL_REGISTER(grapnel::DatasetRegistry, PlantedDataset);

class PlantedTransform final : public grapnel::Transform {
 public:
  using Config = PlantedTransformConfig;

  static absl::StatusOr<std::unique_ptr<PlantedTransform>> Create(
      const Config&) {
    return std::make_unique<PlantedTransform>();
  }

  absl::Status Apply(grapnel::SampleRng&,
                     grapnel::Sample* sample) const override {
    static std::atomic<int> count{0};
    sample->input = sample->input.add(0.001 * ++count);
    return absl::OkStatus();
  }
};

GRAPNEL_REGISTER(grapnel::TransformRegistry, PlantedTransform);

class PlantedMetric final : public grapnel::Metric {
 public:
  using Config = PlantedMetricConfig;

  static absl::StatusOr<std::unique_ptr<PlantedMetric>> Create(
      const Config& config) {
    return absl::WrapUnique(new PlantedMetric(config));
  }

  void Reset() override {}
  absl::Status Process(const grapnel::Predictions&,
                       const grapnel::Batch&) override {
    ++count_;
    return absl::OkStatus();
  }
  absl::Status Compute(grapnel::Metrics* metrics) override {
    double value = 1;
    if (config_.fault() == Config::COUNT) value = static_cast<double>(count_);
    if (config_.fault() == Config::DEFAULT_GENERATOR) {
      value = grapnel::ops::rand({1}).item().toDouble();
    }
    metrics->emplace_back("planted", value);
    return absl::OkStatus();
  }

 private:
  explicit PlantedMetric(const Config& config) : config_(config) {}

  const Config config_;
  int64_t count_ = 0;
};

GRAPNEL_REGISTER(grapnel::MetricRegistry, PlantedMetric);

class PlantedLayer final : public grapnel::SeededLayer {
 public:
  using Config = PlantedLayerConfig;

  static absl::StatusOr<std::unique_ptr<PlantedLayer>> Create(
      const Config&, const grapnel::LayerOptions&) {
    return std::make_unique<PlantedLayer>();
  }

  at::Tensor Forward(const at::Tensor& input) override {
    if (!mean_.defined()) mean_ = grapnel::ops::zeros(input.sizes()[1]);
    if (training()) {
      mean_ = mean_.mul(0.9).add(input.detach().mean(0), 0.1);
    }
    return input.sub(mean_);
  }

 private:
  at::Tensor mean_;
};

GRAPNEL_REGISTER(grapnel::LayerRegistry, PlantedLayer);

}  // namespace
}  // namespace planted
