// Parts of a checkpoint, as one of their own, for others.

#ifndef GRAPNEL_HOOKS_CHECKPOINT_PUBLISH_CHECKPOINT_H_
#define GRAPNEL_HOOKS_CHECKPOINT_PUBLISH_CHECKPOINT_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "google/protobuf/repeated_field.h"
#include "grapnel/models/metric_value.h"

namespace grapnel {

class RunLog;

namespace io {
class Env;
}  // namespace io

// Parts of a manifest that can be published, beside sections and blobs.
inline constexpr char kConfigPart[] = "config";
inline constexpr char kMetricsPart[] = "metrics";

struct PublishRequest {
  std::string path;  // The checkpoint.
  std::string dir;   // Where the published one goes.
  // Not null, and not owned, as `metrics`.
  const google::protobuf::RepeatedPtrField<std::string>* keys = nullptr;
  // Of the last validation, and how many iterations its weights had: for a
  // checkpoint of that iteration that was saved before it was validated.
  const Metrics* metrics = nullptr;
  int64_t metrics_iter = -1;
};

// Writes what of the checkpoint has a name in `keys` to "<name>-<digest>",
// unless that is there. A warning and OK if there is no such checkpoint or
// nothing would be left of it; kDataLoss if it is damaged; other errors are
// WriteCheckpoint's.
absl::Status PublishCheckpoint(io::Env& env, const PublishRequest& request,
                               RunLog& log);

}  // namespace grapnel

#endif  // GRAPNEL_HOOKS_CHECKPOINT_PUBLISH_CHECKPOINT_H_
