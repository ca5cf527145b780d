// What checkpoints of older versions don't say of their settings.

#ifndef GRAPNEL_RUNNER_SAVED_SETTINGS_H_
#define GRAPNEL_RUNNER_SAVED_SETTINGS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "grapnel/base/tensor_map.h"

namespace grapnel::optim::v1 {
class OptimWrapperState;
}  // namespace grapnel::optim::v1

namespace grapnel {

// Adds to `*state`, where it doesn't say what options were configured to, what
// they were by `config_text`, the configuration that it was saved under, and a
// batch of `batch_size` samples of all ranks. `params`: the model's. Where that
// can't be told, of an optimizer made in code for example, nothing is added.
void AddConfiguredOptions(const std::string& config_text, int64_t batch_size,
                          const std::vector<NamedTensor>& params,
                          optim::v1::OptimWrapperState* state);

}  // namespace grapnel

#endif  // GRAPNEL_RUNNER_SAVED_SETTINGS_H_
