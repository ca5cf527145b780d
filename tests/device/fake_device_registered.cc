// Linked into a program, makes the fake device known from its start.

#include "grapnel/tests/device/fake_device.h"

namespace grapnel {
namespace {

const c10::Device registered = FakeDevice();

}  // namespace
}  // namespace grapnel
