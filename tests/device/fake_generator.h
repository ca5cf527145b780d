// What operators on the fake device draw from.

#ifndef GRAPNEL_TESTS_DEVICE_FAKE_GENERATOR_H_
#define GRAPNEL_TESTS_DEVICE_FAKE_GENERATOR_H_

#include <mutex>

#include "ATen/core/Generator.h"
#include "c10/core/Device.h"
#include "grapnel/tests/device/fake_device.h"

namespace grapnel {
namespace internal_fake_device {

void UseGenerator(FakeGenerator generator);

// The device's default one: of its own, or the CPU's.
const at::Generator& DefaultGenerator(c10::DeviceIndex index);

// Another, like it.
at::Generator NewGenerator(c10::DeviceIndex index);

// A generator of the CPU with the numbers of one that an operator on a device
// was given, while this lives; what was drawn is then drawn from that one.
class CpuGenerator {
 public:
  // Undefined: the device's default one. Throws c10::Error if operators on the
  // device can't draw from it.
  CpuGenerator(at::Generator generator, c10::Device device);
  ~CpuGenerator();

  CpuGenerator(const CpuGenerator&) = delete;
  CpuGenerator& operator=(const CpuGenerator&) = delete;

  const at::Generator& get() const { return cpu_; }

 private:
  at::Generator generator_;
  at::Generator cpu_;
  std::unique_lock<std::mutex> lock_;  // Of generator_, if that isn't cpu_.
};

}  // namespace internal_fake_device
}  // namespace grapnel

#endif  // GRAPNEL_TESTS_DEVICE_FAKE_GENERATOR_H_
