// "did you mean ...?"

#ifndef GRAPNEL_BASE_SUGGESTION_H_
#define GRAPNEL_BASE_SUGGESTION_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace grapnel {

// The candidate that `typed` is most likely a misspelling of, or "" if none is
// near: at most a third of its letters, and at least one, may be wrong,
// missing, extra or exchanged with a neighbour.
std::string ClosestName(absl::string_view typed,
                        const std::vector<std::string>& candidates);

// "; did you mean \"momentum\"?", or "" if no candidate is near.
std::string DidYouMean(absl::string_view typed,
                       const std::vector<std::string>& candidates);

}  // namespace grapnel

#endif  // GRAPNEL_BASE_SUGGESTION_H_
