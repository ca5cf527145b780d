#include "grapnel/tests/device/fake_device.h"

#include "ATen/core/Generator.h"
#include "ATen/detail/PrivateUse1HooksInterface.h"
#include "c10/core/Allocator.h"
#include "c10/core/DeviceType.h"
#include "c10/core/Storage.h"
#include "c10/core/impl/DeviceGuardImplInterface.h"
#include "grapnel/tests/device/fake_copies.h"
#include "grapnel/tests/device/fake_generator.h"
#include "grapnel/tests/device/fake_guard.h"
#include "grapnel/tests/device/fake_memory.h"
#include "grapnel/tests/device/fake_operators.h"
#include "grapnel/tests/device/fake_order.h"
#include "grapnel/tests/device/fake_streams.h"

namespace grapnel {

namespace fake = internal_fake_device;

namespace {

class Hooks final : public at::PrivateUse1HooksInterface {
 public:
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }

  c10::DeviceIndex deviceCount() const override { return fake::kNumDevices; }
  c10::DeviceIndex getCurrentDevice() const override {
    return fake::CurrentDevice();
  }
  void setCurrentDevice(c10::DeviceIndex index) const override {
    fake::ExchangeDevice(index);
  }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex index) const override {
    return fake::ExchangeDevice(index);
  }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex index) const override {
    return fake::ExchangeDevice(index);
  }

  const at::Generator& getDefaultGenerator(
      c10::DeviceIndex index) const override {
    return fake::DefaultGenerator(index);
  }
  at::Generator getNewGenerator(c10::DeviceIndex index) const override {
    return fake::NewGenerator(index);
  }

  bool isPinnedPtr(const void* pointer) const override {
    return fake::IsPinned(pointer);
  }
  c10::Allocator* getPinnedMemoryAllocator() const override {
    return fake::PinnedAllocator();
  }
  c10::Device getDeviceFromPtr(void* pointer) const override {
    return fake::DeviceOf(pointer);
  }
  void resizePrivateUse1Bytes(const c10::Storage& storage,
                              size_t size) const override {
    fake::ResizeStorage(storage, size);
  }
};

bool Register() {
  c10::register_privateuse1_backend("fake");
  c10::impl::registerDeviceGuard(fake::kType, fake::Guard());
  c10::SetAllocator(fake::kType, fake::DeviceAllocator());
  at::RegisterPrivateUse1HooksInterface(new Hooks());
  fake::RegisterOperators();
  fake::RegisterAutocast();
  return true;
}

}  // namespace

c10::Device FakeDevice() {
  static const bool is_registered = Register();
  return {is_registered ? fake::kType : c10::DeviceType::CPU, 0};
}

void UseFakeGenerator(FakeGenerator generator) {
  fake::UseGenerator(generator);
}

FakeCopies CountFakeCopies() {
  FakeCopies copies = fake::Copies();
  copies.waits = fake::NumWaits();
  return copies;
}

std::vector<std::string> LastFakeCopies() { return fake::LastCopies(); }

void DelayFakeCopies(bool delay) { fake::SetLate(delay); }

std::vector<std::string> TakeFakeRaces() { return fake::TakeRaces(); }

int64_t FakeBytesInUse() { return fake::BytesInUse(); }

int64_t NumEmptiedFakeCaches() { return fake::NumEmptied(); }

void UsePlainFakeAllocator(bool plain) {
  FakeDevice();
  c10::SetAllocator(fake::kType,
                    plain ? fake::PlainAllocator() : fake::DeviceAllocator());
}

}  // namespace grapnel
