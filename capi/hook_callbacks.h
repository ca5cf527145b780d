// Hooks of callbacks.

#ifndef GRAPNEL_CAPI_HOOK_CALLBACKS_H_
#define GRAPNEL_CAPI_HOOK_CALLBACKS_H_

#include <string>

#include "absl/status/statusor.h"
#include "grapnel/capi/callbacks.h"
#include "grapnel/grapnel.h"
#include "grapnel/runner/hook_registry.h"

namespace grapnel::capi {

// A hook that acts at the stages of the callbacks' mask and at no others.
// `name` isn't empty. kInvalidArgument for callbacks that aren't as grapnel.h
// says.
absl::StatusOr<Made<ScheduledHook>> MakeHook(
    std::string name, const grapnel_hook_callbacks* callbacks, void* user_data);

}  // namespace grapnel::capi

#endif  // GRAPNEL_CAPI_HOOK_CALLBACKS_H_
