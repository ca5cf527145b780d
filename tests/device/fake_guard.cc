#include "grapnel/tests/device/fake_guard.h"

#include "c10/core/Allocator.h"
#include "c10/core/Device.h"
#include "c10/core/DeviceType.h"
#include "c10/core/Stream.h"
#include "grapnel/tests/device/fake_order.h"
#include "grapnel/tests/device/fake_streams.h"

namespace grapnel {
namespace internal_fake_device {
namespace {

// LibTorch may ask for the device of a thread without naming it.
c10::DeviceIndex Index(c10::Device device) {
  return device.has_index() ? device.index() : CurrentDevice();
}

// An event that wasn't recorded is null, and so done.
const Clock* Recorded(void* event) { return static_cast<Clock*>(event); }

class FakeGuard final : public c10::impl::DeviceGuardImplInterface {
 public:
  c10::DeviceType type() const override { return kType; }
  c10::DeviceIndex deviceCount() const noexcept override { return kNumDevices; }

  c10::Device getDevice() const override { return {kType, CurrentDevice()}; }
  c10::Device exchangeDevice(c10::Device device) const override {
    return {kType, ExchangeDevice(Index(device))};
  }
  void setDevice(c10::Device device) const override {
    ExchangeDevice(Index(device));
  }
  void uncheckedSetDevice(c10::Device device) const noexcept override {
    ExchangeDevice(Index(device));
  }

  c10::Stream getStream(c10::Device device) const override {
    return CurrentStream(Index(device));
  }
  c10::Stream getDefaultStream(c10::Device device) const override {
    return c10::Stream(c10::Stream::DEFAULT, {kType, Index(device)});
  }
  c10::Stream getStreamFromGlobalPool(c10::Device device, bool) const override {
    return NextStream(Index(device));
  }
  c10::Stream getNewStream(c10::Device device, int) const override {
    return NextStream(Index(device));
  }
  c10::Stream exchangeStream(c10::Stream stream) const override {
    return ExchangeStream(stream);
  }
  bool queryStream(const c10::Stream& stream) const override {
    return IsDone(ClockOf(stream));
  }
  void synchronizeStream(const c10::Stream& stream) const override {
    HostWaits(ClockOf(stream));
  }
  void synchronizeDevice(c10::DeviceIndex index) const override {
    Clock all = {};
    for (c10::StreamId id = 0; id < kNumStreams; ++id) {
      Merge(ClockOf(c10::Stream(c10::Stream::UNSAFE, {kType, index}, id)),
            &all);
    }
    HostWaits(all);
  }
  void recordDataPtrOnStream(const c10::DataPtr& data,
                             const c10::Stream& stream) const override {
    BlockIsRecorded(data.get(), stream);
  }

  void record(void** event, const c10::Stream& stream, c10::DeviceIndex,
              c10::EventFlag) const override {
    if (*event == nullptr) *event = new Clock();
    *static_cast<Clock*>(*event) = ClockOf(stream);
  }
  void block(void* event, const c10::Stream& stream) const override {
    if (event != nullptr) ComeAfter(stream, *Recorded(event));
  }
  bool queryEvent(void* event) const override {
    return event == nullptr || IsDone(*Recorded(event));
  }
  void synchronizeEvent(void* event) const override {
    if (event != nullptr) HostWaits(*Recorded(event));
  }
  void destroyEvent(void* event, c10::DeviceIndex) const noexcept override {
    delete Recorded(event);
  }
};

}  // namespace

const c10::impl::DeviceGuardImplInterface* Guard() {
  static const FakeGuard* const guard = new FakeGuard();
  return guard;
}

}  // namespace internal_fake_device
}  // namespace grapnel
