#include "grapnel/runner/section_weights.h"

#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/io/checkpoint_manifest.pb.h"
#include "grapnel/runner/run_sections.h"

namespace grapnel {

absl::StatusOr<std::string> EvaluatedSection(
    const io::CheckpointContents& contents) {
  const io::v1::CheckpointManifest& manifest = contents.manifest();
  if (manifest.has_evaluated_section()) {
    const std::string& name = manifest.evaluated_section();
    return contents.FindSection(name) != nullptr ? name : kModelSection;
  }
  // Of before there was that field, or of a loop without a runner.
  std::vector<std::string> averages;
  for (const auto& [name, tensors] : contents.sections) {
    if (name == "ema" || absl::StartsWith(name, "ema_")) {
      averages.push_back(name);
    }
  }
  if (averages.empty()) return kModelSection;
  if (averages.size() == 1) return averages[0];
  return absl::InvalidArgumentError(
      absl::StrCat("doesn't say which of its averages is evaluated: ",
                   absl::StrJoin(averages, ", ")));
}

absl::StatusOr<TensorMap> SectionWeights(const io::CheckpointContents& contents,
                                         absl::string_view section) {
  const TensorMap* const chosen = contents.FindSection(section);
  if (chosen == nullptr) {
    return absl::NotFoundError(
        absl::StrCat("has no section \"", section, "\""));
  }
  const TensorMap* const model = contents.FindSection(kModelSection);
  if (model == nullptr) return *chosen;
  TensorMap weights;
  for (const NamedTensor& named : *model) {
    const at::Tensor* const own = chosen->Find(named.name);
    GRAPNEL_RETURN_IF_ERROR(
        weights.Add(named.name, own != nullptr ? *own : named.tensor));
  }
  for (const NamedTensor& named : *chosen) {
    if (model->Find(named.name) != nullptr) continue;
    GRAPNEL_RETURN_IF_ERROR(weights.Add(named.name, named.tensor));
  }
  return weights;
}

}  // namespace grapnel
