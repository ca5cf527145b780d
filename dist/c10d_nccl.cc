#include "grapnel/dist/c10d_nccl.h"

#include "absl/status/status.h"

#ifdef GRAPNEL_NCCL
#include <chrono>
#include <utility>

#include "grapnel/base/status_macros.h"
#include "grapnel/base/torch_status.h"
#include "torch/csrc/distributed/c10d/PrefixStore.hpp"
#include "torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp"
#endif

namespace grapnel {

#ifdef GRAPNEL_NCCL

absl::StatusOr<c10::intrusive_ptr<c10d::Backend>> MakeNccl(
    const c10::intrusive_ptr<c10d::Store>& store, int rank, int world_size,
    absl::Duration timeout) {
  c10::intrusive_ptr<c10d::Backend> backend;
  GRAPNEL_RETURN_IF_ERROR(CatchAsStatus([&] {
    auto options = c10d::ProcessGroupNCCL::Options::create();
    options->timeout =
        std::chrono::milliseconds(absl::ToInt64Milliseconds(timeout));
    backend = c10::make_intrusive<c10d::ProcessGroupNCCL>(
        c10::make_intrusive<c10d::PrefixStore>("nccl", store), rank, world_size,
        std::move(options));
    return absl::OkStatus();
  }));
  return backend;
}

#else

absl::StatusOr<c10::intrusive_ptr<c10d::Backend>> MakeNccl(
    const c10::intrusive_ptr<c10d::Store>&, int, int, absl::Duration) {
  return absl::UnimplementedError("this build is without NCCL");
}

#endif

}  // namespace grapnel
