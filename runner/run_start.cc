#include "grapnel/runner/run_start.h"

#include <memory>
#include <random>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "c10/core/Device.h"
#include "grapnel/base/checked_message.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/data/data_loader.h"
#include "grapnel/hooks/ema/ema_hook.pb.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/io/env.h"
#include "grapnel/io/overlay_env.h"
#include "grapnel/loggers/run_log.h"
#include "grapnel/models/model.h"
#include "grapnel/optim/optim_wrapper.h"
#include "grapnel/optim/optim_wrapper.pb.h"
#include "grapnel/optim/param_scheduler.h"
#include "grapnel/optim/param_scheduler.pb.h"
#include "grapnel/runner/default_hooks.h"
#include "grapnel/runner/mode.h"
#include "grapnel/runner/run_context.h"
#include "grapnel/runner/run_generators.h"
#include "grapnel/runner/run_state.pb.h"
#include "grapnel/runner/runner_config.pb.h"

namespace grapnel {
namespace {

using ::grapnel::runner::v1::RunnerConfig;
using ::grapnel::runner::v1::RunState;

// Nobody reads what a run says that never comes about.
class NoLog final : public RunLog {
 public:
  void Write(Level, absl::string_view) override {}
  void Warning(absl::string_view) override {}
  absl::Status Flush() override { return absl::OkStatus(); }
};

std::string RandomUuid() {
  std::random_device device;
  std::string uuid(16, '\0');
  for (char& byte : uuid) byte = static_cast<char>(device() & 0xFF);
  return uuid;
}

// The run's averages, the one that is evaluated first.
std::vector<std::string> AveragesOf(const RunnerConfig& config) {
  std::vector<std::string> names;
  for (const runner::v1::HookSpec& spec : config.custom_hooks()) {
    hooks::v1::EMAHookConfig ema;
    if (!spec.config().UnpackTo(&ema)) continue;
    std::string name = !ema.has_name() || ema.name() == "ema"
                           ? "ema"
                           : absl::StrCat("ema_", ema.name());
    const bool asked = ema.has_evaluate() && ema.evaluate();
    names.insert(asked ? names.begin() : names.end(), std::move(name));
  }
  return names;
}

absl::Status FillState(RunContext& run, const RunnerConfig& config,
                       RunState* state) {
  state->set_seed(run.seed());
  GRAPNEL_ASSIGN_OR_RETURN(const RunGenerators generators,
                           RunGenerators::Create(c10::kCPU, run.seed()));
  GRAPNEL_RETURN_IF_ERROR(generators.Save(state->mutable_rng()));
  runner::v1::DataPosition& data = *state->mutable_data();
  data.set_batch_size(config.train_dataloader().batch_size());
  data.set_world_size(1);
  data.set_by_epoch(run.by_epoch());
  const DataLoader* const loader = run.dataloader(Mode::kTrain);
  if (loader == nullptr) {
    return absl::InvalidArgumentError(
        "train_stream: a run over a stream has no beginning that another "
        "program could have gone on from");
  }
  data.set_dataset_size(loader->dataset().size());
  data.set_infinite(loader->infinite());
  data.set_num_batches(loader->num_batches());
  data.set_shuffle(config.train_dataloader().sampler().shuffle());
  TensorMap slots, gradients;
  GRAPNEL_RETURN_IF_ERROR(run.optim_wrapper()->SaveState(
      state->mutable_optim_wrapper(), &slots, &gradients));
  for (const auto& scheduler : run.param_schedulers()) {
    GRAPNEL_RETURN_IF_ERROR(
        scheduler->SaveState(state->add_param_schedulers()));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<RunStart> CaptureRunStart(const RunnerConfig& config,
                                         RunnerOptions options) {
  if (!config.has_train_cfg()) {
    return absl::InvalidArgumentError(
        "train_cfg: must be set: there is no training to go on with");
  }
  RunnerConfig alone = config;
  alone.clear_launcher();  // Nobody else is started.
  alone.clear_resume();
  alone.clear_load_from();
  io::OverlayEnv env(options.env != nullptr ? *options.env : io::Env::Posix());
  NoLog log;
  options.env = &env;
  options.log = &log;
  options.log_in_background = false;
  options.terminal_fd = -1;
  options.for_training = true;
  GRAPNEL_ASSIGN_OR_RETURN(const std::unique_ptr<Runner> runner,
                           Runner::Create(alone, std::move(options)));
  RunContext& run = runner->context();

  RunStart start;
  start.averages = AveragesOf(config);
  for (const NamedTensor& parameter : run.model().parameters()) {
    start.parameters.push_back(parameter.name);
  }
  RunState state;
  GRAPNEL_RETURN_IF_ERROR(FillState(run, alone, &state));
  // Of hooks that aren't ours nobody knows whether they can do without.
  for (const DefaultHookSlot& slot : DefaultHookSlots()) {
    if (runner->FindHook(slot.hook_name) == nullptr) continue;
    state.add_hooks()->set_name(slot.hook_name);
  }
  GRAPNEL_ASSIGN_OR_RETURN(TensorMap model, ModelState(run.model()));
  start.contents.sections.emplace_back("model", std::move(model));
  start.contents.sections.emplace_back("optimizer", TensorMap());
  GRAPNEL_ASSIGN_OR_RETURN(std::string blob, SerializeChecked(state));
  start.contents.blobs.emplace_back("state", std::move(blob));
  io::v1::CheckpointManifest& manifest = start.contents.manifest();
  manifest.set_run_uuid(RandomUuid());
  manifest.set_config(run.config_text());
  manifest.mutable_progress()->set_max_epochs(run.max_epochs());
  manifest.mutable_progress()->set_max_iters(run.max_iters());
  return start;
}

}  // namespace grapnel
