#include "grapnel/hooks/sync_buffers/sync_buffers_hook.h"

#include <cstdint>
#include <utility>

#include "ATen/core/Tensor.h"
#include "ATen/ops/view_as_real_ops.h"
#include "absl/memory/memory.h"
#include "c10/core/GradMode.h"
#include "c10/core/ScalarType.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/dist/process_group.h"
#include "grapnel/models/model.h"
#include "grapnel/runner/hook_registry.h"

namespace grapnel {
namespace {

// Buffers of one kind are reduced in one call.
enum class Kind { kFloat, kDouble, kInteger, kBool };

Kind KindOf(const at::Tensor& buffer) {
  const at::ScalarType type = buffer.scalar_type();
  if (type == at::kBool) return Kind::kBool;
  if (at::isIntegralType(type, /*includeBool=*/false)) return Kind::kInteger;
  return type == at::kDouble ? Kind::kDouble : Kind::kFloat;
}

// The type that values are added up in: sums of smaller ones would overflow or
// round.
at::ScalarType SumType(Kind kind) {
  switch (kind) {
    case Kind::kFloat:
      return at::kFloat;
    case Kind::kDouble:
      return at::kDouble;
    case Kind::kInteger:
    case Kind::kBool:
      break;
  }
  return at::kLong;
}

struct Bucket {
  Kind kind;
  at::Device device;
  std::vector<at::Tensor> buffers;
};

// Complex buffers as pairs of numbers. Buckets are in an order that all ranks
// share.
std::vector<Bucket> MakeBuckets(const std::vector<NamedTensor>& buffers) {
  std::vector<Bucket> buckets;
  for (const NamedTensor& named : buffers) {
    const at::Tensor buffer = named.tensor.is_complex()
                                  ? at::_ops::view_as_real::call(named.tensor)
                                  : named.tensor;
    const Kind kind = KindOf(buffer);
    Bucket* found = nullptr;
    for (Bucket& bucket : buckets) {
      if (bucket.kind == kind && bucket.device == buffer.device()) {
        found = &bucket;
      }
    }
    if (found == nullptr) {
      buckets.push_back({kind, buffer.device(), {}});
      found = &buckets.back();
    }
    found->buffers.push_back(buffer);
  }
  return buckets;
}

absl::Status Average(const Bucket& bucket, ProcessGroup& group) {
  std::vector<at::Tensor> flat;
  for (const at::Tensor& buffer : bucket.buffers) {
    flat.push_back(buffer.to(SumType(bucket.kind)).reshape(-1));
  }
  const at::Tensor mean = ops::cat(flat);
  if (bucket.kind == Kind::kBool) {
    GRAPNEL_RETURN_IF_ERROR(group.AllReduce(mean, ReduceOp::kMax));
  } else {
    GRAPNEL_RETURN_IF_ERROR(group.AllReduce(mean, ReduceOp::kSum));
    if (bucket.kind == Kind::kInteger) {
      mean.div_(group.world_size(), "trunc");
    } else {
      mean.div_(group.world_size());
    }
  }
  int64_t offset = 0;
  for (const at::Tensor& buffer : bucket.buffers) {
    const int64_t size = buffer.numel();
    buffer.copy_(mean.narrow(0, offset, size).view(buffer.sizes()));
    offset += size;
  }
  return absl::OkStatus();
}

absl::Status AverageBuffers(RunContext& run) {
  ProcessGroup& group = run.process_group();
  if (group.world_size() == 1) return absl::OkStatus();
  return CatchAsStatus([&]() -> absl::Status {
    const c10::AutoGradMode no_grad(false);
    for (const Bucket& bucket : MakeBuckets(run.model().buffers())) {
      GRAPNEL_RETURN_IF_ERROR(Average(bucket, group));
    }
    return absl::OkStatus();
  });
}

}  // namespace

absl::StatusOr<std::unique_ptr<SyncBuffersHook>> SyncBuffersHook::Create(
    const Config&) {
  return absl::WrapUnique(new SyncBuffersHook());
}

absl::Status SyncBuffersHook::BeforeTrainEpoch(RunContext&) {
  // Also of an iteration-based run that had ended and goes on, with validations
  // in the middle of its one epoch.
  state_.set_synced(false);
  return absl::OkStatus();
}

absl::Status SyncBuffersHook::AfterTrainEpoch(RunContext& run) {
  GRAPNEL_RETURN_IF_ERROR(AverageBuffers(run));
  state_.set_synced(true);
  return absl::OkStatus();
}

absl::Status SyncBuffersHook::BeforeValEpoch(RunContext& run) {
  if (!state_.synced()) GRAPNEL_RETURN_IF_ERROR(AverageBuffers(run));
  state_.set_synced(false);
  return absl::OkStatus();
}

GRAPNEL_REGISTER_HOOK(SyncBuffersHook);

}  // namespace grapnel
