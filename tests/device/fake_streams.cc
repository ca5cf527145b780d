#include "grapnel/tests/device/fake_streams.h"

#include <array>
#include <atomic>

#include "c10/util/Exception.h"

namespace grapnel {
namespace internal_fake_device {
namespace {

thread_local c10::DeviceIndex current_device = 0;
thread_local std::array<c10::StreamId, kNumDevices> current_streams = {};

}  // namespace

c10::DeviceIndex CurrentDevice() { return current_device; }

c10::DeviceIndex ExchangeDevice(c10::DeviceIndex index) {
  TORCH_CHECK(index >= 0 && index < kNumDevices,
              "there is no device fake:", static_cast<int>(index));
  const c10::DeviceIndex before = current_device;
  current_device = index;
  return before;
}

c10::Stream CurrentStream(c10::DeviceIndex index) {
  return c10::Stream(c10::Stream::UNSAFE, {kType, index},
                     current_streams.at(index));
}

c10::Stream ExchangeStream(const c10::Stream& stream) {
  const c10::Stream before = CurrentStream(stream.device_index());
  current_streams.at(stream.device_index()) = stream.id();
  return before;
}

c10::Stream NextStream(c10::DeviceIndex index) {
  static std::atomic<unsigned> given{0};
  return c10::Stream(c10::Stream::UNSAFE, {kType, index},
                     1 + given++ % (kNumStreams - 1));
}

}  // namespace internal_fake_device
}  // namespace grapnel
