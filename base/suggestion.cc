#include "grapnel/base/suggestion.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace grapnel {
namespace {

// Optimal string alignment distance: insertions, deletions, substitutions and
// exchanges of neighbours.
size_t Distance(absl::string_view a, absl::string_view b) {
  std::vector<std::vector<size_t>> d(a.size() + 1,
                                     std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) d[i][0] = i;
  for (size_t j = 0; j <= b.size(); ++j) d[0][j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    for (size_t j = 1; j <= b.size(); ++j) {
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1,
                          d[i - 1][j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
      }
    }
  }
  return d[a.size()][b.size()];
}

}  // namespace

std::string ClosestName(absl::string_view typed,
                        const std::vector<std::string>& candidates) {
  std::string closest;
  size_t best = std::max<size_t>(1, typed.size() / 3) + 1;
  for (const std::string& candidate : candidates) {
    const size_t distance = Distance(typed, candidate);
    if (distance < best) {
      best = distance;
      closest = candidate;
    }
  }
  return closest;
}

std::string DidYouMean(absl::string_view typed,
                       const std::vector<std::string>& candidates) {
  const std::string closest = ClosestName(typed, candidates);
  if (closest.empty()) return "";
  return absl::StrCat("; did you mean \"", closest, "\"?");
}

}  // namespace grapnel
