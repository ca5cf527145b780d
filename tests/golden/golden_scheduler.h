// Schedulers of the golden files, in our terms.

#ifndef GRAPNEL_TESTS_GOLDEN_GOLDEN_SCHEDULER_H_
#define GRAPNEL_TESTS_GOLDEN_GOLDEN_SCHEDULER_H_

#include "absl/status/statusor.h"
#include "grapnel/optim/param_scheduler.pb.h"
#include "nlohmann/json.hpp"

namespace grapnel {

// The config for the arguments of one of MMEngine's schedulers, its class under
// "cls" or "type". epoch_length there is convert_to_iter_based here, last_step
// is left out: ours goes on at a step by loading a state.
//   kInvalidArgument: an argument that ours does not have.
absl::StatusOr<optim::v1::ParamSchedulerConfig> GoldenSchedulerConfig(
    const nlohmann::ordered_json& arguments);

}  // namespace grapnel

#endif  // GRAPNEL_TESTS_GOLDEN_GOLDEN_SCHEDULER_H_
