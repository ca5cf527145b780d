// The weights that a checkpoint has for a model: the trained ones, or an
// average.

#ifndef GRAPNEL_RUNNER_SECTION_WEIGHTS_H_
#define GRAPNEL_RUNNER_SECTION_WEIGHTS_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/io/checkpoint.h"

namespace grapnel {

// The section that evaluations of the run see: "model", or an average.
// kInvalidArgument if a checkpoint that doesn't say so has several averages.
absl::StatusOr<std::string> EvaluatedSection(
    const io::CheckpointContents& contents);

// The tensors of `section`. What an average lacks are the model's, and the
// order is the model's, with what the model lacks behind it. kNotFound if there
// is no such section.
absl::StatusOr<TensorMap> SectionWeights(const io::CheckpointContents& contents,
                                         absl::string_view section);

}  // namespace grapnel

#endif  // GRAPNEL_RUNNER_SECTION_WEIGHTS_H_
