// Operators on the fake device.

#ifndef GRAPNEL_TESTS_DEVICE_FAKE_OPERATORS_H_
#define GRAPNEL_TESTS_DEVICE_FAKE_OPERATORS_H_

namespace grapnel {
namespace internal_fake_device {

// Tells LibTorch's dispatcher of them. Once.
void RegisterOperators();

// And which of them autocast runs in which type. Once.
void RegisterAutocast();

}  // namespace internal_fake_device
}  // namespace grapnel

#endif  // GRAPNEL_TESTS_DEVICE_FAKE_OPERATORS_H_
