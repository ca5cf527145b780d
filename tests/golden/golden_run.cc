#include "grapnel/tests/golden/golden_run.h"

#include <algorithm>
#include <fstream>
#include <utility>

#include "ATen/TensorOperators.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/data/sampler.pb.h"
#include "grapnel/data/tensor_dataset.h"
#include "grapnel/hooks/checkpoint/checkpoint_hook.pb.h"
#include "grapnel/models/metric.h"
#include "grapnel/models/model.h"
#include "grapnel/runner/log_processor.pb.h"
#include "grapnel/tests/golden/golden_scheduler.h"

namespace grapnel {
namespace {

class GoldenModel final : public Model {
 public:
  GoldenModel()
      : start_(ops::tensor({1.0, 2.0}, at::kDouble)),
        gradient_(ops::tensor({1.0, 0.5}, at::kDouble)) {
    parameters_.push_back(
        {"w", ops::tensor({1.0, 2.0}, at::kDouble).set_requires_grad(true)});
  }

  absl::Status ComputeLosses(const Batch& batch, LogVars* losses) override {
    const at::Tensor& w = parameters_[0].tensor;
    losses->Add("loss",
                (batch.inputs.select(0, 0) * ((w - start_) * gradient_)).sum());
    losses->Add("aux", ops::ones({}, at::kDouble));
    return absl::OkStatus();
  }
  absl::Status ValStep(const Batch& batch, Predictions* predictions) override {
    predictions->outputs = batch.inputs;
    return absl::OkStatus();
  }
  const std::vector<NamedTensor>& parameters() const override {
    return parameters_;
  }
  const std::vector<NamedTensor>& buffers() const override { return buffers_; }
  void SetTraining(bool training) override { training_ = training; }
  bool training() const override { return training_; }

 private:
  const at::Tensor start_, gradient_;
  std::vector<NamedTensor> parameters_, buffers_;
  bool training_ = true;
};

// Gives the values that the golden file says, evaluation by evaluation, and the
// last ones again and again.
class ScriptedMetric final : public Metric {
 public:
  explicit ScriptedMetric(Json evaluations)
      : evaluations_(std::move(evaluations)) {}

  void Reset() override {}
  absl::Status Process(const Predictions&, const Batch&) override {
    return absl::OkStatus();
  }
  absl::Status Compute(Metrics* metrics) override {
    const Json& values =
        evaluations_[std::min(next_++, evaluations_.size() - 1)];
    for (const auto& [name, value] : values.items()) {
      if (value.is_number_integer()) {
        metrics->emplace_back(name, value.get<int64_t>());
      } else if (value.is_number()) {
        metrics->emplace_back(name, value.get<double>());
      } else {
        metrics->emplace_back(name, "{'cat': 1}");  // The only one there is.
      }
    }
    return absl::OkStatus();
  }

 private:
  const Json evaluations_;
  size_t next_ = 0;
};

absl::StatusOr<std::unique_ptr<Dataset>> Batches(int64_t n) {
  const at::Tensor numbers =
      ops::arange(1, n + 1, at::TensorOptions().dtype(at::kDouble));
  GRAPNEL_ASSIGN_OR_RETURN(
      std::unique_ptr<Dataset> dataset,
      TensorDataset::Create(numbers, ops::zeros({n}, at::kLong)));
  return dataset;
}

void CopyInt(const Json& from, const char* name, google::protobuf::Message* to,
             const char* field) {
  if (!from.contains(name)) return;
  const auto* descriptor = to->GetDescriptor()->FindFieldByName(field);
  to->GetReflection()->SetInt64(to, descriptor, from[name].get<int64_t>());
}

void CopyBool(const Json& from, const char* name,
              google::protobuf::Message* to) {
  if (!from.contains(name)) return;
  const auto* descriptor = to->GetDescriptor()->FindFieldByName(name);
  to->GetReflection()->SetBool(to, descriptor, from[name].get<bool>());
}

void FillLogProcessor(const Json& log, runner::v1::LogProcessorConfig* config) {
  CopyBool(log, "by_epoch", config);
  CopyInt(log, "window_size", config, "window_size");
  CopyBool(log, "log_with_hierarchy", config);
  if (log.contains("num_digits")) config->set_num_digits(log["num_digits"]);
  if (!log.contains("custom_cfg")) return;
  for (const Json& entry : log["custom_cfg"]) {
    auto* custom = config->add_custom_cfg();
    custom->set_data_src(entry["data_src"]);
    if (entry.contains("log_name")) custom->set_log_name(entry["log_name"]);
    if (entry.contains("method_name")) {
      custom->set_method_name(entry["method_name"]);
    }
    if (entry.contains("window_size")) {
      custom->set_window_size(
          entry["window_size"].is_string()
              ? entry["window_size"].get<std::string>()
              : absl::StrCat(entry["window_size"].get<int>()));
    }
  }
}

// One text or a list of texts.
std::vector<std::string> Texts(const Json& json) {
  if (json.is_string()) return {json.get<std::string>()};
  return json.get<std::vector<std::string>>();
}

void FillCheckpoint(const Json& ckpt, hooks::v1::CheckpointHookConfig* config) {
  for (const char* name : {"interval", "max_keep_ckpts", "save_begin"}) {
    CopyInt(ckpt, name, config, name);
  }
  for (const char* name :
       {"by_epoch", "save_last", "save_optimizer", "save_param_scheduler"}) {
    CopyBool(ckpt, name, config);
  }
  if (ckpt.contains("out_dir")) {
    config->set_out_dir(absl::StrCat("/", ckpt["out_dir"].get<std::string>()));
  }
  if (ckpt.contains("filename_tmpl")) {
    const std::string tmpl = ckpt["filename_tmpl"];  // "test_{}.pth" there.
    config->set_filename_tmpl(tmpl.substr(0, tmpl.rfind('.')));
  }
  if (ckpt.contains("save_best")) {
    for (const std::string& name : Texts(ckpt["save_best"])) {
      config->add_save_best(name);
    }
  }
  if (ckpt.contains("published_keys")) {
    for (const std::string& key : Texts(ckpt["published_keys"])) {
      config->add_published_keys(key == "state_dict" ? "model" : "config");
    }
  }
}

}  // namespace

Json ReadGolden(const std::string& name) {
  std::ifstream file(absl::StrCat("tests/golden/", name, ".json"));
  return Json::parse(file);
}

Json ReadGoldenCase(const std::string& file, const std::string& name) {
  const Json golden = ReadGolden(file);
  for (const Json& c : golden["cases"]) {
    if (c["name"] == name) return c;
  }
  return Json();
}

absl::StatusOr<std::unique_ptr<Runner>> CreateGoldenRunner(
    const Json& config, RunnerOptions options,
    const runner::v1::RunnerConfig& more) {
  runner::v1::RunnerConfig run;
  run.set_work_dir("/run");
  run.set_experiment_name("<exp>");
  run.mutable_randomness()->set_seed(0);

  const Json& train_cfg = config["train_cfg"];
  CopyBool(train_cfg, "by_epoch", run.mutable_train_cfg());
  for (const char* name :
       {"max_epochs", "max_iters", "val_begin", "val_interval"}) {
    CopyInt(train_cfg, name, run.mutable_train_cfg(), name);
  }
  run.mutable_train_dataloader()->set_batch_size(1);
  if (config.contains("sampler")) {
    run.mutable_train_dataloader()->mutable_sampler()->set_type(
        data::v1::SamplerConfig::INFINITE);
  }
  GRAPNEL_ASSIGN_OR_RETURN(options.train_dataset, Batches(config["n_train"]));
  if (config.contains("n_val")) {
    const bool test = config.contains("test");
    const Json metrics = config.contains("metrics")
                             ? config["metrics"]
                             : Json::array({Json::object({{"acc", 0.5}})});
    (test ? run.mutable_test_dataloader() : run.mutable_val_dataloader())
        ->set_batch_size(1);
    GRAPNEL_ASSIGN_OR_RETURN(
        (test ? options.test_dataset : options.val_dataset),
        Batches(config["n_val"]));
    (test ? options.test_metrics : options.val_metrics)
        .push_back(std::make_unique<ScriptedMetric>(metrics));
  }
  auto* wrapper = run.mutable_optim_wrapper();
  wrapper->mutable_optimizer()->mutable_sgd()->set_lr(config.value("lr", 0.01));
  CopyInt(config, "accum", wrapper, "accumulative_counts");
  if (config.contains("clip")) {
    wrapper->mutable_clip_grad()->set_max_norm(config["clip"]["max_norm"]);
  }
  if (options.model == nullptr) {
    options.model = std::make_unique<GoldenModel>();
  }

  auto* hooks = run.mutable_default_hooks();
  if (config.contains("logger")) {
    const Json& logger = config["logger"];
    CopyInt(logger, "interval", hooks->mutable_logger(), "interval");
    CopyInt(logger, "interval_exp_name", hooks->mutable_logger(),
            "interval_exp_name");
    CopyBool(logger, "ignore_last", hooks->mutable_logger());
    CopyBool(logger, "log_metric_by_epoch", hooks->mutable_logger());
  }
  // The golden runs without "ckpt" save nothing.
  if (!config.contains("ckpt")) {
    hooks->mutable_checkpoint()->set_save_last(false);
  } else {
    FillCheckpoint(config["ckpt"], hooks->mutable_checkpoint());
  }
  if (config.contains("sched")) {
    for (const Json& scheduler : config["sched"]) {
      GRAPNEL_ASSIGN_OR_RETURN(*run.add_param_scheduler(),
                               GoldenSchedulerConfig(scheduler));
    }
  }
  if (config.contains("log")) {
    FillLogProcessor(config["log"], run.mutable_log_processor());
  }
  if (config.contains("resume")) run.set_resume(config["resume"]);
  if (config.contains("load_from")) {
    // "epoch_1.pth" there.
    const std::string name = config["load_from"];
    run.set_load_from(absl::StrCat("/run/", name.substr(0, name.rfind('.'))));
  }
  run.MergeFrom(more);
  return Runner::Create(run, std::move(options));
}

}  // namespace grapnel
