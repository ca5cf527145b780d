#include "grapnel/hooks/empty_cache/empty_cache_hook.h"

#include <optional>

#include "ATen/DeviceAccelerator.h"
#include "absl/memory/memory.h"
#include "c10/core/CachingDeviceAllocator.h"
#include "c10/core/DeviceType.h"
#include "grapnel/base/device_allocator.h"
#include "grapnel/base/torch_status.h"
#include "grapnel/runner/hook_registry.h"

namespace grapnel {
namespace {

// By c10's interface, which needs nothing of CUDA: the allocator is there if
// libtorch_cuda is in the process.
absl::Status ReleaseCachedMemory() {
  return CatchAsStatus([] {
    const std::optional<c10::DeviceType> accelerator =
        at::accelerator::getAccelerator();
    if (!accelerator.has_value()) return absl::OkStatus();
    c10::DeviceAllocator* const allocator = FindDeviceAllocator(*accelerator);
    if (allocator != nullptr) allocator->emptyCache();
    return absl::OkStatus();
  });
}

}  // namespace

absl::StatusOr<std::unique_ptr<EmptyCacheHook>> EmptyCacheHook::Create(
    const Config& config) {
  return absl::WrapUnique(new EmptyCacheHook(config));
}

EmptyCacheHook::EmptyCacheHook(const Config& config)
    : before_epoch_(config.before_epoch()),
      after_epoch_(!config.has_after_epoch() || config.after_epoch()),
      after_iter_(config.after_iter()) {}

absl::Status EmptyCacheHook::BeforeEpoch(RunContext&, Mode) {
  return before_epoch_ ? ReleaseCachedMemory() : absl::OkStatus();
}

absl::Status EmptyCacheHook::AfterEpoch(RunContext&, Mode) {
  return after_epoch_ ? ReleaseCachedMemory() : absl::OkStatus();
}

absl::Status EmptyCacheHook::AfterIter(RunContext&, Mode, const IterInfo&) {
  return after_iter_ ? ReleaseCachedMemory() : absl::OkStatus();
}

GRAPNEL_REGISTER_HOOK(EmptyCacheHook);

}  // namespace grapnel
