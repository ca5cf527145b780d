#include "grapnel/data/loader_config.h"

#include "absl/strings/str_cat.h"
#include "grapnel/data/data.pb.h"

namespace grapnel {
namespace {

constexpr int kMaxWorkers = 1024;
constexpr int kDefaultPrefetchFactor = 2;

}  // namespace

absl::Status CheckLoaderConfig(const data::v1::DataLoaderConfig& config) {
  if (!config.has_batch_size()) {
    return absl::InvalidArgumentError("batch_size: must be set");
  }
  if (config.batch_size() < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("batch_size: must be >= 1, is ", config.batch_size()));
  }
  if (config.num_workers() < 0 || config.num_workers() > kMaxWorkers) {
    return absl::InvalidArgumentError(
        absl::StrCat("num_workers: must be in 0..", kMaxWorkers, ", is ",
                     config.num_workers()));
  }
  if (config.has_prefetch_factor() && config.prefetch_factor() < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "prefetch_factor: must be >= 1, is ", config.prefetch_factor()));
  }
  return absl::OkStatus();
}

int64_t PrefetchFactor(const data::v1::DataLoaderConfig& config) {
  return config.has_prefetch_factor() ? config.prefetch_factor()
                                      : kDefaultPrefetchFactor;
}

}  // namespace grapnel
