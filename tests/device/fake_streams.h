// Which device, and which of its streams, a thread is on.

#ifndef GRAPNEL_TESTS_DEVICE_FAKE_STREAMS_H_
#define GRAPNEL_TESTS_DEVICE_FAKE_STREAMS_H_

#include "c10/core/Device.h"
#include "c10/core/DeviceType.h"
#include "c10/core/Stream.h"

namespace grapnel {
namespace internal_fake_device {

constexpr c10::DeviceType kType = c10::DeviceType::PrivateUse1;
constexpr c10::DeviceIndex kNumDevices = 2;
constexpr int kNumStreams = 5;  // Of each: the default one, 0, and a pool.

// Of this thread.
c10::DeviceIndex CurrentDevice();
c10::DeviceIndex ExchangeDevice(c10::DeviceIndex index);
c10::Stream CurrentStream(c10::DeviceIndex index);
c10::Stream ExchangeStream(const c10::Stream& stream);

// Another of the pool at each call.
c10::Stream NextStream(c10::DeviceIndex index);

// Makes a device the thread's current one; the one it was comes back at the
// end.
class OnDevice {
 public:
  // -1: stays where it is.
  explicit OnDevice(c10::DeviceIndex index)
      : before_(ExchangeDevice(index < 0 ? CurrentDevice() : index)) {}
  ~OnDevice() { ExchangeDevice(before_); }

  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  const c10::DeviceIndex before_;
};

}  // namespace internal_fake_device
}  // namespace grapnel

#endif  // GRAPNEL_TESTS_DEVICE_FAKE_STREAMS_H_
