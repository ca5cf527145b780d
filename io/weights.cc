#include "grapnel/io/weights.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/io/safetensors.h"

namespace grapnel {
namespace io {
namespace {

constexpr char kModel[] = "model";
constexpr char kSafetensors[] = ".safetensors";

}  // namespace

absl::StatusOr<CheckpointContents> ReadWeightsAndMore(Env& env,
                                                      const std::string& path) {
  CheckpointContents contents;
  if (env.IsDirectory(path) || !env.FileExists(path)) {
    GRAPNEL_ASSIGN_OR_RETURN(contents, ReadCheckpoint(env, path));
  } else if (IsWeightsFile(path)) {
    GRAPNEL_ASSIGN_OR_RETURN(TensorMap tensors, ReadSafetensors(env, path));
    contents.sections.emplace_back(kModel, std::move(tensors));
  } else {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": is neither a checkpoint's directory nor a ",
                     kSafetensors, " file"));
  }
  if (contents.FindSection(kModel) == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": has no section \"", kModel, "\""));
  }
  return contents;
}

absl::StatusOr<TensorMap> ReadWeights(Env& env, const std::string& path) {
  GRAPNEL_ASSIGN_OR_RETURN(const CheckpointContents contents,
                           ReadWeightsAndMore(env, path));
  return *contents.FindSection(kModel);
}

bool IsWeightsFile(absl::string_view path) {
  return absl::EndsWith(path, kSafetensors);
}

}  // namespace io
}  // namespace grapnel
