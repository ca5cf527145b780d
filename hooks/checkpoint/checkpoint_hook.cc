#include "grapnel/hooks/checkpoint/checkpoint_hook.h"

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/env.h"
#include "grapnel/loggers/run_log.h"
#include "grapnel/runner/hook_registry.h"

namespace grapnel {
namespace {

using Config = CheckpointHook::Config;

Config WithDefaults(Config config) {
  if (!config.has_interval()) config.set_interval(-1);
  if (!config.has_by_epoch()) config.set_by_epoch(true);
  if (!config.has_max_keep_ckpts()) config.set_max_keep_ckpts(-1);
  if (!config.has_save_last()) config.set_save_last(true);
  return config;
}

// By the text of the paths, made absolute.
bool SamePath(const std::string& a, const std::string& b) {
  const auto normal = [](const std::string& path) {
    std::error_code error;
    return std::filesystem::absolute(path, error).lexically_normal();
  };
  return normal(a) == normal(b);
}

}  // namespace

absl::StatusOr<std::unique_ptr<CheckpointHook>> CheckpointHook::Create(
    const Config& config) {
  if (config.save_begin() < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("save_begin: must be >= 0, is ", config.save_begin()));
  }
  return absl::WrapUnique(new CheckpointHook(config));
}

CheckpointHook::CheckpointHook(const Config& config)
    : config_(WithDefaults(config)) {}

absl::Status CheckpointHook::BeforeTrain(RunContext& run) {
  run.log().Info(
      absl::StrCat("Checkpoints will be saved to ", run.work_dir(), "."));
  GRAPNEL_RETURN_IF_ERROR(io::RemoveLeftovers(run.env(), run.work_dir()));
  if (!run.resumed_from().empty() && !took_over_) {
    took_over_ = true;
    const std::string name = io::Basename(run.resumed_from());
    if (!SamePath(run.resumed_from(), io::JoinPath(run.work_dir(), name))) {
      // What the other folder's run made is not ours to delete here.
      state_.clear_kept();
    } else if (!IsKept(name)) {
      // Made without this hook, on an interrupt.
      state_.add_kept(name);
    }
  }
  return DeleteOld(run);
}

absl::Status CheckpointHook::AfterTrainIter(RunContext& run, const IterInfo&,
                                            const LogVars&) {
  if (config_.by_epoch()) return absl::OkStatus();
  const int64_t count = run.iter() + 1;
  if (EveryN(count, config_.interval(), config_.save_begin()) ||
      (config_.save_last() && count == run.max_iters())) {
    return Save(run, count);
  }
  return absl::OkStatus();
}

absl::Status CheckpointHook::AfterTrainEpoch(RunContext& run) {
  if (!config_.by_epoch()) return absl::OkStatus();
  const int64_t count = run.epoch() + 1;
  if (EveryN(count, config_.interval(), config_.save_begin()) ||
      (config_.save_last() && count == run.max_epochs())) {
    return Save(run, count);
  }
  return absl::OkStatus();
}

absl::Status CheckpointHook::AfterTrain(RunContext& run) {
  if (run.stop_reason().empty() || !config_.save_last()) {
    return absl::OkStatus();
  }
  // An iteration-based loop has one epoch, which is over.
  const int64_t count = !config_.by_epoch() ? run.iter()
                        : run.by_epoch()    ? run.epoch()
                                            : 1;
  return count == last_saved_ ? absl::OkStatus() : Save(run, count);
}

absl::Status CheckpointHook::AfterSaveCheckpoint(RunContext& run,
                                                 const SavedCheckpoint& saved) {
  if (!saved.is_last) return absl::OkStatus();
  if (!IsKept(saved.name)) state_.add_kept(saved.name);
  return DeleteOld(run);
}

absl::Status CheckpointHook::Save(RunContext& run, int64_t count) {
  const char* const unit = config_.by_epoch() ? "epoch" : "iter";
  run.log().Info(absl::StrCat("Saving checkpoint at ", count, " ",
                              config_.by_epoch() ? "epochs" : "iterations"));
  SaveRequest request;
  request.name = absl::StrCat(unit, "_", count);
  // Before it is written, so that the checkpoint knows of itself; the newest is
  // last.
  auto& kept = *state_.mutable_kept();
  kept.erase(std::remove(kept.begin(), kept.end(), request.name), kept.end());
  *kept.Add() = request.name;
  last_saved_ = count;
  return run.Save(std::move(request));
}

bool CheckpointHook::IsKept(const std::string& name) const {
  const auto& kept = state_.kept();
  return std::find(kept.begin(), kept.end(), name) != kept.end();
}

absl::Status CheckpointHook::DeleteOld(RunContext& run) {
  if (config_.max_keep_ckpts() <= 0) return absl::OkStatus();
  auto& kept = *state_.mutable_kept();
  while (kept.size() > config_.max_keep_ckpts()) {
    const std::string name = kept.Get(0);
    kept.erase(kept.begin());
    if (io::Basename(name) != name) continue;  // Not from this hook.
    const std::string path = io::JoinPath(run.work_dir(), name);
    const absl::Status status = io::DeleteCheckpoint(run.env(), path);
    if (!status.ok() && !absl::IsNotFound(status)) return status;
  }
  return absl::OkStatus();
}

GRAPNEL_REGISTER_HOOK(CheckpointHook);

}  // namespace grapnel
