#include "grapnel/hooks/checkpoint/checkpoint_copy.h"

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/hooks/checkpoint/checkpoint_config.h"
#include "grapnel/io/run_checkpoints.h"
#include "grapnel/io/safetensors.h"
#include "grapnel/io/unique_name.h"
#include "grapnel/runner/section_weights.h"
#include "grapnel/runner/training_pth_writer.h"

namespace grapnel {
namespace {

// What MMEngine resumes from.
absl::Status WritePth(io::Env& env, const std::string& path,
                      const io::CheckpointContents& contents,
                      std::vector<std::string>* warnings) {
  TrainingPthOptions options;
  std::vector<std::string> own;
  absl::Status written = WriteTrainingPth(env, path, contents, options, &own);
  if (absl::IsInvalidArgument(written)) {
    // One of a user's: weights are what most programs want.
    own = {absl::StrCat("the optimizer is left out: ", written.message())};
    options.optimizer = false;
    written = WriteTrainingPth(env, path, contents, options, &own);
  }
  warnings->insert(warnings->end(), own.begin(), own.end());
  return written;
}

}  // namespace

absl::Status WriteCheckpointCopy(io::Env& env, const std::string& checkpoint,
                                 const std::string& format,
                                 const io::CheckpointContents& contents,
                                 std::vector<std::string>* warnings) {
  const std::string ending = absl::StrCat(".", format);
  const std::string path = absl::StrCat(checkpoint, ending);
  const std::string temporary = io::JoinPath(
      io::Dirname(path), io::HiddenName(io::kTemporary, io::Basename(path)));
  const auto write_temporary = [&]() -> absl::Status {
    if (format == kPthFormat) {
      return WritePth(env, temporary, contents, warnings);
    }
    GRAPNEL_ASSIGN_OR_RETURN(const std::string section,
                             EvaluatedSection(contents));
    GRAPNEL_ASSIGN_OR_RETURN(const TensorMap weights,
                             SectionWeights(contents, section));
    return io::WriteSafetensors(env, temporary, weights).status();
  };
  const auto write = [&]() -> absl::Status {
    GRAPNEL_RETURN_IF_ERROR(write_temporary());
    return io::AddCopy(env, checkpoint, ending, temporary);
  };
  return WithContext(write(), path);
}

}  // namespace grapnel
