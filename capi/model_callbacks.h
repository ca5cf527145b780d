// Models of callbacks.

#ifndef GRAPNEL_CAPI_MODEL_CALLBACKS_H_
#define GRAPNEL_CAPI_MODEL_CALLBACKS_H_

#include <memory>

#include "absl/status/statusor.h"
#include "grapnel/capi/callbacks.h"
#include "grapnel/capi/handles.h"
#include "grapnel/grapnel.h"
#include "grapnel/models/model.h"

namespace grapnel::capi {

// `buffers` may be null. Shares the tensors' memory; the handles stay as they
// are. kInvalidArgument for callbacks that aren't as grapnel.h says, and,
// naming the tensor, for one that can't be trained.
absl::StatusOr<Made<std::unique_ptr<Model>>> MakeModel(
    const grapnel_model_callbacks* callbacks, const grapnel_tensors& parameters,
    const grapnel_tensors* buffers, void* user_data);

}  // namespace grapnel::capi

#endif  // GRAPNEL_CAPI_MODEL_CALLBACKS_H_
