// The fake device's streams and events, as LibTorch asks for them.

#ifndef GRAPNEL_TESTS_DEVICE_FAKE_GUARD_H_
#define GRAPNEL_TESTS_DEVICE_FAKE_GUARD_H_

#include "c10/core/impl/DeviceGuardImplInterface.h"

namespace grapnel {
namespace internal_fake_device {

const c10::impl::DeviceGuardImplInterface* Guard();

}  // namespace internal_fake_device
}  // namespace grapnel

#endif  // GRAPNEL_TESTS_DEVICE_FAKE_GUARD_H_
