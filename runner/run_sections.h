// What the sections of tensors are called that a run's checkpoint has for its
// own parts. Any other is what hooks add: an average of the model, as "ema".

#ifndef GRAPNEL_RUNNER_RUN_SECTIONS_H_
#define GRAPNEL_RUNNER_RUN_SECTIONS_H_

#include "absl/strings/string_view.h"

namespace grapnel {

inline constexpr char kModelSection[] = "model";
inline constexpr char kOptimizerSection[] = "optimizer";
inline constexpr char kGradientsSection[] = "gradients";
inline constexpr char kHooksSection[] = "hooks";
inline constexpr char kRankBuffersSection[] = "rank_buffers";

inline constexpr absl::string_view kRunSections[] = {
    kModelSection, kOptimizerSection, kGradientsSection, kHooksSection,
    kRankBuffersSection};

}  // namespace grapnel

#endif  // GRAPNEL_RUNNER_RUN_SECTIONS_H_
