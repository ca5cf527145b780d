#ifndef GRAPNEL_HOOKS_EMPTY_CACHE_EMPTY_CACHE_HOOK_H_
#define GRAPNEL_HOOKS_EMPTY_CACHE_EMPTY_CACHE_HOOK_H_

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grapnel/hooks/empty_cache/empty_cache_hook.pb.h"
#include "grapnel/runner/hook.h"

namespace grapnel {

// Releases the cached memory of the process's accelerator: that of every device
// of its kind, whatever other models are there. Memory in use stays. Where
// LibTorch finds no accelerator, or none has been used yet, nothing happens.
class EmptyCacheHook final : public Hook {
 public:
  using Config = hooks::v1::EmptyCacheHookConfig;

  static absl::StatusOr<std::unique_ptr<EmptyCacheHook>> Create(
      const Config& config);

  absl::string_view name() const override { return "empty_cache"; }

  absl::Status BeforeEpoch(RunContext& run, Mode mode) override;
  absl::Status AfterEpoch(RunContext& run, Mode mode) override;
  absl::Status AfterIter(RunContext& run, Mode mode,
                         const IterInfo& info) override;

 private:
  explicit EmptyCacheHook(const Config& config);

  const bool before_epoch_;
  const bool after_epoch_;
  const bool after_iter_;
};

}  // namespace grapnel

#endif  // GRAPNEL_HOOKS_EMPTY_CACHE_EMPTY_CACHE_HOOK_H_
