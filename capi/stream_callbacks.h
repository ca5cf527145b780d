// Streams of callbacks.

#ifndef GRAPNEL_CAPI_STREAM_CALLBACKS_H_
#define GRAPNEL_CAPI_STREAM_CALLBACKS_H_

#include <memory>

#include "absl/status/statusor.h"
#include "grapnel/capi/callbacks.h"
#include "grapnel/data/iterable_dataset.h"
#include "grapnel/grapnel.h"

namespace grapnel::capi {

// kInvalidArgument for callbacks that aren't as grapnel.h says.
absl::StatusOr<Made<std::unique_ptr<IterableDataset>>> MakeStream(
    const grapnel_stream_callbacks* callbacks, void* user_data);

}  // namespace grapnel::capi

#endif  // GRAPNEL_CAPI_STREAM_CALLBACKS_H_
