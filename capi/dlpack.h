// Tensors that share memory with another library, by DLPack 1.x.
//
// LibTorch's own import believes what the struct says: some mistakes in it end
// the process, others give a tensor that reads where it must not. So the struct
// is checked here, and LibTorch sees only sizes, strides and a pointer.

#ifndef GRAPNEL_CAPI_DLPACK_H_
#define GRAPNEL_CAPI_DLPACK_H_

#include "absl/status/status.h"
#include "grapnel/capi/handles.h"

struct DLManagedTensorVersioned;

namespace grapnel::capi {

// A tensor in the memory of `dlpack`, whose deleter runs, if there is one, when
// the last reference to it goes; and its read-only flag. What a struct can't
// tell, such as how long the memory really is, isn't checked.
//   kInvalidArgument: a field that is malformed; names it.
//   kUnimplemented: a type or a device that isn't supported, or another major
//     version.
// After an error nothing was taken.
absl::Status ImportDlpack(DLManagedTensorVersioned* dlpack,
                          grapnel_tensor* out);

// The other way round; whoever gets it calls its deleter.
absl::Status ExportDlpack(const grapnel_tensor& tensor,
                          DLManagedTensorVersioned** out);

}  // namespace grapnel::capi

#endif  // GRAPNEL_CAPI_DLPACK_H_
