#include "grapnel/tests/device/fake_generator.h"

#include <array>
#include <atomic>
#include <cstdint>
#include <utility>

#include "ATen/CPUGeneratorImpl.h"
#include "ATen/core/Tensor.h"
#include "c10/core/DispatchKeySet.h"
#include "c10/util/Exception.h"
#include "grapnel/tests/device/fake_streams.h"

namespace grapnel {
namespace internal_fake_device {
namespace {

// Numbers and state are those of a generator of the CPU; the CPU's operators
// don't take it.
class OwnGenerator final : public at::CPUGeneratorImpl {
 public:
  OwnGenerator(uint64_t seed, c10::DeviceIndex index)
      : at::CPUGeneratorImpl(seed) {
    device_ = c10::Device(kType, index);
    key_set_ = c10::DispatchKeySet(c10::DispatchKey::PrivateUse1);
  }

 private:
  OwnGenerator* clone_impl() const override {
    auto* const clone = new OwnGenerator(0, device().index());
    clone->set_state(*get_state());
    return clone;
  }
};

std::atomic<FakeGenerator> used{FakeGenerator::kOwn};

// Not a default seed of LibTorch's, which would make it equal the CPU's.
constexpr uint64_t kSeed = 20161;

c10::DeviceIndex Indexed(c10::DeviceIndex index) {
  return index < 0 ? CurrentDevice() : index;
}

}  // namespace

void UseGenerator(FakeGenerator generator) { used = generator; }

const at::Generator& DefaultGenerator(c10::DeviceIndex index) {
  if (used == FakeGenerator::kCpus) return at::detail::getDefaultCPUGenerator();
  static const auto* const own = new std::array<at::Generator, kNumDevices>{
      at::make_generator<OwnGenerator>(kSeed, 0),
      at::make_generator<OwnGenerator>(kSeed + 1, 1)};
  return own->at(Indexed(index));
}

at::Generator NewGenerator(c10::DeviceIndex index) {
  if (used == FakeGenerator::kCpus) return at::detail::createCPUGenerator();
  return at::make_generator<OwnGenerator>(kSeed, Indexed(index));
}

CpuGenerator::CpuGenerator(at::Generator generator, c10::Device device)
    : generator_(std::move(generator)) {
  if (!generator_.defined()) generator_ = DefaultGenerator(device.index());
  if (generator_.device().is_cpu()) {
    TORCH_CHECK(used == FakeGenerator::kCpus, "Expected a '", device,
                "' generator device but found 'cpu'");
    cpu_ = generator_;
    return;
  }
  TORCH_CHECK(generator_.device() == device, "Expected a '", device,
              "' generator device but found '", generator_.device(), "'");
  lock_ = std::unique_lock<std::mutex>(generator_.mutex());
  cpu_ = at::detail::createCPUGenerator();
  cpu_.set_state(generator_.get_state());
}

CpuGenerator::~CpuGenerator() {
  if (lock_.owns_lock()) generator_.set_state(cpu_.get_state());
}

}  // namespace internal_fake_device
}  // namespace grapnel
