// Which device and stream of it a thread is on.

#ifndef GRAPNEL_TESTS_DEVICE_FAKE_STREAMS_H_
#define GRAPNEL_TESTS_DEVICE_FAKE_STREAMS_H_

#include "c10/core/Device.h"
#include "c10/core/DeviceType.h"
#include "c10/core/impl/DeviceGuardImplInterface.h"

namespace grapnel {
namespace internal_fake_device {

constexpr c10::DeviceType kType = c10::DeviceType::PrivateUse1;
constexpr c10::DeviceIndex kNumDevices = 2;

// Of this thread.
c10::DeviceIndex CurrentDevice();
c10::DeviceIndex ExchangeDevice(c10::DeviceIndex index);

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

// Streams and events, as LibTorch asks for them.
const c10::impl::DeviceGuardImplInterface* StreamsForLibTorch();

}  // namespace internal_fake_device
}  // namespace grapnel

#endif  // GRAPNEL_TESTS_DEVICE_FAKE_STREAMS_H_
