// The list of a run's best checkpoints; and the file best_checkpoints in a
// folder of checkpoints, which knows them also when they are newer than the
// checkpoint that the run resumes from.

#ifndef GRAPNEL_HOOKS_CHECKPOINT_BEST_CHECKPOINTS_H_
#define GRAPNEL_HOOKS_CHECKPOINT_BEST_CHECKPOINTS_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/repeated_field.h"
#include "grapnel/hooks/checkpoint/checkpoint_config.h"
#include "grapnel/hooks/checkpoint/checkpoint_hook.pb.h"
#include "grapnel/io/env.h"
#include "grapnel/models/metric_value.h"

namespace grapnel {

// Best first for each metric.
using BestCheckpointList =
    google::protobuf::RepeatedPtrField<hooks::v1::BestCheckpoint>;

// Replaces the file as a whole. `run_uuid` as in a checkpoint's manifest.
absl::Status WriteBestCheckpoints(io::Env& env, const std::string& dir,
                                  absl::string_view run_uuid,
                                  const BestCheckpointList& best);

// What the file says of that run. kNotFound if it is missing or another run's;
// kDataLoss if it can't be read as what it is.
absl::StatusOr<BestCheckpointList> ReadBestCheckpoints(
    io::Env& env, const std::string& dir, absl::string_view run_uuid);

// What the metrics say of an indicator. kNotFound if it isn't among them;
// kInvalidArgument if it is a text.
absl::StatusOr<double> ScoreOf(const Metrics& metrics,
                               const std::string& indicator);

// Brings those of the indicator into order, after scores were corrected.
void SortBest(const Indicator& indicator, BestCheckpointList* list);

// Takes the checkpoint `name` with its score into `*list`, at its place among
// those of the indicator, which is returned, 0-based; unless `keep` others are
// better, or one of the same name. Those that it pushes out stay in the list.
std::optional<int> AddBest(const Indicator& indicator, double score,
                           const std::string& name, int64_t keep,
                           BestCheckpointList* list);

}  // namespace grapnel

#endif  // GRAPNEL_HOOKS_CHECKPOINT_BEST_CHECKPOINTS_H_
