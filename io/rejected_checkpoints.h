// Checkpoints that the search for the newest good one passes over, and how a
// training puts bad ones out of its way.

#ifndef GRAPNEL_IO_REJECTED_CHECKPOINTS_H_
#define GRAPNEL_IO_REJECTED_CHECKPOINTS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grapnel/io/checkpoint.h"
#include "grapnel/io/env.h"

namespace grapnel {
namespace io {

struct RejectedCheckpoint {
  std::string path;     // "" if the file last_checkpoint itself is bad.
  absl::Status status;  // Names the file and, if it can be told, the tensor.
};

// ReadLatestCheckpoint, with more about what is passed over; `rejected` isn't
// null.
absl::StatusOr<LatestCheckpoint> SearchLatestCheckpoint(
    Env& env, const std::string& work_dir,
    std::vector<RejectedCheckpoint>* rejected,
    const std::string& checkpoint_dir = "");

// Whether it is damaged for good: not as it was written, or a directory without
// a manifest that holds files of a checkpoint, as a copy that was cut short
// leaves. Not if it couldn't be read for another reason, needs a newer reader,
// is a link, or is good but for its directory's name, which somebody gave it.
bool IsDamaged(Env& env, const RejectedCheckpoint& rejected);

// Renames the checkpoint at `path`, "epoch_3", to "epoch_3.damaged", or if that
// is taken "epoch_3.damaged-2" and so on, and returns that path. What is in it
// stays as it is. No search takes that name for a checkpoint, and nothing
// deletes it. Its copies (io/run_checkpoints.h), "epoch_3.pth", go along to
// "epoch_3.damaged.pth": they may be whole, and are in no new one's way. One
// that can't be read or renamed stays as it is. Only for who holds the folder's
// lock.
absl::StatusOr<std::string> SetAsideCheckpoint(Env& env,
                                               const std::string& path);

// Whether SetAsideCheckpoint gives such names.
bool IsSetAsideName(absl::string_view name);

}  // namespace io
}  // namespace grapnel

#endif  // GRAPNEL_IO_REJECTED_CHECKPOINTS_H_
