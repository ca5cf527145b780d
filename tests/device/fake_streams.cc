#include "grapnel/tests/device/fake_streams.h"

#include <array>
#include <atomic>

#include "c10/core/Stream.h"
#include "c10/util/Exception.h"

namespace grapnel {
namespace internal_fake_device {
namespace {

constexpr c10::StreamId kNumPooledStreams = 4;

thread_local c10::DeviceIndex current_device = 0;
thread_local std::array<c10::StreamId, kNumDevices> current_streams = {};

class Streams final : public c10::impl::DeviceGuardImplInterface {
 public:
  c10::DeviceType type() const override { return kType; }

  c10::Device exchangeDevice(c10::Device device) const override {
    return {kType, ExchangeDevice(device.index())};
  }
  c10::Device getDevice() const override { return {kType, CurrentDevice()}; }
  void setDevice(c10::Device device) const override {
    ExchangeDevice(device.index());
  }
  void uncheckedSetDevice(c10::Device device) const noexcept override {
    current_device = device.index();
  }
  c10::DeviceIndex deviceCount() const noexcept override { return kNumDevices; }

  c10::Stream getStream(c10::Device device) const override {
    const c10::Device there = Indexed(device);
    return c10::Stream(c10::Stream::UNSAFE, there,
                       current_streams.at(there.index()));
  }
  c10::Stream getDefaultStream(c10::Device device) const override {
    return c10::Stream(c10::Stream::DEFAULT, Indexed(device));
  }
  c10::Stream getStreamFromGlobalPool(c10::Device device, bool) const override {
    return c10::Stream(c10::Stream::UNSAFE, Indexed(device),
                       1 + next_++ % kNumPooledStreams);
  }
  c10::Stream getNewStream(c10::Device device, int) const override {
    return getStreamFromGlobalPool(device, false);
  }
  c10::Stream exchangeStream(c10::Stream stream) const override {
    const c10::Stream before = getStream(stream.device());
    current_streams.at(stream.device_index()) = stream.id();
    return before;
  }
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override {}
  void synchronizeDevice(c10::DeviceIndex) const override {}

  void record(void**, const c10::Stream&, c10::DeviceIndex,
              c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void synchronizeEvent(void*) const override {}

 private:
  static c10::Device Indexed(c10::Device device) {
    return device.has_index() ? device : c10::Device(kType, CurrentDevice());
  }

  mutable std::atomic<c10::StreamId> next_{0};
};

}  // namespace

c10::DeviceIndex CurrentDevice() { return current_device; }

c10::DeviceIndex ExchangeDevice(c10::DeviceIndex index) {
  TORCH_CHECK(index >= 0 && index < kNumDevices,
              "fake device: there is no fake:", static_cast<int>(index));
  const c10::DeviceIndex before = current_device;
  current_device = index;
  return before;
}

const c10::impl::DeviceGuardImplInterface* StreamsForLibTorch() {
  static const Streams* const streams = new Streams();
  return streams;
}

}  // namespace internal_fake_device
}  // namespace grapnel
