#include "grapnel/base/device_allocator.h"

#include <cstddef>

#include "c10/core/Allocator.h"
#include "c10/core/CachingDeviceAllocator.h"

namespace grapnel {

c10::DeviceAllocator* FindDeviceAllocator(c10::DeviceType type) {
  if (type == c10::DeviceType::CPU) return nullptr;
  // c10::getDeviceAllocator asserts that it is one.
  auto* const allocator =
      dynamic_cast<c10::DeviceAllocator*>(c10::GetAllocator(type));
  return allocator != nullptr && allocator->initialized() ? allocator : nullptr;
}

std::optional<int64_t> TakePeakBytes(c10::Device device) {
  c10::DeviceAllocator* const allocator = FindDeviceAllocator(device.type());
  if (allocator == nullptr) return std::nullopt;
  const auto all =
      static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  const int64_t peak =
      allocator->getDeviceStats(device.index()).allocated_bytes[all].peak;
  allocator->resetPeakStats(device.index());
  return peak;
}

}  // namespace grapnel
