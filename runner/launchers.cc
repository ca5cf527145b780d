// Joins ranks by c10d.

#include <atomic>
#include <cmath>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "grapnel/base/device.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/dist/c10d_process_group.h"
#include "grapnel/dist/ddp/ddp_reducer.h"
#include "grapnel/dist/place.h"
#include "grapnel/dist/process_group.h"
#include "grapnel/runner/launcher.h"
#include "grapnel/runner/runner_config.pb.h"

namespace grapnel {
namespace {

using ::grapnel::runner::v1::DistributedConfig;
using ::grapnel::runner::v1::RunnerConfig;

// How often at most a rank comes again that was too early.
constexpr int kMeetAgain = 10;

absl::StatusOr<absl::Duration> Seconds(bool set, double seconds,
                                       const char* field,
                                       absl::Duration otherwise) {
  if (!set) return otherwise;
  if (std::isfinite(seconds) && seconds > 0) return absl::Seconds(seconds);
  return absl::InvalidArgumentError(
      absl::StrCat(field, ": must be finite and > 0, is ", seconds));
}

DdpOptions DdpOptionsOf(const DistributedConfig& config) {
  DdpOptions options;
  options.find_unused_parameters = config.find_unused_parameters();
  options.static_graph = config.static_graph();
  options.broadcast_buffers = config.broadcast_buffers();
  if (config.has_bucket_cap_mb())
    options.bucket_cap_mb = config.bucket_cap_mb();
  switch (config.compression()) {
    case DistributedConfig::FLOAT16:
      options.compression = DdpOptions::Compression::kFloat16;
      break;
    case DistributedConfig::BFLOAT16:
      options.compression = DdpOptions::Compression::kBFloat16;
      break;
    default:
      break;
  }
  return options;
}

absl::StatusOr<JoinOptions> JoinOptionsOf(const RunnerConfig& config,
                                          const Place& place) {
  const DistributedConfig& distributed = config.distributed();
  JoinOptions options;
  GRAPNEL_ASSIGN_OR_RETURN(
      options.timeout,
      Seconds(distributed.has_timeout_seconds(), distributed.timeout_seconds(),
              "timeout_seconds", options.timeout));
  GRAPNEL_ASSIGN_OR_RETURN(
      options.join_timeout,
      Seconds(distributed.has_join_timeout_seconds(),
              distributed.join_timeout_seconds(), "join_timeout_seconds",
              options.join_timeout));
  options.own_connections = distributed.sync_batch_norm();
  if (config.has_device()) {
    const auto device = FindDevice(config.device(), place.local_rank);
    if (!device.ok()) return WithContext(device.status(), "device");
    options.device = *device;
  }
  return options;
}

// The runners of a process meet one after the other, as those of the other
// ranks do: a number tells them apart where a launcher's store has seen both.
//
// Without such a store rank 0 closes its own when it lets go of a runner. Who
// came to the next one before that has waited there in vain, and comes again.
absl::StatusOr<std::unique_ptr<ProcessGroup>> Meet(Place place,
                                                   const JoinOptions& options) {
  static std::atomic<int> met{0};
  const int number = met++;
  if (number == 0) return JoinProcessGroup(place, options);
  place.job = absl::StrCat(place.job, "/", number);
  auto group = JoinProcessGroup(place, options);
  const bool may_be_early = place.rank != 0 && !place.launcher_listens;
  for (int i = 0; may_be_early && i < kMeetAgain &&
                  (absl::IsUnavailable(group.status()) ||
                   absl::IsFailedPrecondition(group.status()));
       ++i) {
    absl::SleepFor(absl::Milliseconds(200));
    auto again = JoinProcessGroup(place, options);
    // It was no other meeting's store, but this one's, which has failed.
    if (absl::IsAlreadyExists(again.status())) break;
    group = std::move(again);
  }
  return group;
}

absl::StatusOr<JoinedRanks> Join(const RunnerConfig& config,
                                 const std::atomic<int>* interrupt) {
  const auto place = [&]() -> absl::StatusOr<Place> {
    GRAPNEL_ASSIGN_OR_RETURN(const Launcher launcher,
                             ParseLauncher(config.launcher()));
    return FindPlace(launcher);
  }();
  if (!place.ok()) return WithContext(place.status(), "launcher");
  auto options = JoinOptionsOf(config, *place);
  if (!options.ok()) return WithContext(options.status(), "distributed");
  options->interrupt = interrupt;
  JoinedRanks joined;
  auto group = Meet(*place, *options);
  if (!group.ok()) return WithContext(group.status(), "launcher");
  joined.group = *std::move(group);
  joined.make_gradient_reducer = [ddp = DdpOptionsOf(config.distributed())](
                                     ProcessGroup& group,
                                     const std::vector<NamedTensor>& params,
                                     const std::vector<NamedTensor>& buffers) {
    return CreateDdpReducer(group, params, buffers, ddp);
  };
  return joined;
}

const bool is_registered = [] {
  RegisterJoinRanks(&Join);
  return true;
}();

}  // namespace
}  // namespace grapnel
