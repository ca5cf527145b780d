// The fake device's memory, pinned host memory and their allocators.

#ifndef GRAPNEL_TESTS_DEVICE_FAKE_MEMORY_H_
#define GRAPNEL_TESTS_DEVICE_FAKE_MEMORY_H_

#include <cstddef>
#include <cstdint>

#include "c10/core/Allocator.h"
#include "c10/core/Device.h"
#include "c10/core/Storage.h"

namespace grapnel {
namespace internal_fake_device {

// Of the thread's current device. Both hand out the same memory; only the first
// is a c10::DeviceAllocator.
c10::Allocator* DeviceAllocator();
c10::Allocator* PlainAllocator();

// Pages of the host that copies needn't wait for.
c10::Allocator* PinnedAllocator();
bool IsPinned(const void* pointer);

// Whose memory it is. Throws c10::Error if it is none of ours.
c10::Device DeviceOf(const void* pointer);

// Opens the block that begins at `base` to the host until it is closed as
// often. Null is taken and does nothing.
void OpenBlock(const void* base);
void CloseBlock(const void* base);

// Gives a storage of the device `size` bytes, the first of them as before.
void ResizeStorage(const c10::Storage& storage, size_t size);

int64_t BytesInUse();
int64_t NumEmptied();

}  // namespace internal_fake_device
}  // namespace grapnel

#endif  // GRAPNEL_TESTS_DEVICE_FAKE_MEMORY_H_
