#include "grapnel/examples/digits_ddp/same_weights_hook.h"

#include "ATen/core/Tensor.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/dist/process_group.h"
#include "grapnel/models/model.h"

namespace examples {

absl::Status SameWeightsHook::AfterTrainEpoch(grapnel::RunContext& run) {
  grapnel::ProcessGroup& ranks = run.process_group();
  if (ranks.world_size() == 1) return absl::OkStatus();
  return grapnel::CatchAsStatus([&]() -> absl::Status {
    for (const grapnel::NamedTensor& parameter : run.model().parameters()) {
      const at::Tensor mine = parameter.tensor.detach();
      const at::Tensor first = mine.clone();
      GRAPNEL_RETURN_IF_ERROR(ranks.Broadcast(first, /*root=*/0));
      if (!first.equal(mine)) {
        // What one rank returns ends all of them, with this message.
        return absl::DataLossError(
            absl::StrCat(parameter.name, ": isn't that of rank 0"));
      }
    }
    return absl::OkStatus();
  });
}

}  // namespace examples
