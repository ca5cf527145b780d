// What has to be equal on all ranks before they work together.

#ifndef GRAPNEL_DIST_DDP_AGREEMENT_H_
#define GRAPNEL_DIST_DDP_AGREEMENT_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "grapnel/dist/process_group.h"

namespace grapnel {

struct AgreedItem {
  std::string name;   // For errors: "parameter \"0.weight\"". Unique.
  std::string value;  // Likewise: "[10, 128] Float".
};

// Compares this rank's items, in their order, with rank 0's. A collective.
// Every rank gets the same answer: OK, or kFailedPrecondition, which says of
// the first item that isn't the same everywhere what it is on rank 0 and on the
// first rank where it is something else, and how many more there are.
//
// Costs a few bytes a rank if all is equal; if not, all items of all ranks are
// sent to each.
absl::Status CheckAgreement(const std::vector<AgreedItem>& items,
                            ProcessGroup& group);

}  // namespace grapnel

#endif  // GRAPNEL_DIST_DDP_AGREEMENT_H_
