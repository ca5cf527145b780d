// NCCL, for a group whose tensors are on devices of CUDA.

#ifndef GRAPNEL_DIST_C10D_NCCL_H_
#define GRAPNEL_DIST_C10D_NCCL_H_

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "c10/util/intrusive_ptr.h"
#include "torch/csrc/distributed/c10d/Backend.hpp"
#include "torch/csrc/distributed/c10d/Store.hpp"

namespace grapnel {

// NCCL's end for `rank`. kUnimplemented in a build without it: it is in those
// with --config=cuda of a LibTorch that has NCCL and its headers.
//
// c10d ends the process when a collective is `timeout` late, unless the
// environment sets TORCH_NCCL_ASYNC_ERROR_HANDLING=0.
absl::StatusOr<c10::intrusive_ptr<c10d::Backend>> MakeNccl(
    const c10::intrusive_ptr<c10d::Store>& store, int rank, int world_size,
    absl::Duration timeout);

}  // namespace grapnel

#endif  // GRAPNEL_DIST_C10D_NCCL_H_
