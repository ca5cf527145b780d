// What must hold of a file of torch.save that was accepted.

#ifndef GRAPNEL_TESTS_FUZZ_PTH_VALUES_H_
#define GRAPNEL_TESTS_FUZZ_PTH_VALUES_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace grapnel {

// Reads a file, refusing foreign objects and then not, and returns the first
// status. Ends the process if one of the values is not what its kind says, a
// tensor reaches beyond its storage, or the two readings contradict each other.
absl::Status ReadPthAndCheck(absl::string_view bytes);

}  // namespace grapnel

#endif  // GRAPNEL_TESTS_FUZZ_PTH_VALUES_H_
