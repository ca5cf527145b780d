// What a CheckpointHookConfig means: its rules, its defaults and its metrics.

#ifndef GRAPNEL_HOOKS_CHECKPOINT_CHECKPOINT_CONFIG_H_
#define GRAPNEL_HOOKS_CHECKPOINT_CHECKPOINT_CONFIG_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grapnel/hooks/checkpoint/checkpoint_hook.pb.h"
#include "grapnel/models/metric_rule.h"

namespace grapnel {

using CheckpointConfig = hooks::v1::CheckpointHookConfig;

// The metric of save_best that is the first one that a validation gives.
inline constexpr char kAutoIndicator[] = "auto";

// In front of the names of best checkpoints.
inline constexpr char kBestPrefix[] = "best_";

// What also_write may have.
inline constexpr char kPthFormat[] = "pth";
inline constexpr char kSafetensorsFormat[] = "safetensors";

// A metric of save_best.
struct Indicator {
  std::string name;
  MetricRule rule;
  std::string warning;  // What was guessed, to be said once; "" if nothing.
};

// kInvalidArgument, naming the field, if a rule of checkpoint_hook.proto is
// broken.
absl::Status CheckCheckpointConfig(const CheckpointConfig& config);

CheckpointConfig WithDefaultOptions(CheckpointConfig config);

// The metric `name`, at `index` of save_best, with its rule: as configured or,
// if it isn't, by the name. kInvalidArgument if that doesn't tell.
absl::StatusOr<Indicator> MakeIndicator(const CheckpointConfig& config,
                                        int index, const std::string& name);

// As part of a checkpoint's name.
std::string IndicatorFileName(absl::string_view indicator);

}  // namespace grapnel

#endif  // GRAPNEL_HOOKS_CHECKPOINT_CHECKPOINT_CONFIG_H_
