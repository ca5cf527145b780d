// What ATen/autocast_mode.h declares, as far as it is used here. That one
// brings all of ATen, 0.4 of torch/torch.h. Another return type there is seen
// by the compiler, in autocast_test.cc, which includes both; other parameters
// by the linker.

#ifndef GRAPNEL_OPTIM_AUTOCAST_MODE_H_
#define GRAPNEL_OPTIM_AUTOCAST_MODE_H_

#include "c10/core/Device.h"
#include "c10/core/ScalarType.h"

namespace at::autocast {

bool is_autocast_enabled(c10::DeviceType device_type);
void set_autocast_enabled(c10::DeviceType device_type, bool enabled);
c10::ScalarType get_autocast_dtype(c10::DeviceType device_type);
void set_autocast_dtype(c10::DeviceType device_type, c10::ScalarType dtype);
bool is_autocast_cache_enabled();
void set_autocast_cache_enabled(bool enabled);
int increment_nesting();
int decrement_nesting();
void clear_cache();

}  // namespace at::autocast

#endif  // GRAPNEL_OPTIM_AUTOCAST_MODE_H_
