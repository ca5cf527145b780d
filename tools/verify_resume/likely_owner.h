// Which part of a run is likely to blame when a resumed run isn't the same.
//
// These are rules, not proofs: docs/verify_resume.md has them in words.

#ifndef GRAPNEL_TOOLS_VERIFY_RESUME_LIKELY_OWNER_H_
#define GRAPNEL_TOOLS_VERIFY_RESUME_LIKELY_OWNER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "grapnel/tools/verify_resume/resume_trace.h"
#include "grapnel/tools/verify_resume/run_difference.h"

namespace grapnel::runner::v1 {
class RunnerConfig;
}  // namespace grapnel::runner::v1

namespace grapnel {

namespace io {
struct CheckpointContents;
}  // namespace io

// What is known of a run's parts.
struct RunParticulars {
  // A part of the user's own that the configuration names, by its place:
  // "train_dataloader.dataset", "acme.LineDatasetConfig".
  struct OwnPart {
    std::string place;
    std::string type;
  };
  std::vector<OwnPart> own_parts;  // But hooks.

  // Hooks of the user's own, by whether they save anything: "\"count_lr\"
  // (custom_hooks.1)".
  std::vector<std::string> hooks_without_state;
  std::vector<std::string> hooks_with_state;

  bool saves_optimizer = true;
  bool saves_schedulers = true;

  // That two uninterrupted runs are the same.
  bool deterministic = true;

  // Where something first drew from LibTorch's default generator, which a run
  // doesn't: iterations, as TraceEvent counts them.
  struct Draws {
    std::optional<int64_t> loading;     // While training samples may be loaded.
    std::optional<int64_t> in_step;     // Within an iteration.
    std::optional<int64_t> before_val;  // Between one and a validation.
    std::optional<int64_t> val_loading;  // While those of a validation may be.
    std::optional<int64_t> evaluating;   // By model, metrics or hooks.
  };
  Draws draws;

  // A dataset, or a transform, that gives other tensors for one sample when it
  // is asked again.
  struct VaryingPart {
    std::string place;
    bool draws_from_default_generator = false;
  };
  std::vector<VaryingPart> varying_parts;  // Of loaders with an own part.
};

// Of an uninterrupted run: its configuration, whose relative paths start at
// `base_dir`, its newest checkpoint, its trace. Makes hooks, datasets and
// transforms of the user's own, and reads samples. Leaves `deterministic`.
absl::StatusOr<RunParticulars> ParticularsOf(
    const runner::v1::RunnerConfig& config, const std::string& base_dir,
    const io::CheckpointContents& checkpoint,
    const std::vector<TraceEvent>& trace);

// For people: "hook \"count_lr\", which saves no state". `differences`: not
// empty, the first one first.
std::string LikelyOwner(const std::vector<RunDifference>& differences,
                        const RunParticulars& run);

}  // namespace grapnel

#endif  // GRAPNEL_TOOLS_VERIFY_RESUME_LIKELY_OWNER_H_
