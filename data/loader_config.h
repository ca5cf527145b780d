// What loaders of all kinds take of their configuration.

#ifndef GRAPNEL_DATA_LOADER_CONFIG_H_
#define GRAPNEL_DATA_LOADER_CONFIG_H_

#include <cstdint>

#include "absl/status/status.h"

namespace grapnel::data::v1 {
class DataLoaderConfig;
}  // namespace grapnel::data::v1

namespace grapnel {

// kInvalidArgument, naming the field, unless batch_size, num_workers and
// prefetch_factor are as data.proto says.
absl::Status CheckLoaderConfig(const data::v1::DataLoaderConfig& config);

// prefetch_factor, or its default.
int64_t PrefetchFactor(const data::v1::DataLoaderConfig& config);

}  // namespace grapnel

#endif  // GRAPNEL_DATA_LOADER_CONFIG_H_
