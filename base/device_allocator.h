// The memory that LibTorch keeps of a device.

#ifndef GRAPNEL_BASE_DEVICE_ALLOCATOR_H_
#define GRAPNEL_BASE_DEVICE_ALLOCATOR_H_

#include <cstdint>
#include <optional>

#include "c10/core/Device.h"

namespace c10 {
struct DeviceAllocator;
}  // namespace c10

namespace grapnel {

// By c10's interface, which needs nothing of a backend. Null if nobody has used
// it yet, so that asking doesn't take the device, or if it is one of another
// kind, which keeps nothing or can't be asked.
c10::DeviceAllocator* FindDeviceAllocator(c10::DeviceType type);

// The most bytes of `device` that tensors had at once since the last call, by
// anyone, for it starts counting anew. Nothing if there is no such allocator.
// Waits for nothing. Throws what LibTorch throws.
std::optional<int64_t> TakePeakBytes(c10::Device device);

}  // namespace grapnel

#endif  // GRAPNEL_BASE_DEVICE_ALLOCATOR_H_
