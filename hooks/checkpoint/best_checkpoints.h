// The file best_checkpoints in a folder of checkpoints, which knows the best
// checkpoints of a run also when they are newer than the checkpoint it resumes
// from.

#ifndef GRAPNEL_HOOKS_CHECKPOINT_BEST_CHECKPOINTS_H_
#define GRAPNEL_HOOKS_CHECKPOINT_BEST_CHECKPOINTS_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/repeated_field.h"
#include "grapnel/hooks/checkpoint/checkpoint_hook.pb.h"
#include "grapnel/io/env.h"

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

}  // namespace grapnel

#endif  // GRAPNEL_HOOKS_CHECKPOINT_BEST_CHECKPOINTS_H_
